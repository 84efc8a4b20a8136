# SPDX-License-Identifier: Apache-2.0
"""Wrong configurations, command lines, environments, texts, token files, prompts and runs: each is refused by the real
command with the expected exit code and a message that says what is wrong. One table per kind; every row stands alone."""
import gzip
import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import yaml

SOURCE = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
DEKODER = Path(os.environ.get("DEKODER_BINARY_DIR", SOURCE / "build" / "openmp")) / "dekoder"

TEXT = "It is a truth universally acknowledged, that a man must be in want of a wife.\n" * 40
SMALL = """model: {layers: 1, heads: 2, channels: 8, feed_forward: 16, context: 8}
data: {tokens: byte.h5}
training: {steps: 1, batch: 2, warmup_steps: 0}
evaluation: {tokens: 32}
sampling: {prompt: "It", tokens: 4}
"""

LONG = "x" * 3_000_000
WORD = "x" * 100_000  # a command line takes 128 KiB in a word

# YAML text, fragments of the message (all must be there); the file is c.yaml, the exit code 2.
CONFIGURATIONS = [
    ("", ["c.yaml: the configuration is empty"]),
    ("# nothing but a comment\n", ["c.yaml: the configuration is empty"]),
    ("just a sentence\n", ["c.yaml:1:1: got 'just a sentence'; expected sections"]),
    ("- model\n- data\n", ["c.yaml:1:1: got a list"]),
    ("model:\n\tlayers: 3\n", ["c.yaml:2:", "not valid YAML"]),
    ("model: {layers: 3\n", ["not valid YAML"]),
    ("model:\n  layers: [1\n", ["not valid YAML"]),
    ("model:\n  norm: \"pre\n", ["c.yaml:2:9: model.norm is 'pre '"]),  # yaml-cpp ends the text with the file
    ("model:\n  layers: 3\n heads: 4\n", ["c.yaml:3:", "not valid YAML"]),
    ("model:\n  layers: *unknown\n", ["not valid YAML"]),
    ("[" * 5000, ["not valid YAML"]),
    ("model: {}\n---\nmodel: {}\n", ["c.yaml:3:1: a second YAML document"]),
    ("modle: {}\n", ["c.yaml:1:1: unknown section 'modle'; did you mean 'model'?"]),
    ("layers: 4\n", ["c.yaml:1:1: unknown section 'layers'; did you mean 'model.layers'?"]),
    ("zzzzzzzz: 4\n", ["unknown section 'zzzzzzzz'; expected one of model, data, training"]),
    ("model: 4\n", ["c.yaml:1:8: section 'model' is '4'; expected `key: value` lines"]),
    ("model: [layers]\n", ["c.yaml:1:8: section 'model' is a list"]),
    ("model: {}\nmodel: {}\n", ["c.yaml:2:1: section 'model' stands here a second time"]),
    ("model:\n  layers: 1\n  layers: 2\n", ["c.yaml:3:3: model.layers was already set at c.yaml:2:11"]),
    ("model:\n  layrs: 1\n", ["c.yaml:2:3: unknown key 'layrs' in section 'model'; did you mean 'model.layers'?"]),
    ("model:\n  steps: 1\n", ["unknown key 'steps' in section 'model'; did you mean 'training.steps'?"]),
    ("model:\n  <<: {layers: 1}\n", ["unknown key '<<'"]),
    ("model:\n  [1, 2]: 3\n", ["unknown key a list"]),
    ("model:\n  layers:\n", ["c.yaml:2:3: model.layers is nothing; expected a whole number from 1 to 9999"]),
    ("model:\n  layers: four\n", ["c.yaml:2:11: model.layers is 'four'; expected a whole number"]),
    ("model:\n  layers: 4.0\n", ["model.layers is '4.0'; expected a whole number"]),
    ("model:\n  layers: 1e1\n", ["model.layers is '1e1'; expected a whole number"]),
    ("model:\n  layers: 0x4\n", ["model.layers is '0x4'; expected a whole number"]),
    ("model:\n  layers: \"4\"\n", ["model.layers is '4'; expected a whole number"]),
    ("model:\n  layers: [4]\n", ["model.layers is a list; expected a whole number"]),
    ("model:\n  layers: 0\n", ["model.layers is '0'; expected a whole number from 1"]),
    ("model:\n  layers: -4\n", ["model.layers is '-4'"]),
    ("model:\n  heads: 4294967296\n", ["model.heads is '4294967296'", "at most 2147483647"]),
    ("model:\n  heads: 0\n", ["model.heads is '0'"]),
    ("model:\n  channels: 0\n", ["model.channels is '0'"]),
    ("model:\n  feed_forward: 0\n", ["model.feed_forward is '0'"]),
    ("model:\n  context: 0\n", ["model.context is '0'"]),
    ("model:\n  vocabulary: -1\n", ["model.vocabulary is '-1'"]),
    ("model:\n  vocabulary_multiple: 0\n", ["model.vocabulary_multiple is '0'"]),
    ("model:\n  positions: alibi\n", ["model.positions is 'alibi'; expected one of none, sinusoidal, learned, rotary"]),
    ("model:\n  norm: Pre\n", ["model.norm is 'Pre'; expected one of pre, post; did you mean 'pre'?"]),
    ("model:\n  activation: gelu\n", ["model.activation is 'gelu'; expected one of relu, gelu_tanh, gelu_erf"]),
    ("model:\n  initialisation: gpt3\n", ["did you mean 'gpt2'?"]),
    ("model:\n  norm_epsilon: 0\n", ["model.norm_epsilon is '0'; expected a number above 0"]),
    ("model:\n  bias: maybe\n", ["model.bias is 'maybe'; expected true or false"]),
    ("model:\n  sliding_window: 128\n", ["model.sliding_window is '128'; expected a list"]),
    ("model:\n  sliding_window: [128, -1]\n", ["model.sliding_window[1] is '-1'"]),
    ("model: {layers: 2, sliding_window: [16, 16, 0]}\n", ["model.sliding_window has 3 numbers but model.layers is 2; expected at most one for each layer"]),
    ("model:\n  qk_norm: rms\n", ["model.qk_norm is 'rms'; expected true or false"]),
    ("model:\n  bias: 1\n", ["model.bias is '1'; expected true or false"]),
    ("model:\n  dropout: 1.0\n", ["model.dropout is '1.0'; expected a number from 0 to below 1"]),
    ("model:\n  dropout: -0.1\n", ["model.dropout is '-0.1'"]),
    ("model:\n  logit_soft_cap: -1\n", ["model.logit_soft_cap is '-1'; expected a number of at least 0"]),
    ("training:\n  z_loss: -1e-4\n", ["training.z_loss is '-1e-4'; expected a number of at least 0"]),
    ("training:\n  z_loss: 1e-40\n", ["training.z_loss is '1e-40'", "in single precision, where it is 0"]),
    ("model:\n  dropout: 0,1\n", ["model.dropout is '0,1'"]),
    ("data:\n  tokens: [a.h5, [b.h5]]\n", ["data.tokens is a list; expected a path, or a list of paths in [ ]"]),
    ("data: [{tokens: a.h5, weigth: 1}]\n", ["c.yaml:1:23: data[0] has the unknown key 'weigth'; did you mean 'weight'?"]),
    ("data: {tokens: [a.h5, b.h5], weights: [1, 0]}\n", ["data.weights[1] is '0'; expected a number above 0"]),
    ("data: {tokens: a.h5, weights: [1, 2]}\n", ["data.weights has 2 numbers and data.tokens names 1 files"]),
    ("training:\n  seed: -1\n", ["training.seed is '-1'"]),
    ("training:\n  seed: 18446744073709551616\n", ["training.seed", "at most 18446744073709551615"]),
    ("training:\n  steps: 0\n", ["training.steps is '0'"]),
    ("training:\n  batch: 0\n", ["training.batch is '0'"]),
    ("training:\n  learning_rate: 0\n", ["training.learning_rate is '0'; expected a number above 0"]),
    ("training:\n  learning_rate: .nan\n", ["training.learning_rate is '.nan'"]),
    ("training:\n  learning_rate: nan\n", ["training.learning_rate is 'nan'"]),
    ("training:\n  learning_rate: .inf\n", ["training.learning_rate is '.inf'"]),
    ("training:\n  learning_rate: 1e999\n", ["training.learning_rate is '1e999'"]),
    ("training:\n  learning_rate: -1e-3\n", ["training.learning_rate is '-1e-3'"]),
    ("training:\n  schedule: cosin\n", ["training.schedule is 'cosin'", "did you mean 'cosine'?"]),
    ("training:\n  beta1: 1\n", ["training.beta1 is '1'"]),
    ("training:\n  optimizer: mion\n", ["training.optimizer is 'mion'; expected one of adamw, muon; did you mean 'muon'?"]),
    ("training:\n  momentum: 1\n", ["training.momentum is '1'; expected a number from 0 to below 1"]),
    ("training:\n  average: 1\n", ["training.average is '1'; expected a number from 0 to below 1"]),
    ("training:\n  batch_warmup: [0]\n", ["training.batch_warmup[0] is '0'; expected a whole number of at least 1"]),
    ("training:\n  batch_warmup: [4]\n", ["training.batch_warmup has 1 sizes of 0 steps each; expected both or neither"]),
    ("training:\n  batch_warmup_steps: 4\n", ["training.batch_warmup has 0 sizes of 4 steps each; expected both or neither"]),
    ("training:\n  batch: 16\n  micro_batch: 4\n  batch_warmup: [4, 6]\n  batch_warmup_steps: 4\n",
     ["training.batch_warmup has 6, no multiple of the micro-batch of 4; choose one, or set training.micro_batch to a divisor"]),
    ("training:\n  beta2: 1.5\n", ["training.beta2 is '1.5'"]),
    ("training:\n  epsilon: 0\n", ["training.epsilon is '0'"]),
    ("training:\n  weight_decay: -1\n", ["training.weight_decay is '-1'"]),
    ("training:\n  clip_norm: -1\n", ["training.clip_norm is '-1'"]),
    ("training:\n  decay_fraction: 1.1\n", ["training.decay_fraction is '1.1'; expected a number from 0 to 1"]),
    ("evaluation:\n  every: -1\n", ["evaluation.every is '-1'"]),
    ("sampling:\n  top_p: 0\n", ["sampling.top_p is '0'; expected a number above 0 to 1"]),
    ("sampling:\n  top_p: 1.1\n", ["sampling.top_p is '1.1'"]),
    ("sampling:\n  temperature: -1\n", ["sampling.temperature is '-1'"]),
    ("sampling:\n  prompt: \"\"\n", ["sampling.prompt is empty"]),
    ("checkpoint:\n  keep: 0\n", ["checkpoint.keep is '0'"]),
    ("attention:\n  steps: 5\n", ["c.yaml:2:10: attention.steps is '5'; expected a list in [ ], each a whole number of at least 0"]),
    ("attention:\n  layers: [0, x]\n", ["attention.layers[1] is 'x'; expected a whole number of at least 0"]),
    ("attention:\n  heads: [-1]\n", ["attention.heads[0] is '-1'"]),
    ("attention:\n  texts: [[a]]\n", ["attention.texts[0] is a list; expected a text"]),
    ("attention:\n  texts: [\"\"]\n", ["attention.texts has an empty text"]),
    ("attention:\n  layers: [4]\n", ["attention.layers names layer 4 but model.layers is 4; expected 0 to 3"]),
    ("attention:\n  heads: [1, 1]\n", ["attention.heads names a head twice"]),
    ("attention:\n  steps: [2000]\n", ["attention.steps has 2000 but training.steps is 1000"]),
    ("attention:\n  window_tokens: 65\n", ["attention.window_tokens 65 is more than model.context 64"]),
    ("attention:\n  max_megabytes: 0\n", ["attention.max_megabytes is '0'"]),
    ("model: {heads: 3}\n", ["c.yaml:1:16: model.heads 3 does not divide model.channels 128"]),
    ("model: {heads: 1, channels: 127, positions: sinusoidal}\n", ["model.channels 127 is odd"]),
    ("model: {norm: post}\ntraining: {precision: bf16, residual: float}\n", ["c.yaml:2:39: training.residual float needs model.norm pre"]),
    ("training: {batch: 10, micro_batch: 3}\n", ["training.micro_batch 3 does not divide training.batch 10"]),
    ("training: {steps: 10, warmup_steps: 11}\n", ["training.warmup_steps 11 is more than training.steps 10"]),
    ("training: {final_learning_rate: 1}\n", ["training.final_learning_rate 1 is above training.learning_rate 0.001"]),
    ("training: {batch: 1000000}\n", ["one tensor of this model would have", "lower training.micro_batch"]),
    ("training: {learning_rate: 5e-5, final_learning_rate: 1.0e-4}\n", ["c.yaml:1:54: training.final_learning_rate 0.0001 is above"]),
    ("training: {steps: 9, warmup_steps: 8}\n", ["leave schedule cosine no step to decay; expected at most 7"]),
    ("training:\n  beta2: 0.99999999\n", ["training.beta2 is '0.99999999'", "in single precision, where it is 1"]),
    ("training:\n  epsilon: 1e-40\n", ["training.epsilon is '1e-40'", "in single precision, where it is 0"]),
    ("training:\n  learning_rate: 1e-999\n", ["training.learning_rate is '1e-999'", "where it is 0"]),
    ("training:\n  steps: 0x10\n", ["training.steps is '0x10'; expected a whole number"]),
    ("training:\n  steps: 1_000\n", ["training.steps is '1_000'; expected a whole number"]),
    ("training:\n  batch: !!str 4\n", ["training.batch is '4'; expected a whole number"]),
    ("version: 2\nnew: {}\n", ["c.yaml:1:10: the configuration is of version 2; expected at most 1", "the dekoder that wrote it"]),
    ("model: {}\nversion: \"1\"\n", ["c.yaml:2:10: version is '1'; expected a whole number of at least 1"]),
    (b"model:\n  layers: 3  # caf\xe9\n", ["c.yaml:2:19: byte 0xE9 is not UTF-8; expected UTF-8"]),
    (b"sampling:\n  prompt: \"\xed\xa0\x80\"\n", ["c.yaml:2:12: byte 0xED is not UTF-8"]),
    ("model: {}\n".encode("utf-16"), ["c.yaml:1:1: byte 0xFF is not UTF-8"]),
    ("model: {}\n".encode("utf-16-le"), ["c.yaml: byte 0x00 at offset 1 is no text; expected UTF-8"]),
    ("sampling: {prompt: \"\\ud800\"}\n", ["not valid YAML"]),
    ("#" * (17 << 20), ["c.yaml: has more than 16 MiB"]),
    (f"model: {{layers: {LONG}}}\n", [f"c.yaml:1:17: model.layers is '{'x' * 100}... (3000000 bytes)'; expected a whole number"]),
    (f"model: {{{LONG[:1000]}: 1}}\n", ["unknown key 'xxx", "... (1000 bytes)' in section 'model'"]),
    (f"{LONG[:1000]}: {{}}\n", ["unknown section 'xxx", "... (1000 bytes)'"]),
    (f"{LONG}\n", ["c.yaml:1:1: got 'xxx", "... (3000000 bytes)'; expected sections"]),
    (f"model: {LONG}\n", ["section 'model' is 'xxx", "... (3000000 bytes)'"]),
    (f"version: {LONG}\n", ["version is 'xxx", "... (3000000 bytes)'"]),
    (f"model: {{layers: *{LONG}}}\n", ["not valid YAML: "]),
    (f"data: {{tokens: {LONG}}}\n", ["data.tokens has 'xxx", "... (3000000 bytes)'; expected a path: 1 to 4095 bytes"]),
    ("data: {tokens: \"byte.h5\\0.h5\"}\n", ["data.tokens has 'byte.h5\\x00.h5'; expected a path"]),
    ("model: {layers: \"a\\0b\\n\"}\n", ["model.layers is 'a\\x00b\\x0A'; expected a whole number"]),
    ("model: {" + ", ".join(f"no_{i}: 1" for i in range(5000)) + "}\n", ["unknown key 'no_19'", "\nand 4980 more"]),
    ("model: {layers: x, heads: 3}\ntraining: {beta1: 2}\nzz: 1\n",
     ["model.layers is 'x'", "model.heads 3 does not divide", "training.beta1 is '2'", "unknown section 'zz'"]),
]

