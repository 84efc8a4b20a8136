// SPDX-License-Identifier: Apache-2.0
#include "config/time_left.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/decimal.hpp"

namespace dekoder {

namespace {

/// The whole numbers of a text, with colons between them; empty where there is something else.
std::vector<long> numbers_between_colons(std::string_view text) {
  std::vector<long> numbers;
  while (true) {
    const std::string_view word = text.substr(0, text.find(':'));
    if (word.starts_with('-') || read_decimal(word, numbers.emplace_back()) != Decimal::read) return {};
    if (word.size() == text.size()) return numbers;
    text.remove_prefix(word.size() + 1);
  }
}

}  // namespace

std::string read_time_left(std::string_view text, std::optional<double>& seconds) {
  constexpr const char* expected =
      "MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS, as squeue -o %L prints it, or UNLIMITED";
  constexpr long most_days = 36'500;
  seconds.reset();
  if (text == "UNLIMITED") return seconds = std::numeric_limits<double>::infinity(), "";
  for (const char* not_known : {"NOT_SET", "INVALID"})
    if (text == not_known) return "";
  const std::size_t dash = text.find('-');
  const bool with_days = dash != std::string_view::npos;
  std::vector<long> numbers = numbers_between_colons(with_days ? text.substr(dash + 1) : text);
  if (numbers.empty() || numbers.size() > 3) return expected;
  // To days, hours, minutes and seconds.
  if (with_days) {
    const std::vector<long> days = numbers_between_colons(text.substr(0, dash));
    if (days.size() != 1) return expected;
    numbers.insert(numbers.begin(), days[0]);
    numbers.resize(4, 0);
  } else {
    if (numbers.size() == 1) numbers.push_back(0);
    numbers.insert(numbers.begin(), 4 - numbers.size(), 0);
  }
  constexpr long parts[] = {0, 24, 60, 60};  // of the number before
  const auto first = std::find_if(numbers.begin(), numbers.end(), [](long number) { return number != 0; });
  double total = 0;
  for (auto number = numbers.begin(); number != numbers.end(); ++number) {
    const long many = parts[number - numbers.begin()];
    if (number > first && *number >= many) return expected;
    total = total * double(many) + double(*number);
  }
  if (total > double(most_days) * 86'400) return expected;
  seconds = total;
  return "";
}

}  // namespace dekoder
