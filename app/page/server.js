// Requests to the server. All addresses are relative, so that the page also works behind a proxy with a path prefix.

import { capital, wait } from "./dom.js";

export const SLOWEST = 1000; // most milliseconds between requests while the server asks to slow down
const ATTEMPTS = 20; // how often a refused request is sent before the page gives up

// Returns the response's JSON; if there is none, a sentence as `error`, with the status, and whether to try again.
export async function send(address, { method = "GET", body, headers } = {}) {
  try {
    const response = await fetch(address, { method, body, headers });
    const content = await response.json();
    if (response.ok) return content;
    const refused = response.headers.has("Retry-After"); // the server is busy, and expects the same request again
    return { error: `${capital(content.error)}.`, status: response.status, refused };
  } catch {
    return { error: "The server does not respond. Is it still running?", status: 0, refused: false };
  }
}

export async function sendPatiently(...request) {
  let said = await send(...request);
  for (let attempt = 1; said.refused && attempt < ATTEMPTS; attempt++) {
    await wait(SLOWEST * (0.5 + Math.random() / 2));
    said = await send(...request);
  }
  return said;
}
