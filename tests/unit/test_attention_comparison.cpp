// SPDX-License-Identifier: Apache-2.0
#include "commands/attention_comparison.hpp"

#include <gtest/gtest.h>

#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

using testing_support::message_of;
using testing_support::ScratchFolder;

AttentionProbe two_tokens(const std::string& name) {
  return {name, "configuration", "ab", {97, 98}, {"a", "b"}};
}
AttentionProbe one_token(const std::string& name) {
  return {name, "configuration", "c", {99}, {"c"}};
}

/// Weight of the second query on the first key; exact in half precision.
float weight(int run, long step, int layer, int head) {
  return float(run) * 0.5f + float(step) / 256 + float(layer) / 64 + float(head) / 512;
}
float statistic(int run, long step, int layer, int head, std::size_t probe, int s) {
  return float(1000 * run + int(step)) + float(100 * layer + 10 * head) + float(probe) * 0.5f + float(s) * 0.125f;
}

AttentionFileInfo info_of(int run, std::vector<int> layers, std::vector<int> heads,
                          std::vector<AttentionProbe> probes) {
  AttentionFileInfo info;
  info.run_id = "run " + std::to_string(run);
  info.config_yaml = "model:\n";
  info.tokenizer = "byte";
  info.layers = std::move(layers);
  info.heads = std::move(heads);
  info.probes = std::move(probes);
  info.statistic_names = {"entropy", "first_token"};
  return info;
}

AttentionReader written(const std::filesystem::path& path, int run, const AttentionFileInfo& info,
                        const std::vector<long>& steps) {
  AttentionFile file(path, info, -1);
  for (const long step : steps) {
    std::vector<AttentionMaps> maps(info.probes.size());
    for (std::size_t p = 0; p < maps.size(); ++p)
      for (const int layer : info.layers)
        for (const int head : info.heads) {
          const float w = weight(run, step, layer, head);
          const std::vector<float> map =
              info.probes[p].tokens.size() == 1 ? std::vector<float>{1} : std::vector<float>{1, 0, w, 1 - w};
          maps[p].weights.insert(maps[p].weights.end(), map.begin(), map.end());
          for (int s = 0; s < 2; ++s)
            maps[p].statistics.push_back(statistic(run, step, layer, head, info.probes[p].tokens.size(), s));
        }
    file.append(step, maps);
  }
  return AttentionReader(path);
}

TEST(AttentionComparison, TotalVariationIsThatOfHandMadeMaps) {
  const std::vector<float> w = {1, 0, 0, 0.5f, 0.5f, 0, 0.25f, 0.25f, 0.5f},
                           v = {1, 0, 0, 0, 1, 0, 0, 0.25f, 0.75f};
  EXPECT_EQ(total_variation(w, w, 3), 0);
  EXPECT_DOUBLE_EQ(total_variation(w, v, 3), (0.0 + 0.5 + 0.25) / 3);
  EXPECT_DOUBLE_EQ(total_variation(v, w, 3), (0.0 + 0.5 + 0.25) / 3);
  EXPECT_EQ(total_variation(std::vector<float>{1, 0, 1, 0}, std::vector<float>{0, 1, 0, 1}, 2), 1);
  EXPECT_THROW(total_variation(w, v, 2), ShapeError);
  EXPECT_THROW(total_variation(w, std::vector<float>(4), 3), ShapeError);
}

