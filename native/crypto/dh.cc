// SPDX-License-Identifier: Apache-2.0
#include "crypto/dh.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <memory>

#include "base/assert.h"

namespace basalt::crypto {
namespace {

struct FreeBignum {
  void operator()(BIGNUM* number) const { BN_clear_free(number); }
};
using Number = std::unique_ptr<BIGNUM, FreeBignum>;

struct FreeContext {
  void operator()(BN_CTX* context) const { BN_CTX_free(context); }
};

const char* name_of(DhGroup group) {
  constexpr const char* names[] = {"ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192"};
  return names[static_cast<size_t>(group)];
}

Number prime_of(DhGroup group) {
  EVP_PKEY_CTX* context = EVP_PKEY_CTX_new_from_name(nullptr, "DH", nullptr);
  BASALT_ASSERT(context != nullptr && EVP_PKEY_fromdata_init(context) == 1);
  OSSL_PARAM params[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, const_cast<char*>(name_of(group)), 0),
      OSSL_PARAM_construct_end()};
  EVP_PKEY* group_key = nullptr;
  BASALT_ASSERT(EVP_PKEY_fromdata(context, &group_key, EVP_PKEY_KEY_PARAMETERS, params) == 1);
  BIGNUM* prime = nullptr;
  BASALT_ASSERT(EVP_PKEY_get_bn_param(group_key, OSSL_PKEY_PARAM_FFC_P, &prime) == 1);
  EVP_PKEY_free(group_key);
  EVP_PKEY_CTX_free(context);
  BASALT_ASSERT(static_cast<size_t>(BN_num_bytes(prime)) == dh_value_bytes(group));
  return Number(prime);
}

Number number_of(Bytes bytes) {
  Number number(BN_bin2bn(bytes.data(), static_cast<int>(bytes.size()), nullptr));
  BASALT_ASSERT(number != nullptr);
  return number;
}

// base ^ exponent mod prime, as long as the prime is.
void power(const BIGNUM* base, Bytes exponent, const BIGNUM* prime, uint8_t* out) {
  const std::unique_ptr<BN_CTX, FreeContext> context(BN_CTX_new());
  const Number result(BN_new());
  const Number secret = number_of(exponent);
  BASALT_ASSERT(context != nullptr && result != nullptr);
  BN_set_flags(secret.get(), BN_FLG_CONSTTIME);
  const int done = BN_mod_exp_mont_consttime(result.get(), base, secret.get(), prime, context.get(), nullptr);
  BASALT_ASSERT(done == 1);
  BASALT_ASSERT(BN_bn2binpad(result.get(), out, BN_num_bytes(prime)) == BN_num_bytes(prime));
}

}  // namespace

DhKey::DhKey(DhGroup group, Bytes entropy)
    : group_(group), exponent_(secret_copy(entropy)), public_value_(dh_value_bytes(group)) {
  BASALT_ASSERT(entropy.size() == dh_exponent_bytes(group));
  exponent_.data()[0] |= 0x80;  // one length for all: it says nothing about the exponent
  const Number generator(BN_new());
  BASALT_ASSERT(generator != nullptr && BN_set_word(generator.get(), 2) == 1);
  power(generator.get(), as_bytes(exponent_), prime_of(group).get(), public_value_.data());
}

std::optional<SecretBytes> DhKey::shared_secret(Bytes peer_value) const {
  if (peer_value.size() != dh_value_bytes(group_)) return std::nullopt;
  const Number prime = prime_of(group_);
  const Number peer = number_of(peer_value);
  const Number last(BN_dup(prime.get()));
  BASALT_ASSERT(last != nullptr && BN_sub_word(last.get(), 1) == 1);
  if (BN_is_zero(peer.get()) || BN_is_one(peer.get()) || BN_cmp(peer.get(), last.get()) >= 0) return std::nullopt;
  SecretBytes secret(peer_value.size());
  power(peer.get(), as_bytes(exponent_), prime.get(), secret.data());
  return secret;
}

}  // namespace basalt::crypto
