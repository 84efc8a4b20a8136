# SPDX-License-Identifier: Apache-2.0
"""Writes tests/huggingface/fixtures: folders of tiny models with random weights, as transformers writes them.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==5.24.0
    venv/bin/python tests/huggingface/make_fixtures.py            # all; or name some

A folder holds config.json, weights, tokenizer.json, and expected.safetensors (all F32):
    tokens   (B,T)     inputs
    logits   (B,T,V)   of transformers, in fp32
    prompt   (P)       tokens
    greedy   (G)       the tokens that generate(do_sample=False) adds
    prompts  (P,T)     tokens, of other lengths: -1 behind the last
    texts    (P,G)     the tokens that it adds to each alone, past the longest context where positions are not learned
    penalized (P,G)    the same with repetition_penalty=1.3
The folder `drawing` has no model but drawing.safetensors: of one row of logits what the processors of
generate(do_sample=True) make of it, in its order of them.
    logits   (V)
    seen     (S)       tokens of the text
    settings (N,5)     temperature, top_k, top_p, min_p, repetition_penalty
    chances  (N,V)     probabilities
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (GenerationConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, LogitsProcessorList,
                          MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM)

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


def greedy_text(model, prompt, count, **settings):
    """The tokens that are added; None where one of them is ahead by less than the difference of logits that the tests allow."""
    said = model.generate(prompt[None], attention_mask=torch.ones_like(prompt[None]), max_new_tokens=count, do_sample=False,
                          return_dict_in_generate=True, output_scores=True, **settings)
    best = torch.cat(said.scores).topk(2).values
    assert len(best) == count
    return said.sequences[0][len(prompt):] if (best[:, 0] - best[:, 1]).min() > 2e-5 * best.abs().max() else None


def make_drawing():
    chance = torch.Generator().manual_seed(3)
    logits, seen = 3 * torch.randn(200, generator=chance), torch.randint(200, (40,), generator=chance)
    settings = [(1, 0, 1, 0, 1), (0.7, 0, 1, 0, 1), (1.5, 7, 1, 0, 1), (1, 0, 0.9, 0, 1), (1, 0, 1, 0.05, 1), (1, 0, 1, 0, 1.3),
                (1, 0, 1, 0, 0.8), (0.8, 50, 0.95, 0.02, 1.1), (2.0, 30, 0.7, 0.1, 1.5), (0.5, 3, 0.999, 0.3, 1.2)]
    chances = []
    for temperature, top_k, top_p, min_p, penalty in settings:
        config = GenerationConfig(do_sample=True, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                                  repetition_penalty=penalty)
        processors = MODELS["gpt2"]()[0]._get_logits_processor(generation_config=config, input_ids_seq_length=len(seen),
                                                               encoder_input_ids=seen[None], prefix_allowed_tokens_fn=None,
                                                               logits_processor=LogitsProcessorList(), device="cpu")
        chances.append(processors(seen[None], logits[None].clone()).softmax(-1)[0])
        print("drawing", [type(one).__name__ for one in processors], int((chances[-1] > 0).sum()), "tokens")
    (FOLDER / "drawing").mkdir(exist_ok=True)
    save_file({"logits": logits, "seen": seen.float(), "settings": torch.tensor(settings).float(), "chances": torch.stack(chances)},
              FOLDER / "drawing" / "drawing.safetensors")


def make(name):
    if name == "drawing":
        return make_drawing()
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
        greedy = greedy_text(model, prompt, 20)
        count = 60 if hasattr(model.config, "rope_parameters") else 20
        rows = []
        for length in (1, 12, 3, 7, 2, 9, 5, 11):
            one = torch.tensor(words(TEXT[1])["input_ids"][:length])
            rows.append((one, *(greedy_text(model, one, count, **settings) for settings in ({}, {"repetition_penalty": 1.3}))))
        prompts, texts, penalized = zip(*[row for row in rows if all(text is not None for text in row)][:4])
    expected = {"tokens": tokens, "logits": logits, "prompt": prompt, "greedy": greedy,
                "prompts": torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True, padding_value=-1),
                "texts": torch.stack(texts), "penalized": torch.stack(penalized)}
    save_file({key: value.float().contiguous() for key, value in expected.items()}, folder / "expected.safetensors")
    print(name, json.loads((folder / "config.json").read_text())["architectures"], sum(p.stat().st_size for p in folder.iterdir()))


if __name__ == "__main__":
    for chosen in sys.argv[1:] or [*MODELS, "drawing"]:
        make(chosen)
