# SPDX-License-Identifier: Apache-2.0
"""Thirty random faults on the way of one run, which ends as the undisturbed one: the same bits, each step logged once, no file too many.
DEKODER_SOAK_SEED repeats the faults of an earlier soak, whose seed it printed."""
import os
import random
import signal
import time
import unittest
from pathlib import Path

import cluster

cluster.inside()
from training_job import TrainingJobs, wait_until  # noqa: E402

FAULTS = 30
STEPS = 3600
RUN = "soak"
SAVE_POINTS = ["checkpoint:create", "checkpoint:mid_write", "checkpoint:before_fsync", "checkpoint:before_rename", "checkpoint:after_rename"]


class Soak(TrainingJobs):
    def submit_run(self, nodes):
        self.nodes = nodes
        self.job = self.train(RUN, "--set", f"training.steps={STEPS}", options=(f"-N{nodes}", "--ntasks-per-node=1", "--exclusive"),
                              program=self.wrapper, DEKODER_WATCHDOG_SECONDS="5")
        self.jobs.append(self.job)

    # ---- the faults

    def preempted(self):
        self.preempt(RUN, seconds=1)

    def preempted_without_grace(self):
        self.cluster.ask("scontrol", "update", "PartitionName=low", "GraceTime=0")
        self.preempt(RUN, seconds=1)
        self.cluster.ask("scontrol", "update", "PartitionName=low", "GraceTime=10")

    def killed(self):
        os.kill(random.choice(self.pids(RUN)), signal.SIGKILL)
        self.wait_until_gone(RUN)

    def stopped(self):
        """A rank among others hangs; a single one is killed, as nobody waits for it."""
        ranks = self.pids(RUN)
        os.kill(random.choice(ranks), signal.SIGSTOP if len(ranks) > 1 else signal.SIGKILL)
        self.wait_until_gone(RUN, 120)

    def killed_in_the_next_save(self):
        (self.work / "fault").write_text(random.choice(SAVE_POINTS))
        self.preempt(RUN, seconds=1)
        wait_until(lambda: not (self.work / "fault").exists(), "a start that is to die", 120, lambda: self.log(RUN))
        self.wait_until_gone(RUN, 120)

    def another_number_of_ranks(self):
        self.cluster.ask("scancel", self.job)
        self.wait_for(self.job, RUN, "CANCELLED")
        self.wait_until_gone(RUN)
        self.submit_run(3 - self.nodes)

    # ----

    def trains(self, step):
        """Its ranks are there and have logged the step; a job that has crashed too often in a row is submitted again."""
        if self.cluster.job(self.job)["JobState"] == "FAILED":
            self.submit_run(self.nodes)
        ranks = self.pids(RUN)
        return len(ranks) == self.nodes and self.last_step(RUN) >= step and self.has_logged(ranks)

    def has_logged(self, ranks):
        """Whether these very ranks have logged a step, not a start before them: one that is stopped before that is waited for much longer."""
        try:
            ticks = max(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) for pid in ranks)
        except OSError:  # gone
            return False
        log = (self.work / RUN / "metrics.jsonl").stat().st_mtime - time.time() + time.clock_gettime(time.CLOCK_BOOTTIME)
        return log > ticks / os.sysconf("SC_CLK_TCK") + 0.5 and self.starts(RUN)[-1]["event"] == "begin" and \
            self.last_step(RUN) > self.starts(RUN)[-1]["step"]

    def test_thirty_faults(self):
        seed = int(os.environ.get("DEKODER_SOAK_SEED", time.time()))
        print(f"DEKODER_SOAK_SEED={seed}", flush=True)
        random.seed(seed)
        self.jobs = []
        # Rank 0 takes the fault that is asked for, once.
        self.wrapper = self.program("faulty", 'if [ "${1:-}" = train ] && [ "${SLURM_PROCID:-0}" = 0 ] && mv fault fault.taken 2> /dev/null; then',
                                    '  DEKODER_FAULT=$(< fault.taken) && export DEKODER_FAULT', "fi")
        faults = [self.preempted, self.preempted_without_grace, self.killed, self.stopped, self.killed_in_the_next_save,
                  self.another_number_of_ranks]
        begin = time.monotonic()
        self.submit_run(2)
        for step in sorted(random.sample(range(50, STEPS - 50), FAULTS)):
            wait_until(lambda: self.trains(step), f"step {step}", 300, lambda: self.log(RUN)[-5000:] + self.cluster.logs())
            fault = random.choice(faults if self.nodes == 2 else [*faults, *3 * [self.another_number_of_ranks]])  # back to two soon
            print(f"{time.monotonic() - begin:5.0f} s, step {self.last_step(RUN)} on {self.nodes} ranks: {fault.__name__}", flush=True)
            fault()
        wait_until(lambda: self.trains(STEPS) or self.status(RUN)["state"] == "finished", "the end", 600, lambda: self.log(RUN)[-5000:])
        self.wait_for(self.job, RUN, "COMPLETED")
        wall = time.monotonic() - begin
        rows = [row for row in self.rows(RUN) if "loss" in row]
        counted = sum(16 * 64 / row["tokens_per_second"] for row in rows)
        print(f"{FAULTS} faults, {len(self.jobs)} jobs, {self.log(RUN).count(': job ')} starts; {wall:.0f} s, of which {counted / wall:.0%} went to steps "
              "that counted")
        self.assert_undisturbed(RUN, steps=STEPS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
