// SPDX-License-Identifier: Apache-2.0
// Line charts over steps as SVG, drawn at the width they have, and what every script makes elements with.
"use strict";

const allCharts = [];
const chartSettings = { logSteps: false };
const byId = (id) => document.getElementById(id);

function make(name, attributes, parent, text) {
  const element = document.createElement(name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

function makeSvg(name, attributes, parent, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

/// Fills a select with [value, text] and keeps its value where that still stands.
function fillSelect(select, options, value) {
  select.replaceChildren(...options.map(([v, text]) => make("option", { value: v }, null, text)));
  select.value = String(value);
}

/// A number with commas; a small one as 2.5e-7; never -0.
const grouped = (number) => (number !== 0 && Math.abs(number) < 1e-4 ? number.toExponential()
  : (number + 0).toLocaleString("en", { maximumFractionDigits: 6 }));

/// Round numbers from low to high, about `count` of them.
function ticks(low, high, count) {
  const raw = (high - low) / Math.max(1, count);
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) values.push(Number((i * step).toPrecision(12)));
  return values;
}

/// The same for a logarithmic axis, with powers of ten between them; low > 0.
function logarithmicTicks(low, high, count) {
  let values = [];
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10)
    for (const digit of [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8]) values.push(Number((digit * power).toPrecision(12)));
  values = values.filter((value) => value >= low && value <= high);
  while (values.length > count) values = values.filter((_, i) => i % 2 === 0);
  return values.length < 2 ? ticks(low, high, count) : values;
}

/// Steps as positions: linear, or log10(1 + step), which has a place for step 0.
const stepScale = {
  position: (step) => (chartSettings.logSteps ? Math.log10(1 + step) : step),
  ticks(low, high, count) {
    if (!chartSettings.logSteps) return ticks(low, high, count).filter(Number.isInteger);
    const values = low <= 0 ? [0] : [];
    for (let power = 1; power <= high; power *= 10) if (power >= low) values.push(power);
    return values;
  },
};

function extent(series, keys) {
  let low = Infinity, high = -Infinity;
  for (const line of series)
    for (const key of keys)
      for (const value of line[key] || [])
        if (value !== null) low = Math.min(low, value), high = Math.max(high, value);
  return [low, high];
}

/// What stands for lines [{colour, dash, width}] in a legend, one under the other.
function lineKey(parent, lines) {
  const key = makeSvg("svg", { width: 22, height: 3 + 7 * lines.length, "aria-hidden": "true" }, parent);
  lines.forEach((line, i) => makeSvg("line", { x1: 0, x2: 22, y1: 5 + 7 * i, y2: 5 + 7 * i,
    style: `stroke:${line.colour};stroke-width:${line.width || 1.5}`, "stroke-dasharray": line.dash || "none" }, key));
  return key;
}

const markClass = (mark) => (mark.kind === "restart" ? "mark" : "mark tokens");

/// A chart in `host`. spec: title, unit, series [{label, short, colour, x, y, low, high, points, dash, width}], marks
/// [{x, colour, label, kind, text}] (dashed vertical lines; kind: "restart", or what the legend calls it; text: beside it), cursor (a step marked by a solid line), zero (the axis begins at 0),
/// ceiling (the axis ends there at least), logarithmic (the axis of values is, where all of them are positive), reach (a line without a point at the step that is read shows its nearest one
/// if it is no more steps away; 0 where missing), height, legend (false: none), describe (text for who does not see it).
class Chart {
  constructor(host, spec) {
    this.host = host;
    this.spec = spec;
    this.figure = make("figure", { class: "chart" }, host);
    const caption = make("figcaption", {}, this.figure);
    make("b", {}, caption, spec.title);
    if (spec.unit) make("span", { class: "unit" }, caption, spec.unit);
    if (spec.legend !== false) this.legend(make("span", { class: "legend" }, caption));
    this.place = make("div", { class: "plot" }, this.figure);
    this.output = make("div", { class: "chart-readout", role: "status" }, this.figure);
    allCharts.push(this);
    this.draw();
    if (typeof ResizeObserver !== "undefined") {
      new ResizeObserver(() => this.place.clientWidth !== this.width && this.draw()).observe(this.place);
    }
  }

  legend(place) {
    for (const line of this.spec.series) {
      const item = make("span", {}, place);
      const key = lineKey(item, [line]);
      if (line.points) makeSvg("circle", { cx: 11, cy: 5, r: 3, style: `fill:${line.colour}` }, key);
      item.append(line.label);
    }
    for (const kind of new Set((this.spec.marks || []).map((mark) => mark.kind))) {
      const mark = this.spec.marks.find((one) => one.kind === kind);
      const item = make("span", {}, place);
      const key = makeSvg("svg", { width: 8, height: 12, "aria-hidden": "true" }, item);
      makeSvg("line", { x1: 4, x2: 4, y1: 0, y2: 12, class: markClass(mark), style: `stroke:${mark.colour}` }, key);
      item.append(kind);
    }
  }

  draw() {
    const { spec } = this;
    this.width = this.place.clientWidth || 600;
    const height = spec.height || 220;
    const margin = { left: 50, right: 14, top: 10, bottom: 38 };
    const inner = { width: this.width - margin.left - margin.right, height: height - margin.top - margin.bottom };
    let [left, right] = extent(spec.series, ["x"]);
    let [bottom, top] = extent(spec.series, ["y", "low", "high"]);
    if (spec.domain) [left, right] = spec.domain;
    this.place.replaceChildren();
    this.empty = !(left <= right) || !(bottom <= top);
    if (this.empty) return void make("p", { class: "notes" }, this.place, "Nothing recorded yet.");
    if (spec.zero) bottom = Math.min(0, bottom);
    if (spec.ceiling !== undefined) top = Math.max(top, spec.ceiling);
    if (left === right) left -= 1, right += 1;
    if (bottom === top) bottom -= Math.abs(bottom) * 0.05 || 1, top += Math.abs(top) * 0.05 || 1;
    const logarithmic = Boolean(spec.logarithmic) && bottom > 0;
    const place = logarithmic ? Math.log : (value) => value;
    if (logarithmic) {
      const room = (top / bottom) ** 0.04;
      bottom /= room;
      top *= room;
    } else {
      if (!spec.zero) bottom -= (top - bottom) * 0.04;
      top += (top - bottom) * 0.04;
    }
    left = Math.max(0, left);
    const first = stepScale.position(left), span = stepScale.position(right) - first;
    this.x = (step) => margin.left + ((stepScale.position(step) - first) / span) * inner.width;
    this.y = (value) => margin.top + (1 - (place(value) - place(bottom)) / (place(top) - place(bottom))) * inner.height;
    const root = makeSvg("svg", { width: this.width, height, viewBox: `0 0 ${this.width} ${height}`, role: "img",
      tabindex: 0, "aria-label": spec.describe || `${spec.title} over steps` }, this.place);
    const values = logarithmic ? logarithmicTicks(bottom, top, inner.height / 24) : ticks(bottom, top, Math.max(2, inner.height / 40));
    this.axes(root, { left, right, values, margin, inner, height });
    const clip = makeSvg("g", {}, root);
    let texts = 0;
    for (const mark of spec.marks || []) {
      const at = this.x(mark.x);
      const line = makeSvg("line", { x1: at, x2: at, y1: margin.top, y2: margin.top + inner.height, class: markClass(mark),
        style: `stroke:${mark.colour}` }, clip);
      makeSvg("title", {}, line, mark.label);
      if (!mark.text) continue;
      const right = at > margin.left + inner.width / 2;  // the text goes where there is more room
      const room = Math.floor((right ? at - margin.left : margin.left + inner.width - at) / 6.2) - 1;
      const short = mark.text.length > room ? `${mark.text.slice(0, Math.max(1, room - 1))}\u2026` : mark.text;
      const text = makeSvg("text", { x: right ? at - 4 : at + 4, y: margin.top + 10 + 13 * (texts++ % 4), class: "mark-text",
        "text-anchor": right ? "end" : "start" }, clip, short);
      makeSvg("title", {}, text, mark.label);
    }
    if (spec.cursor !== undefined && spec.cursor >= left && spec.cursor <= right) {
      const at = this.x(spec.cursor);
      makeSvg("line", { x1: at, x2: at, y1: margin.top, y2: margin.top + inner.height, class: "cursor" }, clip);
    }
    for (const line of spec.series) this.line(clip, line);
    this.pointer = makeSvg("g", { class: "pointer" }, root);
    this.listen(root, { margin, inner });
  }

  axes(root, { left, right, values, margin, inner, height }) {
    const group = makeSvg("g", { class: "axes" }, root);
    for (const value of values) {
      const at = this.y(value);
      makeSvg("line", { x1: margin.left, x2: margin.left + inner.width, y1: at, y2: at, class: "rule" }, group);
      makeSvg("text", { x: margin.left - 8, y: at + 4, "text-anchor": "end" }, group, grouped(value));
    }
    const base = margin.top + inner.height;
    makeSvg("line", { x1: margin.left, x2: margin.left + inner.width, y1: base, y2: base, class: "axis" }, group);
    for (const value of stepScale.ticks(left, right, Math.max(2, inner.width / 90))) {
      const at = this.x(value);
      makeSvg("line", { x1: at, x2: at, y1: base, y2: base + 4, class: "axis" }, group);
      const edge = at > this.width - 24 ? "end" : "middle";
      makeSvg("text", { x: edge === "end" ? this.width - 2 : at, y: base + 17, "text-anchor": edge }, group, grouped(value));
    }
    makeSvg("text", { x: margin.left + inner.width / 2, y: height - 4, "text-anchor": "middle", class: "axis-name" }, group,
      chartSettings.logSteps ? "optimizer step (logarithmic)" : "optimizer step");
  }

  line(group, line) {
    if (line.low) {
      const known = line.x.map((_, i) => i).filter((i) => line.low[i] !== null);
      const there = known.map((i) => `${this.x(line.x[i]).toFixed(1)},${this.y(line.high[i]).toFixed(1)}`);
      const back = known.reverse().map((i) => `${this.x(line.x[i]).toFixed(1)},${this.y(line.low[i]).toFixed(1)}`);
      makeSvg("polygon", { points: [...there, ...back].join(" "), class: "band", style: `fill:${line.colour}` }, group);
    }
    let path = "", pen = false;
    line.x.forEach((step, i) => {
      if (line.y[i] === null) return void (pen = false);
      path += `${pen ? "L" : "M"}${this.x(step).toFixed(1)} ${this.y(line.y[i]).toFixed(1)}`;
      pen = true;
    });
    makeSvg("path", { d: path, class: "line", style: `stroke:${line.colour};stroke-width:${line.width || 1.5}`,
      "stroke-dasharray": line.dash || "none" }, group);
    const count = line.y.filter((value) => value !== null).length;
    if (count !== 1 && (!line.points || count > this.width / 8)) return;  // so many would hide the line
    const r = count === 1 || line.points === true ? 3 : 2;
    line.x.forEach((step, i) => {
      if (line.y[i] !== null) makeSvg("circle", { cx: this.x(step), cy: this.y(line.y[i]), r, style: `fill:${line.colour}` }, group);
    });
  }

  /// Place of the line's point at that step, or of the nearest one within the chart's reach; -1 where there is none.
  nearest(line, step) {
    let best = -1, least = this.spec.reach || 0;
    line.x.forEach((x, i) => {
      const away = Math.abs(x - step);
      if (line.y[i] !== null && (away < least || (away === least && best < 0))) (best = i), (least = away);
    });
    return best;
  }

  listen(root, { margin, inner }) {
    const steps = [...new Set(this.spec.series.flatMap((line) => line.x))].sort((a, b) => a - b);
    let at = steps.length - 1;
    const nearest = (x) => steps.reduce((best, step, i) => (Math.abs(this.x(step) - x) < Math.abs(this.x(steps[best]) - x) ? i : best), 0);
    const show = (index) => {
      at = Math.min(steps.length - 1, Math.max(0, index));
      const step = steps[at];
      this.pointer.replaceChildren();
      makeSvg("line", { x1: this.x(step), x2: this.x(step), y1: margin.top, y2: margin.top + inner.height, class: "hair" }, this.pointer);
      this.output.replaceChildren();
      make("b", {}, this.output, `Step ${grouped(step)}`);
      for (const line of this.spec.series) {
        const i = this.nearest(line, step);
        if (i < 0) continue;
        makeSvg("circle", { cx: this.x(line.x[i]), cy: this.y(line.y[i]), r: 4, style: `fill:${line.colour}` }, this.pointer);
        const item = make("span", {}, this.output);
        make("i", { class: "dot", style: `background:${line.colour}` }, item);
        item.append(`${line.short || line.label} ${grouped(Number(line.y[i].toPrecision(5)))}`);
        if (line.x[i] !== step) item.append(` (step ${grouped(line.x[i])})`);
      }
    };
    const move = (event) => show(nearest(event.clientX - root.getBoundingClientRect().left));
    root.addEventListener("pointermove", move);
    root.addEventListener("pointerdown", move);
    root.addEventListener("focus", () => root.matches(":focus-visible") && show(at));
    root.addEventListener("keydown", (event) => {
      const jump = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -steps.length, End: steps.length }[event.key];
      if (jump === undefined) return;
      event.preventDefault();
      show(at + jump);
    });
    const clear = () => (this.pointer.replaceChildren(), this.output.replaceChildren());
    // A finger leaves with every tap: what it read stays until the chart loses the focus.
    root.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && clear());
    root.addEventListener("blur", clear);
  }
}

function redrawCharts() {
  for (let i = allCharts.length - 1; i >= 0; --i)
    if (allCharts[i].figure.isConnected) allCharts[i].draw();
    else allCharts.splice(i, 1);
}
