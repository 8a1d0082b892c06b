// Which digit it was: ten buttons, the keys 0 to 9, and a way to take it back.

import { arrived } from "./answer.js";
import { aDigit, element, make } from "./dom.js";
import { currentId, events, finish, isFinished, reopen } from "./drawing.js";
import { sendPatiently } from "./server.js";
import { showStatistics } from "./statistics.js";

const TYPING = "input, select, textarea, [contenteditable]";

let told = null; // {drawing, digit}: what "Take back" takes back

const buttons = () => [...element("truths").children];

function say(sentence, takeBack = false) {
  element("told").textContent = sentence;
  element("how-to-tell").hidden = Boolean(sentence);
  element("take-back").hidden = !takeBack;
}

function showChoice() {
  for (const button of buttons()) {
    button.disabled = isFinished();
    button.classList.toggle("told", isFinished() && told?.drawing === currentId() && button === buttons()[told.digit]);
  }
}

async function tell(digit) {
  finish();
  showChoice();
  const drawing = currentId();
  await arrived(); // the last stroke's prediction must be recorded first
  const said = await sendPatiently(`drawings/${drawing}/truth`, {
    method: "POST",
    body: JSON.stringify({ digit }),
    headers: { "Content-Type": "application/json" },
  });
  if (said.error) {
    say(said.error);
    if (drawing === currentId() && said.status !== 409) reopen();
    return showChoice();
  }
  const isShown = drawing === currentId(); // otherwise the next one was begun meanwhile
  told = isShown ? { drawing, digit } : null;
  const when = said.recorded ? "Recorded" : "The database is unreachable: this will be recorded later";
  say(`${when}. It was ${aDigit(digit)}. Draw the next one.`, isShown);
  if (isShown) showChoice();
  await showStatistics();
}

async function takeBack() {
  const { drawing, digit } = told;
  element("take-back").disabled = true;
  const said = await sendPatiently(`drawings/${drawing}/truth`, { method: "DELETE" });
  element("take-back").disabled = false;
  if (drawing !== currentId()) return;
  if (said.error) return say(said.error, said.status === 0 || said.status >= 500); // otherwise it cannot be taken back
  told = null;
  reopen();
  showChoice();
  say("Taken back. Which digit was it?");
  buttons()[digit].focus({ preventScroll: true }); // on a narrow screen, the drawing stays in sight
  await showStatistics();
}

for (let digit = 0; digit < 10; digit++) {
  const button = make("button", make("kbd", digit));
  button.type = "button";
  button.disabled = true;
  button.setAttribute("aria-label", `It was ${aDigit(digit)}`);
  button.setAttribute("aria-keyshortcuts", String(digit));
  button.title = `Key ${digit}`;
  button.addEventListener("click", () => tell(digit));
  element("truths").append(button);
}
element("take-back").addEventListener("click", takeBack);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.closest?.(TYPING)) return;
  if (/^[0-9]$/.test(event.key)) buttons()[event.key].click(); // nothing happens while the button is disabled
});
events.addEventListener("cleared", () => {
  if (told) say("");
  told = null;
});
