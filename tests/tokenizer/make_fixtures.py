# SPDX-License-Identifier: Apache-2.0
"""Writes tests/tokenizer/fixtures: three small vocabularies trained by Hugging Face's `tokenizers`, and texts with the ids
that `tokenizers` and OpenAI's `tiktoken` give them.

    python3 -m venv venv && venv/bin/pip install tiktoken==0.14.0 tokenizers==0.23.3
    venv/bin/python tests/tokenizer/make_fixtures.py

    gpt2.json, cl100k.json, qwen2.json   tokenizer.json files with the split pattern of that name. cl100k has ignore_merges and
                                         all ways to cut a token as merges, as Llama 3's has; qwen2 NFC, its special tokens
                                         first, and added tokens that are not special
    gpt2.bpe, gpt2_encoder.json          GPT-2's two files of the same vocabulary as gpt2.json
    cl100k.tiktoken                      tiktoken's rank file of the same vocabulary as cl100k.json
    texts.json                           a list of {name, text, special: whether special tokens are recognised, and the ids:
                                         gpt2, cl100k, qwen2}
The libraries differ in their versions of Unicode: texts have only code points that were assigned in Unicode 15.0 or before.
Where both libraries can encode a text, the script fails unless they agree.
"""
import base64
import json
import pathlib
import random
import unicodedata

import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

FOLDER = pathlib.Path(__file__).parent / "fixtures"
TOKENS = 600

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST

ENGLISH = """The lamp stood in the window of the harbour office, and whoever came in late at night could see it from the pier. \
It wasn't bright; the keeper's daughter said it didn't have to be. "We've had it for 120 years," she'd say, "and they're still \
coming home by it. I'm told that's what lamps are for." There were 3 boats in 1987, 14 in 1999 and 210 in 2024, and she'll tell \
you the name of each.

    "What's the hour?"\t"It's a quarter past ten," he answered; "you'd better be going."
They went along the quay, past the ropes and the nets, the barrels and the crates -- all of which were wet -- and came to the \
house at the end. The door was open. Nobody was there, but the kettle was boiling, and on the table there stood four cups.
"""
C_SOURCE = """/* The number of set bits, one byte after another. */
#include <stddef.h>
#include <stdint.h>

static const uint8_t bits_of[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};

size_t count_bits(const unsigned char *bytes, size_t size) {
\tsize_t count = 0;
\tfor (size_t i = 0; i < size; ++i) {
\t\tif (bytes[i] == 0x00)
\t\t\tcontinue;  // nothing to add
\t\tcount += bits_of[bytes[i] & 0xF] + bits_of[bytes[i] >> 4];
\t}
\treturn count;
}

#define MAX(a, b) ((a) > (b) ? (a) : (b))
int main(int argc, char **argv) {
    return argc > 1 && argv[1][0] != '\\0' ? 0 : !MAX(1, 0x7fff'ffff);
}
"""
# "All human beings are born free and equal in dignity and rights" or a greeting, and what else a script is known by.
SCRIPTS = """Größe, Maß und Übermut; der Bär fährt über die Brücke. L'été où nous étions là-bas, l'œuvre n'était pas achevée.
El niño comió piñas; ¿dónde está el año? ¡Aquí! Łódź, żółw, ćma. Příliš žluťoučký kůň. İstanbul'da ılık güneş. Ħaż-Żebbuġ.
Tiếng Việt có nhiều dấu thanh. Þingið er á Þingvöllum. Ŋ ŋ ƒ Ǆ ǅ ǆ ʰ ʱ ˆ ˜ ﬁ ﬂ ſ ẞ Å Å K K
Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι. ᾳ ᾼ ῼ Ω Ω. Все люди рождаются свободными и равными; ёж, Їжак, Ђорђе.
Բոլոր մարդիկ ծնվում են ազատ։ ყველა ადამიანი იბადება თავისუფალი Ⴀ Ა. כל בני האדם נולדו בני חורין שָׁלוֹם. يولد جميع الناس أحرارًا ١٢٣٤٥ ۶۷۸.
ܫܠܡܐ ދިވެހި ߒߞߏ ࠀࠁ ࡀࡁ. सभी मनुष्यों को गौरव और अधिकारों १२३४. সমস্ত মানুষ ৪৫৬ ਸਾਰੇ ਮਨੁੱਖ બધા મનુષ્યો ସମସ୍ତ ମନୁଷ୍ୟ மனிதப் பிறவியினர் ௧௨௰ ప్రతిపత్తి ಎಲ್ಲಾ ಮಾನವರೂ മനുഷ്യരെല്ലാവരും සියලු මනුෂ්‍යයෝ.
มนุษย์ทั้งหลายเกิดมา ๑๒๓ ມະນຸດທຸກຄົນ འགྲོ་བ་མིའི་རིགས ༠༡༢༣ လူတိုင်းသည် မနုဿ ၁၂၃ មនុស្សទាំងអស់ ១២៣ ᠮᠣᠩᠭᠣᠯ ᠐᠑ ሰው ሁሉ ፩፪፫ ᏣᎳᎩ ᐃᓄᒃᑎᑐᑦ ᚠᚢᚦ ᛮᛯᛰ ᚛ᚑᚌᚐᚋ᚜.
人人生而自由，在尊严和权利上一律平等。一二三〇〡〢 すべての人間は、生まれながらにして自由であり、カタカナ ｶﾀｶﾅ ㈠ ① ⑳ Ⅷ ⅷ ½ ² ₂. 모든 인간은 태어날 때부터 한글 ㅎㅏㄴ. ㄅㄆㄇ ꀀꀁ ꓐꓑ.
ⴰⵣⵓⵍ ⰀⰁ Ⲁⲁ ꙀꙊ Ꜳ ꤀ ꦄꦴ ꨀꨁ ꯀ ꯰꯱ 𐌰𐌱𐌲 𐍁 𐎀 𐎠𐏑 𐐀𐐨 𐒠 𐠀 𐡀 𐤀 𐤖 𒀀 𒐀 𓀀 𖠀 𖼀 𝐀𝑎𝟘𝟙 𝔄 𞤀 𞥐 𞸀 🄀 🅰 🆗 𠀀𪛖 𫝀 𮯠 𰀀 𱍐.
© ® ™ € £ ¥ ₿ § ¶ † ‡ • … ‰ ′ ″ ‹› «» „“ ‚‘ ‐‑‒–—― ← ↑ → ⇒ ∀ ∂ ∃ ∅ ∈ √ ∞ ≤ ≥ ⌘ ─│┌ █ ■ ▲ ☀ ☃ ♠ ✓ ⠁⠃ ⟨⟩ ⸘ 〈〉《》「」 ﷺ ﹏ ！＂ ＡＢＣ １２３ ￥.
"""
SPACES = ["\t", "\v", "\f", "\r", "\n", " ", "\u0085", "\u00a0", "\u1680", "\u2000", "\u2003", "\u200a", "\u2028", "\u2029",
          "\u202f", "\u205f", "\u3000"]


