// The teacher's page: classes, statistics, and a list of drawings with what can be done about each. The token stays in
// this tab: in sessionStorage, and in the header of requests.

import { ask, keepFresh, makeDrawing, makeWith, percent, showMap } from "./classroom.js";
import { aDigit, element, make } from "./dom.js";

const EVERY = 3000; // milliseconds
const INSIDE = document.querySelectorAll(".inside"); // the sections that need the token

// ---------------------------------------------------------------------------------------------------------------------
// Signing in: the token is exchanged for a key, which is valid until the server stops
// ---------------------------------------------------------------------------------------------------------------------

let key = null;

// Takes the token from an address like teacher.html#token=..., and the token out of the address.
function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", location.pathname + location.search);
}

async function signIn() {
  const token = sessionStorage.getItem("token");
  const possible = /^[!-~]+$/.test(token ?? ""); // a header can hold no other
  const said = possible ? await ask("teacher/session", { method: "POST", headers: bearer(token) }) : { error: "", status: 401 };
  key = said.key ?? null;
  if (said.status === 401) sessionStorage.removeItem("token");
  element("sign-in").hidden = key !== null;
  for (const section of INSIDE) section.hidden = key === null;
  say(said.status === 401 && token ? "This is not the teacher's token." : (said.error ?? ""));
  return key !== null;
}

function bearer(token) {
  return { Authorization: `Bearer ${token}` };
}

// Asks as the teacher. The server may have been started again meanwhile: then it needs the token once more.
async function askAsTeacher(address, method = "GET", content) {
  const headers = content === undefined ? {} : { "Content-Type": "application/json" };
  const request = () => ask(`teacher/${address}`, { method, headers: { ...headers, ...bearer(key) }, body: JSON.stringify(content) });
  const said = await request();
  return said.status === 401 && (await signIn()) ? request() : said;
}

function say(sentence) {
  element("said").textContent = sentence;
}

element("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", element("token").value.trim());
  element("token").value = "";
  if (await signIn()) await refresh();
  else element("token").focus();
});

// ---------------------------------------------------------------------------------------------------------------------
// Classes
// ---------------------------------------------------------------------------------------------------------------------

let chosen = null; // the class's number; null: the current one, whichever that is
let current = null;

const shownClass = () => chosen ?? current;

function nameOf({ number, name, started_at: started, first_drawn_at: first, drawings }) {
  const when = number === 1 ? first : started;
  const day = when ? `, ${new Date(when).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" })}` : "";
  return `${number}${name ? `: ${name}` : ""}${day} (${drawings} ${drawings === 1 ? "drawing" : "drawings"})`;
}

function showClasses({ classes, keeps_images: keeps, may_keep_images: may }) {
  current = classes[0].number;
  const options = classes.map((one) => {
    const option = make("option", one.number === current ? `Current class, ${nameOf(one)}` : `Class ${nameOf(one)}`);
    option.value = one.number;
    return option;
  });
  const select = element("classes");
  if (document.activeElement !== select) select.replaceChildren(...options); // not while it is open
  select.value = shownClass();
  element("keeps-images").checked = keeps;
  element("keeps-images").disabled = !may;
  element("storing").textContent = !may
    ? "The setting APP_STORE_DRAWINGS forbids to store drawings: predictions and corrections are stored without them."
    : keeps
      ? "Every drawing is stored with its prediction as soon as it is drawn, also without a click."
      : "New predictions and corrections are stored without drawings. Those stored before stay.";
}

element("classes").addEventListener("change", (event) => {
  const number = Number(event.target.value);
  chosen = number === current ? null : number;
  page = 0;
  event.target.blur();
  refresh();
});

element("new-class").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = await askAsTeacher("classes", "POST", { name: element("name").value });
  if (said.error) return say(said.error);
  element("name").value = "";
  chosen = null;
  page = 0;
  await refresh();
  say(`Class ${said.number} has started.`);
});

element("keeps-images").addEventListener("change", async (event) => {
  const said = await askAsTeacher("storing", "PUT", { keeps_images: event.target.checked });
  await refresh();
  say(said.error ?? (said.keeps_images ? "Drawings are stored." : "Drawings are not stored."));
});

element("export").addEventListener("click", async () => {
  const number = shownClass();
  const response = await fetch(`teacher/classes/${number}/export`, { headers: bearer(key) }).catch(() => null);
  const zip = response?.ok ? await response.blob().catch(() => null) : null;
  if (!zip) return say("The class could not be exported. Try again.");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(zip);
  link.download = `class-${number}.zip`;
  link.click();
  URL.revokeObjectURL(link.href);
  say(`Class ${number} is in ${link.download}.`);
});

// ---------------------------------------------------------------------------------------------------------------------
// Statistics
// ---------------------------------------------------------------------------------------------------------------------

