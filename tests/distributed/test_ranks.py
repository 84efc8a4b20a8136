# SPDX-License-Identifier: Apache-2.0
"""Training on several ranks, by a real mpirun on this machine: the bits of one rank for every number of ranks, through a
restart on any other number; and what several ranks say and do when something fails."""
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(os.environ["DEKODER_SOURCE_DIR"]) / "tests" / "support"))
from kokkos_events import SCRATCH, TOOL, most_bytes

ROOT = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("DEKODER_BINARY_DIR", ROOT / "build/tests"))
PROGRAM, DIGESTS = BUILD / "dekoder", BUILD / "tests/support/checkpoint_digests"
# Small buckets, so that there are several, and pieces of all of them for every rank.
ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl": "self,sm", "OMP_NUM_THREADS": "1",
               "OMP_PROC_BIND": "false", "DEKODER_BUCKET_BYTES": "32768"}
CONFIG = """
model: {layers: 3, heads: 2, channels: 48, feed_forward: 96, context: 16, dropout: 0.1}
data: {tokens: tokens.h5}
training: {steps: 20, batch: 16, micro_batch: 2, learning_rate: 1.0e-3, warmup_steps: 5}
evaluation: {every: 5, tokens: 700}
sampling: {every: 10, tokens: 8, prompt: "a"}
attention: {every: 10, texts: ["one two"]}
checkpoint: {every: 5, keep: 2}
"""

# Words of a training that only goes on, for tests that disturb it.
ON_AND_ON = ["--set", "training.steps=100000", *(word for section in ("attention", "evaluation", "sampling", "checkpoint")
                                                 for word in ("--set", f"{section}.every=0"))]


def furnish(folder):
    """Puts config.yaml and its tokens there."""
    (folder / "text").write_text("".join(path.read_text() for path in sorted((ROOT / "src/base").iterdir())))
    (folder / "config.yaml").write_text(CONFIG)
    subprocess.run([PROGRAM, "prepare", "text", "-o", "tokens.h5"], cwd=folder, check=True, capture_output=True)


