// SPDX-License-Identifier: Apache-2.0
#include "engine/fabric.h"

#include "nvmf/transport/rdma/rdma_door.h"

namespace basalt {
namespace {

std::vector<Reactor*> all_reactors(Engine& engine) {
  std::vector<Reactor*> reactors;
  for (const auto& reactor : engine.reactors())
    reactors.push_back(reactor.get());
  return reactors;
}

nvmf::TcpHostTransport host_transport(uint8_t digest_bits) {
  nvmf::TcpHostTransport::Options options;
  options.digests = nvmf::pdu::Digests::from_bits(digest_bits);
  return nvmf::TcpHostTransport(options);
}

}  // namespace

Fabric::Fabric(Engine& engine)
    : target_(all_reactors(engine)), tcp_{host_transport(0), host_transport(1), host_transport(2), host_transport(3)} {
  auto loopback = std::make_unique<nvmf::LoopbackTargetTransport>(target_);
  loopback_ = std::make_unique<nvmf::LoopbackHostTransport>(*loopback);
  target_.add_transport(std::move(loopback));
}

Outcome Fabric::create_tcp(const nvmf::TcpTargetOptions& options) {
  if (has_tcp()) return Error{Errc::exists, "the TCP transport exists"};
  auto transport = std::make_unique<nvmf::TcpTargetTransport>(target_, options);
  tcp_target_ = transport.get();
  target_.add_transport(std::move(transport));
  return success();
}

Outcome Fabric::create_rdma(const nvmf::RdmaTargetOptions& options) {
  if (rdma_target_ != nullptr) return Error{Errc::exists, "the RDMA transport exists"};
  const auto rdma = nvmf::rdma_of(target_.home().poller());
  if (!rdma) return rdma.error();
  auto transport = std::make_unique<nvmf::RdmaTargetTransport>(target_, options);
  rdma_target_ = transport.get();
  target_.add_transport(std::move(transport));
  return success();
}

}  // namespace basalt
