# SPDX-License-Identifier: Apache-2.0
"""dekoder-tensorboard: runs as TensorBoard event files: curves, head statistics, samples, attention maps; of many runs
also what the HParams tab shows: the settings in which they differ beside their losses.

https://github.com/tensorflow/tensorboard/blob/master/tensorboard/plugins/hparams/api.proto says what that tab reads: an
Experiment beside the runs, and in each run a SessionStartInfo and a SessionEndInfo.
"""
from __future__ import annotations

import argparse
import io
import itertools
import os
import socket
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import MissingPackage, RunError, run_command
from .figure_style import COLOURS, NORM
from .files import check_folder, make_folder, path_name, require_text
from .run_reader import changes_text
from .runs.collect import collect
from .runs.tracked_run import (BEST_LOSS, LAST_LOSS, Refused, differing_settings, exact_text, export_runs, step_times, track)

COMMAND = "dekoder-tensorboard"
SUFFIX = ".dekoder"  # of the event files made here: the next export replaces them and no others
METRICS = {BEST_LOSS: "best validation loss", LAST_LOSS: "last validation loss"}  # of the HParams tab
GAP = 2  # pixels between the heads of an image
SMALLEST_MAP = 160  # pixels: smaller maps are enlarged by a whole factor
LONGEST_NAME = 255  # bytes of a folder's name on most file systems

_file_numbers = itertools.count()


class TensorBoard:
    """What is used of the tensorboard package, which is loaded only here. Raises MissingPackage."""

    def __init__(self):
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
            from tensorboard.plugins.text.metadata import create_summary_metadata
            from tensorboard.summary.writer.record_writer import RecordWriter
            from tensorboard.util.tensor_util import make_tensor_proto
        except ImportError as error:
            raise MissingPackage(f"the Python package tensorboard cannot be loaded ({error}); the toolbox has it (bash "
                                 "jobs/toolbox dekoder-tensorboard RUN), elsewhere: pip install tensorboard") from error
        self.event, self.summary, self.record_writer = Event, Summary, RecordWriter
        self.text_metadata, self.tensor = create_summary_metadata, make_tensor_proto
        self.hparams, self.hparams_data, self.hparams_metadata = api_pb2, plugin_data_pb2, metadata

    def hparams_value(self, tag, **data):
        """A summary's value that the HParams tab reads: its data stand in the metadata, without a tensor."""
        return self.summary.Value(tag=tag, tensor=self.hparams_metadata.NULL_TENSOR,
                                  metadata=self.hparams_metadata.create_summary_metadata(
                                      self.hparams_data.HParamsPluginData(**data)))


