// SPDX-License-Identifier: Apache-2.0
#include "nvmf/target/tls_keys.h"

#include "nvme/spec.h"

namespace basalt::nvmf {

void TlsKeys::set(const std::string& hostnqn, const std::string& subnqn, const auth::SharedTlsKey& key) {
  std::lock_guard guard(mutex_);
  remove(&hostnqn, subnqn);
  if (key == nullptr) return;
  add(hostnqn, subnqn, subnqn, *key);
  add(hostnqn, nvme::discovery_nqn, subnqn, *key);
}

void TlsKeys::remove_subsystem(const std::string& subnqn) {
  std::lock_guard guard(mutex_);
  remove(nullptr, subnqn);
}

void TlsKeys::remove(const std::string* hostnqn, const std::string& subsystem) {
  std::erase_if(entries_, [&](const auto& each) {
    return each.second.subsystem == subsystem && (hostnqn == nullptr || each.second.grant.hostnqn == *hostnqn);
  });
}

void TlsKeys::add(const std::string& hostnqn, const std::string& subnqn, const std::string& subsystem,
                  const auth::TlsKey& key) {
  Entry entry{{key.psk(hostnqn, subnqn), hostnqn, subnqn}, subsystem};
  std::string identity = entry.grant.psk->identity;
  entries_.emplace(std::move(identity), std::move(entry));
}

bool TlsKeys::find(std::string_view identity, TlsGrant* out) const {
  std::lock_guard guard(mutex_);
  const auto found = entries_.find(identity);
  if (found == entries_.end()) return false;
  *out = found->second.grant;
  return true;
}

size_t TlsKeys::count() const {
  std::lock_guard guard(mutex_);
  return entries_.size();
}

}  // namespace basalt::nvmf
