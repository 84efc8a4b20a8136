# SPDX-License-Identifier: Apache-2.0
"""Training as jobs of a real Slurm of two nodes: the bits of one rank through preemption, crashes and cancelling."""
import os
import random
import shutil
import signal
import subprocess
import time
import unittest
from pathlib import Path

import cluster

cluster.inside()
from training_job import JOB, PROGRAM, TrainingJobs, wait_until  # noqa: E402


class Slurm(TrainingJobs):
    def test_the_script_is_sound(self):
        self.cluster.ask("bash", "-n", JOB)
        self.cluster.ask("shellcheck", JOB)
        for options in ((), ("-N2", "--ntasks-per-node=2"), ("--gpus-per-node=2",), ("--array=0-3%2",)):
            said = self.cluster.ask("sbatch", "--test-only", *options, JOB, "config.yaml", check=False, cwd=self.work)
            self.assertRegex(said.stderr, r"sbatch: Job \d+ to start at")

    def test_srun_trains_on_two_nodes(self):
        """By hand, in an allocation; and as singletons, which srun without PMIx makes of them."""
        words = [PROGRAM, "train", "config.yaml", "--set", "training.steps=90", "--run"]
        srun = lambda mpi, run: self.cluster.ask("srun", f"--mpi={mpi}", "-N2", "-n2", *words, run, check=False, cwd=self.work)
        done = srun("pmix", "by-srun")
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, said)
        for rank, host in enumerate(("n1", "n2")):
            self.assertIn(f"dekoder: rank {rank}: {host}, ", said)
        self.assert_undisturbed("by-srun", steps=90)
        done = srun("none", "singletons")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("SLURM_STEP_NUM_TASKS is 2: the job announces 2 ranks but MPI sees 1", done.stderr)
        self.assertFalse((self.work / "singletons").exists())

    def test_either_launcher_gives_the_bits_of_one_rank(self):
        """Also four ranks on two nodes; then a start of the finished run, which changes nothing."""
        words = ["--set", "training.steps=90"]
        for run, options in (("srun", {}), ("mpirun", {"DEKODER_LAUNCH": "mpirun"}),
                             ("four", {"options": ("-N2", "--ntasks-per-node=2", "--exclusive")})):
            job = self.train(run, *words, **options)
            self.wait_for(job, run, "COMPLETED")
            self.assert_undisturbed(run, steps=90)
        self.assertIn("rank 3: n2", self.log("four"))
        files = lambda: {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (self.work / "four").rglob("*") if path.is_file()}
        before, begin = files(), time.monotonic()
        job = self.train("four", *words)
        self.wait_for(job, "four", "COMPLETED")
        self.assertLess(time.monotonic() - begin, 3)
        self.assertEqual(files(), before)
        self.assertNotIn("rank 0: ", self.log("four").rpartition("start 1")[2])
        job = self.train("four", "--set", "training.steps=95")  # finished, but not for who asks for more steps
        self.wait_for(job, "four", "COMPLETED")
        self.assertEqual(self.status("four")["saved_step"], 95)

    def test_each_rank_has_a_gpu_of_its_own(self):
        """With --gpus-per-node every rank sees all GPUs of its node, by either launcher, and takes that of its number there (Kokkos does);
        these are in name only."""
        for launcher in ("srun", "mpirun"):
            seen = self.work / f"gpus-{launcher}"
            program = self.program(f"looks-{launcher}", 'if [ "$1" = train ]; then',
                                   f'  echo "$(hostname) ${{OMPI_COMM_WORLD_LOCAL_RANK:-$SLURM_LOCALID}} $CUDA_VISIBLE_DEVICES" >> {seen}', "fi")
            job = self.train(f"gpu-{launcher}", "--set", "training.steps=20", program=program, DEKODER_LAUNCH=launcher,
                             options=("-N2", "--ntasks-per-node=2", "--exclusive", "--gpus-per-node=2"))
            self.wait_for(job, f"gpu-{launcher}", "COMPLETED")
            self.assertEqual(sorted(seen.read_text().splitlines()), ["n1 0 0,1", "n1 1 0,1", "n2 0 0,1", "n2 1 0,1"])

    def test_a_preempted_job_saves_and_comes_back(self):
        job = self.train("preempted", "--set", "checkpoint.every=1000")  # what is saved is saved for the stop
        self.wait_for_step("preempted", 70)
        running, status = self.preempt("preempted"), self.status("preempted")
        stopped = status["saved_step"]
        self.assertEqual((status["state"], status["step"]), ("resumable", stopped), "steps were lost")
        saved = (self.work / f"preempted/checkpoints/ckpt-{stopped:08d}.h5").stat().st_mtime
        print(f"the other job runs {running - saved:.1f} s after the save")
        self.assertLess(running - saved, self.cluster.grace, self.log("preempted"))  # it did not wait for the end of the grace
        self.assertGreaterEqual(int(self.wait_for(job, "preempted", "COMPLETED")["Restarts"]), 1)
        self.assertRegex(self.log("preempted"), r"saved after SIGUSR1, \d+:\d\d(:\d\d)? before the job's time limit")
        self.assertGreaterEqual(stopped, 70)
        self.assert_undisturbed("preempted")

    def test_a_cancelled_job_stays_so(self):
        """Its ranks save at once, as before any other end; the next job goes on."""
        job = self.train("cancelled")
        self.wait_for_step("cancelled", 70)
        self.cluster.ask("scancel", job)
        self.wait_for(job, "cancelled", "CANCELLED", seconds=60)
        end = time.monotonic() + 15
        self.wait_until_gone("cancelled")
        stopped = self.saved_steps("cancelled")[-1]
        self.digests("cancelled", stopped)  # checks them
        self.assertEqual(self.status("cancelled")["saved_step"], stopped)
        while time.monotonic() < end:
            self.assertEqual(self.cluster.job(job)["JobState"], "CANCELLED")
            self.assertFalse(self.pids("cancelled"))
            time.sleep(0.5)
        again = self.train("cancelled")
        self.wait_for(again, "cancelled", "COMPLETED")
        self.assert_undisturbed("cancelled")

    def test_a_run_that_a_file_stops(self):
        """It is not started again; the next job goes on."""
        job = self.train("file")
        self.wait_for_step("file", 70)
        (self.work / "file/stop").touch()
        shown = self.wait_for(job, "file", "COMPLETED")
        self.assertEqual((shown["Restarts"], shown["ExitCode"]), ("0", "0:0"), self.log("file"))
        status = self.status("file")
        self.assertEqual((status["state"], status["message"]), ("resumable", "stopped by the file stop"))
        self.assertIn("stopped by the file file/stop: not started again; the same sbatch line goes on", self.log("file"))
        again = self.train("file")
        self.wait_for(again, "file", "COMPLETED")
        self.assert_undisturbed("file")
        self.assertEqual([row["reason"] for row in self.starts("file") if row["event"] == "end"], ["the file stop", "finished"])
        self.assertEqual([row["job"] for row in self.starts("file") if row["event"] == "begin"], [job, again])

    def test_the_ranks_know_when_the_job_ends(self):
        """By what Slurm says in the environment, or, where it does not, by squeue."""
        words = ("config.yaml", "--set", "training.steps=30", "--run")
        jobs = {"told": self.train("told", *words[1:3]),
                "asked": self.cluster.submit("-p", "low", "-n1", f"--output={self.work}/asked.out", "--wrap",
                                             f"unset SLURM_JOB_END_TIME; exec bash {JOB} {' '.join(words)} asked", cwd=self.work,
                                             DEKODER_PROGRAM=str(PROGRAM))}
        for run, source in (("told", "SLURM_JOB_END_TIME"), ("asked", "--time-left")):
            self.wait_for(jobs[run], run, "COMPLETED")
            self.assertRegex(self.log(run), rf"dekoder: the job has (59:\d\d|1:00:00) left \({source}\)")

    def test_a_killed_rank(self):
        job = self.train("killed")
        step, rank = random.randint(45, 250), random.randint(0, 1)
        print(f"at step {step}, rank {rank}")
        self.wait_for_step("killed", step)
        os.kill(self.pids("killed")[rank], signal.SIGKILL)
        self.wait_until_gone("killed", 10)
        self.assertEqual(self.wait_for(job, "killed", "COMPLETED")["Restarts"], "1", self.log("killed"))
        self.assert_undisturbed("killed")

    def test_a_crash_at_one_step(self):
        """A fault of the program: after three starts that come no further the job fails."""
        program = self.program("crashes", '[ "${SLURM_PROCID:-0}" = 0 ] || export DEKODER_FAULT=train:step@30')
        job = self.train("crash", program=program)
        shown = self.wait_for(job, "crash", "FAILED")
        self.assertEqual(shown["Restarts"], "3", self.log("crash"))
        self.assertIn("crashed 4 times in a row without a further checkpoint: not started again", self.log("crash"))
        again = self.train("crash")
        self.wait_for(again, "crash", "COMPLETED")
        self.assert_undisturbed("crash")

    def test_crashes_before_the_run_has_a_folder(self):
        """They are counted all the same, also where the name of the run has what JSON and a shell have a meaning for."""
        dies = self.program("dies", 'if [ "$1" = train ]; then kill -SEGV $$; fi')
        run = '-new "run" \\ ü'
        job = self.submit("config.yaml", f"--run={run}", job="dies", program=dies)
        self.assertEqual(self.wait_for(job, "dies", "FAILED")["Restarts"], "3", self.log("dies"))
        self.assertIn("crashed 4 times in a row without a further checkpoint: not started again", self.log("dies"))
        self.assertEqual([path.name for path in (self.work / run).iterdir()], ["crashes"])
        (self.work / "no-count/crashes").mkdir(parents=True)
        job = self.train("no-count", program=dies)
        self.assertEqual(self.wait_for(job, "no-count", "FAILED")["Restarts"], "0", self.log("no-count"))
        self.assertIn("a crash that cannot be counted in no-count/crashes: not started again", self.log("no-count"))

    def test_fresh_stays_until_the_old_run_is_out_of_the_way(self):
        short = ("--set", "training.steps=20")
        self.wait_for(self.train("old", *short), "old", "COMPLETED")
        job = self.train("old", *short, "--fresh", "--set", "data.tokens=gone.h5")
        self.assertEqual(self.wait_for(job, "old", "FAILED")["ExitCode"], "3:0", self.log("old"))
        first_dies = self.program("first-dies", 'if [ "$1" = train ] && [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then kill -SEGV $$; fi')
        before = (self.work / "old/restarts.jsonl").read_text()
        job = self.train("old", *short, "--fresh", program=first_dies)
        self.assertEqual(self.wait_for(job, "old", "COMPLETED")["Restarts"], "1", self.log("old"))
        self.assertEqual((self.work / "old/previous-1/restarts.jsonl").read_text(), before)
        self.assertFalse((self.work / "old/previous-2").exists())
        shutil.rmtree(self.work / "old/previous-1")
        self.assert_undisturbed("old", steps=20)
        # A finished run is not trained with other settings, and the log says so.
        job = self.train("old", *short, "--set", "training.learning_rate=0.5")
        self.wait_for(job, "old", "COMPLETED")
        self.assertRegex(self.log("old"), r'warning: it has finished with other settings .*"training.learning_rate":\["0.001","0.5"\]')

    def test_lines_of_an_array(self):
        """Words are taken as they stand: no comment and no command hides what follows them."""
        (self.work / "lines.txt").write_text("config.yaml --run 'a b' --set training.seed=7\r\n# none\n\nconfig.yaml --run 'open\n"
                                             "config.yaml --run c # comment\nconfig.yaml --run d; touch injected\ngone.yaml\n")
        job = self.submit("lines.txt", "--set", "training.steps=20", "--time-left", "30:00", job="lines",
                          options=("--array=0-6", "-N1", "-n1", f"--output={self.work}/lines-%a.out"))
        for line, state, said in ((0, "COMPLETED", "30:00 left (--time-left)"), (1, "FAILED", "line 1 of lines.txt (the first is 0) is '# none'; expected"),
                                  (2, "FAILED", "line 2 of lines.txt"), (3, "FAILED", "expected words, each quote closed"),
                                  (4, "FAILED", "line 4 of lines.txt (the first is 0), config.yaml --run c # comment"),
                                  (5, "FAILED", "line 5 of lines.txt"), (6, "FAILED", "gone.yaml: no such configuration")):
            shown = self.wait_for(f"{job}_{line}", "lines", state)
            self.assertEqual(shown["ExitCode"], "0:0" if line == 0 else "2:0", self.log(f"lines-{line}"))
            self.assertIn(said, self.log(f"lines-{line}"))
        self.assert_undisturbed("a b", "--set", "training.seed=7", steps=20)
        self.assertFalse((self.work / "injected").exists())

    def test_a_run_that_cannot_go_on(self):
        """What a further start would meet with too ends the job, with the program's exit code."""
        for run, words, code in (("no-tokens", ["--set", "data.tokens=gone.h5"], 3), ("bad", ["--set", "model.heads=7"], 2),
                                 ("diverges", ["--set", "training.learning_rate=1.0e+30"], 4)):
            job = self.train(run, *words)
            shown = self.wait_for(job, run, "FAILED")
            self.assertEqual((shown["ExitCode"], shown["Restarts"]), (f"{code}:0", "0"), self.log(run))

    def test_a_self_test_comes_first(self):
        job = self.train("tested", "--set", "training.steps=20", DEKODER_SELFTEST="1")
        self.wait_for(job, "tested", "COMPLETED")
        self.assertIn("ok       ranks: 2 ranks train as one does, to the last bit", self.log("tested"))
        program = self.program("computes-wrongly", "export DEKODER_FAULT=selftest:loss!SPOIL")
        job = self.train("untested", program=program, DEKODER_SELFTEST="1")
        shown = self.wait_for(job, "untested", "FAILED")
        self.assertEqual((shown["ExitCode"], shown["Restarts"]), ("2:0", "0"), self.log("untested"))
        self.assertIn("do not pass dekoder selftest", self.log("untested"))
        self.assertFalse((self.work / "untested/metrics.jsonl").exists())

    def test_without_scontrol(self):
        """As in some containers: the job ends with 85, and says how to go on."""
        tools = self.work / "tools"
        tools.mkdir()
        for tool in Path("/usr/bin").iterdir():
            if tool.name != "scontrol":
                (tools / tool.name).symlink_to(tool)
        job = self.train("alone", PATH=str(tools))
        self.wait_for_step("alone", 50)
        self.cluster.ask("scancel", "--batch", "--signal=USR1", job)
        self.assertEqual(self.wait_for(job, "alone", "FAILED")["ExitCode"], "85:0", self.log("alone"))
        self.assertIn("warning: no scontrol here to start the job again; the same sbatch line goes on", self.log("alone"))
        job = self.train("alone")
        self.wait_for(job, "alone", "COMPLETED")
        self.assert_undisturbed("alone")

    def test_a_run_that_was_held_elsewhere(self):
        """Of a trainer on a host that is lost the job sees no more than the age of its lock: it waits until that is given up."""
        trainer = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", PROGRAM, "train", "config.yaml", "--run", "held"],
                                   cwd=self.work, env=self.cluster.environment, stderr=subprocess.DEVNULL)
        self.addCleanup(trainer.kill)
        self.wait_for_step("held", 50)
        trainer.kill()
        trainer.wait()
        wait_until(lambda: not self.pids("held"), "no trainer", 20)
        then = time.time() - 110  # of 120 s
        os.utime(self.work / "held/lock", (then, then))
        job = self.train("held")
        self.wait_for(job, "held", "COMPLETED")
        self.assertIn("another process trains in held: waiting", self.log("held"))
        self.assert_undisturbed("held")

    def test_early_signals(self):
        """USR1 before the program has begun, let alone MPI: as one that comes while it trains."""
        program = self.work / "early.py"
        program.write_text(f"#!/usr/bin/env python3\nimport os, signal, sys\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
                           f"os.kill(os.getpid(), signal.SIGUSR1)\nos.execv('{PROGRAM}', ['{PROGRAM}', *sys.argv[1:]])\n")
        program.chmod(0o755)
        begin = time.monotonic()
        done = self.cluster.ask("srun", "--mpi=pmix", "-N2", "-n2", program, "train", "config.yaml", "--run", "early", check=False, cwd=self.work)
        self.assertEqual(done.returncode, 85, done.stderr)
        self.assertLess(time.monotonic() - begin, 10)
        self.assertEqual((self.status("early")["state"], len(self.saved_steps("early"))), ("resumable", 1))

    def test_many_signals_during_a_save(self):
        """20 times USR1 and then TERM, for all ranks, while the file of a checkpoint is written."""
        large = ["--set", "model.channels=288", "--set", "model.layers=8", "--set", "model.feed_forward=1152", "--set", "training.batch=4", "--set", "checkpoint.every=2",
                 "--set", "sampling.every=0", "--set", "evaluation.every=0", "--set", "training.steps=100000"]
        process = subprocess.Popen(["srun", "--mpi=pmix", "-N2", "-n2", PROGRAM, "train", "config.yaml", "--run", "signals", *large], cwd=self.work,
                                   env=self.cluster.environment, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        folder = self.work / "signals/checkpoints"
        wait_until(lambda: self.saved_steps("signals"), "a checkpoint", 120, lambda: process.kill() or process.communicate()[1])
        ranks, end = self.pids("signals"), time.monotonic() + 60
        self.assertEqual(len(ranks), 2)
        while not any(name.endswith(".tmp") for name in os.listdir(folder)):
            self.assertLess(time.monotonic(), end, "no save")
        begin, before = time.monotonic(), self.saved_steps("signals")[-1]
        for number in [signal.SIGUSR1] * 20 + [signal.SIGTERM]:
            for rank in ranks:
                os.kill(rank, number)
        said = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 85, said)
        self.assertLess(time.monotonic() - begin, 10, said)
        saved = self.saved_steps("signals")[-1]
        self.assertIn(saved - before, (1, 2, 3))  # the one that was being written, or one step more
        self.assertEqual(self.status("signals")["saved_step"], saved)
        self.digests("signals", saved)
        self.assertEqual([path for path in folder.iterdir() if path.suffix == ".tmp"], [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
