// SPDX-License-Identifier: Apache-2.0
// Puts the report together: curves of training, the attention section, head statistics, printing.
"use strict";

const meanings = {
  entropy: ["Entropy", "nats", "Entropy of a query's weights, mean over queries: 0 where it looks at one token, ln n where it looks at n alike."],
  mean_distance: ["Mean distance", "tokens", "How far back the keys are that a query looks at, weighted by attention, mean over queries."],
  previous_token: ["Previous token", "share of attention", "Attention that goes to the token just before the query."],
  first_token: ["First token", "share of attention", "Attention that goes to the first token of the text."],
  same_token: ["Same token", "share of attention", "Attention that goes to the query's own position, the diagonal."],
  duplicate_token: ["Duplicate token", "share of attention", "Attention that goes to earlier tokens equal to the query's."],
  induction: ["Induction", "share of attention", "Attention that goes to the token behind an earlier copy of the query's token."],
};
const meaning = (name) => meanings[name] || [name.replaceAll("_", " "), "", ""];

function trainingCharts(data) {
  const many = data.runs.length > 1;
  const label = (run, what) => (many ? `${run.name}, ${what}` : what);
  const colour = (i) => (many ? runColour(i) : "var(--muted)");
  const marks = data.runs.flatMap((run, i) => run.restarts.map(({ step, changed }) => ({ x: step, colour: colour(i), kind: "restart",
    text: changed, label: `${run.name}: restarted from step ${grouped(step)}${changed ? `, changed ${changed}` : ""}` })));
  const sets = data.runs.flatMap((run, i) => run.evaluations.changes.map((x) => ({ x, colour: colour(i), kind: "other validation tokens",
    label: `${run.name}: evaluated on other validation tokens from step ${grouped(x)} on` })));
  const first = data.runs.length > 1 ? runColour : (i, kind) => (kind === "validation" ? "var(--run-1)" : "var(--run-0)");
  const loss = data.runs.flatMap((run, i) => {
    const { curves, evaluations } = run, lines = [];
    if (curves.step.length) lines.push({ label: label(run, "training"), colour: first(i, "training"), x: curves.step, y: curves.loss,
      low: curves.merged ? curves.low : null, high: curves.merged ? curves.high : null, width: 1, short: many ? `${run.name} training` : "training" });
    if (evaluations.step.length) lines.push({ label: label(run, "validation"), colour: first(i, "validation"), x: evaluations.step, y: evaluations.loss,
      points: true, width: 2, short: many ? `${run.name} validation` : "validation" });
    return lines;
  });
  const last = (line) => line.y.filter((value) => value !== null).at(-1);
  const describe = (lines) => lines.map((line) => `${line.label}: ${line.y.find((value) => value !== null)} to ${last(line)}`).join("; ");
  const domain = [0, Math.max(1, ...loss.map((line) => line.x.at(-1)))];
  const reach = Math.max(...data.runs.map((run) => run.curves.merged));  // points of runs of other lengths lie elsewhere
  new Chart(byId("chart-loss"), { title: "Loss", unit: "nats per token, logarithmic", series: loss, marks: [...marks, ...sets], domain, reach, height: 320,
    logarithmic: true,
    describe: `Loss over steps. ${describe(loss)}` });
  const bits = data.runs.filter((run) => run.evaluations.step.length).map((run) => ({ label: many ? run.name : "validation",
    colour: first(data.runs.indexOf(run), "validation"), x: run.evaluations.step, y: run.evaluations.bits, points: true, width: 2 }));
  new Chart(byId("chart-bits"), { title: "Bits per byte", unit: "validation, logarithmic", series: bits, marks: [...marks, ...sets], domain, reach,
    logarithmic: true, legend: many ? undefined : false,
    describe: `Bits per byte over steps. ${describe(bits)}` });
  const rate = data.runs.filter((run) => run.curves.step.length).map((run) => ({ label: many ? run.name : "training",
    colour: first(data.runs.indexOf(run), "training"), x: run.curves.step, y: run.curves.rate, width: 1 }));
  new Chart(byId("chart-rate"), { title: "Tokens per second", series: rate, marks, domain, reach, zero: true, legend: many ? undefined : false,
    describe: `Training tokens per second over steps. ${describe(rate)}` });
  gapChart(data, domain);
  sourceCharts(data, { domain, reach, marks: [...marks, ...sets] });
  if (data.runs.some((run) => run.curves.merged))
    make("p", { class: "hint" }, byId("chart-loss"), "The training line is the mean of several neighbouring steps, the band their least and greatest loss.");
}

