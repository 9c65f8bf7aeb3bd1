// What the page shows. It chooses, slices and draws numbers that hydrascope computed; drill.js subtracts some, and
// histogram.js counts prompts.

import { $ } from "./elements.js";

export const ALL = null; // no prompt chosen: means over prompts
export let page = JSON.parse($("page").textContent);
export const state = { readout: 0, sigma: 0, picture: 0, points: 0, component: page.start ?? 0, prompt: ALL };
export const now = () => page.readouts[state.readout];
/** The readout as ablated runs are read: inside the network, where there is no norm, in one way. */
export const reading = () => now().readings[state.sigma] ?? now().readings[0];
export const chosenPicture = () => reading().pictures[state.picture];
export const chosenScatter = () => reading().scatters[state.points];
/** The ablated component that is chosen. */
export const component = () => page.ablated[state.component];
/** Whether there is anything to show: before a first prompt there may be nothing. */
export const measured = () => page.readouts.length > 0;
/** Whether it is of one prompt: there is nothing to compare. */
export const alone = () => page.prompts.length === 1;
/** Whose numbers a view shows where no prompt is chosen. */
export const everyone = () =>
  alone() ? "this prompt" : `mean over ${(page.count ?? page.prompts.length).toLocaleString("en")} prompts`;

const first = page;
const decoded = new Map();
let packed = null; // arrays that came after the page, by name

/** Show what was measured since, or again what the page came with. */
export function show(told = first, arrays = null) {
  page = told;
  packed = arrays;
  decoded.clear();
  Object.assign(state, { readout: 0, sigma: 0, picture: 0, points: 0, component: page.start ?? 0, prompt: ALL });
}

/** An array by name, decoded once it is asked for. */
export function array(name) {
  if (!decoded.has(name)) decoded.set(name, decode(name));
  return decoded.get(name);
}

async function decode(name) {
  const { shape, rounded, columns } = page.arrays[name];
  const text = atob(packed ? packed[name] : $(`array-${name}`).textContent);
  const bytes = await inflated(Uint8Array.from(text, (letter) => letter.charCodeAt(0)));
  if (!rounded) return new Float32Array(bytes);
  const [rows, count] = shape;
  const grid = new Float32Array(bytes, 0, 2 * count);
  const low = new Uint8Array(bytes, 8 * count, rows * count);
  const high = new Uint8Array(bytes, 8 * count + rows * count);
  const at = (row, i) => grid[i] + grid[count + i] * (low[row * count + i] | (high[row * count + i] << 8));
  return { columns, rows, at };
}

function inflated(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
}

export const ofReadout = (name) => array(`${state.readout}.${name}`);
export const ofReading = (name) => array(reading().prefix + name);
export const slice = (values, width, i) => values.subarray(i * width, (i + 1) * width);
