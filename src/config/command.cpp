// SPDX-License-Identifier: Apache-2.0
#include "config/command.hpp"

#include <algorithm>
#include <climits>
#include <cmath>
#include <filesystem>

#include "base/error.hpp"
#include "base/utf8.hpp"
#include "config/setting_value.hpp"
#include "config/time_left.hpp"

namespace dekoder {

namespace {

/// visit(key, member, what) for every member: the one list that writes, reads and checks. `what` names a text in
/// messages; a configuration's text and settings are checked where they are read, which knows the place.
template <class CommandType, class Visitor>
void visit_members(CommandType& c, Visitor&& visit) {
  constexpr const char* elsewhere = nullptr;
  visit("name", c.name, elsewhere);
  visit("action", c.action, elsewhere);
  visit("paths", c.paths, c.name == "prepare" ? "the text file's name" : "a path");
  visit("config", c.config, "the configuration's name");
  visit("config_text", c.config_text, elsewhere);
  visit("sets", c.sets, elsewhere);
  visit("run", c.run, "the run directory's name");
  visit("fresh", c.fresh, elsewhere);
  visit("time_left", c.time_left, "--time-left");
  visit("until", c.until, elsewhere);
  visit("text", c.text, "--text");
  visit("output", c.output, "--output");
  visit("folder", c.folder, c.name == "import" ? "the model's folder" : "--folder");
  visit("step", c.step, elsewhere);
  visit("best", c.best, elsewhere);
  visit("dtype", c.dtype, "--dtype");
  visit("tokenizer", c.tokenizer, "--tokenizer");
  visit("split", c.split, "--split");
  visit("vocabulary", c.vocabulary, elsewhere);
  visit("field", c.field, "--field");
  visit("skip_bad_lines", c.skip_bad_lines, elsewhere);
  visit("validation_fraction", c.validation_fraction, elsewhere);
  visit("tokens_file", c.tokens_file, c.name == "tokens" ? "the token file's name" : "--tokens-file");
  visit("show", c.show, elsewhere);
  visit("shards", c.shards, "--shards");
  visit("shard_format", c.shard_format, "--shard-format");
  visit("shard_tokens", c.shard_tokens, elsewhere);
  visit("prompt", c.prompt, "--prompt");
  visit("prompts", c.prompts, "--prompts");
  visit("stops", c.stops, "--stop");
  visit("tokens", c.tokens, elsewhere);
  visit("temperature", c.temperature, elsewhere);
  visit("top_k", c.top_k, elsewhere);
  visit("top_p", c.top_p, elsewhere);
  visit("min_p", c.min_p, elsewhere);
  visit("repetition_penalty", c.repetition_penalty, elsewhere);
  visit("logprobs", c.logprobs, elsewhere);
  visit("context", c.context, elsewhere);
  visit("seed", c.seed, elsewhere);
  visit("windows", c.windows, elsewhere);
  visit("top", c.top, elsewhere);
  visit("steps", c.steps, elsewhere);
  visit("json", c.json, elsewhere);
  visit("ranks", c.ranks, elsewhere);
  visit("memory", c.memory, elsewhere);
  visit("backend", c.backend, elsewhere);
}

/// The list of a member that is one.
template <class T>
std::string read_value(const YAML::Node& node, std::vector<T>& values, const Range&) {
  if (!node.IsSequence()) return "a list";
  for (const YAML::Node& element : node)
    if (const std::string expected = dekoder::read_value(element, values.emplace_back(), {}); !expected.empty())
      return expected;
  return "";
}

}  // namespace

bool is_gguf(const Command& c) {
  return std::filesystem::path(c.output).extension() == ".gguf";
}

void check_command(const Command& c) {
  std::string faults;
  const auto expect = [&](bool right, const std::string& what) {
    if (!right) faults += (faults.empty() ? "" : "\n") + what;
  };
  if (c.name == "train" && !c.time_left.empty()) {
    std::optional<double> seconds;
    const std::string expected = read_time_left(c.time_left, seconds);
    expect(expected.empty(), fmt::format("--time-left is '{}'; expected {}", excerpt(c.time_left), expected));
  }
  if (c.name == "train")
    expect(c.until == -1 || c.until >= 1,
           fmt::format("--until is {}; expected a step of the run, at least 1", c.until));
  if (c.name == "generate") {
    expect(!c.prompt.empty(), "--prompt is empty; expected at least one character to go on from");
    expect(c.tokens >= 1, fmt::format("--tokens is {}; expected at least 1", c.tokens));
    expect(c.temperature >= 0 && std::isfinite(c.temperature),
           fmt::format("--temperature is {}; expected a number of at least 0 (0: the most likely token)",
                       c.temperature));
    expect(c.top_k >= 0, fmt::format("--top-k is {}; expected at least 0 (0: all tokens)", c.top_k));
    expect(c.top_p > 0 && c.top_p <= 1, fmt::format("--top-p is {}; expected above 0 and at most 1", c.top_p));
    expect(c.min_p >= 0 && c.min_p <= 1,
           fmt::format("--min-p is {}; expected from 0 to 1 (0: all tokens)", c.min_p));
    expect(c.repetition_penalty >= 0.01 && c.repetition_penalty <= 100,
           fmt::format("--repetition-penalty is {}; expected from 0.01 to 100 (1: none)", c.repetition_penalty));
    expect(c.context == -1 || c.context >= 1, fmt::format("--context is {}; expected at least 1", c.context));
    expect(c.prompts.empty() || c.prompt == "\n", "--prompt and --prompts; expected one of them");
    expect(std::ranges::find(c.stops, "") == c.stops.end(), "--stop is empty; expected at least one character");
  }
  if (c.name == "prepare") {
    std::error_code ignored, failure;
    const bool found =
        std::filesystem::symlink_status(c.tokenizer, failure).type() != std::filesystem::file_type::not_found &&
        failure != std::errc::filename_too_long;
    expect(
        c.tokenizer == "byte" || c.tokenizer == "char" || c.tokenizer == "bpe" || found,
        fmt::format("--tokenizer is '{}'; expected byte, char or bpe, or the file of a tokenizer (tokenizer.json, "
                    "merges or ranks), and there is no such file",
                    excerpt(c.tokenizer)));
    const bool makes_one = c.tokenizer == "bpe";
    expect(makes_one ? c.vocabulary >= 258 && c.vocabulary <= 1000000 : c.vocabulary == 0,
           makes_one
               ? fmt::format("--vocabulary is {}; expected 258 to 1000000 with --tokenizer bpe: 256 bytes, the "
                             "end of a text and what merges make",
                             c.vocabulary)
               : fmt::format("--vocabulary is {}, and --tokenizer {}; expected --tokenizer bpe with it",
                             c.vocabulary, excerpt(c.tokenizer)));
    expect(
        c.split.empty() || c.split == "gpt2" || c.split == "cl100k" || c.split == "qwen2",
        fmt::format("--split is '{}'; expected gpt2, cl100k or qwen2: how text is cut before merges (what is held "
                    "out says --validation-fraction)",
                    excerpt(c.split)));
    expect(c.validation_fraction == -1 || (c.validation_fraction >= 0 && c.validation_fraction < 1),
           fmt::format("--validation-fraction is {}; expected from 0 to below 1, e.g. 0.1", c.validation_fraction));
    for (const std::string& text : c.paths)
      expect(!std::filesystem::equivalent(text, c.output, ignored),
             fmt::format("--output {} is the text itself; expected another name, e.g. {}.h5", c.output, text));
  }
  expect(c.output != "-", "--output is '-'; expected the name of a file or folder, as standard output takes none");
  if (c.name == "tokens") {
    expect(c.show >= 0, fmt::format("--show is {}; expected at least 0", c.show));
    expect(c.shard_format.empty() || c.shard_format == "llm.c" || c.shard_format == "nanogpt",
           fmt::format("--shard-format is '{}'; expected llm.c or nanogpt", excerpt(c.shard_format)));
    expect(c.shard_tokens == -1 || (c.shard_tokens >= 1 && c.shard_tokens <= INT32_MAX),
           fmt::format("--shard-tokens is {}; expected 1 to {}", c.shard_tokens, INT32_MAX));
    expect(
        c.shard_tokens == -1 || c.shard_format != "nanogpt",
        "--shard-tokens and --shard-format nanogpt: that format has one file for each part; leave one of them out");
    expect(!c.shards.empty() || (c.shard_format.empty() && c.shard_tokens == -1),
           "--shard-format and --shard-tokens say how shards are written; expected --shards FOLDER with them");
  }
  if (c.name == "attention") expect(!c.text.empty(), "--text is empty; expected at least one character");
  if (c.name == "predictions") {
    expect(c.windows >= 0,
           fmt::format("--windows is {}; expected at least 0 (0: all of the held-out part)", c.windows));
    expect(c.top >= 0,
           fmt::format("--top is {}; expected at least 0 (0: 10, or all of a smaller vocabulary)", c.top));
  }
  if (c.name == "describe" || c.name == "plan")
    expect(c.ranks >= 1 && c.ranks <= 65536, fmt::format("--ranks is {}; expected from 1 to 65536", c.ranks));
  if (c.name == "plan")
    expect(c.memory >= 0 && std::isfinite(c.memory),
           fmt::format("--memory is {}; expected the GiB that a rank may take, e.g. 80", c.memory));
  if (c.name == "export") {
    const bool is_known =
        c.dtype == "float32" || c.dtype == "float16" || c.dtype == "bfloat16" || c.dtype == "q8_0";
    expect(is_known, fmt::format("--dtype is '{}'; expected float32, float16, bfloat16 or q8_0", excerpt(c.dtype)));
    expect(c.dtype != "q8_0" || is_gguf(c),
           fmt::format("--dtype is q8_0, which a file of GGUF alone holds, and --output {}; expected FILE.gguf, or "
                       "another type",
                       excerpt(c.output)));
    expect(!c.best || c.step < 0, fmt::format("--best and --step {}; expected one of them", c.step));
  }
  if (c.name == "bench") expect(c.steps >= 0, fmt::format("--steps is {}; expected at least 0", c.steps));
  visit_members(c, [&](std::string_view key, const auto& member, const char* what) {
    const bool is_path = key == "config" || key == "run" || key == "output" || key == "tokens_file" ||
                         key == "paths" || key == "shards" || key == "folder" || key == "prompts";
    const auto check = [&](const std::string& text) {
      if (is_path && text.size() >= PATH_MAX)
        expect(false,
               fmt::format("{} is '{}'; expected a path of at most {} bytes", what, excerpt(text), PATH_MAX - 1));
      if (const std::optional<Utf8Fault> foreign = find_utf8_fault(text); foreign && what != nullptr)
        expect(false, fmt::format("{} is not UTF-8: byte 0x{:02X} at offset {}; expected UTF-8 text", what,
                                  foreign->value, foreign->offset));
    };
    if constexpr (std::is_same_v<decltype(member), const std::string&>) check(member);
    if constexpr (std::is_same_v<decltype(member), const std::vector<std::string>&>)
      std::for_each(member.begin(), member.end(), check);
  });
  if (!faults.empty()) throw ConfigError("{}", faults);
}

std::string to_yaml(const Command& command) {
  std::string text;
  visit_members(command, [&](const char* key, const auto& member, const char*) {
    text += fmt::format("{}: {}\n", key, yaml_value(member));
  });
  return text;
}

Command command_from_yaml(const std::string& text) {
  constexpr const char* expected_build = "expected launcher and plug-in of one build";
  Command command;
  try {
    const YAML::Node root = YAML::Load(text);
    visit_members(command, [&](const char* key, auto& member, const char*) {
      if (const std::string expected = read_value(root[key], member, Range{.as_float = false}); !expected.empty())
        throw ConfigError("the command did not reach the plug-in whole ({} is not {}); {}", key, expected,
                          expected_build);
    });
  } catch (const YAML::Exception& error) {
    throw ConfigError("the command did not reach the plug-in whole ({}); {}", error.what(), expected_build);
  }
  return command;
}

}  // namespace dekoder
