# SPDX-License-Identifier: Apache-2.0
"""The house keeps its order: include direction, the map in src/README.md, licence lines, kernel labels."""
import os
import re
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
SRC = ROOT / "src"

# What each folder may include, besides itself.
MAY_INCLUDE = {
    "base": set(),
    "config": {"base"},
    "tokenizer": {"base"},
    "tensor": {"base"},
    "kernels": {"base", "tensor"},
    "layers": {"base", "config", "tensor", "kernels"},
    "model": {"base", "config", "tensor", "kernels", "layers"},
    "data": {"base", "config", "tokenizer", "tensor", "io"},
    "parallel": {"base", "config", "tensor"},
    "io": {"base", "config", "tensor"},
    "huggingface": {"base", "config", "tokenizer", "tensor", "io"},
    "inference": {"base", "config", "tokenizer", "tensor", "kernels", "layers", "model", "data", "io"},
    "train": {"base", "config", "tokenizer", "tensor", "kernels", "layers", "model", "data", "parallel", "io", "inference"},
    "commands": {"base", "config", "tokenizer", "tensor", "kernels", "layers", "model", "data", "parallel", "io", "huggingface", "inference", "train"},
    "backend": {"base", "config", "commands", "parallel", "tensor"},
    "launcher": {"base", "config", "backend"},
}
# Single files that may be seen beyond that.
ALSO = {
    "launcher": {"backend/backend_abi.h"},
}


def sources():
    return sorted(p for p in SRC.rglob("*") if p.suffix in (".hpp", ".cpp", ".h"))


class Structure(unittest.TestCase):
    def test_include_direction(self):
        wrong = []
        for path in sources():
            folder = path.relative_to(SRC).parts[0]
            self.assertIn(folder, MAY_INCLUDE, f"{path}: a folder that the include rule does not know")
            for number, line in enumerate(path.read_text().splitlines(), 1):
                found = re.match(r'\s*#\s*include "([^"]+)"', line)
                if not found:
                    continue
                target = found.group(1)
                self.assertTrue((SRC / target).is_file(), f"{path}:{number}: {target} is not under src")
                other = target.split("/")[0]
                if other != folder and other not in MAY_INCLUDE[folder] and target not in ALSO.get(folder, ()):
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {folder} must not include {target}")
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))

    def test_launcher_knows_no_kokkos(self):
        for path in sources():
            if path.relative_to(SRC).parts[0] in ("launcher", "base", "config", "tokenizer"):
                self.assertNotRegex(path.read_text(), r"#include <Kokkos", f"{path} includes Kokkos")

    def test_headers_compile_alone(self):
        """A unit's .cpp includes its header before all else, so that it compiles only if the header does alone (the other
        headers: target headers_alone); every header may be included twice."""
        for path in sources():
            if path.suffix == ".hpp":
                self.assertRegex(path.read_text(), r"(?m)^#pragma once$", f"{path} has no #pragma once")
            elif path.suffix == ".cpp" and path.with_suffix(".hpp").is_file():
                first = re.search(r"#\s*include\s+(\S+)", path.read_text()).group(1)
                own = f'"{path.relative_to(SRC).with_suffix(".hpp").as_posix()}"'
                self.assertEqual(first, own, f"{path} must include its own header first")

    def test_map_is_true(self):
        """The tree in src/README.md names every unit on disk and nothing else: `folder/  unit unit ...` lines."""
        text = (SRC / "README.md").read_text()
        block = re.search(r"```\n(.*?)```", text, re.S).group(1)
        mapped = set()
        folder = None
        for line in block.splitlines():
            start = re.match(r"([\w/]+)/\s+(.*)", line)
            if start:
                folder, rest = start.groups()
            elif folder and line.startswith(" "):
                rest = line
            else:
                folder = None
                continue
            for unit in re.sub(r"\(.*?\)", "", rest.split("  #")[0]).split():
                mapped.add(f"{folder}/{unit}")
        on_disk = {f"{p.parent.relative_to(SRC)}/{p.stem}" for p in sources()}
        self.assertEqual(sorted(mapped - on_disk), [], "the map names units that are not on disk")
        self.assertEqual(sorted(on_disk - mapped), [], "units on disk that the map does not name")

    def test_licence_line(self):
        for pattern in ("src/**/*", "tests/**/*", "jobs/**/*"):
            for path in ROOT.glob(pattern):
                if path.suffix in (".hpp", ".cpp", ".h", ".py", ".sh", ".cmake") or path.name == "CMakeLists.txt":
                    head = "\n".join(path.read_text().splitlines()[:3])
                    self.assertIn("SPDX-License-Identifier: Apache-2.0", head, f"{path}: no licence line")

    def test_scripts_go_where_they_say(self):
        """With CDPATH, which users export, `cd folder` goes to another one and prints its name: each script unsets it first. Not
        install_packages.sh, whose text is the toolbox's recipe: any change of it makes every root anew."""
        for path in (path for pattern in (".ci/*", "jobs/**/*", "tests/*.sh", "tests/house/*.sh", "tests/support/*.sh")
                     for path in ROOT.glob(pattern)):
            if not path.is_file() or path.name == "install_packages.sh" or not re.match(r"#!.*\b(ba)?sh\n", path.read_text()):
                continue
            code = re.sub(r"(?m)^\s*#.*", "", path.read_text())
            if changes := re.search(r"\bcd\s", code):
                self.assertIn("CDPATH", code[: changes.start()], f"{path}: unset CDPATH before the first cd")

    def test_kernel_labels(self):
        """Every Kokkos launch is labelled dekoder::<function>."""
        launch = re.compile(r"(Kokkos::parallel_(?:for|reduce|scan)|\bfor_each_(?:row|task))\s*\(\s*([^,]+),", re.S)
        for path in sources():
            if path.relative_to(SRC).parts[0] not in ("kernels", "tensor", "layers", "model", "inference", "train", "commands"):
                continue
            for found in launch.finditer(path.read_text()):
                argument = found.group(2).strip()
                nested = re.match(r"Kokkos::(Team|Thread)", argument)
                if not nested and "label" not in argument and not argument.startswith("const std::string"):
                    self.assertRegex(argument, r'^"dekoder::[a-z0-9_:]+"$', f"{path}: label {argument}")

    def test_tensors_have_a_role(self):
        """Sources say MasterTensor or StoredTensor; the names without a role are for tests."""
        for path in sources():
            if path != SRC / "tensor" / "tensor.hpp":
                self.assertNotRegex(path.read_text(), r"\b(Const)?Tensor[1-5]\b", f"{path}: which role?")

    def test_no_float_atomics(self):
        for path in sources():
            self.assertNotRegex(path.read_text(), r"atomic_(add|fetch_add|sub)", f"{path}: atomics make runs differ")


if __name__ == "__main__":
    unittest.main()
