// The overview: a tile for each service, the servers that need attention, and the virtual addresses.

import { $, KeyedList, make, setAttribute, setText, showText } from "./dom.js";
import { bytes, changedBy, count, duration, kindOf, serverName } from "./format.js";

/** With more services than this a tile has one line. */
const DENSE_ABOVE = 120;
const ORDER = ["down", "degraded", "up"];
const MARKS = { down: "✖ ", degraded: "▲ ", up: "" };
/** States in which an operator, and not a failure, keeps a server out. */
const BY_OPERATOR = ["draining", "disabled", "quiesced"];

export const serviceLink = (name) => `#/service/${encodeURIComponent(name)}`;

const sum = (values) => values.reduce((total, value) => total + value, 0);
const serverCount = (service) => sum(Object.values(service.servers));
const eligible = (service) => service.servers.eligible || 0;

/** What the user has chosen to see. */
const choice = { filter: "all", sort: "state", search: "" };
let isAsked = false;

export const searchText = () => choice.search;

function createTile() {
  const name = make("span", { class: "name" });
  const rate = make("span", { class: "rate" });
  const servers = make("span", { class: "servers" });
  const parts = ["good", "fair", "bad"].map((kind) => make("span", { class: kind }));
  const node = make("a", { class: "tile" }, name, rate,
    make("span", { class: "bar", "aria-hidden": "true" }, ...parts), servers);
  const update = (service) => {
    const all = serverCount(service);
    const byOperator = sum(BY_OPERATOR.map((state) => service.servers[state] || 0));
    const numbers = [eligible(service), byOperator, all - eligible(service) - byOperator];
    parts.forEach((part, n) => { part.style.flexGrow = numbers[n]; });
    setText(name, `${MARKS[service.state]}${service.name}`);
    setText(rate, `${count(service.rates.accepted)}/s`);
    setText(servers, `${eligible(service)}/${all}`);
    setAttribute(node, "class", `tile ${service.state}`);
    setAttribute(node, "href", serviceLink(service.name));
    const more = [service.panicking ? "health ignored" : "", service.quorum ? "" : "no quorum",
      service.by_hand ? `${service.by_hand} changed by hand` : ""].filter((text) => text);
    const label = [`${service.name}: ${service.state} for ${duration(service.state_age_ms)}`,
      `${eligible(service)} of ${all} servers eligible`, `${count(service.rates.accepted)} connections per second`,
      `${count(service.active)} open`, ...more].join(", ");
    setAttribute(node, "aria-label", label);
    setAttribute(node, "title", `${label}\n${service.listen.join(", ")} / ${service.protocol} · ${service.scheduler}`);
  };
  return { node, update };
}

function createServer() {
  const name = make("b");
  const service = make("a");
  const badge = make("span");
  const age = make("span", { class: "dim" });
  const reason = make("div", { class: "reason" });
  const node = make("li", {}, make("span", {}, name, " of ", service), make("span", {}, badge, " ", age), reason);
  const update = (server) => {
    setText(name, serverName(server));
    setText(service, server.service);
    setAttribute(service, "href", serviceLink(server.service));
    setText(badge, server.state);
    setAttribute(badge, "class", `badge ${kindOf(server.state)}`);
    setText(age, `for ${duration(server.state_age_ms)}`);
    setText(reason, [server.reason, changedBy(server.changed)].filter((text) => text).join(" · "));
  };
  return { node, update };
}

function createRouter() {
  const name = make("b");
  const badge = make("span");
  const age = make("span", { class: "dim" });
  const more = make("div", { class: "reason" });
  const node = make("li", {}, make("span", {}, name, " ", badge), age, more);
  const update = (router) => {
    const out = Object.entries(router.tracks).filter(([, up]) => !up).map(([track]) => `${track} is down`);
    const advert = router.last_advert;
    setText(name, `${router.name} (${router.virtual_router_id})`);
    setText(badge, router.state);
    setAttribute(badge, "class", `badge ${kindOf(router.state)}`);
    setText(age, `for ${duration(router.since * 1000)}`);
    setText(more, [`priority ${router.priority}`, router.addresses.join(", "), ...out,
      advert ? `last advertisement from ${advert.source}, priority ${advert.priority}` : ""].filter((text) => text).join(" · "));
  };
  return { node, update };
}

function createAddress() {
  const name = make("b");
  const badge = make("span");
  const age = make("span", { class: "dim" });
  const more = make("div", { class: "reason" });
  const node = make("li", {}, make("span", {}, name, " ", badge), age, more);
  const update = (address) => {
    const state = address.state.replace("_", " ");
    setText(name, address.address);
    setText(badge, state);
    setAttribute(badge, "class", `badge ${kindOf(state)}`);
    setText(age, `for ${duration(address.since * 1000)}`);
    setText(more, [address.reason.replaceAll("_", " "), address.metric === null ? "" : `metric ${address.metric}`,
      address.recovers_in === null ? "" : `${duration(address.recovers_in * 1000)} of the recovery delay left`,
      address.failure].filter((text) => text).join(" · "));
  };
  return { node, update };
}

