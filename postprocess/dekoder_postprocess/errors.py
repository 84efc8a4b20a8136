# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can mend, and how a command ends with them."""
from __future__ import annotations

import os
import sys


class RunError(Exception):
    """A file of a run is missing, damaged or of another program. One message: what, where, expected, remedy."""


def run_command(name, body):
    """Runs body(), a command's work, and returns the exit code: 0, or 3 after a RunError, whose message is printed
    as one line on the error stream; 130 after Ctrl-C. Usage errors end in argparse with code 2."""
    try:
        body()
        sys.stdout.flush()
        return 0
    except RunError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: no second error at exit
        return 0


def make_folder(path):
    """Makes a folder for output, with its parents. Raises RunError where the path cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be made or is no folder: {error.strerror}; choose another -o") from error
