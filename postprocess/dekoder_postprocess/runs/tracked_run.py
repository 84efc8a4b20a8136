# SPDX-License-Identifier: Apache-2.0
"""A run as trackers (TensorBoard, MLflow, W&B) take it: its settings, rows of numbers with step and time of day, and facts
about it."""
from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np

from ..errors import MissingPackage, RunError
from ..files import require_file
from ..log_reader import END_OF_TIME, seconds_of_time
from ..run_reader import Run, read_run
from ..visible_text import visible_token
from .run_summary import RunSummary

STEP_METRICS = {"loss": "training/loss", "learning_rate": "training/learning_rate",
                "gradient_norm": "training/gradient_norm", "tokens_per_second": "training/tokens_per_second"}
EVALUATION_METRICS = {"validation_loss": "loss", "bits_per_byte": "bits_per_byte"}  # below validation/
LAST_LOSS, BEST_LOSS = "validation/loss", "validation/best_loss"
ARTIFACTS = ("config.yaml", "samples.jsonl", "report.html")  # files of a run directory that trackers keep as they are


@dataclass(frozen=True)
class TrackedRun:
    """A run that has a first row. `rows`: (step, seconds since 1970, metric -> finite number), by step."""

    run: Run
    summary: RunSummary
    rows: list

    @property
    def name(self) -> str:
        """As any tracker takes it: what is no text of one line is escaped."""
        return visible_token(self.summary.name, spaces=False)

    @property
    def id(self) -> str:
        """16 hexadecimal digits: the same whenever this run is exported, another for a copy of the folder and for a run
        that --fresh began in it."""
        begun = self.run.starts[0][0].get("time") if self.run.starts else None
        return hashlib.sha256(f"{self.run.path.resolve()}\n{begun}".encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def digest(self, count=None) -> str:
        """Of the settings and the first `count` rows (None: all) without their times."""
        rows = [(step, metrics) for step, _, metrics in self.rows[:count]]
        return hashlib.sha256(json.dumps([self.summary.settings, rows]).encode()).hexdigest()

    @property
    def artifacts(self) -> list:
        """Paths of those of ARTIFACTS that are there. Raises Refused where one cannot be read."""
        paths = [path for path in (self.run.path / name for name in ARTIFACTS) if path.is_file()]
        for path in paths:
            try:
                require_file(path)
            except RunError as error:
                raise Refused(str(error)) from error
        return paths

    @property
    def facts(self) -> dict:
        """What is known of the run besides its settings and numbers: name -> text or number."""
        summary, begins = self.summary, [begin for begin, _ in self.run.starts]
        values = {"state": summary.state, "path": visible_token(str(self.run.path.resolve()), spaces=False),
                  "created": summary.created and datetime.fromtimestamp(summary.created, timezone.utc).isoformat(),
                  **{key: ", ".join(dict.fromkeys(begin[key] for begin in begins if begin.get(key)))
                     for key in ("host", "job")},
                  "best_step": summary.best_step, "wall_seconds": summary.seconds,
                  "effective_time": summary.effective_time, "restarts": summary.restarts}
        return {key: value for key, value in values.items() if value not in (None, "")}


class Refused(RunError):
    """A tracker does not take what stands in a run. It takes other runs."""


def export_runs(command, summaries, put, with_attention=False):
    """Has put(TrackedRun) export the run of each of the summaries. Runs that are damaged, have no row yet or are Refused by put
    are left out: a line on the error stream says so. Every other error of put ends it, as the next run would meet it, too. Raises
    RunError where no run is left."""
    left_out = 0
    for summary in summaries:
        error = None
        try:
            tracked = track(summary, with_attention)
        except RunError as damage:
            error = damage
        else:
            try:
                put(tracked)
            except Refused as refusal:
                error = refusal
        if error:
            left_out += 1
            print(f"{command}: {' '.join(str(error).split())}; left out", file=sys.stderr)
    if left_out == len(summaries):
        raise RunError(f"none of {left_out} runs can be exported")


def track(summary, with_attention=False) -> TrackedRun:
    """Reads a run. Raises RunError where it is damaged or has no row yet."""
    if summary.problem:
        raise RunError(summary.problem)
    run = read_run(summary.path, with_attention)
    if run.last_step is None:
        raise RunError(f"{run.path}/metrics.jsonl: has no row yet; expected a first step; wait for it")
    rows = metric_rows(run)
    if not all(0 <= seconds < END_OF_TIME for _, seconds, _ in rows):
        raise RunError(f"{run.path}/metrics.jsonl: its steps took so long that they end after the year 9999 (by seconds or "
                       "tokens_per_second); expected a time of day; restore the file")
    return TrackedRun(run, summary, rows)


def metric_rows(run) -> list:
    """[(step, seconds since 1970, metric -> number)] by step; numbers that are not finite are left out. Losses on other
    validation tokens than the newest have names of their own, and so has each token file of a mixture. BEST_LOSS is the least
    until that step."""
    rows = defaultdict(dict)
    for column, metric in STEP_METRICS.items():
        for step, value in zip(run.steps["step"].tolist(), run.steps[column].tolist()):
            rows[step][metric] = value
    for step, seconds in zip(run.steps["step"].tolist(), run.seconds):
        rows[step].update((f"seconds/{phase}", np.nan if value is None else value) for phase, value in seconds.items())
    best = defaultdict(lambda: np.nan)
    tags = source_tags(run)
    for i, (step, tokens) in enumerate(zip(run.evaluations["step"].tolist(), run.validation_hashes)):
        group = "validation"
        if tokens != run.validation_hash:
            group += f"_on_{tokens[:12] if tokens else 'unknown'}"
        rows[step].update((f"{group}/{name}", float(run.evaluations[column][i])) for column, name in EVALUATION_METRICS.items())
        for path, source in run.sources[i].items():
            rows[step].update((f"{group}/of_{tags[path]}/{name}", np.nan if source[column] is None else source[column])
                              for column, name in EVALUATION_METRICS.items())
        best[group] = rows[step][f"{group}/best_loss"] = float(np.fmin(best[group], run.evaluations["validation_loss"][i]))
    time = step_times(run)
    return [(step, time(step), {metric: value for metric, value in rows[step].items() if np.isfinite(value)})
            for step in sorted(rows)]


def source_tags(run) -> dict:
    """Token file of a mixture -> a part of a metric's name that every tracker takes, another for each."""
    tags = {}
    for path, name in run.source_names().items():
        tag = re.sub(r"[^A-Za-z0-9_.-]", "_", name.removesuffix(".h5")) or "_"
        while tag in tags.values():
            tag += "_"
        tags[path] = tag
    return tags


@np.errstate(over="ignore", invalid="ignore")  # track looks at what comes out
def step_times(run):
    """A function step -> seconds since 1970. The log itself has no time of day: a step's time is that of the beginning of
    the start that computed it (restarts.jsonl) and what the steps since then took. Without that file the last row has
    the time of the log's last change."""
    steps = np.concatenate([[0.0], run.steps["step"]])
    elapsed = np.concatenate([[0.0], np.cumsum(step_seconds(run))])
    begins = []
    for begin, _ in run.starts:
        if begin.get("time"):
            while begins and begins[-1][0] >= begin["step"]:  # what that start did was computed again
                begins.pop()
            begins.append((begin["step"], seconds_of(begin["time"], run)))
    if not begins:
        begins = [(steps[-1], (run.path / "metrics.jsonl").stat().st_mtime)]

    @np.errstate(over="ignore", invalid="ignore")
    def time(step):
        begin, seconds = next((start for start in reversed(begins) if start[0] < step), begins[0])
        return float(seconds + np.interp(step, steps, elapsed) - np.interp(begin, steps, elapsed))

    return time


def step_seconds(run) -> np.ndarray:
    """Per optimizer step: the sum of its phases, with what was done by period; where the log has none, its tokens by
    tokens/s; 0 where that is not known either."""
    rate = run.steps["tokens_per_second"]
    tokens = np.diff(run.steps["tokens"], prepend=0)
    usable = np.isfinite(rate) & (rate > 0) & (tokens > 0)
    by_rate = np.where(usable, tokens / np.where(usable, rate, 1.0), 0.0)
    by_phase = np.array([sum(value or 0.0 for value in seconds.values()) for seconds in run.seconds])
    return np.where(by_phase > 0, by_phase, by_rate) if len(by_phase) else by_rate


def seconds_of(text, run) -> float:
    """Seconds since 1970 of "2026-11-24T21:40:03.250Z". Raises RunError."""
    try:
        return seconds_of_time(text)
    except ValueError as error:
        raise RunError(f"{run.path}/restarts.jsonl: {text!r} is no time; expected one such as 2026-11-24T21:40:03.250Z; "
                       "restore the file") from error


def differing_settings(summaries) -> dict:
    """key -> run directory -> value, of all settings that are not the same in all runs that have settings; a run that
    has no such setting is left out."""
    summaries = [summary for summary in summaries if summary.settings]
    keys = dict.fromkeys(key for summary in summaries for key in summary.settings)
    columns = {key: {summary.path: summary.settings[key] for summary in summaries if key in summary.settings}
               for key in keys}
    return {key: values for key, values in columns.items()
            if len(values) < len(summaries) or any(value != next(iter(values.values())) for value in values.values())}


def exact_text(value) -> str:
    """A setting's value as YAML has it, a text without quotes: "true", "1e-05", "[1, 2]"."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


ENVIRONMENT = "build/trackers"
"""Where the remedy below makes one: Debian's Python, so that of the toolbox, refuses packages of others beside its own."""


def missing_tracker(package, distribution, error) -> MissingPackage:
    """That a tracker's package cannot be loaded, and how to get it."""
    return MissingPackage(
        f"the Python package {package} cannot be loaded ({error}); install it: in the toolbox python3 -m venv --system-site-packages "
        f"--without-pip {ENVIRONMENT} && python3 -m pip --python {ENVIRONMENT}/bin/python install {distribution}, then "
        f"{ENVIRONMENT}/bin/python postprocess/bin/dekoder-{package} ...; elsewhere pip install {distribution}")
