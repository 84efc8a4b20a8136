# SPDX-License-Identifier: Apache-2.0
"""One process per run, over PID namespaces as over machines: who is refused, who takes over and when, and that a process
which was stopped until another one had its run writes nothing more. Needs root, to make namespaces."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

ALL_STEPS = 10**6
started = []  # so that none is left when a check fails


class NamespaceWorkshop(dk.Workshop):
    """Starts its trainers in PID namespaces of their own: what one does not see of the other it does not see of another
    machine either."""

    def start(self, *arguments, **options):
        program = dk.PROGRAM
        dk.PROGRAM = self.folder / "in-a-namespace"
        dk.PROGRAM.write_text(f'#!/bin/sh\nexec unshare --pid --fork --kill-child --mount-proc "{program}" "$@"\n')
        dk.PROGRAM.chmod(0o755)
        try:
            process = super().start(*arguments, **options)
        finally:
            dk.PROGRAM = program
        started.append(process)
        return process


def trainer_of(process):
    """Its number outside of the namespace: the one child of unshare."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    dk.wait_until(lambda: children.read_text().split(), "a trainer in its namespace", process)
    return int(children.read_text().split()[0])


def steps_logged(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if "loss" in row]


def check_log(run):
    """Every step once and in order: two writers leave others."""
    steps = steps_logged(run)
    wrong = next((i for i, step in enumerate(steps) if step != i + 1), None)
    dk.check(wrong is None, f"the log of {run.name}: its step {wrong} is out of order: {steps[max(0, (wrong or 0) - 3):(wrong or 0) + 3]}")


def age_lock(run, seconds):
    then = time.time() - seconds
    os.utime(run / "lock", (then, then))


def running(run, process):
    known = max(dk.checkpoints(run), default=0)
    dk.wait_until(lambda: max(dk.checkpoints(run), default=0) > known, "a checkpoint of its own", process)


def live_lock_of_another_namespace(first, second, run):
    process = first.start(run, steps=ALL_STEPS)
    running(run, process)
    lock = (run / "lock").read_bytes()
    said = second.train(run, steps=ALL_STEPS, expect=2)
    dk.check(re.search(r"in use by process 1 on .*heartbeat \d+ s ago; without a further one the lock is taken over in "
                       r"1\d\d s", said), said)
    dk.check((run / "lock").read_bytes() == lock and process.poll() is None, "the first one lost its lock")
    status = dk.status(run)
    dk.check(status["running"] and status["heartbeat_age"] < 60, f"{status}")
    text = subprocess.run([dk.PROGRAM, "status", run], capture_output=True, text=True).stdout
    dk.check(text.startswith("running: ") and re.search(r"trained by process 1 on .*heartbeat \d+ s ago", text), text)
    age_lock(run, 100)
    dk.wait_until(lambda: time.time() - (run / "lock").stat().st_mtime < 50, "a heartbeat", process, seconds=30)
    check_log(run)
    print("a live lock of another namespace is respected: passed")
    return process


def successor_of_a_killed_one(first, second, run, process):
    killed = trainer_of(process)
    with open(f"/proc/{killed}/ns/pid"):  # or the next namespace gets its number, in which the killed one surely is gone
        os.kill(killed, signal.SIGKILL)
        process.wait()
        return takes_over_in_time(second, run)


def takes_over_in_time(second, run):
    said = second.train(run, steps=ALL_STEPS, expect=2)
    left = int(re.search(r"taken over in (\d+) s", said).group(1))
    dk.check(60 < left <= 121, said)
    age_lock(run, 115)  # as after 115 s
    said = second.train(run, steps=ALL_STEPS, expect=2)
    left = int(re.search(r"taken over in (\d+) s", said).group(1))
    dk.check(0 < left <= 6, said)
    dk.check(dk.status(run)["running"], "status calls it dead before its time")
    age_lock(run, 121)
    dk.check(not dk.status(run)["running"], "status calls it running after its time")
    successor = second.start(run, steps=ALL_STEPS)
    running(run, successor)
    dk.check("gave no heartbeat for 12" in successor.log.read_text(), successor.log.read_text())
    check_log(run)
    print("the successor of a killed one is let in: passed")
    return successor


