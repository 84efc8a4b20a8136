# SPDX-License-Identifier: Apache-2.0
"""The report's parts without a browser: packed maps, budget, escaping, what is missing, exit codes."""
import base64
import contextlib
import io
import json
import os
import re
import sys
import tempfile
import unittest
import zlib
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import report, report_data, report_html, report_maps, visible_text  # noqa: E402
from dekoder_postprocess.errors import RunError  # noqa: E402
from dekoder_postprocess.run_reader import read_run  # noqa: E402
from synthetic_run import step_file, write_run  # noqa: E402


def embedded(page):
    """{(run, probe, step): (encoding, text)} of the maps in a page."""
    found = re.findall(r'id="map-(\d+)-(\d+)-(\d+)" data-encoding="(\w+)">([^<]*)</script>', page)
    return {(int(r), int(p), int(s)): (encoding, text) for r, p, s, encoding, text in found}


def page_json(page):
    return json.loads(re.search(r'id="report-data">(.*?)</script>', page, re.S).group(1))


def unpack(text, compressed):
    """The inverse of report_maps.pack: uint16."""
    planes = base64.b64decode(text)
    planes = np.frombuffer(zlib.decompress(planes) if compressed else planes, np.uint8).reshape(2, -1)
    return np.ascontiguousarray(planes.T).view("<u2").reshape(-1)


class Scratch(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def command(self, *arguments):
        """(exit code, standard output, standard error)"""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = report.main([str(a) for a in arguments])
            except SystemExit as end:
                code = end.code
        return code, out.getvalue(), err.getvalue()


class Maps(Scratch):
    def test_pack_keeps_bits(self):
        bits = np.arange(65536, dtype=np.uint16)
        for compress in (False, True):
            text = report_maps.pack(bits, compress)
            self.assertRegex(text, r"^[A-Za-z0-9+/=]+$")
            np.testing.assert_array_equal(unpack(text, compress), bits)

    def test_order_of_triangles(self):
        maps = np.tril(np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)).astype(np.float16)
        bits = report_maps.lower_triangles(maps).view(np.float16)
        at = ((1 * 3 + 2) * 10) + 3 * 4 // 2 + 1  # layer 1, head 2, query 3, key 1
        self.assertEqual(bits[at], maps[1, 2, 3, 1])
        self.assertEqual(bits.size, 2 * 3 * 10)

    def test_every_map_of_the_file_is_in_the_page(self):
        run = write_run(self.folder / "a")
        page = report.build_page([read_run(run.path)])
        maps = embedded(page)
        self.assertEqual(sorted(maps), [(0, p, s) for p in (0, 1) for s in (0, 20, 40)])
        for (_, probe, step), (encoding, text) in maps.items():
            self.assertEqual(encoding, "plain")
            with h5py.File(step_file(run.path, step)) as file:
                weights = file[f"attention/text_{probe}/weights"][:]
            q, k = np.tril_indices(weights.shape[2])
            np.testing.assert_array_equal(unpack(text, False), weights.view(np.uint16)[..., q, k].ravel())

    def test_statistics_are_the_files(self):
        run = write_run(self.folder / "a")
        data = page_json(report.build_page([read_run(run.path)]))
        probe = data["runs"][0]["attention"]["probes"][1]
        self.assertEqual(probe["name"], "text_1")
        values = np.array(probe["statistics"]["20"], np.float64).astype(np.float32)
        np.testing.assert_array_equal(values, run.statistics["text_1"][20].ravel())


