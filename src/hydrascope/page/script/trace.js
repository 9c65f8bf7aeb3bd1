// The trace: what each layer writes, before and after.

import { $, cut, decimals, svg, written } from "./elements.js";
import { ALL, everyone, now, page, part, state } from "./data.js";
import { amongPoints, fresh, views } from "./views.js";
import { frame, range, ticks } from "./axes.js";

const KIND = { attn: "Attention", mlp: "MLP" };

export function drawTrace(clean, ablated) {
  const view = views.trace, height = 376, unit = now().unit;
  const { root, width } = fresh(view, height);
  const narrow = width < 420;
  const points = [];
  ["attn", "mlp"].forEach((kind, panel) => {
    const box = { left: 62, top: 34 + panel * 168, width: width - 74, height: 130 };
    const own = page.components.flatMap((each, i) => (each.kind === kind ? [i] : []));
    const xs = [-0.4, page.depth - 0.6];
    const every = ticks(0, page.depth - 1, Math.min(10, width / 50))
      .filter(([value]) => Number.isInteger(value))
      .map(([value]) => [value, String(value)]);
    const ys = range(own.flatMap((i) => [clean[i], ablated[i]]), 0);
    const { x, y } = frame(root, box, xs, ys, every, panel ? "Layer" : "", `${KIND[kind]} (${cut(unit, 12)})`);
    if (part().layer >= 0) {
      const at = x(part().layer);
      root.append(svg("line", { class: "cut", x1: at, x2: at, y1: box.top, y2: box.top + box.height }));
    }
    const path = (values) => own.map((i, n) => `${n ? "L" : "M"}${x(page.components[i].layer)},${y(values[i])}`).join("");
    root.append(svg("path", { class: "intact", d: path(clean) }), svg("path", { class: kind, d: path(ablated) }));
    for (const i of own) {
      const at = x(page.components[i].layer), radius = page.depth > 40 ? 1.6 : 2.6;
      root.append(svg("circle", { class: "dot", cx: at, cy: y(clean[i]), r: radius }));
      root.append(svg("rect", { class: `dot-${kind}`, x: at - radius, y: y(ablated[i]) - radius, width: 2 * radius, height: 2 * radius }));
      const digits = decimals(clean[i], ablated[i]);
      points.push({
        key: i, order: i, x: at, y: y(ablated[i]), cursor: { cx: at, cy: y(ablated[i]), r: 6 },
        text:
          `${page.components[i].name}: intact ${written(clean[i], digits)}, ` +
          `${part().name} ablated ${written(ablated[i], digits)} ${unit}`,
      });
    }
  });
  const legend = [
    ["intact", "intact"],
    ["attn", ""],
    ["mlp", `${cut(part().name, 14)} ablated`],
    ["cut", narrow ? "its layer" : "the ablated part’s layer"],
  ];
  let left = 62;
  for (const [kind, label] of legend) {
    root.append(svg("line", { class: kind, x1: left, x2: left + 20, y1: 13, y2: 13 }));
    root.append(svg("text", { class: "tick", x: left + 25, y: 17 }, label));
    left += label ? 40 + 6.2 * label.length : 24;
  }
  root.append(svg("circle", { class: "cursor", visibility: "hidden", r: 6 }));
  amongPoints(view, points);
  const whose = state.prompt === ALL ? everyone() : `prompt ${state.prompt}`;
  const title = `What each layer writes, before and after: ${whose}`;
  $("trace").querySelector("h3").textContent = title;
  view.plot.setAttribute("aria-label", `${title}, ${part().name} ablated`);
  view.rows = () => [
    ["prompt", "ablated", "component", "intact", "ablated run", "unit"],
    ...page.components.map((each, i) => [state.prompt ?? "mean", part().name, each.name, clean[i], ablated[i], unit]),
  ];
}
