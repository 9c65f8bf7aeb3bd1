// The chosen prompt's story: its text, its tokens, and what becomes of it.

import { $, cut, make, oneLine, written } from "./elements.js";
import { ALL, alone, component, now, page, slice, state } from "./data.js";
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
    `Prompt ${prompt}, target “${cut(target, 40)}”. ${name} in the clean pass: ${written(clean[prompt])} ${unit}. ` +
    `Ablating ${component().name} removes ${removed}, of which ${restored} is restored: it loses ${lost} ${unit}.`;
  fillBoxes(tokens, prompt);
}

/** The prompt's tokens, each in a box. */
function fillBoxes(tokens, prompt) {
  for (const id of ["boxes", "marks"]) $(id).hidden = !tokens;
  if (!tokens) return;
  const [, prompts, width] = page.arrays.tokens.shape;
  const own = slice(tokens, width, prompt).filter((index) => index >= 0);
  const marks = slice(tokens, width, prompts + prompt).subarray(0, own.length);
  const box = (index, i) => {
    const words = MARKS.flatMap(([bit, word]) => (marks[i] & bit ? [word] : []));
    const made = make("li", { className: ["token", ...words].join(" "), dir: "auto" }, oneLine(page.tokens[index]));
    if (words.length) made.append(make("span", { className: "unseen" }, ` (${words.join(", ")})`));
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
  const positions = Array.from(marks).flatMap((mark, i) => (mark & bit ? [i] : []));
  if (positions.length > 1 && positions.length === marks.length) return "all tokens";
  const spans = [];
  for (const position of positions) {
    if (spans.at(-1)?.[1] === position - 1) spans.at(-1)[1] = position;
    else spans.push([position, position]);
  }
  const words = spans.map(([first, last]) => (first === last ? String(first) : `${first} to ${last}`));
  const last = words.pop();
  return last && `token${positions.length > 1 ? "s" : ""} ${words.length ? `${words.join(", ")} and ${last}` : last}`;
}
