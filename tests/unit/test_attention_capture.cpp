// SPDX-License-Identifier: Apache-2.0
// Which steps and probes a run captures, and how large its attention files may become.
#include "inference/attention_capture.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "data/prepare_tokens.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using testing_support::message_of;
using testing_support::ScratchFolder;
using Steps = std::set<long>;

TEST(AttentionSteps, AreZeroTheLastThoseOfThePeriodAndThoseListed) {
  RunConfig config;
  config.training.steps = 100;
  EXPECT_EQ(attention_steps(config, 0), Steps{}) << "no probes";
  config.attention.windows = 1;
  config.attention.every = 40;
  config.attention.steps = {7, 80};
  EXPECT_EQ(attention_steps(config, 0), (Steps{0, 7, 40, 80, 100}));
  EXPECT_EQ(attention_steps(config, 7), (Steps{7, 40, 80, 100}));
  EXPECT_EQ(attention_steps(config, 41), (Steps{80, 100}));
  EXPECT_EQ(attention_steps(config, 101), Steps{});
  config.attention.every = 0;
  EXPECT_EQ(attention_steps(config, 0), (Steps{0, 7, 80, 100}));
  config.attention.every = 1000;
  EXPECT_EQ(attention_steps(config, 0), (Steps{0, 7, 80, 100}));
}

TEST(AttentionSteps, AreTheOnesTheLoopCapturesAfter) {
  for (const long steps : {49, 50, 99})
    for (const long every : {0, 1, 7, 50})
      for (const std::vector<long>& listed : {std::vector<long>{}, std::vector<long>{0, 1}, std::vector<long>{49}})
        for (const long from : {0, 1, 49}) {
          RunConfig config;
          config.training.steps = steps;
          config.attention.texts = {"a"};
          config.attention.every = every;
          config.attention.steps = listed;
          Steps expected;
          for (long step = from; step <= steps; ++step)
            if (captures_attention(config, step)) expected.insert(step);
          EXPECT_EQ(attention_steps(config, from), expected) << steps << " " << every << " " << from;
        }
}

class AttentionPlanTest : public testing::Test {
 protected:
  AttentionPlanTest() : data_(TokenDataset(token_file())) {
    config_.model.layers = config_.model.heads = 12;
    config_.model.context = 64;
    config_.model.vocabulary = data_.vocabulary();
    config_.training.steps = 100;
    config_.attention.windows = 1;
    config_.attention.every = 25;
    state_.run_id = "run";
  }
  fs::path token_file() const {
    std::string text;
    for (int i = 0; i < 200; ++i) text += "alpha beta ";
    const fs::path file = scratch_ / "tokens.h5";
    prepare_tokens(scratch_.write("text.txt", text), file, TokenizerKind::characters, 0.5);
    return file;
  }
  AttentionPlan plan(long resumed_step = -1) const {
    return plan_attention(config_, state_, data_, scratch_ / "attention", resumed_step);
  }
  std::string refusal(long resumed_step = -1) const {
    return message_of<ConfigError>([&] { plan(resumed_step); });
  }
  /// The files of a run of this configuration that stopped after the last of `steps`; returns their size.
  std::uint64_t write_steps(const Steps& steps) const {
    const AttentionFileInfo info = plan().info;
    AttentionFolder folder(scratch_ / "attention", info, -1);
    std::vector<AttentionMaps> maps;
    for (const AttentionProbe& probe : info.probes)
      maps.push_back({std::vector<float>(144 * probe.tokens.size() * probe.tokens.size()),
                      std::vector<float>(144 * info.statistic_names.size())});
    for (const long step : steps) folder.write(step, maps);
    std::uint64_t bytes = 0;
    for (const auto& file : fs::directory_iterator(scratch_ / "attention")) bytes += file.file_size();
    return bytes;
  }

  ScratchFolder scratch_{"attention-plan"};
  DataMixture data_;
  RunConfig config_;
  CheckpointInfo state_;
};

