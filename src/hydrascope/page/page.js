// The page of a report. It chooses, slices and draws numbers; it computes none: hydrascope did.
// Whatever comes from a prompt or a model becomes a text node, never markup.

const $ = (id) => document.getElementById(id);
const page = JSON.parse($("page").textContent);
const ALL = null; // no prompt chosen: means over prompts
const state = { readout: 0, picture: 0, part: page.start, prompt: ALL };
const table = { column: 0, down: false, search: "", order: [] };
const now = () => page.readouts[state.readout];
const part = () => page.parts[state.part];

// ---- Numbers ----

const decoded = new Map();

/** An array by name, decoded once it is asked for. */
function array(name) {
  if (!decoded.has(name)) decoded.set(name, decode(name));
  return decoded.get(name);
}

async function decode(name) {
  const { shape, rounded, columns } = page.arrays[name];
  const text = atob($(`array-${name}`).textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  if (!rounded) return new Float32Array(bytes);
  const [rows, count] = shape;
  const grid = new Float32Array(bytes, 0, 2 * count);
  const low = new Uint8Array(bytes, 8 * count, rows * count);
  const high = new Uint8Array(bytes, 8 * count + rows * count);
  const at = (row, i) => grid[i] + grid[count + i] * (low[row * count + i] | (high[row * count + i] << 8));
  return { columns, at };
}

const ofReadout = (name) => array(`${state.readout}.${name}`);
const slice = (values, width, i) => values.subarray(i * width, (i + 1) * width);

/** How many decimals show three digits of the largest of some numbers. */
function decimals(...values) {
  const most = Math.max(...values.map(Math.abs).filter(Number.isFinite));
  return most > 0 ? Math.min(Math.max(2 - Math.floor(Math.log10(most)), 0), 9) : 2;
}

const written = (value, digits = decimals(value)) =>
  Number.isFinite(value) ? (Number(value.toFixed(digits)) + 0).toFixed(digits).replace("-", "−") : "–";

function withBounds(mean, low, high, unit) {
  const digits = decimals(mean, low, high);
  const bounds = Number.isFinite(low) ? ` [${written(low, digits)}, ${written(high, digits)}]` : "";
  return `${written(mean, digits)}${bounds} ${unit}`;
}

// ---- Elements ----

/** An element with properties and children; strings become text. */
function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const oneLine = (text) => text.replaceAll("\r\n", "⏎").replaceAll(/[\n\r]/g, "⏎").replaceAll("\t", " ");

function cut(text, most) {
  const letters = Array.from(oneLine(text.slice(0, 4 * most)));
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : letters.join("");
}

// ---- Views: what is pointed at, and how one gets from one thing to the next ----

const views = {};

/** Make a figure pointable: `at(x, y)` is what is there, `step(item, key)` what is next to it. */
function pointable(id, name) {
  const plot = $(id).querySelector(".plot");
  const view = (views[id] = { id, name, plot, item: null, at: () => null, step: () => null, rows: () => [] });
  const under = (event) => {
    const box = plot.getBoundingClientRect();
    return view.at(event.clientX - box.left, event.clientY - box.top);
  };
  plot.addEventListener("pointermove", (event) => point(view, under(event), event.clientX, event.clientY));
  plot.addEventListener("pointerleave", () => point(view, null));
  plot.addEventListener("click", (event) => {
    const item = under(event);
    point(view, item, event.clientX, event.clientY);
    item?.choose?.();
  });
  plot.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") view.item?.choose?.();
    else if (event.key === "Escape") point(view, null);
    else if (/^(Arrow|Home|End)/.test(event.key)) {
      const item = view.step(view.item, event.key);
      const box = plot.getBoundingClientRect();
      if (item) point(view, item, box.left + item.x, box.top + item.y, true);
    } else return;
    event.preventDefault();
  });
  plot.addEventListener("blur", () => point(view, null));
  const save = $(id).querySelector(".save");
  for (const [kind, write] of [["SVG", saveSvg], ["PNG", savePng], ["CSV", saveCsv]]) {
    const button = make("button", { type: "button", textContent: kind, onclick: () => write(view) });
    button.setAttribute("aria-label", `Save ${name} as ${kind}`);
    save.append(button);
  }
}

