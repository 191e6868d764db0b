// SPDX-License-Identifier: Apache-2.0
#include "env/sim/sim_rdma.h"

#include <algorithm>

#include "base/assert.h"

namespace basalt::env {

// ---- the door ------------------------------------------------------------------------------------------------------

SimRdma::~SimRdma() = default;

size_t SimRdma::poll() {
  // Work that is run may destroy things whose work stands behind it: forget() finds it in the queue.
  size_t ran = 0;
  const size_t batch = ready_.size();
  for (size_t i = 0; i < batch && !ready_.empty(); i++) {
    const Ready ready = ready_.front();
    ready_.pop_front();
    if (ready.work == nullptr) continue;
    if (ready.count != nullptr) --*ready.count;
    ready.work->run(ready.work);
    ran++;
  }
  return ran;
}

void SimRdma::forget(const void* owner) {
  for (Ready& ready : ready_) {
    if (ready.owner == owner) ready.work = nullptr;
  }
}

SimRdmaDevice* SimRdma::open(const std::string& name) {
  for (const auto& device : devices_) {
    if (device->name() == name) return device.get();
  }
  devices_.push_back(std::make_unique<SimRdmaDevice>(*this, name));
  return devices_.back().get();
}

Result<std::unique_ptr<RdmaListener>> SimRdma::listen(const Address& address) {
  Address bound = address;
  if (bound.port == 0) bound.port = fabric_.next_port_++;
  if (fabric_.device_of(node_) == nullptr) return Error{Errc::not_found, "listen: no RDMA device here"};
  if (fabric_.find_listener(bound) != nullptr) {
    return Error{Errc::busy, "listen on " + bound.to_string() + ": in use"};
  }
  return std::unique_ptr<RdmaListener>(std::make_unique<SimRdmaListener>(*this, std::move(bound)));
}

Result<std::unique_ptr<RdmaConnection>> SimRdma::connect(const Address& address) {
  return std::unique_ptr<RdmaConnection>(std::make_unique<SimRdmaConnection>(*this, address));
}

std::unique_ptr<RdmaConnection> SimRdma::adopt(std::unique_ptr<RdmaPending> pending) {
  return std::make_unique<SimRdmaConnection>(*this, std::move(pending));
}

// ---- listeners -----------------------------------------------------------------------------------------------------

SimRdmaListener::SimRdmaListener(SimRdma& rdma, Address address) : rdma_(rdma), address_(std::move(address)) {
  rdma_.fabric().listeners_.push_back(this);
}

SimRdmaListener::~SimRdmaListener() {
  rdma_.forget(this);
  std::erase(rdma_.fabric().listeners_, this);
}

std::unique_ptr<RdmaPending> SimRdmaListener::try_accept() {
  if (backlog_.empty()) return nullptr;
  auto pending = std::move(backlog_.front());
  backlog_.pop_front();
  return pending;
}

void SimRdmaListener::arm_acceptable(Work* work) {
  acceptor_ = work;
  if (!backlog_.empty()) rdma_.queue(std::exchange(acceptor_, nullptr), this);
}

void SimRdmaListener::arrive(std::unique_ptr<RdmaPending> pending) {
  backlog_.push_back(std::move(pending));
  if (acceptor_ != nullptr) rdma_.queue(std::exchange(acceptor_, nullptr), this);
}

// ---- devices and keys ----------------------------------------------------------------------------------------------

SimRdmaDevice::SimRdmaDevice(SimRdma& rdma, std::string name)
    : rdma_(rdma), name_(std::move(name)), limits_(rdma.fabric().knobs.limits) {
  rdma_.fabric().open_devices_.push_back(this);
}

SimRdmaDevice::~SimRdmaDevice() {
  BASALT_ASSERT(regions_.empty());
  std::erase(rdma_.fabric().open_devices_, this);
}

bool SimRdmaDevice::covers(const RdmaPiece& piece) const {
  const auto found = regions_.find(piece.key);
  if (found == regions_.end()) return false;
  const auto* base = static_cast<const char*>(piece.base);
  const Span& span = found->second;
  if (base < span.base) return false;
  const auto offset = static_cast<size_t>(base - span.base);
  return offset <= span.length_bytes && piece.length_bytes <= span.length_bytes - offset;
}

class SimRdmaRegion final : public RdmaRegion {
 public:
  SimRdmaRegion(SimRdmaDevice& device, void* base, size_t length_bytes)
      : device_(device), key_(device.rdma().fabric().next_key()) {
    device_.regions_[key_] = {static_cast<char*>(base), length_bytes};
  }
  ~SimRdmaRegion() override { device_.regions_.erase(key_); }
  uint32_t key() const override { return key_; }

 private:
  SimRdmaDevice& device_;
  const uint32_t key_;
};

Result<std::unique_ptr<RdmaRegion>> SimRdmaDevice::register_memory(void* base, size_t length_bytes) {
  SimRdmaFabric& fabric = rdma_.fabric();
  if (removed_) return Error{Errc::closed, name_ + ": the device is gone"};
  const size_t pinned_bytes = fabric.counts().pinned_bytes;
  if (length_bytes > fabric.knobs.pinned_bytes_max - std::min(pinned_bytes, fabric.knobs.pinned_bytes_max)) {
    return Error{Errc::no_memory, name_ + ": the limit of locked memory, RLIMIT_MEMLOCK, is reached"};
  }
  return std::unique_ptr<RdmaRegion>(std::make_unique<SimRdmaRegion>(*this, base, length_bytes));
}

Result<std::unique_ptr<RdmaWindow>> SimRdmaDevice::make_window() {
  if (removed_) return Error{Errc::closed, name_ + ": the device is gone"};
  if (rdma_.fabric().windows_.size() >= limits_.window_count_max) {
    return Error{Errc::no_memory, name_ + ": has no more memory windows"};
  }
  return std::unique_ptr<RdmaWindow>(std::make_unique<SimRdmaWindow>(*this));
}

Result<std::unique_ptr<RdmaReceiveQueue>> SimRdmaDevice::make_receive_queue(uint32_t depth) {
  if (removed_) return Error{Errc::closed, name_ + ": the device is gone"};
  if (depth == 0 || depth > limits_.shared_receive_depth_max) {
    return Error{Errc::invalid_argument, name_ + ": shared receive queue depth out of range"};
  }
  return std::unique_ptr<RdmaReceiveQueue>(std::make_unique<SimRdmaReceiveQueue>(*this, depth));
}

SimRdmaWindow::SimRdmaWindow(SimRdmaDevice& device) : device_(device) {
  device_.rdma().fabric().windows_.push_back(this);
}

SimRdmaWindow::~SimRdmaWindow() {
  BASALT_ASSERT(bound_to_ == nullptr);
  std::erase(device_.rdma().fabric().windows_, this);
}

SimRdmaReceiveQueue::SimRdmaReceiveQueue(SimRdmaDevice& device, uint32_t depth) : device_(device), depth_(depth) {
  device_.receive_queue_count_++;
}

SimRdmaReceiveQueue::~SimRdmaReceiveQueue() {
  BASALT_ASSERT(user_count_ == 0);
  device_.receive_queue_count_--;
}

void SimRdmaReceiveQueue::post(RdmaReceive* receive) {
  BASALT_ASSERT(receives_.size() < depth_ && receive->piece_count <= device_.limits().pieces_max);
  receives_.push_back(receive);
}

}  // namespace basalt::env
