# SPDX-License-Identifier: Apache-2.0
"""Small training runs of the real command, for tests of saving and restarting."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import h5py

PROGRAM = pathlib.Path(os.environ["DEKODER_BINARY_DIR"]) / "dekoder"

CONFIG = """\
model: {{layers: 2, heads: 2, channels: 16, feed_forward: 24, context: 16, dropout: 0.1}}
data: {{tokens: {tokens}}}
training: {{steps: {steps}, batch: 4, micro_batch: 2, learning_rate: 1.0e-3, warmup_steps: 10}}
evaluation: {{every: 30}}
sampling: {{every: 50, tokens: 5, prompt: "a"}}
checkpoint: {{every: {every}, keep: 3}}
"""


def check(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


def limited_to(cpus, case):
    """Words before a command that give it the time of `cpus` CPUs, as containers are limited; `case` (a TestCase) is skipped
    where that cannot be done."""
    version_1 = pathlib.Path("/sys/fs/cgroup/cpu")
    group = (version_1 if version_1.is_dir() else version_1.parent) / f"dekoder-test-{os.getpid()}"
    quota = round(cpus * 100000)  # microseconds of 0.1 s
    try:
        group.mkdir(exist_ok=True)
        case.addCleanup(lambda: group.exists() and group.rmdir())
        if version_1.is_dir():
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} 100000")
    except OSError as error:
        case.skipTest(f"no control group can be made: {error}")
    return ["bash", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "-"]


class Workshop:
    """A folder with a token file of about 40 steps per epoch."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
        random.seed(5)
        text = self.folder / "text.txt"
        text.write_text(" ".join(random.choice(words) for _ in range(500)) + "\n")
        self.tokens = self.folder / "tokens.h5"
        subprocess.run([PROGRAM, "prepare", text, "-o", self.tokens], check=True, stdout=subprocess.DEVNULL)

    def config(self, steps, every, extra=""):
        path = self.folder / f"config-{steps}-{every}.yaml"
        path.write_text(CONFIG.format(tokens=self.tokens, steps=steps, every=every) + extra)
        return path

    def start(self, run, steps=200, every=40, fault=None, extra="", sets=(), flags=()):
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        environment.pop("DEKODER_FAULT", None)
        if fault:
            environment["DEKODER_FAULT"] = fault
        log = open(self.folder / "stderr.txt", "w+")
        settings = [word for setting in sets for word in ("--set", setting)]
        process = subprocess.Popen([PROGRAM, "train", self.config(steps, every, extra), "--run", run, *settings,
                                    *flags],
                                   stderr=log, stdout=subprocess.DEVNULL, env=environment)
        process.log = pathlib.Path(log.name)
        log.close()
        return process

    def train(self, run, steps=200, every=40, fault=None, expect=0, extra="", sets=(), flags=()):
        """Runs to the end; returns what it said. `extra`: further sections of the configuration; `sets`: --set; `flags`:
        further words of the command line."""
        process = self.start(run, steps, every, fault, extra, sets, flags)
        code = process.wait(timeout=300)
        said = process.log.read_text()
        check(code == expect, f"exit code {code}, expected {expect}; it said:\n{said}")
        return said


def wait_until(condition, what, process=None, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        check(process is None or process.poll() is None,
              f"the program ended ({process and process.returncode}) before {what}:\n"
              f"{process and process.log.read_text()}")
        check(time.monotonic() < end, f"not within {seconds} s: {what}")
        time.sleep(0.002)


def stop(process, number=signal.SIGTERM):
    process.send_signal(number)
    return process.wait(timeout=60)


def status(run):
    answer = subprocess.run([PROGRAM, "status", run, "--json"], capture_output=True, text=True)
    check(answer.returncode == 0, f"dekoder status: {answer.stderr}")
    return json.loads(answer.stdout)


def checkpoints(run):
    """Paths by step."""
    return {int(path.stem[5:]): path for path in sorted((pathlib.Path(run) / "checkpoints").glob("ckpt-*.h5"))}


def step_lines(run):
    """Lines of metrics.jsonl as texts, without the rate and the marks of restarts: what restarts must not change."""
    lines = []
    for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines():
        if json.loads(line).get("resumed"):
            continue
        lines.append(line.split(',"tokens_per_second"')[0])
    return lines


FIELDS = ("step", "tokens_seen", "config_yaml", "tokenizer", "data_hash", "best_step", "best_validation_loss")


def compare_checkpoints(left, right, fields=FIELDS):
    with h5py.File(left) as a, h5py.File(right) as b:
        for group in ("parameters", "first_moment", "second_moment"):
            check(list(a[group]) == list(b[group]) and len(a[group]) > 0, f"{group}: other tensors")
            for name in a[group]:
                check(a[group][name][:].tobytes() == b[group][name][:].tobytes(),
                      f"{group}/{name} differs between {left} and {right}")
        for field in fields:
            one, other = (f.attrs[field] if field in f.attrs else f[field][0] for f in (a, b))  # a long text is a dataset
            check(one == other, f"{field}: {one} and {other}")


def compare_runs(expected, got, same_settings=True):
    """Every tensor of the last checkpoint, every log line and every sample, bit for bit."""
    a, b = step_lines(expected), step_lines(got)
    for i, (line, other) in enumerate(zip(a, b)):
        check(line == other, f"metrics.jsonl line {i + 1}:\n  {line}\n  {other}")
    check(len(a) == len(b), f"metrics.jsonl: {len(b)} lines, expected {len(a)}")
    last = max(checkpoints(expected))
    check(max(checkpoints(got)) == last, f"last checkpoint {max(checkpoints(got))}, expected {last}")
    compare_checkpoints(checkpoints(expected)[last], checkpoints(got)[last],
                        [field for field in FIELDS if same_settings or field != "config_yaml"])
    check((pathlib.Path(expected) / "samples.jsonl").read_bytes() == (pathlib.Path(got) / "samples.jsonl").read_bytes(),
          "samples.jsonl differs")
    left = [p.name for p in pathlib.Path(got).rglob("*.tmp")]
    check(not left, f"temporary files are left: {left}")