# Arguments, exit code, fragments. good.yaml is sound; byte.h5 and char.h5 are token files; run is a trained run.
COMMAND_LINES = [
    (["prepare", "a\x1b[31m.txt", "-o", "a.h5"], 3, ["a\\x1B[31m.txt"]),
    (["eval", "r\x9b31m\r"], 3, ["r\\xC2\\x9B31m\\x0D"]),
    ([], 2, ["subcommand is required", "dekoder --help"]),
    (["trian", "good.yaml"], 2, ["did you mean 'train'?"]),
    (["--verison"], 2, ["did you mean '--version'?"]),
    (["train"], 2, ["config is required"]),
    (["train", "good.yaml", "other.yaml"], 2, ["other.yaml"]),
    (["train", "nowhere.yaml"], 2, ["nowhere.yaml: there is no such configuration"]),
    (["train", "."], 2, [".: is a folder; expected a YAML file"]),
    (["describe", "byte.h5"], 2, ["byte.h5"]),
    (["train", "good.yaml", "--sets", "a=b"], 2, ["did you mean '--set'?"]),
    (["train", "good.yaml", "--set"], 2, ["--set"]),
    (["describe", "good.yaml", "--set", "model.layers"], 2, ["--set model.layers: no '='"]),
    (["describe", "good.yaml", "--set", "model.layers=x"], 2, ["--set model.layers=x: model.layers is 'x'"]),
    (["describe", "good.yaml", "--set", "layers=3"], 2, ["did you mean 'model.layers'?"]),
    (["describe", "good.yaml", "--set", "model.heads=3"], 2, ["--set model.heads=3: model.heads 3 does not divide"]),
    (["describe", "good.yaml", "--set", "model.layers={"], 2, ["--set model.layers={: not a YAML value"]),
    (["describe", "good.yaml", "--backend", "gpu"], 2, ["--backend is 'gpu'; expected auto, openmp or cuda"]),
    (["describe", "good.yaml", "--backend"], 2, ["--backend"]),
    (["bench", "good.yaml", "--steps", "-1"], 2, ["--steps is -1"]),
    (["bench", "good.yaml", "--steps", "many"], 2, ["--steps", "many"]),
    (["generate", "run", "--prompt", ""], 2, ["--prompt is empty"]),
    (["generate", "run", "--tokens", "0"], 2, ["--tokens is 0"]),
    (["generate", "run", "--temperature", "-1"], 2, ["--temperature is -1"]),
    (["generate", "run", "--temperature", "nan"], 2, ["--temperature is nan"]),
    (["generate", "run", "--top-k", "-1"], 2, ["--top-k is -1"]),
    (["generate", "run", "--top-p", "0"], 2, ["--top-p is 0"]),
    (["generate", "run", "--seed", "-1"], 2, ["--seed"]),
    (["generate", "run", "--min-p", "nan"], 2, ["--min-p is nan; expected a number"]),
    (["generate", "run", "--repetition-penalty", "0"], 2, ["--repetition-penalty is 0; expected from 0.01 to 100 (1: none)"]),
    (["generate", "run", "--repetition-penalty", "inf"], 2, ["--repetition-penalty is inf"]),
    (["generate", "run", "--context", "0"], 2, ["--context is 0; expected at least 1"]),
    (["generate", "run", "--logprobs", "-1"], 2, ["--logprobs is -1"]),
    (["generate", "run", "--prompt", "It", "--prompts", "p.jsonl"], 2, ["--prompt and --prompts; expected one of them"]),
    (["generate", "run", "--stop", ""], 2, ["--stop is empty"]),
    (["generate", "run", "--stop", os.fsdecode(b"caf\xe9")], 2, ["--stop is not UTF-8"]),
    (["generate", "run", "--prompts", WORD], 2, ["--prompts is 'xxx", "... (100000 bytes)'; expected a path"]),
    (["attention", "run", "--text", ""], 2, ["--text is empty"]),
    (["attention", "run"], 2, ["--text is required"]),
    (["attention", "run", "--text", "It", "--step", "-2"], 2, ["--step is -2"]),
    (["attention", "run", "--text", "It", "--step", "-1"], 2, ["--step is -1"]),
    (["predictions", "run", "--step", "-1"], 2, ["--step is -1"]),
    (["train", "good.yaml", "--until", "-1"], 2, ["--until is -1"]),
    (["predictions"], 2, ["run is required"]),
    (["export", "run"], 2, ["--output is required"]),
    (["export", "run", "-o", "m", "--dtype", "half"], 2, ["--dtype is 'half'; expected float32, float16, bfloat16 or q8_0"]),
    (["export", "run", "-o", "m.gguf", "--dtype", "q4_0"], 2, ["--dtype is 'q4_0'; expected float32, float16, bfloat16 or q8_0"]),
    (["export", "run", "-o", "m", "--dtype", "q8_0"], 2,
     ["--dtype is q8_0, which a file of GGUF alone holds, and --output m; expected FILE.gguf, or another type"]),
    (["export", "run", "-o", "m", "--best", "--step", "1"], 2, ["--best and --step 1; expected one of them"]),
    (["export", "run", "-o", "m", "--step", "-1"], 2, ["--step is -1"]),
    (["export", "run", "-o", ""], 2, ["--output is empty"]),
    (["import", "run"], 2, ["--output is required"]),
    (["import", "-o", "r"], 2, ["folder is required"]),
    (["import", "run", "-o", "r", "--run", "r"], 2, ["--run"]),
    (["predictions", "run", "--windows", "-1"], 2, ["--windows is -1; expected at least 0"]),
    (["predictions", "run", "--windows", "all"], 2, ["--windows is all; expected a whole number"]),
    (["predictions", "run", "--top", "-1", "--windows", "-2"], 2, ["--top is -1; expected at least 0", "--windows is -2"]),
    (["predictions", "run", "--window", "3"], 2, ["did you mean '--windows'?"]),
    (["predictions", "run", "-o", ""], 2, ["--output is empty; expected: file of the table"]),
    (["predictions", "run", "-o", WORD], 2, ["--output is 'xxx", "... (100000 bytes)'"]),
    (["generate", "run", "--tempreature", "1"], 2, ["did you mean '--temperature'?"]),
    (["generate", "run", "--prompt", os.fsdecode(b"caf\xe9")], 2, ["--prompt is not UTF-8"]),
    (["generate", "run", "--prompt", "It", "--tokens", "0x10"], 2, ["--tokens is 0x10; expected a whole number"]),
    (["generate", "run", "--top-k", "1'000"], 2, ["--top-k is 1'000; expected a whole number"]),
    (["generate", "run", "--temperature", "1e-40"], 2, ["--temperature is 1e-40", "in single precision, where it is 0"]),
    (["generate", "run", "--top-p", "0x1p-1"], 2, ["--top-p is 0x1p-1; expected a number"]),
    (["generate", "run", "--seed", "18446744073709551616"], 2, ["--seed is 18446744073709551616", "at most 18446744073709551615"]),
    (["attention", "run", "--text", "It", "--step", ""], 2, ["--step is ''; expected a whole number"]),
    (["attention", "run", "--text", os.fsdecode(b"\xc3")], 2, ["--text is not UTF-8: byte 0xC3 at offset 0"]),
    (["bench", "good.yaml", "--steps", "1_0"], 2, ["--steps is 1_0; expected a whole number"]),
    (["status", "run", "--json=yes"], 2, ["--json: yes not in {true,false}"]),
    (["describe", "good.yaml", "--set", os.fsdecode(b"sampling.prompt=caf\xe9")], 2,
     ["--set sampling.prompt=caf\\xE9: byte 0xE9 at offset 19 is not UTF-8"]),
    (["describe", "good.yaml", "--set", "training.steps=0b1"], 2, ["training.steps is '0b1'; expected a whole number"]),
    (["describe", "/dev/zero"], 2, ["/dev/zero: has more than 16 MiB"]),
    (["describe", "/dev/null"], 2, ["/dev/null: the configuration is empty"]),
    (["prepare", "/dev/stdin", "-o", "out.h5"], 3, ["/dev/stdin: is a FIFO, no regular file", "save what it gives as a file"]),
    (["prepare", "text.txt"], 2, ["--output is required"]),
    (["prepare", "text.txt", "-o", "out.h5", "--split", "gpt4"], 2, ["--split is 'gpt4'; expected gpt2, cl100k or qwen2: how text is cut before merges", "--validation-fraction"]),
    (["prepare", "text.txt", "-o", "out.h5", "--split", "gpt2"], 2, ["--split is gpt2 and --tokenizer byte, which has no merges; expected --tokenizer bpe or a rank file"]),
    (["prepare", "text.txt", "-o", "out.h5", "--field", "body"], 2, ["--field is 'body' and no text is JSON lines"]),
    (["tokens", "byte.h5", "--show", "x"], 2, ["--show is x; expected a whole number"]),
    (["tokens", "text.txt"], 3, ["text.txt: cannot be opened as HDF5", "expected a token file: make it with `dekoder prepare`"]),
    (["train", "good.yaml", "--set", "data.tokens=text.txt", "--run", "r"], 3,
     ["text.txt: cannot be opened as HDF5", "expected a token file: make it with `dekoder prepare`"]),
    *((command, 2, ["--output is '-'; expected the name of a file or folder, as standard output takes none"])
      for command in (["prepare", "text.txt", "-o", "-"], ["tokens", "byte.h5", "-o", "-"], ["export", "run", "-o", "-"])),
    (["prepare", "text.txt", "-o", "/proc/x.h5"], 3, ["/proc/x.h5: cannot be created: No such file or directory; choose another place"]),
    (["tokens", "byte.h5", "--shards", "s", "--shard-format", "nanoGPT"], 2, ["--shard-format is 'nanoGPT'; expected llm.c or nanogpt"]),
    (["tokens", "byte.h5", "--shards", "s", "--shard-tokens", "0"], 2, ["--shard-tokens is 0; expected 1 to 2147483647"]),
    (["tokens", "byte.h5", "--shards", "s", "--shard-tokens", "-1"], 2, ["--shard-tokens is -1"]),
    (["tokens", "byte.h5", "--shards", "s", "--shard-tokens", "2147483648"], 2, ["--shard-tokens is 2147483648; expected 1 to"]),
    (["tokens", "byte.h5", "--shards", "s", "--shard-tokens", "9", "--shard-format", "nanogpt"], 2, ["that format has one file for each part"]),
    (["tokens", "byte.h5", "--shard-tokens", "9"], 2, ["expected --shards FOLDER with them"]),
    (["tokens", "byte.h5", "--shards", ""], 2, ["--shards is empty; expected: folder"]),
    (["tokens", "byte.h5", "--shards", WORD], 2, ["--shards is 'xxx", "... (100000 bytes)'"]),
    (["tokens", "byte.h5", "--shards", "text.txt"], 3, ["text.txt: is a file, expected a folder for shards, or none yet"]),
    (["tokens", "byte.h5", "--shards", "no/folder"], 3, ["no/folder: cannot be made"]),
    (["prepare", "text.txt", "-o", "out.h5", "--validation-fraction", "-1"], 2, ["--validation-fraction is -1"]),
    (["tokens", WORD], 2, ["the token file's name is 'xxx"]),
    (["prepare", "text.txt", "-o", "out.h5", "--tokenizer", "bpe"], 2, ["--vocabulary is 0; expected 258 to 1000000 with --tokenizer bpe"]),
    (["prepare", "text.txt", "-o", "out.h5", "--validation-fraction", "1"], 2, ["--validation-fraction is 1"]),
    (["prepare", "text.txt", "-o", "text.txt"], 2, ["is the text itself"]),
    (["describe", WORD], 2, ["the configuration's name is 'xxx", "... (100000 bytes)'; expected a path of at most 4095 bytes"]),
    (["train", "good.yaml", "--run", WORD], 2, ["the run directory's name is 'xxx", "... (100000 bytes)'"]),
    (["status", WORD], 2, ["the run directory's name is 'xxx", "... (100000 bytes)'"]),
    (["prepare", WORD, "-o", "out.h5"], 2, ["the text file's name is 'xxx", "... (100000 bytes)'"]),
    (["prepare", "text.txt", "-o", WORD], 2, ["--output is 'xxx", "... (100000 bytes)'"]),
    (["prepare", "text.txt", "-o", "out.h5", "--tokenizer", WORD], 2, ["--tokenizer is 'xxx", "... (100000 bytes)'; expected byte, char or bpe"]),
    (["eval", "run", "--tokens-file", WORD], 2, ["--tokens-file is 'xxx", "... (100000 bytes)'"]),
    (["generate", "run", "--seed", WORD], 2, ["--seed is xxx", "... (100000 bytes); expected a whole number"]),
    (["describe", "good.yaml", "--backend", WORD], 2, ["--backend is 'xxx", "... (100000 bytes)'; expected auto"]),
    (["describe", "good.yaml", "--set", f"model.layers={WORD}"], 2, ["--set model.layers=xxx", "... (100013 bytes): model.layers is 'xxx"]),
    (["describe", "good.yaml", "--set", f"{WORD}=1"], 2, ["unknown key 'xxx", "... (100000 bytes)'"]),
    (["describe", "good.yaml", WORD], 2, ["command line: The following argument was not expected: xxx", " bytes)"]),
    (["describe", "good.yaml", f"--{WORD}"], 2, ["command line: ", " bytes)"]),
    (["status", "run", f"--json={WORD}"], 2, ["command line: --json: xxx", " bytes)"]),
    ([WORD], 2, ["command line: "]),
    (["train", ""], 2, ["config is empty; expected: configuration file"]),
    (["train", "good.yaml", "--run", ""], 2, ["--run is empty; expected: run directory"]),
    (["train", "good.yaml", "--run", "r", "--set", ""], 2, ["--set is empty; expected: section.key=value"]),
    (["train", "good.yaml", "--run", "r", "--set", "training.steps=1", "--set", ""], 2, ["--set is empty"]),
    (["describe", "good.yaml", "--backend", ""], 2, ["--backend is empty; expected: auto, openmp or cuda"]),
    (["prepare", "", "-o", "out.h5"], 2, ["text is empty; expected: text file"]),
    (["prepare", "text.txt", "-o", ""], 2, ["--output is empty; expected: token file"]),
    (["prepare", "text.txt", "-o", "out.h5", "--tokenizer", ""], 2, ["--tokenizer is empty; expected: byte, char, bpe"]),
    (["eval", "run", "--tokens-file", ""], 2, ["--tokens-file is empty; expected: another token file"]),
    (["attention", "run", "--text", "It", "-o", ""], 2, ["--output is empty; expected: file of the maps"]),
    *(([command, ""], 2, ["run is empty; expected: run directory"])
      for command in ("eval", "generate", "predictions", "initial-values")),
    (["checkpoint"], 2, ["subcommand is required"]),
    (["checkpoint", "verfy", "run"], 2, ["did you mean 'verify'?"]),
    (["checkpoint", "diff", "run"], 2, ["paths: At least 2 required"]),
    (["checkpoint", "list", "run", "--bakend", "openmp"], 2, ["command line: "]),
    (["checkpoint", "verify", WORD], 2, ["a path is 'xxx", "... (100000 bytes)'"]),
    (["checkpoint", "verify", "run", ""], 2, ["paths is empty; expected: checkpoint files"]),
    (["status", ""], 2, ["run_or_config is empty; expected: run directory, or configuration file"]),
]

