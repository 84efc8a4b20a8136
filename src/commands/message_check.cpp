// SPDX-License-Identifier: Apache-2.0
#include "commands/message_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "base/elapsed.hpp"
#include "io/files/fault_point.hpp"
#include "tensor/random_stream.hpp"

namespace dekoder {

Finding check_messages(const Communicator& ranks) {
  const int next = (ranks.rank() + 1) % ranks.size(), before = (ranks.rank() + ranks.size() - 1) % ranks.size();
  bool changed = false;
  /// Seconds of the slowest rank for one of `rounds` messages of `words` numbers.
  const auto time = [&](std::size_t words, std::size_t rounds) {
    const auto word = [words](int rank, std::size_t round, std::size_t i) {
      return RandomStream::mix(std::uint64_t(rank) << 32 | round, words + i);
    };
    std::vector<std::uint64_t> sent(words), received(words);
    std::vector<double> seconds(std::size_t(ranks.size()), 0);
    double& own = seconds[std::size_t(ranks.rank())];
    for (std::size_t round = 0; round < rounds; ++round) {
      for (std::size_t i = 0; i < words; ++i) sent[i] = word(ranks.rank(), round, i);
      ranks.max(0);  // all begin
      const auto begin = std::chrono::steady_clock::now();
      Messages messages(ranks);
      messages.receive(received.data(), words, before, test_tag);
      messages.send(sent.data(), words, next, test_tag);
      messages.wait();
      own += seconds_since(begin);
      if (fault_point("selftest:messages")) received.back() ^= 1;
      for (std::size_t i = 0; i < words; ++i) changed = changed || received[i] != word(before, round, i);
    }
    ranks.unite(seconds);
    return *std::max_element(seconds.begin(), seconds.end()) / double(rounds);
  };
  constexpr std::size_t long_one = std::size_t{1} << 19;  // 4 MiB
  time(long_one, 1);                                      // what MPI sets up at first
  const double latency = time(1, 100), seconds = time(long_one, 4);
  if (changed) return {true, fmt::format("messages of rank {} arrive changed", before)};
  return {false, fmt::format("from rank to rank in a ring, 8 bytes in {:.1f} us, 4 MiB at {:.0f} MB/s each way, of "
                             "the slowest rank",
                             1e6 * latency, double(long_one * 8) / seconds / 1e6)};
}

}  // namespace dekoder
