// SPDX-License-Identifier: Apache-2.0
#include "crypto/digest.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "base/assert.h"

namespace basalt::crypto {
namespace {

const char* name_of(Hash hash) {
  switch (hash) {
    case Hash::sha256:
      return "SHA256";
    case Hash::sha384:
      return "SHA384";
    case Hash::sha512:
      return "SHA512";
  }
  return "";
}

}  // namespace

Digest digest(Hash hash, Bytes data) {
  Digest out(hash);
  size_t length = 0;
  const int done = EVP_Q_digest(nullptr, name_of(hash), nullptr, data.data(), data.size(), out.data(), &length);
  BASALT_ASSERT(done == 1 && length == out.size());
  return out;
}

Hmac::Hmac(Hash hash, Bytes key) : hash_(hash) {
  EVP_MAC* mac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  BASALT_ASSERT(mac != nullptr);
  context_ = EVP_MAC_CTX_new(mac);
  EVP_MAC_free(mac);  // the context holds on to it
  BASALT_ASSERT(context_ != nullptr);
  // The parameter type has no const; the text is only read.
  const OSSL_PARAM params[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, const_cast<char*>(name_of(hash)), 0),
      OSSL_PARAM_construct_end()};
  // Without a key pointer, one of an earlier use would be kept.
  static constexpr uint8_t none = 0;
  const int ready = EVP_MAC_init(context_, key.empty() ? &none : key.data(), key.size(), params);
  BASALT_ASSERT(ready == 1);
}

Hmac::~Hmac() {
  EVP_MAC_CTX_free(context_);
}

Hmac& Hmac::add(Bytes data) {
  const int done = EVP_MAC_update(context_, data.data(), data.size());
  BASALT_ASSERT(done == 1);
  return *this;
}

Digest Hmac::finish() {
  Digest out(hash_);
  size_t length = 0;
  const int done = EVP_MAC_final(context_, out.data(), &length, digest_bytes_max);
  BASALT_ASSERT(done == 1 && length == out.size());
  return out;
}

}  // namespace basalt::crypto
