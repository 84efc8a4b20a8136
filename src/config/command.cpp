// SPDX-License-Identifier: Apache-2.0
#include "config/command.hpp"

#include <yaml-cpp/yaml.h>

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
  visit("fresh", c.fresh);
  visit("text", c.text);
  visit("output", c.output);
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

std::string to_yaml(const Command& command) {
  YAML::Emitter out;
  out.SetStringFormat(YAML::DoubleQuoted);
  out << YAML::BeginMap;
  visit_members(command, [&](const char* key, const auto& member) { out << YAML::Key << key << YAML::Value << member; });
  out << YAML::EndMap;
  return out.c_str();
}

Command command_from_yaml(const std::string& text) {
  Command command;
  try {
    const YAML::Node root = YAML::Load(text);
    visit_members(command, [&]<class Member>(const char* key, Member& member) { member = root[key].as<Member>(); });
  } catch (const YAML::Exception& error) {
    throw ConfigError("the command did not reach the plug-in whole ({}); expected launcher and plug-in of one build",
                      error.what());
  }
  return command;
}

}  // namespace dekoder
