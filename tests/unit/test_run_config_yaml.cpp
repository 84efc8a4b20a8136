// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "base/error.hpp"
#include "config/closest_word.hpp"
#include "config/config_fields.hpp"
#include "config/run_config_yaml.hpp"

namespace dekoder {
namespace {

/// The message that a configuration is refused with; "" where it is taken.
std::string refusal(const std::string& text, const std::vector<std::string>& sets = {}) {
  try {
    parse_run_config(text, "run.yaml", sets);
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    return error.what();
  }
  return "";
}

std::vector<std::string> lines(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> result;
  for (std::string line; std::getline(stream, line);) result.push_back(line);
  return result;
}

/// Another legal value of every key, so that a member that is not read or not written shows.
struct Changer {
  bool& operator()(bool& member) const { return member = !member; }
  std::string& operator()(std::string& member) const { return member += "x: \"#\\ y\n\tz\x01 \xc3\xa9"; }
  int& operator()(int& member) const { return member = member == 0 ? 2 : 2 * member; }
  long& operator()(long& member) const { return member = member == 0 ? 2 : 2 * member; }
  std::uint64_t& operator()(std::uint64_t& member) const { return member = 18446744073709551615ull; }
  double& operator()(double& member) const { return member = member * 0.3 + 0.1 / 3; }
  template <class T>
  std::vector<T>& operator()(std::vector<T>& member) const {
    member.push_back((*this)(member.emplace_back()));  // twice the same, where a list of numbers allows it
    if constexpr (!std::is_same_v<T, std::string>) member.back() = 0;
    return member;
  }
  template <class Enum>
  Enum& operator()(Enum& member) const {
    return member = static_cast<Enum>((static_cast<std::size_t>(member) + 1) % names_of(Enum{}).size());
  }
};

TEST(RunConfigYaml, AnEmptySectionGivesTheDefaults) {
  EXPECT_TRUE(config_differences(parse_run_config("model:\n", "run.yaml", {}), RunConfig{}).empty());
}

TEST(RunConfigYaml, ReadsValuesOfEveryKind) {
  const RunConfig config = parse_run_config(
      "model: {layers: 3, bias: false, norm: post, activation: gelu_erf, dropout: 0.25}\n"
      "data:\n  tokens: a b.h5\n"
      "training:\n  seed: 18446744073709551615\n  learning_rate: 6e-4\n",
      "run.yaml", {});
  EXPECT_EQ(config.model.layers, 3);
  EXPECT_FALSE(config.model.bias);
  EXPECT_EQ(config.model.norm, NormPlacement::post);
  EXPECT_EQ(config.model.activation, Activation::gelu_erf);
  EXPECT_EQ(config.model.dropout, 0.25);
  EXPECT_EQ(config.data.tokens, "a b.h5");
  EXPECT_EQ(config.training.seed, 18446744073709551615ull);
  EXPECT_EQ(config.training.learning_rate, 6e-4);
}

TEST(RunConfigYaml, WhatIsWrittenReadsBackTheSame) {
  for (const bool changed : {false, true}) {
    RunConfig config;
    if (changed) visit_fields(config, [](std::string_view, auto& member, Range) { Changer()(member); });
    const std::string text = to_yaml(config);
    const RunConfig back = parse_run_config(text, "resolved.yaml", {});
    for (const ConfigDifference& d : config_differences(config, back))
      ADD_FAILURE() << d.key << " was " << d.before << " and came back as " << d.now;
    EXPECT_EQ(to_yaml(back), text);
  }
}

/// What PyYAML refuses as it stands, or takes for a line end, is written as an escape.
TEST(RunConfigYaml, CharactersThatReadersRefuseAreEscaped) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"\x7f", "\\x7f"},           {"\xc2\x80", "\\u0080"},
      {"\xc2\x85", "\\u0085"},     {"\xc2\x9f", "\\u009f"},
      {"\xc2\xa0", "\xc2\xa0"},    {"\xe2\x80\xa7", "\xe2\x80\xa7"},
      {"\xe2\x80\xa8", "\\u2028"}, {"\xe2\x80\xa9", "\\u2029"},
      {"\xef\xbb\xbf", "\\ufeff"}, {"\xef\xbf\xbd", "\xef\xbf\xbd"},
      {"\xef\xbf\xbe", "\\ufffe"}, {"\xef\xbf\xbf", "\\uffff"},
  };
  RunConfig config;
  for (const auto& [text, written] : cases) {
    EXPECT_EQ(quoted("a" + text + "b"), "\"a" + written + "b\"");
    EXPECT_EQ(quoted(text), "\"" + written + "\"");
    config.sampling.prompt += "a" + text + "b";
  }
  config.attention.texts = {config.sampling.prompt};
  const RunConfig back = parse_run_config(to_yaml(config), "resolved.yaml", {});
  EXPECT_EQ(back.sampling.prompt, config.sampling.prompt);
  EXPECT_EQ(back.attention.texts, config.attention.texts);
  EXPECT_EQ(quoted("\xc2"), "\"\xc2\"");  // not whole: as it stands
  EXPECT_EQ(quoted("\xe2\x80"), "\"\xe2\x80\"");
}

