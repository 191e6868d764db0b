// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/authentication_params.h"

#include <algorithm>

namespace basalt::rpc {
namespace {

template <class T>
std::optional<T> named(const std::string& name, uint8_t first, uint8_t last) {
  for (uint8_t id = first; id <= last; id++) {
    if (name == nvmf::auth::to_string(static_cast<T>(id))) return static_cast<T>(id);
  }
  return std::nullopt;
}

template <class T>
void read_list(Fields& in, const char* field, uint8_t first, uint8_t last, std::vector<T>* out) {
  if (!in.has(field)) return;
  out->clear();
  for (const std::string& name : in.strings(field, 1, size_t{last} - first + 1)) {
    const auto id = named<T>(name, first, last);
    if (!id || std::find(out->begin(), out->end(), *id) != out->end()) {
      std::string right;
      for (uint8_t known = first; known <= last; known++)
        right += std::string(known == first ? "" : ", ") + nvmf::auth::to_string(static_cast<T>(known));
      return in.refuse(field, "must name some of " + right + ", each once");
    }
    out->push_back(*id);
  }
}

}  // namespace

KeyNames read_key_names(Fields& in) {
  KeyNames names{in.string_or("dhchap_key", ""), in.string_or("dhchap_ctrlr_key", ""), in.string_or("psk", "")};
  if (names.host.empty() && !names.controller.empty()) in.refuse("dhchap_ctrlr_key", "goes with dhchap_key only");
  return names;
}

void read_policy(Fields& in, nvmf::auth::Policy* policy) {
  read_list(in, "dhchap_digests", 1, 3, &policy->hashes);
  read_list(in, "dhchap_dhgroups", 0, 5, &policy->groups);
}

Result<nvmf::auth::SharedSecret> find_secret(const Keyring& keyring, const char* field, const std::string& name) {
  if (name.empty()) return nvmf::auth::SharedSecret();
  const auto text = keyring.find(name);
  if (!text) return Error{text.error().code, std::string(field) + ": " + text.error().message};
  auto secret = nvmf::auth::Secret::parse(text.value());
  if (!secret) {
    return Error{secret.error().code, std::string(field) + ": key " + name + ": " + secret.error().message};
  }
  return nvmf::auth::SharedSecret(std::make_shared<const nvmf::auth::Secret>(std::move(secret).value()));
}

Result<nvmf::auth::SharedTlsKey> find_tls_key(const Keyring& keyring, const std::string& name) {
  if (name.empty()) return nvmf::auth::SharedTlsKey();
  const auto text = keyring.find(name);
  if (!text) return Error{text.error().code, "psk: " + text.error().message};
  auto key = nvmf::auth::TlsKey::parse(text.value());
  if (!key) return Error{key.error().code, "psk: key " + name + ": " + key.error().message};
  return nvmf::auth::SharedTlsKey(std::make_shared<const nvmf::auth::TlsKey>(std::move(key).value()));
}

}  // namespace basalt::rpc