class Export:
    """Writes the events of a run (TrackedRun) with add_event(event)."""

    def __init__(self, board, tracked, add_event):
        self.board, self.tracked, self.run = board, tracked, tracked.run
        self.time = step_times(self.run)
        self.add_event = add_event
        self.counts = Counter(scalars=0, texts=0, images=0)

    def write(self, settings=None):
        """All events in the order of their kinds; returns the number of each. `settings`: key -> value, what the HParams
        tab shows of the run; None: nothing for that tab."""
        if settings is not None:
            self._session(settings)
        for step, _, metrics in self.tracked.rows:
            self._scalars(step, metrics)
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
        return self.counts

    def _add(self, step, *values):
        step = int(step)
        self.add_event(self.board.event(wall_time=self.time(step), step=step, summary=self.board.summary(value=values)))

    def _scalars(self, step, metrics):
        self._add(step, *(self.board.summary.Value(tag=tag, simple_value=value) for tag, value in metrics.items()))
        self.counts["scalars"] += len(metrics)

    def _session(self, settings):
        """A run's row in the HParams tab."""
        board, (_, begun, _), (_, ended, _) = self.board, self.tracked.rows[0], self.tracked.rows[-1]
        start = board.hparams_data.SessionStartInfo(group_name=self.tracked.name, start_time_secs=begun)
        for key, value in settings.items():
            kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
            setattr(start.hparams[key], f"{kind}_value", value)
        values = [board.hparams_value(board.hparams_metadata.SESSION_START_INFO_TAG, session_start_info=start)]
        state = self.tracked.summary.state
        if state != "running":
            status = {"finished": board.hparams.STATUS_SUCCESS, "failed": board.hparams.STATUS_FAILURE}
            end = board.hparams_data.SessionEndInfo(status=status.get(state, board.hparams.STATUS_UNKNOWN),
                                                    end_time_secs=ended)
            values.append(board.hparams_value(board.hparams_metadata.SESSION_END_INFO_TAG, session_end_info=end))
        self._add(0, *values)

    def _text(self, step, tag, text):
        # TensorBoard shows Markdown; an indented block keeps line ends and signs as they are.
        block = "".join(f"    {line}\n" for line in text.split("\n"))
        tensor = self.board.tensor(np.array([block.encode("utf-8", "backslashreplace")], dtype=object))
        self._add(step, self.board.summary.Value(tag=tag, tensor=tensor, metadata=self.board.text_metadata(tag, "")))
        self.counts["texts"] += 1

    def _head_statistics(self, attention):
        for probe in attention.probes.values():
            for step in probe.steps:
                self._scalars(step, {
                    f"heads_{attention.statistic_names[s]}/{probe.name}/layer_{attention.layers[i]}_head_{attention.heads[j]}":
                    float(value) for (i, j, s), value in np.ndenumerate(probe.statistics(step)) if np.isfinite(value)})

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


def write_events(board, tracked, folder, settings=None):
    """Writes the events of a run into the folder, in place of those of an earlier export. Returns the number of each
    kind. Raises Refused where the run is damaged, or its name too long for a folder of its own, and RunError where events cannot be
    written."""
    if max(len(part.encode("utf-8", "surrogateescape")) for part in folder.parts) > LONGEST_NAME:
        raise Refused(f"{tracked.run.path}: its name, with all characters visible, is too long for a folder; rename it")
    with replaced_events(board, folder) as add_event:
        try:
            counts = Export(board, tracked, add_event).write(settings)
        except RunError as error:  # of an attention file
            raise Refused(str(error)) from error
    for line in tracked.run.attention.left_out if tracked.run.attention else ():
        print(f"{COMMAND}: {line}", file=sys.stderr)
    return counts


