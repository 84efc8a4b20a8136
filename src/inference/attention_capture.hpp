// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "data/data_mixture.hpp"
#include "io/run/attention_folder.hpp"
#include "io/run/checkpoint.hpp"
#include "io/run/metrics_log.hpp"
#include "model/decoder.hpp"

namespace dekoder {

/// Whether a run captures attention after `step` updates.
bool captures_attention(const RunConfig& config, long step);

/// The steps from `from` on after which a run captures attention.
std::set<long> attention_steps(const RunConfig& config, long from);

/// The probe of a text. Throws ConfigError that begins with `where` for an empty text, a character that the
/// vocabulary lacks, or more than `context` tokens.
AttentionProbe text_probe(const std::string& name, const std::string& source, const std::string& text,
                          const Tokenizer& tokenizer, int context, const std::string& where);

/// All probes of a run: text_<i> for the texts of the configuration, window_<i> for windows of the held-out part
/// (windows of them, spread evenly from its start). Throws ConfigError as text_probe, and where the held-out part
/// is shorter than a window.
std::vector<AttentionProbe> attention_probes(const RunConfig& config, const DataMixture& data);

/// What the attention files of a run in this state say: layers and heads in ascending order, all of them where the
/// configuration names none.
AttentionFileInfo attention_file_info(const RunConfig& config, const CheckpointInfo& state,
                                      const Tokenizer& tokenizer, std::vector<AttentionProbe> probes);

/// What a start of a run will put into its folder attention/.
struct AttentionPlan {
  AttentionFileInfo info;
  std::set<long> steps;     ///< those the folder will have at the end of the run, with these probes
  long to_come = 0;         ///< how many of them are not there yet
  std::uint64_t bytes = 0;  ///< what is there and stays, and an upper bound of what will come
};
/// The plan of a run that goes on from `resumed_step` (-1: a new run), with the attention files that it finds in
/// `folder`. Throws ConfigError as attention_probes, and where the files could take more than
/// attention.max_megabytes; changes nothing on the disk.
AttentionPlan plan_attention(const RunConfig& config, const CheckpointInfo& state, const DataMixture& data,
                             const std::filesystem::path& folder, long resumed_step);

/// Device memory of an AttentionCapture beside B sequences of T tokens of activations, where the longest probe has
/// `longest` tokens; not the activations.
std::size_t attention_capture_bytes(std::size_t sequences, std::size_t context, std::size_t longest);

/// The line of metrics.jsonl for the probe info.probes[probe] at one step. A run writes it as training arrives at
/// the step, or at step 0 of a new run, even where the maps cannot be saved. A restart writes none for the step it
/// goes on from, even where it captures maps there, once more or of other probes: so no line is there twice.
AttentionMetrics attention_metrics(long step, const AttentionFileInfo& info, std::size_t probe,
                                   const AttentionMaps& maps);

/// Recomputes the attention weights of probes, which the fused kernel never stores, one head at a time. All device
/// memory is taken at construction: attention_capture_bytes.
class AttentionCapture {
 public:
  /// `activations` serve as scratch: their B sequences bound the probes of one forward pass. Keeps references to
  /// both.
  AttentionCapture(const Decoder& decoder, const DecoderActivations& activations, const AttentionFileInfo& info);

  const AttentionFileInfo& info() const { return info_; }

  /// Weights and statistics of every probe, in the order of the info, under the decoder's parameters, without
  /// dropout. Overwrites the activations and nothing else.
  std::vector<AttentionMaps> capture(const ExecSpace& exec) const;

 private:
  void append_maps(const ExecSpace& exec, const AttentionProbe& probe, int row, int layer,
                   AttentionMaps& maps) const;

  const Decoder& decoder_;
  const DecoderActivations& activations_;
  AttentionFileInfo info_;
  TokenTensor2 tokens_;       ///< (B,T)
  MasterTensor1 weights_;     ///< (n n), one head of the longest probe, of n tokens
  AccumulatorTensor1 sums_;   ///< (n 8), scratch of the statistics
  MasterTensor2 statistics_;  ///< (1,S), of that head
};

}  // namespace dekoder
