// The map of the prompt: what ablating each component at each token costs.

import { $, cut, make, oneLine, svg, written } from "./elements.js";
import { fresh, mark, point, pointable, views } from "./views.js";
import { hue, mapPalette, night, scaleTicks, shares } from "./colours.js";
import { drawRamp } from "./key.js";
import { drawLetter } from "./matrix.js";

const KINDS = { attn: "Attention", mlp: "MLPs" };
let map = null; // as it was answered last

export function startMap(ask) {
  pointable("map", "the map");
  $("draw-map").onclick = ask;
  night.addEventListener("change", drawMap);
  addEventListener("resize", drawMap);
}

/** Show an answer, or nothing once it is of another question. */
export function showMap(answer) {
  map = answer;
  for (const each of $("map").querySelectorAll(".drawn")) each.hidden = !map;
  if (views.map) point(views.map, null);
  if (map) $("live").textContent = tellMap();
  drawMap();
}

function tellMap() {
  const { target, unit, logit, probability, ablation, components, tokens } = map;
  const now = `${written(logit, 1)} ${unit}, probability ${written(100 * probability, 1)}%`;
  const title = `What ablating there costs “${oneLine(cut(target, 40)).trim()}”`;
  const how = `Each of ${components.length} components at each of ${tokens.length} tokens alone (${ablation}). In the clean pass: ${now}. Warm costs the answer; blue is where it gains, with a dot from ${written(map.scale.struck, 1)} on.`;
  $("map").querySelector("h3").textContent = title;
  $("map").querySelector("figcaption p").textContent = how;
  views.map.plot.setAttribute("aria-label", title);
  Object.assign(views.map, { captions: [title, how], own: { name: `map-${target.trim()}` } });
  return title;
}

export function drawMap() {
  if (!map) return;
  const view = views.map, { tokens, components, cost, scale, unit } = map;
  const kinds = [...new Set(components.map(({ kind }) => kind))];
  const panels = kinds.map((kind) => components.map((_, i) => i).filter((i) => components[i].kind === kind));
  const width = Math.max(view.plot.clientWidth, 200), letters = width < 560 ? 8 : 16, gap = 18;
  const left = 12 + 6.6 * Math.min(letters, Math.max(1, ...tokens.map((text) => cut(text, letters).length)));
  const most = Math.max(...panels.map((each) => each.length));
  const w = Math.min(26, (width - left - gap * (panels.length - 1) - 4) / (panels.length * most));
  const h = Math.max(5, Math.min(22, 640 / tokens.length)), top = 62, down = h * tokens.length;
  const { root } = fresh(view, top + down + 36);
  const starts = panels.map((_, i) => left + i * (most * w + gap));
  const text = (attributes, ...children) => root.append(svg("text", attributes, ...children));
  const colour = mapPalette(), share = shares(scale, "compressed");
  const value = (row, column) => cost[row][column];
  const cells = panels.flatMap((columns, panel) => columns.map((column, i) => ({ column, x: starts[panel] + i * w })));
  const place = new Map(cells.map(({ column, x }) => [column, x]));
  const step = Math.max(1, Math.ceil(12 / h)), last = tokens.length - 1;
  tokens.forEach((token, row) => {
    if ((last - row) % step) return;
    const at = { class: row === last ? "tick last" : "tick", x: left - 6, y: top + (row + 0.5) * h + 4, "text-anchor": "end" };
    text(at, cut(token, letters).trim() || "␣");
  });
  panels.forEach((columns, panel) => {
    const picture = document.createElement("canvas");
    Object.assign(picture, { width: columns.length, height: tokens.length });
    const context = picture.getContext("2d");
    columns.forEach((column, i) => tokens.forEach((_, row) => {
      context.fillStyle = hue(colour(share(value(row, column))));
      context.fillRect(i, row, 1, 1);
    }));
    const box = { x: starts[panel], y: top, width: columns.length * w, height: down };
    root.append(svg("image", { class: "cells", href: picture.toDataURL(), ...box, preserveAspectRatio: "none" }));
    text({ class: "kind", x: starts[panel], y: top - 8 }, KINDS[kinds[panel]] ?? kinds[panel]);
    const every = columns.length * w < 260 ? 10 : 5;
    columns.forEach((column, i) => {
      const { block } = components[column];
      if (block % every || components[columns[i - 1]]?.block === block) return;
      text({ class: "tick", x: starts[panel] + (i + 0.5) * w, y: top + down + 14, "text-anchor": "middle" }, String(block));
    });
    text({ class: "tick", x: starts[panel] + (columns.length * w) / 2, y: top + down + 30, "text-anchor": "middle" }, "block");
  });
  for (const { column, x } of cells) {
    tokens.forEach((_, row) => {
      if (value(row, column) > -scale.struck) return;
      root.append(svg("circle", { class: "gain", cx: x + w / 2, cy: top + (row + 0.5) * h, r: Math.min(1.8, w / 3, h / 3) }));
    });
  }
  drawRamp(root, left, 2, Math.min(330, width - left - 12), colour, share, scaleTicks(scale, "compressed"));
  const told = (row, column) => {
    const amount = value(row, column), { name } = components[column];
    const verb = amount < 0 ? "gains" : "costs";
    return `${name} at “${oneLine(cut(tokens[row], 40)).trim() || "␣"}” (token ${row}): ${verb} ${written(Math.abs(amount))} ${unit}`;
  };
  map.named.forEach(([row, column], i) =>
    drawLetter(root, place.get(column) + w / 2, top + (row + 0.5) * h, i, colour(share(value(row, column)))));
  $("map-named").replaceChildren(...map.named.map(([row, column]) => make("li", {}, told(row, column))));
  root.append(svg("rect", { class: "cursor", visibility: "hidden" }));
  const item = (row, i) => {
    const { column, x } = cells[i], y = top + row * h;
    const cursor = { x: x - 1, y: y - 1, width: w + 2, height: h + 2 };
    return { key: [row, i], x: x + w / 2, y: y + h / 2, text: told(row, column), cursor };
  };
  view.at = (x, y) => {
    const row = Math.floor((y - top) / h), i = cells.findIndex((each) => x >= each.x && x < each.x + w);
    return row >= 0 && row <= last && i >= 0 ? item(row, i) : null;
  };
  view.step = (from, key) => {
    const [row, i] = from?.key ?? [last, 0], end = cells.length - 1;
    const to = { ArrowUp: [row - 1, i], ArrowDown: [row + 1, i], ArrowLeft: [row, i - 1], ArrowRight: [row, i + 1], Home: [row, 0], End: [row, end] };
    const [down, right] = from ? to[key] : [row, i];
    return item(Math.max(0, Math.min(down, last)), Math.max(0, Math.min(right, end)));
  };
  view.rows = () => [
    ["token", "text", "component", "cost", "unit", "ablation"],
    ...tokens.flatMap((token, row) => components.map(({ name }, column) => [row, token, name, value(row, column), unit, map.ablation])),
  ];
  mark(view);
}
