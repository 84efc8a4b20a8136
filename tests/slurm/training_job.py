# SPDX-License-Identifier: Apache-2.0
"""Jobs of jobs/train.slurm on a real Slurm of two nodes, for tests of what a cluster does to them. A test script calls cluster.inside()
before it defines its cases."""
import json
import os
import re
import subprocess
import time
import unittest
from pathlib import Path

from cluster import Cluster, wait_until

ROOT = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("DEKODER_BINARY_DIR", ROOT / "build/tests"))
PROGRAM, DIGESTS = BUILD / "dekoder", BUILD / "tests/support/checkpoint_digests"
JOB = ROOT / "jobs/train.slurm"
STEPS = 400
# Steps that compute for longer than they wait for messages, also on cores that others use.
CONFIG = f"""
model: {{layers: 3, heads: 3, channels: 96, feed_forward: 192, context: 64, dropout: 0.1}}
data: {{tokens: tokens.h5}}
training: {{steps: {STEPS}, batch: 16, micro_batch: 2, learning_rate: 1.0e-3, warmup_steps: 5}}
evaluation: {{every: 100, tokens: 700}}
sampling: {{every: 200, tokens: 8, prompt: "a"}}
checkpoint: {{every: 40, keep: 2}}
"""


class TrainingJobs(unittest.TestCase):
    """`self.work`: a folder with config.yaml and its tokens, from which jobs are submitted."""

    options = {}  # of the Cluster
    prefix = ()  # of jobs/train.slurm, a container's
    dekoder = PROGRAM  # behind it

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(**cls.options)
        cls.addClassCleanup(cls.cluster.stop)
        cls.work = cls.cluster.folder / "work"
        cls.work.mkdir(exist_ok=True)
        (cls.work / "text").write_text("".join(path.read_text() for path in sorted((ROOT / "src/base").iterdir())))
        (cls.work / "config.yaml").write_text(CONFIG)
        subprocess.run([*cls.prefix, cls.dekoder, "prepare", "text", "-o", "tokens.h5"], cwd=cls.work, check=True, capture_output=True)
        cls.references = {}

    def setUp(self):
        self.begin = time.monotonic()
        self.addCleanup(self.end)

    def end(self):
        self.cluster.cancel_all()
        print(f"{self._testMethodName}: {time.monotonic() - self.begin:.1f} s", flush=True)

    # ---- jobs

    def submit(self, *words, job="job", options=("-N2", "--ntasks-per-node=1", "--exclusive"), program=None, **environment):
        """train.slurm with two ranks on two nodes; `job` is its name, and that of its log."""
        return self.cluster.submit("-p", "low", f"--job-name={job}", f"--output={self.work}/{job}.out", *options, JOB, *words, cwd=self.work,
                                   DEKODER_PREFIX=" ".join(self.prefix), DEKODER_PROGRAM=str(program or self.dekoder), **environment)

    def train(self, run, *words, **options):
        return self.submit("config.yaml", "--run", run, *words, job=run, **options)

    def preempt(self, run, nodes=2, seconds=2):
        """A job of the other partition takes the nodes; returns when it runs, by time.time()."""
        high = self.cluster.submit("-p", "high", f"-N{nodes}", "--exclusive", "-o", "/dev/null", "--wrap", f"sleep {seconds}", cwd=self.work)
        self.cluster.wait_for(high, "RUNNING", "COMPLETED", seconds=60, explain=lambda: self.log(run))
        return time.time()

    def log(self, job):
        path = self.work / f"{job}.out"
        return path.read_text(errors="replace") if path.exists() else "(no log)"

    def wait_for(self, job, run, *states, seconds=300):
        return self.cluster.wait_for(job, *states, seconds=seconds, explain=lambda: self.log(run))

    def wait_for_step(self, run, step, seconds=120):
        """Until the log has it, in this or an earlier start."""
        wait_until(lambda: self.last_step(run) >= step, f"step {step} of {run}", seconds, lambda: self.log(run) + self.cluster.logs())

    def pids(self, run):
        """The ranks, on both nodes."""
        found = subprocess.run(["pgrep", "-f", f"^([^ ]*/)?{self.dekoder} train .*--run {run}( |$)"], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def wait_until_gone(self, run, seconds=10):
        wait_until(lambda: not self.pids(run), f"no rank of {run}", seconds, lambda: self.log(run) + self.cluster.logs())

    def program(self, name, *lines):
        """A script that does something first, on one rank say, and then becomes dekoder."""
        path = self.work / name
        path.write_text("\n".join(("#!/bin/bash", *lines, f'exec {PROGRAM} "$@"', "")))
        path.chmod(0o755)
        return path

    # ---- runs

    def restarted_from(self, run):
        """The steps from which its restarts went on."""
        return [row["step"] for row in self.rows(run) if row.get("resumed")]

    def rows(self, run):
        path = self.work / run / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def starts(self, run):
        """The lines of restarts.jsonl."""
        return [json.loads(line) for line in (self.work / run / "restarts.jsonl").read_text().splitlines()]

    def last_step(self, run):
        path = self.work / run / "metrics.jsonl"
        found = re.findall(rb'"step":(\d+),"loss"', path.read_bytes()[-4000:]) if path.exists() else []
        return int(found[-1]) if found else 0

    def status(self, run):
        return json.loads(self.cluster.ask(*self.prefix, self.dekoder, "status", self.work / run, "--json"))

    def digests(self, run, step):
        return subprocess.run([DIGESTS, self.work / run / f"checkpoints/ckpt-{step:08d}.h5"], check=True, capture_output=True, text=True).stdout

    def saved_steps(self, run):
        return sorted(int(path.stem[5:]) for path in (self.work / run / "checkpoints").glob("ckpt-*.h5"))

    def results(self, run, steps):
        """Weights and moments, every number of the log, the samples."""
        numbers = [{key: value for key, value in row.items() if key not in ("seconds", "tokens_per_second")} for row in self.rows(run)
                   if "step" in row and "resumed" not in row]
        return self.digests(run, steps), numbers, (self.work / run / "samples.jsonl").read_text()

    def reference(self, steps, *words):
        """The undisturbed run on one rank, without Slurm."""
        key = (steps, *words)
        if key not in self.references:
            run = "reference" + re.sub(r"\W+", "-", " ".join(map(str, ("", *key))))
            subprocess.run([*self.prefix, self.dekoder, "train", "config.yaml", "--run", run, "--set", f"training.steps={steps}", *words],
                           cwd=self.work, check=True, capture_output=True, env=self.cluster.environment)
            self.references[key] = self.results(run, steps)
        return self.references[key]

    def assert_undisturbed(self, run, *words, steps=STEPS):
        """It has ended as the undisturbed run: the same bits, each step logged once, and nothing else is left."""
        for got, expected in zip(self.results(run, steps), self.reference(steps, *words)):
            self.assertEqual(got, expected, f"{run}: {self.log(run)}")
        self.assertEqual([row["step"] for row in self.rows(run) if "loss" in row], list(range(1, steps + 1)))
        self.assertEqual(self.status(run)["state"], "finished")
        expected = {"config.yaml", "metrics.jsonl", "samples.jsonl", "restarts.jsonl", "checkpoints", "status"}
        self.assertEqual({path.name for path in (self.work / run).iterdir()}, expected)
        self.assertEqual([path.name for path in (self.work / run / "checkpoints").iterdir() if not re.fullmatch(r"ckpt-\d{8}\.h5|latest", path.name)], [])
