# SPDX-License-Identifier: Apache-2.0
"""The page of many runs in a real browser, at desktop and phone width: no console message; sorting, filtering, grouping, hiding,
pinning and brushing do what they say; the numbers shown equal those of the files. Screenshots are kept in the build's folder."""
import json
import math
import re
import statistics
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.runs.page import build_page  # noqa: E402
from report_browser import DESKTOP, PHONE, Browser, Keys, skip_without  # noqa: E402
from synthetic_runs import HASH, write_one, write_runs  # noqa: E402

SCALES = {"training.learning_rate": "log"}
RATE, NORM, POSITIONS, BATCH = "training.learning_rate", "model.norm", "model.positions", "training.batch"


def setUpModule():
    global browser, folder, runs, page, importance
    skip_without()
    scratch = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(scratch.cleanup)
    folder = Path(scratch.name)
    runs = write_runs(folder / "runs", 130)
    (runs[3].path / "report.html").write_text("<title>report</title>")
    page = make_page("runs", runs)
    text = page.read_text()
    importance = json.loads(re.search(r'id="runs-data">(.*?)</script>', text, re.S).group(1))["importance"]
    browser = Browser()
    unittest.addModuleCleanup(browser.close)


def make_page(name, summaries, **more):
    path = folder / f"{name}.html"
    path.write_text(build_page(summaries, SCALES, folder, **more), encoding="utf-8")
    return path


def best(chosen):
    """Names by best loss."""
    return [run.name for run in sorted(chosen, key=lambda run: run.best_loss)]


class Page(unittest.TestCase):
    def tearDown(self):
        self.assertEqual(browser.messages(), [])

    def test_no_run(self):
        browser.open(make_page("none", []))
        self.assertEqual((browser.text("h1"), browser.text("#shown-count"), self.rows()), ("0 runs", "All 0 runs", []))

    def rows(self):
        """Names of the rows of the table, as they stand."""
        return browser.script("return [...document.querySelectorAll('#runs tr[data-run] th')].map((cell) => cell.textContent)")

    def cells(self, key, what="dataset.value"):
        return browser.script("return [...document.querySelectorAll(`#runs tbody td[data-key='${arguments[0]}']`)]"
                              f".map((cell) => cell.{what})", key)

    def count(self, selector):
        return browser.script("return document.querySelectorAll(arguments[0]).length", selector)

    def click(self, selector):
        browser.script("document.querySelector(arguments[0]).scrollIntoView({block: 'center', inline: 'center'})", selector)
        browser.find(selector).click()

    def enter(self, selector, text):
        field = browser.find(selector)
        field.clear()
        field.send_keys(text, Keys.TAB)

    def column_menu(self, key):
        self.click(f"#runs button[data-column='{key}']")

    def deed(self, text):
        """Clicks the button of the dialog with that text."""
        button = next(one for one in browser.find_all("dialog button") if one.text == text)
        button.click()

    def shown(self):
        return int(re.sub(r"\D", "", browser.text("#shown-count").split(" of ")[0]))

    def drawn(self):
        """How many runs each chart shows: over time, parallel coordinates, slice."""
        return (self.count("#chart-created circle[data-run]"), self.count("#chart-parallel path[data-run]:not(.out)"),
                self.count("#chart-slice circle[data-run]"))

    def drag(self, key, first, last, touch=False):
        """Draws along an axis of the parallel coordinates between two pixels above its end."""
        browser.script("document.getElementById('chart-parallel').scrollIntoView({block: 'center'})")
        zone = f"[data-axis='{key}'] .axis-zone"
        browser.script("document.querySelector(arguments[0]).scrollIntoView({block: 'center', inline: 'center'})", zone)
        x, top = browser.script("const b = document.querySelector(arguments[0]).getBoundingClientRect();"
                                "return [b.left + b.width / 2, b.top]", zone)
        points = [(x, top + 8 + y) for y in (first, (first + last) / 2, last)]
        send = browser.driver.execute_cdp_cmd
        if touch:
            for kind, point in (("touchStart", points[0]), ("touchMove", points[1]), ("touchMove", points[2]), ("touchEnd", None)):
                send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": point[0], "y": point[1]}] if point else []})
        else:
            for kind, point in (("mousePressed", points[0]), ("mouseMoved", points[1]), ("mouseMoved", points[2]), ("mouseReleased", points[2])):
                send("Input.dispatchMouseEvent", {"type": kind, "x": point[0], "y": point[1], "button": "left", "buttons": 1, "clickCount": 1})

    def limits(self, key):
        """The range that the page keeps of a column."""
        return browser.script("const filter = runsPage.model.filters.get(arguments[0]);"
                              "return filter && (filter.levels ? [...filter.levels].map((l) => runsPage.model.by.get(arguments[0]).levels[l])"
                              " : [filter.low, filter.high])", key)


