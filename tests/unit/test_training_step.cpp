// SPDX-License-Identifier: Apache-2.0
// What a training step may and may not do, seen through Kokkos Tools: no allocation, only labelled kernels, the
// same number of launches each time; and what it computes: micro-batches add up, and nothing depends on how often
// it ran before.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>

#include "io/hdf5/hdf5_file.hpp"
#include "io/run/checkpoint.hpp"
#include "kernels/attention/attention.hpp"
#include "kernels/gemm.hpp"
#include "model/model_summary.hpp"
#include "support/host_tensor.hpp"
#include "support/scratch_folder.hpp"
#include "support/small_decoder.hpp"

namespace dekoder::testing {
namespace {

struct Seen {
  std::map<std::string, int> kernels;
  int allocations = 0;
  std::string allocated;
};
Seen* seen = nullptr;

void count_kernel(const char* name, std::uint32_t, std::uint64_t*) {
  if (seen != nullptr) ++seen->kernels[name];
}
void count_allocation(Kokkos::Profiling::SpaceHandle, const char* label, const void*, std::uint64_t bytes) {
  if (seen == nullptr || bytes == 0) return;  // on GPUs Kokkos asks for 0 bytes before every kernel of teams
  ++seen->allocations;
  seen->allocated += fmt::format("{} ({} bytes) ", label, bytes);
}

class WatchedStep : public ::testing::TestWithParam<double> {
 protected:
  void SetUp() override {
    using namespace Kokkos::Tools::Experimental;
    set_begin_parallel_for_callback(count_kernel);
    set_begin_parallel_reduce_callback(count_kernel);
    set_begin_parallel_scan_callback(count_kernel);
    set_allocate_data_callback(count_allocation);
  }
  void TearDown() override {
    using namespace Kokkos::Tools::Experimental;
    set_begin_parallel_for_callback(nullptr);
    set_begin_parallel_reduce_callback(nullptr);
    set_begin_parallel_scan_callback(nullptr);
    set_allocate_data_callback(nullptr);
  }
};

void one_step(TrainingModel& model, long step) {
  const ExecSpace exec;
  const RunConfig& config = model.config();
  const DropoutKey dropout{Real(config.model.dropout), 1, std::uint64_t(step), 0};
  model.accumulate_gradients(exec, dropout, Real(0.05));
  model.optimizer().step(exec, config.training, step, model.store());
  exec.fence();
}

TEST_P(WatchedStep, AllocatesNothingAndLabelsEveryKernel) {
  RunConfig config = small_config();
  config.model.dropout = GetParam();
  config.model.tied_head = false;
  if (GetParam() > 0) config.training.optimizer = OptimizerKind::muon, config.training.average = 0.99;
  const ExecSpace exec;
  TrainingModel model(config);
  model.store().initialise(exec, 1);
  model.load(exec, random_tokens(config, 1), random_tokens(config, 2));
  for (long step = 0; step < 2; ++step) one_step(model, step);  // libraries set themselves up
  Seen first, second;
  seen = &first;
  one_step(model, 2);
  seen = &second;
  one_step(model, 3);
  seen = nullptr;
  EXPECT_EQ(first.allocations, 0) << first.allocated;
  EXPECT_EQ(second.allocations, 0) << second.allocated;
  EXPECT_FALSE(first.kernels.empty());
  EXPECT_EQ(first.kernels, second.kernels);
  for (const auto& [label, count] : first.kernels) EXPECT_TRUE(label.starts_with("dekoder::")) << label;
}

// The FLOPs that rates and shares are computed from are those that matrix products are asked for; attention is the
// rest. On GPUs attention is asked for as products, too, and of whole squares: two forward and five backward.
TEST(FlopsPerToken, AreTheMatrixProductsAndAttention) {
  RunConfig config = small_config();
  config.model.vocabulary = 12;  // no padding, which is not counted as work
  TrainingModel model(config);
  model.store().initialise(ExecSpace(), 1);
  model.load(ExecSpace(), random_tokens(config, 1), random_tokens(config, 2));
  const double before = gemm_flops();
  model.accumulate_gradients(ExecSpace(), DropoutKey{}, Real(0.05));
  const ModelConfig& m = config.model;
  const double square = 2.0 * m.layers * m.channels * m.context, attention = 3 * square;
  const bool of_products = attention_score_elements(config.training.batch, m.context, m.heads) > 0;
  EXPECT_EQ((gemm_flops() - before) / (config.training.batch * m.context),
            flops_per_token(m) - attention + (of_products ? 7 * square : 0));
}

TEST(OptimizerFlops, AreTheMatrixProductsOfMuon) {
  RunConfig config = small_config();
  config.model.gated = true;
  EXPECT_EQ(optimizer_flops(config), 0);
  config.training.optimizer = OptimizerKind::muon;
  TrainingModel model(config);
  const double before = gemm_flops();
  model.optimizer().step(ExecSpace(), config.training, 0, model.store());
  EXPECT_GT(optimizer_flops(config), 0);
  EXPECT_EQ(gemm_flops() - before, optimizer_flops(config));
}

INSTANTIATE_TEST_SUITE_P(Dropout, WatchedStep, ::testing::Values(0.0, 0.25));

TEST(TrainingStep, MicroBatchesAddUpToTheBatch) {
  RunConfig config = small_config();
  config.training.batch = 4;
  const ExecSpace exec;
  TrainingModel whole(config);
  whole.store().initialise(exec, 1);
  const HostTokenTensor2 inputs = random_tokens(config, 1), targets = random_tokens(config, 2);
  whole.load(exec, inputs, targets);
  const double whole_loss = whole.accumulate_gradients(exec, DropoutKey{}, Real(0.05));

  config.training.micro_batch = 2;
  TrainingModel parts(config);
  parts.store().initialise(exec, 1);
  double parts_loss = 0;
  for (int first = 0; first < 4; first += 2) {
    const auto half = Kokkos::make_pair(first, first + 2);
    parts.load(exec, Kokkos::subview(inputs, half, Kokkos::ALL), Kokkos::subview(targets, half, Kokkos::ALL));
    parts_loss += parts.accumulate_gradients(exec, DropoutKey{}, Real(0.05));
  }
  EXPECT_NEAR(parts_loss, whole_loss, 1e-4 * whole_loss);
  const std::vector<double> of_whole = values_of(whole.store().gradients()),
                            of_parts = values_of(parts.store().gradients());
  for (std::size_t i = 0; i < of_whole.size(); ++i)
    ASSERT_NEAR(of_whole[i], of_parts[i], 2e-6)
        << whole.store().layout().owner_of(i).name << " at flat index " << i;
}

// Five micro-batches: ((0 + 1) + (2 + 3)) + 4, however many steps were done before.
TEST(TrainingStep, MicroBatchesAreAddedUpByTheTree) {
  RunConfig config = small_config();
  config.training.batch = 5;
  config.training.micro_batch = 1;
  const ExecSpace exec;
  TrainingModel model(config);
  const MasterTensor1 gradients = model.store().gradients();
  model.store().initialise(exec, 1);
  const auto load = [&](int leaf) {
    model.load(exec, random_tokens(config, std::uint64_t(2 * leaf)),
               random_tokens(config, std::uint64_t(2 * leaf + 1)));
  };
  std::vector<std::vector<double>> leaves;
  for (int leaf = 0; leaf < 5; ++leaf) {
    load(leaf);
    model.accumulate_gradients(exec, DropoutKey{}, Real(0.05));
    leaves.push_back(values_of(gradients));
    Kokkos::deep_copy(gradients, 0);
  }
  const auto added = [](const std::vector<double>& a, const std::vector<double>& b) {
    std::vector<double> sum(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) sum[i] = double(Master(a[i]) + Master(b[i]));
    return sum;
  };
  const auto expected = added(added(added(leaves[0], leaves[1]), added(leaves[2], leaves[3])), leaves[4]);
  for (int repeat = 0; repeat < 2; ++repeat) {
    for (int leaf = 0; leaf < 5; ++leaf) {
      load(leaf);
      model.leaf_gradients(exec, DropoutKey{}, Real(0.05));
    }
    EXPECT_TRUE(near(gradients, expected, 0.0)) << "step " << repeat;
    Kokkos::deep_copy(gradients, 0);
  }
}

TEST(TrainingStep, TwoRunsAgreeBitForBit) {
  RunConfig config = small_config();
  config.model.dropout = 0.1;
  const ExecSpace exec;
  std::vector<double> losses[2];
  for (auto& run : losses) {
    TrainingModel model(config);
    model.store().initialise(exec, 7);
    model.load(exec, random_tokens(config, 1), random_tokens(config, 2));
    for (long step = 0; step < 5; ++step) {
      run.push_back(model.accumulate_gradients(exec, DropoutKey{Real(0.1), 7, std::uint64_t(step), 0}, Real(0.05)));
      model.optimizer().step(exec, config.training, step, model.store());
    }
  }
  EXPECT_EQ(losses[0], losses[1]);
}

TEST(TrainingStep, NaNInAGradientStopsBeforeTheUpdateAndIsNamed) {
  RunConfig config = small_config();
  const ExecSpace exec;
  TrainingModel model(config);
  model.store().initialise(exec, 1);
  const std::vector<double> before = values_of(model.store().values());
  const auto gradient = model.store().gradient2("blocks.01.attention.qkv.weight");
  set_element(gradient, 3 * gradient.extent(1) + 2, NAN);
  try {
    model.optimizer().step(exec, config.training, 41, model.store());
    FAIL() << "a NaN passed";
  } catch (const DivergedError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("step 42"), std::string::npos) << message;
    EXPECT_NE(message.find("blocks.01.attention.qkv.weight"), std::string::npos) << message;
    EXPECT_EQ(error.code(), ExitCode::diverged);
  }
  EXPECT_EQ(values_of(model.store().values()), before);
}

// After the first step of AdamW the moments are (1 - beta1) g and (1 - beta2) g^2; a checkpoint holds them by name.
TEST(TrainingStep, ACheckpointHoldsEachMomentUnderItsName) {
  RunConfig config = small_config();
  config.training.clip_norm = 0;
  const ExecSpace exec;
  TrainingModel model(config);
  model.store().initialise(exec, 1);
  const MasterTensor1 gradients = model.store().gradients();
  change(gradients, [](const auto& values) {
    for (std::size_t i = 0; i < values.size(); ++i) values(i) = Master(RandomStream(5, 6).normal(i));
  });
  const std::vector<double> g = values_of(gradients);
  model.optimizer().step(exec, config.training, 0, model.store());
  exec.fence();
  const auto updated = on_host(model.store().values());
  const testing_support::ScratchFolder scratch("moments");
  const Hdf5File file =
      Hdf5File::open(write_checkpoint(scratch.path(), CheckpointInfo{}, model.store().layout(), model.state()));
  EXPECT_EQ(file.members("/"), (std::vector<std::string>{"first_moment", parameter_group, "second_moment"}));
  for (const ParameterEntry& entry : model.store().layout().entries()) {
    const auto saved = [&](const std::string& group) { return file.read<Real>("/" + group + "/" + entry.name); };
    const std::vector<Real> first = saved("first_moment"), second = saved("second_moment");
    const std::vector<Real> parameters = saved(parameter_group);
    for (std::size_t i = 0; i < entry.size(); ++i) {
      const double gradient = g[entry.offset + i];
      ASSERT_NEAR(first[i], (1 - config.training.beta1) * gradient, 1e-6) << entry.name << " " << i;
      ASSERT_NEAR(second[i], (1 - config.training.beta2) * gradient * gradient, 1e-6) << entry.name << " " << i;
      ASSERT_EQ(parameters[i], updated(entry.offset + i)) << entry.name << " " << i;
    }
  }
}

// Of the matrices of the blocks the first moment is Muon's, momentum * 0 + g; they have no second one.
TEST(TrainingStep, ACheckpointOfMuonHoldsOneMomentOfAMatrix) {
  RunConfig config = small_config();
  config.training.clip_norm = 0;
  config.training.optimizer = OptimizerKind::muon;
  const ExecSpace exec;
  TrainingModel model(config);
  model.store().initialise(exec, 1);
  const ParameterLayout& layout = model.store().layout();
  const MasterTensor1 gradients = model.store().gradients();
  for (const ParameterEntry& entry : layout.entries())
    change(ParameterStore::flat_slice(gradients, entry), [](const auto& values) {
      for (std::size_t i = 0; i < values.size(); ++i) values(i) = Master(RandomStream(5, 6).normal(i));
    });
  const std::vector<double> g = values_of(gradients);
  model.optimizer().step(exec, config.training, 0, model.store());
  exec.fence();
  EXPECT_EQ(values_of(gradients), std::vector<double>(g.size(), 0.0));
  const testing_support::ScratchFolder scratch("moments");
  const auto path = write_checkpoint(scratch.path(), CheckpointInfo{}, layout, model.state());
  {
    const Hdf5File file = Hdf5File::open(path);
    int matrices = 0;
    for (const ParameterEntry& entry : layout.entries()) {
      const bool whole = entry.name.starts_with("blocks.") && entry.shape.size() == 2;
      matrices += whole;
      const auto first = file.read<Real>("/first_moment/" + entry.name);
      for (std::size_t i = 0; i < entry.size(); ++i)
        ASSERT_NEAR(first[i], (whole ? 1 : 1 - config.training.beta1) * g[entry.offset + i], 1e-6) << entry.name;
      const std::vector<std::string> second = file.members("/second_moment");
      EXPECT_EQ(std::count(second.begin(), second.end(), entry.name), whole ? 0 : 1) << entry.name;
    }
    EXPECT_EQ(matrices, 8);
  }
  TrainingModel again(config);
  read_checkpoint(path, layout, again.state());
  for (std::size_t b = 0; b < buffers_of_state; ++b)
    EXPECT_TRUE(identical(model.state()[b].buffer, again.state()[b].buffer)) << model.state()[b].name;
}

// After n steps the decay is min(average, (1 + n) / (10 + n)): 2/11, 3/12, and from the third step on 0.3.
TEST(TrainingStep, TheAverageFollowsTheParameters) {
  RunConfig config = small_config();
  config.training.average = 0.3;
  const ExecSpace exec;
  TrainingModel model(config);
  model.initialise(exec);
  model.load(exec, random_tokens(config, 1), random_tokens(config, 2));
  std::vector<double> average = values_of(model.store().values());
  for (long step = 0; step < 4; ++step) {
    const double n = double(step) + 1, decay = std::min(0.3, (1 + n) / (10 + n));
    one_step(model, step);
    const std::vector<double> values = values_of(model.store().values());
    for (std::size_t i = 0; i < average.size(); ++i) average[i] = decay * average[i] + (1 - decay) * values[i];
    EXPECT_TRUE(near(model.state().back().buffer, average, 1e-5)) << step;
    std::vector<double> inside;
    model.with_average(exec, [&] { inside = values_of(model.store().values()); });
    EXPECT_EQ(inside, values_of(model.state().back().buffer)) << step;
    EXPECT_EQ(values_of(model.store().values()), values) << step;
  }
  const testing_support::ScratchFolder scratch("average");
  const auto path = write_checkpoint(scratch.path(), CheckpointInfo{}, model.store().layout(), model.state());
  const ParameterStore read(run_parameters(config), Gradients::none);
  read_checkpoint_parameters(path, read);
  EXPECT_EQ(values_of(read.values()), values_of(model.state().back().buffer));
}

TEST(TrainingStep, ModelsThatShareATensorShareItsInitialValues) {
  RunConfig with = small_config(), without = small_config();
  without.model.positions = Positions::none;
  const ExecSpace exec;
  ParameterStore a(decoder_parameters(with.model)), b(decoder_parameters(without.model));
  a.initialise(exec, 5);
  b.initialise(exec, 5);
  for (const ParameterEntry& entry : b.layout().entries()) {
    const ConstTensor1 one = ParameterStore::flat_slice(a.values(), a.layout().find(entry.name));
    EXPECT_TRUE(identical(one, ParameterStore::flat_slice(b.values(), entry))) << entry.name;
  }
}

TEST(LearningRate, FollowsItsSchedules) {
  TrainingConfig training;
  training.steps = 110;
  training.warmup_steps = 10;
  training.learning_rate = 1.0;
  training.final_learning_rate = 0.1;
  EXPECT_DOUBLE_EQ(learning_rate(training, 0), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(training, 9), 1.0);
  training.schedule = Schedule::cosine;
  EXPECT_NEAR(learning_rate(training, 109), 0.1, 1e-12);
  EXPECT_GT(learning_rate(training, 40), learning_rate(training, 41));
  training.schedule = Schedule::linear;
  EXPECT_NEAR(learning_rate(training, 109), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate(training, 10), 1.0, 1e-12);
  training.schedule = Schedule::constant;
  EXPECT_DOUBLE_EQ(learning_rate(training, 109), 1.0);
  training.schedule = Schedule::wsd;
  EXPECT_DOUBLE_EQ(learning_rate(training, 60), 1.0);
  EXPECT_NEAR(learning_rate(training, 98), 0.55, 0.03);
  EXPECT_NEAR(learning_rate(training, 109), 0.1, 1e-12);
  training.schedule = Schedule::inverse_sqrt;
  EXPECT_DOUBLE_EQ(learning_rate(training, 39), 0.5);
}

TEST(LearningRate, EqualsItsFormulaAtEveryStep) {
  TrainingConfig training;
  training.learning_rate = 2.0;
  training.final_learning_rate = 0.5;
  training.decay_fraction = 0.25;
  training.steps = 40;
  for (const int warmup : {0, 8}) {
    training.warmup_steps = warmup;
    const auto expect = [&](Schedule schedule, auto formula) {
      training.schedule = schedule;
      for (int t = 0; t < 45; ++t)  // a run may go on past its last step: the rate stays
        EXPECT_NEAR(learning_rate(training, t), t < warmup ? 2.0 * (t + 1) / warmup : formula(t), 1e-12)
            << "schedule " << int(schedule) << " warm-up " << warmup << " step " << t;
    };
    const double length = 39 - warmup;  // the last step has the final rate
    expect(Schedule::constant, [&](int) { return 2.0; });
    expect(Schedule::linear, [&](int t) { return t > 39 ? 0.5 : (2.0 * (39 - t) + 0.5 * (t - warmup)) / length; });
    expect(Schedule::cosine, [&](int t) {
      return t > 39 ? 0.5 : 0.5 + 1.5 * std::pow(std::cos((t - warmup) / length * std::acos(-1.0) / 2), 2);
    });
    expect(Schedule::wsd, [&](int t) { return t < 29 ? 2.0 : t > 39 ? 0.5 : 2.0 - 0.15 * (t - 29); });
    expect(Schedule::inverse_sqrt,
           [&](int t) { return 2.0 * std::sqrt(warmup == 0 ? 1.0 / (t + 1) : 8.0 / (t + 1)); });
  }
  training.steps = 1;
  training.warmup_steps = 0;
  for (const Schedule schedule : {Schedule::linear, Schedule::cosine}) {
    training.schedule = schedule;
    EXPECT_DOUBLE_EQ(learning_rate(training, 0), 2.0) << "one step alone";
  }
}

}  // namespace
}  // namespace dekoder::testing