const tiles = new KeyedList($("tiles"), createTile);
const attention = new KeyedList($("attention"), createServer);
const routers = new KeyedList($("routers"), createRouter);
const addresses = new KeyedList($("addresses"), createAddress);

/** Returns whether the search finds a service by its name, its addresses or its scheduler. */
function isFound(service, text) {
  return [service.name, service.scheduler, ...service.listen].some((value) => value.toLowerCase().includes(text));
}

function isShown(service) {
  if (choice.filter === "problems" && service.state === "up") return false;
  if (choice.filter === "by_hand" && !service.by_hand) return false;
  return !choice.search || isFound(service, choice.search.toLowerCase());
}

const COMPARE = {
  state: (a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state),
  name: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }),
  rate: (a, b) => b.rates.accepted - a.rates.accepted,
  active: (a, b) => b.active - a.active,
  file: () => 0,
};

/** Shows the overview; `data` is the director's answer. */
export function drawOverview(data) {
  if (!tiles.rows.size) tiles.clear();
  const shown = data.services.filter(isShown).sort(COMPARE[choice.sort]);
  setAttribute($("tiles"), "class", data.services.length > DENSE_ABOVE ? "dense" : "");
  tiles.update(shown.map((service) => [service.name, service]), isAsked);
  setText($("shown"), shown.length === data.services.length ? "" : `${shown.length} of ${data.services.length} services`);
  setText($("attention-title"), choice.search ? `Servers that match “${choice.search}”` : "Servers that need attention");
  const byAge = data.servers.sort((a, b) => a.state_age_ms - b.state_age_ms);
  attention.update(byAge.map((server) => [`${server.service} ${server.address}`, server]), isAsked);
  const hidden = data.servers_found - data.servers.length;
  showText($("attention-note"), hidden ? `and ${count(hidden)} more` : data.servers.length ? ""
    : choice.search ? "No server matches." : "All servers are eligible, and none is changed by hand.");
  isAsked = false;
  drawAnnounced(data.announce);
  drawPair(data);
}

function drawAnnounced(announce) {
  $("announced").hidden = !announce;
  if (!announce) return;
  addresses.update(announce.addresses.map((address) => [address.address, address]));
  showText($("announce-mode"), { drain: "This director is drained: it announces with a higher metric.",
    withdraw: "This director withdraws its addresses." }[announce.mode] || "");
}

function drawPair(data) {
  $("pair").hidden = !data.vrrp;
  if (!data.vrrp) return;
  routers.update(data.vrrp.routers.map((router) => [router.name, router]));
  const sync = data.sync;
  setText($("sync"), !sync ? "" : data.active
    ? `Synchronization: ${sync.followers} standby connected, ${bytes(sync.sent)} sent`
    : sync.in_sync ? `Synchronization: in sync, last message ${count(sync.silent_ms)} ms ago`
      : `Synchronization: not in sync${sync.error ? `: ${sync.error}` : ""}`);
}

/** Returns what the head of the page says of all services. */
export function totals(data) {
  const services = data.services;
  const having = (state) => services.filter((service) => service.state === state).length;
  const problems = ["down", "degraded"].filter(having).map((state) => `${having(state)} ${state}`);
  const servers = sum(services.map(serverCount));
  const out = servers - sum(services.map(eligible));
  return [`${count(services.length)} ${services.length === 1 ? "service" : "services"}${problems.length ? ` (${problems.join(", ")})` : ""}`,
    `${count(servers)} servers${out ? ` (${count(out)} out)` : ""}`,
    `${count(sum(services.map((service) => service.rates.accepted)))} connections/s`,
    `${count(sum(services.map((service) => service.active)))} open`,
    `${bytes(sum(services.map((service) => service.rates.bytes_to_clients ?? 0)))}/s to clients`].join(" · ");
}

/** Lets the user choose; `changed` draws again. */
export function listenToChoices(changed) {
  const choose = (part) => { Object.assign(choice, part); isAsked = true; changed(); };
  $("search").addEventListener("input", () => choose({ search: $("search").value.trim() }));
  $("sort").addEventListener("change", () => choose({ sort: $("sort").value }));
  for (const button of $("filters").querySelectorAll("button")) {
    button.addEventListener("click", () => {
      $("filters").querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", other === button));
      choose({ filter: button.dataset.filter });
    });
  }
}

/** Moves the focus from one tile to another by an arrow key. */
export function moveFocus(key) {
  const all = [...$("tiles").children];
  const at = all.indexOf(document.activeElement);
  if (at < 0) return false;
  const columns = Math.max(1, all.filter((tile) => tile.offsetTop === all[0].offsetTop).length);
  const next = all[at + { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key]];
  if (next) next.focus();
  return true;
}
