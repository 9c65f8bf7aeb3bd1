// The chosen prompt's story: its text, its tokens, and what becomes of it.

import { $, cut, make, oneLine, written } from "./elements.js";
import { ALL, alone, now, page, part, slice, state } from "./data.js";
import { amountsOf } from "./table.js";

/** What is marked at a token, in bits; and in words. */
const MARKS = [[1, "ablated"], [2, "subject"]];

/** Of one prompt there is nothing else to choose. */
export const told = () => (alone() ? 0 : state.prompt);

export function tellPrompt(tokens) {
  const prompt = told();
  $("story").hidden = prompt === ALL;
  if (prompt === ALL) return;
  const { text, target } = page.prompts[prompt], { unit, clean, name } = now();
  const [removed, lost, restored] = amountsOf(prompt);
  $("story").querySelector("pre").textContent = text;
  $("becomes").textContent =
    `Prompt ${prompt}, target “${cut(target, 40)}”. ${name} in the intact run: ${written(clean[prompt])} ${unit}. ` +
    `Ablating ${part().name} removes ${removed}, of which ${restored} is restored: it loses ${lost} ${unit}.`;
  fillBoxes(tokens, prompt);
}

/** The prompt's tokens, each in a box. */
function fillBoxes(tokens, prompt) {
  for (const id of ["boxes", "marks"]) $(id).hidden = !tokens;
  if (!tokens) return;
  const [, prompts, width] = page.arrays.tokens.shape;
  const own = slice(tokens, width, prompt).filter((place) => place >= 0);
  const marks = slice(tokens, width, prompts + prompt).subarray(0, own.length);
  const box = (place, i) => {
    const said = MARKS.flatMap(([bit, word]) => (marks[i] & bit ? [word] : []));
    const made = make("li", { className: ["token", ...said].join(" "), dir: "auto" }, oneLine(page.tokens[place]));
    if (said.length) made.append(make("span", { className: "unseen" }, ` (${said.join(", ")})`));
    return made;
  };
  $("boxes").replaceChildren(...Array.from(own, box));
  $("boxes").scrollTop = ($("boxes").querySelector(".ablated")?.offsetTop ?? 0) - $("boxes").offsetTop;
  const [ablated, subject] = MARKS.map(([bit]) => inWords(marks, bit));
  const of = subject ? `; its subject, underlined, is ${subject}` : "";
  $("marks").textContent = `Ablated, filled, at ${ablated}${of}. Tokens count from 0.`;
}

/** At which tokens a bit is set: `token 4`, `tokens 1 and 4 to 6`. */
function inWords(marks, bit) {
  const places = Array.from(marks).flatMap((mark, i) => (mark & bit ? [i] : []));
  if (places.length > 1 && places.length === marks.length) return "all tokens";
  const runs = [];
  for (const place of places) {
    if (runs.at(-1)?.[1] === place - 1) runs.at(-1)[1] = place;
    else runs.push([place, place]);
  }
  const said = runs.map(([first, last]) => (first === last ? String(first) : `${first} to ${last}`));
  const last = said.pop();
  return last && `token${places.length > 1 ? "s" : ""} ${said.length ? `${said.join(", ")} and ${last}` : last}`;
}
