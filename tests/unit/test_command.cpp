// SPDX-License-Identifier: Apache-2.0
#include "config/command.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.hpp"

namespace dekoder {
namespace {

std::string refusal(const Command& command) {
  try {
    check_command(command);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

Command named(const std::string& name) {
  Command command;
  command.name = name;
  return command;
}

TEST(Command, CrossesTheBorderUnchanged) {
  Command c = named("generate");
  c.action = "verify";
  c.paths = {"a: b", "", "- c\n"};
  c.config = "a folder/with: colon #.yaml";
  c.config_text = "\xef\xbb\xbfmodel:\r\n  layers: 5\t# \"\n";
  c.sets = {"a.b=c d", "e.f=\"g\"", ""};
  c.run = "-run";
  c.fresh = true;
  c.time_left = "1-02:03:04";
  c.until = 300;
  c.text = "t\\ext";
  c.output = "out";
  c.folder = "models/first";
  c.best = true;
  c.dtype = "bfloat16";
  c.tokenizer = "char";
  c.split = "qwen2";
  c.field = "\"body\": #";
  c.show = 0;
  c.validation_fraction = 0.1 / 3;
  c.shards = "a folder";
  c.shard_format = "nanogpt";
  c.shard_tokens = 1'000'000;
  c.tokens_file = "true";
  c.prompt = "\xc3\x89lise said:\n\t\"null\" \\ \x01 \xe2\x80\xa8 \xf0\x9f\x98\x80 ~";
  c.tokens = 12345;
  c.temperature = 1e-30;
  c.top_k = 7;
  c.top_p = 0.95;
  c.prompts = "a folder/prompts.jsonl";
  c.stops = {"\n\n", "<end>: #"};
  c.min_p = 0.05;
  c.repetition_penalty = 1.3;
  c.logprobs = 5;
  c.context = 4096;
  c.seed = std::numeric_limits<std::uint64_t>::max();
  c.windows = 5;
  c.top = 6;
  c.steps = 3;
  c.json = true;
  c.backend = "openmp (auto: \"/a: b\")";
  const Command back = command_from_yaml(to_yaml(c));
  EXPECT_EQ(back.name, c.name);
  EXPECT_EQ(back.action, c.action);
  EXPECT_EQ(back.paths, c.paths);
  EXPECT_EQ(back.config, c.config);
  EXPECT_EQ(back.config_text, c.config_text);
  EXPECT_EQ(back.sets, c.sets);
  EXPECT_EQ(back.run, c.run);
  EXPECT_EQ(back.fresh, c.fresh);
  EXPECT_EQ(back.time_left, c.time_left);
  EXPECT_EQ(back.until, c.until);
  EXPECT_EQ(back.text, c.text);
  EXPECT_EQ(back.output, c.output);
  EXPECT_EQ(back.folder, c.folder);
  EXPECT_EQ(back.best, c.best);
  EXPECT_EQ(back.dtype, c.dtype);
  EXPECT_EQ(back.tokenizer, c.tokenizer);
  EXPECT_EQ(back.split, c.split);
  EXPECT_EQ(back.field, c.field);
  EXPECT_EQ(back.show, c.show);
  EXPECT_EQ(back.validation_fraction, c.validation_fraction);
  EXPECT_EQ(back.tokens_file, c.tokens_file);
  EXPECT_EQ(back.prompt, c.prompt);
  EXPECT_EQ(back.tokens, c.tokens);
  EXPECT_EQ(back.temperature, c.temperature);
  EXPECT_EQ(back.top_k, c.top_k);
  EXPECT_EQ(back.top_p, c.top_p);
  EXPECT_EQ(back.seed, c.seed);
  EXPECT_EQ(back.windows, c.windows);
  EXPECT_EQ(back.top, c.top);
  EXPECT_EQ(back.steps, c.steps);
  EXPECT_EQ(back.json, c.json);
  EXPECT_EQ(back.backend, c.backend);
  EXPECT_EQ(back.shards, c.shards);
  EXPECT_EQ(back.shard_format, c.shard_format);
  EXPECT_EQ(back.shard_tokens, c.shard_tokens);
  EXPECT_EQ(to_yaml(back), to_yaml(c));
}

TEST(Command, ABrokenTextIsRefused) {
  for (const std::string text : {"", "name: train", "[1, 2]", "name: {", "\"just a word\""})
    EXPECT_THROW(command_from_yaml(text), ConfigError) << text;
}

TEST(Command, DefaultsAreInRange) {
  for (const char* name : {"train", "prepare", "tokens", "eval", "generate", "describe", "bench", "status",
                           "checkpoint", "export", "import"})
    EXPECT_EQ(refusal(named(name)), "") << name;
}

TEST(Command, ATimeLeftThatIsNoneIsRefused) {
  Command c = named("train");
  c.time_left = "1:75:00";
  EXPECT_EQ(refusal(c),
            "--time-left is '1:75:00'; expected MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS, as squeue -o %L "
            "prints it, or UNLIMITED");
  c.time_left = "UNLIMITED";
  EXPECT_EQ(refusal(c), "");
}

TEST(Command, AStepThatNoRunHasIsRefused) {
  Command c = named("train");
  c.until = 0;
  EXPECT_EQ(refusal(c), "--until is 0; expected a step of the run, at least 1");
  c.until = 1;
  EXPECT_EQ(refusal(c), "");
}

TEST(Command, AnExportIsOfOneCheckpointAndAKnownType) {
  Command c = named("export");
  c.dtype = "float64";
  EXPECT_EQ(refusal(c), "--dtype is 'float64'; expected float32, float16, bfloat16 or q8_0");
  c.dtype = "q8_0";
  c.output = "model";
  EXPECT_EQ(
      refusal(c),
      "--dtype is q8_0, which a file of GGUF alone holds, and --output model; expected FILE.gguf, or another type");
  c.output = "folder.of/model.gguf";
  EXPECT_EQ(refusal(c), "");
  c.dtype = "bfloat16";
  c.best = true;
  EXPECT_EQ(refusal(c), "");
  c.step = 7;
  EXPECT_EQ(refusal(c), "--best and --step 7; expected one of them");
}

TEST(Command, ATextThatIsNotUtf8IsRefused) {
  Command c = named("generate");
  c.prompt = "caf\xe9";
  EXPECT_EQ(refusal(c), "--prompt is not UTF-8: byte 0xE9 at offset 3; expected UTF-8 text");
  c = named("status");
  c.run = "\xff";
  EXPECT_EQ(refusal(c), "the run directory's name is not UTF-8: byte 0xFF at offset 0; expected UTF-8 text");
  c = named("checkpoint");
  c.paths = {"good", "caf\xe9"};
  EXPECT_EQ(refusal(c), "a path is not UTF-8: byte 0xE9 at offset 3; expected UTF-8 text");
  c = named("attention");
  c.text = "\u00e9\xc3";
  EXPECT_EQ(refusal(c), "--text is not UTF-8: byte 0xC3 at offset 2; expected UTF-8 text");
  c.text = "It";
  c.output = "\x80";
  c.config = "\xc0\xaf";
  EXPECT_EQ(refusal(c),
            "the configuration's name is not UTF-8: byte 0xC0 at offset 0; expected UTF-8 text\n"
            "--output is not UTF-8: byte 0x80 at offset 0; expected UTF-8 text");
}

/// Code points that are no characters are UTF-8 all the same.
TEST(Command, NoncharactersCrossTheBorder) {
  Command c = named("generate");
  c.prompt = "\uFDD0 \uFFFE \uFFFF \U0001FFFF \U0010FFFF";
  c.config_text = "model: {}  # " + c.prompt + "\r\n";
  EXPECT_EQ(refusal(c), "");
  const Command back = command_from_yaml(to_yaml(c));
  EXPECT_EQ(back.prompt, c.prompt);
  EXPECT_EQ(back.config_text, c.config_text);
}

TEST(Command, RulesOfDrawingAreInRange) {
  Command c = named("generate");
  c.min_p = std::numeric_limits<double>::quiet_NaN();
  c.repetition_penalty = 0;
  c.context = 0;
  c.stops = {"a", ""};
  c.prompt = "It";
  c.prompts = "prompts.jsonl";
  EXPECT_EQ(refusal(c),
            "--min-p is nan; expected from 0 to 1 (0: all tokens)\n"
            "--repetition-penalty is 0; expected from 0.01 to 100 (1: none)\n"
            "--context is 0; expected at least 1\n"
            "--prompt and --prompts; expected one of them\n"
            "--stop is empty; expected at least one character");
}

TEST(Command, EveryOptionOutOfRangeIsNamedAtOnce) {
  Command c = named("generate");
  c.prompt = "";
  c.tokens = 0;
  c.temperature = std::numeric_limits<double>::quiet_NaN();
  c.top_k = -1;
  c.top_p = 1.5;
  const std::string message = refusal(c);
  for (const char* option :
       {"--prompt", "--tokens is 0", "--temperature is nan", "--top-k is -1", "--top-p is 1.5"})
    EXPECT_NE(message.find(option), std::string::npos) << option << " in " << message;
  c.name = "status";  // options of another command are not looked at
  EXPECT_EQ(refusal(c), "");
  Command p = named("prepare");
  p.tokenizer = "word";
  p.split = "gpt4";
  p.validation_fraction = 1;
  EXPECT_NE(refusal(p).find("--tokenizer is 'word'"), std::string::npos);
  EXPECT_NE(refusal(p).find("--split is 'gpt4'; expected gpt2, cl100k or qwen2"), std::string::npos);
  EXPECT_NE(refusal(p).find("--validation-fraction is 1"), std::string::npos);
  Command t = named("tokens");
  t.show = -1;
  EXPECT_EQ(refusal(t), "--show is -1; expected at least 0");
  t = named("tokens");
  t.shard_tokens = 0;
  EXPECT_EQ(refusal(t),
            "--shard-tokens is 0; expected 1 to 2147483647\n"
            "--shard-format and --shard-tokens say how shards are written; expected --shards FOLDER with them");
  t.shards = "folder";
  t.shard_tokens = 5;
  EXPECT_EQ(refusal(t), "");
}

}  // namespace
}  // namespace dekoder
