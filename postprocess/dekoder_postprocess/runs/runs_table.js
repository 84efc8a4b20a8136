// SPDX-License-Identifier: Apache-2.0
// The table of runs: sorted, grouped, with columns and rows that are pinned or hidden.
"use strict";

/// A name in two: runs of one sweep differ at the end, and where there is no room the start gives way. The end is the last folder,
/// or as much of it as tells runs apart.
function startAndEnd(name) {
  const letters = [...name], folder = letters.lastIndexOf("/"), end = letters.length - folder <= 12 ? Math.max(0, folder) : Math.max(0, letters.length - 10);
  return { start: letters.slice(0, end).join(""), end: letters.slice(end).join("") };
}

class RunsTable {
  /// open(run), openColumn(column): what a name and the mark beside a title show; drawn(run): colour and dash of its curve, or null.
  constructor(table, more, model, { open, openColumn, drawn }) {
    Object.assign(this, { table, more, model, open, openColumn, drawn });
    table.addEventListener("click", (event) => this.click(event));
    table.addEventListener("change", (event) => model.choose(model.runs[event.target.dataset.choose]));
    table.addEventListener("pointerover", (event) => model.hover(this.runAt(event.target)));
    table.addEventListener("pointerleave", () => model.hover(null));
    model.listenToHover((run) => {
      for (const row of table.querySelectorAll("tr.hovered")) row.classList.remove("hovered");
      const row = run && table.querySelector(`tr[data-run="${run.i}"]`);
      if (row) row.classList.add("hovered");
    });
    new ResizeObserver(() => this.placePins()).observe(table);
  }

  runAt(target) {
    const row = target.closest("tr[data-run]");
    return row ? this.model.runs[row.dataset.run] : null;
  }

  draw() {
    const { model, table } = this, columns = model.tableColumns;
    const focus = table.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    this.pins = columns.filter((column) => model.pinnedColumns.includes(column.key)).length;
    table.replaceChildren(this.head(columns), ...this.bodies(columns));
    this.placePins();
    if (focus) table.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
  }

  head(columns) {
    const { model } = this, head = make("thead", {}), row = make("tr", {}, head);
    columns.forEach((column, i) => {
      const order = model.sort.column !== column.key ? "none" : model.sort.down ? "descending" : "ascending";
      const cell = make("th", { scope: "col", "aria-sort": order, ...this.look(column, i) }, row);
      const title = make("button", { type: "button", "data-sort": column.key, "data-focus": `sort ${column.key}`, title: [column.key, column.remark]
        .filter(Boolean).join(": ") }, cell, column.title);
      if (model.filters.has(column.key)) title.classList.add("filtered");
      make("button", { type: "button", class: "menu", "data-column": column.key, "data-focus": `column ${column.key}`,
        "aria-label": `${column.title}: filter, group, colour, hide or pin` }, cell, "\u22ef");
      if (this.toolsAfter(i)) make("td", { class: "tools" }, row);
    });
    return head;
  }

  /// Boxes and buttons of a run stand behind the pinned columns, or behind the first one.
  toolsAfter(i) { return i === Math.max(0, this.pins - 1); }

  /// Attributes of a cell of the i-th column.
  look(column, i) {
    return { "data-key": column.key, class: [column.isText ? "" : "number", i < this.pins ? "pinned" : ""].join(" ").trim(),
      ...(i < this.pins ? { style: `left:var(--pin-${i})` } : {}) };
  }

  /// Pinned rows, then groups or all others, as many as the limit says.
  bodies(columns) {
    const { model } = this, bodies = [];
    const pinned = model.sorted([...model.pinned].filter((run) => !model.hidden.has(run)));
    const others = model.sorted(model.visible.filter((run) => !model.pinned.has(run)));
    if (pinned.length) {
      bodies.push(make("tbody", { class: "pinned-rows" }));
      for (const run of pinned) this.row(bodies[0], run, columns);
    }
    let left = model.limit, hidden = 0;
    const fill = (body, runs) => {
      for (const run of runs.slice(0, left)) this.row(body, run, columns);
      hidden += Math.max(0, runs.length - left);
      left -= Math.min(left, runs.length);
    };
    if (!model.group) {
      bodies.push(make("tbody", {}));
      fill(bodies.at(-1), others);
    }
    for (const [value, runs] of this.groups(others)) {
      const body = make("tbody", {});
      this.groupRow(body, value, runs, columns.length + 1);
      if (model.open.has(value)) fill(body, runs);
      bodies.push(body);
    }
    this.more.replaceChildren();
    if (hidden) {
      const all = make("button", { type: "button", id: "show-all" }, this.more, `Show ${hidden.toLocaleString("en")} more`);
      all.addEventListener("click", () => {
        model.limit = Infinity;
        model.update();
      });
    }
    if (!pinned.length && !others.length) make("span", { class: "notes" }, this.more, "No run passes the filters.");
    return bodies;
  }

