# SPDX-License-Identifier: Apache-2.0
"""The conditions of dekoder-runs --where: what they mean, and where in them a mistake is."""
import itertools
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.runs.condition import ConditionError, compile_condition  # noqa: E402
from dekoder_postprocess.runs.run_summary import RunSummary  # noqa: E402
from dekoder_postprocess.runs.table import RunTable  # noqa: E402

SETTINGS = {"training.batch": 32, "training.seed": 18446744073709551615, "training.learning_rate": 1e-3, "model.norm": "pre",
            "model.positions": "none", "model.bias": True, "model.dropout": 0, "data.tokens": "data/austen-byte.h5",
            "sampling.prompt": 'It is "so" and\tnot', "sampling.seed": 1, "attention.layers": [0, 3], "attention.texts": [],
            "evaluation.tokens": 64, "sampling.tokens": 20}
RUN = RunSummary(Path("runs/a b"), "a b", "finished", step=2200, best_loss=1.5, created=1795850188.328, settings=SETTINGS)
OTHER = RunSummary(Path("runs/b"), "b", "not begun", settings={"training.batch": 8, "training.extra": 1.5})


def meets(condition, run=RUN):
    return compile_condition(condition, lambda key: RunTable([RUN, OTHER]).column(key).value)(run)


class Meaning(unittest.TestCase):
    def test_comparisons(self):
        for condition in ("training.batch>16", "training.batch >= 32", "training.batch<=32", "training.batch<33", "training.batch!=31",
                          "training.batch==32.0", "training.batch == 3.2e1", "training.learning_rate==0.001",
                          "training.learning_rate == 1e-3", "training.learning_rate<.01", "model.dropout==0", "model.dropout > -1",
                          "training.seed == 18446744073709551615", "training.seed != 18446744073709551614",
                          "model.norm==pre", "model.norm == 'pre'", 'model.norm != "post"', "model.positions == none",
                          "model.bias == true", "model.bias != false", "data.tokens == data/austen-byte.h5",
                          "sampling.prompt == 'It is \"so\" and\tnot'", "state == finished", "run == 'a b'", "step == 2200",
                          "validation_loss < 1.6", "created > 2026-11-28", "created < 2026-11-29", "created < '2026-11-28 07:16:29'",
                          "created >= 2026-11-28T07:16:28Z", "created == 1795850188.328", "attention.layers == [0, 3]",
                          "attention.layers != [3, 0]", "attention.layers != 0", "attention.texts == []"):
            self.assertIs(meets(condition), True, condition)
        for condition in ("training.batch>32", "training.batch==16", "model.norm == post", "model.positions != none",
                          "model.bias == false", "created < 2026-11-28", "attention.layers == [0]", "state == running",
                          "training.seed == 18446744073709551614"):
            self.assertIs(meets(condition), False, condition)

    def test_lists(self):
        self.assertTrue(meets("training.batch in [16, 32]"))
        self.assertTrue(meets("model.norm in [post,pre]"))
        self.assertFalse(meets("training.batch in [16]"))
        self.assertFalse(meets("training.batch in []"))
        self.assertTrue(meets("training.batch not in [8, 16]"))
        self.assertFalse(meets("training.batch not in [32]"))

    def test_and_or_not_bind_as_in_python(self):
        parts = {"training.batch==32": True, "training.batch==8": False}
        for a, b, c in itertools.product(parts, repeat=3):
            for form, meaning in (("{} and {} or {}", lambda a, b, c: a and b or c), ("{} or {} and {}", lambda a, b, c: a or b and c),
                                  ("not {} and {} or {}", lambda a, b, c: not a and b or c),
                                  ("{} or not {} and not {}", lambda a, b, c: a or not b and not c),
                                  ("not ({} or {}) and {}", lambda a, b, c: not (a or b) and c),
                                  ("({} or {}) and {}", lambda a, b, c: (a or b) and c),
                                  ("not not {} or ({} and ({}))", lambda a, b, c: a or (b and c))):
                self.assertIs(meets(form.format(a, b, c)), meaning(parts[a], parts[b], parts[c]), form.format(a, b, c))

    def test_a_short_name_is_a_setting_s_where_it_is_the_only_one(self):
        self.assertTrue(meets("batch > 16 and norm == pre and dropout==0"))
        self.assertTrue(meets("step > 1000"), "a column goes first")

    def test_what_a_run_does_not_have(self):
        """Neither a comparison holds nor its negation: a run without a loss is neither good nor bad."""
        for condition in ("validation_loss < 2", "not validation_loss < 2", "validation_loss != 2", "model.norm == pre",
                          "model.norm != pre", "not model.norm == pre", "model.norm in [pre]", "model.norm not in [pre]",
                          "validation_loss < 2 and batch == 8", "not (validation_loss < 2 and batch == 8)",
                          "batch == 9 or validation_loss < 2", "attention.layers != [1]"):
            self.assertIs(meets(condition, OTHER), False, condition)
        for condition in ("validation_loss == none", "not validation_loss != none", "model.norm == none", "validation_loss in [1, none]",
                          "batch == 8 or validation_loss < 2", "not (batch == 9 and validation_loss < 2)"):
            self.assertIs(meets(condition, OTHER), True, condition)
        self.assertTrue(meets("validation_loss != none"))
        self.assertFalse(meets("training.extra == 1.5"))