TEST_F(AttentionPlanTest, OfANewRun) {
  const AttentionPlan whole = plan();
  EXPECT_EQ(whole.steps, (Steps{0, 25, 50, 75, 100}));
  EXPECT_EQ(whole.to_come, 5);
  EXPECT_EQ(whole.bytes, 5 * attention_bytes(whole.info));
  EXPECT_EQ(whole.info.probes.size(), 1u);
}

TEST_F(AttentionPlanTest, AfterARestartCountsWhatTheFolderKeeps) {
  const std::uint64_t there = write_steps({0, 25, 50});
  config_.attention.every = 0;
  config_.attention.steps = {10, 60};  // 10 is past
  const AttentionPlan rest = plan(50);
  EXPECT_EQ(rest.steps, (Steps{0, 25, 50, 60, 100}));
  EXPECT_EQ(rest.to_come, 2);
  EXPECT_EQ(rest.bytes, there + 2 * attention_bytes(rest.info));
  EXPECT_EQ(plan(49).steps, (Steps{0, 25, 60, 100})) << "step 50 will be repeated";

  ASSERT_GT(rest.bytes, 2'000'000u);
  config_.attention.max_megabytes = 2;
  EXPECT_NE(
      refusal(50).find("attention maps of 5 steps, 1 probes, 12 layers and 12 heads could take 2 MB, more than "
                       "attention.max_megabytes 2"),
      std::string::npos)
      << refusal(50);
  EXPECT_EQ(AttentionFolder(scratch_ / "attention", rest.info, 50).steps(), (Steps{0, 25, 50}))
      << "refused, but changed";
}

TEST_F(AttentionPlanTest, OfOtherProbesBeginsAtTheRestart) {
  write_steps({0, 25, 50});
  config_.attention.texts = {"alpha"};
  const AttentionPlan rest = plan(50);
  EXPECT_EQ(rest.steps, (Steps{50, 75, 100}));
  EXPECT_EQ(rest.to_come, 3);
}

TEST_F(AttentionPlanTest, AbsurdNumbersAreRefusedBeforeAnythingIsListed) {
  config_.training.steps = 1'000'000'000'000'000;
  config_.attention.every = 1;
  EXPECT_NE(refusal().find("1000000000000000 steps"), std::string::npos) << refusal();
  EXPECT_NE(refusal().find("attention.every"), std::string::npos) << refusal();
  config_.training.steps = 100;
  config_.attention.windows = 2'000'000'000;
  EXPECT_NE(refusal().find("2000000000 probes"), std::string::npos) << refusal();
  EXPECT_NE(refusal().find("attention.windows"), std::string::npos) << refusal();
  EXPECT_NE(refusal(100).find("attention.windows"), std::string::npos) << refusal(100);
}

TEST_F(AttentionPlanTest, NumbersThatFitAreNotRefused) {
  for (const long every : {0, 1, 3, 30, 49, 50, 51, 99, 100, 200})
    for (const long resumed_step : {-1, 0, 1, 50, 99, 100}) {
      config_.attention.every = every;
      config_.attention.max_megabytes = 1000;
      const auto bytes = double(plan(resumed_step).bytes);
      config_.attention.max_megabytes = int(bytes / 1e6) + 1;
      EXPECT_EQ(refusal(resumed_step), "") << every << " " << resumed_step;
      config_.attention.max_megabytes = int(bytes / 1e6);
      EXPECT_NE(refusal(resumed_step), "") << every << " " << resumed_step;
    }
}

TEST_F(AttentionPlanTest, ATextWithACharacterThatIsLackingIsNamedByItsKey) {
  config_.attention.texts = {"alpha", "zeta"};
  EXPECT_TRUE(refusal().starts_with("attention.texts[1]: the vocabulary of ")) << refusal();
  config_.attention.texts = {std::string(65, 'a')};
  EXPECT_TRUE(refusal().starts_with("attention.texts[0] has 65 tokens; expected at most the model's context, 64"))
      << refusal();
}

}  // namespace
}  // namespace dekoder
