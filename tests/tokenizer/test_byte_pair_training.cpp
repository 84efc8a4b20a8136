// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/byte_pair_training.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <thread>
#include <tuple>

#include "tokenizer/byte_alphabet.hpp"

namespace dekoder {
namespace {

using Texts = std::vector<std::string>;

/// The bytes of every token; merge i makes token 256 + i.
Texts token_texts(const std::vector<BytePair>& merges) {
  Texts texts;
  for (const unsigned char byte : byte_alphabet().in_order) texts.emplace_back(1, static_cast<char>(byte));
  for (const auto& [left, right] : merges)
    texts.push_back(texts.at(static_cast<std::size_t>(left)) + texts.at(static_cast<std::size_t>(right)));
  return texts;
}

/// Each merge as "left right".
Texts shown(const std::vector<BytePair>& merges) {
  const Texts texts = token_texts(merges);
  Texts pairs;
  for (const auto& [left, right] : merges)
    pairs.push_back(texts[static_cast<std::size_t>(left)] + " " + texts[static_cast<std::size_t>(right)]);
  return pairs;
}

Texts trained(const std::vector<PieceCount>& pieces, int merges = 1000) {
  return shown(train_byte_pairs(pieces, merges));
}

/// Algorithm 1 of Sennrich et al. word by word: counts all pairs anew for each merge.
std::vector<BytePair> train_plainly(const std::vector<PieceCount>& pieces, std::size_t most) {
  const std::array<unsigned char, 256> alphabet = byte_alphabet().in_order;
  std::vector<std::vector<Token>> words;
  for (const PieceCount& piece : pieces) {
    words.emplace_back();
    for (const char byte : piece.piece)
      words.back().push_back(
          static_cast<Token>(std::ranges::find(alphabet, static_cast<unsigned char>(byte)) - alphabet.begin()));
  }
  std::vector<BytePair> merges;
  while (merges.size() < most) {
    std::map<std::pair<Token, Token>, std::uint64_t> counts;
    for (std::size_t word = 0; word < words.size(); ++word)
      for (std::size_t at = 0; at + 1 < words[word].size(); ++at)
        counts[{words[word][at], words[word][at + 1]}] += pieces[word].count;
    std::pair<Token, Token> first;
    std::uint64_t most_frequent = 1;
    for (const auto& [pair, count] : counts)
      if (count > most_frequent) std::tie(first, most_frequent) = std::tie(pair, count);
    if (most_frequent < 2) break;
    const Token joined = 256 + static_cast<Token>(merges.size());
    merges.push_back({first.first, first.second});
    for (std::vector<Token>& word : words)
      for (std::size_t at = 0; at + 1 < word.size(); ++at)
        if (word[at] == first.first && word[at + 1] == first.second) {
          word[at] = joined;
          word.erase(word.begin() + static_cast<std::ptrdiff_t>(at) + 1);
        }
  }
  return merges;
}

void expect_texts_differ(const std::vector<BytePair>& merges) {
  const Texts texts = token_texts(merges);
  EXPECT_EQ(std::set<std::string>(texts.begin(), texts.end()).size(), 256 + merges.size());
}

TEST(ByteAlphabet, IsThatOfGpt2) {
  const std::array<unsigned char, 256> alphabet = byte_alphabet().in_order;
  EXPECT_EQ(std::set<unsigned char>(alphabet.begin(), alphabet.end()).size(), 256u);
  const std::map<std::size_t, int> known = {{0, '!'}, {93, '~'},  {94, 161},  {105, 172}, {106, 174}, {187, 255},
                                            {188, 0}, {220, ' '}, {221, 127}, {222, 128}, {254, 160}, {255, 173}};
  for (const auto& [token, byte] : known) EXPECT_EQ(alphabet[token], byte) << token;
}

// The words of Sennrich et al., section 3.2. Nine times each: "es" and "st"; seven times "lo" and "ow"; and so on.
TEST(BytePairTraining, MergesTheWordsOfThePaper) {
  const std::vector<PieceCount> pieces = {{"low", 5}, {"lower", 2}, {"newest", 6}, {"widest", 3}};
  const Texts expected = {"e s",     "es t",  "l o",    "lo w",    "e w", "n ew",
                          "new est", "d est", "i dest", "w idest", "e r", "low er"};
  EXPECT_EQ(trained(pieces), expected);
  const std::vector<BytePair> merges = train_byte_pairs(pieces, 2);
  EXPECT_EQ(merges, (std::vector<BytePair>{{'e' - 33, 's' - 33}, {256, 't' - 33}}));
}

TEST(BytePairTraining, TakesTheSmallerTokensOfEquallyFrequentPairs) {
  // Space is token 220, after the letters; é is the bytes C3 A9, tokens 127 and 102.
  EXPECT_EQ(trained({{" a", 2}, {"za", 2}, {"\xC3\xA9", 2}}), (Texts{"z a", "\xC3 \xA9", "  a"}));
  EXPECT_EQ(trained({{"a ", 2}, {"az", 2}, {"ay", 2}, {"aZ", 3}}), (Texts{"a Z", "a y", "a z", "a  "}));
  // A new token is greater than all before it.
  EXPECT_EQ(trained({{"abc", 5}, {"xy", 5}, {"ab", 1}}), (Texts{"a b", "x y", "ab c"}));
}

TEST(BytePairTraining, MergesWhatStandsTwice) {
  EXPECT_EQ(trained({{"ab", 1}}), Texts{});
  EXPECT_EQ(trained({{"ab", 2}}), Texts{"a b"});
  EXPECT_EQ(trained({{"ab", 1}, {"xab", 1}}), Texts{"a b"});
  EXPECT_EQ(trained({{"abab", 1}}), Texts{"a b"});
  EXPECT_EQ(trained({{"ab", 1}, {"ab", 1}, {"ab", 0}, {"cd", 0}, {"", 7}, {"e", 9}}), Texts{"a b"});
  EXPECT_EQ(trained({}), Texts{});
  EXPECT_EQ(trained({{"a", 9}, {"b", 9}}), Texts{});  // nothing merges across pieces
}

TEST(BytePairTraining, MergesRunsFromTheLeft) {
  EXPECT_EQ(trained({{"aa", 1}}), Texts{});
  EXPECT_EQ(trained({{"aaa", 1}}), Texts{"a a"});                 // twice, overlapping
  EXPECT_EQ(trained({{"aaaaaaa", 1}}), (Texts{"a a", "aa aa"}));  // aa|aa|aa|a, then aaaa|aa|a
  EXPECT_EQ(trained({{"abababab", 1}}), (Texts{"a b", "ab ab"}));
  EXPECT_EQ(trained({{"aaa", 2}, {"baa", 1}}), (Texts{"a a", "aa a"}));
}

TEST(BytePairTraining, MakesAtMostSoMany) {
  const std::vector<PieceCount> pieces = {{"low", 5}, {"lower", 2}, {"newest", 6}, {"widest", 3}};
  const std::vector<BytePair> all = train_byte_pairs(pieces, std::numeric_limits<int>::max());
  ASSERT_EQ(all.size(), 12u);
  for (int most = -1; most <= 13; ++most) {
    const auto expected = all.begin() + std::clamp(most, 0, 12);
    EXPECT_EQ(train_byte_pairs(pieces, most), std::vector<BytePair>(all.begin(), expected)) << most;
  }
}

TEST(BytePairTraining, CountsBeyond32Bits) {
  const std::uint64_t billions = std::uint64_t{1} << 40;
  EXPECT_EQ(trained({{"ab", billions}, {"cd", billions + 1}, {"xcd", 5}, {"ef", 3}}),
            (Texts{"c d", "a b", "x cd", "e f"}));
}

TEST(BytePairTraining, EqualsThePlainAlgorithm) {
  std::mt19937 random(7);
  const auto below = [&](int end) { return static_cast<int>(random() % static_cast<unsigned>(end)); };
  for (int round = 0; round < 400; ++round) {
    const int letters = 1 + below(4), longest = 2 + below(40), most = 1 + below(3);
    std::vector<PieceCount> pieces;
    for (int left = 1 + below(30); left > 0; --left) {
      std::string piece;
      for (int bytes = below(longest + 1); bytes > 0; --bytes)
        piece.push_back(round % 4 == 0 ? static_cast<char>(below(256)) : static_cast<char>('a' + below(letters)));
      pieces.push_back({piece, static_cast<std::uint64_t>(1 + below(most))});
    }
    const std::vector<BytePair> merges = train_byte_pairs(pieces, 10000);
    ASSERT_EQ(merges, train_plainly(pieces, 10000)) << "round " << round;
    expect_texts_differ(merges);
  }
}

TEST(BytePairTraining, DoesNotDependOnTheOrderOfPieces) {
  std::mt19937 random(3);
  std::vector<PieceCount> pieces;
  for (int i = 0; i < 500; ++i) {
    std::string piece;
    for (auto left = random() % 9; left > 0; --left) piece.push_back("etaoin"[random() % 6]);
    pieces.push_back({piece, 1 + random() % 4});
  }
  const std::vector<BytePair> expected = train_byte_pairs(pieces, 10000);
  EXPECT_GT(expected.size(), 300u);
  std::vector<PieceCount> parts;  // each piece as often as it stands, once
  for (const PieceCount& piece : pieces) parts.insert(parts.end(), piece.count, {piece.piece, 1});
  for (std::vector<PieceCount>* shuffled : {&pieces, &parts})
    for (int i = 0; i < 5; ++i) {
      std::shuffle(shuffled->begin(), shuffled->end(), random);
      EXPECT_EQ(train_byte_pairs(*shuffled, 10000), expected);
    }
}

// Time that grows with the square of a piece's bytes would be minutes here.
TEST(BytePairTraining, MergesLongPieces) {
  const std::vector<BytePair> doubled =
      train_byte_pairs(std::vector<PieceCount>{{std::string(1 << 20, 'a'), 1}}, 100);
  std::vector<BytePair> expected = {{'a' - 33, 'a' - 33}};
  for (Token token = 256; token < 256 + 18; ++token) expected.push_back({token, token});
  EXPECT_EQ(doubled, expected);

  std::mt19937 random(5);
  std::string piece;
  for (int i = 0; i < 1'000'000; ++i) piece.push_back("acgt"[random() % 4]);
  const std::vector<BytePair> merges = train_byte_pairs(std::vector<PieceCount>{{piece, 1}}, 2000);
  EXPECT_EQ(merges.size(), 2000u);
  expect_texts_differ(merges);
  piece.resize(20000);
  const std::vector<PieceCount> shorter = {{piece, 3}};
  EXPECT_EQ(train_byte_pairs(shorter, 100), train_plainly(shorter, 100));
}

using Counts = std::map<std::string, std::uint64_t>;

/// Fails where a piece is given twice.
Counts counts_of(const PieceCounter& counter) {
  Counts counts;
  for (const PieceCount& piece : counter.result())
    EXPECT_TRUE(counts.emplace(piece.piece, piece.count).second) << piece.piece;
  EXPECT_EQ(counts.size(), counter.distinct());
  return counts;
}

TEST(PieceCounter, CountsPieces) {
  PieceCounter counter;
  EXPECT_EQ(counts_of(counter), Counts());
  counter.add(SplitPattern::gpt2, "a a a, 12");
  counter.add(SplitPattern::gpt2, "");
  counter.add(SplitPattern::cl100k, " a 1234");
  counter.add(SplitPattern::qwen2, "12");
  EXPECT_EQ(
      counts_of(counter),
      (Counts{{"a", 1}, {" a", 3}, {",", 1}, {" 12", 1}, {" ", 1}, {"123", 1}, {"4", 1}, {"1", 1}, {"2", 1}}));
}

TEST(PieceCounter, CountsAnyBytes) {
  PieceCounter counter;
  const std::string zeros("a\0b\0\0", 5), not_utf8 = "\xFF\xC3";
  for (int i = 0; i < 3; ++i) {
    counter.add(SplitPattern::gpt2, zeros);
    counter.add(SplitPattern::gpt2, not_utf8);
  }
  EXPECT_EQ(counts_of(counter),
            (Counts{{"a", 3}, {std::string(1, '\0'), 3}, {"b", 3}, {std::string(2, '\0'), 3}, {not_utf8, 3}}));
}

TEST(PieceCounter, KeepsManyAndLongPieces) {
  PieceCounter counter;
  Counts expected;
  for (int round = 0; round < 2; ++round)
    for (std::uint64_t i = 0; i < 50000; ++i) {
      const std::string piece = i % 10000 == 0 ? std::string(i * 50 + 1, 'x') : std::to_string(i * i);
      counter.add(piece, i + 1);
      expected[piece] += i + 1;
    }
  EXPECT_EQ(counts_of(counter), expected);
}

TEST(PieceCounter, CountsTheSameInAnyNumberOfThreads) {
  std::mt19937 random(11);
  std::string text;
  for (int i = 0; i < 60000; ++i) {
    for (auto left = 1 + random() % 5; left > 0; --left) text.push_back("etaoinshr"[random() % 9]);
    text += " \n,\n"[random() % 4];
  }
  PieceCounter whole;
  whole.add(SplitPattern::cl100k, text);
  const std::vector<BytePair> expected = train_byte_pairs(whole.result(), 500);
  ASSERT_EQ(expected.size(), 500u);
  for (const std::size_t threads : {1, 2, 5, 16}) {
    std::vector<PieceCounter> counters(threads);
    std::vector<std::thread> running;
    std::string_view rest = text;
    for (std::size_t thread = 0; thread < threads; ++thread) {
      const std::size_t cut =
          thread + 1 == threads ? rest.size() : last_safe_cut(rest.substr(0, text.size() / threads));
      running.emplace_back(
          [&counter = counters[thread], part = rest.substr(0, cut)] { counter.add(SplitPattern::cl100k, part); });
      rest.remove_prefix(cut);
    }
    for (std::thread& thread : running) thread.join();
    for (std::size_t thread = 1; thread < threads; ++thread) counters[0].merge(counters[thread]);
    EXPECT_EQ(counts_of(counters[0]), counts_of(whole)) << threads;
    EXPECT_EQ(train_byte_pairs(counters[0].result(), 500), expected) << threads;
  }
}

const std::string_view text = R"text(The mill at the end of the valley had been still for years. When the water came
back in the spring, the wheel began to turn again, slowly at first, then faster, and people who'd thought
they'd never hear it again came down to see. "It's turning!" they said; "we've a mill again, haven't we?"

Der Müller öffnete die Tür: früher hörte man hier täglich die Räder, die schweren Säcke, das Mühlrad.
Le vieux moulin était resté fermé; après l'été, il a été réparé, et les élèves de l'école l'ont visité.
Мельница стояла у реки, и вода шумела под колесом; мельник стоял у двери и смотрел на воду и на реку.
水車が回る。水が流れる。水車の音が聞こえる。川の水は冷たい。 🙂🙂 🎉🎉🎉 ½ ¼ ½ Ⅷ ٣٤ ٣٤

int main(int argc, char** argv) {
    for (int i = 0; i < 1000; ++i) {
        if (i % 100 == 0) printf("%d %d\n", i, i * 1000);
        else if (i % 10 == 0) printf("%d\n", i);
    }
	return argc > 1 ? 1 : 0;	// tabs here
}
------------------------------------------------------------------------
==== 2023-11-05 12:00:00 ==== 2024-11-05 12:00:00 ==== 3.14159265358979 ==== 1000000 100000 10000
aaaaaaaaaaaaa bbbbbb abababababab aabaabaab !!!!!!! ........... ?!?!?!?! ((()))((()))
I'LL WE'LL THEY'RE YOU'VE i'll we'll they're you've don't can't won't HE'S she's it's IT'S


