// SPDX-License-Identifier: Apache-2.0
#include "data/data_order.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "base/error.hpp"

namespace dekoder {

DataOrder::DataOrder(std::uint64_t seed, std::uint64_t windows, std::size_t source)
    : seed_(seed), site_(site_of("data order") + source), windows_(windows) {
  if (windows == 0) throw std::logic_error("DataOrder: there are no windows");
  half_bits_ = std::max(1, (static_cast<int>(std::bit_width(windows - 1)) + 1) / 2);
}

std::uint64_t DataOrder::window(std::uint64_t sample) const {
  constexpr int rounds = 8;
  const std::uint64_t epoch = sample / windows_, mask = (std::uint64_t{1} << half_bits_) - 1;
  const RandomStream stream(seed_, site_, epoch);
  std::uint64_t value = sample % windows_;
  do {
    std::uint64_t left = value >> half_bits_, right = value & mask;
    for (std::uint64_t round = 0; round < rounds; ++round) {
      const std::uint64_t mixed = left ^ (stream.bits64(round << half_bits_ | right) & mask);
      left = right;
      right = mixed;
    }
    value = left << half_bits_ | right;
  } while (value >= windows_);
  return value;
}

namespace {

/// Places of `block` in proportion to the weights, by the largest remainder, the first of equal ones.
std::vector<std::uint64_t> places_of(std::span<const double> weights, std::uint64_t block) {
  const double most = *std::max_element(weights.begin(), weights.end());  // the sum of them all may be infinite
  double sum = 0;
  for (const double weight : weights) sum += weight / most;
  std::vector<std::uint64_t> counts;
  std::vector<double> remainders;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double places = static_cast<double>(block) * (weights[i] / most / sum);
    if (!(places >= 1))
      throw ConfigError(
          "data.weights: source {} of {} has a share of {:.2g} of all samples; expected at least 1/{}: raise its "
          "weight, or leave it out",
          i + 1, weights.size(), places / static_cast<double>(block), block);
    counts.push_back(static_cast<std::uint64_t>(places));
    remainders.push_back(places - std::floor(places));
  }
  for (std::uint64_t left = block - std::reduce(counts.begin(), counts.end()); left > 0; --left) {
    const auto largest = std::max_element(remainders.begin(), remainders.end());
    ++counts[static_cast<std::size_t>(largest - remainders.begin())];
    *largest = -1;
  }
  return counts;
}

}  // namespace

MixtureOrder::MixtureOrder(std::uint64_t seed, std::span<const std::uint64_t> windows,
                           std::span<const double> weights) {
  if (windows.empty() || (!weights.empty() && weights.size() != windows.size()) ||
      std::any_of(weights.begin(), weights.end(), [](double weight) { return !(weight > 0); }))
    throw std::logic_error("MixtureOrder: expected sources, and a positive weight for each or none");
  for (std::size_t source = 0; source < windows.size(); ++source)
    orders_.emplace_back(seed, windows[source], source);
  counts_ = places_of(weights.empty() ? std::vector<double>(windows.begin(), windows.end())
                                      : std::vector<double>(weights.begin(), weights.end()),
                      block);
  if (windows.size() == 1) return;
  // The k-th place of a source with n of K may be anywhere in [floor(k K / n), ceil((k + 1) K / n)): then after p
  // places it has p n / K of them to within one. Taking the source whose next place must come first meets all of
  // these (Tijdeman, "The chairman assignment problem", 1980).
  slots_.reserve(block);
  std::vector<std::uint64_t> taken(windows.size(), 0);
  for (std::uint64_t p = 0; p < block; ++p) {
    std::size_t chosen = windows.size();
    std::uint64_t earliest = 0;
    for (std::size_t i = 0; i < windows.size(); ++i) {
      if (taken[i] * block > p * counts_[i] + counts_[i] - 1) continue;  // floor(k K / n) > p
      const std::uint64_t deadline = ((taken[i] + 1) * block + counts_[i] - 1) / counts_[i];
      if (chosen != windows.size() && deadline >= earliest) continue;
      chosen = i;
      earliest = deadline;
    }
    slots_.push_back({static_cast<std::uint32_t>(chosen), static_cast<std::uint32_t>(taken.at(chosen)++)});
  }
}

MixtureOrder::Place MixtureOrder::place(std::uint64_t sample) const {
  if (slots_.empty()) return {0, orders_[0].window(sample)};
  const Slot slot = slots_[sample % block];
  return {slot.source, orders_[slot.source].window(sample / block * counts_[slot.source] + slot.before)};
}

double MixtureOrder::share(std::size_t source) const {
  return static_cast<double>(counts_.at(source)) / static_cast<double>(block);
}

}  // namespace dekoder
