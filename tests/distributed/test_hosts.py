# SPDX-License-Identifier: Apache-2.0
"""Ranks on two hosts: network namespaces with addresses and host names of their own, over TCP by a cable that holds 1 % of the frames
back. The same bits as one rank; a cable that is cut ends in the watchdog's message."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from test_ranks import DIGESTS, ENVIRONMENT, ON_AND_ON, PROGRAM, ROOT, furnish

HOSTS = {"10.213.77.1": f"dekoder{os.getpid()}a", "10.213.77.2": f"dekoder{os.getpid()}b"}
CABLE, SHARE_DELAYED, SECONDS_DELAYED, SEED = "cable", 0.01, 0.02, 20

# What mpirun takes for ssh: AGENT [OPTIONS] ADDRESS COMMAND...
AGENT = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
case $1 in {cases} esac
shift
exec ip netns exec "$host" unshare --uts bash -c "hostname $host; $*"
"""


def ip(*words, check=True):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=check)


class Hosts(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.work = Path(self.scratch.name)
        self.process = None
        self.addCleanup(lambda: self.process and self.process.wait())
        self.addCleanup(subprocess.run, ["pkill", "-9", "-f", str(self.work)])
        if shutil.which("ip") is None:
            self.skipTest("no ip (iproute2)")
        for host in HOSTS.values():
            if ip("netns", "add", host, check=False).returncode != 0:
                self.skipTest("no network namespaces of one's own here (they need root)")
            self.addCleanup(ip, "netns", "del", host, check=False)
        self.cable = subprocess.Popen([sys.executable, ROOT / "tests/support/cable.py", *HOSTS.values(), CABLE, str(SHARE_DELAYED),
                                       str(SECONDS_DELAYED), str(SEED)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.cable.communicate)
        self.assertEqual(self.cable.stdout.readline(), "ready\n")
        for address, host in HOSTS.items():
            ip("-n", host, "addr", "add", f"{address}/24", "dev", CABLE)
            for device in ("lo", CABLE):
                ip("-n", host, "link", "set", device, "up")
        agent = self.work / "agent"
        agent.write_text(AGENT.format(cases=" ".join(f"{address}) host={host} ;;" for address, host in HOSTS.items())))
        agent.chmod(0o755)
        furnish(self.work)
        self.environment = {**os.environ, **ENVIRONMENT, "OMPI_MCA_btl": "self,tcp", "OMPI_MCA_pml": "ob1",
                            "OMPI_MCA_btl_tcp_if_include": CABLE}

    def start(self, run, *words, **environment):
        """Three ranks: two on the first host, one on the other."""
        handed_on = [word for name in (*ENVIRONMENT, *environment) for word in ("-x", name)]
        command = ["ip", "netns", "exec", HOSTS["10.213.77.1"], "unshare", "--uts", "bash", "-c", 'hostname "$0"; exec "$@"', HOSTS["10.213.77.1"],
                   "mpirun", "--prtemca", "plm_ssh_agent", self.work / "agent", "--prtemca", "prte_if_include", CABLE, "--host",
                   ",".join(f"{address}:2" for address in HOSTS), "-n", "3", "--map-by", "node:OVERSUBSCRIBE", "--bind-to", "none", *handed_on,
                   PROGRAM, "train", self.work / "config.yaml", "--run", self.work / run, "--backend", "openmp", "--set",
                   f"data.tokens={self.work}/tokens.h5", *words]
        self.said = self.work / f"{run}.txt"
        with self.said.open("w") as said:
            self.process = subprocess.Popen([str(word) for word in command], cwd=self.work, stdout=said, stderr=subprocess.STDOUT,
                                            env={**self.environment, **environment})
        return self.process

    def tensors(self, run):
        return subprocess.run([DIGESTS, self.work / run / "checkpoints/ckpt-00000020.h5"], check=True, capture_output=True, text=True).stdout

    def test_two_hosts_give_the_bits_of_one(self):
        process = self.start("two")
        code = process.wait(timeout=240)
        said = self.said.read_text(errors="replace")
        self.assertEqual(code, 0, said)
        for rank, host in enumerate((*HOSTS.values(), HOSTS["10.213.77.1"])):
            self.assertIn(f"dekoder: rank {rank}: {host}, ", said)
        counts = json.loads(self.cable.communicate()[0])
        self.assertGreater(counts["frames"], 3000)
        self.assertAlmostEqual(counts["delayed"] / counts["frames"], SHARE_DELAYED, delta=SHARE_DELAYED / 2)
        subprocess.run([PROGRAM, "train", "config.yaml", "--run", "one", "--backend", "openmp"], cwd=self.work, check=True, capture_output=True,
                       env={**os.environ, "OMP_NUM_THREADS": "1"})
        self.assertEqual(self.tensors("two"), self.tensors("one"))

    def test_a_cable_that_is_cut(self):
        """The message names the rank behind the cut. Every rank ends, also the one that no launcher reaches."""
        process = self.start("cut", *ON_AND_ON, DEKODER_WATCHDOG_SECONDS="3")
        log, end = self.work / "cut/metrics.jsonl", time.monotonic() + 100
        while not (log.exists() and '"step":20,' in log.read_text()):
            self.assertIsNone(process.poll(), "it has ended")
            self.assertLess(time.monotonic(), end, "no step 20")
            time.sleep(0.05)
        print("cut", file=self.cable.stdin, flush=True)
        message = (r"(?m)^dekoder: error: rank 0 is in '[a-z, ]+' for \d+ s without an end \(limit \d+ s\); it waits for "
                   r"rank 1 \((bucket \d+ of \d+ of the gradients|what this rank sends them of the gradients|MPI_I[a-z]+ of [A-Z][A-Za-z:_]+)\):")
        ranks = ["pgrep", "-f", f"^{PROGRAM} train .* {self.work}/cut "]
        while subprocess.run(ranks, capture_output=True).returncode == 0:  # mpirun itself waits for its daemon behind the cable
            self.assertLess(time.monotonic(), end, self.said.read_text(errors="replace"))
            time.sleep(0.1)
        said = self.said.read_text(errors="replace")
        self.assertRegex(said, message)
        self.assertEqual(said.count("error: rank"), 1, said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
