# SPDX-License-Identifier: Apache-2.0
"""Sweep files: what they say, and every kind of mistake, all at once, each with line and column."""
import os
import sys
import tempfile
import time
import unittest
from dataclasses import replace
from itertools import islice
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import program  # noqa: E402
from dekoder_postprocess.program import Program  # noqa: E402
from dekoder_postprocess.sweep.check import check_with_program  # noqa: E402
from dekoder_postprocess.sweep.definition import DefinitionError, read_definition  # noqa: E402
from sweep_workshop import BASE, DEKODER, SOURCE, SWEEP, Workshop  # noqa: E402

HEAD = "base: base.yaml\nsteps: 40\ntrials: 4\nmethod: random\nparameters:\n"

# Text of the file, fragments of the message.
MISTAKES = [
    ("", ["sweep.yaml:1:1: is empty"]),
    ("- base\n", ["sweep.yaml:1:1: is a list"]),
    ("base: [x\n", ["sweep.yaml:2:1: not valid YAML"]),
    ("base: x\n\tsteps: 3\n", ["sweep.yaml:2:1: not valid YAML"]),
    (SWEEP + "---\nbase: x\n", ["sweep.yaml:11:1: a second YAML document"]),
    ("seed: 1\n", ["1:1: 'base' is missing", "1:1: 'steps' is missing", "1:1: 'method' is missing; expected one of grid, random", "'parameters' is missing",
                   "'trials' is missing"]),
    (HEAD.replace("method", "methd") + "  a.b: {values: [1]}\n", ["4:1: unknown key 'methd'; did you mean 'method'?", "'method' is missing"]),
    (HEAD + "  a.b: {values: [1]}\nzzz: 1\n", ["7:1: unknown key 'zzz'; expected one of base, steps"]),
    (HEAD + "  a.b: {values: [1]}\nsteps: 3\n", ["7:1: 'steps' stands here a second time"]),
    (HEAD.replace("random", "bayes"), ["4:9: method is 'bayes'; expected one of grid, random, quasi-random, tpe"]),
    (HEAD.replace("random", "quasirandom"), ["did you mean 'quasi-random'?"]),
    (HEAD.replace("40", "4.5"), ["2:8: steps is '4.5'; expected a whole number"]),
    (HEAD.replace("40", "0"), ["2:8: steps is 0; expected a whole number from 1"]),
    (HEAD.replace("40", '"40"'), ["2:8: steps is '40'; expected a whole number"]),
    (HEAD.replace("trials: 4", "trials: many"), ["3:9: trials is 'many'"]),
    (HEAD.replace("trials: 4", "seed: -1"), ["3:7: seed is -1; expected a whole number from 0"]),
    (HEAD.replace("base.yaml", "nowhere.yaml"), ["1:7: base: ", "nowhere.yaml: cannot be read: No such file"]),
    (HEAD.replace("base.yaml", "[1]"), ["1:7: base is a list"]),
    (HEAD + "  {}\n", ["6:3: parameters is empty"]),
    (HEAD + "  batch: {values: [1]}\n", ["6:3: 'batch' in parameters is no key of a run's configuration; expected section.key"]),
    (HEAD + "  a.b: {values: [1]}\n  a.b: {values: [2]}\n", ["7:3: 'a.b' stands here a second time"]),
    (HEAD + "  training.steps: {values: [1]}\n", ["6:3: parameters.training.steps: it is the budget: give `steps`"]),
    (HEAD + "  data.tokens: {values: [x, y]}\n", ["6:3: parameters.data.tokens: losses of several texts cannot be compared"]),
    (HEAD + "  a.b: [1, 2]\n", ["6:8: parameters.a.b is a list; expected `key: value` lines: values, range"]),
    (HEAD + "  a.b: {}\n", ["6:8: parameters.a.b has neither values nor a range"]),
    (HEAD + "  a.b: {values: [1], range: [1, 2]}\n", ["6:8: parameters.a.b has both values and a range"]),
    (HEAD + "  a.b: {values: []}\n", ["6:17: parameters.a.b.values is an empty list"]),
    (HEAD + "  a.b: {values: 3}\n", ["6:17: parameters.a.b.values is '3'; expected a list"]),
    (HEAD + "  a.b: {values: [1, 2, 1.0]}\n", ["6:24: parameters.a.b.values has '1.0' twice"]),
    (HEAD + "  a.b: {values: [1, {x: 1}, ]}\n", ["6:21: parameters.a.b.values is a map; expected a text, a number"]),
    (HEAD + "  a.b: {values: [1, ~]}\n", ["6:21: parameters.a.b.values is '~'"]),
    (HEAD + "  a.b: {values: [1], scale: log}\n", ["6:29: parameters.a.b.scale belongs to a range"]),
    (HEAD + "  a.b: {value: [1]}\n", ["6:9: unknown key 'value' in parameters.a.b; did you mean 'values'?"]),
    (HEAD + "  a.b: {range: 3}\n", ["6:16: parameters.a.b.range is '3'; expected its two ends"]),
    (HEAD + "  a.b: {range: [1, 2, 3]}\n", ["6:16: parameters.a.b.range is a list; expected its two ends"]),
    (HEAD + "  a.b: {range: [1, x]}\n", ["6:20: parameters.a.b.range is 'x'; expected a number"]),
    (HEAD + "  a.b: {range: [1, 1e999]}\n", ["6:20: parameters.a.b.range is '1e999'; expected a number"]),
    (HEAD + "  a.b: {range: [2, 1]}\n", ["6:16: parameters.a.b.range is from 2 to 1; expected the lower end first"]),
    (HEAD + "  a.b: {range: [0, 1], scale: log}\n", ["6:17: parameters.a.b.range begins at 0; expected above 0"]),
    (HEAD + "  a.b: {range: [1, 2], scale: logg}\n", ["6:31: parameters.a.b.scale is 'logg'", "did you mean 'log'?"]),
    (HEAD + "  a.b: {range: [1, 2.5], scale: int}\n", ["6:20: parameters.a.b.range is '2.5'; expected a whole number"]),
    (HEAD + "  a.b: {range: [1, 2], scale: log, step: 1}\n", ["6:42: parameters.a.b.step: scale log has no steps"]),
    (HEAD + "  a.b: {range: [0, 1], step: 0.3}\n", ["6:30: parameters.a.b.step is 0.3; expected a number that divides the width of the range, 1"]),
    (HEAD + "  a.b: {range: [0, 1], step: -0.5}\n", ["6:30: parameters.a.b.step is -0.5"]),
    (HEAD.replace("random", "grid") + "  a.b: {range: [0.0, 1.0]}\n", ["6:16: parameters.a.b.range has no end of values, of which a grid takes all"]),
    (HEAD.replace("random", "grid") + "  a.b: {values: [1, 2, 3]}\n", ["3:9: trials is 4, but the grid has 3 combinations"]),
    (HEAD + "  a.b: {values: [1], where: x}\n", ["6:29: parameters.a.b.where is 'x'; expected `key == value`"]),
    (HEAD + "  a.b: {values: [1], where: [x]}\n", ["6:29: parameters.a.b.where is a list"]),
    (HEAD + "  a.b: {values: [1], where: a.b == 1}\n", ["6:29: parameters.a.b.where asks for 'a.b', which is itself"]),
    (HEAD + "  a.b: {values: [1], where: a.d == 1}\n  a.cd: {values: [1]}\n", ["6:29: parameters.a.b.where asks for 'a.d', which is no parameter",
                                                                                  "did you mean 'a.cd'?"]),
    (HEAD + "  a.b: {values: [1], where: a.c == wsdd}\n  a.c: {values: [wsd, cosine]}\n", ["6:29: parameters.a.b.where: a.c is never wsdd; did you mean 'wsd'?"]),
    (HEAD + "  a.b: {values: [1], where: a.c > wsd}\n  a.c: {values: [wsd]}\n", ["6:29: parameters.a.b.where: '>' is for numbers"]),
    (HEAD + "  a.b: {values: [1], where: a.c > 7}\n  a.c: {range: [1, 7], scale: int}\n", ["6:29: parameters.a.b.where: a.c is never > 7"]),
    (HEAD + "  a.b: {values: [1], where: a.c == 1}\n  a.c: {values: [1], where: a.b == 1}\n", ["6:29: the conditions of a.b, a.c ask for each other"]),
    (HEAD + "  a.b: {values: [1], where: a.c == 2 and a.c == 4}\n  a.c: {values: [2, 4]}\n", ["6:29: parameters.a.b.where is never true: a.c has no value"]),
    (HEAD + "  a.b: {values: [1], where: a.c != 2}\n  a.c: {values: [2]}\n", ["6:29: parameters.a.b.where is never true"]),
    (HEAD + "  a.b: {values: [1], where: a.c > 2 and a.c < 3}\n  a.c: {range: [1, 9], scale: int}\n", ["6:29: parameters.a.b.where is never true"]),
    (HEAD + "  a.b: {values: [1], where: a.c == 1 and a.d == 2}\n  a.c: {values: [1], where: a.d == 1}\n  a.d: {values: [1, 2]}\n",
     ["6:29: parameters.a.b.where is never true: a.d has no value"]),
    (HEAD + "  a.b: {values: [1], where: 'a.c == [1, 3]'}\n  a.c: {values: [[1, 2]]}\n", ["6:29: parameters.a.b.where: a.c is never [1, 3]"]),
    (HEAD + "  a.b: {values: [1], where: a.c == 1 and}\n  a.c: {values: [1]}\n", ["6:29: parameters.a.b.where is 'a.c == 1 and'"]),
    (HEAD.replace("40", "\u0664\u0660"), ["2:8: steps is '\u0664\u0660'; expected a whole number"]),
    (HEAD + "  a.b: {values: [1]}\nset: {a.b: 2}\n", ["6:3: a.b is a parameter and stands under `set` too"]),
    (HEAD + "  a.b: {values: [1]}\nset: {training.steps: 2}\n", ["7:7: set.training.steps: it is the budget"]),
    (HEAD + "  a.b: {values: [1]}\nset: 3\n", ["7:6: set is '3'"]),
    (HEAD + "  a.b: {values: [1]}\nhalving: 3\n", ["7:10: halving is '3'"]),
    (HEAD + "  a.b: {values: [1]}\nhalving: {first_rung: 5, facto: 3}\n", ["7:26: unknown key 'facto' in halving; did you mean 'factor'?", "7:10: halving has no 'factor'"]),
    (HEAD + "  a.b: {values: [1]}\nhalving: {first_rung: 40, factor: 1}\n", ["7:23: halving.first_rung is 40; expected less than the steps of a trial, 40",
                                                                             "7:35: halving.factor is 1; expected a whole number from 2"]),
    (HEAD + "  a.b: {values: [1]}\nhalving: {first_rung: 7, factor: 3}\n", ["7:10: halving.first_rung is 7, and evaluation.every is 5; expected a period that divides it"]),
    (HEAD + "  evaluation.every: {values: [5, 3]}\nhalving: {first_rung: 10, factor: 3}\n", ["and evaluation.every is 3"]),
]


