# SPDX-License-Identifier: Apache-2.0
"""Prints the digests of regression/test_gpt2_tokens.py: of the ids that OpenAI's `tiktoken` gives with GPT-2's merges, to
Jane Austen's novels and to the texts of fixtures/texts.json. Fails unless Hugging Face's `tokenizers` gives the same.

    python3 -m venv venv && venv/bin/pip install tiktoken==0.14.0 tokenizers==0.23.3
    python3 jobs/setup/gpt2_merges.py data/gpt2 && python3 jobs/setup/austen_corpus.py data/austen.txt
    venv/bin/python tests/tokenizer/gpt2_digests.py data/gpt2 data/austen.txt
"""
import array
import hashlib
import json
import pathlib
import sys

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tokenizers import ByteLevelBPETokenizer

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
END_OF_TEXT = 50256

merges, corpus = map(pathlib.Path, sys.argv[1:])
files = str(merges / "vocab.bpe"), str(merges / "encoder.json")
encoding = tiktoken.Encoding("gpt2", pat_str=GPT2, mergeable_ranks=data_gym_to_mergeable_bpe_ranks(*files),
                             special_tokens={"<|endoftext|>": END_OF_TEXT}, explicit_n_vocab=END_OF_TEXT + 1)
tokenizer = ByteLevelBPETokenizer(files[1], files[0])
fixtures = json.loads((pathlib.Path(__file__).parent / "fixtures/texts.json").read_text(encoding="utf-8"))
for name, texts in (("Austen", [corpus.read_text(encoding="utf-8")]),
                    ("fixtures", [entry["text"] for entry in fixtures if entry["text"]])):
    ids = []
    for text in texts:
        ids += encoding.encode_ordinary(text)
        if "<|endoftext|>" not in text:  # `tokenizers` takes it for the mark
            assert tokenizer.encode(text).ids == ids[len(ids) - len(tokenizer.encode(text).ids):], text
        ids.append(END_OF_TEXT)
    words = array.array("I", ids)
    assert words.itemsize == 4 and sys.byteorder == "little"
    print(f"{name}: {len(words)} tokens, SHA-256 {hashlib.sha256(words).hexdigest()}")
