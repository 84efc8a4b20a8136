// SPDX-License-Identifier: Apache-2.0
// Puts the page of runs together: the line of what is shown, the charts, what is bound to what, printing.
"use strict";

const DASHES = ["none", "7 3", "2 2.5", "9 3 2 3"];
const MOST_CURVES = 40;
const PAPER = 1000;  // CSS pixels from margin to margin

class RunsPage {
  constructor(data) {
    const model = (this.model = new RunsModel(data));
    this.colours = new RunColours(model);
    this.dialogs = new Dialogs(byId("dialog"), model);
    const openRun = (run) => this.dialogs.run(run), openColumn = (column) => this.dialogs.column(column);
    this.drawn = new Map();
    this.chooseCurves();
    this.table = new RunsTable(byId("runs"), byId("runs-more"), model, { open: openRun, openColumn, drawn: (run) => this.drawn.get(run) });
    this.created = new Scatter(byId("chart-created"), model, this.colours, () => this.createdSpec(), openRun);
    this.curves = new Chart(byId("chart-curves"), this.curvesSpec());
    this.parallel = new Parallel(byId("chart-parallel"), byId("parallel-readout"), model, this.colours, openColumn, openRun);
    this.slices = new Scatter(byId("chart-slice"), model, this.colours, () => this.sliceSpec(), openRun);
    new ImportanceView(byId("importance-body"), byId("importance-choice"), data.importance);
    this.controls();
    model.listen((live) => this.draw(live));
    this.draw(false);
  }

  /// live: while a range is drawn on an axis; the table and the curves wait for its end.
  draw(live) {
    this.shown();
    if (!live) {
      this.chooseCurves();
      this.selects();
      this.colours.choose();
      for (const place of document.querySelectorAll(".colour-key")) this.colours.legend(place);
      this.parallel.draw();
      this.table.draw();
      this.drawCurves();
    } else this.parallel.refresh();
    this.created.draw();
    this.slices.draw();
  }

  /// How many runs pass the filters, and a button to take each filter away.
  shown() {
    const { model } = this, { runs, visible, filters, hidden, words } = model, place = byId("shown-filters");
    byId("shown-count").textContent = visible.length === runs.length ? (runs.length === 1 ? "1 run" : `All ${runs.length.toLocaleString("en")} runs`)
      : `${visible.length.toLocaleString("en")} of ${runs.length.toLocaleString("en")} runs`;
    place.replaceChildren();
    const chip = (text, act) => {
      const button = make("button", { type: "button", class: "chip", "aria-label": `Take away: ${text}` }, place, text);
      make("span", { "aria-hidden": "true" }, button, " \u2715");
      button.addEventListener("click", () => {
        act();
        model.update();
      });
    };
    if (words.trim()) chip(`text: ${words.trim()}`, () => (model.words = ""));
    for (const [key, { levels, low, high }] of filters) {
      const column = model.by.get(key), limits = [low, high].map((value) => (value === null || value === undefined ? "" : column.text(value)));
      const range = levels ? [...levels].sort((a, b) => a - b).map((value) => cut(column.text(value), 120)).join(", ") || "nothing"
        : limits[0] && limits[1] ? `${limits[0]} to ${limits[1]}` : limits[0] ? `from ${limits[0]}` : `up to ${limits[1]}`;
      chip(`${column.title}: ${range}`, () => filters.delete(key));
    }
    if (hidden.size) chip(`${hidden.size} hidden`, () => hidden.clear());
    if (place.childElementCount > 1) chip("everything", () => (filters.clear(), hidden.clear(), (model.words = "")));
  }

  /// Selects and boxes follow the model.
  selects() {
    const { model } = this, text = byId("filter-text");
    if (text.value !== model.words) text.value = model.words;
    byId("group-by").value = model.group;
    for (const select of document.querySelectorAll(".colour-by")) select.value = model.colour;
    byId("curves-of").value = model.curvesOf;
    byId("curves-of").lastChild.textContent = `those that are ticked (${model.chosen.size})`;
  }

  controls() {
    const { model } = this;
    const on = (id, event, act) => byId(id).addEventListener(event, (happened) => act(happened.target));
    fillSelect(byId("group-by"), [["", "nothing"], ...model.columns.filter((of) => of.groups).map((of) => [of.key, of.name])], "");
    on("group-by", "change", ({ value }) => model.groupBy(value));
    on("filter-text", "input", ({ value }) => {
      model.words = value;
      model.update();
    });
    on("choose-columns", "click", () => this.dialogs.columns());
    on("choose-axes", "click", () => this.dialogs.axes());
    for (const select of document.querySelectorAll(".colour-by")) {
      fillSelect(select, model.columns.filter((of) => of.key === model.colour || (!of.constant && of.key !== "name" && of.distinct.length > 1))
        .map((of) => [of.key, of.name]), model.colour);
      select.addEventListener("change", () => {
        model.colour = select.value;
        model.update();
      });
    }
    byId("tokens-label").hidden = model.hash.distinct.length < 2;
    fillSelect(byId("tokens"), model.hash.distinct.map((value) => [value, model.hash.text(value).slice(0, 8)]), model.tokens);
    on("tokens", "change", ({ value }) => {
      model.tokens = Number(value);
      model.update();
    });
    on("log-loss", "change", ({ checked }) => {
      model.logLoss = checked;
      model.update();
    });
    on("log-steps", "change", ({ checked }) => {
      chartSettings.logSteps = checked;
      this.drawCurves();
    });
    fillSelect(byId("curves-of"), [[5, "the best 5 of those shown"], [10, "the best 10 of those shown"], [20, "the best 20 of those shown"],
      ["chosen", ""]], model.curvesOf);
    on("curves-of", "change", ({ value }) => {
      model.curvesOf = value;
      model.update();
    });
    on("curves-kind", "change", () => this.drawCurves());
    on("created-axis", "change", () => this.created.draw());
    const settings = model.differing;
    for (const id of ["parallel", "slices"]) byId(id).hidden = !settings.length;
    byId("no-difference").hidden = settings.length > 0;
    fillSelect(byId("slice-of"), settings.map((of) => [of.key, of.key]), settings.length ? settings[0].key : "");
    on("slice-of", "change", () => this.slices.draw());
    this.printing();
  }