/// Losses on each token file of a mixture, and on all of them together: a colour for each file, a kind of line for each run.
function sourceCharts(data, common) {
  const mixed = data.runs.filter((run) => run.evaluations.sources.length);
  const files = [...new Set(mixed.flatMap((run) => run.evaluations.sources.map(({ name }) => name)))];
  if (!files.length) return;
  const lines = (key) => mixed.flatMap((run) => {
    const { step, sources } = run.evaluations, dash = ["none", "5 3", "1.5 2.5", "10 2 2 2"][mixed.indexOf(run) % 4];
    const label = (what) => (data.runs.length > 1 ? `${run.name}, ${what}` : what);
    return [{ label: label("together"), colour: "var(--text)", x: step, y: run.evaluations[key], width: 2.5, dash, points: true },
      ...sources.map((source) => ({ label: label(source.name), colour: `var(--head-${files.indexOf(source.name) % 8})`, x: step, y: source[key], dash, points: "small" }))];
  });
  for (const [id, key, title, unit] of [["chart-source-loss", "loss", "Validation loss by source", "nats per token, logarithmic"],
    ["chart-source-bits", "bits", "Bits per byte by source", "validation, logarithmic"]])
    new Chart(byId(id), { title, unit, series: lines(key), logarithmic: true, ...common, describe: `${title} over steps; the values of the best step in the table` });
}

/// Validation loss of the second of two runs less the first's, where both were evaluated on the same tokens; a gap in the
/// line where these change.
function gapChart(data, domain) {
  const [a, b] = data.runs;
  if (data.runs.length !== 2) return;
  const evaluated = (run) => new Map(run.evaluations.step.map((step, i) => [step, { loss: run.evaluations.loss[i],
    tokens: run.evaluations.tokens[i] }]).filter(([, point]) => point.tokens));
  const [of, other] = [evaluated(a), evaluated(b)], x = [], y = [];
  let tokens = null;
  for (const [step, point] of of) {
    const beside = other.get(step);
    if (!beside || beside.tokens !== point.tokens) continue;
    if (tokens !== null && tokens !== point.tokens) x.push(step), y.push(null);
    tokens = point.tokens;
    x.push(step);
    y.push(point.loss === null || beside.loss === null ? null : beside.loss - point.loss);
  }
  if (!x.length) return;
  new Chart(byId("chart-gap"), { title: "Gap of the validation loss", unit: `nats per token, ${b.name} \u2212 ${a.name}`, legend: false,
    series: [{ label: "gap", colour: "var(--text)", x, y, points: true, width: 1.5 }], domain, zero: true });
}

/// Curves of the statistics by layer and head, and the table of the last step.
class StatisticsView {
  constructor(attention) {
    this.attention = attention;
    this.sort = { column: "place", down: false };
    this.shown = "entropy";
    byId("statistic").addEventListener("change", (event) => this.choose(event.target.value));
    byId("statistics-table").addEventListener("click", (event) => this.click(event));
  }

  /// Redraws when run, probe, step or head has changed.
  update() {
    const { names, key } = this.contents();
    if (key !== this.key) {
      byId("statistics-body").hidden = false;
      fillSelect(byId("statistic"), [...names.map((name) => [name, meaning(name)[0]]), ["all", "all of them"]], this.shown);
      this.key = key;
      this.choose(names.includes(this.shown) || this.shown === "all" ? this.shown : names[0]);
      this.table();
    } else {
      this.charts();
      this.highlight();
    }
  }

  contents() {
    const { attention } = this, { state } = attention;
    return { names: attention.attention("a").statistics, key: `${state.a} ${state.b} ${state.probe}` };
  }

