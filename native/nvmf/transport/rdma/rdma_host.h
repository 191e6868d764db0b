// SPDX-License-Identifier: Apache-2.0
// RDMA transport of the host: makes connected NVMe/RDMA queues (rdma_host_queue.h). The queues of one reactor and
// device share their registrations and a reserved buffer, which go with the last of them.
//
// Thread: connect() on any reactor; the table of registrations is locked (control path only), each belongs to its
// reactor.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>

#include "nvmf/host/transport.h"
#include "nvmf/transport/rdma/rdma_bounce.h"
#include "nvmf/transport/rdma/rdma_memory.h"

namespace basalt::nvmf {

struct RdmaHostStats {
  std::atomic<uint64_t> copied_bytes{0};    // payload that was in pieces or not in registered memory
  std::atomic<uint64_t> in_place_bytes{0};  // payload that the adapter moved from or to the submitter's memory
};

// What the queues of one reactor share of one device.
struct RdmaHostDevice {
  RdmaHostDevice(Reactor& reactor, env::RdmaDevice& device)
      : memory(reactor.buffers().arena(), device), bounces(reactor) {}
  RdmaMemory memory;
  RdmaBounces bounces;
};

class RdmaHostTransport final : public HostTransport {
 public:
  RdmaHostTransport() = default;
  const char* name() const override { return "RDMA"; }
  Task<Result<std::unique_ptr<HostQueue>>> connect(Reactor& reactor, HostAddress address,
                                                   HostQueueOptions options) override;

  const RdmaHostStats& stats() const { return *stats_; }
  // For queues.
  std::shared_ptr<RdmaHostDevice> device(Reactor& reactor, env::RdmaDevice& device);

 private:
  std::mutex mutex_;
  std::map<std::pair<Reactor*, env::RdmaDevice*>, std::weak_ptr<RdmaHostDevice>> devices_;
  std::shared_ptr<RdmaHostStats> stats_ = std::make_shared<RdmaHostStats>();
};

}  // namespace basalt::nvmf
