// SPDX-License-Identifier: Apache-2.0
#include "io/files/packed_file.hpp"

#include <poll.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <optional>
#include <string_view>

#include "base/error.hpp"
#include "io/files/input_file.hpp"

namespace dekoder {

namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 18;
constexpr std::string_view gzip_mark = "\x1F\x8B\x08", zstd_mark = "\x28\xB5\x2F\xFD";

}  // namespace

std::string input_name(const std::filesystem::path& path) {
  return path == PackedFile::standard_input ? "standard input" : path.string();
}

/// The bytes as they are, with a buffer of those that were read and not yet used.
class PackedFile::Bytes {
 public:
  Bytes(const std::filesystem::path& path, const std::atomic<bool>* stopped)
      : name_(input_name(path)), stopped_(stopped) {
    if (path != standard_input) file_.emplace(path, "text file");
  }

  /// Reads on behind what is in the buffer; false at the end.
  bool fill() {
    if (begin_ == end_) begin_ = end_ = 0;
    const std::size_t got = read_some(std::span(buffer_).subspan(end_));
    end_ += got;
    return got > 0;
  }
  /// Up to out.size() bytes, 0 at the end.
  std::size_t take(std::span<char> out) {
    if (begin_ == end_) return read_some(out);
    const std::size_t taken = std::min(out.size(), end_ - begin_);
    std::copy_n(buffer_.begin() + static_cast<std::ptrdiff_t>(begin_), taken, out.begin());
    begin_ += taken;
    return taken;
  }
  std::span<char> rest() { return std::span(buffer_).subspan(begin_, end_ - begin_); }
  void used(std::size_t bytes) { begin_ += bytes; }
  std::uint64_t total() const { return total_; }
  const std::string& name() const { return name_; }

 private:
  std::size_t read_some(std::span<char> out) {
    const std::size_t got = file_ ? file_->read(out) : read_standard_input(out);
    total_ += got;
    return got;
  }
  std::size_t read_standard_input(std::span<char> out) {
    for (;;) {
      pollfd ready{STDIN_FILENO, POLLIN, 0};
      constexpr int milliseconds = 100;
      const int events = ::poll(&ready, 1, milliseconds);
      if (stopped_ != nullptr && *stopped_) return 0;
      if (events == 0 || (events < 0 && errno == EINTR)) continue;
      const ssize_t got = ::read(STDIN_FILENO, out.data(), out.size());
      if (got >= 0) return static_cast<std::size_t>(got);
      if (errno != EINTR && errno != EAGAIN) throw_read_error(name_, errno);
    }
  }

  std::string name_;
  const std::atomic<bool>* stopped_;
  std::optional<InputFile> file_;
  std::string buffer_ = std::string(buffer_bytes, '\0');
  std::size_t begin_ = 0, end_ = 0;
  std::uint64_t total_ = 0;
};

/// One of the two formats; frames that follow each other are one text, as gzip and zstd themselves take them.
class PackedFile::Unpacking {
 public:
  Unpacking(Bytes& bytes, bool is_gzip) : bytes_(bytes), gzip_(is_gzip) {
    constexpr int with_gzip_header = 16 + MAX_WBITS;
    if (gzip_ ? inflateInit2(&inflate_, with_gzip_header) != Z_OK : (zstd_ = ZSTD_createDCtx()) == nullptr)
      throw std::bad_alloc();
  }
  ~Unpacking() {
    if (gzip_) inflateEnd(&inflate_);
    ZSTD_freeDCtx(zstd_);
  }
  Unpacking(const Unpacking&) = delete;

  std::size_t read(std::span<char> out) {
    for (;;) {
      const bool more = !bytes_.rest().empty() || bytes_.fill();
      if (!more && between_frames_) return 0;
      const auto [used, made] = gzip_ ? step_gzip(out) : step_zstd(out);
      bytes_.used(used);
      if (made > 0) return made;
      if (!more)
        throw DataError("{}: ends in the middle of its {} data; copy or download it again", bytes_.name(),
                        format_name());
    }
  }

 private:
  struct Step {
    std::size_t used, made;
  };
  const char* format_name() const { return gzip_ ? "gzip" : "zstd"; }
  [[noreturn]] void fail(const char* reason) const {
    throw DataError("{}: its {} data is damaged ({}), after {} bytes of the file; copy or download it again",
                    bytes_.name(), format_name(), reason, bytes_.total() - bytes_.rest().size());
  }

  Step step_gzip(std::span<char> out) {
    if (between_frames_ && inflateReset(&inflate_) != Z_OK) fail("no state");
    between_frames_ = false;
    const std::span<char> in = bytes_.rest();
    inflate_.next_in = reinterpret_cast<Bytef*>(in.data());
    inflate_.avail_in = static_cast<uInt>(in.size());
    inflate_.next_out = reinterpret_cast<Bytef*>(out.data());
    const std::size_t room = std::min<std::size_t>(out.size(), std::size_t{1} << 30);
    inflate_.avail_out = static_cast<uInt>(room);
    const int result = inflate(&inflate_, Z_NO_FLUSH);
    if (result == Z_MEM_ERROR) throw std::bad_alloc();
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
      fail(inflate_.msg != nullptr ? inflate_.msg : "no gzip");
    between_frames_ = result == Z_STREAM_END;
    return {in.size() - inflate_.avail_in, room - inflate_.avail_out};
  }
  Step step_zstd(std::span<char> out) {
    const std::span<char> in = bytes_.rest();
    ZSTD_inBuffer input{in.data(), in.size(), 0};
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    const std::size_t result = ZSTD_decompressStream(zstd_, &output, &input);
    if (ZSTD_isError(result)) fail(ZSTD_getErrorName(result));
    between_frames_ = result == 0;
    return {input.pos, output.pos};
  }

  Bytes& bytes_;
  bool gzip_, between_frames_ = false;
  z_stream inflate_{};
  ZSTD_DCtx* zstd_ = nullptr;
};

PackedFile::PackedFile(const std::filesystem::path& path, const std::atomic<bool>* stopped)
    : bytes_(std::make_unique<Bytes>(path, stopped)) {
  while (bytes_->rest().size() < zstd_mark.size() && bytes_->fill()) {
  }
  const std::string_view front(bytes_->rest().data(), bytes_->rest().size());
  const bool gzip = front.starts_with(gzip_mark), zstd = front.starts_with(zstd_mark);
  const std::string extension = path.extension().string();
  if ((extension == ".gz" && !gzip) || (extension == ".zst" && !zstd))
    throw DataError("{}: is no {} data, which its name says; expected it to begin so, or another name",
                    path.string(), extension == ".gz" ? "gzip" : "zstd");
  if (gzip || zstd) unpacking_ = std::make_unique<Unpacking>(*bytes_, gzip);
}

PackedFile::~PackedFile() = default;

std::size_t PackedFile::read(std::span<char> out) {
  std::size_t filled = 0;
  while (filled < out.size()) {
    const std::span<char> room = out.subspan(filled);
    const std::size_t got = unpacking_ ? unpacking_->read(room) : bytes_->take(room);
    if (got == 0) break;
    filled += got;
  }
  return filled;
}

std::uint64_t PackedFile::raw_bytes() const {
  return bytes_->total();
}

bool PackedFile::packed() const {
  return unpacking_ != nullptr;
}

}  // namespace dekoder
