// One service: its charts, and a table of its servers.

import { changeState, editServer } from "./actions.js";
import { Chart, Sparkline } from "./chart.js";
import { $, KeyedList, make, setAttribute, setText, showText } from "./dom.js";
import { bytes, changedBy, count, duration, kindOf, millis } from "./format.js";

const COLUMNS = [
  { name: "server", of: (server) => server.name || server.address },
  { name: "state", of: (server) => server.state },
  { name: "weight", number: true, of: (server) => server.weight },
  { name: "open", number: true, of: (server) => server.active + server.inactive },
  { name: "served", number: true, of: (server) => server.totals.connections },
  { name: "failed", number: true, of: (server) => server.totals.failed },
  { name: "connect p99", number: true, of: (server) => server.connect_p99_ms ?? -1 },
  { name: "connections/s", of: (server) => server.rate },
];

function cell(label, isNumber, ...children) {
  return make("td", { "data-label": label, class: isNumber ? "number" : undefined }, ...children);
}

/** The row of a server, with its buttons. */
function createRow(service, refresh) {
  return (first) => {
    let server = first;
    const name = make("b");
    const address = make("span", { class: "address" });
    const badge = make("span");
    const age = make("span", { class: "dim" });
    const reason = make("div", { class: "reason" });
    const numbers = COLUMNS.slice(2, 7).map((column) => [column, make("span")]);
    const spark = new Sparkline(`connections per second to ${first.address}`);
    const rate = make("span", { class: "rate" });
    const drain = make("button", { type: "button", act: () => changeState(service, server, isOut(server) ? "up" : "drain", refresh) });
    const disable = make("button", { type: "button", act: () => changeState(service, server, "down", refresh) }, "Disable");
    const edit = make("button", { type: "button", act: () => editServer(service, server, refresh) }, "Edit");
    const node = make("tr", {},
      cell("server", false, make("span", {}, name, " ", address)),
      cell("state", false, make("span", {}, badge, " ", age, reason)),
      ...numbers.map(([column, text]) => cell(column.name, true, text)),
      cell("connections/s", false, make("span", { class: "rates" }, rate, spark.node)),
      cell("actions", false, make("span", { class: "acts" }, drain, edit, disable)));
    const update = (now) => {
      server = now;
      setText(name, server.name || "");
      setText(address, server.address);
      setText(badge, server.state);
      setAttribute(badge, "class", `badge ${kindOf(server.state)}`);
      setText(age, `for ${duration(server.state_age_ms)}`);
      showText(reason, [server.reason, changedBy(server.changed)].filter((text) => text).join(" · "));
      const limit = server.max_connections ? ` / ${count(server.max_connections)}` : "";
      const texts = [count(server.weight), `${count(server.active + server.inactive)}${limit}`,
        count(server.totals.connections), count(server.totals.failed), millis(server.connect_p99_ms)];
      numbers.forEach(([, text], n) => setText(text, texts[n]));
      setText(rate, server.series ? count(server.rate) : "–");
      spark.update(server.series);
      setText(drain, isOut(server) ? "Undrain" : "Drain");
      disable.hidden = server.state === "disabled";
      for (const button of [drain, edit, disable]) setAttribute(button, "aria-label", `${button.textContent} ${server.name || server.address}`);
    };
    return { node, update };
  };
}

const isOut = (server) => ["draining", "disabled"].includes(server.state);