function mark(view) {
  const cursor = view.plot.querySelector(".cursor");
  cursor?.setAttribute("visibility", view.item ? "visible" : "hidden");
  for (const [key, value] of Object.entries(view.item?.cursor ?? {})) cursor?.setAttribute(key, value);
}

function point(view, item, x, y, spoken = false) {
  view.item = item;
  mark(view);
  $("tip").hidden = !item;
  if (!item) return;
  $("tip").textContent = item.text;
  const { offsetWidth, offsetHeight } = $("tip");
  $("tip").style.left = `${Math.max(4, Math.min(x + 14, innerWidth - offsetWidth - 4))}px`;
  $("tip").style.top = `${y + 18 + offsetHeight > innerHeight ? y - offsetHeight - 12 : y + 18}px`;
  if (spoken) $("live").textContent = item.text;
}

/** What is pointed at among some points, nearest first, and by the arrow keys from left to right. */
function amongPoints(view, points) {
  const ordered = points.toSorted((one, other) => one.order - other.order);
  view.at = (x, y) => {
    let nearest = null, least = 28 * 28;
    for (const each of points) {
      const distance = (each.x - x) ** 2 + (each.y - y) ** 2;
      if (distance < least) [nearest, least] = [each, distance];
    }
    return nearest;
  };
  view.step = (item, key) => {
    const place = ordered.findIndex((each) => each.key === item?.key);
    const next = { Home: 0, End: ordered.length - 1, ArrowRight: place + 1, ArrowUp: place + 1 }[key] ?? place - 1;
    return ordered[Math.max(0, Math.min(next, ordered.length - 1))];
  };
}

// ---- Axes ----

function ticks(low, high, most) {
  const span = high - low || 1;
  const rough = span / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + 1e-9 * span; i++) found.push(i * step);
  return found.map((value) => [value, written(value, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)))]);
}

