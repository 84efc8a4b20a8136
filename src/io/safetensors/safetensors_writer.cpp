// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors/safetensors_writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/xxh64.hpp"
#include "io/safetensors/safetensors_file.hpp"
#include "tensor/bfloat16.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;
using Tensors = std::span<const TensorToWrite>;

std::uint64_t elements_of(const TensorToWrite& tensor) {
  std::uint64_t elements = 1;
  for (const std::uint64_t extent : tensor.shape) elements *= extent;
  return elements;
}

std::uint64_t bytes_of(const TensorToWrite& tensor, WeightType type) {
  return elements_of(tensor) * (type == WeightType::float32 ? sizeof(float) : sizeof(BFloat16));
}

/// Length and header, which ends with spaces at a multiple of 8 bytes: the data are aligned where a file is mapped.
std::string front_of_file(Tensors tensors, WeightType type) {
  nlohmann::ordered_json header = {{"__metadata__", {{"format", "pt"}}}};
  std::uint64_t end = 0;
  for (const TensorToWrite& tensor : tensors) {
    const std::uint64_t begin = end;
    end += bytes_of(tensor, type);
    header[tensor.name] = {{"dtype", type == WeightType::float32 ? "F32" : "BF16"},
                           {"shape", tensor.shape},
                           {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text;
}

/// A descriptor that counts what it takes into a digest.
class Output {
 public:
  explicit Output(const PendingFile& file)
      : file_(file), descriptor_(::open(file.temporary().c_str(), O_WRONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) fail(errno);
  }
  ~Output() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Output(const Output&) = delete;

  void write(std::span<const std::byte> bytes) {
    digest_.update(bytes);
    if (const int failed = write_whole(descriptor_, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}))
      fail(failed);
  }
  std::uint64_t close() {
    if (::close(std::exchange(descriptor_, -1)) != 0) fail(errno);
    return digest_.digest();
  }

 private:
  [[noreturn]] void fail(int error) const {
    throw DataError("{}: cannot be written: {}; {}", file_.target().string(), std::strerror(error),
                    write_remedy(error));
  }

  const PendingFile& file_;
  int descriptor_;
  Xxh64 digest_;
};

void require_digest(const fs::path& path, std::uint64_t digest) {
  InputFile file(path, "safetensors file");
  std::vector<char> piece(std::size_t{1} << 20);
  Xxh64 found;
  for (std::size_t got = file.read(piece); got > 0; got = file.read(piece))
    found.update(std::as_bytes(std::span(piece.data(), got)));
  if (found.digest() != digest) throw DataError("its digest is {:016x}, expected {:016x}", found.digest(), digest);
}

void write_file(const fs::path& path, Tensors tensors, WeightType type) {
  const std::string front = front_of_file(tensors, type);
  std::uint64_t bytes = front.size();
  for (const TensorToWrite& tensor : tensors) bytes += bytes_of(tensor, type);
  PendingFile pending(path, "safetensors", bytes);
  pending.reserve();
  Output output(pending);
  output.write(std::as_bytes(std::span(front)));
  std::vector<float> values;
  std::vector<BFloat16> rounded;
  for (const TensorToWrite& tensor : tensors) {
    values.resize(elements_of(tensor));
    tensor.fill(values);
    if (type == WeightType::bfloat16) rounded.assign(values.begin(), values.end());
    output.write(type == WeightType::bfloat16 ? std::as_bytes(std::span(rounded))
                                              : std::as_bytes(std::span(values)));
  }
  const std::uint64_t digest = output.close();
  pending.commit([&](const fs::path& written) {
    require_digest(written, digest);
    SafetensorsFile{written};  // reads and checks the header
  });
}

/// Where each shard ends in `tensors`.
std::vector<std::size_t> shard_ends(Tensors tensors, WeightType type, std::uint64_t most_bytes) {
  std::vector<std::size_t> ends;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::uint64_t more = bytes_of(tensors[i], type);
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

const char* weight_type_name(WeightType type) {
  return type == WeightType::float32 ? "float32" : "bfloat16";
}

void write_safetensors(const fs::path& folder, Tensors tensors, WeightType type, std::uint64_t most_bytes) {
  const std::vector<std::size_t> ends = shard_ends(tensors, type, most_bytes);
  if (ends.size() == 1) return write_file(folder / safetensors_name, tensors, type);
  nlohmann::ordered_json map;
  std::uint64_t bytes = 0;
  for (std::size_t shard = 0, begin = 0; shard < ends.size(); begin = ends[shard++]) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, ends.size());
    const Tensors part = tensors.subspan(begin, ends[shard] - begin);
    write_file(folder / name, part, type);
    for (const TensorToWrite& tensor : part) {
      map[tensor.name] = name;
      bytes += bytes_of(tensor, type);
    }
  }
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", bytes}}}, {"weight_map", map}};
  write_file_whole(folder / safetensors_index_name, index.dump(2) + "\n");
}

}  // namespace dekoder