/** The view of one service, made when it is opened. */
export class ServiceView {
  constructor(name, refresh) {
    this.name = name;
    this.sort = { column: null, isDescending: false };
    this.title = make("h2", {}, name);
    this.state = make("span");
    this.age = make("span", { class: "dim" });
    this.about = make("p", { class: "dim" });
    this.facts = make("p", { class: "facts" });
    this.charts = [
      new Chart("connections per second · refused", count),
      new Chart("open connections", count),
      new Chart("bytes per second to clients · servers", (value) => bytes(value ?? 0)),
      new Chart("connect time p99 · p50", millis),
    ];
    this.filter = make("input", { type: "search", placeholder: "Filter servers", "aria-label": "Filter servers", autocomplete: "off" });
    this.shown = make("span", { class: "dim" });
    const body = make("tbody");
    this.rows = new KeyedList(body, createRow(name, refresh));
    this.heads = COLUMNS.map((column) => make("th", { scope: "col", class: column.number ? "number" : undefined },
      make("button", { type: "button", act: () => this.sortBy(column) }, column.name)));
    this.filter.addEventListener("input", () => this.redraw(true));
    this.node = make("div", {},
      make("p", {}, make("a", { href: "#/", class: "back" }, "← All services")),
      make("div", { class: "title" }, this.title, this.state, this.age),
      this.about, this.facts,
      make("div", { class: "charts" }, ...this.charts.map((chart) => chart.node)),
      make("div", { class: "tools" }, this.filter, this.shown),
      make("div", { class: "scroll" }, make("table", {},
        make("thead", {}, make("tr", {}, ...this.heads, make("th", { scope: "col" }, "actions"))), body)));
    $("service").replaceChildren(this.node);
  }

  sortBy(column) {
    const isSame = this.sort.column === column;
    this.sort = { column, isDescending: isSame ? !this.sort.isDescending : Boolean(column.number) };
    this.heads.forEach((head, n) => setAttribute(head, "aria-sort",
      COLUMNS[n] !== column ? undefined : this.sort.isDescending ? "descending" : "ascending"));
    this.redraw(true);
  }

  update(service, history) {
    this.service = service;
    this.history = history;
    this.redraw(false);
  }

  redraw(isAsked) {
    if (!this.service) return;
    const { service, history } = this;
    const eligible = service.servers.filter((server) => server.state === "eligible").length;
    setText(this.state, [service.state, `${eligible} of ${service.servers.length} eligible`,
      service.panicking ? "health ignored" : "", service.quorum ? "" : "no quorum"].filter((text) => text).join(" · "));
    setAttribute(this.state, "class", `badge ${kindOf(service.state)}`);
    setText(this.age, `for ${duration(service.state_age_ms)}`);
    setText(this.about, `${service.listen.join(", ")} / ${service.protocol} · ${service.scheduler}`);
    const refused = Object.entries(service.refused).map(([reason, times]) => `${reason} ${count(times)}`).join(", ");
    setText(this.facts, [`accepted ${count(service.totals.accepted)}`, `refused ${count(service.totals.refused)}${refused ? ` (${refused})` : ""}`,
      service.persistent ? `persistent clients ${count(service.persistent)}` : "",
      `to clients ${bytes(service.totals.bytes_to_clients)}`, `to servers ${bytes(service.totals.bytes_to_servers)}`].filter((text) => text).join(" · "));
    const series = [[history.accepted, history.refused], [history.active],
      [history.bytes_to_clients, history.bytes_to_servers], [history.connect_p99_ms, history.connect_p50_ms]];
    this.charts.forEach((chart, n) => chart.update(series[n]));
    this.drawServers(service, history, isAsked);
  }

  drawServers(service, history, isAsked) {
    const text = this.filter.value.trim().toLowerCase();
    const withRates = service.servers.map((server) => {
      const line = history.servers[server.address];
      return { ...server, series: line, rate: line && line.length ? line[line.length - 1] : 0 };
    });
    const shown = withRates.filter((server) => [server.address, server.name || "", server.state].some((value) => value.toLowerCase().includes(text)));
    if (this.sort.column) {
      const { of } = this.sort.column;
      const sign = this.sort.isDescending ? -1 : 1;
      shown.sort((a, b) => sign * (typeof of(a) === "number" ? of(a) - of(b) : of(a).localeCompare(of(b), "en", { numeric: true })));
    }
    this.rows.update(shown.map((server) => [server.address, server]), isAsked);
    setText(this.shown, shown.length === withRates.length ? "" : `${shown.length} of ${withRates.length} servers`);
  }
}
