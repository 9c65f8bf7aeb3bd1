// The bars at the end of a matrix's rows: what each ablation removes, and what is lost in the end.

import { svg, withBounds, written } from "./elements.js";
import { now, page } from "./data.js";
import { ticks } from "./axes.js";

/** The width of the bars of a matrix that is so wide, with the gap before them. */
export const besideWidth = (width) => (width < 480 ? { gap: 6, bars: 34 } : { gap: 16, bars: Math.max(90, Math.min(130, 0.19 * width)) });

/** An amount of a row: 0 is removed, 1 lost; of it 0 the mean, 1 and 2 the bounds. */
const amount = (outcomes, kind, bound, row) => outcomes[(3 * kind + bound) * page.ablated.length + row];

/** What the bars of a row say. */
export function tellBars(outcomes, row) {
  const [removed, lost] = [0, 1].map((kind) => {
    const bounds = [0, 1, 2].map((bound) => amount(outcomes, kind, bound, row));
    return Number.isFinite(bounds[0]) ? withBounds(...bounds, now().unit) : null;
  });
  return `${page.ablated[row].name} ablated: ${removed ? `${removed} removed` : "nothing removed directly"}, ${lost ?? "–"} lost in the end`;
}

/** Draw the bars in a box, rows from below; an outline is what is removed, a solid bar what is lost. */
export function drawBars(root, box, h, outcomes, [low, high]) {
  const rows = page.ablated.length, small = box.width < 80, bottom = box.y + box.height;
  const value = (kind, row) => amount(outcomes, kind, 0, row);
  const kinds = [0, 1].filter((kind) => page.ablated.some((_, row) => Number.isFinite(value(kind, row))));
  const every = kinds.flatMap((kind) => page.ablated.map((_, row) => value(kind, row)));
  // Numbers beyond the axis need room; on the left there is some before the box.
  const edge = (beyond, room) => (every.some(beyond) ? (small ? 5 : room) : 2);
  const [from, to] = [box.x + edge((each) => each < low, 22), box.x + box.width - edge((each) => each > high, 26)];
  const x = (each) => from + ((Math.max(low, Math.min(high, each)) - low) / (high - low)) * (to - from);
  root.append(svg("line", { class: "axis", x1: x(0), x2: x(0), y1: box.y, y2: bottom + 5 }));
  const beyond = [];
  for (const kind of kinds) {
    const tall = kinds.length === 1 ? 0.6 * h : 0.36 * h, down = kind === kinds[0] ? 0.12 * h : 0.52 * h;
    const lines = [];
    for (let row = 0; row < rows; row++) {
      const each = value(kind, row), y = bottom - (row + 1) * h + down;
      if (!Number.isFinite(each)) continue;
      lines.push(`M${x(0).toFixed(1)} ${y.toFixed(2)}H${x(each).toFixed(1)}v${tall.toFixed(2)}H${x(0).toFixed(1)}z`);
      if (each < low || each > high) beyond.push({ each, side: Math.sign(each), y: y + tall / 2 });
    }
    root.append(svg("path", { class: kind ? "bar lost" : "bar removed", d: lines.join("") }));
  }
  const said = [];
  for (const { each, side, y } of beyond.toSorted((one, other) => Math.abs(other.each) - Math.abs(one.each))) {
    const end = side < 0 ? from : to, size = 3;
    root.append(svg("path", { class: "bar beyond", d: `M${end} ${y - size}l${side * 1.4 * size} ${size}l${-side * 1.4 * size} ${size}z` }));
    if (small || said.some((other) => other.side === side && Math.abs(other.y - y) < 11)) continue;
    said.push({ side, y });
    root.append(svg("text", { class: "tick", x: end + 6 * side, y: y + 4, "text-anchor": side < 0 ? "end" : "start" }, written(each, Math.abs(each) < 10 ? 1 : 0)));
  }
  let last = -Infinity;
  for (const [each, label] of ticks(low, high, Math.max(2, (to - from) / 24))) {
    const wide = 3.2 * label.length + 2;
    if (x(each) - wide < last) continue;
    last = x(each) + wide;
    root.append(svg("line", { class: "axis", x1: x(each), x2: x(each), y1: bottom + 1, y2: bottom + 5 }));
    root.append(svg("text", { class: "tick", x: x(each), y: bottom + 17, "text-anchor": "middle" }, label));
  }
  root.append(svg("line", { class: "axis", x1: from, x2: to, y1: bottom + 1, y2: bottom + 1 }));
  if (!small) root.append(svg("text", { class: "tick", x: (from + to) / 2, y: bottom + 31, "text-anchor": "middle" }, now().unit.slice(0, 24)));
  kinds.forEach((kind, i) => {
    const left = headLeft(box), y = box.y - 8 - 13 * (kinds.length - 1 - i);
    root.append(svg("path", { class: kind ? "bar lost" : "bar removed", d: `M${left} ${y - 8}h10v7h-10z` }));
    root.append(svg("text", { class: "tick", x: left + 14, y }, kind ? "lost" : "removed"));
  });
}

/** Where the words above the bars begin. */
export const headLeft = (box) => Math.min(box.x + 2, box.x + box.width - 62);
