// SPDX-License-Identifier: Apache-2.0
// Every shape signature of the headers: right extents pass, one wrong extent on any axis is named.
#include "tensor/shape_signature.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "kernels/accumulate.hpp"
#include "kernels/adamw.hpp"
#include "kernels/attention/attention.hpp"
#include "kernels/attention/statistics.hpp"
#include "kernels/attention/weights.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/embedding.hpp"
#include "kernels/head_norm.hpp"
#include "kernels/muon.hpp"
#include "kernels/normalization.hpp"
#include "kernels/reduction.hpp"
#include "kernels/rotary.hpp"
#include "support/host_tensor.hpp"
#include "support/source_folder.hpp"

namespace dekoder::testing {
namespace {

#define DEKODER_SIGNATURE(name) {#name, name}
const std::map<std::string, ShapeSignature> signatures{
    DEKODER_SIGNATURE(adamw_shapes),
    DEKODER_SIGNATURE(causal_attention_shapes),
    DEKODER_SIGNATURE(causal_attention_backward_shapes),
    DEKODER_SIGNATURE(cached_attention_shapes),
    DEKODER_SIGNATURE(fill_cache_shapes),
    DEKODER_SIGNATURE(attention_weights_shapes),
    DEKODER_SIGNATURE(attention_statistics_shapes),
    DEKODER_SIGNATURE(cross_entropy_shapes),
    DEKODER_SIGNATURE(soft_cap_shapes),
    DEKODER_SIGNATURE(muon_shapes),
    DEKODER_SIGNATURE(cross_entropy_loss_shapes),
    DEKODER_SIGNATURE(activation_shapes),
    DEKODER_SIGNATURE(activation_backward_shapes),
    DEKODER_SIGNATURE(gated_activation_shapes),
    DEKODER_SIGNATURE(gated_activation_backward_shapes),
    DEKODER_SIGNATURE(bias_backward_shapes),
    DEKODER_SIGNATURE(apply_dropout_shapes),
    DEKODER_SIGNATURE(embedding_shapes),
    DEKODER_SIGNATURE(embedding_backward_shapes),
    DEKODER_SIGNATURE(position_backward_shapes),
    DEKODER_SIGNATURE(sinusoidal_positions_shapes),
    DEKODER_SIGNATURE(rotary_table_shapes),
    DEKODER_SIGNATURE(turn_heads_shapes),
    DEKODER_SIGNATURE(norm_heads_shapes),
    DEKODER_SIGNATURE(norm_heads_backward_shapes),
    DEKODER_SIGNATURE(layer_norm_shapes),
    DEKODER_SIGNATURE(residual_layer_norm_shapes),
    DEKODER_SIGNATURE(layer_norm_backward_shapes),
    DEKODER_SIGNATURE(sum_shapes),
    DEKODER_SIGNATURE(sum_of_squares_shapes),
    DEKODER_SIGNATURE(first_non_finite_shapes),
    DEKODER_SIGNATURE(leaf_sums_of_squares_shapes),
    DEKODER_SIGNATURE(add_shapes),
    DEKODER_SIGNATURE(move_add_shapes),
    DEKODER_SIGNATURE(move_towards_shapes),
    DEKODER_SIGNATURE(exchange_shapes),
    DEKODER_SIGNATURE(move_shapes),
    DEKODER_SIGNATURE(clear_shapes),
};
#undef DEKODER_SIGNATURE

struct Item {
  std::string name;
  bool optional;
  std::vector<std::string> axes;
};

std::vector<Item> items_of(const ShapeSignature& signature) {
  const std::string text(signature.text());
  const std::regex form(R"((\w+)(\??)\(([^)]*)\))");
  std::vector<Item> items;
  for (std::sregex_iterator it(text.begin(), text.end(), form), end; it != end; ++it) {
    Item item{(*it)[1], (*it)[2] == "?", {}};
    std::istringstream axes((*it)[3]);
    for (std::string axis; std::getline(axes, axis, ',');) item.axes.push_back(axis);
    items.push_back(item);
  }
  return items;
}

/// Extents that fit: a different one for every letter.
std::vector<TensorExtents> right_extents(const std::vector<Item>& items) {
  std::vector<TensorExtents> tensors;
  for (const Item& item : items) {
    TensorExtents tensor;
    tensor.rank = int(item.axes.size());
    for (std::size_t axis = 0; axis < item.axes.size(); ++axis)
      tensor.extent[axis] = std::isdigit(item.axes[axis][0]) != 0 ? std::stoul(item.axes[axis])
                                                                  : std::size_t(item.axes[axis][0] - 'A' + 2);
    tensors.push_back(tensor);
  }
  return tensors;
}

std::string error_of(const ShapeSignature& signature, const std::vector<TensorExtents>& tensors) {
  try {
    signature.match_extents(tensors);
    return "no error";
  } catch (const ShapeError& error) {
    return error.what();
  }
}

TEST(ShapeSignature, TheTableAboveIsComplete) {
  std::set<std::string> declared, listed;
  const std::filesystem::path source = testing_support::source_folder() / "src";
  for (const auto& entry : std::filesystem::recursive_directory_iterator(source)) {
    if (entry.path().extension() != ".hpp" && entry.path().extension() != ".cpp") continue;
    std::ifstream file(entry.path());
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const std::regex form(R"(inline constexpr ShapeSignature (\w+))");
    for (std::sregex_iterator it(text.begin(), text.end(), form), end; it != end; ++it) declared.insert((*it)[1]);
  }
  for (const auto& [name, signature] : signatures) {
    listed.insert(name);
    EXPECT_EQ(name, std::string(signature.function()) + "_shapes");
  }
  EXPECT_EQ(listed, declared);
}

TEST(ShapeSignature, RightExtentsPassAndAreReturned) {
  for (const auto& [name, signature] : signatures) {
    const auto items = items_of(signature);
    const auto tensors = right_extents(items);
    ASSERT_EQ(error_of(signature, tensors), "no error") << name;
    const MatchedExtents extent = signature.match_extents(tensors);
    for (const Item& item : items)
      for (const std::string& axis : item.axes)
        if (std::isupper(axis[0]) != 0) {
          EXPECT_EQ(extent[axis[0]], axis[0] - 'A' + 2) << name << " " << axis;
        }
  }
}

TEST(ShapeSignature, OneWrongExtentOnAnyAxisIsNamed) {
  for (const auto& [name, signature] : signatures) {
    const auto items = items_of(signature);
    for (std::size_t i = 0; i < items.size(); ++i)
      for (std::size_t axis = 0; axis < items[i].axes.size(); ++axis) {
        const std::string& letter = items[i].axes[axis];
        std::size_t uses = 0;
        for (const Item& item : items) uses += std::size_t(std::count(item.axes.begin(), item.axes.end(), letter));
        if (std::isupper(letter[0]) != 0 && uses < 2) continue;  // a free extent
        auto tensors = right_extents(items);
        ++tensors[i].extent[axis];
        const std::string error = error_of(signature, tensors);
        EXPECT_EQ(error.rfind(std::string(signature.function()) + ": ", 0), 0u) << name << ": " << error;
        EXPECT_NE(error.find(std::isupper(letter[0]) != 0 ? "conflict at " + letter : "fixed extent " + letter),
                  std::string::npos)
            << name << " " << items[i].name << " axis " << axis << ": " << error;
        EXPECT_NE(error.find(signature.text()), std::string::npos) << error;
      }
  }
}

TEST(ShapeSignature, AbsentTensorsAndWrongRanksAreNamed) {
  for (const auto& [name, signature] : signatures) {
    const auto items = items_of(signature);
    for (std::size_t i = 0; i < items.size(); ++i) {
      auto tensors = right_extents(items);
      tensors[i].present = false;
      const std::string error = error_of(signature, tensors);
      const std::string expected = items[i].optional ? "no error" : items[i].name + " is empty";
      EXPECT_NE(error.find(expected), std::string::npos) << name << ": " << error;
      tensors = right_extents(items);
      tensors[i].rank -= 1;
      EXPECT_NE(error_of(signature, tensors).find("rank too low"), std::string::npos) << name;
      tensors[i].rank += 2;
      if (tensors[i].rank <= 5) {
        EXPECT_NE(error_of(signature, tensors).find("rank too high"), std::string::npos) << name;
      }
    }
    auto tensors = right_extents(items);
    tensors.pop_back();
    EXPECT_NE(error_of(signature, tensors).find(items.back().name + " was not given"), std::string::npos) << name;
    tensors.resize(items.size() + 1);
    EXPECT_NE(error_of(signature, tensors), "no error") << name;
  }
}

TEST(ShapeSignature, WholeMessage) {
  static constexpr ShapeSignature shapes{"scale_rows", "x(N,C) gain(C) bias?(C) -> y(N,C)"};
  const Tensor2 x("x", 3, 4), y("y", 3, 4);
  const Tensor1 gain("gain", 5), right("gain", 4);
  EXPECT_EQ(shapes.match(x, right, Tensor1(), y)['C'], 4);
  EXPECT_EQ(shapes.match(x, right, right, y)['N'], 3);
  EXPECT_EQ(shapes.match(x, right, right, y)['Z'], -1);
  try {
    shapes.match(x, gain, Tensor1(), y);
    FAIL() << "no error";
  } catch (const ShapeError& error) {
    EXPECT_STREQ(
        error.what(),
        "scale_rows: gain is (5) but C=4, N=3 (conflict at C); expected x(N,C) gain(C) bias?(C) -> y(N,C)");
  }
}

TEST(Tensor, ReshapeKeepsMemoryAndChecks) {
  const auto x = random_tensor<Tensor2>(1, 6, 8);
  const auto y = reshape<Tensor4>(x, 2, 3, 4, 2);
  EXPECT_EQ(y.data(), x.data());
  EXPECT_EQ(on_host(y)(1, 2, 3, 1), on_host(x)(5, 7));
  EXPECT_THROW(reshape<Tensor1>(x, 47), ShapeError);
  EXPECT_EQ(rows(x, 2, 5).extent(0), 3u);
  EXPECT_EQ(rows(x, 2, 5).data(), x.data() + 2 * 8);
}

// What holds at compile time: the one precision and space of a build, and that a signature is checked in its
// constructor.
static_assert(std::is_same_v<Tensor1::value_type, Real> && std::is_same_v<ConstTensor3::value_type, const Real>);
static_assert(std::is_same_v<Tensor2::array_layout, Kokkos::LayoutRight>);
static_assert(std::is_same_v<Tensor5::memory_space, ExecSpace::memory_space> && sizeof(Token) == 4);
static_assert(layer_norm_shapes.text().starts_with("x(N,C)"));

}  // namespace
}  // namespace dekoder::testing
