// SPDX-License-Identifier: Apache-2.0
#include "train/background_save.hpp"

#include <gtest/gtest.h>

#include <future>
#include <stdexcept>

#include "io/run/checkpoint.hpp"
#include "support/scratch_folder.hpp"
#include "support/small_decoder.hpp"

namespace dekoder {
namespace {

using testing::small_config;

/// One optimizer step on tokens of `seed`.
void train(TrainingModel& model, std::uint64_t seed) {
  const ExecSpace exec;
  model.load(exec, testing::random_tokens(model.config(), seed), testing::random_tokens(model.config(), seed + 1));
  model.leaf_gradients(exec, {}, Real(0.05));
  model.update(exec, long(seed));
}

std::vector<Real> values_of(const MasterTensor1& buffer) {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), buffer);
  return {host.data(), host.data() + host.size()};
}

std::vector<std::vector<Real>> state_of(const TrainingModel& model) {
  std::vector<std::vector<Real>> values;
  for (const NamedBuffer& buffer : model.state()) values.push_back(values_of(buffer.buffer));
  return values;
}

TEST(BackgroundSave, WritesTheCopyWhileTrainingGoesOn) {
  const testing_support::ScratchFolder folder("background-save");
  TrainingModel model(small_config());
  model.store().initialise(ExecSpace(), 3);
  train(model, 1);
  const auto before = state_of(model);
  BackgroundSave save(model);
  std::promise<void> trained;
  CheckpointInfo info;
  info.step = 7;
  const auto file = folder.path() / checkpoint_file_name(7);
  save.begin(ExecSpace(), [&](const std::vector<NamedBuffer>& buffers) {
    trained.get_future().wait();
    write_checkpoint(folder.path(), info, model.store().layout(), buffers);
  });
  EXPECT_TRUE(save.busy());
  train(model, 2);
  save.advance();
  EXPECT_TRUE(save.busy());
  EXPECT_FALSE(save.take_outcome());
  EXPECT_NE(state_of(model), before);
  EXPECT_FALSE(std::filesystem::exists(file));
  trained.set_value();
  save.finish();
  EXPECT_FALSE(save.busy());
  const auto outcome = save.take_outcome();
  ASSERT_TRUE(outcome);
  EXPECT_FALSE(outcome->failure);
  EXPECT_GT(outcome->write_seconds, 0);
  EXPECT_FALSE(save.take_outcome());
  TrainingModel read(small_config());
  EXPECT_EQ(read_checkpoint(file, read.store().layout(), read.state()).step, 7);
  EXPECT_EQ(state_of(read), before);
}

TEST(BackgroundSave, TellsOfAFailureAndSavesAgain) {
  TrainingModel model(small_config());
  BackgroundSave save(model);
  save.begin(ExecSpace(), [](const auto&) { throw SaveError("the disk is full"); });
  save.finish();
  const auto failed = save.take_outcome();
  ASSERT_TRUE(failed && failed->failure);
  EXPECT_THROW(std::rethrow_exception(failed->failure), SaveError);
  std::size_t tensors = 0;
  save.begin(ExecSpace(), [&](const std::vector<NamedBuffer>& buffers) {
    for (const NamedBuffer& buffer : buffers)
      for (const ParameterEntry& entry : model.store().layout().entries())
        if (in_group(buffer.name, entry)) tensors += buffer.get(entry).size() == entry.size() ? 1 : 0;
  });
  EXPECT_THROW(save.begin(ExecSpace(), [](const auto&) {}), std::logic_error);
  save.finish();
  EXPECT_FALSE(save.take_outcome().value().failure);
  EXPECT_EQ(tensors, 3 * model.store().layout().entries().size());
}

TEST(BackgroundSave, ADestroyedOneHasWrittenItsFile) {
  TrainingModel model(small_config());
  bool written = false;
  {
    BackgroundSave save(model);
    save.begin(ExecSpace(), [&](const auto&) { written = true; });
  }
  EXPECT_TRUE(written);
}

}  // namespace
}  // namespace dekoder
