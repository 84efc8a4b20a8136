# SPDX-License-Identifier: Apache-2.0
"""The commands as they are started. Nothing but Python itself is loaded before run_command watches, so that whatever is
missing or wrong ends in one line."""
from __future__ import annotations

import _signal  # part of Python itself, where `signal` takes milliseconds to load

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # else it is ignored, as behind nohup
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # Ctrl-C ends the process, without a trace, until run_command watches

import importlib  # noqa: E402
import os  # noqa: E402

from .errors import catch_interrupts, run_command  # noqa: E402

MODULES = {"dekoder-report": "report", "dekoder-figures": "figures", "dekoder-tensorboard": "tensorboard_export",
           "dekoder-compare": "compare", "dekoder-watch": "watch", "dekoder-runs": "runs.command", "dekoder-sweep": "sweep.command",
           "dekoder-mlflow": "runs.mlflow_export", "dekoder-wandb": "runs.wandb_export"}
DRAW = ("dekoder-figures", "dekoder-tensorboard")  # with matplotlib


def start(name) -> int:
    """Runs the command of that name with the words of the command line; returns its exit code."""

    def body():
        catch_interrupts()
        if name in DRAW:
            give_matplotlib_a_folder()
        return importlib.import_module(f".{MODULES[name]}", __package__).main()

    return run_command(name, body)


def give_matplotlib_a_folder():
    """Matplotlib keeps a cache in the home directory, and does not start where there is none: a temporary folder
    takes its place, for this process."""
    import atexit
    import shutil
    import tempfile
    from pathlib import Path

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
