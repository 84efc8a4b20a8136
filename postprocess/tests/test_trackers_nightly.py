# SPDX-License-Identifier: Apache-2.0
"""Exports with the trackers' own packages, of the versions below, from PyPI: what MLflow's client and W&B's reader find is
compared with the runs' files, number by number. The packages go into two virtual environments, which are kept in
${XDG_CACHE_HOME:-~/.cache}/dekoder; exit code 77 (skipped, with the reason) where they are neither there nor to be had."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from many_runs import NAMES, NORMS, STATES, expected_metrics, expected_time, learning_rate, replace_in, write_many  # noqa: E402

BIN = Path(__file__).resolve().parents[1] / "bin"
NEW = ("mlflow-skinny==3.17.2", "wandb==0.31.0")
OLD = ("mlflow-skinny==2.22.5", "wandb==0.28.0")  # the last wandb but one whose reader of its files is one of Python
PYTHON = {}  # NEW, OLD -> the interpreter that has them

MLFLOW_READER = """
import json, os, sys
os.environ.update(MLFLOW_ALLOW_FILE_STORE="true", MLFLOW_DISABLE_TELEMETRY="true")
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
experiment = client.get_experiment_by_name(sys.argv[2])
print(json.dumps([{
    "id": run.info.run_id, "name": run.info.run_name, "status": run.info.status, "params": run.data.params, "tags": run.data.tags,
    "last": run.data.metrics, "start": run.info.start_time, "end": run.info.end_time,
    "metrics": {metric: [(point.step, point.value, point.timestamp) for point in client.get_metric_history(run.info.run_id, metric)]
                for metric in run.data.metrics},
    "artifacts": {file.path: file.file_size for file in client.list_artifacts(run.info.run_id)},
} for run in client.search_runs([experiment.experiment_id])]))
"""

WANDB_READER = """
import json, sys
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal.datastore import DataStore

def items(values):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in values}

found = []
for path in sys.argv[1:]:
    store, run = DataStore(), {"history": [], "summary": {}, "files": []}
    store.open_for_scan(path)
    for data in iter(store.scan_data, None):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.update(id=record.run.run_id, name=record.run.display_name, project=record.run.project,
                       config=items(record.run.config.update))
        elif kind == "history":
            run["history"].append(items(record.history.item))
        elif kind == "summary":
            run["summary"].update(items(record.summary.update))
        elif kind == "files":
            run["files"] += [file.path for file in record.files.files]
        elif kind == "exit":
            run["exit"] = record.exit.exit_code
    found.append(run)
