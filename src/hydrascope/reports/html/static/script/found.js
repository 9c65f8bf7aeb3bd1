// What a run did, as hydrascope found it: in a sentence and in tables.

import { $, cut, decimals, make, oneLine, written } from "./elements.js";
import { figureOfFlow } from "./flow.js";

/** A text that may be broken between the components that an override’s label names. */
const breakable = (text) => text.split(/(?<=[+|])/).flatMap((each) => [each, make("wbr")]);

function tableOf(caption, heads, rows) {
  const made = make("table", { className: "found" }, make("caption", {}, ...breakable(caption)));
  made.append(make("thead", {}, make("tr", {}, ...heads.map((each) => make("th", { scope: "col" }, ...breakable(each))))));
  const cell = (each, i) => make(i ? "td" : "th", i ? { dir: "auto" } : { scope: "row" }, ...breakable(each));
  made.append(make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell)))));
  return make("div", { className: "wide", tabIndex: 0, role: "group", ariaLabel: caption }, made);
}

const percent = (share) => (Number.isFinite(share) ? `${written(100 * share, 1)}%` : "–");

/** Over patches: the mean, and the least and the largest. */
function overPatches([mean, low, high], patches, digits) {
  const range = patches > 1 ? ` [${written(low, digits)},\u00a0${written(high, digits)}]` : "";
  return written(mean, digits) + range;
}

/** By how many places a token rose or fell from the state before. */
function moved(rank, place) {
  if (rank === place) return "";
  return rank > place ? ` ↑${rank - place}` : ` ↓${place - rank}`;
}

/** The likeliest next tokens of each state, side by side. */
function tableOfTokens(states) {
  const cell = ({ text, probability, rank }, place) => `“${oneLine(cut(text, 24))}” ${percent(probability)}${moved(rank, place)}`;
  const rows = states[0].tokens.map((_, place) => [String(place + 1), ...states.map(({ tokens }) => cell(tokens[place], place))]);
  return tableOf("Next tokens; ↑ ↓: places moved from the column before", ["Place", ...states.map(({ state }) => state)], rows);
}

/** `read` is what depends on how σ is read, under the chosen reading. */
export function tellFound(answer, read) {
  const { runs, frozen, unit, patches, target } = answer, { balance, label } = read, [run] = runs;
  const digits = Math.min(4, decimals(...runs.flatMap((each) => [...each.removed, ...each.lost, ...each.restored])));
  const number = (value) => written(value, digits);
  const restored = run.removed[0] < 0
    ? `: it adds instead of removing, and ${written(run.share, 2)} of the increase is undone`
    : `: of what it removes ${written(run.share, 2)} is restored`;
  const share = Number.isFinite(run.share) && run.share >= 0 ? restored : "";
  const of = (count) => (patches > 1 ? ` (${count} of ${patches} patches)` : "");
  const told = make("p", {}, make("strong", {}, ...breakable(run.label)));
  told.append(
    ` removes ${number(run.removed[0])} ${unit} of “${oneLine(target)}” and loses ${number(run.lost[0])}${share}. `,
    `Likeliest now: ${run.likeliest.map(({ text, patches: count }) => `“${oneLine(text)}”${of(count)}`).join(", ")}. `,
    patches > 1 ? `Numbers are means over ${patches} patches; in brackets the least and the largest.` : "",
  );
  const effects = tableOf(
    `What it does (${unit})`,
    ["Run", "Removed", "Lost", "Restored", "Probability"],
    [
      ["clean", "", "", "", percent(answer.probability)],
      ...runs.map((each) => [
        each.label,
        ...[each.removed, each.lost, each.restored].map((values) => overPatches(values, patches, digits)),
        percent(each.probability),
      ]),
    ],
  );
  const worth = frozen.length
    ? [tableOf(`Worth of the frozen components: lost more without their reaction (${unit})`, ["Frozen", "Worth"],
        frozen.map((each) => [each.label, number(each.worth)]))]
    : [];
  const terms = { own: "ablated sublayers", attention: "attention downstream", mlp: "MLPs downstream", norm: "final norm" };
  const books = tableOf(
    `The balance of ${run.label} (${unit}), read ${label}`,
    ["What changes", "by"],
    [
      ...Object.entries(terms).map(([key, name]) => [name, written(balance[key], digits + 1)]),
      ["sum", written(balance.sum, digits + 1)],
      ["total effect", written(balance.total, digits + 1)],
      ["off by, at worst", balance.off.toExponential(1)],
    ],
  );
  $("found-run").replaceChildren(told, figureOfFlow(read.flow, patches), effects, ...worth, books);
  $("found-next").replaceChildren(tableOfTokens(answer.next));
}
