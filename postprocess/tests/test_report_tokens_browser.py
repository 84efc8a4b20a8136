# SPDX-License-Identifier: Apache-2.0
"""Tokens of any tokenizer in a report, in a real browser: pieces of characters, white space, long tokens, writing from right to
left, in the text under a map, along its axes and in predictions. Screenshots are kept in the build's folder."""
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import report  # noqa: E402
from dekoder_postprocess.visible_text import visible_token  # noqa: E402
from report_browser import DESKTOP, PHONE, Browser, WebDriverWait, skip_without  # noqa: E402
from synthetic_run import token_text, write_predictions, write_run  # noqa: E402

LONG = b"=" * 40
PIECES = (b"\xe4\xba", b" \xe7", b"\x94\x9f", " \u05db\u05dc".encode(), "e\u0301".encode(), "\u0301".encode(), b".\n", b"\n\n", b"    ", b"\tif",
          b" truth", b"<|endoftext|>", LONG)
# 人 生: a piece of two bytes and one byte; a space with one byte, and a piece of two.
TEXT = "\u4eba \u751f na\u00efve.\n \u05db\u05dc\u05db\u05dc e\u0301o\u0301\n\n    \tif\t truth<|endoftext|>" + LONG.decode()
SHOWN = ["\u4eba", "\u203f", " \u751f", "\u203f", " ", "n", "a", "\u00ef", "\u203f", "v", "e", ".\u21b5", " \u05db\u05dc", "\u05db", "\u203f", "\u05dc", "\u203f", " ",
         "e\u0301", "o", "\u0301", "\u21b5\n\u21b5", "\u00b7\u00b7\u00b7\u00b7", "\u21e5if", "\u21e5", " truth", "<|endoftext|>", LONG.decode()]


def setUpModule():
    global browser, scratch
    skip_without()
    scratch = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(scratch.cleanup)
    browser = Browser()
    unittest.addModuleCleanup(browser.close)


