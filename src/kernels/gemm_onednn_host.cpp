// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm_onednn.hpp"

#if defined(DEKODER_HAVE_ONEDNN) && !defined(DEKODER_PRECISION_DOUBLE)

#include <cstring>
#include <map>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>

#include "tensor/region.hpp"

namespace dekoder {

namespace {

using dnnl::memory;

/// Of oneDNN for an element of a tensor.
template <class Element>
constexpr memory::data_type type_of =
    std::is_same_v<Element, BFloat16> ? memory::data_type::bf16 : memory::data_type::f32;

/// Everything a primitive depends on.
using MatmulKey = std::tuple<long, long, long, bool, bool, long, long, long, float, float, bool, memory::data_type,
                             memory::data_type>;

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
memory::desc matrix(long rows, long columns, bool transposed, long stride, memory::data_type type) {
  const memory::dims strides = transposed ? memory::dims{1, stride} : memory::dims{stride, 1};
  return memory::desc({rows, columns}, type, strides);
}

Matmul make_matmul(const MatmulKey& key) {
  const auto& [M, N, K, transpose_a, transpose_b, stride_a, stride_b, stride_c, alpha, beta, with_bias, factor_type,
               result_type] = key;
  const memory::desc a = matrix(M, K, transpose_a, stride_a, factor_type),
                     b = matrix(K, N, transpose_b, stride_b, factor_type);
  const memory::desc c = matrix(M, N, false, stride_c, result_type);
  const memory::desc bias = with_bias ? memory::desc({1, N}, factor_type, memory::format_tag::ab) : memory::desc();
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

/// The interface of dnnl::memory has no const.
template <class Element>
Element* writable(const Element* data) {
  return const_cast<Element*>(data);
}

/// Whether oneDNN is the faster of the two. Without instructions for bf16 it would widen it value by value, which
/// takes four times as long as copies in fp32, or go through its reference loops. For fp32 measured over the shapes
/// of training on processors with AVX-512: oneDNN by 5 to 15 % (a single row: twice as fast), but OpenBLAS by up to
/// 35 % where b is read down its columns over many pages: row distances that are multiples of 4 KiB fall into the
/// same cache sets, and a very long K outruns the caches.
template <class Factor>
bool onednn_is_faster(bool transpose_b, long M, long N, long K) {
  if (std::is_same_v<Factor, BFloat16>) return onednn_multiplies_bf16();
  if (transpose_b || M == 1) return true;
  return N % 1024 != 0 && K < 16384;
}

template <class Tensor>
long row_stride(const Tensor& x) {
  return std::max<long>(long(x.stride(0)), long(x.extent(1)));
}

}  // namespace

template <class Factor, class Result>
bool gemm_onednn(const ExecSpace& exec, Op op_a, Op op_b, Real alpha,
                 const Kokkos::View<const Factor**, Layout, MemSpace>& a,
                 const Kokkos::View<const Factor**, Layout, MemSpace>& b, Real beta,
                 const Kokkos::View<Result**, Layout, MemSpace>& c,
                 const Kokkos::View<const Factor*, Layout, MemSpace>& bias) {
  const bool transpose_a = op_a == Op::transpose;
  const long M = long(c.extent(0)), N = long(c.extent(1)), K = long(a.extent(transpose_a ? 0 : 1));
  if (M == 0 || N == 0 || K == 0 || (alpha != 1.0f && bias.size() > 0)) return false;
  // oneDNN takes a matrix of one row or column with gaps for one without.
  const bool gaps = !a.span_is_contiguous() || !b.span_is_contiguous() || !c.span_is_contiguous();
  if (gaps && (M == 1 || N == 1 || K == 1)) return false;
  if (!onednn_is_faster<Factor>(op_b == Op::transpose, M, N, K)) return false;
  Matmul& matmul = matmul_for({M, N, K, transpose_a, op_b == Op::transpose, row_stride(a), row_stride(b),
                               row_stride(c), alpha, beta, bias.size() > 0, type_of<Factor>, type_of<Result>});
  matmul.a.set_data_handle(writable(a.data()));
  matmul.b.set_data_handle(writable(b.data()));
  matmul.c.set_data_handle(c.data());
  if (bias.size() > 0) matmul.bias.set_data_handle(writable(bias.data()));
  const LibraryKernel kernel(exec, gemm_label(op_a, op_b));
  matmul.primitive.execute(stream(), matmul.arguments);
  return true;
}

bool onednn_multiplies_bf16() {
  static const bool faster = [] {
    const dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    const auto has = [&](dnnl_cpu_isa_t set) { return (isa & set) == set; };
    const bool half_rate = has(dnnl_cpu_isa_avx512_core_fp16) && __builtin_cpu_is("intel");
    return isa == dnnl_cpu_isa_avx2_vnni_2 || has(dnnl_cpu_isa_avx512_core_amx) ||
           (has(dnnl_cpu_isa_avx512_core_bf16) && !half_rate);
  }();
  return faster;
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

template <class Factor, class Result>
bool gemm_onednn(const ExecSpace&, Op, Op, Real, const Kokkos::View<const Factor**, Layout, MemSpace>&,
                 const Kokkos::View<const Factor**, Layout, MemSpace>&, Real,
                 const Kokkos::View<Result**, Layout, MemSpace>&,
                 const Kokkos::View<const Factor*, Layout, MemSpace>&) {
  return false;
}

bool onednn_multiplies_bf16() {
  return false;
}

std::string onednn_version() {
  return "";
}

}  // namespace dekoder

#endif

namespace dekoder {

template bool gemm_onednn<Stored>(const ExecSpace&, Op, Op, Real, const ConstStoredTensor2&,
                                  const ConstStoredTensor2&, Real, const StoredTensor2&, const ConstStoredTensor1&);
#if defined(DEKODER_PRECISION_BF16)
template bool gemm_onednn<Stored>(const ExecSpace&, Op, Op, Real, const ConstStoredTensor2&,
                                  const ConstStoredTensor2&, Real, const MasterTensor2&, const ConstStoredTensor1&);
template bool gemm_onednn<Master>(const ExecSpace&, Op, Op, Real, const ConstMasterTensor2&,
                                  const ConstMasterTensor2&, Real, const MasterTensor2&, const ConstMasterTensor1&);
#endif

}  // namespace dekoder
