# SPDX-License-Identifier: Apache-2.0
"""dekoder-wandb: runs as the directories that W&B writes offline, for `wandb sync`: settings as configuration, numbers as
history by step with time of day, facts and the best loss in the summary, files.

A directory is made aside and renamed: it is whole or not there. The file EXPORT in it says what it was made of, so that one
that is still right stays, with the mark that `wandb sync` leaves in it.
"""
from __future__ import annotations

import argparse
import errno
import hashlib
import json
import logging
import os
import shutil
import struct
import sys
import tempfile
from collections import Counter
from pathlib import Path

from ..errors import RunError, run_command
from ..files import check_folder, make_folder, path_name, require_text
from .collect import collect
from .tracked_run import export_runs, missing_tracker

COMMAND = "dekoder-wandb"
EXPORT = "dekoder-export"
BLOCK = 32768
FRAME = struct.Struct("<IHB")  # checksum, length, kind
CONTINUED = (3, 4)  # kinds of a frame that goes on with the record of the one before


def load_wandb():
    """The wandb package, as if nobody had set it up: no variables of another run, no reports to its makers. Raises
    MissingPackage."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    logging.raiseExceptions = False  # where its log cannot be written, the data cannot either: is_whole tells
    try:
        import wandb
    except ImportError as error:
        raise missing_tracker("wandb", "wandb", error) from error
    return wandb


def content_of(tracked, project) -> str:
    """What a run's directory is made of, as text of one line: equal for equal directories."""
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in tracked.artifacts]
    return json.dumps([project, tracked.digest(), tracked.facts, *files])


def content_in(directory):
    """The content_of that a directory was made of; None where it is not known."""
    try:
        return (directory / EXPORT).read_text()
    except (OSError, UnicodeDecodeError):
        return None


def write_offline_run(wandb, tracked, scratch, project) -> Path:
    """Has a run's directory written below `scratch`; returns its path. It is complete when the package has ended."""
    settings = wandb.Settings(mode="offline", root_dir=scratch, symlink=False, silent=True, console="off", disable_git=True,
                              disable_job_creation=True, save_code=False, x_disable_meta=True, x_disable_stats=True,
                              x_disable_machine_info=True, x_save_requirements=False)
    config = {}
    for key, value in tracked.summary.settings.items():
        section, _, name = key.partition(".")
        config.setdefault(section, {})[name] = value
    run = wandb.init(id=tracked.id, name=tracked.name, project=project, config=config, settings=settings)
    for step, seconds, metrics in tracked.rows:
        run.log({**metrics, "_timestamp": seconds}, step=step)
    run.summary.update(tracked.facts)
    for path in tracked.artifacts:
        shutil.copy(path, run.dir)
        run.save(os.path.join(run.dir, path.name), base_path=run.dir, policy="now")
    written = Path(run.dir).parent
    run.finish(exit_code=int(tracked.summary.state == "failed"))
    return written


def place(written, content, earlier, folder):
    """Moves a directory to the folder, in place of earlier ones. Raises OSError."""
    if not any(map(is_whole, written.glob("*.wandb"))):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for name in ("logs", "tmp"):  # of the package itself
        shutil.rmtree(written / name, ignore_errors=True)
    (written / EXPORT).write_text(content)
    for directory in earlier:
        shutil.rmtree(directory)
    written.rename(folder / written.name)


def is_whole(path) -> bool:
    """Whether the last record of a file of W&B says that its run has ended: the package says nothing of a disk that was
    full. Records are framed as in LevelDB's logs
    (https://github.com/google/leveldb/blob/main/doc/log_format.md), behind a header as long as that of a frame."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record
    data = path.read_bytes()
    at, record = FRAME.size, b""
    while at + FRAME.size <= len(data):
        if BLOCK - at % BLOCK < FRAME.size:  # no frame begins that late in a block
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = FRAME.unpack_from(data, at)
        at += FRAME.size + length
        record = (record if kind in CONTINUED else b"") + data[at - length:at]
    try:
        return Record.FromString(record).WhichOneof("record_type") == "exit"
    except DecodeError:  # cut
        return False


def export(paths, output, project) -> str:
    """Exports runs; returns the line that says so. Raises RunError and MissingPackage."""
    folder = Path(output)
    check_folder(folder)
    require_text(folder, "W&B")
    wandb = load_wandb()
    summaries = collect(paths)
    outcomes, written = Counter(), []
    try:
        make_folder(folder)
        with tempfile.TemporaryDirectory(prefix=".dekoder-", dir=folder.absolute()) as scratch:
            os.environ.update((f"WANDB_{kind}_DIR", scratch) for kind in ("CACHE", "CONFIG", "DATA"))  # not in the home

            def put(tracked):
                content = content_of(tracked, project)
                earlier = sorted(folder.glob(f"offline-run-*-{tracked.id}"))
                if content in map(content_in, earlier):
                    outcomes["as before"] += 1
                    return
                outcomes["changed" if earlier else "new"] += 1
                written.append((write_offline_run(wandb, tracked, scratch, project), content, earlier))

            try:
                export_runs(COMMAND, summaries, put)
            finally:
                wandb.teardown()
            for directory in written:
                place(*directory, folder)
    except wandb.Error as error:
        raise RunError(f"{folder}: W&B's package fails: {error}; free some space, choose another -o, or give another version "
                       "of it") from error
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}; free some space or choose another "
                       "-o") from error
    return f"{output}: project {project}: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())


def parse_options(arguments):
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Writes runs as W&B's offline directories, without account, server or network; later, "
        "where there is one: `wandb sync FOLDER/offline-run-*`. Made again, directories of runs that have changed are "
        "replaced, under the same id, and the others stay as they are.",
        epilog="Exit codes: 0 written, 2 usage or no package wandb, 3 a file is missing, damaged or of another program, 130 "
        "interrupted (Ctrl-C). "
        "Runs that are damaged or have no row yet are left out, and named.")
    parser.add_argument("runs", metavar="DIR", nargs="+", type=path_name, help="run directory, or a folder with such")
    parser.add_argument("-o", "--output", metavar="FOLDER", type=path_name, default="wandb",
                        help="folder of the directories (default: wandb)")
    parser.add_argument("--project", metavar="NAME", type=path_name, default="dekoder",
                        help="W&B project (default: dekoder)")
    return parser.parse_args(arguments)


def main(arguments=None) -> int:
    """The command; returns its exit code."""

    def work():
        options = parse_options(arguments)
        print(export(options.runs, options.output, options.project))

    return run_command(COMMAND, work)


if __name__ == "__main__":
    sys.exit(main())
