// Asking the server that the page came from, or the notebook that it stands in: how far it is, and last the answer.

import { page } from "./data.js";

const inNotebook = Boolean(page.live?.notebook);

/** What the server says instead of an answer. */
export class Refused extends Error {}

/** The answer to a question; `tell` hears how far it is. Aborting the signal ends the computation, too. */
export async function ask(kind, asked, tell, signal) {
  const updates = inNotebook ? ofNotebook(kind, asked, signal) : await ofServer(kind, asked, signal);
  for await (const told of updates) {
    if (told.error) throw new Refused(told.error);
    if (told.answer) return told.answer;
    tell(told);
  }
  throw new TypeError("the connection ended before the answer");
}

async function ofServer(kind, asked, signal) {
  const headers = { "Content-Type": "application/json" };
  const options = { method: "POST", headers, body: JSON.stringify(asked), signal, referrerPolicy: "no-referrer" };
  const response = await fetch(kind, options);
  if (response.status === 403) throw new Refused(await response.text());
  return lines(response.body);
}

/** By messages to the notebook's page, which stands around this one and hands them on. */
async function* ofNotebook(kind, asked, signal) {
  const id = Math.random(), heard = [];
  let wake = () => {};
  const hear = ({ source, data }) => {
    if (source !== parent || data?.id !== id) return;
    heard.push(data);
    wake();
  };
  const stop = () => {
    parent.postMessage({ id, stop: true }, "*");
    wake();
  };
  addEventListener("message", hear);
  signal.addEventListener("abort", stop);
  try {
    parent.postMessage({ id, kind, asked }, "*");
    yield { doing: "waiting for the kernel" }; // which may be running a cell
    for (;;) {
      signal.throwIfAborted();
      if (heard.length) yield heard.shift();
      else await new Promise((resolve) => (wake = resolve));
    }
  } finally {
    removeEventListener("message", hear);
    signal.removeEventListener("abort", stop);
  }
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const found = (rest + (value ?? "")).split("\n");
    rest = done ? "" : found.pop();
    for (const line of found) if (line.trim()) yield JSON.parse(line);
    if (done) return;
  }
}

/** Why there is no answer, in a sentence. */
export function why(error, model) {
  if (error.name === "AbortError") return "Cancelled.";
  // A word begins a sentence; a component’s label is written as it is.
  if (error instanceof Refused) return error.message.replace(/^[a-z]+(?=[ ,])/, (word) => word[0].toUpperCase() + word.slice(1));
  return (
    `The server behind this page doesn’t answer: it has ended. What was found stays here. Start it again with ` +
    `“hydrascope explore ${model}”, open the address that it prints, and add what follows # in this one.`
  );
}