  createdSpec() {
    const { model } = this, created = model.by.get("created"), byTime = byId("created-axis").value === "time";
    const runs = model.compared.filter((run) => created.value(run) !== null).sort((a, b) => created.value(a) - created.value(b) || a.i - b.i);
    const order = { key: "", title: "", kind: "count", isText: false };
    return { title: "Best validation loss", unit: `nats per token${model.logLoss ? ", logarithmic" : ""}`, best: true,
      points: runs.map((run, i) => ({ run, x: byTime ? created.value(run) : i + 1, y: model.loss.value(run) })),
      x: byTime ? { column: created, name: "first start of the run (UTC)" } : { column: order, name: "number of the run, in the order of creation" },
      y: { column: model.loss, logarithmic: model.isLogarithmic(model.loss) },
      describe: `Best validation loss of ${runs.length} runs by the ${byTime ? "time" : "order"} of creation; values in the table` };
  }

  sliceSpec() {
    const { model } = this, column = model.by.get(byId("slice-of").value) || model.by.get("state");
    const points = model.compared.filter((run) => column.value(run) !== null).map((run) => ({ run, x: column.value(run), y: model.loss.value(run) }));
    const groups = new Map();
    for (const { x, y } of points) groups.set(x, [...(groups.get(x) || []), y]);
    const middle = (values) => values.sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)];
    const few = groups.size <= 12 && groups.size < points.length;  // else a median says nothing
    return { title: `Best validation loss by ${column.title}`, unit: `nats per token${few ? "; a line: the median" : ""}`, points, jitter: 40,
      x: { column, logarithmic: model.isLogarithmic(column), name: column.key + (model.isLogarithmic(column) ? ", logarithmic" : "") },
      y: { column: model.loss, logarithmic: model.isLogarithmic(model.loss) },
      middles: few ? [...groups].map(([x, values]) => ({ x, y: middle(values) })) : [],
      describe: `Best validation loss of ${points.length} runs against ${column.key}; values in the table` };
  }

  /// Which runs have their curves drawn, and how.
  chooseCurves() {
    const { model } = this;
    const runs = model.curvesOf !== "chosen" ? model.best(Number(model.curvesOf))
      : model.sorted([...model.chosen].filter((run) => !model.hidden.has(run))).slice(0, MOST_CURVES);
    this.drawn = new Map(runs.map((run, i) => [run, { colour: `var(--head-${i % 8})`, dash: DASHES[Math.floor(i / 8) % 4] }]));
  }

  curvesSpec() {
    const kind = byId("curves-kind").value, series = [];
    for (const [run, look] of this.drawn) {
      const add = (of, [x, y], more) => {
        if (!x.length || ![of, "both"].includes(kind)) return;
        series.push({ label: run.name, short: kind === "both" ? `${run.name} ${of}` : run.name, x, y, ...look, ...more });
      };
      add("training", run.training, { width: kind === "both" ? 0.8 : 1.5 });
      add("validation", run.validation, { points: "small", width: 2 });
    }
    const reach = Math.max(1, ...series.map((line) => Math.ceil((line.x.at(-1) - line.x[0]) / Math.max(1, line.x.length - 1))));
    return { title: "Loss", unit: `nats per token${this.model.logLoss ? ", logarithmic" : ""}`, series, legend: false, height: 360, reach,
      logarithmic: this.model.logLoss, describe: `Loss curves of ${this.drawn.size} runs over steps; best losses in the table` };
  }

  drawCurves() {
    const legend = byId("curves-legend"), { model } = this;
    this.curves.spec = this.curvesSpec();
    this.curves.figure.querySelector(".unit").textContent = this.curves.spec.unit;
    this.curves.draw();
    legend.replaceChildren();
    for (const [run, look] of this.drawn) {
      const item = make("span", {}, legend);
      lineKey(item, [{ ...look, width: 2 }]);
      const button = make("button", { type: "button", class: "link" }, item, run.name);
      button.addEventListener("click", () => this.dialogs.run(run));
      if (model.loss.value(run) !== null) make("span", {}, item, model.loss.show(run));
    }
    byId("curves-hint").textContent = "Training: the mean over 2 % of a run\u2019s steps around each point. Validation: as in the log. "
      + "Beside a name stands the best loss."
      + (model.curvesOf === "chosen" && model.chosen.size > MOST_CURVES ? ` The first ${MOST_CURVES} of those ticked are drawn.` : "");
  }

  /// A printed page shows all rows, in a table as wide as the paper, and every closed part.
  printing() {
    const { model } = this, table = byId("runs");
    let before = null;
    window.addEventListener("beforeprint", () => {
      before = { limit: model.limit, closed: [...document.querySelectorAll("details:not([open])")] };
      for (const part of before.closed) part.open = true;
      model.limit = Infinity;
      this.table.draw();
      table.style.zoom = Math.min(1, PAPER / table.scrollWidth);
    });
    window.addEventListener("afterprint", () => {
      for (const part of before.closed) part.open = false;
      model.limit = before.limit;
      table.style.zoom = "";
      this.table.draw();
    });
  }
}

const runsPage = new RunsPage(JSON.parse(byId("runs-data").textContent));
