# SPDX-License-Identifier: Apache-2.0
"""Settings of trials: a function of the seed alone, spread as the ranges say, and kept where a sweep grows; which trial goes on."""
import math
import random
import sys
import unittest
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.sweep.claims import FAILED, FINISHED, GIVEN_BACK, PAUSED, STOPPED  # noqa: E402
from dekoder_postprocess.sweep.combinations import combinations, never_in_force  # noqa: E402
from dekoder_postprocess.sweep.definition import Definition, Halving  # noqa: E402
from dekoder_postprocess.sweep.halving import promotion, rungs  # noqa: E402
from dekoder_postprocess.sweep.parameters import Condition, Parameter, in_force, plain_value, setting_text  # noqa: E402
from dekoder_postprocess.sweep.samplers import Observed, planned, tpe_settings  # noqa: E402
from dekoder_postprocess.sweep.schedule import next_job  # noqa: E402
from dekoder_postprocess.sweep.trial_folder import RUNNING, WAITING, Trial  # noqa: E402

BATCH = Parameter("training.batch", values=(4, 8, 16))
NORM = Parameter("model.norm", values=("pre", "post"))
RATE = Parameter("training.learning_rate", low=1e-4, high=1e-2, scale="log")
DROPOUT = Parameter("model.dropout", low=0.0, high=0.3, step=0.1)
LAYERS = Parameter("model.layers", low=1, high=4, scale="int", step=1)
WARMUP = Parameter("training.warmup_steps", low=1, high=100, scale="int-log")
DECAY = Parameter("training.weight_decay", low=0.0, high=0.1)
FRACTION = Parameter("training.decay_fraction", low=0.1, high=0.5, where=(Condition("model.norm", "==", "pre"),))
ALL = (BATCH, NORM, RATE, DROPOUT, LAYERS, WARMUP, DECAY, FRACTION)


def sweep(method, trials=400, parameters=ALL, seed=7, halving=None, steps=90):
    return Definition("", "", steps, trials, seed, method, halving, {}, tuple(parameters), {}, "sweep.yaml")


class FunctionsOfTheSeed(unittest.TestCase):
    def test_the_same_again(self):
        for method in ("grid", "random", "quasi-random"):
            parameters = (BATCH, NORM, LAYERS) if method == "grid" else ALL
            of = sweep(method, 20, parameters)
            self.assertEqual(planned(of, []), planned(of, []))
            self.assertNotEqual(planned(replace(of, seed=8), []) == planned(of, []), method != "grid")
        self.assertEqual(planned(sweep("tpe"), []), [])

    def test_these_settings(self):
        """The same on every machine and with every version of the packages: those that were drawn as this was written."""
        self.assertEqual(planned(sweep("random", 2), []), RANDOM)

    def test_more_trials_keep_the_earlier_ones(self):
        for method in ("random", "quasi-random"):
            few, many = planned(sweep(method, 5), []), planned(sweep(method, 12), [])
            self.assertEqual((many[:5], planned(sweep(method, 12), few)), (few, many))
            self.assertEqual(planned(sweep(method, 3), few), few)

    def test_more_ranges_keep_the_earlier_trials(self):
        wider = replace(RATE, high=1.0)
        for method in ("random", "quasi-random"):
            few = planned(sweep(method, 5, (BATCH, RATE)), [])
            more = planned(sweep(method, 200, (BATCH, wider, NORM)), few)
            self.assertEqual(more[:5], few)
            self.assertTrue(all(set(settings) == {"training.batch", "training.learning_rate", "model.norm"} for settings in more[5:]))
            self.assertTrue(any(settings["training.learning_rate"] > 0.1 for settings in more[5:]))
        # A draw depends on its key and nothing else.
        alone, beside = planned(sweep("random", 9, (RATE,)), []), planned(sweep("random", 9, ALL), [])
        self.assertEqual([s["training.learning_rate"] for s in alone], [s["training.learning_rate"] for s in beside])

    def test_a_grid(self):
        of = sweep("grid", 24, (BATCH, NORM, LAYERS))
        trials = planned(of, [])
        self.assertEqual(trials[:2], [{"training.batch": 4, "model.norm": "pre", "model.layers": 1}, {"training.batch": 4, "model.norm": "pre", "model.layers": 2}])
        self.assertEqual(len({repr(settings) for settings in trials}), 24)
        grown = planned(sweep("grid", 32, (replace(BATCH, values=(2, 4, 8, 16)), NORM, LAYERS)), trials)
        self.assertEqual((grown[:24], len({repr(settings) for settings in grown})), (trials, 32))
        self.assertTrue(all(settings["training.batch"] == 2 for settings in grown[24:]))
        fraction = Parameter("training.decay_fraction", values=(0.1, 0.2, 0.5), where=FRACTION.where)
        self.assertEqual(len(list(sweep("grid", 1, (NORM, fraction)).grid())), 4)  # three with pre, one with post


    def test_a_grid_with_conditions(self):
        """Those of all combinations, each once, in their order; and a condition never holds where it does in none of them."""
        draw = random.Random(1)
        for _ in range(300):
            order = [f"a.{i}" for i in range(draw.randint(1, 5))]
            where = {key: tuple(Condition(draw.choice(order[:i]), draw.choice(("==", "!=", "<", ">=")), draw.randint(0, 2)) for _ in range(draw.randint(0, 3)) if i)
                     for i, key in enumerate(order)}
            parameters = [Parameter(key, values=tuple(draw.sample(range(4), draw.randint(1, 3))), where=where[key]) for key in draw.sample(order, len(order))]
            every = [in_force(parameters, dict(zip([p.key for p in parameters], values))) for values in product(*(p.values for p in parameters))]
            self.assertEqual(list(combinations(parameters)), [settings for i, settings in enumerate(every) if settings not in every[:i]])
            self.assertEqual({key for key, _ in never_in_force(parameters)}, {p.key for p in parameters} - {key for settings in every for key in settings})
        for _ in range(300):
            low, step = draw.randint(0, 5), draw.choice((1, 2))
            of = Parameter("a.x", low=low, high=low + 6, scale="int", step=step)
            conditions = tuple(Condition("a.x", draw.choice(("==", "!=", "<", "<=", ">", ">=")), draw.randint(0, 20) / 2) for _ in range(draw.randint(1, 4)))
            found = not never_in_force([of, Parameter("a.y", values=(1,), where=conditions)])
            self.assertEqual(found, any(all(c.holds({"a.x": value}) for c in conditions) for value in of.grid()), (of, conditions))


