// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/error.hpp"
#include "config/closest_word.hpp"
#include "config/config_fields.hpp"
#include "config/run_config_yaml.hpp"
#include "config/setting_value.hpp"
#include "support/scratch_folder.hpp"
#include "support/source_folder.hpp"

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
    if constexpr (std::is_integral_v<T>) member.back() = 0;
    return member;
  }
  TokenFiles& operator()(TokenFiles& member) const {
    (*this)(static_cast<std::vector<std::string>&>(member));
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
  EXPECT_EQ(config.data.tokens, (TokenFiles{"a b.h5"}));
  EXPECT_EQ(config.training.seed, 18446744073709551615ull);
  EXPECT_EQ(config.training.learning_rate, 6e-4);
}

TEST(RunConfigYaml, ReadsMixturesInThreeWays) {
  const auto read = [](const std::string& data, const std::vector<std::string>& sets = {}) {
    return parse_run_config(data, "run.yaml", sets).data;
  };
  const TokenFiles files{"a.h5", "b.h5"};
  for (const DataConfig& data :
       {read("data: [{tokens: a.h5, weight: 0.7}, {weight: 0.3, tokens: b.h5}]\n"),
        read("data:\n  tokens: [a.h5, b.h5]\n  weights: [0.7, 0.3]\n"),
        read("model: {layers: 2}\n", {"data.tokens=[a.h5, b.h5]", "data.weights=[0.7, 0.3]"})}) {
    EXPECT_EQ(data.tokens, files);
    EXPECT_EQ(data.weights, (std::vector<double>{0.7, 0.3}));
  }
  EXPECT_EQ(read("data: [{tokens: a.h5}, {tokens: b.h5}]\n").tokens, files);
  EXPECT_EQ(read("data: [a.h5, {tokens: b.h5}]\n").tokens, files);
  EXPECT_TRUE(read("data: [{tokens: a.h5}, {tokens: b.h5}]\n").weights.empty());
  EXPECT_TRUE(read("data: []\n").tokens.empty());

  RunConfig config;
  config.data = {files, {0.7, 0.3}};
  EXPECT_NE(to_yaml(config).find("data:\n  tokens: [\"a.h5\", \"b.h5\"]\n  weights: [0.7, 0.3]\n"),
            std::string::npos);
  EXPECT_EQ(recorded_run_config(to_yaml(config), "run.yaml").data.tokens, files);
  config.data = {{"a.h5"}, {}};
  EXPECT_NE(to_yaml(config).find("data:\n  tokens: \"a.h5\"\n"), std::string::npos);
  EXPECT_TRUE(recorded_run_config("data: {tokens: \"\"}\n", "run.yaml").data.tokens.empty()) << "an older record";
  RunConfig other = config;
  other.data.weights = {1};
  ASSERT_EQ(config_differences(config, other).size(), 1u);
  EXPECT_FALSE(config_differences(config, other)[0].may_change) << "another order of the samples";
}

