// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dekoder {

/// What the launcher read from the command line, for every subcommand; it crosses the plug-in border as YAML text.
struct Command {
  std::string name;    ///< train, prepare, tokens, eval, generate, describe, plan, bench, status, attention,
                       ///< predictions, replay, initial-values, checkpoint, selftest, export, import
  std::string action;  ///< checkpoint: list, verify or diff
  std::vector<std::string> paths;  ///< checkpoint: run directories, folders and files of checkpoints;
                                   ///< prepare: files and folders of texts or token shards, "-"
  std::string config;              ///< train, describe, plan, bench, status: configuration file; status: or none
  std::string config_text;         ///< its contents, read once by the launcher
  std::vector<std::string> sets;   ///< train, describe, plan, bench, status, import: "section.key=value"
  std::string
      run;  ///< train, plan, eval, generate, status, attention, predictions, initial-values, export: run directory
            ///< (eval, generate, attention, predictions, export: or a checkpoint file); replay: black box
  bool fresh = false;     ///< train: start over in a run directory that has checkpoints
  std::string time_left;  ///< train: of the job, as read_time_left; empty: that of SLURM_JOB_END_TIME, if any
  long until = -1;        ///< train: saves and ends at this step; -1: at the last of the run
  std::string text;       ///< attention: the text itself
  std::string output;     ///< prepare: token file; attention: file of maps, empty: attention-text.h5 of the run
                          ///< directory; predictions: the table, empty: predictions/step-<step>.h5 of the run
                          ///< directory; export: folder, or file *.gguf; import: run directory; generate: results,
                          ///< empty: stdout
  std::string folder = ".";          ///< selftest: where files are tried; import: of the model
  long step = -1;                    ///< attention, predictions, export: of the checkpoint; -1: the newest
  bool best = false;                 ///< export: the checkpoint of the least validation loss
  std::string dtype = "float32";     ///< export: of the weights, float32, float16, bfloat16 or q8_0
  std::string tokenizer = "byte";    ///< prepare: byte, char, bpe or the path of a file
  std::string split;                 ///< prepare: of bpe and of a rank file of tiktoken; empty: gpt2
  int vocabulary = 0;                ///< prepare: of the tokenizer bpe, which is made from the texts
  std::string field;                 ///< prepare: of JSON lines; empty: text
  bool skip_bad_lines = false;       ///< prepare: of JSON lines
  double validation_fraction = -1.;  ///< prepare: share of tokens or documents that is held out; -1: not given
  std::string tokens_file;           ///< eval, predictions: another token file than the run's; tokens: the file
  int show = 20;                     ///< tokens: how many are printed
  std::string shards;                ///< tokens: folder that gets the tokens as shards; empty: none
  std::string shard_format;          ///< tokens: llm.c or nanogpt; empty: llm.c
  long shard_tokens = -1;            ///< tokens: in each shard of llm.c; -1: 100,000,000
  std::string prompt = "\n";         ///< generate
  std::string prompts;               ///< generate: JSON lines; empty: the one prompt
  std::vector<std::string> stops;    ///< generate: texts that end one
  int tokens = 200;                  ///< generate: length
  double temperature = 0.8;          ///< generate: 0 takes the most likely token
  int top_k = 0;                     ///< generate: 0 keeps all
  double top_p = 1.0;                ///< generate
  double min_p = 0;                  ///< generate: 0 keeps all
  double repetition_penalty = 1;     ///< generate: 1 changes nothing
  int logprobs = -1;       ///< generate: best tokens told with log-probabilities; -1: no log-probabilities
  int context = -1;        ///< generate: tokens that a text is continued from; -1: that of the model
  std::uint64_t seed = 1;  ///< generate
  int windows = 8;         ///< predictions: of held-out text; 0: all of it
  int top = 0;             ///< predictions: best tokens kept of each; 0: 10, or all of fewer
  int steps = 0;           ///< bench: timed steps; 0: as many as fill ten seconds
  bool json = false;       ///< bench, status
  int ranks = 1;           ///< describe, plan: as started on so many
  double memory = 0;       ///< plan: GiB that a rank may take; 0: not known
  std::string backend;     ///< train, bench: which plug-in the launcher chose, and why; for the log
};

/// Whether the output of an export is a file of GGUF by its name.
bool is_gguf(const Command& command);

/// Throws ConfigError naming every option of the command that is out of range or no UTF-8, each with what is
/// expected.
void check_command(const Command& command);

std::string to_yaml(const Command& command);
/// Throws ConfigError where `text` was not made by to_yaml.
Command command_from_yaml(const std::string& text);

}  // namespace dekoder
