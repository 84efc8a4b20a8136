// SPDX-License-Identifier: Apache-2.0
// The attention section: a grid of all heads, one head enlarged, two runs and their difference, the text under it.
"use strict";

const runColour = (run) => `var(--run-${run % 6})`;
const signed = (value) => String(Number(value.toPrecision(5))).replace("-", "\u2212");

class AttentionView {
  constructor(data, onChange) {
    this.data = data;
    this.onChange = onChange;
    const able = data.runs.map((run, i) => (run.attention && run.attention.probes.length ? i : -1)).filter((i) => i >= 0);
    this.able = able;
    if (!able.length) return void (byId("attention-none").hidden = false);
    byId("attention-body").hidden = false;
    this.state = { a: able[0], b: able.length > 1 ? able[1] : -1, view: able.length > 1 ? "difference" : "a", scale: "root",
      query: -1, key: -1 };
    this.maps = { a: null, b: null };
    this.panels = [];
    this.serial = 0;
    this.wire();
    this.chooseRuns();
  }

  run(kind) { return this.data.runs[this.state[kind]]; }
  attention(kind) { return this.state[kind] < 0 ? null : this.run(kind).attention; }
  probe(kind) {
    const attention = this.attention(kind);
    return attention && attention.probes.find((probe) => probe.name === this.data.probes[this.state.probe]);
  }
  /// What is shown side by side.
  kinds() { return this.state.b < 0 ? ["a"] : ["a", "b", "difference"]; }
  name(kind) { return kind === "difference" ? `${this.letter("b")} \u2212 ${this.letter("a")}` : this.run(kind).name; }
  letter(kind) { return this.state.b < 0 ? "" : kind.toUpperCase(); }

  wire() {
    const select = (id, change) => byId(id).addEventListener("change", (event) => change(event.target.value));
    select("run-a", (value) => (this.state.a = Number(value), this.chooseRuns()));
    select("run-b", (value) => (this.state.b = Number(value), this.chooseRuns()));
    select("probe", (value) => (this.state.probe = Number(value), this.chooseProbe()));
    select("scale", (value) => (this.state.scale = value, this.paint()));
    for (const radio of document.querySelectorAll("[name=grid-view]"))
      radio.addEventListener("change", () => (this.state.view = radio.value, this.paintGrid()));
    byId("step").addEventListener("input", (event) => this.chooseStep(Number(event.target.value)));
    byId("play").addEventListener("click", () => this.play());
    byId("strip").addEventListener("click", (event) => {
      const token = event.target.closest("[data-token]");
      if (token) this.point(Number(token.dataset.token), Math.min(Math.max(0, this.state.key), Number(token.dataset.token)));
    });
    if (typeof ResizeObserver !== "undefined")
      new ResizeObserver(() => this.panels.forEach((panel) => panel.layout())).observe(byId("panels"));
  }

  chooseRuns() {
    const { state, able, data } = this;
    if (state.b === state.a) state.b = -1;
    fillSelect(byId("run-a"), able.map((i) => [i, data.runs[i].name]), state.a);
    const others = able.filter((i) => i !== state.a).map((i) => [i, data.runs[i].name]);
    fillSelect(byId("run-b"), [[-1, "no other run"], ...others], state.b);
    byId("run-b-label").hidden = able.length < 2;
    byId("grid-shows").hidden = state.b < 0;
    this.chooseView(state.b < 0 ? "a" : state.view);
    const names = data.probes.map((name, i) => [i, name]).filter(([, name]) =>
      this.attention("a").probes.some((probe) => probe.name === name));
    if (!names.some(([i]) => i === state.probe)) state.probe = names[0][0];
    fillSelect(byId("probe"), names.map(([i, name]) => [i, `${name} (${this.tokensOf(name)} tokens)`]), state.probe);
    const { layers, heads } = this.attention("a");
    if (!layers.includes(state.layer)) state.layer = layers[0];
    if (!heads.includes(state.head)) state.head = heads[0];
    this.buildGrid();
    this.chooseProbe();
  }

  chooseView(view) {
    this.state.view = view;
    document.querySelector(`[name=grid-view][value=${view}]`).checked = true;
  }

  tokensOf(name) { return this.attention("a").probes.find((probe) => probe.name === name).tokens.length; }

