// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string_view>

namespace dekoder {

/// XXH64 with seed 0, by libxxhash, of bytes that come piece by piece. Finds accidental damage at the speed of
/// memory; it is no protection against forgery.
class Xxh64 {
 public:
  Xxh64() {
    if (!state_) throw std::bad_alloc();
    XXH64_reset(state_.get(), 0);
  }
  void update(std::span<const std::byte> bytes) { XXH64_update(state_.get(), bytes.data(), bytes.size()); }
  void update(std::string_view text) { update(std::as_bytes(std::span(text))); }
  /// The digest of all bytes so far; more may follow.
  std::uint64_t digest() const { return XXH64_digest(state_.get()); }

 private:
  struct Free {
    void operator()(XXH64_state_t* state) const { XXH64_freeState(state); }
  };
  std::unique_ptr<XXH64_state_t, Free> state_{XXH64_createState()};
};

}  // namespace dekoder
