# SPDX-License-Identifier: Apache-2.0
"""dekoder-tensorboard: a run as TensorBoard event files: curves, head statistics, samples, attention maps.

The log of a run has no time of day. Events get the time that their step took by its tokens/s, counted back from the
last change of the log, so that TensorBoard's relative time is training time.
"""
from __future__ import annotations

import argparse
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import RunError, run_command
from .figure_style import COLOURS, NORM
from .files import check_folder, make_folder, path_name
from .run_reader import changes_text, read_run

SUFFIX = ".dekoder"  # of the event files made here: the next export replaces them and no others
STEP_TAGS = {"loss": "training/loss", "learning_rate": "training/learning_rate",
             "gradient_norm": "training/gradient_norm", "tokens_per_second": "training/tokens_per_second"}
EVALUATION_TAGS = {"validation_loss": "validation/loss", "bits_per_byte": "validation/bits_per_byte"}
GAP = 2  # pixels between the heads of an image
SMALLEST_MAP = 160  # pixels: smaller maps are enlarged by a whole factor


@dataclass
class TensorBoard:
    """What is used of the tensorboard package, which is loaded only here."""

    writer: type
    event: type
    summary: type
    text_metadata: object
    tensor: object


def load_tensorboard() -> TensorBoard:
    """Imports the tensorboard package. Raises RunError with the way to install it where it is missing."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
        from tensorboard.util.tensor_util import make_tensor_proto
    except ImportError as error:
        raise RunError(f"the Python package tensorboard cannot be loaded ({error}); the toolbox has it (bash "
                       "jobs/toolbox dekoder-tensorboard RUN), elsewhere: pip install tensorboard") from error
    return TensorBoard(EventFileWriter, Event, Summary, create_summary_metadata, make_tensor_proto)


class Export:
    """Writes the events of one run into one file."""

    def __init__(self, board, run, folder):
        self.board, self.run = board, run
        self.times = step_times(run)
        self.writer = board.writer(str(folder), filename_suffix=SUFFIX)
        self.counts = {"scalars": 0, "texts": 0, "images": 0}

    def write(self):
        """All events in the order of their kinds; returns the number of each."""
        for column, tag in STEP_TAGS.items():
            for step, value in zip(self.run.steps["step"], self.run.steps[column]):
                self._scalar(step, tag, value)
        for step, seconds in zip(self.run.steps["step"], self.run.seconds):
            for phase, value in seconds.items():
                self._scalar(step, f"seconds/{phase}", np.nan if value is None else value)
        for column, tag in EVALUATION_TAGS.items():
            for step, value, tokens in zip(self.run.evaluations["step"], self.run.evaluations[column],
                                           self.run.validation_hashes):
                # A curve of its own for losses on other validation tokens than the newest.
                other = "" if tokens == self.run.validation_hash else f"_on_{tokens[:12] if tokens else 'unknown'}"
                self._scalar(step, tag.replace("/", other + "/"), value)
        for step, text in self.run.samples:
            self._text(step, "sample", text)
        first = next(iter(self.run.steps["step"]), 0)
        self._text(first, "configuration", self.run.config_text)
        for step, changes in zip(self.run.restarts, self.run.changes):
            changed = f"; changed {changes_text(changes)}" if changes else ""
            self._text(step, "restart", f"resumed from the checkpoint of step {step}{changed}")
        if self.run.attention is not None:
            self._head_statistics(self.run.attention)
            self._maps(self.run.attention)
        self.writer.close()
        return self.counts

    def _add(self, step, value):
        step = int(step)
        self.writer.add_event(self.board.event(wall_time=self.times(step), step=step,
                                               summary=self.board.summary(value=[value])))

    def _scalar(self, step, tag, value):
        if np.isfinite(value):
            self._add(step, self.board.summary.Value(tag=tag, simple_value=float(value)))
            self.counts["scalars"] += 1

    def _text(self, step, tag, text):
        # TensorBoard shows Markdown; an indented block keeps line ends and signs as they are.
        block = "".join(f"    {line}\n" for line in text.split("\n"))
        tensor = self.board.tensor(np.array([block.encode("utf-8", "backslashreplace")], dtype=object))
        self._add(step, self.board.summary.Value(tag=tag, tensor=tensor, metadata=self.board.text_metadata(tag, "")))
        self.counts["texts"] += 1

    def _head_statistics(self, attention):
        for probe in attention.probes.values():
            for step in probe.steps:
                for (i, j, s), value in np.ndenumerate(probe.statistics(step)):
                    head = f"layer_{attention.layers[i]}_head_{attention.heads[j]}"
                    self._scalar(step, f"heads_{attention.statistic_names[s]}/{probe.name}/{head}", value)

    def _maps(self, attention):
        for probe in attention.probes.values():
            for step in sorted({*probe.steps[:1], *probe.steps[-1:]}):
                for layer, maps in zip(attention.layers, probe.weights(step)):
                    pixels = layer_image(maps)
                    image = self.board.summary.Image(height=pixels.shape[0], width=pixels.shape[1], colorspace=3,
                                                     encoded_image_string=png(pixels))
                    tag = f"attention/{probe.name}/layer_{layer}"
                    self._add(step, self.board.summary.Value(tag=tag, image=image))
                    self.counts["images"] += 1


def step_times(run):
    """A function step -> seconds since 1970: the last row at the last change of the log, the others before it by the
    time that tokens/s says their steps took."""
    rate = run.steps["tokens_per_second"]
    tokens = np.diff(run.steps["tokens"], prepend=0)
    usable = np.isfinite(rate) & (rate > 0) & (tokens > 0)
    elapsed = np.cumsum(np.where(usable, tokens / np.where(usable, rate, 1.0), 0.0))
    start = (run.path / "metrics.jsonl").stat().st_mtime - (elapsed[-1] if len(elapsed) else 0.0)
    steps = np.concatenate([[0], run.steps["step"]])
    elapsed = np.concatenate([[0.0], elapsed])
    return lambda step: float(start + np.interp(step, steps, elapsed))


def layer_image(maps) -> np.ndarray:
    """uint8 (row, column, 3): the maps (head, query, key) of a layer side by side, white above the diagonal."""
    tokens = maps.shape[1]
    scale = max(1, -(-SMALLEST_MAP // tokens))
    above = np.triu(np.ones((tokens, tokens), dtype=bool), k=1)
    panels = []
    for weights in maps:
        colours = COLOURS(NORM(np.ma.masked_array(weights.astype(np.float32), above)), bytes=True)[:, :, :3]
        panels += [np.kron(colours, np.ones((scale, scale, 1), dtype=np.uint8)),
                   np.full((tokens * scale, GAP, 3), 255, dtype=np.uint8)]
    return np.concatenate(panels[:-1], axis=1)


def png(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def export(path, folder=None):
    """Writes the events of the run directory `path` into `folder` (RUN/tensorboard where None), in place of those of
    an earlier export. Returns (folder, counts of scalars, texts and images). Raises RunError."""
    if folder is not None:
        check_folder(folder)
    run = read_run(path)
    folder = Path(folder) if folder is not None else run.path / "tensorboard"
    check_folder(folder)
    if run.last_step is None:
        raise RunError(f"{run.path}/metrics.jsonl: has no row yet; expected a first step; wait for it")
    _require_text(folder)
    board = load_tensorboard()
    make_folder(folder)
    earlier = sorted(folder.glob(f"events.out.tfevents.*{SUFFIX}"))
    try:
        counts = Export(board, run, folder).write()
        for file in earlier:
            file.unlink()
    except OSError as error:
        raise RunError(f"{folder}: event files cannot be written: {error.strerror or error}; free some space or "
                       "choose another -o") from error
    for line in run.attention.left_out if run.attention else ():
        print(f"dekoder-tensorboard: {line}", file=sys.stderr)
    return folder, counts


def _require_text(folder):
    """TensorBoard's writer takes names in UTF-8 only."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError as error:
        raise RunError(f"{folder}: is no UTF-8, as TensorBoard wants the name of a folder of events; choose another -o"
                       ) from error


def parse_options(arguments):
    parser = argparse.ArgumentParser(
        prog="dekoder-tensorboard", description="Writes a run as TensorBoard event files; look at them with "
        "`tensorboard --logdir LOGDIR`. Made again, they replace those of the call before.",
        epilog="Exit codes: 0 written, 2 usage, 3 a file is missing, damaged or of another program.")
    parser.add_argument("run", metavar="RUN", type=path_name, help="run directory, also of a run that is still training")
    parser.add_argument("-o", "--output", metavar="LOGDIR", type=path_name,
                        help="folder of the events (default: RUN/tensorboard)")
    return parser.parse_args(arguments)


def main(arguments=None) -> int:
    """The command; returns its exit code."""

    def work():
        options = parse_options(arguments)
        folder, counts = export(options.run, options.output)
        print(f"{folder}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))

    return run_command("dekoder-tensorboard", work)


if __name__ == "__main__":
    sys.exit(main())