TEST(RunConfigYaml, EveryKeyIsWrittenOnce) {
  std::set<std::string> keys;
  RunConfig config;
  const std::string text = to_yaml(config);
  visit_fields(config, [&](std::string_view key, auto&, Range) {
    EXPECT_TRUE(keys.emplace(key).second) << key << " is listed twice";
    const std::string line = "  " + std::string(key.substr(key.find('.') + 1)) + ": ";
    EXPECT_NE(text.find(line), std::string::npos) << key;
  });
  EXPECT_EQ(lines(text).size(), keys.size() + 7);  // and the seven sections
}

TEST(RunConfigYaml, EveryKeyRefusesAMapAndNothing) {
  RunConfig config;
  visit_fields(config, [&](std::string_view key, auto&, Range) {
    const std::string section(key.substr(0, key.find('.'))), leaf(key.substr(key.find('.') + 1));
    EXPECT_NE(refusal(section + ":\n  " + leaf + ":\n").find(std::string(key) + " is nothing; expected"),
              std::string::npos)
        << key << ": " << refusal(section + ":\n  " + leaf + ":\n");
    EXPECT_NE(refusal(section + ":\n  " + leaf + ": {a: 1}\n").find(std::string(key) + " is a map; expected"),
              std::string::npos)
        << key;
  });
}

TEST(RunConfigYaml, EveryRangeIsHeldAtItsEnds) {
  RunConfig config;
  visit_fields(config, [&]<class Member>(std::string_view key, Member&, Range range) {
    if constexpr (std::is_arithmetic_v<Member> && !std::is_same_v<Member, bool>) {
      ASSERT_TRUE(std::isfinite(range.low)) << key << " has no least value";
      const auto set = [&](double value) { return refusal("model:\n", {fmt::format("{}={}", key, value)}); };
      const std::string complaint = fmt::format("{} is '", key);
      EXPECT_NE(set(range.low - 1).find(complaint), std::string::npos) << key;
      EXPECT_EQ(set(range.low).find(complaint) != std::string::npos, range.above) << key << set(range.low);
      if (!std::isfinite(range.high)) return;
      EXPECT_NE(set(range.high + 1).find(complaint), std::string::npos) << key;
      EXPECT_EQ(set(range.high).find(complaint) != std::string::npos, range.below) << key << set(range.high);
    }
  });
}

TEST(RunConfigYaml, AllFaultsAtOnceEachWithItsPlace) {
  const std::string message = refusal(
      "model:\n"
      "  layrs: 3\n"
      "  heads: 3\n"
      "  channels: 128\n"
      "  dropout: 1.0\n"
      "  norm: middle\n"
      "traning:\n"
      "  steps: 4\n"
      "training:\n"
      "  steps: many\n"
      "  batch: 10\n"
      "  micro_batch: 3\n",
      {"evaluation.every=-1"});
  EXPECT_EQ(lines(message),
            (std::vector<std::string>{
                "run.yaml:2:3: unknown key 'layrs' in section 'model'; did you mean 'model.layers'?",
                "run.yaml:7:1: unknown section 'traning'; did you mean 'training'?",
                "run.yaml:6:9: model.norm is 'middle'; expected one of pre, post",
                "run.yaml:5:12: model.dropout is '1.0'; expected a number from 0 to below 1",
                "run.yaml:10:10: training.steps is 'many'; expected a whole number of at least 1",
                "--set evaluation.every=-1: evaluation.every is '-1'; expected a whole number of at least 0",
                "run.yaml:3:10: model.heads 3 does not divide model.channels 128; choose a divisor",
                "run.yaml:12:16: training.micro_batch 3 does not divide training.batch 10; choose a divisor",
            }))
      << message;
}

