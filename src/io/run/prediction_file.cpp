// SPDX-License-Identifier: Apache-2.0
#include "io/run/prediction_file.hpp"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/utf8.hpp"
#include "io/files/durable_file.hpp"
#include "io/hdf5/hdf5_file.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// Bytes of a token's text that are kept, as all of a file are as long as the longest; 128 in the vocabularies of
/// GPT-2 and cl100k.
constexpr std::size_t longest_text = 512;

/// visit(name, values, whether it has an axis of K places, unit) for every column: the one list of them.
template <class Table, class Visitor>
void visit_columns(Table& table, Visitor&& visit) {
  visit("/window", table.window, false, "");
  visit("/position", table.position, false, "");
  visit("/input", table.input, false, "");
  visit("/truth", table.truth, false, "");
  visit("/guess", table.guess, false, "");
  visit("/rank", table.rank, false, "");
  visit("/surprise", table.surprise, false, "nats");
  visit("/truth_probability", table.truth_probability, false, "probability");
  visit("/guess_probability", table.guess_probability, false, "probability");
  visit("/top_tokens", table.top_tokens, true, "");
  visit("/top_log_probabilities", table.top_log_probabilities, true, "nats");
}

void write_root(Hdf5File& file, const PredictionFileInfo& info, int top) {
  file.write_attribute("/", "format", prediction_file::format);
  file.write_attribute("/", "major", prediction_file::major_version);
  file.write_attribute("/", "minor", prediction_file::minor_version);
  file.write_attribute("/", "step", std::int64_t{info.step});
  file.write_attribute("/", "run_id", info.run_id);
  file.write_attribute("/", "config", info.config_yaml);
  file.write_attribute("/", "writer", info.writer);
  file.write_attribute("/", "tokenizer", info.tokenizer);
  file.write_attribute("/", "source", info.source);
  file.write_attribute("/", "data_hash", info.data_hash);
  file.write_attribute("/", "validation_tokens", info.validation_tokens);
  file.write_attribute("/", "validation_hash", info.validation_hash);
  file.write_attribute("/", "context", std::int32_t{info.context});
  file.write_attribute("/", "vocabulary", static_cast<std::int32_t>(info.token_texts.size()));
  file.write_attribute("/", "top", std::int32_t{top});
  file.write_texts("/token_text", info.token_texts, Hdf5Storage{.chunk = {}, .gzip = 4});  // padded to the longest
}

void write_columns(Hdf5File& file, const PredictionTable& table) {
  visit_columns(table, [&]<class T>(const char* name, const std::vector<T>& values, bool places, const char* unit) {
    std::vector<std::size_t> shape = {table.truth.size()};
    if (places) shape.push_back(std::size_t(table.top));
    file.write<T>(name, values, shape, Hdf5Storage{.chunk = {}, .shuffle = true, .gzip = 4});
    file.write_attribute(name, "axes", places ? "token,place" : "token");
    if (*unit != '\0') file.write_attribute(name, "unit", unit);
  });
}

void require_lengths(const PredictionTable& table) {
  visit_columns(table, [&](const char* name, const auto& values, bool places, const char*) {
    const std::size_t expected = table.truth.size() * (places ? std::size_t(table.top) : 1);
    if (values.size() != expected || expected == 0)
      throw ShapeError(
          fmt::format("prediction file: {} has {} values, expected {}", name, values.size(), expected));
  });
}

Hdf5File open_prediction_file(const fs::path& path) {
  Hdf5File file = Hdf5File::open(path);
  if (!file.has_attribute("/", "format") || file.text_attribute("/", "format") != prediction_file::format)
    throw DataError("{}: is an HDF5 file but holds no predictions; expected a file of `dekoder predictions`",
                    path.string());
  return file;
}

/// Reads every column, so that each checksum is looked at, and compares it with what was written.
void require_written(const fs::path& path, const PredictionTable& table) {
  const Hdf5File file = open_prediction_file(path);
  visit_columns(table, [&]<class T>(const char* name, const std::vector<T>& values, bool, const char*) {
    if (file.read<T>(name) != values)
      throw DataError("{}:{}: reads back other than it was written; the disk may be failing", path.string(), name);
  });
}

}  // namespace

void require_prediction_file(const fs::path& path) {
  open_prediction_file(path);
}

void write_prediction_file(const fs::path& path, PredictionFileInfo info, const PredictionTable& table) {
  require_lengths(table);
  for (std::string& text : info.token_texts)
    text = text.size() > longest_text ? excerpt(text, longest_text) : as_readable_utf8(text);
  const auto fail = [&](const std::exception& error) {
    std::error_code ignored;
    const bool there = fs::exists(fs::symlink_status(path, ignored));
    throw SaveError("predictions of step {} are not saved{}: {}", info.step,
                    there ? fmt::format("; {} is as it was", path.string()) : "", error.what());
  };
  try {
    PendingFile pending(path, "predictions", prediction_bytes(info, table));
    Hdf5File file = Hdf5File::create(pending);
    pending.reserve();
    write_root(file, info, table.top);
    write_columns(file, table);
    file.close();
    pending.commit([&](const fs::path& written) { require_written(written, table); });
  } catch (const DataError& error) {
    fail(error);
  } catch (const fs::filesystem_error& error) {
    fail(error);
  }
}

std::uint64_t prediction_bytes(const PredictionFileInfo& info, const PredictionTable& table) {
  constexpr std::uint64_t overhead = 64 << 10;  // HDF5's own structures and the short attributes
  std::size_t longest = 1;
  for (const std::string& text : info.token_texts)
    longest = std::max(longest, 4 * std::min(text.size(), longest_text + 16));
  std::uint64_t bytes = overhead + info.config_yaml.size() + longest * info.token_texts.size();
  visit_columns(table, [&]<class T>(const char*, const std::vector<T>& values, bool, const char*) {
    bytes += sizeof(T) * values.size() + sizeof(T) * values.size() / 256;  // gzip may add a little
  });
  return bytes;
}

}  // namespace dekoder
