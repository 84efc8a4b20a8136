# SPDX-License-Identifier: Apache-2.0
"""The tests' Slurm leaves no process behind, whatever ends the test that started it."""
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

import cluster

SCRIPT = Path(cluster.__file__)


def processes_of(folder):
    """Those of the namespaces, which alone see the file system that is mounted there."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f" {folder} " in (entry / "mountinfo").read_text():
                found.append(f"{entry.name} {(entry / 'cmdline').read_bytes().replace(b'\0', b' ').decode()}")
        except OSError:
            pass
    return found


class ClusterEnds(unittest.TestCase):
    def setUp(self):
        if reason := cluster.missing():
            self.skipTest(reason)

    def start(self):
        """A Slurm with a step on both nodes."""
        process = subprocess.Popen([sys.executable, SCRIPT, "bash", "-c", f"echo ${cluster.FOLDER}; srun -N2 -n2 bash -c 'echo up; sleep 1000'"],
                                   stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdout.close)
        folder = process.stdout.readline().strip()
        self.assertEqual([process.stdout.readline().strip() for _ in range(2)], ["up", "up"])
        names = "\n".join(processes_of(folder))
        for name in ("munged", "slurmctld", "slurmd", "slurmstepd", "sleep 1000"):
            self.assertIn(name, names)
        return process, folder

    def test_killed(self):
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            process, folder = self.start()
            process.send_signal(number)
            process.wait(timeout=30)
            end = time.monotonic() + 20
            while left := processes_of(folder):
                self.assertLess(time.monotonic(), end, f"{number.name}: {left}")
                time.sleep(0.05)
            if number == signal.SIGKILL:
                os.rmdir(folder)  # empty: what was in it has gone with the namespace
            self.assertFalse(os.path.exists(folder))

    def test_a_program_that_ends(self):
        done = subprocess.run([sys.executable, SCRIPT, "bash", "-c", f"echo ${cluster.FOLDER}; exit 7"], stdout=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 7)
        folder = done.stdout.strip()
        self.assertEqual(processes_of(folder), [])
        self.assertFalse(os.path.exists(folder))


if __name__ == "__main__":
    unittest.main(verbosity=2)
