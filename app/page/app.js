// The page: sends the drawing to the server as a PNG, and shows the prediction as bars. All URLs are relative.

const BRUSH = 22; // of the canvas's 280 pixels: about two of 28, like MNIST's strokes
const STEP = 10; // canvas pixels that an arrow key moves the pen
const SENT_SIDE = 140; // pixels of the drawing as it is sent: five of them for each of the network's 28
const BETWEEN = 60; // least milliseconds between requests: faster than the eye
const SLOWEST = 1000; // most milliseconds between requests while the server asks to slow down
const ATTEMPTS = 20; // how often a refused correction is sent before the page gives up
const REFRESH = 5000; // milliseconds between statistics while the page is visible
const PAUSE = 600; // milliseconds without a change before screen readers announce the prediction
const LARGEST_FILE = 1024 * 1024; // bytes; larger pictures are scaled down before they are sent
const LARGEST_SIDE = 1024;

const element = (id) => document.getElementById(id);
const paper = element("paper");
const ink = paper.getContext("2d", { willReadFrequently: true });
const sent = document.createElement("canvas");
sent.width = sent.height = SENT_SIDE;
const sentInk = sent.getContext("2d", { alpha: false, willReadFrequently: true }); // no alpha: fewer bytes to decode

// ---------------------------------------------------------------------------------------------------------------------
// The drawing: strokes, each a list of points, or a picture
// ---------------------------------------------------------------------------------------------------------------------

let strokes = [];
let picture = null; // {blob, bitmap}, instead of strokes
let drawing = newId(); // the drawing's id; a new one after a correction or Clear
let finished = false; // already corrected: the next stroke starts a new drawing
let pen = { x: 140, y: 140, down: false, shown: false }; // moved by the keyboard