  chooseProbe() {
    const { state } = this, shown = new Set();
    for (const kind of ["a", "b"])
      for (const step of (this.probe(kind) || { steps: [] }).steps)
        if (mapStore.has(state[kind], state.probe, step)) shown.add(step);
    this.steps = [...shown].sort((x, y) => x - y);
    const n = this.probe("a").tokens.length;
    state.query = state.query < 0 ? n - 1 : Math.min(state.query, n - 1);
    state.key = state.key < 0 ? Math.max(0, n - 2) : Math.min(state.key, state.query);
    const slider = byId("step");
    slider.max = Math.max(0, this.steps.length - 1);
    slider.disabled = byId("play").disabled = this.steps.length < 2;
    const held = (kind) => (step) => state[kind] < 0 || mapStore.has(state[kind], state.probe, step);
    const common = this.steps.filter((step) => held("a")(step) && held("b")(step));
    const first = common.length ? common.at(-1) : this.steps.at(-1);  // both runs where that is possible
    const at = this.steps.indexOf(this.steps.includes(state.step) ? state.step : first);
    if (state.b >= 0 && !this.sameTokens() && state.view === "difference") this.chooseView("a");
    this.maps = { a: null, b: null };
    state.pointed = "a";
    this.buildPanels();
    this.buildStrips();
    this.chooseStep(Math.max(0, at));
  }

  /// Shows the step at that place of the slider.
  async chooseStep(place) {
    const { state } = this, serial = ++this.serial;
    const slider = byId("step");
    slider.value = place;
    state.step = this.steps[place];
    const planned = place === 0 && state.step === 0 ? " (initial values)" : place === this.steps.length - 1 ? " (last)" : "";
    const text = this.steps.length ? `${grouped(state.step)}${planned}` : "none";
    slider.setAttribute("aria-valuetext", `step ${text}`);
    byId("step-shown").textContent = text;
    const problem = [];
    if (!this.steps.length) problem.push("The maps of this probe are left out of this page.");
    if (state.b >= 0 && !this.sameTokens()) problem.push("The two runs hold different tokens under this probe: no difference.");
    try {
      const load = (kind) => {
        const probe = this.probe(kind);
        if (!probe || !probe.steps.includes(state.step) || !mapStore.has(state[kind], state.probe, state.step)) return null;
        return mapStore.load(state[kind], state.probe, state.step, this.attention(kind).heads.length, probe.tokens.length);
      };
      const [a, b] = await Promise.all([load("a"), load("b")]);
      if (serial !== this.serial) return;
      this.maps = { a, b };
    } catch (error) {
      this.maps = { a: null, b: null };
      problem.push(error.message);
    }
    for (const kind of ["a", "b"])
      if (this.state[kind] >= 0 && !this.maps[kind] && this.steps.length)
        problem.push(`${this.run(kind).name} has no maps of this probe at step ${grouped(state.step)}.`);
    byId("attention-problem").hidden = !problem.length;
    byId("attention-problem").textContent = problem.join(" ");
    this.paint();
    this.onChange();
    document.body.dataset.step = place;
  }

  play() {
    const button = byId("play");
    const stop = () => (clearInterval(this.timer), (this.timer = 0), button.setAttribute("aria-pressed", "false"), (button.textContent = "\u25b6"));
    if (this.timer) return stop();
    button.setAttribute("aria-pressed", "true");
    button.textContent = "\u25a0";
    if (Number(byId("step").value) === this.steps.length - 1) this.chooseStep(0);
    this.timer = setInterval(() => {
      const next = Number(byId("step").value) + 1;
      if (next >= this.steps.length) return stop();
      this.chooseStep(next);
    }, 700);
  }

  sameTokens() {
    const a = this.probe("a"), b = this.probe("b");
    return !!a && !!b && a.ids.length === b.ids.length && a.ids.every((id, i) => id === b.ids[i]);
  }

  /// (query, key) => weight of what a panel shows for one head, or null where there is nothing.
  cells(kind, layer, head) {
    if (kind === "difference") {
      const a = this.cells("a", layer, head), b = this.cells("b", layer, head);
      return a && b && this.sameTokens() ? (q, k) => b(q, k) - a(q, k) : null;
    }
    const attention = this.attention(kind), maps = this.maps[kind];
    const i = attention.layers.indexOf(layer), j = attention.heads.indexOf(head);
    return maps && i >= 0 && j >= 0 ? (q, k) => maps.weight(i, j, q, k) : null;
  }

