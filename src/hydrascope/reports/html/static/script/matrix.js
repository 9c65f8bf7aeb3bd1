// The matrix: ablated component × responding sublayer.

import { $, cut, decimals, svg, withBounds, written } from "./elements.js";
import { chosenPicture, everyone, now, page, state } from "./data.js";
import { fresh, views } from "./views.js";
import { choose } from "./page.js";

// ColorBrewer's RdBu from below 0 to above, and its like on dark paper.
const PAPER = { stops: "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f", none: "c4c4c4" };
const NIGHT = { stops: "b5dcfa 77b9ea 4593d3 2d6aa6 234663 20262d 5b3429 96462f ca5d3b ee8a66 ffc9ae", none: "59616b" };
export const night = matchMedia("(prefers-color-scheme: dark)");
let printing = false;

/** Whether what is drawn now is for paper. */
export function print(value) {
  printing = value;
}

const rgb = (hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));

/** The colour of a share from −1 to 1. */
function colours() {
  const { stops, none } = night.matches && !printing ? NIGHT : PAPER;
  const scale = stops.split(" ").map(rgb);
  const of = (share) => {
    const place = ((Math.max(-1, Math.min(1, share)) + 1) / 2) * (scale.length - 1);
    const below = Math.min(Math.floor(place), scale.length - 2);
    return scale[below].map((value, i) => value + (place - below) * (scale[below + 1][i] - value));
  };
  return { of, none: rgb(none) };
}

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

