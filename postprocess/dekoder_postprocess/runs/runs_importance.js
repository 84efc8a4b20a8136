// SPDX-License-Identifier: Apache-2.0
// Importance of the settings with their intervals, their correlation with the loss, and how far both can be trusted.
"use strict";

const BARS = 12;  // that many are seen at once
const signedText = (value, digits) => value.toFixed(digits).replace("-", "\u2212");
const estimateText = ({ value, low, high }) => `${signedText(value, 3)} (${signedText(low, 3)} to ${signedText(high, 3)})`;
const list = (words) => (words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words.join(""));

class ImportanceView {
  /// data: Importance.as_json() of importance.py, or {missing: why there is none}.
  constructor(place, choice, data) {
    Object.assign(this, { place, data });
    choice.hidden = Boolean(data.missing);
    if (data.missing) return void make("p", { class: "notes" }, place, data.missing);
    const select = choice.querySelector("select");
    fillSelect(select, [["all_runs", `all ${data.all_runs.runs}`], ["best_half", `the best half, ${data.best_half.runs}`]], "all_runs");
    select.addEventListener("change", () => this.draw(data[select.value]));
    this.draw(data.all_runs);
  }

  draw(part) {
    const { place } = this;
    place.replaceChildren();
    make("p", { class: "notes", id: "importance-reading" }, place, part.reading);
    if (this.data.remark) make("p", { class: "notes", id: "importance-remark" }, place, this.data.remark);
    if (part.bars.length) this.tables(part);
    this.folded(this.dependences(part), "dependences between settings", 3);
    for (const hint of [...this.notShown(part), this.taken(part)]) make("p", { class: "hint" }, place, hint);
  }

  /// Lines, behind a title where they are more than `most`.
  folded(lines, title, most) {
    const host = lines.length > most ? make("details", {}, this.place) : this.place;
    if (lines.length > most) make("summary", {}, host, `${lines.length} ${title}`);
    for (const line of lines) make("p", { class: "hint" }, host, line);
  }

  tables(part) {
    const estimates = [...part.bars, ...part.together];
    const reach = (kind) => [Math.min(0, ...estimates.map((of) => of[kind].low)), Math.max(1e-9, ...estimates.map((of) => of[kind].high))];
    const ranges = { permutation: reach("permutation"), impurity: reach("impurity") };
    this.table(this.place, part.bars.slice(0, BARS), part.together, ranges, part.weak);
    if (part.bars.length <= BARS) return;
    const rest = make("details", {}, this.place);
    make("summary", {}, rest, `${part.bars.length - BARS} settings of less importance`);
    this.table(rest, part.bars.slice(BARS), [], ranges, part.weak);
  }

  table(host, bars, together, ranges, weak) {
    const box = make("div", { class: "wide", tabindex: 0, role: "region", "aria-labelledby": "importance-title" }, host);
    const table = make("table", { class: `meters${weak ? " weak" : ""}` }, box);
    const head = make("tr", {}, make("thead", {}, table)), body = make("tbody", {}, table);
    const titles = [["Setting", "as it was taken"], ["Importance", "share of the variance, by permutation"], ["Impurity", "share of the splits"],
      ["Linear", "correlation"], ["Rank", "correlation"]];
    for (const [title, remark] of titles) make("span", { class: "unit" }, make("th", { scope: "col" }, head, `${title} `), remark);
    const row = (name, remark, of, kind) => {
      const line = make("tr", { "data-setting": name, class: kind }, body), title = make("th", { scope: "row" }, line, name);
      if (remark) make("span", { class: "unit" }, title, ` ${remark}`);
      this.estimate(line, "Importance", of.permutation, ranges.permutation, "permutation");
      this.estimate(line, "Impurity", of.impurity, ranges.impurity, "impurity");
      for (const [label, value] of [["Linear", of.linear], ["Rank", of.rank]]) this.correlation(line, label, value);
    };
    for (const bar of bars) row(bar.setting, { log10: "logarithm", category: `category of ${bar.values}` }[bar.taken_as] || "", bar, "");
    for (const group of together) row(list(group.settings), "together", group, "together");
  }

  estimate(line, label, estimate, [low, high], kind) {
    const cell = make("td", { "data-label": label, "data-value": estimate.value }, line), at = (value) => (100 * (value - low)) / (high - low);
    const track = make("div", { class: "meter", "aria-hidden": "true" }, cell), [from, to] = [at(0), at(estimate.value)];
    make("i", { class: `fill ${kind}`, style: `left:${Math.min(from, to)}%;width:${Math.abs(to - from)}%` }, track);
    make("i", { class: "zero", style: `left:${from}%` }, track);
    make("i", { class: "interval", style: `left:${at(estimate.low)}%;width:${at(estimate.high) - at(estimate.low)}%` }, track);
    make("span", { class: "unit" }, cell, estimateText(estimate));
  }

  correlation(line, label, value) {
    const none = value === null || value === undefined;
    const cell = make("td", { "data-label": label, "data-value": none ? "" : value }, line);
    if (none) return void make("span", { class: "unit" }, cell, NOTHING);
    const track = make("div", { class: "meter", "aria-hidden": "true" }, cell);
    const [left, width] = [50 + Math.min(0, 50 * value), Math.abs(50 * value)];
    make("i", { class: `fill ${value < 0 ? "falls" : "rises"}`, style: `left:${left}%;width:${width}%` }, track);
    make("i", { class: "zero", style: "left:50%" }, track);
    make("span", { class: "unit" }, cell, signedText(value, 2));
  }

  dependences(part) {
    return part.dependent.map(({ first, second, measure, value }) =>
      `${first} and ${second} depend on each other in these runs (${measure} ${value.toFixed(2)}): their bars cannot be told apart.`);
  }

  notShown(part) {
    const constant = Object.entries(part.constant).map(([name, value]) => `${name} (${typeof value === "string" ? value : JSON.stringify(value)})`);
    return [...(part.no_bar.length ? [`Without a bar, as every run has a value of its own: ${list(part.no_bar)}.`] : []),
      ...(constant.length ? [`The same in all of these runs: ${list(constant)}.`] : [])];
  }

  taken(part) {
    const { data } = this, left = Object.entries(data.left_out).map(([why, count]) => `${count} ${why}`);
    const losses = part.least_loss === null ? "" : `, best validation loss${data.at_step ? ` up to step ${data.at_step}` : ""} ${part.least_loss.toFixed(4)} to ${part.greatest_loss.toFixed(4)}`;
    const others = left.length ? `; left out: ${list(left)}` : "";
    return `${part.runs} runs${losses}. Of all: ${data.finished} finished, ${data.stopped} stopped before${others}. `
      + `Random forest of ${data.trees} trees, seed ${data.seed}; intervals: percentiles ${data.percentiles.join(" to ")} of ${data.resamples} `
      + "resamples of the runs. Correlation: below 0, the loss falls where the setting grows.";
  }
}
