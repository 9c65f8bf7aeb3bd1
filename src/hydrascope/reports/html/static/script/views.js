// Views: what is pointed at, and how one gets from one thing to the next.

import { $, make, svg } from "./elements.js";
import { saveCsv, savePng, saveSvg } from "./saving.js";

export const views = {};

/** Make a figure pointable: `at(x, y)` is what is there, `step(item, key)` what is next to it. */
export function pointable(id, name) {
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

export function mark(view) {
  const cursor = view.plot.querySelector(".cursor");
  cursor?.setAttribute("visibility", view.item ? "visible" : "hidden");
  for (const [key, value] of Object.entries(view.item?.cursor ?? {})) cursor?.setAttribute(key, value);
}

export function point(view, item, x, y, spoken = false) {
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
export function amongPoints(view, points) {
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

export function fresh(view, height) {
  const width = Math.max(view.plot.clientWidth, 200);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
  view.plot.querySelector("svg")?.remove();
  view.plot.append(root);
  return { root, width };
}
