# SPDX-License-Identifier: Apache-2.0
"""Runs that each have one value that no run has, of any kind and size: a run that is damaged is a row, and left out of exports,
and never the end of the others."""
import csv
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from runs_scratch import Scratch, write_starts

BIN = Path(__file__).resolve().parents[1] / "bin"
HUGE = "1" + "0" * 400
JSON_VALUES = ("null", "NaN", "-Infinity", "1e999", "1e308", "-1.7e308", "5e-324", "-1", "9223372036854775807", HUGE, "9" * 5000,
               "true", '"x"', '"\\ud800"', '"\\udcff\\n"', "[]", '{"\\ud800": 1}', '["\\ud800", "\\ud800"]', '"0001-01-01T00:00:00+23:59"',
               '"9999-12-31T23:59:59-23:59"')
YAML_VALUES = (".nan", ".inf", "1e308", "-1.7e308", HUGE, "9" * 5000, "0x" + "f" * 5000, '"\\ud800"', '"' + "9" * 5000 + '"', "true", "",
               "!!int x", '!!int ""', "!!timestamp x", "!!bool x", "2020-01-01", "9999-12-31T23:59:59-23:59", '["\\udcff"]', "{a: [" + HUGE + "]}",
               "{? \"\\ud800\" : 1}", "{0x" + "f" * 5000 + ": 1}", "[" * 400 + "]" * 400, "!!binary aGk=", "!!set {a}", "190:20:30")
STATUS_VALUES = (HUGE, "9" * 5000, "-1", "1e3", "\u0663", "", "\0")


class OddValues(Scratch):
    def setUp(self):
        super().setUp()
        self.count = 0
        good = self.odd_run("good")
        self.keys = {name: sorted(set(re.findall(pattern, (good / name).read_text()))) for name, pattern in (
            ("config.yaml", r"(?m)^  (\w+): "), ("metrics.jsonl", r'"(\w+)": ?[^,{]'), ("restarts.jsonl", r'"(\w+)": '))}
        for name, values in (("config.yaml", YAML_VALUES), ("metrics.jsonl", JSON_VALUES), ("restarts.jsonl", JSON_VALUES)):
            for key in self.keys[name]:
                for value in values:
                    self.change(name, rf"(?m)^  {key}: .*$" if name == "config.yaml" else rf'(?<="{key}":) ?("[^"]*"|[^,}}]*)',
                                f"  {key}: {value}" if name == "config.yaml" else value)
        for key in ("state", "step", "steps", "message"):
            for value in STATUS_VALUES:
                self.change("status", rf"(?m)^{key}: .*$", f"{key}: {value}")

    def odd_run(self, name):
        run = self.run_in(name, steps=4, phases=True, layers=1, heads=1, other_tokens_from=0, restarts=(2,),
                          changes={2: {"training.steps": ["3", "4"]}}).path
        write_starts(run, ("2026-11-28T07:16:28.328Z", 0, (60.5, 0.9)), ("2026-11-28T08:16:28.328Z", 2, (60.5, 0.8)))
        return run

    def change(self, name, pattern, value):
        self.count += 1
        file = self.odd_run(f"run-{self.count:04}") / name
        file.write_text(re.sub(pattern, lambda _: value, file.read_text()), encoding="utf-8")

    def start(self, command, *words):
        done = subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-B", BIN / f"dekoder-{command}", self.folder, *words], capture_output=True,
                              env={**os.environ, "PYTHONPATH": ""})
        self.assertEqual(done.returncode, 0, done.stderr[-300:])
        return done

    def test_every_command_goes_on(self):
        self.assertGreater(self.count, 700)
        rows = {row["run"]: row for row in json.loads(self.start("runs", "--json", "--sort", "prompt").stdout)["runs"]}
        self.assertEqual(len(rows), 1 + self.count)
        self.assertEqual(rows["good"]["state"], "finished")
        text = self.start("runs", "--csv").stdout.decode()
        self.assertEqual({row["run"] for row in csv.DictReader(io.StringIO(text, newline=""))}, set(rows))
        for words in ((), ("-o", self.folder / "runs.html")):  # with importance
            done = self.start("runs", *words)
            self.assertEqual(done.stderr, b"")

        if importlib.util.find_spec("tensorboard"):
            done = self.start("tensorboard", "-o", self.folder / "log")
            for line in done.stderr.decode().splitlines():
                self.assertRegex(line, "^dekoder-tensorboard: .*; left out$")
            self.assertTrue((self.folder / "log/good").is_dir())


if __name__ == "__main__":
    unittest.main()