# Environment, arguments, exit code, fragments.
ENVIRONMENTS = [
    ({"OMPI_COMM_WORLD_SIZE": "2"}, ["describe", "good.yaml"], 2, ["announces 2 ranks", "start a single rank"]),
    ({"SLURM_STEP_NUM_TASKS": "4"}, ["generate", "run"], 2, ["announces 4 ranks", "start a single rank"]),
    ({"SLURM_STEP_NUM_TASKS": "4"}, ["bench", "good.yaml"], 2, ["announces 4 ranks but MPI sees 1"]),
    ({"CUDA_VISIBLE_DEVICES": ""}, ["describe", "good.yaml", "--backend", "cuda"], 2, ["--backend cuda"]),
    ({"OMP_NUM_THREADS": "abc"}, ["eval", "run"], 2, ["OMP_NUM_THREADS is 'abc'; expected a whole number from 1 to 512"]),
    ({"OMP_NUM_THREADS": ""}, ["eval", "run"], 2, ["OMP_NUM_THREADS is ''"]),
    ({"OMP_NUM_THREADS": "0"}, ["eval", "run"], 2, ["OMP_NUM_THREADS is '0'"]),
    ({"OMP_NUM_THREADS": "-1"}, ["eval", "run"], 2, ["OMP_NUM_THREADS is '-1'"]),
    ({"OMP_NUM_THREADS": "4000"}, ["eval", "run"], 2, ["OMP_NUM_THREADS is '4000'"]),
    ({"OMP_NUM_THREADS": "99999999999999999999"}, ["eval", "run"], 2, ["OMP_NUM_THREADS is '99999999999999999999'"]),
    ({"OMP_NUM_THREADS": "2,x"}, ["eval", "run"], 2, ["OMP_NUM_THREADS is '2,x'"]),
    ({"OMP_NUM_THREADS": "2,"}, ["eval", "run"], 2, ["OMP_NUM_THREADS is '2,'"]),
    ({"OMP_NUM_THREADS": None, "OMP_NUM_THREADS_ALL": "600"}, ["eval", "run"], 2, ["would start 600 threads", "OMP_NUM_THREADS"]),
    ({"OMP_NUM_THREADS": "2", "OMP_THREAD_LIMIT": "1"}, ["eval", "run"], 2, ["starts 1 of 2 threads", "OMP_THREAD_LIMIT"]),
    ({"KOKKOS_NUM_THREADS": "2", "OMP_THREAD_LIMIT": "1"}, ["eval", "run"], 2, ["starts 1 of 2 threads"]),
    ({"OMP_NUM_THREADS": "2", "OMP_MAX_ACTIVE_LEVELS": "0"}, ["eval", "run"], 2, ["starts 1 of 2 threads"]),
    ({"KOKKOS_NUM_THREADS": "abc"}, ["describe", "good.yaml"], 2, ["KOKKOS_NUM_THREADS is 'abc'"]),
    ({"KOKKOS_NUM_THREADS": "0"}, ["describe", "good.yaml"], 2, ["KOKKOS_NUM_THREADS is '0'"]),
    ({"KOKKOS_NUM_THREADS": "2,2"}, ["describe", "good.yaml"], 2, ["KOKKOS_NUM_THREADS is '2,2'"]),
    ({"KOKKOS_NUM_THREADS": "513"}, ["describe", "good.yaml"], 2, ["KOKKOS_NUM_THREADS is '513'"]),
    ({"KOKKOS_DEVICE_ID": "gpu"}, ["describe", "good.yaml"], 2, ["KOKKOS_DEVICE_ID is 'gpu'"]),
    ({"KOKKOS_DEVICE_ID": "-1"}, ["describe", "good.yaml"], 2, ["KOKKOS_DEVICE_ID is '-1'"]),
    ({"KOKKOS_VISIBLE_DEVICES": "0;1"}, ["describe", "good.yaml"], 2, ["KOKKOS_VISIBLE_DEVICES is '0;1'"]),
    ({"KOKKOS_MAP_DEVICE_ID_BY": "rank"}, ["describe", "good.yaml"], 2, ["expected mpi_rank or random"]),
    ({"KOKKOS_DISABLE_WARNINGS": "maybe"}, ["describe", "good.yaml"], 2, ["expected true or false"]),
    ({"KOKKOS_PRINT_CONFIGURATION": ""}, ["describe", "good.yaml"], 2, ["KOKKOS_PRINT_CONFIGURATION is ''"]),
    ({"KOKKOS_TUNE_INTERNALS": "on"}, ["describe", "good.yaml"], 2, ["KOKKOS_TUNE_INTERNALS is 'on'"]),
    ({"KOKKOS_PROFILE_LIBRARY": "a.so", "KOKKOS_TOOLS_LIBS": "b.so"}, ["describe", "good.yaml"], 2,
     ["KOKKOS_PROFILE_LIBRARY is 'a.so'", "KOKKOS_TOOLS_LIBS is 'b.so'"]),
    ({"OMP_NUM_THREADS": WORD}, ["eval", "run"], 2, ["OMP_NUM_THREADS is 'xxx", "... (100000 bytes)'; expected a whole number"]),
    ({"KOKKOS_PROFILE_LIBRARY": WORD, "KOKKOS_TOOLS_LIBS": WORD[1:]}, ["describe", "good.yaml"], 2,
     ["KOKKOS_PROFILE_LIBRARY is 'xxx", "... (100000 bytes)'", "... (99999 bytes)'"]),
    *(({"HDF5_DRIVER": driver}, command, 2, [f"HDF5_DRIVER is '{driver}'; expected sec2"])
      for driver in ("bogus", "core", "split", "sec2 ")
      for command in (["eval", "run"], ["prepare", "text.txt", "-o", "out.h5"])),
    *(({"HDF5_VOL_CONNECTOR": connector}, ["eval", "run"], 2, [f"HDF5_VOL_CONNECTOR is '{connector}'; expected native"])
      for connector in ("bogus", "pass_through", "pass_through under_vol=0;under_info={}")),
]

