// SPDX-License-Identifier: Apache-2.0
// What is asked for in a dialog: everything about a run, what to do with a column, which columns and axes are shown.
"use strict";

class Dialogs {
  constructor(dialog, model) {
    Object.assign(this, { dialog, model });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());  // beside it
  }

  /// An empty dialog with that title; fill(body) puts everything else into it.
  show(title, fill) {
    const { dialog } = this;
    dialog.replaceChildren();
    const body = make("div", { class: "dialog-body" }, dialog);
    const head = make("div", { class: "section-head" }, body);
    make("h2", { id: "dialog-title" }, head, title);
    this.button(head, "Close", () => dialog.close());
    fill(body);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  button(parent, text, act, attributes = {}) {
    const button = make("button", { type: "button", ...attributes }, parent, text);
    button.addEventListener("click", act);
    return button;
  }
  /// A button that does something to the model and is then done.
  deed(parent, text, act) {
    return this.button(parent, text, () => {
      this.dialog.close();
      act();
    });
  }
  check(parent, text, checked, change) {
    const label = make("label", { class: "check" }, parent), box = make("input", { type: "checkbox" }, label);
    box.checked = checked;
    box.addEventListener("change", () => change(box.checked));
    label.append(text);
    return box;
  }

  run(run) {
    const { model } = this;
    this.show(run.name, (body) => {
      for (const said of [run.problem, run.message]) if (said) make("p", { class: "notes" }, body, said);
      const report = make("p", {}, body);
      if (run.report) make("a", { href: run.report }, report, "Report of this run");
      else {
        report.append("No report yet; this makes it: ");
        make("code", {}, report, run.command);
      }
      const deeds = make("div", { class: "deeds" }, body);
      this.deed(deeds, model.chosen.has(run) ? "Do not draw its curves" : "Draw its curves", () => model.choose(run));
      this.deed(deeds, model.pinned.has(run) ? "Do not keep on top" : "Keep on top", () => model.toggle(model.pinned, run));
      this.deed(deeds, "Hide everywhere", () => model.toggle(model.hidden, run));
      const facts = (title, columns) => {
        if (!columns.length) return;
        make("h3", {}, body, title);
        const table = make("tbody", {}, make("table", { class: "keys" }, body));
        for (const column of columns) {
          const row = make("tr", {}, table);
          make("th", { scope: "row", title: column.remark }, row, column.name);
          make("td", { "data-key": column.key }, row, column.kind === "time" || column.kind === "duration" || column.kind === "share"
            ? column.show(run) : column.exact(run));
        }
      };
      const settings = model.columns.filter((column) => column.setting);
      facts("This run", model.columns.filter((column) => !column.setting && column.key !== "name"));
      facts("Settings that differ between the runs", settings.filter((column) => !column.constant));
      facts("Settings that are the same in all", settings.filter((column) => column.constant));
    });
  }

  column(column) {
    const { model } = this;
    this.show(column.name, (body) => {
      if (column.remark) make("p", { class: "hint" }, body, column.remark);
      const deeds = make("div", { class: "deeds" }, body);
      this.deed(deeds, "Sort upwards", () => model.sortBy(column, false));
      this.deed(deeds, "Sort downwards", () => model.sortBy(column, true));
      const grouped = model.group === column.key, shown = model.shownColumns.has(column.key), pinned = model.pinnedColumns.includes(column.key);
      if (column.groups) this.deed(deeds, grouped ? "Do not group" : "Group by it", () => model.groupBy(grouped ? "" : column.key));
      if (column.key !== "name" && !column.constant) this.deed(deeds, "Colour by it", () => {
        model.colour = column.key;
        model.update();
      });
      this.deed(deeds, pinned ? "Unpin" : "Pin to the left", () => model.pinColumn(column));
      if (column.key !== "name") this.deed(deeds, shown ? "Hide" : "Show", () => model.toggle(model.shownColumns, column.key));
      if (column.isText ? column.distinct.length <= 100 && column.key !== "name" : column.distinct.length) this.limits(body, column);
      if (column.setting && column.positive) this.check(body, "logarithmic axes", column.logarithmic, (checked) => {
        column.logarithmic = checked;
        model.update();
      });
    });
  }

  /// The filter of a column: limits of numbers, or boxes of texts.
  limits(body, column) {
    const { model } = this, set = make("fieldset", { class: "limits" }, body), filter = model.filters.get(column.key) || {};
    make("legend", {}, set, "Keep runs with");
    if (column.isText) {
      const count = (value) => column.values.filter((one) => one === value).length;
      const boxes = column.distinct.map((value) => [value, this.check(set, `${column.text(value)} (${count(value)})`,
        !filter.levels || filter.levels.has(value), () => {
          const chosen = boxes.filter(([, box]) => box.checked).map(([one]) => one);
          model.filter(column, chosen.length === boxes.length ? null : { levels: new Set(chosen) });
        })]);
      return;
    }
    const time = column.kind === "time", share = column.kind === "share" ? 100 : 1;
    const written = (value) => (value === undefined || value === null ? "" : time ? new Date(1000 * value).toISOString().slice(0, 19)
      : String(Number((share * value).toPrecision(6))));
    const inputs = [["from", filter.low, column.distinct[0]], ["to", filter.high, column.distinct.at(-1)]].map(([name, value, end]) => {
      const label = make("label", {}, set, name);
      const input = make("input", { type: time ? "datetime-local" : "number", step: time ? 1 : "any", placeholder: written(end),
        "data-limit": name }, label);
      input.value = written(value);
      make("span", { class: "hint" }, label, `${name === "from" ? "least" : "greatest"}: ${column.text(end)}`);
      return input;
    });
    const read = (input) => (input.value === "" ? null : time ? Date.parse(`${input.value}Z`) / 1000 : Number(input.value) / share);
    inputs.forEach((input, i) => input.addEventListener("change", () => {
      const old = model.filters.get(column.key) || { low: null, high: null };
      const now = i ? { low: old.low, high: read(input) } : { low: read(input), high: old.high };
      model.filter(column, now.low === null && now.high === null ? null : now);
    }));
    if (share !== 1) make("span", { class: "hint" }, set, "per cent");
  }

  /// Which columns the table shows and pins.
  columns() {
    const { model } = this;
    this.show("Columns", (body) => {
      const list = (title, columns) => {
        if (!columns.length) return;
        make("h3", {}, body, title);
        const table = make("tbody", {}, make("table", { class: "choice" }, body));
        for (const column of columns) {
          const row = make("tr", {}, table);
          this.check(make("th", { scope: "row" }, row), column.name, model.shownColumns.has(column.key),
            () => model.toggle(model.shownColumns, column.key)).dataset.show = column.key;
          make("td", { class: "absent" }, row, column.constant ? column.text(column.same) : column.isText ? `${column.distinct.length} values`
            : column.distinct.length ? `${column.text(column.distinct[0])} to ${column.text(column.distinct.at(-1))}` : NOTHING);
          this.check(make("td", {}, row), "pin", model.pinnedColumns.includes(column.key), () => model.pinColumn(column)).dataset.pin = column.key;
        }
      };
      const settings = model.columns.filter((column) => column.setting);
      list("Of the runs", model.columns.filter((column) => !column.setting));
      list("Settings that differ", settings.filter((column) => !column.constant));
      list("Settings that are the same in all runs", settings.filter((column) => column.constant));
    });
  }

  /// Which settings are axes of the parallel coordinates.
  axes() {
    const { model } = this;
    this.show("Axes", (body) => {
      for (const column of model.differing) {
        this.check(make("p", {}, body), column.key, model.axes.has(column.key), () => model.toggle(model.axes, column.key)).dataset.axis = column.key;
      }
      if (!model.differing.length) make("p", {}, body, "No setting differs between the runs.");
    });
  }
}
