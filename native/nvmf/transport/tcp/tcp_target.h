// SPDX-License-Identifier: Apache-2.0
// TcpTargetTransport: listens for NVMe/TCP and spreads the connections over the reactors; each stays on its reactor for
// life. Without TLS it listens on loopback addresses only, unless it is told that the network is trusted.
//
// Thread: accepting and the lists of listeners belong to the target's home reactor; a connection and its shard's list
// to the connection's reactor.
#pragma once

#include <atomic>
#include <coroutine>
#include <memory>
#include <vector>

#include "nvmf/target/target.h"
#include "nvmf/transport/tcp/tcp_target_connection.h"

namespace basalt::nvmf {

struct TcpTargetOptions {
  bool trusted_network = false;
  size_t connections_max = 8192;
  size_t half_open_max = 256;  // accepted, not connected to a controller yet; one more takes the oldest one's place
  TcpConnectionOptions connection;
};

class TcpTargetTransport final : public TargetTransport {
 public:
  explicit TcpTargetTransport(Target& target, const TcpTargetOptions& options = {});
  ~TcpTargetTransport() override;

  const char* trtype() const override { return "TCP"; }
  Task<Outcome> listen(Listener* listener) override;
  Task<void> unlisten(Listener* listener) override;

  size_t connection_count() const { return connection_count_.load(std::memory_order_relaxed); }
  size_t half_open_count() const { return half_open_count_.load(std::memory_order_relaxed); }
  uint64_t tls_established_count() const { return tls_established_count_.load(std::memory_order_relaxed); }

 private:
  struct Port : Work {
    TcpTargetTransport* transport = nullptr;
    Listener* listener = nullptr;
    std::unique_ptr<env::StreamListener> socket;
    size_t connection_count = 0;
    std::coroutine_handle<> empty_waiter;
  };

  void accept(Port& port);
  void add(Port& port, std::unique_ptr<env::PendingSocket> pending);
  static void connection_gone(TcpConnection* connection);

  Target& target_;
  const TcpTargetOptions options_;
  std::vector<std::unique_ptr<Port>> ports_;
  std::vector<std::unique_ptr<TcpConnection::Shard>> shards_;  // by reactor
  size_t next_reactor_ = 0;
  std::atomic<size_t> connection_count_{0};
  std::atomic<size_t> half_open_count_{0};
  std::atomic<uint64_t> tls_established_count_{0};
  std::unique_ptr<crypto::TlsContext> tls_context_;  // from the first TLS port on
};

}  // namespace basalt::nvmf