# Environments in which everything goes on, with the same result.
GOOD_ENVIRONMENTS = [
    {"OMP_NUM_THREADS": "2"},
    {"OMP_NUM_THREADS": " 2, 1"},
    {"OMP_NUM_THREADS": "2", "OMP_DYNAMIC": "true"},
    {"KOKKOS_NUM_THREADS": "2"},
    {"KOKKOS_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"},
    {"KOKKOS_DISABLE_WARNINGS": "Yes", "KOKKOS_TUNE_INTERNALS": "0", "KOKKOS_DEVICE_ID": "0"},
    {"KOKKOS_ROOT": "/opt/kokkos"},
    {"HDF5_DRIVER": "sec2", "HDF5_VOL_CONNECTOR": "native"},
    {"HDF5_DRIVER": "", "HDF5_VOL_CONNECTOR": ""},
    {"HDF5_USE_FILE_LOCKING": "odd", "HDF5_DISABLE_VERSION_CHECK": "odd", "HDF5_PLUGIN_PATH": "/nowhere",
     "HDF5_PLUGIN_PRELOAD": "::", "HDF5_ROOT": "/opt/hdf5"},
]

# Text, options of prepare, exit code, fragments.
TEXTS = [
    (None, [], 3, ["t.txt: no such text file"]),
    (b"", [], 3, ["t.txt: is empty"]),
    (b"", ["--tokenizer", "bpe", "--vocabulary", "300"], 3, ["dekoder: error: t.txt: is empty"]),
    (b"a", [], 3, ["t.txt: its 1 tokens leave"]),
    (b"caf\xe9 au lait\n" * 9, ["--tokenizer", "char"], 3, ["t.txt: byte 0xE9 at offset 3 is not UTF-8"]),
    (b"\xc3\xa9t\xc3\xa9\n" * 400000 + b"\xc3\xa9\xe9", ["--tokenizer", "char"], 3,
     ["t.txt: byte 0xE9 at offset 2400002 is not UTF-8 (line 400001, column 2)"]),
]