class Budget(Scratch):
    def setUp(self):
        super().setUp()
        text = "".join(chr(97 + i * i % 26) for i in range(96))
        self.written = write_run(self.folder / "long", layers=4, heads=6, captured=range(0, 41, 4),
                             texts=(text, text[::-1]))

    def page(self, megabytes):
        page = report.build_page([read_run(self.written.path)], megabytes)
        self.assertLessEqual(len(page.encode()), megabytes * 1_000_000)
        return page

    def test_large_pages_are_compressed(self):
        page = self.page(10)
        self.assertEqual({encoding for encoding, _ in embedded(page).values()}, {"deflate"})
        self.assertEqual(len(embedded(page)), 2 * 11)
        self.assertNotIn("left out", page.split('id="report-data"')[0].split("<main>")[1])

    def test_steps_are_thinned_and_named(self):
        page = self.page(3)
        for probe in (0, 1):
            steps = [s for _, p, s in embedded(page) if p == probe]
            self.assertEqual((steps[0], steps[-1]), (0, 40))
            self.assertTrue(2 <= len(steps) < 11, steps)
        left = sorted(set(range(0, 41, 4)) - set(steps))
        self.assertIn("maps of these steps are left out: " + ", ".join(map(str, left)) + ".", page)
        self.assertEqual(list(page_json(page)["runs"][0]["attention"]["probes"][0]["statistics"]),
                         [str(s) for s in range(0, 41, 4)])

    def test_first_and_last_stay(self):
        page = self.page(1.4)
        self.assertEqual(sorted({s for _, _, s in embedded(page)}), [0, 40])

    def test_probes_are_left_out_and_named(self):
        page = self.page(0.7)
        self.assertEqual({p for _, p, _ in embedded(page)}, {0})
        self.assertIn("maps of these probes are left out: text_1.", page)

    def test_nothing_fits(self):
        page = self.page(0.2)
        self.assertEqual(embedded(page), {})
        self.assertIn("text_0, text_1", page)

    def test_spread(self):
        self.assertEqual(report_maps.spread([0, 1, 2, 3, 4], 3, {0, 4}), {0, 2, 4})
        self.assertEqual(report_maps.spread([0, 1, 2], 9, {0}), {0, 1, 2})
        self.assertEqual(report_maps.spread([0, 5, 10, 20], 2, {0, 10, 20}), {0, 10, 20})


