// SPDX-License-Identifier: Apache-2.0
#include "config/contradictions.hpp"

#include <algorithm>
#include <climits>
#include <limits>

#include "base/decimal.hpp"
#include "base/utf8.hpp"

namespace dekoder {

namespace {

/// Reports `what` at the first given of these keys, where each of them is right for itself.
void contradiction(ConfigReader& reader, std::initializer_list<const char*> keys, bool wrong,
                   const std::string& what) {
  if (wrong && reader.sound(keys)) reader.fault(reader.where(keys), what);
}

bool decays(Schedule schedule) {
  return schedule == Schedule::linear || schedule == Schedule::cosine || schedule == Schedule::wsd;
}

void check_model(const RunConfig& config, ConfigReader& reader) {
  const ModelConfig& m = config.model;
  const TrainingConfig& t = config.training;
  contradiction(
      reader, {"model.heads", "model.channels", "model.head_size"}, m.head_size == 0 && m.channels % m.heads != 0,
      fmt::format("model.heads {} does not divide model.channels {}; choose a divisor", m.heads, m.channels));
  contradiction(reader, {"model.key_value_heads", "model.heads"}, m.heads % m.key_heads() != 0,
                fmt::format("model.key_value_heads {} does not divide model.heads {}; choose a divisor",
                            m.key_value_heads, m.heads));
  contradiction(
      reader, {"model.sliding_window", "model.layers"}, m.sliding_window.size() > std::size_t(m.layers),
      fmt::format("model.sliding_window has {} numbers but model.layers is {}; expected at most one for each layer",
                  m.sliding_window.size(), m.layers));
  contradiction(
      reader, {"model.rotary_fraction", "model.positions", "model.head_size", "model.heads", "model.channels"},
      m.positions == Positions::rotary && (m.rotary_width() < 2 || m.rotary_width() > m.head_width()),
      fmt::format("model.positions rotary turns pairs of channels, and {} of the {} of a head are none; expected "
                  "heads of 2 channels or more, and a larger model.rotary_fraction",
                  m.rotary_fraction, m.head_width()));
  contradiction(reader, {"model.rotary_high_frequency", "model.rotary_low_frequency"},
                m.rotary_high_frequency <= m.rotary_low_frequency,
                fmt::format("model.rotary_high_frequency {} is not above model.rotary_low_frequency {}; raise it",
                            m.rotary_high_frequency, m.rotary_low_frequency));
  contradiction(reader, {"model.channels", "model.positions"},
                m.positions == Positions::sinusoidal && m.channels % 2 != 0,
                fmt::format("model.channels {} is odd; sinusoidal positions pair sine and cosine: choose an even "
                            "number",
                            m.channels));
  contradiction(reader, {"training.residual", "model.norm"},
                m.residual == Residual::fp32 && m.norm == NormPlacement::post,
                "training.residual float needs model.norm pre: after a sublayer's norm the residual stream is what "
                "products read; remove it, or choose pre");
  contradiction(reader, {"training.micro_batch", "training.batch"},
                t.micro_batch > 0 && t.batch % t.micro_batch != 0,
                fmt::format("training.micro_batch {} does not divide training.batch {}; choose a divisor",
                            t.micro_batch, t.batch));
  contradiction(reader, {"training.batch_warmup", "training.batch_warmup_steps"},
                t.batch_warmup.empty() != (t.batch_warmup_steps == 0),
                fmt::format("training.batch_warmup has {} sizes of {} steps each; expected both or neither, e.g. "
                            "[32, 64] and batch_warmup_steps 1000",
                            t.batch_warmup.size(), t.batch_warmup_steps));
  for (const int size : t.batch_warmup)
    contradiction(reader, {"training.batch_warmup", "training.micro_batch", "training.batch"},
                  size % config.micro_batch() != 0,
                  fmt::format("training.batch_warmup has {}, no multiple of the micro-batch of {}; choose one, or "
                              "set training.micro_batch to a divisor",
                              size, config.micro_batch()));
  const DataConfig& data = config.data;
  for (const std::string& file : data.tokens)
    contradiction(reader, {"data.tokens"},
                  file.empty() || file.find('\0') != std::string::npos || file.size() >= PATH_MAX,
                  fmt::format("data.tokens has '{}'; expected a path: 1 to {} bytes, none of them 0", excerpt(file),
                              PATH_MAX - 1));
  contradiction(reader, {"data.tokens"}, data.tokens.size() > most_sources,
                fmt::format("data.tokens names {} files; expected at most {}: prepare several texts as one file",
                            data.tokens.size(), most_sources));
  contradiction(reader, {"data.weights", "data.tokens"},
                !data.weights.empty() && data.weights.size() != data.tokens.size(),
                fmt::format("data.weights has {} numbers and data.tokens names {} files; expected one for each, or "
                            "no data.weights ([])",
                            data.weights.size(), data.tokens.size()));
  contradiction(reader, {"sampling.prompt"}, config.sampling.prompt.empty(),
                "sampling.prompt is empty; expected at least one character");
  // The widest tensors: queries, keys and values or the hidden layer of a micro-batch; the token table.
  const double channels = m.channels, width = std::max(double(m.heads + 2 * m.key_heads()) * m.head_width(),
                                                       m.feed_forward * (m.gated ? 2.0 : 1.0));
  const double activations = double(config.micro_batch()) * m.context * width;
  const double table = (double(m.vocabulary) + m.vocabulary_multiple) * channels;
  const double elements = std::max({activations, table, channels * width});
  contradiction(reader,
                {"training.micro_batch", "training.batch", "model.context", "model.channels", "model.feed_forward",
                 "model.vocabulary", "model.vocabulary_multiple"},
                elements > std::numeric_limits<int>::max(),
                fmt::format("one tensor of this model would have {:.3g} elements; expected at most {}: lower "
                            "training.micro_batch, model.context or the model's width",
                            elements, std::numeric_limits<int>::max()));
}

void check_attention(const RunConfig& config, ConfigReader& reader) {
  const ModelConfig& m = config.model;
  const AttentionConfig& a = config.attention;
  const auto largest = [](const auto& list) {
    return list.empty() ? 0 : *std::max_element(list.begin(), list.end());
  };
  const auto repeated = [](auto list) {
    std::sort(list.begin(), list.end());
    return std::adjacent_find(list.begin(), list.end()) != list.end();
  };
  contradiction(reader, {"attention.layers", "model.layers"}, largest(a.layers) >= m.layers,
                fmt::format("attention.layers names layer {} but model.layers is {}; expected 0 to {}",
                            largest(a.layers), m.layers, m.layers - 1));
  contradiction(reader, {"attention.heads", "model.heads"}, largest(a.heads) >= m.heads,
                fmt::format("attention.heads names head {} but model.heads is {}; expected 0 to {}",
                            largest(a.heads), m.heads, m.heads - 1));
  contradiction(reader, {"attention.layers"}, repeated(a.layers),
                "attention.layers names a layer twice; expected each once");
  contradiction(reader, {"attention.heads"}, repeated(a.heads),
                "attention.heads names a head twice; expected each once");
  contradiction(reader, {"attention.steps", "training.steps"}, largest(a.steps) > config.training.steps,
                fmt::format("attention.steps has {} but training.steps is {}; expected steps of the run",
                            largest(a.steps), config.training.steps));
  contradiction(reader, {"attention.window_tokens", "model.context"}, a.window_tokens > m.context,
                fmt::format("attention.window_tokens {} is more than model.context {}; shorten the windows",
                            a.window_tokens, m.context));
  contradiction(reader, {"attention.texts"}, std::count(a.texts.begin(), a.texts.end(), "") > 0,
                "attention.texts has an empty text; expected at least one character");
}

}  // namespace

void follow_with_defaults(RunConfig& config, const ConfigReader& reader) {
  TrainingConfig& t = config.training;
  if (!reader.given("training.final_learning_rate") && decays(t.schedule) &&
      t.final_learning_rate > t.learning_rate)
    read_decimal(fmt::format("{:.12g}", t.learning_rate / 10), t.final_learning_rate);  // 2e-6, not 2.0...03e-6
  if (!reader.given("training.warmup_steps") && t.warmup_steps > t.steps - 2) t.warmup_steps = t.steps / 10;
}

void check_sizes(const RunConfig& config, ConfigReader& reader) {
  check_model(config, reader);
  check_attention(config, reader);
}

void check_optimisation(const RunConfig& config, ConfigReader& reader) {
  const TrainingConfig& t = config.training;
  contradiction(reader, {"training.warmup_steps", "training.steps"}, t.warmup_steps > t.steps,
                fmt::format("training.warmup_steps {} is more than training.steps {}; shorten the warm-up",
                            t.warmup_steps, t.steps));
  // The last warm-up step is at the peak, and so is the first one of linear and cosine after it.
  const bool never_decays = t.warmup_steps > 0 && t.warmup_steps <= t.steps && t.warmup_steps > t.steps - 2;
  contradiction(
      reader, {"training.warmup_steps", "training.steps", "training.schedule"},
      never_decays && decays(t.schedule) && t.final_learning_rate < t.learning_rate,
      fmt::format("training.warmup_steps {} of training.steps {} leave schedule {} no step to decay; expected at "
                  "most {}, or training.schedule=constant",
                  t.warmup_steps, t.steps, names_of(t.schedule)[std::size_t(t.schedule)],
                  std::max(0L, t.steps - 2)));
  contradiction(reader, {"training.final_learning_rate", "training.learning_rate"},
                decays(t.schedule) && t.final_learning_rate > t.learning_rate,
                fmt::format("training.final_learning_rate {} is above training.learning_rate {}; lower it",
                            t.final_learning_rate, t.learning_rate));
  const double shrink = t.learning_rate * t.weight_decay;  // share of a weight that decays in a step at the peak
  const bool lost = t.weight_decay > 0 && static_cast<float>(1 - shrink) == 1.0f;
  contradiction(
      reader, {"training.weight_decay", "training.learning_rate"}, lost && reader.given("training.weight_decay"),
      fmt::format("training.weight_decay {} at training.learning_rate {} takes {:.3g} of a weight in a step, "
                  "which is nothing in single precision; expected 0 or at least {:.2g}",
                  t.weight_decay, t.learning_rate, shrink, 3.1e-8 / t.learning_rate));
  contradiction(
      reader, {"training.weight_decay", "training.learning_rate"},
      shrink >= 1 && reader.given("training.weight_decay"),
      fmt::format("training.weight_decay {} at training.learning_rate {} takes {:.3g} of a weight in a step; "
                  "expected less than 1: lower one of them",
                  t.weight_decay, t.learning_rate, shrink));
}

}  // namespace dekoder
