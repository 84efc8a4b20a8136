// SPDX-License-Identifier: Apache-2.0
#include "io/run/metrics_log.hpp"

#include <fmt/format.h>

#include <cmath>
#include <deque>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <type_traits>

#include "base/error.hpp"
#include "io/files/input_file.hpp"

namespace dekoder {

namespace {

constexpr const char* log_of_a_run = "log of a run of `dekoder train`";

template <class T>
std::string json_number(T value) {
  if (!std::isfinite(value)) return "null";
  const std::string text = fmt::format("{}", value);
  return text == "-0" ? "-0.0" : text;  // -0 is an integer to readers of JSON, and loses its sign
}

using Json = nlohmann::ordered_json;

/// A number of kind T; null is NaN. Throws where the line, which no MetricsLog wrote, has none of that kind.
template <class T>
T number(const Json& line, const char* key) {
  const Json& value = line.at(key);
  if constexpr (std::is_floating_point_v<T>) {
    if (value.is_null()) return std::numeric_limits<T>::quiet_NaN();
    if (value.is_number()) return value.get<T>();
  } else {
    if (value.is_number_unsigned() || (std::is_signed_v<T> && value.is_number_integer())) return value.get<T>();
  }
  throw std::runtime_error(fmt::format("{} is no number of its kind", value.dump()));
}

StepMetrics step_of(const Json& line) {
  return {number<long>(line, "step"),
          number<double>(line, "loss"),
          number<double>(line, "learning_rate"),
          number<double>(line, "gradient_norm"),
          number<std::uint64_t>(line, "tokens"),
          number<double>(line, "tokens_per_second"),
          {},
          line.contains("z_loss") ? number<double>(line, "z_loss") : std::numeric_limits<double>::quiet_NaN(),
          line.contains("skipped")};
}

EvaluationMetrics evaluation_of(const Json& line) {
  return {number<long>(line, "step"),
          number<double>(line, "validation_loss"),
          number<double>(line, "bits_per_byte"),
          number<std::uint64_t>(line, "tokens"),
          line.at("validation_hash").get<std::string>(),
          {}};
}

/// A whole line without its end, which editors of other systems make two characters long; false where the text ends
/// or the line has no end yet.
bool next_line(std::istream& file, std::string& line) {
  if (!std::getline(file, line) || file.eof()) return false;
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return true;
}

/// Calls row(line) for each line of a log that is a whole object.
template <class Row>
void for_each_row(const std::filesystem::path& path, const Row& row) {
  std::istringstream file(read_text_file(path, log_of_a_run).value_or(""));
  std::string line;
  while (next_line(file, line))
    if (!line.empty() && line.front() == '{' && line.back() == '}') row(line);
}

bool has_key(const std::string& line, const char* key) {
  return line.find(fmt::format("\"{}\":", key)) != std::string::npos;
}

/// What was edited by hand, so that it cannot be read, is left out.
template <class Read>
void if_readable(const Read& read) {
  try {
    read();
  } catch (const std::exception&) {
  }
}

}  // namespace

void MetricsLog::write(const StepMetrics& metrics) {
  std::string seconds;
  for (const auto& [phase, time] : metrics.seconds)
    seconds +=
        fmt::format("{}\"{}\":{}", seconds.empty() ? ",\"seconds\":{" : ",", phase, json_number(float(time)));
  if (!seconds.empty()) seconds += "}";
  log_.append(
      fmt::format("{{\"step\":{},\"loss\":{},\"learning_rate\":{},\"gradient_norm\":{},\"tokens\":{},\"tokens_per_"
                  "second\":{}{}{}{}}}\n",
                  metrics.step, json_number(metrics.loss), json_number(metrics.learning_rate),
                  json_number(metrics.gradient_norm), metrics.tokens, json_number(metrics.tokens_per_second),
                  std::isnan(metrics.z_loss) ? "" : fmt::format(",\"z_loss\":{}", json_number(metrics.z_loss)),
                  seconds, metrics.skipped ? ",\"skipped\":true" : ""));
}

void MetricsLog::write(const EvaluationMetrics& metrics) {
  std::string sources;
  for (const SourceMetrics& source : metrics.sources)
    sources += fmt::format(
        "{}{{\"tokens\":{},\"weight\":{},\"validation_loss\":{},\"bits_per_byte\":{},\"validation_tokens\":{}}}",
        sources.empty() ? ",\"sources\":[" : ",",
        Json(source.tokens).dump(-1, ' ', false, Json::error_handler_t::replace), json_number(source.weight),
        json_number(source.validation_loss), json_number(source.bits_per_byte), source.validation_tokens);
  if (!sources.empty()) sources += "]";
  log_.append(fmt::format(
      "{{\"step\":{},\"validation_loss\":{},\"bits_per_byte\":{},\"tokens\":{},\"validation_hash\":\"{}\"{}}}\n",
      metrics.step, json_number(metrics.validation_loss), json_number(metrics.bits_per_byte), metrics.tokens,
      metrics.validation_hash, sources));
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

std::string to_json_line(const RestartMetrics& metrics) {
  Json row = {{"step", metrics.step}, {"resumed", true}};
  for (const ConfigDifference& change : metrics.changes) row["changed"][change.key] = {change.before, change.now};
  return row.dump() + "\n";
}

void MetricsLog::write(const RestartMetrics& metrics) {
  log_.append(to_json_line(metrics));
}

LastMetrics read_last_metrics(const std::filesystem::path& path) {
  LastMetrics last;
  std::vector<EvaluationMetrics> evaluations;
  std::string step_line;
  for_each_row(path, [&](const std::string& line) {
    if (has_key(line, "validation_loss"))
      if_readable([&] { evaluations.push_back(evaluation_of(Json::parse(line))); });
    else if (has_key(line, "loss"))
      step_line = line;
  });
  if (!step_line.empty()) if_readable([&] { last.step = step_of(Json::parse(step_line)); });
  if (evaluations.empty()) return last;
  last.evaluation = evaluations.back();
  for (const EvaluationMetrics& row : evaluations) {
    auto& best = row.validation_hash == last.evaluation->validation_hash ? last.best : last.best_on_another_set;
    if (!std::isnan(row.validation_loss) && (!best || row.validation_loss < best->validation_loss)) best = row;
  }
  return last;
}

std::vector<std::string> read_last_lines(const std::filesystem::path& path, std::size_t count) {
  std::deque<std::string> lines;
  for_each_row(path, [&](const std::string& line) {
    lines.push_back(line);
    if (lines.size() > count) lines.pop_front();
  });
  return {lines.begin(), lines.end()};
}

std::vector<StepTime> read_step_times(const std::filesystem::path& path) {
  std::vector<StepTime> times;
  long step = 0;
  std::uint64_t tokens = 0;  // up to there: a batch may grow
  for_each_row(path, [&](const std::string& line) {
    if (!has_key(line, "loss")) return;
    if_readable([&] {
      const StepMetrics row = step_of(Json::parse(line));
      const bool follows = row.step > step && row.tokens > tokens;
      const double of_a_step =
          follows ? double(row.tokens - tokens) / double(row.step - step) : double(row.tokens) / double(row.step);
      const double seconds = of_a_step / row.tokens_per_second;
      step = row.step, tokens = row.tokens;
      if (row.step > 0 && std::isfinite(seconds)) times.push_back({row.step, row.skipped ? 0 : seconds});
    });
  });
  return times;
}

}  // namespace dekoder
