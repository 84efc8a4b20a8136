// SPDX-License-Identifier: Apache-2.0
#include "io/files/sha256.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>

#include "base/error.hpp"

namespace dekoder {

namespace {

/// Refusals of libcrypto are those of its own configuration: a provider without SHA-256, no memory.
void expect_done(int done) {
  if (done != 1) throw DataError("SHA-256: libcrypto refuses it; is OPENSSL_CONF or its module folder damaged?");
}

}  // namespace

void Sha256::Freed::operator()(EVP_MD_CTX* state) const {
  EVP_MD_CTX_free(state);
}

Sha256::Sha256() : state_(EVP_MD_CTX_new()) {
  expect_done(state_ != nullptr && EVP_DigestInit_ex(state_.get(), EVP_sha256(), nullptr));
}

void Sha256::update(std::span<const std::byte> bytes) {
  expect_done(EVP_DigestUpdate(state_.get(), bytes.data(), bytes.size()));
}

std::string Sha256::finish() {
  std::array<unsigned char, 32> digest{};
  expect_done(EVP_DigestFinal_ex(state_.get(), digest.data(), nullptr));
  std::string hex;
  for (const unsigned char byte : digest) hex += fmt::format("{:02x}", byte);
  return hex;
}

std::string sha256(std::span<const std::byte> bytes) {
  Sha256 digest;
  digest.update(bytes);
  return digest.finish();
}

}  // namespace dekoder
