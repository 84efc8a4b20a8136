# SPDX-License-Identifier: Apache-2.0
"""jobs/quickstart.sh in a fresh copy of the checkout, on a text of one's own and with fewer steps: builds, trains, is
stopped by Ctrl-C, goes on when run again, and ends with loss, sample and a report of its run."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(os.environ["DEKODER_SOURCE_DIR"])
STEPS = 120


def check(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


def with_steps(checkout, steps):
    """The quickstart's configuration with a smaller model, shorter periods and `steps`."""
    config = (SOURCE / "input/quickstart.yaml").read_text()
    config = config.replace("channels: 192", "channels: 48").replace("feed_forward: 768", "feed_forward: 48")
    config = re.sub(r"\bevery: \d+", "every: 40", config)
    config = re.sub(r"\btokens: 65536", "tokens: 1024", config)
    config = re.sub(r"\bwarmup_steps: \d+", "warmup_steps: 10", config)
    config = config.replace("checkpoint:\n", "checkpoint:\n  keep: 999\n")
    (checkout / "input/quickstart.yaml").write_text(re.sub(r"\bsteps: \d+", f"steps: {steps}", config))


def start(command, checkout, environment, log):
    return subprocess.Popen(command, cwd=checkout, env=environment, stdin=subprocess.DEVNULL,
                            stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


with tempfile.TemporaryDirectory(prefix="dekoder-quickstart-") as folder:
    scratch = pathlib.Path(folder).resolve()
    checkout, text, log = scratch / "checkout", scratch / "my text.txt", scratch / "log"
    shutil.copytree(SOURCE, checkout, ignore=lambda place, names: {name for name in names if name in (".git", "__pycache__") or
                                                                   pathlib.Path(place) == SOURCE and
                                                                   name.startswith(("build", "runs", "data"))})
    text.write_text("It is a truth universally acknowledged, that The single man in want of a wife is no truth.\n" * 500)
    # Objects of an earlier copy, wherever that was, serve again.
    environment = dict(os.environ, CCACHE_BASEDIR=str(checkout), CCACHE_NOHASHDIR="1", OMP_NUM_THREADS="1")

    with_steps(checkout, 3000)
    with open(log, "w") as out:
        process = start(["bash", "jobs/quickstart.sh", text], checkout, environment, out)
        while not list(checkout.glob("runs/*/checkpoints/ckpt-*40.h5")):
            check(process.poll() is None, f"ended with {process.poll()}:\n{log.read_text()}")
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(timeout=60)
    said = log.read_text()
    again = re.search(r"^== saved; go on with: (.*)$", said, re.M)
    check(code == 85 and again is not None, f"exit code {code} after Ctrl-C:\n{said}")
    run, = checkout.glob("runs/*")
    saved = max(int(path.stem[5:]) for path in (run / "checkpoints").glob("ckpt-*.h5"))

    with_steps(checkout, saved + STEPS)
    with open(log, "w") as out:
        code = start(shlex.split(again[1]), checkout, environment, out).wait(timeout=600)
    said = log.read_text()
    check(code == 0, f"exit code {code}:\n{said}")
    check(f"going on from step {saved} of {saved + STEPS}" in said, said)
    check("dekoder: error" not in said and "Traceback" not in said, said)
    loss = re.search(rf"== result\nstep {saved + STEPS}: validation loss (\d\.\d+) nats", said)
    check(loss is not None, said)
    check(re.search(r"== sample\nThe .{10}", said, re.S), said)
    report = run / "report.html"
    check(f"{run.relative_to(checkout)}/report.html" in said and f"the run is in {run}" in said, said)
    page = report.read_text()
    check(f'"{run.name}"' in page and loss[1][:-1] in page, f"the report lacks the run's name or its loss {loss[1]}")

    # The commands that it ends with.
    commands = re.findall(r"^   [a-z' ]+: +(.*dekoder (?:attention|generate) .*)$", said, re.M)
    check(len(commands) == 2, said)
    for command in commands:
        command = command.replace("It was a dark and stormy night", "It is a").replace("She was", "It is")
        done = subprocess.run(command, shell=True, cwd=checkout, env=environment, capture_output=True, text=True, timeout=120)
        check(done.returncode == 0, f"{command}: {done}")

    # More steps: from before the learning rate fell, which goes on as it was.
    lines = re.search(r"^   more steps, going on from step (\d+), .*\n     (cp .*)\n     (.* train .*)$", said, re.M)
    check(lines is not None, said)
    plateau, more = int(lines[1]), saved + STEPS + 40
    train = re.sub(r"training\.steps=\d+", f"training.steps={more}", lines[3])
    check(train != lines[3] and f"training.steps={3 * (saved + STEPS)}" in lines[3], lines[3])
    done = subprocess.run(f"{lines[2]} && {train}", shell=True, cwd=checkout, env=environment, capture_output=True, text=True,
                          timeout=300)
    check(done.returncode == 0 and f"going on from step {plateau} of {more}" in done.stderr, f"{lines[0]}: {done}")
    check("learning rate jumps" not in done.stderr, done.stderr)
    rows = map(json.loads, (checkout / f"{run}-longer" / "metrics.jsonl").read_text().splitlines())
    rates = {row["step"]: row["learning_rate"] for row in rows if "learning_rate" in row}
    check(sorted(rates) == list(range(1, more + 1)), f"{len(rates)} steps, expected {more}")
    check(rates[plateau] == rates[plateau + 1] == max(rates.values()), f"the rate at step {plateau}: {rates[plateau]}, then "
                                                                       f"{rates[plateau + 1]}")
    check(rates[more] < rates[plateau], f"the last rate, {rates[more]}, is not below {rates[plateau]}")

print("passed")
