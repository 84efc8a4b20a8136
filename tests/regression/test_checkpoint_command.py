# SPDX-License-Identifier: Apache-2.0
"""`dekoder checkpoint list|verify|diff` on real runs: sound ones, damaged ones, one that is training, odd folders and words."""
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import checkpoint_seal as seal  # noqa: E402
import dekoder_runs as dk  # noqa: E402

GOLDEN = HERE / "golden"
QKV = "blocks.00.attention.qkv.weight"
TRACES = ("internal error", "terminate called", "HDF5-DIAG", "Traceback", "Kokkos::")


def run(*words, code=0, within=(), **options):
    """Runs the command and returns what it printed; what it said on stderr must hold `within`."""
    done = subprocess.run([dk.PROGRAM, "checkpoint", *words], capture_output="stdout" not in options, text=True, timeout=120,
                          stderr=subprocess.PIPE if "stdout" in options else None, **options)
    said = f"{words}: exit code {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
    dk.check(done.returncode == code, said)
    dk.check(not any(trace in done.stderr for trace in TRACES), said)
    for word in within:
        dk.check(word in done.stderr, f"no {word!r}: {said}")
    return done.stdout


def table(text):
    """Rows of a list: file -> cells."""
    rows = {}
    for line in text.splitlines():
        cells = re.split(r" {2,}", line.strip())
        if line.startswith("  ") and cells[0] != "file":
            rows[cells[0]] = cells[1:]
    return rows


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def chunk_of(path, name):
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info(0)
    return chunk.byte_offset, chunk.size


def stored_digest(path, name):
    with h5py.File(path) as file:
        return f"{int(file[name].attrs['digest']):016x}"


def contents(folder):
    return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(folder.rglob("*")) if path.is_file()}


def restricted():
    """A command that file modes hold back, also where the tests run as root."""
    return [] if os.geteuid() != 0 else ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