  /// Value of the grouping column -> runs, the group of the first run first.
  groups(runs) {
    const groups = new Map(), { group, by } = this.model;
    if (!group) return groups;
    for (const run of runs) {
      const value = by.get(group).value(run);
      if (!groups.has(value)) groups.set(value, []);
      groups.get(value).push(run);
    }
    return groups;
  }

  groupRow(body, value, runs, span) {
    const { model } = this, column = model.by.get(model.group), open = model.open.has(value);
    const row = make("tr", { class: "group" }, body), cell = make("th", { colspan: span, scope: "rowgroup" }, row);
    const inner = make("span", { class: "group-text" }, cell);
    make("button", { type: "button", "data-group": value === null ? "" : value, "data-focus": `group ${value}`, "aria-expanded": open }, inner,
      `${column.title} ${column.text(value)}`);
    const losses = runs.filter((run) => model.comparable(run)).map((run) => model.loss.value(run)).sort((a, b) => a - b);
    const facts = [`${runs.length.toLocaleString("en")} run${runs.length > 1 ? "s" : ""}`];
    if (losses.length) {
      const median = (losses[Math.floor((losses.length - 1) / 2)] + losses[Math.ceil((losses.length - 1) / 2)]) / 2;
      facts.push(`best ${model.loss.text(losses[0])}`, `median ${model.loss.text(median)}`, `worst ${model.loss.text(losses.at(-1))}`);
    }
    for (const fact of facts) make("span", {}, inner, fact);
  }

  row(body, run, columns) {
    const { model } = this, row = make("tr", { "data-run": run.i }, body);
    columns.forEach((column, i) => {
      this.cell(row, run, column, this.look(column, i));
      if (this.toolsAfter(i)) this.tools(row, run);
    });
    if (model.pinned.has(run)) row.classList.add("kept");
  }

  cell(row, run, column, look) {
    const { model } = this;
    if (column.key !== "name") {
      const cell = make("td", { ...look, "data-value": column.exact(run) }, row, column.show(run));
      if (column === model.loss && !model.comparable(run) && column.value(run) !== null) {
        cell.classList.add("incomparable");
        cell.title = "on other validation tokens: cannot be compared";
      }
      if (column.key === "state" && (run.problem || run.message)) cell.title = run.problem || run.message;
      return;
    }
    const cell = make("th", { scope: "row", ...look }, row), line = this.drawn(run);
    if (line) lineKey(cell, [{ ...line, width: 2.5 }]);
    const open = make("button", { type: "button", class: "link", "data-open": run.i, "data-focus": `open ${run.i}`, title: run.name }, cell);
    for (const [kind, part] of Object.entries(startAndEnd(run.name))) make("span", { class: kind }, open, part);
  }

  tools(row, run) {
    const { model } = this, cell = make("td", { class: "tools" }, row);
    const choose = make("input", { type: "checkbox", "data-choose": run.i, "data-focus": `choose ${run.i}`, title: "draw its curves",
      "aria-label": `draw the curves of ${run.name}` }, cell);
    choose.checked = model.chosen.has(run);
    make("button", { type: "button", "data-pin": run.i, "data-focus": `pin ${run.i}`, "aria-pressed": model.pinned.has(run), title: "keep on top",
      "aria-label": `keep ${run.name} on top` }, cell, "\u25b2");
    make("button", { type: "button", "data-hide": run.i, "data-focus": `hide ${run.i}`, title: "hide everywhere",
      "aria-label": `hide ${run.name}` }, cell, "\u2715");
    if (run.report) make("a", { href: run.report, title: "its report" }, cell, "report");
  }

  click(event) {
    const button = event.target.closest("button");
    if (!button) return;
    const { model } = this, { sort, column, open, pin, hide, group } = button.dataset;
    if (sort !== undefined) model.sortBy(model.by.get(sort), model.sort.column === sort && !model.sort.down);
    else if (column !== undefined) this.openColumn(model.by.get(column));
    else if (open !== undefined) this.open(model.runs[open]);
    else if (pin !== undefined) model.toggle(model.pinned, model.runs[pin]);
    else if (hide !== undefined) model.toggle(model.hidden, model.runs[hide]);
    else if (group !== undefined) model.toggle(model.open, group === "" ? null : Number(group));
  }

  /// Pinned columns stay at the left, one beside the other.
  placePins() {
    let left = 0;
    for (let i = 0; i < this.pins; ++i) {
      this.table.style.setProperty(`--pin-${i}`, `${left}px`);
      left += this.table.querySelector(`thead .pinned:nth-of-type(${i + 1})`)?.offsetWidth || 0;
    }
  }
}
