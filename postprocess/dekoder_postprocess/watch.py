# SPDX-License-Identifier: Apache-2.0
"""dekoder-watch RUN [RUN2 ...]: training and validation loss in the terminal, live."""
from __future__ import annotations

import argparse
import contextlib
import curses
import locale
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from .errors import run_command
from .files import path_name
from .program import Program
from .run_watcher import RunWatcher
from .terminal_chart import ASCII, LETTERS, UTF8, Chart, Curves
from .visible_text import visible_token

COLOURS = (curses.COLOR_CYAN, curses.COLOR_YELLOW, curses.COLOR_GREEN, curses.COLOR_MAGENTA, curses.COLOR_RED,
           curses.COLOR_BLUE)  # of the runs, in turn
LEAST_ROWS = 6  # of a chart with its axes
SECONDS = 1.0  # from one look to the next
WIDEST = 1000  # columns, and rows, of a picture


def parse_options(arguments):
    parser = argparse.ArgumentParser(
        prog="dekoder-watch", description="Draws training and validation loss of runs in the terminal, as one curve over "
        "all restarts, renewed every second. Ends with q or Ctrl-C, or when no run goes on or can be gone on with. "
        "Prints one picture and ends where there is no terminal, or one that cannot be drawn on (TERM=dumb).",
        epilog="Exit codes: 0 shown, 2 usage, 3 a file is missing, damaged or of another program, 130 interrupted "
        "(Ctrl-C) before the screen was drawn. NO_COLOR=1: no colours. Characters are ASCII where the locale (LC_ALL, LC_CTYPE, LANG) is none of UTF-8.")
    parser.add_argument("runs", nargs="+", metavar="RUN", type=path_name, help="run directories")
    parser.add_argument("--once", action="store_true", help="print one picture, without colours, and end")
    parser.add_argument("--from", dest="first", metavar="STEP", type=_step, default=0,
                        help="draw from this step on: the losses of the first ones are far above all others")
    options = parser.parse_args(arguments)
    if len(options.runs) > len(LETTERS):
        parser.error(f"watch got {len(options.runs)} runs; expected {len(LETTERS)} at most")
    return options


def _step(text):
    if not (text.isascii() and text.isdigit() and len(text) < 18):
        raise argparse.ArgumentTypeError(f"{text!r} is no step; expected a whole number from 0")
    return int(text)


def duration(seconds) -> str:
    """In the two largest units: "2 d 3 h", "4 min 5 s"."""
    if not seconds < 1e10:
        return "more than 300 years"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    seconds = int(seconds + 0.5)
    first = next((i for i, (_, size) in enumerate(units) if seconds >= size), len(units) - 1)
    words = []
    for name, size in units[first:first + 2]:
        words.append(f"{seconds // size} {name}")
        seconds %= size
    return " ".join(words)


def facts(run, curves, window):
    """What is said of a run, in short texts."""
    status = run.status or {"steps": None, "message": ""}
    steps = status["steps"]
    yield run.state
    yield f"step {run.step:,}" + (f" / {steps:,} ({100 * run.step // steps} %)" if steps else "")
    speed, to_go = run.tokens_per_second(), run.seconds_to_go()
    if speed:
        yield f"{speed:,.0f} tokens/s"
    if to_go is not None:
        yield f"{duration(to_go)} to go"
    losses = curves.losses[max(0, len(curves.losses) - window):]
    losses = losses[np.isfinite(losses)]
    if len(losses):
        yield f"training {losses.mean():.4f}"
    if run.evaluations:
        step, loss, _ = run.evaluations[-1]
        yield f"validation {loss:.4f} at step {step:,}"
    if run.best() and run.best()[0] != run.evaluations[-1][0]:
        yield f"best {run.best()[1]:.4f} at step {run.best()[0]:,}"
    if run.restarts:
        yield f"{len(run.restarts)} restart{'s' * (len(run.restarts) > 1)}"
    if status["message"]:
        yield visible_token(status["message"], spaces=False)


def wrapped(items, width, run):
    """Lines of the items, two spaces between them, further lines indented."""
    lines, line = [], ""
    for item in items:
        if line and len(line) + 2 + len(item) > width:
            lines.append(line)
            line = "  " + item
        else:
            line += ("  " if line else "") + item
    return [[(line[:width], run)] for line in (*lines, line)]


def curves_of(run):
    return Curves(np.array(run.steps, np.int64), drawable(run.losses),
                  np.array([step for step, _, _ in run.evaluations], np.int64),
                  drawable([loss for _, loss, _ in run.evaluations]), run.restarts)


def drawable(losses):
    """As an array; NaN for what is no loss, but would take the whole axis."""
    losses = np.array(losses, float)
    return np.where(np.abs(losses) < 1e6, losses, np.nan)


def picture(runs, width, height, signs, first=0):
    """Lines of the whole picture, as in terminal_chart: what is said of the runs, the legend, the chart, which has
    LEAST_ROWS rows at least. Where there is no room for all that, the legend is left out, then all but one line of
    each run."""
    several = len(runs) > 1
    curves = [curves_of(run) for run in runs]
    chart = Chart(curves, width, LEAST_ROWS, signs, first)
    heads = []
    for place, (run, curve) in enumerate(zip(runs, curves)):
        name = (f"{LETTERS[place]}: " if several else "") + visible_token(run.name, spaces=False)
        heads.append(wrapped([name, *facts(run, curve, chart.window)], width, place))
    said = sum(heads, [])
    below = wrapped(legend(chart, signs, several, any(run.restarts for run in runs)), width, None)
    if len(said) + len(below) + 2 * LEAST_ROWS <= height:
        said += below
    if len(said) + LEAST_ROWS > height:
        said = [head[0] for head in heads]
    if not any(curve.last_step() or len(curve.evaluated) for curve in curves):
        return [*said, [("no step yet", None)]]
    return said + Chart(curves, width, max(height - len(said), LEAST_ROWS), signs, first).lines()


