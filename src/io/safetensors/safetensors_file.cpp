// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors/safetensors_file.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <set>

#include "base/error.hpp"
#include "base/json_node.hpp"
#include "base/utf8.hpp"
#include "io/hdf5/half.hpp"
#include "tensor/bfloat16.hpp"

namespace dekoder {

static_assert(std::endian::native == std::endian::little, "elements are read and written as they are");

namespace {

namespace fs = std::filesystem;

constexpr const char* remedy = "copy or download the file again";
constexpr std::uint64_t length_bytes = 8;
/// As the format's own library has it: the header of 100,000 tensors takes a tenth of it.
constexpr std::uint64_t most_header_bytes = 100'000'000;

/// Bytes of an element; 0: no such type.
std::uint64_t element_bytes(std::string_view type) {
  using Types = std::array<std::string_view, 5>;
  static constexpr std::array<std::pair<std::uint64_t, Types>, 4> sizes = {{
      {1, {"BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"}},
      {2, {"F16", "BF16", "U16", "I16", ""}},
      {4, {"F32", "U32", "I32", "", ""}},
      {8, {"F64", "U64", "I64", "C64", ""}},
  }};
  for (const auto& [bytes, types] : sizes)
    if (!type.empty() && std::find(types.begin(), types.end(), type) != types.end()) return bytes;
  return 0;
}

SafetensorsTensor read_tensor(const std::string& name, const JsonNode& node, std::uint64_t data_bytes) {
  SafetensorsTensor tensor;
  tensor.name = name;
  tensor.type = node["dtype"].text();
  const std::uint64_t size = element_bytes(tensor.type);
  if (size == 0) node["dtype"].refuse("F32, F16, BF16, F64 or another type of 1 to 8 bytes");
  const JsonNode shape = node["shape"], offsets = node["data_offsets"];
  std::uint64_t bytes = size;
  bool fits = true;
  tensor.elements = 1;
  for (std::size_t axis = 0; axis < shape.list().size(); ++axis) {
    const auto extent = std::uint64_t(shape.at(axis).whole(0, INT64_MAX, "an extent"));
    tensor.shape.push_back(extent);
    fits = fits && !__builtin_mul_overflow(tensor.elements, extent, &tensor.elements) &&
           !__builtin_mul_overflow(tensor.elements, size, &bytes);
  }
  if (!fits) shape.refuse("extents whose product is counted in 64 bits");
  const auto most = std::int64_t(data_bytes);
  if (offsets.list().size() != 2) offsets.refuse("two numbers: where the data begin and end");
  tensor.begin = std::uint64_t(offsets.at(0).whole(0, most, "a place in the data"));
  tensor.end = std::uint64_t(offsets.at(1).whole(0, most, "a place in the data"));
  if (tensor.end < tensor.begin || tensor.end - tensor.begin != bytes)
    offsets.refuse(fmt::format("{} bytes, as {} {} has; {}", bytes, tensor.type, shape_text(tensor.shape), remedy));
  return tensor;
}

/// Whether what was read is the data from beginning to end, each byte once.
void require_no_gaps(const std::vector<SafetensorsTensor>& tensors, std::uint64_t data_bytes,
                     const fs::path& path) {
  std::uint64_t end = 0;
  for (const SafetensorsTensor& tensor : tensors) {
    if (tensor.begin != end)
      throw DataError(
          "{}: '{}' begins at byte {} of the data, {} the tensor before it, which ends at {}; expected "
          "one behind the other; {}",
          path.string(), excerpt(tensor.name), tensor.begin, tensor.begin < end ? "within" : "behind a hole after",
          end, remedy);
    end = tensor.end;
  }
  if (end != data_bytes)
    throw DataError("{}: has {} bytes of data and its tensors {}; expected the same; {}", path.string(), data_bytes,
                    end, remedy);
}

template <class Stored, class Convert>
void read_as(const InputFile& file, std::uint64_t offset, std::span<float> out, Convert convert) {
  std::vector<Stored> block(std::min(out.size(), std::size_t{1} << 18));
  while (!out.empty()) {
    const std::size_t count = std::min(out.size(), block.size());
    file.read_at(offset, {reinterpret_cast<char*>(block.data()), count * sizeof(Stored)});
    std::transform(block.begin(), block.begin() + std::ptrdiff_t(count), out.begin(), convert);
    out = out.subspan(count);
    offset += count * sizeof(Stored);
  }
}

}  // namespace

std::string shape_text(const std::vector<std::uint64_t>& shape) {
  return excerpt(fmt::format("[{}]", fmt::join(shape, ", ")));
}

SafetensorsFile::SafetensorsFile(const fs::path& path) : path_(path), file_(path, "safetensors file") {
  const std::string where = path.string();
  const std::uint64_t bytes = file_.bytes();
  if (bytes < length_bytes)
    throw DataError(
        "{}: has {} bytes; expected a safetensors file, which begins with the 8 of its header's length; {}", where,
        bytes, remedy);
  std::uint64_t header_bytes = 0;
  file_.read_at(0, {reinterpret_cast<char*>(&header_bytes), length_bytes});
  const std::uint64_t most = std::min(most_header_bytes, bytes - length_bytes);
  if (header_bytes < 2 || header_bytes > most)
    throw DataError(
        "{}: says that its header has {} bytes; expected 2 to {}, in a safetensors file of {} bytes; {}", where,
        header_bytes, most, bytes, remedy);
  std::string header(header_bytes, '\0');
  file_.read_at(length_bytes, header);
  data_ = length_bytes + header_bytes;
  const std::uint64_t data_bytes = bytes - data_;
  // A reader of JSON may take a zero byte for the end of the text.
  if (header.front() != '{' || header.find('\0') != std::string::npos)
    throw DataError(
        "{}: its header begins with '{}'{}; expected JSON in braces: it is no safetensors file, or "
        "damaged; {}",
        where, excerpt(header, 20), header.front() == '{' ? " and has a zero byte" : "", remedy);
  const nlohmann::json document =
      read_json(header, where, "the header of a safetensors file; " + std::string(remedy));
  header = {};
  for (const auto& [name, value] : document.items()) {
    const JsonNode node{value, fmt::format("{}: '{}'", where, excerpt(name))};
    if (name == "__metadata__") {
      if (!value.is_object()) node.refuse("an object of texts");
      for (const auto& [key, text] : value.items()) node[key].text();
    } else {
      tensors_.push_back(read_tensor(name, node, data_bytes));
    }
  }
  std::sort(tensors_.begin(), tensors_.end(), [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  require_no_gaps(tensors_, data_bytes, path);
}

void SafetensorsFile::read(const SafetensorsTensor& tensor, std::span<float> out) const {
  if (out.size() != tensor.elements)
    throw std::logic_error(fmt::format("{}: {} elements for {}", tensor.name, out.size(), tensor.elements));
  const std::uint64_t offset = data_ + tensor.begin;
  if (tensor.type == "F32")
    file_.read_at(offset, {reinterpret_cast<char*>(out.data()), out.size_bytes()});
  else if (tensor.type == "F16")
    read_as<Half>(file_, offset, out, to_float);
  else if (tensor.type == "BF16")
    read_as<BFloat16>(file_, offset, out, [](BFloat16 x) { return float(x); });
  else if (tensor.type == "F64")
    read_as<double>(file_, offset, out, [](double x) { return float(x); });
  else
    throw DataError("{}: '{}' has elements of type {}; expected F32, F16, BF16 or F64", path_.string(),
                    excerpt(tensor.name), tensor.type);
}

void SafetensorsFolder::add(const fs::path& file) {
  files_.push_back(std::make_unique<SafetensorsFile>(file));
  for (const SafetensorsTensor& tensor : files_.back()->tensors()) {
    const auto [place, is_new] = tensors_.emplace(tensor.name, Place{files_.back().get(), &tensor});
    if (!is_new)
      throw DataError("{}: '{}' is in {} too; expected each tensor in one file; {}", file.string(),
                      excerpt(tensor.name), place->second.file->path().filename().string(), remedy);
  }
}

SafetensorsFolder::SafetensorsFolder(const fs::path& folder) {
  std::error_code ignored;
  const auto is_there = [&](const char* name) {
    return fs::symlink_status(folder / name, ignored).type() != fs::file_type::not_found;
  };
  if (is_there(safetensors_name)) {
    add(folder / safetensors_name);
    return;
  }
  const fs::path index = folder / safetensors_index_name;
  const std::optional<std::string> text = read_text_file(index, "index of safetensors");
  if (!text)
    throw DataError(
        "{}: has no {} and no {}{}", folder.string(), safetensors_name, safetensors_index_name,
        is_there("pytorch_model.bin")
            ? "; pytorch_model.bin is PyTorch's own format: load it with transformers and write it again "
              "with save_pretrained"
            : "; expected the folder of a model as transformers writes it");
  const std::string where = index.string();
  const nlohmann::json document = read_json(*text, where, "an index of safetensors");
  const JsonNode map = JsonNode{document, where + ":"}["weight_map"];
  if (!map.value.is_object()) map.refuse("an object of tensors and their files");
  std::set<std::string> names;
  for (const auto& [tensor, value] : map.value.items()) {
    const JsonNode node{value, fmt::format("{}['{}']", map.place, excerpt(tensor))};
    const std::string& name = node.text();
    if (!name.ends_with(".safetensors") || name.find_first_of(std::string_view("/\0", 2)) != std::string::npos)
      node.refuse("a file of the same folder, *.safetensors");
    names.insert(name);
  }
  for (const std::string& name : names) add(folder / name);
  for (const auto& [tensor, value] : map.value.items()) {
    const auto found = tensors_.find(tensor);
    if (found == tensors_.end() || found->second.file->path().filename() != value.get_ref<const std::string&>())
      throw DataError("{}: '{}' is not in {}, where the index has it; {}", where, excerpt(tensor),
                      excerpt(value.get_ref<const std::string&>()), remedy);
  }
  for (const auto& [tensor, place] : tensors_)
    if (!map.value.contains(tensor))
      throw DataError("{}: lacks '{}', which {} has; {}", where, excerpt(tensor),
                      place.file->path().filename().string(), remedy);
}

}  // namespace dekoder
