# SPDX-License-Identifier: Apache-2.0
"""dekoder-watch without a terminal: what is read of runs that grow, are cut back by a restart or begin anew, and what is
drawn of it, character by character. test_watch_terminal.py has the rest."""
import json
import os
import shutil
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import run_watcher, watch  # noqa: E402
from dekoder_postprocess.errors import RunError  # noqa: E402
from dekoder_postprocess.program import NotKnown  # noqa: E402
from dekoder_postprocess.run_watcher import RunWatcher, TAIL  # noqa: E402
from dekoder_postprocess.terminal_chart import ASCII, UTF8, Chart, Curves, smoothed, ticks  # noqa: E402
from synthetic_run import write_run  # noqa: E402


class Program:
    """In the place of the program, which knows whether the holder of a lock lives."""

    def __init__(self, answer=None):
        self.answer, self.asked = answer, 0

    def running(self, _):
        self.asked += 1

        def answer():
            if self.answer is None:
                raise NotKnown("not here")
            return self.answer

        return answer


class Folder(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def run_of(self, steps=40, name="run", **options):
        return write_run(self.folder / name, steps=steps, attention=False, captured=(), phases=True, **options).path

    def look(self, run, program=None):
        watcher = RunWatcher(run, program or Program())
        watcher.look()
        return watcher


def row(step, loss, seconds=0.1):
    return json.dumps({"step": step, "loss": loss, "learning_rate": 1e-3, "gradient_norm": 1.0, "tokens": 64 * step,
                       "tokens_per_second": 640.0, "seconds": {"forward": seconds, "save": seconds}}) + "\n"


def contents(watcher):
    return (list(watcher.steps), list(watcher.losses), watcher.evaluations, watcher.restarts)


class Following(Folder):
    def test_only_what_is_new_is_read(self):
        """Of a log of 100,000 steps, once it was read and drawn."""
        run = self.run_of(1, restarts=())
        log = run / "metrics.jsonl"
        log.write_text("".join(row(step, 2 + 300 / (100 + step)) for step in range(1, 100_001)))
        watcher = self.look(run)
        self.assertEqual((len(watcher.steps), watcher.step), (100_000, 100_000))
        new = [row(step, 2.0) for step in range(100_001, 100_004)]
        for lines in (new[:2], [], new[2:]):
            with log.open("a") as file:
                file.writelines(lines)
            read = []
            pread = os.pread
            with mock.patch.object(os, "pread", lambda *words: read.append(pread(*words)) or read[-1]):
                watcher.look()
                lines_drawn = watch.picture([watcher], 80, 24, UTF8)
            self.assertLessEqual(sum(map(len, read)), sum(map(len, lines)) + TAIL)
            self.assertEqual(len(lines_drawn), 24)
        self.assertEqual(contents(watcher), contents(self.look(run)))
        self.assertEqual(watcher.step, 100_003)

    def test_a_line_that_is_being_written(self):
        run = self.run_of()
        whole = (run / "metrics.jsonl").read_bytes()
        (run / "metrics.jsonl").write_bytes(b"")
        watcher = self.look(run)
        for end in sorted({*range(0, len(whole), 97), len(whole)}):
            with (run / "metrics.jsonl").open("r+b") as file:
                file.write(whole[:end])
            watcher.look()
            self.assertEqual(len(watcher.steps) + len(watcher.evaluations) + len(watcher.restarts), whole[:end].count(b"\n"))
        self.assertEqual(contents(watcher), contents(self.look(run)))

    def test_chunks(self):
        """Lines that no chunk holds as a whole; numbers of lines in messages count all chunks."""
        run = self.run_of()
        whole = contents(self.look(run))
        with mock.patch.object(run_watcher, "CHUNK", 50):
            self.assertEqual(contents(self.look(run)), whole)
            lines = (run / "metrics.jsonl").read_text().splitlines(True)
            (run / "metrics.jsonl").write_text("".join([*lines[:30], "odd\n", *lines[30:]]))
            with self.assertRaisesRegex(RunError, r"metrics.jsonl:31: not a row of a log .*'odd'"):
                self.look(run)

    def test_cut_back_by_a_restart(self):
        """To a checkpoint; the next look comes before the log is as long as it was, or after."""
        run = self.run_of(60, restarts=())
        log = run / "metrics.jsonl"
        first = log.read_text().splitlines(True)
        cut = next(i for i, line in enumerate(first) if json.loads(line)["step"] == 41)
        for more in (0, 3, 200):
            log.write_text("".join(first))
            watcher = self.look(run)
            with log.open("r+") as file:
                file.truncate(sum(map(len, first[:cut])))
                file.seek(0, os.SEEK_END)
                file.write('{"step":40,"resumed":true}\n')
                file.writelines(row(41 + i, 1.5) for i in range(more))
            self.assertEqual(log.stat().st_size > sum(map(len, first)), more == 200)
            watcher.look()
            self.assertEqual((watcher.step, watcher.restarts), (40 + more, [40]))
            self.assertEqual(list(watcher.steps), list(range(1, 41 + more)))
            self.assertEqual(contents(watcher), contents(self.look(run)))

    def test_begun_anew(self):
        """--fresh moves the log aside: there is none for a moment."""
        run = self.run_of(60)
        watcher = self.look(run)
        (run / "metrics.jsonl").rename(run / "aside")
        watcher.look()
        self.assertEqual(contents(watcher), ([], [], [], []))
        (run / "metrics.jsonl").write_text(row(1, 3.0))
        watcher.look()
        self.assertEqual(list(watcher.steps), [1])
        (run / "aside").replace(run / "metrics.jsonl")  # another file that is longer
        watcher.look()
        self.assertEqual(watcher.step, 60)

    def test_what_is_no_run(self):
        for make, said in ((lambda path: None, "there is no such run directory"), (Path.mkdir, "is no run directory, as it has no"),
                           (lambda path: path.write_text(""), "is a file")):
            path = self.folder / "odd"
            make(path)
            with self.assertRaisesRegex(RunError, said):
                self.look(path)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        run = self.run_of()
        watcher = self.look(run)
        with (run / "metrics.jsonl").open("a") as file:
            file.write(row(3, 1.0))
        with self.assertRaisesRegex(RunError, "step 3 after step 40"):
            watcher.look()
        (run / "metrics.jsonl").unlink()
        os.mkfifo(run / "metrics.jsonl")
        with self.assertRaisesRegex(RunError, "is a folder, a device or a pipe"):
            watcher.look()


class State(Folder):
    def test_by_status_and_lock(self):
        run = self.run_of()
        self.assertEqual((self.look(run).state, self.look(run).over), ("finished", True))
        for state, over in (("resumable", False), ("failed", True)):
            (run / "status").write_text(f"state: {state}\nstep: 20\nsteps: 60\nmessage: \n")
            self.assertEqual((self.look(run).state, self.look(run).over), (state, over))
        (run / "lock").write_text("a lock\n")
        self.assertEqual((self.look(run, Program(True)).state, self.look(run, Program(False)).state), ("running", "failed"))
        self.assertFalse(self.look(run, Program(True)).over)
        (run / "lock").unlink()
        (run / "status").unlink()
        self.assertEqual(self.look(run).state, "not begun")
        (run / "status").write_text("nonsense\n")
        with self.assertRaisesRegex(RunError, "is not the status of a run"):
            self.look(run)

    def test_without_the_program(self):
        """The age of the last heartbeat decides."""
        run = self.run_of()
        (run / "lock").write_text("a lock\n")
        for age, held in ((100, True), (130, False)):
            os.utime(run / "lock", (time.time() - age,) * 2)
            self.assertEqual(self.look(run).running, held)

    def test_heartbeats(self):
        """A lock that is renewed is held; one that is not makes the program look again, and no more often than that."""
        run = self.run_of()
        (run / "lock").write_text("a lock\n")
        program, clock = Program(False), mock.patch.object(run_watcher.time, "monotonic", lambda: now)
        now = 1000.0
        with clock:
            watcher = self.look(run, program)
            self.assertEqual((watcher.running, program.asked), (False, 1))
            os.utime(run / "lock", (1, 1))
            watcher.look()
            self.assertEqual((watcher.running, program.asked), (True, 1))
            for now, running, asked in ((1014.0, True, 1), (1016.0, False, 2), (1030.0, False, 2), (1032.0, False, 3)):
                watcher.look()
                self.assertEqual((watcher.running, program.asked), (running, asked))
            (run / "lock").unlink()
            watcher.look()
            self.assertEqual((watcher.running, program.asked), (False, 3))

    def test_speed_and_time_to_go(self):
        """With what is done by period in the time to go only: 640 tokens/s, 64 tokens and 0.2 s a step, 50 steps to go."""
        run = self.run_of()
        (run / "status").write_text("state: resumable\nstep: 40\nsteps: 80\nmessage: \n")
        (run / "metrics.jsonl").write_text("".join(row(step, 2.0) for step in range(1, 31)))
        (run / "lock").write_text("a lock\n")
        watcher = self.look(run, Program(True))
        self.assertAlmostEqual(watcher.tokens_per_second(), 640)
        self.assertAlmostEqual(watcher.seconds_to_go(), 10)
        text = text_of([watcher])
        self.assertIn("running  step 30 / 80 (37 %)  640 tokens/s  10 s to go", text)
        self.assertIsNone(self.look(run, Program(False)).seconds_to_go())  # nobody trains

    def test_best_is_of_the_newest_tokens(self):
        run = self.run_of()
        evaluations = ((10, 1.0, "a"), (20, 3.0, "b"), (30, 3.5, "b"))
        (run / "metrics.jsonl").write_text("".join(
            json.dumps({"step": step, "validation_loss": loss, "validation_hash": tokens}) + "\n"
            for step, loss, tokens in evaluations))
        self.assertEqual(self.look(run).best(), (20, 3.0))
        self.assertIn("validation 3.5000 at step 30  best 3.0000 at step 20", text_of([self.look(run)], 120))
        self.assertIsNone(self.look(self.empty()).best())

    def empty(self):
        run = self.run_of(name="empty")
        (run / "metrics.jsonl").write_text("")
        return run


def text_of(runs, width=80, height=24, signs=UTF8, first=0):
    return watch.plain(watch.picture(runs, width, height, signs, first), signs)


def curves(steps, losses, evaluated=(), validation=(), restarts=()):
    return Curves(np.array(steps, np.int64), np.array(losses, float), np.array(evaluated, np.int64),
                  np.array(validation, float), list(restarts))


def drawn(chart):
    return ["".join(text for text, _ in line).rstrip() for line in chart.lines()]


class Picture(Folder):
    def test_cells(self):
        """Every loss of a straight line is in the cell that its step and value say."""
        columns, rows = 73, 21  # one step a column, and a loss of 0.1 a row
        chart = Chart([curves(range(columns), np.linspace(4, 2, columns), [36], [2.5], [12, 60])], columns + 8, rows + 2, ASCII)
        lines = drawn(chart)
        self.assertEqual(chart.window, 1)
        for column in range(columns):
            row = round((4 - np.linspace(4, 2, columns)[column]) / 0.1)
            self.assertEqual(lines[row][8 + column], ".", (row, column))
        self.assertEqual(lines[15][8 + 36], "o")
        axis = lines[rows]
        self.assertEqual([column for column, sign in enumerate(axis[8:]) if sign == "^"], [12, 60])
        for label, row in (("4.0", 0), ("3.0", 10), ("2.0", 20)):
            self.assertEqual(lines[row][:8], label.rjust(7) + "+")
        for number in lines[-1].split():
            self.assertEqual(axis[8 + int(number)] in "+^", True, number)

    def test_braille_dots(self):
        """The same line in dots: two a column, four a row."""
        chart = Chart([curves(range(64), np.linspace(1, 0, 64))], 8 + 32, 16 + 2, UTF8)
        lines = drawn(chart)
        for step in range(64):
            cell = ord(lines[step // 4][8 + step // 2]) - 0x2800
            bit = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))[step % 4][step % 2]
            self.assertTrue(cell & bit, step)

    def test_smoothing(self):
        steps, losses = np.arange(1, 101), np.where(np.arange(100) % 2, 1.0, 3.0)
        losses[50] = np.nan
        means = smoothed(steps, losses, np.array([20.5, 51.0, 200.0]), 3)
        self.assertAlmostEqual(means[0], 2.0)
        around = losses[[i for i in range(47, 54) if i != 50]]  # steps 48 to 54 but for the NaN of step 51
        self.assertAlmostEqual(means[1], around.mean())
        self.assertTrue(np.isnan(means[2]))

    def test_ticks(self):
        for low, high in ((0, 1), (2.1, 5.7), (1.8301, 1.8309), (0, 100_000), (-3, 1e6), (7, 7.5)):
            for most in (1, 2, 5, 12):
                values, digits = ticks(low, high, most)
                self.assertLessEqual(len(values), most + 1)
                self.assertTrue(all(low - 1e-9 <= value <= high + 1e-9 for value in values))
                self.assertEqual([float(f"{value:.{digits}f}") for value in values],
                                 [float(f"{value:.12g}") for value in values], (low, high, digits))
            self.assertGreaterEqual(len(ticks(low, high, 12)[0]), 5)

    def test_any_size(self):
        runs = [self.look(self.run_of(90, "one", restarts=(30, 60))), self.look(self.run_of(40, "two", seed=2))]
        for signs in (ASCII, UTF8):
            for shown in (runs[:1], runs):
                for width in (20, 40, 41, 80, 201):
                    for height in (6, 16, 24, 60):
                        lines = text_of(shown, width, height, signs).splitlines()
                        self.assertLessEqual(max(map(len, lines)), width)
                        self.assertLessEqual(len(lines), max(height, len(shown) + watch.LEAST_ROWS))
                        self.assertTrue(signs is UTF8 or "".join(lines).isascii())

    def test_runs_are_told_apart_without_colours(self):
        runs = [self.look(self.run_of(90, "one", restarts=(30,))), self.look(self.run_of(90, "two", restarts=(60,), positions="none"))]
        for signs in (ASCII, UTF8):
            text = text_of(runs, 80, 40, signs)
            plot = [line[8:] for line in text.splitlines() if line[7:8] in tuple("|+\u2502\u2524")]
            for letter, other in ("ab", "ba"):
                for sign in (letter, letter.upper()):
                    self.assertGreaterEqual(sum(line.count(sign) for line in plot), 3, (sign, text))
                heights = {sign: np.mean([i for i, line in enumerate(plot) for _ in range(line[30:].count(sign))]) for sign in "abAB"}
            self.assertLess(heights["b"], heights["a"], text)  # without positions the loss is 0.2 higher
            self.assertLess(heights["B"], heights["A"], text)
            axis = next(line for line in text.splitlines() if line.startswith((" " * 7 + "+", " " * 7 + "\u2514")))
            self.assertLess(axis.index("a"), axis.index("b"))
            self.assertRegex(text, r"a: \S*one  finished")
            self.assertRegex(text, r"b: \S*two  finished")

    def test_facts(self):
        text = text_of([self.look(self.run_of(400, restarts=(100, 200)))], 100)
        for words in ("finished", "step 400 / 400 (100 %)", "tokens/s", "validation 2.1281 at step 400", "2 restarts",
                      "training loss (mean of 5 steps)", "o validation loss", "\u25b2 restart"):
            self.assertIn(words, text)
        self.assertEqual(text.count("\u25b2"), 3)
        run = self.run_of(40)
        (run / "status").write_text("state: failed\nstep: 20\nsteps: 60\nmessage: numbers\x1b[31m diverged\n")
        self.assertIn("failed  step 40 / 60", text_of([self.look(run)]))
        self.assertIn("numbers\\x1B[31m diverged", text_of([self.look(run)]))

    def test_from_a_step_on(self):
        watcher = self.look(self.run_of(400))
        top = [float(text_of([watcher], first=first).split("\u2524")[0].split()[-1]) for first in (0, 300)]
        self.assertGreater(top[0], 4)
        self.assertLess(top[1], 2.3)
        self.assertEqual(watch.parse_options(["run", "--from", "300"]).first, 300)

    def test_odd_losses(self):
        """None, one, equal ones, NaN, numbers beyond all scales."""
        run = self.run_of(1, restarts=())
        for rows, said in (([], "no step yet"), ([2.0], "2.0"), ([2.0] * 9, "2.0"), ([None] * 9, "+"),
                           ([3.0, None, 2.0], "3.0"), ([3.0, 1e308, -1e308, 2.0], "3.0")):
            (run / "metrics.jsonl").write_text("".join(row(i + 1, loss) for i, loss in enumerate(rows)))
            self.assertIn(said, text_of([self.look(run)], signs=ASCII))

    def test_durations(self):
        for seconds, text in ((0, "0 s"), (59.6, "1 min 0 s"), (245, "4 min 5 s"), (3 * 3600 + 59, "3 h 0 min"),
                              (2 * 86400 + 3 * 3600, "2 d 3 h"), (float("inf"), "more than 300 years")):
            self.assertEqual(watch.duration(seconds), text)


if __name__ == "__main__":
    unittest.main()
