// SPDX-License-Identifier: Apache-2.0
// One point per run, as SVG: best loss over time and best loss against a setting.
"use strict";

/// A chart in `host`, once draw() was called. content() gives what it shows now: title, unit, points [{run, x, y}], x and y {column, logarithmic, name},
/// jitter (pixels to either side that equal x are spread over), best (a step line through the least y so far),
/// middles [{x, y}] (short lines), describe (text for who does not see it). open(run) is called for a run that is clicked.
class Scatter {
  constructor(host, model, colours, content, open) {
    Object.assign(this, { host, model, colours, content, open, dots: [] });
    this.figure = make("figure", { class: "chart" }, host);
    this.caption = make("figcaption", {}, this.figure);
    this.place = make("div", { class: "plot" }, this.figure);
    this.output = make("div", { class: "chart-readout", role: "status" }, this.figure);
    model.listenToHover((run) => this.mark(run));
    new ResizeObserver(() => this.place.clientWidth !== this.width && this.draw()).observe(this.place);
  }

  draw() {
    const spec = (this.spec = this.content());
    this.caption.replaceChildren();
    make("b", {}, this.caption, spec.title);
    make("span", { class: "unit" }, this.caption, spec.unit);
    this.width = this.place.clientWidth || 600;
    this.place.replaceChildren();
    this.output.replaceChildren();
    this.dots = [];
    this.pointer = null;
    if (!spec.points.length) return void make("p", { class: "notes" }, this.place, "No run with a best loss among those shown.");
    const height = 320, margin = { left: 58, right: 16, top: 10, bottom: 52 }, base = height - margin.bottom;
    const right = this.width - margin.right;
    const x = makeScale(spec.x.column, spec.points.map((point) => point.x), margin.left, right, { logarithmic: spec.x.logarithmic, room: 0.02 });
    const y = makeScale(spec.y.column, spec.points.map((point) => point.y), base, margin.top, { logarithmic: spec.y.logarithmic, room: 0.04 });
    const root = makeSvg("svg", { width: this.width, height, viewBox: `0 0 ${this.width} ${height}`, role: "img", tabindex: 0,
      "aria-label": spec.describe }, this.place);
    const axes = makeSvg("g", { class: "axes" }, root);
    for (const { at, text } of y.ticks((base - margin.top) / 40)) {
      makeSvg("line", { x1: margin.left, x2: right, y1: at, y2: at, class: "rule" }, axes);
      makeSvg("text", { x: margin.left - 8, y: at + 4, "text-anchor": "end" }, axes, text);
    }
    makeSvg("line", { x1: margin.left, x2: right, y1: base, y2: base, class: "axis" }, axes);
    const ticksOfX = x.ticks((right - margin.left) / 85), apart = x.levels ? x.width : 85;
    ticksOfX.forEach(({ at, text, more }) => {
      makeSvg("line", { x1: at, x2: at, y1: base, y2: base + 4, class: "axis" }, axes);
      const label = cut(text, Math.max(apart, 85) - 8), half = 3.4 * label.length;
      const anchor = at + half > this.width - 2 ? "end" : "middle";
      makeSvg("text", { x: anchor === "end" ? this.width - 2 : at, y: base + 17, "text-anchor": anchor }, axes, label);
      if (more) makeSvg("text", { x: anchor === "end" ? this.width - 2 : at, y: base + 31, "text-anchor": anchor }, axes, more);
    });
    makeSvg("text", { x: (margin.left + right) / 2, y: height - 4, "text-anchor": "middle", class: "axis-name" }, axes, spec.x.name);
    if (spec.best) this.bestLine(root, x, y, right);
    const group = makeSvg("g", { class: "dots" }, root);
    const spread = x.levels ? Math.min(spec.jitter || 0, 0.4 * x.width) : 0;
    for (const { run, x: value, y: loss } of spec.points) {
      const cx = x.at(value) + spread * spreadOf(run), cy = y.at(loss);
      makeSvg("circle", { cx: cx.toFixed(1), cy: cy.toFixed(1), r: 3.5, "data-run": run.i,
        style: `fill:${this.colours.of(run)}` }, group);
      this.dots.push({ run, cx, cy });
    }
    for (const { x: value, y: loss } of spec.middles || []) {
      const half = x.levels ? 0.3 * x.width : 9, at = x.at(value);
      makeSvg("line", { x1: at - half, x2: at + half, y1: y.at(loss), y2: y.at(loss), class: "middle" }, root);
    }
    this.dots.sort((a, b) => a.cx - b.cx || a.cy - b.cy);
    this.pointer = makeSvg("g", { class: "pointer" }, root);
    this.mark(this.model.hovered);
    this.listen(root);
  }

