// SPDX-License-Identifier: Apache-2.0
// window_order SEED WINDOWS SAMPLES: the window of each of the first samples of a run, one per line; for scripts
// that train on the same data elsewhere.
#include <fmt/format.h>

#include <cstdlib>

#include "data/batch_loader.hpp"

int main(int argc, char** argv) {
  if (argc != 4) {
    fmt::print(stderr, "usage: window_order SEED WINDOWS SAMPLES\n");
    return 2;
  }
  const auto number = [&](int i) { return std::strtoull(argv[i], nullptr, 10); };
  const dekoder::DataOrder order(number(1), number(2));
  for (std::uint64_t sample = 0; sample < number(3); ++sample) fmt::print("{}\n", order.window(sample));
}
