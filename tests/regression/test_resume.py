# SPDX-License-Identifier: Apache-2.0
"""N + M steps in one go equal N steps, a stop or a kill -9, a restart and M steps: parameters, moments, logged losses and
samples bit for bit, across epoch boundaries (about 40 steps), with dropout and two micro-batches."""

import pathlib
import signal
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

STEPS = 400


def lines_in(run):
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed_at(workshop, run, lines, number):
    """Stops a run once its log has `lines` lines; tries again where it was too fast to be hit."""
    process = workshop.start(run, STEPS)
    dk.wait_until(lambda: lines_in(run) >= lines, f"{lines} log lines", process)
    process.send_signal(signal.SIGSTOP)  # or it may be over before status looks
    dk.check(dk.status(run)["running"] is True and dk.status(run)["state"] == "running", "status does not see the running trainer")
    process.send_signal(signal.SIGCONT)
    code = dk.stop(process, number)
    dk.check(dk.status(run)["running"] is False and dk.status(run)["state"] == "resumable", "status takes a dead trainer for a running one")
    dk.check(lines_in(run) < STEPS, "the run was over before the signal: make it longer")
    return code


with tempfile.TemporaryDirectory() as folder:
    workshop = dk.Workshop(folder)
    root = pathlib.Path(folder)
    whole = root / "whole"
    workshop.train(whole, STEPS)
    steps = [line for line in dk.step_lines(whole) if '"loss"' in line]
    dk.check(len(steps) == STEPS, f"{len(steps)} step lines, expected {STEPS}")

    run = root / "killed"
    code = killed_at(workshop, run, 60, signal.SIGKILL)
    dk.check(code == -signal.SIGKILL, f"exit code {code} after kill -9")
    code = killed_at(workshop, run, 170, signal.SIGKILL)
    dk.check(code == -signal.SIGKILL, f"exit code {code} after kill -9")
    dk.check("going on from step" in workshop.train(run, STEPS), "the restart does not say from where it goes on")
    dk.compare_runs(whole, run)

    run = root / "stopped"
    for number, lines in ((signal.SIGTERM, 30), (signal.SIGINT, 95), (signal.SIGUSR1, 180)):
        code = killed_at(workshop, run, lines, number)
        dk.check(code == 85, f"exit code {code} after signal {number}, expected 85")
        state = dk.status(run)
        dk.check(state["state"] == "resumable" and state["saved_step"] == state["step"] == max(dk.checkpoints(run)),
                 f"after signal {number}: {state}")
    workshop.train(run, STEPS)
    dk.compare_runs(whole, run)
    dk.check(dk.status(run)["state"] == "finished", f"{dk.status(run)}")

    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.h5")}
    log = (run / "metrics.jsonl").read_bytes()
    workshop.train(run, STEPS)  # a finished run, started again
    dk.check({path: path.stat().st_mtime_ns for path in run.rglob("*.h5")} == before, "a finished run was saved again")
    dk.check((run / "metrics.jsonl").read_bytes() == log, "a finished run changed its log")

print("passed")
