// The trace: what each sublayer writes, before and after.

import { $, cut, decimals, svg, written } from "./elements.js";
import { ALL, component, everyone, now, ofReading, ofReadout, page, reading, slice, state } from "./data.js";
import { amongPoints, fresh, views } from "./views.js";
import { frame, range, ticks } from "./axes.js";
import { told } from "./story.js";

const KIND = { attn: "Attention", mlp: "MLP" };

const patched = () => told() !== ALL && told() < page.patched;

/** Where the trace can’t show patches though others’ are kept. */
function onlyOfSome() {
  if (!page.patched || told() === ALL || patched()) return "";
  return ` Single patches are kept for ${page.patched > 1 ? `prompts 0–${page.patched - 1}` : "prompt 0"} alone.`;
}

/** What each sublayer writes in the clean pass and in the ablated run, and by each patch where that is kept. */
export async function traced() {
  const { prompt, component: chosen } = state, one = told();
  const [stored, ablated, patches] = await Promise.all([
    ofReadout(prompt === ALL ? "clean_pass.mean" : "clean_pass"),
    ofReading(prompt === ALL ? "ablated.mean" : `ablated.${chosen}`),
    patched() ? ofReading(`patches.${chosen}`) : { rows: 0 },
  ]);
  const clean = slice(stored, page.components.length, prompt ?? 0);
  const moved = (array, row) => {
    const after = clean.slice();
    array.columns.forEach((column, i) => (after[column] = array.at(row, i)));
    return after;
  };
  const count = patches.rows / (page.patched || 1);
  return {
    clean,
    ablated: prompt === ALL ? slice(ablated, page.components.length, chosen) : moved(ablated, prompt),
    patches: Array.from({ length: count }, (_, i) => moved(patches, one * count + i)),
  };
}

/** The legend: lines of entries, each the looks of its strokes and its label. */
function drawLegend(root, lines) {
  lines.forEach((entries, line) => {
    let left = 62;
    const y = 13 + 16 * line;
    for (const [kinds, label] of entries) {
      for (const kind of kinds) {
        root.append(svg("line", { class: kind, x1: left, x2: left + 20, y1: y, y2: y }));
        left += 24;
      }
      root.append(svg("text", { class: "tick", x: left + 1, y: y + 4 }, label));
      left += 16 + 6.2 * label.length;
    }
  });
}

export function drawTrace({ clean, ablated, patches }) {
  const view = views.trace, unit = now().unit, above = patches.length ? 50 : 34;
  const { root, width } = fresh(view, above + 342);
  const points = [];
  ["attn", "mlp"].forEach((kind, panel) => {
    const box = { left: 62, top: above + panel * 168, width: width - 74, height: 130 };
    const own = page.components.flatMap((each, i) => (each.kind === kind ? [i] : []));
    const xs = [-0.4, page.depth - 0.6];
    const every = ticks(0, page.depth - 1, Math.min(10, width / 50))
      .filter(([value]) => Number.isInteger(value))
      .map(([value]) => [value, String(value)]);
    const ys = range([clean, ablated, ...patches].flatMap((values) => own.map((i) => values[i])), 0);
    const { x, y } = frame(root, box, xs, ys, every, panel ? "Block" : "", `${KIND[kind]} (${cut(unit, 12)})`);
    if (component().block >= 0) {
      const at = x(component().block);
      root.append(svg("line", { class: "cut", x1: at, x2: at, y1: box.top, y2: box.top + box.height }));
    }
    const path = (values) => own.map((i, n) => `${n ? "L" : "M"}${x(page.components[i].block)},${y(values[i])}`).join("");
    root.append(...patches.map((values) => svg("path", { class: `${kind} patch`, d: path(values) })));
    root.append(svg("path", { class: "clean", d: path(clean) }), svg("path", { class: kind, d: path(ablated) }));
    for (const i of own) {
      const at = x(page.components[i].block), radius = page.depth > 40 ? 1.6 : 2.6;
      root.append(svg("circle", { class: "dot", cx: at, cy: y(clean[i]), r: radius }));
      root.append(svg("rect", { class: `dot-${kind}`, x: at - radius, y: y(ablated[i]) - radius, width: 2 * radius, height: 2 * radius }));
      const digits = decimals(clean[i], ablated[i]);
      points.push({
        key: i, order: i, x: at, y: y(ablated[i]), cursor: { cx: at, cy: y(ablated[i]), r: 6 },
        text:
          `${page.components[i].name}: clean ${written(clean[i], digits)}, ` +
          `${component().name} ablated ${written(ablated[i], digits)} ${unit}`,
      });
    }
  });
  const before = [["clean"], "clean"], after = [["attn", "mlp"], `${cut(component().name, 14)} ablated`];
  const cutAt = [["cut"], width < 420 ? "its block" : "the ablated block"];
  const one = [["attn patch", "mlp patch"], "one patch"];
  drawLegend(root, patches.length ? [[before, after], [one, cutAt]] : [[before, after, cutAt]]);
  root.append(svg("circle", { class: "cursor", visibility: "hidden", r: 6 }));
  amongPoints(view, points);
  const whose = state.prompt === ALL ? everyone() : `prompt ${state.prompt}`;
  const title = `What each sublayer writes, before and after: ${whose}`;
  const read = `Readout: ${reading().caption}`;
  Object.assign(view, { captions: [title, read], sigma: reading().sigma });
  $("trace").querySelector("h3").textContent = title;
  $("trace").querySelector("p").textContent = `${read}.${onlyOfSome()}`;
  view.plot.setAttribute("aria-label", `${title}, ${component().name} ablated`);
  view.rows = () => [
    ["prompt", "ablated", "component", "clean", "ablated run", ...patches.map((_, i) => `patch ${i}`), "unit", "readout", "sigma"],
    ...page.components.map((each, i) => [
      state.prompt ?? "mean", component().name, each.name, clean[i], ablated[i], ...patches.map((values) => values[i]),
      unit, now().name, reading().sigma ?? "",
    ]),
  ];
}
