# SPDX-License-Identifier: Apache-2.0
"""The page of many runs without a browser: its numbers are those of the files, hostile texts stay texts, its size, the same page
from the same runs."""
import json
import os
import re
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.runs import page_data  # noqa: E402
from dekoder_postprocess.runs.importance import importance  # noqa: E402
from dekoder_postprocess.runs.page import build_page  # noqa: E402
from synthetic_runs import HASH, write_one, write_runs  # noqa: E402

HOSTILE = "</script><script>window.hacked = 1</script> <!--data--> \"'&amp; \u202e\x07"


def page_json(page):
    return json.loads(re.search(r'id="runs-data">(.*?)</script>', page, re.S).group(1))


def columns_of(page):
    return {column["key"]: column for column in page_json(page)["columns"]}


def values_of(column, count):
    """What the page's script makes of a column, when no run is damaged."""
    values = [column["same"]] * count if "same" in column else column["values"]
    return [None if value is None else column["levels"][value] for value in values] if column["kind"] == "text" else values


def rows_of(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


class Scratch(unittest.TestCase):
    """Pages without importance, as where scikit-learn is missing."""

    def setUp(self):
        without = mock.patch.dict(sys.modules, {"sklearn": None, "sklearn.ensemble": None})
        without.start()
        self.addCleanup(without.stop)
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)


class Numbers(Scratch):
    def test_columns_are_the_summaries(self):
        runs = write_runs(self.folder, 30)
        columns = columns_of(build_page(runs))
        for field, _, kind, _ in page_data.MEASURES:
            expected = [getattr(run, field) for run in runs]
            self.assertEqual(values_of(columns[field], 30), expected, field)
            self.assertEqual("same" in columns[field], len(set(expected)) == 1, field)
        for key in runs[0].settings:
            values = values_of(columns[key], 30)
            if columns[key]["kind"] == "number":
                self.assertEqual(values, [run.settings[key] for run in runs], key)
            elif isinstance(runs[0].settings[key], list):
                self.assertEqual(values, [json.dumps(run.settings[key]) for run in runs], key)
            else:
                self.assertEqual(values, [run.settings[key] for run in runs], key)
        differing = [key for key, column in columns.items() if column.get("setting") and "same" not in column]
        self.assertEqual(sorted(differing), ["model.dropout", "model.layers", "model.norm", "model.positions", "training.batch",
                                             "training.learning_rate", "training.schedule", "training.warmup_steps"])
        self.assertEqual(columns["training.learning_rate"]["title"], "learning_rate")

    def test_curves_are_the_logs(self):
        run = write_runs(self.folder, 1)[0]
        curves = page_json(build_page([run]))["runs"][0]
        rows = rows_of(run)
        evaluations = [(row["step"], row["validation_loss"]) for row in rows if "validation_loss" in row]
        self.assertEqual(list(zip(*curves["validation"])), evaluations)
        self.assertIn((run.best_step, run.best_loss), evaluations)
        losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
        steps, means = curves["training"]
        self.assertEqual(steps, list(range(1, 201)))
        for step, mean in zip(steps, means):  # 200 steps: two on either side
            near = [losses[s] for s in range(step - 2, step + 3) if s in losses]
            self.assertAlmostEqual(mean, sum(near) / len(near), delta=1e-5)

    def test_long_curves_are_thinned_and_keep_the_best(self):
        run = write_one(self.folder, 0, steps=1500, every=2)
        curves = page_json(build_page([run]))["runs"][0]
        evaluations = {row["step"]: row["validation_loss"] for row in rows_of(run) if "validation_loss" in row}
        steps, losses = curves["validation"]
        self.assertEqual(len(evaluations), 751)
        self.assertIn(len(steps), (page_data.POINTS, page_data.POINTS + 1))
        self.assertEqual([evaluations[step] for step in steps], losses)
        self.assertEqual((steps[0], steps[-1]), (0, 1500))
        self.assertEqual((steps[losses.index(min(losses))], min(losses)), (run.best_step, run.best_loss))
        self.assertEqual(len(curves["training"][0]), page_data.POINTS)

    def test_of_very_long_logs_some_steps_and_all_evaluations_are_read(self):
        run = write_one(self.folder, 0, steps=9000, every=50)
        rows = rows_of(run)
        kept = [json.loads(line) for line in page_data.some_lines((run.path / "metrics.jsonl").read_bytes() + b'{"step":').splitlines()]
        self.assertTrue(page_data.STEPS <= len(kept) < 3 * page_data.STEPS, len(kept))
        curves = page_json(build_page([run]))["runs"][0]
        self.assertEqual(list(zip(*curves["validation"])), [(row["step"], row["validation_loss"]) for row in rows if "validation_loss" in row])
        losses = np.array([row["loss"] for row in rows if "loss" in row])
        for step, mean in zip(*curves["training"]):
            near = losses[max(0, step - 91):step + 90]
            self.assertAlmostEqual(mean, near.mean(), delta=5 * 0.08 / np.sqrt(len(near) / 5) + 0.02)  # 0.08: of the noise

    def test_only_losses_on_the_newest_validation_tokens(self):
        run = write_one(self.folder, 0)
        log = run.path / "metrics.jsonl"
        lines = log.read_text().splitlines()
        others = [line.replace(HASH, "0" * 64) if json.loads(line)["step"] < 100 else line for line in lines]
        log.write_text("".join(line + "\n" for line in others))
        self.assertEqual(page_json(build_page([run]))["runs"][0]["validation"][0], [100, 120, 140, 160, 180, 200])

    def test_what_is_no_number(self):
        """NaN and infinities, and columns of more than numbers."""
        runs = [write_one(self.folder, i) for i in range(4)]
        values = [(2**53 + 2, 1, float("nan"), None), (1, "auto", 2.0, 1), (2, True, float("inf"), 2), (3, [1, 2], 3.0, 3)]
        runs = [replace(run, settings={**run.settings, "x.big": big, "x.mixed": mixed, "x.real": real, "x.none": none})
                for run, (big, mixed, real, none) in zip(runs, values)]
        runs[0] = replace(runs[0], last_loss=float("nan"), best_loss=None)
        columns = columns_of(build_page(runs))
        self.assertEqual(values_of(columns["x.big"], 4), ["9007199254740994", "1", "2", "3"])  # exact, as text
        self.assertEqual(columns["x.big"]["levels"], ["1", "2", "3", "9007199254740994"])
        self.assertEqual(values_of(columns["x.mixed"], 4), ["1", "auto", "true", "[1, 2]"])
        self.assertEqual(values_of(columns["x.none"], 4), [None, 1, 2, 3])
        self.assertEqual((columns["x.none"]["kind"], columns["last_loss"]["values"][0]), ("number", None))

    def test_logarithmic_axes(self):
        runs = write_runs(self.folder, 4)
        columns = columns_of(build_page(runs, {"training.learning_rate": "log", "model.dropout": "log", "training.batch": "linear"}))
        self.assertEqual([columns[key]["logarithmic"] for key in ("training.learning_rate", "model.dropout", "training.batch", "model.layers")],
                         [True, False, False, False])  # a dropout of 0 has no logarithm

    def test_titles_tell_settings_apart(self):
        runs = [replace(run, settings={"a.x": i, "b.x": i, "c.y": i, "d.y": 1}) for i, run in enumerate(write_runs(self.folder, 2))]
        columns = columns_of(build_page(runs))
        self.assertEqual([columns[key]["title"] for key in ("a.x", "b.x", "c.y", "d.y")], ["a.x", "b.x", "y", "d.y"])

    def test_facts(self):
        runs = write_runs(self.folder, 40)
        page = build_page(runs)
        best = min(runs, key=lambda run: run.best_loss)
        self.assertIn(f"<dd><b>{best.best_loss:.4f}</b> <span>nats per token, {best.name}</span>", page)
        self.assertIn("<dd><b>40</b> <span>38 finished, 1 resumable, 1 failed</span>", page)
        self.assertIn(f"<b>{sum(run.tokens for run in runs):,}</b>", page)


