# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can mend, how a command ends with them, and files and folders for output."""
from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path


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


def output_name(text):
    """The value of -o: an argparse type."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name; expected a file or folder")
    return text


def make_folder(path):
    """Makes a folder for output, with its parents. Raises RunError where the path cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be made or is no folder: {error.strerror}; choose another -o") from error


def write_file(path, content):
    """Writes bytes beside the file that `path` names, through links, and renames: whoever looks sees a whole file.
    Raises RunError where that file cannot be written or is another thing than a file: a folder, a device, a pipe."""
    path = Path(path)
    part = None
    try:
        target = path.resolve()
        if (path.exists() and not path.is_file()) or target.is_symlink():
            raise RunError(f"{path}: is a folder, a device, a pipe or a link to itself; expected a file or a new name; "
                           "choose another -o")
        part = target.with_name(f".dekoder.{os.getpid()}.tmp")
        part.write_bytes(content)
        part.replace(target)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink()
        raise RunError(f"{path}: cannot be written: {getattr(error, 'strerror', error)}; free some space or choose "
                       "another -o") from error