def legend(chart, signs, several, restarts):
    mean = f"mean of {chart.window:,} steps" if chart.window > 1 else "each step"
    if several:
        yield f"a b ... training loss ({mean})"
        yield "A B ... validation loss"
    else:
        yield f"{signs.training} training loss ({mean})"
        yield "o validation loss"
    if restarts:
        yield "a b ... on the axis: restart" if several else f"{signs.restart} restart"


def plain(lines, signs) -> str:
    """Without colours."""
    text = "".join("".join(part for part, _ in line).rstrip() + "\n" for line in lines)
    return text.encode("ascii", "backslashreplace").decode() if signs is ASCII else text


def locale_is_utf8() -> bool:
    """Whether the user's locale says that the terminal shows UTF-8. Python itself puts another in the place of C."""
    try:
        given = dict(pair.partition("=")[::2] for pair in Path("/proc/self/environ").read_text("latin-1").split("\0"))
    except OSError:
        given = os.environ
    name = next((given[key] for key in ("LC_ALL", "LC_CTYPE", "LANG") if given.get(key)), "")
    of_stdout = getattr(sys.stdout, "encoding", None) or ""
    return all("utf8" in text.lower().replace("-", "") for text in (name, of_stdout))


def set_locale():
    """That of the user, by which curses writes; the terminal's is not always among those of this machine."""
    for name in ("", "C.UTF-8"):
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, name)
            if locale.nl_langinfo(locale.CODESET) == "UTF-8":
                return


def terminal_can_be_drawn_on() -> bool:
    """Whether there is a terminal, known here, whose cursor can be moved; says on the error stream if it is not known."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        return False
    name = os.environ.get("TERM", "")
    try:
        curses.setupterm(name or "dumb", sys.stdout.fileno())
    except curses.error:
        print(f"dekoder-watch: TERM={visible_token(name)}: no such terminal is known on this machine: one picture; "
              "TERM=xterm-256color may do for a live one", file=sys.stderr)
        return False
    return curses.tigetstr("cup") is not None


class Screen:
    """The terminal, while it is drawn on."""

    def __init__(self, window, colours):
        self._window = window
        self._styles = {None: curses.A_NORMAL}
        with contextlib.suppress(curses.error):
            curses.curs_set(0)
        if colours and curses.has_colors():
            curses.use_default_colors()
            for place in range(len(LETTERS)):
                curses.init_pair(place + 1, COLOURS[place % len(COLOURS)], -1)
                self._styles[place] = curses.color_pair(place + 1)

    def size(self):
        """Columns and rows."""
        rows, columns = self._window.getmaxyx()
        return columns, rows

    def show(self, lines, signs):
        self._window.erase()
        columns, rows = self.size()
        for row, line in enumerate(lines[:rows]):
            column = 0
            for text, run in line:
                if signs is ASCII:
                    text = text.encode("ascii", "backslashreplace").decode()
                with contextlib.suppress(curses.error):  # the last cell: the cursor cannot go on from it
                    self._window.addnstr(row, column, text, max(columns - column, 0), self._styles.get(run, 0))
                column += len(text)
        self._window.refresh()

    def wait(self, seconds):
        """Until a key is pressed or the size changes, at most so long; returns whether the key was q."""
        begin = time.monotonic()
        self._window.timeout(int(1000 * seconds))
        key = self._window.getch()
        if key == -1 and time.monotonic() - begin < 0.5 * seconds:
            time.sleep(0.1)  # a signal, or a terminal that is gone
        return key in (ord("q"), ord("Q"))


def watch(window, runs, signs, options):
    """Shows the runs until none goes on (returns True) or the user has seen enough (False)."""
    if not os.environ.get("NO_COLOR"):
        with contextlib.suppress(curses.error):
            curses.start_color()
    screen = Screen(window, not os.environ.get("NO_COLOR"))
    looked = None
    while True:
        if looked is None or time.monotonic() - looked >= SECONDS:
            for run in runs:
                run.look()
            looked = time.monotonic()
        screen.show(picture(runs, *screen.size(), signs, options.first), signs)
        if all(run.over for run in runs):
            return True
        if screen.wait(max(0.01, looked + SECONDS - time.monotonic())):
            return False


def live(runs, signs, options) -> bool:
    """As watch(); the terminal is as before then."""
    set_locale()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # by way of what is finally done
    for name in ("LINES", "COLUMNS"):  # curses would take them for the size for ever
        os.environ.pop(name, None)
    window = curses.initscr()  # not curses.wrapper, which starts colours whatever NO_COLOR says
    try:
        curses.noecho()
        curses.cbreak()
        window.keypad(True)
        return watch(window, runs, signs, options)
    except KeyboardInterrupt:
        return False
    finally:
        window.keypad(False)
        curses.nocbreak()
        curses.echo()
        curses.endwin()


def main(arguments=None) -> int:
    """The command; returns its exit code."""

    def work():
        options = parse_options(arguments)
        program = Program()
        runs = [RunWatcher(path, program) for path in options.runs]
        for run in runs:
            run.look()
        signs = UTF8 if locale_is_utf8() else ASCII
        if not options.once and not all(run.over for run in runs) and terminal_can_be_drawn_on():
            if not live(runs, signs, options):
                return
        columns, rows = (min(size, WIDEST) for size in shutil.get_terminal_size())  # COLUMNS and LINES may say anything
        print(plain(picture(runs, columns, rows - 1, signs, options.first), signs), end="")

    return run_command("dekoder-watch", work)


if __name__ == "__main__":
    sys.exit(main())
