// SPDX-License-Identifier: Apache-2.0
#include "launcher/library_file.hpp"

#include <elf.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <vector>

#include "base/error.hpp"

namespace dekoder {

namespace {

/// Bytes that a library has by its own headers; 0 where there are none of 64-bit ELF.
std::uint64_t expected_bytes(std::istream& library) {
  Elf64_Ehdr header{};
  if (!library.read(reinterpret_cast<char*>(&header), sizeof header)) return 0;
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64) return 0;
  std::uint64_t end = header.e_shoff + std::uint64_t{header.e_shnum} * header.e_shentsize;  // sections come last
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  library.seekg(static_cast<std::streamoff>(header.e_phoff));
  library.read(reinterpret_cast<char*>(segments.data()),
               static_cast<std::streamsize>(segments.size() * sizeof(Elf64_Phdr)));
  for (const Elf64_Phdr& segment : segments)
    if (segment.p_type == PT_LOAD) end = std::max<std::uint64_t>(end, segment.p_offset + segment.p_filesz);
  return end;
}

}  // namespace

void check_library_file(const std::filesystem::path& file) {
  std::error_code failed;
  if (!std::filesystem::is_regular_file(file, failed))
    throw ConfigError("{}: is no file; expected the plug-in of this build", file.string());
  const std::uintmax_t bytes = std::filesystem::file_size(file, failed);
  std::ifstream library(file, std::ios::binary);
  if (const std::uint64_t expected = expected_bytes(library); !failed && bytes < expected)
    throw ConfigError(
        "{}: is truncated: {} bytes, expected {}, by its own headers; copy or build it again, where the disk has "
        "room",
        file.string(), bytes, expected);
}

}  // namespace dekoder
