// SPDX-License-Identifier: Apache-2.0
#include "model/model_summary.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/decimal.hpp"
#include "kernels/gemm.hpp"
#include "kernels/muon.hpp"
#include "model/decoder.hpp"

namespace dekoder {

namespace {

template <class Shape>
std::string table_row(const std::string& name, const std::string& axes, const Shape& shape, std::size_t bytes) {
  return fmt::format("  {:<40} {:<12} {:<22} {:>12}\n", name, fmt::format("({})", axes),
                     fmt::format("({})", fmt::join(shape, ",")), bytes_text(bytes));
}

}  // namespace

double flops_per_token(const ModelConfig& model) {
  const double L = model.layers, C = model.channels, F = model.feed_forward, V = model.vocabulary,
               T = model.context;
  const double Q = model.query_width(), W = model.qkv_width(), U = model.hidden_width();
  const double weights = L * ((W + Q) * C + C * U + F * C) + V * C;
  double keys = 0;  // that a query sees in the mean, of all layers: T / 2 without a window
  for (int l = 0; l < model.layers; ++l) {
    const double window = model.window(l);
    keys += window - window * window / (2 * T);
  }
  return 6 * weights + 12 * Q * keys;
}

double optimizer_flops(const RunConfig& config) {
  double flops = 0;
  for (const HiddenMatrix& matrix : hidden_matrices(config.model, run_parameters(config)))
    flops += muon_flops(matrix.rows, matrix.columns);
  return flops;
}

double bytes_per_step(const RunConfig& config, long micro_batches) {
  const ModelConfig& model = config.model;
  const int sequences = config.micro_batch();
  const double L = model.layers, C = model.channels, F = model.feed_forward, V = padded_vocabulary(model),
               N = double(sequences) * model.context, stored = sizeof(Stored), master = sizeof(Master),
               Q = model.query_width(), W = model.qkv_width(), U = model.hidden_width();
  const double weights = double(decoder_parameters(model).parameters());
  // Elements per token, as (products with weights) + (the other passes); backward of a product: both gradients.
  const double keys = W - (W - Q) / 2;  // and queries, which are normed or turned
  const bool turns = model.positions == Positions::rotary;
  const double turned = turns || model.qk_norm ? 2 * keys : 0,
               turned_back = model.qk_norm ? (2 + 3) * keys : turned;  // norms once more, then their gradients
  const double block_forward = ((C + W) + (Q + C) + (C + U) + (F + C)) + (2 * 4 * C + turned + (W + Q) + (U + F));
  const double biases = model.bias ? C + W + C : 0;
  const double block_backward =
      ((C + W) + (W + C) + (Q + C) + (C + Q) + (F + C) + (C + F) + (C + U) + (U + C)) +
      (2 * 4 * C + (2 * W + 2 * Q) + turned_back + (2 * U + F) + biases);  // norms; attention; activation
  const double ends = (4 * C + 3 * C) + (C + V) + (model.logit_soft_cap > 0 ? 4 : 2) * V + (V + C) + (V + C) +
                      3 * C;  // norm, head, cap and loss, embedding
  double activations = N * (L * (block_forward + block_backward) + ends) * stored;
  const bool again = model.recompute == Recompute::block;  // all blocks but the last; pre-norm: without F -> C
  if (again) {
    const double spared = model.norm == NormPlacement::pre ? F + C : 0;
    activations += N * (L - 1) * (block_forward - spared) * stored;
  }
  if (stored_is_short &&
      residual_as_master(model))  // norms and embedding, and the copies of the gradient that products read
    activations += N * (L * (2 * 2 * C + 2 * 3 * C) + 2 * C + 2 * C + 2 * C) * (master - stored) +
                   N * L * 2 * C * (master + stored);
  const double products =
      weights * ((again ? 3 : 2) * stored + 2 * master);  // each weight forward and backward, its gradient added to
  double update = weights * (9 * master + (stored_is_short ? stored : 0));  // norm: 1; AdamW: 4 read, 4 written
  if (config.training.average > 0) update += weights * 3 * master;
  for (const HiddenMatrix& matrix : hidden_matrices(model, run_parameters(config))) {
    const double m = std::min(matrix.rows, matrix.columns), all = double(matrix.size());
    // Muon: momentum: 2 read, 2 written; norm and load: 1 each; values: 1 read, 2 written; in Stored its products.
    update += all * master + (2 * all + muon_iterations * (3 * all + 8 * m * m)) * stored;
  }
  return double(micro_batches) * (activations + products) + update;
}

std::size_t activation_bytes(const ModelConfig& model, int sequences, ActivationUse use) {
  ActivationArena measure;
  DecoderActivations(measure, model, sequences, use);
  return measure.bytes();
}

std::string model_summary(const RunConfig& config) {
  const ModelConfig& model = config.model;
  const int B = config.micro_batch();
  const ParameterLayout layout = run_parameters(config);
  ActivationArena arena;
  DecoderActivations(arena, model, B);

  std::string text =
      fmt::format("parameters ({}, {} heads of {} channels)\n", precision_name, model.heads, model.head_width());
  for (const ParameterEntry& entry : layout.entries())
    text += table_row(entry.name, entry.axes, entry.shape, entry.size() * sizeof(Real));
  text += fmt::format("\nactivations and scratch of one micro-batch: B={} T={} N={}\n", B, model.context,
                      long(B) * model.context);
  for (const ArenaEntry& entry : arena.entries())
    text += table_row(entry.name, entry.axes, entry.shape, entry.bytes);

  const std::size_t padding = padding_parameters(model);
  text += fmt::format("\nparameters        {:>14L}{}\n", layout.parameters() - padding,
                      padding == 0 ? "" : fmt::format("  (and {} that pad the vocabulary)", padding));
  text += fmt::format("FLOPs per token   {:>14.4g}  (training, causal attention)\n", flops_per_token(model));
  text +=
      fmt::format("tokens per step   {:>14}  ({} sequences, {} micro-batches of {})\n",
                  long(config.training.batch) * model.context, config.training.batch, config.training.batch / B, B);
  if (!config.training.batch_warmup.empty())
    text += fmt::format("batch warm-up     {:>14}  (sequences of the first steps, {} each)\n",
                        fmt::join(config.training.batch_warmup, ", "), config.training.batch_warmup_steps);
  text += fmt::format("FLOPs per step    {:>14.4g}\n",
                      flops_per_token(model) * double(config.training.batch) * model.context);
  if (const double flops = optimizer_flops(config); flops > 0)
    text += fmt::format("FLOPs of Muon     {:>14.4g}  (per step besides, of all ranks together)\n", flops);
  text += fmt::format("matrix products   {}\n", product_library());
  if (const std::string effect = product_library_effect(); !effect.empty()) text += fmt::format("  {}\n", effect);
  return text;
}

}  // namespace dekoder
