// SPDX-License-Identifier: Apache-2.0
#include "io/files/packed_file.hpp"

#include <poll.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <optional>
#include <string_view>

#include "base/decimal.hpp"
#include "base/error.hpp"
#include "io/files/file_kind.hpp"

namespace dekoder {

namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 18;
constexpr std::string_view gzip_mark = "\x1F\x8B\x08", zstd_mark = "\x28\xB5\x2F\xFD";
constexpr std::string_view skippable_mark = "\x2A\x4D\x18";  // behind 0x50 to 0x5F: pzstd begins with such a frame
/// The largest window that zstd's own --long takes, 2 GiB; a frame takes as much memory as its own window has.
constexpr int most_window_log = sizeof(void*) == 4 ? 30 : 31;

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
  void require_state(const FileState& before) const {
    if (file_) file_->require_state(before);
  }
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
    if (zstd_ != nullptr) ZSTD_DCtx_setParameter(zstd_, ZSTD_d_windowLogMax, most_window_log);
  }
  ~Unpacking() {
    if (gzip_) inflateEnd(&inflate_);
    ZSTD_freeDCtx(zstd_);
  }
  Unpacking(const Unpacking&) = delete;

  std::size_t read(std::span<char> out) {
    for (;;) {
      bool more = !bytes_.rest().empty() || bytes_.fill();
      if (gzip_ && between_frames_ && more) more = skip_padding();
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

  /// Zeros behind the last member, as tapes and block devices leave them, are ignored like gzip does; false at the
  /// end.
  bool skip_padding() {
    bool padded = false;
    do
      for (; !bytes_.rest().empty(); bytes_.used(1)) {
        if (bytes_.rest()[0] == '\0')
          padded = true;
        else if (padded)
          fail("other bytes behind the zeros at its end");
        else
          return true;
      }
    while (bytes_.fill());
    return false;
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
    switch (ZSTD_getErrorCode(result)) {
      case ZSTD_error_no_error:
        break;
      case ZSTD_error_frameParameter_windowTooLarge:
        throw DataError(
            "{}: its zstd data needs a window of more than {}, which zstd itself does not unpack either; pack it "
            "again "
            "with --long=31 at most",
            bytes_.name(), bytes_text(std::uint64_t{1} << most_window_log));
      case ZSTD_error_memory_allocation:
        throw ConfigError(
            "{}: there is no memory for the window of its zstd data, up to {} where it was packed with --long; "
            "free "
            "some, or pack it again without",
            bytes_.name(), bytes_text(std::uint64_t{1} << most_window_log));
      default:
        fail(ZSTD_getErrorName(result));
    }
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
  const Packing packing = file_kind(path).packing;
  const bool skippable = packing == Packing::zstd && !front.empty() && (front[0] & 0xF0) == 0x50 &&
                         front.substr(1).starts_with(skippable_mark);
  const bool gzip = front.starts_with(gzip_mark), zstd = front.starts_with(zstd_mark) || skippable;
  if ((packing == Packing::gzip && !gzip) || (packing == Packing::zstd && !zstd))
    throw DataError("{}: is no {} data, which its name says; expected it to begin so, or another name",
                    path.string(), packing == Packing::gzip ? "gzip" : "zstd");
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

void PackedFile::require_state(const FileState& before) const {
  bytes_->require_state(before);
}

std::uint64_t PackedFile::raw_bytes() const {
  return bytes_->total();
}

const std::string& PackedFile::name() const {
  return bytes_->name();
}

bool PackedFile::packed() const {
  return unpacking_ != nullptr;
}

}  // namespace dekoder
