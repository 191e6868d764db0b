// SPDX-License-Identifier: Apache-2.0
// Section and step names are those of the NVMe over TCP transport specification, "TLS PSK and PSK Identity Derivation".
#include "nvmf/auth/tls_key.h"

#include "crypto/hkdf.h"
#include "nvmf/auth/key_text.h"

namespace basalt::nvmf::auth {
namespace {

constexpr std::string_view tls_prefix = "NVMeTLSkey-1:";

Error no_tls_key(const std::string& problem) {
  return {Errc::invalid_argument, "not a TLS key: " + problem};
}

}  // namespace

Result<TlsKey> TlsKey::parse(std::string_view text) {
  if (text.substr(0, tls_prefix.size()) != tls_prefix) return no_tls_key("it must begin with NVMeTLSkey-1:");
  text.remove_prefix(tls_prefix.size());
  TlsKey out;
  if (text.size() < 3 || text[0] != '0' || text[1] < '0' || text[1] > '2' || text[2] != ':') {
    return no_tls_key("the hash must be 00, 01 or 02");
  }
  if (text[1] != '0') out.transform_ = static_cast<crypto::Hash>(text[1] - '1');
  text.remove_prefix(3);
  if (text.empty() || text.back() != ':') return no_tls_key("it must end with a colon");
  text.remove_suffix(1);
  auto key = read_key_text(text);
  if (!key) return no_tls_key(key.error().message);
  if (key->size() != 32 && key->size() != 48) return no_tls_key("the key must have 32 or 48 bytes");
  out.key_ = std::move(key).value();
  return out;
}

crypto::SecretBytes TlsKey::retained(std::string_view hostnqn) const {
  if (!transform_) return crypto::secret_copy(crypto::as_bytes(key_));
  const crypto::Digest extracted = crypto::hkdf_extract(*transform_, {}, crypto::as_bytes(key_));
  return crypto::hkdf_expand_label(*transform_, extracted.span(), "HostNQN", hostnqn, key_.size());
}

crypto::SharedTlsPsk TlsKey::psk(std::string_view hostnqn, std::string_view subnqn) const {
  auto out = std::make_shared<crypto::TlsPsk>();
  out->hash = hash();
  const std::string cipher = out->hash == crypto::Hash::sha256 ? "01" : "02";
  const crypto::SecretBytes key = retained(hostnqn);
  const crypto::Digest digest = crypto::Hmac(out->hash, crypto::as_bytes(key))
                                    .add(hostnqn)
                                    .add(" ")
                                    .add(subnqn)
                                    .add(" NVMe-over-Fabrics")
                                    .finish();
  const std::string named = encode_base64(digest.span());
  out->identity = "NVMe1R" + cipher + " " + std::string(hostnqn) + " " + std::string(subnqn) + " " + named;
  const crypto::Digest extracted = crypto::hkdf_extract(out->hash, {}, crypto::as_bytes(key));
  out->key = crypto::hkdf_expand_label(out->hash, extracted.span(), "nvme-tls-psk", cipher + " " + named,
                                       crypto::digest_bytes(out->hash));
  return out;
}

bool TlsKey::same_key(const TlsKey& other) const {
  return transform_ == other.transform_ && crypto::equal(crypto::as_bytes(key_), crypto::as_bytes(other.key_));
}

}  // namespace basalt::nvmf::auth