class Texts(Scratch):
    HOSTILE = ("</script><script>window.hacked = 1</script> <!--data--> \"'&amp; "
               "\x00\x07\u202e \U0001f600 \ud800")

    def test_visible(self):
        self.assertEqual(visible_text.visible("a\x00\x1b\u202eb\n\t\ud800\u00e9"),
                         "a\\x00\\x1B\\u202Eb\n\t\\uD800\u00e9")
        self.assertEqual(visible_text.visible_token(" \n\t\xa0\x01\u200ba"), "\u00b7\u21b5\u21e5\\u00A0\\x01\\u200Ba")
        self.assertEqual(visible_text.visible_token("a b\n", spaces=False), "a b\u21b5")
        self.assertEqual(visible_text.visible_token(""), "\u2205")
        self.assertEqual(visible_text.visible_token("\u0301"), "\u25cc\u0301")  # an accent without its letter
        self.assertEqual(visible_text.visible_token(" e\u0301"), "\u00b7e\u0301")
        self.assertEqual(visible_text.visible_token("\ufe0f\u2764\ufe0f"), "\\uFE0F\u2764\ufe0f")
        self.assertEqual(visible_text.visible_token("\\xE4\\xB8\u0301"), "\\xE4\\xB8\u25cc\u0301")
        self.assertEqual(visible_text.visible_token("\x85"), "\\u0085")  # not \x85, which is a byte
        family = "\U0001F468\u200d\U0001F469"
        self.assertEqual(visible_text.token_signs(family + "a"), [family, "a"])
        self.assertEqual(visible_text.token_signs("\u200d" + family[0]), ["\\u200D", family[0]])
        self.assertEqual(visible_text.token_signs("\u200d\\xF0\\x9F"), ["\\u200D", "\\xF0", "\\x9F"])
        self.assertEqual(visible_text.escaped("<\"'&>"), "&lt;&quot;&#x27;&amp;&gt;")

    def test_bytes_that_are_no_character_are_explained(self):
        run = write_run(self.folder / "a")
        meaning = "bytes that are no whole character"
        self.assertNotIn(meaning, report.build_page([read_run(run.path)]))
        with open(run.path / "samples.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": 40, "prompt": "It is", "text": "It is \ufffd"}) + "\n")
        self.assertIn(meaning, report.build_page([read_run(run.path)]))

    def test_json_is_inert(self):
        text = report_data.json_for_html({"x": self.HOSTILE})
        self.assertNotRegex(text, "[<>&\u0080-\uffff]")
        self.assertEqual(json.loads(text)["x"], self.HOSTILE)

    def test_hostile_texts_stay_texts(self):
        run = write_run(self.folder / "a", texts=("</script><script>window.hacked = 1</script> <!--data-->",))
        with open(run.path / "samples.txt", "ab") as file:
            file.write(b"=== step 41\n</pre><script>window.hacked = 2</script>\x00\xff <!--data-->\n\n")
        hostile = self.folder / "a<b>&\"'"
        run.path.rename(hostile)
        page = report.build_page([read_run(hostile)])
        self.assertNotIn("<script>window", page)
        self.assertEqual(page.count("<!--data-->"), 0)
        self.assertIn("&lt;!--data--&gt;", page)
        self.assertIn("a&lt;b&gt;&amp;&quot;&#x27;", page)
        self.assertEqual(page.count("<script"), page.count("</script>"))

    def test_nothing_from_the_network(self):
        run = write_run(self.folder / "a")
        page = report.build_page([read_run(run.path)])
        links = [url for url in re.findall(r"https?://[^\s\"')]+", page) if url != "http://www.w3.org/2000/svg"]
        self.assertEqual(links, [])
        self.assertIn("default-src 'none'", page)
        self.assertNotRegex(page, r"<(img|iframe|object|embed)|@import|url\(")

    def test_distinct_names(self):
        names = report_html.distinct_names
        self.assertEqual(names(["x/a", "x/b"]), ["a", "b"])
        self.assertEqual(names(["/x/one/run", "/x/two/run", "/y/c"]), ["one/run", "two/run", "c"])
        self.assertEqual(names(["/x/a", "/x/a"]), ["a", "a"])


class Curves(unittest.TestCase):
    def table(self, count):
        step = np.arange(1, count + 1)
        return {"step": step, "loss": 5.0 / step, "tokens_per_second": np.full(count, 7.0)}

    def test_short_ones_are_whole(self):
        curves = report_data.step_curves(self.table(450))
        self.assertEqual(curves["step"], list(range(1, 451)))
        self.assertFalse(curves["merged"])

    def test_long_ones_are_merged(self):
        table = self.table(20000)
        table["loss"][5000:6000] = np.nan
        curves = report_data.step_curves(table)
        self.assertTrue(curves["merged"])
        self.assertEqual(len(curves["step"]), report_data.BEGINNING + report_data.BINS)
        self.assertEqual(curves["step"][:100], list(range(1, 101)))
        self.assertEqual(curves["step"][-1], 20000)
        self.assertIsNone(curves["loss"][200])
        for low, mean, high in zip(curves["low"], curves["loss"], curves["high"]):
            self.assertTrue(mean is None or low <= mean <= high)

    def test_none_at_all(self):
        self.assertEqual(report_data.step_curves(self.table(0))["step"], [])


