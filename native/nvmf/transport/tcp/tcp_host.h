// SPDX-License-Identifier: Apache-2.0
// TCP transport of the host: makes connected NVMe/TCP queues (tcp_host_queue.h).
#pragma once

#include <memory>
#include <mutex>

#include "crypto/tls_session.h"
#include "nvmf/host/transport.h"
#include "nvmf/pdu/pdu.h"

namespace basalt::nvmf {

class TcpHostTransport final : public HostTransport {
 public:
  struct Options {
    pdu::Digests digests;  // asked for; a target that does not agree is refused
  };
  TcpHostTransport() = default;
  explicit TcpHostTransport(const Options& options) : options_(options) {}

  const char* name() const override { return "TCP"; }
  Task<Result<std::unique_ptr<HostQueue>>> connect(Reactor& reactor, HostAddress address,
                                                   HostQueueOptions options) override;

 private:
  // Made when a connection first asks for it, on whichever reactor.
  Result<const crypto::TlsContext*> tls_context();

  Options options_;
  struct Tls {
    std::mutex mutex;
    std::unique_ptr<crypto::TlsContext> context;
  };
  std::unique_ptr<Tls> tls_ = std::make_unique<Tls>();
};

}  // namespace basalt::nvmf
