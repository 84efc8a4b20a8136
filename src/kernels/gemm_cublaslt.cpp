// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm_cublaslt.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace dekoder {

namespace {

void require(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(
        fmt::format("{}: {}: {}", call, cublasLtGetStatusName(status), cublasLtGetStatusString(status)));
}

/// A descriptor of the library, which names pointers to opaque structures.
template <class Pointer, cublasStatus_t (*destroy)(Pointer)>
class Descriptor {
 public:
  template <class... Arguments>
  Descriptor(const char* call, cublasStatus_t (*create)(Pointer*, Arguments...), Arguments... arguments) {
    require(create(&pointer_, arguments...), call);
  }
  ~Descriptor() { destroy(pointer_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator Pointer() const { return pointer_; }

 private:
  Pointer pointer_ = nullptr;
};
using Operation = Descriptor<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Preference = Descriptor<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

template <class Value>
void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, Value value) {
  require(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value)),
          "cublasLtMatmulDescSetAttribute");
}
template <class Value>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, Value value) {
  require(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
          "cublasLtMatmulPreferenceSetAttribute");
}

/// A row-major matrix is the column-major one of its transpose: `rows` by `columns` here are the library's.
class Layout : public Descriptor<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy> {
 public:
  Layout(int type, std::int64_t rows, std::int64_t columns, std::int64_t distance, int batches, std::int64_t batch)
      : Descriptor("cublasLtMatrixLayoutCreate", cublasLtMatrixLayoutCreate, static_cast<cudaDataType_t>(type),
                   static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), distance) {
    if (batches == 1) return;
    set(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, std::int32_t{batches});
    set(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, batch);
  }

 private:
  template <class Value>
  void set(cublasLtMatrixLayoutAttribute_t attribute, Value value) {
    require(cublasLtMatrixLayoutSetAttribute(*this, attribute, &value, sizeof(value)),
            "cublasLtMatrixLayoutSetAttribute");
  }
};

/// The largest power of two, at most 256, that divides the address; 0 for none.
std::uint32_t alignment(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  return static_cast<std::uint32_t>(std::min<std::uintptr_t>(address & (~address + 1), 256));
}

/// What the library expects of its workspace. Memory of Kokkos lies 128 bytes behind such a place.
constexpr std::size_t workspace_alignment = 256;

constexpr cublasOperation_t operation_of(bool transpose) {
  return transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
}

}  // namespace

struct CublasLt::Plan {
  Operation operation;
  Layout a, b, c;
  cublasLtMatmulAlgo_t algorithm{};
};

CublasLt::CublasLt(bool tf32) : tf32_(tf32) {
  require(cublasLtCreate(&handle_), "cublasLtCreate");
}

CublasLt::~CublasLt() {
  plans_.clear();
  cublasLtDestroy(handle_);
}

std::string CublasLt::name() const {
  const std::size_t version = cublasLtGetVersion();  // 130002 is 13.0.2
  return fmt::format("cuBLASLt {}.{}.{}{}", version / 10000, version / 100 % 100, version % 100,
                     tf32_ ? " (TF32)" : "");
}

CublasLt::Form CublasLt::form_of(const LtProduct& p, std::size_t workspace_bytes) {
  // Where there is one matrix, or one row of it, distances mean nothing and must not make another form.
  const auto row = [](std::int64_t rows, std::int64_t columns, std::int64_t distance) {
    return rows > 1 ? distance : std::max<std::int64_t>(columns, 1);
  };
  const auto batch = [&](const LtProduct::Matrix& matrix) { return p.batches > 1 ? matrix.batch : 0; };
  return {p.transpose_a,
          p.transpose_b,
          p.M,
          p.N,
          p.K,
          p.transpose_a ? row(p.K, p.M, p.a.row) : row(p.M, p.K, p.a.row),
          p.transpose_b ? row(p.N, p.K, p.b.row) : row(p.K, p.N, p.b.row),
          row(p.M, p.N, p.c.row),
          batch(p.a),
          batch(p.b),
          batch(p.c),
          p.batches,
          p.stored,
          p.result,
          alignment(p.a.data),
          alignment(p.b.data),
          alignment(p.c.data),
          alignment(p.bias),
          workspace_bytes};
}

