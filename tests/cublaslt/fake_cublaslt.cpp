// SPDX-License-Identifier: Apache-2.0
#include "cublaslt/fake_cublaslt.hpp"

#include <algorithm>
#include <climits>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "cublaslt/element.hpp"

struct cublasLtContext {};

namespace {

using fake_cublaslt::Record;
using fake_cublaslt::Search;

struct Layout {
  cudaDataType_t type;
  std::uint64_t rows, columns;
  std::int64_t distance;
  std::int32_t batches = 1;
  std::int64_t batch = 0;
  bool operator==(const Layout&) const = default;
};

struct Operation {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  std::int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;

  /// The same but for the pointer of the bias.
  bool same_form(const Operation& o) const {
    return compute == o.compute && scale == o.scale && transpose_a == o.transpose_a &&
           transpose_b == o.transpose_b && epilogue == o.epilogue;
  }
};

struct Preference {
  std::uint64_t workspace = 0;
  std::uint32_t reduction_mask = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint32_t a = 256, b = 256, c = 256, d = 256;
};

/// What an algorithm was chosen for, and what it needs.
struct Algorithm {
  Operation operation;
  Layout a, b, c, d;
  std::uint32_t a_alignment, b_alignment, c_alignment, d_alignment, bias_alignment;
  std::uint32_t reduction;  ///< NONE, or two halves of k, their sums kept as the scheme says
  std::uint64_t workspace;
};

std::map<const void*, Layout> layouts;
std::map<const void*, Operation> operations;
std::map<const void*, Preference> preferences;
std::vector<Algorithm> algorithms;
std::set<const void*> handles;
Record record;
std::optional<int> calls_until_failure;
cublasStatus_t failure;
Search search = Search::finds;

/// True once, for the call that was chosen to fail.
bool fails() {
  if (!calls_until_failure) return false;
  if ((*calls_until_failure)-- > 0) return false;
  calls_until_failure.reset();
  return true;
}

template <class Pointer, class Value>
cublasStatus_t create(std::map<const void*, Value>& all, Pointer* pointer, const Value& value) {
  if (fails()) return failure;
  *pointer = new std::remove_pointer_t<Pointer>{};
  all.emplace(*pointer, value);
  ++record.created;
  return CUBLAS_STATUS_SUCCESS;
}

template <class Pointer, class Value>
cublasStatus_t destroy(std::map<const void*, Value>& all, Pointer pointer) {
  if (all.erase(pointer) == 0) return CUBLAS_STATUS_INVALID_VALUE;
  delete pointer;
  ++record.destroyed;
  return CUBLAS_STATUS_SUCCESS;
}

template <class Value>
cublasStatus_t assign(Value& value, const void* buffer, std::size_t bytes) {
  if (fails()) return failure;
  if (buffer == nullptr || bytes != sizeof(value)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&value, buffer, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

template <class Value>
Value* find(std::map<const void*, Value>& all, const void* pointer) {
  const auto found = all.find(pointer);
  return found == all.end() ? nullptr : &found->second;
}

std::uint32_t alignment_of(const void* pointer) {
  std::uint32_t bytes = 256;
  while (reinterpret_cast<std::uintptr_t>(pointer) % bytes != 0) bytes /= 2;
  return bytes;
}

bool covers(const Layout& x) {
  return x.rows > 0 && x.columns > 0 && x.batches > 0 && x.batch >= 0 && x.distance >= std::int64_t(x.rows);
}

/// Do shapes, types and distances fit?
cublasStatus_t check(const Operation& o, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
  for (const Layout* x : {&a, &b, &c, &d}) {
    if (!covers(*x)) return CUBLAS_STATUS_INVALID_VALUE;
    if (x->rows > INT_MAX || x->columns > INT_MAX) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (x->batches != d.batches) return CUBLAS_STATUS_INVALID_VALUE;
  }
  const bool a_turned = o.transpose_a != CUBLAS_OP_N, b_turned = o.transpose_b != CUBLAS_OP_N;
  const std::uint64_t m = a_turned ? a.columns : a.rows, a_k = a_turned ? a.rows : a.columns;
  const std::uint64_t n = b_turned ? b.rows : b.columns, b_k = b_turned ? b.columns : b.rows;
  if (d.rows != m || d.columns != n || c.rows != m || c.columns != n || a_k != b_k)
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool fp32 = a.type == CUDA_R_32F && d.type == CUDA_R_32F;
  const bool bf16 = a.type == CUDA_R_16BF && (d.type == CUDA_R_32F || d.type == CUDA_R_16BF);
  const bool fp64 = a.type == CUDA_R_64F && d.type == CUDA_R_64F && o.compute == CUBLAS_COMPUTE_64F;
  const bool computes = fp64 || (o.compute == CUBLAS_COMPUTE_32F && (fp32 || bf16)) ||
                        (o.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && fp32);
  if (!computes || o.scale != (fp64 ? CUDA_R_64F : CUDA_R_32F) || a.type != b.type || c.type != d.type)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}

/// Splits k wherever it may: rounded to the type of the result if that is allowed, in the workspace otherwise.
void choose_reduction(const Preference& preference, Algorithm& algorithm) {
  const Layout& d = algorithm.d;
  const std::uint64_t k = algorithm.operation.transpose_a == CUBLAS_OP_N ? algorithm.a.columns : algorithm.a.rows;
  algorithm.reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
  algorithm.workspace = 0;
  if (k < 64) return;
  const std::uint64_t needed =
      d.rows * d.columns * std::uint64_t(d.batches) * element_bytes(algorithm.operation.scale);
  for (const auto scheme : {CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, CUBLASLT_REDUCTION_SCHEME_INPLACE,
                            CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE})
    if ((preference.reduction_mask & scheme) != 0 && preference.workspace >= needed) {
      algorithm.reduction = scheme;
      algorithm.workspace = needed;
      return;
    }
}

/// Sum over k from `from` to `to` of one element of op(A) op(B).
template <class Sum>
Sum sum(const Algorithm& p, const void* a, const void* b, std::int64_t batch, std::uint64_t row,
        std::uint64_t column, std::uint64_t from, std::uint64_t to) {
  const bool tf32 = p.operation.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  Sum total = 0;
  for (std::uint64_t k = from; k < to; ++k) {
    const auto at = [&](const Layout& x, std::int32_t turned, std::uint64_t r, std::uint64_t c) {
      if (turned != CUBLAS_OP_N) std::swap(r, c);
      return batch * x.batch + std::int64_t(r) + std::int64_t(c) * x.distance;
    };
    const Sum x = Sum(load_element(p.a.type, a, at(p.a, p.operation.transpose_a, row, k)));
    const Sum y = Sum(load_element(p.b.type, b, at(p.b, p.operation.transpose_b, k, column)));
    total += tf32 ? Sum(round_mantissa(float(x), 10)) * Sum(round_mantissa(float(y), 10)) : x * y;
  }
  return total;
}

/// D = alpha op(A) op(B) + beta C + bias.
template <class Sum>
void multiply(const Algorithm& p, const void* bias, const void* alpha_of_sum, const void* a, const void* b,
              const void* beta_of_sum, const void* c, void* d, void* workspace) {
  const Sum alpha = *static_cast<const Sum*>(alpha_of_sum), beta = *static_cast<const Sum*>(beta_of_sum);
  const std::uint64_t K = p.operation.transpose_a == CUBLAS_OP_N ? p.a.columns : p.a.rows;
  const bool split = p.reduction != CUBLASLT_REDUCTION_SCHEME_NONE;
  const bool rounded =
      p.reduction == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE || p.reduction == CUBLASLT_REDUCTION_SCHEME_INPLACE;
  for (std::int64_t batch = 0; batch < p.d.batches; ++batch)
    for (std::uint64_t j = 0; j < p.d.columns; ++j)
      for (std::uint64_t i = 0; i < p.d.rows; ++i) {
        Sum product;
        if (split) {
          Sum& first = static_cast<Sum*>(workspace)[(batch * p.d.columns + j) * p.d.rows + i];
          const auto kept = [&](Sum x) { return rounded ? Sum(round_to(p.d.type, x)) : x; };
          first = kept(sum<Sum>(p, a, b, batch, i, j, 0, K / 2));
          product = first + kept(sum<Sum>(p, a, b, batch, i, j, K / 2, K));
        } else {
          product = sum<Sum>(p, a, b, batch, i, j, 0, K);
        }
        Sum result = alpha * product;
        if (beta != 0)
          result += beta * Sum(load_element(p.c.type, c,
                                            batch * p.c.batch + std::int64_t(i) + std::int64_t(j) * p.c.distance));
        if (bias != nullptr) result += Sum(load_element(p.d.type, bias, std::int64_t(i)));
        store_element(p.d.type, d, batch * p.d.batch + std::int64_t(i) + std::int64_t(j) * p.d.distance, result);
      }
}

}  // namespace

namespace fake_cublaslt {

const Record& record() {
  return ::record;
}
void reset() {
  const int handles = ::record.handles, open = ::record.created - ::record.destroyed;
  ::record = {};
  ::record.handles = handles;
  ::record.created = open;
  calls_until_failure.reset();
  ::search = Search::finds;
}
void fail_after(int calls, cublasStatus_t status) {
  calls_until_failure = calls;
  failure = status;
}
void search(Search search) {
  ::search = search;
}

}  // namespace fake_cublaslt

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (fails()) return failure;
  *handle = new cublasLtContext;
  handles.insert(*handle);
  ++record.handles;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  if (handles.erase(handle) == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete handle;
  --record.handles;
  return CUBLAS_STATUS_SUCCESS;
}

#define NAME_OF(status) \
  case status:          \
    return #status
const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    NAME_OF(CUBLAS_STATUS_SUCCESS);
    NAME_OF(CUBLAS_STATUS_NOT_INITIALIZED);
    NAME_OF(CUBLAS_STATUS_ALLOC_FAILED);
    NAME_OF(CUBLAS_STATUS_INVALID_VALUE);
    NAME_OF(CUBLAS_STATUS_ARCH_MISMATCH);
    NAME_OF(CUBLAS_STATUS_EXECUTION_FAILED);
    NAME_OF(CUBLAS_STATUS_INTERNAL_ERROR);
    NAME_OF(CUBLAS_STATUS_NOT_SUPPORTED);
    default:
      return "<unknown>";
  }
}
#undef NAME_OF
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_ALLOC_FAILED ? "the resource allocation failed"
                                              : "an unsupported value was passed";
}
std::size_t cublasLtGetVersion() {
  return CUBLAS_VERSION;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t distance) {
  return create(layouts, layout, Layout{type, rows, columns, distance});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return destroy(layouts, layout);
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void* buffer,
                                                std::size_t bytes) {
  Layout* const x = find(layouts, layout);
  if (x == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (attribute == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) return assign(x->batches, buffer, bytes);
  if (attribute == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET) return assign(x->batch, buffer, bytes);
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  return create(operations, operation, Operation{compute, scale});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  return destroy(operations, operation);
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t attribute, const void* buffer,
                                              std::size_t bytes) {
  Operation* const x = find(operations, operation);
  if (x == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return assign(x->transpose_a, buffer, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return assign(x->transpose_b, buffer, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return assign(x->epilogue, buffer, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return assign(x->bias, buffer, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return create(preferences, preference, Preference{});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy(preferences, preference);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* buffer, std::size_t bytes) {
  Preference* const x = find(preferences, preference);
  if (x == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return assign(x->workspace, buffer, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return assign(x->reduction_mask, buffer, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return assign(x->a, buffer, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return assign(x->b, buffer, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return assign(x->c, buffer, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return assign(x->d, buffer, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
  if (fails()) return failure;
  if (!handles.contains(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  const Operation* const o = find(operations, operation);
  const Layout *const la = find(layouts, a), *const lb = find(layouts, b), *const lc = find(layouts, c),
                      *const ld = find(layouts, d);
  const Preference* const p = find(preferences, preference);
  if (o == nullptr || la == nullptr || lb == nullptr || lc == nullptr || ld == nullptr || p == nullptr ||
      requested < 1)
    return CUBLAS_STATUS_INVALID_VALUE;
  *found = 0;
  if (const cublasStatus_t status = check(*o, *la, *lb, *lc, *ld); status != CUBLAS_STATUS_SUCCESS) return status;
  if (search == Search::not_supported) return CUBLAS_STATUS_NOT_SUPPORTED;
  ++record.heuristics;
  record.compute_type = o->compute;
  record.reduction_mask = p->reduction_mask;
  record.workspace_allowed = p->workspace;
  if (search == Search::empty) return CUBLAS_STATUS_SUCCESS;
  Algorithm algorithm{*o, *la, *lb, *lc, *ld, p->a, p->b, p->c, p->d, alignment_of(o->bias), 0, 0};
  choose_reduction(*p, algorithm);
  algorithms.push_back(algorithm);
  results[0] = {};
  results[0].algo.data[0] = algorithms.size();
  results[0].workspaceSize = algorithm.workspace;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algo, void* workspace, std::size_t workspace_bytes,
                              cudaStream_t stream) {
  if (fails()) return failure;
  if (!handles.contains(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  const Operation* const o = find(operations, operation);
  const Layout *const la = find(layouts, a_layout), *const lb = find(layouts, b_layout),
                      *const lc = find(layouts, c_layout), *const ld = find(layouts, d_layout);
  if (o == nullptr || la == nullptr || lb == nullptr || lc == nullptr || ld == nullptr || alpha == nullptr ||
      beta == nullptr || a == nullptr || b == nullptr || c == nullptr || d == nullptr || algo == nullptr)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (const cublasStatus_t status = check(*o, *la, *lb, *lc, *ld); status != CUBLAS_STATUS_SUCCESS) return status;
  if (algo->data[0] < 1 || algo->data[0] > algorithms.size()) return CUBLAS_STATUS_INVALID_VALUE;
  const Algorithm& p = algorithms[algo->data[0] - 1];
  const bool of_this_form = p.operation.same_form(*o) && p.a == *la && p.b == *lb && p.c == *lc && p.d == *ld;
  const bool aligned = alignment_of(a) >= p.a_alignment && alignment_of(b) >= p.b_alignment &&
                       alignment_of(c) >= p.c_alignment && alignment_of(d) >= p.d_alignment;
  const bool with_bias = o->epilogue == CUBLASLT_EPILOGUE_BIAS;
  const bool bias_fits = !with_bias || (o->bias != nullptr && alignment_of(o->bias) >= p.bias_alignment);
  const bool workspace_fits = workspace_bytes >= p.workspace && (workspace != nullptr || p.workspace == 0) &&
                              (workspace == nullptr || alignment_of(workspace) == 256);
  if (!of_this_form || !aligned || !bias_fits || !workspace_fits) return CUBLAS_STATUS_INVALID_VALUE;
  const auto run = o->scale == CUDA_R_64F ? multiply<double> : multiply<float>;
  run(p, with_bias ? o->bias : nullptr, alpha, a, b, beta, c, d, workspace);
  ++record.products;
  record.stream = stream;
  record.workspace_used = p.workspace;
  return CUBLAS_STATUS_SUCCESS;
}
