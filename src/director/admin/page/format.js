// Numbers, times and states, as people read them.

const numberFormat = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });

/** Returns a number; a dash for one that nothing counts. */
export const count = (value) => value === null ? "–" : numberFormat.format(value ?? 0);

export function bytes(value) {
  if (value === null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export function duration(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** Returns the time of day; with the date if it is not today's. */
export function time(at) {
  const date = new Date(at);
  return (date.toDateString() === new Date().toDateString() ? clock : day).format(date);
}

export const millis = (value) =>
  value === null || value === undefined ? "–" : `${value < 10 ? value.toFixed(2) : Math.round(value)} ms`;

/** Returns the class of a state: of a server, a service or a virtual router. */
export function kindOf(state) {
  return {
    eligible: "good", up: "good", master: "good", announced: "good",
    down: "bad", ejected: "bad", withheld: "bad", fault: "bad", "last resort": "bad", withdrawn: "bad",
    degraded: "fair",
  }[state] || "fair";
}

/** Returns the name of a server with its address. */
export const serverName = (server) => (server.name ? `${server.name} (${server.address})` : server.address);

/** Returns who changed a server by hand and when, or an empty text. */
export const changedBy = (changed) => (changed ? `changed ${time(changed.at_ms)} by ${changed.by}` : "");
