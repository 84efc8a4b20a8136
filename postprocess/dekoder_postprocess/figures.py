# SPDX-License-Identifier: Apache-2.0
"""dekoder-figures: a run's attention at initialisation and after training, head by head, and beside a second run
(with and without positional encoding); the loss curve. PNG for the screen and PDF for print."""
from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import matplotlib
import numpy as np

from .attention_reader import Attention, Probe, read_attention
from .curve_figures import loss_figure, statistics_figure
from .errors import RunError, run_command
from .figure_style import (STYLE, Sheet, draw_map, drawable, label_size, label_tokens, label_width, save, shortened,
                           text_width, token_labels)
from .files import check_folder, make_folder, path_name, require_file
from .run_reader import Run, parse_config, read_run

FORMATS = ("png", "pdf", "svg")
PATTERNS = ("previous_token", "first_token", "same_token", "duplicate_token", "induction")


@dataclass
class Source:
    """One of the command's arguments: a run, or an attention file alone (run is None)."""

    name: str
    config: dict
    attention: Optional[Attention]
    run: Optional[Run]


@dataclass
class Block:
    """Maps (layer, head, query, key) of one step, with the title they get in a figure."""

    title: str
    weights: np.ndarray


def open_source(path) -> Source:
    """Reads a run directory, or an attention file (a name that ends in .h5). Raises RunError."""
    path = Path(path)
    if path.suffix == ".h5" and not path.is_dir():
        require_file(path)
        attention = read_attention(path)
        config = parse_config(attention.config_text, f"{path}: attribute config")
        return Source(drawable(path.stem, spaces=False), config, attention, None)
    run = read_run(path)
    return Source(drawable(run.name, spaces=False), run.config, run.attention, run)


def change(a, b) -> np.ndarray:
    """Distance (layer, head) of maps (layer, head, query, key): the part of a query's weight that goes to other keys
    (total variation), mean over queries; 0 for equal maps, 1 for disjoint ones."""
    return 0.5 * np.abs(a.astype(np.float32) - b.astype(np.float32)).sum(axis=-1).mean(axis=-1)


def step_title(step) -> str:
    return "initial values (step 0)" if step == 0 else f"after {step:,} steps"


def positions_title(source) -> str:
    """What the configuration says about positions, in words."""
    kind = source.config["model"].get("positions")
    if kind is None:
        return source.name
    if kind == "none":
        return "without positional encoding"
    return f"with positional encoding ({drawable(str(kind), spaces=False)})"


def pattern_titles(attention, probe, step) -> list:
    """For each layer and head the pattern with the greatest gain in mass since the first captured step, and its mass
    at `step`; 'entropy' where no pattern gained a tenth. Without an earlier step: the one of greatest mass."""
    now = probe.statistics(step).astype(np.float64)
    first = probe.statistics(probe.steps[0]) if probe.steps[0] != step else np.zeros_like(now)
    names = attention.statistic_names
    columns = [names.index(name) for name in PATTERNS if name in names]
    titles = []
    for layer in range(now.shape[0]):
        row = []
        for head in range(now.shape[1]):
            best = max(columns, key=lambda s: now[layer, head, s] - first[layer, head, s], default=None)
            if best is not None and now[layer, head, best] - first[layer, head, best] >= 0.1:
                row.append(f"{names[best].replace('_', ' ')} {now[layer, head, best]:.2f}")
            elif "entropy" in names:
                row.append(f"entropy {now[layer, head, names.index('entropy')]:.2f}")
            else:
                row.append("")
        titles.append(row)
    return titles


