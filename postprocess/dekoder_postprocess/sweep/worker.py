# SPDX-License-Identifier: Apache-2.0
"""A worker of a sweep: takes trials one after the other, and trains each by the program `dekoder`, until none is left."""
from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time

from ..errors import RunError
from ..program import NotKnown, own_environment
from ..run_reader import read_status
from .claims import FAILED, FINISHED, GIVEN_BACK, PAUSED, STOPPED
from .fault_point import fault_point
from .parameters import setting_text, settings_text
from .schedule import at_work, next_job
from .trial_result import validation_losses

WANTS_TO_GO_ON = 85
"""Exit code of dekoder, and of a worker: saved after a signal or before the end of the job's time, and there is more to do."""
CRASHES = 3
"""In a row without a further checkpoint, after which a trial has failed; of one worker's trials in a row, after which it ends."""
LOOK_AGAIN = 2.0
"""Seconds between two looks of a worker for which there is nothing to do now."""
BUSY = 60.0
"""Seconds for which a trial is left alone whose run another process trains in."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGHUP)
_libc = ctypes.CDLL(None)


class Worker:
    """`launch`: words before `dekoder train`, such as those of srun. `wait`: not to end while others train, whose results or
    whose end may leave something to do. `again`: also the trials that have failed or were stopped before, each once."""

    def __init__(self, folder, program, launch=(), backend=None, wait=True, again=False):
        self._folder, self._program, self._wait = folder, program, wait
        self._launch = list(launch)
        self._backend = ["--backend", backend] if backend else []
        self._child = None
        self._signal = 0
        self._crashes = 0  # of trials in a row
        self._log_begin = 0  # of the last start
        self._busy_until = {}  # trial -> monotonic time
        # With the claim that ended it: one that was claimed since, by this worker or by another, has been taken up again.
        self._again = {trial.index: trial.claims for trial in folder.look() if trial.state in (FAILED, STOPPED)} if again else {}

    def work(self) -> int:
        """Returns the exit code: 0 where no trial is left, 85 where it was asked to end. Raises RunError where trials cannot be
        trained here."""
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, self._on_signal)
        self._folder.claims.remove_left_over()
        while not self._signal:
            trials = self._folder.look()
            if (job := next_job(self._folder.definition, trials, self._left_alone(), self._again)) is not None:
                claim = self._folder.claims.take(job.trial.index, job.trial.claims + 1, job.settings, job.target)
                if claim is not None and (code := self._train(claim)) is not None:  # else another worker was faster
                    return code
            elif not self._wait or not at_work(trials):
                return 0
            else:
                time.sleep(0 if self._signal else LOOK_AGAIN)
        return WANTS_TO_GO_ON

    def _left_alone(self):
        """Trials in whose run directories other processes were seen at work a moment ago."""
        return {trial for trial, end in self._busy_until.items() if end > time.monotonic()}

    def _on_signal(self, number, _):
        if number == signal.SIGINT and self._signal == signal.SIGINT and self._child:
            self._child.kill()  # its last checkpoint stands
        self._signal = self._signal or number
        if self._child:
            self._child.send_signal(signal.SIGUSR1)  # which srun and mpirun pass on, and dekoder saves and ends

    # ---- a trial

    def _train(self, claim):
        """Trains a trial up to its target; returns the exit code of the worker where it is to end."""
        run, began = self._folder.run(claim.trial), time.monotonic()
        fault_point("sweep:began")
        if claim.number > 1 and not self._wait_until_free(claim, run):
            return None if claim.lost else self._busy(claim, run)
        before = _saved_step(run)
        goal = f"to step {claim.target}" if claim.target < self._folder.definition.steps else "to the end"
        taken_over = ", taken over from a worker that ended without a word" if self._folder.claims.taken_over(claim) else ""
        self._say(f"trial {claim.trial:04d}: from step {before} {goal}{taken_over}: {settings_text(claim.settings)}")
        code = WANTS_TO_GO_ON if self._signal else self._run(claim, run)
        fault_point("sweep:trained")
        return self._end(claim, run, code, before, time.monotonic() - began)

    def _wait_until_free(self, claim, run):
        """The trainer of a killed worker saves, too, before it ends. False where it does not end in time."""
        end = time.monotonic() + BUSY
        while self._in_use(run) and not self._signal:
            if not claim.beat() or time.monotonic() > end:
                return False
            time.sleep(0.5)
        return True

    def _in_use(self, run):
        try:
            return (run / "lock").exists() and self._program.running(run)()
        except NotKnown:
            return False

    def _run(self, claim, run):
        """Starts `dekoder train` and waits for its end; returns its exit code."""
        definition = self._folder.definition
        words = [*self._launch, self._program.path, "train", os.fspath(self._folder.base), "--run", os.fspath(run), *self._backend]
        for key, value in {**definition.fixed, **claim.settings, "training.steps": definition.steps}.items():
            words += ["--set", f"{key}={setting_text(value)}"]
        if claim.target < definition.steps:
            words += ["--until", str(claim.target)]
        parent = os.getpid()

        def tied_to_this_process():
            """In the new process: if the worker is killed, it saves and ends."""
            _libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(WANTS_TO_GO_ON)

        with open(self._folder.log(claim.trial), "ab") as log:
            self._log_begin = log.tell()
            try:
                # In a session of its own: Ctrl-C reaches it through this process alone.
                self._child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=own_environment(),
                                               start_new_session=True, preexec_fn=tied_to_this_process)
            except OSError as error:
                claim.end(self._outcome(claim, run, GIVEN_BACK))
                raise RunError(f"{words[0]}: cannot be started: {error.strerror or error}; check --launch, DEKODER_LAUNCH and "
                               "DEKODER_PROGRAM") from error
        fault_point("sweep:started")
        if self._signal:
            self._child.send_signal(signal.SIGUSR1)
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._child.wait(1)
                self._child = None
                return code
            if not claim.beat():  # this process, or its disk, was stopped meanwhile
                self._child.terminate()

    def _outcome(self, claim, run, state, message="", crashes=0):
        step = _saved_step(run)
        try:
            found = validation_losses(run, self._folder.definition.rungs)
        except RunError as error:
            state, message, found = FAILED, str(error), {"losses": {}, "best_loss": None, "best_step": None}
        if state == FAILED:
            found["losses"][claim.target] = None  # no result, as bad as any
        return {"state": state, "step": step, **found, "crashes": crashes, "message": message}

    def _end(self, claim, run, code, before, seconds):
        if claim.lost:
            self._say(f"trial {claim.trial:04d}: another worker has taken it, as this one stood still")
            return None
        status, last, step = _status(run), self._last_line(claim), _saved_step(run)
        reached = code in (0, WANTS_TO_GO_ON) and step >= claim.target
        if reached:
            outcome = self._outcome(claim, run, FINISHED if claim.target >= self._folder.definition.steps else PAUSED)
            if claim.target not in outcome["losses"]:
                outcome = self._outcome(claim, run, FAILED, f"no validation loss up to step {claim.target}: evaluation.every, or a token file "
                                                            "without a held-out part")
            self._crashes = 0
        elif status.get("state") == "failed":
            outcome = self._outcome(claim, run, FAILED, status["message"])
            self._crashes = 0
        elif self._signal:
            outcome = self._outcome(claim, run, GIVEN_BACK)
        elif code == WANTS_TO_GO_ON and status.get("message") == "stopped by the file stop":
            outcome = self._outcome(claim, run, STOPPED, status["message"])
        elif code in (WANTS_TO_GO_ON, 3):
            outcome = self._outcome(claim, run, GIVEN_BACK)
        elif code == 2 and self._in_use(run):
            return self._busy(claim, run)
        else:
            crashes = 1 if step > before else self._crashes_of(claim) + 1
            state = FAILED if crashes >= CRASHES else GIVEN_BACK
            self._crashes += 1
            outcome = self._outcome(claim, run, state, f"exit code {code}: {last}", crashes)
        claim.end(outcome)
        loss = outcome["best_loss"]
        self._say(f"trial {claim.trial:04d}: {outcome['state']} at step {step} after {seconds:.0f} s"
                  + ("" if loss is None else f", best validation loss {loss:.4f}") + (f": {outcome['message']}" if outcome["message"] else ""))
        if code == 3 and not reached:
            raise RunError(f"trial {claim.trial:04d}: {last}; it is given back: `dekoder-sweep work` goes on once that is mended")
        if self._crashes >= CRASHES:
            raise RunError(f"the last {CRASHES} trials crashed here, the last one with exit code {code}: {last}; see {self._folder.path}/logs")
        if code == WANTS_TO_GO_ON and outcome["state"] == GIVEN_BACK:
            return WANTS_TO_GO_ON  # asked to, or at the end of the job's time
        return None

    def _crashes_of(self, claim):
        earlier = self._folder.claims.look()[claim.trial].earlier
        return (earlier or {}).get("crashes", 0)

    def _busy(self, claim, run):
        claim.end(self._outcome(claim, run, GIVEN_BACK))
        self._busy_until[claim.trial] = time.monotonic() + BUSY
        self._say(f"trial {claim.trial:04d}: another process trains in {run}: left alone for {BUSY:.0f} s")

    def _last_line(self, claim):
        """What dekoder said last, its errors first."""
        try:
            with open(self._folder.log(claim.trial), "rb") as log:
                log.seek(self._log_begin)
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        errors = [line for line in lines if "error: " in line]
        return (errors or [line for line in lines if line.strip()] or [""])[-1]

    def _say(self, text):
        print(f"dekoder-sweep: {text}", file=sys.stderr, flush=True)


def _status(run):
    """Of a run; empty where it has none that can be read: then the program says so."""
    try:
        return read_status(run / "status") or {}
    except RunError:
        return {}


def _saved_step(run):
    return _status(run).get("step", 0)


def launch_words(text) -> list:
    """Words of --launch: an argparse type, also of DEKODER_LAUNCH."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' has no words of a command: {error}; expected e.g. 'srun -n 4' (without --launch: "
                                         "DEKODER_LAUNCH)") from error
