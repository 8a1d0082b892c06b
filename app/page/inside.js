// Look inside: feature maps, class map, and the receptive field under the pointer, framed in the drawing.

import { current } from "./answer.js";
import { aDigit, decode, element, make, makePicture, showPixels } from "./dom.js";
import { boxOf, inkBox, paper } from "./drawing.js";
import { follow } from "./follow.js";

const SIDE = 28;
const BOX = 20; // pixels of the image that the longer side of the digit takes
const MOST_NUMBERS = 7; // largest side of a class map that is shown with its numbers
const NO_MAPS = "This network has no feature maps to show, or was exported before they were written down: export it again.";
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

let seen = null; // what is shown: {layers, class_map, image}
let pointed = null; // {layer, channel, row, column}
let pointAgain = null; // a function that points at the same place in other maps
let chosen = null; // the class that the user chose for this drawing; null: the answer

export function showInside() {
  for (let digit = 0; digit < 10; digit++) element("class").append(make("option", digit));
  element("class").addEventListener("change", () => {
    chosen = Number(element("class").value);
    showClassMap();
  });
  element("heat").addEventListener("pointermove", pointAtHeat);
  element("heat").addEventListener("pointerleave", unpoint);
  element("heat").addEventListener("click", pointAtHeat);
  element("inside").addEventListener("toggle", unpoint);
  follow(element("inside"), "inside", show, forget);
}

function show(said, image) {
  const again = pointAgain;
  seen = { ...said, image };
  for (const layer of seen.layers) layer.values = decode(layer.maps);
  unpoint();
  const missing = said.layers.length ? "" : NO_MAPS;
  element("looked").textContent = missing;
  element("looked").hidden = !missing;
  element("insides").hidden = Boolean(missing);
  if (missing) return;
  showPixels(element("heat-image"), image);
  showLayers(said.layers);
  element("class-map").hidden = !said.class_map;
  element("no-class-map").hidden = Boolean(said.class_map);
  if (said.class_map) showClassMap();
  again?.(); // the pointer is where it was
}

function forget(sentence) {
  seen = chosen = null;
  unpoint();
  element("looked").textContent = sentence;
  element("looked").hidden = false;
  element("insides").hidden = true;
}

// ---------------------------------------------------------------------------------------------------------------------
// Feature maps
// ---------------------------------------------------------------------------------------------------------------------

function showLayers(layers) {
  const shape = JSON.stringify(layers.map(({ channels, side }) => [channels, side]));
  if (element("layers").dataset.shape !== shape) {
    element("layers").replaceChildren(...layers.map(makeLayer));
    element("layers").dataset.shape = shape;
  }
  layers.forEach(({ side, values, lowest, largest }, i) => {
    const block = element("layers").children[i];
    const size = side * side;
    [...block.querySelectorAll("canvas")].forEach((canvas, channel) => {
      showPixels(canvas, values.subarray(channel * size, (channel + 1) * size));
    });
    block.querySelector(".range").textContent = `black ${lowest.toFixed(1)}, white ${largest.toFixed(1)}`;
  });
}

function makeLayer({ channels, side, field }, i) {
  const range = make("span");
  range.className = "range";
  const about = `${channels} maps of ${side} × ${side}; each value sees ${field} × ${field} pixels; `;
  const caption = make("p", make("strong", `Layer ${i + 1}`), ` ${about}`, range);
  caption.className = "small";
  const marker = make("div");
  marker.className = "unit";
  marker.hidden = true;
  const maps = make("div", ...Array.from({ length: channels }, () => makePicture(side)), marker);
  maps.className = `maps ${side >= 20 ? "large" : side >= 10 ? "middle" : "small-side"}`;
  maps.tabIndex = 0;
  maps.setAttribute("role", "application");
  maps.setAttribute("aria-roledescription", "feature maps");
  maps.setAttribute("aria-label", `Layer ${i + 1}, ${channels} maps of ${side} by ${side}. The arrow keys move over their values.`);
  for (const kind of ["pointermove", "click"]) maps.addEventListener(kind, (event) => pointAtMap(event, i));
  maps.addEventListener("pointerleave", unpoint);
  maps.addEventListener("blur", unpoint);
  maps.addEventListener("keydown", (event) => moveUnit(event, i));
  return make("div", caption, maps);
}

function pointAtMap(event, i) {
  if (!event.target.matches("canvas")) return;
  const { side } = seen.layers[i];
  const channel = [...event.currentTarget.children].indexOf(event.target);
  point(i, channel, ...cellUnder(event, event.target, side));
}

function cellUnder(event, target, side) {
  const box = target.getBoundingClientRect();
  const place = (share) => Math.min(side - 1, Math.max(0, Math.floor(share * side)));
  return [place((event.clientY - box.top) / box.height), place((event.clientX - box.left) / box.width)];
}


function moveUnit(event, i) {
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in ARROWS)) return;
  event.preventDefault();
  const { channels, side } = seen.layers[i];
  if (pointed?.layer !== i) return point(i, 0, 0, 0);
  const [right, down] = ARROWS[event.key];
  let { channel, row, column } = pointed;
  row = Math.min(side - 1, Math.max(0, row + down));
  column += right;
  if (column < 0 && channel > 0) [channel, column] = [channel - 1, side - 1]; // on to the map beside it
  if (column >= side && channel < channels - 1) [channel, column] = [channel + 1, 0];
  point(i, channel, row, Math.min(side - 1, Math.max(0, column)));
}

