// SPDX-License-Identifier: Apache-2.0
#include "io/run/attention_reader.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "base/error.hpp"
#include "io/hdf5/half.hpp"

namespace dekoder {

namespace {

/// The number in "step_500", or -1.
long step_of(const std::string& member) {
  constexpr std::string_view prefix = "step_";
  long step = -1;
  if (!member.starts_with(prefix)) return -1;
  const char* end = member.data() + member.size();
  const auto [stop, error] = std::from_chars(member.data() + prefix.size(), end, step);
  return error == std::errc() && stop == end ? step : -1;
}

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
  info_.statistic_names = split(file_.text_attribute("/statistics", "names"));
  info_.writer = file_.text_attribute("/", "writer");
  read_probes();
  read_steps();
}

void AttentionReader::check_format() const {
  if (!file_.has_attribute("/", "format") || file_.text_attribute("/", "format") != attention_file::format)
    throw DataError("{}: is an HDF5 file but holds no attention maps; expected an attention.h5 of `dekoder train`",
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

void AttentionReader::read_steps() {
  for (std::size_t p = 0; p < info_.probes.size(); ++p) {
    const std::string& probe = info_.probes[p].name;
    const std::size_t n = info_.probes[p].tokens.size(), L = info_.layers.size(), H = info_.heads.size();
    std::vector<long> steps;
    for (const std::string& member : file_.members("/attention/" + probe))
      if (const long step = step_of(member); step >= 0) steps.push_back(step);
    std::sort(steps.begin(), steps.end());
    if (p == 0) steps_ = steps;
    if (steps != steps_)
      throw DataError("{}: {} has maps of {} steps and {} of {}, expected the same; the file is damaged",
                      file_.path().string(), info_.probes[0].name, steps_.size(), probe, steps.size());
    for (const long step : steps) {
      require_shape(file_, attention_file::map_path(probe, step), {L, H, n, n});
      require_shape(file_, attention_file::statistics_path(probe, step), {L, H, info_.statistic_names.size()});
    }
  }
}

AttentionMaps AttentionReader::read(std::size_t probe, long step) const {
  const std::string& name = info_.probes.at(probe).name;
  AttentionMaps maps;
  for (const Half weight : file_.read<Half>(attention_file::map_path(name, step)))
    maps.weights.push_back(to_float(weight));
  maps.statistics = file_.read<float>(attention_file::statistics_path(name, step));
  return maps;
}

}  // namespace dekoder
