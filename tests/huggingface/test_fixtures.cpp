// SPDX-License-Identifier: Apache-2.0
// Models as transformers writes them (make_fixtures.py): import, logits and greedy text against its own, and back.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "commands/export_command.hpp"
#include "commands/import_command.hpp"
#include "inference/generator.hpp"
#include "inference/inference_model.hpp"
#include "io/safetensors/safetensors_file.hpp"
#include "io/safetensors/safetensors_writer.hpp"
#include "model/model_summary.hpp"
#include "support/scratch_folder.hpp"
#include "support/source_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using testing_support::message_of;
using testing_support::ScratchFolder;

fs::path fixture(const std::string& name) {
  return testing_support::source_folder() / "tests" / "huggingface" / "fixtures" / name;
}

std::vector<float> values_of(const SafetensorsFile& file, const std::string& name) {
  for (const SafetensorsTensor& tensor : file.tensors())
    if (tensor.name == name) {
      std::vector<float> values(tensor.elements);
      file.read(tensor, values);
      return values;
    }
  throw std::logic_error(name);
}

Command import_of(const fs::path& folder, const fs::path& run) {
  Command command;
  command.name = "import";
  command.folder = folder.string();
  command.output = run.string();
  return command;
}

Command export_of(const fs::path& run, const fs::path& folder) {
  Command command;
  command.name = "export";
  command.run = run.string();
  command.output = folder.string();
  return command;
}

std::string text_of(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

class Fixtures : public testing::TestWithParam<const char*> {};

TEST_P(Fixtures, LogitsAreThoseOfTransformers) {
  const ScratchFolder folder("huggingface");
  import_model(import_of(fixture(GetParam()), folder / "run"));
  const auto model = load_inference_model(folder / "run");
  const SafetensorsFile expected(fixture(GetParam()) / "expected.safetensors");
  const std::vector<float> tokens = values_of(expected, "tokens"), logits = values_of(expected, "logits");
  ModelConfig shape = model->config.model;
  shape.context = int(tokens.size());
  const TokenTensor2 input("tokens", 1, tokens.size());
  const auto host = Kokkos::create_mirror_view(input);
  for (std::size_t t = 0; t < tokens.size(); ++t) host(0, t) = Token(tokens[t]);
  Kokkos::deep_copy(input, host);
  ActivationArena arena(activation_bytes(shape, 1, ActivationUse::losses));
  const DecoderActivations activations(arena, shape, 1, ActivationUse::losses);
  const StoredTensor2 found("logits", tokens.size(), std::size_t(padded_vocabulary(shape)));
  model->decoder.forward(ExecSpace(), input, {}, activations);
  model->decoder.logits(ExecSpace(), activations, found);
  const auto got = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), found);
  const std::size_t V = std::size_t(shape.vocabulary);
  ASSERT_EQ(logits.size(), tokens.size() * V);
  double largest = 0, difference = 0;
  for (std::size_t t = 0; t < tokens.size(); ++t)
    for (std::size_t v = 0; v < V; ++v) {
      largest = std::max(largest, std::abs(double(logits[t * V + v])));
      difference = std::max(difference, std::abs(double(logits[t * V + v]) - double(got(t, v))));
    }
  RecordProperty("relative", std::to_string(difference / largest));
  EXPECT_GT(largest, 1);  // logits of zeros would be like any others
  EXPECT_LT(difference, 2e-5 * largest);
}

TEST_P(Fixtures, GreedyTextIsThatOfTransformers) {
  const ScratchFolder folder("huggingface");
  import_model(import_of(fixture(GetParam()), folder / "run"));
  const auto model = load_inference_model(folder / "run");
  const SafetensorsFile file(fixture(GetParam()) / "expected.safetensors");
  std::vector<Token> prompt, expected, found;
  for (const float token : values_of(file, "prompt")) prompt.push_back(Token(token));
  for (const float token : values_of(file, "greedy")) expected.push_back(Token(token));
  EXPECT_EQ(model->tokenizer
                .encode("It is a truth universally acknowledged, that a single man in possession of a "
                        "good fortune,")
                .at(0),
            prompt.at(0));
  SamplingConfig sampling;
  sampling.temperature = 0;
  sampling.tokens = int(expected.size());
  Generator(model->decoder, model->config.model.vocabulary)
      .generate(ExecSpace(), prompt, sampling, [&](Token token) {
        found.push_back(token);
        return true;
      });
  EXPECT_EQ(found, expected);
}