class Looks(Page):
    def test_looks(self):
        for size, dark, name in ((DESKTOP, False, "desktop"), (DESKTOP, True, "desktop-dark"), (PHONE, False, "phone"), (PHONE, True, "phone-dark")):
            browser.open(page, size, dark)
            browser.screenshot(f"runs-{name}")
            self.assertLessEqual(browser.overflow(), 0, f"{name}: wider than the window")
            self.assertEqual(browser.script("return performance.getEntriesByType('resource').length"), 0)
            self.assertEqual(browser.messages(), [])

    def test_texts_of_charts_do_not_overlap(self):
        """Ticks and titles, at both widths."""
        for size in (DESKTOP, PHONE):
            browser.open(page, size)
            for setting in (RATE, NORM, BATCH):
                browser.choose("#slice-of", setting)
                clashes = browser.script("""
                    const out = [];
                    for (const chart of ["chart-created", "chart-slice", "chart-curves", "chart-parallel"]) {
                      const boxes = [...document.querySelectorAll(`#${chart} svg text`)].map((one) => [one.textContent, one.getBoundingClientRect()]);
                      for (const [i, [a, p]] of boxes.entries()) for (const [b, q] of boxes.slice(i + 1))
                        if (p.left < q.right && q.left < p.right && p.top < q.bottom - 2 && q.top < p.bottom - 2) out.push(`${chart}: ${a} | ${b}`);
                    }
                    return out;""")
                self.assertEqual(clashes, [])

    def test_names_and_losses_on_a_phone(self):
        """Trials of sweeps are told apart, and their losses are seen, without a move of the table."""
        names = ["some long/folders/of the/first sweep/trials/0003", "some long/folders/of the/first sweep/trials/0004",
                 "a-run-without-folders-whose-name-ends-with-lr-0.001", "short"]
        some = [replace(write_one(folder / "phone", i), name=name) for i, name in enumerate(names)]
        browser.open(make_page("phone", some), PHONE)
        shown = browser.script("""
            const box = document.getElementById("runs-box").getBoundingClientRect(), within = (of) => of.getBoundingClientRect().right <= box.right;
            return [...document.querySelectorAll("#runs tr[data-run]")].map((row) => {
              const name = row.querySelector("th"), end = name.querySelector(".end");
              return [name.textContent, end.textContent, end.getBoundingClientRect().right <= name.getBoundingClientRect().right
                && within(row.querySelector('[data-key="best_loss"]'))];
            });""")
        self.assertEqual(sorted(shown), sorted([name, end, True] for name, end in zip(names, ["/0003", "/0004", "h-lr-0.001", "short"])))

    def test_both_ends_of_a_log_axis_have_their_values(self):
        """Also those that a logarithm does not give back to the last bit; and titles keep their ends."""
        some = [replace(run, settings={"evaluation.every": 0.001, "checkpoint.every": 1, **run.settings}) for run in runs[:6]]
        some[0] = replace(some[0], settings={**some[0].settings, "evaluation.every": 0.003, "checkpoint.every": 3})
        browser.open(make_page("axes", some), PHONE)
        ticks = browser.script("""
            const column = { kind: "number", isText: false }, lost = [];
            for (let low = 0.001; low < 0.1; low += 0.001) for (const high of [2.5 * low, 3 * low, 7 * low]) {
              const texts = makeScale(column, [low, high], 300, 0, { logarithmic: true }).ticks(5).map((tick) => tick.text);
              if (texts.length !== 2) lost.push([low, high]);
            }
            return lost;""")
        self.assertEqual(ticks, [])
        titles = browser.script("return [...document.querySelectorAll('#chart-parallel .axis-title')].map((one) => one.firstChild.textContent)")
        for key in ("evaluation.every", "checkpoint.every"):
            self.assertTrue([title for title in titles if title[0] == key[0] and title.endswith("every")], titles)

    def test_print(self):
        browser.open(page, dark=True)
        browser.script("window.addEventListener('beforeprint', () => window.printed = [document.querySelectorAll('#runs tr[data-run]').length,"
                       " document.getElementById('runs').getBoundingClientRect().width])")
        pdf = browser.print_pdf("runs-print")
        self.assertTrue(pdf.read_bytes().startswith(b"%PDF"))
        count, width = browser.script("return window.printed")
        self.assertEqual(count, len(runs))  # all of them
        self.assertLessEqual(width, 1001)  # as wide as the paper
        self.assertEqual(len(self.rows()), 100)
        browser.media("print")
        for selector in (".controls", "#runs .tools", "#runs button.menu"):
            self.assertEqual(browser.script("return getComputedStyle(document.querySelector(arguments[0])).display", selector), "none")
        browser.media("")

    def test_what_the_page_holds_stays_bounded(self):
        browser.open(page)
        self.assertLess(self.count("*"), 40 * len(runs))
        self.click("#show-all")
        self.assertEqual(len(self.rows()), len(runs))


