# SPDX-License-Identifier: Apache-2.0
"""The table of dekoder-runs, for people and for programs: columns, order, conditions, page and importance."""
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.runs import command  # noqa: E402
from dekoder_postprocess.runs.collect import collect  # noqa: E402
from dekoder_postprocess.runs.sweep_scales import first_rung, scales  # noqa: E402
from runs_scratch import Scratch, write_starts  # noqa: E402

BIN = Path(__file__).resolve().parents[1] / "bin"


class Table(Scratch):
    def command(self, *words, code=0):
        with mock.patch("sys.stdout", io.StringIO()) as out, mock.patch("sys.stderr", io.StringIO()) as err:
            try:
                got = command.main([str(word) for word in (self.folder, *words)])
            except SystemExit as end:
                got = end.code
        self.assertEqual(got, code, err.getvalue())
        return out.getvalue() if code == 0 else err.getvalue()

    def setUp(self):
        super().setUp()
        self.run_in("with")
        self.run_in("without", positions="none", seed=2)
        self.run_in("other tokens", other_tokens_from=0, steps=30)

    def first_words(self, *words):
        return [row["run"] for row in json.loads(self.command("--json", *words))["runs"]]

    def test_text(self):
        for name in ("with", "without", "other tokens"):
            write_starts(self.folder / name, ("2026-11-28T07:16:28.328Z", 0, (3661.5, 0.9)))
        self.assertEqual(self.command(), """\
  run           step  planned  best loss  at step  last loss  tokens  positions  seed
  with            40       40    2.3615        40    2.3615    5,120    learned     1
  without         40       40    2.5615        40    2.5615    5,120       none     2
  other tokens    30       30    1.4400*       30    1.4400*   3,840    learned     1
The same in all: state finished, created (UTC) 2026-11-28 07:16, time 1:01:02, effective 90.0 %, restarts 0
* on other validation tokens than those of most runs: not to be compared with theirs
""")

    def test_one_run_shows_all(self):
        shutil.rmtree(self.folder / "without")
        shutil.rmtree(self.folder / "other tokens")
        lines = self.command().splitlines()
        self.assertEqual(len(lines), 2)
        self.assertRegex(lines[0], "run .*state .*created .*step .*planned .*best loss .*last loss .*tokens .*time .*effective .*restarts$")

    def test_damaged_and_failed_runs_have_their_reasons_below(self):
        (self.folder / "with/config.yaml").write_text("model: [\n")
        (self.folder / "without/status").write_text("state: failed\nstep: 0\nsteps: 40\nmessage: diverged\x1b[31m\n")
        text = self.command()
        self.assertIn("\nwith: damaged: ", text)
        self.assertIn("\nwithout: failed: diverged\\x1B[31m\n", text)
        self.assertRegex(text, r"\n  with +damaged +-( +-)+\n")

    def test_settings_that_are_long_or_no_words(self):
        text = (self.folder / "with/config.yaml").read_text()
        text = text.replace('"It is"', '"' + "ab\\n\\e" * 30 + '"').replace("0.002", "0.0012345678901")
        (self.folder / "with/config.yaml").write_text(text)
        table = self.command()
        self.assertIn("ab\u21b5\\x1B" * 5 + "ab...", table)
        self.assertIn(" 0.0012346 ", table)

    def test_sort(self):
        by_loss = ["with", "without", "other tokens"]
        self.assertEqual(self.first_words(), by_loss, "losses on other tokens are behind, however low")
        self.assertEqual(self.first_words("--sort", "validation_loss"), by_loss)
        self.assertEqual(self.first_words("--sort", "-validation_loss"), ["without", "with", "other tokens"])
        self.assertEqual(self.first_words("--sort", "planned_steps,-training.seed"), ["other tokens", "without", "with"])
        self.assertEqual(self.first_words("--sort", "-step, run"), ["with", "without", "other tokens"])
        self.assertEqual(self.first_words("--sort=-seed,positions,-training.steps"), ["without", "with", "other tokens"])
        (self.folder / "with/config.yaml").write_text("model: [\n")
        for key in ("seed", "-seed", "validation_loss", "-validation_loss"):
            self.assertEqual(self.first_words("--sort", key)[-1], "with", "what there is not stands last")
        self.assertIn("--sort: no run has 'sed'; did you mean training.seed?", self.command("--sort", "sed", code=2))
        self.assertIn("--sort: no run has ''", self.command("--sort", "", code=2))

    def test_where(self):
        self.assertEqual(self.first_words("--where", "positions==none or step<40"), ["other tokens", "without"])
        text = self.command("--where", "training.seed == 2")
        self.assertTrue(text.endswith("\n1 of 3 runs\n"), text)
        self.assertTrue(self.command("--where", "training.seed == 3").endswith("\n0 of 3 runs\n"))
        self.assertEqual(self.first_words("--where", "validation_hash == " + "0123abcd" * 8), ["other tokens"])
        self.assertNotIn("*", self.command("--where", "step < 40"), "among themselves they can be compared")
        self.assertIn("--where: column 1: no run has 'training.sed'; did you mean training.seed?",
                      self.command("--where", "training.sed == 3", code=2))
        self.assertIn("--where: column 16: 'x' is no value of training.seed", self.command("--where", "training.seed==x", code=2))

    def test_mistakes_are_not_repeated_at_any_length(self):
        word = "x" * 100_000
        for words in (("--where", f"{word} == 1"), ("--where", f"seed == {word}"), ("--where", f"seed {word}"),
                      ("--sort", word), ("--columns", word), ("--importance", "--at-step", "9" * 100_000)):
            said = self.command(*words, code=2).splitlines()[-1]
            self.assertLess(len(said), 300)
            self.assertRegex(said, r"(xxx|999)\.\.\.")

    def test_the_table_is_not_of_any_width(self):
        config = self.folder / "with/config.yaml"
        config.write_text(config.read_text().replace("  batch: 4", "  batch: 4\n  " + "k" * 300 + ": 1"))
        log = self.folder / "with/metrics.jsonl"
        log.write_text(log.read_text().replace('"validation_loss":', '"validation_loss":1e140,"was":'))
        write_starts(self.folder / "with", ("2026-11-28T07:16:28.328Z", 0, (1e140, 1e140)))
        for name in ("begins/" + "n" * 250 + "/ends-1", "\u4e2d" * 80):
            self.run_in(name)
        text = self.command()
        self.assertLess(max(map(len, text.splitlines())), 450)
        self.assertRegex(text, r"begins/n+\.\.\.n+/ends-1 ")
        self.assertRegex(text, r" 1e\+140  ")

    def test_columns(self):
        self.assertEqual(self.command("--columns", "batch, run,training.seed,state", "--sort", "seed,run").splitlines(),
                         ["  batch           run  seed     state", "  4      other tokens     1  finished",
                          "  4              with     1  finished", "  4           without     2  finished"])
        self.assertEqual(list(json.loads(self.command("--json", "--columns", "run,seed"))["runs"][0]), ["run", "training.seed"])
        self.assertIn("--columns: no run has 'x'", self.command("--columns", "run,x", code=2))

    def test_programs_get_every_column_with_all_digits(self):
        rows = json.loads(self.command("--json", "--sort", "run"))["runs"]
        read = list(csv.DictReader(io.StringIO(self.command("--csv", "--sort", "run"))))
        self.assertEqual([list(row) for row in rows], [list(row) for row in read])
        self.assertEqual(list(rows[0])[:19], [
            "run", "path", "state", "problem", "message", "created", "step", "planned_steps", "validation_loss", "best_step",
            "last_validation_loss", "bits_per_byte", "training_loss", "tokens", "tokens_per_second", "seconds", "effective_time",
            "restarts", "validation_hash"])
        of = {run.name: run for run in collect([self.folder])}
        for row, text in zip(rows, read):
            run = of[row["run"]]
            self.assertEqual((row["path"], row["validation_loss"], row["tokens"], row["created"]),
                             (str(self.folder / run.name), run.best_loss, run.tokens, None))
            self.assertEqual({name: row[name] for name in run.settings}, run.settings)
            self.assertEqual((float(text["validation_loss"]), int(text["step"]), text["created"]), (run.best_loss, run.step, ""))
            self.assertEqual((json.loads(text["attention.heads"]), text["model.positions"]), ([], run.settings["model.positions"]))

    def test_names_of_any_kind(self):
        odd = Path(os.fsdecode(os.fsencode(self.folder) + b"/r\xff\n, \"x\""))
        (self.folder / "with").rename(odd)
        words = [sys.executable, "-B", BIN / "dekoder-runs", self.folder]
        done = [subprocess.run([*words, *more], capture_output=True) for more in ([], ["--csv"], ["--json"])]
        self.assertEqual([(of.returncode, of.stderr) for of in done], [(0, b"")] * 3)
        self.assertIn("r\\uDCFF\u21b5, \"x\"".encode(), done[0].stdout)
        self.assertIn("r\ufffd\n, \"x\"", [row["run"] for row in json.loads(done[2].stdout)["runs"]])
        rows = list(csv.DictReader(io.StringIO(done[1].stdout.decode("utf-8", "surrogateescape"), newline="")))
        self.assertIn('"r\udcff\\n, \\"x\\""', [row["run"] for row in rows])

    def test_a_line_of_csv_is_a_run(self):
        """Whatever its texts are: for grep, awk, wc and sort."""
        prompts = ["\n", "a\r\nb", '\x0b"\x1f, \\n']
        for name, prompt in zip(("with", "without", "other tokens"), prompts):
            config = self.folder / name / "config.yaml"
            config.write_text(config.read_text().replace('"It is"', json.dumps(prompt)))
        text = self.command("--csv", "--sort", "run")
        self.assertEqual((text.count("\n"), len(text.splitlines())), (4, 4), text)
        of = {row["run"]: row["sampling.prompt"] for row in csv.DictReader(io.StringIO(text))}
        self.assertEqual([json.loads(of[name]) for name in ("with", "without", "other tokens")], prompts)
        self.assertIn("other tokens", of)  # a text without them is as it is

    def test_usage(self):
        self.assertIn("--csv and --json are two outputs; expected one of them", self.command("--csv", "--json", code=2))
        self.assertIn("--csv and --importance are two outputs", self.command("--csv", "--importance", code=2))
        self.assertIn("an empty name; expected a file or folder", self.command("", code=2))

    def test_page(self):
        page = self.folder / "page/runs.html"
        self.assertIn("choose another -o", self.command("-o", self.folder / "with/status/x", code=3))
        self.assertIn("page/runs.html: cannot be written: No such file or directory; make the folder first, or choose another -o",
                      self.command("-o", page, code=3))
        page.parent.mkdir()
        self.assertRegex(self.command("-o", page, "--where", "seed==1"), rf"^{page}: \d\.\d\d MB\n$")
        text = page.read_text()
        self.assertTrue(text.startswith("<!DOCTYPE html>"))
        self.assertEqual([f'"name":"{name}"' in text for name in ("with", "other tokens", "without")], [True, True, False])
        for words in (("-o", page), (), ("--json",), ("--importance",)):
            self.command("--where", "seed==3", *words)  # none: no other exit code for one of them
        self.assertIn("<title>0 runs", page.read_text())
        rows = json.loads(self.command("-o", page, "--json"))["runs"]
        self.assertEqual(len(rows), 3)
        self.assertEqual([path.name for path in page.parent.iterdir()], ["runs.html"])

    def test_importance(self):
        self.assertIn("too few", self.command("--importance"))
        report = json.loads(self.command("--importance", "--json", "--where", "seed==1"))
        self.assertEqual((len(report["runs"]), report["importance"]["finished"]), (2, 1), "one is on other validation tokens")
        early = json.loads(self.command("--importance", "--json", "--at-step", "10"))["importance"]
        self.assertEqual(early["at_step"], 10)
        self.assertIn("up to step 10", self.command("--importance", "--at-step", "10"))
        self.assertIn("'0' is no step", self.command("--importance", "--at-step", "0", code=2))
        self.assertIn("--at-step without --importance or -o", self.command("--at-step", "10", code=2))

    def test_importance_of_the_page(self):
        """Is that of the text: at the step that is asked for, else at the first rung where trials were stopped early."""
        def of_page(*words):
            self.command("-o", self.folder / "runs.html", *words)
            return json.loads(re.search(r'id="runs-data">(.*?)</script>', (self.folder / "runs.html").read_text(), re.S).group(1))["importance"]

        shutil.rmtree(self.folder / "other tokens")
        whole, at_10 = of_page(), of_page("--at-step", "10")
        self.assertEqual((whole["at_step"], at_10["at_step"]), (None, 10))
        self.assertEqual(at_10, json.loads(self.command("--importance", "--json", "--at-step", "10"))["importance"])
        sweep = self.folder / "trials"  # a folder of runs of a sweep, as it was made by hand
        self.run_in("trials/0000", steps=20)
        shutil.copy(sweep / "0000/config.yaml", self.folder / "base.yaml")
        (self.folder / "sweep.yaml").write_text(
            "base: base.yaml\nsteps: 40\ntrials: 4\nmethod: random\nhalving: {first_rung: 20, factor: 2}\nset: {evaluation.every: 20}\n"
            "parameters:\n  training.batch: {values: [4, 8]}\n")
        self.assertEqual(first_rung(collect([self.folder])), 20)
        self.assertEqual((of_page()["at_step"], of_page("--at-step", "10")["at_step"]), (20, 10))
        self.assertRegex(of_page()["remark"], "ended at steps 20 to 40: .* step 20, the first rung")
        self.assertIn("ended at steps 20 to 40", self.command("--importance"))
        (self.folder / "sweep.yaml").unlink()
        self.assertIsNone(first_rung(collect([self.folder])))

    def test_scales_are_those_of_the_sweep(self):
        sweep = self.folder / "sweep \u4e2d"
        self.run_in("sweep \u4e2d/trials/0000")
        shutil.copy(sweep / "trials/0000/config.yaml", sweep / "base.yaml")
        text = ("base: base.yaml\nsteps: 40\ntrials: 4\nmethod: random\nparameters:\n"
                "  training.learning_rate: {range: [1.0e-4, 1.0e-2], scale: log}\n  model.dropout: {range: [0.0, 0.5]}\n"
                "  training.warmup_steps: {range: [1, 30], scale: int-log}\n  training.batch: {values: [4, 8]}\n")
        (sweep / "sweep.yaml").write_text(text)
        self.assertEqual(scales(collect([self.folder])), {"training.learning_rate": "log", "model.dropout": "linear",
                                                          "training.warmup_steps": "log"})
        (sweep / "sweep.yaml").write_text("parameters: [\n")
        self.assertEqual(scales(collect([self.folder])), {})


if __name__ == "__main__":
    unittest.main()
