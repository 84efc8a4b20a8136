// SPDX-License-Identifier: Apache-2.0
// Causal attention on GPUs by products of whole batches (kernels/gemm.hpp): the scores of a band of query rows
// against all keys up to its end, from the first one within its windows on, lie in scratch, for many heads of one
// sequence or many sequences of one head at a time. Half a band's square is computed in vain, and a key or value
// that is not finite reaches rows of its own band that come before it.
#include <algorithm>

#include "kernels/attention/attention.hpp"
#include "kernels/gemm.hpp"
#include "kernels/rows.hpp"
#include "kernels/vector_math.hpp"

#if defined(DEKODER_ROW_TEAMS)

namespace dekoder {

namespace {

/// Query rows whose scores exist at one time.
constexpr int band_rows = 256;
/// Elements of the scores of one batch, where one matrix is not larger by itself: 16 MiB in fp32, so that two of
/// them stay in the second-level cache of a large GPU.
constexpr long scores_at_once = long{4} << 20;

/// Bands of keys begin at multiples of it, so that rows stay aligned.
constexpr int key_step = 64;
int first_band_key(const AttentionForm& form, int begin) {
  return form.first_key(begin) / key_step * key_step;
}

/// How much scratch there is: for `matrices` heads of band_rows x T or, in short contexts, T x T. With windows as
/// many heads as fit there: each has fewer keys.
struct ScorePlan {
  int keys, rows, matrices;

  ScorePlan(int sequences, int context, int key_value_heads)
      : keys(context), rows(std::min(band_rows, context)), matrices(0) {
    set_matrices(scores_at_once, sequences, key_value_heads);
  }
  ScorePlan(int sequences, int context, int key_value_heads, const AttentionForm& form)
      : ScorePlan(sequences, context, key_value_heads) {
    const long most = long(elements());
    const long of_a_band = (long(form.window) + 2 * key_step - 1) / key_step * key_step + band_rows;
    if (of_a_band >= keys) return;
    keys = int(of_a_band);
    set_matrices(most, sequences, key_value_heads);
  }
  std::size_t elements() const { return std::size_t(matrices) * std::size_t(rows) * std::size_t(keys); }

 private:
  void set_matrices(long most, int sequences, int key_value_heads) {
    matrices = int(std::clamp(most / std::max(1L, long(rows) * keys), 1L,
                              std::max(1L, long(std::max(sequences, key_value_heads)))));
  }
};

/// Heads of queries that one product serves: (b, h), (b + b_step, h + h_step), ...; each has keys of its own.
struct Batch {
  int b, h, count, b_step, h_step;
};

/// body(batch) until every query head of every sequence had its turn, along whichever is longer, sequences or
/// heads. Heads that share keys come in ascending order.
template <class Body>
void for_each_batch(int B, int H, int G, int most, const Body& body) {
  const int shared = H / G;
  if (B >= G) {
    for (int h = 0; h < H; ++h)
      for (int b = 0; b < B; b += most) body(Batch{b, h, std::min(most, B - b), 1, 0});
  } else {
    for (int b = 0; b < B; ++b)
      for (int place = 0; place < shared; ++place)
        for (int g = 0; g < G; g += most) body(Batch{b, g * shared + place, std::min(most, G - g), 0, shared});
  }
}

/// Rows [begin, end) of the batch's matrices (T,D) of x(B,T,heads,D), which `shared` heads of queries read
/// together.
template <class Part>
auto matrices_of(const Part& x, const Batch& batch, int shared, int begin, int end) {
  using Strided = Kokkos::View<typename Part::value_type***, Kokkos::LayoutStride, MemSpace>;
  const std::size_t sequence = x.stride(0), row = x.stride(1), head = x.stride(2);
  return Strided(
      x.data() + std::size_t(batch.b) * sequence + std::size_t(begin) * row + std::size_t(batch.h / shared) * head,
      Kokkos::LayoutStride(std::size_t(batch.count),
                           std::size_t(batch.b_step) * sequence + std::size_t(batch.h_step / shared) * head,
                           std::size_t(end - begin), row, x.extent(3), 1));
}

/// Bands that scratch holds, each (count, end - begin, end - first key): two of scores, products with fp32 results,
/// and two of what becomes of them and is multiplied on; the same memory where both have one type.
class Bands {
 public:
  Bands(const MasterTensor1& scratch, const ScorePlan& plan, int count, int begin, int end, int first_key)
      : scratch_(scratch.data()),
        elements_(plan.elements()),
        layout_(std::size_t(count), std::size_t(plan.rows) * std::size_t(plan.keys), std::size_t(end - begin),
                std::size_t(plan.keys), std::size_t(end - first_key), 1) {}
  MasterStridedTensor3 scores(std::size_t which) const {
    return MasterStridedTensor3(scratch_ + which * elements_, layout_);
  }
  StridedTensor3 factors(std::size_t which) const {
    Master* const begin = scratch_ + (stored_is_short ? 2 * elements_ : 0);
    return StridedTensor3(reinterpret_cast<Stored*>(begin) + which * elements_, layout_);
  }
  /// Elements of scratch for a plan.
  static std::size_t elements(const ScorePlan& plan) {
    return 2 * plan.elements() + (stored_is_short ? 2 * plan.elements() * sizeof(Stored) / sizeof(Master) : 0);
  }