# Files of tokens, words of prepare, exit code, fragments.
def shard(count, tokens=b"abcdef", magic=20240520, version=1):
    return struct.pack("<3i", magic, version, count) + bytes(1012) + tokens


SHARDS = [
    ({}, ["a.bin"], 3, ["a.bin: no such token shard"]),
    ({"a.bin": b""}, ["a.bin"], 3, ["a.bin: is empty, expected tokens"]),
    ({"a.bin": b"odd"}, ["a.bin"], 3, ["a.bin: has 3 bytes; expected an even number", "or the magic 20240520 or 20240801", "copy or make it again"]),
    ({"a.bin": b"abcde"}, ["a.bin"], 3, ["a.bin: has 5 bytes", "where 1684234849 stands"]),
    ({"a.bin": b"a\0\0\1"}, ["a.bin"], 3, ["a.bin: token 1, at offset 2, is 256; expected 0 to 255, the vocabulary", "the tokenizer that the shard was made with"]),
    ({"a.bin": b"a\0" * 99_999 + b"\xff\xff" + b"a\0" * 9}, ["a.bin"], 3, ["a.bin: token 99999, at offset 199998, is 65535"]),
    ({"a.bin": shard(3)[:1023]}, ["a.bin"], 3, ["a.bin: ends at offset 1023, in its header; expected 1024 bytes of that (llm.c, GPT-2)"]),
    ({"a.bin": shard(3)[:4]}, ["a.bin"], 3, ["a.bin: ends at offset 4, in its header"]),
    ({"a.bin": shard(3)}, ["a.bin"], 3, ["a.bin: token 0, at offset 1024, is 25185; expected 0 to 255"]),
    *(({"a.bin": shard(count)}, ["a.bin"], 3, [f"a.bin: its header, at offset 8, counts {count} tokens, and the file has 1030 bytes", "expected at least one token"])
      for count in (2, 4, 0, -1, 2**31 - 1, -2**31)),
    ({"a.bin": shard(2, b"a\0b\0c")}, ["a.bin"], 3, ["counts 2 tokens, and the file has 1029 bytes", "1024 bytes of header and 2 per token (llm.c, GPT-2)"]),
    ({"a.bin": shard(0, b"")}, ["a.bin"], 3, ["counts 0 tokens"]),
    ({"a.bin": shard(2, bytes(8), 20240801, 1)}, ["a.bin"], 3, ["a.bin: its version, at offset 4, is 1; expected 7 (llm.c, Llama 3)"]),
    ({"a.bin": shard(3, version=2)}, ["a.bin"], 3, ["a.bin: its version, at offset 4, is 2; expected 1 (llm.c, GPT-2)"]),
    ({"a.bin": shard(2, bytes(7), 20240801, 7)}, ["a.bin"], 3, ["counts 2 tokens, and the file has 1031 bytes", "4 per token (llm.c, Llama 3)"]),
    ({"a.bin": shard(2, b"\0\0\0\x80" * 2, 20240801, 7)}, ["a.bin"], 3, ["a.bin: token 0, at offset 1024, is 2147483648; expected 0 to 255"]),
    ({"a.bin": shard(3, magic=20240522)}, ["a.bin"], 3, ["a.bin: its magic, at offset 0, is 20240522; expected 20240520 or 20240801", "leave it out"]),
    ({"a.bin": shard(2, b"a\0b\0"), "b.bin": b"odd"}, ["a.bin", "b.bin"], 3, ["b.bin: has 3 bytes"]),
    ({"a.bin": b"a\0"}, ["a.bin"], 3, ["a.bin: its 1 tokens leave 1 to train on"]),
    ({"val.bin": b"a\0b\0c\0"}, ["val.bin"], 3, ["val.bin: all is held out, as the val in its name says; name files to train on"]),
    ({"a.bin": b"a\0b\0", "val.bin": b"a\0"}, ["a.bin", "val.bin", "--validation-fraction", "0.1"], 2,
     ["--validation-fraction is 0.1, and val.bin is held out", "leave one of them out"]),
    ({"a.bin": b"a\0b\0", "t.json": b" \n"}, ["a.bin", "--tokenizer", "t.json"], 3,
     ["t.json: is empty; expected a tokenizer.json (byte-level BPE), a list of merges"]),
    ({"a.bin": b"a\0b\0"}, ["a.bin", "--tokenizer", "char"], 2, ["--tokenizer char makes its vocabulary of texts", "expected byte or the file of the tokenizer"]),
    ({"a.bin": b"a\0b\0"}, ["a.bin", "--tokenizer", "bpe", "--vocabulary", "300"], 2, ["--tokenizer bpe makes its vocabulary of texts"]),
    ({"a.bin": b"a\0b\0"}, ["a.bin", "--field", "text"], 2, ["--field is 'text'", "a.bin holds tokens"]),
    ({"a.bin": b"a\0b\0"}, ["a.bin", "text.txt"], 2, ["text.txt is a text and a.bin holds tokens", "name the files, or a folder that holds one kind"]),
    ({"a.bin": b"a\0b\0"}, ["-", "a.bin"], 2, ["standard input is a text and a.bin holds tokens"]),
    ({"a.bin": b"a\0b\0"}, ["."], 2, [" is a text and ./a.bin holds tokens"]),
    ({"a.bin.gz": b"", "b.BIN.ZST": b""}, ["a.bin.gz"], 3, ["a.bin.gz: is a packed token shard, as its name says", "unpack it with gzip -d"]),
    ({"a.bin.gz": b"", "b.BIN.ZST": b""}, ["b.BIN.ZST"], 3, ["b.BIN.ZST: is a packed token shard", "unpack it with zstd -d"]),
    ({"A.BIN": b"odd"}, ["A.BIN"], 3, ["A.BIN: has 3 bytes; expected an even number"]),
    ({"d.h5.txt": b"\x89HDF\r\n\x1a\n" + bytes(99)}, ["d.h5.txt"], 3, ["d.h5.txt: is no text, but an HDF5 file, as token files are; name the texts"]),
    ({"d.txt": b"PK\3\4" + bytes(99)}, ["d.txt"], 3, ["d.txt: is no text, but a zip archive; unpack it"]),
    ({"d.tar.gz": gzip.compress(bytes(257) + b"ustar" + bytes(250))}, ["d.tar.gz"], 3, ["d.tar.gz: is no text, but a tar archive; unpack it"]),
    ({"d.txt.gz": gzip.compress(gzip.compress(b"text"))}, ["d.txt.gz"], 3, ["d.txt.gz: is no text, but a gzip file; unpack it"]),
    ({"a.bin": b"a\0b\0"}, ["empty"], 3, ["empty: is a folder without texts", "or token shards (*.bin)"]),
]

