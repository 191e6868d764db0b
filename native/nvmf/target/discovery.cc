// SPDX-License-Identifier: Apache-2.0
// The discovery log: only what this host may connect to.
#include <algorithm>
#include <cstring>

#include "nvmf/target/controller.h"
#include "nvmf/target/target.h"

namespace basalt::nvmf {
namespace {

constexpr uint8_t trtype_rdma = 1;
constexpr uint8_t trtype_tcp = 3;
constexpr uint8_t trtype_loopback = 254;
constexpr uint8_t subtype_nvm = 2;
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

nvme::DiscoveryLogEntry entry_of(const SubsystemOptions& subsystem, const Listener& listener) {
  nvme::DiscoveryLogEntry entry{};
  const bool ip6 = listener.address.traddr.find(':') != std::string::npos;
  entry.trtype = trtype_of(listener.address.trtype);
  entry.adrfam = entry.trtype == trtype_loopback ? 254 : (ip6 ? 2 : 1);
  entry.subtype = subtype_nvm;
  entry.portid = listener.portid;
  entry.cntlid = nvme::cntlid_any;
  entry.asqsz = 32;
  if (entry.trtype == trtype_rdma) {
    entry.tsas[0] = rdma_qptype_reliable_connected;
    entry.tsas[1] = rdma_prtype_none;
    entry.tsas[2] = rdma_cms_rdma_cm;
  }
  if (listener.address.secure_channel) {
    entry.treq = treq_secure_channel_required;
    entry.tsas[0] = sectype_tls_1_3;
  }
  put(entry.trsvcid, listener.address.trsvcid);
  put(entry.subnqn, subsystem.nqn);
  put(entry.traddr, listener.address.traddr);
  return entry;
}

}  // namespace

std::string Controller::discovery_log() const {
  std::string entries;
  uint64_t count = 0;
  for (const auto& subsystem : target_.all_subsystems()) {
    if (subsystem->options().internal || !subsystem->allows(options_.hostnqn)) continue;
    const bool has_tls_key = subsystem->keys_of(options_.hostnqn).tls != nullptr;
    for (const auto& path : subsystem->paths()) {
      if (path->listener.address.secure_channel != has_tls_key) continue;  // not a way for this host
      const nvme::DiscoveryLogEntry entry = entry_of(subsystem->options(), path->listener);
      entries.append(reinterpret_cast<const char*>(&entry), sizeof(entry));
      count++;
    }
  }
  nvme::DiscoveryLogHeader header{};
  header.genctr = target_.discovery_generation();
  header.numrec = count;
  return std::string(reinterpret_cast<const char*>(&header), sizeof(header)) + entries;
}

}  // namespace basalt::nvmf
