// The scatter: what is restored against what is removed, a point a prompt.

import { $, cut, svg, written } from "./elements.js";
import { ALL, now, page, part, state } from "./data.js";
import { amongPoints, fresh, views } from "./views.js";
import { frame, range, ticks } from "./axes.js";
import { choose } from "./page.js";

export function drawScatter([removed, lost, restored]) {
  const view = views.scatter, height = 320, { unit, fits } = now();
  const { root, width } = fresh(view, height);
  const box = { left: 62, top: 26, width: width - 74, height: height - 26 - 44 };
  const fit = fits[state.part];
  const [xs, ys] = [range(removed, 0), range(restored, 0, ...(fit?.line ?? []).map(([, end]) => end))];
  const { x, y } = frame(root, box, xs, ys, ticks(...xs, width / 80), `Removed (${cut(unit, 16)})`, `Restored (${cut(unit, 12)})`);
  root.append(svg("line", { class: "zero", x1: x(0), x2: x(0), y1: box.top, y2: box.top + box.height }));
  const ends = [Math.max(xs[0], ys[0]), Math.min(xs[1], ys[1])];
  root.append(svg("line", { class: "all", x1: x(ends[0]), y1: y(ends[0]), x2: x(ends[1]), y2: y(ends[1]) }));
  const radius = removed.length > 400 ? 2.2 : 3;
  const points = Array.from(removed, (value, i) => ({
    key: i, order: value, x: x(value), y: y(restored[i]), cursor: { cx: x(value), cy: y(restored[i]), r: 6 },
    text:
      `prompt ${i}: removed ${written(value)}, restored ${written(restored[i])}, ` +
      `lost ${written(lost[i])} ${unit}: ${cut(page.prompts[i].text, 70)}`,
    choose: () => choose({ prompt: i }),
  }));
  root.append(...points.map((each) => svg("circle", { class: "point", cx: each.x.toFixed(1), cy: each.y.toFixed(1), r: radius })));
  if (fit) {
    const [from, to] = fit.line;
    root.append(svg("line", { class: "fit", x1: x(from[0]), y1: y(from[1]), x2: x(to[0]), y2: y(to[1]) }));
  }
  const legend = [["all", "all restored"], ...(fit ? [["fit", `slope ${fit.slope}`]] : [])];
  legend.forEach(([kind, label], i) => {
    const left = 62 + i * 110;
    root.append(svg("line", { class: kind, x1: left, x2: left + 20, y1: 10, y2: 10 }));
    root.append(svg("text", { class: "tick", x: left + 25, y: 14 }, label));
  });
  if (state.prompt !== ALL) {
    const { x: cx, y: cy } = points[state.prompt];
    root.append(svg("circle", { class: "chosen", cx, cy, r: 5 }));
  }
  root.append(svg("circle", { class: "cursor", visibility: "hidden", r: 6 }));
  amongPoints(view, points);
  const title = `Restored of what ablating ${part().name} removes, a point a prompt`;
  view.said = [title, `Readout: ${now().name}`];
  $("scatter").querySelector("h3").textContent = title;
  view.plot.setAttribute("aria-label", `${title}; left and right move, Enter chooses the prompt`);
  view.rows = () => [
    ["prompt", "text", "target", "ablated", "removed", "lost", "restored", "unit"],
    ...page.prompts.map((each, i) => [i, each.text, each.target, part().name, removed[i], lost[i], restored[i], unit]),
  ];
}