print(json.dumps(found))
"""


def environment(packages) -> str:
    """The interpreter of a virtual environment with the packages, made where it is not there yet. Raises SkipTest."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dekoder"
    tag = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / "-".join(["trackers", tag, *(package.replace("==", "-") for package in packages)])
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        for words in (["-m", "venv", "--system-site-packages", "--without-pip", folder],
                      ["-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check", *packages]):
            done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
            if done.returncode != 0:
                raise unittest.SkipTest(f"{', '.join(packages)} cannot be installed: "
                                        f"{(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
        (folder / "complete").touch()
    return str(python)


def setUpModule():
    for packages in (NEW, OLD):
        PYTHON[packages] = environment(packages)


class Folder(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.runs = self.folder / "the runs"

    def start(self, command, *words, packages=NEW, prefix=(), **variables):
        """The command with the packages, in an empty folder; its exit code, output and errors."""
        (self.folder / "empty").mkdir(exist_ok=True)
        done = subprocess.run([*prefix, PYTHON[packages], "-B", BIN / command, *words], capture_output=True, text=True,
                              cwd=self.folder / "empty", env={**os.environ, **variables})
        self.assertEqual(os.listdir(self.folder / "empty"), [])
        return done.returncode, done.stdout, done.stderr

    def exported(self, command, *words, **options):
        """What the command says; it must end well, and without a line on the error stream."""
        code, out, err = self.start(command, self.runs, "-o", self.folder / "out", *words, **options)
        self.assertEqual((code, err), (0, ""), out)
        self.assertTrue(out.startswith(f"{self.folder / 'out'}: "), out)
        return out.rsplit(": ", 1)[1].strip()

    def read(self, code, *words, packages=NEW):
        done = subprocess.run([PYTHON[packages], "-B", "-c", code, *map(str, words)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def grow(self, run, step=41):
        with (run.path / "metrics.jsonl").open("a") as log:
            log.write(json.dumps({"step": step, "loss": 1.25, "learning_rate": 0.5, "gradient_norm": 1.5, "tokens": 128 * step,
                                  "tokens_per_second": 5000.0}) + "\n")
            log.write(json.dumps({"step": step, "validation_loss": 0.125, "bits_per_byte": 0.18, "tokens": 65536,
                                  "validation_hash": run.evaluations[-1]["validation_hash"]}) + "\n")

    def full_disk(self, command, kilobytes):
        """The command on a disk of that size, in a mount namespace of its own."""
        if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
            self.skipTest("no mounts of one's own here")
        write_many(self.runs, 1, steps=400)
        (self.folder / "out").mkdir(exist_ok=True)
        script = 'mount -t tmpfs -o size=$0k tmpfs "$1" && shift && exec "$@"'
        for size in kilobytes:
            with self.subTest(kilobytes=size):
                code, out, err = self.start(command, self.runs, "-o", self.folder / "out", prefix=(
                    "unshare", "--mount", "bash", "-c", script, str(size), self.folder / "out"))
                self.assertEqual((code, out, err.count("\n")), (3, "", 1), err)
                self.assertRegex(err, f"^{command}: .*No space left on device; .*choose another -o\n$")

    def fifty(self, command):
        """50 runs of 100 steps, made and made again: by processor time, as other programs may be at work."""
        write_many(self.runs, 50, steps=100)
        seconds = []
        for expected in ("50 new", "50 as before"):
            before = os.times()
            self.assertEqual(self.exported(command), expected)
            now = os.times()
            seconds.append(now.children_user + now.children_system - before.children_user - before.children_system)
        print(f"{command}: 50 runs of 100 steps in {seconds[0]:.1f} s of processor time, again in {seconds[1]:.1f} s")
        self.assertLess(max(seconds), 30)


class MLflow(Folder):
    def found(self, packages=NEW, experiment="dekoder", uri=None):
        """name -> run, each name once."""
        runs = self.read(MLFLOW_READER, uri or (self.folder / "out").as_uri(), experiment, packages=packages)
        self.assertEqual(len({run["name"] for run in runs}), len(runs))
        return {run["name"]: run for run in runs}

    def check(self, run, i, found):
        """Everything of run number i."""
        expected = expected_metrics(run.path)
        self.assertEqual({metric: [(step, value) for step, value, _ in points] for metric, points in found["metrics"].items()},
                         expected)
        for points in found["metrics"].values():
            for step, _, milliseconds in points:
                self.assertAlmostEqual(milliseconds / 1000, expected_time(min(step, 40)), delta=0.001 if step <= 40 else 0.1)
        self.assertEqual(found["last"], {metric: points[-1][1] for metric, points in expected.items()})
        self.assertEqual((found["params"]["training.learning_rate"], found["params"]["model.norm"], found["params"]["training.seed"],
                          found["params"].get("training.schedule"), found["params"]["attention.texts"]),
                         (str(learning_rate(i)), NORMS[i % 2], str(i), "wsd" if i % 3 == 0 else None, "[]"))
        self.assertEqual(found["status"], ("FINISHED", "FAILED", "KILLED")[i % 3])
        self.assertAlmostEqual(found["start"] / 1000, expected_time(0), places=2)
        self.assertEqual({key: found["tags"][key] for key in ("state", "host", "job", "path")},
                         {"state": STATES[i % 3], "host": "n0, n1", "job": "4711, 4712", "path": str(run.path.resolve())})
        self.assertEqual(found["artifacts"], {name: (run.path / name).stat().st_size for name in found["artifacts"]})
        self.assertLessEqual({"config.yaml", "samples.jsonl"}, set(found["artifacts"]))

    def test_every_number(self):
        """With both versions; a second export changes nothing, not even where a file of it was written."""
        runs = write_many(self.runs, 7)
        (runs[1].path / "report.html").write_text("<!DOCTYPE html>")
        for packages in (NEW, OLD):
            shutil.rmtree(self.folder / "out", ignore_errors=True)
            self.assertEqual(self.exported("dekoder-mlflow", packages=packages), "7 new")
            found = self.found(packages)
            self.assertEqual(set(found), {run.path.name for run in runs})
            for i, run in enumerate(runs):
                self.check(run, i, found[run.path.name])
            self.assertIn("report.html", found[NAMES[1]]["artifacts"])
            self.assertEqual(self.exported("dekoder-mlflow", packages=packages), "7 as before")
            self.assertEqual(self.found(packages), found)

    def test_a_run_that_trains(self):
        """Its newest step follows later, with the evaluation that had not been made."""
        run = write_many(self.runs, 1)[0]
        log = run.path / "metrics.jsonl"
        whole = log.read_text()
        log.write_text("".join(whole.splitlines(True)[:-1]))
        (run.path / "lock").touch()
        self.assertEqual(self.exported("dekoder-mlflow"), "1 new")
        before = self.found()[NAMES[0]]
        self.assertEqual((before["status"], before["tags"]["state"]), ("RUNNING", "running"))
        self.assertEqual(before["metrics"]["training/loss"][-1][0], 39)
        log.write_text(whole)
        (run.path / "lock").unlink()
        self.assertEqual(self.exported("dekoder-mlflow"), "1 changed")
        (run.path / "lock").touch()  # it goes on, and has no new step yet
        self.assertEqual(self.exported("dekoder-mlflow"), "1 as before")
        (run.path / "lock").unlink()
        self.assertEqual(self.exported("dekoder-mlflow"), "1 as before")
        after = self.found()[NAMES[0]]
        self.assertEqual(after["id"], before["id"])
        self.check(run, 0, after)

    def test_a_run_that_has_grown(self):
        """It is the same MLflow run, with the new rows."""
        runs = write_many(self.runs, 3)
        self.exported("dekoder-mlflow")
        before = self.found()
        self.grow(runs[1])
        self.assertEqual(sorted(self.exported("dekoder-mlflow").split(", ")), ["1 changed", "2 as before"])
        after = self.found()
        self.assertEqual({run["id"] for run in after.values()}, {run["id"] for run in before.values()})
        for i, run in enumerate(runs):
            self.check(run, i, after[run.path.name])
        self.assertEqual(after[NAMES[1]]["last"]["validation/best_loss"], 0.125)

    def test_a_run_that_has_changed(self):
        """Parameters of MLflow cannot change: a run with others, or with other rows, takes the place of the earlier one."""
        runs = write_many(self.runs, 3)
        self.exported("dekoder-mlflow")
        before = self.found()
        replace_in(runs[0].path / "config.yaml", "batch: 4", "batch: 8")
        replace_in(runs[2].path / "metrics.jsonl", '"loss": ' + repr(float(runs[2].steps[30]["loss"])), '"loss": 1.75')
        self.assertEqual(sorted(self.exported("dekoder-mlflow").split(", ")), ["1 as before", "2 changed"])
        after = self.found()
        self.assertEqual(after[NAMES[1]], before[NAMES[1]])
        self.assertEqual(after[NAMES[0]]["params"]["training.batch"], "8")
        for i, run in enumerate(runs):
            self.check(run, i, after[run.path.name])

    def test_an_export_that_was_killed(self):
        """At any point of it: the next one completes it, and nothing is there twice."""
        runs = write_many(self.runs, 2, steps=400)
        for seconds in (1.5, 1.8, 2.1, 2.4):
            with subprocess.Popen([PYTHON[NEW], "-B", BIN / "dekoder-mlflow", self.runs, "-o", self.folder / "out"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                time.sleep(seconds)
                process.kill()
        self.exported("dekoder-mlflow")
        found = self.found()
        for run in runs:
            self.assertEqual({metric: [(step, value) for step, value, _ in points] for metric, points in
                              found[run.path.name]["metrics"].items()}, expected_metrics(run.path))

    def test_what_a_kill_leaves(self):
        """Each state in between, as a kill at that moment would leave it: the file store writes its files in place."""
        runs = write_many(self.runs, 2)
        self.exported("dekoder-mlflow")
        run = self.found()[NAMES[0]]["id"]
        (meta,) = (self.folder / "out").glob(f"*/{run}/meta.yaml")
        tags = meta.parents[1] / "tags"
        (key,) = (path for path in tags.iterdir() if path.read_text() == run)
        rows = tags / f"{key.name}.rows"

        def recovered(what):
            self.assertEqual(len(self.exported("dekoder-mlflow").split(", ")), 2, what)
            for i, written in enumerate(runs):
                self.check(written, i, self.found()[written.path.name])

        rows.unlink()
        recovered("no rows counted")
        rows.write_text("")
        recovered("the count cut")
        rows.write_text(f"{len('incomplete')} incomplete")
        recovered("rows half there")
        meta = meta.parents[1] / key.read_text() / "meta.yaml"
        meta.write_text("")
        recovered("the record of a known run cut")
        for text in ("begun", ""):
            shutil.rmtree(meta.parents[1] / key.read_text())
            key.write_text(text)
            (meta.parents[1] / ("0" * 32)).mkdir()
            (meta.parents[1] / ("0" * 32) / "meta.yaml").write_text("")
            recovered("the record of a new run cut")
            self.read(f"import os, sys; os.environ['MLFLOW_ALLOW_FILE_STORE'] = 'true'\nfrom mlflow import MlflowClient\n"
                      f"MlflowClient(tracking_uri=sys.argv[1]).create_run({meta.parents[1].name!r}, run_name={NAMES[0]!r})\n"
                      "print('null')", (self.folder / "out").as_uri())
            shutil.rmtree(meta.parents[1] / key.read_text())
            key.write_text(text)
            recovered("a new run without its name in the tag")

    def test_runs_deleted_there(self):
        write_many(self.runs, 2)
        self.exported("dekoder-mlflow")
        delete = ("import os, sys; os.environ['MLFLOW_ALLOW_FILE_STORE'] = 'true'\nfrom mlflow import MlflowClient\n"
                  "client = MlflowClient(tracking_uri=sys.argv[1])\n{}\nprint('null')")
        self.read(delete.format(f"client.delete_run({self.found()[NAMES[0]]['id']!r})"), (self.folder / "out").as_uri())
        self.assertEqual(sorted(self.exported("dekoder-mlflow").split(", ")), ["1 as before", "1 new"])
        self.assertEqual(set(self.found()), set(NAMES[:2]))
        self.read(delete.format("client.delete_experiment(client.get_experiment_by_name('dekoder').experiment_id)"),
                  (self.folder / "out").as_uri())
        code, _, err = self.start("dekoder-mlflow", self.runs, "-o", self.folder / "out")
        self.assertEqual((code, err.count("\n")), (3, 1), err)
        self.assertRegex(err, "the experiment dekoder is deleted there; restore it")

    def test_experiment_and_database(self):
        write_many(self.runs, 2)
        self.exported("dekoder-mlflow", "--experiment", "\u03b7 sweep")
        self.assertEqual(set(self.found(experiment="\u03b7 sweep")), set(NAMES[:2]))
        uri = f"sqlite:///{self.folder / 'mlflow.db'}"
        for expected in ("2 new", "2 as before"):
            done = subprocess.run([PYTHON[NEW], "-B", BIN / "dekoder-mlflow", self.runs, "-o", uri], capture_output=True, text=True,
                                  cwd=self.folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(done.stdout.endswith(f": {expected}\n"), done.stdout)
        self.assertEqual({name: run["metrics"] for name, run in self.found(uri=uri).items()},
                         {name: run["metrics"] for name, run in self.found(experiment="\u03b7 sweep").items()})

    def test_names_that_MLflow_refuses(self):
        """Of a new run and of one that is there already; the others are exported, and nothing half-made is left."""
        runs = write_many(self.runs, 4)
        for packages in (NEW, OLD):
            shutil.rmtree(self.folder / "out", ignore_errors=True)
            config, log = (runs[1].path / "config.yaml").read_text(), (runs[2].path / "metrics.jsonl").read_text()
            replace_in(runs[1].path / "config.yaml", "  batch: 4\n", "  batch: 4\n  a<b>$: 1\n")
            for expected in ("3 new", "3 as before"):
                code, out, err = self.start("dekoder-mlflow", self.runs, "-o", self.folder / "out", packages=packages)
                self.assertEqual((code, err.count("\n")), (0, 1), err)
                self.assertTrue(out.endswith(f": {expected}\n"), out)
                self.assertRegex(err, f"^dekoder-mlflow: {runs[1].path}: MLflow does not take what stands in it: .*a<b>.*; left out\n$")
                self.assertEqual(set(self.found(packages)), {runs[i].path.name for i in (0, 2, 3)})
                experiment = next(path for path in (self.folder / "out").iterdir() if path.name not in ("0", ".trash"))
                self.assertEqual(sum(path.is_dir() and len(path.name) == 32 for path in experiment.iterdir()), 3)
            with (runs[2].path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": 41, "loss": 1.25, "tokens": 1, "tokens_per_second": 1.0, "learning_rate": 1.0,
                                       "gradient_norm": 1.0, "seconds": {"a<b>$": 1.0}}) + "\n")
            code, out, err = self.start("dekoder-mlflow", self.runs, "-o", self.folder / "out", packages=packages)
            self.assertEqual((code, err.count("; left out\n")), (0, 2), err)
            self.assertEqual(set(self.found(packages)), {runs[i].path.name for i in (0, 2, 3)})
            (runs[1].path / "config.yaml").write_text(config)
            (runs[2].path / "metrics.jsonl").write_text(log)
            self.assertEqual(self.start("dekoder-mlflow", self.runs, "-o", self.folder / "out", packages=packages)[0], 0)
            for i, run in enumerate(runs):
                self.check(run, i, self.found(packages)[run.path.name])

    def test_a_full_disk(self):
        self.full_disk("dekoder-mlflow", (64, 128))

    def test_fifty_runs(self):
        self.fifty("dekoder-mlflow")


class WandB(Folder):
    def files(self):
        return sorted((self.folder / "out").glob("offline-run-*/run-*.wandb"))

    def found(self):
        """name -> run, each name once; nothing else lies there."""
        self.assertEqual(len(self.files()), len(os.listdir(self.folder / "out")))
        runs = self.read(WANDB_READER, *self.files(), packages=OLD)
        self.assertEqual(len({run["name"] for run in runs}), len(runs))
        return {run["name"]: run for run in runs}

    def check(self, run, i, found):
        metrics = {}
        for row in found["history"]:
            for metric, value in row.items():
                if not metric.startswith("_"):
                    metrics.setdefault(metric, []).append((row["_step"], value))
            self.assertAlmostEqual(row["_timestamp"], expected_time(min(row["_step"], 40)), places=3 if row["_step"] <= 40 else 0)
        self.assertEqual(metrics, expected_metrics(run.path))
        for metric, points in metrics.items():
            self.assertEqual(found["summary"][metric], points[-1][1])
        self.assertEqual({key: found["summary"][key] for key in ("state", "host", "job", "path")},
                         {"state": STATES[i % 3], "host": "n0, n1", "job": "4711, 4712", "path": str(run.path.resolve())})
        config = found["config"]
        self.assertEqual((config["training"]["learning_rate"], config["model"]["norm"], config["training"]["seed"],
                          config["training"].get("schedule"), config["attention"]["texts"]),
                         (learning_rate(i), NORMS[i % 2], i, "wsd" if i % 3 == 0 else None, []))
        self.assertEqual((found["exit"], found["project"]), (int(i % 3 == 1), "dekoder"))
        self.assertLessEqual({"config.yaml", "samples.jsonl"}, set(found["files"]))
        files = self.folder / "out" / next(path for path in self.files() if found["id"] in path.name).parent / "files"
        for name in found["files"]:
            self.assertEqual((files / name).read_bytes(), (run.path / name).read_bytes())

    def test_every_number(self):
        """With both versions, whatever the user's variables say, without a network and a home; a second export leaves the
        directories alone, also those that `wandb sync` has marked."""
        runs = write_many(self.runs, 7)
        (runs[1].path / "report.html").write_text("<!DOCTYPE html>")
        alone = ("unshare", "--net") if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode == 0 else ()
        for packages in (NEW, OLD):
            shutil.rmtree(self.folder / "out", ignore_errors=True)
            variables = {"HOME": "/nowhere", "WANDB_MODE": "online", "WANDB_RUN_ID": "x", "WANDB_API_KEY": "x" * 40,
                         "WANDB_PROJECT": "another", "WANDB_DIR": "/nowhere", "WANDB_NOTES": "x"}
            self.assertEqual(self.exported("dekoder-wandb", packages=packages, prefix=alone, **variables), "7 new")
            found = self.found()
            self.assertEqual(set(found), {run.path.name for run in runs})
            for i, run in enumerate(runs):
                self.check(run, i, found[run.path.name])
            self.assertIn("report.html", found[NAMES[1]]["files"])
            mark = self.files()[0].with_suffix(".wandb.synced")
            mark.touch()
            before = {path: path.stat().st_mtime_ns for path in (self.folder / "out").rglob("*")}
            self.assertEqual(self.exported("dekoder-wandb", packages=packages), "7 as before")
            self.assertEqual({path: path.stat().st_mtime_ns for path in (self.folder / "out").rglob("*")}, before)

    def test_runs_that_have_changed(self):
        """They are replaced, under their ids."""
        runs = write_many(self.runs, 3)
        self.exported("dekoder-wandb")
        before = self.found()
        self.grow(runs[1])
        replace_in(runs[2].path / "config.yaml", "batch: 4", "batch: 8")
        self.assertEqual(sorted(self.exported("dekoder-wandb").split(", ")), ["1 as before", "2 changed"])
        after = self.found()
        self.assertEqual({name: run["id"] for name, run in after.items()}, {name: run["id"] for name, run in before.items()})
        for i, run in enumerate(runs):
            self.check(run, i, after[run.path.name])
        self.assertEqual(after[NAMES[1]]["summary"]["validation/best_loss"], 0.125)
        self.assertEqual(after[NAMES[2]]["config"]["training"]["batch"], 8)
        (runs[0].path / "report.html").write_text("later")
        self.assertEqual(sorted(self.exported("dekoder-wandb").split(", ")), ["1 changed", "2 as before"])

    def test_sync_finds_them(self):
        write_many(self.runs, 3)
        self.exported("dekoder-wandb")
        done = subprocess.run([PYTHON[NEW], "-m", "wandb", "beta", "sync", "--dry-run", str(self.folder / "out")],
                              capture_output=True, text=True, cwd=self.folder)
        self.assertIn("Would sync 3 run(s)", done.stdout + done.stderr)

    def test_a_full_disk(self):
        """Where the directory has no place, where its records have none, and where the last of them has none."""
        self.full_disk("dekoder-wandb", (64, 128, 298, 330))

    def test_fifty_runs(self):
        self.fifty("dekoder-wandb")


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    sys.exit(77 if result.skipped and not result.testsRun else not result.wasSuccessful())
