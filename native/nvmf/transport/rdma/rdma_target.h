// SPDX-License-Identifier: Apache-2.0
// RdmaTargetTransport: listens for NVMe/RDMA and spreads the connections over the reactors; each stays on its reactor
// for life.
//
// NVMe/RDMA has no encryption: whoever reaches the network can read and change what travels. So it listens beyond
// loopback only when it is told that the network is trusted.
//
// Thread: accepting and the lists of listeners belong to the target's home reactor; a connection and its shard to the
// connection's reactor.
#pragma once

#include <atomic>
#include <coroutine>
#include <memory>
#include <vector>

#include "nvmf/target/target.h"
#include "nvmf/transport/rdma/rdma_target_connection.h"

namespace basalt::nvmf {

struct RdmaTargetOptions {
  bool trusted_network = false;
  size_t connections_max = 8192;
  size_t half_open_max = 256;  // accepted, not connected to a controller yet; one more takes the oldest one's place
  RdmaConnectionOptions connection;
};

class RdmaTargetTransport final : public TargetTransport {
 public:
  explicit RdmaTargetTransport(Target& target, const RdmaTargetOptions& options = {});
  ~RdmaTargetTransport() override;

  const char* trtype() const override { return "RDMA"; }
  Task<Outcome> listen(Listener* listener) override;
  Task<void> unlisten(Listener* listener) override;

  size_t connection_count() const { return connection_count_.load(std::memory_order_relaxed); }
  size_t half_open_count() const { return half_open_count_.load(std::memory_order_relaxed); }
  const RdmaTargetStats& stats() const { return stats_; }

 private:
  struct Port : Work {
    RdmaTargetTransport* transport = nullptr;
    Listener* listener = nullptr;
    std::unique_ptr<env::RdmaListener> socket;
    size_t connection_count = 0;
    std::coroutine_handle<> empty_waiter;
  };

  void accept(Port& port);
  void add(Port& port, std::unique_ptr<env::RdmaPending> pending);
  static void connection_gone(RdmaTargetConnection* connection);

  Target& target_;
  const RdmaTargetOptions options_;
  RdmaTargetStats stats_;
  std::vector<std::unique_ptr<Port>> ports_;
  std::vector<std::unique_ptr<RdmaTargetConnection::Shard>> shards_;  // by reactor
  size_t next_reactor_ = 0;
  std::atomic<size_t> connection_count_{0};
  std::atomic<size_t> half_open_count_{0};
};

}  // namespace basalt::nvmf
