# SPDX-License-Identifier: Apache-2.0
"""jobs/setup/dekoder.def names what is there, copies all that its build reads, and installs the toolbox's packages. The image itself is
built and used by tests/slurm/test_container_nightly.py."""
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
RECIPE = (ROOT / "jobs/setup/dekoder.def").read_text()
SETUP = "/usr/local/share/dekoder-setup"


def section(name):
    return re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", RECIPE, re.S | re.M).group(1)


ARGUMENTS = dict(re.findall(r"^ +(\w+)=(\S+)$", section("arguments"), re.M))
FILES = dict(line.split() for line in section("files").splitlines() if line.strip())  # in the image, by those of the checkout


def post_line(beginning):
    """The words of the line of %post that begins so, with the defaults of the arguments."""
    line = next(line.strip() for line in section("post").splitlines() if line.strip().startswith(beginning))
    return shlex.split(re.sub(r"\{\{ (\w+) \}\}", lambda found: ARGUMENTS[found[1]], line))


class Recipe(unittest.TestCase):
    def test_arguments(self):
        readme = (ROOT / "README.md").read_text()
        self.assertEqual(set(re.findall(r"\{\{ (\w+) \}\}", RECIPE)), set(ARGUMENTS))
        self.assertLessEqual(set(re.findall(r"--build-arg (\w+)=", readme + RECIPE)), set(ARGUMENTS))

    def test_scripts_are_sound(self):
        for name in ("post", "environment", "runscript", "test"):
            script = re.sub(r"\{\{ (\w+) \}\}", lambda found: ARGUMENTS[found[1]], section(name))
            done = subprocess.run(["shellcheck", "-s", "sh", "-"], input=script, text=True, capture_output=True)
            self.assertEqual(done.returncode, 0, f"%{name}: {done.stdout}")

    def test_packages_are_those_of_the_toolbox(self):
        copied = {Path(source).name for source, target in FILES.items() if target == f"{SETUP}/{Path(source).name}"}
        needed = set(re.findall(r"\$here/([\w.]+)", (ROOT / "jobs/setup/install_packages.sh").read_text())) | {"install_packages.sh"}
        self.assertEqual(copied, needed)
        made = re.search(r'cp "\$here"/\{([\w.,]+)\} "\$part' + SETUP, (ROOT / "jobs/setup/make_root.sh").read_text())
        self.assertEqual(copied, set(made.group(1).split(",")))
        self.assertEqual(post_line("bash "), ["bash", f"{SETUP}/install_packages.sh"])

    def test_what_is_copied_is_what_is_built(self):
        """Configured as in the image; every file that the build reads is there; the post-processing needs no network."""
        with tempfile.TemporaryDirectory() as folder:
            for source, target in FILES.items():
                target = Path(folder + target)
                target.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, target)
            checkout = folder + post_line("cd ")[1]
            for words in (post_line("cmake -S"), ["ninja", "-C", "build", "-n", "dekoder", "dekoder_openmp_float", "dekoder_openmp_bf16"],
                          [*post_line("python3 -m pip"), "--target", f"{folder}/python"]):
                done = subprocess.run(words, cwd=checkout, text=True, capture_output=True, env={**os.environ, "HOME": folder})
                self.assertEqual(done.returncode, 0, f"{words}\n{done.stdout}{done.stderr}")
            self.assertIn(f"DEKODER_ISA:STRING={ARGUMENTS['isa']}", Path(checkout, "build/CMakeCache.txt").read_text())
            installed = [word for line in section("post").splitlines() if "install -D" in line for word in shlex.split(line)[6:]]
            targets = subprocess.run(["ninja", "-C", "build", "-t", "targets", "all"], cwd=checkout, text=True, capture_output=True).stdout
            for file in installed:
                self.assertRegex(targets, rf"(?m)^{Path(file).relative_to('build')}: ")
            self.assertTrue(Path(folder, "python/bin/dekoder-report").exists())


if __name__ == "__main__":
    unittest.main()