export function drawMatrix(bounds) {
  const view = views.matrix;
  const picture = chosenPicture();
  const rows = page.ablated.length, columns = picture.columns.length, size = rows * columns;
  const long = (names) => 6.4 * Math.min(LONGEST, Math.max(...names.map((name) => name.length)));
  const box = { left: 30 + long(page.ablated.map((each) => each.name)), top: 46 };
  const across = Math.max(view.plot.clientWidth, 200) - box.left - 8;
  const down = Math.round(Math.max(170, Math.min(rows * 24, across * 1.2, Math.max(0.62 * innerHeight, 300))));
  const under = 14 + long(picture.columns);
  const { root } = fresh(view, box.top + down + under + 22);
  const [w, h] = [across / columns, down / rows];
  const top = (row) => box.top + down - (row + 1) * h; // the first row at the bottom
  const value = (bound, row, column) => bounds[bound * size + row * columns + column];

  const canvas = view.plot.querySelector("canvas");
  const { of, none } = colours();
  Object.assign(canvas, { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const sure = $("sure").checked;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const [mean, low, high] = [0, 1, 2].map((bound) => value(bound, row, column));
      const shown = sure && !(low > 0 || high < 0) ? 0 : mean / picture.most;
      const colour = Number.isFinite(mean) ? of(shown) : none;
      image.data.set([...colour, 255], 4 * ((rows - 1 - row) * columns + column));
    }
  }
  context.putImageData(image, 0, 0);
  const place = { left: box.left, top: box.top, width: across, height: down };
  for (const [key, each] of Object.entries(place)) canvas.style[key] = `${each}px`;
  view.image = { canvas, ...place };

  const text = (attributes, ...children) => root.append(svg("text", attributes, ...children));
  const line = (attributes) => root.append(svg("line", { class: "divide", ...attributes }));
  const kinds = page.ablated.map((each) => each.kind);
  some(kinds, h, 13).forEach((named, row) => {
    const at = { class: "tick", x: box.left - 6, y: top(row) + h / 2 + 4, "text-anchor": "end" };
    if (named) text(at, cut(page.ablated[row].name, LONGEST));
    if (row && kinds[row] !== kinds[row - 1]) {
      line({ x1: box.left, x2: box.left + across, y1: top(row - 1), y2: top(row - 1) });
    }
  });
  some(picture.kinds, w, 14).forEach((named, column) => {
    const [x, y] = [box.left + (column + 0.5) * w + 4, box.top + down + 6];
    const at = { class: "tick", x, y, "text-anchor": "end", transform: `rotate(-90 ${x} ${y})` };
    if (named) text(at, cut(picture.columns[column], LONGEST));
    if (column && picture.kinds[column] !== picture.kinds[column - 1]) {
      line({ x1: x - 4 - w / 2, x2: x - 4 - w / 2, y1: box.top, y2: box.top + down });
    }
  });
  text({ x: box.left + across / 2, y: box.top + down + under + 14, "text-anchor": "middle" }, picture.axis);
  text({ x: 12, y: box.top + down / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${box.top + down / 2})` }, "Ablated component");
  drawScale(root, box.left, across, picture, of, none);
  root.append(svg("rect", { class: "row", x: box.left - 1, y: top(state.component) - 1, width: across + 2, height: h + 2 }));
  root.append(svg("rect", { class: "cursor", visibility: "hidden" }));

  const item = (row, column) => {
    const ablated = page.ablated[row].name, name = picture.columns[column];
    const [mean, low, high] = [0, 1, 2].map((bound) => value(bound, row, column));
    const found = Number.isFinite(mean) ? withBounds(mean, low, high, now().unit) : `nothing: ${picture.grey}`;
    return {
      key: [row, column], x: box.left + (column + 0.5) * w, y: top(row) + h / 2,
      text: `${ablated}${picture.joint}${name}: ${found}`,
      cursor: { x: box.left + column * w - 1, y: top(row) - 1, width: w + 2, height: h + 2 },
      choose: () => choose({ component: row }),
    };
  };
  const inside = (value, count) => Math.max(0, Math.min(value, count - 1));
  view.at = (x, y) => {
    const [row, column] = [Math.floor((box.top + down - y) / h), Math.floor((x - box.left) / w)];
    return row >= 0 && row < rows && column >= 0 && column < columns ? item(row, column) : null;
  };
  view.step = (from, key) => {
    const [row, column] = from?.key ?? [state.component, 0];
    if (!from) return item(row, column);
    const move = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
    if (!move) return item(row, key === "Home" ? 0 : columns - 1);
    return item(inside(row + move[0], rows), inside(column + move[1], columns));
  };
  view.rows = () => [
    ["ablated", picture.axis.toLowerCase(), "mean", "low", "high", "unit", "readout", "sigma"],
    ...page.ablated.flatMap((each, row) => picture.columns.map((name, column) =>
      [each.name, name, ...[0, 1, 2].map((bound) => value(bound, row, column)), now().unit, now().name, picture.sigma ?? ""])),
  ];
  const title = `${picture.name}: ${everyone()}`, read = `Readout: ${picture.caption}`;
  Object.assign(view, { captions: [title, read], sigma: picture.sigma });
  $("matrix").querySelector("h2").textContent = title;
  $("matrix").querySelector("figcaption p").textContent = `${picture.meaning} ${read}.`;
  view.plot.setAttribute("aria-label", `${picture.name}: ${rows} ablated components by ${columns} columns`);
}

/** The scale of colours above the matrix, and what grey is. */
function drawScale(root, left, across, picture, of, none) {
  const width = Math.min(170, across * 0.5), colour = (each) => `rgb(${each.map(Math.round).join()})`;
  for (let i = 0; i < 41; i++) {
    const at = { x: left + (i * width) / 41, y: 6, width: width / 41 + 0.5, height: 11 };
    root.append(svg("rect", { ...at, fill: colour(of(i / 20 - 1)) }));
  }
  const most = written(picture.most, decimals(picture.most) - 1);
  const ends = [[0, `≤ −${most}`, "start"], [0.5, "0", "middle"], [1, `≥ ${most}`, "end"]];
  for (const [share, label, anchor] of ends) {
    root.append(svg("text", { class: "tick", x: left + share * width, y: 31, "text-anchor": anchor }, label));
  }
  root.append(svg("text", { class: "tick", x: left + width + 8, y: 16 }, cut(now().unit, 14)));
  const grey = left + Math.max(width + 70, across - 128);
  root.append(svg("rect", { x: grey, y: 6, width: 11, height: 11, fill: colour(none) }));
  root.append(svg("text", { class: "tick", x: grey + 17, y: 16 }, across < 330 ? "none" : picture.grey));
}
