// SPDX-License-Identifier: Apache-2.0
// Parallel coordinates (A. Inselberg, "The plane with parallel coordinates", 1985): an axis per setting and one of the best
// loss, a line per run. A range chosen on an axis is the filter of its column.
"use strict";

const SLOP = 4;  // pixels that a tap may move
const GRIP = 8;  // pixels around the end of a range where it is taken hold of

class Parallel {
  /// openColumn(column) asks for exact limits; openRun(run) shows a run.
  constructor(host, output, model, colours, openColumn, openRun) {
    Object.assign(this, { host, output, model, colours, openColumn, openRun, lines: new Map() });
    model.listenToHover((run) => this.mark(run));
    new ResizeObserver(() => host.parentElement.clientWidth !== this.width && this.draw()).observe(host.parentElement);
  }

  get columns() {
    return [...this.model.columns.filter((column) => this.model.axes.has(column.key) && column.key !== "best_loss"), this.model.loss];
  }

  /// Everything anew: axes, lines, ranges.
  draw() {
    const { model, host } = this, columns = this.columns;
    this.runs = model.runs.filter((run) => model.comparable(run) && !model.hidden.has(run));
    this.width = host.parentElement.clientWidth;
    const room = Math.max(this.width, 96 * columns.length), height = 340;
    Object.assign(this, { top: 46, bottom: height - 34 });
    const left = 64, right = room - 46, apart = columns.length > 1 ? (right - left) / (columns.length - 1) : 0;
    host.replaceChildren();
    this.lines = new Map();
    if (!this.runs.length) return void make("p", { class: "notes" }, host, "No run with a best loss.");
    host.style.minWidth = `${room}px`;
    const root = makeSvg("svg", { width: room, height, viewBox: `0 0 ${room} ${height}`, role: "group",
      "aria-label": `Parallel coordinates of ${columns.map((column) => column.title).join(", ")}` }, host);
    this.axes = columns.map((column, i) => {
      const values = this.runs.map((run) => column.value(run)).filter((value) => value !== null);
      return { column, x: columns.length > 1 ? left + i * apart : right,
        scale: values.length ? makeScale(column, values, this.bottom, this.top, { logarithmic: model.isLogarithmic(column) }) : null };
    });
    const group = makeSvg("g", { class: "runs-lines" }, root);
    for (const run of this.runs) this.lines.set(run, makeSvg("path", { d: this.path(run), class: "line", "data-run": run.i }, group));
    this.hovered = makeSvg("path", { class: "line hovered", d: "" }, root);
    for (const axis of this.axes) this.drawAxis(root, axis, apart || 120);
    this.refresh();
    root.addEventListener("pointermove", (event) => this.drag || this.read(event));
    root.addEventListener("pointerleave", () => this.drag || model.hover(null));
    root.addEventListener("click", (event) => !event.target.closest(".axis-zone, .axis-title") && model.hovered && this.openRun(model.hovered));
  }

  /// Where a run crosses an axis; a run without a value does so below it.
  crossing({ column, scale }, run) {
    const value = column.value(run);
    if (value === null || !scale) return this.bottom + 16;
    // Runs of one text are spread, evenly and the same each time, so that their lines are seen.
    return scale.at(value) + (scale.levels ? Math.min(14, 0.3 * scale.width) * spreadOf(run) : 0);
  }

  path(run) {
    return this.axes.map((axis, i) => `${i ? "L" : "M"}${axis.x.toFixed(1)} ${this.crossing(axis, run).toFixed(1)}`).join("");
  }

