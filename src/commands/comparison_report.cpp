// SPDX-License-Identifier: Apache-2.0
#include "commands/comparison_report.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "commands/text_table.hpp"

namespace dekoder {

namespace {

/// Run 0 is A; runs after Z are R26, R27, ...
std::string letter(std::size_t run) {
  return run < 26 ? std::string(1, char('A' + run)) : fmt::format("R{}", run);
}

std::string state_text(const ComparedRun& run) {
  if (run.running) return "running";
  return run.status ? run_state_name(run.status->state) : "no status";
}

std::string runs_text(const RunComparison& comparison) {
  std::string text = "runs\n";
  for (std::size_t r = 0; r < comparison.runs.size(); ++r) {
    const ComparedRun& run = comparison.runs[r];
    const std::vector<StepMetrics>& steps = run.metrics.steps;
    const std::size_t restarts = run.metrics.restarts.size();
    text += fmt::format("  {}  {}: step {} of {}, {}{}\n", letter(r), run.name,
                        steps.empty() ? 0 : steps.back().step, run.config.training.steps, state_text(run),
                        restarts == 0 ? "" : fmt::format(", restarts: {}", restarts));
  }
  return text;
}

/// Digests by their first digits, and what follows them; there is no other text of that length.
std::string shown(const std::string& value) {
  if (value.empty()) return "(none)";
  return value.size() >= 64 ? value.substr(0, 12) + "..." + value.substr(64) : value;
}

std::string fact_text(const PairedFact& fact, const std::string& other) {
  const char* verdict = !fact.known ? "not known" : fact.equal() ? "equal" : "DIFFERENT";
  std::string text = fmt::format("  {:<18} {:<10} ", fact.what, verdict);
  if (fact.known && fact.equal()) return text + shown(fact.first) + "\n";
  return text + fmt::format("A: {}, {}: {}\n", shown(fact.first), other, shown(fact.other));
}

std::string initial_values_text(const InitialValuesPairing& values, const std::string& other) {
  std::string text = fmt::format("  {:<18} {:<10} {} of {} shared tensors bit for bit\n", "initial values",
                                 values.paired() ? "equal" : "DIFFERENT", values.equal,
                                 values.equal + values.different.size() + values.other_shape.size());
  const auto list = [&](const std::string& what, const std::vector<std::string>& names) {
    if (!names.empty()) text += fmt::format("    {}: {}\n", what, fmt::join(names, ", "));
  };
  list("other values", values.different);
  list("other shape", values.other_shape);
  list("only in A", values.only_first);
  list("only in " + other, values.only_other);
  return text;
}

std::string pairing_text(const Pairing& pairing, const std::string& other) {
  std::string text = fmt::format("\npairing of {} with A\n", other);
  for (const PairedFact& fact : pairing.facts) text += fact_text(fact, other);
  text += initial_values_text(pairing.initial_values, other);
  text += fmt::format("  {:<18} {}\n", "configuration",
                      pairing.differences.empty() ? std::string("equal")
                                                  : fmt::format("differs in {}:", pairing.differences.size()));
  for (const ConfigDifference& change : pairing.differences)
    text += fmt::format("    {}: {} in A, {} in {}\n", change.key, change.before, change.now, other);
  const std::vector<std::string> unpaired = pairing.unpaired();
  if (unpaired.empty())
    text += fmt::format("  {} is paired with A: same data in the same order, same initial values\n", other);
  else
    text += fmt::format("  {} is NOT paired with A: {}; read its differences with care\n", other,
                        fmt::join(unpaired, ", "));
  return text;
}

std::string validation_text(const RunComparison& comparison) {
  const LossComparison& losses = comparison.losses;
  const std::size_t runs = comparison.runs.size();
  std::string text = "\nvalidation loss at common steps (nats per token; gaps also in bits per byte)\n";
  if (losses.validation.empty()) return text + "  no step at which all runs were evaluated\n";
  for (std::size_t r = 1; r < runs; ++r)
    if (!losses.incomparable[r].empty())
      text += fmt::format("  losses of {} are NOT comparable: {}\n", letter(r), losses.incomparable[r]);
  std::vector<std::vector<std::string>> rows = {{"step"}};
  for (std::size_t r = 0; r < runs; ++r) rows[0].push_back(letter(r));
  for (std::size_t r = 1; r < runs; ++r) {
    rows[0].push_back(letter(r) + " - A");
    rows[0].push_back("bits/byte");
  }
  for (const ValidationRow& row : losses.validation) {
    rows.push_back({fmt::format("{}", row.step)});
    for (const double loss : row.loss) rows.back().push_back(fmt::format("{:.4f}", loss));
    for (std::size_t r = 1; r < runs; ++r) {
      const bool comparable = losses.incomparable[r].empty();
      rows.back().push_back(comparable ? fmt::format("{:+.4f}", row.loss[r] - row.loss[0]) : "-");
      rows.back().push_back(comparable ? fmt::format("{:+.4f}", row.bits_per_byte[r] - row.bits_per_byte[0]) : "-");
    }
  }
  text += text_table(rows);
  const ValidationRow& last = losses.validation.back();
  const bool final = std::all_of(comparison.runs.begin(), comparison.runs.end(),
                                 [&](const ComparedRun& run) { return run.config.training.steps == last.step; });
  for (std::size_t r = 1; r < runs; ++r)
    if (losses.incomparable[r].empty())
      text += fmt::format("  {} {} - A at step {}: {:+.4f} nats per token, {:+.4f} bits per byte\n",
                          final ? "final gap" : "gap so far", letter(r), last.step, last.loss[r] - last.loss[0],
                          last.bits_per_byte[r] - last.bits_per_byte[0]);
  return text;
}

/// What keeps the training losses of a run from having a gap to A's: another text or tokenizer, as far as that is
/// known. Another part of the text may be held out.
std::vector<std::string> other_training(const Pairing& pairing) {
  const auto whole_text = [](const std::string& identity) { return identity.substr(0, identity.find('/')); };
  std::vector<std::string> names;
  for (const PairedFact& fact : pairing.facts)
    if ((fact.what == "text" || fact.what == "tokenizer") && fact.known &&
        whole_text(fact.first) != whole_text(fact.other))
      names.push_back(fact.what);
  return names;
}

std::string training_text(const RunComparison& comparison) {
  const std::vector<TrainingWindow>& windows = comparison.losses.training;
  const std::size_t runs = comparison.runs.size();
  std::string text = "\ntraining loss, means over steps (nats per token; +- standard error of the mean gap)\n";
  if (windows.empty()) return text + "  no step that all runs have made\n";
  std::vector<bool> comparable = {true};
  for (std::size_t r = 1; r < runs; ++r) {
    const std::vector<std::string> other = other_training(comparison.pairings[r - 1]);
    comparable.push_back(other.empty());
    if (!other.empty())
      text += fmt::format("  training losses of {} are NOT comparable: another {} than A's\n", letter(r),
                          fmt::join(other, ", another "));
  }
  std::vector<std::vector<std::string>> rows = {{"steps"}};
  for (std::size_t r = 0; r < runs; ++r) rows[0].push_back(letter(r));
  for (std::size_t r = 1; r < runs; ++r) {
    rows[0].push_back(letter(r) + " - A");
    rows[0].push_back("+-");
  }
  for (const TrainingWindow& window : windows) {
    rows.push_back({fmt::format("{} to {}", window.first_step, window.last_step)});
    for (const double loss : window.loss) rows.back().push_back(fmt::format("{:.4f}", loss));
    for (std::size_t r = 1; r < runs; ++r) {
      rows.back().push_back(comparable[r] ? fmt::format("{:+.4f}", window.loss[r] - window.loss[0]) : "-");
      rows.back().push_back(comparable[r] ? fmt::format("{:.4f}", window.gap_error[r]) : "-");
    }
  }
  return text + text_table(rows);
}

std::string head_table(const HeadTable& heads) {
  std::vector<std::vector<std::string>> rows = {{""}};
  for (const int head : heads.heads) rows[0].push_back(fmt::format("head {}", head));
  std::size_t i = 0;
  for (const int layer : heads.layers) {
    rows.push_back({fmt::format("layer {}", layer)});
    for (std::size_t h = 0; h < heads.heads.size(); ++h)
      rows.back().push_back(fmt::format("{:.4f}", heads.values[i++]));
  }
  return text_table(rows);
}

std::string maps_text(const RunComparison& comparison) {
  const AttentionComparison& attention = comparison.attention;
  std::string text =
      "\nattention maps: total variation distance, 0 (equal) to 1 (no key in common), mean over queries and "
      "probes\n";
  for (std::size_t r = 0; r < comparison.runs.size(); ++r) {
    if (!attention.has_maps[r])
      text +=
          fmt::format("  {} has no attention maps; train with a section `attention:` to have them\n", letter(r));
    if (const auto& change = attention.changes[r])
      text += fmt::format("  {}, step {} against step {} ({})\n{}", letter(r), change->last_step,
                          change->first_step, fmt::join(change->probes, ", "), head_table(change->distance));
  }
  for (std::size_t r = 1; r < comparison.runs.size(); ++r) {
    if (const auto& difference = attention.differences[r])
      text += fmt::format("  {} against A, both at step {} ({})\n{}", letter(r), difference->last_step,
                          fmt::join(difference->probes, ", "), head_table(difference->distance));
    else if (attention.has_maps[0] && attention.has_maps[r])
      text += fmt::format("  {} against A: no probe, head or captured step in common\n", letter(r));
  }
  return text;
}

std::string statistics_text(const RunComparison& comparison) {
  std::string text = "\nhead statistics";
  const auto& statistics = comparison.attention.statistics;
  const auto& has_maps = comparison.attention.has_maps;
  if (std::find(has_maps.begin(), has_maps.end(), true) == has_maps.end())
    return text + "\n  no run has attention maps\n";
  if (!statistics) return text + "\n  no probe, head or captured step in common\n";
  text += fmt::format(" at step {} (means over {}; entropy in nats, distance in tokens, else mass from 0 to 1)\n",
                      statistics->step, fmt::join(statistics->probes, ", "));
  std::vector<std::vector<std::string>> rows = {{"layer.head", "run"}};
  for (const std::string& name : statistics->names) rows[0].push_back(name);
  const std::size_t S = statistics->names.size();
  std::size_t head_index = 0;
  for (const int layer : statistics->layers)
    for (const int head : statistics->heads) {
      std::string name = fmt::format("{}.{}", layer, head);
      for (std::size_t r = 0; r < comparison.runs.size(); ++r) {
        if (statistics->values[r].empty()) continue;
        rows.push_back({std::exchange(name, ""), letter(r)});
        for (std::size_t s = 0; s < S; ++s)
          rows.back().push_back(fmt::format("{:.4f}", statistics->values[r][head_index * S + s]));
      }
      ++head_index;
    }
  return text + text_table(rows);
}

using Json = nlohmann::ordered_json;  // NaN is written as null

/// A list of what `of` makes of each element.
template <class T, class ToJson>
Json json_list(const T& elements, ToJson&& of) {
  Json list = Json::array();
  for (const auto& element : elements) list.push_back(of(element));
  return list;
}

Json run_json(const ComparedRun& run) {
  return {{"name", run.name},
          {"step", run.metrics.steps.empty() ? 0L : run.metrics.steps.back().step},
          {"steps", run.config.training.steps},
          {"state", run.status ? Json(run_state_name(run.status->state)) : Json()},
          {"running", run.running},
          {"restarts", run.metrics.restarts.size()}};
}

Json pairing_json(const Pairing& pairing) {
  const auto fact = [](const PairedFact& f) {
    return Json{
        {"what", f.what}, {"equal", f.known ? Json(f.equal()) : Json()}, {"first", f.first}, {"other", f.other}};
  };
  const auto difference = [](const ConfigDifference& d) {
    return Json{{"key", d.key}, {"first", d.before}, {"other", d.now}};
  };
  const InitialValuesPairing& values = pairing.initial_values;
  return {{"paired", pairing.unpaired().empty()},
          {"unpaired", pairing.unpaired()},
          {"facts", json_list(pairing.facts, fact)},
          {"initial_values",
           {{"equal", values.equal},
            {"different", values.different},
            {"other_shape", values.other_shape},
            {"only_first", values.only_first},
            {"only_other", values.only_other}}},
          {"differences", json_list(pairing.differences, difference)}};
}

/// One value per run, null where there is nothing to compare it with.
Json comparable_values(const std::vector<double>& values, const std::vector<bool>& comparable) {
  Json list = Json::array();
  for (std::size_t r = 0; r < values.size(); ++r) list.push_back(comparable[r] ? Json(values[r]) : Json());
  return list;
}

Json gaps_json(const std::vector<double>& values, const std::vector<bool>& comparable) {
  std::vector<double> gaps = values;
  for (double& gap : gaps) gap -= values[0];
  return comparable_values(gaps, comparable);
}

Json losses_json(const RunComparison& comparison) {
  const LossComparison& losses = comparison.losses;
  std::vector<bool> comparable, training_comparable = {true};
  for (const std::string& reason : losses.incomparable) comparable.push_back(reason.empty());
  for (const Pairing& pairing : comparison.pairings) training_comparable.push_back(other_training(pairing).empty());
  const auto validation = [&](const ValidationRow& row) {
    return Json{{"step", row.step},
                {"loss", row.loss},
                {"bits_per_byte", row.bits_per_byte},
                {"gap", gaps_json(row.loss, comparable)},
                {"gap_bits_per_byte", gaps_json(row.bits_per_byte, comparable)}};
  };
  const auto training = [&](const TrainingWindow& window) {
    return Json{{"first_step", window.first_step},
                {"last_step", window.last_step},
                {"loss", window.loss},
                {"gap", gaps_json(window.loss, training_comparable)},
                {"gap_error", comparable_values(window.gap_error, training_comparable)}};
  };
  return {{"comparable", comparable},
          {"training_comparable", training_comparable},
          {"validation", json_list(losses.validation, validation)},
          {"training", json_list(losses.training, training)}};
}

Json attention_json(const AttentionComparison& attention) {
  const auto distance = [](const std::optional<MapDistance>& d) -> Json {
    if (!d) return {};
    return {{"first_step", d->first_step},  {"last_step", d->last_step},  {"probes", d->probes},
            {"layers", d->distance.layers}, {"heads", d->distance.heads}, {"distance", d->distance.values}};
  };
  Json statistics;
  if (const auto& s = attention.statistics) {
    const auto of_run = [](const std::vector<double>& values) { return values.empty() ? Json() : Json(values); };
    statistics = {{"step", s->step},     {"names", s->names}, {"probes", s->probes},
                  {"layers", s->layers}, {"heads", s->heads}, {"values", json_list(s->values, of_run)}};
  }
  return {{"has_maps", attention.has_maps},
          {"changes", json_list(attention.changes, distance)},
          {"differences", json_list(attention.differences, distance)},
          {"statistics", statistics}};
}

}  // namespace

std::string comparison_json(const RunComparison& comparison) {
  const Json report = {{"runs", json_list(comparison.runs, run_json)},
                       {"pairings", json_list(comparison.pairings, pairing_json)},
                       {"losses", losses_json(comparison)},
                       {"attention", attention_json(comparison.attention)}};
  return report.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string comparison_text(const RunComparison& comparison) {
  std::string text = runs_text(comparison);
  for (std::size_t p = 0; p < comparison.pairings.size(); ++p)
    text += pairing_text(comparison.pairings[p], letter(p + 1));
  return text + validation_text(comparison) + training_text(comparison) + maps_text(comparison) +
         statistics_text(comparison);
}

}  // namespace dekoder
