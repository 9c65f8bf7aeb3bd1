// The repair flow of the typed prompt: a picture that hydrascope drew, for a wide column and a narrow one.

import { make } from "./elements.js";

/** The picture as a figure; where there is none, the reason. */
export function figureOfFlow(flow, patches) {
  const figure = make("figure", { className: "flow" });
  if (flow.why) {
    figure.append(make("figcaption", { className: "keys" }, flow.why));
    return figure;
  }
  const over = patches > 1 ? `, mean over ${patches} patches` : "";
  figure.append(make("figcaption", { className: "keys" }, `The repair flow on this prompt${over}. One prompt has no intervals.`));
  const sheets = ["wide", "narrow"].map((name) => {
    const { svg: text, style } = flow[name];
    const drawn = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
    figure.append(make("div", { className: `flow-${name}` }, document.adoptNode(drawn)));
    // The page's policy allows no style element that came later: the sheet is adopted.
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(style);
    return sheet;
  });
  document.adoptedStyleSheets = sheets;
  return figure;
}
