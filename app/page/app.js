// The page: draw a digit, and see what the network makes of it.

import { forget, makeBars } from "./answer.js";
import { showCompare } from "./compare.js";
import { element } from "./dom.js";
import { paint } from "./drawing.js";
import "./input.js";
import { showInside } from "./inside.js";
import { send } from "./server.js";
import { showStatistics } from "./statistics.js";
import "./tell.js";

makeBars(element("bars"));
forget();
paint();
showStatistics();
showInside();
const about = await send("about");
if (!about.error) {
  element("about").textContent =
    `A network with ${about.parameters.toLocaleString("en")} parameters, ` +
    `${about.accuracy} % accurate on MNIST's test set, guesses your digit as you draw.`;
  showCompare(about);
  if (!about.drawings_are_stored) {
    for (const part of document.querySelectorAll(".when-stored")) part.hidden = true;
    for (const part of document.querySelectorAll(".when-not-stored")) part.hidden = false;
  }
}
