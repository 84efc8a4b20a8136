// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/sentencepiece_tokenizer.hpp"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <unordered_set>

#include "base/error.hpp"
#include "base/utf8.hpp"

namespace dekoder {

namespace {

constexpr std::size_t most_bytes = 268435456;    ///< of a model; the largest known have 16 MB
constexpr std::size_t most_pieces = 16777216;    ///< tokens are below
constexpr std::size_t longest_piece = 4096;      ///< bytes; the library recurs over the characters of one
constexpr std::size_t most_nested_symbols = 64;  ///< prefixes of each other: what the library has room for
constexpr int most_nested_rules = 32;            ///< the same, of the rules of normalization
constexpr int longest_rule = 256;                ///< bytes that a rule replaces
/// Bytes that a rule gives; the longest of the library's own rules, for U+FDFA, has 33. The library counts in int:
/// most_text of it with 3 bytes for each blank fit.
constexpr std::size_t longest_replacement = 42;
static_assert(SentencePieceTokenizer::most_text * longest_replacement * 3 + 3 <= std::size_t(INT32_MAX));

[[noreturn]] void refuse(std::string_view where, const std::string& what) {
  throw DataError("{}: {}; expected a .model file of SentencePiece, unigram or BPE", where, what);
}

/// The fields of a message in the wire format of Protocol Buffers, one after the other, without groups.
class Fields {
 public:
  Fields(std::string_view message, std::string_view where) : rest_(message), where_(where) {}

