// SPDX-License-Identifier: Apache-2.0
// With another Stored a tensor of one role is not taken for one of another.
#include <type_traits>

#include "kernels/adamw.hpp"
#include "kernels/gemm.hpp"
#include "kernels/normalization.hpp"

namespace dekoder {

static_assert(sizeof(Stored) == 2 && std::is_same_v<Master, Real>);
static_assert(!std::is_convertible_v<StoredTensor2, MasterTensor2>);
static_assert(!std::is_convertible_v<MasterTensor2, StoredTensor2>);
static_assert(!std::is_convertible_v<StoredTensor1, ConstMasterTensor1>);
static_assert(!std::is_convertible_v<MasterTensor1, ConstStoredTensor1>);

template <class X, class Gain, class Mean>
constexpr bool layer_norm_takes =
    std::is_invocable_v<decltype(layer_norm), ExecSpace, X, Gain, Gain, Real, X, Mean, Mean>;
static_assert(layer_norm_takes<StoredTensor2, MasterTensor1, MasterTensor1>);
static_assert(!layer_norm_takes<MasterTensor2, MasterTensor1, MasterTensor1>);
static_assert(!layer_norm_takes<StoredTensor2, StoredTensor1, MasterTensor1>);
static_assert(!layer_norm_takes<StoredTensor2, MasterTensor1, StoredTensor1>);

template <class A, class C>
constexpr bool gemm_takes =
    std::is_invocable_v<decltype(gemm), ExecSpace, Op, Op, Real, A, A, Real, C, StoredTensor1>;
static_assert(gemm_takes<StoredTensor2, StoredTensor2>);
static_assert(!gemm_takes<StoredTensor2, MasterTensor2>);
static_assert(!gemm_takes<MasterTensor2, StoredTensor2>);

template <class Value>
constexpr bool adamw_takes = std::is_invocable_v<decltype(adamw), ExecSpace, AdamWStep, ByteTensor1, MasterTensor1,
                                                 Value, MasterTensor1, MasterTensor1, StoredTensor1>;
static_assert(adamw_takes<MasterTensor1> && !adamw_takes<StoredTensor1>);

}  // namespace dekoder
