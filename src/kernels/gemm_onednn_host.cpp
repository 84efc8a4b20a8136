// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm_onednn.hpp"

#if defined(DEKODER_HAVE_ONEDNN) && !defined(DEKODER_REAL_DOUBLE)

#include <cstring>
#include <map>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>

#include "tensor/region.hpp"

namespace dekoder {

namespace {

using dnnl::memory;

/// Everything a primitive depends on.
using MatmulKey = std::tuple<long, long, long, bool, bool, long, long, long, float, float, bool>;

/// One primitive with the memory objects whose pointers change from call to call.
struct Matmul {
  dnnl::matmul primitive;
  memory a, b, c, bias;
  std::unordered_map<int, memory> arguments;
};

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

dnnl::stream& stream() {
  static dnnl::stream of_cpu(engine());
  return of_cpu;
}

/// rows x columns of op(x) over a row-major x with `stride` elements between its rows.
memory::desc matrix(long rows, long columns, bool transposed, long stride) {
  const memory::dims strides = transposed ? memory::dims{1, stride} : memory::dims{stride, 1};
  return memory::desc({rows, columns}, memory::data_type::f32, strides);
}

Matmul make_matmul(const MatmulKey& key) {
  const auto& [M, N, K, transpose_a, transpose_b, stride_a, stride_b, stride_c, alpha, beta, with_bias] = key;
  const memory::desc a = matrix(M, K, transpose_a, stride_a), b = matrix(K, N, transpose_b, stride_b);
  const memory::desc c = matrix(M, N, false, stride_c);
  const memory::desc bias =
      with_bias ? memory::desc({1, N}, memory::data_type::f32, memory::format_tag::ab) : memory::desc();
  dnnl::primitive_attr attributes;
  dnnl::post_ops post;
  if (alpha != 1.0f) post.append_eltwise(dnnl::algorithm::eltwise_linear, alpha, 0.0f);
  if (beta != 0.0f) post.append_sum(beta);
  attributes.set_post_ops(post);
  const dnnl::matmul::primitive_desc description =
      with_bias ? dnnl::matmul::primitive_desc(engine(), a, b, bias, c, attributes)
                : dnnl::matmul::primitive_desc(engine(), a, b, c, attributes);
  Matmul result{dnnl::matmul(description),
                memory(a, engine(), nullptr),
                memory(b, engine(), nullptr),
                memory(c, engine(), nullptr),
                with_bias ? memory(bias, engine(), nullptr) : memory(),
                {}};
  result.arguments = {{DNNL_ARG_SRC, result.a}, {DNNL_ARG_WEIGHTS, result.b}, {DNNL_ARG_DST, result.c}};
  if (with_bias) result.arguments.emplace(DNNL_ARG_BIAS, result.bias);
  return result;
}

Matmul& matmul_for(const MatmulKey& key) {
  static std::map<MatmulKey, Matmul> kept;
  const auto found = kept.find(key);
  return found != kept.end() ? found->second : kept.emplace(key, make_matmul(key)).first->second;
}

float* writable(const float* data) {
  return const_cast<float*>(data);
}  // the interface of dnnl::memory has no const

/// Whether oneDNN is the faster of the two. Measured over the shapes of training on processors with AVX-512: oneDNN
/// by 5 to 15 % (a single row: twice as fast), but OpenBLAS by up to 35 % where b is read down its columns over
/// many pages: row distances that are multiples of 4 KiB fall into the same cache sets, and a very long K outruns
/// the caches.
bool onednn_is_faster(bool transpose_b, long M, long N, long K) {
  if (transpose_b || M == 1) return true;
  return N % 1024 != 0 && K < 16384;
}

long row_stride(const ConstStoredTensor2& x) {
  return std::max<long>(long(x.stride(0)), long(x.extent(1)));
}

}  // namespace

bool gemm_onednn(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStoredTensor2& a,
                 const ConstStoredTensor2& b, Real beta, const StoredTensor2& c, const ConstStoredTensor1& bias) {
  const bool transpose_a = op_a == Op::transpose;
  const long M = long(c.extent(0)), N = long(c.extent(1)), K = long(a.extent(transpose_a ? 0 : 1));
  if (M == 0 || N == 0 || K == 0 || (alpha != 1.0f && bias.size() > 0)) return false;
  // oneDNN takes a matrix of one row or column with gaps for one without.
  const bool gaps = !a.span_is_contiguous() || !b.span_is_contiguous() || !c.span_is_contiguous();
  if (gaps && (M == 1 || N == 1 || K == 1)) return false;
  if (!onednn_is_faster(op_b == Op::transpose, M, N, K)) return false;
  Matmul& matmul = matmul_for({M, N, K, transpose_a, op_b == Op::transpose, row_stride(a), row_stride(b),
                               row_stride(c), alpha, beta, bias.size() > 0});
  matmul.a.set_data_handle(writable(a.data()));
  matmul.b.set_data_handle(writable(b.data()));
  matmul.c.set_data_handle(c.data());
  if (bias.size() > 0) matmul.bias.set_data_handle(writable(bias.data()));
  const LibraryKernel kernel(exec, gemm_label(op_a, op_b));
  matmul.primitive.execute(stream(), matmul.arguments);
  return true;
}

std::string onednn_version() {
  const dnnl_version_t& version = *dnnl_version();
  // Its instruction set decides the last bits, as the version does.
  return fmt::format("oneDNN {}.{}.{} (ISA {:#x})", version.major, version.minor, version.patch,
                     int(dnnl_get_effective_cpu_isa()));
}

}  // namespace dekoder

#else

namespace dekoder {

bool gemm_onednn(const ExecSpace&, Op, Op, Real, const ConstStoredTensor2&, const ConstStoredTensor2&, Real,
                 const StoredTensor2&, const ConstStoredTensor1&) {
  return false;
}

std::string onednn_version() {
  return "";
}

}  // namespace dekoder

#endif
