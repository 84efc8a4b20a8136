// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>

#include "kernels/dropout.hpp"
#include "kernels/first_positions.hpp"
#include "tensor/shape_signature.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// Queries of H heads, keys and values of G heads, H a multiple of G: heads [g H/G, (g+1) H/G) of the queries share
/// head g of keys and values (Ainslie et al., GQA, 2023; G = H is multi-head attention, G = 1 multi-query). Each is
/// (B,T,heads,D) at any distances, but neighbours along D are adjacent.
struct Heads {
  StridedTensor4 query, key, value;
};
struct ConstHeads {
  ConstStridedTensor4 query, key, value;

  ConstHeads(const ConstStridedTensor4& q, const ConstStridedTensor4& k, const ConstStridedTensor4& v)
      : query(q), key(k), value(v) {}
  ConstHeads(const Heads& heads) : ConstHeads(heads.query, heads.key, heads.value) {}
};

/// Heads [first, first + count) of D channels in the rows of x(B T,W). Throws ShapeError where the extents do not
/// fit.
StridedTensor4 heads_of_rows(const StoredTensor2& x, int sequences, int head_size, int first, int count);

/// The parts of qkv(B T, (H + 2 G) D), whose rows hold first all queries, then all keys, then all values of one
/// token. Throws ShapeError where the extents do not fit.
Heads split_heads(const StoredTensor2& qkv, int sequences, int query_heads, int key_value_heads);

/// The factor of the scores, and how many keys a query sees, itself included: the last `window` up to its own
/// (Beltagy et al., Longformer, 2020, section 3.1, in the causal form of Mistral 7B, 2023, section 2).
struct AttentionForm {
  AttentionForm(Real scale_, int window_ = std::numeric_limits<int>::max()) : scale(scale_), window(window_) {}
  Real scale;
  int window;  ///< 1 or more

  /// The first key that query t sees.
  KOKKOS_FORCEINLINE_FUNCTION int first_key(int t) const { return t < window ? 0 : t - window + 1; }
  /// The first query that sees key s no more, or T where there is none.
  int end_of_queries(int s, int T) const { return window < T - s ? s + window : T; }
};

/// Causal scaled-dot-product attention (Vaswani et al. 2017, section 3.2.1) without the score matrix in memory: on
/// CPUs tiles with a running maximum and sum (Dao et al., FlashAttention, 2022, algorithm 1; FlashAttention-2,
/// 2023, section 3.1), on GPUs batched products with the scores of a band of queries in `scores`. out[b,t,h] = sum
/// over t - window < s <= t of softmax_s(scale q[b,t,h] . k[b,s,g]) v[b,s,g], g = h G/H. lse[b,h,t] = log of the
/// sum of exp(scale q.k): all that the backward pass needs. Tiles and bands that no query sees are left out.
/// dropout acts on the softmax weights, drawn at (sample of b, h, t, s). Overwrites out and lse; scores is scratch
/// of at least attention_score_elements(). Throws ShapeError.
inline constexpr ShapeSignature causal_attention_shapes{
    "causal_attention", "q(B,T,H,D) k(B,T,G,D) v(B,T,G,D) -> out(B,T,H,D) lse(B,H,T) scores?(S)"};
void causal_attention(const ExecSpace& exec, const ConstHeads& qkv, AttentionForm form, const Dropout& dropout,
                      StoredTensor4 out, MasterTensor3 lse, MasterTensor1 scores);

/// Gradient of causal_attention (FlashAttention-2, algorithm 2): the weights are recomputed from lse.
/// delta(B,H,T) is scratch: the sums over s of weight * d loss / d weight, so that d loss / d score = weight (d
/// loss / d weight - delta) adds up to 0 over the keys of a query. It equals the row sums of grad_out * out, which
/// suffice in float. In bf16 out is rounded, by up to 2^-8 and alike step after step: what all scores of a query
/// have in common, which softmax does not see, was trained until training diverged (Qiu and Yao, "Why Low-Precision
/// Transformer Training Fails: An Analysis on Flash Attention", 2025). There the last tile of keys that a query
/// sees makes up for the tiles before it; on GPUs the weights of all keys are at hand and are added up. The
/// gradients of a key and a value are the sums over the heads that share them, in ascending order. Overwrites
/// grad_qkv and delta; scores as above. Throws ShapeError.
inline constexpr ShapeSignature causal_attention_backward_shapes{
    "causal_attention_backward",
    "q(B,T,H,D) k(B,T,G,D) v(B,T,G,D) out(B,T,H,D) grad_out(B,T,H,D) lse(B,H,T) -> delta(B,H,T) grad_q(B,T,H,D) "
    "grad_k(B,T,G,D) grad_v(B,T,G,D) scores?(S)"};
void causal_attention_backward(const ExecSpace& exec, const ConstHeads& qkv, ConstStoredTensor4 out,
                               ConstStoredTensor4 grad_out, ConstMasterTensor3 lse, AttentionForm form,
                               const Dropout& dropout, MasterTensor3 delta, const Heads& grad_qkv,
                               MasterTensor1 scores);

/// Elements of scratch in device memory that the two need for B sequences of T tokens and G heads of keys; 0 on
/// CPUs.
std::size_t attention_score_elements(int sequences, int context, int key_value_heads);

/// Bytes of scratch that each thread of a CPU needs for the two; 0 on GPUs.
std::size_t attention_scratch_bytes(int threads, int sequences, int context, int key_value_heads, int head_size);

/// Keys and values of S tokens per sequence into places 0..S-1 of a cache(B,2,G,T,D), keys first. Throws
/// ShapeError.
inline constexpr ShapeSignature fill_cache_shapes{"fill_cache", "k(B,S,G,D) v(B,S,G,D) -> cache(B,2,G,T,D)"};
void fill_cache(const ExecSpace& exec, const ConstHeads& qkv, StoredTensor5 cache);

/// Attention of one new token per sequence against a key/value cache: appends k and v of sequence b at
/// positions.of(b) < T, then attends to positions 0 to this, or the last of these that the window holds. cache is
/// (B,2,G,T,D) with keys first. Overwrites out and the scratch sums. Throws ShapeError.
inline constexpr ShapeSignature cached_attention_shapes{
    "cached_attention", "q(B,1,H,D) k(B,1,G,D) v(B,1,G,D) cache(B,2,G,T,D) -> sums(B,H,D) out(B,1,H,D)"};
void cached_attention(const ExecSpace& exec, const ConstHeads& qkv, const FirstPositions& positions,
                      AttentionForm form, StoredTensor5 cache, MasterTensor3 sums, StoredTensor4 out);

/// Throws ShapeError unless H is a multiple of G and the elements of every head are adjacent.
void require_heads(const char* function, const ConstHeads& qkv);
/// Throws ShapeError where a query does not even see itself.
void require_window(const char* function, AttentionForm form);

}  // namespace dekoder