  choose(name) {
    this.shown = name;
    byId("statistic").value = name;
    byId("statistic-meaning").textContent = name === "all" ? "" : meaning(name)[2];
    byId("statistics-charts").replaceChildren();
    this.drawn = [];
    const { heads } = this.attention.attention("a"), legend = byId("statistics-legend");
    const kinds = this.attention.state.b < 0 ? ["a"] : ["a", "b"];
    legend.replaceChildren();
    for (const [j, head] of heads.entries()) {
      const item = make("span", {}, legend);
      lineKey(item, kinds.map((kind) => ({ colour: this.colour(j), dash: this.dash(kind, j), width: 2 })));
      item.append(`head ${head}`);
    }
    if (kinds.length > 1) make("span", {}, legend, `upper line: A, ${this.attention.name("a")}; lower line: B, ${this.attention.name("b")}`);
    for (const one of name === "all" ? this.contents().names : [name]) {
      const part = make("div", { class: "statistic" }, byId("statistics-charts"));
      if (name === "all") make("span", { class: "unit" }, make("h3", {}, part, meaning(one)[0]), meaning(one)[2]);
      const place = make("div", { class: "columns charts layers" }, part);
      for (const layer of this.attention.attention("a").layers) {
        const host = make("div", {}, place);
        this.drawn.push(new Chart(host, this.spec(one, layer)));
      }
    }
  }

  /// Eight colours and, of each run, two kinds of lines: 16 heads of two runs differ.
  colour(place) { return `var(--head-${place % 8})`; }
  dash(kind, place) { return { a: ["none", "10 2 2 2"], b: ["5 3", "1.5 2.5"] }[kind][place < 8 ? 0 : 1]; }

  /// The values over steps of one statistic, layer and head of run a or b; null where the run has none.
  curve(kind, name, layer, head) {
    const attention = this.attention.attention(kind), probe = this.attention.probe(kind);
    if (!attention || !probe) return null;
    const s = attention.statistics.indexOf(name), i = attention.layers.indexOf(layer), j = attention.heads.indexOf(head);
    if (s < 0 || i < 0 || j < 0) return null;
    const place = (i * attention.heads.length + j) * attention.statistics.length + s;
    return { x: probe.steps, y: probe.statistics[probe.steps.length ? String(probe.steps[0]) : ""] ? probe.steps.map((step) => probe.statistics[step][place]) : [] };
  }

  greatest(name) {
    let top = 0;
    const { layers, heads } = this.attention.attention("a");
    for (const kind of ["a", "b"])
      for (const layer of layers)
        for (const head of heads)
          for (const value of (this.curve(kind, name, layer, head) || { y: [] }).y) top = Math.max(top, value || 0);
    return top;
  }

  spec(name, layer) {
    const { state } = this.attention, { heads } = this.attention.attention("a"), series = [];
    for (const [j, head] of heads.entries()) {
      const chosen = state.layer === layer && state.head === head;
      for (const kind of ["a", "b"]) {
        const curve = this.curve(kind, name, layer, head);
        if (curve) series.push({ label: `head ${head}`, short: `head ${head}${kind === "b" ? " (B)" : ""}`, colour: this.colour(j), ...curve,
          dash: this.dash(kind, j), width: chosen ? 3 : 1.5, points: "small" });
      }
    }
    return { title: `Layer ${layer}`, unit: meaning(name)[1], series, zero: true, ceiling: this.greatest(name), legend: false,
      height: 200, cursor: state.step, describe: `${meaning(name)[0]} of the heads of layer ${layer} over steps; values of the last step in the table` };
  }

  charts() {
    let i = 0;
    for (const one of this.shown === "all" ? this.contents().names : [this.shown])
      for (const layer of this.attention.attention("a").layers) {
        this.drawn[i].spec = this.spec(one, layer);
        this.drawn[i++].draw();
      }
  }

  rows() {
    const { attention } = this, { layers, heads, statistics } = attention.attention("a");
    const end = (kind, name, layer, head) => {
      const curve = this.curve(kind, name, layer, head);
      return curve && curve.y.length ? curve.y.at(-1) : null;
    };
    return layers.flatMap((layer) => heads.map((head) => ({ layer, head,
      a: statistics.map((name) => end("a", name, layer, head)), b: statistics.map((name) => end("b", name, layer, head)) })));
  }

