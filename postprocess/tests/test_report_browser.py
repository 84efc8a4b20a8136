# SPDX-License-Identifier: Apache-2.0
"""The report in a real browser, at desktop and phone width: no console error, slider, hover and click work, and the
numbers shown equal those in the file. Runs: a synthetic pair, incomplete and hostile ones, and one trained by the
command that was built (DEKODER_BINARY_DIR). Screenshots are kept in the build's folder."""
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import unittest
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import report  # noqa: E402
from dekoder_postprocess.run_reader import read_run  # noqa: E402
from dekoder_postprocess.visible_text import visible_token  # noqa: E402
from report_browser import DESKTOP, PHONE, Browser, Keys, skip_without  # noqa: E402
from synthetic_run import step_file, write_run  # noqa: E402

TEXT = ("It is a truth universally acknowledged, that a single man in possession of a good fortune,\n"
        "must be in want of a wife")
PROGRAM = Path(os.environ.get("DEKODER_BINARY_DIR", "/nowhere")) / "dekoder"


def setUpModule():
    global browser, scratch
    skip_without()
    scratch = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(scratch.cleanup)
    browser = Browser()
    unittest.addModuleCleanup(browser.close)


def make_page(name, *runs, megabytes=10):
    path = Path(scratch.name) / f"{name}.html"
    code = report.main([*map(str, runs), "-o", str(path), "--max-megabytes", str(megabytes)])
    assert code == 0, f"dekoder-report ended with {code}"
    return path


class Page(unittest.TestCase):
    """Checks that every page must pass."""

    def look(self, path, name, size=DESKTOP, dark=False):
        browser.open(path, size, dark)
        browser.screenshot(name)
        self.assertEqual(browser.messages(), [])
        self.assertLessEqual(browser.overflow(), 0, f"{name}: wider than the window")
        self.assertEqual(browser.script("return performance.getEntriesByType('resource').length"), 0)

    def check_hover(self, panel, weights, labels, query, key):
        """weights: (query, key) of what the panel shows, as doubles."""
        browser.hover(panel, weights.shape[-1], query, key)
        shown = browser.script("return {...document.getElementById('readout').dataset}")
        self.assertEqual((int(shown["query"]), int(shown["key"])), (query, key))
        text = browser.text("#readout")
        self.assertIn(f"query {query} \u201c{labels[query]}\u201d", text)
        self.assertIn(f"key {key} \u201c{labels[key]}\u201d", text)
        if key > query:
            self.assertIn("not visible", text)
            return
        self.assertEqual(float(shown[panel]), weights[query, key])
        values = [float(value.text.replace("\u2212", "-")) for value in browser.find_all("#readout .value b")]
        self.assertTrue(any(np.isclose(value, weights[query, key], rtol=6e-5, atol=0) for value in values), text)
        if panel != "difference":
            self.assertIn(weights[query, key], [float(np.float16(value)) for value in values])


class FileOfARun:
    """What the attention files hold, read here and not by the reader under test."""

    def __init__(self, run):
        self._files = {int(path.stem[5:]): h5py.File(path, "r", locking=False)
                       for path in sorted((Path(run) / "attention").iterdir())}
        self._last = self._files[max(self._files)]

    def weights(self, probe, step):
        return self._files[step][f"attention/{probe}/weights"][:]

    def labels(self, probe):
        return [visible_token(text.decode()) for text in self._last[f"attention/{probe}/token_text"][:]]

    def steps(self, probe):
        return [step for step, file in self._files.items() if probe in file["attention"]]

    def probes(self):
        return sorted(self._last["attention"])

    def heads(self):
        return len(self._last["heads"])


