// SPDX-License-Identifier: Apache-2.0
#include "commands/generate_command.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json_node.hpp"
#include "base/stop_signal.hpp"
#include "commands/command_files.hpp"
#include "inference/generated_text.hpp"
#include "inference/generator.hpp"
#include "inference/inference_model.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/input_file.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string dumped(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

struct Prompt {
  std::string object;  ///< its JSON object as it was written, but for the closing brace
  std::string place;   ///< for messages
  std::string text;
};

/// The prompts of a file of JSON lines; lines of nothing but blanks are none.
std::vector<Prompt> read_prompts(const fs::path& file) {
  constexpr std::string_view expected = "a JSON object in each line, with its text in the field \"prompt\"";
  const auto lines = read_text_file(file, "file of prompts");
  if (!lines) throw DataError("{}: no such file; expected {}", file.string(), expected);
  std::vector<Prompt> prompts;
  std::string_view rest = *lines;
  if (rest.starts_with("\xef\xbb\xbf")) rest.remove_prefix(3);
  for (long number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = fmt::format("{}:{}:", file.string(), number);
    const nlohmann::json object = read_json(line, place.substr(0, place.size() - 1), expected);
    const JsonNode node{object, place};
    const JsonNode prompt = node["prompt"];
    if (prompt.is_null()) throw DataError("{} has no field \"prompt\"; expected {}", place, expected);
    for (const char* name : {"text", "tokens", "finish", "logprobs"})
      if (object.contains(name))
        throw DataError("{} has a field \"{}\", which is one of the result's; rename it", place, name);
    prompts.push_back({std::string(line.substr(0, line.rfind('}'))), prompt.place, prompt.text()});
  }
  if (prompts.empty()) throw DataError("{}: has no prompt; expected {}", file.string(), expected);
  return prompts;
}

/// Throws ConfigError or, for those of a file, DataError.
std::vector<std::vector<Token>> tokens_of(const std::vector<Prompt>& prompts, const InferenceModel& model,
                                          const Command& command, int context) {
  std::vector<std::vector<Token>> tokens;
  for (const Prompt& prompt : prompts) try {
      if (prompt.text.empty())
        throw ConfigError("{} is empty; expected at least one character to go on from", prompt.place);
      tokens.push_back(model.tokenizer.encode(prompt.text, prompt.place));
      const std::size_t length = tokens.back().size();
      if (length == 0)
        throw ConfigError("{} is {}, which the tokenizer has no token for; expected at least one to go on from",
                          prompt.place, dumped(prompt.text));
      if (length > std::size_t(context))
        throw ConfigError(
            "{} has {} tokens, and the context {}; shorten it{}", prompt.place, length, context,
            model.config.model.positions == Positions::learned && context == model.config.model.context
                ? ""
                : ", or raise --context");
    } catch (const ConfigError& error) {
      if (command.prompts.empty()) throw;
      throw DataError("{}", error.what());
    }
  return tokens;
}

/// The most tokens that a text is continued from: --context, or the model's own.
int context_of(const Command& command, const ModelConfig& model) {
  if (command.context < 0) return model.context;
  if (model.positions == Positions::learned && command.context > model.context)
    throw ConfigError("--context is {}, and the model has learned {} positions; expected at most so many",
                      command.context, model.context);
  return command.context;
}

Json ranked(const Tokenizer& tokenizer, const RankedToken& one) {
  return {{"id", one.token}, {"text", tokenizer.listed(one.token)}, {"logprob", one.log_probability}};
}

/// What has come of one prompt.
struct Result {
  GeneratedText characters;
  std::string text;
  int tokens = 0;
  const char* finish = nullptr;  ///< why it is whole
  Json logprobs = Json::array();
};

void add_token(Result& result, const DrawnToken& drawn, const Tokenizer& tokenizer, const Command& command) {
  ++result.tokens;
  if (command.logprobs >= 0) {
    Json best = Json::array();
    for (const RankedToken& one : drawn.best) best.push_back(ranked(tokenizer, one));
    result.logprobs.push_back(ranked(tokenizer, {drawn.token, drawn.log_probability}));
    result.logprobs.back()["best"] = best;
  }
  if (drawn.token == tokenizer.end_of_text())
    result.finish = "end_of_text";
  else if (result.text += result.characters.push(drawn.token); result.tokens == command.tokens)
    result.finish = "length";
  if (result.finish != nullptr) result.text += result.characters.finish();  // which may complete a stop string, too
  if (result.characters.stopped()) result.finish = "stop";
}

std::string json_line(const Prompt& prompt, const Result& result, const Command& command) {
  Json added = {{"text", result.text}, {"tokens", result.tokens}, {"finish", result.finish}};
  if (command.logprobs >= 0) added["logprobs"] = result.logprobs;
  return fmt::format("{}, {}\n", prompt.object, dumped(added).substr(1));
}

}  // namespace

ExitCode generate_texts(const Command& command, const std::function<void(const std::string&)>& print) {
  const bool as_json = !command.prompts.empty() || !command.output.empty() || command.logprobs >= 0;
  if (!command.output.empty())
    check_output(command.output,
                 [](const fs::path& file) { throw DataError("{}: is there already", file.string()); });
  const auto model = load_inference_model(command.run);
  const Tokenizer& tokenizer = model->tokenizer;
  const int context = context_of(command, model->config.model);
  const std::vector<Prompt> prompts =
      command.prompts.empty()
          ? std::vector{Prompt{"{\"prompt\": " + dumped(command.prompt), "--prompt", command.prompt}}
          : read_prompts(command.prompts);
  const std::vector<std::vector<Token>> tokens = tokens_of(prompts, *model, command, context);

  // No longer than the longest text can be, so that keys and values take no more memory than it needs.
  const std::size_t longest = std::ranges::max(tokens, {}, &std::vector<Token>::size).size();
  ModelConfig shape = model->config.model;
  shape.context = int(std::min(std::size_t(context), longest + std::size_t(command.tokens)));
  const Decoder decoder(shape, model->store);
  Generator generator(decoder, tokenizer.vocabulary(), command.prompts.empty() ? 1 : Generator::together);
  Drawing drawing(SamplingConfig{0, command.prompt, command.tokens, command.temperature, command.top_k,
                                 command.top_p, command.seed});
  drawing.min_p = command.min_p;
  drawing.repetition_penalty = command.repetition_penalty;
  drawing.log_probabilities = command.logprobs;

  std::vector<Result> results(prompts.size(), Result{GeneratedText(tokenizer, command.stops), "", 0, nullptr});
  std::size_t printed = 0;
  std::string file;
  if (!as_json) print(command.prompt);
  generator.generate(ExecSpace(), tokens, drawing, [&](std::size_t p, const DrawnToken& drawn) {
    Result& result = results[p];
    add_token(result, drawn, tokenizer, command);
    if (!as_json) print(std::exchange(result.text, ""));
    for (; as_json && printed < results.size() && results[printed].finish != nullptr; ++printed) {
      const std::string line = json_line(prompts[printed], results[printed], command);
      if (command.output.empty())
        print(line);
      else
        file += line;
      results[printed].logprobs.clear();
    }
    if (stop_requested() != 0) return Then::end_all;
    return result.finish != nullptr ? Then::end_text : Then::go_on;
  });
  if (!as_json) print((results[0].finish == nullptr ? results[0].characters.finish() : "") + "\n");
  if (as_json && printed < results.size()) return ExitCode::wants_to_go_on;
  if (!command.output.empty()) write_file_whole(command.output, file);
  return ExitCode::finished;
}

}  // namespace dekoder