class Incomplete(Scratch):
    def only(self, name, keep):
        """A run whose metrics.jsonl holds the rows that `keep` chooses, without status, samples and maps."""
        run = write_run(self.folder / name, attention=False)
        lines = [line for line in (run.path / "metrics.jsonl").read_text().splitlines() if keep(json.loads(line))]
        (run.path / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
        (run.path / "status").unlink()
        (run.path / "samples.jsonl").unlink()
        return run.path

    def test_says_what_is_missing(self):
        path = self.only("early", lambda row: row["step"] == 1 and "loss" in row)
        page = report.build_page([read_run(path)])
        for words in ("not finished: step 1 of 40", "no evaluation", "no samples", "no attention maps", "none so far"):
            self.assertIn(words, page)

    def test_names_skipped_steps(self):
        for steps, words in (([7], "at step 7, which"), ([7, 1007], "at steps 7, 1,007, which"), ([], None)):
            run = read_run(write_run(self.folder / "a").path)
            run.skipped = steps
            page = report.build_page([run])
            self.assertEqual("not finite" in page, bool(steps))
            self.assertIn(words or "", page)
        log = self.folder / "a" / "metrics.jsonl"
        log.write_text(log.read_text().replace('{"step":7,', '{"step":7,"skipped":true,'))
        self.assertEqual(read_run(self.folder / "a").skipped, [7])

    def test_restarts(self):
        for restarts, words in (((), "ran through"), ((7,), "from step 7"), ((7, 9), "from steps 7, 9")):
            run = read_run(write_run(self.folder / "a", restarts=restarts).path)
            self.assertIn(("Restarts", str(len(restarts)), words), report_html.facts(run))

    def test_what_restarts_changed_is_listed(self):
        changes = {9: {"training.steps": ["30", "<40>"], "data.tokens": ["a", "b"]}}
        run = write_run(self.folder / "a", restarts=(7, 9), changes=changes)
        page = report.build_page([read_run(run.path)])
        training = page.split('<section id="training"')[1].split("</section>")[0]
        self.assertIn("<li>The restart from step 9 changed training.steps: 30 -&gt; &lt;40&gt;, data.tokens: a -&gt; b.</li>",
                      training)
        self.assertEqual(training.count("restart from step"), 1)
        self.assertEqual(page_json(page)["runs"][0]["restarts"],
                         [{"step": 7, "changed": ""},
                          {"step": 9, "changed": "training.steps: 30 -> <40>, data.tokens: a -> b"}])
        page = report.build_page([read_run(write_run(self.folder / "b").path)])
        self.assertNotIn("restart from step", page.split('id="report-data"')[0])

    def test_losses_of_other_validation_tokens_make_no_curve(self):
        """Best is that of the newest tokens, though the older ones had a lower loss; a null stands between the two."""
        run = write_run(self.folder / "a", other_tokens_from=20)
        log = run.path / "metrics.jsonl"
        log.write_text(log.read_text().replace(f'"validation_loss":{run.evaluations[1]["validation_loss"]}', '"validation_loss":0.5'))
        read = read_run(run.path)
        page = report.build_page([read])
        curve = page_json(page)["runs"][0]["evaluations"]
        self.assertEqual((curve["step"], curve["changes"]), ([0, 10, 20, 20, 30, 40], [20]))
        self.assertEqual([loss is None for loss in curve["loss"]], [False, False, True, False, False, False])
        self.assertEqual([tokens and tokens[:8] for tokens in curve["tokens"]],
                         ["c312fa7a", "c312fa7a", None, "0123abcd", "0123abcd", "0123abcd"])
        self.assertIn(("Best validation loss", f"{run.evaluations[-1]['validation_loss']:.4f}",
                       "nats per token, at step 40, of those on the newest validation tokens"), report_html.facts(read))
        self.assertIn("evaluated on other validation tokens from step 20 on", page)
        self.assertNotIn("other validation tokens", report.build_page([read_run(write_run(self.folder / "b").path)])
                         .split('id="report-data"')[0])

    def test_time_by_phase(self):
        with_phases, without = write_run(self.folder / "a", steps=250, captured=(), phases=True), write_run(self.folder / "b")
        means = report_html.phase_means(read_run(with_phases.path))
        expected = {phase: np.mean([row["seconds"][phase] for row in with_phases.steps[-100:]])
                    for phase in with_phases.steps[0]["seconds"]}
        self.assertEqual(list(means), list(expected))
        np.testing.assert_allclose(list(means.values()), list(expected.values()), rtol=1e-12)
        log = with_phases.path / "metrics.jsonl"
        rare = with_phases.steps[-7]["step"]  # one step in a hundred took ten seconds more
        log.write_text("".join(line.replace('"seconds":{', '"seconds":{"evaluation":10.0,') if f'"step":{rare},' in line else line
                               for line in log.read_text().splitlines(keepends=True)))
        expected = {**expected, "evaluation": 0.1}
        self.assertAlmostEqual(report_html.phase_means(read_run(with_phases.path))["evaluation"], 0.1)
        page = report.build_page([read_run(with_phases.path), read_run(without.path)])
        rows = re.findall(r'<tr><th scope="row">([^<]*)</th><td><b>([^<]*)</b> <span>([^<]*)</span></td><td>',
                          page.split('<table class="phases">')[1])
        self.assertEqual(rows, [(phase, f"{value:.5f}", f"{100 * value / sum(expected.values()):.1f} %")
                                for phase, value in expected.items()])
        self.assertNotIn('class="phases"', report.build_page([read_run(without.path)]))
        log = without.path / "metrics.jsonl"
        log.write_text('{"step":1,"loss":1,"seconds":{"forward":null,"<b>":2}}\n')
        self.assertIn('<th scope="row">&lt;b&gt;</th><td><b>2.00000</b> <span>100.0 %', report.build_page([read_run(without.path)]))

    def test_starts(self):
        """A row for each: one that ended, one that crashed, one that goes on; runs without a log of them have none."""
        run = write_run(self.folder / "a")
        self.assertNotIn('class="starts"', report.build_page([read_run(run.path)]))
        rows = [{"event": "begin", "time": "2026-11-24T21:40:03.250Z", "step": 0, "ranks": 2, "host": "n1", "job": None, "lost_steps": 0},
                {"event": "end", "time": "2026-11-24T22:40:03.250Z", "step": 20, "reason": "signal 10", "steps": 20,
                 "wall_seconds": 3600.2, "step_seconds": 3000.0, "save_seconds": 1.0, "effective_time": 0.8333},
                {"event": "begin", "time": "2026-11-24T23:40:03.250Z", "step": 20, "ranks": 2, "host": "n1", "job": "7", "lost_steps": 0},
                {"event": "end", "time": "2026-11-24T23:41:02.250Z", "step": 33, "reason": "crashed <b>", "steps": 13,
                 "wall_seconds": 59.0, "step_seconds": 9.0, "save_seconds": None, "effective_time": None},
                {"event": "begin", "time": "2026-11-25T00:00:00.000Z", "step": 30, "ranks": 1, "host": "n2", "job": "7", "lost_steps": 3}]
        log = run.path / "restarts.jsonl"
        log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"event":"end","st')
        none = "\u2013"
        self.assertEqual(report_html.start_cells(read_run(run.path)),
                         [("2026-11-24 21:40:03", "0", "20", "0", "1:00:00", "83.3 %", "signal 10"),
                          ("2026-11-24 23:40:03", "20", "33", "3", "0:59", none, "crashed <b>"),
                          ("2026-11-25 00:00:00", "30", none, "0", none, none, "no word of its end yet")])
        table = report.build_page([read_run(run.path)]).split('<table class="starts">')[1].split("</table>")[0]
        self.assertEqual(table.count("<tr>"), 4)
        self.assertIn("<td>crashed &lt;b&gt;</td>", table)
        both = report.build_page([read_run(run.path), read_run(write_run(self.folder / "b").path)])
        self.assertEqual(both.split('<table class="starts">')[1].split("</table>")[0].count("</i>a</td>"), 3)
        for damaged in ('{"event":"begin","step":-1}', '{"event":"begin","step":1,"lost_steps":"many"}', '{"event":"end","step":1,"reason":7}',
                        '{"event":"end","step":1,"wall_seconds":"long"}', "nonsense"):
            log.write_text(damaged + "\n")
            with self.assertRaisesRegex(RunError, "restarts.jsonl:1: not a row of a log"):
                read_run(run.path)

    def test_nothing_yet(self):
        page = report.build_page([read_run(self.only("empty", lambda row: False))])
        self.assertIn("no training step", page)

    def test_differences_of_configurations(self):
        a, b = write_run(self.folder / "a"), write_run(self.folder / "b", positions="none", seed=1)
        page = report.build_page([read_run(a.path), read_run(b.path)])
        part = page.split('id="configuration"')[1].split("<details")[0]
        self.assertIn("1 of ", part)
        self.assertEqual(re.findall(r'<th scope="row"><code>([^<]*)', part), ["model.positions"])
        self.assertEqual(re.findall(r"<td><code>([^<]*)", part), ["learned", "none"])
        same = report.build_page([read_run(a.path), read_run(a.path)])
        self.assertIn("keys are equal", same)


class Command(Scratch):
    def test_writes_a_page(self):
        run, page = write_run(self.folder / "a"), self.folder / "page.html"
        code, out, err = self.command(run.path, "-o", page)
        self.assertEqual((code, err), (0, ""))
        self.assertIn(str(page), out)
        self.assertTrue(page.read_text().startswith("<!DOCTYPE html>"))
        self.assertEqual([p.name for p in self.folder.iterdir() if "tmp" in p.name], [])

    def test_unusable_files(self):
        run = write_run(self.folder / "a")
        attention = step_file(run.path, 20)
        whole = attention.read_bytes()
        for damage in (whole[: len(whole) // 2], b"no HDF5 at all", b""):
            attention.write_bytes(damage)
            code, _, err = self.command(run.path, "-o", self.folder / "page.html")
            self.assertEqual((code, err.count("\n")), (3, 1), err)
            self.assertIn("attention/step-00000020.h5", err)
        self.assertFalse((self.folder / "page.html").exists())
        code, _, err = self.command(self.folder / "nowhere")
        self.assertEqual((code, err.count("\n")), (3, 1), err)

    def test_unwritable(self):
        run = write_run(self.folder / "a")
        (self.folder / "file").write_text("mine")
        os.mkfifo(self.folder / "pipe")
        (self.folder / "to-pipe").symlink_to("pipe")
        (self.folder / "circle").symlink_to("circle")
        before = sorted(self.folder.iterdir())
        for output in (self.folder / "no/such/page.html", self.folder / "file/page.html", self.folder / ("n" * 300),
                       self.folder, ".", self.folder / "a/..", self.folder / "pipe", self.folder / "to-pipe",
                       self.folder / "circle"):
            code, _, err = self.command(run.path, "-o", output)
            self.assertEqual((code, err.count("\n")), (3, 1), err)
            self.assertTrue(err.startswith(f"dekoder-report: {output}: "), err)
            self.assertIn("-o", err)
            self.assertEqual(sorted(self.folder.iterdir()), before)
        self.assertTrue((self.folder / "pipe").is_fifo())
        self.assertEqual((self.folder / "file").read_text(), "mine")
        code, _, err = self.command(run.path, "-o", "")
        self.assertEqual(code, 2)
        self.assertIn("-o/--output: an empty name", err)

    def test_a_link_stays_and_its_file_is_replaced(self):
        run, link, file = write_run(self.folder / "a"), self.folder / "link", self.folder / "elsewhere/page.html"
        file.parent.mkdir()
        link.symlink_to(file)
        for name in (link, link, self.folder / ("n" * 255)):
            self.assertEqual(self.command(run.path, "-o", name)[0], 0)
            self.assertTrue(name.read_text().startswith("<!DOCTYPE html>"))
        self.assertTrue(link.is_symlink())
        self.assertEqual(list(file.parent.iterdir()), [file])

    def test_usage(self):
        self.assertEqual(self.command()[0], 2)
        self.assertEqual(self.command(self.folder, "--max-megabytes", "nan")[0], 2)
        self.assertEqual(self.command(self.folder, "--max-megabytes", "many")[0], 2)


if __name__ == "__main__":
    unittest.main()
