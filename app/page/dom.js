// Small helpers for the page's elements.

export const element = (id) => document.getElementById(id);

export function make(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

export const aDigit = (digit) => (digit === 8 ? "an 8" : `a ${digit}`);

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

export function capital(sentence) {
  return sentence.charAt(0).toUpperCase() + sentence.slice(1);
}

export function wait(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// Bytes in base64, as the server sends images.
export function decode(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// Draw gray pixels, row by row, on a canvas of the same size.
export function showPixels(canvas, pixels) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  pixels.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
  context.putImageData(image, 0, 0);
}

// A canvas for gray pixels, with a description of what it shows.
export function makePicture(side, label) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  if (label) {
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
  }
  return canvas;
}
