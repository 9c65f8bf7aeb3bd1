// The matrix of one prompt: each response there, in the colours of the mean.

import { alone, now, ofReading, ofReadout, page, state, ALL } from "./data.js";

/** The least share of the readout that an ablation must remove for its responses to go against it or with it. */
const LEAST = 0.01;

/** A matrix and its values: of the prompt that is chosen, if there is one and its responses are known. */
export async function ofChosenPrompt(bounds, picture, outcomes) {
  const { prompt } = state, known = picture.name === "Response" && !page.without;
  if (prompt === ALL || alone() || !known) return { bounds, picture, outcomes, whose: null };
  const rows = page.ablated.length, columns = picture.columns.length, prompts = page.prompts.length;
  const [clean, amounts, ...ablated] = await Promise.all([
    ofReadout("clean_pass"), ofReadout("amounts"), ...page.ablated.map((_, row) => ofReading(`ablated.${row}`)),
  ]);
  const values = new Float32Array(3 * rows * columns).fill(NaN);
  ablated.forEach((array, row) => {
    const known = (column) => Number.isFinite(bounds[row * columns + column]);
    for (let column = 0; column < columns; column++) if (known(column)) values[row * columns + column] = 0;
    array.columns.forEach((column, i) => {
      if (known(column)) values[row * columns + column] = array.at(prompt, i) - clean[prompt * columns + column];
    });
  });
  const least = LEAST * Math.abs(now().clean[prompt]);
  const signs = page.ablated.map((_, row) => {
    const removed = amounts[row * prompts + prompt];
    return Math.abs(removed) > least ? Math.sign(removed) : 0;
  });
  const largest = values.reduce((most, value) => (Math.abs(value) > most ? Math.abs(value) : most), 0);
  const scale = largest > picture.scale.most ? { ...picture.scale, most: largest, ticks: [...picture.scale.ticks.slice(0, -1), largest] } : picture.scale;
  // Removed and lost there; without bounds, and nothing where nothing is removed directly.
  const own = outcomes.map((mean, i) => {
    const [kind, bound, row] = [Math.floor(i / (3 * rows)), Math.floor(i / rows) % 3, i % rows];
    return bound || Number.isNaN(mean) ? NaN : amounts[(kind * rows + row) * prompts + prompt];
  });
  return { bounds: values, picture: { ...picture, signs, scale }, outcomes: own, whose: `prompt ${prompt}` };
}