  table() {
    const { attention, sort } = this, names = this.contents().names, both = attention.state.b >= 0;
    const table = byId("statistics-table"), last = attention.probe("a").steps.at(-1);
    const end = both && attention.probe("b") ? attention.probe("b").steps.at(-1) : last;
    byId("statistics-table-title").textContent = `Last step (${grouped(last)}${end !== last ? ` and ${grouped(end)}` : ""})`;
    byId("statistics-table-hint").textContent = (both ? `Upper line: A, ${attention.name("a")}; lower line: B, ${attention.name("b")}. ` : "") +
      "Entropy in nats, distance in tokens, the others as share of the attention. A title sorts; a head's name enlarges its map.";
    const rows = this.rows();
    if (sort.column !== "place") {
      const at = Number(sort.column);
      rows.sort((x, y) => (sort.down ? -1 : 1) * ((x.a[at] ?? -1) - (y.a[at] ?? -1)));
    } else if (sort.down) rows.reverse();
    table.replaceChildren();
    const head = make("tr", {}, make("thead", {}, table));
    for (const [column, text] of [["place", "Head"], ...names.map((name, i) => [String(i), meaning(name)[0]])]) {
      const order = sort.column === column ? (sort.down ? "descending" : "ascending") : "none";
      const cell = make("th", { scope: "col", "aria-sort": order }, head);
      make("button", { type: "button", "data-column": column }, cell, text);
    }
    const tops = names.map((_, i) => Math.max(...rows.map((row) => Math.max(row.a[i] || 0, row.b[i] || 0)), 1e-9));
    const body = make("tbody", {}, table), show = (value) => (value === null ? "\u2013" : value.toFixed(3));
    for (const row of rows) {
      const line = make("tr", { "data-layer": row.layer, "data-head": row.head }, body);
      make("button", { type: "button", class: "link", "data-enlarge": "" }, make("th", { scope: "row" }, line), `layer ${row.layer}, head ${row.head}`);
      names.forEach((_, i) => {
        const cell = make("td", { style: `--share:${Math.round((100 * (row.a[i] || 0)) / tops[i])}%` }, line, show(row.a[i]));
        if (both) make("span", { class: "other" }, cell, show(row.b[i]));
      });
    }
    this.highlight();
  }

  highlight() {
    const { state } = this.attention;
    for (const row of byId("statistics-table").querySelectorAll("tbody tr"))
      row.classList.toggle("chosen", Number(row.dataset.layer) === state.layer && Number(row.dataset.head) === state.head);
  }

  click(event) {
    const button = event.target.closest("button");
    if (!button) return;
    const { column } = button.dataset;
    if (column === undefined) {
      const row = button.closest("tr");
      return this.attention.enlarge(Number(row.dataset.layer), Number(row.dataset.head), true);
    }
    this.sort = { column, down: this.sort.column === column ? !this.sort.down : column !== "place" };
    this.table();
    byId("statistics-table").querySelector(`[data-column="${column}"]`).focus();
  }
}

/// How many statistics the last printed page showed.
let statisticsPrinted = 0;

/// A printed page shows every statistic and every closed part.
function preparePrinting(statistics) {
  let before = null;
  window.addEventListener("beforeprint", () => {
    const closed = [...document.querySelectorAll("details:not([open])")];
    before = { closed, shown: statistics && statistics.shown };
    for (const part of closed) part.open = true;
    if (statistics) {
      statistics.choose("all");
      statisticsPrinted = byId("statistics-charts").querySelectorAll("h3").length;
    }
    redrawCharts();
  });
  window.addEventListener("afterprint", () => {
    if (!before) return;
    for (const part of before.closed) part.open = false;
    if (statistics) statistics.choose(before.shown);
    before = null;
  });
}

function start() {
  const data = JSON.parse(byId("report-data").textContent);
  trainingCharts(data);
  let statistics = null;
  const attention = new AttentionView(data, () => statistics && statistics.update());
  if (attention.able.length) {
    statistics = new StatisticsView(attention);
    statistics.update();
  } else {
    byId("statistics-none").hidden = false;
  }
  new PredictionView(data);
  byId("log-steps").addEventListener("change", (event) => {
    chartSettings.logSteps = event.target.checked;
    redrawCharts();
  });
  preparePrinting(statistics);
}

start();