@contextmanager
def replaced_events(board, folder):
    """A context whose value writes an event into a new event file of the folder, which is made; then the earlier ones go. Where the
    context is left by an error, the new one does. Raises RunError. TensorBoard's own EventFileWriter writes in a thread, which tells
    of errors beside whoever is to tell of them."""
    make_folder(folder)
    earlier = sorted(folder.glob(f"events.out.tfevents.*{SUFFIX}"))
    path = folder / f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}.{next(_file_numbers)}{SUFFIX}"
    try:
        try:
            with open(path, "wb") as file:
                writer = board.record_writer(file)
                writer.write(board.event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
                yield lambda event: writer.write(event.SerializeToString())
            path.stat()  # not so where somebody has removed the folder meanwhile
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
        for file in earlier:
            file.unlink()
    except OSError as error:
        raise RunError(f"{folder}: event files cannot be written: {error.strerror or error}; free some space or "
                       "choose another -o") from error


def export_many(board, summaries, folder, with_attention):
    """Writes each run's events into a folder of its name below `folder`, and what the HParams tab shows. Returns (runs,
    counts). Raises RunError."""
    settings = {key: of_one_kind(values) for key, values in differing_settings(summaries).items()}
    runs, counts = 0, Counter()

    def put(tracked):
        nonlocal runs
        own = {key: values[tracked.run.path] for key, values in settings.items() if tracked.run.path in values}
        counts.update(write_events(board, tracked, folder / tracked.name, own))
        runs += 1

    export_runs(COMMAND, summaries, put, with_attention)
    with replaced_events(board, folder) as add_event:
        add_event(board.event(summary=board.summary(value=[experiment(board, settings)])))
    return runs, counts


def of_one_kind(values) -> dict:
    """run -> value of a setting, as the HParams tab takes them: all true or false, or all numbers, or all texts; what is
    None is left out."""
    values = {run: value for run, value in values.items() if value is not None}
    kinds = {bool if isinstance(value, bool) else float if isinstance(value, (int, float)) else str
             for value in values.values()}
    return values if kinds in ({bool}, {float}) else {run: exact_text(value) for run, value in values.items()}


def experiment(board, settings):
    """The value that tells the HParams tab of its columns. settings: key -> run -> value."""
    columns = []
    for key, known in ((key, sorted(set(values.values()))) for key, values in settings.items() if values):
        column = board.hparams.HParamInfo(name=key, differs=True)
        if isinstance(known[0], (bool, str)):
            column.type = board.hparams.DATA_TYPE_BOOL if isinstance(known[0], bool) else board.hparams.DATA_TYPE_STRING
            column.domain_discrete.extend(known)
        else:
            column.type = board.hparams.DATA_TYPE_FLOAT64
            column.domain_interval.min_value, column.domain_interval.max_value = known[0], known[-1]
        columns.append(column)
    metrics = [board.hparams.MetricInfo(name=board.hparams.MetricName(tag=tag), display_name=name,
                                        dataset_type=board.hparams.DATASET_VALIDATION) for tag, name in METRICS.items()]
    return board.hparams_value(board.hparams_metadata.EXPERIMENT_TAG, experiment=board.hparams.Experiment(
        hparam_infos=columns, metric_infos=metrics))


def export(paths, output=None, with_attention=False):
    """Writes the events of one run directory into `output` (RUN/tensorboard where None), of many into a folder for each
    below it (tensorboard where None), in place of those of an earlier export. Returns the line that says so. Raises
    RunError and MissingPackage."""
    if output:
        check_folder(output)
    summaries = collect(paths)
    one = len(paths) == 1 and [summary.path for summary in summaries] == [Path(paths[0])]
    folder = Path(output or (Path(paths[0]) / "tensorboard" if one else "tensorboard"))
    check_folder(folder)
    require_text(folder, "TensorBoard")
    if one:
        tracked = track(summaries[0], with_attention=True)
        which, counts = "", write_events(TensorBoard(), tracked, folder)
    else:
        runs, counts = export_many(TensorBoard(), summaries, folder, with_attention)
        which = f"{runs} runs, "
    return f"{folder}: {which}" + ", ".join(f"{count} {kind}" for kind, count in counts.items())


def parse_options(arguments):
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Writes runs as TensorBoard event files; look at them with `tensorboard --logdir "
        "LOGDIR`. Made again, they replace those of the call before. Of many runs, the HParams tab shows the settings in "
        "which they differ beside their best and last validation loss.",
        epilog="Exit codes: 0 written, 2 usage or no package tensorboard, 3 a file is missing, damaged or of another "
        "program, 130 interrupted (Ctrl-C). Of many runs, those that are damaged or have no row yet are left out, and named.")
    parser.add_argument("runs", metavar="RUN", nargs="+", type=path_name,
                        help="run directory, also of a run that is still training, or a folder with such")
    parser.add_argument("-o", "--output", metavar="LOGDIR", type=path_name,
                        help="folder of the events (default: RUN/tensorboard; of many runs: tensorboard)")
    parser.add_argument("--attention", action="store_true",
                        help="of many runs, too: attention maps and head statistics, which one RUN always has")
    return parser.parse_args(arguments)


def main(arguments=None) -> int:
    """The command; returns its exit code."""

    def work():
        options = parse_options(arguments)
        print(export(options.runs, options.output, options.attention))

    return run_command(COMMAND, work)


if __name__ == "__main__":
    sys.exit(main())
