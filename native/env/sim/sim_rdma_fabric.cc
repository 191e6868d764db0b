// SPDX-License-Identifier: Apache-2.0
#include "env/sim/sim_rdma_fabric.h"

#include <algorithm>

#include "env/sim/sim_rdma.h"

namespace basalt::env {
namespace {
constexpr char first_device[] = "rdma0";
}

SimRdmaCounts SimRdmaFabric::counts() const {
  SimRdmaCounts counts;
  counts.connections = connections_.size();
  counts.listeners = listeners_.size();
  counts.windows = windows_.size();
  for (const SimRdmaDevice* device : open_devices_) {
    counts.regions += device->regions_.size();
    counts.receive_queues += device->receive_queue_count_;
    for (const auto& [key, span] : device->regions_)
      counts.pinned_bytes += span.length_bytes;
  }
  return counts;
}

const std::string* SimRdmaFabric::device_of(const std::string& node) {
  const auto [found, made] = devices_.try_emplace(node);
  if (made) found->second.insert(first_device);
  const auto& names = found->second;
  if (names.empty()) return nullptr;
  auto chosen = names.begin();
  if (names.size() > 1) std::advance(chosen, static_cast<long>(random_.below(names.size())));
  return &*chosen;
}

SimRdmaListener* SimRdmaFabric::find_listener(const Address& address) {
  for (SimRdmaListener* listener : listeners_) {
    const Address& bound = listener->address();
    if (bound.port == address.port && (bound.host == address.host || listener->rdma_.node() == address.host)) {
      return listener;
    }
  }
  return nullptr;
}

SimRdmaWindow* SimRdmaFabric::find_window(uint32_t key) {
  for (SimRdmaWindow* window : windows_) {
    if (window->bound_to_ != nullptr && window->bound_key_ == key) return window;
  }
  return nullptr;
}

void SimRdmaFabric::remove_device(const std::string& node, const std::string& name) {
  (void)device_of(node);
  devices_[node].erase(name);
  for (SimRdmaDevice* device : open_devices_) {
    if (device->rdma().node() == node && device->name() == name) device->removed_ = true;
  }
  for (SimRdmaConnection* connection : std::vector<SimRdmaConnection*>(connections_)) {
    if (connection->device_ != nullptr && connection->node() == node && connection->device_->name() == name) {
      connection->break_with(RdmaConnection::Cause::removed);
    }
  }
}

void SimRdmaFabric::break_queue_pairs(const std::string& node) {
  for (SimRdmaConnection* connection : std::vector<SimRdmaConnection*>(connections_)) {
    if (connection->node() == node && connection->has_queue_pair_) {
      connection->break_with(RdmaConnection::Cause::failed);
    }
  }
}

void SimRdmaFabric::node_stopped(const std::string& node, bool power_lost) {
  for (SimRdmaConnection* connection : std::vector<SimRdmaConnection*>(connections_)) {
    if (connection->node() == node) connection->killed(power_lost);
  }
  std::erase_if(connections_, [&](SimRdmaConnection* connection) { return connection->node() == node; });
  std::erase_if(listeners_, [&](SimRdmaListener* listener) { return listener->rdma_.node() == node; });
  std::erase_if(windows_, [&](SimRdmaWindow* window) { return window->device_.rdma().node() == node; });
  std::erase_if(open_devices_, [&](SimRdmaDevice* device) { return device->rdma().node() == node; });
}

}  // namespace basalt::env