function showStatistics({ predictions, known, right, accuracy, waiting, confusion_matrix: matrix }) {
  const share = known ? ` Right: ${accuracy.toFixed(1)} % (${right} of ${known}).` : "";
  const later = waiting ? ` ${waiting} more will be recorded later.` : "";
  element("counted").textContent = predictions
    ? `Drawings: ${predictions}. With a known digit: ${known}.${share}${later}`
    : `Nothing is drawn yet.${later}`;
  showMap(element("map"), matrix, "Class map. Rows: the correct digit. Columns: the network's answer.");
}

// ---------------------------------------------------------------------------------------------------------------------
// Drawings
// ---------------------------------------------------------------------------------------------------------------------

let page = 0;

function showDrawings({ total, per_page: perPage, drawings }) {
  const pages = Math.max(1, Math.ceil(total / perPage));
  element("page").textContent = `Page ${page + 1} of ${pages}, ${total} in all`;
  element("newer").disabled = page === 0;
  element("older").disabled = page + 1 >= pages;
  element("drawings").replaceChildren(...drawings.map(makeCard));
}

function makeCard(drawing) {
  const { id, prediction, confidence, doubt, truth, state, drawn_at: when } = drawing;
  const outcome = truth === null ? "not told" : truth === prediction ? "right" : `wrong, it was ${aDigit(truth)}`;
  const kind = truth === null ? "small" : truth === prediction ? "right" : "wrong";
  const time = new Date(when).toLocaleTimeString("en-GB");
  const text = make("div",
    make("p", doubt ? `Answer: ${doubt}` : `Answer: ${prediction}, ${percent(confidence)}`),
    makeWith("p", kind, outcome),
    makeWith("p", "small", state === "hidden" ? `${time}, hidden` : time),
  );
  const about = `the drawing of ${time}`;
  const buttons = makeWith("div", "buttons",
    ...(truth === null ? [] : [makeButton("Take back", `Take the digit of ${about} back`, () => change(`drawings/${id}/truth`, "DELETE"))]),
    state === "hidden"
      ? makeButton("Show", `Show ${about} again`, () => change(`drawings/${id}/visibility`, "PUT", { hidden: false }))
      : makeButton("Hide", `Hide ${about}`, () => change(`drawings/${id}/visibility`, "PUT", { hidden: true })),
    makeButton("Delete", `Delete ${about}`, () => confirm("Delete this drawing for good?") && change(`drawings/${id}`, "DELETE")),
  );
  return makeWith("li", state, makeDrawing(drawing), text, buttons);
}

function makeButton(text, label, act) {
  const button = make("button", text);
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.addEventListener("click", act);
  return button;
}

async function change(address, method, content) {
  const said = await askAsTeacher(address, method, content);
  const later = said.recorded === false ? "The database is busy or unreachable: this will be recorded later." : "Done.";
  element("list-title").focus(); // the button is gone
  await refresh();
  say(said.error ?? later);
}

element("which").addEventListener("change", () => turnTo(0));
element("newer").addEventListener("click", () => turnTo(page - 1));
element("older").addEventListener("click", () => turnTo(page + 1));

function turnTo(number) {
  page = number;
  return refresh();
}

// ---------------------------------------------------------------------------------------------------------------------
// Refreshing
// ---------------------------------------------------------------------------------------------------------------------

// A drawing must not move away from under the pointer just when a button is clicked.
function isInUse(list) {
  return list.matches(":hover") || list.contains(document.activeElement);
}

async function refresh({ also = true } = {}) {
  if (key === null) return;
  const listed = await askAsTeacher("classes");
  if (listed.error) return key !== null && say(listed.error);
  showClasses(listed);
  const [number, which, asked] = [shownClass(), element("which").value, page];
  const counted = await askAsTeacher(`classes/${number}/statistics`);
  const drawn = await askAsTeacher(`classes/${number}/drawings?which=${which}&page=${asked}`);
  if (counted.error || drawn.error) return say(counted.error ?? drawn.error);
  if (number !== shownClass() || which !== element("which").value || asked !== page) return; // answers to an earlier question
  showStatistics(counted);
  if (also || !isInUse(element("drawings"))) showDrawings(drawn);
}

// ---------------------------------------------------------------------------------------------------------------------
// Page setup
// ---------------------------------------------------------------------------------------------------------------------

element("list-title").tabIndex = -1;
takeToken();
await signIn();
ask("address").then(({ address, only_here: onlyHere, error }) => {
  element("address").textContent = error ?? address;
  if (onlyHere) {
    element("warning").textContent = "Only this machine can open this address: see “Teach a class” in app/README.md.";
  }
});
await refresh();
keepFresh(() => refresh({ also: false }), EVERY);
