// Saving a view as SVG, PNG and CSV.

import { cut, make, svg } from "./elements.js";
import { component, now, page } from "./data.js";

function save(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** What names a file: of a view of its own question, that; else what is chosen on the page. */
const named = (view) => (view.own ? [view.own.name] : [view.id, component().name, now().name, view.sigma]);

const fileName = (view, kind) =>
  `${[page.model, ...named(view)].filter(Boolean).join("-").replaceAll(/[^\w.+-]+/g, "_")}.${kind}`;

const LOOKS = ["fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width", "stroke-dasharray", "font-size", "font-family", "visibility"];

/** A view as an SVG that needs no style sheet, and says under it what it shows. */
function standing(view) {
  const shown = view.plot.querySelector("svg"), copy = shown.cloneNode(true);
  const copies = [...copy.querySelectorAll("*")];
  [...shown.querySelectorAll("*")].forEach((each, i) => {
    const look = getComputedStyle(each);
    for (const name of LOOKS) copies[i].setAttribute(name, look.getPropertyValue(name));
  });
  copy.querySelectorAll(".cursor").forEach((each) => each.remove());
  const { width, height } = shown.viewBox.baseVal, look = getComputedStyle(shown.querySelector("text"));
  const facts = (view.own ? [] : page.run).filter(([name]) => ["ablation", "positions", "prompts", "of"].includes(name)).map((each) => each.join(" "));
  const captions = [...view.captions, [page.model, ...facts].join(" · ")];
  captions.forEach((line, i) => {
    const at = { x: 6, y: height + 16 * (i + 1), "font-family": look.fontFamily, "font-size": "12px", fill: look.fill };
    copy.append(svg("text", at, cut(line, Math.floor(width / 6.4))));
  });
  const below = height + 16 * captions.length + 8;
  for (const [key, value] of [["height", below], ["viewBox", `0 0 ${width} ${below}`]]) copy.setAttribute(key, value);
  const paper = getComputedStyle(document.body).backgroundColor;
  copy.prepend(svg("rect", { width: "100%", height: "100%", fill: paper }));
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
}

export const saveSvg = (view) => save(fileName(view, "svg"), standing(view));

export function savePng(view) {
  const picture = new Image(), address = URL.createObjectURL(standing(view));
  picture.onload = () => {
    const canvas = make("canvas", { width: 3 * picture.width, height: 3 * picture.height });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(fileName(view, "png"), blob));
    URL.revokeObjectURL(address);
  };
  picture.src = address;
}

export function saveCsv(view) {
  const field = (value) => {
    const text = typeof value !== "number" ? String(value) : Number.isFinite(value) ? String(Number(value.toPrecision(8))) : "";
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const text = view.rows().map((row) => row.map(field).join(",")).join("\n");
  save(fileName(view, "csv"), new Blob([`${text}\n`], { type: "text/csv" }));
}
