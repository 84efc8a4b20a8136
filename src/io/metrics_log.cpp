// SPDX-License-Identifier: Apache-2.0
#include "io/metrics_log.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "base/error.hpp"

namespace dekoder {

namespace {

template <class T>
std::string json_number(T value) {
  return std::isfinite(value) ? fmt::format("{}", value) : "null";
}

/// A line that no MetricsLog wrote; what() says what is wrong.
class ForeignLine : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What stands between the brackets of a JSON object or array, cut at its own commas. Texts hold no escapes.
std::vector<std::string_view> elements(std::string_view text, char open, char close) {
  if (text.size() < 2 || text.front() != open || text.back() != close)
    throw ForeignLine(fmt::format("expected {}...{}", open, close));
  text = text.substr(1, text.size() - 2);
  std::vector<std::string_view> parts;
  int depth = 0;
  bool in_text = false;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') in_text = !in_text;
    if (in_text) continue;
    if (c == '{' || c == '[') ++depth;
    if ((c == '}' || c == ']') && --depth < 0) throw ForeignLine(fmt::format("a '{}' too many", c));
    if (c != ',' || depth > 0) continue;
    parts.push_back(text.substr(begin, i - begin));
    begin = i + 1;
  }
  if (depth != 0 || in_text) throw ForeignLine("a bracket or a quotation mark is not closed");
  if (!text.empty()) parts.push_back(text.substr(begin));
  return parts;
}

std::string_view unquoted(std::string_view text) {
  if (text.size() < 2 || text.front() != '"' || text.back() != '"') throw ForeignLine("expected a text in quotes");
  return text.substr(1, text.size() - 2);
}

using Members = std::vector<std::pair<std::string_view, std::string_view>>;

/// Keys and values of a JSON object without spaces.
Members members(std::string_view object) {
  Members result;
  for (const std::string_view part : elements(object, '{', '}')) {
    const std::size_t colon = part.find("\":");
    if (colon == std::string_view::npos) throw ForeignLine("expected \"key\":value");
    result.emplace_back(unquoted(part.substr(0, colon + 1)), part.substr(colon + 2));
  }
  return result;
}

bool has(const Members& line, std::string_view key) {
  for (const auto& [name, value] : line)
    if (name == key) return true;
  return false;
}

std::string_view value_of(const Members& line, std::string_view key) {
  for (const auto& [name, value] : line)
    if (name == key) return value;
  throw ForeignLine(fmt::format("there is no \"{}\"", key));
}

/// The whole of a text as a number; null is NaN.
template <class T>
T number(std::string_view text) {
  if constexpr (std::numeric_limits<T>::has_quiet_NaN)
    if (text == "null") return std::numeric_limits<T>::quiet_NaN();
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw ForeignLine(fmt::format("'{}' is no number of its kind", text));
  return value;
}
template <class T>
T number(const Members& line, std::string_view key) {
  return number<T>(value_of(line, key));
}

StepMetrics step_of(const Members& line) {
  return {number<long>(line, "step"),
          number<double>(line, "loss"),
          number<double>(line, "learning_rate"),
          number<double>(line, "gradient_norm"),
          number<std::uint64_t>(line, "tokens"),
          number<double>(line, "tokens_per_second")};
}

EvaluationMetrics evaluation_of(const Members& line) {
  return {number<long>(line, "step"), number<double>(line, "validation_loss"),
          number<double>(line, "bits_per_byte"), number<std::uint64_t>(line, "tokens"),
          std::string(unquoted(value_of(line, "validation_hash")))};
}

AttentionMetrics attention_of(const Members& line) {
  AttentionMetrics metrics;
  metrics.step = number<long>(line, "step");
  metrics.probe = unquoted(value_of(line, "probe"));
  const Members tables = members(value_of(line, "attention"));
  const std::size_t S = tables.size();
  for (std::size_t s = 0; s < S; ++s) {
    const auto& [name, table] = tables[s];
    metrics.names.emplace_back(name);
    const auto layers = elements(table, '[', ']');
    for (std::size_t l = 0; l < layers.size(); ++l) {
      const auto heads = elements(layers[l], '[', ']');
      if (s == 0 && l == 0) {
        metrics.layers = int(layers.size());
        metrics.heads = int(heads.size());
        metrics.statistics.resize(layers.size() * heads.size() * S);
      }
      if (int(layers.size()) != metrics.layers || int(heads.size()) != metrics.heads)
        throw ForeignLine("the tables of the statistics have different shapes");
      for (std::size_t h = 0; h < heads.size(); ++h)
        metrics.statistics[(l * heads.size() + h) * S + s] = number<float>(heads[h]);
    }
  }
  return metrics;
}

void add_line(std::string_view text, MetricsHistory& history) {
  const Members line = members(text);
  if (has(line, "validation_loss"))
    history.evaluations.push_back(evaluation_of(line));
  else if (has(line, "loss"))
    history.steps.push_back(step_of(line));
  else if (has(line, "attention"))
    history.attention.push_back(attention_of(line));
  else if (has(line, "resumed"))
    history.restarts.push_back({number<long>(line, "step")});
  else
    number<long>(line, "step");
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

void MetricsLog::write(const AttentionMetrics& metrics) {
  const std::size_t L = std::size_t(metrics.layers), H = std::size_t(metrics.heads), S = metrics.names.size();
  if (metrics.statistics.size() != L * H * S)
    throw ShapeError(fmt::format("AttentionMetrics: {} statistics, expected {} layers x {} heads x {} names",
                                 metrics.statistics.size(), L, H, S));
  std::string line = fmt::format("{{\"step\":{},\"probe\":\"{}\",\"attention\":{{", metrics.step, metrics.probe);
  for (std::size_t s = 0; s < S; ++s) {
    line += fmt::format("{}\"{}\":[", s == 0 ? "" : ",", metrics.names[s]);
    for (std::size_t l = 0; l < L; ++l) {
      line += l == 0 ? "[" : ",[";
      for (std::size_t h = 0; h < H; ++h)
        line += (h == 0 ? "" : ",") + json_number(metrics.statistics[(l * H + h) * S + s]);
      line += "]";
    }
    line += "]";
  }
  log_.append(line + "}}\n");
}

void MetricsLog::write(const RestartMetrics& metrics) {
  log_.append(fmt::format("{{\"step\":{},\"resumed\":true}}\n", metrics.step));
}

LastMetrics read_last_metrics(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line, step_line, evaluation_line;
  while (std::getline(file, line) && !file.eof()) {  // eof: the line has no end yet
    if (line.empty() || line.front() != '{' || line.back() != '}') continue;
    if (line.find("\"validation_loss\":") != std::string::npos)
      evaluation_line = line;
    else if (line.find("\"loss\":") != std::string::npos)
      step_line = line;
  }
  LastMetrics last;
  try {
    if (!step_line.empty()) last.step = step_of(members(step_line));
    if (!evaluation_line.empty()) last.evaluation = evaluation_of(members(evaluation_line));
  } catch (const ForeignLine&) {
    // Edited by hand: what could not be read is left out.
  }
  return last;
}

MetricsHistory read_metrics(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file.is_open())
    throw DataError("{}: cannot be opened: {}; expected the log of a run of `dekoder train`", path.string(),
                    std::strerror(errno));
  MetricsHistory history;
  std::string line;
  for (long row = 1; std::getline(file, line) && !file.eof(); ++row) {
    try {
      add_line(line, history);
    } catch (const ForeignLine& fault) {
      throw DataError("{}:{}: is no line of a run's log: {}; remove the line or restore the file", path.string(),
                      row, fault.what());
    }
  }
  return history;
}

}  // namespace dekoder