class Table(Page):
    def setUp(self):
        browser.open(page)

    def test_numbers_are_the_files(self):
        self.click("#show-all")
        self.assertEqual(self.rows(), best(runs))
        ordered = sorted(runs, key=lambda run: run.best_loss)
        self.assertEqual([float(value) for value in self.cells("best_loss")], [run.best_loss for run in ordered])
        self.assertEqual(self.cells("best_loss", "textContent"), [f"{run.best_loss:.4f}" for run in ordered])
        self.assertEqual([float(value) for value in self.cells(RATE)], [run.settings[RATE] for run in ordered])
        self.assertEqual([float(text) for text in self.cells(RATE, "textContent")], [run.settings[RATE] for run in ordered])
        self.assertEqual(self.cells(NORM, "textContent"), [run.settings[NORM] for run in ordered])
        self.assertEqual(self.cells("tokens", "textContent"), [f"{run.tokens:,}" for run in ordered])
        self.assertEqual(self.cells("state", "textContent"), [run.state for run in ordered])

    def test_constant_columns_are_hidden_until_asked_for(self):
        heads = browser.script("return [...document.querySelectorAll('#runs thead th')].map((cell) => cell.dataset.key)")
        self.assertIn("training.schedule", heads)
        self.assertEqual({"training.seed", "model.heads", "effective_time"} & set(heads), set())
        self.click("#choose-columns")
        self.click("[data-show='training.seed']")
        self.click(f"[data-show='{NORM}']")
        self.deed("Close")
        self.assertEqual(set(self.cells("training.seed", "textContent")), {"1"})
        self.assertEqual(self.cells(NORM), [])

    def test_sorting_by_any_column(self):
        self.click("#show-all")
        columns = {"name": lambda run: run.name, "created": lambda run: run.created, RATE: lambda run: run.settings[RATE],
                   POSITIONS: lambda run: run.settings[POSITIONS], "best_loss": lambda run: run.best_loss, "step": lambda run: run.step}
        for key, value in columns.items():
            for order in ("ascending", "descending"):
                self.click(f"#runs button[data-sort='{key}']")
                self.assertEqual(browser.find(f"#runs th[data-key='{key}']").get_attribute("aria-sort"), order)
                self.assertEqual(self.rows(), [run.name for run in sorted(runs, key=value, reverse=order == "descending")], (key, order))
        self.assertEqual(browser.script("return document.activeElement.dataset.sort"), "step")  # the keyboard stays where it was

    def test_filter_by_text(self):
        browser.find("#filter-text").send_keys("norm=post  positions=rope")
        chosen = [run for run in runs if run.settings[NORM] == "post" and run.settings[POSITIONS] == "rope"]
        self.assertEqual(self.rows(), best(chosen))
        self.assertEqual(self.shown(), len(chosen))
        self.assertEqual(self.drawn(), (len(chosen),) * 3)
        self.click("#shown-filters .chip")
        self.assertEqual(self.shown(), len(runs))
        self.assertEqual(browser.script("return document.getElementById('filter-text').value"), "")

    def test_filter_by_range_and_values(self):
        self.column_menu(RATE)
        self.enter("dialog [data-limit=from]", "0.0005")
        self.enter("dialog [data-limit=to]", "0.004")
        self.deed("Close")
        chosen = [run for run in runs if 0.0005 <= run.settings[RATE] <= 0.004]
        self.assertEqual(self.rows(), best(chosen))
        self.column_menu(POSITIONS)
        boxes = browser.find_all("dialog .limits input")
        self.assertEqual(len(boxes), 3)
        boxes[1].click()  # learned, none, rope: not "none"
        self.deed("Close")
        chosen = [run for run in chosen if run.settings[POSITIONS] != "none"]
        self.assertEqual(self.rows(), best(chosen))
        self.assertEqual(self.drawn(), (len(chosen),) * 3)
        self.assertEqual(browser.text("#shown"), f"{len(chosen)} of {len(runs)} runs\nlearning_rate: 5e-4 to 0.004 \u2715\n"
                                                 "positions: learned, rope \u2715\neverything \u2715")
        browser.find_all("#shown-filters .chip")[-1].click()
        self.assertEqual(self.shown(), len(runs))

    def test_filter_by_time(self):
        times = sorted(run.created for run in runs)
        self.column_menu("created")
        browser.script("const field = document.querySelector('dialog [data-limit=from]');"
                       "field.value = new Date(1000 * arguments[0]).toISOString().slice(0, 19);"
                       "field.dispatchEvent(new Event('change'))", times[60])
        self.deed("Close")
        self.assertEqual(self.rows(), best([run for run in runs if run.created >= times[60]]))

    def test_groups(self):
        browser.choose("#group-by", POSITIONS)
        groups = {value: [run for run in runs if run.settings[POSITIONS] == value] for value in ("learned", "none", "rope")}
        order = sorted(groups, key=lambda value: min(run.best_loss for run in groups[value]))
        expected = []
        for value in order:
            losses = [run.best_loss for run in groups[value]]
            expected.append([f"positions {value}", f"{len(losses)} runs", f"best {min(losses):.4f}",
                             f"median {statistics.median(losses):.4f}", f"worst {max(losses):.4f}"])
        texts = browser.script("return [...document.querySelectorAll('#runs .group-text')].map((row) =>"
                               " [...row.children].map((one) => one.textContent))")
        self.assertEqual(texts, expected)
        self.assertEqual(self.rows(), [])
        self.click("#runs .group button")
        self.assertEqual(browser.find("#runs .group button").get_attribute("aria-expanded"), "true")
        self.assertEqual(self.rows(), best(groups[order[0]]))
        self.column_menu(POSITIONS)
        self.deed("Do not group")
        self.assertEqual(len(self.rows()), 100)

    def test_hidden_and_pinned_rows(self):
        order = sorted(range(len(runs)), key=lambda i: runs[i].best_loss)
        self.click(f"[data-hide='{order[0]}']")
        self.assertEqual(self.rows()[0], runs[order[1]].name)
        self.assertEqual(self.drawn(), (len(runs) - 1,) * 3)
        self.assertEqual(self.count("#chart-parallel path[data-run]"), len(runs) - 1)
        self.click(f"[data-pin='{order[50]}']")
        self.click("#runs button[data-sort='created']")
        self.assertEqual(self.rows()[:2], [runs[order[50]].name, runs[0].name if order[50] else runs[1].name])
        browser.find("#filter-text").send_keys("no run has this")
        self.assertEqual(self.rows(), [runs[order[50]].name])
        self.assertEqual(self.drawn(), (0, 0, 0))
        browser.find_all("#shown-filters .chip")[-1].click()
        self.click(f"[data-pin='{order[50]}']")
        self.click("#runs button[data-sort='best_loss']")
        self.assertEqual(self.rows()[0], runs[order[0]].name)

    def test_hidden_and_pinned_columns(self):
        self.column_menu("state")
        self.deed("Hide")
        self.assertEqual(self.cells("state"), [])
        self.column_menu("created")
        self.deed("Pin to the left")
        browser.script("document.getElementById('runs-box').scrollLeft = 400")
        left = browser.script("const box = document.getElementById('runs-box').getBoundingClientRect().left;"
                              "return ['name', 'created', 'best_loss'].map((key) => document.querySelector(`#runs tbody [data-key=${key}]`)"
                              ".getBoundingClientRect().left - box)")
        self.assertTrue(0 <= left[0] < 3 and left[0] < left[1] < 300 and left[2] < left[1], left)

    def test_everything_about_a_run(self):
        run = runs[3]
        browser.find("#filter-text").send_keys(run.name)
        self.click("[data-open='3']")
        self.assertEqual(browser.text("#dialog-title"), run.name)
        for key, value in (*((key, getattr(run, key)) for key in ("best_loss", "last_loss", "training_loss")), (RATE, run.settings[RATE])):
            self.assertEqual(float(browser.text(f"dialog [data-key='{key}']")), value)
        self.assertEqual(browser.text("dialog [data-key='training.seed']"), "1")
        self.assertEqual(browser.find("dialog a").get_attribute("href"), (run.path / "report.html").as_uri())
        self.assertEqual(browser.find("#runs .tools a").get_attribute("href"), (run.path / "report.html").as_uri())
        self.deed("Keep on top")
        self.click("#shown-filters .chip")
        self.assertEqual(self.rows()[0], run.name)
        self.click("[data-open='0']")
        self.assertEqual(browser.text("dialog code"), f"dekoder-report {runs[0].path} -o {runs[0].path}/report.html")
        browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
        self.assertFalse(browser.find("#dialog").is_displayed())


