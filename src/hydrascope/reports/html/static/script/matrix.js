// The matrix: ablated component × responding sublayer.

import { $, cut, make, svg, withBounds } from "./elements.js";
import { everyone, now, page, state } from "./data.js";
import { fresh, views } from "./views.js";
import { hue, palette, shares } from "./colours.js";
import { besideWidth, drawBars, headLeft, tellBars } from "./bars.js";
import { corner, drawKey, fitLines, keyFor } from "./key.js";
import { choose } from "./page.js";

/** The places of labels of which every so many find room, each kind anew. */
function some(kinds, room, least) {
  const step = Math.max(1, Math.ceil(least / room));
  let first = 0;
  return kinds.map((kind, i) => {
    if (kind !== kinds[i - 1]) first = i;
    return (i - first) % step === 0;
  });
}

const LONGEST = 14; // letters of a label
const LETTERED = { against: 4, along: 2 }; // how many of the largest values are named
const PHONE = 480; // pixels
const LINE = 17; // of a named value

/** Draw a matrix, of `whose` values if not of the mean, with the outcomes of its rows. */
export function drawMatrix({ bounds, picture, whose, outcomes }) {
  const view = views.matrix, { signs } = picture;
  const rows = page.ablated.length, columns = picture.columns.length, size = rows * columns;
  const long = (names) => 6.4 * Math.min(LONGEST, Math.max(...names.map((name) => name.length)));
  const width = Math.max(view.plot.clientWidth, 200), phone = width < PHONE;
  const left = (phone ? 14 : 30) + long(page.ablated.map((each) => each.name));
  const beside = picture.bars ? besideWidth(width) : { gap: 0, bars: 0 };
  const across = width - left - 8 - beside.gap - beside.bars;
  const down = Math.round(Math.max(170, Math.min(rows * 24, across * 1.2, Math.max(0.62 * innerHeight, 300))));
  const [w, h] = [across / columns, down / rows];
  const value = (bound, row, column) => bounds[bound * size + row * columns + column];
  const directed = signs.some((sign) => sign !== 0);
  const bars = { x: left + across + beside.gap, width: beside.bars, height: down };
  // The key stands in the empty corner if there is room, else above the matrix.
  const free = corner(rows, columns, w, h, (row, column) => Number.isFinite(value(0, row, column)));
  const inside = keyFor(picture, directed, free(90) - 24);
  const cornered = !phone && inside.width >= inside.wanted;
  const key = cornered ? inside : keyFor(picture, directed, width - left - 14, (picture.bars ? headLeft(bars) : width) - left - 8);
  const box = { left, top: cornered ? (picture.bars ? 34 : 8) : key.height + 8 };
  bars.y = box.top;
  const under = 14 + long(picture.columns);
  const { root } = fresh(view, box.top + down + Math.max(under + 22, picture.bars ? 36 : 0));
  const top = (row) => box.top + down - (row + 1) * h; // the first row at the bottom
  /** A value as it is coloured: above 0 against the change. */
  const against = (row, column) => (signs[row] || 1) * value(0, row, column);
  // A single prompt has no bounds.
  const isSure = (row, column) => !(value(1, row, column) <= 0 && value(2, row, column) >= 0);

  const mode = $("scale").value, sure = $("sure").checked, colour = palette();
  const largest = Math.max(0, ...picture.columns.map((_, column) => Math.abs(value(0, state.component, column))).filter(Number.isFinite));
  const share = shares(picture.scale, mode, largest);
  const cells = document.createElement("canvas"), scaled = Math.max(1, Math.min(12, Math.floor(1600 / columns)));
  Object.assign(cells, { width: columns * scaled, height: rows * scaled });
  const context = cells.getContext("2d");
  const strikes = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const mean = against(row, column);
      if (!Number.isFinite(mean)) continue; // paper
      const shown = sure && !isSure(row, column) ? 0 : mean, faint = directed && signs[row] === 0;
      context.fillStyle = hue(colour(share(shown), faint));
      context.fillRect(column * scaled, (rows - 1 - row) * scaled, scaled, scaled);
      if (!faint && shown <= -picture.scale.struck) strikes.push([row, column]);
    }
  }
  const place = { x: box.left, y: box.top, width: across, height: down };
  root.append(svg("image", { class: "cells", href: cells.toDataURL(), ...place, preserveAspectRatio: "none" }));
  const dash = strikes.map(([row, column]) => `M${box.left + (column + 0.25) * w} ${top(row) + h / 2}h${w / 2}`).join("");
  if (h >= 4) root.append(svg("path", { class: "strike", d: dash }));

  const text = (attributes, ...children) => root.append(svg("text", attributes, ...children));
  const line = (attributes) => root.append(svg("line", { class: "divide", ...attributes }));
  const groups = (kinds) => kinds.map((kind) => (kind === "attn" || kind === "mlp" ? "sublayer" : kind));
  const [rowGroups, columnGroups] = [groups(page.ablated.map((each) => each.kind)), groups(picture.kinds)];
  some(rowGroups, h, 13).forEach((named, row) => {
    const at = { class: "tick", x: box.left - 12, y: top(row) + h / 2 + 4, "text-anchor": "end" };
    if (named) text(at, cut(page.ablated[row].name, LONGEST));
    if (directed && signs[row] === 0) root.append(svg("circle", { class: "unsure", cx: box.left - 5, cy: top(row) + h / 2, r: Math.min(1.8, h / 3) }));
    if (row && rowGroups[row] !== rowGroups[row - 1]) {
      line({ x1: box.left, x2: box.left + across, y1: top(row - 1), y2: top(row - 1) });
    }
  });
  some(columnGroups, w, 14).forEach((named, column) => {
    const [x, y] = [box.left + (column + 0.5) * w + 4, box.top + down + 6];
    const at = { class: "tick", x, y, "text-anchor": "end", transform: `rotate(-90 ${x} ${y})` };
    if (named) text(at, cut(picture.columns[column], LONGEST));
    if (column && columnGroups[column] !== columnGroups[column - 1]) {
      line({ x1: x - 4 - w / 2, x2: x - 4 - w / 2, y1: box.top, y2: box.top + down });
    }
  });
  text({ x: box.left + across / 2, y: box.top + down + under + 14, "text-anchor": "middle" }, picture.axis);
  if (phone) text({ class: "tick", x: box.left - 12, y: box.top - 5, "text-anchor": "end" }, "ablated");
  else text({ x: 12, y: box.top + down / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${box.top + down / 2})` }, "Ablated component");
  const corners = { x: box.left + 12, y: box.top + 4 };
  if (cornered) drawKey(root, key, corners.x, corners.y, picture.scale, mode, largest);
  else drawKey(root, key, box.left, 0, picture.scale, mode, largest);
  if (picture.bars) drawBars(root, bars, h, outcomes, now().bars.limits);
  const named = extremes(rows, columns, signs, against, isSure);
  const letter = (i, x, y, size) => drawLetter(root, x, y, i, colour(share(against(...named[i]))), size);
  // Those of neighbours would cover each other.
  const edge = h < 13 ? 10 : 13;
  named.forEach(([row, column], i) => letter(i, box.left + (column + 0.5) * w, top(row) + h / 2, edge));
  root.append(svg("rect", { class: "cursor", visibility: "hidden" }));

  const item = (row, column) => ({
    key: [row, column], x: box.left + (column + 0.5) * w, y: top(row) + h / 2, text: told(row, column),
    cursor: { x: box.left + column * w - 1, y: top(row) - 1, width: w + 2, height: h + 2 },
    choose: () => choose({ component: row }),
  });
  const told = (row, column) => {
    const [mean, low, high] = [0, 1, 2].map((bound) => value(bound, row, column));
    const found = Number.isFinite(mean) ? withBounds(mean, low, high, now().unit) : `nothing: ${picture.grey}`;
    return `${page.ablated[row].name}${picture.joint}${picture.columns[column]}: ${found}`;
  };
  /** The bars of a row, as one more column. */
  const ofBars = (row) => ({
    key: [row, columns], x: bars.x + bars.width / 2, y: top(row) + h / 2, text: tellBars(outcomes, row),
    cursor: { x: bars.x - 1, y: top(row) - 1, width: bars.width + 2, height: h + 2 },
    choose: () => choose({ component: row }),
  });
  const side = (row, column) => (directed ? `, ${picture.ends[against(row, column) > 0 ? 1 : 0].split(",")[0]}` : "");
  const first = corners.y + key.height + 17;
  const room = (i) => box.left + free(first + LINE * i + 5 - box.top) - 4;
  const short = named.map(([row, column]) => told(row, column).replace(` ${now().unit}`, ""));
  const lines = [short.map((each, i) => each + side(...named[i])), short, short.map((each) => each.replace(picture.joint, " → "))];
  const written = cornered && lines.some((each) => fitLines(root, each, corners.x + 20, first, LINE, room));
  if (written) named.forEach((_, i) => letter(i, corners.x + 6.5, first + LINE * i - 4, 13));
  const last = written ? first + LINE * (named.length - 1) + 5 : corners.y + key.height;
  // The frame of the chosen row crosses no text in the corner.
  const start = box.left + (cornered && top(state.component) < last ? free((rows - state.component - 0.5) * h) : 0);
  const end = box.left + across + beside.gap + beside.bars;
  root.append(svg("rect", { class: "row", x: start - 1, y: top(state.component) - 1, width: end - start + 2, height: h + 2 }));
  const clamped = (value, count) => Math.max(0, Math.min(value, count - 1));
  view.at = (x, y) => {
    const [row, column] = [Math.floor((box.top + down - y) / h), Math.floor((x - box.left) / w)];
    const line = Math.floor((y - first + 13) / LINE);
    if (cornered && y >= box.top && y < last && x > box.left && x < box.left + free(y - box.top)) {
      return written && line in named ? { ...item(...named[line]), text: told(...named[line]) + side(...named[line]) } : null;
    }
    if (picture.bars && row >= 0 && row < rows && x >= bars.x - 3) return ofBars(row);
    return row >= 0 && row < rows && column >= 0 && column < columns ? item(row, column) : null;
  };
  view.step = (from, key) => {
    const [row, column] = from?.key ?? [state.component, 0];
    if (!from) return item(row, column);
    const move = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
    if (!move) return item(row, key === "Home" ? 0 : columns - 1);
    const [to, beyond] = [clamped(row + move[0], rows), column + move[1]];
    return picture.bars && beyond >= columns ? ofBars(to) : item(to, clamped(beyond, columns));
  };
  view.rows = () => [
    ["ablated", picture.axis.toLowerCase(), "mean", "low", "high", "unit", "readout", "sigma"],
    ...page.ablated.flatMap((each, row) => picture.columns.map((name, column) =>
      [each.name, name, ...[0, 1, 2].map((bound) => value(bound, row, column)), now().unit, now().name, picture.sigma ?? ""])),
  ];
  const title = `${picture.name}: ${whose ?? everyone()}`, read = `Readout: ${picture.caption}`;
  Object.assign(view, { captions: [title, read], sigma: picture.sigma });
  $("matrix").querySelector("h2").textContent = title;
  $("matrix").querySelector("figcaption p").textContent = `${picture.meaning} ${read}.`;
  view.plot.setAttribute("aria-label", `${picture.name}: ${rows} ablated components by ${columns} columns`);
  // Written in the corner, the list is for readers of another kind, and for the keys.
  $("extremes").classList.toggle("unseen", written);
  $("extremes").replaceChildren(...named.map(([row, column]) => {
    const chosen = { type: "button", className: "link", onclick: () => choose({ component: row }) };
    return make("li", {}, make("button", chosen, told(row, column) + side(row, column)));
  }));
}

/** The largest values that are surely not 0: some against the change, some with it. */
function extremes(rows, columns, signs, against, isSure) {
  const directed = signs.some((sign) => sign !== 0), found = [];
  for (let row = 0; row < rows; row++) {
    if (directed && signs[row] === 0) continue;
    for (let column = 0; column < columns; column++) {
      if (Number.isFinite(against(row, column)) && isSure(row, column)) found.push([row, column]);
    }
  }
  const value = ([row, column]) => against(row, column);
  const up = found.filter((each) => value(each) > 0).sort((a, b) => value(b) - value(a)).slice(0, LETTERED.against);
  const down = found.filter((each) => value(each) < 0).sort((a, b) => value(a) - value(b)).slice(0, LETTERED.along);
  return [...up, ...down];
}

/** A letter on a cell of some colour, dark or light as it is read best. */
export function drawLetter(root, x, y, i, colour, size = 13) {
  const ground = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] < 140 ? "on-dark" : "on-light";
  root.append(svg("rect", { class: "letter", x: x - size / 2, y: y - size / 2, width: size, height: size, fill: hue(colour) }));
  root.append(svg("text", { class: `letter ${ground}${size < 13 ? " small" : ""}`, x, y: y + 0.3 * size, "text-anchor": "middle" }, "abcdef"[i]));
}