def pair_figure(title, text, blocks, labels):
    """Two maps of one head side by side; blocks hold maps (query, key), labels one text per token. `text` stands under
    the title where the labels do not fit along the axes."""
    count = len(labels)
    titles = max(text_width(block.title, 9) for block in blocks)
    panel = min(5.4, max(3.0, count * 6.6 / 72, titles))
    size = label_size(panel, count)
    names = label_width(labels, size) if size else 0.25
    turned = names if size and any(len(label) > 1 for label in labels) else 0.12
    left, top, gap = 0.42 + names, 0.62 if size else 0.8, 0.35
    width = left + 2 * panel + gap + 0.95
    sheet = Sheet(width, top + panel + turned + 0.38)
    sheet.text(0.1, 0.1, shortened(title, width - 0.2, 11, "bold"), fontsize=11, weight="bold")
    if not size:
        sheet.text(0.1, 0.34, shortened(text, width - 0.2, 8), fontsize=8, color="0.35")
    for i, block in enumerate(blocks):
        axes = sheet.axes(left + i * (panel + gap), top, panel, panel)
        image = draw_map(axes, block.weights)
        label_tokens(axes, labels, panel, rows=i == 0)
        axes.set_title(shortened(block.title, panel, 9), pad=4)
        axes.set_xlabel("key: the token attended to", fontsize=8, labelpad=3)
        if i == 0:
            axes.set_ylabel("query: the token that attends", fontsize=8, labelpad=3)
    sheet.colour_bar(image, left + 2 * panel + gap + 0.15, top, panel)
    return sheet.figure


def grid_figure(title, text, blocks, layers, heads, captions=None):
    """Maps of all layers (rows) and heads (columns), one block beside the other; captions: text over each."""
    columns = len(blocks) * len(heads)
    panel = min(1.9, max(0.42, 10.0 / columns))
    captions = captions if panel >= 1.0 else None  # smaller ones are not read
    gap, line = 0.07, 0.17 if captions else 0.0
    left, top, between = 0.62, 1.02 if any(block.title for block in blocks) else 0.8, 0.3
    block_width = len(heads) * (panel + gap) - gap
    width = max(5.0, left + len(blocks) * block_width + (len(blocks) - 1) * between + 0.95)
    height = len(layers) * (panel + gap + line) - gap
    sheet = Sheet(width, top + height + 0.15)
    sheet.text(0.1, 0.1, shortened(title, width - 0.2, 11, "bold"), fontsize=11, weight="bold")
    subtitle = f"rows of a map: queries, columns: keys; {text}"
    sheet.text(0.1, 0.34, shortened(subtitle, width - 0.2, 8), fontsize=8, color="0.35")
    for b, block in enumerate(blocks):
        start = left + b * (block_width + between)
        if block.title:
            sheet.text(start + block_width / 2, 0.58, shortened(block.title, block_width + between, 9), ha="center")
        for i, layer in enumerate(layers):
            row = top + i * (panel + gap + line)
            if b == 0:
                sheet.text(left - 0.08, row + line + panel / 2, f"layer {layer}", ha="right", va="center", fontsize=8)
            for j, head in enumerate(heads):
                at = start + j * (panel + gap)
                if i == 0:
                    name = f"head {head}" if panel >= 0.6 else str(head)
                    sheet.text(at + panel / 2, top - 0.22, name, ha="center", fontsize=8)
                if captions:
                    sheet.text(at + panel / 2, row + 0.03, captions[i][j], ha="center",
                               fontsize=min(7.5, 5.0 * panel), color="0.25")
                image = draw_map(sheet.axes(at, row + line, panel, panel), block.weights[i, j])
    bar = min(height - line, 3.0)
    sheet.colour_bar(image, left + len(blocks) * block_width + (len(blocks) - 1) * between + 0.15, top + line, bar)
    return sheet.figure


