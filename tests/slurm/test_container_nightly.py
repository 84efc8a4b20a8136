# SPDX-License-Identifier: Apache-2.0
"""Training in the image of jobs/setup/dekoder.def, which is built for it, without rights (--userns): by hand in the image's file, which
Apptainer mounts by a process of its own (FUSE), and as jobs of a Slurm of two nodes outside of it, in the unpacked image."""
import os
import signal
import subprocess
import unittest

import container

container.inside()
import cluster  # noqa: E402

cluster.inside()
from training_job import STEPS, TrainingJobs, wait_until  # noqa: E402

IMAGE = os.environ[container.IMAGE]


class Container(TrainingJobs):
    prefix = ("apptainer", "exec", "--userns", IMAGE.removesuffix(".sif") + ".d")
    dekoder = "dekoder"
    options = {"spool": "/run/dekoder-spool"}  # Apptainer shows /tmp by itself, but not this one

    def start(self, *words):
        """In a process group of its own, as a shell with jobs starts it."""
        process = subprocess.Popen(["apptainer", "run", "--userns", IMAGE, "train", "config.yaml", *words], cwd=self.work, env=self.cluster.environment,
                                   stderr=subprocess.PIPE, text=True, process_group=0)
        self.addCleanup(lambda: process.poll() is None and os.killpg(process.pid, signal.SIGKILL))
        return process

    def test_the_image_has_what_it_needs(self):
        """Its own dekoder, the post-processing and the toolbox's tool chain."""
        self.assertEqual(self.cluster.ask(*self.prefix, "sh", "-c", "command -v dekoder; command -v dekoder-report").split(),
                         ["/usr/local/bin/dekoder", "/usr/local/bin/dekoder-report"])
        self.assertIn("Usage: dekoder", self.cluster.ask("apptainer", "run", "--userns", IMAGE, "--help"))
        *apptainer, image = self.prefix
        self.cluster.ask(*apptainer, "--bind", container.ROOT, image, "bash", container.ROOT / "jobs/setup/native.sh")

    def test_by_hand(self):
        """Exit codes arrive outside; a signal to the container's process, or Ctrl-C to all of its group, saves."""
        self.assertEqual(self.cluster.ask("apptainer", "run", "--userns", IMAGE, "train", "none.yaml", check=False, cwd=self.work).returncode, 2)
        for name, send in (("USR1", lambda process: process.send_signal(signal.SIGUSR1)), ("TERM", lambda process: process.terminate()),
                           ("INT", lambda process: os.killpg(process.pid, signal.SIGINT))):
            process = self.start("--run", "by-hand")
            wait_until(lambda: len(self.pids("by-hand")) == 1, "a trainer", 60)
            step = self.last_step("by-hand")
            self.wait_for_step("by-hand", step + 20)
            send(process)
            said = process.communicate(timeout=60)[1]
            self.assertEqual(process.returncode, 85, f"{name}: {said}")
            status = self.status("by-hand")
            self.assertEqual((status["state"], status["saved_step"]), ("resumable", status["step"]), said)
        process = self.start("--run", "by-hand")
        said = process.communicate(timeout=300)[1]
        self.assertEqual(process.returncode, 0, said)
        self.assert_undisturbed("by-hand")
        self.cluster.ask(*self.prefix, "dekoder-report", "by-hand", "-o", "report.html", cwd=self.work)
        self.assertIn("by-hand", (self.work / "report.html").read_text())

    def test_either_launcher_gives_the_bits_of_one_rank(self):
        words = ["--set", "training.steps=90"]
        for run, options in (("one", {"options": ("-n1",)}), ("srun", {}), ("mpirun", {"DEKODER_LAUNCH": "mpirun"})):
            job = self.train(run, *words, **options)
            self.wait_for(job, run, "COMPLETED")
            self.assertEqual("rank 1: n2, " in self.log(run), run != "one", self.log(run))
            self.assert_undisturbed(run, steps=90)

    def test_jobs_that_are_disturbed_come_back(self):
        """By a preemption, a signal, scontrol and a rank that is killed."""
        job = self.train("disturbed", "--set", f"training.steps={3 * STEPS}")
        self.wait_for_step("disturbed", 50)
        self.preempt("disturbed")
        self.assertEqual(self.status("disturbed")["saved_step"], self.status("disturbed")["step"], "steps were lost")
        for what, restarts in ((lambda: self.cluster.ask("scancel", "--batch", "--signal=USR1", job), 2),
                               (lambda: self.cluster.ask("scontrol", "requeue", job), 3),
                               (lambda: os.kill(self.pids("disturbed")[0], signal.SIGKILL), 4)):
            wait_until(lambda: len(self.pids("disturbed")) == 2, "two ranks", 120, lambda: self.log("disturbed"))
            self.wait_for_step("disturbed", self.last_step("disturbed") + 20)
            what()
            wait_until(lambda: int(self.cluster.job(job)["Restarts"]) >= restarts, f"restart {restarts}", 120, lambda: self.log("disturbed"))
        self.wait_for(job, "disturbed", "COMPLETED")
        self.assert_undisturbed("disturbed", steps=3 * STEPS)

    def test_a_job_that_is_cancelled(self):
        job = self.train("cancelled")
        self.wait_for_step("cancelled", 50)
        self.cluster.ask("scancel", job)
        self.wait_for(job, "cancelled", "CANCELLED", seconds=60)
        self.wait_until_gone("cancelled")
        status = self.status("cancelled")
        self.assertEqual((status["state"], status["saved_step"]), ("resumable", status["step"]), self.log("cancelled"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
