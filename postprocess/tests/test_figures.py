# SPDX-License-Identifier: Apache-2.0
"""The figures show the file's numbers, with every label readable: inside the picture, over no other; small files."""
import io
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import h5py
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import figures  # noqa: E402
from dekoder_postprocess.attention_reader import read_attention  # noqa: E402
from dekoder_postprocess.curve_figures import logarithmic, running_mean  # noqa: E402
from dekoder_postprocess.figure_style import (  # noqa: E402
    STYLE, drawable, save, shortened, text_width, token_labels, with_palette)
from dekoder_postprocess.run_reader import read_run  # noqa: E402
from synthetic_run import TEXTS, step_file, write_run  # noqa: E402

LONG = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of"
COMMAND = Path(__file__).resolve().parents[1] / "bin/dekoder-figures"


def drawn(figure):
    """The figure's non-empty texts with their boxes in pixels, and the canvas' box."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_visible() and text.get_text().strip()]
    # Ticks outside the limits are objects too, but are not drawn.
    shown = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    shown |= {tick.label1, tick.label2}
            shown |= {axis.label, axis.offsetText}
        shown |= {axes.title}
        if axes.get_legend():
            shown |= set(axes.get_legend().get_texts())
    shown |= set(figure.texts).union(*(legend.get_texts() for legend in figure.legends))
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text in shown], figure.bbox


class Figures(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        style = matplotlib.rc_context(STYLE)
        style.__enter__()
        self.addCleanup(style.__exit__, None, None, None)

    def command(self, *arguments, write=False):
        """The command in this process: exit code, what it printed, the figures by the name of their file, which is
        written as it is or empty (write=False: nobody looks into it)."""
        made = {}

        def keep(figure, folder, name, formats, most_bytes):
            made[name] = figure
            if write:
                return save(figure, folder, name, formats, most_bytes)
            (folder / name).touch()
            return [folder / name]

        with mock.patch.object(figures, "save", keep), mock.patch("sys.stdout", io.StringIO()) as out, \
                mock.patch("sys.stderr", io.StringIO()) as err:
            code = figures.main([str(argument) for argument in arguments])
        return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue(), made=made)

    def check_labels(self, figure, name):
        texts, canvas = drawn(figure)
        self.assertGreater(len(texts), 2, name)
        self.assertFalse(any(text.get_parse_math() for text in figure.findobj(matplotlib.text.Text)), name)
        for text, box in texts:
            self.assertTrue(canvas.x0 <= box.x0 and box.x1 <= canvas.x1 and canvas.y0 <= box.y0 and box.y1 <=
                            canvas.y1, f"{name}: {text!r} leaves the picture")
        for i, (text, box) in enumerate(texts):
            for other, beside in texts[i + 1:]:
                width = min(box.x1, beside.x1) - max(box.x0, beside.x0)
                height = min(box.y1, beside.y1) - max(box.y0, beside.y0)
                self.assertFalse(width > 0.8 and height > 0.8, f"{name}: {text!r} and {other!r} overlap")

    def test_all_files_of_two_runs(self):
        write_run(self.folder / "a")
        write_run(self.folder / "b", positions="none")
        done = self.command(self.folder / "a", self.folder / "b", "-o", self.folder / "out", write=True)
        self.assertEqual((done.code, done.err), (0, ""))
        names = ["heads", "initial-and-trained", "initial-and-trained-heads", "loss", "statistics", "two-runs",
                 "two-runs-heads"]
        self.assertEqual(sorted(path.name for path in (self.folder / "out").iterdir()),
                         sorted(f"{name}.{kind}" for name in names for kind in ("png", "pdf")))
        for name in names:
            png = self.folder / f"out/{name}.png"
            self.assertLess(png.stat().st_size, 150_000)
            with Image.open(png) as picture:
                self.assertGreater(picture.width, 600)
            self.assertTrue((self.folder / f"out/{name}.pdf").read_bytes().startswith(b"%PDF-"))
            self.assertIn(str(png), done.out)

    def test_labels_of_many_shapes(self):
        """From one head and token to 25 heads; long and strange names; tokens of one and of many letters."""
        shapes = [dict(layers=1, heads=1, texts=("a",)),
                  dict(layers=2, heads=3, texts=("na\u00efve \u2014 $x$_^{2}\tb",)),
                  dict(layers=4, heads=4, texts=(LONG[:64],)), dict(layers=3, heads=8, texts=(LONG,)),
                  dict(layers=2, heads=12, texts=(LONG[:20],), captured=(0, 40)),
                  dict(layers=6, heads=25, texts=("ab",), captured=(0, 40))]
        for number, shape in enumerate(shapes):
            name = ("r", "cost $5 or $6", "a-run-with-a-long-name-" * 10, "run_3", "gpt2", "xl")[number]
            write_run(self.folder / name, **shape)
            done = self.command(self.folder / name, "--format", "png", "-o", self.folder / "out")
            self.assertEqual((done.code, len(done.made)), (0, 5), done.err)
            for figure_name, figure in done.made.items():
                self.check_labels(figure, f"{name} {figure_name}")

    def test_labels_of_two_runs(self):
        write_run(self.folder / "with", layers=4, heads=4, texts=(LONG[:40],))
        write_run(self.folder / "without", layers=4, heads=4, texts=(LONG[:40],), positions="none")
        for figure_name, figure in self.command(self.folder / "with", self.folder / "without").made.items():
            self.check_labels(figure, figure_name)

    def test_overlap_is_found(self):
        """The check of labels itself: a second title over the first one fails it."""
        write_run(self.folder / "a")
        figure = self.command(self.folder / "a").made["heads"]
        figure.text(0.03, 0.97, "another title", va="top")
        with self.assertRaisesRegex(AssertionError, "overlap"):
            self.check_labels(figure, "heads")

    def test_pair_shows_the_maps(self):
        written = write_run(self.folder / "a", layers=4, heads=3, chosen_layers=[1, 3], chosen_heads=[0, 2])
        done = self.command(self.folder / "a", "--layer", 3, "--head", 0, "--probe", "text_0")
        figure = done.made["initial-and-trained"]
        panels = [axes for axes in figure.axes if axes.images]
        above = np.triu(np.ones((24, 24), bool), k=1)
        for axes, step in zip(panels, (0, 40)):
            shown = axes.images[0].get_array()
            np.testing.assert_array_equal(shown.mask, above)
            np.testing.assert_array_equal(shown.data, written.maps["text_0"][step][1, 0].astype(np.float32))
            self.assertEqual((axes.images[0].norm.vmin, axes.images[0].norm.vmax), (0, 1))
            labels = [label.get_text() for label in axes.get_xticklabels()]
            self.assertEqual("".join(labels), "It\u00b7is\u00b7a\u00b7truth,\u21b5it\u00b7is\u00b7$5.")
        self.assertEqual([axes.get_title() for axes in panels], ["initial values (step 0)", "after 40 steps"])
        self.assertEqual(figure.texts[0].get_text(), "Layer 3, head 0 (a)")

    def test_head_that_changed_most_is_chosen(self):
        written = write_run(self.folder / "a", layers=2, heads=3)
        maps = written.maps["text_0"]
        distance = np.abs(maps[40].astype(float) - maps[0].astype(float)).sum(axis=(2, 3))
        layer, head = np.unravel_index(distance.argmax(), distance.shape)
        title = self.command(self.folder / "a").made["initial-and-trained"].texts[0].get_text()
        self.assertEqual(title, f"Layer {layer}, head {head} (a)")

    def test_change_of_known_maps(self):
        a, b = np.zeros((1, 2, 2, 2)), np.zeros((1, 2, 2, 2))
        a[0, :, 0, 0] = b[0, :, 0, 0] = 1  # first query: equal
        a[0, :, 1, 0] = 1  # second: head 0 moves all its weight, head 1 a quarter of it
        b[0, 0, 1, 1] = 1
        b[0, 1, 1] = (0.75, 0.25)
        np.testing.assert_allclose(figures.change(a, b), [[0.5, 0.125]])

    def test_heads_show_every_map_and_the_pattern(self):
        written = write_run(self.folder / "a", layers=2, heads=3)
        figure = self.command(self.folder / "a").made["heads"]
        panels = [axes for axes in figure.axes if axes.images]
        self.assertEqual(len(panels), 6)
        for number, axes in enumerate(panels):
            np.testing.assert_array_equal(axes.images[0].get_array().data,
                                          written.maps["text_0"][40][number // 3, number % 3].astype(np.float32))
        statistics = written.statistics["text_0"][40]
        texts = [text.get_text() for text in figure.texts]
        self.assertIn(f"previous token {statistics[0, 0, 2]:.2f}", texts)  # (0, 0) and (1, 2) were made as such
        self.assertIn(f"previous token {statistics[1, 2, 2]:.2f}", texts)
        self.assertIn(f"first token {statistics[1, 0, 3]:.2f}", texts)

    def test_no_pattern_shows_entropy(self):
        written = write_run(self.folder / "a", captured=(0, 1))
        texts = [text.get_text() for text in self.command(self.folder / "a").made["heads"].texts]
        self.assertIn(f"entropy {written.statistics['text_0'][1][0, 0, 0]:.2f}", texts)

    def test_two_runs_titles_and_maps(self):
        with_positions = write_run(self.folder / "with")
        without = write_run(self.folder / "without", positions="none")
        done = self.command(self.folder / "with", self.folder / "without", "--layer", 0, "--head", 0)
        panels = [axes for axes in done.made["two-runs"].axes if axes.images]
        self.assertEqual([axes.get_title() for axes in panels],
                         ["with positional encoding (learned), after 40 steps",
                          "without positional encoding, after 40 steps"])
        for axes, written in zip(panels, (with_positions, without)):
            np.testing.assert_array_equal(axes.images[0].get_array().data,
                                          written.maps["text_0"][40][0, 0].astype(np.float32))

    def test_two_runs_at_their_newest_common_step(self):
        write_run(self.folder / "a", captured=(0, 20, 40))
        write_run(self.folder / "b", captured=(0, 20), seed=2)
        made = self.command(self.folder / "a", self.folder / "b").made
        panels = [axes for axes in made["two-runs"].axes if axes.images]
        self.assertEqual([axes.get_title() for axes in panels], ["a, after 20 steps", "b, after 20 steps"])

    def test_two_runs_of_other_layers_and_texts(self):
        write_run(self.folder / "a", layers=3, heads=3)
        write_run(self.folder / "b", layers=3, heads=3, chosen_layers=[2], chosen_heads=[1, 2],
                  texts=("x", TEXTS[0]))
        made = self.command(self.folder / "a", self.folder / "b").made
        texts = {text.get_text() for text in made["two-runs-heads"].texts}
        self.assertTrue({"layer 2", "head 1", "head 2"} <= texts and not {"layer 0", "head 0"} & texts, texts)
        write_run(self.folder / "c", texts=("other",))
        done = self.command(self.folder / "a", self.folder / "c")
        self.assertEqual(done.code, 3)
        self.assertRegex(done.err, "c: no probe with the tokens of text_0 of a; expected the same text")
        self.assertEqual(done.made, {})  # not even the loss curve

    def test_loss_curve(self):
        written = write_run(self.folder / "a", restarts=(10, 20))
        axes = self.command(self.folder / "a").made["loss"].axes[0]
        lines = {line.get_label(): line for line in axes.lines}
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), [row["loss"] for row in written.steps])
        np.testing.assert_array_equal(lines["validation"].get_ydata(),
                                      [row["validation_loss"] for row in written.evaluations])
        self.assertEqual([line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"], [10, 20])
        self.assertEqual(sum(text.get_text() == "restart" for text in axes.get_legend().get_texts()), 1)

    def test_loss_curve_of_a_changed_run(self):
        """No line joins losses on different validation tokens; what a restart changed stands under the title."""
        written = write_run(self.folder / "a", other_tokens_from=20, attention=False,
                            changes={20: {"training.steps": ["30", "40"]}})
        figure = self.command(self.folder / "a").made["loss"]
        line = next(line for line in figure.axes[0].lines if line.get_label() == "validation")
        losses = [row["validation_loss"] for row in written.evaluations]
        np.testing.assert_array_equal(line.get_ydata(), [*losses[:2], np.nan, *losses[2:]])
        self.assertIn("restart from step 20: training.steps: 30 -> 40", [text.get_text() for text in figure.texts])
        self.check_labels(figure, "loss")

    def test_running_mean(self):
        values = np.array([1.0, 2.0, 6.0, np.nan, 10.0, 20.0])
        np.testing.assert_allclose(running_mean(values, 1), [1, 3, 4, 8, 15, 15])
        np.testing.assert_allclose(running_mean(values, 0), values)
        self.assertEqual(len(running_mean(np.array([]), 3)), 0)

    def test_loss_ticks(self):
        """Plain numbers on the logarithmic axis, also where the whole curve lies between two of the usual ones."""
        for low, high in ((1.3, 5.5), (1.26, 1.29), (0.0002, 900.0), (2.0, 2.0)):
            axes = matplotlib.figure.Figure().add_subplot()
            axes.plot([0, 1], [low, high])
            logarithmic(axes)
            FigureCanvasAgg(axes.figure).draw()
            labels = [label.get_text() for label in axes.get_yticklabels()]
            self.assertTrue(2 <= len(labels) <= 10, labels)
            self.assertEqual(len(set(labels)), len(labels))
            self.assertTrue(all(float(label) > 0 for label in labels), labels)

    def test_statistics_curves(self):
        written = write_run(self.folder / "a", layers=4, heads=3, chosen_layers=[1, 3], chosen_heads=[0, 2])
        figure = self.command(self.folder / "a").made["statistics"]
        self.assertEqual(len(figure.axes), 7)
        for s, axes in enumerate(figure.axes):
            self.assertEqual(len(axes.lines), 4)
            for number, line in enumerate(axes.lines):
                expected = [written.statistics["text_0"][step][number // 2, number % 2, s] for step in (0, 20, 40)]
                np.testing.assert_array_equal(line.get_xdata(), [0, 20, 40])
                np.testing.assert_array_equal(line.get_ydata(), expected)
        self.assertEqual([text.get_text() for text in figure.legends[0].get_texts()],
                         ["layer 1", "layer 3", "head 0", "head 2"])

    def test_statistics_of_many_heads(self):
        """Every head of a layer has its own line, named in the legend; each panel's axis ends above the highest."""
        write_run(self.folder / "a", layers=2, heads=12, texts=(LONG[:20],))
        figure = self.command(self.folder / "a").made["statistics"]
        look = lambda line: (line.get_linestyle(), line.get_marker())
        legend = figure.legends[0]
        named = {text.get_text(): look(line) for text, line in zip(legend.get_texts(), legend.get_lines())}
        self.assertEqual(list(named), ["layer 0", "layer 1"] + [f"head {head}" for head in range(12)])
        for axes in figure.axes:
            styles = [look(line) for line in axes.lines[:12]]
            self.assertEqual(len(set(styles)), 12)
            self.assertEqual(styles, list(named.values())[2:])
            low, high = axes.get_ylim()
            self.assertEqual(low, 0)
            self.assertAlmostEqual(high, 1.05 * max(line.get_ydata().max() for line in axes.lines))

    def test_axes_of_the_maps_are_named(self):
        """Grids say what rows and columns are; a pair whose labels do not fit says the text."""
        for text in (LONG[:70], LONG):
            write_run(self.folder / "a", layers=2, heads=3, texts=(text,))
            made = self.command(self.folder / "a", self.folder / "a").made
            for name in ("heads", "initial-and-trained-heads", "two-runs-heads"):
                words = made[name].texts[1].get_text()
                self.assertTrue(words.startswith("rows of a map: queries, columns: keys; text: It is a"), words)
            for name in ("initial-and-trained", "two-runs"):
                self.assertEqual(any(shown.get_text().startswith("text: It is a truth") for shown in made[name].texts),
                                 text == LONG, name)
                self.check_labels(made[name], name)

    def test_small_png_whatever_the_content(self):
        figure = matplotlib.figure.Figure(figsize=(6, 6))
        figure.add_axes((0, 0, 1, 1)).imshow(np.random.default_rng(1).random((300, 300, 3)), interpolation="nearest")
        path, = save(figure, self.folder, "noise", ["png"], most_bytes=150_000)
        self.assertLess(path.stat().st_size, 150_000)
        with Image.open(path) as picture:
            dots = round(picture.info["dpi"][0])
            self.assertEqual(picture.width, 6 * dots)
        path, = save(figure, self.folder, "noise", ["png"], most_bytes=10_000_000)
        with Image.open(path) as picture:
            self.assertLess(dots, round(picture.info["dpi"][0]))

    def test_palettes_keep_rare_colours(self):
        """Most of the maps' pixels are dark: the few bright ones keep their colour too."""
        write_run(self.folder / "a", layers=4, heads=4, texts=(LONG[:64],))
        for name, most in (("heads", 4), ("statistics", 20)):  # the latter: many hues, paler along every line
            canvas = FigureCanvasAgg(self.command(self.folder / "a").made[name])
            canvas.draw()
            whole = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
            small = with_palette(whole)
            self.assertEqual((small.mode, len(small.getcolors()) <= 256), ("P", True))
            pixels = np.asarray(whole).reshape(-1, 3)
            change = np.abs(np.asarray(small.convert("RGB")).reshape(-1, 3).astype(int) - pixels).max(axis=1)
            self.assertLessEqual(change.max(), most, name)
            colours, where, counts = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
            frequent = np.isin(where.ravel(), np.argsort(counts)[-20:])  # paper, letters, the grid
            self.assertEqual(change[frequent].max(), 0, name)

    def test_same_run_same_files(self):
        write_run(self.folder / "a")
        for out in ("x", "y"):
            self.command(self.folder / "a", "--format", "png,pdf", "-o", self.folder / out, write=True)
        files = sorted((self.folder / "x").iterdir())
        self.assertEqual(len(files), 10)
        for path in files:
            self.assertEqual(path.read_bytes(), (self.folder / "y" / path.name).read_bytes(), path.name)

    def test_glyphs(self):
        self.assertEqual(drawable(" \n\ta"), "\u00b7\u21b5\u21e5a")
        self.assertEqual(drawable("a b\n", spaces=False), "a b\u21b5")
        self.assertEqual(drawable("\x01\u4e2d\u200b"), "\\x01\\u4E2D\\u200B")
        self.assertEqual(token_labels(["\\xC3", "acknowledgement"]), ["\\xC3", "acknowled\u2026"])
        self.assertEqual(drawable("\u0e35"), "\\u0E35")  # a mark by its number stands on nothing
        # Escapes stay whole, and one of them at least stays.
        self.assertEqual(token_labels(["\\xE4\\xB8\\xAD", "\U000F0000\U000F0001"]), ["\\xE4\\xB8\u2026", "\\U000F0000\u2026"])

    def test_labels_from_right_to_left(self):
        """What matplotlib draws from left to right, in the order of the eye."""
        self.assertEqual(drawable("\u05db\u05dc"), "\u05dc\u05db")
        self.assertEqual(drawable(" \u05db\u05dc"), "\u05dc\u05db\u00b7")  # the space before a word is on its right
        self.assertEqual(drawable("x = \u05db\u05dc."), "x\u00b7=\u00b7\u05dc\u05db.")
        self.assertEqual(drawable("\u05db\u05dc 12"), "12\u00b7\u05dc\u05db")
        self.assertEqual(drawable("\u05d1\u05b8\u05db"), "\u05db\u05d1\u05b8")  # a vowel stays with its letter
        # beh, noon, teh: initial, medial and final form; alef joins no letter behind it.
        self.assertEqual(drawable("\u0628\u0646\u062a"), "\ufe96\ufee8\ufe91")
        self.assertEqual(drawable("\u0627\u0628"), "\ufe8f\ufe8d")
        self.assertEqual(drawable("\u0628\u064f"), "\ufe8f\u064f")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # matplotlib warns of glyphs that its font lacks
            write_run(self.folder / "a", texts=("\u4e2d \u00e9\t\n\x01",))
            self.assertEqual(self.command(self.folder / "a", write=True).code, 0)

    def test_shortened_fits(self):
        for text in (LONG, "W" * 500, "i" * 500):
            short = shortened(text, 2.0, 9, "bold")
            self.assertLessEqual(text_width(short, 9, "bold"), 2.0)
            self.assertGreater(text_width(short, 9, "bold"), 1.8)
            self.assertTrue(short.endswith("\u2026"))
        self.assertEqual(shortened("short", 2.0, 9), "short")

    def test_step(self):
        write_run(self.folder / "a")
        done = self.command(self.folder / "a", "--step", 20)
        self.assertIn("after 20 steps", done.made["heads"].texts[0].get_text())
        done = self.command(self.folder / "a", "--step", 21, "-o", self.folder / "other")
        self.assertEqual((done.code, done.made, (self.folder / "other").exists()), (3, {}, False))
        self.assertIn("no step 21 of probe text_0; captured steps: 0, 20, 40", done.err)

    def test_attention_file_alone(self):
        write_run(self.folder / "a", captured=(40,))
        shutil.move(step_file(self.folder / "a", 40), self.folder / "attention-text.h5")
        done = self.command(self.folder / "attention-text.h5", write=True)
        self.assertEqual((done.code, list(done.made)), (0, ["heads"]))
        self.assertTrue((self.folder / "figures/heads.pdf").is_file())

    def test_attention_file_of_a_damaged_configuration(self):
        write_run(self.folder / "a")
        maps = step_file(self.folder / "a", 40)
        for text, words in (("a: [", "attribute config: is no YAML"), ("", "attribute config: has no section model")):
            with h5py.File(maps, "r+") as file:
                file.attrs["config"] = text
            done = self.command(maps)
            self.assertEqual((done.code, done.err.count("\n")), (3, 1), done.err)
            self.assertIn(words, done.err)

    def test_run_without_maps(self):
        write_run(self.folder / "a", attention=False)
        done = self.command(self.folder / "a")
        self.assertEqual((done.code, list(done.made)), (0, ["loss"]))
        self.assertIn("no attention maps", done.err)
        done = self.command(self.folder / "a", "--probe", "text_0")
        self.assertEqual(done.code, 3)
        self.assertIn("a: has no attention maps", done.err)

    def test_run_in_progress(self):
        """Rows without line end, a run before its first step, an attention file without a step."""
        write_run(self.folder / "a", captured=(0,))
        with (self.folder / "a/metrics.jsonl").open("a") as log:
            log.write('{"step":41,"lo')
        self.assertEqual(list(self.command(self.folder / "a").made), ["loss", "heads"])
        write_run(self.folder / "b", captured=(), single_file=True)
        self.assertEqual(list(self.command(self.folder / "b").made), ["loss"])
        self.assertEqual(read_attention(self.folder / "b").probe().steps, [])
        (self.folder / "b/metrics.jsonl").write_text("")
        done = self.command(self.folder / "b")
        self.assertEqual(done.code, 3)
        self.assertIn("nothing to draw yet", done.err)
        self.assertEqual(self.command(self.folder / "a", self.folder / "b").code, 3)

    def test_refused(self):
        """Exit code 3 and one line for what is missing, cut or foreign; 2 for usage; as a process of its own."""
        write_run(self.folder / "a")
        maps = step_file(self.folder / "a", 0)
        whole = maps.read_bytes()
        for content in (whole[:3000], b"no HDF5 file at all"):
            maps.write_bytes(content)
            done = subprocess.run([sys.executable, COMMAND, self.folder / "a"], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (3, 1), done.stderr)
            self.assertRegex(done.stderr,
                             r"^dekoder-figures: .*/a/attention/step-00000000\.h5: cannot be opened .*expected.*delete it")
        for name, words in (("nowhere", "nowhere: no such folder"), (".", "has no config.yaml"),
                            ("nowhere.h5", "nowhere.h5: no such file")):
            done = self.command(self.folder / name)
            self.assertEqual((done.code, done.err.count("\n")), (3, 1), done.err)
            self.assertIn(words, done.err)
        for arguments in ([], ["a", "b", "c"], ["a", "--layer", "1"], ["a", "--format", "gif"],
                          ["a", "--most-kilobytes", "0"]):
            with self.assertRaises(SystemExit) as ended, mock.patch("sys.stderr", io.StringIO()) as said:
                figures.main(arguments)
            self.assertEqual(ended.exception.code, 2, arguments)
            self.assertIn("usage: dekoder-figures", said.getvalue())

    def test_unknown_probe_and_head(self):
        write_run(self.folder / "a")
        for arguments, words in ((["--probe", "text_7"], "no probe text_7; it holds text_0, text_1"),
                                 (["--layer", 9, "--head", 0],
                                  "no layer 9, head 0; it holds layers 0 to 1 and heads 0 to 2")):
            done = self.command(self.folder / "a", *arguments)
            self.assertEqual(done.code, 3)
            self.assertIn(words, done.err)

    def test_output_that_cannot_be(self):
        write_run(self.folder / "a")
        (self.folder / "file").write_text("")
        done = self.command(self.folder / "a", "-o", self.folder / "file")
        self.assertEqual((done.code, "choose another -o" in done.err), (3, True))
        (self.folder / "out/loss.png").mkdir(parents=True)
        done = self.command(self.folder / "a", "-o", self.folder / "out", write=True)
        self.assertEqual(done.code, 3)
        self.assertIn("loss.png: is a folder", done.err)
        for output in (self.folder / "file/figures", self.folder / ("n" * 300)):
            done = self.command(self.folder / "a", "-o", output)
            self.assertEqual((done.code, done.err.count("\n"), "choose another -o" in done.err), (3, 1, True), done.err)
        with self.assertRaises(SystemExit), mock.patch("sys.stderr", io.StringIO()) as said:
            figures.main(["a", "-o", ""])
        self.assertIn("an empty name", said.getvalue())

    def test_a_pipe_and_a_link_among_the_files(self):
        write_run(self.folder / "a", attention=False)
        (self.folder / "out").mkdir()
        (self.folder / "out/loss.png").symlink_to("../elsewhere.png")
        os.mkfifo(self.folder / "out/loss.pdf")
        done = self.command(self.folder / "a", "-o", self.folder / "out", write=True)
        self.assertEqual(done.code, 3)
        self.assertIn("loss.pdf: is a folder, a device, a pipe", done.err)
        self.assertTrue((self.folder / "out/loss.pdf").is_fifo() and (self.folder / "out/loss.png").is_symlink())
        self.assertTrue((self.folder / "elsewhere.png").read_bytes().startswith(b"\x89PNG"))

    def test_positions_in_words(self):
        for positions, words in (("rotary", "with positional encoding (rotary)"),
                                 ("none", "without positional encoding")):
            write_run(self.folder / positions, positions=positions)
            source = figures.open_source(self.folder / positions)
            self.assertEqual(figures.positions_title(source), words)
            self.assertEqual(read_run(self.folder / positions).config["model"]["positions"], positions)


if __name__ == "__main__":
    unittest.main()