class OneRun(Page):
    NAME = "one"

    @classmethod
    def make_run(cls):
        return write_run(Path(scratch.name) / "first", layers=4, heads=6, steps=400, captured=range(0, 401, 40),
                         restarts=(120, 250), texts=(TEXT, "Na\u00efve \u2014 ab ab")).path

    @classmethod
    def setUpClass(cls):
        cls.run_path = cls.make_run()
        cls.page = make_page(cls.NAME, cls.run_path)
        cls.file = FileOfARun(cls.run_path)
        cls.probe = cls.file.probes()[0]
        cls.steps = cls.file.steps(cls.probe)

    def test_looks(self):
        self.look(self.page, f"{self.NAME}-desktop")
        self.look(self.page, f"{self.NAME}-desktop-dark", dark=True)
        self.look(self.page, f"{self.NAME}-phone", PHONE)
        self.look(self.page, f"{self.NAME}-phone-dark", PHONE, dark=True)

    def test_all_maps_bit_for_bit(self):
        browser.open(self.page)
        for p, probe in enumerate(self.file.probes()):
            for step in self.file.steps(probe):
                weights = self.file.weights(probe, step)
                q, k = np.tril_indices(weights.shape[2])
                got = browser.whole_map(0, p, step, self.file.heads(), weights.shape[2])
                np.testing.assert_array_equal(np.array(got), weights.view(np.uint16)[..., q, k].ravel())

    def test_slider(self):
        browser.open(self.page)
        last = len(self.steps) - 1
        self.assertEqual(browser.script("return document.getElementById('step').value"), str(last))
        pictures = {}
        for place in (0, last // 2, last):
            browser.choose_step(place)
            self.assertIn(f"{self.steps[place]:,}", browser.text("#step-shown"))
            self.assertIn(f"step {self.steps[place]:,}", browser.text("#detail-title"))
            pictures[place] = (browser.painted(".thumb canvas"), browser.painted(".panel canvas"))
        self.assertEqual(len(set(pictures.values())), len({0, last // 2, last}))
        browser.choose_step(0)
        self.assertEqual((browser.painted(".thumb canvas"), browser.painted(".panel canvas")), pictures[0])
        self.assertEqual(browser.messages(), [])

    def test_hover_shows_the_files_numbers(self):
        draw = random.Random(3)
        labels = self.file.labels(self.probe)
        for size in (DESKTOP, PHONE):
            browser.open(self.page, size)
            for place in (0, len(self.steps) - 1):
                browser.choose_step(place)
                weights = self.file.weights(self.probe, self.steps[place]).astype(float)
                layer, head = draw.randrange(weights.shape[0]), draw.randrange(weights.shape[1])
                browser.find(f".thumb[data-layer='{layer}'][data-head='{head}']").click()
                cells = [(0, 0), (len(labels) - 1, 0), (len(labels) - 1, len(labels) - 1), (2, 5)]
                cells += [(q, draw.randrange(q + 1)) for q in (draw.randrange(len(labels)) for _ in range(4))]
                for query, key in cells:
                    self.check_hover("a", weights[layer, head], labels, query, key)
        self.assertEqual(browser.messages(), [])

    def test_click_enlarges(self):
        browser.open(self.page, PHONE)
        before = browser.painted(".panel canvas")
        browser.find(".thumb[data-layer='1'][data-head='1']").click()
        self.assertIn("Layer 1, head 1", browser.text("#detail-title"))
        self.assertNotEqual(browser.painted(".panel canvas"), before)
        self.assertEqual(browser.painted(".panel canvas"),
                         browser.painted(".thumb[data-layer='1'][data-head='1'] canvas"))
        thumb, large = (browser.script("return document.querySelector(arguments[0]).getBoundingClientRect().width", s)
                        for s in (".thumb canvas", ".panel canvas"))
        self.assertGreater(large, 2 * thumb)
        top = browser.script("return document.querySelector('.panel canvas').getBoundingClientRect().top")
        self.assertTrue(0 <= top < PHONE[1], top)

    def test_keyboard(self):
        browser.open(self.page)
        map_ = browser.find(".panel[data-kind=a] .map-axes")
        browser.hover("a", len(self.file.labels(self.probe)), 6, 3)
        map_.send_keys(Keys.ARROW_LEFT, Keys.ARROW_UP)
        readout = browser.find("#readout")
        self.assertEqual([readout.get_attribute("data-query"), readout.get_attribute("data-key")], ["5", "2"])
        slider = browser.find("#step")
        slider.send_keys(Keys.HOME)
        browser.settle()
        self.assertIn(f"{self.steps[0]:,}", browser.text("#step-shown"))
        browser.find(".thumb[aria-pressed=true]").send_keys(Keys.ARROW_RIGHT)
        self.assertIn("head 1", browser.text("#detail-title"))

    def test_text_chooses_the_query(self):
        browser.open(self.page)
        browser.find("#strip [data-token='4']").click()
        self.assertEqual(browser.script("return document.getElementById('readout').dataset.query"), "4")

    def test_table_equals_the_file(self):
        browser.open(self.page)
        with h5py.File(step_file(self.run_path, self.steps[-1]), "r", locking=False) as file:
            values = file[f"attention/{self.probe}/statistics"][:]
        rows = browser.script("return [...document.querySelectorAll('#statistics-table tbody tr')].map((row) =>"
                              " [...row.querySelectorAll('td')].map((cell) => cell.textContent))")
        # Three digits of a float32's shortest decimal; a tie goes up, as in JavaScript's toFixed.
        rounded = lambda value: str(Decimal(float(str(value))).quantize(Decimal("0.001"), ROUND_HALF_UP))
        self.assertEqual(rows, [[rounded(value) for value in row] for row in values.reshape(-1, values.shape[2])])
        browser.find("[data-column='2']").click()
        sorted_ = [float(cell.text) for cell in browser.find_all("#statistics-table tbody tr td:nth-child(4)")]
        self.assertEqual(sorted_, sorted(sorted_, reverse=True))

    def test_curves_of_every_statistic(self):
        browser.open(self.page)
        names = browser.script("return [...document.getElementById('statistic').options].map((o) => o.value)")
        self.assertEqual(len(names), 8)
        layers = len({thumb.get_attribute("data-layer") for thumb in browser.find_all(".thumb")})
        for name in names:
            browser.choose("#statistic", name)
            count = layers * (7 if name == "all" else 1)
            curves = len(browser.find_all("#statistics-charts .chart path.line"))
            self.assertEqual(curves, count * self.file.heads(), name)
        self.assertEqual(browser.messages(), [])

    def test_print(self):
        browser.open(self.page, dark=True)
        pdf = browser.print_pdf(f"{self.NAME}-print")
        self.assertTrue(pdf.read_bytes().startswith(b"%PDF"))
        self.assertEqual(browser.script("return statisticsPrinted"), 7)
        self.assertEqual(browser.messages(), [])


class TwoRuns(Page):
    @classmethod
    def setUpClass(cls):
        common = dict(layers=4, heads=6, steps=400, captured=range(0, 401, 40),
                      texts=(TEXT, "Na\u00efve \u2014 ab ab"))
        cls.a = write_run(Path(scratch.name) / "with-positions", **common).path
        cls.b = write_run(Path(scratch.name) / "without-positions", positions="none", restarts=(), **common).path
        cls.page = make_page("two", cls.a, cls.b)

    def test_looks(self):
        self.look(self.page, "two-desktop")
        self.look(self.page, "two-desktop-dark", dark=True)
        self.look(self.page, "two-phone", PHONE)

    def test_difference(self):
        a, b = FileOfARun(self.a), FileOfARun(self.b)
        left, right = (f.weights("text_0", 400).astype(float)[2, 1] for f in (a, b))
        self.assertGreater(np.abs(right - left).max(), 0.1)
        labels = a.labels("text_0")
        for size in (DESKTOP, PHONE):
            browser.open(self.page, size)
            self.assertEqual(len(browser.find_all(".panel")), 3)
            browser.find(".thumb[data-layer='2'][data-head='1']").click()
            for query, key in ((30, 29), (60, 3), (len(labels) - 1, 0)):
                self.check_hover("a", left, labels, query, key)
                self.check_hover("b", right, labels, query, key)
                self.check_hover("difference", right - left, labels, query, key)
        self.assertEqual(browser.messages(), [])

    def test_grid_shows_each(self):
        browser.open(self.page)
        pictures = set()
        for view in ("a", "b", "difference"):
            browser.find(f"[name=grid-view][value={view}]").click()
            pictures.add(browser.painted(".thumb canvas"))
        self.assertEqual(len(pictures), 3)

    def test_curves_of_many_heads_and_two_runs_differ(self):
        runs = [write_run(Path(scratch.name) / name, layers=1, heads=12, texts=("ab",)).path
                for name in ("wide", "side")]
        browser.open(make_page("wide", *runs))
        lines = ("return [...document.querySelectorAll(arguments[0])].map((line) =>"
                 " [getComputedStyle(line).stroke, line.getAttribute('stroke-dasharray')].join())")
        curves = browser.script(lines, "#statistics-charts path.line")
        self.assertEqual((len(curves), len(set(curves))), (24, 24))
        self.assertEqual(browser.script(lines, "#statistics-legend line"), curves)  # A above B, head by head
        self.assertIn("upper line: A, wide; lower line: B, side", browser.text("#statistics-legend"))
        browser.screenshot("wide-desktop")

    def test_hover_compares_runs_of_other_lengths(self):
        """Points that stand for several steps lie elsewhere in each run: the nearest ones are read, with their step."""
        long, short = (write_run(Path(scratch.name) / f"steps-{steps}", steps=steps, attention=False, restarts=())
                       for steps in (3000, 1900))
        browser.open(make_page("lengths", long.path, short.path))
        for steps, names in ((1500, ("steps-3000 training", "steps-1900 training", "validation")),
                             (2500, ("steps-3000 training",))):
            browser.hover_chart("#chart-loss", steps)
            said = browser.text("#chart-loss .chart-readout")
            for name in names:
                self.assertIn(name, said)
            self.assertEqual("steps-1900" in said, steps < 1900, said)
            read = re.search(r"Step ([\d,]+)", said)
            near = int(read[1].replace(",", ""))
            self.assertLess(abs(near - steps), 10)
            for other in re.findall(r"\(step ([\d,]+)\)", said):
                self.assertTrue(0 < abs(int(other.replace(",", "")) - near) <= 8, said)
        browser.hover_chart("#chart-rate", 1500)
        self.assertIn("steps-3000", browser.text("#chart-rate .chart-readout"))
        self.assertIn("steps-1900", browser.text("#chart-rate .chart-readout"))

    def test_print(self):
        browser.open(self.page)
        browser.media("print")
        for view, words in (("difference", "B \u2212 A (A: with-positions; B: without-positions)"),
                            ("a", "A: with-positions"), ("b", "B: without-positions")):
            browser.script("document.querySelector(`[name=grid-view][value=${arguments[0]}]`).click()", view)
            self.assertEqual(browser.text(".grid-caption"), words)
        # Boxes of buttons would keep the head of the table off its second page.
        display = browser.script("return getComputedStyle(document.querySelector('th button')).display")
        self.assertEqual(display, "contents")
        browser.media("")
        self.assertEqual(browser.text(".grid-caption"), "")
        browser.print_pdf("two-print")

    def test_runs_can_change_places(self):
        browser.open(self.page)
        browser.choose("#run-b", -1)
        self.assertEqual(len(browser.find_all(".panel")), 1)
        browser.choose("#run-a", 1)
        weights = FileOfARun(self.b).weights("text_0", 400).astype(float)
        self.check_hover("a", weights[0, 0], FileOfARun(self.a).labels("text_0"), 20, 11)
        self.assertEqual(browser.messages(), [])


class OddRuns(Page):
    """Runs that lack something, hold evil texts or differ in what they captured."""

    def test_only_begun(self):
        path = write_run(Path(scratch.name) / "begun", attention=False, restarts=()).path
        rows = (path / "metrics.jsonl").read_text().splitlines()
        (path / "metrics.jsonl").write_text("".join(row + "\n" for row in rows if row.startswith('{"step":1,"loss"')))
        (path / "status").unlink()
        (path / "samples.jsonl").unlink()
        page = make_page("begun", path)
        self.look(page, "begun-phone", PHONE)
        self.look(page, "begun-desktop")
        self.assertIn("no attention maps", browser.text(".notes"))
        self.assertTrue(browser.find("#attention-none").is_displayed())

    def test_one_step_one_head(self):
        path = write_run(Path(scratch.name) / "single", layers=1, heads=1, steps=1, captured=(0,), restarts=(),
                         texts=("a",)).path
        self.look(make_page("single", path), "single-desktop")
        self.assertIn("query 0 \u201ca\u201d", browser.text("#readout"))
        self.assertEqual(browser.script("return document.getElementById('readout').dataset.a"), "1")

    def test_different_captures(self):
        a = write_run(Path(scratch.name) / "some", layers=4, heads=4, chosen_layers=(1, 3), chosen_heads=(0, 2)).path
        b = write_run(Path(scratch.name) / "others", layers=4, heads=4, captured=(0, 30), texts=("Other text",)).path
        c = write_run(Path(scratch.name) / "none", attention=False).path
        page = make_page("different", a, b, c)
        self.look(page, "different-desktop")
        self.assertIn("different tokens", browser.text("#attention-problem"))
        browser.choose("#run-a", 1)
        browser.choose("#run-b", 0)
        browser.choose_step(0)
        self.assertEqual(browser.messages(), [])

    def test_evil_texts(self):
        evil = "</script><script>window.hacked = 1</script>\t\n\x01 &lt;"
        path = write_run(Path(scratch.name) / "<b>evil&amp;", texts=(evil,)).path
        sample = {"step": 41, "prompt": "<", "text": "</pre><img src=x onerror='window.hacked = 2'>\u202e\n"}
        with open(path / "samples.jsonl", "a") as file:
            file.write(json.dumps(sample) + "\n")
        self.look(make_page("evil", path), "evil-desktop")
        self.assertIsNone(browser.script("return window.hacked ?? null"))
        self.assertIn("</pre><img src=x", browser.text("#samples"))
        self.assertEqual(browser.text("h1"), "<b>evil&amp;")
        self.assertEqual([t.text for t in browser.find_all("#strip [data-token]")][:9], list("</script>"))

    def test_restarts_that_changed_something(self):
        """The restart's mark has its text beside it; losses on other validation tokens are another line; the gap is drawn
        where both runs were evaluated on the same."""
        a = write_run(Path(scratch.name) / "unchanged", restarts=(), attention=False, phases=True).path
        b = write_run(Path(scratch.name) / "changed", restarts=(10, 20), attention=False, other_tokens_from=20,
                      changes={20: {"training.steps": ["30", "40"], "data.tokens": ["a" * 200, "<b>"]}}).path
        page = make_page("changed", a, b)
        for size, name in ((DESKTOP, "desktop"), (PHONE, "phone")):
            self.look(page, f"changed-{name}", size)
            texts = [text.text for text in browser.find_all("#chart-loss .mark-text")]
            self.assertEqual(len(texts), 1)
            self.assertRegex(texts[0], "^training.steps: 30 ->.*\u2026$")
        self.assertEqual(browser.script("return document.querySelectorAll('#chart-loss line.mark.tokens').length"), 2)
        legend = browser.text("#chart-loss .legend")
        self.assertIn("restart", legend)
        self.assertIn("other validation tokens", legend)
        pens = browser.script("return [...document.querySelectorAll('#chart-loss path.line, #chart-gap path.line')]"
                              ".map((path) => path.getAttribute('d').split('M').length - 1)")
        self.assertEqual(pens, [1, 1, 1, 2, 1])  # training, validation of both, the gap
        self.assertEqual(browser.script("return document.querySelectorAll('#chart-gap circle').length"), 2)
        self.assertIn("changed: the restart from step 20 changed training.steps: 30 -> 40", browser.text("#training .notes"))
        self.assertIn("head and loss", browser.text("table.phases"))

    def test_steps_left_out(self):
        path = write_run(Path(scratch.name) / "large", layers=4, heads=6, captured=range(0, 41, 4),
                         texts=(TEXT, TEXT[::-1])).path
        page = make_page("large", path, megabytes=2)
        self.assertLess(page.stat().st_size, 2_000_000)
        self.look(page, "large-desktop")
        self.assertIn("left out", browser.text("#attention"))
        browser.choose_step(0)
        self.assertIn("0 (initial values)", browser.text("#step-shown"))


    def test_no_map_fits(self):
        path = write_run(Path(scratch.name) / "huge", layers=4, heads=6, captured=range(0, 41, 4),
                         texts=(TEXT, TEXT[::-1])).path
        self.look(make_page("huge", path, megabytes=0.2), "huge-desktop")
        self.assertIn("left out of this page", browser.text("#attention-problem"))
        self.assertEqual(len(browser.find_all("#statistics-table tbody tr")), 24)

    def test_browser_without_decompression(self):
        path = write_run(Path(scratch.name) / "packed", layers=4, heads=6, captured=range(0, 41, 4),
                         texts=(TEXT,)).path
        browser.open(make_page("packed", path))
        browser.script("window.DecompressionStream = undefined")
        browser.choose_step(0)
        self.assertIn("cannot unpack the maps", browser.text("#attention-problem"))
        self.assertEqual(browser.messages(), [])

    def test_not_a_number(self):
        run = write_run(Path(scratch.name) / "diverged", texts=("abc",))
        with h5py.File(step_file(run.path, 40), "r+", locking=False) as file:
            file["attention/text_0/weights"][0, 0, 2, 1] = np.nan
            file["attention/text_0/statistics"][0, 0, 0] = np.nan
        self.look(make_page("diverged", run.path), "diverged-desktop")
        browser.hover("a", 3, 2, 1)
        self.assertIn("weight NaN", browser.text("#readout"))
        self.assertEqual(browser.text("#statistics-table tbody td"), "\u2013")

    def test_axis_of_losses_is_logarithmic(self):
        """Equal ratios are equal lengths, the ticks stand where their numbers are; also for one evaluation alone."""
        browser.open(make_page("ratios", write_run(Path(scratch.name) / "ratios").path))
        for chart in ("#chart-loss", "#chart-bits"):
            tick, place, three = browser.script(
                "const chart = allCharts.find((one) => one.host === document.querySelector(arguments[0]));"
                "const texts = [...chart.place.querySelectorAll('.axes text[text-anchor=end]')]"
                ".filter((text) => text.getAttribute('x') < 50);"
                "return [texts.map((text) => Number(text.textContent)), texts.map((text) => chart.y(Number(text.textContent)) + 4"
                " - text.getAttribute('y')), [1.5, 3, 6].map(chart.y)]", chart)
            self.assertTrue(2 <= len(tick) <= 11 and all(value > 0 for value in tick), tick)
            np.testing.assert_allclose(place, 0, atol=1e-9)
            self.assertAlmostEqual(three[0] - three[1], three[1] - three[2], places=9)
            self.assertIn("logarithmic", browser.text(f"{chart} figcaption"))
        for low, high in ((1.3, 5.5), (1.26, 1.29), (0.0002, 900), (0.9, 1.1)):
            marks = browser.script("return logarithmicTicks(arguments[0], arguments[1], 8)", low, high)
            self.assertTrue(2 <= len(marks) <= 9 and low <= marks[0] < marks[-1] <= high * 1.001, marks)

    def test_logarithmic_steps(self):
        browser.open(make_page("logarithmic", write_run(Path(scratch.name) / "logarithmic").path))
        before = browser.script("return document.querySelector('#chart-loss path.line').getAttribute('d')")
        browser.find("#log-steps").click()
        self.assertIn("optimizer step (logarithmic)", browser.text("#chart-loss"))
        after = browser.script("return document.querySelector('#chart-loss path.line').getAttribute('d')")
        self.assertNotEqual(after, before)

    def test_tap_on_a_chart_stays(self):
        browser.open(make_page("tap", write_run(Path(scratch.name) / "tap").path), PHONE)
        for place in (0.3, 0.7):
            browser.tap("#chart-loss svg[tabindex]", place, 0.5)
            said = browser.text("#chart-loss .chart-readout")
            self.assertRegex(said, r"Step \d+\s+training \d")
            outline = browser.script("return getComputedStyle(document.activeElement).outlineStyle")
            self.assertEqual((browser.script("return document.activeElement.tagName"), outline), ("svg", "none"))
        browser.tap("#chart-rate svg[tabindex]", 0.5, 0.5)
        self.assertEqual(browser.text("#chart-loss .chart-readout"), "")
        self.assertIn("Step", browser.text("#chart-rate .chart-readout"))

    def test_the_mouse_leaves_a_chart_empty(self):
        browser.open(make_page("leave", write_run(Path(scratch.name) / "leave").path))
        browser.hover_chart("#chart-loss", 20)
        self.assertIn("Step 20", browser.text("#chart-loss .chart-readout"))
        browser.hover_chart("#chart-rate", 20)
        self.assertEqual(browser.text("#chart-loss .chart-readout"), "")

    def test_numbers(self):
        browser.open(make_page("numbers", write_run(Path(scratch.name) / "numbers").path))
        for number, text in ((-0.0, "0"), (0, "0"), (2.5e-7, "2.5e-7"), (-2.5e-7, "-2.5e-7"), (0.00012, "0.00012"),
                             (1234567.5, "1,234,567.5"), (-3, "-3")):
            self.assertEqual(browser.script(f"return grouped({number!r})"), text)

    def test_chart_reads_out(self):
        run = write_run(Path(scratch.name) / "read-out")
        browser.open(make_page("read-out", run.path))
        chart = browser.find("#chart-loss svg[tabindex]")
        chart.send_keys(Keys.HOME)  # step 0, an evaluation
        self.assertIn("Step 0", browser.text("#chart-loss .chart-readout"))
        self.assertIn("validation 5.5", browser.text("#chart-loss .chart-readout"))
        chart.send_keys(Keys.ARROW_RIGHT)
        said = browser.text("#chart-loss .chart-readout")
        self.assertIn("Step 1", said)
        self.assertAlmostEqual(float(said.split("training ")[1]), run.steps[0]["loss"], delta=1e-4)


@unittest.skipUnless("DEKODER_BINARY_DIR" in os.environ, "DEKODER_BINARY_DIR names no build")
class TrainedRun(OneRun):
    """The same checks on a run that the built command trained, interrupted once."""

    NAME = "trained"
    PROMPT = "alpha\x01\x80\x85\u2028\u2029\ufeff\ufffe\uffff\n"  # YAML readers refuse some, and fold others
    CONFIG = """\
model: {{layers: 2, heads: 4, channels: 32, feed_forward: 64, context: 64}}
data: {{tokens: {tokens}}}
training: {{steps: {steps}, batch: 8, learning_rate: 3.0e-3, warmup_steps: 10}}
evaluation: {{every: 50, tokens: 2048}}
sampling: {{every: 100, tokens: 60, prompt: "{prompt}"}}
checkpoint: {{every: 100}}
attention: {{texts: ["alpha beta gamma, alpha beta gamma\\n", "\u03b1\u03b2"], windows: 1, every: 100}}
"""

    @classmethod
    def make_run(cls):
        folder = Path(scratch.name)
        words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
        draw = random.Random(5)
        (folder / "text.txt").write_text(" ".join(draw.choice(words) for _ in range(4000)) + "\n")
        tokens = folder / "tokens.h5"
        subprocess.run([PROGRAM, "prepare", folder / "text.txt", "-o", tokens], check=True, stdout=subprocess.DEVNULL)
        for steps in (150, 300):  # the second one resumes the first
            config = folder / f"config-{steps}.yaml"
            prompt = "".join(c if c.isalpha() else f"\\u{ord(c):04x}" for c in cls.PROMPT)
            config.write_text(cls.CONFIG.format(tokens=tokens, steps=steps, prompt=prompt))
            done = subprocess.run([PROGRAM, "train", config, "--run", folder / "trained"], capture_output=True,
                                  text=True, env=dict(os.environ, OMP_NUM_THREADS="1"))
            assert done.returncode == 0, done.stderr
        return folder / "trained"

    def test_configuration_reads_back(self):
        config = read_run(self.run_path).config
        self.assertEqual(config["sampling"]["prompt"], self.PROMPT)
        self.assertEqual(config["attention"]["texts"], ["alpha beta gamma, alpha beta gamma\n", "\u03b1\u03b2"])


if __name__ == "__main__":
    unittest.main()
