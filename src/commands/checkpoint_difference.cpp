// SPDX-License-Identifier: Apache-2.0
#include "commands/checkpoint_difference.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cfenv>
#include <map>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "base/utf8.hpp"
#include "commands/text_table.hpp"
#include "config/run_config_yaml.hpp"

namespace dekoder {

namespace {

/// Fields that two runs of the same numbers may differ in.
constexpr std::array<std::string_view, 6> of_the_run_only = {"sampled_step", "metrics_bytes", "samples_bytes",
                                                             "run_id",       "writer",        "restarts"};

/// Names and texts of all fields, in the order of the file.
std::vector<std::pair<std::string, std::string>> texts_of(const CheckpointInfo& info) {
  std::vector<std::pair<std::string, std::string>> texts;
  for (int minor = 0; minor <= checkpoint_format_minor; ++minor)
    for_each_field(info, minor, [&](const char* name, const auto& value) {
      texts.emplace_back(name, fmt::format("{}", value));
    });
  return texts;
}

std::string two_texts(const std::string& left, const std::string& right) {
  const auto quoted = [](const std::string& text) { return text.empty() ? "''" : excerpt(text, 60); };
  return fmt::format("{} | {}", quoted(left), quoted(right));
}

/// Lines of the settings that differ; none where the two are other texts of the same settings.
std::string settings_text(const OpenCheckpoint& left, const OpenCheckpoint& right) {
  try {
    std::string text;
    for (const ConfigDifference& setting :
         config_differences(recorded_run_config(left.info.config_yaml, left.name()),
                            recorded_run_config(right.info.config_yaml, right.name())))
      text += fmt::format("  {}: {}\n", setting.key, two_texts(setting.before, setting.now));
    return text;
  } catch (const ConfigError&) {  // of another program: as texts
    std::istringstream left_lines(left.info.config_yaml), right_lines(right.info.config_yaml);
    std::string a, b;
    int line = 0;
    while (a == b) {
      ++line;
      if (!std::getline(left_lines, a)) a = "(its end)";
      if (!std::getline(right_lines, b)) b = "(its end)";
      if (!left_lines && !right_lines) break;
    }
    return fmt::format("  configuration, line {}: {}\n", line, two_texts(a, b));
  }
}

/// Adds what is to be said of the fields; returns whether those of the state are equal.
bool add_fields(const OpenCheckpoint& left, const OpenCheckpoint& right, std::string& text) {
  const auto a = texts_of(left.info), b = texts_of(right.info);
  std::string state, run;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const std::string& name = a[i].first;
    if (a[i].second == b[i].second) continue;
    if (name == "config_yaml")
      state += settings_text(left, right);
    else if (std::find(of_the_run_only.begin(), of_the_run_only.end(), name) == of_the_run_only.end())
      state += fmt::format("  {}: {}\n", name, two_texts(a[i].second, b[i].second));
    else
      run += (run.empty() ? "" : ", ") + name;
  }
  if (!state.empty()) text += "fields and settings that differ:\n" + state;
  if (!run.empty()) text += "of the runs, not of the states, differ: " + run + "\n";
  return state.empty();
}

std::string shape_text(const TensorRecord& record) {
  return fmt::format("{} ({})", hdf5_type_name(record.type), fmt::join(record.shape, ","));
}

/// What is compared tensor by tensor.
class TensorComparison {
 public:
  TensorComparison(const OpenCheckpoint& left, const OpenCheckpoint& right) : left_(left), right_(right) {
    for (const TensorRecord& record : left.records) pairs_[record.path].first = &record;
    for (const TensorRecord& record : right.records) pairs_[record.path].second = &record;
  }

  /// Adds a table of the tensors that differ and a line for each group; returns whether all are equal.
  bool add_to(std::string& text) {
    for (const auto& [path, pair] : pairs_) {
      const std::string group = path.substr(1, path.find('/', 1) - 1);
      ++counts_[group].first;
      if (!equal(path.substr(1), pair.first, pair.second)) ++counts_[group].second;
    }
    if (rows_.size() > 1) text += text_table(rows_);
    text += others_;
    bool all_equal = true;
    for (const auto& [group, count] : counts_) {
      const auto [tensors, different] = count;
      text += different == 0 ? fmt::format("{}: {} tensors, equal bit for bit\n", group, tensors)
                             : fmt::format("{}: {} of {} tensors differ\n", group, different, tensors);
      all_equal = all_equal && different == 0;
    }
    return all_equal;
  }

 private:
  bool equal(const std::string& name, const TensorRecord* left, const TensorRecord* right) {
    if (left == nullptr || right == nullptr) {
      const OpenCheckpoint& owner = left == nullptr ? right_ : left_;
      others_ += fmt::format("  {}: only in {}, {}\n", name, left == nullptr ? "b" : "a",
                             shape_text(left == nullptr ? *right : *left));
      require_intact_tensor(owner, left == nullptr ? *right : *left);
      return false;
    }
    if (left->shape != right->shape) {
      others_ += fmt::format("  {}: {} | {}\n", name, shape_text(*left), shape_text(*right));
      require_intact_tensor(left_, *left);
      require_intact_tensor(right_, *right);
      return false;
    }
    const TensorDifference found = compare_tensors(left_, *left, right_, *right);
    if (left->type != right->type)
      others_ += fmt::format("  {}: {} | {}{}\n", name, shape_text(*left), shape_text(*right),
                             found.elements == 0 ? ", equal values" : "");
    if (left->axes != right->axes)
      others_ += fmt::format("  {}: axes {}\n", name, two_texts(left->axes, right->axes));
    if (found.elements > 0) add_row(name, *left, found);
    return found.elements == 0 && left->type == right->type && left->axes == right->axes;
  }

  void add_row(const std::string& name, const TensorRecord& record, const TensorDifference& found) {
    std::size_t size = 1;
    for (const std::size_t extent : record.shape) size *= extent;
    rows_.push_back({name, fmt::format("{} of {}", found.elements, size), fmt::format("{:.3e}", found.max_absolute),
                     fmt::format("{:.3e}", found.max_relative), fmt::format("({})", fmt::join(found.first, ",")),
                     fmt::format("{:.9g}", found.first_left), fmt::format("{:.9g}", found.first_right)});
  }

  const OpenCheckpoint &left_, &right_;
  std::map<std::string, std::pair<const TensorRecord*, const TensorRecord*>> pairs_;  ///< by path
  std::map<std::string, std::pair<int, int>> counts_;  ///< by group: tensors, those that differ
  std::vector<std::vector<std::string>> rows_ = {
      {"tensor", "elements", "max abs", "max rel", "first index", "a", "b"}};
  std::string others_;  ///< what is no difference of values
};

}  // namespace

CheckpointDifference compare_checkpoints(const OpenCheckpoint& left, const OpenCheckpoint& right) {
  std::fesetenv(FE_DFL_ENV);  // subnormal numbers count
  CheckpointDifference difference;
  const bool tensors_equal = TensorComparison(left, right).add_to(difference.text);
  const bool fields_equal = add_fields(left, right, difference.text);
  difference.equal = tensors_equal && fields_equal;
  return difference;
}

}  // namespace dekoder
