// SPDX-License-Identifier: Apache-2.0
#include "nvmf/target/tls_refusals.h"

namespace basalt::nvmf {

const char* to_string(TlsRefusal refusal) {
  switch (refusal) {
    case TlsRefusal::plaintext:
      return "plaintext";
    case TlsRefusal::key:
      return "key";
    case TlsRefusal::handshake:
      return "handshake";
    case TlsRefusal::timeout:
      return "timeout";
  }
  return "unknown";
}

std::string TlsRefusals::address_of(const std::string& peer) {
  const size_t colon = peer.rfind(':');
  return colon == std::string::npos ? peer : peer.substr(0, colon);
}

bool TlsRefusals::note(const std::string& peer, TlsRefusal refusal) {
  std::lock_guard guard(mutex_);
  counts_[static_cast<size_t>(refusal)]++;
  const std::string traddr = address_of(peer);
  auto found = peers_.find(traddr);
  const bool first = found == peers_.end();
  if (first) {
    if (peers_.size() >= peers_max) return false;
    found = peers_.emplace(traddr, Peer{traddr, refusal}).first;
  }
  found->second.count++;
  return first;
}

uint64_t TlsRefusals::count(TlsRefusal refusal) const {
  std::lock_guard guard(mutex_);
  return counts_[static_cast<size_t>(refusal)];
}

std::vector<TlsRefusals::Peer> TlsRefusals::peers() const {
  std::lock_guard guard(mutex_);
  std::vector<Peer> out;
  for (const auto& [traddr, peer] : peers_)
    out.push_back(peer);
  return out;
}

}  // namespace basalt::nvmf
