// SPDX-License-Identifier: Apache-2.0
#include "io/weights/tensor_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/input_file.hpp"
#include "io/files/xxh64.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// Elements that are rounded at once.
constexpr std::size_t block = std::size_t{1} << 18;
static_assert(block % q8_0_block == 0);

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
  InputFile file(path, "file of tensors");
  std::vector<char> piece(std::size_t{1} << 20);
  Xxh64 found;
  for (std::size_t got = file.read(piece); got > 0; got = file.read(piece))
    found.update(std::as_bytes(std::span(piece.data(), got)));
  if (found.digest() != digest) throw DataError("its digest is {:016x}, expected {:016x}", found.digest(), digest);
}

}  // namespace

std::uint64_t TensorToWrite::elements() const {
  std::uint64_t elements = 1;
  for (const std::uint64_t extent : shape) elements *= extent;
  return elements;
}

void write_tensor_file(const fs::path& path, const std::string& kind, std::string_view front,
                       std::span<const TensorToWrite> tensors, std::uint64_t alignment,
                       const std::function<void(const fs::path&)>& verify) {
  std::uint64_t bytes = front.size();
  for (const TensorToWrite& tensor : tensors) bytes += aligned(tensor.bytes(), alignment);
  PendingFile pending(path, kind, bytes);
  pending.reserve();
  Output output(pending);
  output.write(std::as_bytes(std::span(front)));
  std::vector<float> values;
  std::vector<std::byte> encoded;
  for (const TensorToWrite& tensor : tensors) {
    values.resize(tensor.elements());
    tensor.fill(values);
    for (std::size_t begin = 0; begin < values.size(); begin += block) {
      const auto part = std::span<const float>(values).subspan(begin, std::min(block, values.size() - begin));
      if (const auto lost = encode(tensor.type, part, encoded))
        throw DataError(
            "{}: '{}' cannot be written as {}, which has no number for its element {}, {}; expected weights that "
            "have one: take --dtype float32",
            path.string(), tensor.name, weight_type_name(tensor.type), begin + *lost, part[*lost]);
      output.write(encoded);
    }
    encoded.assign(aligned(tensor.bytes(), alignment) - tensor.bytes(), std::byte{0});
    output.write(encoded);
  }
  const std::uint64_t digest = output.close();
  pending.commit([&](const fs::path& written) {
    require_digest(written, digest);
    if (verify) verify(written);
  });
}

}  // namespace dekoder
