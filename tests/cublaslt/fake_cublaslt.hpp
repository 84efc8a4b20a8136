// SPDX-License-Identifier: Apache-2.0
// A stand-in for libcublasLt on machines without a GPU: the library's own header, the functions of it that
// kernels/gemm_cublaslt.cpp calls, the product itself in plain loops over host memory. It refuses what the library
// refuses, with the library's status, and writes down how it was used.
#pragma once

#include <cublasLt.h>

#include <cstdint>

namespace fake_cublaslt {

struct Record {
  int handles = 0;                     ///< open
  int created = 0, destroyed = 0;      ///< descriptors of every kind
  int heuristics = 0, products = 0;    ///< answered without an error
  cublasComputeType_t compute_type{};  ///< of the last heuristic, as all below
  std::uint32_t reduction_mask = 0;
  std::uint64_t workspace_allowed = 0;
  const void* stream = nullptr;  ///< of the last product, as all below
  std::uint64_t workspace_used = 0;
};
/// What happened since the last reset().
const Record& record();
/// Forgets all of it but what is still open.
void reset();

/// The call after `calls` others (of any function but those that destroy) returns this status and does nothing.
void fail_after(int calls, cublasStatus_t status);
/// From now on no algorithm is found, which the library says by a status or by an empty list.
enum class Search { finds, not_supported, empty };
void search(Search search);

}  // namespace fake_cublaslt