class Folder(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        (self.folder / "base.yaml").write_text(BASE)

    def read(self, text):
        path = self.folder / "sweep.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_definition(path)

    def mistakes(self, text):
        with self.assertRaises(DefinitionError, msg=text) as raised:
            self.read(text)
        return [line.replace(f"{self.folder}/", "", 1) for line in raised.exception.lines]


class Mistakes(Folder):
    def test_each(self):
        for text, fragments in MISTAKES:
            said = "\n".join(self.mistakes(text))
            for fragment in fragments:
                self.assertIn(fragment, said, text)

    def test_no_text(self):
        self.assertEqual(self.mistakes(b"base: base.yaml\n# caf\xe9\n"), ["sweep.yaml:2:6: byte 0xE9 is no UTF-8; save the file in that encoding"])
        self.assertEqual(self.mistakes(b"steps: 3\nbase: \x00\n"), ["sweep.yaml:2:7: character 0000: not valid YAML: remove it"])
        self.assertIn("sweep.yaml:2:21: not valid YAML: more than 20 maps and lists in each other", self.mistakes(b"\n" + b"[" * 5000)[0])
        for text in ('"\\U00110000"', '"\\Uffffffff"'):
            self.assertRegex(self.mistakes(f"steps: 3\nbase: {text}\n")[0], r"^sweep.yaml:2:\d+: not valid YAML")
        for text, place in ((HEAD.replace("base.yaml", '"\\ud800"'), "1:7"), (HEAD.replace("base.yaml", '"\\0"'), "1:7"),
                            (HEAD + '  a.b: {values: [1, "x\\ud800"]}\n', "6:21"), (HEAD + '  "a.b\\0": {values: [1]}\n', "6:3")):
            self.assertRegex("\n".join(self.mistakes(text)), rf"sweep.yaml:{place}: '.*' has the character U\+(D800|0000)")
        self.assertEqual(self.mistakes(b"#" * 1_000_001), ["sweep.yaml:1:1: has 1000001 bytes; expected at most 1000000"])

    def test_numbers_beyond_all_bounds(self):
        """They end in a line with their place, wherever they stand."""
        many, huge = "9" * 5000, "1" + "0" * 400
        for text in (HEAD.replace("40", many), HEAD.replace("trials: 4", f"trials: {many}"), HEAD + f"  a.b: {{values: [1, {many}]}}\n",
                     HEAD + f"  a.b: {{range: [1, {many}]}}\n", HEAD + f"  a.b: {{range: [1, {many}], scale: int}}\n", HEAD + f"  a.b: {{range: [1, {huge}]}}\n",
                     HEAD + f"  a.b: {{range: [1, {huge}], scale: int-log}}\n", HEAD + f"  a.b: {{range: [1, 5], scale: int, step: {huge}}}\n",
                     HEAD + "  a.b: {range: [0, 1], step: 1.0e-320}\n", HEAD + "  a.b: {range: [1, 5], step: 1.0e+300}\n",
                     HEAD + "  a.b: {range: [-1.7e+308, 1.7e+308]}\n", HEAD + f"  a.b: {{values: [1], where: a.c == {many}}}\n  a.c: {{range: [1, 2]}}\n",
                     HEAD + f"  a.b: {{values: [1]}}\nset: {{a.c: {many}}}\n", HEAD + f"  a.b: {{values: [1]}}\nhalving: {{first_rung: {many}, factor: 2}}\n",
                     HEAD.replace("random", "quasi-random") + "".join(f"  a.b{i}: {{values: [1]}}\n" for i in range(22000)),
                     HEAD + f"  a.b: {{values: [{', '.join(map(str, range(20000)))}]}}\n", HEAD + f"  {'a' * 100000}: {{values: [1]}}\n"):
            for line in self.mistakes(text):
                self.assertRegex(line, r"^sweep.yaml:\d+:\d+: ")
                self.assertLess(len(line), 400)
        (self.folder / "base.yaml").write_text(f"evaluation: {{every: {many}}}\n")
        self.assertIn("evaluation.every is inf", self.mistakes(SWEEP)[0])
        (self.folder / "base.yaml").write_text("a: &a [x, x, x, x, x, x, x, x]\n" + "".join(f"{c}: &{c} [{', '.join(['*' + b] * 8)}]\n" for b, c in zip("abcdefghij", "bcdefghijk"))
                                                + "evaluation: {every: *k}\n")
        self.assertIn("evaluation.every is not given", self.mistakes(SWEEP)[0])

    def test_more_values_than_can_be_listed(self):
        """Told at once."""
        grid, begin = HEAD.replace("random", "grid"), time.monotonic()
        for of in ("[0, 1], step: 1.0e-8", "[0, 18446744073709551615], scale: int"):
            self.assertIn("of which a grid takes all; expected at most 100000", self.mistakes(grid + f"  a.b: {{range: {of}}}\n")[0])
        self.assertIn("evaluation.every is 3", self.mistakes(HEAD + "  evaluation.every: {range: [1, 2000000000], scale: int}\nhalving: {first_rung: 20, factor: 2}\n")[0])
        nine = "".join(f"  a.p{i}: {{values: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], where: a.z == 1}}\n" for i in range(9))
        self.assertIn("trials is 4, but the grid has 3 combinations", self.mistakes(grid + "  a.z: {values: [0, 1]}\n  a.y: {values: [0, 1], where: a.z == 1}\n")[0])
        sweep = self.read(grid + "  a.z: {values: [0, 1]}\n" + nine)
        self.assertEqual(list(islice(sweep.grid(), 3)), [{"a.z": 0}, *({"a.z": 1, **{f"a.p{i}": 0 for i in range(8)}, "a.p8": last} for last in (0, 1))])
        sweep = self.read(grid + nine + "  a.z: {values: [0, 1]}\n")
        self.assertEqual([settings["a.z"] for settings in islice(sweep.grid(), 3)], [0, 1, 1])
        self.assertLess(time.monotonic() - begin, 30)

    def test_a_base_that_is_no_file(self):
        os.mkfifo(self.folder / "pipe")
        (line,) = self.mistakes(SWEEP.replace("base: base.yaml", "base: pipe"))
        self.assertRegex(line, "^sweep.yaml:1:7: base: .*pipe: is a folder, a device or a pipe; expected a file")

    def test_one_message_for_one_mistake(self):
        for text in (SWEEP.replace("base: base.yaml\n", ""), SWEEP.replace("base.yaml", "nowhere.yaml"), SWEEP + "set: {evaluation.every: ~}\n",
                     SWEEP + "  evaluation.every: {values: []}\n", HEAD.replace("random", "grid") + "  a.b: {range: [0, 1], step: x}\n"):
            self.assertEqual(len(self.mistakes(text)), 1, text)

    def test_all_at_once(self):
        """In the order of the file."""
        lines = self.mistakes("base: nowhere.yaml\nsteps: 0\ntrials: x\nmethod: grd\nparameters:\n  a.b: {range: [2, 1]}\n  c: {values: [1]}\n"
                              "  a.d: {values: [1], where: a.x == 1}\n  a.e: {values: [1, 1]}\nhalving: {factor: 1}\n")
        places = [line.split(":")[1:3] for line in lines]
        self.assertEqual(places, [["1", "7"], ["2", "8"], ["3", "9"], ["4", "9"], ["6", "16"], ["7", "3"], ["8", "29"], ["9", "21"], ["10", "10"],
                                  ["10", "19"]], lines)


class Meaning(Folder):
    def test_a_file(self):
        sweep = self.read(SWEEP + '  model.norm: {values: [pre, "post"]}\n  training.warmup_steps: {range: [1, 9], scale: int, step: 4}\n'
                          "  training.decay_fraction: {range: [0.1, 0.5], where: model.norm == pre and training.batch>2}\n"
                          "set: {evaluation.tokens: 100, sampling.prompt: \"40\"}\n")
        self.assertEqual((sweep.steps, sweep.trials, sweep.seed, sweep.method, sweep.rungs), (40, 6, 5, "random", [10, 20, 40]))
        self.assertEqual(sweep.fixed, {"evaluation.tokens": 100, "sampling.prompt": "40"})
        batch, rate, norm, warmup, decay = sweep.parameters
        self.assertEqual((batch.values, rate.low, rate.high, rate.scale, norm.values), ((2, 4), 1e-3, 1e-1, "log", ("pre", "post")))
        self.assertEqual(list(warmup.grid()), [1, 5, 9])
        self.assertEqual([(c.key, c.operator, c.value) for c in decay.where], [("model.norm", "==", "pre"), ("training.batch", ">", 2)])
        values = {"training.batch": 4, "training.learning_rate": 0.01, "model.norm": "pre", "training.warmup_steps": 1, "training.decay_fraction": 0.2}
        self.assertEqual(sweep.settings(values), values)
        for other in ({"training.batch": 2}, {"model.norm": "post"}):
            self.assertNotIn("training.decay_fraction", sweep.settings({**values, **other}))

    def test_a_condition_on_what_is_not_set(self):
        sweep = self.read(HEAD + "  a.a: {values: [1], where: a.b != 7}\n  a.b: {values: [1, 7], where: a.c == x}\n  a.c: {values: [x, y]}\n")
        self.assertEqual(sweep.settings({"a.a": 1, "a.b": 1, "a.c": "x"}), {"a.a": 1, "a.b": 1, "a.c": "x"})
        self.assertEqual(sweep.settings({"a.a": 1, "a.b": 1, "a.c": "y"}), {"a.c": "y"})

    def test_texts_and_lists_in_conditions(self):
        sweep = self.read(HEAD + "  a.a: {values: [1], where: 'a.b == \"x and y\" and a.c != [1, \"a, ]\"]'}\n  a.b: {values: [x and y, z]}\n"
                          "  a.c: {values: [[1, \"a, ]\"], [2]]}\n")
        self.assertEqual([(c.key, c.operator, c.value) for c in sweep.parameters[0].where], [("a.b", "==", "x and y"), ("a.c", "!=", [1, "a, ]"])])
        for b, c, there in (("x and y", [2], True), ("x and y", [1, "a, ]"], False), ("z", [2], False)):
            self.assertEqual("a.a" in sweep.settings({"a.a": 1, "a.b": b, "a.c": c}), there)

    def test_those_of_the_checkout(self):
        """Read, and their first trials right to dekoder, but for the text."""
        for path in sorted((SOURCE / "input").glob("sweep-*.yaml")):
            sweep = read_definition(path)
            self.assertGreaterEqual(sweep.trials, 24)
            with mock.patch.dict(os.environ, {"DEKODER_PROGRAM": str(DEKODER)}):
                check_with_program(replace(sweep, trials=5, fixed={**sweep.fixed, "model.vocabulary": 256}), Program())

    def test_rungs(self):
        for first, factor, steps, expected in ((10, 3, 270, [10, 30, 90, 270]), (10, 3, 100, [10, 30, 90, 100]), (10, 2, 11, [10, 11])):
            sweep = self.read(SWEEP.replace("steps: 40", f"steps: {steps}").replace("first_rung: 10, factor: 2", f"first_rung: {first}, factor: {factor}"))
            self.assertEqual(sweep.rungs, expected)
        self.assertEqual(self.read(HEAD + "  a.b: {values: [1]}\n").rungs, [40])


class WhatDekoderSays(unittest.TestCase):
    """Keys and values are those of a run's configuration: the real program looks at them."""

    def test_each_with_its_place(self):
        with tempfile.TemporaryDirectory() as scratch:
            shop = Workshop(scratch)
            (shop.folder / "sweep.yaml").write_text(SWEEP.replace("trials: 6", "trials: 12") + "  model.norm: {values: [pre, psot]}\n  model.haeds: {values: [1, 2]}\n"
                                                    "  model.heads: {values: [1, 3]}\nset: {training.weight_decay: -1}\n")
            said = shop.make(code=2)[1]
            for line in ("sweep.yaml:10:30: model.norm is 'psot'; expected one of pre, post",
                         "sweep.yaml:11:3: unknown key 'model.haeds'; did you mean 'model.heads'?",
                         "sweep.yaml:13:30: training.weight_decay is '-1'; expected"):
                self.assertEqual(said.count(f"dekoder-sweep: error: {line}"), 1, said)
            self.assertFalse((shop.folder / "sweep").exists())
            (shop.folder / "sweep.yaml").write_text(SWEEP.replace("steps: 40\n", "") + "  model.haeds: {values: [1]}\n  training.warmup_steps: {range: [1, 9], scale: "
                                                    "integer}\nset: {training.weihgt_decay: 0}\n")
            lines = [line for line in shop.make(code=2)[1].splitlines() if line.startswith("dekoder-sweep: error: ")]
            for line, expected in zip(lines, ("1:1: 'steps' is missing", "9:3: unknown key 'model.haeds'", "10:49: .*; did you mean 'int'\\?$",
                                              "11:30: unknown key 'training.weihgt_decay'"), strict=True):
                self.assertRegex(line, f"^dekoder-sweep: error: sweep.yaml:{expected}")
            said = shop.make(code=2, DEKODER_PROGRAM="", PATH="/nowhere")[1]
            self.assertIn("'steps' is missing", said, "also where there is no program to ask")
            (shop.folder / "sweep.yaml").write_text(SWEEP.replace("{values: [2, 4]}", "{range: [2, 40]}"))
            self.assertEqual([line for line in shop.make(code=2)[1].splitlines() if "error" in line], [
                "dekoder-sweep: error: sweep.yaml:8:3: training.batch is a whole number, and this range is of real ones; expected scale: int, or int-log"])
            (shop.folder / "sweep.yaml").write_text(SWEEP.replace("trials: 6", "trials: 12") + "  model.heads: {values: [1, 3]}\n")
            said = shop.make(code=2)[1]
            self.assertIn("sweep.yaml:10:29: model.heads 3 does not divide model.channels 16; choose a divisor", said)
            (shop.folder / "base.yaml").write_text(BASE + "modle: {}\n")
            (shop.folder / "sweep.yaml").write_text(SWEEP)
            self.assertIn("sweep.yaml:1:7: base:6:1: unknown section 'modle'; did you mean 'model'?", shop.make(code=2)[1])
            with mock.patch.object(program, "_CHECKOUT", shop.folder):  # whose build it would take
                self.assertIn("no program dekoder", shop.run("sweep.yaml", "sweep", code=3, DEKODER_PROGRAM="", PATH="/nowhere")[1])


if __name__ == "__main__":
    unittest.main()
