// The last events of the director, if it has an address for them.

import { ask } from "./api.js";
import { $, KeyedList, make, setAttribute, setText } from "./dom.js";
import { time } from "./format.js";

/** Events that are shown; the director keeps more. */
const SHOWN = 50;

let isMissing = false;

function createEvent(event) {
  const node = make("li", { class: event.alert ? "bad" : undefined },
    make("span", { class: "dim" }, time(event.at_ms)), make("span", {}, event.text));
  return { node, update: () => {} };
}

const list = new KeyedList($("events"), createEvent);

/** Fetches and shows the last events, the newest first. */
export async function drawEvents() {
  if (isMissing) return;
  try {
    const events = await ask(`/events?limit=${SHOWN}`);
    $("events-card").hidden = false;
    setText($("events-title"), events.length ? "Last events" : "No event yet");
    list.update(events.map((event) => [`${event.at_ms} ${event.text}`, event]));
    setAttribute($("events"), "aria-label", "The newest first");
  } catch (error) {
    if (error.status !== 404) throw error;
    isMissing = true;
  }
}
