// SPDX-License-Identifier: Apache-2.0
// The section of predictions: held-out text shaded by surprise, the numbers of a token, the most surprising tokens; one
// checkpoint, or two beside each other on the same windows.
"use strict";

/// Columns of a file's rows out of the page: truth, rank, surprise (nats), and of `top` best tokens number and ln p.
function predictionColumns(bytes, rows, top) {
  let at = 0;
  const words = (count) => {
    const column = new Uint32Array(count);
    for (let plane = 0; plane < 4; ++plane)
      for (let i = 0; i < count; ++i) column[i] |= bytes[at + plane * count + i] << (8 * plane);
    at += 4 * count;
    return column;
  };
  const floats = (count) => new Float32Array(words(count).buffer);
  return { truth: words(rows), rank: words(rows), surprise: floats(rows), topTokens: words(rows * top), topLogs: floats(rows * top) };
}

/// A probability in percent, three digits of it.
const percent = (p) => `${grouped(Number((100 * p).toPrecision(3)))}\u00a0%`;
const nats = (value) => value.toFixed(3).replace("-", "\u2212");

class PredictionView {
  constructor(data) {
    Object.assign(this, { data, files: data.predictions.files, tables: new Map(), serial: 0, shown: 25 });
    if (!this.files.length) return;
    byId("predictions-body").hidden = false;
    const newest = new Map(this.files.map((file, i) => [file.run, i])), [a, b = -1] = newest.values();
    this.state = { a, b, first: 0, token: 0 };
    this.sort = { column: "surprise", down: true };
    this.wire();
    this.chooseFiles();
  }