   The wheel turned, and the water ran; the miller's cat slept on the sacks while the flour fell like snow.
Nobody in the valley knew who had repaired the wheel, nor who had opened the gate of the old canal above.
)text";

// Made from `text` by tests/tokenizer/make_training_fixture.py: left and right token of each merge.
const std::pair<SplitPattern, std::string_view> merges_of_tokenizers[] = {
    {SplitPattern::gpt2, R"merges(
12 12 256 256 71 68 220 83 15 15 220 220 257 257 220 64 259 258 28 28 64 64 72 77 127 102 220 86 68 81 220 16 220
72 220 140 13 13 75 75 159 223 220 82 140 113 140 122 220 69 220 141 262 262 64 65 140 119 220 67 0 0 81 68 140 108
220 66 220 71 220 76 271 260 64 77 65 65 68 77 75 68 84 81 172 253 198 261 220 78 220 265 266 266 267 83 6 82 6 83
7 7 8 8 30 0 64 67 64 81 64 83 64 267 68 75 71 78 72 68 72 275 77 68 79 81 83 268 85 68 108 112 127 120 140 116 159
222 159 224 162 321 220 15 220 75 220 85 274 274 278 284 279 140 283 283 324 224 64 72 66 74 70 312 78 77 78 81 78
86 81 70 127 97 140 118 141 224 141 225 220 4 220 7 220 51 220 126 220 268 236 231 258 313 259 297 263 337 263 341
269 314 269 352 273 116 276 234 281 223 282 282 285 315 290 309 291 316 292 260 298 351 301 265 308 308 325 233 332
112 1 4 1 11 6 67 6 275 6 320 7 307 7 371 8 26 15 17 15 20 16 16 17 379 39 36 43 43 44 322 64 76 64 82 64 275 64
336 65 68 65 78 66 71 68 88 77 67 78 84 83 68 96 149 110 370 119 232 120 331 121 288 121 323 127 101 127 114 140
402 141 222 141 234 141 237 149 397 164 399 220 1 220 54 220 81 220 88 220 90 220 258 220 267 220 287 220 318 220
382 220 385 220 390 220 409 222 278 247 224 259 78 261 220 261 427 263 83 263 394 264 88 266 65 267 70 269 68 269
311 271 17 272 69 272 83 273 398 273 401 276 106 279 408 280 339 281 225 281 424 286 286 289 293 289 386 292 15 294
294 298 425 299 220 299 428 300 69 302 302 303 69 306 376 326 410 329 388 344 442 349 121 353 77 355 66 360 460 366
366 407 405 419 456 423 97 435 270 445 343 448 68 457 8 459 393 464 284
)merges"},
    {SplitPattern::cl100k, R"merges(
12 12 256 256 71 68 220 83 220 220 257 257 220 64 259 258 15 15 28 28 64 64 72 77 127 102 220 86 68 81 220 72 220
140 13 13 75 75 159 223 220 82 140 113 140 122 220 69 220 141 261 261 64 65 140 119 220 67 0 0 16 264 81 68 140 108
220 66 220 71 220 76 13 198 64 77 65 65 68 77 75 68 84 81 172 253 220 78 220 265 266 266 267 83 6 82 6 83 7 7 8 8
30 0 64 67 64 81 64 83 64 267 68 75 71 78 72 68 72 274 77 68 79 81 83 268 85 68 108 112 127 120 140 116 159 222 159
224 162 320 198 198 220 75 220 85 260 220 273 273 277 283 278 140 282 282 323 224 64 72 66 74 70 311 78 77 78 81 78
86 81 70 127 97 140 118 141 224 141 225 220 4 220 7 220 51 220 268 236 231 258 312 259 297 262 337 262 341 269 313
269 351 272 116 275 234 280 223 281 281 284 314 290 308 291 315 298 350 300 265 307 307 324 233 332 112 1 4 1 11 6
43 6 50 6 67 6 268 6 274 6 319 7 306 7 369 8 26 15 17 15 20 16 16 16 17 17 380 39 36 44 321 59 77 64 76 64 82 64
274 64 336 65 68 65 78 66 71 68 88 77 67 78 84 83 68 90 198 92 198 96 149 110 368 119 232 120 331 121 288 121 322
126 121 127 101 127 114 140 406 141 222 141 234 141 237 149 401 164 403 220 1 220 54 220 81 220 88 220 258 220 267
220 287 220 317 220 386 220 392 220 399 222 277 247 224 259 78 260 260 262 83 262 396 263 88 264 15 266 65 267 70
269 68 269 310 271 69 271 83 272 402 272 405 275 106 278 413 279 339 280 225 280 427 285 285 289 293 289 388 294
294 298 428 299 69 301 301 302 69 305 377 325 415 328 390 344 444 352 77 354 66 359 459 364 364 371 43 379 198 412
410 414 97 423 455 430 329 438 270 447 343 450 68 456 8 458 395 462 283
)merges"},
    {SplitPattern::qwen2, R"merges(
12 12 256 256 71 68 220 83 220 220 257 257 220 64 259 258 28 28 64 64 72 77 127 102 220 86 68 81 220 72 220 140 13
13 75 75 159 223 220 82 140 113 140 122 220 69 220 141 261 261 64 65 140 119 220 67 0 0 81 68 140 108 220 66 220 71
220 76 13 198 64 77 65 65 68 77 75 68 84 81 172 253 220 78 220 264 265 265 266 83 6 82 6 83 7 7 8 8 30 0 64 67 64
81 64 83 64 266 68 75 71 78 72 68 72 273 77 68 79 81 83 267 85 68 108 112 127 120 140 116 159 222 159 224 162 318
198 198 220 75 220 85 260 220 272 272 276 282 277 140 281 281 321 224 64 72 66 74 70 309 78 77 78 81 78 86 81 70
127 97 140 118 141 224 141 225 220 4 220 7 220 51 220 267 236 231 258 310 259 295 262 335 262 339 268 311 268 349
271 116 274 234 279 223 280 280 283 312 288 306 289 313 296 348 298 264 305 305 322 233 330 112 1 4 1 11 6 43 6 50
6 67 6 267 6 273 6 317 7 304 7 367 8 26 39 36 44 319 59 77 64 76 64 82 64 273 64 334 65 68 65 78 66 71 68 88 77 67
78 84 83 68 90 198 92 198 110 366 119 232 120 329 121 286 121 320 126 121 127 101 127 114 140 398 141 222 141 234
141 237 149 96 149 97 164 395 220 1 220 54 220 81 220 88 220 258 220 266 220 285 220 315 220 379 220 385 220 392
222 276 247 224 259 78 260 260 262 83 262 389 263 88 265 65 266 70 268 68 268 308 270 69 270 83 271 394 271 397 274
106 277 405 278 337 279 225 279 420 284 284 287 291 287 381 292 292 296 421 297 69 299 299 300 69 303 375 323 408
326 383 342 436 350 77 352 66 357 451 362 362 369 43 377 198 404 402 416 447 423 327 430 269 439 341 442 68 448 8
450 388 454 282
)merges"},
};

TEST(BytePairTraining, MakesTheMergesOfTokenizers) {
  for (const auto& [pattern, written] : merges_of_tokenizers) {
    std::vector<BytePair> expected;
    std::istringstream tokens{std::string(written)};
    for (BytePair pair; tokens >> pair.left >> pair.right;) expected.push_back(pair);
    EXPECT_GT(expected.size(), 200u);  // all that there are
    PieceCounter counter;
    counter.add(pattern, text);
    const std::vector<BytePair> merges = train_byte_pairs(counter.result(), 400);
    EXPECT_EQ(merges, expected) << split_pattern_name(pattern) << ": " << ::testing::PrintToString(shown(merges));
    expect_texts_differ(merges);
  }
}

}  // namespace
}  // namespace dekoder
