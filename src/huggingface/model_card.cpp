// SPDX-License-Identifier: Apache-2.0
#include "huggingface/model_card.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "config/run_config_yaml.hpp"

namespace dekoder {

std::string model_card(const std::string& name, const CheckpointInfo& info, const RunConfig& config,
                       std::size_t parameters, const Tokenizer& tokenizer, bool has_tokenizer) {
  const ModelConfig& m = config.model;
  std::string numbers;
  const auto row = [&](const char* what, const std::string& value) {
    numbers += fmt::format("| {} | {} |\n", what, value);
  };
  row("parameters", std::to_string(parameters));
  row("layers, heads, channels", fmt::format("{}, {}, {}", m.layers, m.heads, m.channels));
  row("context", fmt::format("{} tokens", m.context));
  row("vocabulary", std::to_string(m.vocabulary));
  row("tokenizer", fmt::format("{}, {} tokens", tokenizer_kind_name(tokenizer.kind()), tokenizer.vocabulary()));
  row("optimizer steps", fmt::format("{} of {}", info.step, config.training.steps));
  row("training tokens", std::to_string(info.tokens_seen));
  if (config.training.average > 0)
    row("weights", fmt::format("their moving average, decay {}", config.training.average));
  if (!std::isnan(info.validation_loss))
    row("validation loss", fmt::format("{:.4f} nats per token", info.validation_loss));
  if (info.best_step >= 0)
    row("best validation loss of the run",
        fmt::format("{:.4f} nats per token, at step {}", info.best_validation_loss, info.best_step));
  if (!config.data.tokens.empty()) row("token files", fmt::format("{}", fmt::join(config.data.tokens, ", ")));
  return fmt::format(
      R"(---
library_name: transformers
pipeline_tag: text-generation
---
# {}

A decoder-only language model, written by {}.

```python
from transformers import AutoModelForCausalLM{}

model = AutoModelForCausalLM.from_pretrained("{}")
{}```

| | |
|---|---|
{}
The configuration of its run:

```yaml
{}```
)",
      name, info.writer, has_tokenizer ? ", AutoTokenizer" : "", name,
      has_tokenizer ? fmt::format("tokenizer = AutoTokenizer.from_pretrained(\"{}\")\n", name)
                    : "# This folder has no tokenizer that AutoTokenizer reads.\n",
      numbers, to_yaml(config));
}

}  // namespace dekoder