class Ranks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.work = Path(cls.scratch.name)
        furnish(cls.work)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def command(self, ranks, *words):
        """`words` on so many ranks; a word of shell in front of it may be of one rank's."""
        return (["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []) + [str(word) for word in words]

    def start(self, ranks, *words, **environment):
        return subprocess.Popen(self.command(ranks, *words), cwd=self.work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env={**os.environ, **ENVIRONMENT, **environment}, start_new_session=True)

    def run_ranks(self, ranks, *words, code=0, seconds=240, **environment):
        process = self.start(ranks, *words, **environment)
        try:
            said = process.communicate(timeout=seconds)[0].replace("\0", "")  # which mpirun ends its notice of an abort with
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            self.fail(f"{ranks} ranks of {words} hang; they said:\n{process.communicate()[0]}")
        self.assertEqual(process.returncode, code, f"{ranks} ranks of {words}:\n{said}")
        return said

    def train(self, ranks, run, *words, code=0, **environment):
        return self.run_ranks(ranks, PROGRAM, "train", "config.yaml", "--run", run, "--backend", "openmp", *words, code=code,
                              **environment)

    def results(self, run, step=20):
        """Every number that a run computed: its tensors, its log but for times, its samples."""
        tensors = subprocess.run([DIGESTS, self.work / run / f"checkpoints/ckpt-{step:08d}.h5"], check=True, capture_output=True,
                                 text=True).stdout
        log = [json.loads(line) for line in (self.work / run / "metrics.jsonl").read_text().splitlines()]
        numbers = [{key: value for key, value in row.items() if key not in ("seconds", "tokens_per_second")} for row in log
                   if "step" in row and "resumed" not in row]
        return tensors, numbers, (self.work / run / "samples.jsonl").read_text()

    def assert_equal_results(self, run, other, step=20):
        for got, expected in zip(self.results(run, step), self.results(other, step)):
            self.assertEqual(got, expected, f"{run} and {other}")

    def test_any_number_of_ranks_gives_the_same_bits(self):
        self.train(1, "one")
        self.assertGreater(len(self.results("one")[0].splitlines()), 100)
        for ranks in (2, 3, 4, 5, 8):
            self.train(ranks, f"of-{ranks}")
            self.assert_equal_results(f"of-{ranks}", "one")
        self.train(3, "staged", DEKODER_MPI_STAGING="1")
        self.assert_equal_results("staged", "one")
        self.train(4, "one-bucket", DEKODER_BUCKET_BYTES="1073741824")
        self.assert_equal_results("one-bucket", "one")

    def test_muon_on_any_number_of_ranks(self):
        """Whole matrices have one owner; restarts on other numbers, and a change of the optimizer refused."""
        muon = ["--set", "training.optimizer=muon", "--set", "model.key_value_heads=1", "--set", "model.gated=true"]
        self.train(1, "muon", *muon)
        self.train(2, "muon-2", *muon)
        self.assert_equal_results("muon-2", "muon")
        for ranks, fault in ((3, "train:step@7!TERM"), (1, "train:step@3!TERM"), (8, "train:step@4!TERM")):
            self.train(ranks, "muon-chain", *muon, code=85, DEKODER_FAULT=fault)
        said = self.train(2, "muon-chain", *muon, "--set", "training.optimizer=adamw", code=2)
        self.assertIn("a restart cannot change\n  training.optimizer: muon in the checkpoint, adamw now", said)
        self.train(2, "muon-chain", *muon)
        self.assert_equal_results("muon-chain", "muon")
        self.assertIn(" VALID", self.run_ranks(1, PROGRAM, "checkpoint", "verify", "muon-chain"))
        for ranks in (1, 3):
            self.train(ranks, f"muon-bucket-{ranks}", *muon, DEKODER_BUCKET_BYTES="1073741824")
            self.assert_equal_results(f"muon-bucket-{ranks}", "muon")

    def test_averages_on_any_number_of_ranks(self):
        """Of whole matrices too. What is evaluated, sampled, captured and read by commands is the average."""
        average = ["--set", "training.optimizer=muon", "--set", "training.average=0.9", "--set", "attention.windows=1"]
        self.train(1, "average", *average)
        self.train(2, "average-2", *average)
        self.assert_equal_results("average-2", "average")
        for ranks, fault in ((3, "train:step@7!TERM"), (1, "train:step@3!TERM"), (8, "evaluation:batch@2!TERM")):
            self.train(ranks, "average-chain", *average, code=85, DEKODER_FAULT=fault)
        said = self.train(2, "average-chain", *average, "--set", "training.average=0", code=2)
        self.assertIn("a restart cannot change\n  training.average: 0.9 in the checkpoint, 0 now", said)
        self.train(4, "average-chain", *average)
        self.assert_equal_results("average-chain", "average")
        self.train(3, "average-staged", *average, DEKODER_MPI_STAGING="1")
        self.assert_equal_results("average-staged", "average")
        self.assertIn(" VALID", self.run_ranks(1, PROGRAM, "checkpoint", "verify", "average"))
        # The parameters themselves are those without an average.
        self.train(1, "no-average", *average, "--set", "training.average=0")
        tensors = [[line for line in self.results(run)[0].splitlines() if "average" not in line] for run in ("average", "no-average")]
        self.assertEqual(*tensors)
        losses = [[row["validation_loss"] for row in self.results(run)[1] if "validation_loss" in row] for run in ("average", "no-average")]
        self.assertEqual(losses[0][0], losses[1][0])  # of the initial values
        self.assertTrue(all(one != other for one, other in zip(losses[0][1:], losses[1][1:], strict=True)), losses)
        said = self.run_ranks(1, PROGRAM, "eval", "average")
        self.assertAlmostEqual(float(re.search(r"validation loss ([\d.]+)", said).group(1)), losses[0][-1], places=4)

    def test_a_batch_that_grows(self):
        """4, 6, then 16 sequences a step, in micro-batches of 2: any ranks, restarts within stages and on their borders."""
        growing = ["--set", "training.batch_warmup=[4, 6]", "--set", "training.batch_warmup_steps=5"]
        self.train(1, "growing", *growing)
        tokens = [row["tokens"] for row in self.results("growing")[1] if "tokens" in row and "loss" in row]
        self.assertEqual(tokens, [16 * (4 * min(n, 5) + 6 * min(max(n - 5, 0), 5) + 16 * max(n - 10, 0)) for n in range(1, 21)])
        self.train(2, "growing-2", *growing)
        self.assert_equal_results("growing-2", "growing")
        for ranks, fault in ((2, "train:step@4!TERM"), (1, "train:step@2!TERM"), (2, "train:step@6!TERM")):  # steps 3, 5, 10
            self.train(ranks, "growing-chain", *growing, code=85, DEKODER_FAULT=fault)
        self.train(2, "growing-chain", *growing)
        self.assert_equal_results("growing-chain", "growing")
        said = self.train(2, "growing-chain", "--set", "training.batch_warmup=[4, 8]", "--set", "training.batch_warmup_steps=5", code=2)
        self.assertIn("training.batch_warmup: [4, 6] in the checkpoint, [4, 8] now", said)
        said = self.train(3, "growing-3", *growing, code=2)
        self.assertIn("3 ranks for 2 micro-batches of a step (the least of training.batch_warmup 4 / training.micro_batch 2)", said)
        # A step of the warm-up in the black box, and again from it.
        self.train(2, "growing-bad", *growing, "--set", "training.learning_rate=1.0e+30", "--set", "training.warmup_steps=0", code=4)
        box, = (self.work / "growing-bad/black_box").glob("*.h5")
        said = self.run_ranks(1, PROGRAM, "replay", box, code=4)
        self.assertIn("2 ranks: step 2: the loss is nan", said)
        self.assertEqual(said.count(" same\n"), 2, said)  # one line for each micro-batch

    def test_a_restart_on_any_other_number(self):
        """Stopped within a period of everything and on its border, in an evaluation and in a sample."""
        self.train(1, "whole")
        for ranks, fault in ((4, "train:step@4!TERM"), (2, "evaluation:batch@3!TERM"), (1, "train:step@5!TERM"), (8, "sampling:token@3!TERM"),
                             (5, "train:step@2!TERM")):
            said = self.train(ranks, "chain", code=85, DEKODER_FAULT=fault, OMP_NUM_THREADS="2" if ranks < 3 else "1")
            self.assertIn("saved after SIGTERM", said)
        self.train(3, "chain")
        self.assert_equal_results("chain", "whole")

    def test_training_goes_on_while_a_checkpoint_is_written(self):
        """On one rank and on three: rows of later steps appear while the file of step 5 is still a temporary one, which takes
        tensors of other ranks meanwhile; the file holds the state of its step."""
        self.train(1, "reference", "--set", "checkpoint.keep=9")
        for ranks in (1, 3):
            run, last = f"held-{ranks}", 0
            process = self.start(ranks, PROGRAM, "train", "config.yaml", "--run", run, "--backend", "openmp", "--set",
                                 "checkpoint.keep=9", DEKODER_FAULT="checkpoint:mid_write@1!HOLD")
            folder, log = self.work / run / "checkpoints", self.work / run / "metrics.jsonl"
            while process.poll() is None:
                steps = [row["step"] for row in map(json.loads, log.read_text().split("\n")[:-1]) if "loss" in row] if log.exists() else []
                if steps and folder.exists() and not (folder / "ckpt-00000005.h5").exists() and list(folder.iterdir()):
                    last = max(last, steps[-1])
                time.sleep(0.01)
            said = process.communicate()[0]
            self.assertEqual(process.returncode, 0, said)
            self.assertGreater(last, 6, f"{ranks} ranks: training waited for the file:\n{said}")
            self.assertRegex(said, r"step 5: checkpoint written in [3-9]\.\d\d s; training waited 0\.\d\d s for the copy")
            for step in (5, 10, 15, 20):
                self.assertEqual(self.results(run, step)[0], self.results("reference", step)[0], f"{ranks} ranks, step {step}")

    def test_a_checkpoint_that_cannot_be_written_in_the_background(self):
        """The others give up what they were to send; the run goes on, and the next save is whole."""
        place = self.work / "small"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
        self.addCleanup(subprocess.run, ["umount", place], check=True)
        said = self.train(3, "small/run", code=3)
        for step in (5, 10, 15):
            self.assertRegex(said, f"warning: step {step}: not saved: .* are free, .* training goes on, no checkpoint was saved yet")
        self.assertRegex(said, "error: the state of step 20 is not saved")
        subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
        self.train(3, "small/run")
        self.train(1, "roomy")
        self.assert_equal_results("small/run", "roomy")

    def start_held(self, ranks, run, *words, **environment):
        """A training whose first checkpoint is half written, and stays so for three seconds."""
        process = self.start(ranks, PROGRAM, "train", "config.yaml", "--run", run, "--backend", "openmp", *words,
                             DEKODER_FAULT="checkpoint:mid_write@1!HOLD", **environment)
        folder = self.work / run / "checkpoints"
        end = time.monotonic() + 60
        while not (folder.exists() and list(folder.iterdir())):
            self.assertIsNone(process.poll(), "ended before a checkpoint")
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        return process

    def test_divergence_waits_for_the_checkpoint_under_way(self):
        """Which takes longer than a step may."""
        said = self.train(3, "diverges", "--set", "training.learning_rate=1.0e+30", "--set", "training.warmup_steps=0", "--set",
                          "checkpoint.every=1", "--set", "evaluation.every=0", code=4, DEKODER_FAULT="checkpoint:mid_write@1!HOLD",
                          DEKODER_WATCHDOG_SECONDS="1")
        self.assertIn("the last checkpoint is of step 1", said)
        self.assertTrue((self.work / "diverges/checkpoints/ckpt-00000001.h5").exists())

    def test_an_owner_that_is_stopped_while_a_checkpoint_is_written_is_named(self):
        process = self.start_held(3, "owner", "--set", "checkpoint.every=0", DEKODER_WATCHDOG_SECONDS="1")
        ranks = self.pids_of("owner")
        os.kill(int(ranks[1]), signal.SIGSTOP)
        said = process.communicate(timeout=90)[0]
        self.assertEqual(process.returncode, 1, said)
        self.assertRegex(said, r"error: rank 0 is in 'save' for \d+ s without an end \(limit \d+ s\); it waits for rank 1 \(tensors of a checkpoint\)")
        self.wait_until_gone(ranks)

    def test_a_run_that_is_lost_while_its_checkpoint_is_written(self):
        """The file does not take its name: by then another process may have gone on."""
        process = self.start_held(1, "lost", *ON_AND_ON, "--set", "checkpoint.every=5")
        (self.work / "lost/lock").unlink()
        said = process.communicate(timeout=60)[0]
        self.assertEqual(process.returncode, 2, said)
        self.assertIn("the run was taken over", said)
        self.assertEqual(list((self.work / "lost/checkpoints").iterdir()), [])

    def pids_of(self, run):
        found = subprocess.run(["pgrep", "-x", "-f", f"{PROGRAM} train config.yaml --run {run} .*"], capture_output=True, text=True)
        return found.stdout.split()

    def wait_until_gone(self, pids):
        """mpirun asks first, which a stopped process does not hear, and need not wait."""
        end = time.monotonic() + 20
        while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
            self.assertLess(time.monotonic(), end, f"left over: {left}")
            time.sleep(0.1)

    # One rank's environment differs: the others wait for its messages.
    ONE_RANK = ["bash", "-c", '[ "$OMPI_COMM_WORLD_RANK" != "$RANK" ] || export $FAULT; exec "$@"', "-"]

    def train_with_a_bad_rank(self, run, fault, code, rank=1, ranks=3, words=(), **environment):
        begin = time.monotonic()
        said = self.run_ranks(ranks, *self.ONE_RANK, PROGRAM, "train", "config.yaml", "--run", run, "--backend", "openmp", *words,
                              code=code, RANK=str(rank), FAULT=fault, **environment)
        self.assertLess(time.monotonic() - begin, 60, said)
        return said

    def test_a_rank_that_is_killed_takes_all_down(self):
        self.train_with_a_bad_rank("killed", "DEKODER_FAULT=train:step@8", 137)
        self.wait_until_gone(self.pids_of("killed"))
        self.train(2, "killed")
        self.train(1, "undisturbed")
        self.assert_equal_results("killed", "undisturbed")

    def test_one_rank_that_is_asked_to_stop_stops_all(self):
        said = self.train_with_a_bad_rank("stopped", "DEKODER_FAULT=train:step@7!TERM", 85, rank=2)
        self.assertIn("saved after SIGTERM", said)
        self.assertEqual(json.loads(self.run_ranks(1, PROGRAM, "status", "stopped", "--json"))["saved_step"], 7, said)

    def wait_for_step(self, run, step, seconds=60):
        log, end = self.work / run / "metrics.jsonl", time.monotonic() + seconds
        while not (log.exists() and f'"step":{step},' in log.read_text()):
            self.assertLess(time.monotonic(), end, f"no step {step}")
            time.sleep(0.05)

    def test_a_rank_that_is_stopped_ends_in_the_watchdogs_message(self):
        """One message, of the lowest rank that waits; it names the rank that is missing."""
        for stopped, speaks in ((2, 0), (0, 1)):
            run = f"hangs-{stopped}"
            process = self.start(3, PROGRAM, "train", "config.yaml", "--run", run, "--backend", "openmp", *ON_AND_ON,
                                 DEKODER_WATCHDOG_SECONDS="3")
            self.wait_for_step(run, 20)
            ranks = self.pids_of(run)
            self.assertEqual(len(ranks), 3)
            os.kill(int(ranks[stopped]), signal.SIGSTOP)
            said = process.communicate(timeout=90)[0]
            self.assertEqual(process.returncode, 1, said)
            self.assertEqual(said.count("error: rank"), 1, said)
            self.assertRegex(said, rf"(?m)^dekoder: (rank {speaks}: )?error: rank {speaks} is in '[a-z, -]+' for \d+ s without an end "
                                   rf"\(limit 3 s\); it waits for "
                                   rf"rank {stopped} \((bucket \d+ of \d+ of the gradients|what this rank sends them of the gradients|"
                                   r"MPI_I[a-z]+ of [A-Z][A-Za-z:_]+)\): what is waited for")
            self.wait_until_gone(ranks)

    def test_ranks_that_do_not_come_to_a_collective_are_named(self):
        """They are stopped after the update, as the others agree on whether to stop."""
        for stopped, speaks in ((2, 0), (0, 1)):
            said = self.train_with_a_bad_rank(f"absent-{stopped}", "DEKODER_FAULT=train:updated@8!STOP", 1, rank=stopped, words=ON_AND_ON,
                                              DEKODER_WATCHDOG_SECONDS="3")
            self.assertEqual(said.count("error: rank"), 1, said)
            self.assertRegex(said, rf"(?m)^dekoder: (rank {speaks}: )?error: rank {speaks} is in 'agreement' for \d+ s without an end "
                                   rf"\(limit 3 s\); it waits for rank {stopped} \(MPI_Iallreduce of Trainer::stop_agreed\): ")

    def test_a_rank_that_hangs_in_its_own_work_says_so(self):
        """It, and none of those that wait for it."""
        said = self.train_with_a_bad_rank("hangs", "DEKODER_FAULT=train:step@8!HANG", 1, words=ON_AND_ON, DEKODER_WATCHDOG_SECONDS="3")
        self.assertEqual(said.count("error: rank"), 1, said)
        self.assertRegex(said, r"(?m)^dekoder: rank 1: error: rank 1 is in 'step' for \d+ s without an end \(limit 3 s\); it hangs there")

    def test_a_rank_that_dies_of_a_signal_takes_all_down(self):
        """As the README's table has it for one process."""
        process = self.start(3, PROGRAM, "train", "config.yaml", "--run", "quit", "--backend", "openmp", *ON_AND_ON)
        self.wait_for_step("quit", 20)
        ranks = self.pids_of("quit")
        os.kill(int(ranks[1]), signal.SIGQUIT)
        said = process.communicate(timeout=60)[0]
        self.assertEqual(process.returncode, 128 + signal.SIGQUIT, said)
        self.wait_until_gone(ranks)

    def test_a_rank_that_waits_leaves_its_cpu_to_others(self):
        """Two ranks share a CPU, unknown to mpirun. While rank 0 computes a long sample, rank 1 waits, and takes next to nothing."""
        process = self.start(1, "taskset", "-c", min(os.sched_getaffinity(0)), "mpirun", "--host", "localhost:2", "--bind-to", "none", "-n", "2", PROGRAM,
                   "train", "config.yaml", "--run", "waits", "--backend", "openmp", "--set", "sampling.every=1", "--set",
                   "sampling.tokens=10000000")
        self.wait_for_step("waits", 1)
        ranks = sorted(self.pids_of("waits"), key=lambda pid: b"OMPI_COMM_WORLD_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes())
        self.assertEqual(len(ranks), 2)
        self.addCleanup(process.communicate)
        self.addCleanup(os.kill, int(ranks[0]), signal.SIGKILL)

        def ticks():
            """Of CPU time that each rank has used."""
            return [sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[11:13])) for pid in ranks]
        begin, now, end = ticks(), ticks(), time.monotonic() + 120
        while now[0] < begin[0] + 2 * os.sysconf("SC_CLK_TCK"):
            self.assertLess(time.monotonic(), end, "rank 0 does not compute")
            time.sleep(0.1)
            now = ticks()
        self.assertLess((now[1] - begin[1]) / (now[0] - begin[0]), 0.3)

    def test_a_limit_of_file_size_is_said(self):
        """MPI's own files exceed it as MPI starts, which would be the end by SIGXFSZ."""
        said = self.run_ranks(2, "bash", "-c", 'ulimit -f 1000; exec "$@"', "-", PROGRAM, "train", "config.yaml", "--run", "limited", code=2)
        self.assertIn("MPI does not start", said)
        self.assertIn("the limit of file size (ulimit -f) is 1000 kB", said)
        self.assertFalse((self.work / "limited").exists())

    def test_parameters_that_differ_between_ranks_are_caught(self):
        said = self.train_with_a_bad_rank("spoilt", "DEKODER_FAULT=train:updated@500!SPOIL", 4, rank=2,
                                          words=["--set", "training.steps=500", "--set", "training.batch=6", "--set", "evaluation.every=0",
                                                 "--set", "attention.every=0", "--set", "sampling.every=0", "--set", "checkpoint.every=0"])
        self.assertEqual(said.count("error: the parameters of rank 2 are not those of rank 0"), 1, said)
        self.assertEqual(said.count("error:"), 1, said)

    def test_a_gradient_of_one_rank_that_is_no_number(self):
        """Every rank sees it in the sum: nothing is updated or saved with it, and it is said once."""
        said = self.train_with_a_bad_rank("not-finite", "DEKODER_FAULT=train:gradients@40!SPOIL", 4, rank=2)  # of 3 in a step: step 14
        self.assertEqual(said.count("error:"), 1, said)
        self.assertRegex(said, r"error: step 14: the gradient is not finite \(the first of them is of \S+\)")
        self.assertEqual(sorted(path.name for path in (self.work / "not-finite/checkpoints").glob("ckpt-*")),
                         ["ckpt-00000005.h5", "ckpt-00000010.h5"])
        self.train(1, "not-finite")
        self.train(1, "undisturbed-numbers")
        self.assert_equal_results("not-finite", "undisturbed-numbers")

    def test_where_ranks_are_is_said(self):
        said = self.train(3, "places", "--set", "training.steps=1", "--set", "training.warmup_steps=0")
        for rank in range(3):
            self.assertRegex(said, rf"(?m)^dekoder: rank {rank}: \S+, 1 threads on CPUs [\d,-]+, NUMA node [\d,]+$")
        if os.cpu_count() < 3:
            self.assertIn(f"3 ranks with 3 threads on {os.cpu_count()} CPUs: they take turns", said)

    def test_ranks_with_other_settings_are_refused(self):
        said = self.run_ranks(3, "bash", "-c", 'if [ "$OMPI_COMM_WORLD_RANK" = 2 ]; then set -- "$@" --set training.seed=7; fi; exec "$@"', "-",
                              PROGRAM, "train", "config.yaml", "--run", "mixed", "--backend", "openmp", code=2)
        self.assertEqual(said.count("error: the configuration of rank 2 is not that of rank 0"), 1, said)
        self.assertFalse((self.work / "mixed").exists())
        said = self.train_with_a_bad_rank("mixed", "DEKODER_BUCKET_BYTES=4096", 2)
        self.assertEqual(said.count("error: DEKODER_BUCKET_BYTES of rank 1 is not that of rank 0"), 1, said)
        said = self.run_ranks(2, "bash", "-c", 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then set -- "$@" --fresh; fi; exec "$@"', "-", PROGRAM,
                              "train", "config.yaml", "--run", "mixed", "--backend", "openmp", code=2)
        self.assertEqual(said.count("error: the command line of rank 1 is not that of rank 0"), 1, said)

    def test_another_instruction_set_of_the_products_is_refused(self):
        """It has other last bits: nodes of several kinds."""
        said = self.train_with_a_bad_rank("other-isa", "ONEDNN_MAX_CPU_ISA=SSE41", 2)
        self.assertEqual(said.count("error: the backend or build of rank 1 is not that of rank 0"), 1, said)

    def test_a_rank_that_fails_alone_says_so(self):
        """Its token file is gone after the others have opened theirs; nothing is left half-done by rank 0."""
        said = self.run_ranks(3, "bash", "-c", 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then set -- "$@" --set data.tokens=gone.h5; fi; exec "$@"',
                              "-", PROGRAM, "train", "config.yaml", "--run", "alone", "--backend", "openmp", code=3)
        self.assertRegex(said, r"(?m)^dekoder: rank 1: error: gone.h5: no such token file")
        self.assertIn("rank 1: this rank has failed alone; the others are ended", said)
        self.assertEqual(said.count("error:"), 1, said)

    def test_what_all_ranks_meet_with_is_said_once(self):
        cases = (
            (9, ["train", "config.yaml", "--run", "none"], 2,
             "error: 9 ranks for 8 micro-batches of a step (training.batch 16 / training.micro_batch 2)"),
            (2, ["train", "config.yaml", "--run", "none", "--set", "data.tokens=gone.h5"], 3, "error: gone.h5: no such token file"),
            (2, ["train", "config.yaml", "--run", "none", "--set", "model.heads=7"], 2, "error: "),
            (2, ["train", "config.yaml", "--run", "/proc/none"], 2, "error: /proc/none: cannot be made"),
            (3, ["train", "config.yaml", "--run", "diverged", "--set", "training.learning_rate=1.0e+30"], 4, "error: step "),
            (2, ["bench", "config.yaml", "--set", "training.micro_batch=0"], 2, "error: 2 ranks for 1 micro-batches of a step"),
            (2, ["eval", "none"], 2, "error: `dekoder eval` was started on 2 ranks; it runs on one"),
            (2, ["train", "config.yaml", "--backend", "nonsense"], 2, "error: "),
        )
        for ranks, words, code, message in cases:
            said = self.run_ranks(ranks, PROGRAM, *words, code=code)
            self.assertEqual([said.count("error: "), said.count(message)], [1, 1], said)
            self.assertNotIn("rank 1: error", said)
        self.assertFalse((self.work / "none").exists())

    def described(self, ranks, *sets):
        """Memory by term, in bytes, of each of the ranks at most."""
        said = self.run_ranks(1, PROGRAM, "describe", "config.yaml", "--backend", "openmp", "--ranks", ranks, *sets)
        return {name.strip(): int(count) for name, count in re.findall(r"(?m)^  (.*?) +(\d+) B ", said[said.index("memory by term"):])}

    def test_memory_is_what_describe_says(self):
        """A bound of what each rank takes from Kokkos, to the byte for rank 0 where it has most; the optimizer's share falls with
        the number of ranks."""
        muon = ("--set", "training.optimizer=muon")
        for ranks, sets, even in ((2, (), True), (3, (), False), (8, (), True), (2, muon, False), (3, muon, False)):
            terms = self.described(ranks, *sets)
            if not sets:
                self.assertAlmostEqual(terms["first moment"] / self.described(1)["first moment"], 1 / ranks, delta=0.12)
            together = terms.pop("together")
            self.assertEqual(sum(terms.values()), together)
            name = f"memory-{ranks}-{len(sets)}"
            self.run_ranks(ranks, "bash", "-c", 'DEKODER_RECORD=$1-$OMPI_COMM_WORLD_RANK; export DEKODER_RECORD; shift; exec "$@"', "-",
                           self.work / f"events-{name}", PROGRAM, "train", "config.yaml", "--run", name, "--backend", "openmp", *sets,
                           KOKKOS_TOOLS_LIBS=str(TOOL))
            others = ("scratch of ", "prompt of the generator, at most")  # a prompt of one token is not read ahead
            described = together - sum(count for term, count in terms.items() if term.startswith(others))
            spare = []
            for rank in range(ranks):
                events = (self.work / f"events-{name}-{rank}").read_text().splitlines()
                spare.append(described - most_bytes([line.split("\t") for line in events], lambda label: label != SCRATCH))
            self.assertGreaterEqual(min(spare), 0, f"{ranks} ranks {sets}: {terms}")
            self.assertLessEqual(min(spare), 32 if even else 0.2 * described, f"{ranks} ranks {sets}: {terms}")

    def test_bytes_of_a_step(self):
        """Gradients to their owners and parameters back: each (P - 1) times the flat buffer where every rank has one sum of its
        micro-batches; more where the tree over all of them cuts through a rank's share."""
        flat = self.described(1)["values"]
        for ranks in (1, 2, 3, 4, 8):
            plan = self.run_ranks(1, PROGRAM, "plan", "config.yaml", "--backend", "openmp", "--ranks", ranks)
            report = json.loads(self.run_ranks(ranks, PROGRAM, "bench", "config.yaml", "--backend", "openmp", "--json", "--steps",
                                               "3").splitlines()[-1])
            self.assertEqual((report["ranks"], report["batch"]), (ranks, 16))
            if ranks != 3:
                self.assertEqual(report["bytes_per_step"], 2 * (ranks - 1) * flat)
            else:  # shares of 2, 3 and 3 of 8 micro-batches: of 1, 2 and 2 sums
                self.assertAlmostEqual(report["bytes_per_step"] / flat, (1 + 2 + 2) * 2 / 3 + 2, delta=0.2)
            self.assertEqual(report["exposed_seconds"] > 0, ranks > 1)
            number, unit = re.search(r"messages of a step +([\d.]+) (B|KiB|MiB)", plan).groups()
            self.assertAlmostEqual(float(number) * {"B": 1, "KiB": 1024, "MiB": 1024**2}[unit], report["bytes_per_step"],
                                   delta=0.05 * report["bytes_per_step"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
