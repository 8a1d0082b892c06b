// What follows the drawing only while it is open: it asks the server about each image that the network has seen.

import { current, events } from "./answer.js";
import { decode, wait } from "./dom.js";
import { send, SLOWEST } from "./server.js";

const BETWEEN = 200; // least milliseconds between two requests: a third of what predictions may take

// `details` is opened and closed by the user; `show` gets each response; `forget` is called with a sentence in its place.
export function follow(details, address, show, forget) {
  let asking = false;
  let seen = null; // the image whose response is shown

  async function ask() {
    if (asking) return;
    asking = true;
    while (details.open && current() && current().image !== seen) {
      const { image } = current();
      const paced = wait(BETWEEN);
      const said = await send(address, { method: "POST", body: decode(image) });
      await paced;
      if (said.refused) await wait(SLOWEST * (0.5 + Math.random() / 2));
      else if (details.open && current()) {
        seen = image;
        if (said.error) forget(said.error);
        else show(said, decode(image));
      }
    }
    asking = false;
  }

  details.addEventListener("toggle", ask);
  events.addEventListener("answered", ask);
  events.addEventListener("forgotten", () => {
    seen = null;
    forget("Draw something first.");
  });
}
