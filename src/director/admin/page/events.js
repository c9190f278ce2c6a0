// The last events of the director.

import { ask } from "./api.js";
import { $, KeyedList, make, showText } from "./dom.js";
import { time } from "./format.js";

/** Events that are shown; the director keeps more. */
const SHOWN = 50;

function createEvent(event) {
  const node = make("li", { class: event.alert ? "bad" : undefined },
    make("span", { class: "dim" }, time(event.at_ms)), make("span", {}, event.text));
  return { node, update: () => {} };
}

const list = new KeyedList($("events"), createEvent);

/** Fetches and shows the last events, the newest first. */
export async function drawEvents() {
  const events = await ask(`/events?limit=${SHOWN}`);
  list.update(events.map((event) => [`${event.at_ms} ${event.text}`, event]));
  showText($("events-note"), events.length ? "" : "Nothing has happened yet.");
}
