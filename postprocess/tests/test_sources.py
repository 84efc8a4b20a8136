# SPDX-License-Identifier: Apache-2.0
"""Runs on a mixture of token files: evaluations say the losses of each, the configuration has lists. Reports (in a real browser
where there is one), tables, comparisons, trackers and the picture in the terminal."""
import contextlib
import io
import json
import os
import re
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import compare, report, watch  # noqa: E402
from dekoder_postprocess.errors import RunError  # noqa: E402
from dekoder_postprocess.run_reader import read_run  # noqa: E402
from dekoder_postprocess.runs import command  # noqa: E402
from dekoder_postprocess.runs.collect import collect  # noqa: E402
from dekoder_postprocess.runs.tracked_run import exact_text, metric_rows  # noqa: E402
from report_browser import DESKTOP, PHONE, Browser, lacking  # noqa: E402
from synthetic_run import write_checkpoint, write_run  # noqa: E402

SOURCES = {"data/books.h5": 0.7, "data/code/c.h5": 0.2, "other/c.h5": 0.1}


class Folder(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def mixed(self, name="mixed", **more):
        return write_run(self.folder / name, **{"sources": SOURCES, **more})

    def said(self, main, *words):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = main([str(word) for word in words])
        return code, out.getvalue(), err.getvalue()


class Reading(Folder):
    def test_rows_of_sources(self):
        made = self.mixed()
        run = read_run(made.path)
        self.assertEqual(run.config["data"], {"tokens": list(SOURCES), "weights": list(SOURCES.values())})
        for read, row in zip(run.sources, made.evaluations, strict=True):
            self.assertEqual([{"tokens": name, **of} for name, of in read.items()], row["sources"])
            mean = np.dot([of["weight"] for of in read.values()], [of["validation_loss"] for of in read.values()])
            self.assertAlmostEqual(mean, row["validation_loss"])  # as the fixture is to be
        self.assertEqual(run.source_names(), {"data/books.h5": "books.h5", "data/code/c.h5": "code/c.h5", "other/c.h5": "other/c.h5"})
        plain = read_run(write_run(self.folder / "plain").path)
        self.assertEqual((plain.sources, plain.source_names()), ([{}] * 5, {}))

    def test_a_file_twice(self):
        run = self.mixed()
        log = run.path / "metrics.jsonl"
        log.write_text(log.read_text().replace('"other/c.h5"', '"data/books.h5"'))
        read = read_run(run.path)
        self.assertEqual([of["weight"] for of in read.sources[0].values()], [0.7, 0.2, 0.1])
        self.assertEqual(list(read.source_names().values()), ["books.h5", "c.h5", "books.h5 (2)"])
        names = {name for _, _, metrics in metric_rows(read) for name in metrics if "/of_" in name}
        self.assertEqual(len(names), 6)

    def test_damaged_rows(self):
        good = {"tokens": "a.h5", "weight": 1.0, "validation_loss": 2.0, "bits_per_byte": None, "validation_tokens": 9}
        for wrong, reason in (({}, "sources is no list"), ([3], "no object with tokens"), ([{**good, "tokens": 3}], "no object with tokens"),
                              ([{**good, "tokens": "\ud800"}], "tokens of sources is no text"), ([{**good, "weight": "1"}], "weight is no number"),
                              ([{**good, "validation_loss": True}], "validation_loss is no number"),
                              ([{**good, "validation_tokens": 1.5}], "validation_tokens is no whole number"), ([good], None)):
            run = write_run(self.folder / "a", attention=False)
            with open(run.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({**run.evaluations[-1], "sources": wrong}) + "\n")
            if reason is None:
                self.assertIsNone(read_run(run.path).sources[-1]["a.h5"]["bits_per_byte"])
                continue
            with self.assertRaisesRegex(RunError, f"metrics.jsonl:.*{reason}"):
                read_run(run.path)


class Commands(Folder):
    def test_table_of_runs(self):
        self.mixed()
        write_run(self.folder / "plain")
        code, out, err = self.said(command.main, self.folder, "--columns", "run,data.tokens,validation_loss")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("books.h5", out)
        self.assertIn("austen-byte.h5", out)
        for condition, names in (("data.tokens == [data/books.h5, data/code/c.h5, other/c.h5]", ["mixed"]),
                                 ("data.tokens == data/austen-byte.h5", ["plain"]), ("data.weights == [0.7, 0.2, 0.1]", ["mixed"])):
            code, out, _ = self.said(command.main, self.folder, "--json", "--where", condition)
            self.assertEqual((code, [run["run"] for run in json.loads(out)["runs"]]), (0, names), condition)
        code, out, _ = self.said(command.main, self.folder, "--csv")
        self.assertEqual(code, 0)
        self.assertIn('"[""data/books.h5"", ""data/code/c.h5"", ""other/c.h5""]"', out)
        self.assertEqual(self.said(command.main, self.folder, "-o", self.folder / "runs.html")[0], 0)

    def test_compare_and_watch(self):
        runs = self.mixed(), write_run(self.folder / "plain"), self.mixed("again", seed=2)
        with mock.patch.dict(os.environ, {"PATH": "/nowhere", "DEKODER_PROGRAM": ""}):
            code, out, _ = self.said(compare.main, *(run.path for run in runs))
            self.assertEqual(code, 0)
            self.assertRegex(out, r'data.tokens: \["?data/books.h5.*austen-byte.h5')
            self.assertEqual(self.said(compare.main, *(run.path for run in runs), "--json")[0], 0)
            code, out, _ = self.said(watch.main, "--once", *(run.path for run in runs))
        self.assertEqual(code, 0)
        self.assertIn("mixed", out)

    def test_training_losses_of_other_mixtures_are_not_compared(self):
        """A text more, or other weights; another held-out part of the same texts keeps them comparable."""
        one, two = "ab" * 32, "cd" * 32
        mixed = self.mixed().path
        for name, sources, data_hash, other in (
                ("less", None, f"{one}/90", "another text, another weights"), ("weights", {"a.h5": 0.2, "b.h5": 0.3, "c.h5": 0.5}, None, "another weights"),
                ("same", SOURCES, f"{one}/80 + {two}/70", "")):
            run = write_run(self.folder / name, sources=sources).path
            for path, of in ((mixed, None), (run, data_hash)):
                (path / "checkpoints").mkdir(exist_ok=True)
                write_checkpoint(path / "checkpoints", 40, data_hash=of or f"{one}/90 + {two}/60")
            with mock.patch.dict(os.environ, {"PATH": "/nowhere", "DEKODER_PROGRAM": ""}):
                code, out, _ = self.said(compare.main, mixed, run)
            self.assertEqual(code, 0)
            found = re.search("training losses of B are NOT comparable: (.*) than A's", out)
            self.assertEqual(found[1] if found else "", other, out)
            self.assertIn("abababababab.../90 + cdcdcdcdcdcd.../60", out)

    def test_trackers(self):
        run = self.mixed(other_tokens_from=20)
        summary, = collect([run.path])
        self.assertEqual(exact_text(summary.settings["data.tokens"]), json.dumps(list(SOURCES)))
        rows = {step: metrics for step, _, metrics in metric_rows(read_run(run.path))}
        for row in run.evaluations:
            group = "validation" if row["step"] >= 20 else "validation_on_c312fa7ac312"
            for source, name in zip(row["sources"], ("books", "code_c", "other_c")):
                self.assertEqual(rows[row["step"]][f"{group}/of_{name}/loss"], source["validation_loss"])
                self.assertEqual(rows[row["step"]][f"{group}/of_{name}/bits_per_byte"], source["bits_per_byte"])


@unittest.skipIf(lacking, lacking)
class Report(Folder):
    @classmethod
    def setUpClass(cls):
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)

    def page(self, *runs, size=DESKTOP):
        path = self.folder / "report.html"
        self.assertEqual(self.said(report.main, *(run.path for run in runs), "-o", path)[0], 0)
        self.browser.open(path, size)
        self.browser.screenshot(f"sources-{len(runs)}-{'phone' if size == PHONE else 'desktop'}")
        self.assertEqual(self.browser.messages(), [])
        self.assertLessEqual(self.browser.overflow(), 0, "wider than the window")

    def cells(self):
        return self.browser.script("return [...document.querySelectorAll('.sources tbody tr')].map((row) =>"
                                   " [...row.children].map((cell) => cell.textContent))")

    def expected(self, run):
        """Rows of the table: the evaluation of the least loss."""
        best = min(run.evaluations, key=lambda row: row["validation_loss"])
        rows = [[source["tokens"], f"{source['weight']:g}", f"{source['validation_loss']:.4f}", f"{source['bits_per_byte']:.4f}",
                 f"{source['validation_tokens']:,}"] for source in best["sources"]]
        return [*rows, [f"together, step {best['step']}", "", f"{best['validation_loss']:.4f}", f"{best['bits_per_byte']:.4f}", "65,536"]]

    def test_one_run(self):
        run = self.mixed()
        for size in (PHONE, DESKTOP):
            self.page(run, size=size)
            self.assertEqual(self.cells(), self.expected(run))
        legend = self.browser.text("#chart-source-loss .legend").split("\n")
        self.assertEqual(legend, ["together", "books.h5", "code/c.h5", "other/c.h5", "restart"])
        self.browser.hover_chart("#chart-source-loss", 20)
        row = next(row for row in run.evaluations if row["step"] == 20)
        shown = self.browser.text("#chart-source-loss .chart-readout")
        for name, loss in (("together", row["validation_loss"]), *((source["tokens"].removeprefix("data/"), source["validation_loss"])
                                                                   for source in row["sources"])):
            self.assertIn(f"{name} {float(f'{loss:.5g}'):g}", shown)
        self.browser.hover_chart("#chart-source-bits", 40)
        self.assertIn(f"books.h5 {run.evaluations[-1]['sources'][0]['bits_per_byte']:.5g}", self.browser.text("#chart-source-bits .chart-readout"))

    def test_mixture_beside_a_run_on_one_file(self):
        run, plain = self.mixed(), write_run(self.folder / "plain")
        self.page(run, plain)
        self.assertEqual(self.cells(), [["mixed", *row] for row in self.expected(run)])
        self.assertIn("mixed, books.h5", self.browser.text("#chart-source-loss .legend"))
        self.assertNotIn("plain", self.browser.text("#chart-source-loss .legend"))

    def test_one_file_alone_has_no_part_of_it(self):
        self.page(write_run(self.folder / "plain"))
        self.assertEqual(self.cells(), [])
        self.assertFalse(self.browser.find("#chart-source-loss").is_displayed())


if __name__ == "__main__":
    unittest.main()