function point(layer, channel, row, column) {
  const { side, field, jump, first, lowest, largest, values } = seen.layers[layer];
  unpoint();
  pointed = { layer, channel, row, column };
  pointAgain = () => point(layer, channel, row, column);
  const value = lowest + (values[(channel * side + row) * side + column] * (largest - lowest)) / 255;
  element("unit").textContent =
    `Layer ${layer + 1}, map ${channel + 1}, row ${row + 1}, column ${column + 1}: ${value.toFixed(2)}. ` +
    `The frame shows the ${field} × ${field} pixels that it sees.`;
  frame({ left: first + column * jump, top: first + row * jump, side: field });
  const block = element("layers").children[layer].querySelector(".maps");
  const canvas = block.children[channel];
  const cell = canvas.clientWidth / side;
  const marker = block.querySelector(".unit");
  marker.hidden = false;
  setBox(marker, canvas.offsetLeft + canvas.clientLeft + column * cell, canvas.offsetTop + canvas.clientTop + row * cell, cell, "px");
}

function unpoint() {
  pointed = pointAgain = null;
  for (const marker of document.querySelectorAll(".unit, .frame")) marker.hidden = true;
  element("unit").textContent = "Point at a map, and a frame shows which pixels that value sees.";
}

// ---------------------------------------------------------------------------------------------------------------------
// Receptive field: a square of the image's pixels, framed where the image and the drawing are shown
// ---------------------------------------------------------------------------------------------------------------------

function frame({ left, top, side }) {
  const scale = 100 / SIDE;
  for (const id of ["heat-frame", "seen-frame"]) {
    element(id).hidden = false;
    setBox(element(id), left * scale, top * scale, side * scale, "%");
  }
  const drawn = inkBox();
  const digit = boxOf(SIDE, SIDE, (i) => seen.image[i] > 0);
  if (!drawn || !digit) return; // a picture: only the server knows where its digit is
  // The server scales the ink's box to 20 pixels on its longer side, so both boxes have the same center.
  const pixel = Math.max(drawn.right - drawn.left, drawn.bottom - drawn.top) / BOX; // of the image, in those of the drawing
  const x = (drawn.left + drawn.right) / 2 + (left - (digit.left + digit.right) / 2) * pixel;
  const y = (drawn.top + drawn.bottom) / 2 + (top - (digit.top + digit.bottom) / 2) * pixel;
  const share = 100 / paper.width;
  element("paper-frame").hidden = false;
  setBox(element("paper-frame"), x * share, y * share, side * pixel * share, "%");
}

function setBox({ style }, left, top, side, unit) {
  style.left = `${left}${unit}`;
  style.top = `${top}${unit}`;
  style.width = style.height = `${side}${unit}`;
}

// ---------------------------------------------------------------------------------------------------------------------
// Class map
// ---------------------------------------------------------------------------------------------------------------------

function showClassMap() {
  const digit = chosen ?? current().digit;
  element("class").value = digit;
  const { added, bias, logits } = seen.class_map;
  const largest = Math.max(...added.flat(2).map(Math.abs));
  const map = added[digit];
  element("heat").replaceChildren(...map.map((row) => make("tr", ...row.map((value) => makeCell(value, largest, map.length)))));
  const sum = map.flat().reduce((total, value) => total + value, 0);
  const sign = bias[digit] < 0 ? "−" : "+";
  element("sum").textContent =
    `For ${aDigit(digit)}: the squares add up to ${signed(sum)}, the bias is ${signed(bias[digit])}. ` +
    `Logit: ${sum.toFixed(2)} ${sign} ${Math.abs(bias[digit]).toFixed(2)} = ${logits[digit].toFixed(2)}.`;
  element("heat-caption").textContent = `What each region adds to the logit of ${digit}`;
  const { side, field } = seen.layers.at(-1);
  element("stretch").textContent =
    `The ${side} × ${side} squares are the positions of the last maps, stretched over the image. Each sees ` +
    `${field} × ${field} pixels: point at one to see which.`;
}

function makeCell(value, largest, side) {
  const cell = make("td", side <= MOST_NUMBERS ? make("span", signed(value)) : "");
  cell.className = value < 0 ? "against" : "for";
  cell.style.setProperty("--strength", (Math.abs(value) / (largest || 1)).toFixed(3));
  return cell;
}

function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
}

function pointAtHeat(event) {
  if (seen?.class_map) pointAtRegion(...cellUnder(event, element("heat"), seen.layers.at(-1).side));
}

function pointAtRegion(row, column) {
  const { first, jump, field } = seen.layers.at(-1);
  const digit = chosen ?? current().digit;
  unpoint();
  pointAgain = () => pointAtRegion(row, column);
  frame({ left: first + column * jump, top: first + row * jump, side: field });
  element("unit").textContent =
    `Row ${row + 1}, column ${column + 1} of the last maps adds ${signed(seen.class_map.added[digit][row][column])} ` +
    `to the logit of ${digit}. The frame shows the ${field} × ${field} pixels that it sees.`;
}