class Charts(Page):
    def test_best_so_far(self):
        browser.open(page)
        self.assertEqual(self.drawn()[0], len(runs))
        line = browser.find("#chart-created path.best")
        self.assertEqual(float(line.get_attribute("data-best")), min(run.best_loss for run in runs))
        records, least = 0, float("inf")
        for run in sorted(runs, key=lambda run: run.created):
            records, least = records + (run.best_loss < least), min(least, run.best_loss)
        self.assertEqual(line.get_attribute("d").count("V"), records)
        browser.choose("#created-axis", "order")
        self.assertEqual(browser.find("#chart-created path.best").get_attribute("d").count("V"), records)
        self.assertIn("in the order of creation", browser.text("#chart-created"))

    def test_a_point_says_which_run_it_is(self):
        run = runs[20]
        for size in (DESKTOP, PHONE):
            browser.open(page, size)
            browser.choose(".colour-by", BATCH)
            browser.script("document.querySelector('#chart-created').scrollIntoView({block: 'center'})")
            x, y = browser.script("const b = document.querySelector('#chart-created [data-run=\"20\"]').getBoundingClientRect();"
                                  "return [b.left + b.width / 2, b.top + b.height / 2]")
            browser.move(x, y)
            said = browser.text("#chart-created .chart-readout")
            self.assertIn(run.name, said)
            self.assertIn(f"Best loss {run.best_loss:.4f}", said)
            self.assertIn(f"batch {run.settings[BATCH]}", said)
            self.assertEqual(browser.script("return document.querySelector('#chart-parallel .hovered').getAttribute('d')"),
                             browser.script("return document.querySelector('#chart-parallel [data-run=\"20\"]').getAttribute('d')"))
            self.assertIn(run.name, browser.text("#parallel-readout"))

    def test_points_by_keyboard(self):
        browser.open(page)
        chart = browser.find("#chart-created svg[tabindex]")
        order = sorted(runs, key=lambda run: run.created)
        chart.send_keys(Keys.HOME)
        self.assertIn(order[0].name, browser.text("#chart-created .chart-readout"))
        chart.send_keys(Keys.ARROW_RIGHT)
        self.assertIn(order[1].name, browser.text("#chart-created .chart-readout"))
        chart.send_keys(Keys.ENTER)
        self.assertEqual(browser.text("#dialog-title"), order[1].name)

    def test_curves(self):
        browser.open(page)
        names = browser.script("return [...document.querySelectorAll('#curves-legend button')].map((one) => one.textContent)")
        self.assertEqual(names, best(runs)[:10])
        self.assertEqual(self.count("#chart-curves path.line"), 20)
        for i in (7, 11):
            browser.find("#filter-text").clear()
            browser.find("#filter-text").send_keys(runs[i].name)
            self.click(f"[data-choose='{i}']")
        self.assertEqual(browser.script("return document.getElementById('curves-of').selectedOptions[0].textContent"), "those that are ticked (2)")
        browser.choose("#curves-kind", "validation")
        self.assertEqual(self.count("#chart-curves path.line"), 2)
        run = runs[7]
        browser.hover_chart("#chart-curves", run.best_step)
        said = browser.text("#chart-curves .chart-readout")
        self.assertRegex(said, rf"Step {run.best_step}\b")
        self.assertIn(f"{run.name} {float(f'{run.best_loss:.5g}'):g}", said)
        self.click("#log-steps")
        self.assertIn("optimizer step (logarithmic)", browser.text("#chart-curves"))

    def test_slices(self):
        browser.open(page)
        browser.choose("#slice-of", POSITIONS)
        self.assertEqual(self.count("#chart-slice circle[data-run]"), len(runs))
        self.assertEqual(self.count("#chart-slice .middle"), 3)
        browser.choose("#slices .colour-by", NORM)
        colours = browser.script("return [...document.querySelectorAll('#chart-slice circle[data-run]')]"
                                 ".map((dot) => [Number(dot.dataset.run), dot.style.fill])")
        self.assertEqual(len({colour for _, colour in colours}), 2)
        self.assertEqual(len({(runs[i].settings[NORM], colour) for i, colour in colours}), 2)
        self.assertEqual(browser.script("return document.querySelector('#parallel .colour-by').value"), NORM)
        browser.choose("#slice-of", RATE)
        place = browser.script("return [...document.querySelectorAll('#chart-slice circle[data-run]')]"
                               ".map((dot) => [Number(dot.dataset.run), Number(dot.getAttribute('cx'))])")
        xs = sorted((math.log(runs[i].settings[RATE]), x) for i, x in place)
        slope = (xs[-1][1] - xs[0][1]) / (xs[-1][0] - xs[0][0])
        for value, x in xs:  # logarithmic
            self.assertAlmostEqual(x, xs[0][1] + slope * (value - xs[0][0]), delta=0.2)

    def test_importance_is_what_was_computed(self):
        browser.open(page)
        self.assertEqual(browser.text("#importance-reading"), importance["all_runs"]["reading"])
        for part in ("all_runs", "best_half"):
            browser.choose("#importance-choice select", part)
            rows = browser.script("return [...document.querySelectorAll('.meters tbody tr')].map((row) => [row.dataset.setting,"
                                  " ...[...row.querySelectorAll('td')].map((cell) => cell.dataset.value)])")
            bars = importance[part]["bars"]
            self.assertEqual([row[0] for row in rows][:len(bars)], [bar["setting"] for bar in bars])
            for row, bar in zip(rows, bars):
                self.assertEqual([float(value) if value else None for value in row[1:]],
                                 [bar["permutation"]["value"], bar["impurity"]["value"], bar["linear"], bar["rank"]])
        self.assertEqual(importance["all_runs"]["bars"][0]["setting"], RATE)

    def test_importance_of_runs_of_different_lengths(self):
        """Bars are pale where the runs ended at different steps; the page says so, and which step was taken instead."""
        browser.open(page)
        self.assertIn("The runs ended at steps 100 to 200", browser.text("#importance-reading"))
        self.assertEqual(self.count("#importance-body .meters.weak"), 1)
        browser.open(make_page("at-step", runs, first_rung=100))
        self.assertNotIn("ended at", browser.text("#importance-reading"))
        self.assertEqual(self.count("#importance-body .meters.weak"), 0)
        self.assertRegex(browser.text("#importance-remark"), "^The runs ended at steps 100 to 200: .* up to step 100, the first rung")
        self.assertIn("best validation loss up to step 100 ", browser.text("#importance-body"))