function newId() {
  if (crypto.randomUUID) return crypto.randomUUID(); // defined only on localhost and over HTTPS
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function paint() {
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
  for (const stroke of strokes) {
    ink.beginPath();
    ink.moveTo(stroke[0].x, stroke[0].y);
    ink.lineTo(stroke[0].x + 0.1, stroke[0].y); // browsers skip zero-length lines: draw a single point as a dot
    for (const point of stroke) ink.lineTo(point.x, point.y);
    ink.stroke();
  }
  element("undo").disabled = !strokes.length;
  element("clear").disabled = !strokes.length && !picture;
}

function showPen() {
  if (!pen.shown) return;
  ink.beginPath();
  ink.lineWidth = 2;
  ink.strokeStyle = color("--accent");
  ink.arc(pen.x, pen.y, BRUSH / 2, 0, 2 * Math.PI);
  if (pen.down) {
    ink.fillStyle = color("--accent");
    ink.fill();
  }
  ink.stroke();
}

function changed() {
  paint();
  showPen();
  ask();
}

function beginStroke(point) {
  if (finished || picture) clear();
  strokes.push([point]);
  changed();
}

function clear() {
  if (finished) element("told").textContent = "";
  strokes = [];
  picture = null;
  finished = false;
  outdated = false;
  drawing = newId();
  pen.down = false;
  paint();
  showPen();
  forget();
}

function undo() {
  if (!strokes.length) return;
  if (finished) return clear();
  strokes.pop();
  if (strokes.length) changed();
  else clear();
}

async function openPicture(file) {
  if (!file) return;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return forget("The browser cannot read this file as a picture. Expected a PNG or JPEG.");
  }
  clear();
  picture = { bitmap, blob: await travelling(file, bitmap) };
  changed();
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

function toBlob(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// ---------------------------------------------------------------------------------------------------------------------
// Predictions: one request at a time; responses for an earlier drawing are ignored
// ---------------------------------------------------------------------------------------------------------------------

let asking = null; // a promise while a request is running
let outdated = false; // whether the drawing has changed since the last request
let pace = BETWEEN; // milliseconds between requests: doubles when one is refused, and recovers with each answer

function ask() {
  outdated = true;
  asking ??= askAll().finally(() => (asking = null));
}

async function askAll() {
  while (outdated) {
    outdated = false;
    const asked = drawing;
    const paced = wait(pace);
    const said = await send(`predict?drawing=${asked}`, await onPaper());
    await paced;
    pace = said.refused ? Math.min(2 * pace, SLOWEST) : Math.max(0.9 * pace, BETWEEN);
    if (asked !== drawing) continue;
    if (said.refused) {
      await wait(pace * Math.random()); // so that the pages of a class do not all come back at once
      outdated ||= asked === drawing;
    } else if (said.error) {
      forget(said.error);
    } else {
      show(said);
    }
  }
}

function wait(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function onPaper() {
  if (picture) return picture.blob;
  paint(); // without the pen's marker
  sentInk.drawImage(paper, 0, 0, SENT_SIDE, SENT_SIDE);
  showPen();
  return toBlob(sent);
}

async function send(address, body, headers = {}) {
  try {
    const response = await fetch(address, { method: body === undefined ? "GET" : "POST", body, headers });
    const content = await response.json();
    if (response.ok) return content;
    const refused = response.headers.has("Retry-After"); // the server is busy, and expects the same request again
    return { error: `${capital(content.error)}.`, status: response.status, refused };
  } catch {
    return { error: "The server does not respond. Is it still running?", status: 0, refused: false };
  }
}

async function sendPatiently(...request) {
  let said = await send(...request);
  for (let attempt = 1; said.refused && attempt < ATTEMPTS; attempt++) {
    await wait(SLOWEST * (0.5 + Math.random() / 2));
    said = await send(...request);
  }
  return said;
}

function capital(sentence) {
  return sentence.charAt(0).toUpperCase() + sentence.slice(1);
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

// Screen readers hear only the prediction of the finished drawing, not those made while drawing.
let announcing = 0;

function say(sentence) {
  element("confidence").textContent = sentence;
  clearTimeout(announcing);
  announcing = setTimeout(() => (element("announced").textContent = sentence), PAUSE);
}

function show(said) {
  element("digit").textContent = said.digit;
  say(`It is a ${said.digit}, with a confidence of ${percent(said.confidence)}.`);
  said.probabilities.forEach((chance, digit) => {
    const row = element(`bar-${digit}`);
    row.classList.toggle("best", digit === said.digit);
    row.querySelector(".bar").style.width = `${100 * chance}%`;
    row.querySelector(".percent").textContent = percent(chance);
  });
  showPixels(element("seen"), Uint8Array.from(atob(said.image), (letter) => letter.charCodeAt(0)));
  element("seen").setAttribute("aria-label", "What the network sees: your digit, 28 by 28 pixels");
  for (const button of element("truths").children) {
    button.disabled = finished;
    button.classList.toggle("said", Number(button.textContent) === said.digit);
  }
}

function showPixels(canvas, pixels) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(28, 28);
  pixels.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
  context.putImageData(image, 0, 0);
}

function forget(sentence = "Draw something first.") {
  element("digit").textContent = "–";
  say(sentence);
  for (const row of element("bars").children) {
    row.classList.remove("best");
    row.querySelector(".bar").style.width = "0";
    row.querySelector(".percent").textContent = "";
  }
  element("seen").getContext("2d").clearRect(0, 0, 28, 28);
  element("seen").setAttribute("aria-label", "What the network sees: nothing yet");
  for (const button of element("truths").children) {
    button.disabled = true;
    button.classList.remove("said");
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Corrections and statistics
// ---------------------------------------------------------------------------------------------------------------------

async function tell(digit) {
  finished = true;
  for (const button of element("truths").children) button.disabled = true;
  const told = drawing;
  await asking; // the last stroke's prediction must arrive first
  const json = { "Content-Type": "application/json" };
  const said = await sendPatiently(`drawings/${told}/truth`, JSON.stringify({ digit }), json);
  if (said.error) {
    element("told").textContent = said.error;
    if (told === drawing && said.status !== 409) {
      finished = false;
      for (const button of element("truths").children) button.disabled = false;
    }
    return;
  }
  const when = said.recorded ? "Recorded" : "The database is unreachable: this will be recorded later";
  element("told").textContent = `${when}. It was a ${digit}. Draw the next one.`;
  await showStatistics();
}

async function showStatistics() {
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
  const caption = make("figcaption", `a ${truth} mistaken for a ${prediction}, ${confidence.toFixed(0)} %`);
  caption.className = "small";
  if (!image) return make("figure", caption);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 28;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `A drawing of a ${truth}`);
  showPixels(canvas, image);
  return make("figure", canvas, caption);
}

function heading(text, scope) {
  const cell = make("th", text);
  cell.scope = scope;
  return cell;
}

function make(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

// ---------------------------------------------------------------------------------------------------------------------
// Input: pointer (mouse, finger, pen), keyboard, files
// ---------------------------------------------------------------------------------------------------------------------

function place(event) {
  const box = paper.getBoundingClientRect();
  const scale = paper.width / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
}

let pointer = null; // id of the pointer that draws; a second finger does not draw

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
  strokes.at(-1).push(...(passed.length ? passed : [event]).map(place));
  changed();
});
for (const end of ["pointerup", "pointercancel"]) {
  paper.addEventListener(end, (event) => {
    if (event.pointerId === pointer) pointer = null;
  });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

paper.addEventListener("keydown", (event) => {
  if (event.key === "z" && (event.ctrlKey || event.metaKey)) undo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "Escape") clear();
  else if (event.key === " ") {
    pen.shown = true;
    pen.down = !pen.down;
    if (pen.down) {
      beginStroke({ x: pen.x, y: pen.y });
      pen.down = true; // starting a new drawing lifts the pen
    }
    paint();
    showPen();
  } else if (event.key in ARROWS) {
    const [right, down] = ARROWS[event.key];
    pen.shown = true;
    pen.x = Math.min(paper.width, Math.max(0, pen.x + STEP * right));
    pen.y = Math.min(paper.height, Math.max(0, pen.y + STEP * down));
    if (pen.down && strokes.length) {
      strokes.at(-1).push({ x: pen.x, y: pen.y });
      changed();
    } else {
      paint();
      showPen();
    }
  } else return;
  event.preventDefault();
});
paper.addEventListener("blur", () => {
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
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

// ---------------------------------------------------------------------------------------------------------------------
// Page setup
// ---------------------------------------------------------------------------------------------------------------------

for (let digit = 0; digit < 10; digit++) {
  const track = make("div", make("div"));
  track.className = "track";
  track.firstChild.className = "bar";
  const share = make("span");
  share.className = "percent";
  const row = make("li", make("span", digit), track, share);
  row.id = `bar-${digit}`;
  element("bars").append(row);
  const button = make("button", digit);
  button.type = "button";
  button.disabled = true;
  button.setAttribute("aria-label", `It was a ${digit}`);
  button.addEventListener("click", () => tell(digit));
  element("truths").append(button);
}
paint();
showStatistics();
element("counted").setAttribute("aria-live", "off"); // screen readers need not hear every drawing of the room
setInterval(() => document.visibilityState === "visible" && showStatistics(), REFRESH);
const about = await send("about");
if (!about.error) {
  element("about").textContent =
    `A network with ${about.parameters.toLocaleString("en")} parameters, ` +
    `${about.accuracy} % accurate on MNIST's test set, guesses your digit as you draw.`;
  if (!about.drawings_are_stored) {
    element("told").textContent = "Click the correct digit to record it. The drawing itself is not stored.";
  }
}
