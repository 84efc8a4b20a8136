// SPDX-License-Identifier: Apache-2.0
#include "io/files/file_kind.hpp"

#include <algorithm>
#include <cstddef>
#include <string>

namespace dekoder {

namespace fs = std::filesystem;
using namespace std::literals;

FileKind file_kind(const fs::path& file) {
  std::string name = file.filename().string();
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  fs::path unpacked = name;
  const fs::path packed = unpacked.extension();
  const Packing packing = packed == ".gz" ? Packing::gzip : packed == ".zst" ? Packing::zstd : Packing::none;
  if (packing != Packing::none) unpacked = unpacked.stem();
  const fs::path ending = unpacked.extension();
  return {ending == ".txt"     ? Contents::text
          : ending == ".jsonl" ? Contents::json_lines
          : ending == ".bin"   ? Contents::tokens
                               : Contents::unknown,
          packing};
}

std::optional<ForeignFormat> foreign_format(std::string_view front) {
  constexpr const char* unpack = "unpack it, and name what was in it";
  struct Mark {
    std::size_t offset;
    std::string_view bytes;
    ForeignFormat format;
  };
  static constexpr Mark marks[] = {
      {0,
       "\x89HDF\r\n\x1A\n"sv,
       {"an HDF5 file, as token files are", "name the texts that it was made of, or leave it out"}},
      {0, "\x1F\x8B\x08"sv, {"a gzip file", unpack}},
      {0, "\x28\xB5\x2F\xFD"sv, {"a zstd file", unpack}},
      {0,
       "\xFD"
       "7zXZ\0"sv,
       {"an xz file", unpack}},
      {0, "BZh91AY&SY"sv, {"a bzip2 file", unpack}},
      {0, "PK\x03\x04"sv, {"a zip archive", unpack}},
      {257, "ustar"sv, {"a tar archive", unpack}}};
  for (const Mark& mark : marks)
    if (front.size() > mark.offset && front.substr(mark.offset).starts_with(mark.bytes)) return mark.format;
  return std::nullopt;
}

}  // namespace dekoder
