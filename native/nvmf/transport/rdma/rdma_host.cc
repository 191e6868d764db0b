// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/rdma/rdma_host.h"

#include <charconv>

#include "nvmf/transport/rdma/rdma_door.h"
#include "nvmf/transport/rdma/rdma_host_queue.h"

namespace basalt::nvmf {

std::shared_ptr<RdmaHostDevice> RdmaHostTransport::device(Reactor& reactor, env::RdmaDevice& device) {
  std::lock_guard guard(mutex_);
  std::erase_if(devices_, [](const auto& entry) { return entry.second.expired(); });
  auto& known = devices_[{&reactor, &device}];
  auto shared = known.lock();
  if (shared == nullptr) {
    shared = std::make_shared<RdmaHostDevice>(reactor, device);
    known = shared;
  }
  return shared;
}

Task<Result<std::unique_ptr<HostQueue>>> RdmaHostTransport::connect(Reactor& reactor, HostAddress address,
                                                                    HostQueueOptions options) {
  env::Address target;
  target.host = address.traddr;
  const char* end = address.trsvcid.data() + address.trsvcid.size();
  const auto parsed = std::from_chars(address.trsvcid.data(), end, target.port);
  if (parsed.ec != std::errc{} || parsed.ptr != end || target.port == 0) {
    co_return Error{Errc::invalid_argument, "trsvcid: '" + address.trsvcid + "' is not a port from 1 to 65535"};
  }
  if (options.tls) co_return Error{Errc::unsupported, "psk: goes with TCP only"};
  const auto rdma = rdma_of(reactor.poller());
  if (!rdma) co_return rdma.error();
  auto connection = rdma.value()->connect(target);
  if (!connection) co_return connection.error();
  auto queue = std::make_unique<RdmaHostQueue>(reactor, options, *this, stats_, address.to_string());
  const Outcome outcome = co_await queue->handshake(std::move(connection).value());
  if (!outcome) co_return outcome.error();
  std::unique_ptr<HostQueue> connected = std::move(queue);
  co_return std::move(connected);
}

}  // namespace basalt::nvmf