class Tokens(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.made = write_run(Path(scratch.name) / "run", texts=(TEXT, " truth".join(["", ".\n", "<|endoftext|>" + LONG.decode(), ""])), pieces=PIECES)
        cls.columns = write_predictions(cls.made.path, 40, windows=2, context=len(SHOWN), text=TEXT * 3, pieces=PIECES)
        cls.page = Path(scratch.name) / "tokens.html"
        code = report.main([str(cls.made.path), "-o", str(cls.page)])
        assert code == 0, f"dekoder-report ended with {code}"

    def open(self, size=DESKTOP):
        browser.open(self.page, size)
        WebDriverWait(browser.driver, 30).until(lambda _: browser.script("return document.body.dataset.predictions"))
        self.assertEqual(browser.messages(), [])
        self.assertLessEqual(browser.overflow(), 0, "wider than the window")

    def texts(self, selector):
        return browser.script("return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)", selector)

    def test_looks(self):
        for size in (DESKTOP, PHONE):
            self.open(size)
            for probe in (0, 1):
                browser.choose("#probe", probe)
                browser.screenshot(f"tokens-{probe}-{'phone' if size == PHONE else 'desktop'}")

    def test_text_under_a_map(self):
        self.open()
        self.assertEqual(self.texts("#strip [data-token]"), SHOWN)
        lines = browser.script("return [...document.querySelectorAll('#strip [data-token]')].map((e) => e.getClientRects()[0].top)")
        breaks = [SHOWN[i] for i in range(len(SHOWN) - 1) if lines[i + 1] > lines[i] + 4]
        self.assertEqual(breaks[0], ".\u21b5")
        self.assertIn("\u21b5\n\u21b5", breaks)
        self.assertIn("a further piece of the character", browser.text("#strip-source"))
        browser.find("#strip [data-token='1']").click()
        self.assertIn("query 1 \u201c\\xBA\u201d of \u4eba", browser.text("#readout").replace("\\xE4\\xBA", "\\xBA"))

    def test_axes_show_tokens_of_any_width(self):
        for size in (DESKTOP, PHONE):
            self.open(size)
            browser.choose("#probe", 1)
            labels = [visible_token(text) for text in token_text(self.made.tokens["text_1"], PIECES)]
            texts = self.texts(".map-axes text")
            self.assertEqual(texts[-2:], ["key token", "query token"])
            self.assertEqual(texts[:-2:2], texts[1:-2:2])
            for label, shown in zip(labels, texts[::2]):
                self.assertEqual(shown, label[:len(shown) - 1] + "\u2026" if len(label) == 40 else label)
            boxes = browser.script("return [...document.querySelectorAll('.map-axes text')].map((text) => {"
                                   "const b = text.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })")
            frame = browser.script("const b = document.querySelector('.map-axes').getBoundingClientRect();"
                                   "return [b.left, b.top, b.right, b.bottom]")
            for text, box in zip(texts, boxes):
                self.assertTrue(frame[0] <= box[0] and frame[1] <= box[1] and box[2] <= frame[2] and box[3] <= frame[3], (text, box, frame))
            for kind in (boxes[:-2:2], boxes[1:-2:2]):
                for i, one in enumerate(kind):
                    for other in kind[i + 1:]:
                        self.assertTrue(one[2] <= other[0] + 1 or one[3] <= other[1] + 3, (one, other))

    def test_runs_of_different_tokens_are_read_apart(self):
        """The same text in other tokens: what is said of a cell is said of the run whose map has it."""
        bytes_alone = write_run(Path(scratch.name) / "bytes", texts=(TEXT,), seed=2)
        page = Path(scratch.name) / "apart.html"
        self.assertEqual(report.main([str(self.made.path), str(bytes_alone.path), "-o", str(page)]), 0)
        browser.open(page)
        many, last = len(bytes_alone.tokens["text_0"]), len(SHOWN) - 1
        self.assertGreater(many - 2, last)
        browser.hover("b", many, many - 1, many - 2)
        self.assertIn(f"query {many - 1} \u201c=\u201d", browser.text("#readout"))
        shown = browser.script("return {...document.getElementById('readout').dataset}")
        self.assertEqual(float(shown["b"]), float(bytes_alone.maps["text_0"][40][0, 0, many - 1, many - 2]))
        self.assertNotIn("a", shown)
        self.assertEqual(browser.script("return [...document.querySelectorAll('.panel')].map((one) => one.querySelectorAll('.cell').length)"),
                         [0, 1, 0])
        browser.hover("a", last + 1, last, 1)
        self.assertIn("key 1 \u201c\\xBA\u201d of \u4eba", browser.text("#readout"))
        shown = browser.script("return {...document.getElementById('readout').dataset}")
        self.assertEqual(float(shown["a"]), float(self.made.maps["text_0"][40][0, 0, last, 1]))
        self.assertNotIn("b", shown)
        self.assertEqual(browser.messages(), [])

    def test_predictions(self):
        self.open()
        got = self.texts(".prediction-text [data-at]")
        self.assertEqual(got, SHOWN)
        self.assertIn("a further piece of the character", browser.text("#prediction-legend"))
        for at, (_, of) in enumerate(zip(SHOWN, ["\u4eba", "\u4eba", "\u751f", "\u751f", ""])):
            browser.script("document.querySelectorAll('.prediction-text [data-at]')[arguments[0]].click()", at)
            label = visible_token(token_text([self.columns["truth"][at]], PIECES)[0])
            self.assertEqual(browser.text("[data-fact=truth] td"), f"\u201c{label}\u201d" + (f" of {of}" if of else ""))

    def test_table_of_predictions_keeps_its_width(self):
        """The text before a token is cut, and so is a long token, so that the numbers stand in the window."""
        self.open()
        browser.choose("#prediction-scope", "all")
        while browser.script("const b = document.getElementById('prediction-more'); if (!b.hidden) b.click(); return !b.hidden"):
            pass
        width = browser.script("const t = document.getElementById('prediction-table'); return [t.offsetWidth, t.parentElement.clientWidth]")
        self.assertLessEqual(width[0], width[1])
        tokens = self.texts("#prediction-table th[scope=row] b")
        self.assertEqual(len(tokens), 2 * len(SHOWN))
        self.assertIn("\u00b7truth", tokens)
        self.assertIn("<|endoftext|>", tokens)
        self.assertLessEqual(max(map(len, tokens)), 40)
        self.assertLessEqual(max(map(len, self.texts(".before"))), 42)


if __name__ == "__main__":
    unittest.main()
