// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/tcp/tcp_host.h"

#include <charconv>

#include "nvmf/transport/tcp/tcp_host_queue.h"

namespace basalt::nvmf {
namespace {

Result<env::Address> to_address(const HostAddress& address) {
  env::Address out;
  out.host = address.traddr;
  const char* end = address.trsvcid.data() + address.trsvcid.size();
  const auto parsed = std::from_chars(address.trsvcid.data(), end, out.port);
  if (parsed.ec != std::errc{} || parsed.ptr != end || out.port == 0) {
    return Error{Errc::invalid_argument, "trsvcid: '" + address.trsvcid + "' is not a port from 1 to 65535"};
  }
  return out;
}

}  // namespace

Result<const crypto::TlsContext*> TcpHostTransport::tls_context() {
  std::lock_guard guard(tls_->mutex);
  if (tls_->context == nullptr) {
    auto made = crypto::TlsContext::make(crypto::TlsContext::Role::client);
    if (!made) return std::move(made).error();
    tls_->context = std::move(made).value();
  }
  return tls_->context.get();
}

Task<Result<std::unique_ptr<HostQueue>>> TcpHostTransport::connect(Reactor& reactor, HostAddress address,
                                                                   HostQueueOptions options) {
  auto target = to_address(address);
  if (!target) co_return target.error();
  const crypto::TlsContext* tls = nullptr;
  if (options.tls) {
    auto context = tls_context();
    if (!context) co_return context.error();
    tls = *context;
  }
  auto socket = reactor.poller().connect(*target);
  if (!socket) co_return socket.error();
  auto queue = std::make_unique<TcpHostQueue>(reactor, options, options_.digests, address.to_string());
  const Outcome outcome = co_await queue->handshake(std::move(socket).value(), tls);
  if (!outcome) co_return outcome.error();
  std::unique_ptr<HostQueue> connected = std::move(queue);
  co_return std::move(connected);
}

}  // namespace basalt::nvmf