class Spread(unittest.TestCase):
    def test_all_values_come_as_often(self):
        for method, tolerance in (("random", 0.2), ("quasi-random", 0.06)):
            trials = planned(sweep(method, 512), [])
            for parameter, values in ((BATCH, (4, 8, 16)), (NORM, ("pre", "post")), (DROPOUT, (0.0, 0.1, 0.2, 0.3)), (LAYERS, (1, 2, 3, 4))):
                counts = Counter(settings[parameter.key] for settings in trials)
                self.assertEqual(set(counts), set(values))
                for value in values:
                    self.assertAlmostEqual(counts[value] / 512 * len(values), 1, delta=tolerance, msg=(method, parameter.key))
            share = lambda key, low, high: sum(low <= settings[key] < high for settings in trials if key in settings) / 512
            self.assertAlmostEqual(share("training.learning_rate", 1e-4, 1e-3), 0.5, delta=tolerance / 2)
            self.assertAlmostEqual(share("training.weight_decay", 0, 0.025), 0.25, delta=tolerance / 2)
            self.assertAlmostEqual(share("training.warmup_steps", 1, 10), math.log(9.5 / 0.5) / math.log(100.5 / 0.5), delta=tolerance)
            self.assertTrue(all(("training.decay_fraction" in settings) == (settings["model.norm"] == "pre") for settings in trials))

    def test_no_two_parameters_move_together(self):
        trials = planned(sweep("random", 512, (RATE, DECAY)), [])
        ranks = [sorted(range(512), key=lambda i: trials[i][key]) for key in ("training.learning_rate", "training.weight_decay")]
        places = [[of.index(i) for i in range(512)] for of in ranks]
        self.assertLess(abs(sum((a - 255.5) * (b - 255.5) for a, b in zip(*places)) / (512 * 512**2 / 12)), 0.13)  # three times 1 / sqrt(512)

    def test_values_stay_within_their_range(self):
        for parameter in ALL:
            for share in (0, 0.5, 1 - 2**-53):
                self.assertTrue(parameter.contains(parameter.at(share)), (parameter.key, share))
        self.assertEqual([WARMUP.at(0), WARMUP.at(1 - 2**-53), LAYERS.at(1 - 2**-53), DROPOUT.at(1 - 2**-53)], [1, 100, 4, 0.3])

    def test_words_of_set(self):
        for value, text in ((4, "4"), (1e-5, "1e-05"), (True, "true"), ("pre", "pre"), ("data/a.h5", "data/a.h5"), ("4", '"4"'), ("true", '"true"'),
                            ("a b: é", '"a b: é"'), ("", '""'), ([1, 2], "[1, 2]"), (["a", "b"], '["a", "b"]')):
            self.assertEqual(setting_text(value), text)
        self.assertEqual([plain_value(text) for text in ("1e-5", "010", "-3", "1.", "off", "~")], [1e-5, 10, -3, 1.0, "off", None])


