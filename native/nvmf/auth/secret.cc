// SPDX-License-Identifier: Apache-2.0
#include "nvmf/auth/secret.h"

#include "base/hex.h"
#include "nvmf/auth/key_text.h"

namespace basalt::nvmf::auth {
namespace {

constexpr std::string_view prefix = "DHHC-1:";
constexpr size_t key_bytes_max = 64;

Error wrong(const std::string& problem) {
  return {Errc::invalid_argument, "not a DH-HMAC-CHAP secret: " + problem};
}

}  // namespace

Result<Secret> Secret::parse(std::string_view text) {
  if (text.substr(0, prefix.size()) != prefix) return wrong("it must begin with DHHC-1:");
  text.remove_prefix(prefix.size());
  Secret secret;
  if (text.size() < 3 || text[0] != '0' || text[1] < '0' || text[1] > '3' || text[2] != ':') {
    return wrong("the hash must be 00, 01, 02 or 03");
  }
  if (text[1] != '0') secret.transform_ = static_cast<crypto::Hash>(text[1] - '1');
  text.remove_prefix(3);
  if (text.empty() || text.back() != ':') return wrong("it must end with a colon");
  text.remove_suffix(1);
  auto key = read_key_text(text);
  if (!key) return wrong(key.error().message);
  if (key->size() != 32 && key->size() != 48 && key->size() != key_bytes_max) {
    return wrong("the key must have 32, 48 or 64 bytes");
  }
  secret.key_ = std::move(key).value();
  return secret;
}

crypto::SecretBytes Secret::key_of(std::string_view nqn) const {
  if (!transform_) return crypto::secret_copy(crypto::as_bytes(key_));
  const crypto::Digest transformed =
      crypto::Hmac(*transform_, crypto::as_bytes(key_)).add(nqn).add("NVMe-over-Fabrics").finish();
  return crypto::secret_copy(transformed.span());
}

std::string Secret::digest_of(std::string_view nqn) const {
  const crypto::SecretBytes key = key_of(nqn);
  const crypto::Digest digest = crypto::digest(crypto::Hash::sha256, {key.data(), key.size()});
  return to_hex({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

bool Secret::same_key(const Secret& other) const {
  return crypto::equal(crypto::as_bytes(key_), crypto::as_bytes(other.key_));
}

}  // namespace basalt::nvmf::auth