# Files of which --tokenizer names the first, what is said of it.
ACCEPTED = "expected a tokenizer.json (byte-level BPE), a list of merges (vocab.bpe, merges.txt), a rank file of tiktoken or a .model of SentencePiece"
GPT2_BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
GPT2_ALPHABET = [chr(c) for c in GPT2_BYTES] + [chr(256 + i) for i in range(256 - len(GPT2_BYTES))]
IDS = json.dumps({text: i for i, text in enumerate([*GPT2_ALPHABET, "ab", "abc", "<|endoftext|>"])}).encode()
TOKENIZERS = [
    ({"t.json": b"\xef\xbb\xbf{}"}, ["t.json: begins with a byte order mark (UTF-8)", ACCEPTED, "texts in UTF-8 without one"]),
    ({"t.json": '{"model": {}}'.encode("utf-16")}, ["t.json: begins with a byte order mark (UTF-16)", ACCEPTED]),
    ({"m.txt": b"\xef\xbb\xbf#version: 0.2\na b\n"}, ["m.txt: begins with a byte order mark (UTF-8)"]),
    ({"t.json": b"null"}, ["t.json: is no object; expected a tokenizer.json"]),
    ({"t.json": b"[]\n"}, ["t.json: is no object; expected a tokenizer.json"]),
    ({"t": b"null"}, ["t: begins with 'null'; " + ACCEPTED]),
    ({"t.json": b'{"model": {}}\0{}'}, ["t.json: has a NUL byte at offset 13, which is no JSON; expected a tokenizer.json"]),
    ({"t": b"\n[1, 2]\n"}, ["t: begins with '[1, 2]'; " + ACCEPTED]),
    ({"t": '{"model": {}}'.encode("utf-16-le")}, ["t: has a NUL byte at offset 1, which is no JSON"]),
    ({"t": "null".encode("utf-16-le")}, ["t: begins with 'n", ACCEPTED]),
    ({"t": b"\xff\x00\x01"}, ["t: begins with '\\xFF", ACCEPTED]),
    ({"t.h5": b"\x89HDF\r\n\x1a\n" + bytes(99)}, ["t.h5: is an HDF5 file, as token files are; " + ACCEPTED]),
    ({"t.model": b"\x89HDF\r\n\x1a\n" + bytes(99)}, ["t.model: is an HDF5 file, as token files are; " + ACCEPTED]),
    ({"t.json": gzip.compress(b"{}")}, ["t.json: is a gzip file; " + ACCEPTED]),
    ({"t.pt": b"PK\x03\x04" + bytes(99)}, ["t.pt: is a zip archive; " + ACCEPTED]),
    ({"t.model": b"version https://git-lfs.github.com/spec/v1\n"}, ["t.model: ", "expected a .model file of SentencePiece"]),
    ({"t.model": b"\x0a\x05\x00"}, ["t.model: has a field of 5 bytes where 1 are left; expected a .model file"]),
    ({"t.tiktoken": b"IQ==\n"}, ["t.tiktoken:1: 'IQ=='; expected base64, a space and a rank"]),
    ({"t.tiktoken": b"IQ== 0\nIg== 2\n"}, ["t.tiktoken:2: rank 2; expected 1: ranks ascend from 0 without holes"]),
    ({"t.tiktoken": b"IQ== 0\nIg== 1\n"}, ["t.tiktoken: no token stands for the byte 0x00; expected one for each of the 256"]),
    ({"t.bpe": b"ab\n"}, ["t.bpe:1: 'ab'; expected two tokens with a space between them"]),
    ({"m.txt": b"#version: 0.2\na b\nab xy\n"}, ["m.txt:3: 'xy' is neither a byte nor what a merge before it makes"]),
    ({"m.txt": b"a b\n", "encoder.json": b""}, ["encoder.json: is empty; expected the ids of the tokens of m.txt, or no such file"]),
    ({"m.txt": b"a b\n", "vocab.json": b""}, ["vocab.json: is empty; expected the ids of the tokens of m.txt"]),
    ({"m.txt": b"a b\n", "encoder.json": b"\xef\xbb\xbf" + IDS}, ["encoder.json: begins with a byte order mark (UTF-8), which is no JSON"]),
    ({"m.txt": b"a b\n", "encoder.json": b"[]"}, ["encoder.json is []; expected an object of texts with their ids"]),
    ({"m.txt": b"#version: 0.2\na b\nab xy\n", "encoder.json": IDS}, ["m.txt:3: the merge: 'xy' is no token of encoder.json"]),
    ({"m.txt": b"a b\nab c\na b\n", "encoder.json": IDS}, ["m.txt:3: the merge is the same as that in line 1, of 'a' and 'b'"]),
    ({"m.txt": b"a b\nab c\nb c\n", "encoder.json": IDS}, ["m.txt:3: the merge joins 'b' and 'c' to a text that no token stands for"]),
    ({"m.txt": b"#version: 0.2\na b\n", "encoder.json": IDS},
     ["m.txt: its 1 merges make all but 1 of the tokens of encoder.json; expected one for each, 257 ('abc') is the first without"]),
]