  /// The least loss so far, over the points in the order of x.
  bestLine(root, x, y, right) {
    let least = Infinity, path = "";
    for (const point of [...this.spec.points].sort((a, b) => a.x - b.x || a.run.i - b.run.i)) {
      if (point.y >= least) continue;
      const at = x.at(point.x).toFixed(1), before = Number.isFinite(least) ? `H${at}` : `M${at} ${y.at(point.y).toFixed(1)}`;
      path += `${before}V${y.at(point.y).toFixed(1)}`;
      least = point.y;
    }
    const line = makeSvg("path", { d: `${path}H${right}`, class: "line best", "data-best": least }, root);
    makeSvg("title", {}, line, "best so far");
    const item = make("span", {}, make("span", { class: "legend" }, this.caption));
    lineKey(item, [{ colour: "var(--text)", width: 1.5 }]);
    item.append("best so far");
  }

  mark(run) {
    if (!this.pointer) return;
    this.pointer.replaceChildren();
    const dot = run && this.dots.find((one) => one.run === run);
    if (!dot) return;
    makeSvg("circle", { cx: dot.cx, cy: dot.cy, r: 7, class: "ring" }, this.pointer);
  }

  read(dot) {
    this.output.replaceChildren();
    this.at = this.dots.indexOf(dot);
    this.model.hover(dot ? dot.run : null);
    if (!dot) return;
    make("b", {}, this.output, dot.run.name);
    const point = this.spec.points.find((one) => one.run === dot.run), colour = this.colours.column;
    const of = [[this.spec.y.column, point.y], ...(this.spec.x.column.title ? [[this.spec.x.column, point.x]] : [])];
    if (!of.some(([column]) => column === colour)) of.push([colour, colour.value(dot.run)]);
    for (const [column, value] of of) make("span", {}, this.output, `${column.title} ${column.text(value)}`);
  }

  nearest(event, box) {
    const px = event.clientX - box.left, py = event.clientY - box.top;
    let best = null, least = 40 ** 2;
    for (const dot of this.dots) {
      const away = (dot.cx - px) ** 2 + (dot.cy - py) ** 2;
      if (away < least) (best = dot), (least = away);
    }
    return best;
  }

  listen(root) {
    let before = null;
    const move = (event) => {
      before = this.model.hovered;
      const dot = this.nearest(event, root.getBoundingClientRect());
      if (dot !== this.dots[this.at]) this.read(dot);
    };
    this.at = -1;
    root.addEventListener("pointermove", move);
    root.addEventListener("pointerdown", move);
    root.addEventListener("click", (event) => {
      const dot = this.nearest(event, root.getBoundingClientRect());
      if (dot && (event.pointerType !== "touch" || before === dot.run)) this.open(dot.run);  // a finger reads first
    });
    root.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.dots[this.at]) {
        event.preventDefault();  // else it presses the dialog's first button, too
        return this.open(this.dots[this.at].run);
      }
      const jump = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -this.dots.length, End: this.dots.length }[event.key];
      if (jump === undefined) return;
      event.preventDefault();
      this.read(this.dots[Math.min(this.dots.length - 1, Math.max(0, this.at + jump))]);
    });
    root.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.read(null));
    root.addEventListener("blur", () => this.read(null));
  }
}