TEST(AttentionComparison, WhatFilesHaveInCommonIsCompared) {
  const ScratchFolder folder("attention-comparison");
  const AttentionReader a =
      written(folder / "a.h5", 0, info_of(0, {0, 2}, {1, 3}, {two_tokens("x"), one_token("y")}), {0, 10, 20});
  AttentionProbe other_text = two_tokens("x");  // the name of a probe says nothing
  other_text.tokens = {98, 97};
  other_text.token_texts = {"b", "a"};
  const AttentionReader b = written(
      folder / "b.h5", 1, info_of(1, {2, 0}, {0, 3}, {one_token("u"), two_tokens("v"), other_text}), {0, 20, 100});
  const std::vector<const AttentionReader*> runs = {&a, nullptr, &b};
  const AttentionComparison c = compare_attention(runs);
  EXPECT_EQ(c.has_maps, (std::vector<bool>{true, false, true}));

  ASSERT_TRUE(c.changes[0]);
  EXPECT_EQ(c.changes[0]->first_step, 0);
  EXPECT_EQ(c.changes[0]->last_step, 20);
  EXPECT_EQ(c.changes[0]->distance.layers, (std::vector<int>{0, 2}));
  EXPECT_EQ(c.changes[0]->distance.heads, (std::vector<int>{1, 3}));
  for (const double value : c.changes[0]->distance.values) EXPECT_DOUBLE_EQ(value, 20.0 / 256 / 3);
  EXPECT_FALSE(c.changes[1]);
  ASSERT_TRUE(c.changes[2]);
  for (const double value : c.changes[2]->distance.values) EXPECT_DOUBLE_EQ(value, 2 * 100.0 / 256 / 5);

  EXPECT_FALSE(c.differences[0]);
  EXPECT_FALSE(c.differences[1]);
  ASSERT_TRUE(c.differences[2]);
  EXPECT_EQ(c.differences[2]->first_step, 20);
  EXPECT_EQ(c.differences[2]->last_step, 20);
  EXPECT_EQ(c.differences[2]->probes, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(c.differences[2]->distance.layers, (std::vector<int>{0, 2}));
  EXPECT_EQ(c.differences[2]->distance.heads, (std::vector<int>{3}));
  for (const double value : c.differences[2]->distance.values) EXPECT_DOUBLE_EQ(value, 0.5 / 3);

  ASSERT_TRUE(c.statistics);
  EXPECT_EQ(c.statistics->step, 20);
  EXPECT_EQ(c.statistics->names, (std::vector<std::string>{"entropy", "first_token"}));
  EXPECT_TRUE(c.statistics->values[1].empty());
  for (const int run : {0, 1}) {
    std::vector<double> expected;
    for (const int layer : {0, 2})
      for (int s = 0; s < 2; ++s)
        expected.push_back((statistic(run, 20, layer, 3, 1, s) + statistic(run, 20, layer, 3, 2, s)) / 2);
    EXPECT_EQ(c.statistics->values[run == 0 ? 0 : 2], expected);
  }
}

TEST(AttentionComparison, NothingInCommonIsLeftOut) {
  const ScratchFolder folder("attention-comparison");
  const AttentionReader a = written(folder / "a.h5", 0, info_of(0, {0}, {0}, {two_tokens("x")}), {0, 10});
  const auto against = [&](const char* name, const AttentionFileInfo& info, const std::vector<long>& steps) {
    const AttentionReader b = written(folder / name, 1, info, steps);
    const std::vector<const AttentionReader*> runs = {&a, &b};
    const AttentionComparison c = compare_attention(runs);
    EXPECT_TRUE(c.changes[0] && c.changes[1]) << name;
    EXPECT_FALSE(c.differences[1]) << name;
    EXPECT_FALSE(c.statistics) << name;
  };
  against("steps.h5", info_of(1, {0}, {0}, {two_tokens("x")}), {5, 15});
  against("layers.h5", info_of(1, {1}, {0}, {two_tokens("x")}), {0, 10});
  against("heads.h5", info_of(1, {0}, {1}, {two_tokens("x")}), {0, 10});
  against("probes.h5", info_of(1, {0}, {0}, {one_token("x")}), {0, 10});
  const std::vector<const AttentionReader*> none = {nullptr, nullptr};
  EXPECT_FALSE(compare_attention(none).statistics);
}

TEST(AttentionComparison, TheReaderGivesBackWhatWasWritten) {
  const ScratchFolder folder("attention-comparison");
  const AttentionFileInfo info = info_of(3, {1, 5}, {0, 2, 4}, {two_tokens("text_0"), one_token("window_0")});
  const AttentionReader reader = written(folder / "a.h5", 3, info, {0, 3, 100});
  EXPECT_EQ(reader.steps(), (std::vector<long>{0, 3, 100}));
  EXPECT_EQ(reader.info().run_id, info.run_id);
  EXPECT_EQ(reader.info().config_yaml, info.config_yaml);
  EXPECT_EQ(reader.info().tokenizer, info.tokenizer);
  EXPECT_EQ(reader.info().layers, info.layers);
  EXPECT_EQ(reader.info().heads, info.heads);
  EXPECT_EQ(reader.info().statistic_names, info.statistic_names);
  ASSERT_EQ(reader.info().probes.size(), 2u);
  for (std::size_t p = 0; p < 2; ++p) {
    EXPECT_EQ(reader.info().probes[p].name, info.probes[p].name);
    EXPECT_EQ(reader.info().probes[p].source, info.probes[p].source);
    EXPECT_EQ(reader.info().probes[p].text, info.probes[p].text);
    EXPECT_EQ(reader.info().probes[p].tokens, info.probes[p].tokens);
    EXPECT_EQ(reader.info().probes[p].token_texts, info.probes[p].token_texts);
  }
  const AttentionMaps maps = reader.read(0, 3);
  ASSERT_EQ(maps.weights.size(), 2u * 3 * 4);
  ASSERT_EQ(maps.statistics.size(), 2u * 3 * 2);
  std::size_t i = 0;
  for (const int layer : {1, 5})
    for (const int head : {0, 2, 4}) {
      EXPECT_EQ(maps.weights[4 * i + 2], weight(3, 3, layer, head));
      EXPECT_EQ(maps.statistics[2 * i + 1], statistic(3, 3, layer, head, 2, 1));
      ++i;
    }
  const std::string message = message_of<DataError>([&] { AttentionReader missing(folder / "missing.h5"); });
  EXPECT_NE(message.find("missing.h5"), std::string::npos);
}

}  // namespace
}  // namespace dekoder