  /// The next field's number; 0 at the end.
  std::uint32_t next() {
    if (rest_.empty()) return 0;
    const std::uint64_t tag = varint();
    type_ = tag & 7;
    if (tag >> 3 == 0 || tag > UINT32_MAX) refuse(where_, fmt::format("has a field with the tag {}", tag));
    if (type_ == 0)
      number_ = varint();
    else if (type_ == 1)
      bytes_ = take(8);
    else if (type_ == 2)
      bytes_ = take(varint());
    else if (type_ == 5)
      bytes_ = take(4);
    else
      refuse(where_, fmt::format("has a field of the wire type {}", type_));
    return static_cast<std::uint32_t>(tag >> 3);
  }
  std::uint64_t number() const { return of_type(0), number_; }
  std::string_view bytes() const { return of_type(2), bytes_; }
  float real() const {
    of_type(5);
    std::uint32_t bits = 0;
    for (int i = 0; i < 4; ++i) bits |= std::uint32_t(static_cast<unsigned char>(bytes_[std::size_t(i)])) << 8 * i;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      if (shift == 63 && byte > 1) break;
      value |= std::uint64_t(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    refuse(where_, "has a number of more than 64 bits");
  }
  std::string_view take(std::uint64_t count) {
    if (count > rest_.size())
      refuse(where_, fmt::format("has a field of {} bytes where {} are left", count, rest_.size()));
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  void of_type(unsigned type) const {
    if (type_ != type) refuse(where_, fmt::format("has the wire type {} where {} is due", type_, type));
  }

  std::string_view rest_, where_, bytes_;
  std::uint64_t number_ = 0;
  unsigned type_ = 0;
};

enum class PieceType : std::uint64_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct Piece {
  std::string_view text;
  PieceType type = PieceType::normal;
};

/// What is checked or used of a ModelProto (sentencepiece_model.proto); parts of it are views of the model's bytes.
struct Description {
  std::vector<Piece> pieces;
  std::uint64_t model_type = 1;  ///< 1: unigram, 2: BPE
  std::string_view unknown_text = " \u2047 ";
  bool dummy_prefix = true;
  std::string_view rules, rules_back;  ///< of normalization, and of what decoding would undo
};

bool is_text(std::string_view bytes) {
  return bytes.find('\0') == std::string_view::npos && !find_utf8_fault(bytes);
}

Piece read_piece(std::string_view message, std::size_t token, std::string_view where) {
  Piece piece;
  Fields fields(message, where);
  while (const std::uint32_t field = fields.next()) {
    if (field == 1) piece.text = fields.bytes();
    if (field == 2 && !std::isfinite(fields.real()))
      refuse(where, fmt::format("piece {} has the score {}", token, fields.real()));
    if (field == 3) piece.type = PieceType(fields.number());
  }
  if (piece.type < PieceType::normal || piece.type > PieceType::byte)
    refuse(where, fmt::format("piece {} has the type {}", token, std::uint64_t(piece.type)));
  if (piece.text.empty() || piece.text.size() > longest_piece || !is_text(piece.text))
    refuse(where,
           fmt::format("piece {} is '{}', no text of 1 to {} bytes", token, excerpt(piece.text), longest_piece));
  return piece;
}

Description read_description(std::string_view model, std::string_view where) {
  Description read;
  std::unordered_set<std::string_view> texts;
  Fields fields(model, where);
  while (const std::uint32_t field = fields.next()) {
    if (field == 1) {
      if (read.pieces.size() == most_pieces) refuse(where, fmt::format("has more than {} pieces", most_pieces));
      read.pieces.push_back(read_piece(fields.bytes(), read.pieces.size(), where));
      if (!texts.insert(read.pieces.back().text).second)
        refuse(where, fmt::format("has the piece '{}' twice", excerpt(read.pieces.back().text)));
    } else if (field == 2) {
      Fields trainer(fields.bytes(), where);
      while (const std::uint32_t inner = trainer.next()) {
        if (inner == 3) read.model_type = trainer.number();
        if (inner == 44) read.unknown_text = trainer.bytes();
      }
    } else if (field == 3 || field == 5) {
      Fields rules(fields.bytes(), where);
      while (const std::uint32_t inner = rules.next()) {
        if (inner == 2) (field == 3 ? read.rules : read.rules_back) = rules.bytes();
        if (inner == 3 && field == 3) read.dummy_prefix = rules.number() != 0;
      }
    }
  }
  if (read.pieces.empty()) refuse(where, "has no pieces");
  if (read.model_type != 1 && read.model_type != 2)
    refuse(where, fmt::format("has the model type {}", read.model_type));
  if (read.unknown_text.size() > longest_piece || !is_text(read.unknown_text))
    refuse(where, fmt::format("decodes the unknown token to '{}', no text", excerpt(read.unknown_text)));
  if (!read.rules_back.empty()) refuse(where, "has rules of denormalization");
  return read;
}

/// The library looks symbols of the user up in a table of fixed length.
void check_symbols(const std::vector<Piece>& pieces, std::string_view where) {
  std::vector<std::string_view> symbols, prefixes;
  for (const Piece& piece : pieces)
    if (piece.type == PieceType::user_defined) symbols.push_back(piece.text);
  std::sort(symbols.begin(), symbols.end());
  for (const std::string_view symbol : symbols) {
    while (!prefixes.empty() && !symbol.starts_with(prefixes.back())) prefixes.pop_back();
    prefixes.push_back(symbol);
    if (prefixes.size() > most_nested_symbols)
      refuse(where, fmt::format("has {} user-defined symbols that begin alike", prefixes.size()));
  }
}

/// The rules of normalization: bytes of a double array (Aoe 1989, as darts-clone lays it out), the array, and the
/// replacements, each ended by a NUL. The library follows the array without looking whether it stays inside of it,
/// so all paths are walked once here.
class Rules {
 public:
  Rules(std::string_view blob, std::string_view where) : where_(where) {
    const auto word = [&](std::size_t at) {
      std::uint32_t value = 0;
      for (std::size_t i = 0; i < 4; ++i) value |= std::uint32_t(static_cast<unsigned char>(blob[at + i])) << 8 * i;
      return value;
    };
    if (blob.size() < 4 || word(0) % 4 != 0 || word(0) >= blob.size() - 4) damaged();
    units_.resize(word(0) / 4);
    for (std::size_t i = 0; i < units_.size(); ++i) units_[i] = word(4 + 4 * i);
    replacements_ = blob.substr(4 + word(0));
    nested_.assign(units_.size(), -1);
    walk(0, 0);
  }

 private:
  [[noreturn]] void damaged() const { refuse(where_, "has damaged rules of normalization"); }

  /// Rules that end on the longest path below a unit; `depth` bytes lead to it. Paths that join are walked once,
  /// those in a circle become too long.
  int walk(std::size_t unit, int depth) {
    if (depth > longest_rule) damaged();
    if (unit >= units_.size()) damaged();
    if (nested_[unit] >= 0) return nested_[unit];
    const std::uint32_t value = units_[unit];
    const std::size_t base = unit ^ std::size_t((value >> 10) << ((value & (1u << 9)) >> 6));
    if ((base | 0xFF) >= units_.size()) damaged();
    int below = 0;
    for (std::size_t byte = 0; byte < 256; ++byte)
      if ((units_[base ^ byte] & 0x800000FFu) == byte) below = std::max(below, walk(base ^ byte, depth + 1));
    if (depth > 0 && (value & 0x100u) != 0) {
      ++below;
      const std::size_t at = units_[base] & 0x7FFFFFFFu;
      if (at >= replacements_.size() ||
          replacements_.substr(at, longest_replacement + 1).find('\0') == std::string_view::npos)
        damaged();
    }
    if (below > most_nested_rules) damaged();
    return nested_[unit] = below;
  }

  std::string_view where_, replacements_;
  std::vector<std::uint32_t> units_;
  std::vector<int> nested_;  ///< by unit; -1: not known yet
};

/// ▁ is a space.
std::string decoded(std::string_view piece) {
  constexpr std::string_view blank = "\u2581";
  std::string text(piece);
  for (std::size_t at = 0; (at = text.find(blank, at)) != std::string::npos; ++at)
    text.replace(at, blank.size(), " ");
  return text;
}

}  // namespace

struct SentencePieceTokenizer::Model {
  std::string bytes;
  sentencepiece::SentencePieceProcessor processor;
  std::vector<std::string> texts;  ///< by token
  bool adds_space = false;
};

SentencePieceTokenizer::SentencePieceTokenizer(std::string model, std::string_view where) {
  if (model.empty()) refuse(where, "is empty");
  if (model.size() > most_bytes) refuse(where, fmt::format("has {} bytes", model.size()));
  const auto made = std::make_shared<Model>();
  made->bytes = std::move(model);
  const Description read = read_description(made->bytes, where);
  check_symbols(read.pieces, where);
  if (!read.rules.empty()) Rules(read.rules, where);
  made->adds_space = read.dummy_prefix;

  sentencepiece::SetMinLogLevel(3);  // what is wrong is said once, here
  std::string fault;
  try {
    const auto status = made->processor.LoadFromSerializedProto(made->bytes);
    if (!status.ok()) fault = status.error_message();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    fault = error.what();
  }
  if (!fault.empty()) refuse(where, fmt::format("is refused by SentencePiece ({})", excerpt(fault, 200)));

  for (const Piece& piece : read.pieces) {
    std::string& text = made->texts.emplace_back();
    if (piece.type == PieceType::unknown) {
      text = read.unknown_text;
    } else if (piece.type == PieceType::byte) {  // <0xNN>, which the library has checked
      unsigned char byte = 0;
      std::from_chars(piece.text.data() + 3, piece.text.data() + 5, byte, 16);
      text.push_back(static_cast<char>(byte));
    } else if (piece.type != PieceType::control) {
      text = decoded(piece.text);
    }
  }
  model_ = made;
}

const std::string& SentencePieceTokenizer::model() const {
  return model_->bytes;
}

int SentencePieceTokenizer::size() const {
  return static_cast<int>(model_->texts.size());
}

std::vector<Token> SentencePieceTokenizer::encode(std::string_view text, std::string_view where) const {
  if (text.size() > most_text)
    throw DataError("{}: a text of {} bytes; expected at most {} at once for a sentencepiece tokenizer", where,
                    text.size(), most_text);
  std::vector<Token> tokens;
  const auto status = model_->processor.Encode(text, &tokens);
  if (!status.ok())
    throw DataError("{}: the sentencepiece tokenizer fails at this text ({}); expected a model that is whole",
                    where, excerpt(status.error_message(), 200));
  return tokens;
}

const std::string& SentencePieceTokenizer::text(Token token) const {
  return model_->texts.at(static_cast<std::size_t>(token));
}

const std::string& SentencePieceTokenizer::name(Token token) const {
  return model_->processor.IdToPiece(token);
}

Token SentencePieceTokenizer::unknown() const {
  return model_->processor.unk_id();
}

bool SentencePieceTokenizer::adds_space() const {
  return model_->adds_space;
}

Token SentencePieceTokenizer::end_of_text() const {
  return model_->processor.eos_id();
}

bool SentencePieceTokenizer::is_special(Token token) const {
  return model_->processor.IsControl(token);
}

}  // namespace dekoder
