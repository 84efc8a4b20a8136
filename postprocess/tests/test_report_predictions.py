# SPDX-License-Identifier: Apache-2.0
"""Predictions in a report, without a browser: what is embedded are the files' bits, the page keeps to its size, and what is
left out is named."""
import base64
import contextlib
import io
import json
import re
import sys
import tempfile
import unittest
import zlib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import report, report_predictions  # noqa: E402
from dekoder_postprocess.predictions_reader import read_run_predictions  # noqa: E402
from dekoder_postprocess.run_reader import read_run  # noqa: E402
from synthetic_run import HELD_OUT, predictions_file, write_predictions, write_run  # noqa: E402


def page_data(page):
    return json.loads(re.search(r'id="report-data">(.*?)</script>', page, re.S)[1])["predictions"]


def embedded(page):
    """The bytes of each file in the page."""
    found = re.findall(r'id="predictions-(\d+)" data-encoding="(\w+)">([^<]*)</script>', page)
    return {int(place): zlib.decompress(base64.b64decode(text)) if encoding == "deflate" else base64.b64decode(text)
            for place, encoding, text in found}


def unpacked(content, rows, top):
    """Truth, rank, surprise, best tokens, their log-probabilities."""
    parts, at = [], 0
    for count, kind in ((rows, "<u4"), (rows, "<u4"), (rows, "<f4"), (rows * top, "<u4"), (rows * top, "<f4")):
        planes = np.frombuffer(content, np.uint8, 4 * count, at).reshape(4, count)
        parts.append(np.ascontiguousarray(planes.T).view(kind)[:, 0])
        at += 4 * count
    assert at == len(content)
    return parts


class Report(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def run_of(self, name, **options):
        return write_run(self.folder / name, **{"attention": False, **options}).path

    def page(self, *paths, megabytes=10):
        page = report.build_page([read_run(path) for path in paths], megabytes)
        self.assertLessEqual(len(page.encode()), megabytes * 1_000_000)
        return page

    def test_the_page_has_the_bits_of_the_files(self):
        for windows, top, encoding in ((4, 5, "plain"), (12, 30, "deflate")):
            path = self.run_of(f"run-{windows}")
            columns = [write_predictions(path, step, windows=windows, top=top) for step in (20, 40)]
            page = self.page(path)
            self.assertIn(f'data-encoding="{encoding}"', page)
            data, contents = page_data(page), embedded(page)
            self.assertEqual([file["step"] for file in data["files"]], [20, 40])
            for i, of in enumerate(columns):
                file = data["files"][i]
                self.assertEqual(file["windows"], [[j * len(HELD_OUT.encode()) // windows, 48] for j in range(windows)])
                for got, name in zip(unpacked(contents[i], 48 * windows, top), ("truth", "rank", "surprise", "top_tokens", "top_log_probabilities")):
                    np.testing.assert_array_equal(got, of[name].ravel())
                names = data["texts"][file["text"]]
                self.assertLessEqual({str(token) for name in ("truth", "top_tokens") for token in of[name].ravel()}, set(names))
            self.assertEqual((names["32"], names["10"]), ([" ", "\u00b7"], ["\n", "\u21b5"]))

    def test_the_summary_is_of_all_tokens(self):
        a, b = self.run_of("a"), self.run_of("b")
        columns = write_predictions(a, 20)
        write_predictions(b, 40, text=HELD_OUT[3:], context=32)
        page = self.page(a, b)
        row = re.search(r'<table class="predictions">.*?<tbody><tr>(.*?)</tr>', page, re.S)[1]
        cells = re.findall(r"<td>([^<]*)</td>", row)
        self.assertEqual(cells[:3], ["20", "4", "192"])
        self.assertEqual(cells[3], f"{columns['surprise'].mean(dtype=float):.4f}")
        self.assertEqual(cells[4:6], [f"{100 * (columns['rank'] < n).mean():.1f} %" + " (best 5)" * (n > 1) for n in (1, 5)])
        self.assertIn("of different held-out tokens", page)
        self.assertEqual([file["text"] for file in page_data(page)["files"]], [0, 1])
        self.assertNotIn("of different held-out tokens", self.page(a, a))

    def test_no_predictions(self):
        page = self.page(self.run_of("none"))
        self.assertIn("No predictions: <code>dekoder predictions RUN</code>", page)
        self.assertEqual((page_data(page), embedded(page)), ({"files": [], "texts": []}, {}))

    def large(self, **options):
        path = self.run_of("large", **options)
        for step in range(0, 41, 10):
            write_predictions(path, step, windows=8, context=64, top=40)
        return path

    def test_windows_are_left_out_the_same_in_each_file(self):
        path = self.large()
        whole = self.page(path)
        self.assertNotIn("To keep this page below", whole)
        page = self.page(path, megabytes=0.4)
        files = page_data(page)["files"]
        self.assertEqual([file["step"] for file in files], [0, 10, 20, 30, 40])
        firsts = [[first for first, _ in file["windows"]] for file in files]
        self.assertEqual(len({tuple(of) for of in firsts}), 1)
        self.assertTrue(1 <= len(firsts[0]) < 8 and firsts[0][0] == 0, firsts[0])
        self.assertIn(f"To keep this page below 0.4 MB, {8 - len(firsts[0])} of 8 windows of predictions are left out.", page)

    def test_steps_are_left_out_then_everything(self):
        path = self.large()
        bare = len(self.page(self.run_of("bare")))
        page = self.page(path, megabytes=(bare + 60_000) / 1e6)
        self.assertEqual([file["step"] for file in page_data(page)["files"]], [40])
        self.assertIn("predictions of these steps are left out: 0, 10, 20, 30", page)
        page = self.page(path, megabytes=(bare + 5_000) / 1e6)
        self.assertEqual(page_data(page)["files"], [])
        self.assertIn("all windows of predictions are left out", page)

    def test_attention_maps_keep_a_half(self):
        path = self.large(attention=True, layers=4, heads=6, captured=range(0, 41, 4))
        page = self.page(path, megabytes=0.5)
        self.assertIn('class="map-data"', page)
        self.assertIn('class="prediction-data"', page)

    def test_hostile_texts_stay_texts(self):
        path = self.run_of("hostile")
        write_predictions(path, 1, text="</script><script>window.hacked = 1</script> <!--data--> &lt;" * 3, windows=2)
        page = self.page(path)
        self.assertNotIn("<script>window", page)
        self.assertEqual(page.count("<script"), page.count("</script>"))

    def test_a_damaged_file_is_named(self):
        path = self.run_of("damaged")
        write_predictions(path, 20)
        predictions_file(path, 20).write_bytes(b"no HDF5")
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            code = report.main([str(path), "-o", str(self.folder / "page.html")])
        self.assertEqual(code, 3)
        self.assertRegex(err.getvalue(), r"^dekoder-report: .*step-00000020.h5: is not whole \(.*\); expected .*\n$")
        self.assertFalse((self.folder / "page.html").exists())

    def test_the_same_bytes_each_time(self):
        path = self.large()
        self.assertEqual(self.page(path, megabytes=0.4), self.page(path, megabytes=0.4))

    def test_windows_of_other_places_are_both_kept(self):
        a, b = self.run_of("a"), self.run_of("b")
        write_predictions(a, 1, windows=2)
        write_predictions(b, 1, windows=3)
        sources = report_predictions.sources_of([read_run_predictions(path) for path in (a, b)])
        data = report_predictions.embed(sources, 10**6).data
        self.assertEqual([len(file["windows"]) for file in data["files"]], [2, 3])


if __name__ == "__main__":
    unittest.main()