def a_stopped_one_goes_on(first, second, run, process):
    """It finds its run in other hands, and ends before it writes."""
    stopped = trainer_of(process)
    os.kill(stopped, signal.SIGSTOP)
    since = time.monotonic()
    age_lock(run, 130)
    successor = first.start(run, steps=ALL_STEPS)
    running(run, successor)
    dk.wait_until(lambda: time.monotonic() - since > 17, "longer than a heartbeat is trusted", successor)
    os.kill(stopped, signal.SIGCONT)
    code = process.wait(timeout=60)
    said = process.log.read_text()
    dk.check(code == 2 and "the run was taken over" in said and "its lock is of process 1 on" in said, f"{code}: {said}")
    running(run, successor)
    dk.check(dk.status(run)["running"], "the one that had lost the lock took it away")
    os.kill(trainer_of(successor), signal.SIGTERM)
    dk.check(successor.wait(timeout=60) == 85, "exit code after SIGTERM")
    check_log(run)
    dk.check(not list(run.glob("lock*")), f"left: {list(run.glob('lock*'))}")
    print("a stopped one that goes on ends without a word in the run: passed")


def deleted_lock(shop, run):
    process = shop.start(run, steps=ALL_STEPS)
    running(run, process)
    (run / "lock").unlink()
    code = process.wait(timeout=60)
    said = process.log.read_text()
    dk.check(code == 2 and "lock was deleted" in said, f"{code}: {said}")
    check_log(run)
    print("a deleted lock ends its run: passed")


def successor_within_one_write(first, second, run):
    """The lock is deleted, and the run is another one's, while the trainer is between its look at the lock and a line."""
    process = first.start(run, steps=ALL_STEPS, fault="log:write@1000!HOLD")
    running(run, process)
    lines = -1
    while lines < (lines := len(steps_logged(run))):  # it is held for 3 s
        time.sleep(0.2)
    (run / "lock").unlink()
    successor = second.start(run, steps=ALL_STEPS)
    running(run, successor)
    code = process.wait(timeout=60)
    said = process.log.read_text()
    dk.check(code == 2 and "its lock is of process 1 on" in said, f"{code}: {said}")
    os.kill(trainer_of(successor), signal.SIGTERM)
    dk.check(successor.wait(timeout=60) == 85, "exit code after SIGTERM")
    check_log(run)
    print("a line that a successor was faster with is not written: passed")


def killed_while_taking_over(shop, run):
    process = shop.start(run, steps=ALL_STEPS)
    running(run, process)
    process.kill()
    process.wait()
    shop.train(run, steps=ALL_STEPS, fault="lock:claimed", expect=-signal.SIGKILL)
    dk.check(len(list(run.glob("lock*"))) == 2, f"the kill is no test: {list(run.glob('lock*'))}")
    process = shop.start(run, steps=ALL_STEPS)
    running(run, process)
    dk.check(dk.stop(process) == 85, "exit code after SIGTERM")
    dk.check(not list(run.glob("lock*")), f"left: {list(run.glob('lock*'))}")
    print("a take-over that was killed is taken over: passed")


with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    shops = []
    for name in ("a", "b", "c"):
        (root / name).mkdir()
        shops.append((dk.Workshop if name == "c" else NamespaceWorkshop)(root / name))
        shops[-1].tokens = shops[0].tokens
    try:
        run = root / "run"
        trainer = live_lock_of_another_namespace(shops[0], shops[1], run)
        trainer = successor_of_a_killed_one(shops[0], shops[1], run, trainer)
        a_stopped_one_goes_on(shops[0], shops[1], run, trainer)
        deleted_lock(shops[2], root / "deleted")
        successor_within_one_write(shops[2], shops[0], root / "held")
        killed_while_taking_over(shops[2], root / "killed")
    finally:
        for process in started:
            process.kill()

print("passed")