TEST(RunConfigYaml, RefusesWhatIsNoMixture) {
  const auto refusal = [](const std::string& data) {
    return testing_support::message_of<ConfigError>([&] { parse_run_config(data, "run.yaml", {}); });
  };
  const std::string expected = "; expected {tokens: FILE, weight: NUMBER}, the weight for all or none, or FILE";
  EXPECT_EQ(refusal("data: [[a.h5], {tokens: b.h5, wieght: 1}, {weight: 2}, {tokens: a.h5, tokens: b.h5}]\n"),
            "run.yaml:1:8: data[0] is a list" + expected + "\n" +
                "run.yaml:1:31: data[1] has the unknown key 'wieght'; did you mean 'weight'?" + expected + "\n" +
                "run.yaml:1:43: data[2] has 0 tokens and 1 weights" + expected + "\n" +
                "run.yaml:1:56: data[3] has 2 tokens and 0 weights" + expected);
  EXPECT_EQ(refusal("data: [{tokens: a.h5, weight: 1}, {tokens: b.h5}]\n"),
            "run.yaml:1:35: data[1] has no weight, unlike data[0]" + expected);
  EXPECT_EQ(refusal("data: [{tokens: a.h5}, {tokens: b.h5, weight: 1}]\n"),
            "run.yaml:1:24: data[1] has a weight, unlike data[0]" + expected);
  EXPECT_NE(refusal("data: [{tokens: a.h5, weight: -1}]\n").find("data.weights[0] is '-1'; expected a number"),
            std::string::npos);
  for (const char* data : {"data: [{tokens: ''}]\n", "data: {tokens: ['', b.h5]}\n", "data: ['', b.h5]\n"})
    EXPECT_NE(refusal(data).find("data.tokens has ''; expected a path: 1 to"), std::string::npos) << data;
  EXPECT_EQ(refusal("data: [{tokens: a.h5, weight: 1}, b.h5]\n"), "run.yaml:1:35: data[1] is 'b.h5'" + expected);
  EXPECT_EQ(refusal("data: {tokens: {a: b}}\n"),
            "run.yaml:1:16: data.tokens is a map; expected a path, or a list of paths in [ ]");
  EXPECT_EQ(refusal("data: {tokens: [a.h5, b.h5], weights: [1]}\n"),
            "run.yaml:1:39: data.weights has 1 numbers and data.tokens names 2 files; expected one for each, or no "
            "data.weights ([])");
}

