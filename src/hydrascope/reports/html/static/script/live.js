// A prompt is typed, components are ablated and frozen, and the model behind the page answers. Without one, it says so.

import { $, cut, make, oneLine, written } from "./elements.js";
import { measured, page, show, state } from "./data.js";
import { Refused, ask, why } from "./asking.js";
import { drawNetwork, fillGroup, parsed, showHeads, startNetwork, toggled } from "./network.js";
import { tellFound } from "./found.js";
import { showAttention, startAttention } from "./attention.js";
import { showMap, startMap } from "./map.js";
import { choose, redraw, writeAddress } from "./page.js";

const live = page.live;
/** What is asked where nothing else is chosen: as the result that came with the page was measured. */
const EMPTY = {
  ...{ text: "", run: "", ablation: "resample", patches: 15, seed: 0, noise_scale: 3, different_target: false },
  ...{ counterfactual: "", at: "last", subject: "", target: "", heads: "", views: "", ...live?.defaults },
};
/** The controls of the replacement. Each ablation names its own, besides the choice of the ablation. */
const CONTROLS = ["ablation", "patches", "seed", "noise_scale", "different_target", "counterfactual"];
/** Positions that have a name; all others are chosen tokens, counted from the end. */
const NAMED = ["last", "all", "subject", "subject-last"];
/** What a map doesn’t depend on. */
const OTHER = ["run", "at", "subject", "heads", "views"];
const question = { ...EMPTY };
const stored = page.readouts.length > 0; // a result came with the page
let clean = []; // what components write in the clean pass of the prompt that was asked about
let cleanAttention = null; // what its heads attend to
let found = null; // what the run does, as it was answered last
let current = new AbortController();

/** What is asked, as the server takes it. */
function asked() {
  const number = (text) => (text === "" ? null : Number(text));
  const { text, run, ablation, counterfactual, at, subject } = question;
  const heads = question.heads === "" ? [] : [Number(question.heads)];
  const names = ["patches", "seed", "noise_scale", "target"];
  const numbers = Object.fromEntries(names.map((name) => [name, number(question[name])]));
  const different = String(question.different_target) === "true";
  return { text, run, ablation, counterfactual, at, subject, heads, ...numbers, different_target: different };
}

/** What of the question the address holds. */
export function liveAddress() {
  return Object.entries(question).filter(([key, value]) => String(value) !== String(EMPTY[key]));
}

/** Ask what an address asks, if it isn't what was asked already. */
export function readLive(address) {
  if (!live) return;
  const before = JSON.stringify(question);
  for (const key of Object.keys(EMPTY)) question[key] = address.get(key) ?? EMPTY[key];
  if (JSON.stringify(question) === before) return;
  fillForm();
  showMap(null);
  if (question.text) answer("read");
}

function fillForm() {
  $("text").value = question.text;
  $("run-label").value = question.run;
  for (const key of CONTROLS) $(key).value = question[key];
  $("different_target").checked = String(question.different_target) === "true";
  $("subject").value = question.subject;
  showWhere();
  $("heads-of").value = question.heads;
  $("views").value = question.views;
  showHeads(question.heads === "" ? null : question.heads, live.heads, pick);
  fitControls();
}

const showWhere = () => ($("where").value = NAMED.includes(question.at) ? question.at : "chosen");

/** Only what the chosen ablation and positions ask for, and what is true of it. */
function fitControls() {
  $("subject").parentElement.hidden = !question.at.startsWith("subject");
  // An address may name an unknown ablation. The answer to its question is a refusal.
  const unknown = { controls: [], use: `There is no ablation ${question.ablation}.` };
  const { controls, use } = live.ablations.find(({ name }) => name === question.ablation) ?? unknown;
  $("behind").textContent = `${page.model}, on this machine. ${use}`;
  for (const key of CONTROLS) $(key).parentElement.hidden = key !== "ablation" && !controls.includes(key);
}

function change(changed, what = "ablate") {
  // A map is of the prompt, the replacement and the target; the rest makes no difference to it.
  if (Object.keys(changed).some((key) => !OTHER.includes(key))) showMap(null);
  Object.assign(question, changed);
  fitControls();
  writeAddress();
  // Before a prompt is asked about, nothing can be answered.
  return what === "read" || question.text ? answer(what) : null;
}

function pick(name) {
  const how = document.querySelector("input[name=click]:checked").value;
  const run = toggled(question.run, name, how);
  $("run-label").value = run;
  const row = measured() ? page.ablated.findIndex((each) => each.name === name) : -1;
  if (row >= 0 && how === "ablated") choose({ component: row });
  return change({ run }, "run");
}

