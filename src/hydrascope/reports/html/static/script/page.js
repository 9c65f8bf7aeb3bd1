// What is chosen, and everything that follows from it.

import { $, cut, make } from "./elements.js";
import { ALL, alone, array, chosenPicture, chosenScatter, component, everyone, measured, now, ofReadout, page, reading, slice, state } from "./data.js";
import { mark, point, pointable, views } from "./views.js";
import { night, print } from "./colours.js";
import { ofChosenPrompt } from "./drill.js";
import { drawMatrix } from "./matrix.js";
import { drawTrace, traced } from "./trace.js";
import { drawScatter } from "./scatter.js";
import { drawHistogram } from "./histogram.js";
import { amountsOf, chooseRange, orderTable, showChosenRow, startTable, stepPrompt, takeAmounts } from "./table.js";
import { tellPrompt, told } from "./story.js";
import { isLive, liveAddress, readLive, showFound, startLive } from "./live.js";
import { drawNetwork, startNetwork } from "./network.js";

/** The names of what is chosen, as the address has them. */
const NAMES = {
  readout: () => page.readouts.map((each) => each.name),
  sigma: () => page.readings.map((each) => each.name),
  picture: () => reading().pictures.map((each) => each.name),
  points: () => reading().scatters.map((each) => each.name),
  component: () => page.ablated.map((each) => each.name),
  prompt: () => page.prompts.map((_, i) => String(i)),
};

/** What they are called in the controls, where that isn’t their name. */
const LABELS = {
  sigma: () => page.readings.map((each) => each.label),
  prompt: () => page.prompts.map((each, i) => `${i}: ${cut(each.text, 40)}`),
};

/** Choose what the address names; a name that isn’t here is told. */
function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1)), unknown = [];
  for (const [key, names] of measured() ? Object.entries(NAMES) : []) {
    const place = names().indexOf(asked.get(key));
    if (place >= 0) state[key] = place;
    else if (key === "prompt") state.prompt = ALL;
    if (place < 0 && asked.get(key)) unknown.push(`${key} ${cut(asked.get(key), 40)}`);
  }
  keepToWhatThereIs();
  $("unknown").hidden = !unknown.length;
  $("unknown").textContent = `The link names what this page doesn’t have: ${unknown.join(", ")}. It shows what it has.`;
  return asked;
}

/** Another readout may have fewer views. */
function keepToWhatThereIs() {
  if (!measured()) return;
  if (!chosenPicture()) state.picture = 0;
  if (!chosenScatter()) state.points = 0;
}

/** The address of what is shown, as a new entry in the browser’s history if the reader chose it. */
export function writeAddress(chosen = false) {
  const address = new URLSearchParams(liveAddress());
  for (const [key, names] of measured() ? Object.entries(NAMES) : []) {
    if (names()[state[key]] !== undefined) address.set(key, names()[state[key]]);
  }
  // A page inside a notebook has no address.
  if (location.protocol === "about:" || `#${address}` === location.hash) return;
  history[chosen ? "pushState" : "replaceState"](null, "", `#${address}`);
}

export function choose(change) {
  Object.assign(state, change);
  keepToWhatThereIs();
  $("unknown").hidden = true;
  if (!("prompt" in change)) chooseRange(); // another component's amounts are others
  writeAddress(true);
  draw();
}

let drawing = 0;

async function draw() {
  const turn = ++drawing;
  if (!measured()) return;
  showFound();
  // What wasn't kept isn't drawn.
  const picture = chosenPicture(), scatter = chosenScatter(), wanted = told() !== ALL && page.tokens.length;
  const prompts = page.prompts.length; // 0 where only means are kept
  const [three, bounds, outcomes, compared, lines, tokens] = await Promise.all([
    prompts ? ofReadout("amounts") : [], picture && array(picture.array), array(now().bars.array), prompts ? array(scatter.array) : [],
    page.without ? null : traced(), wanted ? array("tokens") : null,
  ]);
  if (turn !== drawing) return;
  const matrix = bounds && (await ofChosenPrompt(bounds, picture, outcomes));
  if (turn !== drawing) return;
  const ofComponent = (values, row) => slice(values, prompts, row * page.ablated.length + state.component);
  const amounts = prompts ? [0, 1, 2].map((row) => ofComponent(three, row)) : [[], [], []];
  takeAmounts(amounts);
  tellReadout();
  if (matrix) drawMatrix(matrix);
  if (lines) {
    drawTrace(lines);
    if (!isLive()) drawColumn(lines);
  }
  if (prompts > 1) {
    drawScatter(scatter, ...scatter.rows.map((row) => ofComponent(compared, row)), amounts);
    drawHistogram(amounts[2]);
  }
  $("chosen").textContent = `${component().name} ablated`;
  $("sentences").textContent = reading().ablations[state.component].join(" ");
  tellPrompt(tokens);
  orderTable();
  showChosenRow();
  Object.values(views).forEach(mark);
  for (const key of Object.keys(NAMES)) $(key).value = state[key] === ALL ? "" : String(state[key]);
  document.body.dataset.drawn = String(turn);
}

/** Every sublayer, clean and with the chosen component ablated; a click ablates another. */
function drawColumn({ clean, ablated }) {
  const whose = state.prompt === ALL ? everyone() : `prompt ${state.prompt}`;
  $("column-title").textContent = `The network, clean and with ${component().name} ablated: ${whose}`;
  const components = page.components.map(({ name }, i) => ({ name, clean: clean[i], ablated: ablated[i] }));
  drawNetwork($("column"), component().name, components, true);
  showInColumn(component().name);
  for (const button of $("column").querySelectorAll("button.component")) {
    button.disabled = !page.ablated.some((each) => each.name === button.dataset.component);
  }
}