class FigureSet:
    """The figures of one call of the command, by name: all are drawn before the first is written."""

    def __init__(self, options):
        self.options = options
        self.drawn = {}

    def write(self, folder) -> list:
        """Writes them into the folder, made where it is missing; returns the paths."""
        make_folder(folder)
        return [path for name, figure in self.drawn.items()
                for path in save(figure, folder, name, self.options.format, self.options.most_kilobytes * 1000)]

    def loss(self, sources):
        runs = [source.run for source in sources if source.run is not None and len(source.run.steps["step"])]
        if runs:
            self.drawn["loss"] = loss_figure(runs)

    def one_run(self, source):
        """Initial and trained, one head and all; the trained heads with the pattern that each gained most on; the
        head statistics over the steps."""
        attention = source.attention
        probe = attention.probe(self.options.probe)
        if not probe.steps:
            return
        step = self._step(probe)
        first = probe.steps[0]
        text = f"text: {drawable(probe.text, spaces=False)}"
        if len(probe.steps) > 1:
            self.drawn["statistics"] = statistics_figure(f"Head statistics ({source.name})", text, attention, probe)
        if first != step:
            before, after = probe.weights(first), probe.weights(step)
            layer, head = self._head(attention, change(before, after))
            i, j = attention.axis_of(layer, head)
            blocks = [Block(step_title(first), before[i, j]), Block(step_title(step), after[i, j])]
            self.drawn["initial-and-trained"] = pair_figure(f"Layer {layer}, head {head} ({source.name})", text, blocks,
                                                            token_labels(probe.token_text))
            blocks = [Block(step_title(first), before), Block(step_title(step), after)]
            self.drawn["initial-and-trained-heads"] = grid_figure(
                f"Attention before and after training ({source.name})", text, blocks, attention.layers,
                attention.heads)
        self.drawn["heads"] = grid_figure(f"Attention head by head, {step_title(step)} ({source.name})", text,
                                          [Block("", probe.weights(step))], attention.layers, attention.heads,
                                          pattern_titles(attention, probe, step))

    def two_runs(self, a, b):
        """The same text, layers and heads in both runs: one head and all."""
        probe_a = a.attention.probe(self.options.probe)
        probe_b = same_tokens(b.attention, probe_a, a.name)
        step_a, step_b = self._common_step(probe_a, probe_b)
        layers = [layer for layer in a.attention.layers if layer in b.attention.layers]
        heads = [head for head in a.attention.heads if head in b.attention.heads]
        if not layers or not heads:
            raise RunError(f"{b.attention.path}: has no layer and head in common with {a.attention.path}; expected "
                           "maps of the same ones: set attention.layers and attention.heads alike in both runs")
        maps = [chosen(source.attention, probe.weights(step), layers, heads)
                for source, probe, step in ((a, probe_a, step_a), (b, probe_b, step_b))]
        names = [positions_title(a), positions_title(b)]
        if names[0] == names[1]:
            names = [a.name, b.name]
        titles = [f"{name}, {step_title(step)}" for name, step in zip(names, (step_a, step_b))]
        far = np.unravel_index(np.argmax(change(*maps)), (len(layers), len(heads)))
        layer, head = self._wanted(layers[far[0]], heads[far[1]])
        for attention in (a.attention, b.attention):
            attention.axis_of(layer, head)
        i, j = layers.index(layer), heads.index(head)
        blocks = [Block(title, weights[i, j]) for title, weights in zip(titles, maps)]
        both = f"{a.name} and {b.name}"
        text = f"text: {drawable(probe_a.text, spaces=False)}"
        self.drawn["two-runs"] = pair_figure(f"Layer {layer}, head {head} ({both})", text, blocks,
                                             token_labels(probe_a.token_text))
        blocks = [Block(title, weights) for title, weights in zip(titles, maps)]
        self.drawn["two-runs-heads"] = grid_figure(f"Attention of two runs ({both})", text, blocks, layers, heads)

    def _step(self, probe):
        if self.options.step is None:
            return probe.steps[-1]
        probe.statistics(self.options.step)  # names the captured steps where it is none of them
        return self.options.step

    def _common_step(self, a, b):
        """The newest step that both have; each one's newest where they share none."""
        if self.options.step is not None:
            return self._step(a), self._step(b)
        for probe in (a, b):
            if not probe.steps:
                raise RunError(f"{probe.path}: no step of probe {probe.name} is captured yet; wait for the first")
        common = set(a.steps) & set(b.steps)
        trained = max(common, default=0)
        return (trained, trained) if trained > 0 else (a.steps[-1], b.steps[-1])

    def _head(self, attention, distance):
        i, j = np.unravel_index(np.argmax(distance), distance.shape)
        return self._wanted(attention.layers[i], attention.heads[j])

    def _wanted(self, layer, head):
        return (layer, head) if self.options.layer is None else (self.options.layer, self.options.head)


