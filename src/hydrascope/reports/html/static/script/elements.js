// Elements, texts and written numbers. Whatever comes from a prompt or a model becomes a text node, never markup.

export const $ = (id) => document.getElementById(id);

/** An element with properties and children; strings become text. */
export function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const oneLine = (text) => text.replaceAll("\r\n", "⏎").replaceAll(/[\n\r]/g, "⏎").replaceAll("\t", " ");

export function cut(text, most) {
  const letters = Array.from(oneLine(text.slice(0, 4 * most)));
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : letters.join("");
}

/** How many decimals show three digits of the largest of some numbers. */
export function decimals(...values) {
  const most = Math.max(...values.map(Math.abs).filter(Number.isFinite));
  return most > 0 ? Math.min(Math.max(2 - Math.floor(Math.log10(most)), 0), 9) : 2;
}

export const written = (value, digits = decimals(value)) =>
  Number.isFinite(value) ? (Number(value.toFixed(digits)) + 0).toFixed(digits).replace("-", "−") : "–";

export function withBounds(mean, low, high, unit) {
  const digits = decimals(mean, low, high);
  const bounds = Number.isFinite(low) ? ` [${written(low, digits)}, ${written(high, digits)}]` : "";
  return `${written(mean, digits)}${bounds} ${unit}`;
}
