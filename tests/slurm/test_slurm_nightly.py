# SPDX-License-Identifier: Apache-2.0
"""What else a cluster does to a training job: a preemption without a signal of its own or without a grace, time limits, arrays, lost
nodes and ranks that hang. After each the run ends with the bits of the undisturbed one."""
import os
import signal
import time
import unittest

import cluster

cluster.inside()
from training_job import TrainingJobs, wait_until  # noqa: E402


class TermOnly(TrainingJobs):
    """Where a preempted job gets no USR1: its steps get TERM at the start of the grace, and the script nothing."""

    options = {"preempt_signal": False}

    def test_srun(self):
        job = self.train("term-srun")
        self.wait_for_step("term-srun", 70)
        self.preempt("term-srun")
        status = self.status("term-srun")
        self.assertEqual(status["saved_step"], status["step"], "steps were lost")
        self.assertGreaterEqual(int(self.wait_for(job, "term-srun", "COMPLETED")["Restarts"]), 1)
        self.assertIn("saved after SIGTERM", self.log("term-srun"))
        self.assert_undisturbed("term-srun")

    def test_mpirun(self):
        """The daemons of mpirun get it, and end the ranks: up to one interval of saving is lost."""
        job = self.train("term-mpirun", DEKODER_LAUNCH="mpirun")
        self.wait_for_step("term-mpirun", 90)
        self.preempt("term-mpirun")
        status = self.status("term-mpirun")
        self.assertLessEqual(status["step"] - status["saved_step"], 40, self.log("term-mpirun"))
        self.assertGreaterEqual(int(self.wait_for(job, "term-mpirun", "COMPLETED")["Restarts"]), 1)
        self.assert_undisturbed("term-mpirun")


class NoGrace(TrainingJobs):
    options = {"grace": 0, "kill_wait": 1}

    def test_a_save_that_is_cut_short(self):
        """KILL comes while a checkpoint is written, to a disk that does not answer: the one before it counts."""
        program = self.program("held", '[ -n "${SLURM_RESTART_COUNT:-}" ] || export DEKODER_FAULT=checkpoint:mid_write@3!HANG')
        job = self.train("cut", program=program)
        self.wait_for_step("cut", 85)
        self.preempt("cut")
        folder = self.work / "cut/checkpoints"
        self.assertTrue([name for name in os.listdir(folder) if name.endswith(".tmp")], self.log("cut"))
        self.assertEqual(self.saved_steps("cut"), [40, 80], self.log("cut"))
        self.assertGreaterEqual(int(self.wait_for(job, "cut", "COMPLETED")["Restarts"]), 1)
        self.assertEqual(self.restarted_from("cut"), [80], self.log("cut"))
        self.assert_undisturbed("cut")


