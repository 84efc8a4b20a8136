# SPDX-License-Identifier: Apache-2.0
"""dekoder-watch in real terminals: in one of this test's own (pty), whose every byte is seen, and in tmux, which shows what a
user sees; and without one."""
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from synthetic_run import write_run  # noqa: E402

WATCH = [sys.executable, "-B", str(Path(__file__).resolve().parents[1] / "bin/dekoder-watch")]
PATIENCE = 60  # seconds for what takes one or two on an idle machine
LEFT_OUT = ("NO_COLOR", "LC_ALL", "LC_CTYPE", "LANG", "COLUMNS", "LINES", "TMUX", "DEKODER_PROGRAM")
ENVIRONMENT = {**{key: value for key, value in os.environ.items() if key not in LEFT_OUT}, "LC_ALL": "C.UTF-8",
               "TERM": "xterm-256color"}
COLOUR = re.compile(rb"\x1b\[[\d;]*3[1-8][\d;]*m")
ESCAPE = b"\x1b"


def resumable(run, steps=400):
    (run / "status").write_text(f"state: resumable\nstep: 10\nsteps: {steps}\nmessage: \n")
    return run


def finish(run):
    (run / "status.new").write_text("state: finished\nstep: 400\nsteps: 400\nmessage: \n")
    (run / "status.new").replace(run / "status")


