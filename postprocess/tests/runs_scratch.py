# SPDX-License-Identifier: Apache-2.0
"""Folders with runs, for the tests of dekoder-runs."""
import json
import os
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.runs.collect import collect  # noqa: E402
from synthetic_run import write_run  # noqa: E402


def write_starts(run, *starts):
    """restarts.jsonl of starts (time of the beginning, step, its end's (wall seconds, effective time) or None)."""
    lines = []
    for begun, step, end in starts:
        lines.append({"event": "begin", "time": begun, "step": step, "ranks": 1, "host": "n1", "job": None, "lost_steps": 0})
        if end:
            lines.append({"event": "end", "time": begun, "step": step + 20, "reason": "signal 10", "steps": 20,
                          "wall_seconds": end[0], "step_seconds": 1.0, "save_seconds": 0.1, "effective_time": end[1]})
    (run / "restarts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def here(pid=None):
    """The line of a lock that the process `pid` of this machine holds (this one, where None)."""
    pid = os.getpid() if pid is None else pid
    start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"n1 {boot} {pid} {start} - 0 2026-11-28T07:16:28Z {os.stat('/proc/self/ns/pid').st_ino} 0123456789abcdef\n"


class Scratch(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def run_in(self, name, **more):
        return write_run(self.folder / name, **{"attention": False, "restarts": (), **more})

    def names(self, *paths):
        return [run.name for run in collect(paths or [self.folder])]

    def only(self):
        found = collect([self.folder])
        self.assertEqual(len(found), 1)
        return found[0]