class Odd(Scratch):
    def test_damaged_runs_are_rows(self):
        runs = write_runs(self.folder, 3)
        (runs[2].path / "metrics.jsonl").write_text("nonsense\n")
        runs[0] = replace(runs[0], message="stopped by SIGTERM")
        runs[1] = replace(runs[1], name="<b>", state="damaged", problem="metrics.jsonl:1: not a row <of> a log", settings={}, best_loss=None)
        page = build_page(runs)
        data = page_json(page)
        self.assertEqual(data["runs"][1]["problem"], "metrics.jsonl:1: not a row <of> a log")
        self.assertEqual(data["runs"][0]["message"], "stopped by SIGTERM")
        self.assertEqual((data["runs"][2]["training"], data["runs"][2]["validation"]), ([[], []], [[], []]))
        self.assertIn("<li>&lt;b&gt; is damaged: metrics.jsonl:1: not a row &lt;of&gt; a log</li>", page)
        self.assertEqual(values_of(columns_of(page)["state"], 3), ["finished", "damaged", "finished"])
        self.assertIn("same", columns_of(page)["training.seed"])  # of the runs that have settings

    def test_losses_that_cannot_be_compared(self):
        runs = [write_one(self.folder, i, validation_hash=HASH if i else "0" * 64) for i in range(4)]
        runs[0] = replace(runs[0], best_loss=0.5)
        page = build_page(runs)
        self.assertEqual(page_json(page)["tokens"], HASH)
        self.assertIn("1 run was evaluated on other validation tokens than most", page)
        self.assertIn(f"<b>{min(run.best_loss for run in runs[1:]):.4f}</b>", page)
        self.assertNotIn("other validation tokens", build_page(runs[1:]).split('id="runs-data"')[0].split("<main>")[1].split("<section")[0])

    def test_nothing_is_known_yet(self):
        run = write_one(self.folder, 0)
        (run.path / "metrics.jsonl").write_text("")
        bare = type(run)(path=run.path, name="early", state="not begun")
        data = page_json(build_page([bare]))
        self.assertEqual((data["runs"][0]["training"], data["tokens"]), ([[], []], None))
        self.assertEqual(page_json(build_page([]))["runs"], [], "as a table may have none")

    def test_links_to_reports(self):
        names = ["plain", "a b/50% #1?", "it's"]
        runs = [write_one(self.folder, i, name=name) for i, name in enumerate(names)]
        for run in runs[:2]:
            (run.path / "report.html").write_text("a page")
        data = page_json(build_page(runs, folder=self.folder / "pages"))["runs"]
        self.assertEqual(data[0]["report"], "../plain/report.html")
        self.assertEqual(data[1]["report"], "../a%20b/50%25%20%231%3F/report.html")
        self.assertNotIn("command", data[0])
        path = str(runs[2].path).replace("'", "'\"'\"'")
        self.assertEqual(data[2]["command"], f"dekoder-report '{path}' -o '{path}/report.html'")

    def test_hostile_texts_stay_texts(self):
        name = HOSTILE.replace("/", "\u2215") + os.fsdecode(b"\xff")
        run = write_one(self.folder, 0, name=name)
        (run.path / "report.html").write_text("")
        runs = [replace(run, settings={**run.settings, "model.norm": HOSTILE, HOSTILE: 1}), write_one(self.folder, 1),
                replace(write_one(self.folder, 2), problem=HOSTILE, state="damaged")]
        page = build_page(runs, folder=self.folder)
        page.encode("utf-8")
        self.assertNotIn("<script>window", page)
        self.assertEqual(page.count("<!--data-->"), 0)
        self.assertEqual(page.count("<script"), page.count("</script>"))
        data = page_json(page)
        self.assertIn("<script>window.hacked = 1", data["runs"][0]["name"])
        for text in (data["runs"][0]["name"], data["runs"][2]["problem"]):
            self.assertIn("\\u202E\\x07", text)
        self.assertRegex(data["runs"][0]["report"], r"^[A-Za-z0-9%._~/-]+$")

    def test_nothing_from_the_network(self):
        page = build_page(write_runs(self.folder, 3))
        links = [url for url in re.findall(r"https?://[^\s\"')]+", page) if url != "http://www.w3.org/2000/svg"]
        self.assertEqual(links, [])
        self.assertIn("default-src 'none'", page)
        self.assertNotRegex(page, r"<(img|iframe|object|embed)|@import|url\(")


