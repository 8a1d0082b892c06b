// Input: pointer (mouse, finger, pen), keyboard, files.

import { element } from "./dom.js";
import { beginStroke, clear, endStroke, extendStroke, paint, paper, pen, toBlob, undo, usePicture } from "./drawing.js";
import { forget } from "./answer.js";

const STEP = 10; // canvas pixels that an arrow key moves the pen
const LARGEST_FILE = 1024 * 1024; // bytes; larger pictures are scaled down before they are sent
const LARGEST_SIDE = 1024;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

let pointer = null; // id of the pointer that draws; a second finger does not draw

function place(event) {
  const box = paper.getBoundingClientRect();
  const scale = paper.width / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
}

paper.addEventListener("pointerdown", (event) => {
  if (pointer !== null || event.button !== 0) return;
  pointer = event.pointerId;
  paper.setPointerCapture(pointer);
  pen.shown = pen.down = false;
  beginStroke(place(event));
});
paper.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  const passed = event.getCoalescedEvents?.() ?? [];
  extendStroke((passed.length ? passed : [event]).map(place));
});
for (const end of ["pointerup", "pointercancel"]) {
  paper.addEventListener(end, (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    endStroke();
  });
}

paper.addEventListener("keydown", (event) => {
  if (event.key === "z" && (event.ctrlKey || event.metaKey)) undo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "Escape") clear();
  else if (event.key === " ") pressPen();
  else if (event.key in ARROWS) movePen(...ARROWS[event.key]);
  else return;
  event.preventDefault();
});

function pressPen() {
  pen.shown = true;
  pen.down = !pen.down;
  if (pen.down) {
    beginStroke({ x: pen.x, y: pen.y });
    pen.down = true; // starting a new drawing lifts the pen
  } else {
    endStroke();
  }
  paint();
}

function movePen(right, down) {
  pen.shown = true;
  pen.x = Math.min(paper.width, Math.max(0, pen.x + STEP * right));
  pen.y = Math.min(paper.height, Math.max(0, pen.y + STEP * down));
  if (pen.down) extendStroke([{ x: pen.x, y: pen.y }]);
  paint();
}

paper.addEventListener("blur", () => {
  if (pen.down) endStroke();
  pen.shown = pen.down = false;
  paint();
});

element("undo").addEventListener("click", undo);
element("clear").addEventListener("click", clear);
element("open").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", (event) => {
  openPicture(event.target.files[0]);
  event.target.value = ""; // so that the same file can be opened again
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files][0];
  if (file) openPicture(file);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  paper.classList.add("over");
});
document.addEventListener("dragleave", () => paper.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  paper.classList.remove("over");
  openPicture(event.dataTransfer.files[0]);
});

async function openPicture(file) {
  if (!file) return;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return forget("The browser cannot read this file as a picture. Expected a PNG or JPEG.");
  }
  usePicture(bitmap, await travelling(file, bitmap));
}

// Returns the file unchanged or, if it is large or in another format, a scaled-down PNG.
async function travelling(file, bitmap) {
  const side = Math.max(bitmap.width, bitmap.height);
  const known = ["image/png", "image/jpeg"].includes(file.type);
  if (known && file.size <= LARGEST_FILE && side <= 4 * LARGEST_SIDE) return file;
  const scale = Math.min(1, LARGEST_SIDE / side);
  const small = document.createElement("canvas");
  small.width = Math.max(1, Math.round(bitmap.width * scale));
  small.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = small.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, small.width, small.height);
  return toBlob(small);
}
