# SPDX-License-Identifier: Apache-2.0
"""dekoder-sweep SWEEP.yaml FOLDER makes a sweep or adds to it; dekoder-sweep work FOLDER trains its trials; dekoder-sweep status
FOLDER says where it stands."""
from __future__ import annotations

import argparse
import os
import shlex
import sys

from ..errors import RunError, run_command
from ..files import path_name, present
from ..program import Program
from .check import check_with_program, with_unknown_keys
from .definition import DefinitionError, read_definition
from .status import status_json, status_text
from .trial_folder import SweepFolder, made_so_far, make_sweep
from .worker import Worker, launch_words

CODES = "Exit codes: 0 done, 85 (work) saved after a signal or before the job's end: the same command goes on, 2 usage or mistakes in the " \
        "sweep's file, 3 a file is missing, damaged or cannot be written, or trials cannot be trained here, 130 interrupted (Ctrl-C)."


def parse_options(arguments):
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    action = arguments[0] if arguments and arguments[0] in ("work", "status") else ""
    parser = argparse.ArgumentParser(prog=f"dekoder-sweep {action}".strip(), description=_DESCRIPTIONS[action], epilog=CODES)
    if not action:
        parser.add_argument("sweep", metavar="SWEEP.yaml", type=path_name, help="what the sweep is")
    parser.add_argument("folder", metavar="FOLDER", type=path_name, help="the sweep's folder")
    if action == "work":
        parser.add_argument("--launch", metavar="WORDS", type=launch_words, default=os.environ.get("DEKODER_LAUNCH", ""),
                            help="words before `dekoder train`, e.g. 'srun --mpi=pmix -n 4' (default: DEKODER_LAUNCH, or none)")
        parser.add_argument("--backend", choices=("auto", "openmp", "cuda"), help="of dekoder train")
        parser.add_argument("--no-wait", action="store_true",
                            help="end where nothing is free now, while others still train: their results may ask for more")
        parser.add_argument("--again", action="store_true", help="take up failed and stopped trials, too, each once")
    elif action == "status":
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(arguments[1:] if action else arguments)
    options.action = action
    return options


_DESCRIPTIONS = {
    "": "Makes the folder of a sweep: trials of a base configuration with settings from lists and ranges. Again, with a file that has more "
        "trials, values or parameters, adds these to it. `dekoder-sweep work FOLDER` trains them, `dekoder-sweep status FOLDER` says how far "
        "they are.",
    "work": "Trains trials of a sweep one after the other until none is left. Any number of workers, on any machines that see the folder, "
            "share the work. TERM, INT, USR1, USR2, XCPU or HUP: the trial is saved and given back.",
    "status": "Trials of a sweep by state, rungs, the best ones.",
}


def make(options) -> int:
    if not present(options.sweep):
        raise RunError(f"{options.sweep}: there is no such file; expected the YAML file of a sweep, or one of the words work and status before a "
                       "sweep's folder")
    program = Program()
    try:
        definition = read_definition(options.sweep)
    except DefinitionError as error:
        raise with_unknown_keys(error, options.sweep, program) from error
    made_so_far(definition, options.folder)  # before the trials are looked at, which may take minutes
    print(f"dekoder-sweep: {definition.trials} trials; dekoder describe looks at their settings", file=sys.stderr)
    check_with_program(definition, program)
    added = make_sweep(definition, options.folder)
    word = shlex.quote(os.path.join(".", options.folder) if options.folder.startswith("-") else options.folder)
    print(f"{options.folder}: {definition.trials} trials, {added} of them new; next: dekoder-sweep work {word}")
    return 0


def work(options) -> int:
    folder = SweepFolder(options.folder)
    program = Program(options.backend)
    code = Worker(folder, program, options.launch, options.backend, not options.no_wait, options.again).work()
    if code == 0:
        print(status_text(folder), end="")
    else:
        print("dekoder-sweep: saved and given back; the same command goes on", file=sys.stderr)
    return code


def main(arguments=None) -> int:
    """The command; returns its exit code."""

    def body():
        options = parse_options(arguments)
        try:
            if options.action == "status":
                folder = SweepFolder(options.folder)
                print(status_json(folder) if options.json else status_text(folder), end="")
                return 0
            return (work if options.action == "work" else make)(options)
        except DefinitionError as error:
            for line in error.lines:
                print(f"dekoder-sweep: error: {line}", file=sys.stderr)
            return 2

    return run_command("dekoder-sweep", body)


if __name__ == "__main__":
    sys.exit(main())