class Brushing(Page):
    def test_ranges_on_several_axes(self):
        browser.open(page)
        for key in (RATE, "best_loss"):
            self.drag(key, 60, 200)
        low, high = self.limits(RATE)
        self.assertTrue(1e-4 < low < high < 1e-2, (low, high))
        worst, least = max(self.limits("best_loss")), min(self.limits("best_loss"))
        chosen = [run for run in runs if low <= run.settings[RATE] <= high and least <= run.best_loss <= worst]
        self.assertTrue(5 < len(chosen) < len(runs) - 20, len(chosen))
        self.assertEqual(self.rows(), best(chosen))
        self.assertEqual(self.drawn(), (len(chosen),) * 3)
        self.assertEqual(self.shown(), len(chosen))
        self.drag(NORM, 10, 100)  # the upper half: one of two texts
        (norm,) = self.limits(NORM)
        chosen = [run for run in chosen if run.settings[NORM] == norm]
        self.assertEqual(self.rows(), best(chosen))
        self.assertEqual(self.count("#chart-parallel .range:not([visibility=hidden])"), 3)
        browser.screenshot("runs-brushed")
        self.drag(RATE, 20, 20)  # a tap
        self.assertIsNone(self.limits(RATE))

    def test_no_run_outside_a_range_is_named(self):
        browser.open(page)
        browser.script("runsPage.model.hover(runsPage.model.runs[7])")
        self.assertIn(runs[7].name, browser.text("#parallel-readout"))
        browser.script("const { model } = runsPage; model.filter(model.by.get('best_loss'), { low: arguments[0], high: null }, true)", runs[7].best_loss + 0.01)
        self.assertEqual(browser.text("#parallel-readout"), "")

    def test_a_range_moves_and_grows(self):
        browser.open(page)
        self.drag(RATE, 100, 160)
        low, high = self.limits(RATE)
        self.drag(RATE, 130, 180)  # from its middle
        moved = self.limits(RATE)
        self.assertLess(moved[1], high)
        self.assertAlmostEqual(moved[1] / moved[0], high / low, delta=0.01 * high / low)
        self.drag(RATE, 150, 50)  # from its upper end
        grown = self.limits(RATE)
        self.assertAlmostEqual(grown[0] / moved[0], 1, delta=1e-9)
        self.assertGreater(grown[1], high)

    def test_while_it_is_drawn_the_charts_follow_once_per_picture(self):
        browser.open(page)
        drawn = browser.driver.execute_async_script("""
            const done = arguments[0], model = runsPage.model, column = model.by.get("training.learning_rate");
            let charts = 0, tables = 0;
            model.listen((live) => (live ? charts++ : tables++));
            for (let i = 1; i <= 200; ++i) model.filter(column, { low: 1e-4 * (1 + i / 100), high: 5e-3 }, true);
            const dots = () => document.querySelectorAll("#chart-created circle[data-run]").length;
            requestAnimationFrame(() => requestAnimationFrame(() => done([charts, tables, dots()])));
            """)
        self.assertEqual(drawn, [1, 0, sum(3e-4 <= run.settings[RATE] <= 5e-3 for run in runs)])

    def test_by_finger(self):
        browser.open(page, PHONE)
        self.drag(NORM, 140, 250, touch=True)
        (norm,) = self.limits(NORM)
        chosen = [run for run in runs if run.settings[NORM] == norm]
        self.assertEqual(self.shown(), len(chosen))
        browser.screenshot("runs-brushed-phone")

    def test_by_keyboard(self):
        browser.open(page)
        browser.find(f"[data-axis='{RATE}'] .axis-zone").send_keys(Keys.ENTER)
        self.assertEqual(browser.text("#dialog-title"), RATE)
        self.enter("dialog [data-limit=from]", "0.001")
        self.deed("Close")
        self.assertEqual(self.limits(RATE), [0.001, None])
        self.assertEqual(self.count("#chart-parallel .range:not([visibility=hidden])"), 1)

    def test_axes_can_be_chosen(self):
        browser.open(page)
        before = self.count("#chart-parallel .axis-group")
        self.assertEqual(before, 9)  # eight settings that differ and the loss
        self.click("#choose-axes")
        self.click(f"dialog [data-axis='{BATCH}']")
        self.deed("Close")
        self.assertEqual(self.count("#chart-parallel .axis-group"), 8)