class Runs(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def run_of(self, name="run", **options):
        """A run that is not finished."""
        options = {"steps": 100, "restarts": (), **options}
        return resumable(write_run(self.folder / name, attention=False, captured=(), phases=True, **options).path)

    def wait_for(self, condition, what):
        end = time.monotonic() + PATIENCE
        while not (found := condition()):
            self.assertLess(time.monotonic(), end, f"waited in vain for {what() if callable(what) else what}")
            time.sleep(0.05)
        return found


class Pty:
    """A terminal and the command in it."""

    def __init__(self, test, words, columns=80, rows=24, **environment):
        self.test = test
        self.own, self.its = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.its)
        self.read = b""
        self.process = subprocess.Popen(words, stdin=self.its, stdout=self.its, stderr=self.its, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), env={**ENVIRONMENT, **environment})
        test.addCleanup(self.close)

    def resize(self, columns, rows):
        fcntl.ioctl(self.own, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for descriptor in (self.own, self.its):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def take(self):
        """Reads what has come."""
        while select.select([self.own], [], [], 0)[0]:
            self.read += os.read(self.own, 65536)
        return self.read

    def expect(self, words, after=0):
        self.test.wait_for(lambda: words in self.take()[after:], lambda: f"{words!r} in {self.read[after:]!r}")

    def ended(self):
        """Its exit code; all output is in `read`."""
        self.test.wait_for(lambda: self.take() is not None and self.process.poll() is not None, lambda: f"its end: {self.read!r}")
        self.take()
        return self.process.returncode


class InATerminal(Runs):
    def test_keys_and_signals_end_it(self):
        """The terminal is as before: its settings, its screen, its cursor."""
        run = self.run_of()
        for end, code in ((b"q", 0), (b"\x03", 0), (signal.SIGINT, 0), (signal.SIGTERM, 143)):
            terminal = Pty(self, [*WATCH, str(run)])
            terminal.expect(b"resumable")
            terminal.expect("\u2524".encode())
            self.assertIsNone(terminal.process.poll())
            if isinstance(end, bytes):
                os.write(terminal.own, end)
            else:
                terminal.process.send_signal(end)
            self.assertEqual(terminal.ended(), code, terminal.read)
            self.assertEqual(termios.tcgetattr(terminal.its), terminal.before, end)
            self.assertIn(b"\x1b[?1049h", terminal.read)
            self.assertGreater(terminal.read.rfind(b"\x1b[?1049l"), terminal.read.rfind(b"\x1b[?1049h"))
            self.assertGreater(terminal.read.rfind(b"\x1b[?25h"), terminal.read.rfind(b"\x1b[?25l"))  # the cursor
            self.assertNotIn(b"Traceback", terminal.read)
            terminal.close()

    def test_colours(self):
        run = self.run_of()
        for environment, coloured in (({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "vt100"}, False)):
            terminal = Pty(self, [*WATCH, str(run)], **environment)
            terminal.expect(b"resumable")
            os.write(terminal.own, b"q")
            self.assertEqual(terminal.ended(), 0)
            self.assertEqual(bool(COLOUR.search(terminal.read)), coloured, (environment, terminal.read))
            terminal.close()

    def test_ascii_without_a_locale_of_utf8(self):
        run = self.run_of()
        for locale in ({"LC_ALL": "C"}, {"LC_ALL": ""}, {"LC_ALL": "", "LANG": "POSIX"}, {"LC_ALL": "", "LANG": "en_US.ISO-8859-1"}):
            terminal = Pty(self, [*WATCH, str(run)], **locale)
            terminal.expect(b"resumable")
            os.write(terminal.own, b"q")
            self.assertEqual(terminal.ended(), 0)
            self.assertTrue(terminal.read.isascii(), (locale, terminal.read))
            terminal.close()
        terminal = Pty(self, [*WATCH, str(run)], LC_ALL="", LANG="xx_XX.UTF-8")  # the user's, but not this machine's
        terminal.expect("\u2524".encode())

    def test_terminals_that_cannot_be_drawn_on(self):
        """One picture, without an escape sequence."""
        run = self.run_of()
        for name in ("dumb", "", "no-such-terminal"):
            terminal = Pty(self, [*WATCH, str(run)], TERM=name)
            self.assertEqual(terminal.ended(), 0)
            self.assertNotIn(ESCAPE, terminal.read)
            self.assertIn(b"resumable", terminal.read)
            self.assertEqual(b"TERM=xterm-256color may do" in terminal.read, name == "no-such-terminal")
            terminal.close()

    def test_ends_by_itself(self):
        """When the last of the runs has finished; the last picture stays."""
        runs = [self.run_of("one"), self.run_of("two")]
        terminal = Pty(self, [*WATCH, *map(str, runs)])
        terminal.expect(b"resumable")
        finish(runs[0])
        terminal.expect(b"finished")
        time.sleep(1.5)
        self.assertIsNone(terminal.process.poll())
        finish(runs[1])
        self.assertEqual(terminal.ended(), 0)
        last = terminal.read[terminal.read.rfind(b"\x1b[?1049l"):].decode()
        self.assertEqual(len(re.findall(r"\r\n[ab]: \S+  finished", "\r\n" + last[last.index("a: "):])), 2, last)
        self.assertIn("\u2524", last)

    def test_a_log_that_is_damaged_meanwhile(self):
        run = self.run_of()
        terminal = Pty(self, [*WATCH, str(run)])
        terminal.expect(b"resumable")
        with (run / "metrics.jsonl").open("a") as file:
            file.write("odd\n")
        self.assertEqual(terminal.ended(), 3)
        last = terminal.read[terminal.read.rfind(b"\x1b[?1049l"):]
        self.assertIn(b"dekoder-watch: ", last)
        self.assertIn(b"not a row of a log", last)
        self.assertEqual(termios.tcgetattr(terminal.its), terminal.before)


class WithoutATerminal(Runs):
    def start(self, *words, **environment):
        return subprocess.run([*WATCH, *map(str, words)], capture_output=True, stdin=subprocess.DEVNULL, timeout=PATIENCE,
                              env={**ENVIRONMENT, **environment})

    def test_piped(self):
        """One picture of plain text, 80 by 24 or as COLUMNS says."""
        run = self.run_of()
        for environment, width in (({}, 80), ({"COLUMNS": "40"}, 40), ({"LC_ALL": "C"}, 80), ({"COLUMNS": "99999999999"}, 1000)):
            done = self.start(run, **environment)
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            self.assertNotIn(ESCAPE, done.stdout)
            lines = done.stdout.decode().splitlines()
            self.assertLessEqual(len(lines), 24)
            self.assertLessEqual(max(map(len, lines)), width)
            self.assertGreater(max(map(len, lines)), width - 12)
            self.assertEqual(done.stdout.isascii(), "LC_ALL" in environment)

    def test_once(self):
        terminal = Pty(self, [*WATCH, "--once", str(self.run_of())])
        self.assertEqual(terminal.ended(), 0)
        self.assertNotIn(ESCAPE, terminal.read)
        self.assertIn(b"resumable", terminal.read)

    def test_a_reader_that_goes_away(self):
        run = self.run_of()
        done = subprocess.run(["bash", "-c", 'set -o pipefail; "$@" | true', "-", *WATCH, str(run)], capture_output=True, env=ENVIRONMENT)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_usage(self):
        run = self.run_of()
        for words, said in (((), b"required: RUN"), (("--from", "-1", run), b"--from"), (("--from", "x", run), b"'x' is no step"),
                            ((run,) * 27, b"got 27 runs"), (("",), b"an empty name")):
            done = self.start(*words)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn(said, done.stderr)
        done = self.start(self.folder / "none")
        self.assertEqual((done.returncode, done.stderr.count(b"\n"), done.stdout), (3, 1, b""))
        self.assertIn(b"there is no such run directory", done.stderr)
        self.assertIn(b"or wait until the run has begun", done.stderr)


@unittest.skipUnless(shutil.which("tmux"), "needs tmux")
class InTmux(Runs):
    def setUp(self):
        super().setUp()
        self.socket = str(self.folder / "tmux")

    def tmux(self, *words):
        return subprocess.run(["tmux", "-u", "-S", self.socket, "-f", "/dev/null", *words], capture_output=True, text=True, check=True,
                              env=ENVIRONMENT).stdout

    def start(self, *runs, columns=80, rows=24):
        self.tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), "-s", "watch", *WATCH, *map(str, runs))
        self.addCleanup(self.tmux, "kill-server")
        self.tmux("set-option", "-g", "remain-on-exit", "on")

    def screen(self):
        return self.tmux("capture-pane", "-p", "-t", "watch")

    def see(self, pattern):
        """Waits until the screen has it; returns the screen's lines."""
        seen = []

        def look():
            seen.append(self.screen())
            return re.search(pattern, seen[-1])

        self.wait_for(look, lambda: f"{pattern!r} in\n{seen[-1]}")
        return seen[-1].splitlines()

    def test_grows_and_is_cut_back(self):
        run = self.run_of(steps=100)
        log = run / "metrics.jsonl"
        lines = log.read_text().splitlines(True)
        cut = next(i for i, line in enumerate(lines) if json.loads(line)["step"] == 41)
        log.write_text("".join(lines[:len(lines) // 2]))
        self.start(run)
        self.see("step 50 / 400 ")
        log.write_text("".join(lines))
        self.see("step 100 / 400 ")
        with log.open("r+") as file:
            file.truncate(sum(map(len, lines[:cut])))
            file.seek(0, os.SEEK_END)
            file.write('{"step":40,"resumed":true}\n')
        seen = self.see("step 40 / 400 ")
        self.assertIn("1 restart", " ".join(seen))
        axis = next(line for line in seen if line.startswith(" " * 7 + "\u2514"))
        self.assertEqual(axis[-1], "\u25b2")  # at the newest step
        with log.open("a") as file:
            file.writelines(lines[cut:])
        seen = self.see("step 100 / 400 ")
        axis = next(line for line in seen if line.startswith(" " * 7 + "\u2514"))
        self.assertEqual(axis.index("\u25b2"), 8 + round(0.4 * (2 * 72 - 1)) // 2)

    def test_sizes(self):
        """The picture fills a window of any size, as soon as that changes."""
        self.start(self.run_of("one", restarts=(30,)), self.run_of("two", seed=3))
        for columns, rows in ((80, 24), (40, 20), (132, 50), (40, 12), (20, 6), (80, 24)):
            self.tmux("resize-window", "-t", "watch", "-x", str(columns), "-y", str(rows))
            seen = []

            def fits():
                seen[:] = self.screen().splitlines()
                axis = [line for line in seen if line.startswith(" " * 7 + "\u2514")]
                filled = rows < 8 or (len(axis) == 1 and len(axis[0]) == columns and seen.index(axis[0]) == rows - 2)
                return filled and seen[0].startswith("a: ")

            self.wait_for(fits, lambda: f"{columns} by {rows}:\n" + "\n".join(seen))

    def test_two_runs_in_colours(self):
        self.start(self.run_of("one"), self.run_of("two", seed=3))
        self.see("b: .*two")
        coloured = self.wait_for(lambda: COLOUR.search(self.tmux("capture-pane", "-p", "-e", "-t", "watch").encode()), "a colour")
        self.assertTrue(coloured)
        text = self.tmux("capture-pane", "-p", "-e", "-t", "watch")
        for place, colour in (("a", 36), ("b", 33)):
            self.assertRegex(text, rf"\x1b\[{colour}m{place}: ")

    def test_quits(self):
        self.start(self.run_of())
        self.see("resumable")
        self.tmux("send-keys", "-t", "watch", "q")
        self.see("Pane is dead")
        self.assertNotIn("resumable", self.screen())


if __name__ == "__main__":
    unittest.main()
