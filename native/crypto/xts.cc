// SPDX-License-Identifier: Apache-2.0
#include "crypto/xts.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include <cstring>
#include <string>
#include <utility>

namespace basalt::crypto {
namespace {

evp_cipher_ctx_st* make_context(const EVP_CIPHER* cipher, const SecretBytes& keys, bool encrypts) {
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  if (context == nullptr) return nullptr;
  if (EVP_CipherInit_ex(context, cipher, nullptr, keys.data(), nullptr, encrypts ? 1 : 0) == 1) return context;
  EVP_CIPHER_CTX_free(context);
  return nullptr;
}

bool run(evp_cipher_ctx_st* context, uint64_t unit, const void* from, void* to, size_t length_bytes) {
  uint8_t tweak[16] = {};
  for (size_t i = 0; i < 8; i++)
    tweak[i] = static_cast<uint8_t>(unit >> (8 * i));
  int written = 0;
  return EVP_CipherInit_ex(context, nullptr, nullptr, nullptr, tweak, -1) == 1 &&
         EVP_CipherUpdate(context, static_cast<uint8_t*>(to), &written, static_cast<const uint8_t*>(from),
                          static_cast<int>(length_bytes)) == 1 &&
         static_cast<size_t>(written) == length_bytes;
}

}  // namespace

Result<XtsCipher> XtsCipher::create(const SecretBytes& data_key, const SecretBytes& tweak_key) {
  const size_t key_bytes = data_key.size();
  if (key_bytes != 16 && key_bytes != 32) {
    return Error{Errc::invalid_argument, "key: must be of 16 or 32 bytes, is of " + std::to_string(key_bytes)};
  }
  if (tweak_key.size() != key_bytes) {
    return Error{Errc::invalid_argument,
                 "key2: must be as long as key, is of " + std::to_string(tweak_key.size()) + " bytes"};
  }
  if (std::memcmp(data_key.data(), tweak_key.data(), key_bytes) == 0) {
    return Error{Errc::invalid_argument, "key2: must differ from key"};
  }
  SecretBytes keys(2 * key_bytes);
  std::memcpy(keys.data(), data_key.data(), key_bytes);
  std::memcpy(keys.data() + key_bytes, tweak_key.data(), key_bytes);
  const EVP_CIPHER* kind = key_bytes == 32 ? EVP_aes_256_xts() : EVP_aes_128_xts();
  XtsCipher cipher;
  cipher.key_bits_ = key_bytes * 8;
  cipher.encrypting_ = make_context(kind, keys, true);
  cipher.decrypting_ = make_context(kind, keys, false);
  if (cipher.encrypting_ == nullptr || cipher.decrypting_ == nullptr) {
    // What OpenSSL noted belongs to this thread's queue, where the next user would find it.
    ERR_clear_error();
    return Error{Errc::unsupported, "OpenSSL has no AES-XTS here"};
  }
  return cipher;
}

XtsCipher::~XtsCipher() {
  free_contexts();
}

XtsCipher::XtsCipher(XtsCipher&& other) noexcept {
  *this = std::move(other);
}

XtsCipher& XtsCipher::operator=(XtsCipher&& other) noexcept {
  if (this == &other) return *this;
  free_contexts();
  encrypting_ = std::exchange(other.encrypting_, nullptr);
  decrypting_ = std::exchange(other.decrypting_, nullptr);
  key_bits_ = other.key_bits_;
  return *this;
}

void XtsCipher::free_contexts() {
  EVP_CIPHER_CTX_free(encrypting_);
  EVP_CIPHER_CTX_free(decrypting_);
}

bool XtsCipher::encrypt(uint64_t unit, const void* from, void* to, size_t length_bytes) {
  return run(encrypting_, unit, from, to, length_bytes);
}

bool XtsCipher::decrypt(uint64_t unit, const void* from, void* to, size_t length_bytes) {
  return run(decrypting_, unit, from, to, length_bytes);
}

}  // namespace basalt::crypto
