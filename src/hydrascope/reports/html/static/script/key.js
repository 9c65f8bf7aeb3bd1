// The key of a matrix: its scale of colours, and what its signs mean.

import { cut, svg } from "./elements.js";
import { now } from "./data.js";
import { hue, palette, scaleTicks, shares } from "./colours.js";

const LETTER = 5.8; // the width of a letter

/** Parts of a text in lines of so many letters; a part is broken only if it has no line of its own. */
function inLines(parts, most) {
  const lines = [];
  for (const part of parts) {
    const longer = lines.length ? `${lines.at(-1)}; ${part}` : part;
    if (lines.length && longer.length <= most) lines[lines.length - 1] = longer;
    else lines.push(cut(part, most));
  }
  return lines;
}

/** A key in so much room, with less of it for the notes: its lines, its size, and the width that its ends want. */
export function keyFor(picture, directed, room, forNotes = room) {
  const signs = directed ? ["–: strongly with the change", "faint, •: too little removed to tell"] : [];
  const notes = inLines([cut(now().unit, 14), `paper: ${picture.grey}`, ...signs], Math.floor(forNotes / LETTER));
  const width = Math.min(330, room), whole = directed ? picture.ends : ["writes less", "writes more"];
  const wanted = LETTER * whole.join("").length + 14;
  const ends = wanted > width ? whole.map((end) => end.split(",")[0]) : whole;
  return { ends, notes, width, wanted, height: 46 + 14 * notes.length };
}

export function drawKey(root, { ends, notes, width }, left, top, scale, mode, largest) {
  root.append(svg("text", { class: "tick", x: left, y: top + 11 }, ends[0]));
  root.append(svg("text", { class: "tick", x: left + width, y: top + 11, "text-anchor": "end" }, ends[1]));
  const share = shares(scale, mode, largest), marks = scaleTicks(scale, mode, largest);
  drawRamp(root, left, top + 17, width, palette(), share, marks);
  notes.forEach((line, i) => root.append(svg("text", { class: "tick", x: left, y: top + 58 + 14 * i }, line)));
}

/** The scale of colours from −1 to 1, and below it the marks [value, label] that find room. */
export function drawRamp(root, left, top, width, colour, share, marks) {
  const steps = 60;
  for (let i = 0; i < steps; i++) {
    const at = { x: left + (i * width) / steps, y: top, width: width / steps + 0.5, height: 11 };
    root.append(svg("rect", { ...at, fill: hue(colour((2 * i + 1) / steps - 1)) }));
  }
  let last = -Infinity;
  for (const [value, label] of marks) {
    const x = left + ((share(value) + 1) / 2) * width, wide = 3.2 * label.length + 3;
    if (x - wide < last) continue;
    last = x + wide;
    root.append(svg("line", { class: "axis", x1: x, x2: x, y1: top + 11, y2: top + 15 }));
    root.append(svg("text", { class: "tick", x, y: top + 26, "text-anchor": "middle" }, label));
  }
}

/** The empty corner at the top left of a matrix: how wide it is down to some depth below the top. */
export function corner(rows, columns, w, h, known) {
  const free = []; // from the top
  for (let row = rows - 1; row >= 0; row--) {
    let column = 0;
    while (column < columns && !known(row, column)) column++;
    free.push(Math.min(free.at(-1) ?? columns, column));
  }
  return (depth) => w * (free[Math.ceil(depth / h) - 1] ?? 0);
}

/** Write lines into the corner, each after a letter; false, and nothing is written, if they find no room. */
export function fitLines(root, lines, left, top, pitch, room) {
  const texts = lines.map((line, i) => svg("text", { class: "named", x: left, y: top + pitch * i }, line));
  root.append(...texts);
  const fits = texts.every((each, i) => left + each.getComputedTextLength() + 10 <= room(i));
  if (!fits) texts.forEach((each) => each.remove());
  return fits;
}
