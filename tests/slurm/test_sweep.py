# SPDX-License-Identifier: Apache-2.0
"""jobs/sweep.slurm on a real Slurm of two nodes: an array of workers, one of them preempted; and workers as the tasks of one job."""
import json
import subprocess
import unittest

import cluster

cluster.inside()
from training_job import PROGRAM, ROOT, TrainingJobs, wait_until  # noqa: E402

JOB, COMMAND = ROOT / "jobs/sweep.slurm", ROOT / "postprocess/bin/dekoder-sweep"
SWEEP = """\
base: config.yaml
steps: {steps}
trials: {trials}
method: random
halving: {{first_rung: {rung}, factor: 2}}
set: {{evaluation.every: 40, checkpoint.every: 1000}}
parameters:
  training.learning_rate: {{range: [1.0e-4, 1.0e-2], scale: log}}
  model.layers: {{values: [1, 2]}}
"""


class Sweeps(TrainingJobs):
    def sweep(self, name, trials, rung=40):
        (self.work / f"{name}.yaml").write_text(SWEEP.format(trials=trials, rung=rung, steps=4 * rung))
        self.ask("python3", "-B", COMMAND, f"{name}.yaml", name)

    def ask(self, *words):
        environment = {**self.cluster.environment, "DEKODER_PROGRAM": str(PROGRAM)}
        done = subprocess.run(list(map(str, words)), cwd=self.work, env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def worker(self, sweep, *options, **environment):
        return self.cluster.submit("-p", "low", *options, f"--job-name={sweep}", f"--output={self.work}/{sweep}-%a.out", JOB, sweep, cwd=self.work,
                                   DEKODER_PROGRAM=str(PROGRAM), **environment)

    def logs(self, sweep):
        return "".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(self.work.glob(f"{sweep}-*.out")))

    def claims(self, sweep, kind):
        files = sorted((self.work / sweep / "claims").glob(f"*.{kind}"))
        return {path.stem: json.loads(path.read_text()) for path in files}

    def status_of(self, sweep):
        return json.loads(self.ask("python3", "-B", COMMAND, "status", sweep, "--json"))

    def assert_bits_of_one_alone(self, run):
        self.ask(PROGRAM, "train", f"{run}/config.yaml", "--run", f"{run}-alone")
        self.ask(PROGRAM, "checkpoint", "diff", run, f"{run}-alone")

    def test_the_script_is_sound(self):
        self.cluster.ask("bash", "-n", JOB)
        self.cluster.ask("shellcheck", JOB)
        for options in ((), ("--array=0-3%2",), ("-N2", "--ntasks-per-node=2")):
            self.assertRegex(self.cluster.ask("sbatch", "--test-only", *options, JOB, "sweep", check=False, cwd=self.work).stderr, r"sbatch: Job \d+ to start at")

    def test_an_array_of_workers_of_which_one_is_preempted(self):
        self.sweep("array", 3, rung=240)
        job = self.worker("array", "--array=0-1", "-N1", "--exclusive")
        held = lambda: {claim["holder"]["host"]: name[:4] for name, claim in self.claims("array", "claim").items()
                        if name not in self.claims("array", "outcome")}
        at_work = lambda: sum(10 < self.last_step(f"array/trials/{trial}") < 100 for trial in held().values())
        wait_until(lambda: at_work() == 2, "a worker on each node amid its first rung", 120, lambda: self.logs("array"))
        self.preempt("array", nodes=1)
        for element in (0, 1):
            self.cluster.wait_for(f"{job}_{element}", "COMPLETED", seconds=300, explain=lambda: self.logs("array"))
        said = self.logs("array")
        self.assertRegex(said, r"trial \d{4}: given back at step [1-9]")
        self.assertIn("sweep.slurm: ", said)
        self.assertIn("Slurm starts job", said)
        self.assertRegex(said, r", start 2, on n[12]")
        self.assertGreaterEqual(said.count("no trial is left"), 2, said)  # some versions start a job once more after it has ended
        status = self.status_of("array")
        self.assertEqual((status["rungs"][0]["results"], status["states"]["failed"], status["states"]["given back"]), (3, 0, 0), said)
        self.assertGreaterEqual(status["states"]["finished"], 1)
        given_back = [name for name, outcome in self.claims("array", "outcome").items() if outcome["state"] == "given back"]
        self.assertTrue(given_back)
        self.assertEqual(status["best"][0]["state"], "finished")
        for trial in {status["best"][0]["run"], *(f"array/trials/{name[:4]}" for name in given_back)}:
            if self.status(trial)["state"] == "finished":
                self.assert_bits_of_one_alone(trial)

    def test_trials_of_two_ranks(self):
        """On two nodes, by srun and by mpirun."""
        for launcher in ("srun", "mpirun"):
            self.sweep(launcher, 2)
            job = self.worker(launcher, "-N2", "--ntasks-per-node=1", "--exclusive", DEKODER_LAUNCH=launcher)
            self.cluster.wait_for(job, "COMPLETED", seconds=300, explain=lambda: self.logs(launcher))
            self.assertIn("rank 1: n2, ", (self.work / launcher / "logs/0000.log").read_text())
            best = self.status_of(launcher)["best"][0]
            self.assertEqual(best["state"], "finished")
            self.assert_bits_of_one_alone(best["run"])

    def test_workers_in_one_job(self):
        """The tasks of a step: each is a worker, whose trials are none of several ranks."""
        self.sweep("tasks", 4)
        done = self.cluster.ask("srun", "--mpi=pmix", "-N2", "-n2", "env", f"DEKODER_PROGRAM={PROGRAM}", "python3", "-B", COMMAND, "work", "tasks", check=False,
                                cwd=self.work)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual({claim["holder"]["host"] for claim in self.claims("tasks", "claim").values()}, {"n1", "n2"})
        status = self.status_of("tasks")
        self.assertEqual((status["rungs"][0]["results"], status["states"]["failed"]), (4, 0))
        self.assert_bits_of_one_alone(status["best"][0]["run"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
