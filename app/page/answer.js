// Predictions: one request at a time; responses for an earlier drawing are ignored. Events: "answered" and "forgotten".

import { aDigit, capital, decode, element, make, percent, showPixels, wait } from "./dom.js";
import { asFile, currentId, events as drawingEvents, isFinished } from "./drawing.js";
import { send, SLOWEST } from "./server.js";

const BETWEEN = 60; // least milliseconds between requests: faster than the eye
const PAUSE = 600; // milliseconds without a change before screen readers announce the prediction

export const events = new EventTarget();
let asking = null; // a promise while a request is running
let outdated = false; // whether the drawing has changed since the last request
let pace = BETWEEN; // milliseconds between requests: doubles when one is refused, and recovers with each answer
let answer = null; // the one that is shown

export const current = () => answer; // as the server sent it; null if none is shown
export const arrived = () => asking; // a promise while an answer is awaited

function ask() {
  outdated = true;
  asking ??= askAll().finally(() => (asking = null));
}

async function askAll() {
  while (outdated) {
    outdated = false;
    const asked = currentId();
    const paced = wait(pace);
    const said = await send(`predict?drawing=${asked}`, { method: "POST", body: await asFile() });
    await paced;
    pace = said.refused ? Math.min(2 * pace, SLOWEST) : Math.max(0.9 * pace, BETWEEN);
    if (asked !== currentId()) continue;
    if (said.refused) {
      await wait(pace * Math.random()); // so that the pages of a class do not all come back at once
      outdated ||= asked === currentId();
    } else if (said.error) {
      forget(said.error);
    } else {
      show(said);
    }
  }
}

// Screen readers hear only the prediction of the finished drawing, not those made while drawing.
let announcing = 0;

function say(sentence) {
  element("confidence").textContent = sentence;
  clearTimeout(announcing);
  announcing = setTimeout(() => (element("announced").textContent = sentence), PAUSE);
}

function inWords({ digit, confidence, doubt }) {
  if (!doubt) return `It is ${aDigit(digit)}, with a confidence of ${percent(confidence)}.`;
  if (doubt === "not sure") return `Not sure. Perhaps ${aDigit(digit)} (${percent(confidence)}).`;
  return `${capital(doubt)}, it seems. Draw a single digit.`;
}

function show(said) {
  answer = said;
  element("digit").textContent = said.doubt ? "?" : said.digit;
  element("answer").classList.toggle("doubtful", Boolean(said.doubt));
  say(inWords(said));
  showBars(element("bars"), said);
  showPixels(element("seen"), decode(said.image));
  element("seen").setAttribute("aria-label", "What the network sees: your digit, 28 by 28 pixels");
  for (const button of element("truths").children) {
    button.disabled = isFinished();
    button.classList.toggle("said", !said.doubt && Number(button.textContent) === said.digit);
  }
  events.dispatchEvent(new Event("answered"));
}

export function forget(sentence = "Draw something first.") {
  answer = null;
  element("digit").textContent = "–";
  element("answer").classList.remove("doubtful");
  say(sentence);
  showBars(element("bars"), null);
  element("seen").getContext("2d").clearRect(0, 0, 28, 28);
  element("seen").setAttribute("aria-label", "What the network sees: nothing yet");
  for (const button of element("truths").children) {
    button.disabled = true;
    button.classList.remove("said", "told");
  }
  events.dispatchEvent(new Event("forgotten"));
}

// Fill a list with ten rows: digit, bar, percentage.
export function makeBars(list) {
  for (let digit = 0; digit < 10; digit++) {
    const track = make("div", make("div"));
    track.className = "track";
    track.firstChild.className = "bar";
    const share = make("span");
    share.className = "percent";
    list.append(make("li", make("span", digit), track, share));
  }
}

// Show a prediction in the rows of `makeBars`; null empties them.
export function showBars(list, said) {
  [...list.children].forEach((row, digit) => {
    row.classList.toggle("best", said?.digit === digit);
    row.querySelector(".bar").style.width = said ? `${100 * said.probabilities[digit]}%` : "0";
    row.querySelector(".percent").textContent = said ? percent(said.probabilities[digit]) : "";
  });
}

drawingEvents.addEventListener("changed", ask);
drawingEvents.addEventListener("cleared", () => {
  outdated = false;
  forget();
});
