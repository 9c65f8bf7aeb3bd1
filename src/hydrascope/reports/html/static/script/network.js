// The network as a column of blocks: what each component writes, and which are ablated or frozen. A click changes that.

import { $, decimals, make, svg, written } from "./elements.js";

/** The sign of a component on its button. */
const SIGN = { ablated: "✕ ", frozen: "= ", "": "" };

/** The components that a label names, as in `attn.3+mlp.5|mlp.7`. */
export function parsed(run) {
  const [cut, ...kept] = run.split("|");
  const names = (text) => text.split("+").map((each) => each.trim()).filter(Boolean);
  return { ablated: names(cut), frozen: kept.flatMap(names) };
}

/** The label with one component more, or less, ablated or frozen. */
export function toggled(run, name, how) {
  const named = parsed(run), had = named[how].includes(name);
  for (const key of ["ablated", "frozen"]) named[key] = named[key].filter((each) => each !== name);
  if (!had) named[how].push(name);
  return named.ablated.join("+") + named.frozen.map((each) => `|${each}`).join("");
}

/** A component’s button; `pick` is called with the component’s name. */
function componentButton(name, pick) {
  const bars = svg("svg", { viewBox: "-1 0 2 14", preserveAspectRatio: "none", "aria-hidden": "true" });
  const kind = /^(attn|head)/.test(name) ? "attn" : "mlp";
  bars.append(
    svg("rect", { class: "was", y: 1, height: 5 }),
    svg("rect", { class: `is-${kind}`, y: 7, height: 6 }),
    svg("line", { class: "zero", x1: 0, x2: 0, y1: 0, y2: 14 }),
  );
  const made = make("button", { type: "button", className: "component", onclick: () => pick(name) });
  made.append(make("span", { className: "name" }, name), bars, make("span", { className: "value" }));
  made.dataset.component = name;
  return made;
}

/** The table of blocks, the last above. */
export function startNetwork(table, depth, pick) {
  const cell = (name) => make("td", {}, componentButton(name, pick));
  const rows = Array.from({ length: depth }, (_, block) =>
    make("tr", {}, make("th", { scope: "row" }, String(block)), cell(`attn.${block}`), cell(`mlp.${block}`)));
  table.tBodies[0].replaceChildren(...rows.reverse());
  table.onkeydown = (event) => walk(event, table);
  table.querySelectorAll("button").forEach((each, i) => (each.tabIndex = i ? -1 : 0));
}

/** Fill a group with buttons, among which arrows move: it is one stop of the Tab key. */
export function fillGroup(id, buttons) {
  const group = $(id), had = [...group.children].indexOf(document.activeElement);
  const enter = Math.max(0, had, buttons.findIndex((each) => each.getAttribute("aria-pressed") === "true"));
  buttons.forEach((each, i) => (each.tabIndex = i === enter ? 0 : -1));
  group.replaceChildren(...buttons);
  if (had >= 0) buttons[Math.min(had, buttons.length - 1)]?.focus();
  group.onkeydown = (event) => {
    const place = buttons.indexOf(document.activeElement), last = buttons.length - 1;
    const to = { ArrowLeft: place - 1, ArrowUp: place - 1, ArrowRight: place + 1, ArrowDown: place + 1, Home: 0, End: last };
    if (place < 0 || !(event.key in to)) return;
    event.preventDefault();
    const next = buttons[Math.max(0, Math.min(to[event.key], last))];
    buttons.forEach((each) => (each.tabIndex = each === next ? 0 : -1));
    next.focus();
  };
}

/** Arrows move among the components: the table is one stop of the Tab key. */
function walk(event, table) {
  const rows = [...table.tBodies[0].rows].map((row) => [...row.querySelectorAll("button")]);
  const at = rows.findIndex((row) => row.includes(document.activeElement));
  const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  const ends = { Home: 0, End: rows.length - 1 };
  if (at < 0 || (!move && !(event.key in ends))) return;
  const column = rows[at].indexOf(document.activeElement);
  const next = rows[move ? at + move[0] : ends[event.key]]?.[move ? column + move[1] : column];
  event.preventDefault();
  if (!next) return;
  rows.flat().forEach((each) => (each.tabIndex = -1));
  next.tabIndex = 0;
  next.focus();
}

/** Buttons for the heads of a block. */
export function showHeads(block, heads, pick) {
  const made = block === null ? [] : Array.from({ length: heads }, (_, i) => componentButton(`head.${block}.${i}`, pick));
  fillGroup("heads", made);
}

/** What components write now, and which are ablated and frozen, on the buttons inside `root`. */
export function drawNetwork(root, run, components, changed) {
  const { ablated, frozen } = parsed(run);
  const found = new Map(components.map((each) => [each.name, each]));
  const sizes = components.flatMap(({ clean, ablated: now }) => [clean, now ?? 0]).map(Math.abs);
  const digits = Math.min(2, decimals(...sizes));
  const most = sizes.reduce((one, other) => Math.max(one, other), 0) || 1;
  for (const button of root.querySelectorAll("button.component")) {
    const name = button.dataset.component, component = found.get(name);
    const how = ablated.includes(name) ? "ablated" : frozen.includes(name) ? "frozen" : "";
    button.className = `component ${how} ${changed && component?.responds ? "responds" : ""}`;
    button.setAttribute("aria-pressed", String(how !== ""));
    const values = component ? [component.clean, ...(changed ? [component.ablated] : [])].map((each) => written(each, digits)) : [];
    const facts = [
      values.length && `writes ${values[0]}`,
      values.length > 1 && `in this run ${values[1]}`,
      button.classList.contains("responds") && "can respond",
    ];
    button.setAttribute("aria-label", [how ? `${name}, ${how}` : name, ...facts.filter(Boolean)].join(", "));
    button.querySelector(".name").textContent = `${SIGN[how]}${name}`;
    button.querySelector(".value").textContent = values.join(" → ");
    bar(button.querySelector(".was"), component ? component.clean / most : 0);
    bar(button.querySelector("[class^=is]"), component && changed ? component.ablated / most : 0);
  }
}

function bar(rect, share) {
  rect.setAttribute("x", Math.min(0, share));
  rect.setAttribute("width", Math.abs(share));
}
