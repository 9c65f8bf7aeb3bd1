// The table of prompts.

import { $, cut, decimals, make, written } from "./elements.js";
import { ALL, page, state } from "./data.js";
import { views } from "./views.js";
import { saveCsv } from "./saving.js";
import { askAbout, isLive } from "./live.js";
import { choose } from "./page.js";

const table = { column: 0, down: false, search: "", order: [], range: null };

const ROW = 30;
const COLUMNS = ["#", "Prompt", "Target", "Removed", "Lost", "Restored"];
let amounts = [];
let digits = 2;

/** What becomes of the chosen component’s effect on each prompt: removed, lost, restored. */
export function takeAmounts(taken) {
  amounts = taken;
  const most = taken.map((each) => each.reduce((found, value) => Math.max(found, Math.abs(value)), 0));
  digits = Math.min(3, decimals(...most));
}

/** What becomes of it on one prompt, written. */
export const amountsOf = (i) => amounts.map((each) => written(each[i], digits));

const cells = (i) => [i, page.prompts[i].text, page.prompts[i].target, ...amounts.map((each) => each[i])];

export function orderTable() {
  const asked = table.search.toLowerCase();
  const has = ({ text, target }) => text.toLowerCase().includes(asked) || target.toLowerCase().includes(asked);
  const within = (i) => !table.range || table.range.has(amounts[2][i]);
  table.order = page.prompts.flatMap((each, i) => (has(each) && within(i) ? [i] : []));
  const keys = page.prompts.map((_, i) => cells(i)[table.column]);
  const compare = (one, other) => (one < other ? -1 : Number(one > other));
  table.order.sort((one, other) => (table.down ? -1 : 1) * compare(keys[one], keys[other]) || one - other);
  const among = table.range ? `, ${table.range.words}` : "";
  const found = `${table.order.length.toLocaleString("en")} of ${page.prompts.length.toLocaleString("en")}${among}`;
  $("found").textContent = asked || table.range ? found : "";
  $("whole").hidden = !table.range;
  document.querySelectorAll("#rows th").forEach((head, i) => {
    head.setAttribute("aria-sort", i !== table.column ? "none" : table.down ? "descending" : "ascending");
    head.querySelector("span").textContent = i !== table.column ? "" : table.down ? " ↓" : " ↑";
  });
  $("rows").querySelector("table").setAttribute("aria-rowcount", table.order.length + 1);
  fillTable();
}

/** List the prompts of which `has` is true of what is restored; without it, all. */
export function chooseRange(has = null, words = "") {
  table.range = has && { has, words };
  $("rows").scrollTop = 0;
  orderTable();
  if (has) $("prompts").scrollIntoView({ block: "nearest" });
}

/** Choose the prompt that comes so many rows after the chosen one in the table. */
export function stepPrompt(by) {
  const place = table.order.indexOf(state.prompt), last = table.order.length - 1;
  const next = place < 0 ? (by > 0 ? 0 : last) : Math.max(0, Math.min(place + by, last));
  if (last >= 0 && next !== place) choose({ prompt: table.order[next] });
}

/** Only the rows that are in sight are made. */
function fillTable() {
  const scroller = $("rows"), grid = scroller.querySelector("table");
  const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - 10);
  const last = Math.min(table.order.length, first + Math.ceil(scroller.clientHeight / ROW) + 20);
  const gap = (rows) => {
    const made = make("tr", { className: "gap" });
    made.setAttribute("aria-hidden", "true");
    made.style.height = `${rows * ROW}px`;
    return made;
  };
  const made = table.order.slice(first, last).map((i, n) => {
    const [number, text, target] = cells(i);
    const row = make("tr", { id: `row-${i}`, onclick: () => choose({ prompt: state.prompt === i ? ALL : i }) });
    row.setAttribute("aria-selected", String(state.prompt === i));
    row.setAttribute("aria-rowindex", first + n + 2);
    const words = [cut(text, 300), `“${cut(target, 40)}”`].map((word) => make("td", { dir: "auto" }, word));
    row.append(make("td", {}, String(number)), ...words, ...amountsOf(i).map((amount) => make("td", {}, amount)));
    for (const each of row.children) each.setAttribute("role", "gridcell");
    return row;
  });
  grid.tBodies[0].replaceChildren(gap(first), ...made, gap(table.order.length - last));
  const shown = state.prompt !== ALL && $(`row-${state.prompt}`);
  if (shown) grid.setAttribute("aria-activedescendant", shown.id);
  else grid.removeAttribute("aria-activedescendant");
}

export function showChosenRow() {
  const place = table.order.indexOf(state.prompt), scroller = $("rows"), top = place * ROW;
  if (place < 0) return;
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  const bottom = top + 2 * ROW + 4 - scroller.clientHeight; // below the heads
  if (bottom > scroller.scrollTop) scroller.scrollTop = bottom;
}

export function startTable() {
  const heads = $("rows").querySelector("thead tr");
  COLUMNS.forEach((name, i) => {
    const sort = () => {
      table.down = table.column === i ? !table.down : i > 2;
      table.column = i;
      orderTable();
    };
    const head = make("th", { scope: "col" }, make("button", { type: "button", onclick: sort }, name, make("span")));
    heads.append(head);
  });
  $("rows").addEventListener("scroll", fillTable, { passive: true });
  $("rows").querySelector("table").addEventListener("keydown", (event) => {
    if (event.target.tagName === "BUTTON") return;
    const place = table.order.indexOf(state.prompt), last = table.order.length - 1;
    const next = { ArrowDown: place + 1, ArrowUp: place < 0 ? last : place - 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape") choose({ prompt: ALL });
    else if (next !== undefined && last >= 0) choose({ prompt: table.order[Math.max(0, Math.min(next, last))] });
    else return;
    event.preventDefault();
  });
  $("search").addEventListener("input", (event) => {
    table.search = event.target.value;
    $("rows").scrollTop = 0;
    orderTable();
  });
  $("all").onclick = () => choose({ prompt: ALL });
  $("whole").onclick = () => chooseRange();
  for (const [id, by] of [["earlier", -1], ["later", 1]]) $(id).onclick = () => stepPrompt(by);
  $("ask-about").hidden = !isLive();
  $("ask-about").onclick = () => askAbout(page.prompts[state.prompt].text);
  const button = make("button", { type: "button", onclick: () => saveCsv(views.scatter) }, "CSV");
  button.setAttribute("aria-label", "Save the table as CSV");
  $("prompts").querySelector(".save").append(button);
}
