// The projector's page: the room's latest drawings, each in a place of its own, and the class map. It needs no hands.

import { ask, keepFresh, makeDrawing, makeWith, percent, showMap } from "./classroom.js";
import { aDigit, element, make } from "./dom.js";

const EVERY = 1500; // milliseconds
const PLACES = 16; // as many as the server sends

const wall = []; // the keys of the drawings by place: a drawing stays where it is until a newer one needs its place

async function refresh() {
  const said = await ask("wall");
  if (said.error) {
    element("counted").textContent = said.error;
    return;
  }
  const { predictions, known, right, accuracy, confusion_matrix: matrix } = said.statistics;
  element("class").textContent = said.class.name || "The room's drawings";
  element("counted").textContent = predictions ? `${predictions} drawings, ${known} with a known digit` : "Nothing is drawn yet.";
  element("accuracy").textContent = known ? `${accuracy.toFixed(1)} %` : "–";
  element("known").textContent = known ? `right: ${right} of ${known}` : "";
  showMap(element("map"), matrix, "Rows: the correct digit. Columns: the network's answer.");
  showWall(said.drawings);
}

function showWall(drawings) {
  const shown = new Map(drawings.map((drawing) => [drawing.key, drawing]));
  for (const place of wall.keys()) if (!shown.has(wall[place])) wall[place] = null;
  for (const key of [...shown.keys()].reverse()) {
    if (wall.includes(key)) continue;
    const free = wall.indexOf(null);
    if (free >= 0) wall[free] = key;
    else if (wall.length < PLACES) wall.push(key);
  }
  element("wall").replaceChildren(...wall.map((key) => (key === null ? make("li") : makeTile(shown.get(key)))));
}

function makeTile(drawing) {
  const { prediction, confidence, doubt, truth } = drawing;
  const said = doubt ? ["?", "in doubt"] : [prediction, percent(confidence)];
  const answer = make("div", makeWith("div", "digit", said[0]), makeWith("div", "sure", said[1]));
  const outcome = truth === null ? "" : truth === prediction ? "right" : "wrong";
  const told = { "": "", right: "✓ right", wrong: `✗ it was ${aDigit(truth)}` }[outcome];
  return makeWith("li", outcome, makeWith("div", "body", makeDrawing(drawing), answer), makeWith("p", "truth", told));
}

const { address, only_here: onlyHere, error } = await ask("address");
element("address").textContent = error ?? address.replace(/^http:\/\/|\/$/g, "");
if (onlyHere) {
  element("warning").textContent = "Only this machine can open this address: see “Teach a class” in app/README.md.";
}
keepFresh(refresh, EVERY);
