// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors/safetensors_writer.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "io/files/durable_file.hpp"
#include "io/safetensors/safetensors_file.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;
using Tensors = std::span<const TensorToWrite>;

const char* element_name(WeightType type) {
  switch (type) {
    case WeightType::float32:
      return "F32";
    case WeightType::float16:
      return "F16";
    case WeightType::bfloat16:
      return "BF16";
    case WeightType::q8_0:
      break;
  }
  throw std::logic_error("safetensors have no blocks of q8_0");
}

/// Length and header, which ends with spaces at a multiple of 8 bytes: the data are aligned where a file is mapped.
std::string front_of_file(Tensors tensors) {
  nlohmann::ordered_json header = {{"__metadata__", {{"format", "pt"}}}};
  std::uint64_t end = 0;
  for (const TensorToWrite& tensor : tensors) {
    const std::uint64_t begin = end;
    end += tensor.bytes();
    header[tensor.name] = {
        {"dtype", element_name(tensor.type)}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text;
}

void write_file(const fs::path& path, Tensors tensors) {
  write_tensor_file(path, "safetensors", front_of_file(tensors), tensors, 1,
                    [](const fs::path& written) { SafetensorsFile{written}; });  // reads and checks the header
}

/// Where each shard ends in `tensors`.
std::vector<std::size_t> shard_ends(Tensors tensors, std::uint64_t most_bytes) {
  std::vector<std::size_t> ends;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::uint64_t more = tensors[i].bytes();
    if (bytes > 0 && bytes + more > most_bytes) {
      ends.push_back(i);
      bytes = 0;
    }
    bytes += more;
  }
  ends.push_back(tensors.size());
  return ends;
}

}  // namespace

void write_safetensors(const fs::path& folder, Tensors tensors, std::uint64_t most_bytes) {
  const std::vector<std::size_t> ends = shard_ends(tensors, most_bytes);
  if (ends.size() == 1) return write_file(folder / safetensors_name, tensors);
  nlohmann::ordered_json map;
  std::uint64_t bytes = 0;
  for (std::size_t shard = 0, begin = 0; shard < ends.size(); begin = ends[shard++]) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, ends.size());
    const Tensors part = tensors.subspan(begin, ends[shard] - begin);
    write_file(folder / name, part);
    for (const TensorToWrite& tensor : part) {
      map[tensor.name] = name;
      bytes += tensor.bytes();
    }
  }
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", bytes}}}, {"weight_map", map}};
  write_file_whole(folder / safetensors_index_name, index.dump(2) + "\n");
}

}  // namespace dekoder