  drawAxis(root, axis, apart) {
    const { column, x, scale } = axis, { top, bottom } = this;
    const group = makeSvg("g", { class: "axis-group", "data-axis": column.key }, root);
    const title = makeSvg("text", { x, y: 16, "text-anchor": "middle", class: "axis-title" }, group,
      cut(column.title, 0.85 * Math.min(apart, 2 * x) - 6));
    makeSvg("title", {}, title, `${column.key}: exact limits`);
    title.addEventListener("click", () => this.openColumn(column));
    if (this.model.isLogarithmic(column)) makeSvg("text", { x, y: 30, "text-anchor": "middle", class: "axis-scale" }, group, "logarithmic");
    makeSvg("line", { x1: x, x2: x, y1: top, y2: bottom, class: "axis" }, group);
    for (const { at, text } of scale ? scale.ticks(scale.levels ? (bottom - top) / 16 : (bottom - top) / 40) : []) {
      makeSvg("line", { x1: x - 4, x2: x, y1: at, y2: at, class: "axis" }, group);
      makeSvg("text", { x: x - 7, y: at + 4, "text-anchor": "end", class: "halo" }, group, cut(text, apart - 30));
    }
    if (this.runs.some((run) => column.value(run) === null)) {
      makeSvg("text", { x: x - 7, y: bottom + 20, "text-anchor": "end", class: "halo" }, group, "none");
    }
    axis.range = makeSvg("rect", { x: x - 7, width: 14, class: "range", visibility: "hidden" }, group);
    const zone = makeSvg("rect", { x: x - 18, y: top - 8, width: 36, height: bottom - top + 16, class: "axis-zone", tabindex: 0, role: "button",
      "aria-label": `${column.title}: range` }, group);
    zone.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      this.openColumn(column);
    });
    if (scale) this.listen(zone, axis);
  }

  /// [upper, lower] pixels of the range that is chosen on an axis; null where none is.
  chosen({ column, scale }) {
    const filter = this.model.filters.get(column.key);
    if (!filter || !scale) return null;
    if (filter.levels) {
      const at = scale.levels.filter((level) => filter.levels.has(level)).map(scale.at);
      return at.length ? [Math.min(...at) - scale.width / 2, Math.max(...at) + scale.width / 2] : null;
    }
    const within = (pixel) => Math.min(this.bottom, Math.max(this.top, pixel));
    return [filter.high === null ? this.top : within(scale.at(filter.high)), filter.low === null ? this.bottom : within(scale.at(filter.low))];
  }

  /// The filter of the runs between two pixels of an axis, null where there is nothing between them.
  between({ scale }, upper, lower) {
    if (!scale.levels) return { low: scale.invert(lower), high: scale.invert(upper) };
    const levels = scale.levels.filter((level) => scale.at(level) >= upper && scale.at(level) <= lower);
    return levels.length ? { levels: new Set(levels) } : null;
  }

  listen(zone, axis) {
    const { model } = this, pixel = (event) => event.clientY - zone.ownerSVGElement.getBoundingClientRect().top;
    zone.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      const at = pixel(event), range = this.chosen(axis);
      const end = range && range.findIndex((one) => Math.abs(one - at) <= GRIP);
      this.drag = !range ? { fixed: at } : end >= 0 ? { fixed: range[1 - end] } : at > range[0] && at < range[1] ? { range, at } : { fixed: at };
      Object.assign(this.drag, { start: at, moved: false });
      zone.setPointerCapture(event.pointerId);
    });
    zone.addEventListener("pointermove", (event) => {
      if (!this.drag) return;
      const at = Math.min(this.bottom, Math.max(this.top, pixel(event))), { fixed, range, start } = this.drag;
      if (!this.drag.moved && Math.abs(at - start) < SLOP) return;
      this.drag.moved = true;
      let [upper, lower] = range ? range.map((one) => one + at - this.drag.at) : [Math.min(fixed, at), Math.max(fixed, at)];
      const out = Math.max(0, this.top - upper) - Math.max(0, lower - this.bottom);
      if (range) upper += out, lower += out;
      model.filter(axis.column, this.between(axis, Math.max(this.top, upper), Math.min(this.bottom, lower)), true);
    });
    const end = () => {
      if (!this.drag) return;
      const { moved } = this.drag;
      this.drag = null;
      if (moved) model.update();
      else model.filter(axis.column, null);
    };
    zone.addEventListener("pointerup", end);
    zone.addEventListener("pointercancel", end);
  }

  /// What depends on filters and colours alone.
  refresh() {
    const { model } = this, shown = new Set(model.compared);
    for (const [run, line] of this.lines) {
      line.classList.toggle("out", !shown.has(run));
      line.style.stroke = shown.has(run) ? this.colours.of(run) : "";
    }
    if (!this.lines.size) return;
    for (const axis of this.axes) {
      const range = this.chosen(axis);
      axis.range.setAttribute("visibility", range ? "visible" : "hidden");
      if (!range) continue;
      axis.range.setAttribute("y", range[0]);
      axis.range.setAttribute("height", Math.max(2, range[1] - range[0]));
    }
  }

  mark(run) {
    if (!this.lines.size) return;
    const line = this.lines.get(run);
    this.hovered.setAttribute("d", line ? line.getAttribute("d") : "");
    this.hovered.style.stroke = line ? this.colours.of(run) : "";
    this.output.replaceChildren();
    if (!line) return;
    make("b", {}, this.output, run.name);
    for (const { column } of this.axes) make("span", {}, this.output, `${column.title} ${column.show(run)}`);
  }

  /// Marks the shown run whose line is nearest to the pointer.
  read(event) {
    const box = this.host.firstChild.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    const after = this.axes.findIndex((axis) => axis.x >= px), i = Math.max(1, after < 0 ? this.axes.length - 1 : after);
    if (this.axes.length < 2) return;
    const [a, b] = [this.axes[i - 1], this.axes[i]], share = Math.min(1, Math.max(0, (px - a.x) / (b.x - a.x)));
    let best = null, least = 24;
    for (const run of this.model.compared) {
      const away = Math.abs((1 - share) * this.crossing(a, run) + share * this.crossing(b, run) - py);
      if (away < least) (best = run), (least = away);
    }
    this.model.hover(best);
  }
}
