// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/types.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace dekoder {

/// SHA-256 of bytes that come piece by piece (FIPS 180-4), by OpenSSL's libcrypto, which uses the processor's
/// instructions for it.
class Sha256 {
 public:
  Sha256();
  void update(std::span<const std::byte> bytes);
  /// The digest of all bytes so far as 64 lower-case hexadecimal digits. Nothing can be added afterwards.
  std::string finish();

 private:
  struct Freed {
    void operator()(EVP_MD_CTX* state) const;
  };
  std::unique_ptr<EVP_MD_CTX, Freed> state_;
};

/// The digest of one piece of memory.
std::string sha256(std::span<const std::byte> bytes);

}  // namespace dekoder