/** Ask, one after another, what has to be asked anew; whatever was asked before is cancelled. */
async function answer(what) {
  current.abort();
  const mine = (current = new AbortController());
  $("refused").hidden = true;
  $("stop").hidden = false;
  const one = (kind, more = {}) => ask(kind, { question: asked(), ...more }, tellProgress, mine.signal);
  try {
    if (["read", "heads"].includes(what)) {
      const told = await one("read");
      clean = told.components;
      cleanAttention = told.attention;
      if (what === "read") tellTokens(told);
    }
    if (parsed(question.run).ablated.length) {
      drawNetwork($("asked"), question.run, clean, false);
      found = await one("ablate");
      showFound();
      $("live").textContent = $("found-run").firstChild.textContent;
      // On a phone the answer stands below the network: its first sentence is brought on the screen.
      if (matchMedia("(max-width: 40rem)").matches) $("found-run").firstChild.scrollIntoView({ block: "nearest" });
    } else {
      found = null;
      drawNetwork($("asked"), question.run, clean, false);
      const hint = question.run ? "Ablate a component, too: frozen ones have nothing to respond to yet." : "Click a component to ablate it.";
      $("found-next").replaceChildren();
      $("found-run").replaceChildren(make("p", { className: "keys" }, hint));
    }
    showAttention(found ? found.attention : cleanAttention);
    if (showsPrompt() && ["read", "ablate"].includes(what)) {
      const { page: told, arrays } = await one("sweep");
      show(told, arrays);
      await redraw();
    }
    finished(mine, "");
  } catch (error) {
    // It may be of another prompt than stands in the field now.
    const before = error instanceof Refused && !$("asked").hidden ? " (what stands below was asked before)" : "";
    if (mine === current) refuseAnswer(error, before);
  }
}

/** What the run does, read as is chosen now, where it isn’t shown so already. */
export function showFound() {
  if (!found || found.shown === state.sigma) return;
  const read = found.readings[state.sigma];
  found.shown = state.sigma;
  drawNetwork($("asked"), found.runs[0].label, read.components, true);
  tellFound(found, read);
}

const showsPrompt = () => question.views === "prompt" || !stored;

function finished(mine, text) {
  if (mine !== current) return;
  $("examples").hidden ||= !$("asked").hidden;
  $("stop").hidden = true;
  $("far").hidden = true;
  $("doing").textContent = text;
  document.body.dataset.answered = String(Number(document.body.dataset.answered) + 1);
}

function refuseAnswer(error, more = "") {
  const reason = why(error, page.model) + more;
  finished(current, error.name === "AbortError" ? reason : "");
  $("refused").hidden = error.name === "AbortError";
  $("refused").textContent = $("refused").hidden ? "" : reason;
}

function tellProgress({ doing, done, total }) {
  $("doing").textContent = total ? `${doing}: ${done} of ${total}` : `${doing} …`;
  $("far").hidden = !total;
  if (total) Object.assign($("far"), { value: done, max: total });
}

/** The prompt's tokens, and what most likely comes next. */
function tellTokens({ tokens, next, subject }) {
  const places = tokens.map((_, i) => i - tokens.length), of = subject ? places.slice(...subject) : [];
  const named = { last: [-1], all: places, subject: of, "subject-last": of.slice(-1) };
  const chosen = named[question.at] ?? question.at.split(",").map(Number);
  const token = (text, i) => {
    const place = places[i], is = of.includes(place) ? "subject" : "";
    const made = make("button", { type: "button", className: `token ${is}`, onclick: () => pickToken(place) }, oneLine(text));
    made.setAttribute("aria-label", `token ${i}, “${oneLine(text)}”${is && ", subject"}`);
    made.setAttribute("aria-pressed", String(chosen.includes(place)));
    made.dir = "auto";
    return made;
  };
  fillGroup("tokens", tokens.map(token));
  const first = next.length ? String(next[0].token) : "";
  const target = ({ token: id, text, probability }, i) => {
    const share = `${written(100 * probability, 1)}%`;
    const made = make("button", { type: "button", className: "token", onclick: () => pickTarget(i ? String(id) : "") });
    made.append(make("bdi", {}, `“${oneLine(cut(text, 40))}”`), ` ${share}`);
    made.setAttribute("aria-pressed", String((question.target || first) === String(id)));
    return made;
  };
  fillGroup("next", next.map(target));
  $("asked").hidden = false;
}