class Importance(unittest.TestCase):
    def test_is_that_of_the_runs(self):
        with tempfile.TemporaryDirectory() as folder:
            runs = [replace(run, settings={key: run.settings[key] for key in ("training.learning_rate", "model.norm", "model.layers")})
                    for run in write_runs(folder, 24)]
            runs[0] = replace(runs[0], settings={**runs[0].settings, "</script>\u202e": 1})
            page = build_page(runs, {"training.learning_rate": "log", "model.layers": "linear"})
            expected = importance(runs, logarithmic=["training.learning_rate"], linear=["model.layers"]).as_json()
        text = json.dumps(expected).replace("\\u202e", "\\\\u202E")  # every text visible
        self.assertEqual(page_json(page)["importance"], json.loads(text))
        self.assertIn("</script>\\u202E", {bar["setting"] for bar in page_json(page)["importance"]["all_runs"]["bars"]})

    def test_without_scikit_learn(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(sys.modules, {"sklearn": None, "sklearn.ensemble": None}):
            data = page_json(build_page(write_runs(folder, 2)))
        self.assertRegex(data["importance"]["missing"], "needs the Python package sklearn.*after pip install \"./postprocess\\[importance\\]\"\\.$")


class Size(Scratch):
    def test_500_runs_below_10_megabytes(self):
        """Each with curves of as many points as they have at most, and 45 settings of which 20 differ."""
        runs = write_runs(self.folder, 500, steps=240, every=1)
        rng = np.random.default_rng(1)
        runs = [replace(run, settings={**run.settings, **{f"more.number_{i}": float(rng.uniform()) for i in range(12)},
                                       **{f"more.text_{i}": "a text that is the same in all of them" for i in range(12)}}) for run in runs]
        page = build_page(runs)
        data = page_json(page)
        self.assertEqual({len(run["validation"][0]) for run in data["runs"] if run["validation"][0][-1] == 240} - {201}, {200})
        self.assertLess(len(page.encode()), 10_000_000)
        self.assertGreater(len(page.encode()), 2_000_000)  # they are in it

    def test_same_runs_same_page(self):
        runs = write_runs(self.folder, 12)
        self.assertEqual(build_page(runs), build_page(runs))


if __name__ == "__main__":
    unittest.main()