def assigned(code_point):
    """In Unicode 15.0 or before, and for the normalizer of `tokenizers`, whose tables are older, too."""
    character = chr(code_point)
    if unicodedata.category(character) in ("Cn", "Cs", "Co"):
        return False
    if unicodedata.combining(character) == 0:
        return True
    pair = "\u0345" + character  # the highest combining class: a mark that is known comes to stand before it
    return normalizers.NFC().normalize_str(pair) == unicodedata.normalize("NFC", pair)


def texts():
    """(name, text) of each."""
    yield "empty", ""
    yield "english", ENGLISH
    yield "c source", C_SOURCE
    yield "scripts", SCRIPTS
    yield "scripts, decomposed", unicodedata.normalize("NFD", SCRIPTS)
    marks = ["'", "\u2019", "\u02bc", "\uff07"]
    ends = ["s", "S", "\u017f", "t", "T", "re", "RE", "Re", "rE", "ve", "VE", "m", "M", "ll", "LL", "lL", "l", "d", "D", "r", "v",
            "\u017fs", "st", "\ufb06", "\u1e9e", "x", "K", ""]
    for mark in marks:
        words = ["it", "\u00e9", "1 "] if mark == "'" else ["it"]
        yield f"contractions with {ascii(mark)}", "".join(
            w + mark + e + (" a" if i % 2 else "") for i, w in enumerate(words) for e in ends)
    yield "digits", " ".join("1234567890"[:n] for n in range(11)) + " 3.14159 -1e-10 1,234,567.89 0x1F 1a2b3c"
    digits = [chr(c) for c in range(0x20000) if assigned(c) and unicodedata.category(chr(c)) in ("Nd", "Nl", "No")]
    chosen = random.Random(1).sample(digits, 300)
    yield "digits of scripts", "".join(c + " a"[i % 2 :] * (i % 5 == 0) for i, c in enumerate(chosen))
    yield "white space alone", "".join(SPACES)
    source = random.Random(2)
    for after in ("", "a", "1", "!", "\u00e9", "\u0301"):
        yield f"white space before {ascii(after)}", "|".join(
            "".join(source.choices(SPACES, k=source.randint(1, 4))) + after for _ in range(60))
    for space in (" ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\u0085", " \n", "\n ", "\r\n \r\n\t"):
        yield f"runs of {ascii(space)}", "".join("x" + space * n + after for n in (1, 2, 3, 7) for after in ("y", "1", "?", " z"))
        yield f"{ascii(space)} at the end", "end" + space * 3
        yield f"{ascii(space)} alone", space * 5
    yield "line ends", "a\nb\r\nc\rd\n\re\n\n\nf\r\r\r\ng!\n\nh?\r\n i;\n  j \n k  \r\n  \n  l"
    yield "long runs of spaces", "".join(" " * n + "w" + "\n" * n + "\t" * n for n in (16, 31, 129))
    yield "combining marks", "e\u0301 a\u0308\u0304 q\u0307\u0323 q\u0323\u0307 \u0301a 1\u0301 \u0958 \u0915\u093c \u1100\u1161\u11a8 " \
        "\uac01 \uac00\u11a8 \u212b \u2126 \u0344 \u1e9b\u0323 A\u030a\u0327 \u0f73 \u0f71\u0f72 \U0001d15e \ufb1d \u05d9\u05b4 z" + "\u0301\u0316" * 40
    yield "emoji", "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7 " \
        "\U0001f44d\U0001f3fd 1\ufe0f\u20e3 #\ufe0f\u20e3 \u2764\ufe0f\u200d\U0001f525 \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    yield "controls", "".join(map(chr, range(0x20))) + "\x7f" + "".join(map(chr, range(0x80, 0xa0))) + "a\0b\0\0 \x00\x1b[1m\x08\u00ad\u200b\u200e\u2060\ufeff"
    yield "NULs", "\0" * 20 + "\0a \0 b"
    yield "noncharacters and private use", "\ufdd0\ufffe\uffff\U0001fffe\U0010ffff \ue000\uf8ff\U000f0000\U00100000"
    yield "long words", "antidisestablishmentarianism" * 12 + " " + "pneumono" * 30 + "\u00fc" * 200 + "\u4eba" * 100 + " " + "ab" * 70
    yield "long numbers and marks", "1234567890" * 30 + "=" * 150 + "-+" * 100 + "\u2500" * 90
    for length in (29, 30, 31, 32, 126, 127, 128, 129, 130):
        yield f"a word of {length}", " " + "the" * 50 + "\n" + ("thereness" * 20)[:length]
    yield "markup", "<p class=\"a b\">x &amp; y</p><!-- -->\n```c\nint x;\n```\n| a | b |\n|---|---|\n* _it_ **b** [l](http://a.b/c?d=e&f=%20#g)"
    source = random.Random(3)
    everything = [c for c in range(0x110000) if assigned(c)]
    small = [c for c in everything if c < 0x3000]
    for i in range(8):
        yield f"random code points {i}", "".join(chr(c) for c in source.choices(small if i % 2 else everything, k=160))
    alphabet = list("aeinorst'SDLM  \t\n\r\n019.,!-<|>_") + ["\u00e9", "e\u0301", "\u017f", "\u2019", "\u00a0", "\u4eba", "\u0660"]
    for i in range(12):
        yield f"random text {i}", "".join(source.choices(alphabet, k=300))


def texts_with_special():
    """Texts that hold special and added tokens of all three."""
    for mark in ("<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "    ", "Straße", "\u00e9t\u00e9"):
        yield f"special {ascii(mark)}", f"{mark}a{mark}{mark} b \n{mark}\n  {mark}  c' {mark}s{mark[:-1]}{mark[1:]}{mark}"
    yield "special, in parts", "<|endoftext|><|endoftext|<|endoftext|>|>< |endoftext|><|ENDOFTEXT|><<|im_start|>user\nHi<|im_end|>\n<tool_call><tool_call"
    yield "special, decomposed", unicodedata.normalize("NFD", "\u00e9t\u00e9 \u00e9t\u00e9<|im_end|>\u00e9") + "\u0301<|im_end|>\u0301"


def trained(pattern, **kinds):
    tokenizer = Tokenizer(models.BPE(ignore_merges=kinds.get("ignore_merges", False)))
    if pattern == GPT2:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    if kinds.get("composes"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=TOKENS, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=kinds.get("special_first", []))
    source = random.Random(4)
    names = [w for text in (ENGLISH, C_SOURCE, SCRIPTS) for w in text.split(" ")]
    tokenizer.train_from_iterator([ENGLISH, C_SOURCE, SCRIPTS, SCRIPTS, " ".join(source.choices(names, k=4000))], trainer)
    tokenizer.add_special_tokens(kinds.get("special", []))
    tokenizer.add_tokens(kinds.get("added", []))
    return tokenizer


def byte_of_character():
    """GPT-2's alphabet, from the ids that `tokenizers` gives it in no order: built from its definition."""
    kept = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    others = [b for b in range(256) if b not in kept]
    return {chr(b): b for b in kept} | {chr(0x100 + i): b for i, b in enumerate(others)}


ALPHABET = byte_of_character()


def ranks(tokenizer, special):
    """Bytes with their ids, for tiktoken."""
    return {bytes(ALPHABET[c] for c in text): token for text, token in tokenizer.get_vocab(with_added_tokens=False).items()
            if text not in special}


def write(name, text):
    (FOLDER / name).write_bytes(text.encode())


def compact(value):
    return json.dumps(value, separators=(",", ":")) + "\n"


def main():
    assert tuple(map(int, unicodedata.unidata_version.split("."))) <= (15, 0, 0), "run it with Python 3.12 or older"
    FOLDER.mkdir(exist_ok=True)
    made = {
        "gpt2": trained(GPT2, special=["<|endoftext|>"]),
        "cl100k": trained(CL100K, ignore_merges=True, special=["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]),
        "qwen2": trained(QWEN2, composes=True, special_first=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                         added=[AddedToken("<tool_call>", normalized=False), AddedToken("    ", normalized=False),
                                AddedToken("Straße", normalized=False), AddedToken("\u00e9t\u00e9", normalized=True)]),
    }
    patterns = {"gpt2": GPT2, "cl100k": CL100K, "qwen2": QWEN2}

    # cl100k: merges as a conversion from tiktoken's ranks makes them.
    document = json.loads(made["cl100k"].to_str())
    vocab = document["model"]["vocab"]
    document["model"]["merges"] = [
        [whole[:cut], whole[cut:]] for whole in sorted(vocab, key=vocab.get)
        for cut in sorted((c for c in range(1, len(whole)) if whole[:c] in vocab and whole[c:] in vocab),
                          key=lambda c: (vocab[whole[:c]], vocab[whole[c:]]))]
    made["cl100k"] = Tokenizer.from_str(json.dumps(document))

    encodings = {}
    for name, tokenizer in made.items():
        special = {t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special}
        encodings[name] = tiktoken.Encoding(
            name, pat_str=patterns[name], mergeable_ranks=ranks(tokenizer, special),
            special_tokens={s: tokenizer.token_to_id(s) for s in special})
        write(f"{name}.json", compact(json.loads(tokenizer.to_str())))

    model = json.loads(made["gpt2"].to_str())["model"]
    write("gpt2.bpe", "#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in model["merges"]))
    write("gpt2_encoder.json", compact(model["vocab"] | {"<|endoftext|>": made["gpt2"].token_to_id("<|endoftext|>")}))
    by_rank = sorted(ranks(made["cl100k"], set()).items(), key=lambda item: item[1])
    write("cl100k.tiktoken", "".join(f"{base64.b64encode(b).decode()} {r}\n" for b, r in by_rank))

    entries, differ = [], []
    for recognised in (True, False):
        for text_name, text in [*(texts() if recognised else ()), *texts_with_special()]:
            entry = {"name": text_name, "text": text, "special": recognised}
            for name, tokenizer in made.items():
                tokenizer.encode_special_tokens = not recognised
                entry[name] = tokenizer.encode(text, add_special_tokens=False).ids
                if name == "qwen2" and ("    " in text or "ße" in text or "te" in text or "call" in text or "\u00e9t" in text):
                    continue  # tiktoken has no added tokens that are not special
                plain = unicodedata.normalize("NFC", text) if name == "qwen2" else text
                other = encodings[name].encode(plain, allowed_special="all" if recognised else set(), disallowed_special=())
                if other != entry[name]:
                    differ.append((name, text_name, recognised))
            entries.append(entry)
    assert not differ, differ
    write("texts.json", "[\n" + ",\n".join(compact(e).rstrip() for e in entries) + "\n]\n")
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"{len(entries)} texts, {size} bytes; vocabularies of {[t.get_vocab_size() for t in made.values()]}")
    assert size < 400_000


if __name__ == "__main__":
    main()
