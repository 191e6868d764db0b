// SPDX-License-Identifier: Apache-2.0
// Fabric: an engine's NVMe-oF: its target, and the transports that its initiators use.
// Thread: the management reactor.
#pragma once

#include <memory>
#include <string>

#include "engine/engine.h"
#include "nvmf/host/transport.h"
#include "nvmf/target/target.h"
#include "nvmf/transport/loopback/loopback.h"
#include "nvmf/transport/rdma/rdma_host.h"
#include "nvmf/transport/rdma/rdma_target.h"
#include "nvmf/transport/tcp/tcp_host.h"
#include "nvmf/transport/tcp/tcp_target.h"

namespace basalt {

class Fabric {
 public:
  explicit Fabric(Engine& engine);

  nvmf::Target& target() { return target_; }
  // `exists` when it was called before.
  Outcome create_tcp(const nvmf::TcpTargetOptions& options);
  bool has_tcp() const { return tcp_target_ != nullptr; }
  const nvmf::TcpTargetTransport* tcp_target() const { return tcp_target_; }
  // `exists` as above; `unsupported`: no adapter, with what is missing.
  Outcome create_rdma(const nvmf::RdmaTargetOptions& options);
  const nvmf::RdmaTargetTransport* rdma_target() const { return rdma_target_; }

  nvmf::HostTransport& tcp(bool header_digest = false, bool data_digest = false) {
    return tcp_[(header_digest ? 1 : 0) | (data_digest ? 2 : 0)];
  }
  nvmf::HostTransport& rdma() { return rdma_; }
  nvmf::HostTransport& loopback() { return *loopback_; }

 private:
  nvmf::Target target_;
  nvmf::TcpTargetTransport* tcp_target_ = nullptr;  // the target's
  nvmf::RdmaTargetTransport* rdma_target_ = nullptr;
  nvmf::TcpHostTransport tcp_[4];
  nvmf::RdmaHostTransport rdma_;
  std::unique_ptr<nvmf::LoopbackHostTransport> loopback_;
};

}  // namespace basalt
