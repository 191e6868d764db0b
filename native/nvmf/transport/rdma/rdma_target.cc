// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/rdma/rdma_target.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "nvmf/transport/rdma/rdma_door.h"

namespace basalt::nvmf {
namespace {
constexpr size_t rdma_accepts_per_turn_max = 64;
}

RdmaTargetTransport::RdmaTargetTransport(Target& target, const RdmaTargetOptions& options)
    : target_(target), options_(options) {
  for (Reactor* reactor : target.reactors()) {
    shards_.push_back(std::make_unique<RdmaTargetConnection::Shard>(*reactor));
    shards_.back()->stats = &stats_;
    shards_.back()->half_open_max = std::max<size_t>(1, options.half_open_max / target.reactors().size());
  }
}

RdmaTargetTransport::~RdmaTargetTransport() {
  BASALT_ASSERT(ports_.empty() && connection_count() == 0);
}

Task<Outcome> RdmaTargetTransport::listen(Listener* listener) {
  env::Address address;
  address.host = listener->address.traddr;
  const std::string& text = listener->address.trsvcid;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), address.port);
  if (error != std::errc{} || end != text.data() + text.size()) {
    co_return Error{Errc::invalid_argument, "trsvcid: must be a port number, 0..65535"};
  }
  if (listener->address.secure_channel) co_return Error{Errc::unsupported, "secure_channel: goes with TCP only"};
  if (!address.is_loopback() && !options_.trusted_network) {
    co_return Error{Errc::permission, "traddr: " + address.host +
                                          " is not a loopback address, and nothing encrypts RDMA: others need a "
                                          "network that is trusted"};
  }
  const auto rdma = rdma_of(target_.home().poller());
  if (!rdma) co_return rdma.error();
  auto socket = rdma.value()->listen(address);
  if (!socket) co_return std::move(socket).error();
  auto port = std::make_unique<Port>();
  port->transport = this;
  port->listener = listener;
  port->socket = std::move(socket).value();
  port->run = [](Work* work) {
    Port& ready = *static_cast<Port*>(work);
    ready.transport->accept(ready);
  };
  listener->address.trsvcid = std::to_string(port->socket->address().port);
  port->socket->arm_acceptable(port.get());
  ports_.push_back(std::move(port));
  co_return success();
}

Task<void> RdmaTargetTransport::unlisten(Listener* listener) {
  const auto found =
      std::find_if(ports_.begin(), ports_.end(), [&](const auto& port) { return port->listener == listener; });
  BASALT_ASSERT(found != ports_.end());
  const std::unique_ptr<Port> port = std::move(*found);
  ports_.erase(found);
  port->socket.reset();
  for (size_t i = 0; i < shards_.size(); i++) {
    auto there = hop(*target_.reactors()[i]);
    co_await there;
    shards_[i]->connections.for_each([&](RdmaTargetConnection* connection) {
      if (&connection->listener() == listener) connection->close();
    });
  }
  auto back = hop(target_.home());
  co_await back;
  struct Empty {
    Port& port;
    bool await_ready() const noexcept { return port.connection_count == 0; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { port.empty_waiter = waiter; }
    void await_resume() const noexcept {}
  };
  Empty empty{*port};
  co_await empty;
}

void RdmaTargetTransport::accept(Port& port) {
  for (size_t i = 0; i < rdma_accepts_per_turn_max; i++) {
    auto pending = port.socket->try_accept();
    if (pending == nullptr) break;
    // At the limit a connection is dropped at once: those that exist go on undisturbed.
    if (connection_count() >= options_.connections_max) continue;
    add(port, std::move(pending));
  }
  port.socket->arm_acceptable(&port);
}

void RdmaTargetTransport::add(Port& port, std::unique_ptr<env::RdmaPending> pending) {
  const size_t index = next_reactor_++ % shards_.size();
  Reactor& reactor = *target_.reactors()[index];
  auto* connection = new RdmaTargetConnection(target_, reactor, *port.listener, *shards_[index], half_open_count_,
                                              options_.connection, std::move(pending));
  connection->on_gone = connection_gone;
  connection->transport_context = &port;
  port.connection_count++;
  connection_count_.fetch_add(1, std::memory_order_relaxed);
  half_open_count_.fetch_add(1, std::memory_order_relaxed);
  reactor.post(&connection->start_message);
}

// On the home reactor: the connection's last sign of life.
void RdmaTargetTransport::connection_gone(RdmaTargetConnection* connection) {
  Port& port = *static_cast<Port*>(connection->transport_context);
  delete connection;
  port.transport->connection_count_.fetch_sub(1, std::memory_order_relaxed);
  port.connection_count--;
  if (port.connection_count == 0 && port.empty_waiter) std::exchange(port.empty_waiter, {}).resume();
}

}  // namespace basalt::nvmf
