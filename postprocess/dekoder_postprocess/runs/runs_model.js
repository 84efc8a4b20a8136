// SPDX-License-Identifier: Apache-2.0
// The runs, their columns, and what of them is shown. Everything that draws listens here.
"use strict";

const natural = new Intl.Collator("en", { numeric: true });
const NOTHING = "\u2013";

/// A number in five digits: 3,000, 0.0012, 5e-4.
function shortNumber(value) {
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-3 || size >= 1e7)) return Number(value.toPrecision(5)).toExponential();
  return Number(value.toPrecision(5)).toLocaleString("en", { maximumFractionDigits: 8 });
}

/// 0:59, 59:59 or 100:00:00.
function durationText(seconds) {
  const whole = Math.round(seconds), two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

const numberTexts = {
  loss: (value) => value.toFixed(4),
  count: (value) => value.toLocaleString("en"),
  rate: (value) => Math.round(value).toLocaleString("en"),
  number: shortNumber,
  duration: durationText,
  share: (value) => `${(100 * value).toFixed(1)} %`,
  time: (value) => new Date(1000 * value).toISOString().slice(0, 16).replace("T", " "),
};

/// A column. Values are numbers, in columns of texts the places of their texts in `levels`; null where there is none.
class Column {
  constructor(spec, runs) {
    Object.assign(this, spec);
    this.isText = this.kind === "text";
    this.constant = "same" in spec;
    if (this.constant) this.values = runs.map((run) => (run.problem && this.key !== "state" ? null : this.same));
    this.distinct = [...new Set(this.values)].filter((value) => value !== null).sort((a, b) => a - b);
    this.positive = !this.isText && this.distinct.length > 0 && this.distinct[0] > 0;
  }
  /// What it is called where there is room.
  get name() { return this.setting ? this.key : this.title; }
  value(run) { return this.values[run.i]; }
  text(value) { return value === null ? NOTHING : this.isText ? this.levels[value] : numberTexts[this.kind](value); }
  show(run) { return this.text(this.value(run)); }
  /// The value as exactly as the page knows it.
  exact(run) {
    const value = this.value(run);
    return value === null ? NOTHING : this.isText ? this.levels[value] : this.kind === "time" ? new Date(1000 * value).toISOString() : String(value);
  }
  /// Whether runs can be put into groups by it.
  get groups() { return !this.constant && this.distinct.length <= 30 && this.key !== "name"; }
}

class RunsModel {
  constructor(data) {
    this.runs = data.runs.map((run, i) => ({ ...run, i }));
    const names = [...new Set(this.runs.map((run) => run.name))].sort(natural.compare);
    const places = new Map(names.map((name, i) => [name, i]));
    const name = { key: "name", title: "Run", kind: "text", remark: "", levels: names, values: this.runs.map((run) => places.get(run.name)) };
    const settings = data.columns.filter((of) => of.setting), others = data.columns.filter((of) => !of.setting);
    const before = others.findIndex((of) => of.key === "state") + 1;
    this.columns = [name, ...others.slice(0, before), ...settings, ...others.slice(before)].map((of) => new Column(of, this.runs));
    this.by = new Map(this.columns.map((column) => [column.key, column]));
    this.loss = this.by.get("best_loss");
    this.hash = this.by.get("validation_hash");
    this.tokens = data.tokens === null ? null : this.hash.levels.indexOf(data.tokens);
    this.searched = this.runs.map((run) => [this.by.get("name"), this.by.get("state"), ...this.columns.filter((of) => of.setting)]
      .map((column) => `${column.key}=${column.show(run)}`).join(" ").toLowerCase());
    this.listeners = [];
    this.hoverListeners = [];
    this.reset();
  }

  /// The settings that differ.
  get differing() { return this.columns.filter((column) => column.setting && !column.constant); }

  /// What the page shows at first.
  reset() {
    const later = ["best_step", "bits_per_byte", "training_loss", "planned_steps"];
    Object.assign(this, { filters: new Map(), words: "", group: "", sort: { column: "best_loss", down: false }, hidden: new Set(), pinned: new Set(),
      chosen: new Set(), open: new Set(), limit: 100, colour: "best_loss", curvesOf: "10", logLoss: true, hovered: null, pinnedColumns: ["name"],
      shownColumns: new Set(this.columns.filter((of) => ["name", "best_loss"].includes(of.key) || (!of.constant && !later.includes(of.key)))
        .map((of) => of.key)),
      axes: new Set(this.differing.filter((of) => !of.isText || of.levels.length <= 40).slice(0, 12).map((of) => of.key)) });
    this._visible = null;
  }

  /// fn(live): after each change; live: while a finger or the mouse still moves, at most once per picture.
  listen(fn) { this.listeners.push(fn); }
  update(live = false) {
    this._visible = null;
    if (this.hovered && !this.passes(this.hovered)) this.hover(null);
    if (!live) {
      cancelAnimationFrame(this.frame);
      this.frame = 0;
      for (const fn of this.listeners) fn(false);
    } else if (!this.frame) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        for (const fn of this.listeners) fn(true);
      });
    }
  }

  listenToHover(fn) { this.hoverListeners.push(fn); }
  /// Marks a run, or none (null), wherever it is drawn.
  hover(run) {
    if (run === this.hovered) return;
    this.hovered = run;
    for (const fn of this.hoverListeners) fn(run);
  }

  /// Sets or, with null, removes the filter of a column: {low, high} (ends included; null: open), or {levels: Set of places}.
  /// A run without a value passes none.
  filter(column, filter, live = false) {
    if (filter) this.filters.set(column.key, filter);
    else this.filters.delete(column.key);
    this.update(live);
  }

  passes(run) {
    if (this.hidden.has(run)) return false;
    if (!this.words.toLowerCase().split(/\s+/).every((word) => this.searched[run.i].includes(word))) return false;
    for (const [key, { levels, low, high }] of this.filters) {
      const value = this.by.get(key).value(run);
      if (value === null || (levels ? !levels.has(value) : (low !== null && value < low) || (high !== null && value > high))) return false;
    }
    return true;
  }

  /// Runs that are shown, in the order of the page's data.
  get visible() { return (this._visible ||= this.runs.filter((run) => this.passes(run))); }
  /// Whether a run has a best loss that can be compared.
  comparable(run) { return this.loss.value(run) !== null && this.hash.value(run) === this.tokens; }
  get compared() { return this.visible.filter((run) => this.comparable(run)); }

  sorted(runs) {
    const { column, down } = this.sort, of = this.by.get(column), sign = down ? -1 : 1;
    return [...runs].sort((a, b) => {
      const x = of.value(a), y = of.value(b);
      return x === y ? a.i - b.i : x === null ? 1 : y === null ? -1 : sign * (x - y);
    });
  }

  /// The shown runs with the least losses.
  best(count) { return this.compared.sort((a, b) => this.loss.value(a) - this.loss.value(b) || a.i - b.i).slice(0, count); }
  isLogarithmic(column) { return column.positive && (column.kind === "loss" ? this.logLoss : Boolean(column.logarithmic)); }

  sortBy(column, down) {
    this.sort = { column: column.key, down };
    this.update();
  }
  groupBy(key) {
    this.group = key;
    this.open.clear();
    this.update();
  }
  toggle(set, item) {
    if (!set.delete(item)) set.add(item);
    this.update();
  }
  /// Draws a run's curves, or draws them no more.
  choose(run) {
    if (!this.chosen.delete(run)) this.chosen.add(run);
    this.curvesOf = this.chosen.size ? "chosen" : "10";
    this.update();
  }
  pinColumn(column) {
    const { key } = column, at = this.pinnedColumns.indexOf(key);
    if (at >= 0) this.pinnedColumns.splice(at, 1);
    else this.pinnedColumns.push(key), this.shownColumns.add(key);
    this.update();
  }
  /// Columns of the table, those that are pinned first.
  get tableColumns() {
    const shown = this.columns.filter((column) => this.shownColumns.has(column.key));
    const pinned = this.pinnedColumns.map((key) => this.by.get(key)).filter((column) => shown.includes(column));
    return [...pinned, ...shown.filter((column) => !pinned.includes(column))];
  }
}
