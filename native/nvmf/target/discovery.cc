// SPDX-License-Identifier: Apache-2.0
// The discovery log: only what this host may connect to.
#include "nvmf/target/discovery.h"

#include <algorithm>
#include <cstring>

#include "nvmf/target/controller.h"
#include "nvmf/target/target.h"

namespace basalt::nvmf {
namespace {

constexpr uint8_t trtype_rdma = 1;
constexpr uint8_t trtype_tcp = 3;
constexpr uint8_t trtype_loopback = 254;
constexpr uint8_t subtype_referral = 1;
constexpr uint8_t subtype_nvm = 2;
// EFLAGS.EPCSD: a connection to that discovery service may stay.
constexpr uint16_t persistent_connections = 1u << 1;
constexpr uint8_t treq_secure_channel_required = 1;
constexpr uint8_t sectype_tls_1_3 = 2;
// Of an RDMA address: a reliable connected queue pair, of a provider that is not named, by the connection manager.
constexpr uint8_t rdma_qptype_reliable_connected = 1;
constexpr uint8_t rdma_prtype_none = 1;
constexpr uint8_t rdma_cms_rdma_cm = 1;

uint8_t trtype_of(const std::string& trtype) {
  if (trtype == "RDMA") return trtype_rdma;
  return trtype == "TCP" ? trtype_tcp : trtype_loopback;
}

template <size_t size>
void put(char (&out)[size], const std::string& text) {
  std::memcpy(out, text.data(), std::min(size - 1, text.size()));
}

nvme::DiscoveryLogEntry entry_of(const std::string& nqn, const ListenAddress& address) {
  nvme::DiscoveryLogEntry entry{};
  const bool ip6 = address.traddr.find(':') != std::string::npos;
  entry.trtype = trtype_of(address.trtype);
  entry.adrfam = entry.trtype == trtype_loopback ? 254 : (ip6 ? 2 : 1);
  entry.cntlid = nvme::cntlid_any;
  entry.asqsz = 32;
  if (entry.trtype == trtype_rdma) {
    entry.tsas[0] = rdma_qptype_reliable_connected;
    entry.tsas[1] = rdma_prtype_none;
    entry.tsas[2] = rdma_cms_rdma_cm;
  }
  if (address.secure_channel) {
    entry.treq = treq_secure_channel_required;
    entry.tsas[0] = sectype_tls_1_3;
  }
  put(entry.trsvcid, address.trsvcid);
  put(entry.subnqn, nqn);
  put(entry.traddr, address.traddr);
  return entry;
}

nvme::DiscoveryLogEntry subsystem_entry(const std::string& nqn, const Listener& listener) {
  nvme::DiscoveryLogEntry entry = entry_of(nqn, listener.address);
  entry.subtype = subtype_nvm;
  entry.portid = listener.portid;
  return entry;
}

nvme::DiscoveryLogEntry referral_entry(const ListenAddress& address) {
  nvme::DiscoveryLogEntry entry = entry_of(nvme::discovery_nqn, address);
  entry.subtype = subtype_referral;
  entry.eflags = persistent_connections;
  return entry;
}

}  // namespace

Outcome Referrals::add(const ListenAddress& address) {
  if (std::find(all_.begin(), all_.end(), address) != all_.end())
    return Error{Errc::exists, "address: that referral is there already"};
  if (all_.size() == count_max) return Error{Errc::no_space, "address: there are 256 referrals already"};
  all_.push_back(address);
  return success();
}

Outcome Referrals::remove(const ListenAddress& address) {
  if (std::erase(all_, address) == 0) return Error{Errc::not_found, "address: there is no such referral"};
  return success();
}

Outcome Target::add_referral(const ListenAddress& address) {
  Outcome added = referrals_.add(address);
  if (added) discovery_changed();
  return added;
}

Outcome Target::remove_referral(const ListenAddress& address) {
  Outcome removed = referrals_.remove(address);
  if (removed) discovery_changed();
  return removed;
}

void Target::set_discovery_access(DiscoveryAccess access) {
  if (discovery_access_ == access) return;
  // Whoever is connected hears that there is something else to read, also that there is nothing any more.
  if (access != DiscoveryAccess::off) discovery_access_ = access;
  discovery_changed();
  discovery_access_ = access;
}

void Target::discovery_changed() {
  discovery_generation_++;
  if (discovery_access_ == DiscoveryAccess::off) return;
  for (const auto& controller : discovery_->controllers_)
    controller->discovery_changed();
}

const HostKeys& Target::discovery_keys_of(const std::string& hostnqn) const {
  for (const auto& subsystem : subsystems_) {
    if (subsystem->options().internal || !subsystem->allows(hostnqn)) continue;
    const HostKeys& keys = subsystem->keys_of(hostnqn);
    if (keys.host != nullptr) return keys;
  }
  return discovery_->keys_of(hostnqn);
}

// Of a host with keys that have to be proven: these were, by the exchange and by the channel.
bool Controller::discovery_proves(const HostKeys& keys) const {
  if (target_.discovery_access() != DiscoveryAccess::authenticated) return true;
  if (keys.tls != nullptr && !listener_.address.secure_channel) return false;
  return keys.host == nullptr || (proven_ != nullptr && proven_->same_key(*keys.host));
}

std::string Controller::discovery_log() const {
  std::string entries;
  nvme::DiscoveryLogHeader header{};
  header.genctr = target_.discovery_generation();
  const auto add = [&](const nvme::DiscoveryLogEntry& entry) {
    entries.append(reinterpret_cast<const char*>(&entry), sizeof(entry));
    header.numrec++;
  };
  bool known = target_.discovery().lists(options_.hostnqn) && discovery_proves(subsystem_.keys_of(options_.hostnqn));
  const bool off = target_.discovery_access() == DiscoveryAccess::off;
  for (const auto& subsystem : target_.all_subsystems()) {
    if (off || subsystem->options().internal || !subsystem->allows(options_.hostnqn)) continue;
    const HostKeys& keys = subsystem->keys_of(options_.hostnqn);
    if (!discovery_proves(keys)) continue;
    known = known || subsystem->lists(options_.hostnqn);
    for (const auto& path : subsystem->paths()) {
      if (path->listener.address.secure_channel != (keys.tls != nullptr)) continue;  // not a way for this host
      add(subsystem_entry(subsystem->options().nqn, path->listener));
    }
  }
  for (const ListenAddress& address : target_.referrals()) {
    // Where others are is for hosts that somebody has named; by TLS for those that came so.
    if (!off && known && address.secure_channel == listener_.address.secure_channel) add(referral_entry(address));
  }
  return std::string(reinterpret_cast<const char*>(&header), sizeof(header)) + entries;
}

}  // namespace basalt::nvmf