class OddRuns(Page):
    def test_hostile_texts(self):
        evil = "</script><script>window.hacked = 1</script> <img src=x onerror='window.hacked = 2'> \"'&amp;".replace("/", "\u2215")
        some = [write_one(folder / "evil", 0, name=evil), *(write_one(folder / "evil", i) for i in range(1, 6))]
        some = [replace(some[0], settings={**some[0].settings, NORM: evil, evil: 1}), *some[1:],
                replace(write_one(folder / "evil", 6), name=evil + "2", state="damaged", problem=evil, settings={}, best_loss=None)]
        hostile = make_page("evil", some)
        browser.open(hostile)
        browser.choose("#slice-of", NORM)
        browser.choose(".colour-by", NORM)
        browser.choose("#group-by", NORM)
        browser.choose("#group-by", "")
        self.click("[data-open='0']")
        self.assertEqual(browser.text("#dialog-title"), evil)
        self.deed("Close")
        self.click("[data-open='6']")
        self.assertEqual(browser.text("dialog .notes"), evil)
        self.assertIsNone(browser.script("return window.hacked ?? null"))
        browser.script("document.getElementById('dialog').close()")
        for size in (DESKTOP, PHONE):
            browser.open(hostile, size)
            self.assertLessEqual(browser.overflow(), 0)
        browser.screenshot("runs-evil")

    def test_other_validation_tokens(self):
        some = [write_one(folder / "tokens", i, validation_hash=HASH if i > 2 else "0" * 64) for i in range(9)]
        browser.open(make_page("tokens", some))
        self.assertEqual((len(self.rows()), self.drawn()), (9, (6, 6, 6)))
        self.assertEqual(self.count("#runs .incomparable"), 3)
        self.assertEqual(browser.script("return [...document.getElementById('tokens').options].map((one) => one.textContent)"),
                         ["00000000", HASH[:8]])
        browser.choose("#tokens", 0)
        self.assertEqual((self.drawn(), self.count("#runs .incomparable")), ((3, 3, 3), 6))

    def test_nothing_known_and_a_single_run(self):
        run = write_one(folder / "single", 0)
        bare = type(run)(path=folder, name="early", state="not begun")
        for name, some in (("single", [run]), ("bare", [bare]), ("both", [run, bare])):
            browser.open(make_page(name, some))
            self.assertEqual(len(self.rows()), len(some))
            self.assertEqual(browser.messages(), [])
        browser.open(make_page("bare", [bare]), PHONE)
        self.assertIn("No run with a best loss", browser.text("#chart-created"))
        self.assertLessEqual(browser.overflow(), 0)

    def test_many_settings(self):
        """Axes beyond the window are scrolled to; names are cut, not piled up."""
        some = [replace(run, settings={**run.settings, **{f"section_{i}.a_setting_with_a_long_name_{i}": (j * 7 + i) % (i + 2) for i in range(30)}})
                for j, run in enumerate(runs[:15])]
        many = make_page("many", some)
        for size in (DESKTOP, PHONE):
            browser.open(many, size)
            self.assertEqual(self.count("#chart-parallel .axis-group"), 13)  # twelve and the loss
            self.assertLessEqual(browser.overflow(), 0)
            boxes = browser.script("return [...document.querySelectorAll('#chart-parallel .axis-title')].map((one) => {"
                                   "const b = one.getBoundingClientRect(); return [b.left, b.right]})")
            self.assertTrue(all(a[1] <= b[0] for a, b in zip(boxes, boxes[1:])), boxes)
        browser.screenshot("runs-many-phone")


if __name__ == "__main__":
    unittest.main()