TEST(RunConfigYaml, AContradictionOfAWrongValueIsNotReported) {
  EXPECT_EQ(lines(refusal("model: {heads: 0, channels: 127}\n")).size(), 1u);
}

TEST(RunConfigYaml, SetsWinOverTheFileAndTheLastOneWins) {
  const RunConfig config =
      parse_run_config("model: {layers: nonsense}\n", "run.yaml", {"model.layers=7", "model.layers=9"});
  EXPECT_EQ(config.model.layers, 9);
  EXPECT_EQ(refusal("model:\n", {"model.layers"}),
            "--set model.layers: no '='; expected section.key=value, e.g. training.steps=100");
  EXPECT_EQ(refusal("model:\n", {"modle.layers=1"}),
            "--set modle.layers=1: unknown key 'modle.layers'; did you mean 'model.layers'?");
  EXPECT_EQ(refusal("model:\n", {"steps=1"}), "--set steps=1: unknown key 'steps'; did you mean 'training.steps'?");
}

TEST(RunConfigYaml, ResumeNamesWhatMayAndMayNotChange) {
  RunConfig before, now;
  now.model.layers = 9;
  now.training.steps = 5000;
  now.training.seed = 3;
  now.training.batch = 64;
  now.sampling.temperature = 0.5;
  const auto differences = config_differences(before, now);
  ASSERT_EQ(differences.size(), 5u);
  const auto may = [&](const std::string& key) {
    const auto found = std::find_if(differences.begin(), differences.end(),
                                    [&](const ConfigDifference& d) { return d.key == key; });
    EXPECT_NE(found, differences.end()) << key;
    return found != differences.end() && found->may_change;
  };
  EXPECT_FALSE(may("model.layers"));
  EXPECT_FALSE(may("training.seed"));
  EXPECT_FALSE(may("training.batch"));
  EXPECT_TRUE(may("training.steps"));
  EXPECT_TRUE(may("sampling.temperature"));
  EXPECT_EQ(differences.front().before, "4");
  EXPECT_EQ(differences.front().now, "9");
}

TEST(RunConfigYaml, ReadsAFileWhichWasEmptyOrAFolder) {
  const std::string file = "run_config_yaml_" + std::to_string(getpid()) + ".yaml";
  std::ofstream(file).close();
  const auto refused = [](const std::string& path) {
    try {
      load_run_config(path, {});
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(refused(file).find("is empty"), std::string::npos);
  EXPECT_NE(refused(".").find("is a folder"), std::string::npos);
  EXPECT_NE(refused(file + ".other").find("there is no such configuration"), std::string::npos);
  std::ofstream(file) << "\xef\xbb\xbfmodel:\r\n  layers: 5\r\n";  // byte-order mark, carriage returns
  EXPECT_EQ(load_run_config(file, {}).model.layers, 5);
  std::remove(file.c_str());
}

TEST(ClosestWord, OneSlipOfEachKindIsForgiven) {
  const std::vector<std::string> words{"layers", "heads", "channels", "context"};
  EXPECT_EQ(closest_word("layrs", words), "layers");    // left out
  EXPECT_EQ(closest_word("layerss", words), "layers");  // one too many
  EXPECT_EQ(closest_word("heabs", words), "heads");     // another
  EXPECT_EQ(closest_word("haeds", words), "heads");     // two swapped
  EXPECT_EQ(closest_word("layers", words), "layers");
  EXPECT_EQ(closest_word("temperature", words), "");
  EXPECT_EQ(closest_word("", words), "");
  EXPECT_EQ(closest_word("x", {}), "");
}

}  // namespace
}  // namespace dekoder
