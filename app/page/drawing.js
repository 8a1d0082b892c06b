// The drawing: strokes, each a list of points, or a picture instead. Events: "changed", and "cleared" for a new one.

import { element } from "./dom.js";

const BRUSH = 22; // of the canvas's 280 pixels: about two of 28, like MNIST's strokes
const SENT_SIDE = 112; // pixels of the drawing as it is sent: four of them for each of the network's 28
const FAINTEST = 0.1; // least ink that counts towards the drawing's box, as on the server

export const paper = element("paper");
export const events = new EventTarget();
export const pen = { x: 140, y: 140, down: false, shown: false }; // moved by the keyboard

const ink = paper.getContext("2d", { willReadFrequently: true });
const sent = document.createElement("canvas");
sent.width = sent.height = SENT_SIDE;
const sentInk = sent.getContext("2d", { alpha: false, willReadFrequently: true }); // no alpha: fewer bytes to decode

let strokes = [];
let stroke = null; // the one that is being drawn
let picture = null; // {blob, bitmap}, instead of strokes
let id = newId(); // a new one after a correction or Clear
let finished = false; // already corrected: the next stroke starts a new drawing

function newId() {
  if (crypto.randomUUID) return crypto.randomUUID(); // defined only on localhost and over HTTPS
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

export const currentId = () => id;
export const isFinished = () => finished;
export const finish = () => void (finished = true);
export const reopen = () => void (finished = false);

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export function paint() {
  paintDrawing();
  showPen();
  element("undo").disabled = !strokes.length;
  element("clear").disabled = !strokes.length && !picture;
}

function paintDrawing() {
  ink.fillStyle = color("--paper");
  ink.fillRect(0, 0, paper.width, paper.height);
  if (picture) {
    const { width, height } = picture.bitmap;
    const scale = Math.min(paper.width / width, paper.height / height);
    const [w, h] = [width * scale, height * scale];
    ink.drawImage(picture.bitmap, (paper.width - w) / 2, (paper.height - h) / 2, w, h);
  }
  ink.strokeStyle = color("--ink");
  ink.lineWidth = BRUSH;
  ink.lineCap = ink.lineJoin = "round";
  for (const points of strokes) {
    ink.beginPath();
    ink.moveTo(points[0].x, points[0].y);
    ink.lineTo(points[0].x + 0.1, points[0].y); // browsers skip zero-length lines: draw a single point as a dot
    for (const point of points) ink.lineTo(point.x, point.y);
    ink.stroke();
  }
}

function showPen() {
  if (!pen.shown) return;
  ink.beginPath();
  ink.lineWidth = 2;
  ink.strokeStyle = color("--pen");
  ink.arc(pen.x, pen.y, BRUSH / 2, 0, 2 * Math.PI);
  if (pen.down) {
    ink.fillStyle = color("--pen");
    ink.fill();
  }
  ink.stroke();
}

function changed() {
  paint();
  events.dispatchEvent(new Event("changed"));
}

export function beginStroke(point) {
  if (finished || picture) clear();
  stroke = [point];
  strokes.push(stroke);
  changed();
}

// Does nothing if the stroke is gone: Undo and Clear also end the one that is being drawn.
export function extendStroke(points) {
  if (!stroke) return;
  stroke.push(...points);
  changed();
}

export function endStroke() {
  stroke = null;
}

export function clear() {
  strokes = [];
  stroke = picture = null;
  finished = pen.down = false;
  id = newId();
  paint();
  events.dispatchEvent(new Event("cleared"));
}

export function undo() {
  if (!strokes.length) return;
  if (finished || strokes.length === 1) return clear();
  strokes.pop();
  stroke = null;
  pen.down = false;
  changed();
}

export function usePicture(bitmap, blob) {
  clear();
  picture = { bitmap, blob };
  changed();
}

// The drawing as a file for the server.
export function asFile() {
  if (picture) return picture.blob;
  paintDrawing(); // without the pen's marker
  sentInk.drawImage(paper, 0, 0, SENT_SIDE, SENT_SIDE);
  showPen();
  return toBlob(sent);
}

export function toBlob(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// The box of the ink in canvas pixels: {left, top, right, bottom}; null for a picture, whose ink only the server finds.
export function inkBox() {
  if (picture || !strokes.length) return null;
  paintDrawing();
  const { data } = ink.getImageData(0, 0, paper.width, paper.height);
  showPen();
  return boxOf(paper.width, paper.height, (i) => data[4 * i] < 255 * (1 - FAINTEST));
}

// The box of the pixels for which `isInk` holds, the right and lower edges exclusive; null if there are none.
export function boxOf(width, height, isInk) {
  const box = { left: width, top: height, right: 0, bottom: 0 };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!isInk(y * width + x)) continue;
      box.left = Math.min(box.left, x);
      box.right = Math.max(box.right, x + 1);
      box.top = Math.min(box.top, y);
      box.bottom = y + 1;
    }
  }
  return box.right ? box : null;
}