function pickToken(place) {
  const before = NAMED.includes(question.at) ? [] : question.at.split(",").map(Number);
  const places = before.includes(place) ? before.filter((each) => each !== place) : [...before, place];
  const at = places.length ? places.sort((one, other) => one - other).join(",") : "last";
  change({ at }, "read");
  showWhere();
}

const pickTarget = (target) => change({ target }, "read");

async function askForMap() {
  current.abort();
  const mine = (current = new AbortController());
  $("refused").hidden = true;
  $("stop").hidden = false;
  try {
    const map = await ask("map", { question: asked() }, tellProgress, mine.signal);
    if (mine !== current) return;
    showMap(map);
    finished(mine, "");
  } catch (error) {
    if (mine === current) refuseAnswer(error);
  }
}

async function saveFound(event) {
  event.preventDefault();
  current.abort();
  const mine = (current = new AbortController());
  $("refused").hidden = true;
  $("stop").hidden = false;
  const more = { name: $("save-name").value.trim(), everyone: $("everyone").checked };
  try {
    const { result, report, prompts } = await ask("save", { question: asked(), ...more }, tellProgress, mine.signal);
    const many = prompts === 1 ? "1 prompt" : `${prompts.toLocaleString("en")} prompts`;
    finished(mine, `Saved ${many}: ${result}, and its report: ${report}`);
  } catch (error) {
    if (mine === current) refuseAnswer(error);
  }
}

/** The text of a prompt of the views is asked about, as if it had been typed. */
export function askAbout(text) {
  $("text").value = text;
  $("question").scrollIntoView({ block: "start" });
  $("subject").value = "";
  change({ text, target: "", subject: "" }, "read");
}

/** Prompts to click, until something is asked. */
function showExamples() {
  $("examples").hidden = !live.examples.length;
  for (const { text, run, shows } of live.examples) {
    const ask = () => {
      $("text").value = text;
      $("run-label").value = run;
      change({ text, run, target: "", subject: "" }, "read");
    };
    $("examples").append(make("button", { type: "button", dir: "auto", onclick: ask }, `“${oneLine(text)}”, ${shows}`), " ");
  }
}

/** Copy the command; where the browser forbids that, select it. */
async function copyCommand() {
  try {
    await navigator.clipboard.writeText($("start").textContent);
    $("copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren($("start"));
    $("copied").textContent = "Selected: copy it with Ctrl+C.";
  }
}

export const isLive = () => Boolean(live);

export function startLive() {
  if (!live) {
    $("ask").remove();
    $("command").hidden = false;
    $("start").textContent = page.command;
    $("copy").onclick = copyCommand;
    return;
  }
  $("question").disabled = false;
  $("text").placeholder = "Type a prompt; Enter asks, Shift and Enter starts a line";
  $("ablation").append(...live.ablations.map(({ name }) => make("option", { value: name }, name)));
  const attention = live.sublayers.filter((name) => name.startsWith("attn"));
  $("heads-of").append(...attention.map((name) => make("option", { value: name.slice(5) }, name)));
  $("views").parentElement.hidden = !stored;
  $("saved-to").textContent = `into ${live.folder}`;
  showExamples();
  startNetwork($("network"), live.sublayers.length / 2, pick);
  $("typed").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("text").value;
    const subject = $("subject").value, at = NAMED.includes(question.at) ? question.at : "last";
    change(text === question.text ? { text, subject } : { text, subject, target: "", at }, "read");
    showWhere();
  });
  $("text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("typed").requestSubmit();
  });
  for (const key of CONTROLS) {
    $(key).addEventListener("change", ({ target }) =>
      change({ [key]: target.type === "checkbox" ? target.checked : target.value }));
  }
  $("where").addEventListener("change", (event) =>
    change({ at: event.target.value === "chosen" ? "-1" : event.target.value }, "read"));
  $("subject").addEventListener("change", (event) => change({ subject: event.target.value }, "read"));
  $("run-label").addEventListener("change", (event) => change({ run: event.target.value.trim() }, "run"));
  $("heads-of").addEventListener("change", (event) => {
    showHeads(event.target.value === "" ? null : event.target.value, live.heads, pick);
    change({ heads: event.target.value }, "heads");
  });
  $("views").addEventListener("change", (event) => {
    if (event.target.value === "") show();
    redraw();
    change({ views: event.target.value });
  });
  $("stop").onclick = () => current.abort();
  $("save").addEventListener("submit", saveFound);
  startMap(askForMap);
  startAttention();
  fillForm();
  drawNetwork($("asked"), "", [], false);
  document.body.dataset.answered = "0";
}