class Nightly(TrainingJobs):
    def test_three_time_limits(self):
        """Slurm looks at limits every half a minute, and sends the signal up to a minute early."""
        steps, large = 1600, ["--set", "training.batch=192"]  # a start has half a minute, and here does some 400 of them
        job = self.train("limits", "--set", f"training.steps={steps}", *large,
                         options=("-N2", "--ntasks-per-node=1", "--exclusive", "-t1", "--signal=B:USR1@55"))
        shown = self.wait_for(job, "limits", "COMPLETED", "FAILED", seconds=1800)
        self.assertEqual(shown["JobState"], "COMPLETED", self.log("limits"))
        self.assertGreaterEqual(int(shown["Restarts"]), 3, self.log("limits"))
        self.assert_undisturbed("limits", *large, steps=steps)

    def test_a_time_limit_without_a_signal(self):
        """The ranks stop by themselves; only CONT, which does nothing, is sent."""
        job = self.train("silent", "--set", "training.steps=1000000", options=("-N2", "--ntasks-per-node=1", "--exclusive", "-t1",
                                                                              "--signal=B:CONT@10"))
        wait_until(lambda: self.last_step("silent") > 0 and len(self.starts("silent")) == 3, "a second start", 180, lambda: self.log("silent"))
        (self.work / "silent/stop").touch()
        self.assertEqual(self.wait_for(job, "silent", "COMPLETED")["Restarts"], "1", self.log("silent"))
        self.assertIn("dekoder: saved before the time limit; the same command goes on", self.log("silent"))
        _, limit, begin, stop = self.starts("silent")
        self.assertEqual((limit["reason"], begin["lost_steps"], stop["reason"]), ("the time limit", 0, "the file stop"))
        self.assertEqual(begin["step"], limit["step"])
        self.assertGreater(limit["wall_seconds"], 30)

    def test_an_array(self):
        """Of two elements on a node each one is preempted, and it alone is started again (by some versions of Slurm once more after
        its end, which changes nothing)."""
        (self.work / "sweep.txt").write_text("config.yaml --run element-0\nconfig.yaml --run 'element-1' --set training.seed=7\n")
        job = self.submit("sweep.txt", job="array", options=("--array=0-1%2", "-N1", "--exclusive"))
        for run in ("element-0", "element-1"):
            self.wait_for_step(run, 70)
        self.preempt("array", nodes=1)
        restarts = [int(self.wait_for(f"{job}_{i}", "array", "COMPLETED")["Restarts"]) for i in (0, 1)]
        self.assertEqual((min(restarts), max(restarts) > 0), (0, True), self.log("array"))
        self.assert_undisturbed("element-0")
        self.assert_undisturbed("element-1", "--set", "training.seed=7")
        job = self.submit("sweep.txt", job="beyond", options=("--array=2", "-N1"))
        self.assertEqual(self.wait_for(f"{job}_2", "beyond", "FAILED")["ExitCode"], "2:0")
        self.assertIn("line 2 of sweep.txt (the first is 0) is ''; expected a configuration there", self.log("beyond"))

    def test_a_rank_that_is_stopped(self):
        for index in (0, 1):
            run = f"stopped-{index}"
            job = self.train(run, DEKODER_WATCHDOG_SECONDS="5")
            self.wait_for_step(run, 90)
            ranks = {os.readlink(f"/proc/{pid}/ns/uts"): pid for pid in self.pids(run)}
            ranks = sorted(ranks.values())
            self.assertEqual(len(ranks), 2)
            begin = time.monotonic()
            os.kill(ranks[index], signal.SIGSTOP)
            self.wait_until_gone(run, 60)
            print(f"a stopped rank ends the job after {time.monotonic() - begin:.1f} s (limit 5 s)")
            self.assertEqual(self.wait_for(job, run, "COMPLETED")["Restarts"], "1", self.log(run))
            self.assertRegex(self.log(run), r"error: rank \d is in '[a-z, -]+' for \d+ s without an end \(limit \d+ s\)")
            self.assert_undisturbed(run)


class LostNodes(TrainingJobs):
    options = {"slurmd_timeout": 8}

    def test_a_node_that_is_lost(self):
        """The job waits for it, as it asks for two."""
        job = self.train("lost")
        self.wait_for_step("lost", 90)
        self.cluster.lose_node("n2")
        self.wait_for(job, "lost", "PENDING", seconds=120)
        self.wait_until_gone("lost")
        wait_until(lambda: "down" in self.cluster.ask("sinfo", "-h", "-N", "-o", "%t"), "n2 is down", 120, self.cluster.logs)
        self.assertEqual(self.cluster.job(job)["JobState"], "PENDING")
        self.cluster.start_node("n2")
        shown = self.wait_for(job, "lost", "COMPLETED")
        self.assertGreaterEqual(int(shown["Restarts"]), 1, self.log("lost"))
        self.assert_undisturbed("lost")

    def test_the_node_of_the_script_is_lost(self):
        """Slurm itself starts the job again."""
        job = self.train("first-lost")
        self.wait_for_step("first-lost", 90)
        self.cluster.lose_node("n1")
        self.wait_for(job, "first-lost", "PENDING", seconds=120)
        self.cluster.start_node("n1")
        shown = self.wait_for(job, "first-lost", "COMPLETED", seconds=400)
        self.assertGreaterEqual(int(shown["Restarts"]), 1, self.log("first-lost"))
        self.assert_undisturbed("first-lost")


if __name__ == "__main__":
    unittest.main(verbosity=2)
