// SPDX-License-Identifier: Apache-2.0
#include "io/metrics_log.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <string_view>

namespace dekoder {

namespace {

std::string json_number(double value) {
  return std::isfinite(value) ? fmt::format("{}", value) : "null";
}

/// Value of a key in a line that this file wrote: flat, no spaces, no escapes. Empty where the key is missing.
std::string_view json_value(std::string_view line, std::string_view key) {
  const std::string quoted = fmt::format("\"{}\":", key);
  const std::size_t at = line.find(quoted);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = line.substr(at + quoted.size());
  return rest.substr(0, rest.find_first_of(",}"));
}

template <class T>
T number(std::string_view line, std::string_view key) {
  const std::string_view text = json_value(line, key);
  T value{};
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc()) return value;
  return std::numeric_limits<T>::quiet_NaN();  // 0 for integers
}

std::string unquoted(std::string_view text) {
  return text.size() < 2 ? std::string() : std::string(text.substr(1, text.size() - 2));
}

}  // namespace

void MetricsLog::write(const StepMetrics& metrics) {
  log_.append(
      fmt::format("{{\"step\":{},\"loss\":{},\"learning_rate\":{},\"gradient_norm\":{},\"tokens\":{},\"tokens_per_"
                  "second\":{}}}\n",
                  metrics.step, json_number(metrics.loss), json_number(metrics.learning_rate),
                  json_number(metrics.gradient_norm), metrics.tokens, json_number(metrics.tokens_per_second)));
}

void MetricsLog::write(const EvaluationMetrics& metrics) {
  log_.append(fmt::format(
      "{{\"step\":{},\"validation_loss\":{},\"bits_per_byte\":{},\"tokens\":{},\"validation_hash\":\"{}\"}}\n",
      metrics.step, json_number(metrics.validation_loss), json_number(metrics.bits_per_byte), metrics.tokens,
      metrics.validation_hash));
}

LastMetrics read_last_metrics(const std::filesystem::path& path) {
  LastMetrics last;
  std::ifstream file(path);
  std::string line, step_line, evaluation_line;
  while (std::getline(file, line)) {
    if (line.empty() || line.front() != '{' || line.back() != '}') continue;
    (line.find("\"validation_loss\":") == std::string::npos ? step_line : evaluation_line) = line;
  }
  if (!step_line.empty())
    last.step = StepMetrics{number<long>(step_line, "step"),
                            number<double>(step_line, "loss"),
                            number<double>(step_line, "learning_rate"),
                            number<double>(step_line, "gradient_norm"),
                            number<std::uint64_t>(step_line, "tokens"),
                            number<double>(step_line, "tokens_per_second")};
  if (!evaluation_line.empty())
    last.evaluation = EvaluationMetrics{
        number<long>(evaluation_line, "step"), number<double>(evaluation_line, "validation_loss"),
        number<double>(evaluation_line, "bits_per_byte"), number<std::uint64_t>(evaluation_line, "tokens"),
        unquoted(json_value(evaluation_line, "validation_hash"))};
  return last;
}

}  // namespace dekoder