class Tpe(unittest.TestCase):
    def loss(self, settings):
        return abs(math.log10(settings["training.learning_rate"]) + 3) + (settings["model.norm"] == "post")

    def test_the_same_again(self):
        observed = [Observed(settings, {90: self.loss(settings)}, True) for settings in planned(sweep("random", 30), [])]
        self.assertEqual(tpe_settings(sweep("tpe"), 30, observed), tpe_settings(sweep("tpe"), 30, observed))
        self.assertNotEqual(tpe_settings(sweep("tpe"), 30, observed), tpe_settings(sweep("tpe"), 31, observed))
        self.assertNotEqual(tpe_settings(sweep("tpe"), 0, []), tpe_settings(sweep("tpe"), 1, []))

    def test_it_learns(self):
        """Of rungs, too, and that what diverged is bad."""
        found = []
        for index in range(40):
            observed = [Observed(settings, {10: self.loss(settings)} if i % 2 else {10: self.loss(settings), 90: self.loss(settings)}, i % 2 == 0)
                        for i, settings in enumerate(found)]
            observed = [replace(o, losses={10: math.inf}, ended=True) if o.settings["training.learning_rate"] > 5e-3 else o for o in observed]
            found.append(tpe_settings(sweep("tpe"), index, observed))
        self.assertTrue(all(("training.decay_fraction" in settings) == (settings["model.norm"] == "pre") for settings in found))
        late = [self.loss(settings) for settings in found[25:]]
        drawn = [self.loss(settings) for settings in planned(sweep("random", 400), [])]
        self.assertLess(sum(late) / len(late), 0.6 * sum(drawn) / len(drawn))

    def test_ranges_of_any_width(self):
        for low, high, scale, step in ((0, 2**64 - 1, "int", 1), (-(2**63), 2**64 - 1, "int", 1), (1, 2**64 - 1, "int-log", None), (-1e100, 1e100, "linear", None),
                                       (5e-324, 1e100, "log", None), (0.0, 1.0, "linear", 1 / 3), (0.0, 1.0, "linear", 2.0**-40), (1, 9, "int", 4)):
            of, found = Parameter("a.b", low=low, high=high, scale=scale, step=step), []
            for index in range(14):
                observed = [Observed({"a.b": value}, {90: float(i)}, True) for i, value in enumerate(found)]
                found.append(tpe_settings(sweep("tpe", parameters=(of,)), index, observed)["a.b"])
            for method in ("random", "quasi-random"):
                found += [settings["a.b"] for settings in planned(sweep(method, 20, (of,)), [])]
            self.assertTrue(all(low <= value <= high for value in found), (of, found))
        wider = Parameter("a.b", low=0, high=16, scale="int", step=4)
        tpe_settings(sweep("tpe", parameters=(wider,)), 12, [Observed({"a.b": 1}, {90: float(i)}, True) for i in range(12)])

    def test_trials_of_narrower_ranges_and_trials_at_work(self):
        observed = [Observed({"training.batch": 4}, {90: 1.0}, True), Observed({"training.batch": 64}, {90: 1.0}, True),
                    Observed({"training.batch": 8, "model.norm": "pre"}, {}, False, True)]
        self.assertEqual(set(tpe_settings(sweep("tpe", parameters=(BATCH, NORM)), 3, observed)), {"training.batch", "model.norm"})