 private:
  Master* scratch_;
  std::size_t elements_;
  Kokkos::LayoutStride layout_;
};

/// The (b, h, t) whose scores are row `row` of a band's, rows fastest.
struct BandRow {
  int i, r, b, h, t;
  KOKKOS_FORCEINLINE_FUNCTION BandRow(const Batch& batch, int begin, long row, int rows)
      : i(int(row / rows)),
        r(int(row % rows)),
        b(batch.b + i * batch.b_step),
        h(batch.h + i * batch.h_step),
        t(begin + r) {}
};

/// Dropout's factors of the weights of one query.
struct RowDropout {
  Dropout dropout;
  RandomStream stream;
  std::uint64_t first;

  KOKKOS_FORCEINLINE_FUNCTION RowDropout(const Dropout& d, const BandRow& at, int T)
      : dropout(d),
        stream(d.sample(at.b).child(std::uint64_t(at.h))),
        first(std::uint64_t(at.t) * std::uint64_t(T)) {}
  KOKKOS_FORCEINLINE_FUNCTION Real factor(int s) const {
    return dropout.active() ? dropout.factor(stream, first + std::uint64_t(s)) : Real(1);
  }
};

/// The keys of a band that query t sees, counted from the band's first one: those from `first` to `last`.
struct VisibleKeys {
  int first, last;
  KOKKOS_FORCEINLINE_FUNCTION VisibleKeys(const AttentionForm& form, int t, int first_key)
      : first(form.first_key(t) - first_key), last(t - first_key) {}
  KOKKOS_FORCEINLINE_FUNCTION int count() const { return last - first + 1; }
  KOKKOS_FORCEINLINE_FUNCTION bool hide(int s) const { return s > last || s < first; }
};

/// Scores of queries from `begin` on become weights with dropout, 0 where a query does not see the key; writes lse.
void softmax_rows(const ExecSpace& exec, const Batch& batch, int begin, int first_key, const AttentionForm& form,
                  const Dropout& dropout, const MasterStridedTensor3& scores, const StridedTensor3& weights,
                  const MasterTensor3& lse) {
  const int rows = scores.extent_int(1), keys = scores.extent_int(2), T = lse.extent_int(2);
  for_each_row(
      "dekoder::causal_attention", exec, long(batch.count) * rows, KOKKOS_LAMBDA(const RowTeam& team, long row) {
        const BandRow at(batch, begin, row, rows);
        const RowDropout drop(dropout, at, T);
        const Master* score = &scores(at.i, at.r, 0);
        Stored* weight = &weights(at.i, at.r, 0);
        const int t = at.t;
        const VisibleKeys visible(form, t, first_key);
        const Master* seen = score + visible.first;
        const Real largest = team.max(visible.count(), [=](int s) { return seen[s]; });
        const Real total = team.sum(visible.count(), [=](int s) { return fast_exp(seen[s] - largest); });
        team.once([=] { lse(at.b, at.h, t) = largest + Kokkos::log(total); });
        team.each(keys, [=](int s) {
          weight[s] = visible.hide(s) ? Real(0) : fast_exp(score[s] - largest) / total * drop.factor(first_key + s);
        });
      });
}

/// Scores become weights with dropout, their gradients those of the scores, both 0 where a query does not see the
/// key; writes delta, from the weights themselves.
void gradient_rows(const ExecSpace& exec, const Batch& batch, int begin, int first_key, const AttentionForm& form,
                   const Dropout& dropout, const ConstMasterTensor3& lse, const Bands& bands,
                   const MasterTensor3& delta) {
  const MasterStridedTensor3 scores = bands.scores(0), grad_weights = bands.scores(1);
  const StridedTensor3 weights = bands.factors(0), grad_scores = bands.factors(1);
  const int rows = scores.extent_int(1), keys = scores.extent_int(2), T = lse.extent_int(2);
  for_each_row(
      "dekoder::causal_attention_backward", exec, long(batch.count) * rows,
      KOKKOS_LAMBDA(const RowTeam& team, long row) {
        const BandRow at(batch, begin, row, rows);
        const RowDropout drop(dropout, at, T);
        const Master *score = &scores(at.i, at.r, 0), *grad_weight = &grad_weights(at.i, at.r, 0);
        Stored *weight = &weights(at.i, at.r, 0), *grad_score = &grad_scores(at.i, at.r, 0);
        const int t = at.t;
        const VisibleKeys visible(form, t, first_key);
        const Real row_lse = lse(at.b, at.h, t);
        const Real row_delta = team.sum(visible.count(), [=](int i) {
          const int s = visible.first + i;
          return fast_exp(score[s] - row_lse) * (drop.factor(first_key + s) * grad_weight[s]);
        });
        team.once([=] { delta(at.b, at.h, t) = row_delta; });
        team.each(keys, [=](int s) {
          const bool hidden = visible.hide(s);
          const Real kept = hidden ? Real(0) : fast_exp(score[s] - row_lse), factor = drop.factor(first_key + s);
          grad_score[s] = hidden ? Real(0) : kept * (factor * grad_weight[s] - row_delta);
          weight[s] = kept * factor;
        });
      });
}

void clear_heads(const ExecSpace& exec, const StridedTensor4& x) {
  const int T = x.extent_int(1), heads = x.extent_int(2), D = x.extent_int(3);
  for_each_row(
      "dekoder::causal_attention_backward::clear", exec, long(x.extent(0)) * T,
      KOKKOS_LAMBDA(const RowTeam& team, long row) {
        for (int h = 0; h < heads; ++h) team.each(D, [=](int d) { x(int(row / T), int(row % T), h, d) = Real(0); });
      });
}

void require_scores(const char* function, const MasterTensor1& scores, const ScorePlan& plan) {
  if (scores.size() < Bands::elements(plan))
    throw ShapeError(fmt::format("{}: scores has S={} elements; expected at least {}", function, scores.size(),
                                 Bands::elements(plan)));
}

}  // namespace

std::size_t attention_scratch_bytes(int, int, int, int, int) {
  return 0;
}

std::size_t attention_score_elements(int sequences, int context, int key_value_heads) {
  return Bands::elements(ScorePlan(sequences, context, key_value_heads));
}

void causal_attention(const ExecSpace& exec, const ConstHeads& qkv, AttentionForm form, const Dropout& dropout,
                      StoredTensor4 out, MasterTensor3 lse, MasterTensor1 scores) {
  const auto extent = causal_attention_shapes.match(qkv.query, qkv.key, qkv.value, out, lse, scores);
  require_heads("causal_attention", qkv);
  require_window("causal_attention", form);
  const int B = extent['B'], T = extent['T'], H = extent['H'], G = extent['G'], shared = H / G;
  const ScorePlan plan(B, T, G, form);
  require_scores("causal_attention", scores, plan);
  for_each_batch(B, H, G, plan.matrices, [&](const Batch& batch) {
    for (int begin = 0; begin < T; begin += band_rows) {
      const int end = std::min(T, begin + band_rows), first = first_band_key(form, begin);
      const Bands bands(scores, plan, batch.count, begin, end, first);
      gemm_batched_master(exec, Op::none, Op::transpose, form.scale, matrices_of(qkv.query, batch, 1, begin, end),
                          matrices_of(qkv.key, batch, shared, first, end), 0, bands.scores(0));
      softmax_rows(exec, batch, begin, first, form, dropout, bands.scores(0), bands.factors(0), lse);
      gemm_batched(exec, Op::none, Op::none, 1, bands.factors(0), matrices_of(qkv.value, batch, shared, first, end),
                   0, matrices_of(out, batch, 1, begin, end));
    }
  });
}

void causal_attention_backward(const ExecSpace& exec, const ConstHeads& qkv, ConstStoredTensor4 out,
                               ConstStoredTensor4 grad_out, ConstMasterTensor3 lse, AttentionForm form,
                               const Dropout& dropout, MasterTensor3 delta, const Heads& grad_qkv,
                               MasterTensor1 scores) {
  const auto extent =
      causal_attention_backward_shapes.match(qkv.query, qkv.key, qkv.value, out, grad_out, lse, delta,
                                             grad_qkv.query, grad_qkv.key, grad_qkv.value, scores);
  require_heads("causal_attention_backward", qkv);
  require_heads("causal_attention_backward", grad_qkv);
  require_window("causal_attention_backward", form);
  const int B = extent['B'], T = extent['T'], H = extent['H'], G = extent['G'], shared = H / G;
  const ScorePlan plan(B, T, G, form);
  require_scores("causal_attention_backward", scores, plan);
  // Without windows the last band has all keys: the first head that reads them overwrites their gradients there.
  const bool last_has_all = first_band_key(form, (T - 1) / band_rows * band_rows) == 0;
  if (!last_has_all) clear_heads(exec, grad_qkv.key), clear_heads(exec, grad_qkv.value);
  for_each_batch(B, H, G, plan.matrices, [&](const Batch& batch) {
    for (int begin = (T - 1) / band_rows * band_rows; begin >= 0; begin -= band_rows) {
      const int end = std::min(T, begin + band_rows), first = first_band_key(form, begin);
      const Real kept = last_has_all && end == T && batch.h % shared == 0 ? Real(0) : Real(1);
      const auto query = matrices_of(qkv.query, batch, 1, begin, end);
      const auto key = matrices_of(qkv.key, batch, shared, first, end);
      const auto value = matrices_of(qkv.value, batch, shared, first, end);
      const auto grad = matrices_of(grad_out, batch, 1, begin, end);
      const Bands bands(scores, plan, batch.count, begin, end, first);
      gemm_batched_master(exec, Op::none, Op::transpose, form.scale, query, key, 0, bands.scores(0));
      gemm_batched_master(exec, Op::none, Op::transpose, 1, grad, value, 0, bands.scores(1));
      gradient_rows(exec, batch, begin, first, form, dropout, lse, bands, delta);
      const StridedTensor3 weights = bands.factors(0), grad_scores = bands.factors(1);
      gemm_batched(exec, Op::transpose, Op::none, 1, weights, grad, kept,
                   matrices_of(grad_qkv.value, batch, shared, first, end));
      gemm_batched(exec, Op::none, Op::none, form.scale, grad_scores, key, 0,
                   matrices_of(grad_qkv.query, batch, 1, begin, end));
      gemm_batched(exec, Op::transpose, Op::none, form.scale, grad_scores, query, kept,
                   matrices_of(grad_qkv.key, batch, shared, first, end));
    }
  });
}

}  // namespace dekoder

#endif
