// SPDX-License-Identifier: Apache-2.0
#include "engine/keyring.h"

namespace basalt {

Outcome Keyring::add(const std::string& name, const std::string& path, std::string text) {
  std::string_view kept = text;
  while (!kept.empty() && (kept.back() == '\n' || kept.back() == '\r'))
    kept.remove_suffix(1);
  Outcome outcome = success();
  if (kept.empty()) outcome = Error{Errc::invalid_argument, (path.empty() ? "key " + name : path) + ": holds no key"};
  if (keys_.contains(name)) outcome = Error{Errc::exists, "key " + name + " exists"};
  if (outcome.ok()) keys_.emplace(name, Key{path, crypto::secret_copy(crypto::as_bytes(kept))});
  crypto::erase(text.data(), text.size());
  return outcome;
}

Outcome Keyring::remove(const std::string& name) {
  if (keys_.erase(name) == 0) return Error{Errc::not_found, "key " + name + " does not exist"};
  return success();
}

std::vector<Keyring::Entry> Keyring::entries() const {
  std::vector<Entry> out;
  for (const auto& [name, key] : keys_)
    out.push_back({name, key.path});
  return out;
}

Result<std::string_view> Keyring::find(const std::string& name) const {
  const auto found = keys_.find(name);
  if (found == keys_.end()) return Error{Errc::not_found, "key " + name + " does not exist"};
  const crypto::SecretBytes& text = found->second.text;
  return std::string_view(reinterpret_cast<const char*>(text.data()), text.size());
}

}  // namespace basalt
