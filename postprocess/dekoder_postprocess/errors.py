# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can mend, and the one place where a command's errors become a line and an exit code."""
from __future__ import annotations

import codecs
import os
import signal
import sys
import traceback


class RunError(Exception):
    """A file of a run is missing, damaged or of another program. One message: what, where, expected, remedy."""


class MissingPackage(Exception):
    """A Python package that one command alone needs cannot be loaded. One message, which says how to install it."""


ANY_TEXT = "dekoder-any-text"
"""Of str.encode: any text can be written. The bytes of a file's name that are no text pass through as they are, what else is
half a character is spelled, \\ud800."""


def _any_text(error):
    bad = error.object[error.start:error.end]
    return b"".join(c.encode("ascii", "surrogateescape" if "\udc80" <= c <= "\udcff" else "backslashreplace") for c in bad), error.end


codecs.register_error(ANY_TEXT, _any_text)


_interrupted = False  # whether Ctrl-C was caught


def catch_interrupts():
    """From now on Ctrl-C raises KeyboardInterrupt, where it is not ignored, and run_command tells of it, whatever becomes of that:
    packages that are being loaded make another error of it."""
    def interrupted(*_):
        global _interrupted
        _interrupted = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupted)


def run_command(name, body):
    """Runs body(), a command's work, and returns the exit code: what body() returns, 0 for None. Usage errors end in
    argparse with code 2. Everything else is printed as one line on the error stream and gives 2 (a Python package is
    missing), 3 (RunError, no memory, a stream or file that cannot be written), 130 (Ctrl-C) or 1 (a fault of the command itself;
    the whole trace is shown where the environment variable DEKODER_TRACEBACK is set)."""
    for stream in (sys.stdout, sys.stderr):  # None where it was closed
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ANY_TEXT if stream.encoding.lower() == "utf-8" else "backslashreplace")
    try:
        code = body()
        if sys.stdout is not None:
            sys.stdout.flush()
        return code or 0
    except RunError as error:
        return _said(name, error, 3)
    except MissingPackage as error:
        return _said(name, error, 2)
    except ModuleNotFoundError as error:
        return _said(name, f"needs the Python package {error.name}; run it in the toolbox (bash jobs/toolbox {name} ...) "
                           f"or install it with its packages ({how_to_install(error.name, name)})", 2)
    except KeyboardInterrupt:
        return _said(name, "interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: no second error at exit
        return 0
    except MemoryError:
        return _said(name, "out of memory; give fewer runs, or a machine with more", 3)
    except OSError as error:
        where = error.filename if error.filename is not None else "standard output or another file"
        if isinstance(where, bytes):
            where = os.fsdecode(where)
        return _said(name, f"{where}: {error.strerror or error}; check the disk, the permissions and the path", 3)
    except Exception as error:  # pylint: disable=broad-except
        if os.environ.get("DEKODER_TRACEBACK"):
            traceback.print_exc()
        last = traceback.extract_tb(error.__traceback__)[-1]
        return _said(name, f"internal error (please report it): {type(error).__name__}: {error} "
                           f"({os.path.basename(last.filename)}:{last.lineno})", 1)


def how_to_install(package, command) -> str:
    """The line that installs a missing Python package, which `command` needs, with the others of this one."""
    sampling = "sweep" if command == "dekoder-sweep" else "importance"  # what brings scipy there
    extra = {"sklearn": "importance", "optuna": "sweep", "scipy": sampling}.get((package or "").partition(".")[0])
    return f'pip install "./postprocess[{extra}]"' if extra else "pip install ./postprocess"


def _said(name, message, code):
    """Prints the message as one line, and returns the code."""
    if _interrupted:
        message, code = "interrupted", 130
    print(f"{name}: {' '.join(str(message).split())}", file=sys.stderr)
    return code