def same_tokens(attention, probe, other) -> Probe:
    """The probe of another run with the same tokens: of the same name, else any. Raises RunError."""
    candidates = sorted(attention.probes.values(), key=lambda candidate: candidate.name != probe.name)
    for candidate in candidates:
        if np.array_equal(candidate.tokens, probe.tokens):
            return candidate
    raise RunError(f"{attention.path}: no probe with the tokens of {probe.name} of {other}; expected the same text and tokenizer "
                   "in both runs: set attention.texts alike, or name a common one with --probe")


def chosen(attention, weights, layers, heads) -> np.ndarray:
    """Maps of some of the file's layers and heads."""
    rows = [attention.layers.index(layer) for layer in layers]
    return weights[rows][:, [attention.heads.index(head) for head in heads]]


def parse_options(arguments):
    parser = argparse.ArgumentParser(
        prog="dekoder-figures", description="Publication figures of a run: initial-and-trained (one head, all "
        "heads), heads, statistics, loss; of two runs: two-runs (one head, all heads), with and without positional "
        "encoding say.",
        epilog="Exit codes: 0 made, 2 usage, 3 a file is missing, damaged or of another program, 130 interrupted (Ctrl-C).")
    parser.add_argument("runs", nargs="+", metavar="RUN", type=path_name,
                        help="run directory or attention file; two are compared")
    parser.add_argument("-o", "--output", metavar="FOLDER", type=path_name,
                        help="where the files go (default: RUN/figures)")
    parser.add_argument("--probe", help="name of the text, text_0 say (default: the first)")
    parser.add_argument("--layer", type=int, help="of the figures of one head (default: the head that differs most)")
    parser.add_argument("--head", type=int, help="goes with --layer")
    parser.add_argument("--step", type=int, help="captured step that is shown as trained (default: the last)")
    parser.add_argument("--format", default="png,pdf", help="png, pdf, svg, comma between them (default: png,pdf)")
    parser.add_argument("--most-kilobytes", type=int, default=150, metavar="KB",
                        help="size that a PNG shall not exceed, down to 70 dots per inch (default: 150)")
    options = parser.parse_args(arguments)
    if len(options.runs) > 2:
        parser.error(f"{len(options.runs)} runs, expected one or two")
    if (options.layer is None) != (options.head is None):
        parser.error("--layer and --head go together")
    if options.most_kilobytes < 1:
        parser.error(f"--most-kilobytes {options.most_kilobytes}: expected 1 or more")
    options.format = [kind.strip() for kind in options.format.split(",")]
    for kind in options.format:
        if kind not in FORMATS:
            parser.error(f"--format {kind}: unknown, expected {', '.join(FORMATS)}")
    return options


def make_figures(options):
    """Reads, draws, writes; prints one line per file. Nothing is written where something cannot be drawn."""
    first = Path(options.runs[0])
    folder = Path(options.output) if options.output else (first if first.is_dir() else first.parent) / "figures"
    if options.output:
        check_folder(folder)
    sources = [open_source(path) for path in options.runs]
    check_folder(folder)
    missing = [source for source in sources if source.attention is None]
    if missing and (options.probe or options.layer is not None or options.step is not None):
        raise RunError(f"{missing[0].run.path}: has no attention maps, which --probe, --layer, --head and --step are "
                       "about; set attention.texts in its configuration")
    figures = FigureSet(options)
    with matplotlib.rc_context(STYLE):
        figures.loss(sources)
        if sources[0].attention is not None:
            figures.one_run(sources[0])
        if len(sources) == 2 and not missing:
            figures.two_runs(*sources)
        if not figures.drawn:
            raise RunError(f"{options.runs[0]}: nothing to draw yet; expected a first step in its log")
        for path in figures.write(folder):
            print(f"{path}  {path.stat().st_size / 1000:.0f} kB")
    for source in sources:
        for line in source.attention.left_out if source.attention else ():
            print(f"dekoder-figures: {line}", file=sys.stderr)
    for source in missing:
        print(f"dekoder-figures: {source.run.path}: no attention maps, so no figures of attention; set attention.texts "
              "in its configuration", file=sys.stderr)


def main(arguments=None) -> int:
    """The command; returns its exit code."""
    return run_command("dekoder-figures", lambda: make_figures(parse_options(arguments)))


if __name__ == "__main__":
    sys.exit(main())