/** Scroll the column, and nothing else, to a component. */
function showInColumn(name) {
  const around = $("column").parentElement;
  const row = [...$("column").querySelectorAll("button.component")].find((each) => each.dataset.component === name)?.closest("tr");
  if (row && row !== showInColumn.last) around.scrollTop = row.offsetTop - (around.clientHeight - row.offsetHeight) / 2;
  showInColumn.last = row;
}

function tellReadout() {
  $("sigma").parentElement.hidden = now().readings.length < 2;
  const verdicts = reading().verdicts.map(([headline, rest]) => make("p", {}, make("strong", {}, headline), rest));
  if (state.prompt !== ALL && !alone()) {
    const [removed, lost, restored] = amountsOf(state.prompt), { unit } = now();
    const headline = `Prompt ${state.prompt}: ${restored} of the ${removed} ${unit} that ${component().name} adds come back`;
    verdicts.unshift(make("p", { id: "of-prompt" }, make("strong", {}, headline), `, ${lost} are lost. Over all prompts:`));
  }
  $("verdict").replaceChildren(...verdicts);
  const ranked = reading().ranked ?? { caption: "", head: [], rows: [] };
  $("ranked").hidden = !ranked.rows.length;
  $("ranked").caption.textContent = ranked.caption;
  $("ranked").tHead.replaceChildren(make("tr", {}, ...ranked.head.map((name) => make("th", { scope: "col" }, name))));
  const cell = (text, i) => (i ? make("td", {}, text) : make("th", { scope: "row" }, text));
  $("ranked").tBodies[0].replaceChildren(...ranked.rows.map((row) => make("tr", {}, ...row.map(cell))));
  $("warnings").replaceChildren(...reading().warnings.map((each) => make("li", {}, each)));
}

/** What there is to choose from, and the facts about the whole result. */
function fillPage() {
  for (const id of ["controls", "views-of"]) $(id).hidden = !measured();
  // Of one prompt there is nothing to compare, and where it was typed it stands above.
  const one = !measured() || alone(), means = measured() && !page.prompts.length;
  for (const id of ["scatter", "histogram", "find", "rows", "all", "earlier", "later"]) $(id).hidden = one || means;
  $("prompts").hidden = !measured() || (one && isLive()) || means;
  $("sure").parentElement.hidden = one;
  const missing = page.without?.views ?? [];
  for (const id of ["matrix", "trace"]) $(id).hidden = missing.includes(id);
  const why = page.without?.why ?? page.left_out ?? "";
  $("without").hidden = !why;
  $("without").textContent = why;
  $("views-of").classList.toggle("narrow", missing.includes("matrix"));
  const facts = page.run.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  $("run").replaceChildren(...facts);
  $("notes").replaceChildren(...page.notes.map((each) => make("li", {}, each)));
  for (const [key, names] of measured() ? Object.entries(NAMES) : []) {
    const labels = LABELS[key]?.() ?? names();
    $(key).replaceChildren(...labels.map((label, i) => make("option", { value: String(i) }, cut(label, 60))));
    $(key).parentElement.hidden = key !== "component" && labels.length < 2;
  }
  for (const door of document.querySelectorAll("[data-door]")) door.hidden = $(door.dataset.door).hidden;
  // Where a model is behind the page, its network stands above.
  $("sublayers").hidden = isLive() || missing.includes("trace");
  if (measured() && !isLive()) startNetwork($("column"), page.depth, (name) => choose({ component: page.ablated.findIndex((each) => each.name === name) }));
  $("prompt").prepend(make("option", { value: "" }, `all ${(page.prompts ?? []).length.toLocaleString("en")} (mean)`));
}

/** Draw what the page shows from now on. */
export function redraw() {
  for (const view of Object.values(views)) point(view, null);
  fillPage();
  readAddress();
  writeAddress();
  return draw();
}

function startControls() {
  for (const key of Object.keys(NAMES)) {
    $(key).addEventListener("change", (event) =>
      choose({ [key]: event.target.value === "" ? ALL : Number(event.target.value) }));
  }
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const door of document.querySelectorAll("[data-door]")) {
    door.addEventListener("click", () => $(door.dataset.door).scrollIntoView());
  }
  for (const id of ["sure", "scale"]) $(id).addEventListener("change", draw);
  addEventListener("keydown", (event) => {
    const by = { n: 1, p: -1 }[event.key];
    // Where the focus is on a view or among the prompts: elsewhere a letter may be meant for something else.
    const here = event.target.closest?.("#prompts, #views-of .plot") && !event.target.closest("input, textarea, select");
    const held = event.ctrlKey || event.metaKey || event.altKey;
    if (!by || !here || held || !measured() || page.prompts.length < 2) return;
    stepPrompt(by);
    $("live").textContent = state.prompt === ALL ? "" : `prompt ${state.prompt}`;
  });
}

function start() {
  $("model").textContent = page.model;
  startControls();
  startTable();
  pointable("matrix", "the matrix");
  pointable("trace", "the sublayers");
  pointable("scatter", "the prompts");
  pointable("histogram", "the histogram");
  startLive();
  fillPage();
  addEventListener("hashchange", () => (readLive(readAddress()), draw()));
  night.addEventListener("change", draw);
  for (const [event, value] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => (print(value), draw()));
  }
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone that shows or hides its bars
    width = innerWidth;
    Object.values(views).forEach((view) => point(view, null));
    draw();
  });
  const asked = readAddress();
  readLive(asked);
  return draw();
}

function refuse(error) {
  $("trouble").hidden = false;
  $("trouble").textContent = `This page can’t be drawn: ${error.message}. It needs a browser of mid-2023 or newer.`;
}

addEventListener("unhandledrejection", (event) => refuse(event.reason));
start().catch(refuse);
