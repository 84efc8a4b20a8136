# SPDX-License-Identifier: Apache-2.0
"""Workers share the trials of a sweep: each is done once, whoever dies at whatever point, whatever the clocks say. What is trained is
not looked at here: a stand-in takes the place of `dekoder`."""
import json
import math
import os
import signal
import sys
import time
import unittest
import unittest.mock
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.sweep import shared_file  # noqa: E402
from dekoder_postprocess.sweep.claims import Claims  # noqa: E402
from dekoder_postprocess.sweep.trial_folder import SweepFolder  # noqa: E402
from sweep_workshop import NO_HALVING, SWEEP, Case, wait_until  # noqa: E402

FAULTS = ("claim_written", "claimed", "began", "started", "trained", "outcome_written", "outcome")


class Workers(Case):
    def test_eight_at_once(self):
        shop = self.shop(NO_HALVING.replace("trials: 6", "trials: 60"))
        shop.make()
        workers = [shop.start("work", "sweep") for _ in range(8)]
        for worker in workers:
            out, said = worker.communicate(timeout=120)
            self.assertEqual(worker.returncode, 0, (out, said))
        self.assertEqual(sorted(shop.starts()), [(trial, 40) for trial in range(60)])
        claims = shop.claims()
        self.assertEqual(set(claims), {(trial, 1) for trial in range(60)})
        self.assertGreater(len({claim["holder"]["pid"] for claim in claims.values()}), 4, "one worker did it all")
        self.assertEqual(shop.status()["states"]["finished"], 60)
        self.assert_whole(shop)

    def test_eight_at_once_with_rungs(self):
        shop = self.shop(SWEEP.replace("trials: 6", "trials: 40"))
        shop.make()
        for worker in [shop.start("work", "sweep") for _ in range(8)]:
            worker.communicate(timeout=120)
            self.assertEqual(worker.returncode, 0)
        starts = shop.starts()
        self.assertEqual(max(Counter(starts).values()), 1, "a rung was trained twice")
        of = Counter(step for _, step in starts)
        self.assertEqual(of[10], 40)
        self.assertTrue(of[20] >= 20 and of[40] >= 10, of)
        status = shop.status()
        self.assertEqual((status["best"][0]["best_loss"], status["best"][0]["state"]), (2.5, "finished"))
        self.assertEqual([rung["results"] for rung in status["rungs"]], [of[10], of[20], of[40]])

    def test_killed_at_every_point(self):
        """Another worker goes on at once, as it sees that the process is gone, and nothing is trained twice, but where the first one
        died before it could tell."""
        for fault in FAULTS:
            with self.subTest(fault):
                shop = self.shop(SWEEP.replace("trials: 6", "trials: 3"))
                shop.make()
                shop.killed("work", "sweep", fault=fault)
                begin = time.monotonic()
                shop.run("work", "sweep")
                self.assertLess(time.monotonic() - begin, 100)  # a heartbeat is taken for dead after 120 s
                repeated = {work for work, times in Counter(shop.starts()).items() if times > 1}
                self.assertLessEqual(repeated, {(0, 10)} if fault in ("started", "trained", "outcome_written") else set())
                self.assertEqual((shop.status()["states"]["finished"], shop.status()["states"]["paused"]), (1, 2))
                self.assertEqual([path.name for path in shop.folder.rglob("*.tmp") if fault not in ("claim_written", "claimed", "outcome_written")], [])

    def test_again_by_several(self):
        """Each failed trial is taken up once, and from none that trains it by now."""
        shop = self.shop(NO_HALVING.replace("trials: 6", "trials: 4"))
        shop.make()
        shop.before('mkdir -p $run; printf "state: failed\\nstep: 0\\nsteps: 1\\nmessage: not finite\\n" > $run/status; exit 4')
        shop.run("work", "sweep")
        shop.before("sleep 2 & wait")
        workers = [shop.start("work", "sweep", "--again") for _ in range(3)]
        for worker in workers:
            said = worker.communicate(timeout=120)[1]
            self.assertEqual(worker.returncode, 0, said)
            self.assertNotIn("another worker has taken it", said)
        self.assertEqual((sorted(shop.starts()[4:]), set(shop.claims())), ([(trial, 40) for trial in range(4)], {(trial, n) for trial in range(4) for n in (1, 2)}))

    def test_what_a_dead_process_left_is_swept_up(self):
        shop = self.shop()
        shop.make()
        shop.killed("work", "sweep", fault="claim_written")
        (left,) = (shop.folder / "sweep/claims").iterdir()
        shop.run("work", "sweep")
        self.assertTrue(left.exists(), "it may be of a process elsewhere")
        os.utime(left, (time.time() - 130,) * 2)
        shop.run("work", "sweep")
        self.assert_whole(shop)

    def test_a_signal(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU):
            shop = self.shop()
            shop.before("touch $run/ready; sleep 30 & wait")
            shop.make()
            worker = shop.start("work", "sweep")
            wait_until(lambda: list(shop.folder.glob("sweep/trials/*/ready")), "a trial")
            worker.send_signal(number)
            said = worker.communicate(timeout=60)[1]
            self.assertEqual(worker.returncode, 85, said)
            self.assertIn("trial 0000: given back at step 0", said)
            self.assertIn("saved and given back; the same command goes on", said)
            self.assertEqual(shop.status()["states"]["given back"], 1)

    def test_no_wait(self):
        shop = self.shop(NO_HALVING.replace("trials: 6", "trials: 1"))
        shop.make()
        shop.before("sleep 3")
        first = shop.start("work", "sweep")
        wait_until(shop.starts, "a start")
        begin = time.monotonic()
        self.assertIn("running  1", shop.run("work", "sweep", "--no-wait")[0])
        self.assertIsNone(first.poll())
        self.assertIn("trained to the end  1", shop.run("work", "sweep")[0])
        first.communicate()
        self.assertEqual((first.returncode, len(shop.starts())), (0, 1))
        self.assertLess(time.monotonic() - begin, 100)  # a heartbeat is taken for dead after 120 s


