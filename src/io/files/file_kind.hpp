// SPDX-License-Identifier: Apache-2.0
// What a file holds, texts or tokens, is told here alone: by the endings of its name, in small letters or capitals,
// and by first bytes that no text has.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

namespace dekoder {

enum class Contents { text, json_lines, tokens, unknown };
enum class Packing { none, gzip, zstd };

struct FileKind {
  Contents contents;  ///< *.txt, *.jsonl, *.bin (token shards), also with the ending of a packing behind
  Packing packing;    ///< *.gz, *.zst
  bool is_text() const { return contents == Contents::text || contents == Contents::json_lines; }
  bool is_shard() const { return contents == Contents::tokens; }
};

/// By the name alone. What a user names himself is a text where the contents are unknown; in folders it is left
/// out.
FileKind file_kind(const std::filesystem::path& file);

/// A format that holds texts or tokens and is no text itself.
struct ForeignFormat {
  const char *name, *remedy;
};

/// That of a file which begins so: HDF5, or an archive or packing that is not unpacked here. `front`: the first 265
/// bytes, or all of a shorter file.
std::optional<ForeignFormat> foreign_format(std::string_view front);

}  // namespace dekoder
