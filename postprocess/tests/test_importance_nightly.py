# SPDX-License-Identifier: Apache-2.0
"""Which settings mattered, over many sets of runs: how often the intervals hold, how often noise is taken for more; Friedman's
function; and how long 500 runs take."""
import sys
import time
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.runs.importance import importance  # noqa: E402
from planted_runs import (SHARES, additive_loss, additive_settings, friedman_loss, friedman_settings,  # noqa: E402
                          friedman_total_indices, planted_runs)


class Importance(unittest.TestCase):
    def test_intervals(self):
        """Sets of runs differ; an interval from one of them holds the mean over all of them in about nine of ten."""
        sets = 30
        for runs in (16, 24, 50):
            bars = {name: [] for name in SHARES}
            for seed in range(sets):
                for bar in importance(planted_runs(runs, additive_settings, additive_loss, seed), resamples=100).all_runs.bars:
                    bars[bar.setting].append(bar)
            for of in ("permutation", "impurity"):
                held = []
                for name in SHARES:
                    estimates = [getattr(bar, of) for bar in bars[name]]
                    mean = np.mean([estimate.value for estimate in estimates])
                    held.append(np.mean([estimate.low <= mean <= estimate.high for estimate in estimates]))
                print(runs, "runs,", of, dict(zip(SHARES, held)), flush=True)
                self.assertGreater(min(held), 0.7)
                self.assertGreater(np.mean(held), 0.85)
            nothing = [bar.permutation for bar in bars["nothing"]]
            self.assertGreater(np.mean([estimate.low <= 0 <= estimate.high for estimate in nothing]), 0.9)

    def test_noise_is_not_trusted(self):
        for runs in (16, 24, 50):
            for loss in (lambda _, random: random.normal(), lambda _, random: np.exp(2 * random.normal())):  # some far off, too
                trusted = sum("do not trust" not in importance(planted_runs(runs, additive_settings, loss, seed),
                                                               resamples=1).all_runs.reading for seed in range(60))
                print(runs, "runs:", trusted, "of 60 trusted", flush=True)
                self.assertLessEqual(trusted, 3)

    def test_friedman(self):
        """The product of x1 and x2 is what a forest learns least of."""
        bars = {bar.setting: bar for bar in importance(planted_runs(500, friedman_settings, friedman_loss)).all_runs.bars}
        for name, total in friedman_total_indices().items():
            print(name, f"{total:.3f}", bars[name].permutation, flush=True)
            self.assertAlmostEqual(bars[name].permutation.value, total, delta=0.15)
        self.assertEqual({*list(bars)[:5]}, {"x1", "x2", "x3", "x4", "x5"})
        self.assertEqual(next(iter(bars)), "x4")
        for name in ("x6", "x7", "x8", "x9", "x10"):
            self.assertLess(bars[name].permutation.low, 0.002)
            self.assertGreater(bars[name].permutation.high, -0.002)

    def test_500_runs_with_12_settings(self):
        def draw(random):
            return {**additive_settings(random), **{f"more {i}": random.uniform() for i in range(7)}}

        runs = planted_runs(500, draw, additive_loss)
        begin = time.process_time()
        importance(runs)
        seconds = time.process_time() - begin
        print(f"{seconds:.1f} s", flush=True)
        self.assertLess(seconds, 20)


if __name__ == "__main__":
    unittest.main()
