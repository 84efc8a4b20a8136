# SPDX-License-Identifier: Apache-2.0
"""Which settings mattered: against functions with known importances, against Optuna's evaluators, and in planted cases.
test_importance_nightly.py has larger ones, and how often intervals hold."""
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import unittest
import warnings
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.runs import loss_forest, setting_columns as columns_module  # noqa: E402
from dekoder_postprocess.runs.importance import LEAST_RUNS, importance, text  # noqa: E402
from dekoder_postprocess.runs.setting_columns import correlation, dependence, setting_columns  # noqa: E402
from planted_runs import (SHARES, additive_loss, additive_settings, ishigami_loss, ishigami_settings,  # noqa: E402
                          ishigami_total_indices, planted_run, planted_runs)
from synthetic_run import write_run  # noqa: E402

FEW = 4  # resamples: where intervals are not what is tested


def bars_of(part):
    return {bar.setting: bar for bar in part.bars}


@lru_cache(maxsize=None)
def additive_runs():
    return planted_runs(200, additive_settings, additive_loss)


@lru_cache(maxsize=None)
def additive():
    return importance(additive_runs(), logarithmic=["rate"], linear=["width", "depth", "nothing"])


@lru_cache(maxsize=None)
def noise():
    """Losses that have nothing to do with the settings."""
    return importance(planted_runs(40, additive_settings, lambda _, random: random.normal()), resamples=15)


class KnownFunctions(unittest.TestCase):
    def test_additive(self):
        bars = bars_of(additive().all_runs)
        self.assertEqual(list(bars), list(SHARES))
        for name, share in SHARES.items():
            # A forest learns the strong settings first: much of a weak one's share is missing.
            self.assertAlmostEqual(bars[name].permutation.value, share, delta=0.1, msg=name)
        self.assertGreater(additive().all_runs.explained.value, 0.85)
        self.assertIn("the bars can be read", additive().all_runs.reading)

    def test_a_setting_without_effect(self):
        """Its permutation importance is about zero, its interval holds zero and is narrow; no other interval holds it."""
        bars = bars_of(additive().all_runs)
        nothing = bars.pop("nothing").permutation
        self.assertLess(nothing.low, 0)
        self.assertGreater(nothing.high, 0)
        self.assertLess(nothing.high - nothing.low, 0.05)
        for name in ("width", "rate", "norm"):
            self.assertGreater(bars[name].permutation.low, nothing.high, name)

    def test_ishigami(self):
        """x3 has no effect but together with x1: its correlation is about 0, its bar is not."""
        runs = planted_runs(500, ishigami_settings, ishigami_loss)
        bars = bars_of(importance(runs, resamples=FEW).all_runs)
        for name, total in ishigami_total_indices().items():
            self.assertAlmostEqual(bars[name].permutation.value, total, delta=0.13, msg=name)
        self.assertGreater(bars["x3"].permutation.low, 0.1)
        self.assertLess(abs(bars["x3"].linear), 0.1)
        self.assertLess(abs(bars["nothing"].permutation.value), 0.01)


