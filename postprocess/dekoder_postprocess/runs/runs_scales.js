// SPDX-License-Identifier: Apache-2.0
// Axes of any column, and the colours of runs by the values of a column.
"use strict";

const DAY = 86400;
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, DAY, 2 * DAY, 7 * DAY, 14 * DAY,
  28 * DAY, 91 * DAY, 364 * DAY];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Round times from low to high, at most about `count` of them.
function timeTicks(low, high, count) {
  const step = TIME_STEPS.find((one) => (high - low) / one <= count) || (high - low) / count;
  const values = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) values.push(value);
  return values;
}

/// [text, text of a second line] of a tick at a time; the second one where it is another than before.
function timeTexts(values) {
  const fine = values.length > 1 && values[1] - values[0] < DAY;
  let last = "";
  return values.map((value) => {
    const date = new Date(1000 * value), day = `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]}`;
    const [text, more] = fine ? [date.toISOString().slice(11, values[1] - values[0] < 60 ? 19 : 16), `${day} ${date.getUTCFullYear()}`]
      : [day, String(date.getUTCFullYear())];
    const second = more === last ? "" : more;
    last = more;
    return [text, second];
  });
}

const compactNumber = (value) => (Math.abs(value) >= 1e4
  ? value.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 4 }) : shortNumber(value));

/// Those values that lie at least so many pixels from the one before.
function apart(values, at, pixels) {
  const kept = [];
  for (const value of values) if (!kept.length || Math.abs(at(value) - at(kept.at(-1))) >= pixels) kept.push(value);
  return kept;
}

/// A scale of `column` over the values from pixel `from` to `to`: at(value), invert(pixel), ticks(count) as [{at, text, more}].
/// room: share of the range that is kept free at both ends.
function makeScale(column, values, from, to, { logarithmic = false, room = 0 } = {}) {
  if (column.isText) return levelScale(column, values, from, to);
  let low = Infinity, high = -Infinity;
  for (const value of values) low = Math.min(low, value), high = Math.max(high, value);
  const place = logarithmic ? Math.log : (value) => value, back = logarithmic ? Math.exp : (value) => value;
  let first = place(low), last = place(high);
  if (first === last) {
    const around = logarithmic ? 0.5 : column.kind === "time" ? 3600 : Math.abs(low) * 0.05 || 1;
    first -= around, last += around;
  }
  const free = (last - first) * room;
  first -= free, last += free;
  const at = (value) => from + ((place(value) - first) / (last - first)) * (to - from);
  const [least, greatest] = [back(first), back(last)];
  // A few values are ticks themselves.
  const own = new Set(values).size <= 8 && column.kind === "number" ? [...new Set(values)].sort((a, b) => a - b) : null;
  const ticksOf = (count) => {
    if (own) return apart(own, at, Math.abs(to - from) / count / 1.6);
    if (column.kind === "time" || column.kind === "duration") return timeTicks(least, greatest, count);
    if (logarithmic && greatest > 3 * least) return logarithmicTicks(least, greatest, count);
    const values = ticks(least, greatest, count);
    return column.kind === "count" ? values.filter(Number.isInteger) : values;
  };
  return { at, low: least, high: greatest,
    invert: (pixel) => back(first + ((pixel - from) / (to - from)) * (last - first)),
    ticks(count) {
      // Values of the runs are within, though the ends, which went through a logarithm and back, may have missed them by a bit.
      const values = ticksOf(Math.max(2, count)).filter((value) => own || (value >= least && value <= greatest));
      const times = column.kind === "time" ? timeTexts(values) : null;
      return values.map((value, i) => ({ at: at(value), text: times ? times[i][0] : column.kind === "duration" ? durationText(value)
        : column.kind === "share" ? `${shortNumber(100 * value)} %` : compactNumber(value), more: times ? times[i][1] : "" }));
    } };
}

/// Places for the texts that the values have, one beside the other.
function levelScale(column, values, from, to) {
  const levels = [...new Set(values)].sort((a, b) => a - b), width = (to - from) / Math.max(1, levels.length);
  const at = (level) => from + (levels.indexOf(level) + 0.5) * width;
  return { at, levels, width: Math.abs(width),
    ticks(count) {
      const every = Math.ceil(levels.length / Math.max(1, count));
      return levels.filter((_, i) => i % every === 0).map((level) => ({ at: at(level), text: column.text(level), more: "" }));
    } };
}

/// From -1 to 1: multiples of the golden section, which lie evenly.
const spreadOf = (run) => ((run.i * 0.618034) % 1) * 2 - 1;

/// A text cut to about that many pixels of a chart's letters, in the middle: both ends tell one from another.
function cut(text, pixels) {
  const room = Math.max(3, Math.floor(pixels / 6.7)), letters = [...text], end = Math.floor((room - 1) / 2);
  return letters.length > room ? [...letters.slice(0, room - 1 - end), "\u2026", ...letters.slice(letters.length - end)].join("") : text;
}

const COLOURS = 8;
/// A colour between those of the least, the middle and the greatest; share: 0 to 1.
const between = (share) => (share < 0.5 ? `color-mix(in oklab, var(--scale-middle) ${Math.round(200 * share)}%, var(--scale-low))`
  : `color-mix(in oklab, var(--scale-high) ${Math.round(200 * share - 100)}%, var(--scale-middle))`);

/// The colour of each run by the model's column of colours. Numbers: by their rank among the values that there are; texts: eight
/// colours, the most frequent ones first.
class RunColours {
  constructor(model) {
    this.model = model;
    this.choose();
  }

  choose() {
    const { model } = this, column = (this.column = model.by.get(model.colour));
    if (!column.isText) {
      const last = Math.max(1, column.distinct.length - 1);
      this.shares = new Map(column.distinct.map((value, i) => [value, i / last]));
      return;
    }
    const counts = new Map();
    for (const value of column.values) if (value !== null) counts.set(value, (counts.get(value) || 0) + 1);
    const order = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([value]) => value);
    this.places = new Map(order.slice(0, order.length > COLOURS ? COLOURS - 1 : COLOURS).map((value, i) => [value, i]));
    this.more = order.length - this.places.size;
  }

  of(run) {
    const value = this.column.value(run);
    if (value === null) return "var(--muted)";
    if (!this.column.isText) return between(this.shares.get(value));
    return this.places.has(value) ? `var(--head-${this.places.get(value)})` : "var(--muted)";
  }

  /// What the colours mean, into `place`.
  legend(place) {
    const { column } = this, { distinct } = column;
    place.replaceChildren();
    if (!distinct.length) return;
    make("span", {}, place, `Colour: ${column.title}`);
    if (!column.isText) {
      const middle = distinct[Math.floor((distinct.length - 1) / 2)];
      const scale = make("span", {}, place);
      scale.append(column.text(distinct[0]));
      make("i", { class: "scale" }, scale);
      scale.append(distinct.length > 2 ? `${column.text(distinct.at(-1))} (middle: ${column.text(middle)})` : column.text(distinct.at(-1)));
      return;
    }
    const dot = (colour, text) => {
      const item = make("span", {}, place);
      make("i", { class: "swatch", style: `background:${colour}` }, item);
      item.append(cut(text, 200));
    };
    for (const [value, i] of [...this.places].sort((a, b) => a[0] - b[0])) dot(`var(--head-${i})`, column.text(value));
    if (this.more) dot("var(--muted)", `${this.more} more`);
  }
}
