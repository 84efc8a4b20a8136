// SPDX-License-Identifier: Apache-2.0
// product_digests FILE.yaml...: digests of the matrix products of one optimizer step of each configuration, one
// line per shape. What differs between two numbers of threads (OMP_NUM_THREADS) differs in the runs.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <span>
#include <string>
#include <tuple>

#include "config/run_config_yaml.hpp"
#include "io/files/xxh64.hpp"
#include "kernels/gemm.hpp"
#include "model/decoder.hpp"
#include "tensor/flush_denormals.hpp"

namespace dekoder {
namespace {

/// Op of a and b, M, N, K, beta.
using Product = std::tuple<Op, Op, long, long, long, int>;

/// The three products of a linear layer for N tokens: forward, gradient of the input, gradient of the weight.
void add_layer(std::set<Product>& products, long N, long out, long in) {
  products.insert({Op::none, Op::transpose, N, out, in, 0});
  products.insert({Op::none, Op::none, N, in, out, 0});
  products.insert({Op::transpose, Op::none, out, in, N, 1});
}

std::set<Product> products_of(const RunConfig& config) {
  const ModelConfig& model = config.model;
  const long N = long(config.micro_batch()) * model.context, C = model.channels, M = head_chunk(model, N);
  std::set<Product> products;
  add_layer(products, N, model.qkv_width(), C);
  add_layer(products, N, C, model.query_width());
  add_layer(products, N, model.hidden_width(), C);
  add_layer(products, N, C, model.feed_forward);
  add_layer(products, M, padded_vocabulary(model), C);
  if (N % M != 0) add_layer(products, N % M, padded_vocabulary(model), C);
  for (const HiddenMatrix& matrix : hidden_matrices(model, run_parameters(config))) {
    const auto [shorter, longer] = std::minmax<long>({matrix.rows, matrix.columns});
    products.insert({Op::none, Op::transpose, shorter, shorter, longer, 0});
    products.insert({Op::none, Op::none, shorter, shorter, shorter, 0});
    products.insert({Op::none, Op::none, shorter, longer, shorter, 0});
  }
  return products;
}

template <class Tensor>
Tensor numbers(long rows, long columns, std::uint64_t seed) {
  const Tensor x("x", std::size_t(rows), std::size_t(columns));
  const auto host = Kokkos::create_mirror_view(x);
  const RandomStream stream(seed, site_of("numbers"));
  for (std::size_t i = 0; i < host.size(); ++i) host.data()[i] = stream.uniform(i) - 0.5f;
  Kokkos::deep_copy(x, host);
  return x;
}

template <class Tensor>
std::uint64_t digest_of(const Tensor& x) {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), x);
  Xxh64 digest;
  digest.update(std::as_bytes(std::span(host.data(), host.size())));
  return digest.digest();
}

std::string digest(const Product& product) {
  const auto [op_a, op_b, M, N, K, beta] = product;
  const bool transpose_a = op_a == Op::transpose, transpose_b = op_b == Op::transpose;
  const auto a = numbers<StoredTensor2>(transpose_a ? K : M, transpose_a ? M : K, 1);
  const auto b = numbers<StoredTensor2>(transpose_b ? N : K, transpose_b ? K : N, 2);
  std::uint64_t bits = 0;
  if (transpose_a) {
    const auto c = numbers<MasterTensor2>(M, N, 3);
    gemm_master(ExecSpace(), op_a, op_b, 1, a, b, Real(beta), c);
    bits = digest_of(c);
  } else {
    const auto c = numbers<StoredTensor2>(M, N, 3);
    gemm(ExecSpace(), op_a, op_b, 1, a, b, Real(beta), c);
    bits = digest_of(c);
  }
  return fmt::format("{} M={} N={} K={} beta={}: {:016x}", gemm_label(op_a, op_b), M, N, K, beta, bits);
}

}  // namespace
}  // namespace dekoder

int main(int argc, char** argv) {
  using namespace dekoder;
  const Kokkos::ScopeGuard kokkos;
  flush_denormals(ExecSpace());
  std::set<Product> products;
  for (int i = 1; i < argc; ++i) {
    RunConfig config = parse_run_config(read_config_text(argv[i]), argv[i], {"data.tokens=none"});
    if (config.model.vocabulary == 0) config.model.vocabulary = 256;
    products.merge(products_of(config));
  }
  for (const Product& product : products) fmt::print("{}\n", digest(product));
}