class Asha(unittest.TestCase):
    def test_the_best_third_goes_on(self):
        at = rungs(10, 3, 90)
        results = {i: ({10: float(i)}, 10) for i in range(2)}
        self.assertIsNone(promotion(results, at, 3, False))
        results[2] = ({10: 2.0}, 10)
        self.assertEqual(promotion(results, at, 3, False), (0, 30))
        results[0] = ({10: 0.0}, 30)  # on its way
        self.assertIsNone(promotion(results, at, 3, False))
        results.update({i: ({10: float(i)}, 10) for i in range(3, 6)})
        self.assertEqual(promotion(results, at, 3, False), (1, 30))
        results[9] = ({10: -1.0}, 10)  # a better one that comes late
        results[8] = ({10: 0.5}, 10)
        self.assertEqual(promotion(results, at, 3, False), (9, 30))

    def test_higher_rungs_first(self):
        results = {i: ({10: float(i), 30: float(i)}, 30) for i in range(3)}
        results.update({i: ({10: float(i)}, 10) for i in range(3, 20)})
        self.assertEqual(promotion(results, rungs(10, 3, 90), 3, False), (0, 90))

    def test_what_diverged_does_not(self):
        results = {i: ({10: math.inf}, 10) for i in range(9)}
        self.assertIsNone(promotion(results, rungs(10, 3, 90), 3, True))

    def test_a_winner(self):
        """Also of so few that none would go on; and another one where that diverges."""
        at, results = rungs(10, 3, 90), {0: ({10: 2.0}, 10), 1: ({10: 1.0}, 10)}
        self.assertIsNone(promotion(results, at, 3, False))
        self.assertEqual(promotion(results, at, 3, True), (1, 30))
        results[1] = ({10: 1.0, 30: 0.9}, 30)
        self.assertEqual(promotion(results, at, 3, True), (1, 90))
        results[1] = ({10: 1.0, 30: 0.9}, 90)
        self.assertIsNone(promotion(results, at, 3, True))
        results[1] = ({10: 1.0, 30: 0.9, 90: math.inf}, 90)
        self.assertEqual(promotion(results, at, 3, True), (0, 30))

    def test_the_paper_in_one_go(self):
        """Sequentially, with losses that do not change: of 27 trials 9, 3 and 1 go on, the best ones, up to promotions that were
        right when they were made."""
        order = list(range(27))
        random.Random(3).shuffle(order)
        at, results = rungs(1, 3, 27), {}
        while True:
            job = promotion(results, at, 3, False) or ((len(results), 1) if len(results) < 27 else None)
            if job is None:
                break
            losses, _ = results.get(job[0], ({}, 0))
            results[job[0]] = ({**losses, job[1]: float(order[job[0]])}, job[1])
        self.assertEqual([sum(rung in losses for losses, _ in results.values()) for rung in at][0], 27)
        reached = [sum(rung in losses for losses, _ in results.values()) for rung in at]
        self.assertTrue(reached[1] >= 9 and reached[2] >= 3 and reached[3] >= 1, reached)
        self.assertIn(27, results[order.index(0)][0], "the best of all was not trained to the end")


class Order(unittest.TestCase):
    """What a worker takes next."""

    def trial(self, index, state, **fields):
        return Trial(index, state, {"training.batch": 4}, **{"losses": {}, **fields})

    def next(self, *trials, **options):
        job = next_job(sweep("random", len(trials), (BATCH,), halving=Halving(10, 3)), trials, **options)
        return job and (job.trial.index, job.target)

    def test_in_turn(self):
        paused = [self.trial(i, PAUSED, claims=1, target=10, losses={10: 1.0 + i}) for i in range(3)]
        waiting, given_back = self.trial(3, WAITING), self.trial(4, GIVEN_BACK, claims=2, target=30)
        crashed = self.trial(5, GIVEN_BACK, claims=1, target=10, crashes=1)
        self.assertEqual(self.next(*paused, waiting, given_back, crashed), (4, 30))
        self.assertEqual(self.next(*paused, waiting, given_back, crashed, left_alone={4}), (0, 30))
        at_work = self.trial(4, RUNNING, claims=2, target=30)
        self.assertEqual(self.next(*paused[:2], self.trial(2, RUNNING, claims=1, target=10), waiting, at_work, crashed), (3, 10))
        self.assertEqual(self.next(*paused[:2], self.trial(2, RUNNING, claims=1, target=10), self.trial(3, FAILED, claims=1, target=10), at_work, crashed), (5, 10))

    def test_the_end(self):
        two = [self.trial(i, PAUSED, claims=1, target=10, losses={10: 1.0 + i}) for i in range(2)]
        self.assertIsNone(self.next(*two, self.trial(2, RUNNING, claims=1, target=10)))  # it may be better
        self.assertIsNone(self.next(*two, self.trial(2, GIVEN_BACK, claims=1, target=10), left_alone={2}))
        stopped = self.trial(2, STOPPED, claims=1, target=10)
        self.assertEqual(self.next(*two, stopped), (0, 30))
        self.assertEqual(self.next(*two, stopped, again={2: 1}), (2, 10))
        since = self.trial(2, RUNNING, claims=2, target=10)  # another worker was asked to take it up, too
        self.assertIsNone(self.next(*two, since, again={2: 1}))
        self.assertEqual(self.next(*two, replace(since, state=STOPPED), again={2: 1}), (0, 30))  # each once
        over = [self.trial(0, FINISHED, claims=3, target=90, losses={10: 1.0, 30: 1.0, 90: 1.0}), two[1], stopped]
        self.assertIsNone(self.next(*over))


RANDOM = [{"training.batch": 4, "model.norm": "pre", "training.learning_rate": 0.00165863, "model.dropout": 0.0, "model.layers": 2,
           "training.warmup_steps": 5, "training.weight_decay": 0.0540634, "training.decay_fraction": 0.21193},
          {"training.batch": 8, "model.norm": "post", "training.learning_rate": 0.00231842, "model.dropout": 0.1, "model.layers": 1,
           "training.warmup_steps": 1, "training.weight_decay": 0.0341281}]

if __name__ == "__main__":
    unittest.main()
