// The statistics of all visitors, which refresh by themselves.

import { aDigit, element, make, makePicture, showPixels } from "./dom.js";
import { sendPatiently } from "./server.js";

const REFRESH = 5000; // milliseconds between statistics while the page is visible

export async function showStatistics() {
  const counted = await sendPatiently("statistics");
  if (counted.error) {
    element("counted").textContent = counted.error;
    return;
  }
  const later = counted.waiting ? ` ${counted.waiting} more will be recorded later.` : "";
  element("counted").textContent = counted.predictions
    ? `Drawings recorded: ${counted.predictions}. Labeled by users: ${counted.known}.${later}`
    : `Nothing is recorded yet.${later}`;
  element("counts").hidden = !counted.known;
  if (!counted.known) return;
  const known = (value, digits = 1) => (value === null ? "none yet" : `${value.toFixed(digits)} %`);
  const numbers = [
    ["Accuracy", `${known(counted.accuracy)} of ${counted.known}`],
    ["Mean confidence when correct", known(counted.confidence_right)],
    ["Mean confidence when wrong", known(counted.confidence_wrong)],
  ];
  element("numbers").replaceChildren(...numbers.map(([name, value]) => make("div", make("dt", name), make("dd", value))));
  showMatrix(counted);
  const mistakes = counted.latest_mistakes.map(makeMistake);
  element("mistakes").replaceChildren(...(mistakes.length ? mistakes : [make("p", "None yet.")]));
}

function showMatrix(counted) {
  const head = make("tr", make("td"), ...counted.digits.map((_, digit) => heading(digit, "col")), heading("accuracy", "col"));
  const rows = counted.confusion_matrix.map((row, truth) => {
    const cells = row.map((count, said) => {
      const cell = make("td", count || "");
      if (count) cell.className = truth === said ? "right" : "wrong";
      return cell;
    });
    const { accuracy, right, known } = counted.digits[truth];
    const share = make("td", accuracy === null ? "" : `${accuracy.toFixed(0)} % (${right} of ${known})`);
    return make("tr", heading(truth, "row"), ...cells, share);
  });
  element("matrix").replaceChildren(make("thead", head), make("tbody", ...rows));
}

function makeMistake({ truth, prediction, confidence, image }) {
  const caption = make("figcaption", `${aDigit(truth)} mistaken for ${aDigit(prediction)}, ${confidence.toFixed(0)} %`);
  caption.className = "small";
  if (!image) return make("figure", caption);
  const canvas = makePicture(28, `A drawing of ${aDigit(truth)}`);
  showPixels(canvas, image);
  return make("figure", canvas, caption);
}

function heading(text, scope) {
  const cell = make("th", text);
  cell.scope = scope;
  return cell;
}

setInterval(() => document.visibilityState === "visible" && showStatistics(), REFRESH);
