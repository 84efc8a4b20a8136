# SPDX-License-Identifier: Apache-2.0
"""Small sweeps trained by the real program: trials are ordinary runs, with the bits of one that is trained alone, whatever happened to
the workers in between."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sweep_workshop import BASE, DEKODER, SWEEP, Workshop, wait_until  # noqa: E402

LONGER = BASE.replace("channels: 16, feed_forward: 16, context: 16", "channels: 32, feed_forward: 64, context: 32, dropout: 0.1")
TRIALS = """\
base: base.yaml
steps: 240
trials: 4
method: quasi-random
halving: {first_rung: 60, factor: 2}
set: {evaluation.every: 20, checkpoint.every: 25}
parameters:
  training.batch: {values: [4, 8]}
  training.learning_rate: {range: [1.0e-3, 1.0e-1], scale: log}
  training.schedule: {values: [wsd, cosine]}
  training.decay_fraction: {range: [0.1, 0.5], where: training.schedule == wsd}
"""
# In a mount namespace: a disk too small for the sweep, and then one that is not.
SMALL_DISK = """\
mkdir -p disk && mount -t tmpfs -o size=$1 tmpfs disk || exit 99
shift
"$@" make disk/sweep; "$@" work disk/sweep; echo "exit code $?"
mount -o remount,size=100m disk || exit 99
"$@" work disk/sweep; echo "exit code $?"
ls disk/sweep/claims
"""


def dekoder(*words, cwd):
    return subprocess.run([DEKODER, *words], cwd=cwd, capture_output=True, text=True)


class Runs(unittest.TestCase):
    def shop(self, sweep, base=BASE):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        return Workshop(Path(scratch.name) / "shop", sweep, base)

    def rows(self, run):
        """Of metrics.jsonl, without times and marks of restarts."""
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in rows if not row.get("resumed")]

    def test_a_killed_worker(self):
        """Its trainer saves and ends; the next worker goes on. Killed while it trains, twice, at different trials."""
        shop = self.shop(TRIALS, LONGER)
        shop.make()
        trials = shop.folder / "sweep/trials"
        for trial in ("0000", "0001"):
            worker = shop.start("work", "sweep")
            log = trials / trial / "metrics.jsonl"
            wait_until(lambda: log.exists() and log.read_bytes().count(b'"loss"') > 5, f"steps of trial {trial}")
            os.kill(worker.pid, signal.SIGKILL)
            worker.communicate()
        out, said = shop.run("work", "sweep")
        self.assertRegex(said, r"trial 0001: from step ([1-9]|[1-5]\d) to step 60, taken over from a worker that ended without a word: training.batch=")
        status = shop.status()
        self.assertEqual((status["states"]["finished"], status["states"]["running"], status["states"]["given back"]), (1, 0, 0), out)
        self.assertEqual([rung["results"] for rung in status["rungs"]][0], 4)
        best = Path(status["best"][0]["run"])
        self.assertEqual(status["best"][0]["state"], "finished")
        for name in {best.name, "0001"}:
            # Alone, in one piece, by its configuration alone: up to where the trial has come.
            step = json.loads(dekoder("status", f"sweep/trials/{name}", "--json", cwd=shop.folder).stdout)["saved_step"]
            done = dekoder("train", f"sweep/trials/{name}/config.yaml", "--run", f"alone-{name}", "--until", str(step), cwd=shop.folder)
            self.assertEqual(done.returncode, 85 if step < 240 else 0, done.stderr)
            different = dekoder("checkpoint", "diff", f"sweep/trials/{name}", f"alone-{name}", cwd=shop.folder)
            self.assertEqual(different.returncode, 0, different.stdout + different.stderr)
            self.assertEqual(self.rows(trials / name), self.rows(shop.folder / f"alone-{name}"))
        # The loss in the claims is that of the log.
        losses = [row["validation_loss"] for row in self.rows(trials / best.name) if "validation_loss" in row]
        self.assertEqual(status["best"][0]["best_loss"], min(losses))
        # Ordinary runs.
        self.assertIn("finished: saved at step 240 of 240", dekoder("status", trials / best.name, cwd=shop.folder).stdout)
        self.assertEqual({path.name for path in (trials / best.name).iterdir()},
                         {"config.yaml", "metrics.jsonl", "samples.jsonl", "restarts.jsonl", "checkpoints", "status"})
        again = {path: path.stat().st_mtime_ns for path in shop.folder.rglob("*") if path.is_file()}
        shop.run("work", "sweep")
        self.assertEqual({path: path.stat().st_mtime_ns for path in again}, again)

    def test_stopped_by_a_file(self):
        """The trial is left out, and taken up again when that is asked for."""
        shop = self.shop(SWEEP.replace("trials: 6", "trials: 2").replace("steps: 40", "steps: 400000").replace("first_rung: 10, factor: 2", "first_rung: 20, factor: 20000"))
        shop.make()
        (shop.folder / "sweep/trials/0000").mkdir()
        (shop.folder / "sweep/trials/0000/stop").touch()
        worker = shop.start("work", "sweep")
        wait_until(lambda: "stopped" in shop.run("status", "sweep")[0] and (shop.folder / "sweep/claims/0001.0002.claim").exists(), "the winner's last rung")
        worker.send_signal(signal.SIGUSR1)
        said = worker.communicate()[1]
        self.assertEqual(worker.returncode, 85, said)
        self.assertIn("trial 0000: stopped at step 0", said)
        self.assertRegex(said, r"trial 0001: given back at step \d+")
        self.assertEqual(shop.status()["states"]["stopped"], 1)

    def test_diverged(self):
        shop = self.shop(SWEEP.replace("trials: 6", "trials: 3").replace("{range: [1.0e-3, 1.0e-1], scale: log}", "{values: [1.0e+30, 1.0e-2]}").replace("random", "grid"))
        shop.make()
        out, _ = shop.run("work", "sweep")
        self.assertRegex(out, r"failed: trial 000\d: step \d+: the (loss|gradient)")
        self.assertEqual((shop.status()["states"]["failed"], shop.status()["states"]["finished"]), (2, 1))

    def test_a_full_disk(self):
        """It ends with a message, and with nothing lost: the same command goes on where there is room."""
        shop = self.shop(SWEEP, BASE.replace("channels: 16", "channels: 64"))
        command = ["bash", "-c", '[ "$1" = make ] && set -- sweep.yaml "$2"; exec "$0" "$@"', str(Path(__file__).resolve().parents[1] / "bin/dekoder-sweep")]
        done = subprocess.run(["unshare", "--mount", "bash", "-c", SMALL_DISK, "-", "1400k", *command], cwd=shop.folder, capture_output=True, text=True,
                              env=shop.environment({}))
        if done.returncode == 99 or "unshare" in done.stderr:
            self.skipTest(f"no file system can be mounted: {done.stderr.strip()}")
        self.assertIn("exit code 3\n", done.stdout, done.stderr)
        self.assertIn("exit code 0\n", done.stdout, done.stderr)
        self.assertRegex(done.stderr, "No space left on device|free space|free some space")
        self.assertRegex(done.stdout, r"trained to the end +1\n")
        self.assertNotIn(".tmp", done.stdout)
        self.assertNotIn("failed", done.stdout)


if __name__ == "__main__":
    unittest.main()
