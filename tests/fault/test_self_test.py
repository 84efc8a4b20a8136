# SPDX-License-Identifier: Apache-2.0
"""`dekoder selftest` on one rank and on three: what it says of a machine that is well, and of one where each of its checks fails."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl": "self,sm",
               "OMPI_MCA_mpi_yield_when_idle": "1", "OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "false"}


class SelfTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.work = pathlib.Path(scratch.name)

    def lines(self, *words, ranks=1, code=0, launch=(), **environment):
        """{check: (outcome, text)}."""
        if ranks > 1:
            launch = ["mpirun", "--oversubscribe", "-n", str(ranks), *launch]
        said = subprocess.run([*launch, dk.PROGRAM, "selftest", *map(str, words)], cwd=self.work, env={**ENVIRONMENT, **environment},
                              capture_output=True, text=True, timeout=120)
        if code is not None:
            self.assertEqual(said.returncode, code, said.stdout + said.stderr)
        found = {}
        for line in said.stdout.splitlines():
            if line.startswith(" "):
                found[name] = (*found[name], line.strip())
                continue
            outcome, rest = line.split(None, 1)
            name, text = rest.split(": ", 1)
            self.assertNotIn(name, found, "a line for each")
            found[name] = outcome, text
        self.assertEqual(os.listdir(self.work), [], "left behind")
        return found

    def failed(self, found):
        return {name for name, line in found.items() if line[0] == "FAILED"}

    def test_a_machine_that_is_well(self):
        found = self.lines()
        self.assertEqual({name: line[0] for name, line in found.items()},
                         {"placement": "ok", "gradients": "ok", "losses": "ok", "GPU against CPU": "skipped", "messages": "skipped",
                          "ranks": "skipped", "files": "ok"})
        self.assertRegex(found["files"][1], r"GB free; HDF5 of 67 MB written, synced and renamed in \d+\.\d\d s")
        self.assertIn("mpirun dekoder selftest", found["ranks"][1])
        threads = self.lines(OMP_NUM_THREADS="2")
        self.assertEqual(threads["losses"], found["losses"], "two threads compute something else")

    def test_in_bf16(self):
        for isa in ("ALL", "AVX512_CORE_BF16", "AVX512_CORE"):
            found = self.lines("--precision", "bf16", ONEDNN_MAX_CPU_ISA=isa)
            self.assertEqual({line[0] for name, line in found.items() if name not in ("gradients", "GPU against CPU", "messages", "ranks")},
                             {"ok"})
            self.assertIn("selftest --precision float", found["gradients"][1])
        found = self.lines("--precision", "bf16", code=2, DEKODER_FAULT="selftest:loss!SPOIL")
        self.assertEqual(self.failed(found), {"losses"})

    def test_each_check_can_fail(self):
        for point, name, text in (("gradient", "gradients", "by finite differences"), ("loss", "losses", "step 5: the loss is"),
                                  ("bits", "losses", "other bits the second time"), ("files", "files", "reads back other than it was written")):
            found = self.lines(code=2, DEKODER_FAULT=f"selftest:{point}!SPOIL")
            self.assertEqual(self.failed(found), {name})
            self.assertIn(text, found[name][1])
            self.assertIn("administrators", found[name][2])
        for tensor, name in ((1, "token_embedding.weight"), (15, "blocks.01.attention_norm.gain"), (28, "final_norm.bias")):  # half of it is lost
            found = self.lines(code=2, DEKODER_FAULT=f"selftest:gradient@{tensor}!SPOIL")
            self.assertIn(f" of {name} is ", found["gradients"][1])

    def test_ranks(self):
        crowded = len(os.sched_getaffinity(0)) < 3
        found = self.lines(ranks=3, code=2 if crowded else 0)
        self.assertEqual(self.failed(found), {"placement"} if crowded else set())
        self.assertEqual(found["ranks"], ("ok", "3 ranks train as one does, to the last bit"))
        only_one = ["bash", "-c", 'if [ "$OMPI_COMM_WORLD_RANK" = 2 ]; then export DEKODER_FAULT=selftest:gradient!SPOIL; fi; exec "$@"', "-"]
        found = self.lines(ranks=3, code=2, launch=only_one)
        self.assertRegex(found["gradients"][1], "^rank 2: the derivative of the loss along direction ")
        found = self.lines(ranks=3, code=2, DEKODER_FAULT="selftest:ranks!SPOIL")
        self.assertIn("ranks", self.failed(found))
        found = self.lines(ranks=3, code=2, DEKODER_FAULT="selftest:messages@7!SPOIL")
        self.assertIn("rank 1: messages of rank 0 arrive changed", found["messages"][1])
        rank_0 = ["bash", "-c", 'if [ "$OMPI_COMM_WORLD_RANK" = 0 ]; then export DEKODER_FAULT=train:gradients@190!SPOIL; fi; exec "$@"', "-"]
        found = self.lines(ranks=3, code=2, launch=rank_0)  # its training alone is not finite, and no rank waits for another
        self.assertIn("rank 0: step 2: the gradient is not finite", found["ranks"][1])
        self.assertEqual(found["files"][0], "ok")
        found = self.lines(ranks=9, code=None)  # more than the micro-batches of the tiny training
        self.assertEqual(found["ranks"], ("ok", "9 ranks train as one does, to the last bit"))

    def test_two_threads_on_one_processor(self):
        found = self.lines(launch=["taskset", "-c", str(min(os.sched_getaffinity(0)))], code=2, OMP_NUM_THREADS="2")
        self.assertEqual(self.failed(found), {"placement"})
        self.assertIn("2 threads on 1 CPUs", found["placement"][1])
        self.assertIn("OMP_NUM_THREADS", found["placement"][2])

    def test_two_ranks_on_one_processor(self):
        found = self.lines(ranks=2, launch=["taskset", "-c", str(min(os.sched_getaffinity(0)))], code=2)
        self.assertIn("2 ranks with 2 threads on 1 CPUs", found["placement"][1])

    def test_less_processor_time_than_threads(self):
        """A container's limit, which no list of CPUs shows."""
        found = self.lines(code=2, launch=dk.limited_to(0.5, self))
        self.assertEqual(self.failed(found), {"placement"})
        self.assertIn("1 threads, which may take the time of 0.5 CPUs", found["placement"][1])

    def test_folders(self):
        for folder, text in (("missing", "No such file or directory"), ("/proc", ""), ("/dev/null", "Not a directory")):
            found = self.lines("--folder", folder, code=2)
            self.assertEqual(self.failed(found), {"files"})
            self.assertIn(text, found["files"][1])
        self.assertEqual(subprocess.run([dk.PROGRAM, "selftest", "--folder", ""], capture_output=True).returncode, 2)

    def test_a_full_disk(self):
        disk = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, disk)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], check=True)
        try:
            found = self.lines("--folder", disk, code=2)
            self.assertEqual(self.failed(found), {"files"})
            self.assertIn("are needed", found["files"][1])
            self.assertEqual(os.listdir(disk), [])
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_a_read_only_folder(self):
        disk = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, disk)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", disk], check=True)
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        found = self.lines("--folder", disk, code=2)
        self.assertEqual(self.failed(found), {"files"})
        self.assertIn("Read-only file system", found["files"][1])

    def test_a_folder_that_one_node_lacks(self):
        disk = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, disk)
        other = ["bash", "-c", f'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then mount -t tmpfs tmpfs {disk} || exit; fi; exec "$@"', "-"]
        found = self.lines("--folder", disk, ranks=2, code=2, launch=["unshare", "--mount", *other])
        self.assertRegex(found["files"][1], "^rank 1: .*/lock: the lock that rank 0 has taken is not seen on ")
        self.assertIn("all nodes have", found["files"][2])
        found = self.lines("--folder", disk, ranks=2, code=None)
        self.assertRegex(found["files"][1], "; lock taken and seen$")

    def test_signals(self):
        """What was written goes, after a kill at the next self test."""
        self.lines(code=85, DEKODER_FAULT="file:before_rename@5!TERM")
        self.lines(code=2, DEKODER_FAULT="file:before_rename@5!TERM,selftest:loss!SPOIL")
        killed = subprocess.run([dk.PROGRAM, "selftest"], cwd=self.work, env={**ENVIRONMENT, "DEKODER_FAULT": "file:before_rename@5"},
                                capture_output=True)
        self.assertEqual(killed.returncode, -9)
        self.assertEqual(len(os.listdir(self.work)), 1)
        self.lines()

    def test_output_that_cannot_be_written(self):
        with open("/dev/full", "w") as full:
            said = subprocess.run([dk.PROGRAM, "selftest"], cwd=self.work, stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        self.assertEqual(said.returncode, 3, said.stderr)
        self.assertIn("standard output cannot be written", said.stderr)


if __name__ == "__main__":
    unittest.main()
