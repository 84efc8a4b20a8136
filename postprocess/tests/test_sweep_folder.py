# SPDX-License-Identifier: Apache-2.0
"""The folder of a sweep: made, added to, refused; and what workers do with trials that fail. A stand-in takes the place of `dekoder`."""
import os
import sys
import time
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.sweep.claims import Claims  # noqa: E402
from sweep_workshop import NO_HALVING, SWEEP, Case, wait_until  # noqa: E402


class Making(Case):
    def test_more_of_it(self):
        shop = self.shop()
        self.assertIn("sweep: 6 trials, 6 of them new; next: dekoder-sweep work sweep", shop.make()[0])
        shop.run("work", "sweep")
        before = {path: path.read_bytes() for path in (shop.folder / "sweep/claims").iterdir()}
        plan = (shop.folder / "sweep/trials.jsonl").read_text()
        self.assertIn("6 trials, 0 of them new", shop.make()[0])
        (shop.folder / "sweep.yaml").write_text(SWEEP.replace("trials: 6", "trials: 9").replace("[2, 4]", "[2, 4, 8]").replace("[1.0e-3, 1.0e-1]", "[1.0e-4, 1.0e-1]")
                                                + "  model.dropout: {range: [0, 0.3]}\n")
        self.assertIn("9 trials, 3 of them new", shop.make()[0])
        self.assertTrue((shop.folder / "sweep/trials.jsonl").read_text().startswith(plan))
        shop.run("work", "sweep")
        self.assertEqual({path: path.read_bytes() for path in before}, before)
        self.assertEqual(shop.status()["rungs"][0]["results"], 9)
        added = [claim["settings"] for (trial, number), claim in shop.claims().items() if trial >= 6 and number == 1]
        self.assertEqual([set(settings) for settings in added], [{"training.batch", "training.learning_rate", "model.dropout"}] * 3)

    def test_while_workers_work(self):
        shop = self.shop(NO_HALVING)
        shop.make()
        shop.before("sleep 1")
        worker = shop.start("work", "sweep")
        wait_until(shop.starts, "a start")
        (shop.folder / "sweep.yaml").write_text(NO_HALVING.replace("trials: 6", "trials: 7"))
        shop.make()
        self.assertEqual((worker.communicate(timeout=60)[0].count("trained to the end  7"), worker.returncode), (1, 0))

    def test_another_sweep(self):
        shop = self.shop()
        shop.make()
        files = {path: path.read_bytes() for path in (shop.folder / "sweep").rglob("*") if path.is_file()}
        for before, now, line in (("seed: 5", "seed: 6", ":4:7: seed is 6, and was 5"), ("method: random", "method: tpe", ":5:9: method is tpe, and was random"),
                                  ("steps: 40", "steps: 80", ":2:8: steps is 80, and was 40"), ("trials: 6", "trials: 5", ":3:9: trials is 5, and was 6"),
                                  ("factor: 2", "factor: 3", ":6:10: halving is first_rung 10, factor 3, and was first_rung 10, factor 2"),
                                  ("[2, 4]", "[4, 8]", ":8:3: training.batch has lost values"), ("training.batch", "model.layers", ":8:3: training.batch is no parameter any more"),
                                  ("scale: log", "scale: linear", ":9:3: training.learning_rate has lost values that it had, or has another scale"),
                                  ("parameters:", "set: {model.bias: false}\nparameters:", ":7:19: model.bias is False, and was not set")):
            (shop.folder / "sweep.yaml").write_text(SWEEP.replace(before, now))
            said = shop.make(code=2)[1]
            self.assertIn(f"dekoder-sweep: error: sweep.yaml{line}", said)
            self.assertEqual(said.count("this is another sweep than that in sweep; give what that one has, or choose another folder"), 1)
            self.assertNotIn("dekoder describe", said, "refused before the trials were looked at")
        (shop.folder / "sweep.yaml").write_text(SWEEP)
        (shop.folder / "base.yaml").write_text((shop.folder / "base.yaml").read_text() + "\n")
        self.assertIn("sweep.yaml:1:7: the base configuration is another one than it was", shop.make(code=2)[1])
        self.assertEqual({path: path.read_bytes() for path in (shop.folder / "sweep").rglob("*") if path.is_file()}, files)

    def test_a_word_that_is_none(self):
        shop = self.shop()
        shop.make()
        self.assertIn("wrok: there is no such file; expected the YAML file of a sweep, or one of the words work and status before a sweep's folder",
                      shop.run("wrok", "sweep", code=3)[1])

    def test_a_folder_of_something_else(self):
        shop = self.shop()
        (shop.folder / "run").mkdir()
        (shop.folder / "run/config.yaml").touch()
        said = shop.make("run", code=3)[1]
        self.assertIn("run: is no folder of a sweep, and not empty: it has config.yaml", said)
        self.assertNotIn("dekoder describe", said, "refused before the trials were looked at")
        for action in ("work", "status"):
            self.assertIn("run: is no folder of a sweep, as it has no sweep.yaml", shop.run(action, "run", code=3)[1])
            self.assertIn("an empty name", shop.run(action, "", code=2)[1])
        self.assertIn("no such", shop.make(sweep="nowhere.yaml", code=3)[1].lower())
        shop.make()
        (shop.folder / "sweep/trials.jsonl").write_text("{}\n")
        self.assertIn("trials.jsonl: is no list of trials", shop.run("work", "sweep", code=3)[1])
        (shop.folder / "sweep/sweep.yaml").write_text("seed: 1\n")
        self.assertIn("was changed by hand", shop.run("status", "sweep", code=3)[1])

    def test_a_folder_with_a_file_of_that_name(self):
        """That which holds the sweep's own file, say."""
        shop = self.shop()
        self.assertIn(".: is no folder of a sweep, and not empty: it has ", shop.make(".", code=3)[1])
        for action in ("work", "status"):
            self.assertIn(".: is no folder of a sweep, as it has no trials.jsonl", shop.run(action, ".", code=3)[1])

    def test_a_plan_that_is_short_or_damaged(self):
        """Trials are trained with the settings that were planned, or not at all."""
        for method in ("random", "quasi-random", "grid"):
            shop = self.shop(NO_HALVING.replace("random", method).replace("{range: [1.0e-3, 1.0e-1], scale: log}", "{values: [1.0e-3, 1.0e-2, 1.0e-1, 1]}"))
            shop.make()
            plan = shop.folder / "sweep/trials.jsonl"
            text, lines = plan.read_text(), plan.read_text().splitlines(keepends=True)
            for changed, said in (("", "has settings of 0 trials, and sweep.yaml beside it says 6"), ("".join(lines[:4]), "has settings of 4 trials"),
                                  ("".join([*lines[:2], *lines[3:]]), "is no list of trials"), (text[:-5], "is no list of trials"),
                                  (text.replace('"settings": {', '"settings": 1, "x": {', 1), "is no list of trials"), ("[" * 10**6, "is no list of trials")):
                plan.write_text(changed)
                for words in (("work", "sweep"), ("status", "sweep"), ("sweep.yaml", "sweep")):
                    self.assertIn(f"sweep/trials.jsonl: {said}", shop.run(*words, code=3)[1])
            plan.write_text(text)
            mine = shop.folder / "sweep/sweep.yaml"
            mine.write_text(mine.read_text().replace("trials: 6", "trials: 7"))
            self.assertIn("sweep.yaml beside it says 7", shop.run("work", "sweep", code=3)[1])
            self.assertEqual(shop.starts(), [])

    def test_several_add_to_it_at_once(self):
        """One after the other: each finds what the others have made."""
        shop = self.shop()
        shop.make()
        files = []
        for trials in range(7, 19):
            files.append(f"{trials}.yaml")
            (shop.folder / files[-1]).write_text(SWEEP.replace("trials: 6", f"trials: {trials}").replace("1.0e-1]", f"{trials}.0]"))
        for _ in range(3):
            for process in [shop.start(file, "sweep") for file in files]:
                said = process.communicate(timeout=120)[1]
                self.assertTrue(process.returncode == 0 or "another sweep than that" in said, said)
            shop.run("status", "sweep")
        self.assertEqual(shop.status()["trials"], 18)
        (shop.folder / "new").mkdir()
        for process in [shop.start("9.yaml", "made") for _ in range(4)]:
            said = process.communicate(timeout=120)
            self.assertEqual(process.returncode, 0, said)

    def test_another_process_that_does_not_end(self):
        shop = self.shop()
        shop.make()
        Claims(shop.folder / "sweep/changes").take(0, 2, {}, 0)
        with mock.patch("dekoder_postprocess.sweep.trial_folder.PATIENCE", 0.2):
            self.assertIn("sweep: another process makes this sweep or adds to it: process " + str(os.getpid()), shop.make(code=3)[1])
        shop.run("work", "sweep")

    def test_killed_while_it_is_made(self):
        """At any point: the same command, or one for another sweep, makes it; nothing of what was not to be is in it."""
        for fault in ("claim_written", "claimed", "base_written", "base", "plan_written", "planned", "definition_written"):
            shop = self.shop()
            shop.killed("sweep.yaml", "sweep", fault=fault)
            self.assertIn("is no folder of a sweep", shop.run("work", "sweep", code=3)[1])
            (shop.folder / "sweep.yaml").write_text(SWEEP.replace("seed: 5", "seed: 6"))
            shop.make()
            shop.run("work", "sweep")
            (shop.folder / "sweep.yaml").write_text(SWEEP.replace("seed: 5", "seed: 6").replace("trials: 6", "trials: 8").replace("1.0e-1]", "9.0e+9]"))
            shop.killed("sweep.yaml", "sweep", fault="planned" if "base" in fault else fault)
            shop.run("work", "sweep")
            (shop.folder / "sweep.yaml").write_text(SWEEP.replace("seed: 5", "seed: 6").replace("trials: 6", "trials: 8"))
            self.assertIn("8 trials, 2 of them new", shop.make()[0])
            shop.run("work", "sweep")
            self.assertEqual(shop.status()["rungs"][0]["results"], 8)
            whole = self.shop(SWEEP.replace("seed: 5", "seed: 6").replace("trials: 6", "trials: 8"))
            whole.make()
            self.assertEqual((shop.folder / "sweep/trials.jsonl").read_text(), (whole.folder / "sweep/trials.jsonl").read_text())
            for left in shop.folder.rglob("*.tmp"):
                os.utime(left, (time.time() - 130,) * 2)
            shop.make()
            shop.run("work", "sweep")
            self.assert_whole(shop)

    def test_names(self):
        """With spaces, in Unicode, and of bytes that are no text, as far as the system takes them."""
        shop = self.shop(name="a folder: Bücher 本 #1")
        (shop.folder / "sweep.yaml").rename(shop.folder / "ein Versuch.yaml")
        shop.make("Läufe 本 'x'", "ein Versuch.yaml")
        shop.run("work", "Läufe 本 'x'")
        self.assertIn("next: dekoder-sweep work 'two words'\n", shop.make("two words", "ein Versuch.yaml")[0])
        self.assertIn("next: dekoder-sweep work ./-x\n", shop.run("ein Versuch.yaml", "--", "-x")[0])
        self.assertEqual(shop.status("Läufe 本 'x'")["states"]["finished"], 1)
        self.assertIn("best: Läufe 本 'x'/trials/", shop.run("status", "Läufe 本 'x'")[0])
        odd = Path(os.fsdecode(os.fsencode(shop.folder) + b"/\xff odd"))
        shop.make(odd, "ein Versuch.yaml")
        shop.run("work", odd)
        self.assertIn("trained to the end", shop.run("status", odd)[0])


