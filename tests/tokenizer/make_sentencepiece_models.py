#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the models of test_sentencepiece.cpp, and what the Python package of SentencePiece (`pip install sentencepiece`)
encodes and decodes with them: python3 tests/tokenizer/make_sentencepiece_models.py

unigram: rules of normalization of its own, a dummy space in front, blanks that run together, unknown characters, a symbol of
         the user.
bpe:     as Llama's: the text as it is, bytes for unknown characters, a dummy space in front.
suffix:  unigram, with the dummy space behind the text."""
import io
import json
import os
import tempfile
from pathlib import Path

import sentencepiece

HERE = Path(__file__).resolve().parent
FIXTURES = HERE / "sentencepiece"

# Written for this script.
TEXT = """\
The miller keeps two horses, and the older one knows the way to the market by itself.
On Monday the cart was late, because the bridge over the stream had lost three planks.
"We shall mend it," said the carpenter, "when the water is low and the weather is kind."
Nobody in the village had counted the planks before; there were forty-two, and now thirty-nine.
The baker's daughter drew a plan of the bridge with chalk on the wall of the bakehouse.
She measured the distance between the banks with a string and thirteen knots.
Her father said that bread was easier to measure than water, and much easier than weather.
In the evening the carpenter came back with a saw, a hammer, a bag of nails and his brother.
They worked until the moon stood over the mill, and the horses watched them from the meadow.
By Thursday the bridge was whole again, and the market had cheese, apples, candles and rope.
The older horse would not walk over the new planks until the younger one had tried them.
What the miller thought of that he did not say, but he bought the younger horse an apple.
The winter was long, and the stream froze from bank to bank, so that no one needed the bridge.
Children slid over the ice with wooden shoes, and the baker sold warm rolls beside the stream.
When the thaw came the water rose higher than the oldest woman in the village remembered.
The bridge held. The carpenter walked over it twice a day and listened to the planks.
Numbers such as 12, 345 and 6789 stand in the book of the mill, with the weights of the sacks.
The naïve traveller asked for a café; he was shown the bakehouse, where there was tea.
"""

# Nothing, blanks, characters that the models do not know, rules of normalization, symbols of models.
SAMPLES = [
    "", " ", "   ", "a", "The bridge held.", " The  bridge   held. ", "bridge\nmill\n\n  stream\tend", "\n", "Thebridgeheld",
    "naïve café", "na\u0308ive \ufb01re \u2460", "日本語のテキスト", "zebra 日 quartz 本語", "😀 smile 😀😀", "<s> </s> <unk> <0x41>",
    "price<sep>weight <sep> <sep><sep>", "under▁scores▁", "12345 67890", "tab\tand\r\nreturn\x00nul", "e\u0301 \u00a0x\u00a0",
    "caf\u00e9 " * 20, TEXT,
]


def train(name, **options):
    model = io.BytesIO()
    options = {"model_type": "unigram", "num_threads": 1, "minloglevel": 2, **options}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXT.splitlines()), model_writer=model, **options)
    (FIXTURES / f"{name}.model").write_bytes(model.getvalue())


def main():
    FIXTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # a ligature, a blank, a mark behind a letter, a number in a circle, and a text that goes away
        rules = Path(folder) / "rules.tsv"
        rules.write_text("FB01\t66 69\nA0\t20\n9\t20\nA\t20\n65 301\tE9\n61 308\tE4\n2460\t31\nD\t\n")
        os.chdir(folder)  # the model keeps the name
        train("unigram", vocab_size=240, normalization_rule_tsv="rules.tsv", user_defined_symbols=["<sep>"],
              split_by_whitespace=False)
        os.chdir(HERE)
    train("bpe", model_type="bpe", vocab_size=420, byte_fallback=True, normalization_rule_name="identity",
          remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
          user_defined_symbols=["\n\n", "  "])
    train("suffix", vocab_size=180, normalization_rule_name="identity", treat_whitespace_as_suffix=True)
    cases = []
    for name in ("unigram", "bpe", "suffix"):
        processor = sentencepiece.SentencePieceProcessor(model_file=str(FIXTURES / f"{name}.model"))
        for text in SAMPLES:
            ids = processor.encode(text)
            cases.append({"model": name, "text": text, "ids": ids, "decoded": processor.decode(ids)})
        # tokens that no text gives: marks, the unknown token, bytes of a character that others follow
        every = list(range(processor.vocab_size()))
        cases.append({"model": name, "text": None, "ids": every[:3] + every[260:] + [1, 2], "decoded":
                      processor.decode(every[:3] + every[260:] + [1, 2])})
    (FIXTURES / "expected.json").write_text(json.dumps(cases, indent=0).replace(",\n", ",") + "\n")


if __name__ == "__main__":
    main()
