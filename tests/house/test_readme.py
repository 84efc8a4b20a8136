# SPDX-License-Identifier: Apache-2.0
"""The commands that the README shows run as they stand there, only smaller; its links and files exist."""
import os
import re
import shlex
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
DEKODER = Path(os.environ.get("DEKODER_BINARY_DIR", ROOT / "build/tests")) / "dekoder"
README = (ROOT / "README.md").read_text()

# Appended to the README's commands, so that each ends in a moment.
TINY = ["model.layers=1", "model.heads=2", "model.channels=16", "model.feed_forward=16", "model.context=32",
        "training.batch=2", "training.micro_batch=0", "training.steps=3", "training.warmup_steps=1", "evaluation.tokens=64",
        "sampling.tokens=4", 'attention.texts=["It is a truth"]', "attention.window_tokens=8"]
SMALLER = {
    "train": [word for setting in TINY for word in ("--set", setting)],
    "bench": ["--set", "model.layers=1", "--set", "model.context=32", "--set", "model.vocabulary=64", "--steps", "1"],
    "generate": ["--tokens", "4"],
}


def shell_lines():
    for block in re.findall(r"```sh\n(.*?)```", README, re.S):
        for line in block.splitlines():
            command = line.split("  #")[0].strip()
            if command:
                yield command


class Readme(unittest.TestCase):
    def test_dekoder_commands_run(self):
        lines = [line for line in shell_lines() if line.startswith("dekoder ")]
        self.assertEqual({shlex.split(line)[1] for line in lines},
                         {"prepare", "tokens", "describe", "train", "eval", "generate", "status", "bench", "compare", "watch", "plan",
                          "attention", "predictions", "checkpoint", "runs", "export", "import"})
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "input").symlink_to(ROOT / "input")
            for text in ("data/austen.txt", "texts/mine.txt"):
                (Path(folder) / text).parent.mkdir()
                (Path(folder) / text).write_text("It is a truth universally acknowledged. " * 100)
            for line in lines:
                words = shlex.split(line)
                command = [str(DEKODER), *words[1:], *SMALLER.get(words[1], [])]
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
                different = words[1:3] == ["checkpoint", "diff"]  # a pair with other settings
                self.assertEqual(done.returncode, int(different), f"{line}\n{done.stdout}\n{done.stderr}")

    def test_python_lines_read_a_checkpoint(self):
        """The three lines are valid Python and name a dataset that checkpoints have."""
        block = re.search(r"```python\n(.*?)```", README, re.S).group(1)
        compile(block, "README.md", "exec")
        name = re.search(r'f\["parameters/([^"]+)"\]', block).group(1)
        described = subprocess.run([str(DEKODER), "describe", str(ROOT / "input/gpt2-124m.yaml")], capture_output=True,
                                   text=True, check=True).stdout
        self.assertIn(name, described)

    def test_scripts_and_links_exist(self):
        for line in shell_lines():
            words = shlex.split(line)
            if words[0] == "bash":
                self.assertTrue((ROOT / words[1]).is_file(), line)
        for target in re.findall(r"\]\(([^)#]+)\)", README):
            if "://" not in target:
                self.assertTrue((ROOT / target).exists(), target)
        for path in re.findall(r"`((?:input|jobs|tests|src)/[\w./-]+)`", README):
            self.assertTrue((ROOT / path).exists(), path)

    def test_presets_exist(self):
        presets = (ROOT / "CMakePresets.json").read_text()
        for preset in re.findall(r"--preset (\w+)", README):
            self.assertIn(f'"name": "{preset}"', presets)


if __name__ == "__main__":
    unittest.main()
