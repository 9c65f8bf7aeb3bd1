// The attention of a head on the prompt’s tokens: a box for each token, a shaded line in it for each state.

import { $, make, oneLine, written } from "./elements.js";

let attention = null; // as it was answered last
let pointed = ""; // the head that is shown

const percent1 = (share) => `${written(100 * share, 1)}%`;

/** Show what was answered of the heads of a block; nothing where none are read. */
export function showAttention(answer) {
  attention = answer;
  $("attention").hidden = !attention;
  if (attention) drawAttention();
}

function drawAttention() {
  const { tokens, states, heads, refused } = attention, found = heads?.[pointed];
  const [told, list] = $("attention").children;
  list.hidden = !found;
  told.textContent = refused ?? "Point at a head to see which tokens it attends to.";
  if (!found) return;
  const sink = found.some(({ rest }) => rest > 0.0005) ? `; a sink takes the rest, ${found.map(({ rest }) => percent1(rest)).join(", ")}` : "";
  told.textContent = `Attention of ${pointed} from the last token: its weight on each token${sink}.`;
  list.ariaLabel = `Attention of ${pointed}`;
  const cell = ({ weights }, i) => {
    const made = make("span", {}, percent1(weights[i]));
    made.style.setProperty("--share", `${50 * weights[i]}%`); // darker would hide the number
    return made;
  };
  const names = make("li", {}, ...["", ...states].map((each) => make("span", { title: each }, each)));
  list.replaceChildren(names, ...tokens.map((text, i) =>
    make("li", {}, make("span", { dir: "auto" }, oneLine(text)), ...found.map((state) => cell(state, i)))));
}

export function startAttention() {
  const show = ({ target, type }) => {
    const name = target.closest("button")?.dataset.component;
    if (!name || !attention || name === pointed) return;
    pointed = name;
    drawAttention();
    if (type === "focusin") $("live").textContent = tellMost();
  };
  for (const kind of ["pointerover", "focusin"]) $("heads").addEventListener(kind, show);
}

/** The token that a head attends to most in the clean pass, and its weight in each state. */
function tellMost() {
  const { tokens, states, heads } = attention, found = heads?.[pointed];
  if (!found) return "";
  const most = found[0].weights.indexOf(Math.max(...found[0].weights));
  const shares = states.map((state, i) => `${state} ${percent1(found[i].weights[most])}`);
  return `${pointed} attends most to “${oneLine(tokens[most])}”: ${shares.join(", ")}`;
}
