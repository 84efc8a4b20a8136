# SPDX-License-Identifier: Apache-2.0
"""What asks a training to stop or to do something now, besides signals: files in the run directory and the end of the job's time. On
one rank and on three; the numbers of the run are those of one that nobody asked. And what restarts.jsonl says of each start."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import h5py

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

DIGESTS = pathlib.Path(os.environ["DEKODER_BINARY_DIR"]) / "tests/support/checkpoint_digests"
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl": "self,sm",
               "OMPI_MCA_mpi_yield_when_idle": "1", "OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "false"}
ENVIRONMENT.pop("SLURM_JOB_END_TIME", None)
CONFIG = """
model: {layers: 3, heads: 2, channels: 64, feed_forward: 128, context: 32, dropout: 0.1}
data: {tokens: tokens.h5}
training: {steps: 100000, batch: 12, micro_batch: 4, learning_rate: 1.0e-3, warmup_steps: 2}
evaluation: {every: 0, tokens: 200}
sampling: {every: 0}
checkpoint: {every: 0, keep: 2}
attention: {texts: ["alpha beta"], every: 0}
"""


class StopRequests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.work = pathlib.Path(scratch.name)
        dk.Workshop(cls.work)
        (cls.work / "config.yaml").write_text(CONFIG)

    def start(self, ranks, run, *words, last_rank="", **environment):
        """`last_rank`: NAME=value for its environment alone."""
        launch = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
        if last_rank:
            launch += ["bash", "-c", f'[ "$OMPI_COMM_WORLD_RANK" != {ranks - 1} ] || export {last_rank}; exec "$@"', "-"]
        process = subprocess.Popen([*launch, dk.PROGRAM, "train", "config.yaml", "--run", run, *words], cwd=self.work, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**ENVIRONMENT, **environment},
                                   start_new_session=True)
        self.addCleanup(lambda: process.poll() is None and os.killpg(process.pid, signal.SIGKILL))
        return process

    def end(self, process, code):
        said = process.communicate(timeout=120)[0]
        self.assertEqual(process.returncode, code, said)
        return said

    def train(self, ranks, run, *words, code=0, **environment):
        return self.end(self.start(ranks, run, *words, **environment), code)

    def wait_for(self, condition, what, process):
        end = time.monotonic() + 60
        while not condition():
            self.assertIsNone(process.poll(), f"ended before: {what}")
            self.assertLess(time.monotonic(), end, f"not in time: {what}")
            time.sleep(0.01)

    def rows(self, run, key, log="metrics.jsonl"):
        file = self.work / run / log
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return [row for row in map(json.loads, lines) if key in row]

    def starts(self, run):
        """[(begin, end)] of restarts.jsonl."""
        rows = self.rows(run, "event", "restarts.jsonl")
        self.assertEqual([row["event"] for row in rows], ["begin", "end"] * (len(rows) // 2), rows)
        return list(zip(rows[::2], rows[1::2]))

    def numbers(self, run, step):
        """Every bit of the state at this step, and of the steps' rows."""
        tensors = subprocess.run([DIGESTS, self.work / run / f"checkpoints/ckpt-{step:08d}.h5"], check=True, capture_output=True,
                                 text=True).stdout
        return tensors, [{k: row[k] for k in ("step", "loss", "learning_rate", "gradient_norm", "tokens")} for row in self.rows(run, "loss")]

    def assert_undisturbed(self, run, step):
        self.train(1, f"{run}-reference", code=85, DEKODER_FAULT=f"train:step@{step}!TERM")
        self.assertEqual(self.numbers(run, step), self.numbers(f"{run}-reference", step))

    def test_files(self):
        for ranks in (1, 3):
            run = f"files-{ranks}"
            folder = self.work / run
            process = self.start(ranks, run)
            self.wait_for(lambda: len(self.rows(run, "loss")) >= 5, "five steps", process)
            for name in ("checkpoint_now", "evaluate_now", "attention_now"):
                (folder / name).touch()
            self.wait_for(lambda: not list(folder.glob("*_now")), "the files are taken", process)
            self.wait_for(lambda: dk.checkpoints(folder), "a checkpoint", process)
            (folder / "stop").touch()
            said = self.end(process, 85)
            self.assertFalse((folder / "stop").exists())
            self.assertIn("dekoder: saved after the file stop; the same command goes on", said)
            evaluated, captured = ([row["step"] for row in self.rows(run, key)] for key in ("validation_loss", "attention"))
            self.assertEqual((len(evaluated), captured[0], len(captured)), (1, 0, 2), said)
            self.assertGreaterEqual(min(evaluated[0], captured[1]), 5)
            self.assertTrue((folder / f"attention/step-{captured[1]:08d}.h5").exists())
            status = dk.status(folder)
            stopped = status["saved_step"]
            self.assertEqual((status["state"], status["message"], status["step"]), ("resumable", "stopped by the file stop", stopped))
            self.assertEqual(list(dk.checkpoints(folder)), [stopped], "one that was asked for gives way to the next")
            self.assertRegex(said, rf"step \d+: checkpoint written.*\n(.*\n)*.*step {stopped}: checkpoint written")
            self.assertEqual([(begin["ranks"], end["reason"], end["steps"]) for begin, end in self.starts(run)],
                             [(ranks, "the file stop", stopped)])
            self.assert_undisturbed(run, stopped)
            (folder / "stop").touch()  # before a start: at once
            self.train(ranks, run, code=85)
            self.assertEqual((dk.status(folder)["saved_step"], len(self.starts(run))), (stopped, 1))
            self.train(ranks, run, "--time-left", "0:00", code=85)
            self.assertEqual((dk.status(folder)["saved_step"], dk.status(folder)["message"]), (stopped + 1, ""))

    def test_a_loss_that_was_asked_for_chooses_no_best_state(self):
        """It is one of no period, also where the state is saved by period."""
        run = "best"
        process = self.start(1, run, "--set", "checkpoint.every=1")
        self.wait_for(lambda: self.rows(run, "loss"), "a step", process)
        (self.work / run / "evaluate_now").touch()
        self.wait_for(lambda: self.rows(run, "validation_loss"), "a validation loss", process)
        evaluated = self.rows(run, "validation_loss")[0]["step"]
        self.wait_for(lambda: max(dk.checkpoints(self.work / run), default=0) > evaluated + 1, "later steps", process)
        process.send_signal(signal.SIGTERM)
        self.end(process, 85)
        saved = dk.checkpoints(self.work / run)
        self.assertEqual(len(saved), 2)
        with h5py.File(saved[max(saved)]) as file:
            self.assertEqual(file.attrs["best_step"], -1)

    def test_a_signal_that_cuts_an_evaluation_short_comes_first(self):
        """On another rank than that which sees the file: no rank goes on to a step with that evaluation missing."""
        run = "signal-first"
        (self.work / run).mkdir()
        (self.work / run / "checkpoint_now").touch()
        said = self.train(3, run, "--set", "evaluation.every=5", code=85, last_rank="DEKODER_FAULT=evaluation:batch!TERM")
        self.assertIn("saved after SIGTERM", said)
        self.assertEqual(list(dk.checkpoints(self.work / run)), [0], said)
        self.assertTrue((self.work / run / "checkpoint_now").exists(), "it waits for the next start")

    def test_without_probes(self):
        run = "no-probes"
        (self.work / run).mkdir()
        (self.work / run / "attention_now").touch()
        said = self.train(1, run, "--set", "attention.texts=[]", "--set", "training.steps=9")
        self.assertIn("warning: attention_now: ignored, as the configuration names no texts", said)

    def test_the_time_of_the_job(self):
        for ranks in (1, 3):
            run = f"limit-{ranks}"
            said = self.train(ranks, run, "--time-left", "0:05", code=85)
            self.assertRegex(said, r"dekoder: 0:0\d of the job's time are left: a step takes up to \d+\.\d\d s, an evaluation")
            self.assertIn("dekoder: saved before the time limit; the same command goes on", said)
            for _ in range(2):  # a start that has next to no time does one step all the same
                self.train(ranks, run, "--time-left", "0:00", code=85)
            self.assertEqual([(begin["step"], end["step"], end["reason"]) for begin, end in self.starts(run)],
                             [(0, 1, "the time limit"), (1, 2, "the time limit"), (2, 3, "the time limit")])
            self.assert_undisturbed(run, 3)
        # As Slurm says it: 20 s are kept as long as no save was measured.
        end = int(time.time()) + 22
        said = self.train(1, "variable", code=85, SLURM_JOB_END_TIME=str(end))
        self.assertRegex(said, r"dekoder: the job has 0:\d\d left \(SLURM_JOB_END_TIME\)")
        self.assertIn("dekoder: saved before the time limit; the same command goes on", said)
        self.assertLess(time.time(), end)

    def test_a_start_with_a_last_step_of_its_own(self):
        """What is due at that step is done; the run is none of fewer steps, and the next start goes on with it."""
        for ranks in (1, 3):
            run, due = f"until-{ranks}", ("--set", "evaluation.every=6", "--set", "training.steps=40")
            said = self.train(ranks, run, *due, "--until", "6", code=85)
            self.assertIn("dekoder: saved, as asked by --until 6; the same command with a later step, or without --until, goes on", said)
            self.assertEqual([row["step"] for row in self.rows(run, "validation_loss")], [0, 6])
            status = dk.status(self.work / run)
            self.assertEqual((status["state"], status["message"], status["saved_step"], status["steps"]), ("resumable", "", 6, 40))
            files = {path: path.read_bytes() for path in (self.work / run).rglob("*") if path.is_file()}
            for step in ("6", "3"):  # it is there already
                self.train(ranks, run, *due, "--until", step, code=85)
                self.assertEqual({path: path.read_bytes() for path in (self.work / run).rglob("*") if path.is_file()}, files)
            self.train(ranks, run, *due, "--until", "9", code=85)
            if ranks == 1:  # in one piece
                self.train(1, "until-9", *due, "--until", "9", code=85)
                differences = subprocess.run([dk.PROGRAM, "checkpoint", "diff", run, "until-9"], cwd=self.work, capture_output=True, text=True)
                self.assertEqual(differences.returncode, 0, differences.stdout)
            self.train(ranks, run, *due, "--until", "1000000")
            self.assertEqual([(end["steps"], end["reason"]) for _, end in self.starts(run)],
                             [(6, "--until 6"), (3, "--until 9"), (31, "finished")])
            if ranks == 1:
                self.train(1, "until-never", *due)
            self.assertEqual(self.numbers(run, 40), self.numbers("until-never", 40))
            of = lambda name: [(row["step"], row["validation_loss"]) for row in self.rows(name, "validation_loss")]
            self.assertEqual(of(run), of("until-never"))

    def test_no_limit(self):
        short = ("--set", "training.steps=9")
        self.train(1, "unlimited", *short, "--time-left", "UNLIMITED", SLURM_JOB_END_TIME=str(int(time.time()) + 5))
        said = self.train(1, "past", *short, SLURM_JOB_END_TIME="1700000000")
        self.assertIn("warning: SLURM_JOB_END_TIME is a time that has gone by", said)
        for words, environment, fragment in ((["--until", "0"], {}, "--until is 0; expected a step of the run, at least 1"),
                                             (["--until", "5.0"], {}, "--until is 5.0; expected a whole number"),
                                             (["--time-left", "5m"], {}, "--time-left is '5m'; expected MM, MM:SS"),
                                             ([], {"SLURM_JOB_END_TIME": "soon"}, "SLURM_JOB_END_TIME is 'soon'; expected seconds since 1970")):
            said = self.train(1, "refused", *short, *words, code=2, **environment)
            self.assertIn(fragment, said)
            self.assertFalse((self.work / "refused").exists())

    def test_a_crash_and_what_it_cost(self):
        run, words = "crash", ("--set", "training.steps=20")
        self.train(1, run, *words, code=85, DEKODER_FAULT="train:step@5!TERM")
        self.train(1, run, *words, code=-signal.SIGKILL, DEKODER_FAULT="train:step@3")
        self.assertEqual([row["event"] for row in self.rows(run, "event", "restarts.jsonl")], ["begin", "end", "begin"])
        said = self.train(3, run, *words, SLURM_JOB_ID="4711")
        (_, first), (_, crash), (begin, end) = self.starts(run)
        self.assertEqual((first["step"], first["steps"], first["reason"]), (5, 5, "SIGTERM"))
        self.assertEqual((crash["step"], crash["steps"], crash["reason"]), (7, 2, "crashed or killed: it left no word"))
        self.assertEqual((begin["step"], begin["lost_steps"], begin["ranks"], begin["job"]), (5, 2, 3, "4711"))
        self.assertEqual((end["step"], end["steps"], end["reason"]), (20, 15, "finished"))
        counted = sum(12 * 32 / row["tokens_per_second"] for row in self.rows(run, "loss"))
        wall = sum(of["wall_seconds"] for of in (first, crash, end))
        self.assertAlmostEqual(end["effective_time"], counted / wall, delta=0.01)
        self.assertGreater(end["save_seconds"], 0)
        self.assertRegex(said, r"effective time \d+\.\d % of 0:\d\d in 3 starts \(2 steps were computed twice\)")
        before = (self.work / run / "restarts.jsonl").read_bytes()
        self.assertNotIn("effective time", self.train(1, run, *words))  # it does nothing, and leaves nothing
        self.assertEqual((self.work / run / "restarts.jsonl").read_bytes(), before)
        self.train(1, run, *words, "--fresh", "--set", "training.learning_rate=1.0e+30", code=4)
        self.assertEqual((self.work / run / "previous-1/restarts.jsonl").read_bytes(), before)
        ((_, end),) = self.starts(run)
        self.assertRegex(end["reason"], "^diverged: step 2: ")


if __name__ == "__main__":
    unittest.main(verbosity=2)
