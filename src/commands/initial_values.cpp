// SPDX-License-Identifier: Apache-2.0
#include "commands/initial_values.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <span>

#include "config/run_config_yaml.hpp"
#include "io/files/xxh64.hpp"
#include "model/decoder.hpp"
#include "tensor/parameter_store.hpp"

namespace dekoder {

std::string initial_values_json(const ExecSpace& exec, const RunConfig& config) {
  ParameterStore store(decoder_parameters(config.model), Gradients::none);
  store.initialise(exec, config.training.seed);
  const auto values = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), store.values());
  nlohmann::ordered_json tensors = nlohmann::ordered_json::array();
  for (const ParameterEntry& entry : store.layout().entries()) {
    Xxh64 digest;
    digest.update(std::as_bytes(std::span(values.data() + entry.offset, entry.size())));
    tensors.push_back(
        {{"name", entry.name}, {"shape", entry.shape}, {"digest", fmt::format("{:016x}", digest.digest())}});
  }
  return nlohmann::ordered_json{{"config", to_yaml(config)}, {"tensors", tensors}}.dump() + "\n";
}

}  // namespace dekoder