TEST(RunConfigYaml, WhatIsWrittenReadsBackTheSame) {
  for (const bool changed : {false, true}) {
    RunConfig config;
    if (changed) visit_fields(config, [](std::string_view, auto& member, Range) { Changer()(member); });
    config.model.recompute = changed ? Recompute::block : Recompute::none;
    config.model.residual = changed ? Residual::stored : Residual::fp32;  // which the changed norm refuses
    if (changed) config.model.head_size = 16;                             // rotary positions turn a part of it
    if (changed) config.training.batch_warmup = {config.micro_batch()};
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
      {"\x7f", "\\x7f"},
      {"\xc2\x80", "\\u0080"},
      {"\xc2\x85", "\\u0085"},
      {"\xc2\x9f", "\\u009f"},
      {"\xc2\xa0", "\xc2\xa0"},
      {"\xe2\x80\xa7", "\xe2\x80\xa7"},
      {"\xe2\x80\xa8", "\\u2028"},
      {"\xe2\x80\xa9", "\\u2029"},
      {"\xef\xbb\xbf", "\\ufeff"},
      {"\xef\xbf\xbd", "\xef\xbf\xbd"},
      {"\xef\xbf\xbe", "\\ufffe"},
      {"\xef\xbf\xbf", "\\uffff"},
      {"\ufdd0", "\\ufdd0"},
      {"\U0001ffff", "\\U0001ffff"},
      {"\U0010ffff", "\\U0010ffff"},
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
  EXPECT_EQ(lines(text).size(), keys.size() + 8);  // and the version and the seven sections
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

RunConfig resolved(const std::string& text, const std::vector<std::string>& sets = {}) {
  return parse_run_config(text, "run.yaml", sets);
}

TEST(RunConfigYaml, NumbersAreDecimalInFileAndSet) {
  const RunConfig config = resolved("training: {steps: 0200, learning_rate: .5e-2, final_learning_rate: 1e-3}\n",
                                    {"model.context=010", "training.weight_decay=1."});
  EXPECT_EQ(config.training.steps, 200);
  EXPECT_EQ(config.training.learning_rate, 0.005);
  EXPECT_EQ(config.model.context, 10);
  EXPECT_EQ(config.training.weight_decay, 1.0);
  for (const char* wrong : {"0x10", "0o10", "0b1", "1_000", "1'000", "+5", "1e3", "5.", "5 6", "!!str 5", "\"5\""})
    EXPECT_NE(refusal("model:\n", {std::string("training.steps=") + wrong}).find("training.steps is '"),
              std::string::npos)
        << wrong;
  for (const char* wrong :
       {".inf", "inf", "-.Inf", ".nan", "NaN", "0x1p-3", "1_0.5", "+.5", "1e-3x", "1d-3", "1,5"})
    EXPECT_NE(refusal("training:\n  learning_rate: " + std::string(wrong) + "\n").find("learning_rate is "),
              std::string::npos)
        << wrong;
  for (const char* wrong : {"yes", "on", "True", "TRUE", "1", "y", "\"true\""})
    EXPECT_NE(refusal("model:\n", {std::string("model.bias=") + wrong}).find("expected true or false"),
              std::string::npos)
        << wrong;
}

/// A kernel takes a setting as the nearest float, and flushes what is below the smallest one to zero.
TEST(RunConfigYaml, RefusesHeadsThatDoNotFit) {
  EXPECT_EQ(refusal("model: {heads: 6, key_value_heads: 4, channels: 96}\n"),
            "run.yaml:1:36: model.key_value_heads 4 does not divide model.heads 6; choose a divisor");
  EXPECT_EQ(refusal("model: {heads: 5, channels: 96}\n"),
            "run.yaml:1:16: model.heads 5 does not divide model.channels 96; choose a divisor");
  EXPECT_EQ(refusal("model: {heads: 5, channels: 96, head_size: 12}\n"), "");
  EXPECT_NE(refusal("model: {heads: 96, channels: 96, positions: rotary}\n").find("turns pairs of channels"),
            std::string::npos);
  EXPECT_NE(refusal("model: {positions: rotary, rotary_fraction: 0.01}\n").find("turns pairs of channels"),
            std::string::npos);
  EXPECT_NE(refusal("model: {rotary_low_frequency: 4}\n").find("is not above model.rotary_low_frequency 4"),
            std::string::npos);
}

TEST(RunConfigYaml, ValuesMustBeInRangeAsFloatsToo) {
  EXPECT_EQ(
      refusal("training:\n  beta2: 0.99999999\n"),
      "run.yaml:2:10: training.beta2 is '0.99999999'; expected a number from 0 to below 1 in single precision, "
      "where it is 1");
  EXPECT_EQ(
      refusal("training:\n  epsilon: 1e-40\n"),
      "run.yaml:2:12: training.epsilon is '1e-40'; expected a number above 0 in single precision, where it is 0: "
      "write 1.18e-38 or more");
  EXPECT_EQ(
      refusal("training:\n  weight_decay: 1e-999\n"),
      "run.yaml:2:17: training.weight_decay is '1e-999'; expected a number of at least 0 in single precision, "
      "where it is 0: write 0, or 1.18e-38 or more");
  EXPECT_EQ(refusal("training: {beta2: 0.9999999, epsilon: 1.2e-38, weight_decay: 0}\n"), "");
  RunConfig config;
  visit_fields(config, [&]<class Member>(std::string_view key, Member&, const Range& range) {
    if constexpr (std::is_same_v<Member, double>) {
      const auto refused = [&](const char* value) {
        return refusal("model:\n", {fmt::format("{}={}", key, value)}).find("in single precision") !=
               std::string::npos;
      };
      EXPECT_TRUE(refused("1e-40")) << key;
      EXPECT_TRUE(refused("1e-400")) << key;
      if (range.high == 1)
        EXPECT_EQ(refused("0.99999999"), range.below) << key;
      else
        EXPECT_TRUE(refused("1e39")) << key;
    }
  });
}

TEST(RunConfigYaml, OnlyWhatTheScheduleUsesContradicts) {
  EXPECT_EQ(resolved("training: {learning_rate: 5e-5, schedule: constant}\n").training.final_learning_rate, 1e-4);
  EXPECT_EQ(refusal("training: {learning_rate: 5e-5, schedule: inverse_sqrt, final_learning_rate: 1e-3}\n"), "");
  for (const char* schedule : {"linear", "cosine", "wsd"}) {
    const std::string low = fmt::format("training: {{learning_rate: 5e-5, schedule: {}", schedule);
    EXPECT_EQ(resolved(low + "}\n").training.final_learning_rate, 5e-6) << schedule;
    EXPECT_EQ(
        refusal(low + ", final_learning_rate: 1e-4}\n"),
        fmt::format("run.yaml:1:{}: training.final_learning_rate 0.0001 is above training.learning_rate 5e-05; "
                    "lower it",
                    low.size() + 24))
        << schedule;
  }
  EXPECT_EQ(resolved("training: {learning_rate: 1e-4}\n").training.final_learning_rate, 1e-4);
}

TEST(RunConfigYaml, AWarmUpLeavesStepsToDecay) {
  EXPECT_EQ(refusal("training: {steps: 50, warmup_steps: 49}\n"),
            "run.yaml:1:37: training.warmup_steps 49 of training.steps 50 leave schedule cosine no step to decay; "
            "expected at most 48, or training.schedule=constant");
  EXPECT_NE(refusal("training: {steps: 50, warmup_steps: 50, schedule: wsd}\n").find("no step to decay"),
            std::string::npos);
  for (const char* sound : {"steps: 50, warmup_steps: 48", "steps: 50, warmup_steps: 49, schedule: constant",
                            "steps: 50, warmup_steps: 50, schedule: inverse_sqrt", "steps: 1, warmup_steps: 0",
                            "steps: 50, warmup_steps: 50, final_learning_rate: 1.0e-3"})
    EXPECT_EQ(refusal(fmt::format("training: {{{}}}\n", sound)), "");
  // The default gives way where it would not fit, and only there.
  for (const auto& [steps, warmup] :
       std::initializer_list<std::pair<long, long>>{{1, 0}, {50, 5}, {101, 10}, {102, 100}})
    EXPECT_EQ(resolved("model:\n", {fmt::format("training.steps={}", steps)}).training.warmup_steps, warmup)
        << steps;
}

TEST(RunConfigYaml, AGivenWeightDecayActs) {
  EXPECT_EQ(
      refusal("training: {learning_rate: 1.0e-3, weight_decay: 1e-5}\n"),
      "run.yaml:1:49: training.weight_decay 1e-05 at training.learning_rate 0.001 takes 1e-08 of a weight in a "
      "step, which is nothing in single precision; expected 0 or at least 3.1e-05");
  EXPECT_NE(refusal("training: {learning_rate: 2, weight_decay: 0.5}\n").find("expected less than 1"),
            std::string::npos);
  for (const char* sound : {"learning_rate: 1.0e-3, weight_decay: 3.1e-5", "learning_rate: 1e-3, weight_decay: 0",
                            "learning_rate: 1e-8", "learning_rate: 1e9"})
    EXPECT_EQ(refusal(fmt::format("training: {{{}}}\n", sound)), "");
}

/// What a run recorded opens again, whatever is asked of configurations that are to be trained.
TEST(RunConfigYaml, ARecordedConfigurationIsNotAskedForItsSense) {
  for (const char* text : {"steps: 50, warmup_steps: 50", "beta2: 0.99999999", "epsilon: 1e-40",
                           "final_learning_rate: 1", "weight_decay: 1e-9"}) {
    const std::string yaml = fmt::format("training: {{{}}}\n", text);
    EXPECT_EQ(lines(refusal(yaml)).size(), 1u) << text;
    EXPECT_EQ(recorded_run_config(yaml, "run.yaml").model.layers, 4) << text;
  }
  EXPECT_EQ(recorded_run_config("training: {beta2: 0.99999999}\n", "run.yaml").training.beta2, 0.99999999);
  EXPECT_THROW(recorded_run_config("model: {heads: 3}\n", "run.yaml"), ConfigError);
  EXPECT_THROW(recorded_run_config("training: {beta2: 1}\n", "run.yaml"), ConfigError);
}

/// With norm post it is what products read: stored, also in records that are older than the key.
TEST(RunConfigYaml, TheResidualStreamFollowsTheNorm) {
  for (const auto& [text, residual] :
       std::vector<std::pair<std::string, Residual>>{{"model: {norm: pre}\n", Residual::fp32},
                                                     {"model: {norm: post}\n", Residual::stored},
                                                     {"training: {residual: stored}\n", Residual::stored}}) {
    EXPECT_EQ(parse_run_config(text, "run.yaml", {}).model.residual, residual) << text;
    EXPECT_EQ(recorded_run_config(text, "run.yaml").model.residual, residual) << text;
  }
  EXPECT_EQ(refusal("model: {norm: post}\ntraining: {residual: float}\n").substr(0, 44),
            "run.yaml:2:22: training.residual float needs");
}

TEST(RunConfigYaml, TextThatIsNotUtf8HasAPlace) {
  EXPECT_EQ(refusal("model:\n  layers: 3  # \u00e9t\xe9\n"),
            "run.yaml:2:18: byte 0xE9 is not UTF-8; expected UTF-8 text: save the file in that encoding");
  EXPECT_EQ(refusal("model:\n", {"sampling.prompt=caf\xe9"}),
            "--set sampling.prompt=caf\\xE9: byte 0xE9 at offset 19 is not UTF-8; expected UTF-8 text");
  const std::string wide("m\0o\0d\0e\0l\0:\0", 12);
  EXPECT_EQ(refusal(wide),
            "run.yaml: byte 0x00 at offset 1 is no text; expected UTF-8: save the file in that encoding");
  EXPECT_EQ(refusal("\xff\xfe" + wide),
            "run.yaml:1:1: byte 0xFF is not UTF-8; expected UTF-8 text: save the file in that encoding");
  EXPECT_NE(refusal("sampling: {prompt: \"\\ud800\"}\n").find("not valid YAML"), std::string::npos);
}

TEST(RunConfigYaml, NoncharactersSurvive) {
  const std::string text = "\uFDD0\uFFFE\uFFFF\U0001FFFF\U0010FFFF";
  const RunConfig config = resolved("sampling: {prompt: \"" + text + "\"}\n", {"attention.texts=[" + text + "]"});
  EXPECT_EQ(config.sampling.prompt, text);
  EXPECT_EQ(config.attention.texts, std::vector<std::string>{text});
  EXPECT_EQ(resolved(to_yaml(config)).sampling.prompt, text);
  EXPECT_EQ(to_yaml(config).find(text), std::string::npos);
}

TEST(RunConfigYaml, NumbersAreWrittenAsNumbersOfYaml11) {
  EXPECT_EQ(yaml_value(1e-5), "1.0e-05");
  EXPECT_EQ(yaml_value(1.5e-7), "1.5e-07");
  EXPECT_EQ(yaml_value(1e22), "1.0e+22");
  EXPECT_EQ(yaml_value(0.001), "0.001");
  EXPECT_EQ(yaml_value(1.0), "1");
}

TEST(ConfigFormat, TheVersionIsWrittenAndAHigherOneIsRefused) {
  EXPECT_EQ(lines(to_yaml(RunConfig{})).front(), "version: 1");
  EXPECT_EQ(refusal("version: 1\nmodel: {layers: 2}\n"), "");
  EXPECT_EQ(refusal("model: {layers: 2}\nversion: 2\nnew_section: {}\n"),
            "run.yaml:2:10: the configuration is of version 2; expected at most 1, which is as far as this dekoder "
            "reads: take the dekoder that wrote it, or a later one");
  EXPECT_EQ(refusal("version: one\n"), "run.yaml:1:10: version is 'one'; expected a whole number of at least 1");
  EXPECT_NE(refusal("version: 0\n").find("version is '0'"), std::string::npos);
  EXPECT_NE(refusal("version:\n").find("version is nothing"), std::string::npos);
  EXPECT_NE(refusal("version: 1\nversion: 1\n").find("run.yaml:2:1: version stands here a second time"),
            std::string::npos);
}

TEST(ConfigFormat, AKeyOfAnOlderVersionIsReadUnderItsOldName) {
  const ConfigFormat format{3,
                            {{2, "model.depth", "model.blocks"},
                             {3, "model.blocks", "model.layers"},
                             {3, "optimiser.rate", "training.learning_rate"}}};
  const auto read = [&](const std::string& text, const std::vector<std::string>& sets = {}) {
    return parse_run_config(text, "run.yaml", sets, format);
  };
  const auto refused = [&](const std::string& text, const std::vector<std::string>& sets = {}) {
    try {
      read(text, sets);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  for (const char* text :
       {"model: {depth: 7}\n", "version: 1\nmodel: {depth: 7}\n", "version: 2\nmodel: {blocks: 7}\n",
        "version: 3\nmodel: {layers: 7}\n", "model: {layers: 7}\n"})
    EXPECT_EQ(read(text).model.layers, 7) << text;
  EXPECT_EQ(read("optimiser: {rate: 0.5}\n").training.learning_rate, 0.5);
  EXPECT_EQ(refused("version: 3\nmodel:\n  blocks: 7\n"),
            "run.yaml:3:3: unknown key 'blocks' in section 'model'; since version 3 it is called 'model.layers'");
  EXPECT_EQ(refused("model: {depth: 7, layers: 7}\n"),
            "run.yaml:1:19: model.layers was already set at run.yaml:1:16; remove one");
  EXPECT_NE(refused("version: 3\noptimiser: {rate: 1}\n").find("unknown section 'optimiser'"), std::string::npos);
  EXPECT_EQ(refused("model:\n", {"model.blocks=7"}),
            "--set model.blocks=7: unknown key 'model.blocks'; since version 3 it is called 'model.layers'");
}

TEST(ConfigFormat, EveryRenameLeadsToAKeyAndNoOldNameIsTakenAgain) {
  std::set<std::string> keys;
  RunConfig config;
  visit_fields(config, [&](std::string_view key, auto&, const Range&) { keys.emplace(key); });
  int version = 1;
  for (const KeyRename& rename : config_format().renames) {
    EXPECT_GE(rename.version, version) << rename.before << ": oldest first";
    version = rename.version;
    EXPECT_EQ(keys.count(rename.before), 0u) << rename.before;
    bool known = keys.count(rename.now) > 0;
    for (const KeyRename& later : config_format().renames) known = known || later.before == rename.now;
    EXPECT_TRUE(known) << rename.now;
  }
  EXPECT_LE(version, config_format().version);
}

TEST(RunConfigYaml, ResumeNamesWhatMayAndMayNotChange) {
  RunConfig before, now;
  now.model.layers = 9;
  now.training.steps = 5000;
  now.training.seed = 3;
  now.training.batch = 64;
  now.sampling.temperature = 0.5;
  const auto differences = config_differences(before, now);
  ASSERT_EQ(differences.size(), 6u);  // with training.micro_batch, which is the whole batch
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
  const testing_support::ScratchFolder scratch("run-config-yaml");
  const std::string file = scratch.write("run.yaml", "");
  const auto refused = [](const std::string& path) {
    try {
      parse_run_config(read_config_text(path), path, {});
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(refused(file).find("is empty"), std::string::npos);
  EXPECT_NE(refused(".").find("is a folder"), std::string::npos);
  EXPECT_NE(refused(file + ".other").find("there is no such configuration"), std::string::npos);
  scratch.write("run.yaml", "\xef\xbb\xbfmodel:\r\n  layers: 5\r\n");  // byte-order mark, carriage returns
  EXPECT_EQ(parse_run_config(read_config_text(file), file, {}).model.layers, 5);
}

/// No default of theirs follows another setting, and the whole held-out part is only evaluated where it is said.
TEST(RunConfigYaml, InputsSayWhatTheyAre) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(testing_support::source_folder() / "input")) {
    if (entry.path().filename().string().starts_with("sweep-")) continue;  // no configurations
    ++count;
    const std::string text = read_config_text(entry.path()), name = entry.path().string();
    const RunConfig config = parse_run_config(text, name, {});
    for (const ConfigDifference& d : config_differences(recorded_run_config(text, name), config))
      ADD_FAILURE() << name << ": " << d.key << " " << d.before << " became " << d.now;
    EXPECT_EQ(config.evaluation.tokens == 0, text.find("\n  tokens: 0\n") != std::string::npos) << name;
  }
  EXPECT_GE(count, 6);
  EXPECT_GT(RunConfig{}.evaluation.tokens, 0);
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