/** Two axes in a box; where numbers stand in it. */
function frame(root, box, xs, ys, xTicks, xLabel, yLabel) {
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
function range(values, ...others) {
  let low = Math.min(...others), high = Math.max(...others);
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const room = 0.05 * (high - low) || 0.5;
  return [low - room, high + room];
}

function fresh(view, height) {
  const width = Math.max(view.plot.clientWidth, 200);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
  view.plot.querySelector("svg")?.remove();
  view.plot.append(root);
  return { root, width };
}

// ---- The matrix ----

// ColorBrewer's RdBu from below 0 to above, and its like on dark paper.
const PAPER = { stops: "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f", none: "c4c4c4" };
const NIGHT = { stops: "b5dcfa 77b9ea 4593d3 2d6aa6 234663 20262d 5b3429 96462f ca5d3b ee8a66 ffc9ae", none: "59616b" };
const night = matchMedia("(prefers-color-scheme: dark)");
let printing = false;
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

function drawMatrix(bounds) {
  const view = views.matrix;
  const picture = now().pictures[state.picture];
  const rows = page.parts.length, columns = picture.columns.length, size = rows * columns;
  const long = (names) => 6.4 * Math.min(LONGEST, Math.max(...names.map((name) => name.length)));
  const box = { left: 30 + long(page.parts.map((each) => each.name)), top: 46 };
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
  const kinds = page.parts.map((each) => each.kind);
  some(kinds, h, 13).forEach((named, row) => {
    const at = { class: "tick", x: box.left - 6, y: top(row) + h / 2 + 4, "text-anchor": "end" };
    if (named) text(at, cut(page.parts[row].name, LONGEST));
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
  text({ x: 12, y: box.top + down / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${box.top + down / 2})` }, "Ablated part");
  drawScale(root, box.left, across, picture, of, none);
  root.append(svg("rect", { class: "row", x: box.left - 1, y: top(state.part) - 1, width: across + 2, height: h + 2 }));
  root.append(svg("rect", { class: "cursor", visibility: "hidden" }));

  const item = (row, column) => {
    const ablated = page.parts[row].name, name = picture.columns[column];
    const [mean, low, high] = [0, 1, 2].map((bound) => value(bound, row, column));
    const found = Number.isFinite(mean) ? withBounds(mean, low, high, now().unit) : `nothing: it can’t answer to ${ablated}`;
    return {
      key: [row, column], x: box.left + (column + 0.5) * w, y: top(row) + h / 2,
      text: `${ablated} ablated, ${name}: ${found}`,
      cursor: { x: box.left + column * w - 1, y: top(row) - 1, width: w + 2, height: h + 2 },
      choose: () => choose({ part: row }),
    };
  };
  const inside = (value, count) => Math.max(0, Math.min(value, count - 1));
  view.at = (x, y) => {
    const [row, column] = [Math.floor((box.top + down - y) / h), Math.floor((x - box.left) / w)];
    return row >= 0 && row < rows && column >= 0 && column < columns ? item(row, column) : null;
  };
  view.step = (from, key) => {
    const [row, column] = from?.key ?? [state.part, 0];
    if (!from) return item(row, column);
    const move = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
    if (!move) return item(row, key === "Home" ? 0 : columns - 1);
    return item(inside(row + move[0], rows), inside(column + move[1], columns));
  };
  view.rows = () => [
    ["ablated", picture.axis.toLowerCase(), "mean", "low", "high", "unit"],
    ...page.parts.flatMap((each, row) => picture.columns.map((name, column) =>
      [each.name, name, ...[0, 1, 2].map((bound) => value(bound, row, column)), now().unit])),
  ];
  $("matrix").querySelector("h2").textContent = `${picture.name}: mean over ${page.prompts.length.toLocaleString("en")} prompts`;
  $("matrix").querySelector("figcaption p").textContent = `${picture.meaning} Readout: ${now().caption}.`;
  view.plot.setAttribute("aria-label", `${picture.name}: ${rows} ablated parts by ${columns} columns`);
}

/** The scale of colours above the matrix, and what grey is. */
function drawScale(root, left, across, picture, of, none) {
  const width = Math.min(170, across * 0.42), colour = (each) => `rgb(${each.map(Math.round).join()})`;
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
  root.append(svg("text", { class: "tick", x: grey + 17, y: 16 }, across < 330 ? "none" : "not downstream"));
}

// ---- The trace ----

const KIND = { attn: "Attention", mlp: "MLP" };

function drawTrace(clean, ablated) {
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
  const whose = state.prompt === ALL ? `mean over ${page.prompts.length.toLocaleString("en")} prompts` : `prompt ${state.prompt}`;
  const title = `What each layer writes, before and after: ${whose}`;
  $("trace").querySelector("h3").textContent = title;
  view.plot.setAttribute("aria-label", `${title}, ${part().name} ablated`);
  view.rows = () => [
    ["prompt", "ablated", "component", "intact", "ablated run", "unit"],
    ...page.components.map((each, i) => [state.prompt ?? "mean", part().name, each.name, clean[i], ablated[i], unit]),
  ];
}

// ---- The scatter ----

function drawScatter([removed, lost, restored]) {
  const view = views.scatter, height = 320, { unit, fits } = now();
  const { root, width } = fresh(view, height);
  const box = { left: 62, top: 26, width: width - 74, height: height - 26 - 44 };
  const [xs, ys] = [range(removed, 0), range(restored, 0)];
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
  const fit = fits[state.part];
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
  $("scatter").querySelector("h3").textContent = title;
  view.plot.setAttribute("aria-label", `${title}; left and right move, Enter chooses the prompt`);
  view.rows = () => [
    ["prompt", "text", "target", "ablated", "removed", "lost", "restored", "unit"],
    ...page.prompts.map((each, i) => [i, each.text, each.target, part().name, removed[i], lost[i], restored[i], unit]),
  ];
}

// ---- The table of prompts ----

const ROW = 30;
const COLUMNS = ["#", "Prompt", "Target", "Removed", "Lost", "Restored"];
let amounts = [];
const cells = (i) => [i, page.prompts[i].text, page.prompts[i].target, ...amounts.map((each) => each[i])];

function orderTable() {
  const asked = table.search.toLowerCase();
  const has = ({ text, target }) => text.toLowerCase().includes(asked) || target.toLowerCase().includes(asked);
  table.order = page.prompts.flatMap((each, i) => (has(each) ? [i] : []));
  const keys = page.prompts.map((_, i) => cells(i)[table.column]);
  const compare = (one, other) => (one < other ? -1 : Number(one > other));
  table.order.sort((one, other) => (table.down ? -1 : 1) * compare(keys[one], keys[other]) || one - other);
  $("found").textContent = asked ? `${table.order.length.toLocaleString("en")} of ${page.prompts.length.toLocaleString("en")}` : "";
  document.querySelectorAll("#rows th").forEach((head, i) => {
    head.setAttribute("aria-sort", i !== table.column ? "none" : table.down ? "descending" : "ascending");
    head.querySelector("span").textContent = i !== table.column ? "" : table.down ? " ↓" : " ↑";
  });
  $("rows").querySelector("table").setAttribute("aria-rowcount", table.order.length + 1);
  fillTable();
}

/** Only the rows that are in sight are made. */
function fillTable() {
  const scroller = $("rows"), grid = scroller.querySelector("table");
  const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - 10);
  const last = Math.min(table.order.length, first + Math.ceil(scroller.clientHeight / ROW) + 20);
  const gap = (rows) => {
    const made = make("tr", { className: "gap" });
    made.setAttribute("aria-hidden", "true");
    made.style.height = `${rows * ROW}px`;
    return made;
  };
  const made = table.order.slice(first, last).map((i, n) => {
    const [number, text, target, ...values] = cells(i);
    const row = make("tr", { id: `row-${i}`, onclick: () => choose({ prompt: state.prompt === i ? ALL : i }) });
    row.setAttribute("aria-selected", String(state.prompt === i));
    row.setAttribute("aria-rowindex", first + n + 2);
    const words = [cut(text, 300), `“${cut(target, 40)}”`].map((word) => make("td", { dir: "auto" }, word));
    row.append(make("td", {}, String(number)), ...words, ...values.map((value) => make("td", {}, written(value, digits))));
    for (const each of row.children) each.setAttribute("role", "gridcell");
    return row;
  });
  grid.tBodies[0].replaceChildren(gap(first), ...made, gap(table.order.length - last));
  const shown = state.prompt !== ALL && $(`row-${state.prompt}`);
  if (shown) grid.setAttribute("aria-activedescendant", shown.id);
  else grid.removeAttribute("aria-activedescendant");
}

let digits = 2;

function showChosenRow() {
  const place = table.order.indexOf(state.prompt), scroller = $("rows"), top = place * ROW;
  if (place < 0) return;
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  const bottom = top + 2 * ROW + 4 - scroller.clientHeight; // below the heads
  if (bottom > scroller.scrollTop) scroller.scrollTop = bottom;
}

function startTable() {
  const heads = $("rows").querySelector("thead tr");
  COLUMNS.forEach((name, i) => {
    const sort = () => {
      table.down = table.column === i ? !table.down : i > 2;
      table.column = i;
      orderTable();
    };
    const head = make("th", { scope: "col" }, make("button", { type: "button", onclick: sort }, name, make("span")));
    heads.append(head);
  });
  $("rows").addEventListener("scroll", fillTable, { passive: true });
  $("rows").querySelector("table").addEventListener("keydown", (event) => {
    if (event.target.tagName === "BUTTON") return;
    const place = table.order.indexOf(state.prompt), last = table.order.length - 1;
    const next = { ArrowDown: place + 1, ArrowUp: place < 0 ? last : place - 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape") choose({ prompt: ALL });
    else if (next !== undefined && last >= 0) choose({ prompt: table.order[Math.max(0, Math.min(next, last))] });
    else return;
    event.preventDefault();
  });
  $("search").addEventListener("input", (event) => {
    table.search = event.target.value;
    $("rows").scrollTop = 0;
    orderTable();
  });
  $("all").onclick = () => choose({ prompt: ALL });
  const button = make("button", { type: "button", onclick: () => saveCsv(views.scatter) }, "CSV");
  button.setAttribute("aria-label", "Save the table as CSV");
  $("prompts").querySelector(".save").append(button);
}

function tellPrompt() {
  $("story").hidden = state.prompt === ALL;
  if (state.prompt === ALL) return;
  const { text, target } = page.prompts[state.prompt], { unit, clean, name } = now();
  const [removed, lost, restored] = amounts.map((each) => written(each[state.prompt], digits));
  $("story").querySelector("pre").textContent = text;
  $("story").querySelector("p").textContent =
    `Prompt ${state.prompt}, target “${oneLine(target)}”. ${name} in the intact run: ${written(clean[state.prompt])} ${unit}. ` +
    `Ablating ${part().name} removes ${removed}, of which ${restored} is restored: it loses ${lost} ${unit}.`;
}

// ---- Saving ----

function save(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const fileName = (view, kind) =>
  `${[view.id, part().name, now().name].join("-").replaceAll(/[^\w.+-]+/g, "_")}.${kind}`;

const LOOKS = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-family", "visibility"];

/** A view as an SVG that needs no style sheet; a matrix's cells as a picture in it. */
function standing(view) {
  const shown = view.plot.querySelector("svg"), copy = shown.cloneNode(true);
  const copies = [...copy.querySelectorAll("*")];
  [...shown.querySelectorAll("*")].forEach((each, i) => {
    const look = getComputedStyle(each);
    for (const name of LOOKS) copies[i].setAttribute(name, look.getPropertyValue(name));
  });
  copy.querySelectorAll(".cursor").forEach((each) => each.remove());
  if (view.image) {
    const { canvas, left, top, width, height } = view.image, sharp = document.createElement("canvas");
    Object.assign(sharp, { width: canvas.width * 12, height: canvas.height * 12 });
    const context = sharp.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(canvas, 0, 0, sharp.width, sharp.height);
    copy.prepend(svg("image", { href: sharp.toDataURL(), x: left, y: top, width, height, preserveAspectRatio: "none" }));
  }
  const paper = getComputedStyle(document.body).backgroundColor;
  copy.prepend(svg("rect", { width: "100%", height: "100%", fill: paper }));
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
}

const saveSvg = (view) => save(fileName(view, "svg"), standing(view));

function savePng(view) {
  const picture = new Image(), address = URL.createObjectURL(standing(view));
  picture.onload = () => {
    const canvas = make("canvas", { width: 3 * picture.width, height: 3 * picture.height });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(fileName(view, "png"), blob));
    URL.revokeObjectURL(address);
  };
  picture.src = address;
}

function saveCsv(view) {
  const field = (value) => {
    const text = typeof value !== "number" ? String(value) : Number.isFinite(value) ? String(Number(value.toPrecision(8))) : "";
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const text = view.rows().map((row) => row.map(field).join(",")).join("\n");
  save(fileName(view, "csv"), new Blob([`${text}\n`], { type: "text/csv" }));
}

// ---- What is chosen, and everything that follows from it ----

/** The names of what is chosen, as the address has them. */
const NAMES = {
  readout: () => page.readouts.map((each) => each.name),
  picture: () => now().pictures.map((each) => each.name),
  part: () => page.parts.map((each) => each.name),
  prompt: () => page.prompts.map((_, i) => String(i)),
};

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const [key, names] of Object.entries(NAMES)) {
    const place = names().indexOf(asked.get(key));
    if (place >= 0) state[key] = place;
    else if (key === "prompt") state.prompt = ALL;
  }
}

function writeAddress() {
  const said = new URLSearchParams();
  for (const [key, names] of Object.entries(NAMES)) if (state[key] !== ALL) said.set(key, names()[state[key]]);
  history.replaceState(null, "", `#${said}`);
}

function choose(change) {
  Object.assign(state, change);
  if (!now().pictures[state.picture]) state.picture = 0;
  writeAddress();
  draw();
}

let drawing = 0;

async function draw() {
  const turn = ++drawing;
  const names = ["amounts", `picture.${state.picture}`, "clean.mean", "ablated.mean"].map(ofReadout);
  const single = state.prompt === ALL ? [] : [ofReadout("clean"), ofReadout(`ablated.${state.part}`)];
  const [three, bounds, cleanMean, ablatedMean, clean, moved] = await Promise.all([...names, ...single]);
  if (turn !== drawing) return;
  const width = page.components.length, prompts = page.prompts.length;
  amounts = [0, 1, 2].map((i) => slice(three, prompts, i * page.parts.length + state.part));
  digits = Math.min(3, decimals(...amounts.map((each) => each.reduce((most, value) => Math.max(most, Math.abs(value)), 0))));
  tellReadout();
  drawMatrix(bounds);
  if (single.length) {
    const before = slice(clean, width, state.prompt), after = before.slice();
    moved.columns.forEach((column, i) => (after[column] = moved.at(state.prompt, i)));
    drawTrace(before, after);
  } else drawTrace(cleanMean, slice(ablatedMean, width, state.part));
  drawScatter(amounts);
  $("chosen").textContent = `${part().name} ablated`;
  $("said").textContent = now().parts[state.part].join(" ");
  tellPrompt();
  orderTable();
  showChosenRow();
  Object.values(views).forEach(mark);
  for (const key of Object.keys(NAMES)) $(key).value = state[key] === ALL ? "" : String(state[key]);
  document.body.dataset.drawn = String(turn);
}

function tellReadout() {
  const said = now().verdicts.map(([headline, rest]) => make("p", {}, make("strong", {}, headline), rest));
  $("verdict").replaceChildren(...said);
  $("warnings").replaceChildren(...now().warnings.map((each) => make("li", {}, each)));
}

function startControls() {
  for (const [key, names] of Object.entries(NAMES)) {
    const labels = key === "prompt" ? page.prompts.map((each, i) => `${i}: ${cut(each.text, 40)}`) : names();
    $(key).append(...labels.map((label, i) => make("option", { value: String(i) }, cut(label, 60))));
    $(key).addEventListener("change", (event) =>
      choose({ [key]: event.target.value === "" ? ALL : Number(event.target.value) }));
    if (key !== "prompt" && key !== "part" && labels.length < 2) $(key).parentElement.hidden = true;
  }
  $("prompt").prepend(make("option", { value: "" }, `all ${page.prompts.length.toLocaleString("en")} (mean)`));
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("sure").addEventListener("change", draw);
}

function start() {
  $("model").textContent = page.model;
  for (const [name, value] of page.run) $("run").append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  $("notes").append(...page.notes.map((each) => make("li", {}, each)));
  readAddress();
  startControls();
  startTable();
  pointable("matrix", "the matrix");
  pointable("trace", "the layers");
  pointable("scatter", "the prompts");
  addEventListener("hashchange", () => (readAddress(), draw()));
  night.addEventListener("change", draw);
  for (const [event, value] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => ((printing = value), draw()));
  }
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone that shows or hides its bars
    width = innerWidth;
    Object.values(views).forEach((view) => point(view, null));
    draw();
  });
  return draw();
}

function refuse(error) {
  $("trouble").hidden = false;
  $("trouble").textContent = `This page can’t be drawn: ${error.message}. It needs a browser of 2023 or newer.`;
}

addEventListener("unhandledrejection", (event) => refuse(event.reason));
start().catch(refuse);