  buildGrid() {
    const { layers, heads } = this.attention("a"), grid = byId("grid");
    grid.replaceChildren();
    grid.style.setProperty("--heads", heads.length);
    make("span", { class: "grid-caption" }, grid);
    make("span", { class: "corner" }, grid);
    for (const head of heads) make("span", { class: "grid-head" }, grid, heads.length > 8 ? `${head}` : `head ${head}`);
    this.thumbs = [];
    for (const layer of layers) {
      make("span", { class: "grid-layer" }, grid, `layer ${layer}`);
      for (const head of heads) {
        const button = make("button", { type: "button", class: "thumb", "data-layer": layer, "data-head": head }, grid);
        const canvas = make("canvas", {}, button);
        button.addEventListener("click", () => this.enlarge(layer, head, true));
        this.thumbs.push({ button, canvas, layer, head });
      }
    }
    grid.onkeydown = (event) => {
      const jump = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -heads.length, ArrowDown: heads.length }[event.key];
      const at = this.thumbs.findIndex((thumb) => thumb.button === document.activeElement);
      if (jump === undefined || !this.thumbs[at + jump]) return;
      event.preventDefault();
      const next = this.thumbs[at + jump];
      this.enlarge(next.layer, next.head, false);
      next.button.focus();
    };
  }

  /// Makes a head the enlarged one; on a narrow screen, where it stands below the grid, goes there.
  enlarge(layer, head, go) {
    Object.assign(this.state, { layer, head });
    this.paint();
    this.onChange();
    const top = byId("detail").getBoundingClientRect().top;
    if (go && (top < 0 || top > window.innerHeight * 0.6)) byId("detail-title").scrollIntoView({ block: "start" });
  }

  paint() {
    this.paintGrid();
    this.paintDetail();
  }

  /// What the grid shows of two runs, for paper, where the controls are not.
  gridCaption() {
    if (this.state.b < 0) return "";
    const [a, b] = ["a", "b"].map((kind) => `${this.letter(kind)}: ${this.name(kind)}`);
    return { a, b, difference: `${this.name("difference")} (${a}; ${b})` }[this.state.view];
  }

  paintGrid() {
    const { state } = this, n = this.probe("a").tokens.length;
    byId("grid").querySelector(".grid-caption").textContent = this.gridCaption();
    for (const { button, canvas, layer, head } of this.thumbs) {
      const chosen = layer === state.layer && head === state.head;
      button.setAttribute("aria-pressed", chosen);
      button.tabIndex = chosen ? 0 : -1;
      button.setAttribute("aria-label", `Enlarge layer ${layer}, head ${head}`);
      const at = this.cells(state.view, layer, head);
      button.classList.toggle("empty", !at);
      const size = state.view === "b" && this.probe("b") ? this.probe("b").tokens.length : n;
      paintMap(canvas, size, at || (() => 0), state.scale, !at || state.view === "difference");
    }
  }

  buildPanels() {
    const place = byId("panels");
    place.replaceChildren();
    place.dataset.count = this.kinds().length;
    byId("attention-maps").dataset.count = this.kinds().length;
    this.panels = this.kinds().map((kind) => {
      const figure = make("figure", { class: "panel", "data-kind": kind }, place);
      const caption = make("figcaption", {}, figure);
      if (kind !== "difference" && this.state.b >= 0) make("i", { class: `swatch run-${this.state[kind] % 6}` }, caption);
      if (this.state.b >= 0) make("b", {}, caption, kind === "difference" ? this.name(kind) : `${this.letter(kind)}: ${this.name(kind)}`);
      return new MapPanel(figure, kind, (q, k) => this.point(q, k, kind), () => this.state);
    });
  }

  paintDetail() {
    const { state } = this;
    byId("detail-title").textContent = `Layer ${state.layer}, head ${state.head}` +
      (this.steps.length ? `, step ${grouped(state.step)}` : "");
    for (const panel of this.panels) {
      const probe = this.probe(panel.kind === "b" ? "b" : "a");
      panel.paint(this.cells(panel.kind, state.layer, state.head), probe ? probe.labels : [], state.scale);
      panel.axes.setAttribute("aria-label", `Attention map of ${panel.n} tokens, layer ${state.layer}, head ${state.head}. ` +
        "Arrow keys move over queries and keys.");
    }
    const of = state.scale === "row" ? ", share of the row\u2019s largest" : "";
    byId("legends").replaceChildren(colourBar(`weight${of}`, state.scale, false),
      ...(state.b < 0 ? [] : [colourBar(`difference B \u2212 A${of}`, state.scale, true)]));
    this.point(state.query, state.key, state.pointed);
  }

  /// Points at a query and a key: in every panel, in the line under them and in the text; where the runs hold different tokens,
  /// in the panel `kind` and what is said of it alone.
  point(q, k, kind = "a") {
    const apart = this.state.b >= 0 && !this.sameTokens();
    Object.assign(this.state, { query: q, key: k, pointed: apart && kind === "b" ? "b" : "a" });
    for (const panel of this.panels) panel.mark(...(apart && panel.kind !== this.state.pointed ? [-1, -1] : [q, k]));
    this.read();
    this.shade();
  }

  read() {
    const { state } = this, { query: q, key: k } = state, probe = this.probe(state.pointed), readout = byId("readout");
    const kinds = state.b < 0 || this.sameTokens() ? this.kinds() : [state.pointed];
    readout.replaceChildren();
    Object.assign(readout.dataset, { query: q, key: k });
    for (const kind of ["a", "b", "difference"]) delete readout.dataset[kind];
    const token = (name, at) => {
      const item = make("span", { class: "token-name" }, readout);
      item.append(`${name} ${at} `);
      make("code", {}, item, quoted(probe.labels[at]));
      const { of } = this.running(state.pointed)[at];
      if (of) item.append(` of ${isolated(of)}`);
    };
    token("query", q);
    readout.append(" \u2192 ");
    token("key", k);
    if (k > q) return void make("span", {}, readout, "later than the query: not visible");
    for (const kind of kinds) {
      const at = this.cells(kind, state.layer, state.head);
      if (!at) continue;
      const value = at(q, k);
      readout.dataset[kind] = value;
      const item = make("span", { class: "value" }, readout);
      item.append(kind === "difference" ? "difference " : state.b < 0 ? "weight " : `${this.letter(kind)} `);
      make("b", {}, item, signed(value));
    }
  }

  /// The tokens of the probe as they stand in its text.
  running(kind = "a") {
    const probe = this.probe(kind);
    return (probe.running ||= runningText(probe.tokens, probe.labels));
  }

  buildStrips() {
    const place = byId("strip"), probe = this.probe("a");
    byId("strip-title").textContent = "Text, shaded by the chosen query\u2019s attention";
    const pieces = this.running().some(({ shown }) => shown.includes(pieceMark));
    byId("strip-source").textContent = `Probe ${probe.name} (${probe.source}).${pieces ? ` ${pieceMeaning}.` : ""}`;
    place.replaceChildren();
    this.strips = this.kinds().filter((kind) => kind !== "difference" && (kind === "a" || this.sameTokens())).map((kind) => {
      const line = make("span", { class: "strip-line" }, place);
      if (this.state.b >= 0) make("b", {}, line, `${this.letter(kind)} `);
      const tokens = this.running().map(({ shown, of }, i) => {
        const token = make("span", { "data-token": i, title: `${i}: ${probe.labels[i]}${of ? ` of ${isolated(of)}` : ""}` }, line);
        showToken(token, shown);
        return token;
      });
      return { kind, tokens };
    });
  }

  shade() {
    const { layer, head, scale } = this.state, q = this.state.pointed === "a" ? this.state.query : -1;
    for (const { kind, tokens } of this.strips || []) {
      const at = this.cells(kind, layer, head);
      let largest = 0;
      for (let k = 0; at && k <= q; ++k) largest = Math.max(largest, at(q, k));
      tokens.forEach((token, k) => {
        const share = at && k <= q ? colourScales[scale](at(q, k), largest) : 0;
        token.style.backgroundColor = `color-mix(in srgb, var(--strip) ${Math.round(80 * share)}%, transparent)`;
        token.className = k === q ? "query" : k > q ? "unseen" : "";
      });
    }
  }
}