std::unique_ptr<CublasLt::Plan> CublasLt::make_plan(const Form& f, const void* bias) const {
  const bool fp64 = f.stored == CUDA_R_64F, fast = tf32_ && f.stored == CUDA_R_32F;
  const auto compute = fp64 ? CUBLAS_COMPUTE_64F : fast ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  // The library's first factor is b and its second a: the transpose of c is op(b)^T op(a)^T, and column-major.
  auto plan = std::unique_ptr<Plan>(
      new Plan{{"cublasLtMatmulDescCreate", cublasLtMatmulDescCreate, compute, fp64 ? CUDA_R_64F : CUDA_R_32F},
               {f.stored, f.transpose_b ? f.K : f.N, f.transpose_b ? f.N : f.K, f.b_row, f.batches, f.b_batch},
               {f.stored, f.transpose_a ? f.M : f.K, f.transpose_a ? f.K : f.M, f.a_row, f.batches, f.a_batch},
               {f.result, f.N, f.M, f.c_row, f.batches, f.c_batch}});
  set(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, operation_of(f.transpose_b));
  set(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB, operation_of(f.transpose_a));
  if (f.bias_alignment > 0) {
    set(plan->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(plan->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  const Preference preference("cublasLtMatmulPreferenceCreate", cublasLtMatmulPreferenceCreate);
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{f.workspace_bytes});
  // Parts of a sum are added in the type of the sum: in the workspace, or in the result where that is of this type.
  const int in_result =
      f.result == CUDA_R_32F || fp64 ? CUBLASLT_REDUCTION_SCHEME_INPLACE : CUBLASLT_REDUCTION_SCHEME_NONE;
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | in_result));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, f.b_alignment);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, f.a_alignment);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, f.c_alignment);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, f.c_alignment);
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, plan->operation, plan->a, plan->b, plan->c,
                                                               plan->c, preference, 1, &best, &found);
  if (status == CUBLAS_STATUS_SUCCESS && found > 0 && best.state == CUBLAS_STATUS_SUCCESS) {
    plan->algorithm = best.algo;
    return plan;
  }
  throw std::runtime_error(
      fmt::format("cublasLtMatmulAlgoGetHeuristic: {}: no algorithm for {} products of M={} N={} K={}, rows {}, {} "
                  "and {} apart",
                  cublasLtGetStatusName(status != CUBLAS_STATUS_SUCCESS ? status : CUBLAS_STATUS_NOT_SUPPORTED),
                  f.batches, f.M, f.N, f.K, f.a_row, f.b_row, f.c_row));
}

void CublasLt::multiply(const LtProduct& product, double alpha, double beta, void* workspace,
                        std::size_t workspace_bytes, cudaStream_t stream) {
  workspace = std::align(workspace_alignment, 1, workspace, workspace_bytes);
  if (workspace == nullptr) workspace_bytes = 0;
  const Form form = form_of(product, workspace_bytes);
  auto found = plans_.find(form);
  if (found == plans_.end())
    found = plans_.emplace(form, make_plan(form, product.bias)).first;
  else if (form.bias_alignment > 0)
    set(found->second->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
  const std::unique_ptr<Plan>& plan = found->second;
  void* const c = const_cast<void*>(product.c.data);
  const auto call = [&](auto alpha_of_sum, auto beta_of_sum) {
    require(
        cublasLtMatmul(handle_, plan->operation, &alpha_of_sum, product.b.data, plan->a, product.a.data, plan->b,
                       &beta_of_sum, c, plan->c, c, plan->c, &plan->algorithm, workspace, workspace_bytes, stream),
        "cublasLtMatmul");
  };
  if (product.stored == CUDA_R_64F)
    call(alpha, beta);
  else
    call(static_cast<float>(alpha), static_cast<float>(beta));
}

}  // namespace dekoder
