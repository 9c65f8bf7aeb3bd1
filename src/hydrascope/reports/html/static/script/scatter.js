// The scatter: one amount on another, a point a prompt: what is restored on what is removed, or CE on DE.

import { $, cut, svg, written } from "./elements.js";
import { component, now, page, state } from "./data.js";
import { amongPoints, fresh, views } from "./views.js";
import { frame, range, ticks } from "./axes.js";
import { choose } from "./page.js";

const capital = (name) => name[0].toUpperCase() + name.slice(1);

/** Draw a scatter of the chosen component: `across` and `up` of each prompt; NaN where one isn’t known. */
export function drawScatter(scatter, across, up, [removed, lost, restored]) {
  const view = views.scatter, height = 320, { unit, name } = now();
  const { root, width } = fresh(view, height);
  const box = { left: 62, top: 26, width: width - 74, height: height - 26 - 44 };
  const line = scatter.lines[state.component], [first, second] = scatter.names;
  const [xs, ys] = [range(across, 0), range(up, 0, ...(line?.ends ?? []).map(([, end]) => end))];
  const { x, y } = frame(root, box, xs, ys, ticks(...xs, width / 80), `${capital(first)} (${cut(unit, 16)})`, `${capital(second)} (${cut(unit, 12)})`);
  root.append(svg("line", { class: "zero", x1: x(0), x2: x(0), y1: box.top, y2: box.top + box.height }));
  const ends = [Math.max(xs[0], ys[0]), Math.min(xs[1], ys[1])];
  root.append(svg("line", { class: "all", x1: x(ends[0]), y1: y(ends[0]), x2: x(ends[1]), y2: y(ends[1]) }));
  const known = page.prompts.map((_, i) => i).filter((i) => Number.isFinite(across[i]) && Number.isFinite(up[i]));
  const radius = known.length > 400 ? 2.2 : 3;
  // What the table of prompts has not.
  const others = [[first, across], [second, up]].filter(([of]) => !["removed", "restored"].includes(of));
  const more = others.length ? () => "" : (i) => `, lost ${written(lost[i])}`;
  const points = known.map((i) => ({
    key: i, order: across[i], x: x(across[i]), y: y(up[i]), cursor: { cx: x(across[i]), cy: y(up[i]), r: 6 },
    text:
      `prompt ${i}: ${first} ${written(across[i])}, ${second} ${written(up[i])}${more(i)} ${unit}: ` +
      cut(page.prompts[i].text, 70),
    choose: () => choose({ prompt: i }),
  }));
  root.append(...points.map((each) => svg("circle", { class: "point", cx: each.x.toFixed(1), cy: each.y.toFixed(1), r: radius })));
  if (line) {
    const [from, to] = line.ends;
    root.append(svg("line", { class: "fit", x1: x(from[0]), y1: y(from[1]), x2: x(to[0]), y2: y(to[1]) }));
  }
  const legend = [["all", scatter.diagonal], ...(line ? [["fit", `slope ${line.slope}`]] : [])];
  legend.forEach(([kind, label], i) => {
    const left = 62 + i * 140;
    root.append(svg("line", { class: kind, x1: left, x2: left + 20, y1: 10, y2: 10 }));
    root.append(svg("text", { class: "tick", x: left + 25, y: 14 }, label));
  });
  const chosen = points.find((each) => each.key === state.prompt);
  if (chosen) root.append(svg("circle", { class: "chosen", cx: chosen.x, cy: chosen.y, r: 5 }));
  root.append(svg("circle", { class: "cursor", visibility: "hidden", r: 6 }));
  amongPoints(view, points);
  const title = `${scatter.title} ${component().name}, a point a prompt`, read = `Readout: ${scatter.caption}`;
  Object.assign(view, { captions: [title, read], sigma: scatter.sigma });
  $("scatter").querySelector("h3").textContent = title;
  $("scatter").querySelector("figcaption p").textContent = points.length ? `${read}.` : `${read}. Not known: the component wasn’t read, or can’t be told from those that respond.`;
  view.plot.setAttribute("aria-label", `${title}; left and right move, Enter chooses the prompt`);
  view.rows = () => [
    ["prompt", "text", "target", "ablated", "removed", "lost", "restored", ...others.map(([of]) => of), "unit", "readout", "sigma"],
    ...page.prompts.map((each, i) => [
      i, each.text, each.target, component().name, removed[i], lost[i], restored[i], ...others.map(([, values]) => values[i]),
      unit, name, scatter.sigma ?? "",
    ]),
  ];
}
