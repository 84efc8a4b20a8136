// SPDX-License-Identifier: Apache-2.0
#include "launcher/command_line.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/error.hpp"
#include "base/utf8.hpp"
#include "config/closest_word.hpp"
#include "config/run_config_yaml.hpp"
#include "config/setting_value.hpp"
#include "launcher/signal_table.hpp"

namespace dekoder {

namespace {

/// An option whose value is one decimal number (read_number) and nothing else; CLI11 itself would read octal, hex
/// and digits with marks between. A default that is not shown means that the option was not given: its value, which
/// is below 0, cannot be given.
template <Number T>
void add_number(CLI::App& app, const std::string& name, T& member, const std::string& text,
                bool show_default = true) {
  const Range range = std::is_unsigned_v<T> || !show_default ? at_least(0) : Range{};
  const auto read = [name, &member, range](const CLI::results_t& words) {
    const std::string expected = read_number(words.back(), member, range);
    const std::string& word = words.back();
    if (!expected.empty())
      throw ConfigError("{} is {}; expected {}", name, word.empty() ? "''" : excerpt(word), expected);
    return true;
  };
  CLI::Option* option = app.add_option(name, read, text)->type_name(std::is_integral_v<T> ? "INT" : "FLOAT");
  if (show_default) option->default_str(fmt::format("{}", member));
}

/// A flag that takes no value, or true or false.
void add_switch(CLI::App& app, const std::string& name, bool& member, const std::string& text) {
  app.add_flag(name, member, text)->check(CLI::IsMember({"true", "false"}).description(""));
}

void add_config(CLI::App& app, Command& command) {
  app.add_option("config", command.config, "configuration file (YAML)")->required();
  app.add_option("--set", command.sets, "section.key=value: wins over the file; may be repeated")
      ->allow_extra_args(false);
}

void add_run(CLI::App& app, Command& command, const char* text) {
  app.add_option("run", command.run, text)->required();
}

void add_checkpoint(CLI::App& app, Command& c) {
  app.require_subcommand(1);
  const auto action = [&](const char* name, int paths, const char* what, const char* text, const char* footer) {
    CLI::App* command = app.add_subcommand(name, text);
    command->footer(footer);
    command->fallthrough();  // --backend behind it too
    CLI::Option* option = command->add_option("paths", c.paths, what)->required();
    if (paths > 0) option->expected(paths);
  };
  action("list", 1, "run directory, or its folder of checkpoints",
         "A table, newest last: step, loss, size, latest, best or kept, VALID or what is wrong.",
         "Reads every file whole and checks its digests. Exit code 0 also where some are damaged (`verify` tells\n"
         "that), 3 where there is no such folder or it cannot be listed.\n"
         "Example:\n  dekoder checkpoint list runs/first");
  action("verify", 0, "checkpoint files, run directories, folders of checkpoints",
         "Digests, the layout of the state, finite values: one line per file.",
         "Exit code 0 where all are valid, else 3. A file that a run deletes meanwhile is no fault.\n"
         "Example:\n  dekoder checkpoint verify runs/first runs/second/checkpoints/ckpt-00002000.h5");
  action("diff", 2, "checkpoint files, or run directories: their newest",
         "Two checkpoints, tensor by tensor: parameters, both moments, and all fields.",
         "For each tensor that is not equal bit for bit: how many elements differ, max |a - b|,\n"
         "max |a - b| / max(|a|, |b|), index and values of the first one. One block of about 1 MiB of each is in\n"
         "memory. Exit code 0 where the two are equal, 1 where they differ, 3 where one cannot be read.\n"
         "Example:\n  dekoder checkpoint diff runs/first runs/second/checkpoints/ckpt-00002000.h5");
}

void add_commands(CLI::App& app, CommandLine& line) {
  Command& c = line.command;
  const auto sub = [&](const char* name, const char* text, const char* example) {
    CLI::App* command = app.add_subcommand(name, text);
    command->footer(std::string("Example:\n  ") + example);
    command->add_option("--backend", line.backend, "auto, openmp or cuda")->capture_default_str();
    return command;
  };
  const auto add_precision = [&](CLI::App& command, const char* text) {
    command.add_option("--precision", line.precision, text)
        ->check(CLI::IsMember({"auto", "float", "bf16"}).description(""));
  };
  constexpr const char* of_the_run = "float or bf16 (default: the run's, by its config.yaml)";
  CLI::App* train = sub("train", "Train, or go on from the newest valid checkpoint of the run directory.",
                        "dekoder train input/quickstart.yaml --run runs/first --set training.steps=500");
  add_config(*train, c);
  train->add_option("--run", c.run, "run directory (default: runs/<name of the configuration>)");
  add_switch(*train, "--fresh", c.fresh,
             "set the run directory's earlier checkpoints and logs aside and start over");
  train->add_option("--time-left", c.time_left,
                    "of the job, as squeue -o %L prints it: saves and stops before (default: SLURM_JOB_END_TIME)");
  add_number(*train, "--until", c.until,
             "step at which this start saves and ends, exit code 85; schedule and numbers stay those of "
             "training.steps (default: the last)",
             false);

  CLI::App* prepare =
      sub("prepare", "Turn texts, or token shards of llm.c and nanoGPT, into a token file.",
          "dekoder prepare austen.txt -o data/austen-byte.h5 --tokenizer byte\n"
          "  dekoder prepare corpus/ more.jsonl.zst -o data/corpus.h5 --tokenizer gpt2/tokenizer.json\n"
          "  dekoder prepare austen.txt -o data/austen-bpe.h5 --tokenizer bpe --vocabulary 4096\n"
          "  cat *.jsonl | dekoder prepare - --field content -o data/corpus.h5\n"
          "  dekoder prepare fineweb10B/ -o data/fineweb.h5 --tokenizer gpt2/vocab.bpe");
  prepare
      ->add_option(
          "text", c.paths,
          "text files, folders of them, JSON lines (*.jsonl), gzip and zstd too; -: standard input; or token "
          "shards (*.bin): of llm.c, or uint16 as nanoGPT has them")
      ->required();
  prepare->add_option("-o,--output", c.output, "token file (HDF5)")->required();
  prepare
      ->add_option("--tokenizer", c.tokenizer,
                   "byte, char, bpe (made from the texts), or a file: tokenizer.json, merges (vocab.bpe, "
                   "merges.txt), ranks of "
                   "tiktoken, a .model of SentencePiece")
      ->capture_default_str();
  prepare->add_option("--split", c.split,
                      "how text is cut before merges, with bpe and ranks: gpt2 (default), cl100k, qwen2");
  add_number(*prepare, "--vocabulary", c.vocabulary, "tokens of bpe, e.g. 8192");
  prepare->add_option("--field", c.field,
                      "of JSON lines, that has the text (default: text); on standard input: these");
  add_switch(*prepare, "--skip-bad-lines", c.skip_bad_lines,
             "leaves JSON lines out that are broken or have no text in the field, and counts them; else the first "
             "one is an error");
  add_number(
      *prepare, "--validation-fraction", c.validation_fraction,
      "held out: share of one text's tokens, at its end, or of several documents, or of shards none of which has "
      "val in its name (default: 0.1)",
      false);

  CLI::App* tokens = sub("tokens", "What is in a token file: sizes, lengths of documents, first tokens.",
                         "dekoder tokens data/austen-byte.h5 --show 50\n"
                         "  dekoder tokens data/corpus.h5 --shards shards --shard-tokens 10000000");
  tokens->add_option("file", c.tokens_file, "token file")->required();
  tokens->add_option("-o,--output", c.output, "writes the tokenizer.json of a bpe file there");
  add_number(*tokens, "--show", c.show, "how many tokens are printed, with their texts");
  tokens->add_option("--shards", c.shards, "folder that gets the tokens as shards (*.bin) of llm.c or nanoGPT");
  tokens->add_option(
      "--shard-format", c.shard_format,
      "llm.c (default): NAME_val_000000.bin, NAME_train_000001.bin and so on, of 4 bytes a token where "
      "the vocabulary has more than 65536; nanogpt: train.bin and val.bin");
  add_number(*tokens, "--shard-tokens", c.shard_tokens, "in each shard of llm.c (default: 100000000)", false);

  CLI::App* eval = sub("eval", "Validation loss of a checkpoint.", "dekoder eval runs/first");
  add_run(*eval, c, "run directory or checkpoint file");
  add_precision(*eval, of_the_run);
  eval->add_option("--tokens-file", c.tokens_file, "another token file than the run's");

  CLI::App* generate = sub("generate", "Write text with a checkpoint, as it comes.",
                           "dekoder generate runs/first --prompt \"It is a truth\" --temperature 0.8 --top-p 0.95\n"
                           "  dekoder generate runs/first --prompts prompts.jsonl -o texts.jsonl --stop \". \"");
  add_run(*generate, c, "run directory or checkpoint file");
  add_precision(*generate, of_the_run);
  generate->add_option("--prompt", c.prompt, "text to go on from (default: a line break)");
  generate->add_option("--prompts", c.prompts,
                       "JSON lines, each with a text in its field prompt; results are JSON lines too");
  generate->add_option("-o,--output", c.output, "new file that gets the results, as JSON lines (default: stdout)");
  add_number(*generate, "--tokens", c.tokens, "length, at most");
  generate->add_option("--stop", c.stops, "a text ends before this; may be repeated")->allow_extra_args(false);
  add_number(*generate, "--temperature", c.temperature, "0 takes the most likely token");
  add_number(*generate, "--top-k", c.top_k, "keep the k most likely tokens; 0: all");
  add_number(*generate, "--top-p", c.top_p, "keep the smallest set of this mass");
  add_number(*generate, "--min-p", c.min_p,
             "keep those of at least this share of the most likely one's probability");
  add_number(*generate, "--repetition-penalty", c.repetition_penalty,
             "divides logits of tokens that the text has, or multiplies negative ones");
  add_number(*generate, "--seed", c.seed, "of the draws");
  add_number(*generate, "--logprobs", c.logprobs,
             "results are JSON lines with the log-probabilities of the tokens and of so many best ones", false);
  add_number(*generate, "--context", c.context,
             "tokens that a text is continued from (default: those of training); more without learned positions",
             false);

  CLI::App* attention =
      sub("attention", "Attention maps and head statistics of a text, from a checkpoint, into an HDF5 file.",
          "dekoder attention runs/first --text \"It is a truth universally acknowledged\"");
  add_run(*attention, c, "run directory or checkpoint file");
  add_precision(*attention, of_the_run);
  attention->add_option("--text", c.text, "the text, at most as long as the model's context")->required();
  add_number(*attention, "--step", c.step, "step of the checkpoint (default: the newest)", false);
  attention->add_option("-o,--output", c.output,
                        "file of the maps (default: attention-text.h5 in the run directory)");

  CLI::App* predictions =
      sub("predictions",
          "Of each token of held-out windows: truth, guess, rank, probabilities, best tokens, into HDF5.",
          "dekoder predictions runs/first --windows 16");
  add_run(*predictions, c, "run directory or checkpoint file");
  add_precision(*predictions, of_the_run);
  add_number(*predictions, "--windows", c.windows,
             "of the model's context, spread evenly over the held-out part; 0: all of it, one after the other");
  add_number(*predictions, "--top", c.top, "best tokens kept of each; 0: 10, or all of a smaller vocabulary");
  add_number(*predictions, "--step", c.step, "step of the checkpoint (default: the newest)", false);
  predictions->add_option("--tokens-file", c.tokens_file, "another token file than the run's");
  predictions->add_option("-o,--output", c.output,
                          "file of the table (default: predictions/step-<step>.h5 in the run directory)");

  CLI::App* to_others = sub("export", "Write a checkpoint as a model that transformers or llama.cpp loads.",
                            "dekoder export runs/first -o models/first\n"
                            "  python -c 'from transformers import pipeline; print(pipeline(\"text-generation\", "
                            "\"models/first\")(\"It is\"))'\n"
                            "  dekoder export runs/first -o first.gguf --dtype q8_0\n"
                            "  llama-server -m first.gguf");
  add_run(*to_others, c, "run directory or checkpoint file");
  to_others->add_option("-o,--output", c.output, "new folder for transformers, or FILE.gguf for llama.cpp")
      ->required();
  add_number(*to_others, "--step", c.step, "step of the checkpoint (default: the newest)", false);
  add_switch(*to_others, "--best", c.best, "the checkpoint of the least validation loss");
  to_others->add_option("--dtype", c.dtype, "of the weights: float32, float16, bfloat16, or q8_0 in FILE.gguf")
      ->capture_default_str();

  CLI::App* from_others =
      sub("import", "Begin a run from a model of transformers: GPT-2, Llama, Mistral, Qwen 3.",
          "dekoder import models/gpt2 -o runs/gpt2 --set model.context=512\n"
          "  dekoder prepare austen.txt -o data/austen.h5 --tokenizer models/gpt2/tokenizer.json\n"
          "  dekoder train runs/gpt2/config.yaml --run runs/gpt2 --set data.tokens=data/austen.h5");
  from_others->add_option("folder", c.folder, "with config.json, safetensors and tokenizer")->required();
  from_others->add_option("-o,--output", c.output, "run directory, which is new")->required();
  from_others->add_option("--set", c.sets, "section.key=value of the run; may be repeated")
      ->allow_extra_args(false);

  CLI::App* describe =
      sub("describe", "Every tensor with axes, shape and bytes; FLOPs; memory by term. Runs nothing.",
          "dekoder describe input/gpt2-124m.yaml");
  add_config(*describe, c);
  add_number(*describe, "--ranks", c.ranks, "memory of each of so many ranks");

  CLI::App* plan =
      sub("plan", "What a job will take, before it waits in a queue: memory of a rank, shares, messages, disk.",
          "dekoder plan input/gpt2-124m.yaml --ranks 16 --memory 80");
  add_config(*plan, c);
  add_number(*plan, "--ranks", c.ranks, "of the job");
  add_number(*plan, "--memory", c.memory, "GiB that a rank may take: more is refused; 0: not known");
  plan->add_option("--run", c.run, "run directory (default: runs/<name of the configuration>)");

  CLI::App* bench = sub("bench", "Tokens/s, GFLOP/s and share of this machine's GEMM rate, on random tokens.",
                        "dekoder bench input/gpt2-124m.yaml --set training.batch=4 --json");
  add_config(*bench, c);
  add_number(*bench, "--steps", c.steps, "timed steps; 0: as many as fill ten seconds");
  add_switch(*bench, "--json", c.json, "one JSON object on stdout");

  sub("compare",
      "Whether runs are a pair, and what differs: dekoder-compare of the post-processing, by this name too.",
      "dekoder compare runs/positions runs/no-positions");
  sub("watch", "Losses of runs in the terminal, live: dekoder-watch of the post-processing, by this name too.",
      "dekoder watch runs/first");
  sub("runs",
      "A table of all runs below folders, best first: dekoder-runs of the post-processing, by this name too.",
      "dekoder runs runs --where 'training.batch>16 and model.norm==pre'");
  sub("sweep",
      "Trials of a configuration with settings drawn: dekoder-sweep of the post-processing, by this name too.",
      "dekoder sweep input/sweep-talk.yaml runs/sweep\n  dekoder sweep work runs/sweep");

  CLI::App* replay =
      sub("replay", "Compute a step that was not finite again, from its black box, and say where it began.",
          "dekoder replay runs/first/black_box/step-00000014.h5");
  add_run(*replay, c, "file that `dekoder train` wrote");
  add_precision(*replay, of_the_run);

  CLI::App* selftest =
      sub("selftest", "Whether these nodes train right, in a minute: numbers, ranks, placement, files.",
          "srun dekoder selftest --folder runs");
  selftest->add_option("--folder", c.folder, "where files are tried, such as the one of run directories")
      ->capture_default_str();
  add_precision(*selftest, "of the numbers, float or bf16 (default: float)");

  CLI::App* initial_values =
      sub("initial-values", "Digests of the values that a run's tensors begin with, as JSON.",
          "dekoder initial-values runs/first");
  add_run(*initial_values, c, "run directory");

  CLI::App* status =
      sub("status", "Where a run stands, by its directory or with the words of `train`.",
          "dekoder status runs/first\n  dekoder status input/quickstart.yaml --set training.steps=500");
  status->add_option("run_or_config", c.config, "run directory, or configuration file")->required();
  status->add_option("--run", c.run, "with a configuration: run directory (default: runs/<its name>)");
  status->add_option("--set", c.sets, "with a configuration: section.key=value; may be repeated")
      ->allow_extra_args(false);
  add_switch(*status, "--json", c.json, "one JSON object on stdout");

  add_checkpoint(*sub("checkpoint", "List, verify and compare checkpoints; changes none, also while a run writes.",
                      "dekoder checkpoint list runs/first"),
                 c);
}

/// An empty word says no more than one that is left out, and would mean the current folder, or the default,
/// silently.
void refuse_empty_words(const CLI::App& command) {
  for (const CLI::App* inner : command.get_subcommands()) refuse_empty_words(*inner);
  for (const CLI::Option* option : command.get_options())
    for (const std::string& word : option->results())
      if (word.empty())
        throw ConfigError("{} is empty; expected: {}", option->get_name(), option->get_description());
}

/// The word after `status` is the configuration where it is a file; else the run directory, which needs no more.
void place_status_words(Command& command) {
  std::error_code ignored;
  if (command.name != "status" || std::filesystem::is_regular_file(command.config, ignored)) return;
  const std::filesystem::path path = command.config;
  if ((path.extension() == ".yaml" || path.extension() == ".yml") && !std::filesystem::exists(path, ignored))
    throw ConfigError("{}: no such configuration; expected a file; check the path, which is relative to {}",
                      excerpt(command.config), std::filesystem::current_path(ignored).string());
  if (!command.run.empty() || !command.sets.empty())
    throw ConfigError("status: {} is no configuration file; expected one in front of --run and --set",
                      excerpt(command.config));
  command.run = std::exchange(command.config, "");
}

/// "; did you mean 'train'?" for the first word that no subcommand or option has.
std::string suggestion(const CLI::App& app, int argc, char** argv) {
  const CLI::App* chosen = &app;
  int first = 1;
  const auto inner = [&](const char* word) {
    return chosen->get_subcommands([&](const CLI::App* command) { return command->get_name() == word; });
  };
  while (first < argc && !inner(argv[first]).empty()) chosen = inner(argv[first++]).front();
  std::vector<std::string> names;
  for (const CLI::App* command : chosen->get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  const bool takes_commands = !names.empty();
  for (const CLI::Option* option : chosen->get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  for (int i = first; i < argc; ++i) {
    const std::string word = std::string(argv[i]).substr(0, std::string(argv[i]).find('='));
    if (!takes_commands && !word.starts_with('-')) continue;
    if (std::find(names.begin(), names.end(), word) != names.end()) continue;
    if (const std::string close = closest_word(word, names); !close.empty())
      return fmt::format("; '{}': did you mean '{}'?", word, close);
  }
  return "; see dekoder --help";
}

}  // namespace

std::optional<CommandLine> read_command_line(int argc, char** argv) {
  CLI::App app("dekoder: trains decoder-only transformers, on CPUs and GPUs", "dekoder");
  app.set_version_flag("--version", "dekoder " DEKODER_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 finished, 85 saved and wants to go on, 1 a fault of the program (checkpoint diff: different), "
      "2 "
      "usage,\n"
      "configuration, environment or memory, 3 no usable data or checkpoint, or not written, 4 numbers diverged. "
      "`dekoder COMMAND --help` "
      "shows an example.");
  CommandLine line;
  add_commands(app, line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& wanted) {
    app.exit(wanted);
    return std::nullopt;
  } catch (const CLI::Error& error) {
    throw ConfigError("command line: {}{}", excerpt(error.what(), 300), suggestion(app, argc, argv));
  }
  refuse_empty_words(*app.get_subcommands().front());
  line.command.name = app.get_subcommands().front()->get_name();
  for (const CLI::App* action : app.get_subcommands().front()->get_subcommands())
    line.command.action = action->get_name();
  place_status_words(line.command);
  check_command(line.command);
  const std::string& config = line.command.config;
  std::error_code ignored;
  // A pipe's text may be long in coming, or never come: until it is there a signal ends any command.
  if (!config.empty() && !std::filesystem::is_regular_file(config, ignored)) handle_signals("");
  if (!config.empty()) line.command.config_text = read_config_text(config);
  return line;
}

}  // namespace dekoder