/// Prompts of other lengths in one batch, past the context of training where positions are not learned: each text
/// is that of transformers for its prompt alone.
TEST_P(Fixtures, BatchesOfGreedyTextsAreThoseOfTransformers) {
  const ScratchFolder folder("huggingface");
  import_model(import_of(fixture(GetParam()), folder / "run"));
  const auto model = load_inference_model(folder / "run");
  const SafetensorsFile file(fixture(GetParam()) / "expected.safetensors");
  std::vector<std::vector<Token>> prompts(4);
  const std::vector<float> padded = values_of(file, "prompts");
  for (std::size_t i = 0; i < padded.size(); ++i)
    if (padded[i] >= 0) prompts[i * prompts.size() / padded.size()].push_back(Token(padded[i]));
  for (const char* name : {"texts", "penalized"}) {
    std::vector<Token> expected, found;
    for (const float token : values_of(file, name)) expected.push_back(Token(token));
    const int count = int(expected.size() / prompts.size());
    ModelConfig shape = model->config.model;
    if (shape.positions != Positions::learned) {
      EXPECT_GT(count, shape.context);
      shape.context = 80;
    }
    const Decoder decoder(shape, model->store);
    Drawing drawing = SamplingConfig{};
    drawing.temperature = 0;
    drawing.tokens = count;
    if (name == std::string("penalized")) drawing.repetition_penalty = 1.3;
    std::vector<std::vector<Token>> texts(prompts.size());
    Generator(decoder, shape.vocabulary, 3)
        .generate(ExecSpace(), prompts, drawing, [&](std::size_t p, const DrawnToken& drawn) {
          texts[p].push_back(drawn.token);
          return Then::go_on;
        });
    for (const std::vector<Token>& text : texts) found.insert(found.end(), text.begin(), text.end());
    EXPECT_EQ(found, expected) << name;
  }
}

TEST(Drawing, SharesAreThoseOfTheProcessorsOfTransformers) {
  const SafetensorsFile file(fixture("drawing") / "drawing.safetensors");
  const std::vector<float> logits = values_of(file, "logits"), settings = values_of(file, "settings"),
                           chances = values_of(file, "chances");
  const std::size_t V = logits.size(), width = 5;
  std::vector<bool> seen(V);
  for (const float token : values_of(file, "seen")) seen[std::size_t(token)] = true;
  ASSERT_EQ(settings.size() / width, 10u);
  for (std::size_t n = 0; n < settings.size() / width; ++n) {
    const float* setting = &settings[n * width];
    Drawing drawing = SamplingConfig{};
    drawing.temperature = double(setting[0]);
    drawing.top_k = int(setting[1]);
    drawing.top_p = double(setting[2]);
    drawing.min_p = double(setting[3]);
    std::vector<Real> changed(logits.begin(), logits.end());
    penalize_repetition(seen, double(setting[4]), changed);
    std::vector<double> found(V, 0.0);
    double mass = 0;
    for (const auto& [token, share] : shares_of_draw(changed, drawing)) mass += share;
    for (const auto& [token, share] : shares_of_draw(changed, drawing)) found[std::size_t(token)] = share / mass;
    for (std::size_t v = 0; v < V; ++v) {
      const double expected = double(chances[n * V + v]);
      ASSERT_EQ(found[v] > 0, expected > 0) << "setting " << n << " token " << v;
      ASSERT_NEAR(found[v], expected, 1e-5 * expected) << "setting " << n << " token " << v;
    }
  }
}

