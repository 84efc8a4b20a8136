#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the merges that Hugging Face's `tokenizers` finds in the text of test_byte_pair_training.cpp into that file.

    pip install tokenizers    (the merges there are those of 0.23.3)
    python3 tests/tokenizer/make_training_fixture.py
"""

import json
import pathlib
import re
import textwrap

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

MERGES = 400
FOLDER = pathlib.Path(__file__).resolve().parent
TEST = FOLDER / "test_byte_pair_training.cpp"
PATTERNS = FOLDER.parents[1] / "src/tokenizer/split_pattern.cpp"


def merges_of(text: str, pattern: str) -> list[tuple[int, int]]:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(pattern), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = BpeTrainer(vocab_size=256 + MERGES, min_frequency=2, special_tokens=[], show_progress=False,
                         initial_alphabet=ByteLevel.alphabet())
    tokenizer.train_from_iterator([text], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = model["vocab"]
    for place, (left, right) in enumerate(model["merges"]):
        assert tokens[left + right] == 256 + place
    return [(tokens[left], tokens[right]) for left, right in model["merges"]]


def main() -> None:
    source = TEST.read_text(encoding="utf-8")
    text = re.search(r'R"text\((.*?)\)text"', source, re.S).group(1)
    patterns = PATTERNS.read_text(encoding="utf-8")
    for name in ("gpt2", "cl100k", "qwen2"):
        pattern = re.search(rf'case SplitPattern::{name}:\s*return R"\((.*?)\)";', patterns, re.S).group(1)
        ids = textwrap.fill(" ".join(f"{left} {right}" for left, right in merges_of(text, pattern)), 115)
        source = re.sub(rf'(SplitPattern::{name}, R"merges\().*?(\)merges")', rf"\g<1>\n{ids}\n\g<2>", source,
                        flags=re.S)
    TEST.write_text(source, encoding="utf-8")


if __name__ == "__main__":
    main()
