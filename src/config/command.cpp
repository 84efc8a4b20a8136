// SPDX-License-Identifier: Apache-2.0
#include "config/command.hpp"

#include <yaml-cpp/yaml.h>

#include <cmath>
#include <filesystem>

#include "base/error.hpp"

namespace dekoder {

namespace {

/// visit(key, member) for every member: the one list that writes and reads.
template <class CommandType, class Visitor>
void visit_members(CommandType& c, Visitor&& visit) {
  visit("name", c.name);
  visit("config", c.config);
  visit("sets", c.sets);
  visit("run", c.run);
  visit("runs", c.runs);
  visit("fresh", c.fresh);
  visit("text", c.text);
  visit("output", c.output);
  visit("step", c.step);
  visit("tokenizer", c.tokenizer);
  visit("validation_fraction", c.validation_fraction);
  visit("tokens_file", c.tokens_file);
  visit("prompt", c.prompt);
  visit("tokens", c.tokens);
  visit("temperature", c.temperature);
  visit("top_k", c.top_k);
  visit("top_p", c.top_p);
  visit("seed", c.seed);
  visit("steps", c.steps);
  visit("json", c.json);
}

}  // namespace

void check_command(const Command& c) {
  std::string faults;
  const auto expect = [&](bool right, const std::string& what) {
    if (!right) faults += (faults.empty() ? "" : "\n") + what;
  };
  if (c.name == "generate") {
    expect(!c.prompt.empty(), "--prompt is empty; expected at least one character to go on from");
    expect(c.tokens >= 1, fmt::format("--tokens is {}; expected at least 1", c.tokens));
    expect(c.temperature >= 0 && std::isfinite(c.temperature),
           fmt::format("--temperature is {}; expected a number of at least 0 (0: the most likely token)",
                       c.temperature));
    expect(c.top_k >= 0, fmt::format("--top-k is {}; expected at least 0 (0: all tokens)", c.top_k));
    expect(c.top_p > 0 && c.top_p <= 1, fmt::format("--top-p is {}; expected above 0 and at most 1", c.top_p));
  }
  if (c.name == "prepare") {
    expect(c.tokenizer == "byte" || c.tokenizer == "char",
           fmt::format("--tokenizer is '{}'; expected byte or char", c.tokenizer));
    expect(c.validation_fraction >= 0 && c.validation_fraction < 1,
           fmt::format("--validation-fraction is {}; expected from 0 to below 1, e.g. 0.1", c.validation_fraction));
    std::error_code ignored;
    expect(!std::filesystem::equivalent(c.text, c.output, ignored),
           fmt::format("--output {} is the text itself; expected another name, e.g. {}.h5", c.output, c.text));
  }
  if (c.name == "attention") {
    expect(!c.text.empty(), "--text is empty; expected at least one character");
    expect(c.step >= -1, fmt::format("--step is {}; expected the step of a checkpoint", c.step));
  }
  if (c.name == "compare")
    expect(c.runs.size() >= 2, fmt::format("compare got {} run {}; expected at least two, e.g. dekoder compare "
                                           "runs/positions runs/no-positions",
                                           c.runs.size(), c.runs.size() == 1 ? "directory" : "directories"));
  if (c.name == "bench") expect(c.steps >= 0, fmt::format("--steps is {}; expected at least 0", c.steps));
  // The command crosses the border as YAML, which is UTF-8 and would replace anything else.
  const Command crossed = command_from_yaml(to_yaml(c));
  for (const auto& [what, member] : std::initializer_list<std::pair<const char*, std::string Command::*>>{
           {"--prompt", &Command::prompt},
           {"the configuration's name", &Command::config},
           {"the run directory's name", &Command::run},
           {"the text", &Command::text},
           {"--output", &Command::output},
           {"--tokens-file", &Command::tokens_file}})
    expect(crossed.*member == c.*member, fmt::format("{} is not UTF-8; expected UTF-8 text", what));
  expect(crossed.runs == c.runs, "a run directory's name is not UTF-8; expected UTF-8 text");
  if (!faults.empty()) throw ConfigError("{}", faults);
}

std::string to_yaml(const Command& command) {
  YAML::Emitter out;
  out.SetStringFormat(YAML::DoubleQuoted);
  out << YAML::BeginMap;
  visit_members(command,
                [&](const char* key, const auto& member) { out << YAML::Key << key << YAML::Value << member; });
  out << YAML::EndMap;
  return out.c_str();
}

Command command_from_yaml(const std::string& text) {
  Command command;
  try {
    const YAML::Node root = YAML::Load(text);
    visit_members(command, [&]<class Member>(const char* key, Member& member) { member = root[key].as<Member>(); });
  } catch (const YAML::Exception& error) {
    throw ConfigError(
        "the command did not reach the plug-in whole ({}); expected launcher and plug-in of one build",
        error.what());
  }
  return command;
}

}  // namespace dekoder
