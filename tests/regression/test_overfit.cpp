// SPDX-License-Identifier: Apache-2.0
// Training learns: one batch is learnt by heart, in every norm placement, and the loss at the start is ln V.
#include <gtest/gtest.h>

#include <cmath>

#include "support/small_decoder.hpp"

namespace dekoder::testing {
namespace {

double train_on_one_batch(RunConfig config, int steps, double& first_loss) {
  config.model.channels = 32;
  config.model.feed_forward = 64;
  config.training.steps = steps;
  config.training.learning_rate = 5e-3;
  config.training.final_learning_rate = 5e-4;
  config.training.warmup_steps = 10;
  config.training.weight_decay = 0;
  const ExecSpace exec;
  TrainingModel model(config);
  model.store().initialise(exec, 1);
  model.load(exec, random_tokens(config, 1), random_tokens(config, 2));
  const double tokens = double(config.training.batch) * config.model.context;
  double loss = 0;
  for (int step = 0; step < steps; ++step) {
    loss = model.accumulate_gradients(exec, DropoutKey{}, Real(1 / tokens)) / tokens;
    if (step == 0) first_loss = loss;
    model.optimizer().step(exec, config.training, step, model.store());
  }
  return loss;
}

TEST(Overfit, PreNormLearnsOneBatchByHeart) {
  double first = 0;
  const double last = train_on_one_batch(small_config(), 300, first);
  EXPECT_NEAR(first, std::log(11.0), 0.1);
  EXPECT_LT(last, 0.01);
}

TEST(Overfit, PostNormLearnsOneBatchByHeart) {
  RunConfig config = small_config();
  config.model.norm = NormPlacement::post;
  config.model.tied_head = false;
  config.model.positions = Positions::sinusoidal;
  double first = 0;
  EXPECT_LT(train_on_one_batch(config, 300, first), 0.01);
}

}  // namespace
}  // namespace dekoder::testing
