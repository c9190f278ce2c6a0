// Charts of the last five minutes, with a time axis, and small ones without.

import { make, setAttribute, setText } from "./dom.js";

/** Samples of a chart: one a second. */
const SAMPLES = 300;

/** Returns the outline of a series; the newest sample is at the right. */
function outline(values, width, top, isFilled) {
  if (values.every((value) => value === null)) return "M 0 0";
  const first = width - values.length + 1;
  const points = values.map((value, i) => `${first + i} ${(98 - (94 * (value ?? 0)) / top).toFixed(1)}`);
  return `M ${points.join(" L ")}${isFilled ? ` L ${width} 100 L ${first} 100 Z` : ""}`;
}

const highest = (lines) => Math.max(0, ...lines.flat().filter((value) => value !== null));

/** A chart of one series or two, with its title, the values of this moment, and a time axis. */
export class Chart {
  constructor(title, format) {
    this.title = title;
    this.format = format;
    this.now = make("b");
    this.lines = ["one", "two"].map((name) => make("path", { class: name }));
    this.svg = make("svg", { viewBox: `0 0 ${SAMPLES} 100`, preserveAspectRatio: "none", role: "img" },
      make("path", { class: "grid", d: [60, 120, 180, 240].map((x) => `M ${x} 0 V 100`).join(" ") }), ...this.lines);
    this.top = make("span", { class: "top" });
    this.node = make("figure", {},
      make("figcaption", {}, title, this.now),
      make("div", { class: "plot" }, this.svg, this.top),
      make("div", { class: "axis", "aria-hidden": "true" },
        ...["−5 min", "−4", "−3", "−2", "−1", "now"].map((label) => make("span", {}, label))));
  }

  update(lines) {
    const known = lines.filter((line) => line);
    const top = highest(known);
    this.lines.forEach((path, n) => setAttribute(path, "d", outline(known[n] || [], SAMPLES, top || 1, n === 0)));
    const now = known.map((line) => this.format(line.length ? line[line.length - 1] : null)).join(" · ");
    setText(this.now, now);
    setText(this.top, top ? this.format(top) : "");
    setAttribute(this.svg, "aria-label", `${this.title}, the last five minutes; now ${now}, at most ${this.format(top)}`);
  }
}

/** A small chart of one series, without an axis: the last minute. */
export class Sparkline {
  constructor(label) {
    this.path = make("path", { class: "one" });
    this.node = make("svg", { viewBox: "0 0 60 100", preserveAspectRatio: "none", role: "img", "aria-label": label, class: "spark" }, this.path);
  }

  update(values) {
    const last = (values || []).slice(-60);
    setAttribute(this.path, "d", outline(last, 60, highest([last]) || 1, true));
  }
}