  wire() {
    const select = (id, change) => byId(id).addEventListener("change", (event) => change(event.target.value));
    select("prediction-a", (value) => (this.state.a = Number(value), this.chooseFiles()));
    select("prediction-b", (value) => (this.state.b = Number(value), this.chooseFiles()));
    select("prediction-window", (value) => this.chooseWindow(Number(value), 0));
    select("prediction-scope", () => this.table());
    byId("prediction-more").addEventListener("click", () => (this.shown += 100, this.table()));
    byId("prediction-table").addEventListener("click", (event) => this.clickTable(event.target.closest("button")));
    const texts = byId("prediction-texts");
    for (const kind of ["pointerover", "click"])
      texts.addEventListener(kind, (event) => {
        const token = event.target.closest("[data-at]");
        if (token) this.chooseToken(Number(token.dataset.at));
      });
    texts.addEventListener("keydown", (event) => {
      const all = this.count();
      const jump = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -all, End: all }[event.key];
      if (jump === undefined) return;
      event.preventDefault();
      this.chooseToken(Math.min(all - 1, Math.max(0, this.state.token + jump)), true);
    });
  }

  file(kind) { return this.files[this.state[kind]]; }
  kinds() { return this.state.b < 0 ? ["a"] : ["a", "b"]; }
  fileName({ run, step }) { return `${this.data.runs.length > 1 ? `${this.data.runs[run].name}, ` : ""}step ${grouped(step)}`; }
  name(kind) { return `${this.state.b < 0 ? "" : `${kind.toUpperCase()}: `}${this.fileName(this.file(kind))}`; }
  /// Of a token: as it stands in text, and with each character seen.
  text(token) { return (this.data.predictions.texts[this.file("a").text][token] || ["", "\u2205"])[0]; }
  label(token) { return (this.data.predictions.texts[this.file("a").text][token] || ["", "\u2205"])[1]; }

  /// Windows of the chosen files, [first, count], those of both.
  windows() {
    const { windows } = this.file("a");
    if (this.state.b < 0) return windows;
    const others = new Map(this.file("b").windows);
    return windows.filter(([first]) => others.has(first)).map(([first, count]) => [first, Math.min(count, others.get(first))]);
  }
  count() { return this.windows().find(([first]) => first === this.state.first)[1]; }

  /// Others that have a window of file a.
  comparable() {
    const { text, windows } = this.file("a"), firsts = new Set(windows.map(([first]) => first));
    return this.files.map((_, i) => i).filter((i) => i !== this.state.a && this.files[i].text === text &&
      this.files[i].windows.some(([first]) => firsts.has(first)));
  }

  async load(i) {
    if (!this.tables.has(i)) {
      const file = this.files[i], rows = file.windows.reduce((sum, [, count]) => sum + count, 0);
      const columns = predictionColumns(await decodeBytes(byId(`predictions-${i}`), "predictions"), rows, file.top);
      let row = 0;
      const begins = new Map(file.windows.map(([first, count]) => [first, (row += count) - count]));
      this.tables.set(i, { ...columns, begins, top: file.top });
    }
    return this.tables.get(i);
  }

  async chooseFiles() {
    const { state } = this, serial = ++this.serial, others = this.comparable();
    if (!others.includes(state.b)) state.b = -1;
    fillSelect(byId("prediction-a"), this.files.map((file, i) => [i, this.fileName(file)]), state.a);
    fillSelect(byId("prediction-b"), [[-1, "nothing else"], ...others.map((i) => [i, this.fileName(this.files[i])])], state.b);
    byId("prediction-b").disabled = !others.length;
    try {
      const [a, b] = await Promise.all(this.kinds().map((kind) => this.load(state[kind])));
      if (serial !== this.serial) return;
      this.columns = { a, b };
      this.read = new Map();
    } catch (error) {
      byId("predictions-problem").hidden = false;
      byId("predictions-problem").textContent = error.message;
      byId("predictions-body").hidden = true;
      return;
    }
    const windows = this.windows();
    if (!windows.some(([first]) => first === state.first)) state.first = windows[0][0];
    fillSelect(byId("prediction-window"), windows.map(([first, count]) =>
      [first, `held-out tokens ${grouped(first)} to ${grouped(first + count - 1)}`]), state.first);
    this.chooseWindow(state.first, Math.min(state.token, this.count() - 1));
    this.table();
    document.body.dataset.predictions = serial;
  }

  chooseWindow(first, token) {
    this.state.first = first;
    byId("prediction-window").value = first;
    this.drawTexts();
    this.chooseToken(token);
    if (byId("prediction-scope").value === "window") this.table();
  }

  /// Numbers of token t of the window that begins at `first`, of file a or b.
  look(kind, first, t) {
    const { truth, rank, surprise, topTokens, topLogs, begins, top } = this.columns[kind], row = begins.get(first) + t;
    const best = Array.from({ length: top }, (_, k) => ({ token: topTokens[row * top + k], p: Math.exp(topLogs[row * top + k]) }));
    return { truth: truth[row], rank: rank[row], surprise: surprise[row], p: Math.exp(-surprise[row]), guess: best[0].token,
      guessP: best[0].p, best };
  }

  /// The tokens of the window that begins at `first` as they stand in its text.
  running(first) {
    if (!this.read.has(first)) {
      const { truth, begins } = this.columns.a, begin = begins.get(first);
      const truths = Array.from(truth.subarray(begin, begin + this.file("a").windows.find(([of]) => of === first)[1]));
      this.read.set(first, runningText(truths.map((token) => this.text(token)), truths.map((token) => this.label(token))));
    }
    return this.read.get(first);
  }

  drawTexts() {
    const place = byId("prediction-texts"), { first } = this.state, count = this.count();
    place.replaceChildren();
    place.dataset.count = this.kinds().length;
    this.tokens = {};
    for (const kind of this.kinds()) {
      const { begins, surprise, rank, truth } = this.columns[kind], begin = begins.get(first);
      const rows = Array.from({ length: count }, (_, t) => begin + t);
      const mean = rows.reduce((sum, row) => sum + surprise[row], 0) / count;
      const guessed = rows.filter((row) => rank[row] === 0).length / count;
      const figure = make("figure", {}, place), caption = make("figcaption", {}, figure);
      if (this.data.runs.length > 1) make("i", { class: `swatch run-${this.file(kind).run % 6}` }, caption);
      make("b", {}, caption, this.name(kind));
      make("span", { class: "unit" }, caption, ` surprise ${nats(mean)} nats per token, ${(100 * guessed).toFixed(1)}\u00a0% guessed`);
      const text = make("div", { class: "prediction-text", role: "listbox", tabindex: 0, "aria-label": `Tokens, ${this.name(kind)}` }, figure);
      const most = Math.log(this.file(kind).vocabulary), running = this.running(first);
      this.tokens[kind] = rows.map((row, t) => {
        const share = Math.min(1, surprise[row] / most);
        const token = make("span", { "data-at": t, role: "option", id: `prediction-${kind}-${t}`, class: rank[row] === 0 ? "" : rank[row] < 10 ? "missed" : "far",
          style: `--share:${Math.round(80 * share)}%`, "aria-selected": "false",
          "aria-label": `${this.label(truth[row])}, surprise ${nats(surprise[row])} nats, rank ${rank[row]}` }, text);
        showToken(token, running[t].shown);
        return token;
      });
    }
    this.legend();
  }

  legend() {
    const place = byId("prediction-legend"), { vocabulary } = this.file("a");
    place.replaceChildren();
    const bar = make("span", { class: "surprise-bar" }, place);
    bar.append("surprise 0");
    make("i", {}, bar);
    bar.append(`ln ${grouped(vocabulary)} = ${Math.log(vocabulary).toFixed(2)} nats (each token alike) and more`);
    for (const [kind, text] of [["missed", "another token was guessed"], ["far", "rank 10 or more"]]) {
      const item = make("span", {}, place);
      make("span", { class: kind }, item, "abc");
      item.append(` ${text}`);
    }
    if (this.running(this.state.first).some(({ shown }) => shown.includes(pieceMark))) make("span", {}, place, pieceMeaning);
  }

  chooseToken(at, go) {
    for (const kind of this.kinds()) {
      const before = this.tokens[kind][this.state.token], now = this.tokens[kind][at];
      if (before) before.setAttribute("aria-selected", "false");
      now.setAttribute("aria-selected", "true");
      now.parentElement.setAttribute("aria-activedescendant", now.id);
      if (go) now.scrollIntoView({ block: "nearest" });
    }
    this.state.token = at;
    this.detail();
  }

  /// The text before token t of a window, whole tokens of it: about so many characters, one at least.
  before(first, t, most) {
    const running = this.running(first);
    let from = t, text = "";
    while (from > 0 && (text === "" || text.length + running[from - 1].shown.length <= most)) text = running[--from].shown + text;
    return (from > 0 ? "\u2026" : "") + text;
  }

  detail() {
    const { first, token: t } = this.state, place = byId("prediction-detail"), kinds = this.kinds();
    const seen = kinds.map((kind) => this.look(kind, first, t));
    place.replaceChildren();
    make("h3", {}, place, `Held-out token ${grouped(first + t)}`);
    const context = make("p", { class: "prediction-context" }, place, this.before(first, t, 160));
    make("mark", {}, context, this.label(seen[0].truth));
    const { of } = this.running(first)[t];
    const facts = make("table", { class: "prediction-facts" }, place);
    if (kinds.length > 1) {
      const head = make("tr", {}, make("thead", {}, facts));
      make("td", {}, head);
      for (const kind of kinds) make("th", { scope: "col" }, head, kind.toUpperCase());
    }
    const body = make("tbody", {}, facts);
    const row = (name, key, value) => {
      const line = make("tr", { "data-fact": key }, body);
      make("th", { scope: "row" }, line, name);
      for (const of of seen) make("td", {}, line, value(of));
    };
    row("Truth", "truth", (seen) => quoted(this.label(seen.truth)) + (of ? ` of ${isolated(of)}` : ""));
    row("Guess", "guess", (of) => quoted(this.label(of.guess)));
    row("Rank of the truth (0: guessed)", "rank", (of) => grouped(of.rank));
    row("Probability of the truth", "truth-probability", (of) => percent(of.p));
    row("Probability of the guess", "guess-probability", (of) => percent(of.guessP));
    row("Surprise", "surprise", (of) => `${nats(of.surprise)} nats`);
    const lists = make("div", { class: "prediction-best" }, place);
    seen.forEach((of, i) => this.best(lists, of, kinds[i]));
  }

  best(place, of, kind) {
    const table = make("table", {}, make("div", {}, place));
    make("caption", {}, table, this.kinds().length > 1 ? `Best tokens, ${kind.toUpperCase()}` : "Best tokens");
    const body = make("tbody", {}, table);
    const line = (rank, token, p) => {
      const right = token === of.truth, row = make("tr", { class: right ? "truth" : "" }, body);
      make("td", {}, row, rank);
      make("th", { scope: "row", title: this.label(token) }, row, `${quoted(brief(this.label(token), 24))}${right ? " truth" : ""}`);
      make("td", { style: `--share:${(100 * p).toFixed(1)}%` }, row, percent(p));
    };
    of.best.forEach(({ token, p }, rank) => line(rank, token, p));
    if (of.rank >= of.best.length) line(of.rank, of.truth, of.p);
  }

  /// Titles of the table's columns; those without a value are not sorted by.
  columnsShown() {
    const both = this.state.b >= 0;
    return [[null, "Token in its text"], ["surprise", both ? "Surprise, A" : "Surprise, nats"],
      ...(both ? [["other", "Surprise, B"], ["gap", "B \u2212 A"]] : []), ["rank", "Rank"], ["p", "p(truth)"], [null, "Guess"],
      ["guessP", "p(guess)"], ["position", "Held-out token"]];
  }

  rows() {
    const alone = byId("prediction-scope").value === "window", rows = [], both = this.state.b >= 0;
    const a = this.columns.a, b = this.columns.b;
    for (const [first, count] of this.windows()) {
      if (alone && first !== this.state.first) continue;
      for (let t = 0, row = a.begins.get(first), beside = both ? b.begins.get(first) : 0; t < count; ++t, ++row, ++beside) {
        const one = { first, t, position: first + t, rank: a.rank[row], surprise: a.surprise[row], p: -a.surprise[row], guessP: a.topLogs[row * a.top] };
        if (both) Object.assign(one, { other: b.surprise[beside], gap: b.surprise[beside] - a.surprise[row] });
        rows.push(one);
      }
    }
    return rows;
  }

  table() {
    const { sort } = this, table = byId("prediction-table"), both = this.state.b >= 0, columns = this.columnsShown();
    if (!columns.some(([key]) => key === sort.column)) Object.assign(sort, { column: "surprise", down: true });
    const rows = this.rows().sort((x, y) => (sort.down ? -1 : 1) * (x[sort.column] - y[sort.column]) || x.position - y.position);
    byId("prediction-table-hint").textContent = (both ? `Upper line: A, ${this.fileName(this.file("a"))}; lower line: B, ${this.fileName(this.file("b"))}. ` : "") +
      "A title sorts; a token shows itself in the text above.";
    table.replaceChildren();
    const head = make("tr", {}, make("thead", {}, table));
    for (const [key, name] of columns) {
      const cell = make("th", { scope: "col" }, head);
      if (!key) {
        cell.textContent = name;
        continue;
      }
      cell.setAttribute("aria-sort", sort.column === key ? (sort.down ? "descending" : "ascending") : "none");
      make("button", { type: "button", "data-column": key }, cell, name);
    }
    const body = make("tbody", {}, table);
    for (const one of rows.slice(0, this.shown)) {
      const seen = this.kinds().map((kind) => this.look(kind, one.first, one.t)), line = make("tr", {}, body);
      const button = make("button", { type: "button", class: "link", "data-first": one.first, "data-token": one.t }, make("th", { scope: "row" }, line));
      make("span", { class: "before" }, button, this.before(one.first, one.t, 40).replaceAll("\n", ""));
      make("b", {}, button, brief(this.label(seen[0].truth), 40));
      const cell = (value) => {
        const place = make("td", {}, line, value(seen[0]));
        if (both) make("span", { class: "other" }, place, value(seen[1]));
      };
      for (const value of both ? [one.surprise, one.other, one.gap] : [one.surprise]) make("td", {}, line, nats(value));
      cell((of) => grouped(of.rank));
      cell((of) => percent(of.p));
      cell((of) => quoted(brief(this.label(of.guess), 20)));
      cell((of) => percent(of.guessP));
      make("td", {}, line, grouped(one.position));
    }
    const more = byId("prediction-more");
    more.hidden = rows.length <= this.shown;
    more.textContent = `100 more of ${grouped(rows.length)} tokens`;
  }

  clickTable(button) {
    if (!button) return;
    const { column, first, token } = button.dataset;
    if (column === undefined) {
      this.chooseWindow(Number(first), Number(token));
      this.tokens.a[Number(token)].scrollIntoView({ block: "center" });
      return this.tokens.a[0].parentElement.focus({ preventScroll: true });
    }
    this.sort = { column, down: this.sort.column === column ? !this.sort.down : !["position", "p"].includes(column) };
    this.table();
    byId("prediction-table").querySelector(`[data-column="${column}"]`).focus();
  }
}
