// The colours of a matrix: blue makes up for an ablation, orange goes with its damage. Nothing is clipped.

import { written } from "./elements.js";

// From 0 to the largest value, against the change and with it; on light paper and on dark.
const PAPER = { against: "f3f7fb b9d3ec 6da3d6 2a6cb0 0b3566", along: "fdf6f1 fbdfcc f6bf9c ee9d6c e57f45", paper: "ffffff" };
const NIGHT = { against: "192129 24435f 3a76ad 71b2ee d3e9ff", along: "221c19 46291c 6b3820 8f4a26 b35f31", paper: "14171b" };
// Of a map: what costs the answer, and what it gains by.
const MAP_PAPER = { along: "f3f7fb d5e5f4 b0cfea 8ab8e0 5c9bd1", against: "fdf6f1 fad3bf f09a76 cf4f2b 7a1c08", paper: "ffffff" };
const MAP_NIGHT = { along: "192129 1f3347 274a6b 2f6190 3a78b0", against: "211b19 4d2418 8f3a22 e0653f ffc4ab", paper: "14171b" };
export const night = matchMedia("(prefers-color-scheme: dark)");
let printing = false;

/** Whether what is drawn now is for paper. */
export function print(value) {
  printing = value;
}

const rgb = (hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
const mixed = (one, other, share) => one.map((value, i) => value + share * (other[i] - value));

/** The colour of a share from −1, with the change, to 1, against it; faint ones are nearer to the paper. */
export const palette = () => between(night.matches && !printing ? NIGHT : PAPER);

/** The colour of a share from −1, what the answer gains, to 1, what it costs. */
export const mapPalette = () => between(night.matches && !printing ? MAP_NIGHT : MAP_PAPER);

function between({ against, along, paper }) {
  const [up, down] = [against, along].map((stops) => stops.split(" ").map(rgb));
  return (share, faint = false) => {
    const stops = share < 0 ? down : up, place = Math.min(1, Math.abs(share)) * (stops.length - 1);
    const below = Math.min(Math.floor(place), stops.length - 2);
    const colour = mixed(stops[below], stops[below + 1], place - below);
    return faint ? mixed(rgb(paper), colour, 0.4) : colour;
  };
}

export const hue = (colour) => `rgb(${colour.map(Math.round).join()})`;

/** The share of the scale at which a value stands: compressed, linear, or linear up to the largest of one row. */
export function shares({ most, linear }, mode, largest) {
  if (mode === "compressed") return (value) => Math.asinh(value / linear) / Math.asinh(most / linear);
  const end = mode === "row" ? largest || 1 : most;
  return (value) => Math.max(-1, Math.min(1, value / end));
}

/** The values to label on the scale, from below 0 to above. */
export function scaleTicks({ most, ticks }, mode, largest) {
  const up = mode === "compressed" ? ticks : [mode === "row" ? largest || 1 : most];
  const label = (value) => written(value, Math.max(0, 1 - Math.floor(Math.log10(Math.abs(value)) + 1e-9))).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
  return [...up.map((value) => [-value, `−${label(value)}`]).reverse(), [0, "0"], ...up.map((value) => [value, label(value)])];
}
