// The status page of a director: asks for its status each second, and shows it.

import { ask, servicePath, waitsForToken } from "./api.js";
import { $, setAttribute, setText, showText } from "./dom.js";
import { drawEvents } from "./events.js";
import { duration, time } from "./format.js";
import { drawOverview, listenToChoices, moveFocus, searchText, totals } from "./overview.js";
import { ServiceView } from "./service.js";

/** How often the director is asked; with many services half as often, as each answer costs it more. */
const INTERVAL_MS = 1000;
const MANY_SERVICES = 120;
/** How old the last answer may be. */
const STALE_MS = 5000;

let view = null;
let data = null;
let answeredAt = Date.now();
let failure = "";

/** Returns the service that the address of the page names, or `null`. */
function openedService() {
  const match = location.hash.match(/^#\/service\/(.+)$/);
  return match ? decodeURIComponent(match[1]) : null;
}

function drawHead() {
  setText($("host"), data.host);
  setText($("role"), data.active ? "active" : "standby");
  setAttribute($("role"), "class", `badge ${data.active ? "good" : ""}`);
  setText($("version"), `version ${data.version}, up ${duration(data.uptime_ms)}`);
  setText($("totals"), totals(data));
  const down = data.services.filter((service) => service.state === "down").length;
  document.title = `${down ? `${down} down · ` : ""}lvs ${data.host} ${data.active ? "active" : "standby"}`;
  const parts = data.failed_parts.map((part) => `${part.part}: ${part.reason}`);
  showText($("failed"), parts.length ? `Not applied by the last reload: ${parts.join("; ")}` : "");
}

async function refresh() {
  const name = openedService();
  const search = searchText();
  const asked = [ask(`/overview${search && !name ? `?search=${encodeURIComponent(search)}` : ""}`)];
  if (name) asked.push(ask(servicePath(name)), ask(`${servicePath(name)}/history`));
  else asked.push(drawEvents());
  const [overview, service, history] = await Promise.allSettled(asked);
  if (overview.status === "rejected") throw overview.reason;
  data = overview.value;
  answeredAt = Date.now();
  drawHead();
  if (name !== openedService()) return;
  $("overview").hidden = name !== null;
  $("service").hidden = name === null;
  if (name === null) {
    view = null;
    drawOverview(data);
    return;
  }
  if (service.status === "rejected" || history.status === "rejected") {
    const { reason } = service.status === "rejected" ? service : history;
    if (reason.status !== 404) throw reason;
    $("service").textContent = `There is no service ${name} any more. `;
    $("service").append(Object.assign(document.createElement("a"), { href: "#/", textContent: "All services" }));
    view = null;
    return;
  }
  if (!view || view.name !== name) {
    view = new ServiceView(name, refreshOnce);
    scrollTo(0, 0);
  }
  view.update(service.value, history.value);
}

/** Greys the page out and says so if the last answer is too old to be believed. */
function drawFreshness() {
  const isStale = failure !== "" || (!document.hidden && !waitsForToken() && Date.now() - answeredAt > STALE_MS);
  setAttribute(document.body, "class", isStale ? "stale" : undefined);
  const reason = failure ? ` (${failure})` : "";
  showText($("trouble"), isStale ? `The director does not answer${reason}. What is shown is of ${time(answeredAt)}.` : "");
  if (!isStale) return;
  setText($("role"), "no answer");
  setAttribute($("role"), "class", "badge bad");
  document.title = `no answer · lvs ${data ? data.host : ""}`;
}

let running = null;

/** Refreshes once, or waits for the refresh that runs. */
function refreshOnce() {
  running ??= refresh().then(() => { failure = ""; }, (error) => { failure = error.message || `${error}`; })
    .then(() => { running = null; drawFreshness(); });
  return running;
}

async function forever() {
  for (;;) {
    // A hidden page asks for nothing.
    if (!document.hidden) await refreshOnce();
    const isLarge = data && data.services.length > MANY_SERVICES;
    await new Promise((done) => setTimeout(done, isLarge ? 2 * INTERVAL_MS : INTERVAL_MS));
  }
}

// A refresh that runs was for another view.
addEventListener("hashchange", () => Promise.resolve(running).then(refreshOnce));
document.addEventListener("visibilitychange", () => { answeredAt = Date.now(); refreshOnce(); });
setInterval(drawFreshness, 500);
listenToChoices(() => {
  if (data) drawOverview(data);
  refreshOnce();
});

addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.matches("input, select");
  if (event.key === "Escape") {
    const input = event.target;
    if (isTyping && input.value && input.type === "search") {
      input.value = "";
      input.dispatchEvent(new Event("input"));
    } else if (openedService()) location.hash = "#/";
    else input.blur();
    event.preventDefault();
  } else if (event.key === "/" && !isTyping) {
    const input = view ? view.filter : $("search");
    input.focus();
    event.preventDefault();
  } else if (event.key.startsWith("Arrow") && !isTyping) {
    if (event.target === document.body && !view && $("tiles").firstElementChild && event.key !== "ArrowDown" && event.key !== "ArrowUp") {
      $("tiles").firstElementChild.focus();
    } else if (!moveFocus(event.key)) return;
    event.preventDefault();
  }
});

forever();