class CheckpointCommand(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = pathlib.Path(tempfile.mkdtemp(prefix="dekoder_checkpoint_command_"))
        cls.addClassCleanup(shutil.rmtree, cls.place)
        cls.shop = dk.Workshop(cls.place)
        cls.trained = cls.place / "trained"
        cls.shop.train(cls.trained, 100, 20)  # keeps three: 60, 80, 100, and the best

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=self.place))
        self.run = self.folder / "run"
        shutil.copytree(self.trained, self.run)
        self.files = dk.checkpoints(self.run)
        self.newest = self.files[100]

    # ---- list

    def test_a_list_has_everything_of_each_file(self):
        text = run("list", self.run)
        rows = table(text)
        self.assertEqual(list(rows), [path.name for path in self.files.values()], text)
        with h5py.File(self.newest) as file:
            best = int(file.attrs["best_step"])
        for step, path in self.files.items():
            with h5py.File(path) as file:
                loss = float(file.attrs["validation_loss"])
            marks = ", ".join(["latest"] * (step == 100) + ["best"] * (step == best) + ["kept"])
            cells = rows[path.name]
            self.assertEqual(cells[0], str(step))
            self.assertEqual(cells[1], "-" if math.isnan(loss) else f"{loss:.4f}")
            self.assertRegex(cells[2], r"^[\d.]+ [KM]iB$")
            self.assertRegex(cells[3], r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$")
            self.assertEqual(cells[4:], [marks, "VALID"])
        self.assertEqual(run("list", self.run / "checkpoints"), text)
        run("verify", self.run)

    def test_nothing_is_needed_besides_the_files_and_nothing_is_changed(self):
        shutil.move(self.shop.tokens, self.folder / "gone.h5")
        self.addCleanup(shutil.move, self.folder / "gone.h5", self.shop.tokens)
        paths = [self.run, *self.run.rglob("*")]
        before = contents(self.run)
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        for words in (["list", self.run], ["verify", self.run], ["diff", self.run, self.newest]):
            done = subprocess.run([*restricted(), dk.PROGRAM, "checkpoint", *words], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertEqual(done.stderr, "")
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)
        self.assertEqual(contents(self.run), before)

    def test_other_files_of_the_folder_are_listed_as_what_they_are(self):
        folder = self.run / "checkpoints"
        os.rename(self.files[80], folder / "ckpt-00000080.h5.corrupt")
        (folder / ".dekoder-0123abcd-1-0.tmp").write_bytes(b"half")
        (folder / ".ckpt-00000060.h5.tmp").write_bytes(b"")
        (folder / "previous-1").mkdir()
        (folder / "notes.txt").write_text("mine")
        shutil.copy(self.newest, folder / "copy.h5")
        shutil.copy(self.newest, folder / "ckpt-00000500.h5")
        before = contents(self.run)
        text = run("list", self.run)
        states = {name: cells[-1] for name, cells in table(text).items()}
        self.assertEqual(states, {
            **{path.name: "VALID" for step, path in self.files.items() if step != 80}, "ckpt-00000500.h5": "damaged",
            ".ckpt-00000060.h5.tmp": "unfinished", ".dekoder-0123abcd-1-0.tmp": "unfinished",
            "ckpt-00000080.h5.corrupt": "set aside", "copy.h5": "other", "previous-1": "earlier run"})
        self.assertIn("ckpt-00000500.h5: holds step 100, not that of its name", text)
        self.assertIn("latest", table(text)[self.newest.name][-2])
        run("verify", self.run, code=3, within=[f"1 of {len(self.files)} are not valid checkpoints"])
        run("verify", folder / "copy.h5", folder / "ckpt-00000080.h5.corrupt")
        self.assertEqual(contents(self.run), before)

    def test_golden_checkpoints(self):
        for golden in ("byte", "char"):
            rows = table(run("list", GOLDEN / golden))
            self.assertGreater(len(rows), 0)
            self.assertEqual({cells[-1] for cells in rows.values()}, {"VALID"})
            self.assertEqual(run("verify", GOLDEN / golden).count(": VALID, step "), len(rows))
            self.assertTrue(run("diff", GOLDEN / golden, GOLDEN / golden).endswith("\nequal\n"))
        text = run("diff", GOLDEN / "char/checkpoints/ckpt-00000020.h5", GOLDEN / "char", code=1)
        self.assertIn("step: 20 | 30", text)
        text = run("diff", GOLDEN / "byte", GOLDEN / "char", code=1)
        for words in ("parameters/token_embedding.weight: float32 (256,8) | float32 (32,8)", "only in a, float32 (8,8)", "only in b",
                      "model.layers: 2 | 1", "tokenizer: byte | char "):
            self.assertIn(words, text)

    # ---- damage

    def verdicts(self, code=3):
        """What verify says of each step."""
        lines = run("verify", self.run, code=code).splitlines()
        return {int(re.search(r"ckpt-(\d+)\.h5: ", line).group(1)): line.split(".h5: ", 1)[1] for line in lines}

    def only_newest_is_damaged(self, *words):
        """words: the state in the table, and what is said."""
        found = self.verdicts()
        self.assertEqual(list(found), list(self.files))
        for step, verdict in found.items():
            if step != 100:
                self.assertRegex(verdict, rf"^VALID, step {step}, \d+ tensors$")
        self.assertTrue(found[100].startswith(f"{words[0]}: "), found[100])
        for word in words[1:]:
            self.assertIn(word, found[100])
        text = run("list", self.run)
        self.assertEqual(table(text)[self.newest.name][-1], words[0])
        self.assertEqual(table(text)[self.newest.name][-2], "kept")
        self.assertIn("latest", table(text)["ckpt-00000080.h5"][-2])
        for word in words[1:]:
            self.assertIn(word, text)
        return found[100]

    def test_a_flipped_byte_of_a_tensor(self):
        name = f"parameters/{QKV}"
        stored = stored_digest(self.newest, name)
        with h5py.File(self.newest) as file:
            heading, data = seal.tensor_heading(file[name]), bytearray(file[name][()].tobytes())
        data[100] ^= 1
        flip(self.newest, chunk_of(self.newest, name)[0] + 100)
        computed = f"{seal.xxh64(heading.encode() + data):016x}"
        self.only_newest_is_damaged("damaged", f"/{name}: is damaged (digest differs: stored {stored}, computed {computed})")
        for words in ([self.newest, self.files[80]], [self.files[80], self.run]):
            run("diff", *words, code=3, within=[f"/{name}: is damaged (digest differs: stored {stored}, computed {computed})"])

    def test_values_that_changed_places_with_their_checksums(self):
        names = [f"first_moment/blocks.0{block}.attention.qkv.weight" for block in (0, 1)]
        (one, size), (other, _) = (chunk_of(self.newest, name) for name in names)
        data = bytearray(self.newest.read_bytes())
        data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]
        self.newest.write_bytes(data)
        self.only_newest_is_damaged("damaged", f"/{names[0]}: is damaged", stored_digest(self.newest, names[0]), ", and 1 more")

    def test_a_damaged_checksum_of_values_that_are_intact(self):
        begin, size = chunk_of(self.newest, f"second_moment/{QKV}")
        flip(self.newest, begin + size - 1)
        self.only_newest_is_damaged("damaged", f"/second_moment/{QKV}: cannot be read: damaged: a checksum (Fletcher32)",
                                    "the values themselves are intact")

    def test_broken_files(self):
        whole = self.newest.read_bytes()
        for name, data in (("half", whole[: len(whole) // 2]), ("one byte short", whole[:-1]), ("empty", b""), ("zeros", bytes(len(whole))),
                           ("text", b"no HDF5\n" * 99), ("field", whole.replace(b"layers: 2", b"layers: 3"))):
            with self.subTest(name):
                self.newest.write_bytes(data)
                self.only_newest_is_damaged("damaged")
                run("diff", self.newest, self.files[80], code=3, within=["ckpt-00000100.h5"])

    def test_values_that_are_not_finite(self):
        def edit(file):
            file[f"parameters/{QKV}"][3, 5] = numpy.nan
            file[f"parameters/{QKV}"][4, 0] = -numpy.inf
            file["first_moment/token_embedding.weight"][0, 0] = numpy.inf

        seal.change(self.newest, edit)
        verdict = self.verdicts()[100]
        self.assertRegex(verdict, r"^not finite: /first_moment/token_embedding.weight: 1 of \d+ values are not finite, first that at "
                                  r"\(0,0\): inf, and 1 more$")
        self.assertEqual(table(run("list", self.run))[self.newest.name][-1], "not finite")
        self.assertIn("equal\n", run("diff", self.newest, self.newest))  # NaN with the same bits
        text = run("diff", self.files[80], self.newest, code=1)
        self.assertRegex(text, rf"parameters/{QKV} .* nan +nan ")

    def test_a_state_of_another_layout(self):
        for edit, words in (
                (lambda file: seal.replace(file["parameters"], QKV, file[f"parameters/{QKV}"][:-1]), "has shape (47,16), expected (48,16)"),
                (lambda file: file["second_moment"].pop(QKV), f"holds no tensor /second_moment/{QKV}"),
                (lambda file: file.move("second_moment", "third_moment"), "holds no group /second_moment"),
                (lambda file: seal.set_text(file, "config_yaml", seal.text_of(file.attrs["config_yaml"]).replace("layers: 2", "layers: 1")),
                 "the model has no such tensor"),
                (lambda file: seal.set_text(file, "config_yaml", "model: {layers: none}"), "model.layers is 'none'")):
            with self.subTest(words):
                shutil.copy(self.trained / "checkpoints" / self.newest.name, self.newest)
                seal.change(self.newest, edit)
                self.only_newest_is_damaged("other layout", words)

    def test_a_foreign_file_and_a_newer_one(self):
        run("verify", self.shop.tokens, code=3)
        self.assertIn("is HDF5 but no checkpoint of dekoder", run("verify", self.shop.tokens, self.newest, code=3))
        run("diff", self.shop.tokens, self.newest, code=3, within=["is HDF5 but no checkpoint of dekoder"])
        with h5py.File(self.newest, "r+") as file:
            file.attrs.modify("major", numpy.int32(2))
        self.only_newest_is_damaged("newer format", "has checkpoint format 2.")
        run("diff", self.run, self.newest, code=3, within=["has checkpoint format 2."])

    # ---- diff

    def test_differences_are_those_of_numpy(self):
        text = run("diff", self.files[80], self.newest, code=1)
        self.assertIn("  step: 80 | 100\n", text)
        self.assertIn("  tokens_seen: ", text)
        self.assertIn("of the runs, not of the states, differ: ", text)
        rows = {cells[0]: cells[1:] for cells in (re.split(r" {2,}", line.strip()) for line in text.splitlines()) if len(cells) == 7}
        with h5py.File(self.files[80]) as left, h5py.File(self.newest) as right:
            names = [f"{group}/{name}" for group in left for name in left[group]]
            self.assertGreater(len(names), 30)
            for name in names:
                a, b = (file[name][()].astype(float) for file in (left, right))
                unlike = a != b
                scale = numpy.maximum(abs(a), abs(b))
                relative = numpy.divide(abs(a - b), scale, out=numpy.zeros_like(a), where=scale > 0)
                first = tuple(int(i) for i in numpy.argwhere(unlike)[0])
                self.assertEqual(rows[name], [f"{unlike.sum()} of {a.size}", f"{abs(a - b).max():.3e}", f"{relative.max():.3e}",
                                              str(first).replace(" ", "").replace(",)", ")"), f"{a[first]:.9g}", f"{b[first]:.9g}"], name)
        for group in ("parameters", "first_moment", "second_moment"):
            count = sum(name.startswith(group) for name in names)
            self.assertIn(f"\n{group}: {count} of {count} tensors differ\n", text)

    def test_one_element_that_differs(self):
        other = self.folder / "other.h5"
        values = ((QKV, (40, 3), 0.5), (QKV, (47, 15), 1e-42), ("final_norm.gain", (7,), -0.0))
        shutil.copy(self.newest, other)

        def edit(file, change):
            for name, index, value in values:
                file[f"parameters/{name}"][index] = value if change else 0

        seal.change(self.newest, lambda file: edit(file, False))
        seal.change(other, lambda file: edit(file, True))
        text = run("diff", other, self.newest, code=1)
        self.assertRegex(text, rf"(?m)^  parameters/{QKV} +2 of 768  5.000e-01  1.000e\+00 +\(40,3\) +0.5 +0$")
        self.assertRegex(text, r"(?m)^  parameters/final_norm.gain +1 of 16  0.000e\+00  0.000e\+00 +\(7\) +-0 +0$")
        self.assertEqual(text.count("tensors, equal bit for bit\n"), 2)
        self.assertIn("parameters: 2 of ", text)
        shutil.copy(self.newest, other)  # a subnormal number alone
        seal.change(other, lambda file: file[f"parameters/{QKV}"].__setitem__((47, 15), 1e-42))
        self.assertRegex(run("diff", other, self.newest, code=1), r"1 of 768  1\.001e-42  1\.000e\+00 +\(47,15\) ")

    def test_states_that_are_equal_are_so_in_other_runs_too(self):
        other = self.folder / "other"
        self.shop.train(other, 100, 20, fault="checkpoint:create@4", expect=-9)
        self.shop.train(other, 100, 20)
        text = run("diff", self.run, other)
        self.assertTrue(text.endswith("\nequal\n"), text)
        self.assertIn("of the runs, not of the states, differ: ", text)
        self.assertEqual(text.count("tensors, equal bit for bit"), 3)

    def test_one_field_that_differs(self):
        other = self.folder / "other.h5"
        for field, value, words in (("best_step", numpy.int64(7), "  best_step: "), ("tokenizer", "odd", "  tokenizer: byte | odd"),
                                    ("validation_hash", "another set", " | another set")):
            shutil.copy(self.newest, other)
            put = seal.set_text if isinstance(value, str) else lambda file, *pair: file.attrs.modify(*pair)
            seal.change(other, lambda file: put(file, field, value))
            text = run("diff", self.newest, other, code=1)
            self.assertIn(words, text)
            self.assertEqual(text.count("tensors, equal bit for bit"), 3)

    def test_configurations_that_this_program_cannot_read(self):
        """A later program's settings: what differs is their text."""
        other = self.folder / "other.h5"
        shutil.copy(self.newest, other)

        def edit(file, key):
            text = seal.text_of(file.attrs["config_yaml"])
            seal.set_text(file, "config_yaml", text + f"later: {{{key}: 1}}\n")

        seal.change(self.newest, lambda file: edit(file, "this"))
        seal.change(other, lambda file: edit(file, "that"))
        self.assertRegex(run("diff", self.newest, other, code=1), r"(?m)^  configuration, line \d+: later: \{this: 1\} \| later: \{that: 1\}$")
        self.assertIn("unknown", run("verify", other, code=3))

    def test_double_precision(self):
        """No program writes such files so far; the format has them."""
        other = self.folder / "ckpt-00000100.h5"
        shutil.copy(self.newest, other)

        def widen(file):
            for group in file.values():
                for name in list(group):
                    seal.replace(group, name, group[name][()].astype("float64"))

        seal.change(other, widen)
        self.assertIn("VALID, step 100", run("verify", other))
        text = run("diff", self.newest, other, code=1)
        self.assertIn(f"parameters/{QKV}: float32 (48,16) | float64 (48,16), equal values", text)
        third = self.folder / "third.h5"
        shutil.copy(other, third)
        seal.change(third, lambda file: file[f"parameters/{QKV}"].__setitem__((0, 1), file[f"parameters/{QKV}"][0, 1] + 1e-12))
        self.assertRegex(run("diff", other, third, code=1), r"1 of 768  1\.000e-12 .* \(0,1\) ")

    def test_tensors_of_many_blocks(self):
        """Above the block of 1 MiB, also where other chunks lie in the file, or none."""
        rows = numpy.random.default_rng(1).standard_normal((1500, 600)).astype("float32")
        name = "parameters/large.weight"

        def add(file, values, **layout):
            file.create_dataset(name, data=values, **layout).attrs["axes"] = "V,C"

        changed = rows.copy()
        changed[1203, 599] += 1
        changed[1499, 0] += 2
        files = []
        for i, (values, layout) in enumerate([(rows, {}), (rows, {"chunks": (7, 600), "compression": "gzip"}), (changed, {"chunks": (1500, 11)})]):
            files.append(self.folder / f"large{i}.h5")
            shutil.copy(self.newest, files[-1])
            seal.change(files[-1], lambda file: add(file, values, **layout))
        self.assertTrue(run("diff", files[0], files[1]).endswith("\nequal\n"))
        for words in ([files[0], files[2]], [files[1], files[2]]):
            self.assertRegex(run("diff", *words, code=1), r"large\.weight +2 of 900000  2\.000e\+00  \S+ +\(1203,599\) ")
        self.assertIn("the model has no such tensor", run("verify", files[1], code=3))

    def test_memory_does_not_grow_with_the_tensors(self):
        wide = self.folder / "wide"
        self.shop.train(wide, 1, 1, sets=["model.vocabulary=300000", "model.tied_head=true", "training.warmup_steps=0", "evaluation.every=0",
                                         "sampling.every=0"])
        large = dk.checkpoints(wide)[1]
        with h5py.File(large) as file:
            tensor = file["parameters/token_embedding.weight"].nbytes
        self.assertGreater(tensor, 18 << 20)

        def peak(*words):
            process = subprocess.Popen([dk.PROGRAM, "checkpoint", *words], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(process.returncode, 0)
            return usage.ru_maxrss << 10

        for word, count in (("list", 0), ("verify", 1), ("diff", 2)):
            small_words, large_words = ([word] + [path] * max(count, 1) for path in (self.run, wide))
            growth = peak(*large_words) - peak(*small_words)
            self.assertLess(growth, 12 << 20, word)

    def test_no_gpu_is_taken(self):
        """Where there is one and its plug-in, but also that of CPUs."""
        (self.folder / "driver.c").write_text("""
            int cuInit(unsigned flags) { return 0; }
            int cuDeviceGetCount(int* count) { *count = 1; return 0; }
            int cuDeviceGetName(char* name, int length, int device) { name[0] = 'X'; name[length > 1] = 0; return 0; }
            int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }
            """)
        subprocess.run(["cc", "-shared", "-fPIC", self.folder / "driver.c", "-o", self.folder / "libcuda.so.1"], check=True)
        place = self.folder / "bin"
        place.mkdir()
        shutil.copy(dk.PROGRAM, place)
        (place / "libdekoder_cuda_float.so").write_bytes(b"no library")
        path = os.environ.get("LD_LIBRARY_PATH")
        environment = dict(os.environ, LD_LIBRARY_PATH=f"{self.folder}:{path}" if path else str(self.folder),
                           DEKODER_PLUGIN_PATH=str(dk.PROGRAM.parent))

        def said(*words, code):
            done = subprocess.run([place / "dekoder", *words], capture_output=True, text=True, env=environment)
            self.assertEqual(done.returncode, code, done.stderr)
            return done.stderr

        for words in (["checkpoint", "list", self.run], ["checkpoint", "verify", self.run], ["checkpoint", "diff", self.run, self.run],
                      ["status", self.run], ["prepare", self.shop.folder / "text.txt", "-o", self.folder / "again.h5"]):
            self.assertEqual(said(*words, code=0), "")
        for words in (["eval", self.run], ["checkpoint", "list", self.run, "--backend", "cuda"]):
            self.assertIn("libdekoder_cuda_float.so", said(*words, code=2))
        environment["DEKODER_PLUGIN_PATH"] = ""  # without that of CPUs
        self.assertIn("libdekoder_cuda_float.so", said("checkpoint", "list", self.run, code=2))

    # ---- a run that goes on

    def test_while_a_run_writes_and_deletes(self):
        root = self.folder / "busy"
        process = self.shop.start(root, 100000, 1, sets=["checkpoint.keep=1", "evaluation.every=0", "sampling.every=0"])
        try:
            dk.wait_until(lambda: len(dk.checkpoints(root)) > 0, "a checkpoint", process)
            for _ in range(5):
                text = run("list", root)
                states = {cells[-1] for name, cells in table(text).items()}
                self.assertLessEqual(states, {"VALID", "gone", "unfinished"}, text)
                text = run("verify", root)
                self.assertNotIn("damaged", text)
                self.assertRegex(run("diff", self.run, root, code=1), r"(?m)^b: .*/busy/checkpoints/ckpt-\d+\.h5, step ")
            self.assertIsNone(process.poll(), process.log.read_text())
        finally:
            dk.stop(process)
        kept = dk.checkpoints(root)
        self.assertIn("VALID", run("list", root))
        run("diff", root, kept[max(kept)])

    # ---- odd folders and words

    def test_folders_without_checkpoints(self):
        for folder in (self.folder / "empty", self.folder / "begun"):
            folder.mkdir()
        shutil.copy(self.run / "config.yaml", self.folder / "begun/config.yaml")
        for folder in (self.folder / "empty", self.folder / "begun"):
            self.assertIn("no checkpoint yet (ckpt-<step>.h5)", run("list", folder))
            self.assertIn("no checkpoint here", run("verify", folder, code=3))
            run("diff", folder, self.run, code=3, within=["there is no checkpoint yet"])
        nowhere = self.folder / "nowhere"
        run("list", nowhere, code=3, within=["nowhere: no such folder; expected a run directory"])
        self.assertIn("nowhere: no such file or folder", run("verify", nowhere, self.newest, code=3))
        run("diff", nowhere, self.run, code=3, within=["nowhere: no such file"])
        run("list", self.newest, code=3, within=["is no folder; expected a run directory"])
        os.mkfifo(self.folder / "fifo")
        run("list", self.folder / "fifo", code=3, within=["is no folder"])
        self.assertIn("is a FIFO", run("verify", self.folder / "fifo", code=3))
        run("diff", self.folder / "fifo", self.newest, code=3, within=["is a FIFO"])

    def test_links(self):
        (self.folder / "link").symlink_to("run")
        self.assertEqual(table(run("list", self.folder / "link")), table(run("list", self.run)))
        shutil.move(self.run / "checkpoints", self.folder / "disk")
        (self.run / "checkpoints").symlink_to("../disk")
        self.assertEqual(len(table(run("list", self.run))), len(self.files))
        run("diff", self.folder / "link", self.run)
        (self.folder / "file").symlink_to(self.newest)
        run("verify", self.folder / "file", self.folder / "link")
        os.rename(self.folder / "disk", self.folder / "unmounted")
        for words in (["list", self.run], ["diff", self.run, self.folder / "unmounted"]):
            run(*words, code=3, within=["checkpoints: cannot be read", "a symbolic link whose target is missing"])
        self.assertIn("a symbolic link whose target is missing", run("verify", self.run, self.folder / "file", code=3))
        (self.folder / "loop").symlink_to("loop")
        run("list", self.folder / "loop", code=3, within=["loop: cannot be read: Too many levels of symbolic links"])

    def test_files_that_may_not_be_read(self):
        self.newest.chmod(0)
        done = {}
        for words in (["list", self.run], ["verify", self.run], ["diff", self.run, self.files[80]]):
            done[words[0]] = subprocess.run([*restricted(), dk.PROGRAM, "checkpoint", *words], capture_output=True, text=True)
        self.newest.chmod(0o644)
        self.assertEqual([done[word].returncode for word in ("list", "verify", "diff")], [0, 3, 3])
        self.assertEqual(table(done["list"].stdout)[self.newest.name][-1], "unreadable")
        self.assertIn("ckpt-00000100.h5: unreadable: cannot be read: Permission denied", done["verify"].stdout)
        self.assertIn("Permission denied", done["diff"].stderr)
        (self.run / "checkpoints").chmod(0)
        for word in ("list", "verify", "diff"):
            words = [word, self.run] + [self.trained] * (word == "diff")
            refused = subprocess.run([*restricted(), dk.PROGRAM, "checkpoint", *words], capture_output=True, text=True)
            self.assertEqual(refused.returncode, 3, refused.stdout + refused.stderr)
            self.assertIn("Permission denied", refused.stdout + refused.stderr)
        (self.run / "checkpoints").chmod(0o755)

    def test_names_with_line_breaks_stay_in_one_line(self):
        odd = self.folder / "a\nb"
        shutil.copytree(self.run, odd)
        self.assertEqual(len(run("verify", odd).splitlines()), len(self.files))
        self.newest.write_bytes(b"")
        shutil.copy(self.newest, odd / "checkpoints")
        self.assertEqual(len(run("verify", odd, code=3).splitlines()), len(self.files))

    def test_output_that_cannot_be_written(self):
        for words in (["list", self.run], ["verify", self.run], ["diff", self.run, self.files[80]]):
            with open("/dev/full", "w") as full:
                run(*words, code=3, stdout=full, within=["standard output cannot be written"])
            closed = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", dk.PROGRAM, "checkpoint", *words], stderr=subprocess.PIPE, text=True)
            self.assertEqual(closed.returncode, 3, closed.stderr)
            self.assertIn("standard output cannot be written", closed.stderr)

    def test_words_that_are_none(self):
        for words, within in (([], "A subcommand is required"), (["lst", self.run], "did you mean 'list'?"), (["remove", self.run], "command line"),
                              (["list"], "paths is required"), (["list", "a", "b"], "paths"), (["verify"], "paths is required"),
                              (["diff", "a"], "2 required"), (["diff", "a", "b", "c"], "paths"), (["list", ""], "paths is empty"),
                              (["verify", self.run, ""], "paths is empty"), (["list", self.run, "--jsn"], "command line"),
                              (["verify", "x" * 5000], "expected a path of at most 4095 bytes"),
                              (["verify", os.fsdecode(b"caf\xe9")], "is not UTF-8"), (["list", self.run, "--backend", "gpu"], "--backend is 'gpu'")):
            run(*words, code=2, within=[within])
        for words in ([], ["list"], ["verify"], ["diff"]):
            self.assertIn("checkpoint", run(*words, "--help"))


if __name__ == "__main__":
    unittest.main()