# What becomes of byte.h5 before training, exit code, fragments.
TOKEN_FILES = [
    ("missing", lambda data: None, 3, ["byte.h5"]),
    ("empty", lambda data: b"", 3, ["byte.h5"]),
    ("text", lambda data: b"no HDF5 at all\n" * 99, 3, ["byte.h5"]),
    ("half", lambda data: data[: len(data) // 2], 3, ["byte.h5"]),
    ("one byte short", lambda data: data[:-1], 3, ["byte.h5"]),
    ("zeroed head", lambda data: bytes(64) + data[64:], 3, ["byte.h5"]),
]

# Prompt, fragments; asked of a run with the char tokenizer of TEXT.
PROMPTS = [
    ("It is 7 o'clock", ["vocabulary", "7"]),
    ("\u00e9t\u00e9", ["\u00e9"]),
    ("\U0001f600", ["vocabulary"]),
    ("tab\there", ["vocabulary"]),
    ("".join(map(chr, range(0x4e00, 0x5e00))), ["the vocabulary of 26 characters lacks '\u4e00' (U+4E00)", " and 4076 more; leave them out"]),
]

# Lines of a file of prompts, fragments; asked of the same run, whose context is 8.
PROMPT_FILES = [
    (b"", ["p.jsonl: has no prompt; expected a JSON object in each line"]),
    (b"\n \r\n", ["p.jsonl: has no prompt"]),
    (b'{"prompt": "It"}\n\n{"prompt": "It"\n', ["p.jsonl:3: is no JSON", 'expected a JSON object in each line, with its text in the field "prompt"']),
    (b'{"prompt": "It"}\n["It"]\n', ['p.jsonl:2: is ["It"]; expected an object']),
    (b'{"text": "It"}\n', ['p.jsonl:1: has no field "prompt"']),
    (b'{"prompt": "It", "x": [1, 1e400]}\n', ["p.jsonl:1: is no JSON for this program (a number lies beyond double precision); expected a JSON object in each line"]),
    (b'{"prompt": 5}\n', ["p.jsonl:1: prompt is 5; expected a text"]),
    (b'{"prompt": ["It"]}\n', ['p.jsonl:1: prompt is ["It"]; expected a text']),
    (b'{"prompt": ""}\n', ["p.jsonl:1: prompt is empty; expected at least one character to go on from"]),
    (b'{"prompt": "It", "prompt": "is"}\n', ["p.jsonl:1: has the key 'prompt' twice"]),
    (b'{"prompt": "It", "finish": 1}\n', ['p.jsonl:1: has a field "finish", which is one of the result\'s; rename it']),
    (b'{"prompt": "caf\xe9"}\n', ["p.jsonl:1: is no JSON", "ill-formed UTF-8 byte"]),
    (b'{"prompt": "It"}\n{"prompt": "7"}\n', ["p.jsonl:2: prompt", "vocabulary", "7"]),
    (b'{"prompt": "It is a truth"}\n', ["p.jsonl:1: prompt has 13 tokens, and the context 8; shorten it"]),
    (b'{"a":' * 40 + b'1' + b'}' * 40, ["p.jsonl:1: nests deeper than 32"]),
]

# Arguments that name no usable run, exit code, fragments.
RUNS = [
    (["status", "nowhere"], 3, ["nowhere"]),
    (["eval", "nowhere"], 3, ["nowhere"]),
    *((["checkpoint", *words], 3, ["nowhere"]) for words in (["list", "nowhere"], ["diff", "run", "nowhere"])),
    (["checkpoint", "verify", "run", "nowhere"], 3, ["1 of 2 are not valid checkpoints"]),
    (["generate", "nowhere"], 3, ["nowhere"]),
    (["generate", "text.txt"], 3, ["text.txt"]),
    (["generate", "byte.h5"], 3, ["byte.h5"]),
    (["generate", "empty"], 3, ["empty"]),
    (["generate", "run", "--prompts", "nowhere.jsonl"], 3, ["nowhere.jsonl: no such file; expected a JSON object in each line"]),
    (["generate", "run", "--prompts", "empty"], 3, ["empty"]),
    (["generate", "run", "--prompt", "It is a truth"], 2, ["--prompt has 13 tokens, and the context 8; shorten it"]),
    (["generate", "run", "--prompt", "It", "--context", "9"], 2, ["--context is 9, and the model has learned 8 positions; expected at most so many"]),
    (["generate", "run", "--prompt", "It", "-o", "text.txt"], 3, ["text.txt: is there already; it is left alone: name another file with -o"]),
    (["generate", "run", "--prompt", "It", "-o", "nowhere/texts.jsonl"], 3, ["nowhere", "make it first"]),
    (["eval", "run", "--tokens-file", "nowhere.h5"], 3, ["nowhere.h5"]),
    (["eval", "run", "--tokens-file", "byte.h5"], 3, ["byte.h5: has another tokenizer"]),
    (["train", "good.yaml", "--set", "data.tokens=", "--run", "r"], 2, ["data.tokens"]),
    (["train", "good.yaml", "--set", "data.tokens=elsewhere.h5", "--run", "r"], 3,
     ["elsewhere.h5: no such token file", "relative to the current folder, /"]),
    (["train", "good.yaml", "--set", "model.vocabulary=10", "--run", "r"], 2, ["model.vocabulary is 10"]),
    (["train", "good.yaml", "--set", "model.context=100000", "--run", "r"], 3, ["byte.h5"]),
    (["train", "char.yaml", "--set", "sampling.prompt=7", "--run", "r"], 2, ["prompt", "7"]),
    (["train", "good.yaml", "--run", "text.txt"], 2, ["text.txt"]),
    (["attention", "run", "--text", "It", "--step", "77"], 3, ["no checkpoint of step 77"]),
    (["predictions", "nowhere"], 3, ["nowhere: no such run directory or checkpoint"]),
    (["predictions", "byte.h5"], 3, ["byte.h5"]),
    (["predictions", "run", "--step", "77"], 3, ["no checkpoint of step 77"]),
    (["predictions", "run", "--windows", "100000"], 2,
     ["--windows is 100000; expected at most ", "model.context 8 tokens", "or 0 for all of it"]),
    (["predictions", "run", "--top", "27"], 2, ["--top is 27; expected at most 26, the vocabulary of the model"]),
    (["predictions", "run", "--tokens-file", "nowhere.h5"], 3, ["nowhere.h5"]),
    (["predictions", "run", "--tokens-file", "byte.h5"], 3, ["byte.h5: has another tokenizer"]),
    (["predictions", "run", "-o", "text.txt"], 3, ["text.txt: ", "it is left alone: name another file with -o"]),
    (["predictions", "run", "-o", "nowhere/table.h5"], 3, ["nowhere", "make it first"]),
    (["export", "nowhere", "-o", "m"], 3, ["nowhere: no such run directory or checkpoint"]),
    (["export", "byte.h5", "-o", "m"], 3, ["byte.h5"]),
    (["export", "run", "-o", "m", "--step", "77"], 3, ["no checkpoint of step 77"]),
    (["export", "run", "-o", "run"], 3, ["run: is not empty; expected a new folder: remove it, or name another with -o"]),
    (["export", "run", "-o", "text.txt"], 3, ["text.txt: is a file; expected a new folder"]),
    (["export", "run", "-o", "text.txt/m"], 3, ["text.txt/m"]),
    (["export", "run", "-o", "text.gguf"], 3, ["text.gguf: is no GGUF file; it is left alone: name another file with -o"]),
    (["export", "run", "-o", "folder.gguf"], 3, ["folder.gguf: is a folder"]),
    (["export", "run", "-o", "nowhere/m.gguf"], 3, ["nowhere", "make it first"]),
    (["import", "nowhere", "-o", "r"], 3, ["nowhere/config.json: there is none; expected the folder of a model"]),
    (["import", "run", "-o", "r"], 3, ["run/config.json: there is none"]),
    (["import", "text.txt", "-o", "r"], 3, ["text.txt/config.json"]),
    (["attention", "run", "--text", "It is a truth universally"], 2, ["--text has 25 tokens", "context, 8"]),
    (["train", "char.yaml", "--set", "model.layers=2", "--run", "run"], 2, ["model.layers", "1 in the checkpoint, 2 now", "--fresh"]),
    (["train", "char.yaml", "--set", "training.seed=2", "--run", "run"], 2, ["training.seed", "2"]),
]


def dekoder(arguments, folder, environment=None, start=(), input=b""):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "OMPI_COMM", "PMIX_"))}
    env.update({"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"})
    env.update(environment or {})
    env = {name: value for name, value in env.items() if value is not None}
    return subprocess.run([*start, DEKODER, *arguments], cwd=folder, env=env, input=input, capture_output=True, timeout=60)


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = Path(tempfile.mkdtemp(prefix="dekoder_bad_input_"))
        cls.addClassCleanup(shutil.rmtree, cls.root)
        cls.fixtures = cls.root / "fixtures"
        cls.fixtures.mkdir()
        (cls.fixtures / "text.txt").write_text(TEXT)
        (cls.fixtures / "good.yaml").write_text(SMALL)
        (cls.fixtures / "char.yaml").write_text(SMALL.replace("byte.h5", "char.h5"))
        (cls.fixtures / "text.gguf").write_text(TEXT)
        for name in ("empty", "folder.gguf"):
            (cls.fixtures / name).mkdir()
        for arguments in (["prepare", "text.txt", "-o", "byte.h5"],
                          ["prepare", "text.txt", "-o", "char.h5", "--tokenizer", "char"],
                          ["train", "char.yaml", "--run", "run"]):
            done = dekoder(arguments, cls.fixtures)
            if done.returncode != 0:
                raise AssertionError(f"fixture {arguments}: exit {done.returncode}: {done.stderr.decode()}")

    def setUp(self):
        self.cases = 0

    def refused(self, arguments, code, fragments, change=None, environment=None, alone=False):
        """Runs one case in a fresh copy of the fixtures; `alone`: no warning comes before the error."""
        self.cases += 1
        folder = self.root / f"{self._testMethodName}_{self.cases}"
        shutil.copytree(self.fixtures, folder)
        with self.subTest(case=self.cases, arguments=arguments, fragments=fragments):
            if change is not None:
                change(folder)
            done = dekoder(arguments, folder, environment)
            said = done.stderr.decode(errors="replace")
            self.assertEqual(done.returncode, code, said)
            for fragment in fragments:
                self.assertIn(fragment, said)
            for trace in ("internal error", "terminate called", "HDF5-DIAG", "Traceback", "Kokkos::", *(["dekoder: warning"] if alone else [])):
                self.assertNotIn(trace, said)
            self.assertNotRegex(said, r"[\0-\x08\x0b-\x1f\x7f-\x9f]", "a terminal would obey it")
            self.assertLess(len(said), 4000, "a message that nobody reads to its end")
        shutil.rmtree(folder)

    def test_configurations(self):
        for text, fragments in CONFIGURATIONS:
            self.refused(["describe", "c.yaml"], 2, fragments, lambda folder: (folder / "c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode()))

    def test_command_lines(self):
        for arguments, code, fragments in COMMAND_LINES:
            self.refused(arguments, code, fragments)

    def test_names_of_configurations_that_name_no_folder(self):
        """The run directory of ...yaml would be runs/.., that of ..yaml runs/. itself."""
        for name in ("...yaml", "..yaml"):
            self.refused(["train", name], 2, [f"dekoder: error: {name}: its name without the ending", "give one with --run"],
                         lambda folder: (folder / name).write_text(SMALL))
            (self.fixtures / name).write_text(SMALL)
            self.addCleanup(os.remove, self.fixtures / name)
            dekoder(["train", name], self.fixtures)
            for made in ("runs", "config.yaml", "lock"):
                self.assertFalse((self.fixtures / made).exists(), f"{name}: {made}")
            done = dekoder(["train", name, "--run", f"named{name}"], self.fixtures)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_eval_from_another_folder(self):
        """The path of the tokens was relative to where the run was trained."""
        self.refused(["eval", "run"], 3, ["char.h5: no such token file", "relative to the current folder, /", "--tokens-file"],
                     lambda folder: (folder / "char.h5").unlink())

    def test_nothing_held_out(self):
        for command in ("eval", "predictions"):
            self.refused([command, "run", "--tokens-file", "none.h5"], 3, ["none.h5: has no held-out part", "with a larger --validation-fraction"],
                         lambda folder: dekoder(["prepare", "text.txt", "-o", "none.h5", "--tokenizer", "char",
                                                 "--validation-fraction", "0"], folder))

    def test_numbers_are_decimal(self):
        """Zeros in front do not make a number octal: step 00000001 is step 1, seed 010 draws what seed 10 draws."""
        done = dekoder(["attention", "run", "--text", "It", "--step", "00000001", "-o", "maps.h5"], self.fixtures)
        self.assertEqual(done.returncode, 0, done.stderr)
        drawn = [dekoder(["generate", "run", "--prompt", "It", "--tokens", "060", "--seed", seed], self.fixtures).stdout
                 for seed in ("10", "010", "8")]
        self.assertEqual(drawn[0], drawn[1])
        self.assertNotEqual(drawn[0], drawn[2])
        self.assertEqual(len(drawn[0].decode()), 63, drawn[0])  # prompt, tokens, line end

    def test_a_configuration_from_a_pipe(self):
        """It is read once, so that what is checked is what is used, and messages keep their places."""
        taken = [dekoder(["describe", config], self.fixtures, input=SMALL.encode()) for config in ("good.yaml", "/dev/stdin")]
        self.assertEqual((taken[1].returncode, taken[1].stdout), (0, taken[0].stdout), taken[1].stderr)
        self.assertIn(b"blocks.00.attention", taken[0].stdout)
        nameless = dekoder(["train", "/dev/stdin"], self.fixtures, input=SMALL.encode())
        self.assertEqual(nameless.returncode, 2)
        self.assertIn(b"/dev/stdin: is no regular file", nameless.stderr)
        self.assertIn(b"--run", nameless.stderr)
        wrong = dekoder(["describe", "/dev/stdin"], self.fixtures, input=b"model:\n  layrs: 3\n")
        self.assertEqual(wrong.returncode, 2)
        self.assertIn(b"/dev/stdin:2:3: unknown key 'layrs'", wrong.stderr)

    def test_a_pipe_that_nobody_writes_can_be_left(self):
        """Waiting for the text of a configuration, every command ends by SIGTERM as programs do."""
        os.mkfifo(self.fixtures / "pipe.yaml")
        self.addCleanup(os.remove, self.fixtures / "pipe.yaml")
        waiting = subprocess.Popen([DEKODER, "train", "pipe.yaml", "--run", "r"], cwd=self.fixtures)
        time.sleep(0.5)
        self.assertIsNone(waiting.poll())
        waiting.terminate()
        self.assertEqual(waiting.wait(timeout=30), -signal.SIGTERM)

    def test_noncharacters_are_text(self):
        """U+FFFE and its like are UTF-8: they go from the command line and the file into config.yaml, and back."""
        odd = "\ufdd0\ufffe\uffff\U0001ffff\U0010ffff"
        (self.fixtures / "odd.yaml").write_text(SMALL.replace('"It"', f'"{odd}"'))
        done = dekoder(["train", "odd.yaml", "--run", "odd", "--set", f'attention.texts=["{odd[:2]}"]'], self.fixtures)
        self.assertEqual(done.returncode, 0, done.stderr)
        written = (self.fixtures / "odd" / "config.yaml").read_text()
        self.assertNotIn(odd[0], written)
        config = yaml.safe_load(written)
        self.assertEqual((config["sampling"]["prompt"], config["attention"]["texts"]), (odd, [odd[:2]]))
        again = dekoder(["describe", "odd/config.yaml"], self.fixtures)
        self.assertEqual(again.returncode, 0, again.stderr)
        drawn = dekoder(["generate", "odd", "--prompt", odd[3:], "--tokens", "1"], self.fixtures)
        self.assertEqual(drawn.returncode, 0, drawn.stderr)
        self.assertTrue(drawn.stdout.startswith(odd[3:].encode()), drawn.stdout)

    def test_config_yaml_is_read_alike_by_yaml_1_1(self):
        """PyYAML, a reader of YAML 1.1, sees every value of config.yaml with the type that the setting has."""
        words = ["yes", "on", "Off", "y", "null", "~", "", "1:30", "0o7", "0x1F", "010", "1_000", "1e3", "12", ".inf", "2001-12-14",
                 "<<", "=", "- a", "a: b", "#", "!x", "&a", "*a", "%", "@", "`", "'", '"', "\\", "tab\t", " space ", "\x85\u2028"]
        texts = [word for word in words if word]
        sets = {"attention.texts": json.dumps(texts), "data.tokens": json.dumps("byte.h5"), "model.context": "64",
                "training.learning_rate": "2e-5", "training.epsilon": "1e-12", "training.clip_norm": "1e20",
                "training.seed": "18446744073709551615", "model.norm_epsilon": "0.00001", "attention.steps": "[1]"}
        done = dekoder(["train", "good.yaml", "--run", "alike", *(w for k, v in sets.items() for w in ("--set", f"{k}={v}"))],
                       self.fixtures)
        self.assertEqual(done.returncode, 0, done.stderr)
        config = yaml.safe_load((self.fixtures / "alike" / "config.yaml").read_text())
        self.assertEqual(config.pop("version"), 1)
        self.assertEqual(config["attention"]["texts"], texts)
        self.assertEqual(config["training"]["learning_rate"], 2e-5)
        self.assertEqual(config["training"]["final_learning_rate"], 2e-6)
        self.assertEqual(config["training"]["seed"], 18446744073709551615)
        texts_of = {"positions", "norm", "norm_kind", "activation", "initialisation", "schedule", "on_nonfinite", "optimizer", "precision", "residual", "recompute", "tokens", "prompt",
                    "texts"}
        for section, keys in config.items():
            for key, value in keys.items():
                for item in value if isinstance(value, list) else [value]:
                    number = not (key in texts_of and (section, key) not in (("sampling", "tokens"), ("evaluation", "tokens")))
                    self.assertIsInstance(item, (bool, int, float) if number else str, f"{section}.{key}: {item!r}")

    def test_environments(self):
        for environment, arguments, code, fragments in ENVIRONMENTS:
            self.refused(arguments, code, fragments, environment=environment)

    def test_good_environments(self):
        taught = ["train", "good.yaml", "--run", "taught", "--set", "training.steps=100"]
        self.assertEqual(dekoder(taught, self.fixtures).returncode, 0)
        self.addCleanup(shutil.rmtree, self.fixtures / "taught")
        expected = dekoder(["eval", "taught"], self.fixtures).stdout
        self.assertIn(b"validation loss", expected)
        for environment in GOOD_ENVIRONMENTS:
            with self.subTest(environment=environment):
                done = dekoder(["eval", "taught"], self.fixtures, environment)
                self.assertEqual((done.returncode, done.stdout), (0, expected), done.stderr)
                self.assertNotIn(b"HDF5-DIAG", done.stderr)

    def test_two_ranks(self):
        """One message for the job, not one per rank, and exit code 2."""
        mpirun = shutil.which("mpirun")
        self.assertIsNotNone(mpirun, "mpirun is not on the PATH")
        for command, message in ((["train", "good.yaml", "--run", "r", "--set", "training.micro_batch=0"], "2 ranks for 1 micro-batches"),
                                 (["eval", "run"], "`dekoder eval` was started on 2 ranks")):
            done = dekoder(command, self.fixtures, start=(mpirun, "--oversubscribe", "-n", "2"))
            said = done.stderr.decode(errors="replace")
            self.assertEqual(done.returncode, 2, said)
            self.assertEqual((said.count("error: "), said.count(f"dekoder: error: {message}")), (1, 1), said)
            self.assertFalse((self.fixtures / "r").exists())

    def test_texts(self):
        for text, options, code, fragments in TEXTS:
            change = (lambda folder: (folder / "t.txt").write_bytes(text)) if text is not None else None
            self.refused(["prepare", "t.txt", "-o", "t.h5", *options], code, fragments, change, alone=True)

    def test_tokenizer_files(self):
        for files, fragments in TOKENIZERS:
            self.refused(["prepare", "text.txt", "-o", "out.h5", "--tokenizer", next(iter(files))], 3, ["dekoder: error: " + fragments[0], *fragments[1:]],
                         lambda folder: [(folder / name).write_bytes(data) for name, data in files.items()])

    def test_token_shards(self):
        for files, words, code, fragments in SHARDS:
            def change(folder):
                for name, contents in files.items():
                    (folder / name).write_bytes(contents)

            self.refused(["prepare", *words, "-o", "out.h5"], code, fragments, change)

    def test_token_files(self):
        def replace(folder, damage):
            data = damage((folder / "byte.h5").read_bytes())
            (folder / "byte.h5").unlink()
            if data is not None:
                (folder / "byte.h5").write_bytes(data)

        for _, damage, code, fragments in TOKEN_FILES:
            self.refused(["train", "good.yaml", "--run", "r"], code, fragments, lambda folder: replace(folder, damage))

    def test_flipped_bits_of_a_token_file(self):
        """Wherever a byte of the file is changed, training never ends as if nothing were wrong with used tokens."""
        data = (self.fixtures / "byte.h5").read_bytes()
        at = data.find(TEXT[:8].encode("utf-16-le"))
        self.assertGreater(at, 0, "the tokens are not stored as uint16 in order: look for them in another way")

        def flip(folder):
            (folder / "byte.h5").write_bytes(data[:at + 4] + bytes([data[at + 4] ^ 1]) + data[at + 5:])

        self.refused(["train", "good.yaml", "--run", "r"], 3, ["byte.h5"], flip)

    def test_prompts(self):
        for prompt, fragments in PROMPTS:
            self.refused(["generate", "run", "--prompt", prompt], 2, fragments)

    def test_prompt_files(self):
        for text, fragments in PROMPT_FILES:
            self.refused(["generate", "run", "--prompts", "p.jsonl"], 3, fragments,
                         lambda folder, text=text: (folder / "p.jsonl").write_bytes(text))

    def test_folders_that_are_none(self):
        """Told before the first step, of a new run and of one that goes on; --fresh sets what is in the way of maps aside."""
        train = ["train", "char.yaml", "--set", 'attention.texts=["It"]', "--set", "training.steps=2", "--run"]
        for make, what in ((lambda place: place.write_text("x"), "is a file"), (lambda place: place.symlink_to("/dev/null"), "is a device"),
                           (lambda place: os.mkfifo(place), "is a FIFO"),
                           (lambda place: place.symlink_to("no-disk/maps"), "cannot be made: No such file or directory: it is a symbolic link to "),
                           (lambda place: place.symlink_to(place.name), "its symbolic links lead back to themselves")):
            for place in ("new/attention", "run/attention", "new/checkpoints", "new"):
                def change(folder):
                    if place.startswith("new/"):
                        (folder / "new").mkdir()
                    make(folder / place)

                self.refused([*train, place.split("/")[0]], 2, [f"dekoder: error: {place}: {what}", "expected a folder for the", "choose another --run"], change)
        folder = self.root / "fresh"
        shutil.copytree(self.fixtures, folder)
        (folder / "run" / "attention").write_text("x")
        done = dekoder([*train, "run", "--fresh"], folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((folder / "run" / "previous-1" / "attention").read_text(), "x")
        self.assertTrue((folder / "run" / "attention").is_dir())

    def test_nul_in_a_text(self):
        """U+0000 in a prompt or a probe: the byte tokenizer takes it, whole, now and in what is written; others name it."""
        folder = self.fixtures
        (folder / "nul.yaml").write_text(SMALL.replace('prompt: "It"', 'prompt: "a\\0b", every: 1') + 'attention: {texts: ["x\\0y"], every: 1}\n')
        self.addCleanup(os.remove, folder / "nul.yaml")
        self.addCleanup(shutil.rmtree, folder / "nul", ignore_errors=True)
        for steps in (1, 2):
            done = dekoder(["train", "nul.yaml", "--run", "nul", "--set", f"training.steps={steps}"], folder)
            self.assertEqual(done.returncode, 0, done.stderr)
        config = yaml.safe_load((folder / "nul" / "config.yaml").read_text())
        self.assertEqual((config["sampling"]["prompt"], config["attention"]["texts"]), ("a\0b", ["x\0y"]))
        samples = [json.loads(line) for line in (folder / "nul" / "samples.jsonl").read_text().splitlines()]
        self.assertEqual([(row["prompt"], row["text"][:3]) for row in samples], [("a\0b", "a\0b")] * 2)
        self.refused(["train", "nul.yaml", "--run", "r", "--set", "data.tokens=char.h5"], 2,
                     ["sampling.prompt: the vocabulary of 26 characters lacks U+0000; leave it out"])

    def test_runs(self):
        for arguments, code, fragments in RUNS:
            self.refused(arguments, code, fragments)

    def test_damaged_checkpoints_never_start_over(self):
        def damage(folder):
            files = list((folder / "run" / "checkpoints").glob("ckpt-*.h5"))
            self.assertTrue(files)
            for file in files:
                file.write_bytes(file.read_bytes()[:1000])

        for command in (["train", "char.yaml", "--run", "run"], ["generate", "run"], ["eval", "run"]):
            self.refused(command, 3, ["ckpt-"], damage)

    def test_the_table_is_long_enough(self):
        tables = (CONFIGURATIONS, COMMAND_LINES, ENVIRONMENTS, TEXTS, TOKENIZERS, TOKEN_FILES, PROMPTS, RUNS)
        self.assertGreaterEqual(sum(len(table) for table in tables), 60)


if __name__ == "__main__":
    unittest.main()