/// transformers -> run -> transformers: the same numbers; and the next round the same files.
TEST_P(Fixtures, ThereAndBackIsBitExact) {
  const ScratchFolder folder("huggingface");
  import_model(import_of(fixture(GetParam()), folder / "run"));
  export_model(export_of(folder / "run", folder / "first"));
  import_model(import_of(folder / "first", folder / "second_run"));
  export_model(export_of(folder / "second_run", folder / "second"));
  for (const char* name :
       {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"})
    EXPECT_TRUE(text_of(folder / "first" / name) == text_of(folder / "second" / name)) << name;
  const SafetensorsFolder before(fixture(GetParam())), after(folder / "first");
  ASSERT_EQ(after.tensors().size(), before.tensors().size());
  for (const auto& [name, place] : before.tensors()) {
    ASSERT_TRUE(after.tensors().contains(name)) << name;
    const auto& there = after.tensors().at(name);
    EXPECT_EQ(there.tensor->shape, place.tensor->shape) << name;
    EXPECT_EQ(values_of(*there.file, name), values_of(*place.file, name)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Fixtures,
                         testing::Values("gpt2", "llama", "llama_bias", "mistral", "qwen3", "mistral_window",
                                         "qwen3_window"));

/// A copy of a fixture with one text in one of its files replaced.
fs::path changed(const ScratchFolder& folder, const std::string& name, const std::string& file,
                 const std::string& before, const std::string& after) {
  const fs::path copy = folder / "changed";
  fs::remove_all(copy);
  fs::copy(fixture(name), copy, fs::copy_options::recursive);
  std::string text = text_of(copy / file);
  const std::size_t at = text.find(before);
  EXPECT_NE(at, std::string::npos) << before;
  std::ofstream(copy / file, std::ios::binary) << text.replace(at, before.size(), after);
  return copy;
}

struct Refusal {
  const char *fixture, *file, *before, *after, *message;
};

TEST(Import, WhatIsNotKnownIsNamed) {
  const ScratchFolder folder("huggingface");
  const std::string size = "\"n_embd\": 16";
  for (const Refusal& row : std::initializer_list<Refusal>{
           {"gpt2", "config.json", "GPT2LMHeadModel", "GPTNeoForCausalLM",
            "config.json: architectures[0] is \"GPTNeoForCausalLM\"; expected GPT2LMHeadModel, LlamaForCausalLM, "
            "MistralForCausalLM or Qwen3ForCausalLM"},
           {"llama", "config.json", "LlamaForCausalLM", "Qwen3ForCausalLM",
            "there is no tensor 'model.layers.0.self_attn.q_norm.weight' in the safetensors files"},
           {"qwen3", "config.json", "\"attention_bias\": false", "\"attention_bias\": true",
            "attention_bias is true; expected false: all linear layers have biases here, or none"},
           {"llama", "config.json", "LlamaForCausalLM", "Qwen2ForCausalLM",
            "biases of queries, keys and values alone"},
           {"gpt2", "config.json", "\"n_layer\": 2", "\"n_layer\": 2.5",
            "config.json: n_layer is 2.5; expected a whole number, 1 to 16777216"},
           {"gpt2", "config.json", "\"n_layer\": 2", "\"n_layer\": 3",
            "there is no tensor 'transformer.h.2.ln_1.weight' in the safetensors files"},
           {"gpt2", "config.json", "\"n_layer\": 2", "\"n_layer\": 1",
            "has a tensor 'transformer.h.1.attn.c_attn.bias' that the architecture of config.json does not have"},
           {"gpt2", "config.json", "\"n_embd\": 16", "\"n_embd\": 32",
            "has the shape [270, 16]; config.json asks for [270, 32]"},
           {"gpt2", "config.json", "\"n_head\": 2", "\"n_head\": 3",
            "model.heads 3 does not divide model.channels 16"},
           {"gpt2", "config.json", "\"n_embd\": 16", "\"n_embd\": 16, \"n_embd\": 16",
            "has the key 'n_embd' twice"},
           {"gpt2", "config.json", "gelu_new", "mish", "activation_function is \"mish\"; expected relu, gelu"},
           {"gpt2", "config.json", "\"attn_pdrop\": 0.1", "\"attn_pdrop\": 0.2",
            "attn_pdrop is 0.2; expected 0.1, as resid_pdrop"},
           {"gpt2", "config.json", "\"scale_attn_by_inverse_layer_idx\": false",
            "\"scale_attn_by_inverse_layer_idx\": true", "scale_attn_by_inverse_layer_idx is true; expected false"},
           {"llama", "config.json", "\"rope_type\": \"llama3\"", "\"rope_type\": \"yarn\"",
            "rope_parameters.rope_type is \"yarn\"; expected default or llama3"},
           {"llama", "config.json", "\"rope_theta\": 500.0,", "",
            "rope_parameters.rope_theta is null; expected a number"},
           {"llama", "config.json", "\"mlp_bias\": false", "\"mlp_bias\": true",
            "mlp_bias is true; expected false, as"},
           {"llama", "config.json", "\"vocab_size\": 270", "\"vocab_size\": 200",
            "vocab_size is 200, and the tokenizer has 265"},
           {"llama", "config.json", "\"use_cache\": true", "\"quantization_config\": {}",
            "quantization_config is {}; expected none"},
           {"mistral", "config.json", "\"sliding_window\": null", "\"sliding_window\": 0",
            "sliding_window is 0; expected a whole number, 1 to 16777216"},
           {"qwen3_window", "config.json", "\"full_attention\"", "\"chunked_attention\"",
            "layer_types[1] is \"chunked_attention\"; expected full_attention or sliding_attention"},
           {"llama", "model.safetensors", "\"F32\"", "\"I32\"",
            "has elements of type I32; expected F32, F16, BF16 or F64"},
           {"llama_bias", "model.safetensors.index.json", "model-00001-of-00003.safetensors",
            "../00001-of-00003.safetensors", "expected a file of the same folder"},
           {"llama_bias", "model.safetensors.index.json", "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors", "where the index has it"},
           {"llama_bias", "tokenizer.json", "\"BPE\"", "\"Unigram\"", "model.type is \"Unigram\"; expected BPE"}}) {
    const fs::path copy = changed(folder, row.fixture, row.file, row.before, row.after);
    const std::string message = message_of<UserError>([&] { import_model(import_of(copy, folder / "run")); });
    EXPECT_NE(message.find(row.message), std::string::npos) << row.after << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_FALSE(fs::exists(folder / "run")) << row.after;
  }
}

TEST(Import, SettingsOfTheModelStayItsOwn) {
  const ScratchFolder folder("huggingface");
  Command command = import_of(fixture("llama"), folder / "run");
  command.sets = {"model.layers=1"};
  EXPECT_NE(
      message_of<ConfigError>([&] { import_model(command); }).find("model.layers is 2 in the model and 1 by --set"),
      std::string::npos);
  command.sets = {"model.context=16", "model.dropout=0.1", "training.steps=7", "training.warmup_steps=0"};
  import_model(command);
  const auto model = load_inference_model(folder / "run");
  EXPECT_EQ(model->config.model.context, 16);
  EXPECT_EQ(model->config.training.steps, 7);
  EXPECT_NE(message_of<DataError>([&] { import_model(command); }).find("holds a run already"), std::string::npos);
}

TEST(Import, FewerLearnedPositionsAreTheFirst) {
  const ScratchFolder folder("huggingface");
  Command command = import_of(fixture("gpt2"), folder / "run");
  command.sets = {"model.context=5"};
  import_model(command);
  export_model(export_of(folder / "run", folder / "out"));
  const SafetensorsFile before(fixture("gpt2") / "model.safetensors"), after(folder / "out" / "model.safetensors");
  std::vector<float> expected = values_of(before, "transformer.wpe.weight");
  expected.resize(std::size_t{5} * 16);
  EXPECT_EQ(values_of(after, "transformer.wpe.weight"), expected);
  command.output = (folder / "longer").string();
  command.sets = {"model.context=33"};
  EXPECT_NE(message_of<ConfigError>([&] {
              import_model(command);
            }).find("model.context is 33 by --set; expected at most 32, as many positions as the model learned"),
            std::string::npos);
}

/// The first files of GPT-2 have names without the prefix, and masks beside the parameters; of a tied head two
/// copies.
TEST(Import, NamesOfOldFilesOfGpt2AreKnown) {
  const ScratchFolder folder("huggingface");
  const SafetensorsFile before(fixture("gpt2") / "model.safetensors");
  std::vector<TensorToWrite> tensors;
  const std::size_t prefix = std::string("transformer.").size();
  for (const SafetensorsTensor& tensor : before.tensors())
    tensors.push_back(
        {tensor.name.substr(prefix), tensor.shape, [&](std::span<float> out) { before.read(tensor, out); }});
  const auto ones = [](std::span<float> out) { std::ranges::fill(out, 1.0f); };
  tensors.push_back({"h.0.attn.bias", {1, 1, 4, 4}, ones});
  tensors.push_back({"h.0.attn.masked_bias", {}, ones});
  tensors.push_back({"lm_head.weight", {270, 16}, ones});
  fs::copy(fixture("gpt2"), folder / "old", fs::copy_options::recursive);
  fs::remove(folder / "old" / "model.safetensors");
  write_safetensors(folder / "old", tensors);
  for (const char* name : {"old", "new"}) {
    import_model(import_of(name == std::string("old") ? folder / "old" : fixture("gpt2"),
                           folder / (name + std::string("_run"))));
    export_model(export_of(folder / (name + std::string("_run")), folder / (name + std::string("_out"))));
  }
  EXPECT_EQ(text_of(folder / "old_out" / "model.safetensors"), text_of(folder / "new_out" / "model.safetensors"));
}

TEST(Import, NumbersThatAreNotFiniteAreNamed) {
  const ScratchFolder folder("huggingface");
  const fs::path copy = folder / "changed";
  fs::copy(fixture("llama"), copy, fs::copy_options::recursive);
  std::string text = text_of(copy / "model.safetensors");
  const float infinite = INFINITY;
  text.replace(text.size() - sizeof(infinite), sizeof(infinite), reinterpret_cast<const char*>(&infinite),
               sizeof(infinite));
  std::ofstream(copy / "model.safetensors", std::ios::binary) << text;
  const std::string message = message_of<UserError>([&] { import_model(import_of(copy, folder / "run")); });
  EXPECT_NE(message.find("element 15 of 'model.norm.weight' is inf"), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(folder / "run"));
}

TEST(Export, BFloat16IsHalfAsLongAndRounded) {
  const ScratchFolder folder("huggingface");
  import_model(import_of(fixture("llama_bias"), folder / "run"));
  Command command = export_of(folder / "run", folder / "out");
  command.dtype = "bfloat16";
  export_model(command);
  const SafetensorsFolder before(fixture("llama_bias"));
  const SafetensorsFile after(folder / "out" / "model.safetensors");
  for (const auto& [name, place] : before.tensors())  // which are of bf16 already
    EXPECT_EQ(values_of(after, name), values_of(*place.file, name)) << name;
  EXPECT_NE(text_of(folder / "out" / "config.json").find("\"torch_dtype\": \"bfloat16\""), std::string::npos);
}

TEST(Export, ForeignFilesStay) {
  const ScratchFolder folder("huggingface");
  import_model(import_of(fixture("gpt2"), folder / "run"));
  fs::create_directory(folder / "out");
  folder.write("out/letter.txt", "mine");
  const Command command = export_of(folder / "run", folder / "out");
  EXPECT_NE(message_of<DataError>([&] { export_model(command); }).find("is not empty"), std::string::npos);
  EXPECT_EQ(text_of(folder / "out" / "letter.txt"), "mine");
  fs::remove(folder / "out" / "letter.txt");
  folder.write("out/model.safetensors", "of an export that was killed");
  export_model(command);
  EXPECT_NE(message_of<DataError>([&] { export_model(command); }).find("is not empty"), std::string::npos);
}

}  // namespace
}  // namespace dekoder
