// SPDX-License-Identifier: Apache-2.0
// What a model at one step of training says of each token of held-out text = one HDF5 file that never changes,
// predictions/step-00000500.h5 of a run directory. A table of N tokens, a dataset per column:
//   /                        attributes format, major, minor (int32), step (int64), run_id, config (resolved YAML),
//                            writer, tokenizer ("byte", "char", "bpe", "sentencepiece"), source (name of the text),
//                            data_hash ("<sha256 of the text>/<training tokens>"), validation_tokens (uint64; M, of
//                            the held-out part), validation_hash (SHA-256 of the last training token and all
//                            held-out ones, as little-endian 32-bit words), context (int32; T), vocabulary (int32;
//                            V), top (int32; K); text is fixed-length UTF-8
//   /token_text              fixed-length UTF-8 (V), gzip: what each token stands for, of more than 512 bytes the
//                            beginning and their number; a mark's name, such as </s>, where it stands for no text;
//                            empty where the tokenizer has no such token
//   /window                  int32 (N) number of the window, from 0
//   /position                int64 (N) place of the truth in the held-out part, from 0; a window is a stretch of it
//   /input                   int32 (N) the token before: the model saw those of its window up to this one
//   /truth, /guess           int32 (N) the token of the text; the one of the highest logit
//   /rank                    int32 (N) of the truth: how many tokens are before it by logit; 0: it was guessed
//   /surprise                float32 (N) -ln p(truth), nats
//   /truth_probability, /guess_probability   float32 (N)
//   /top_tokens              int32 (N,K) the K tokens of the highest logits, in descending order
//   /top_log_probabilities   float32 (N,K) ln p of these, nats
// Of equal logits the smaller token is first. Columns have the attributes axes ("token", "token,place") and, where
// they have one, unit ("nats", "probability"); gzip, shuffle, Fletcher32. In texts a byte that is no UTF-8 reads
// \xC3 (four characters), and so does a NUL. Two files are of the same tokens where validation_hash is the same; a
// window that begins at the same position then has the same truths, seen after the same tokens, as far as both go.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

namespace prediction_file {

inline constexpr const char* format = "dekoder-predictions";
inline constexpr std::int32_t major_version = 1;  ///< another one is refused
inline constexpr std::int32_t minor_version = 0;  ///< additions that older readers may ignore

}  // namespace prediction_file

/// What a file says beside its table.
struct PredictionFileInfo {
  long step = 0;                         ///< optimizer steps done
  std::string run_id;                    ///< names the run over all its restarts
  std::string config_yaml;               ///< the resolved configuration
  std::string writer;                    ///< program version and backend, for information only
  std::string tokenizer;                 ///< its kind, "bpe"
  std::string source;                    ///< name of the text
  std::string data_hash;                 ///< TokenFileHeader::identity of the token file
  std::uint64_t validation_tokens = 0;   ///< M
  std::string validation_hash;           ///< of the whole held-out part
  int context = 0;                       ///< T of the model
  std::vector<std::string> token_texts;  ///< V, the bytes each token stands for, or its name
};

/// The table: columns of one length, the last two of K values for each token.
struct PredictionTable {
  int top = 0;  ///< K
  std::vector<std::int32_t> window;
  std::vector<std::int64_t> position;
  std::vector<Token> input, truth, guess;
  std::vector<std::int32_t> rank;
  std::vector<float> surprise, truth_probability, guess_probability;
  std::vector<Token> top_tokens;             ///< (N,K)
  std::vector<float> top_log_probabilities;  ///< (N,K)
};

/// Writes a file, which takes the place of one at `path`: a PendingFile, read back before it has its name. Throws
/// SaveError where the disk does not take it: what is at `path` is as before; ShapeError (a fault of the program)
/// where columns have other lengths.
void write_prediction_file(const std::filesystem::path& path, PredictionFileInfo info,
                           const PredictionTable& table);

/// Throws DataError where the file is none that write_prediction_file wrote.
void require_prediction_file(const std::filesystem::path& path);

/// Upper bound of a file's size in bytes.
std::uint64_t prediction_bytes(const PredictionFileInfo& info, const PredictionTable& table);

}  // namespace dekoder
