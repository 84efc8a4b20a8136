# SPDX-License-Identifier: Apache-2.0
"""Sweeps for tests: their files, the command as processes of its own, and a stand-in for `dekoder` where only the work of the
workers is looked at, not that of the trainer."""
import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.sweep.command import main  # noqa: E402

SOURCE = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
DEKODER = Path(os.environ.get("DEKODER_BINARY_DIR", SOURCE / "build/openmp")) / "dekoder"
COMMAND = [sys.executable, "-B", str(SOURCE / "postprocess/bin/dekoder-sweep")]

BASE = """\
model: {layers: 1, heads: 1, channels: 16, feed_forward: 16, context: 16, positions: learned}
data: {tokens: tokens.h5}
training: {steps: 10, batch: 4, learning_rate: 1.0e-2, warmup_steps: 2, schedule: wsd}
evaluation: {every: 5, tokens: 200}
sampling: {every: 0, tokens: 2, prompt: "a"}
"""
SWEEP = """\
base: base.yaml
steps: 40
trials: 6
seed: 5
method: random
halving: {first_rung: 10, factor: 2}
parameters:
  training.batch: {values: [2, 4]}
  training.learning_rate: {range: [1.0e-3, 1.0e-1], scale: log}
"""
NO_HALVING = SWEEP.replace("halving: {first_rung: 10, factor: 2}\n", "")

# Trains nothing: takes note of each start, refuses a run directory that another one is in, takes a moment, and leaves what a
# run leaves. The loss depends on the batch. BEFORE is where a test puts in what it wants.
STAND_IN = """\
#!/bin/bash
case $1 in
  describe) exit 0 ;;
  status) [ -d lock ] && echo '{"running":true}' || echo '{"running":false}'; exit 0 ;;
esac
while [ $# -gt 0 ]; do
  case $1 in
    --run) run=$2 ;;
    --until) until=$2 ;;
    training.steps=*) steps=${1#*=} ;;
    training.batch=*) batch=${1#*=} ;;
  esac
  shift
done
trap '' TERM USR1 # a lock that is made is taken away: no signal comes between
mkdir -p "$run" && mkdir "$run/lock" || { echo "$run: entered twice" >> "$STAND_IN_LOG"; exit 1; }
trap 'rmdir "$run/lock"' EXIT
trap 'exit 85' TERM USR1
echo "${run##*/} ${until:-$steps}" >> "$STAND_IN_LOG"
# BEFORE
sleep "0.0$((RANDOM % 5))" & wait
echo "{\\"step\\":${until:-$steps},\\"validation_loss\\":$batch.5,\\"bits_per_byte\\":1,\\"tokens\\":9,\\"validation_hash\\":\\"x\\"}" >> "$run/metrics.jsonl"
state=finished
[ -z "$until" ] || state=resumable
printf 'state: %s\\nstep: %s\\nsteps: %s\\n' $state "${until:-$steps}" "$steps" > "$run/status"
[ -z "$until" ] || exit 85
"""


class Workshop:
    """A folder with base.yaml, sweep.yaml and, for the real program, tokens.h5."""

    def __init__(self, folder, sweep=SWEEP, base=BASE, stand_in=False):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        (self.folder / "base.yaml").write_text(base)
        (self.folder / "sweep.yaml").write_text(sweep)
        self.program = DEKODER
        if stand_in:
            self.program = self.folder / "stand-in"
            self.program.write_text(STAND_IN)
            self.program.chmod(0o755)
        else:
            random.seed(5)
            (self.folder / "text").write_text(" ".join(random.choice(("alpha", "beta", "gamma", "delta")) for _ in range(900)) + "\n")
            subprocess.run([DEKODER, "prepare", "text", "-o", "tokens.h5"], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def environment(self, changes):
        names = {"DEKODER_LAUNCH", "DEKODER_FAULT", "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_END_TIME"}
        inherited = {key: value for key, value in os.environ.items() if key not in names}
        mine = {"DEKODER_PROGRAM": str(self.program), "OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "false", "STAND_IN_LOG": str(self.folder / "starts")}
        return {**inherited, **mine, **changes}

    def start(self, *words, **environment):
        """The command as a process of its own."""
        return subprocess.Popen([*COMMAND, *map(os.fspath, words)], cwd=self.folder, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment(environment))

    def run(self, *words, code=0, **environment):
        """The command in this process: what it said on (standard output, error stream)."""
        here, streams = os.getcwd(), (io.StringIO(), io.StringIO())
        try:
            os.chdir(self.folder)
            with mock.patch.dict(os.environ, self.environment(environment), clear=True), contextlib.redirect_stdout(streams[0]), \
                    contextlib.redirect_stderr(streams[1]):
                try:
                    ended = main([os.fspath(word) for word in words])
                except SystemExit as usage:
                    ended = usage.code
        finally:
            os.chdir(here)
        out, said = (stream.getvalue() for stream in streams)
        assert ended == code, f"{words}: exit code {ended}, expected {code}\n{out}{said}"
        return out, said

    def killed(self, *words, fault):
        """Starts the command as a process that dies at a fault point."""
        process = self.start(*words, DEKODER_FAULT=f"sweep:{fault}")
        said = process.communicate(timeout=120)
        assert process.returncode == -9, f"{words}: exit code {process.returncode}\n{said}"
        # Its trainer is told to end, too. Until it has its lock, which the stand-in cannot hand on, nobody could see it.
        wait_until(lambda: not self.training() or any(self.folder.glob("*/trials/*/lock")), "the lock or the end of a trainer left alone")

    def training(self):
        """Whether a process of the program trains."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if os.fsencode(self.program) in words and b"train" in words:
                    return True
        return False

    def make(self, folder="sweep", sweep="sweep.yaml", **options):
        return self.run(sweep, folder, **options)

    def status(self, folder="sweep"):
        return json.loads(self.run("status", folder, "--json")[0])

    def before(self, line):
        """What the stand-in does in each start before it leaves anything."""
        self.program.write_text(STAND_IN.replace("# BEFORE", line))

    def starts(self):
        """[(trial, step up to which it was to be trained)] of the stand-in, in order."""
        log = self.folder / "starts"
        lines = log.read_text().splitlines() if log.exists() else []
        wrong = [line for line in lines if "twice" in line]
        assert not wrong, wrong
        return [(int(trial), int(step)) for trial, step in (line.split() for line in lines)]

    def claims(self, folder="sweep"):
        """{(trial, number): the claim's content}"""
        return {tuple(map(int, path.name.split(".")[:2])): json.loads(path.read_text())
                for path in sorted((self.folder / folder / "claims").glob("*.claim"))}


class Case(unittest.TestCase):
    """With workshops of the stand-in."""

    def shop(self, sweep=SWEEP, name="shop", **options):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        return Workshop(Path(scratch.name) / name, sweep, **{"stand_in": True, **options})

    def assert_whole(self, shop, folder="sweep"):
        """No worker left anything half-done."""
        self.assertEqual([path.name for path in (shop.folder / folder).rglob("*.tmp")], [])
        for claim in (shop.folder / folder / "claims").glob("*.outcome"):
            self.assertIn(json.loads(claim.read_text())["state"], ("finished", "paused", "given back", "failed", "stopped"))


def wait_until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)
