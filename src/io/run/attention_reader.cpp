// SPDX-License-Identifier: Apache-2.0
#include "io/run/attention_reader.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.hpp"
#include "io/hdf5/half.hpp"

namespace dekoder {

namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

void require_shape(const Hdf5File& file, const std::string& name, const std::vector<std::size_t>& expected) {
  if (const std::vector<std::size_t> got = file.shape(name); got != expected)
    throw DataError("{}:{}: has shape ({}), expected ({}); the file is damaged", file.path().string(), name,
                    fmt::join(got, ","), fmt::join(expected, ","));
}

}  // namespace

AttentionReader::AttentionReader(const std::filesystem::path& path) : file_(Hdf5File::open(path)) {
  check_format();
  info_.run_id = file_.text_attribute("/", "run_id");
  info_.config_yaml = file_.text_attribute("/", "config");
  info_.tokenizer = file_.text_attribute("/", "tokenizer");
  info_.layers = file_.read<int>("/layers");
  info_.heads = file_.read<int>("/heads");
  info_.statistic_names = split(file_.text_attribute("/", "statistic_names"));
  info_.writer = file_.text_attribute("/", "writer");
  step_ = file_.attribute<std::int64_t>("/", "step");
  read_probes();
  check_shapes();
}

void AttentionReader::check_format() const {
  if (!file_.has_attribute("/", "format") || file_.text_attribute("/", "format") != attention_file::format)
    throw DataError(
        "{}: is an HDF5 file but holds no attention maps; expected a file of `dekoder train` or `dekoder "
        "attention`",
        file_.path().string());
  if (const int major = file_.attribute<int>("/", "major"); major != attention_file::major_version)
    throw DataError("{}: has format {}, this program reads format {}; read it with the program that wrote it",
                    file_.path().string(), major, attention_file::major_version);
}

void AttentionReader::read_probes() {
  for (const std::string& name : file_.members("/attention")) {
    const std::string group = "/attention/" + name;
    AttentionProbe probe;
    probe.name = name;
    probe.source = file_.text_attribute(group, "source");
    probe.text = file_.text_attribute(group, "text");
    probe.tokens = file_.read<Token>(group + "/tokens");
    probe.token_texts = file_.read_texts(group + "/token_text");
    if (probe.tokens.empty() || probe.tokens.size() != probe.token_texts.size())
      throw DataError("{}:{}: {} tokens and {} texts of tokens; the file is damaged", file_.path().string(), group,
                      probe.tokens.size(), probe.token_texts.size());
    info_.probes.push_back(std::move(probe));
  }
}

void AttentionReader::check_shapes() const {
  const std::size_t L = info_.layers.size(), H = info_.heads.size(), S = info_.statistic_names.size();
  for (const AttentionProbe& probe : info_.probes) {
    const std::size_t n = probe.tokens.size();
    require_shape(file_, attention_file::map_path(probe.name), {L, H, n, n});
    require_shape(file_, attention_file::statistics_path(probe.name), {L, H, S});
  }
}

AttentionMaps AttentionReader::read(std::size_t probe) const {
  const std::string& name = info_.probes.at(probe).name;
  const std::vector<Half> weights = file_.read<Half>(attention_file::map_path(name));
  AttentionMaps maps{std::vector<float>(weights.size()), file_.read<float>(attention_file::statistics_path(name))};
  std::transform(weights.begin(), weights.end(), maps.weights.begin(), to_float);
  return maps;
}

void AttentionReader::verify() const {
  for (const AttentionProbe& probe : info_.probes) {
    file_.read<Half>(attention_file::map_path(probe.name));
    file_.read<float>(attention_file::statistics_path(probe.name));
  }
}

}  // namespace dekoder
