// Axes: where numbers stand in a box.

import { svg, written } from "./elements.js";

export function ticks(low, high, most) {
  const span = high - low || 1;
  const rough = span / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + 1e-9 * span; i++) found.push(i * step);
  return found.map((value) => [value, written(value, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)))]);
}

/** Two axes in a box; where numbers stand in it. */
export function frame(root, box, xs, ys, xTicks, xLabel, yLabel) {
  const x = (value) => box.left + ((value - xs[0]) / (xs[1] - xs[0])) * box.width;
  const y = (value) => box.top + box.height - ((value - ys[0]) / (ys[1] - ys[0])) * box.height;
  const bottom = box.top + box.height;
  const line = (attributes) => root.append(svg("line", attributes));
  if (ys[0] < 0 && ys[1] > 0) line({ class: "zero", x1: box.left, x2: box.left + box.width, y1: y(0), y2: y(0) });
  line({ class: "axis", x1: box.left, x2: box.left, y1: box.top, y2: bottom });
  line({ class: "axis", x1: box.left, x2: box.left + box.width, y1: bottom, y2: bottom });
  for (const [value, text] of xTicks) {
    line({ class: "axis", x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4 });
    root.append(svg("text", { class: "tick", x: x(value), y: bottom + 16, "text-anchor": "middle" }, text));
  }
  for (const [value, text] of ticks(...ys, Math.max(2, box.height / 28))) {
    line({ class: "axis", x1: box.left - 4, x2: box.left, y1: y(value), y2: y(value) });
    root.append(svg("text", { class: "tick", x: box.left - 7, y: y(value) + 4, "text-anchor": "end" }, text));
  }
  if (xLabel) root.append(svg("text", { x: box.left + box.width / 2, y: bottom + 34, "text-anchor": "middle" }, xLabel));
  const middle = box.top + box.height / 2;
  root.append(svg("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, yLabel));
  return { x, y };
}

/** The range of some numbers with room around it. */
export function range(values, ...others) {
  let low = Math.min(...others), high = Math.max(...others);
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const room = 0.05 * (high - low) || 0.5;
  return [low - room, high + room];
}