class Optuna(unittest.TestCase):
    def test_same_trials(self):
        """Its mean decrease of impurity is ours within 0.03. fANOVA (main effects of a forest) and PED-ANOVA (what sets the
        best tenth apart) measure other things: the first two settings and the last one are the same, shares lie within 0.25,
        and those of fANOVA are farther from the true ones than ours."""
        import optuna
        from optuna.distributions import CategoricalDistribution, FloatDistribution
        from optuna.importance import (FanovaImportanceEvaluator, MeanDecreaseImpurityImportanceEvaluator, PedAnovaImportanceEvaluator,
                                       get_param_importances)

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        unit = FloatDistribution(0, 1)
        space = {"width": unit, "rate": FloatDistribution(1e-4, 1e-2, log=True), "norm": CategoricalDistribution(["a", "b", "c", "d"]),
                 "depth": unit, "nothing": unit}
        study = optuna.create_study()
        study.add_trials([optuna.trial.create_trial(params=run.settings, distributions=space, value=run.best_loss)
                          for run in additive_runs()])
        bars = bars_of(additive().all_runs)
        permutation = {name: max(0.0, bar.permutation.value) for name, bar in bars.items()}
        whole = sum(permutation.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that some are experimental
            evaluators = [MeanDecreaseImpurityImportanceEvaluator(seed=1), FanovaImportanceEvaluator(seed=1), PedAnovaImportanceEvaluator()]
            theirs = [get_param_importances(study, evaluator=evaluator) for evaluator in evaluators]
        for name, bar in bars.items():
            for shares, ours, tolerance in zip(theirs, (bar.impurity.value, *2 * [permutation[name] / whole]), (0.03, 0.25, 0.25)):
                self.assertAlmostEqual(shares[name], ours, delta=tolerance, msg=name)
        for shares in theirs:
            self.assertEqual([*list(shares)[:2], list(shares)[-1]], ["width", "rate", "nothing"])
        off = [sum(abs(shares[name] - SHARES[name]) for name in SHARES) for shares in
               (theirs[1], {name: value / whole for name, value in permutation.items()})]
        self.assertGreater(off[0], off[1])


class Trust(unittest.TestCase):
    def test_noise(self):
        part = noise().all_runs
        self.assertLess(part.explained.value, 0.1)
        self.assertRegex(part.reading, r"^These runs explain nothing of the variance of the loss \(out-of-bag R\^2 -0.*: do not trust the bars")
        for bar in part.bars:
            self.assertLess(bar.permutation.low, 0.02, bar.setting)
        self.assertLess(text(noise()).index("do not trust the bars"), text(noise()).index("permutation"))

    def test_little_explained(self):
        """An effect that is there for sure, of a small part of the variance."""
        runs = planted_runs(300, lambda random: {"norm": str(random.choice(["pre", "post"]))},
                            lambda settings, random: (settings["norm"] == "post") + 1.2 * random.normal())
        part = importance(runs, resamples=FEW).all_runs
        self.assertGreater(part.explained.low, 0)
        self.assertLess(part.explained.value, 0.25)
        self.assertRegex(part.reading, "^These runs explain [12][0-9] % of .*: do not trust the bars")

    def test_few_runs(self):
        runs = planted_runs(LEAST_RUNS, additive_settings, additive_loss)
        enough = importance(runs, resamples=FEW)
        self.assertEqual(len(enough.all_runs.bars), len(SHARES))
        few = importance(runs[1:])
        self.assertEqual((few.all_runs.bars, few.all_runs.explained), ([], None))
        said = f"{LEAST_RUNS - 1} runs are too few to say which settings mattered: {LEAST_RUNS} are the least."
        self.assertEqual(few.all_runs.reading, said)
        self.assertIn(said, text(few))
        self.assertIn(f"{LEAST_RUNS // 2} runs are too few", enough.best_half.reading)
        for runs in ([], runs[:1]):
            self.assertIn(f"{len(runs)} runs are too few", text(importance(runs)))

    def test_nothing_to_explain(self):
        runs = [planted_run(i, {"width": 0.1 * i, "text": str(i)}, 2.0) for i in range(20)]
        self.assertIn("All these runs have the same loss", text(importance(runs)))
        runs = [planted_run(i, {"width": 1, "text": str(i)}, 2.0 + i) for i in range(20)]
        self.assertIn("There is no setting that differs between these runs and that several of them share", text(importance(runs)))
        runs = [planted_run(i, {"width": i}, 2.0 + (i == 7)) for i in range(20)]
        self.assertIn("do not trust the bars", text(importance(runs, resamples=FEW)))

    def test_copies_of_a_run(self):
        """A resample has runs twice: the copy of a run that a tree has seen is no run that it has not seen. Were it one, noise
        would be explained, and each setting would seem to matter."""
        draw = np.random.default_rng(1)
        matrix, losses = draw.random((60, 3)), draw.normal(size=60)
        found = [loss_forest._forest(matrix, [[0], [1], [2]], losses, draw.choice(60, 60), 20, draw)[0] for _ in range(20)]
        self.assertLess(np.abs(np.mean(found, axis=0)).max(), 0.1)


class Repeatable(unittest.TestCase):
    def test_any_order(self):
        runs = [planted_run(i, run.settings, round(run.best_loss, 1)) for i, run in enumerate(additive_runs()[:40])]  # with equal losses
        first = importance(runs, resamples=FEW).as_json()
        shuffled = [planted_run(i, dict(reversed(run.settings.items())), run.best_loss) for i, run in enumerate(runs)]
        random.Random(1).shuffle(shuffled)
        self.assertEqual(importance(shuffled, resamples=FEW).as_json(), first)
        self.assertNotEqual(importance(runs, seed=1, resamples=FEW).as_json(), first)

    def test_any_number_of_threads(self):
        program = (f"import sys, json; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]\n"
                   "from planted_runs import *; from dekoder_postprocess.runs.importance import importance\n"
                   "print(json.dumps(importance(planted_runs(40, additive_settings, additive_loss), resamples=3).as_json()))")
        answers = set()
        for threads in ("1", "4"):
            names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT", "PYTHONHASHSEED")
            done = subprocess.run([sys.executable, "-B", "-c", program], env={**os.environ, **dict.fromkeys(names, threads)},
                                  capture_output=True, text=True, check=True)
            answers.add(done.stdout)
        self.assertEqual(len(answers), 1)
        self.assertEqual(json.loads(answers.pop())["all_runs"]["runs"], 40)


class Settings(unittest.TestCase):
    def test_scales(self):
        def taken_as(values, **known):
            setting = setting_columns("training.x", values, **known)
            return "category" if setting.numbers is None else "log10" if setting.logarithmic else "number"

        self.assertEqual(taken_as([1e-4, 1e-2]), "log10")
        self.assertEqual(taken_as([1e-4, 1e-2], linear={"training.x"}), "number")
        self.assertEqual(taken_as([1, 10]), "number")
        self.assertEqual(taken_as([1, 10], logarithmic=["training.x"]), "log10")
        self.assertEqual(taken_as([1, 11, None]), "log10")
        self.assertEqual(taken_as([0, 100], logarithmic=["training.x"]), "number")  # 0 has no logarithm
        for values in ([True, False], ["pre", "post"], [[0], [0, 1]], [1, "all"], [1.0, math.nan], [1.0, math.inf], [None, None]):
            self.assertEqual(taken_as(values), "category", values)
        self.assertIsNone(setting_columns("training.seed", [1, 2, 1, 2]).numbers)

    def test_log_scale(self):
        """The loss is linear in the logarithm: so is the correlation; and the half has the scale of the whole."""
        runs = planted_runs(40, lambda random: {"rate": 10 ** random.uniform(-3.2, -1.8)},
                            lambda settings, _: math.log10(settings["rate"]))
        result = importance(runs, resamples=FEW)
        half = bars_of(result.best_half)["rate"]
        self.assertAlmostEqual(bars_of(result.all_runs)["rate"].linear, 1, places=9)
        self.assertEqual(half.taken_as, "log10")
        self.assertAlmostEqual(half.linear, 1, places=9)
        self.assertLess(bars_of(importance(runs, linear=["rate"], resamples=FEW).all_runs)["rate"].linear, 0.95)

    def test_a_category_is_one_bar(self):
        norm = bars_of(additive().all_runs)["norm"]
        self.assertEqual((norm.taken_as, norm.values, norm.linear, norm.rank), ("category", 4, None, None))
        self.assertEqual(setting_columns("norm", ["a", "b", "c", "d"] * 3).matrix.shape, (12, 4))
        only = planted_runs(60, lambda random: {"norm": str(random.choice(list("abcd"))), "nothing": random.uniform()},
                            lambda settings, _: float("abcd".index(settings["norm"])))
        bars = bars_of(importance(only, resamples=FEW).all_runs)
        self.assertAlmostEqual(bars["norm"].permutation.value, 1, delta=0.1)
        self.assertGreater(bars["norm"].impurity.value, 0.95)
        self.assertAlmostEqual(sum(bar.impurity.value for bar in bars.values()), 1, places=9)

    def test_rare_values_of_a_category(self):
        """Those of one run, and those beyond the most common 20, count as one; where all are, there is no bar."""
        matrix = setting_columns("x", ["a", "a", "b", "c", "b", "d"]).matrix
        np.testing.assert_array_equal(matrix, [[1, 0], [1, 0], [0, 1], [0, 0], [0, 1], [0, 0]])
        self.assertEqual(setting_columns("x", [str(i % 30) for i in range(90)]).matrix.shape, (90, 20))
        runs = [planted_run(i, {**run.settings, "training.seed": i}, run.best_loss) for i, run in enumerate(additive_runs()[:40])]
        result = importance(runs, resamples=FEW)
        self.assertEqual(result.all_runs.no_bar, ["training.seed"])
        self.assertNotIn("training.seed", bars_of(result.all_runs))
        self.assertIn("training.seed has another value in every run", text(result))

    def test_numbers_that_float32_does_not_tell_apart(self):
        values = [2**40 + i for i in range(20)]
        self.assertEqual(len(np.unique(setting_columns("x", values).matrix.astype(np.float32))), 20)
        self.assertEqual(len(set(setting_columns("x", [10**400, 10**400, 1, 1]).levels)), 2)  # greater than any float

    def test_a_setting_that_only_some_runs_have(self):
        """Not being set is a value; a tree tells it from the least one; correlations are those of the runs that set it; that it hangs on another one is named."""
        def draw(random):
            schedule = str(random.choice(["wsd", "cosine"]))
            return {"schedule": schedule, **({"decay": random.uniform(1, 5)} if schedule == "wsd" else {})}

        np.testing.assert_array_equal(setting_columns("x", [1, 3, None]).matrix, [[0, 1], [1, 1], [0, 0]])
        runs = planted_runs(80, draw, lambda settings, _: settings.get("decay", 10.0))
        result = importance(runs, resamples=FEW).all_runs
        decay = bars_of(result)["decay"]
        unset = sum("decay" not in run.settings for run in runs)
        self.assertEqual((decay.taken_as, decay.unset, decay.values), ("number", unset, 80 - unset + 1))
        self.assertAlmostEqual(decay.linear, 1, places=9)
        found = [(pair.first, pair.second, pair.measure) for pair in result.dependent]
        self.assertEqual(found, [("decay", "schedule", "Cramer's V of being set")])

    def test_constant_in_the_best_half(self):
        def draw(random):
            return {"norm": str(random.choice(["pre", "post"])), "width": random.uniform()}

        runs = planted_runs(100, draw, lambda settings, _: settings["width"] + 5 * (settings["norm"] == "post"))
        half = len([run for run in runs if run.settings["norm"] == "pre"])
        runs = sorted(runs, key=lambda run: run.best_loss)[:2 * min(half, 100 - half)]
        result = importance(runs, resamples=FEW)
        self.assertEqual(result.best_half.constant, {"norm": '"pre"'})
        self.assertEqual(list(bars_of(result.best_half)), ["width"])
        self.assertAlmostEqual(bars_of(result.best_half)["width"].permutation.value, 1, delta=0.1)
        self.assertIn('norm is "pre" in all of them', text(result))
        self.assertLess(result.best_half.greatest_loss, 1)


class Dependences(unittest.TestCase):
    def test_named(self):
        def draw(random):
            return {**additive_settings(random), "layers": int(random.integers(1, 9)), "steps": int(random.integers(1, 5))}

        runs = planted_runs(60, draw, additive_loss)
        for run in runs:
            run.settings["channels"] = 64 * run.settings["layers"]
            run.settings["schedule"] = "abcd"[(run.settings["steps"] * 3) % 4]  # neither grows nor falls with steps
        result = importance(runs, resamples=FEW)
        found = {(pair.first, pair.second): (pair.measure, round(pair.value, 9)) for pair in result.all_runs.dependent}
        self.assertEqual(found, {("channels", "layers"): ("rank correlation", 1.0), ("schedule", "steps"): ("Cramer's V", 1.0)})
        self.assertEqual([group.settings for group in result.all_runs.together], [["channels", "layers"], ["schedule", "steps"]])
        self.assertIn("channels and layers depend on each other (rank correlation 1.00): their bars cannot be told apart", text(result))

    def test_together(self):
        """Each of two equal settings has a part of the bar that both have together."""
        runs = planted_runs(150, additive_settings, additive_loss)
        for run in runs:
            run.settings["width too"] = 1 - run.settings["width"]
        result = importance(runs, resamples=FEW).all_runs
        bars, both = bars_of(result), result.together[0]
        self.assertEqual(both.settings, ["width", "width too"])
        self.assertAlmostEqual(both.permutation.value, SHARES["width"], delta=0.1)
        for name in both.settings:
            self.assertLess(bars[name].permutation.value, 0.75 * both.permutation.value)
        self.assertAlmostEqual(both.impurity.value, sum(bars[name].impurity.value for name in both.settings), places=9)

    def test_groups(self):
        """Three that hang together by pairs are one group."""
        draw = np.random.default_rng(1)
        x = draw.random(40)
        runs = [planted_run(i, {"a": x[i], "b": x[i] + 0.1, "c": -x[i], "d": draw.random()}, x[i]) for i in range(40)]
        result = importance(runs, resamples=FEW).all_runs
        self.assertEqual([group.settings for group in result.together], [["a", "b", "c"]])
        self.assertEqual([round(pair.value) for pair in result.dependent], [1, -1, -1])

    def test_measures(self):
        draw = np.random.default_rng(1)
        category = [str(c) for c in draw.choice(list("abc"), 300)]
        other = [c if draw.random() < 0.97 else "a" for c in category]
        a, b = setting_columns("a", category), setting_columns("b", other)
        table = stats.contingency.crosstab(category, other)[1]
        self.assertAlmostEqual(dependence(a, b).value, stats.contingency.association(table), delta=0.01)
        number = setting_columns("n", ["abc".index(c) + 0.2 * draw.random() for c in category])
        found = dependence(a, number)
        self.assertEqual((found.measure, found.value > 0.9), ("correlation ratio", True))
        levels = np.arange(20) % 10  # two runs each: of any number, half of the variance would seem to follow from them
        ratios = [columns_module._correlation_ratio(draw.random(20), levels) for _ in range(100)]
        self.assertLess(np.mean(np.square(ratios)), 0.2)
        self.assertIsNone(columns_module._correlation_ratio(draw.random(12), np.arange(12) % 9))  # too few to tell
        # 2 x 2, 5 and 1 runs: phi^2 is 4 / 9, less 1 / 11; each side counts 2 - 1 / 11 values
        first, second = [[side] * 6 for side in "ab"], ["a"] * 5 + ["b"] * 6 + ["a"]
        self.assertAlmostEqual(columns_module._cramers_v(sum(first, []), second), math.sqrt((4 / 9 - 1 / 11) / (1 - 1 / 11)), places=12)
        for few in (8, 16, 300):
            unlike = [setting_columns("p", [str(c) for c in draw.choice(list("abcd"), few)]), setting_columns("q", list(draw.random(few))),
                      setting_columns("r", [str(i) for i in range(few)]), setting_columns("s", [bool(c) for c in draw.integers(2, size=few)]),
                      setting_columns("t", list(draw.random(few)))]
            for i, first in enumerate(unlike):
                for second in unlike[:i]:
                    self.assertIsNone(dependence(first, second), (few, first.name, second.name))

    def test_correlation(self):
        draw = np.random.default_rng(1)
        x, y = draw.normal(size=50), np.round(draw.normal(size=50))
        y += np.round(x)
        self.assertAlmostEqual(correlation(x, y), stats.pearsonr(x, y)[0], places=12)
        self.assertAlmostEqual(correlation(x, y, ranks=True), stats.spearmanr(x, y)[0], places=12)
        self.assertIsNone(correlation(np.ones(50), y))
        self.assertIsNone(correlation(np.array([1.0, 2.0, np.nan]), np.arange(3.0)))


class Runs(unittest.TestCase):
    def test_which_are_taken(self):
        settings = additive_settings(np.random.default_rng(1))
        good = planted_runs(20, additive_settings, additive_loss)
        other = [planted_run(f"other {i}", settings, 0.1, validation_hash="0123abcd") for i in range(3)]
        stopped = [planted_run(f"stopped {i}", settings, 3 + i, state="resumable", step=50) for i in range(2)]
        without = [planted_run("none", settings, None), planted_run("nan", settings, math.nan), planted_run("inf", settings, math.inf)]
        states = [planted_run(f"{state} {i}", settings, 0.1, state=state) for i, state in
                  enumerate(["failed", "failed", "running", "not begun", "damaged"])]
        runs = [*other, *good, *stopped, *without, *states]
        result = importance(runs, resamples=FEW)
        self.assertEqual((result.finished, result.stopped, result.validation_hash), (20, 2, "c312fa7a"))
        self.assertEqual(result.left_out, {"damaged": 1, "failed": 2, "not begun": 1, "on other validation tokens": 3, "running": 1,
                                           "without a loss": 3})
        self.assertEqual((result.least_step, result.greatest_step), (50, 300))
        self.assertIn("22 runs: 20 finished, 2 stopped before their last step; left out: 1 damaged, 2 failed, 1 not begun, "
                      "3 on other validation tokens, 1 running, 3 without a loss\n", text(result))
        alone = importance(runs, resamples=FEW, finished_only=True)
        self.assertEqual((alone.finished, alone.stopped, alone.left_out["stopped"]), (20, 0, 2))
        self.assertEqual(alone.all_runs, importance(good, resamples=FEW).all_runs)
        self.assertNotIn("ended at", text(alone))

    def test_runs_that_ended_at_different_steps(self):
        """However much their settings explain, the bars are not to be trusted; the best half of them is another matter."""
        runs = planted_runs(60, additive_settings, additive_loss)
        self.assertFalse(importance(runs, resamples=FEW).all_runs.weak)
        runs = [replace(run, step=100) if run.best_loss > 0.5 else run for run in runs]
        result = importance(runs, resamples=FEW)
        self.assertEqual((result.all_runs.weak, result.best_half.weak, result.remark), (True, False, None))
        self.assertGreater(result.all_runs.explained.value, 0.5)
        self.assertRegex(result.all_runs.reading, r"\): do not trust the bars\. The runs ended at steps 100 to 300, and a loss after fewer "
                         "steps is greater for that alone; --at-step N compares ")
        self.assertIn(result.all_runs.reading, text(result))
        self.assertNotIn("ended at", result.best_half.reading)

    def test_equally_many_on_other_tokens(self):
        runs = [planted_run(i, {}, 1.0 + i, validation_hash=of) for i, of in enumerate(["b", "a", "b", "a", None])]
        for order in (runs, runs[::-1]):
            self.assertEqual(importance(order).validation_hash, "a")

    def test_at_a_step(self):
        """By the logs, of the runs that came so far; what a log cannot give is no loss."""
        with tempfile.TemporaryDirectory() as folder:
            runs = []
            for i, steps in enumerate((20, 40, 60, 60)):
                written = write_run(Path(folder) / str(i), steps=steps, attention=False, captured=(), restarts=())
                runs.append(planted_run(i, {"width": i}, 0.5, path=written.path, step=steps,
                                        validation_hash=written.evaluations[0]["validation_hash"]))
            expected = next(row["validation_loss"] for row in written.evaluations if row["step"] == 40)
            (runs[3].path / "metrics.jsonl").write_text("damaged\n")
            result = importance(runs, at_step=45)
        self.assertEqual(result.left_out, {"ended before step 45": 2, "without a loss": 1})
        self.assertEqual((result.finished, result.all_runs.least_loss), (1, expected))
        self.assertIn("best validation loss up to step 45", text(result))

    def test_the_first_rung(self):
        """Is the step where none is given, but for runs that all ended at the same one."""
        with tempfile.TemporaryDirectory() as folder:
            written = [write_run(Path(folder) / str(steps), steps=steps, attention=False, captured=(), restarts=()) for steps in (20, 40, 60)]
            runs = [planted_run(i, {"width": i}, 0.5, step=20 * (i + 1), path=run.path, validation_hash=run.evaluations[0]["validation_hash"])
                    for i, run in enumerate(written)]
            result = importance(runs, first_rung=20)
            self.assertEqual((result.at_step, result.stopped + result.finished, result.left_out), (20, 3, {}))
            self.assertEqual(result.remark, "The runs ended at steps 20 to 60: compared are their best losses up to step 20, the first rung of "
                             "their sweep; --at-step N takes another step.")
            self.assertIn(f"up to step 20\n  3 runs: 3 finished, 0 stopped before their last step\n  {result.remark}\n", text(result))
            self.assertEqual(importance(runs, first_rung=20, at_step=20), replace(result, remark=None))
            self.assertIsNone(importance(runs[:1], first_rung=20).at_step)

    def test_targets(self):
        runs = [planted_run(i, {}, 9.0, bits_per_byte=1.0 + i) for i in range(3)]
        result = importance(runs, target="bits_per_byte")
        self.assertEqual((result.all_runs.least_loss, result.all_runs.greatest_loss), (1.0, 3.0))
        for words in ({"target": "tokens"}, {"target": "last_loss", "at_step": 5}):
            with self.assertRaisesRegex(ValueError, f"target {words['target']}: expected best_loss"):
                importance(runs, **words)


class Output(unittest.TestCase):
    def test_json(self):
        """Plain values, all of them finite, that hold what the text says."""
        result = json.loads(json.dumps(additive().as_json(), allow_nan=False))
        self.assertEqual(result, additive().as_json())
        width = result["all_runs"]["bars"][0]
        self.assertEqual((width["setting"], width["permutation"]["value"]), ("width", additive().all_runs.bars[0].permutation.value))
        self.assertEqual((result["resamples"], result["percentiles"]), (100, [5, 95]))
        self.assertEqual((result["best_half"]["runs"], result["left_out"]), (100, {}))

    def test_text(self):
        """R^2 comes first; a line per setting, with the numbers of the result."""
        lines = text(additive()).splitlines()
        self.assertIn("explain", lines[4])
        width = additive().all_runs.bars[0]
        row = next(line for line in lines if line.split()[:1] == ["width"]).split()
        self.assertEqual(row[1:5], [f"{width.permutation.value:.2f}", f"{width.permutation.low:.2f}", "to", f"{width.permutation.high:.2f}"])
        self.assertEqual(row[-3:], [f"{width.linear:.2f}", f"{width.rank:.2f}", "number"])
        self.assertEqual(len([line for line in lines if line.endswith(("number", "category", "log10"))]), 10)  # both halves
        self.assertIn("5th to the 95th percentile of 100 bootstrap resamples of the runs; seed 0", lines[-1])

    def test_names_that_are_seen(self):
        runs = [planted_run(i, {"a\nb\u202e": i, "x": i % 3}, i) for i in range(20)]
        self.assertNotRegex(text(importance(runs, resamples=FEW)), "a\nb|\u202e")

    def test_without_scikit_learn(self):
        program = (f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); sys.modules['sklearn'] = None\n"
                   "from dekoder_postprocess.errors import run_command\n"
                   "from dekoder_postprocess.runs.importance import importance\n"
                   "sys.exit(run_command('dekoder-runs', lambda: importance([])))")
        done = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1))
        self.assertRegex(done.stderr, "^dekoder-runs: needs the Python package sklearn")


if __name__ == "__main__":
    unittest.main()
