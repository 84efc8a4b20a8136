# SPDX-License-Identifier: Apache-2.0
"""The commands as they are started. Nothing but Python itself is loaded before run_command watches, so that whatever is
missing or wrong ends in one line."""
from __future__ import annotations

import atexit
import importlib
import os
import shutil
import tempfile
from pathlib import Path

from .errors import run_command

MODULES = {"dekoder-report": "report", "dekoder-figures": "figures", "dekoder-tensorboard": "tensorboard_export",
           "dekoder-compare": "compare", "dekoder-watch": "watch", "dekoder-runs": "runs.command", "dekoder-sweep": "sweep.command",
           "dekoder-mlflow": "runs.mlflow_export", "dekoder-wandb": "runs.wandb_export"}
DRAW = ("dekoder-figures", "dekoder-tensorboard")  # with matplotlib


def start(name) -> int:
    """Runs the command of that name with the words of the command line; returns its exit code."""

    def body():
        if name in DRAW:
            give_matplotlib_a_folder()
        return importlib.import_module(f".{MODULES[name]}", __package__).main()

    return run_command(name, body)


def give_matplotlib_a_folder():
    """Matplotlib keeps a cache in the home directory, and does not start where there is none: a temporary folder
    takes its place, for this process."""
    if os.environ.get("MPLCONFIGDIR"):
        return
    try:
        usable = os.access(Path.home(), os.W_OK | os.X_OK)
    except RuntimeError:  # neither HOME nor a line in the list of users
        usable = False
    if not usable:
        folder = tempfile.mkdtemp(prefix="dekoder-matplotlib-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["MPLCONFIGDIR"] = folder


def report() -> int:
    return start("dekoder-report")


def figures() -> int:
    return start("dekoder-figures")


def tensorboard() -> int:
    return start("dekoder-tensorboard")


def compare() -> int:
    return start("dekoder-compare")


def watch() -> int:
    return start("dekoder-watch")


def runs() -> int:
    return start("dekoder-runs")


def sweep() -> int:
    return start("dekoder-sweep")


def mlflow() -> int:
    return start("dekoder-mlflow")


def wandb() -> int:
    return start("dekoder-wandb")
