// Compare: another network's prediction of the same image, beside the first, and the drawings on which they differ.

import { current, makeBars, showBars } from "./answer.js";
import { element, make, makePicture, percent, showPixels } from "./dom.js";
import { currentId } from "./drawing.js";
import { follow } from "./follow.js";
import { sendPatiently } from "./server.js";

const KEPT = 12; // drawings that are shown as differences

const differences = new Map(); // drawing's id: figure
let names = ["this network", "the other"];

export function title({ name, parameters, accuracy }) {
  return `${name}: ${parameters.toLocaleString("en")} parameters, ${accuracy} %`;
}

export function showCompare(about) {
  const lists = [element("these-bars"), element("other-bars")];
  lists.forEach(makeBars);
  element("this-network").textContent = title(about);
  element("compare").addEventListener("toggle", nameOther);

  async function nameOther() {
    const other = await sendPatiently("compare");
    if (other.error) return void (element("compared").textContent = other.error);
    names = [about.name, other.name];
    element("other-network").textContent = title(other);
    element("compare").removeEventListener("toggle", nameOther);
  }

  function show(other, pixels) {
    const one = current();
    [one, other].forEach((said, i) => showBars(lists[i], said));
    const same = one.digit === other.digit;
    element("compared").textContent = same
      ? `Both say ${one.digit}: ${names[0]} with ${percent(one.confidence)}, ${names[1]} with ${percent(other.confidence)}.`
      : `They disagree: ${names[0]} says ${one.digit}, ${names[1]} says ${other.digit}.`;
    element("comparison").classList.toggle("differ", !same);
    if (same) differences.delete(currentId()); // it was another digit while it was drawn
    else differences.set(currentId(), makeDifference(one.digit, other.digit, pixels));
    showDifferences();
  }

  follow(element("compare"), "compare", show, (sentence) => {
    lists.forEach((list) => showBars(list, null));
    element("compared").textContent = sentence;
    element("comparison").classList.remove("differ");
  });
}

function makeDifference(one, other, pixels) {
  const picture = makePicture(28, `A drawing: ${names[0]} says ${one}, ${names[1]} says ${other}`);
  showPixels(picture, pixels);
  const caption = make("figcaption", `${names[0]}: ${one}, ${names[1]}: ${other}`);
  caption.className = "small";
  return make("figure", picture, caption);
}

function showDifferences() {
  const figures = [...differences.values()].slice(-KEPT).reverse();
  element("differences").replaceChildren(...figures);
  element("differences-title").hidden = !figures.length;
}
