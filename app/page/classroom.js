// What the projector and the teacher's page share: asking the server, drawings, the class map, and refreshing.

import { aDigit, make } from "./dom.js";

export const percent = (share) => `${(100 * share).toFixed(0)} %`;

export function makeWith(tag, className, ...children) {
  const made = make(tag, ...children);
  made.className = className;
  return made;
}

// Returns the server's JSON, or {error, status}: an error in one sentence, and 0 if there was no response.
export async function ask(address, options = {}) {
  try {
    const response = await fetch(address, options);
    const content = await response.json();
    if (response.ok) return content;
    return { error: `${content.error.charAt(0).toUpperCase()}${content.error.slice(1)}.`, status: response.status };
  } catch {
    return { error: "The server does not respond. Is it still running?", status: 0 };
  }
}

// Calls `refresh` now and then, one call at a time, and only while the page is visible.
export async function keepFresh(refresh, milliseconds) {
  for (;;) {
    if (document.visibilityState === "visible") await refresh();
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}

// The image of a drawing, or a note in its place if it was not stored.
export function makeDrawing({ image, prediction, truth }) {
  if (!image) return makeWith("span", "missing small", "not kept");
  const canvas = makeWith("canvas", "drawing");
  canvas.width = canvas.height = 28;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", truth === null ? `A drawing, perhaps of ${aDigit(prediction)}` : `A drawing of ${aDigit(truth)}`);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(28, 28);
  image.forEach((value, i) => pixels.data.set([value, value, value, 255], 4 * i));
  context.putImageData(pixels, 0, 0);
  return canvas;
}

// Fills a table with a confusion matrix: a row per correct digit, a column per answer. Three shades of right and of wrong.
export function showMap(table, matrix, caption) {
  const digits = [...matrix.keys()];
  const heading = (text, scope, label) => {
    const cell = make("th", text);
    cell.scope = scope;
    cell.setAttribute("aria-label", label);
    return cell;
  };
  const most = { right: 1, wrong: 1 };
  const kindOf = (truth, answer) => (truth === answer ? "right" : "wrong");
  matrix.forEach((row, truth) => row.forEach((count, answer) => {
    const kind = kindOf(truth, answer);
    most[kind] = Math.max(most[kind], count);
  }));
  const head = make("tr", make("td"), ...digits.map((digit) => heading(digit, "col", `answered ${digit}`)));
  const rows = matrix.map((row, truth) => {
    const cells = row.map((count, answer) => {
      const kind = kindOf(truth, answer);
      return makeWith("td", `${kind}-${Math.ceil((3 * count) / most[kind])}`, count || "");
    });
    return make("tr", heading(truth, "row", `was ${aDigit(truth)}`), ...cells);
  });
  table.replaceChildren(make("caption", caption), make("thead", head), make("tbody", ...rows));
}
