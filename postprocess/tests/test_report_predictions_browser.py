# SPDX-License-Identifier: Apache-2.0
"""Predictions of a report in a real browser, at desktop and phone width: the text, each token's numbers and the table equal
the files, by mouse, keyboard and finger; two checkpoints and two runs beside each other; no console message. Screenshots are
kept in the build's folder."""
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import report  # noqa: E402
from dekoder_postprocess.visible_text import visible_token  # noqa: E402
from report_browser import DESKTOP, PHONE, Browser, Keys, WebDriverWait, skip_without  # noqa: E402
from synthetic_run import HELD_OUT, token_text, write_predictions, write_run  # noqa: E402

LABELS = [visible_token(text) for text in token_text(range(256))]


def setUpModule():
    global browser, scratch
    skip_without()
    scratch = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(scratch.cleanup)
    browser = Browser()
    unittest.addModuleCleanup(browser.close)


class Predictions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = Path(scratch.name)
        cls.runs = [write_run(folder / name, attention=False, restarts=()).path for name in ("first", "second")]
        cls.tables = {(0, step): write_predictions(cls.runs[0], step) for step in (0, 20, 40)}
        cls.tables[1, 40] = write_predictions(cls.runs[1], 40, context=32, windows=8, seed=2)
        cls.pages = {}
        for name, runs in (("one", cls.runs[:1]), ("two", cls.runs)):
            cls.pages[name] = folder / f"{name}.html"
            code = report.main([*map(str, runs), "-o", str(cls.pages[name])])
            assert code == 0, f"dekoder-report ended with {code}"

    def open(self, page, size=DESKTOP, dark=False):
        browser.open(self.pages.get(page, page), size, dark)
        self.settle()

    def settle(self):
        WebDriverWait(browser.driver, 30).until(lambda _: browser.script("return document.body.dataset.predictions"))

    def choose(self, selector, value):
        browser.script("delete document.body.dataset.predictions")
        browser.choose(selector, value)
        if selector in ("#prediction-a", "#prediction-b"):
            self.settle()

    def tearDown(self):
        if browser is not None:
            self.assertEqual(browser.messages(), [])
            self.assertLessEqual(browser.overflow(), 0, "wider than the window")

    def facts(self):
        return browser.script("return Object.fromEntries([...document.querySelectorAll('.prediction-facts tr[data-fact]')].map((row) =>"
                              " [row.dataset.fact, [...row.querySelectorAll('td')].map((cell) => cell.textContent)]))")

    def check_facts(self, *columns_and_rows):
        """The token that is shown, in each file."""
        facts = self.facts()
        for place, (columns, row) in enumerate(columns_and_rows):
            at = lambda name: columns[name][row]
            self.assertEqual(facts["truth"][place], f"\u201c{LABELS[at('truth')]}\u201d")
            self.assertEqual(facts["guess"][place], f"\u201c{LABELS[at('guess')]}\u201d")
            self.assertEqual(int(facts["rank"][place]), at("rank"))
            for fact, name in (("truth-probability", "truth_probability"), ("guess-probability", "guess_probability")):
                self.assertAlmostEqual(float(facts[fact][place].split()[0]), 100 * float(at(name)), delta=0.0051 * 100 * float(at(name)))
            self.assertAlmostEqual(float(facts["surprise"][place].split()[0]), float(at("surprise")), delta=0.00051)
        self.assertEqual(len(facts["truth"]), len(columns_and_rows))

    def check_best(self, place, columns, row):
        """The best tokens of a file, and the truth behind them where it is not among them."""
        got = browser.script("return [...document.querySelectorAll('.prediction-best table')[arguments[0]].querySelectorAll('tr')]"
                             ".map((line) => [...line.children].map((cell) => cell.textContent))", place)
        truth = columns["truth"][row]
        rows = list(zip(range(5), columns["top_tokens"][row], np.exp(columns["top_log_probabilities"][row])))
        if columns["rank"][row] >= 5:
            rows.append((columns["rank"][row], truth, columns["truth_probability"][row]))
        self.assertEqual([(int(rank), name) for rank, name, _ in got],
                         [(rank, f"\u201c{LABELS[token]}\u201d" + " truth" * bool(token == truth)) for rank, token, _ in rows])
        for (_, _, shown), (_, _, p) in zip(got, rows):
            self.assertAlmostEqual(float(shown.split()[0]), 100 * float(p), delta=0.0051 * 100 * float(p))

    def test_looks(self):
        for page, size, dark in (("one", DESKTOP, False), ("one", PHONE, True), ("two", DESKTOP, True), ("two", PHONE, False)):
            self.open(page, size, dark)
            browser.screenshot(f"predictions-{page}-{'phone' if size == PHONE else 'desktop'}{'-dark' if dark else ''}")
            self.assertEqual(browser.script("return performance.getEntriesByType('resource').length"), 0)

    def test_text_is_the_held_out_one(self):
        self.open("one")
        self.assertEqual(browser.script("return document.getElementById('prediction-a').selectedOptions[0].textContent"), "step 40")
        columns = self.tables[0, 40]
        for window, first in enumerate(sorted(set(columns["position"][::48].tolist()))):
            self.choose("#prediction-window", first)
            got = browser.script("return [...document.querySelectorAll('.prediction-text [data-at]')].map((token) =>"
                                 " [token.textContent, token.className])")
            rows = range(48 * window, 48 * window + 48)
            shown = [" " if columns["truth"][row] == 32 else LABELS[columns["truth"][row]] for row in rows]
            for at in [i for i, text in enumerate(shown) if shown[i:i + 2] == ["\\xC3", "\\xAF"]]:
                shown[at:at + 2] = "\u00ef", "\u203f"  # two tokens of one character
            kinds = ["" if rank == 0 else "missed" if rank < 10 else "far" for rank in columns["rank"][rows.start:rows.stop]]
            self.assertEqual(got, [list(pair) for pair in zip(shown, kinds)])

    def test_shade_is_the_surprise(self):
        self.open("one")
        shares = browser.script("return [...document.querySelectorAll('.prediction-text [data-at]')].map((token) =>"
                                " parseInt(token.style.getPropertyValue('--share')))")
        surprise = self.tables[0, 40]["surprise"][:48]
        np.testing.assert_array_equal(shares, np.floor(80 * np.minimum(1, surprise / np.log(256)) + 0.5))
        self.assertGreater(len(set(shares)), 5)

    def test_a_token_shows_its_numbers(self):
        columns = self.tables[0, 40]
        for size in (DESKTOP, PHONE):
            self.open("one", size)
            for at in (0, 7, 23, 47):
                browser.script("document.getElementById(arguments[0]).scrollIntoView({block: 'center'})", f"prediction-a-{at}")
                if size == DESKTOP:
                    box = browser.script("const b = document.getElementById(arguments[0]).getBoundingClientRect();"
                                         "return [b.left + b.width / 2, b.top + b.height / 2]", f"prediction-a-{at}")
                    browser.move(*box)
                else:
                    browser.tap(f"#prediction-a-{at}", 0.5, 0.5)
                    WebDriverWait(browser.driver, 5).until(lambda _: browser.script(
                        "return document.getElementById(arguments[0]).getAttribute('aria-selected') === 'true'", f"prediction-a-{at}"))
                self.assertEqual(browser.text("#prediction-detail h3"), f"Held-out token {at}")
                self.check_facts((columns, at))
                self.check_best(0, columns, at)
                self.assertEqual(browser.text(".prediction-context mark"), LABELS[columns["truth"][at]])

    def test_keyboard(self):
        self.open("one")
        text = browser.find(".prediction-text")
        for keys, at in (([Keys.ARROW_RIGHT] * 3, 3), ([Keys.ARROW_LEFT], 2), ([Keys.PAGE_DOWN], 12), ([Keys.END], 47),
                         ([Keys.ARROW_RIGHT], 47), ([Keys.HOME], 0), ([Keys.PAGE_UP], 0)):
            text.send_keys(*keys)
            self.assertEqual(text.get_attribute("aria-activedescendant"), f"prediction-a-{at}")
            self.check_facts((self.tables[0, 40], at))
        label = browser.find("#prediction-a-5").get_attribute("aria-label")
        columns = self.tables[0, 40]
        self.assertEqual(label, f"{LABELS[columns['truth'][5]]}, surprise {columns['surprise'][5]:.3f} nats, rank {columns['rank'][5]}")

    def table(self):
        return browser.script("return [...document.querySelectorAll('#prediction-table tbody tr')].map((row) =>"
                              " [...row.children].map((cell) => cell.firstChild.nodeType === 3 ? cell.firstChild.textContent : cell.textContent))")

    def test_table_sorts_by_the_worst(self):
        self.open("one")
        columns = self.tables[0, 40]
        worst = np.argsort(-columns["surprise"], kind="stable")
        got = self.table()
        self.assertEqual(len(got), 25)
        self.assertEqual([row[6] for row in got], [str(columns["position"][row]) for row in worst[:25]])
        for cells, row in zip(got, worst):
            self.assertTrue(cells[0].endswith(LABELS[columns["truth"][row]]), cells)
            self.assertAlmostEqual(float(cells[1]), float(columns["surprise"][row]), delta=0.00051)
            self.assertEqual((int(cells[2]), cells[4]), (columns["rank"][row], f"\u201c{LABELS[columns['guess'][row]]}\u201d"))
        browser.find("#prediction-more").click()
        self.assertEqual(len(self.table()), 125)
        browser.find("#prediction-table [data-column=rank]").click()
        ranks = [int(cells[2]) for cells in self.table()]
        self.assertEqual(ranks, sorted(columns["rank"].tolist(), reverse=True)[:125])
        self.assertEqual(browser.find("#prediction-table th[aria-sort=descending]").text.split()[0], "Rank")
        browser.find("#prediction-table [data-column=position]").click()
        self.assertEqual([cells[6] for cells in self.table()], [str(place) for place in columns["position"][:125]])
        self.choose("#prediction-scope", "window")
        self.assertEqual(len(self.table()), 48)
        self.assertFalse(browser.find("#prediction-more").is_displayed())

    def test_a_row_goes_to_its_token(self):
        for size in (DESKTOP, PHONE):
            self.open("one", size)
            columns = self.tables[0, 40]
            worst = np.argsort(-columns["surprise"], kind="stable")
            row = next(int(row) for row in worst[:25] if columns["window"][row] > 0)
            button = browser.find(f"#prediction-table [data-first='{columns['position'][row - row % 48]}'][data-token='{row % 48}']")
            browser.script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", button)
            self.assertEqual(browser.text("#prediction-detail h3"), f"Held-out token {columns['position'][row]}")
            self.check_facts((columns, row))
            top = browser.script("return document.querySelector('.prediction-text [aria-selected=true]').getBoundingClientRect().top")
            self.assertTrue(0 <= top < size[1], top)

    def test_two_checkpoints_of_a_run(self):
        self.open("one")
        self.choose("#prediction-b", 0)
        self.assertEqual(len(browser.find_all(".prediction-text")), 2)
        a, b = self.tables[0, 40], self.tables[0, 0]
        browser.find("#prediction-b-9").click()
        self.check_facts((a, 9), (b, 9))
        for place, columns in enumerate((a, b)):
            self.check_best(place, columns, 9)
        gaps = b["surprise"] - a["surprise"]
        browser.find("#prediction-table [data-column=gap]").click()
        got = [float(cells[3].replace("\u2212", "-")) for cells in self.table()]
        np.testing.assert_allclose(got, np.sort(gaps)[::-1][:25], atol=0.00051)
        self.assertIn("Upper line: A, step 40; lower line: B, step 0", browser.text("#prediction-table-hint"))

    def test_two_runs_on_the_windows_that_both_have(self):
        self.open("two")  # the newest of both
        a, b = self.tables[0, 40], self.tables[1, 40]
        windows = browser.script("return [...document.getElementById('prediction-window').options].map((option) => Number(option.value))")
        self.assertEqual(windows, a["position"][::48].tolist())  # each second one of B's eight
        self.choose("#prediction-window", windows[2])
        self.assertEqual([len(browser.find_all(f"[id^=prediction-{kind}-][data-at]")) for kind in "ab"], [32, 32])
        browser.find("#prediction-a-31").click()
        self.check_facts((a, 2 * 48 + 31), (b, 4 * 32 + 31))
        names = [caption.text.split("\n")[0] for caption in browser.find_all("#prediction-texts figcaption")]
        self.assertTrue(names[0].startswith("A: first, step 40") and names[1].startswith("B: second, step 40"), names)
        self.choose("#prediction-b", -1)
        self.assertEqual(len(browser.find_all(".prediction-text")), 1)
        self.assertEqual(len(browser.find_all("[id^=prediction-a-][data-at]")), 48)

    def test_other_text_is_not_compared(self):
        folder = Path(scratch.name)
        other = write_run(folder / "other", attention=False, restarts=()).path
        write_predictions(other, 40, text=HELD_OUT[5:])
        page = folder / "other.html"
        self.assertEqual(report.main([str(self.runs[0]), str(other), "-o", str(page)]), 0)
        self.open(page)
        self.choose("#prediction-a", 3)
        self.assertFalse(browser.find("#prediction-b").is_enabled())
        self.choose("#prediction-a", 0)
        offered = browser.script("return [...document.getElementById('prediction-b').options].map((option) => option.textContent)")
        self.assertEqual(offered, ["nothing else", "first, step 20", "first, step 40"])

    def test_no_predictions(self):
        path = write_run(Path(scratch.name) / "none", attention=False).path
        page = Path(scratch.name) / "none.html"
        self.assertEqual(report.main([str(path), "-o", str(page)]), 0)
        browser.open(page)
        self.assertFalse(browser.find("#predictions-body").is_displayed())
        self.assertIn("dekoder predictions RUN", browser.text("#predictions"))

    def test_browser_without_decompression(self):
        path = write_run(Path(scratch.name) / "packed", attention=False).path
        for step in (1, 2):
            write_predictions(path, step, windows=10, top=60)
        page = Path(scratch.name) / "packed.html"
        self.assertEqual(report.main([str(path), "-o", str(page)]), 0)
        self.open(page)
        browser.script("window.DecompressionStream = undefined")
        browser.choose("#prediction-a", 0)
        WebDriverWait(browser.driver, 5).until(lambda _: browser.find("#predictions-problem").is_displayed())
        self.assertIn("cannot unpack the predictions", browser.text("#predictions-problem"))

    def test_print(self):
        self.open("one", dark=True)
        self.assertTrue(browser.print_pdf("predictions-print").read_bytes().startswith(b"%PDF"))


if __name__ == "__main__":
    unittest.main()
