// Asking the server that the page came from: it tells how far it is, and last the answer.

/** What the server says instead of an answer. */
export class Refused extends Error {}

/** The answer to a question; `tell` hears how far it is. Aborting the signal ends the computation, too. */
export async function ask(kind, asked, tell, signal) {
  const headers = { "Content-Type": "application/json" };
  const options = { method: "POST", headers, body: JSON.stringify(asked), signal, referrerPolicy: "no-referrer" };
  const response = await fetch(kind, options);
  if (response.status === 403) throw new Refused(await response.text());
  let answer = null;
  for await (const told of lines(response.body)) {
    if (told.error) throw new Refused(told.error);
    if (told.answer) answer = told.answer;
    else tell(told);
  }
  if (!answer) throw new TypeError("the connection ended before the answer");
  return answer;
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
  if (error instanceof Refused) return `${error.message[0].toUpperCase()}${error.message.slice(1)}`;
  return (
    `The server behind this page doesn’t answer: it has ended. What was found stays here. Start it again with ` +
    `“hydrascope explore ${model}”, open the address that it prints, and add what follows # in this one.`
  );
}