class Mistakes(unittest.TestCase):
    def refused(self, condition, *words, run=RUN):
        with self.assertRaises(ConditionError) as caught:
            meets(condition, run)
        for word in words:
            self.assertIn(word, str(caught.exception), condition)

    def test_place_and_expectation(self):
        for condition, *words in (
                ("", "column 1: it ends there; expected a key"),
                ("   ", "it ends there; expected a key"),
                ("training.batch", "column 15: it ends there; expected == != < <= > >= or in"),
                ("training.batch > ", "column 18: it ends there; expected a value"),
                ("training.batch 16", "column 16: '16' stands there; expected == != < <= > >= or in"),
                ("training.batch > > 16", "column 18: '>' stands there; expected a value"),
                ("training.batch = 16", "column 16: '=' is no sign; equal is =="),
                ("! training.batch == 16", "column 1: '!' is no sign; not equal is !="),
                ("model.norm == 'pre", "column 15: \"'\" is no sign; its other end is missing"),
                ("training.batch>16 model.norm==pre", "column 19: 'model.norm' stands there; expected 'and', 'or' or the end"),
                ("training.batch>16 and", "column 22: it ends there; expected a key"),
                ("training.batch>16 and or model.norm==pre", "column 23: 'or' stands there; expected a key"),
                ("(training.batch>16", "column 19: it ends there; expected ')'"),
                ("training.batch>16)", "column 18: ')' stands there; expected 'and', 'or' or the end"),
                ("training.batch in 16", "column 19: '16' stands there; expected '['"),
                ("training.batch in [16", "column 22: it ends there; expected ',' or ']'"),
                ("training.batch in [16 32]", "column 23: '32' stands there; expected ',' or ']'"),
                ("training.batch in [16,]", "column 23: ']' stands there; expected a value"),
                ("training.batch not 16", "column 20: '16' stands there; expected 'in'"),
                ("training.batch < [16]", "column 18: '[' stands there; expected a value"),
                ("16 < training.batch", "column 1: no run has '16'; expected a setting")):
            self.refused(condition, *words)

    def test_unknown_keys(self):
        self.refused("training.batch>16 and training.bach==2", "column 23: no run has 'training.bach'; did you mean training.batch?")
        self.refused("model.nrom==pre", "did you mean model.norm?")
        self.refused("batsh==2", "did you mean training.batch?")
        self.refused("validation_los<2", "did you mean validation_loss?")
        self.refused("tokenz==2", "did you mean")
        self.refused("seed==1", "'seed' is a setting of several sections; expected one of training.seed, sampling.seed")
        self.refused("__class__==1", "no run has '__class__'")
        self.refused("os.system('true')==1", "column 1: no run has 'os.system'")

    def test_values_of_another_kind(self):
        self.refused("training.batch == big", "column 19: 'big' is no value of training.batch, which is a number")
        self.refused("training.batch in [16, big]", "column 24: 'big' is no value")
        self.refused("model.bias == 1", "column 15: '1' is no value of model.bias, which is true or false")
        self.refused("model.norm < pre", "column 1: model.norm is a text (pre), which has no order; expected == or !=")
        self.refused("model.bias > false", "model.bias is true or false (True), which has no order")
        self.refused("created > yesterday", "column 11: 'yesterday' is no value of created, which is a date or seconds since 1970")
        self.refused("training.batch > 2026-11-28", "is no value of training.batch, which is a number")
        for text in ("\u0663\u0662", "3\u0662", "\u0663.5", "1e\u0663"):
            self.refused(f"training.batch == {text}", f"'{text}' is no value of training.batch, which is a number")
        self.refused("created > \u0662\u0660\u0662\u0666-11-28", "is no value of created")
        self.assertFalse(meets("training.batch == big", RunSummary(Path("c"), "c", "not begun")))

    def test_any_length(self):
        self.assertTrue(meets(" and ".join(["training.batch==32"] * 5000)))
        self.refused("(" * 100_000, "nested too deeply")
        self.refused("not " * 100_000, "nested too deeply")
        self.assertFalse(meets("training.batch == " + "9" * 10_000))


if __name__ == "__main__":
    unittest.main()