class WhatGoesWrong(Case):
    def test_without_optuna(self):
        shop = self.shop(SWEEP.replace("method: random", "method: tpe"))
        with mock.patch.dict("sys.modules", {"optuna": None}):
            self.assertIn("needs the Python package optuna", shop.make(code=2)[1])
        self.assertFalse((shop.folder / "sweep").exists())
        shop.make()
        shop.run("work", "sweep")
        self.assertEqual(shop.status()["rungs"][0]["results"], 6)

    def test_a_trial_that_crashes(self):
        """It is tried three times, by one worker or several, and given up."""
        shop = self.shop(NO_HALVING)
        shop.make()
        shop.before('if [ "${run##*/}" = 0002 ]; then echo "dekoder: error: out of luck" >&2; exit 1; fi')
        out, _ = shop.run("work", "sweep")
        self.assertEqual([trial for trial, _ in shop.starts()], [0, 1, 2, 3, 4, 5, 2, 2])
        self.assertIn("failed: trial 0002: exit code 1: dekoder: error: out of luck", out)
        self.assertEqual(shop.status()["states"], {"running": 0, "given back": 0, "waiting": 0, "paused": 0, "finished": 5, "failed": 1, "stopped": 0})
        shop.run("work", "sweep")
        self.assertEqual(len(shop.starts()), 8)
        shop.before("")
        shop.run("work", "sweep", "--again")
        self.assertEqual((shop.starts()[8:], shop.status()["states"]["finished"]), ([(2, 40)], 6))

    def test_a_machine_where_all_crash(self):
        shop = self.shop(NO_HALVING)
        shop.make()
        shop.before('echo "dekoder: error: no memory" >&2; exit 2')
        said = shop.run("work", "sweep", code=3)[1]
        self.assertIn("the last 3 trials crashed here, the last one with exit code 2: dekoder: error: no memory", said)
        self.assertEqual((len(shop.starts()), shop.status()["states"]["given back"]), (3, 3))

    def test_files_that_are_missing(self):
        """Exit code 3 is the place's fault: the trial is given back, and the worker ends."""
        shop = self.shop(NO_HALVING)
        shop.make()
        shop.before('echo "dekoder: error: tokens.h5: no such token file" >&2; exit 3')
        self.assertIn("trial 0000: dekoder: error: tokens.h5: no such token file; it is given back", shop.run("work", "sweep", code=3)[1])
        self.assertEqual((len(shop.starts()), shop.status()["states"]["given back"]), (1, 1))
        self.assertIn("cannot be started: No such file", shop.run("work", "sweep", code=3, DEKODER_LAUNCH="/nowhere/srun -n 1")[1])

    def test_a_trial_that_diverges(self):
        shop = self.shop()
        shop.make()
        shop.before('if [ "${run##*/}" = 0001 ]; then printf "state: failed\\nstep: 0\\nsteps: 1\\nmessage: step 3: not finite\\n" > $run/status; exit 4; fi')
        out, _ = shop.run("work", "sweep")
        self.assertIn("failed: trial 0001: step 3: not finite", out)
        self.assertEqual(sum(trial == 1 for trial, _ in shop.starts()), 1)
        self.assertEqual(shop.status()["rungs"][0]["results"], 6)

    def test_words_before_the_program(self):
        shop = self.shop(NO_HALVING.replace("trials: 6", "trials: 1"))
        shop.make()
        shop.run("work", "sweep", "--launch", "env 'MARK=two words' bash -c 'echo \"$MARK\" > mark; exec \"$@\"' -", "--backend", "openmp")
        self.assertEqual((shop.folder / "mark").read_text(), "two words\n")
        self.assertIn("--launch: ''' has no words of a command", shop.run("work", "sweep", "--launch", "'", code=2)[1])
        self.assertIn("no words of a command", shop.run("work", "sweep", code=2, DEKODER_LAUNCH='"x')[1])


if __name__ == "__main__":
    unittest.main()
