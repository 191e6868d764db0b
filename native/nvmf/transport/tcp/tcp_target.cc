// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/tcp/tcp_target.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace basalt::nvmf {
namespace {
constexpr size_t accepts_per_turn_max = 64;
}

TcpTargetTransport::TcpTargetTransport(Target& target, const TcpTargetOptions& options)
    : target_(target), options_(options) {
  for (size_t i = 0; i < target.reactors().size(); i++) {
    shards_.push_back(std::make_unique<TcpConnection::Shard>());
    shards_.back()->tls_established_count = &tls_established_count_;
    shards_.back()->half_open_max = std::max<size_t>(1, options.half_open_max / target.reactors().size());
  }
}

TcpTargetTransport::~TcpTargetTransport() {
  BASALT_ASSERT(ports_.empty() && connection_count() == 0);
}

Task<Outcome> TcpTargetTransport::listen(Listener* listener) {
  env::Address address;
  address.host = listener->address.traddr;
  const std::string& text = listener->address.trsvcid;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), address.port);
  if (error != std::errc{} || end != text.data() + text.size()) {
    co_return Error{Errc::invalid_argument, "trsvcid: must be a port number, 0..65535"};
  }
  const bool tls = listener->address.secure_channel;
  if (!address.is_loopback() && !tls && !options_.trusted_network) {
    co_return Error{Errc::permission, "traddr: " + address.host +
                                          " is not a loopback address; others need secure_channel (TLS), or a network "
                                          "that is trusted"};
  }
  if (tls && tls_context_ == nullptr) {
    auto context = crypto::TlsContext::make(crypto::TlsContext::Role::server);
    if (!context) co_return std::move(context).error();
    tls_context_ = std::move(context).value();
  }
  auto socket = target_.home().poller().listen(address);
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

Task<void> TcpTargetTransport::unlisten(Listener* listener) {
  const auto found =
      std::find_if(ports_.begin(), ports_.end(), [&](const auto& port) { return port->listener == listener; });
  BASALT_ASSERT(found != ports_.end());
  const std::unique_ptr<Port> port = std::move(*found);
  ports_.erase(found);
  port->socket.reset();
  for (size_t i = 0; i < shards_.size(); i++) {
    auto there = hop(*target_.reactors()[i]);
    co_await there;
    shards_[i]->connections.for_each([&](TcpConnection* connection) {
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

void TcpTargetTransport::accept(Port& port) {
  for (size_t i = 0; i < accepts_per_turn_max; i++) {
    auto pending = port.socket->try_accept();
    if (pending == nullptr) break;
    // At the limit a connection is dropped at once: those that exist go on undisturbed.
    if (connection_count() >= options_.connections_max) continue;
    add(port, std::move(pending));
  }
  port.socket->arm_acceptable(&port);
}

void TcpTargetTransport::add(Port& port, std::unique_ptr<env::PendingSocket> pending) {
  const size_t index = next_reactor_++ % shards_.size();
  Reactor& reactor = *target_.reactors()[index];
  auto* connection =
      new TcpConnection(target_, reactor, *port.listener, *shards_[index], half_open_count_, options_.connection,
                        std::move(pending), port.listener->address.secure_channel ? tls_context_.get() : nullptr);
  connection->on_gone = connection_gone;
  connection->transport_context = &port;
  port.connection_count++;
  connection_count_.fetch_add(1, std::memory_order_relaxed);
  half_open_count_.fetch_add(1, std::memory_order_relaxed);
  reactor.post(&connection->start_message);
}

// On the home reactor: the connection's last sign of life.
void TcpTargetTransport::connection_gone(TcpConnection* connection) {
  Port& port = *static_cast<Port*>(connection->transport_context);
  delete connection;
  port.transport->connection_count_.fetch_sub(1, std::memory_order_relaxed);
  port.connection_count--;
  if (port.connection_count == 0 && port.empty_waiter) std::exchange(port.empty_waiter, {}).resume();
}

}  // namespace basalt::nvmf
