// SPDX-License-Identifier: Apache-2.0
#include "nvmf/target/tls_keys.h"

#include "nvme/spec.h"

namespace basalt::nvmf {

void TlsKeys::set(const std::string& hostnqn, const std::string& subnqn, const auth::SharedTlsKey& key) {
  std::lock_guard guard(mutex_);
  std::pair name{subnqn, hostnqn};
  if (const auto found = entries_.find(name); found != entries_.end()) remove(found);
  if (key == nullptr) return;
  entries_.emplace(std::move(name), Entry{grant(hostnqn, subnqn, *key), grant(hostnqn, nvme::discovery_nqn, *key)});
}

void TlsKeys::remove_subsystem(const std::string& subnqn) {
  std::lock_guard guard(mutex_);
  auto entry = entries_.lower_bound({subnqn, ""});
  while (entry != entries_.end() && entry->first.first == subnqn)
    entry = remove(entry);
}

TlsKeys::Entries::iterator TlsKeys::remove(Entries::iterator entry) {
  grants_.erase(entry->second.own);
  grants_.erase(entry->second.discovery);
  return entries_.erase(entry);
}

TlsKeys::Grants::iterator TlsKeys::grant(const std::string& hostnqn, const std::string& subnqn,
                                         const auth::TlsKey& key) {
  TlsGrant made{key.psk(hostnqn, subnqn), hostnqn, subnqn};
  std::string identity = made.psk->identity;
  return grants_.emplace(std::move(identity), std::move(made));
}

bool TlsKeys::find(std::string_view identity, TlsGrant* out) const {
  std::lock_guard guard(mutex_);
  const auto found = grants_.find(identity);
  if (found == grants_.end()) return false;
  *out = found->second;
  return true;
}

size_t TlsKeys::count() const {
  std::lock_guard guard(mutex_);
  return grants_.size();
}

}  // namespace basalt::nvmf
