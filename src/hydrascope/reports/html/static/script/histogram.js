// The histogram: on how many prompts how much is restored.

import { $, svg, written } from "./elements.js";
import { component, now, page, state } from "./data.js";
import { amongPoints, fresh, views } from "./views.js";
import { frame, ticks } from "./axes.js";
import { chooseRange } from "./table.js";

/** The number of bins between the quantiles, about. */
const BINS = 24;
/** The share of prompts at either end that an outer bin may hold. */
const TAIL = 0.01;

/** The edges of bins over most of some numbers; the outer bins hold the rest. */
export function edgesOf(values) {
  const known = [...values].filter(Number.isFinite).sort((one, other) => one - other);
  const low = known[Math.floor(TAIL * (known.length - 1))], high = known[Math.ceil((1 - TAIL) * (known.length - 1))];
  const steps = ticks(low, high, BINS).map(([value]) => value);
  const step = steps.length > 1 ? steps[1] - steps[0] : Math.abs(low) || 1;
  const first = Math.floor(low / step + 1e-9), last = Math.max(Math.ceil(high / step - 1e-9), first + 1);
  const edges = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  return [known[0] < edges[0] ? [-Infinity] : [], edges, known.at(-1) > edges.at(-1) ? [Infinity] : []].flat();
}

/** Draw how many prompts have how much of the chosen component’s effect restored. */
export function drawHistogram(restored) {
  const view = views.histogram, height = 220, { unit, name } = now();
  const { root, width } = fresh(view, height);
  const box = { left: 62, top: 12, width: width - 74, height: height - 12 - 44 };
  const edges = edgesOf(restored), inner = edges.filter(Number.isFinite), step = inner[1] - inner[0];
  const ends = [edges[0] === -Infinity ? inner[0] - 1.5 * step : inner[0], edges.at(-1) === Infinity ? inner.at(-1) + 1.5 * step : inner.at(-1)];
  const last = edges.length - 2;
  const isIn = (i) => (value) => value >= edges[i] && (value < edges[i + 1] || (i === last && value <= edges[i + 1]));
  const counts = edges.slice(1).map((_, i) => restored.filter(isIn(i)).length);
  const marks = ticks(...inner.filter((_, i, all) => i === 0 || i === all.length - 1), width / 80).filter(([value]) => value >= ends[0] && value <= ends[1]);
  const { x, y } = frame(root, box, ends, [0, 1.08 * Math.max(...counts)], marks, `Restored (${unit})`, "Prompts");
  const bars = counts.map((count, i) => {
    const [low, high] = [edges[i], edges[i + 1]], outer = !Number.isFinite(high - low);
    const [left, right] = [Number.isFinite(low) ? low : ends[0], Number.isFinite(high) ? high : ends[1]];
    const gap = outer ? 0.5 * step : 0; // an outer bin stands apart: it has no width of its own
    const [from, to] = [x(left + (low > -Infinity ? gap : 0)), x(right - (high < Infinity ? gap : 0))];
    const kind = `amount ${(left + right) / 2 < 0 ? "missing" : "made-up"}${outer ? " beyond" : ""}`;
    root.append(svg("rect", { class: kind, x: from + 0.5, width: Math.max(to - from - 1, 0.5), y: y(count), height: y(0) - y(count) }));
    const words = low === -Infinity ? `below ${written(high)}` : high === Infinity ? `above ${written(low)}` : `${written(low)} to ${written(high)}`;
    return {
      key: i, order: i, x: (from + to) / 2, y: y(count / 2), cursor: { x: from, y: y(count), width: to - from, height: y(0) - y(count) },
      text: `${count.toLocaleString("en")} ${count === 1 ? "prompt" : "prompts"}: restored ${words} ${unit}`, count, words,
      choose: () => chooseRange(isIn(i), `restored ${words}`),
    };
  });
  const own = restored[state.prompt];
  if (Number.isFinite(own)) {
    const at = x(Math.min(Math.max(own, ends[0]), ends[1]));
    root.append(svg("line", { class: "row", x1: at, x2: at, y1: box.top, y2: y(0) }));
    root.append(svg("circle", { class: "chosen", cx: at, cy: y(0), r: 5 }));
  }
  root.append(svg("rect", { class: "cursor", visibility: "hidden" }));
  amongPoints(view, bars);
  view.at = (across) => bars.find((each) => across >= each.cursor.x && across <= each.cursor.x + each.cursor.width) ?? null;
  const title = `How much is restored with ${component().name} ablated, on each prompt`, read = `Readout: ${name}`;
  Object.assign(view, { captions: [title, read], sigma: null });
  $("histogram").querySelector("h3").textContent = title;
  $("histogram").querySelector("figcaption p").textContent =
    `${page.prompts.length.toLocaleString("en")} prompts. A click on a bar lists its prompts.`;
  view.plot.setAttribute("aria-label", `${title}; left and right move, Enter lists the prompts of a bar`);
  view.rows = () => [["restored from", "to", "prompts", "unit", "ablated", "readout"],
    ...bars.map((each, i) => [edges[i], edges[i + 1], each.count, unit, component().name, name])];
}
