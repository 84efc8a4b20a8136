// SPDX-License-Identifier: Apache-2.0
// One enlarged attention map: its cells, its axes and the mark on the cell that is read.
"use strict";

class MapPanel {
  /// In `figure`; kind: "a", "b" or "difference"; onPoint(query, key) is called for the cell under the pointer or, by
  /// the arrow keys, beside the one that pointed() = {query, key} names.
  constructor(figure, kind, onPoint, pointed) {
    const map = make("div", { class: "map" }, figure);
    Object.assign(this, { figure, kind, onPoint, pointed, n: 0, labels: [] });
    this.canvas = make("canvas", { "aria-hidden": "true" }, map);
    this.axes = makeSvg("svg", { class: "map-axes", tabindex: 0, role: "img" }, map);
    this.listen();
  }

  listen() {
    const move = (event) => {
      const box = this.axes.getBoundingClientRect(), { left, top, cell, n } = this;
      const k = Math.floor((event.clientX - box.left - left) / cell), q = Math.floor((event.clientY - box.top - top) / cell);
      if (q >= 0 && q < n && k >= 0 && k < n) this.onPoint(q, k);
    };
    this.axes.addEventListener("pointermove", move);
    this.axes.addEventListener("pointerdown", move);
    this.axes.addEventListener("keydown", (event) => {
      const jump = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!jump) return;
      event.preventDefault();
      const { query, key } = this.pointed(), q = Math.min(this.n - 1, Math.max(0, query + jump[0]));
      this.onPoint(q, Math.min(q, Math.max(0, key + jump[1])));
    });
  }

  /// at(query, key) for as many tokens as there are labels; null: there is nothing to show.
  paint(at, labels, scale) {
    Object.assign(this, { labels, n: labels.length });
    this.figure.classList.toggle("empty", !at);
    if (this.n) paintMap(this.canvas, this.n, at || (() => 0), scale, !at || this.kind === "difference");
    this.layout();
  }

  /// Sizes: whole pixels of the screen per cell where that wastes little room.
  layout() {
    const { n, axes, canvas, figure } = this;
    if (!n || !figure.clientWidth) return;
    const { short, widest } = this.shortLabels(Math.min(100, 0.25 * figure.clientWidth)), top = 4, ratio = window.devicePixelRatio || 1;
    const sizes = (left) => {
      const room = Math.min(figure.clientWidth - left - 6, 560), even = Math.floor((room / n) * ratio) / ratio;
      return { left, cell: even * n > 0.88 * room ? even : room / n };
    };
    let { left, cell } = sizes(Math.max(44, widest + 28));
    const spelled = cell >= 11;  // else positions
    if (!spelled) ({ left, cell } = sizes(44));
    const turned = spelled && widest > cell - 3, bottom = turned ? widest + 30 : 44, size = cell * n;
    Object.assign(this, { left, top, cell, spelled, turned, short });
    Object.assign(canvas.style, { left: `${left}px`, top: `${top}px`, width: `${size}px`, height: `${size}px` });
    canvas.classList.toggle("sharp", cell >= 1.5);
    axes.replaceChildren();
    axes.setAttribute("width", left + size + 6);
    axes.setAttribute("height", top + size + bottom);
    this.drawAxes(size, bottom);
    this.focus = makeSvg("g", {}, axes);
    this.mark(this.pointed().query, this.pointed().key);
  }

  /// What stands of the labels along an axis, at most `room` pixels, and the pixels of the longest one.
  shortLabels(room) {
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = `11px ${getComputedStyle(this.figure).fontFamily}`;
    const width = (text) => pen.measureText(text).width;
    const short = this.labels.map((label) => {
      let signs = Array.from(label).length;
      while (signs > 2 && width(brief(label, signs)) > room) --signs;
      return brief(label, signs);
    });
    return { short: short.map(isolated), widest: Math.max(...short.map(width)) };
  }

  drawAxes(size, bottom) {
    const { axes, n, left, top, cell, short, spelled, turned } = this;
    makeSvg("path", { d: `M${left} ${top}V${top + size}H${left + size}`, class: "axis" }, axes);
    const stairs = short.map((_, i) => `H${left + (i + 1) * cell}V${top + (i + 1) * cell}`).join("");
    makeSvg("path", { d: `M${left} ${top}${stairs}`, class: "outline" }, axes);
    const every = spelled ? 1 : [1, 2, 4, 5, 8, 10, 16, 20, 32, 64, 128, 256].find((s) => s * cell >= 34) || 512;
    for (let i = 0; i < n; i += every) {
      const middle = (i + 0.5) * cell, text = spelled ? short[i] : String(i);
      if (!spelled) {
        makeSvg("line", { x1: left - 4, x2: left, y1: top + middle, y2: top + middle, class: "axis" }, axes);
        makeSvg("line", { x1: left + middle, x2: left + middle, y1: top + size, y2: top + size + 4, class: "axis" }, axes);
      }
      makeSvg("text", { x: left - 7, y: top + middle + 4, "text-anchor": "end" }, axes, text);
      makeSvg("text", turned ? { transform: `translate(${left + middle + 4} ${top + size + 7}) rotate(-90)`, "text-anchor": "end" }
        : { x: left + middle, y: top + size + 17, "text-anchor": "middle" }, axes, text);
    }
    const unit = spelled ? "token" : "position";
    makeSvg("text", { x: left + size / 2, y: top + size + bottom - 8, "text-anchor": "middle", class: "axis-name" }, axes, `key ${unit}`);
    makeSvg("text", { transform: `translate(12 ${top + size / 2}) rotate(-90)`, "text-anchor": "middle", class: "axis-name" },
      axes, `query ${unit}`);
  }

  /// Marks a cell, its query's row and its key's column.
  mark(q, k) {
    const { focus, left, top, cell, n } = this;
    if (!focus) return;
    focus.replaceChildren();
    if (q < 0 || k < 0 || q >= n || k >= n) return;
    const thick = Math.max(cell, 1);
    makeSvg("rect", { x: left, y: top + q * cell, width: (q + 1) * cell, height: thick, class: "guide" }, focus);
    makeSvg("rect", { x: left + k * cell, y: top + k * cell, width: thick, height: (n - k) * cell, class: "guide" }, focus);
    if (k <= q) makeSvg("rect", { x: left + k * cell - 1, y: top + q * cell - 1, width: cell + 2, height: cell + 2, class: "cell" }, focus);
  }
}
