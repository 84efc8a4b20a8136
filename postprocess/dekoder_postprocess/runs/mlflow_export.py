# SPDX-License-Identifier: Apache-2.0
"""dekoder-mlflow: runs into MLflow's file store, or wherever else an MLflow tracking URI leads: settings as parameters,
numbers as metrics with step and time of day, facts as tags, files as artifacts.

Two tags of the experiment belong to each run directory: dekoder.<id> has the MLflow run that it became, and dekoder.<id>.rows
how many of its rows are there, with a digest of settings and rows. An export of a run that has grown adds its new rows; where
the settings or the earlier rows are others by now, as after a restart that changed them, the MLflow run is deleted and another
takes its place. So it is after an export that was killed: what a tag says is done is done.
"""
from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections import Counter
from functools import lru_cache
from pathlib import Path

from ..errors import RunError, run_command
from ..files import check_folder, path_name, require_text
from .collect import collect
from .tracked_run import Refused, exact_text, export_runs, missing_tracker

COMMAND = "dekoder-mlflow"
BATCH = 1000  # metrics that MLflow takes in one call
SMALL_BATCH = 100  # parameters, or tags
BEGUN = "begun"  # in place of a run: it is being made
STATES = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED"}  # others: KILLED, ended before its end


def load_mlflow():
    """The mlflow package, which may be mlflow-skinny, without its reports of usage to its makers, and with its file store,
    which newer ones refuse otherwise. Raises MissingPackage."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    try:
        import mlflow
        import mlflow.entities
    except ImportError as error:
        raise missing_tracker("mlflow", "mlflow-skinny", error) from error
    return mlflow


class Experiment:
    """An MLflow experiment, made where there is none of that name. `folder`: of the file store, None where it is another."""

    def __init__(self, mlflow, uri, name, folder):
        self._entities = mlflow.entities
        self._error = mlflow.exceptions.MlflowException
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage != "active":
            raise RunError(f"{uri}: the experiment {name} is deleted there; restore it (mlflow experiments restore "
                           f"-x {found.experiment_id}) or choose another --experiment")
        self._id = self._client.create_experiment(name) if found is None else found.experiment_id
        self._folder = folder and folder / self._id
        self._tags = {} if found is None else dict(found.tags)

    def put(self, tracked) -> str:
        """Exports a run (TrackedRun): "new", "changed", or "as before". Raises Refused, with nothing of a new run left, where MLflow
        does not take a name or value of it."""
        artifacts = tracked.artifacts
        state = STATES.get(tracked.summary.state, "KILLED")
        key = f"dekoder.{tracked.id}"
        run, count, outcome = self._earlier(tracked, key)
        # The newest step of a run that goes on may get an evaluation yet.
        rows = tracked.rows[:max(count, len(tracked.rows) - (state == "RUNNING"))]
        if count < len(rows):
            self._tag(f"{key}.rows", "incomplete")
        made = run is None
        if made:
            self._tag(key, BEGUN)
            run = self._client.create_run(self._id, start_time=_milliseconds(tracked.rows[0][1]), run_name=tracked.name)
            run = run.info.run_id
            self._tag(key, run)
        elif count < len(rows):
            outcome = "changed"
        try:
            self._fill(run, tracked, rows[count:], made)
        except self._error as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            if made:
                self._remove(run)
            raise Refused(f"{tracked.run.path}: MLflow does not take what stands in it: {error}; expected what dekoder wrote; mend "
                          "the name or value in config.yaml or metrics.jsonl") from error
        for path in artifacts:
            self._client.log_artifact(run, str(path))
        if state != "RUNNING":
            self._client.set_terminated(run, state, _milliseconds(rows[-1][1]))
        self._tag(f"{key}.rows", f"{len(rows)} {tracked.digest(len(rows))}")
        return outcome

    def _fill(self, run, tracked, rows, with_settings):
        """Logs what MLflow keeps by name."""
        if with_settings:
            self._log(run, SMALL_BATCH, params=[self._entities.Param(name, exact_text(value))
                                                for name, value in tracked.summary.settings.items()])
        self._log(run, BATCH, metrics=[self._entities.Metric(name, value, _milliseconds(seconds), step)
                                       for step, seconds, metrics in rows for name, value in metrics.items()])
        self._log(run, SMALL_BATCH, tags=[self._entities.RunTag(name, str(value)) for name, value in tracked.facts.items()])

    def _tag(self, key, value):
        self._client.set_experiment_tag(self._id, key, value)
        self._tags[key] = value

    def _earlier(self, tracked, key):
        """(MLflow's run to go on with or None, rows that it has, outcome)."""
        run = self._tags.get(key)
        if run is None:
            return None, 0, "new"
        if not re.fullmatch("[0-9a-f]{32}", run):
            self._remove_begun(tracked.name)
            return None, 0, "new"
        rows = re.fullmatch("([0-9]+) ([0-9a-f]{64})", self._tags.get(f"{key}.rows", ""))
        try:
            self._client.update_run(run, "RUNNING")
        except self._error:  # somebody has deleted it
            return None, 0, "new"
        except (AttributeError, KeyError, TypeError):  # its record was cut, as the file store writes that in place
            if self._folder is None:
                raise
            shutil.rmtree(self._folder / run)
            return None, 0, "changed"
        if rows and rows.group(2) == tracked.digest(int(rows.group(1))):
            return run, int(rows.group(1)), "as before"
        self._client.delete_run(run)
        return None, 0, "changed"

    def _remove_begun(self, name):
        """Removes the run of that name that a killed export began: one without a name in the tags, and with nothing in it."""
        for path in self._folder.iterdir() if self._folder else ():
            if path.is_dir() and os.listdir(path) == ["meta.yaml"]:
                shutil.rmtree(path)
        for run in self._client.search_runs([self._id], max_results=50000):
            if run.info.run_name == name and run.info.run_id not in self._tags.values() and not (run.data.params or
                                                                                                run.data.metrics):
                self._client.delete_run(run.info.run_id)

    def _remove(self, run):
        """Deletes a run; of a file store also its files, which would be kept otherwise."""
        self._client.delete_run(run)
        if self._folder:
            shutil.rmtree(self._folder / run)

    def _log(self, run, size, **kind):
        """Logs what the only keyword has, in parts of that size."""
        for name, values in kind.items():
            for first in range(0, len(values), size):
                self._client.log_batch(run, **{name: values[first:first + size]})


def _milliseconds(seconds) -> int:
    return round(1000 * seconds)


def export(paths, output, name) -> str:
    """Exports runs; returns the line that says so. Raises RunError and MissingPackage."""
    folder, uri = None, output
    if "://" not in output:
        check_folder(output)
        require_text(output, "MLflow")
        folder = Path(output).absolute()
        uri = folder.as_uri()
    mlflow = load_mlflow()
    summaries = collect(paths)
    outcomes = Counter()
    experiment = lru_cache(lambda: Experiment(mlflow, uri, name, folder))  # made where there is a run for it
    try:
        export_runs(COMMAND, summaries, lambda tracked: outcomes.update([experiment().put(tracked)]))
    except mlflow.exceptions.MlflowException as error:
        raise RunError(f"{uri}: MLflow refuses it: {error}; check the folder, free some space or choose another -o") from error
    return f"{output}: experiment {name}: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())


def parse_options(arguments):
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Writes runs into MLflow's file store, without a server: settings as parameters, numbers "
        "as metrics, facts as tags, configuration, samples and report as artifacts. Made again, runs that have grown are "
        "added to and the others stay as they are.",
        epilog="Exit codes: 0 written, 2 usage or no package mlflow, 3 a file is missing, damaged or of another program, 130 "
        "interrupted (Ctrl-C). "
        "Runs that are damaged, have no row yet or are refused by MLflow are left out, and named.")
    parser.add_argument("runs", metavar="DIR", nargs="+", type=path_name, help="run directory, or a folder with such")
    parser.add_argument("-o", "--output", metavar="MLRUNS", type=path_name, default="mlruns",
                        help="folder of the file store, or a tracking URI such as sqlite:///mlflow.db or "
                        "http://server:5000 (default: mlruns)")
    parser.add_argument("--experiment", metavar="NAME", type=path_name, default="dekoder",
                        help="MLflow experiment (default: dekoder)")
    return parser.parse_args(arguments)


def main(arguments=None) -> int:
    """The command; returns its exit code."""

    def work():
        options = parse_options(arguments)
        print(export(options.runs, options.output, options.experiment))

    return run_command(COMMAND, work)


if __name__ == "__main__":
    sys.exit(main())