class Elsewhere(Case):
    """Workers that cannot be looked at: on another machine, say. Their heartbeats decide, by the clock of the file system."""

    def setUp(self):
        self.shop_ = self.shop(NO_HALVING.replace("trials: 6", "trials: 1"))
        self.shop_.make()
        self.folder = SweepFolder(self.shop_.folder / "sweep")
        self.held = self.folder.claims.take(0, 1, {"training.batch": 2}, 40)
        self.file = self.shop_.folder / "sweep/claims/0000.0001.claim"
        content = json.loads(self.file.read_text())
        content["holder"]["boot"] = "another machine's"
        self.file.write_text(json.dumps(content))

    def state(self):
        return SweepFolder(self.shop_.folder / "sweep").look()[0].state

    def age(self, seconds):
        then = time.time() - seconds
        os.utime(self.file, (then, then))

    def test_the_age_of_the_heartbeat(self):
        for seconds, state in ((0, "running"), (100, "running"), (121, "given back"), (1e6, "given back")):
            self.age(seconds)
            self.assertEqual(self.state(), state, seconds)

    def test_the_clock_of_this_machine_does_not_matter(self):
        """It is wrong by hours, either way."""
        for wrong in (-7200, 7200):
            self.file.touch()
            with unittest.mock.patch("time.time", return_value=time.time() + wrong):
                self.assertEqual(self.state(), "running")
            self.age(121)
            self.assertEqual(self.state(), "given back")

    def test_a_heartbeat_of_the_future(self):
        """Of a server's clock that was put back since: it counts from now, and not for ever."""
        self.age(-5000)
        self.assertEqual(self.state(), "running")
        self.assertLess(abs(time.time() - self.file.stat().st_mtime), 60)
        self.age(-60)
        self.assertEqual(self.state(), "running")
        self.assertGreater(self.file.stat().st_mtime, time.time() + 30)

    def test_a_folder_that_may_not_be_written(self):
        """A heartbeat of the future in it is left as it is."""
        self.age(-5000)
        with unittest.mock.patch("os.utime", side_effect=PermissionError(13, "Permission denied", "claim")):
            self.assertIn("running  1", self.shop_.run("status", "sweep")[0])

    def test_what_dekoder_sweep_has_not_written(self):
        """A claim counts for its age alone; an outcome says that the claim is over; other names say nothing."""
        claims, good = self.file.parent, json.loads(self.file.read_text())
        for field, wrong in (("holder", 5), ("holder", {}), ("holder", {**good["holder"], "pid": "x"}), ("holder", {**good["holder"], "boot": []}),
                             ("settings", []), ("target", "40"), ("target", -1), ("target", True)):
            self.file = self.file.with_name(f"0000.{int(self.file.name[5:9]) + 1:04d}.claim")
            self.file.write_text(json.dumps({**good, field: wrong}))
            self.assertEqual(self.state(), "running", (field, wrong))
            self.age(121)
            self.assertEqual(self.state(), "given back", (field, wrong))
        for name in ("9999999.0001.claim", "00000.0099.claim", "0000.\u0661\u0661\u0661\u0661.claim", "0000.0099.claim.orig"):
            (claims / name).touch()
        self.assertIn("1 trial of", self.shop_.run("status", "sweep")[0])
        outcome = {"state": "finished", "step": 40, "losses": {"40": 2.5}, "best_loss": 2.5, "best_step": 40, "crashes": 0, "message": ""}
        for field, wrong in (("losses", {"x": 1}), ("losses", {"40": "2"}), ("losses", []), ("best_loss", "2.5"), ("best_loss", math.nan), ("best_loss", 10**400),
                             ("best_step", []), ("step", None), ("state", "hm"), ("state", []), ("crashes", "x"), ("message", 3)):
            self.file.with_suffix(".outcome").write_text(json.dumps({**outcome, field: wrong}))
            self.assertEqual(self.shop_.status()["states"]["given back"], 1, (field, wrong))
        self.file.with_suffix(".outcome").write_text(json.dumps(outcome))
        self.assertEqual(self.state(), "finished")
        for wrong in (b"", b"[" * 10**6, b"\0" * 100):
            self.file.with_suffix(".outcome").write_bytes(wrong)
            self.assertEqual(self.state(), "given back")
        self.shop_.run("work", "sweep")
        self.assertEqual((self.shop_.starts(), self.state()), ([(0, 40)], "finished"))
        self.file = self.file.with_name("0000.0098.claim")
        os.mkfifo(self.file)
        self.assertIn("0000.0098.claim: is a folder, a device or a pipe", self.shop_.run("status", "sweep", code=3)[1])

    def test_a_file_that_cannot_be_written_is_named(self):
        full = OSError(28, "No space left on device")
        with unittest.mock.patch("os.fsync", side_effect=full):
            for write in (shared_file.create_alone, shared_file.replace_whole):
                with self.assertRaises(OSError) as raised:
                    write(self.file.with_name("0000.0002.claim"), b"x")
                self.assertEqual(raised.exception.filename, str(self.file.with_name("0000.0002.claim")))
        self.assertEqual([path.name for path in self.file.parent.iterdir()], [self.file.name])

    def test_a_job_that_was_started_again(self):
        content = json.loads(self.file.read_text())
        content["holder"].update(job="4711", job_restarts=0)
        self.file.write_text(json.dumps(content))
        self.assertEqual(self.state(), "running")
        for job, restarts, state in (("4711", "1", "given back"), ("4711", "0", "running"), ("4712", "1", "running")):
            os.environ.update(SLURM_JOB_ID=job, SLURM_RESTART_COUNT=restarts)
            self.addCleanup(os.environ.pop, "SLURM_JOB_ID", None)
            self.addCleanup(os.environ.pop, "SLURM_RESTART_COUNT", None)
            self.assertEqual(self.state(), state)

    def test_a_holder_that_comes_back(self):
        """It learns that the trial is another's, and what it writes changes nothing."""
        self.age(121)
        self.shop_.run("work", "sweep")
        self.held._touched -= 60
        self.assertFalse(self.held.beat())
        self.held.end({"state": "given back", "step": 3, "losses": {}, "best_loss": None, "best_step": None, "crashes": 0, "message": ""})
        trial = SweepFolder(self.shop_.folder / "sweep").look()[0]
        self.assertEqual((trial.state, trial.claims, trial.step), ("finished", 2, 40))

    def test_a_heart_that_beats(self):
        self.age(100)
        self.held._touched -= 5
        self.assertTrue(self.held.beat())
        self.assertGreater(time.time() - self.file.stat().st_mtime, 50)  # not before ten seconds
        self.held._touched -= 5
        self.assertTrue(self.held.beat())
        self.assertLess(time.time() - self.file.stat().st_mtime, 50)

    def test_of_all_that_see_a_dead_holder_one_has_the_trial(self):
        self.age(121)
        workers = [self.shop_.start("work", "sweep") for _ in range(6)]
        for worker in workers:
            worker.communicate(timeout=60)
            self.assertEqual(worker.returncode, 0)
        self.assertEqual(self.shop_.starts(), [(0, 40)])

    def test_without_hard_links(self):
        """A claim that a process left empty is as good as none once it is old."""
        folder = Claims(self.shop_.folder / "sweep/claims")
        with unittest.mock.patch("os.link", side_effect=OSError(1, "Operation not permitted")):
            self.assertIsNone(folder.take(0, 1, {}, 40))
            self.assertIsNotNone(folder.take(0, 2, {}, 40))
            self.assertIsNone(folder.take(0, 2, {}, 40))
        self.file = self.file.with_name("0000.0003.claim")
        self.file.write_bytes(b"")
        self.assertEqual(self.state(), "running")
        self.age(121)
        self.assertEqual(self.state(), "given back")
        self.shop_.run("work", "sweep")
        self.assertEqual(self.state(), "finished")


if __name__ == "__main__":
    unittest.main()
