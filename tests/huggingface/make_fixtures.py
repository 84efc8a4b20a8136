# SPDX-License-Identifier: Apache-2.0
"""Writes tests/huggingface/fixtures: folders of tiny models with random weights, as transformers writes them.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==5.24.0
    venv/bin/python tests/huggingface/make_fixtures.py            # all; or name some

A folder holds config.json, weights, tokenizer.json, and expected.safetensors (all F32):
    tokens   (B,T)     inputs
    logits   (B,T,V)   of transformers, in fp32
    prompt   (P)       tokens
    greedy   (G)       the tokens that generate(do_sample=False) adds
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM)

FOLDER = pathlib.Path(__file__).parent / "fixtures"
TEXT = ["It is a truth universally acknowledged, that a single man in possession of a good fortune,",
        "must be in want of a wife. However little known the feelings or views of such a man may be"]
VOCABULARY = 270  # not a multiple of 64: rows are padded here
LLAMA = dict(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.3, bos_token_id=None, eos_token_id=None,
             pad_token_id=None)
# Name: model, type of its weights, size of a shard.
MODELS = {
    "gpt2": lambda: (GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=32, n_embd=16, n_layer=2, n_head=2,
                                                initializer_range=0.3, bos_token_id=None, eos_token_id=None)),
                     torch.float32, "5GB"),
    # Grouped keys, stretched wavelengths, wider heads, a head of its own.
    "llama": lambda: (LlamaForCausalLM(LlamaConfig(**LLAMA, head_dim=8, tie_word_embeddings=False, rms_norm_eps=1e-5,
                                                   rope_parameters={"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0,
                                                                    "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                                                    "original_max_position_embeddings": 16})),
                      torch.float32, "5GB"),
    # Biases, a tied head, weights in bf16, in shards.
    "llama_bias": lambda: (LlamaForCausalLM(LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
                                                        hidden_act="gelu_pytorch_tanh")),
                           torch.bfloat16, "6KB"),
    "mistral": lambda: (MistralForCausalLM(MistralConfig(**LLAMA, sliding_window=None, tie_word_embeddings=False)),
                        torch.float16, "5GB"),
    # Norms of queries and keys; heads that do not make up the channels.
    "qwen3": lambda: (Qwen3ForCausalLM(Qwen3Config(**LLAMA, head_dim=6, tie_word_embeddings=True)), torch.float32, "5GB"),
    # Windows: of all layers, and of every second one.
    "mistral_window": lambda: (MistralForCausalLM(MistralConfig(**LLAMA, sliding_window=4, tie_word_embeddings=True)), torch.float32, "5GB"),
    "qwen3_window": lambda: (Qwen3ForCausalLM(Qwen3Config(**LLAMA, head_dim=8, tie_word_embeddings=True, use_sliding_window=True, sliding_window=5,
                                                          layer_types=["sliding_attention", "full_attention"])), torch.float32, "5GB"),
}


def tokenizer():
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    rules.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=VOCABULARY - 5, special_tokens=["<|endoftext|>"], show_progress=False,
                                                        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="<|endoftext|>")


def make(name):
    torch.manual_seed(1)
    model, dtype, shard = MODELS[name]()
    for parameter in model.parameters():  # biases and gains too are none that a wrong place would not show
        if parameter.dim() == 1:
            parameter.data += torch.randn_like(parameter) * 0.2
    folder = FOLDER / name
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    words = tokenizer()
    words.save_pretrained(folder)
    # The rounded weights; rotary frequencies, which to(dtype) would round too, are made anew.
    model = type(model).from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(VOCABULARY, (1, 12), generator=torch.Generator().manual_seed(2))
    prompt = torch.tensor(words(TEXT[0])["input_ids"][:5])
    with torch.no_grad():
        logits = model(tokens).logits
        greedy = model.generate(prompt[None], attention_mask=torch.ones_like(prompt[None]), max_new_tokens=20, do_sample=False)[0][len(prompt):]
    assert len(greedy) == 20
    expected = {"tokens": tokens, "logits": logits, "prompt": prompt, "greedy": greedy}
    save_file({key: value.float().contiguous() for key, value in expected.items()}, folder / "expected.safetensors")
    print(name, json.loads((folder / "config.json").read_text())["architectures"], sum(p.stat().st_size for p in folder.iterdir()))


if __name__ == "__main__":
    for chosen in sys.argv[1:] or MODELS:
        make(chosen)
