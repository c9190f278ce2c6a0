"use strict";
// The status page of a director: fetches its status and its traffic history each second, and draws them.

const $ = (id) => document.getElementById(id);
const count = new Intl.NumberFormat("en");
let token = sessionStorage.getItem("token") || "";

/** Returns an element with its attributes and children. Strings become text nodes, never markup. */
function make(name, attributes = {}, ...children) {
  const isSvg = /^(svg|path)$/.test(name);
  const node = isSvg
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "act") node.addEventListener("click", value);
    else if (value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

async function ask(path, method = "GET", body = undefined) {
  const headers = { "content-type": "application/json" };
  const tried = token;
  if (tried) headers.authorization = `Bearer ${tried}`;
  const answer = await fetch(`/api/v1${path}`, {
    method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(8000),
  });
  if (answer.status === 401) {
    // The user may have entered another token while this answer was on its way.
    if (tried === token) await enter();
    return ask(path, method, body);
  }
  const text = await answer.text();
  const value = text ? JSON.parse(text) : null;
  if (!answer.ok) throw new Error((value && value.error) || `${answer.status}`);
  return value;
}

/** Asks the user for the token: one dialog, however many requests wait for it. */
let entered = null;
function enter() {
  entered ??= new Promise((done) => {
    $("enter").addEventListener("close", () => {
      token = $("token").value;
      sessionStorage.setItem("token", token);
      entered = null;
      done();
    }, { once: true });
    $("enter").showModal();
  });
  return entered;
}

function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

function duration(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** Returns a chart of one series, or two; the newest sample is at the right. */
function chart(lines, label) {
  const most = Math.max(60, ...lines.map((line) => line.length));
  const top = Math.max(1, ...lines.flat().filter((it) => it !== null));
  const picture = make("svg", { viewBox: `0 0 ${most} 100`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  lines.forEach((line, n) => {
    const points = line.map((value, i) =>
      `${most - line.length + i + 1} ${(98 - (96 * (value ?? 0)) / top).toFixed(1)}`);
    if (!points.length) return;
    const first = most - line.length + 1;
    const area = n ? "" : `L ${most} 100 L ${first} 100 Z`;
    picture.append(make("path", { class: n ? "two" : "one", d: `M ${points.join(" L ")} ${area}` }));
  });
  return picture;
}

const last = (line) => (line && line.length ? line[line.length - 1] : null);

function figure(title, now, lines) {
  return make("figure", {}, make("figcaption", {}, title, make("b", {}, now)),
    chart(lines, `${title}, the last five minutes; now ${now}`));
}

const ms = (value) => (value === null || value === undefined ? "–" : `${value < 10 ? value.toFixed(2) : Math.round(value)} ms`);

function badge(state) {
  const kind = { eligible: "good", down: "bad", ejected: "bad", master: "good", fault: "bad" }[state] || "";
  return make("span", { class: `badge ${kind}` }, state);
}

function cell(label, ...children) {
  return make("td", { "data-label": label }, ...children);
}

function number(label, value) {
  return make("td", { "data-label": label, class: "number" }, value);
}

function serverRow(service, server, lines) {
  const path = `/services/${encodeURIComponent(service.name)}/servers/${encodeURIComponent(server.address)}`;
  const called = server.name ? `${server.name} (${server.address})` : server.address;
  const act = (id, text, question, body) => make("button", {
    type: "button", id: `${id} ${service.name} ${server.address}`, "aria-label": `${text} ${called}`,
    act: () => confirm(question, body, path, server),
  }, text);
  const isOut = ["draining", "disabled"].includes(server.state);
  const line = (lines && lines.servers[server.address]) || [];
  return make("tr", {},
    cell("server", make("span", {}, server.name ? make("b", {}, `${server.name} `) : undefined, server.address)),
    cell("state", make("span", {}, badge(server.state), server.by_hand ? make("span", { class: "dim", title: "changed by an operator" }, " by hand") : undefined,
      server.reason ? make("div", { class: "reason" }, server.reason) : undefined)),
    number("weight", count.format(server.weight)),
    number("active", count.format(server.active + server.inactive)),
    number("served", count.format(server.totals.connections)),
    number("failed", count.format(server.totals.failed)),
    number("connect p99", ms(server.connect_p99_ms)),
    cell("per second", chart([line], `connections per second to ${called}`)),
    cell("", make("span", { class: "acts" },
      isOut ? act("up", "Undrain", `Undrain ${called}? It gets new connections again.`, { state: "up" })
        : act("drain", "Drain", `Drain ${called}? It gets no new connections; open connections continue.`, { state: "drain" }),
      act("weigh", "Weight", `Set the weight of ${called}:`, "weight"))));
}

function serviceCard(service, lines) {
  const empty = { active: [], accepted: [], refused: [], bytes_to_clients: [], bytes_to_servers: [], connect_p50_ms: [], connect_p99_ms: [], servers: {} };
  lines = lines || empty;
  const fact = (name, value) => make("span", {}, `${name} `, make("b", {}, value));
  const up = service.servers.filter((server) => server.state === "eligible").length;
  const refused = Object.entries(service.refused).map(([reason, times]) => `${reason} ${count.format(times)}`).join(", ");
  const heads = ["server", "state", "weight", "active", "served", "failed", "connect p99", "per second", "actions"];
  const numbers = ["weight", "active", "served", "failed", "connect p99"];
  return make("section", { class: "card", "aria-label": `service ${service.name}` },
    make("h2", {}, service.name, " ", make("span", { class: "dim" }, `${service.listen.join(", ")} / ${service.protocol} · ${service.scheduler}`), " ",
      make("span", { class: `badge ${up ? "good" : "bad"}` }, `${up} of ${service.servers.length} eligible`), " ",
      service.panicking ? make("span", { class: "badge bad" }, "health ignored") : undefined,
      service.quorum ? undefined : make("span", { class: "badge bad" }, "no quorum")),
    make("p", { class: "facts" },
      fact("accepted", count.format(service.totals.accepted)), fact("refused", count.format(service.totals.refused)),
      fact("persistent clients", count.format(service.persistent)),
      fact("to clients", bytes(service.totals.bytes_to_clients)), fact("to servers", bytes(service.totals.bytes_to_servers)),
      refused ? make("span", {}, `refused, by reason: ${refused}`) : undefined),
    make("div", { class: "charts" },
      figure("connections per second · refused", `${count.format(last(lines.accepted) ?? 0)} · ${count.format(last(lines.refused) ?? 0)}`, [lines.accepted, lines.refused]),
      figure("connections", count.format(service.active), [lines.active]),
      figure("bytes per second to clients · servers", `${bytes(last(lines.bytes_to_clients) ?? 0)} · ${bytes(last(lines.bytes_to_servers) ?? 0)}`, [lines.bytes_to_clients, lines.bytes_to_servers]),
      figure("connect time p99 · p50", `${ms(last(lines.connect_p99_ms))} · ${ms(last(lines.connect_p50_ms))}`, [lines.connect_p99_ms, lines.connect_p50_ms])),
    make("div", { class: "scroll" }, make("table", {},
      make("thead", {}, make("tr", {}, ...heads.map((name) => make("th", { scope: "col", class: numbers.includes(name) ? "number" : undefined }, name)))),
      make("tbody", {}, ...[...service.servers].sort((a, b) => a.address.localeCompare(b.address, "en", { numeric: true })).map((server) => serverRow(service, server, lines))))));
}

function routerRow(router) {
  const out = Object.entries(router.tracks).filter(([, up]) => !up).map(([name]) => `${name} is down`);
  return make("tr", {}, cell("router", `${router.name} (${router.virtual_router_id})`),
    cell("state", make("span", {}, badge(router.state), ` for ${duration(router.since * 1000)}`,
      out.length ? make("div", { class: "reason" }, out.join(", ")) : undefined)),
    number("priority", count.format(router.priority)),
    cell("last advertisement", router.last_advert ? `${router.last_advert.source}, priority ${router.last_advert.priority}` : "none"),
    cell("addresses", router.addresses.join(", ")));
}

/** Asks the user to confirm a change, and sends it. */
async function confirm(question, body, path, server) {
  const isWeight = body === "weight";
  $("question").textContent = question;
  $("weight-label").hidden = !isWeight;
  if (isWeight) $("weight").value = server.weight;
  $("ask").returnValue = "no";
  $("ask").showModal();
  (isWeight ? $("weight") : $("yes")).focus();
  await new Promise((done) => $("ask").addEventListener("close", done, { once: true }));
  if ($("ask").returnValue !== "yes") return;
  try {
    await ask(path, "PATCH", isWeight ? { weight: Number($("weight").value) } : body);
    trouble("");
    await draw();
  } catch (error) {
    trouble(`The change failed: ${error.message}`);
  }
}
// Enter in the field confirms; by default it would press the first button, Cancel.
$("weight").addEventListener("keydown", (event) => {
  if (event.key === "Enter") { event.preventDefault(); $("ask").close("yes"); }
});

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

async function draw() {
  const [status, history] = await Promise.all([ask("/status"), ask("/history")]);
  const focused = document.activeElement && document.activeElement.id;
  const scrolled = [...document.querySelectorAll(".scroll")].map((it) => it.scrollLeft);
  $("version").textContent = status.version;
  $("role").textContent = status.active ? "active" : "standby";
  $("role").className = `badge ${status.active ? "good" : ""}`;
  $("uptime").textContent = `up ${duration(status.uptime_ms)}`;
  const down = status.services.some((it) => !it.servers.some((server) => server.state === "eligible"));
  document.title = `${down ? "! " : ""}lvs ${status.active ? "active" : "standby"}`;
  const failed = status.failed_parts.map((it) => `${it.part}: ${it.reason}`);
  $("failed").textContent = failed.length ? `Not applied by the last reload: ${failed.join("; ")}` : "";
  $("failed").hidden = !failed.length;
  $("services").replaceChildren(...status.services.map((it) => serviceCard(it, history.services[it.name])));
  $("pair").hidden = !status.vrrp;
  if (status.vrrp) {
    $("pair").className = "card";
    const heads = ["router", "state", "priority", "last advertisement", "addresses"];
    $("routers").replaceChildren(make("table", {},
      make("thead", {}, make("tr", {}, ...heads.map((name) => make("th", { scope: "col", class: name === "priority" ? "number" : undefined }, name)))),
      make("tbody", {}, ...status.vrrp.routers.map(routerRow))));
    const sync = status.sync;
    $("sync").textContent = !sync ? "" : status.active
      ? `${sync.followers} standby connected, ${bytes(sync.sent)} sent`
      : sync.in_sync ? `in sync, last message ${sync.silent_ms} ms ago` : `not in sync${sync.error ? `: ${sync.error}` : ""}`;
  }
  [...document.querySelectorAll(".scroll")].forEach((it, n) => { it.scrollLeft = scrolled[n] || 0; });
  if (focused && document.getElementById(focused)) document.getElementById(focused).focus();
}

async function forever() {
  for (;;) {
    // A hidden page fetches nothing, and the page does not change below an open dialog.
    if (!document.hidden && !$("ask").open) {
      try {
        await draw();
        if ($("trouble").textContent.startsWith("The director does not answer")) trouble("");
      } catch (error) {
        trouble(`The director does not answer: ${error.message}`);
      }
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}
forever();
