// SPDX-License-Identifier: Apache-2.0
#include "export/nbd/server.h"

#include <algorithm>

#include "export/nbd/connection.h"

namespace basalt::nbd {
namespace {
constexpr size_t accepts_per_turn_max = 64;
}  // namespace

Result<std::unique_ptr<Server>> Server::start(Reactor& reactor, bdev::Handle bdev, const ServerOptions& options) {
  if (!options.address.is_loopback()) {
    return Error{Errc::invalid_argument,
                 "path: a Unix socket or a loopback address, until clients can be authenticated"};
  }
  if (options.export_name.size() > name_bytes_max) {
    return Error{Errc::invalid_argument, "export_name: at most " + std::to_string(name_bytes_max) + " bytes"};
  }
  auto listener = reactor.poller().listen(options.address);
  if (!listener) return std::move(listener).error();
  std::unique_ptr<Server> server(new Server(reactor, bdev));
  const bdev::BdevInfo& below = bdev.info();
  uint16_t flags = flag_has_flags | flag_send_flush | flag_can_multi_conn;
  if (below.io_types.has(bdev::IoType::write)) flags |= flag_send_fua;
  if (!below.io_types.has(bdev::IoType::write)) flags |= flag_read_only;
  if (below.io_types.has(bdev::IoType::unmap)) flags |= flag_send_trim;
  if (below.io_types.has(bdev::IoType::write_zeroes)) flags |= flag_send_write_zeroes;
  server->info_ = {options.export_name,
                   below.count_blocks * below.block_size_bytes,
                   flags,
                   below.block_size_bytes,
                   std::max<uint32_t>(below.block_size_bytes, 4096),
                   static_cast<uint32_t>(bdev::io_bytes_max)};
  server->listener_ = std::move(listener).value();
  server->acceptor_.server = server.get();
  server->acceptor_.run = acceptable;
  server->listener_->arm_acceptable(&server->acceptor_);
  return server;
}

Server::Server(Reactor& reactor, bdev::Handle bdev) : reactor_(reactor), bdev_(bdev) {}

Server::~Server() {
  BASALT_ASSERT(connections_.empty());
}

void Server::acceptable(Work* work) {
  Server* server = static_cast<Acceptor*>(work)->server;
  server->accept_some();
  server->listener_->arm_acceptable(&server->acceptor_);
}

void Server::accept_some() {
  for (size_t i = 0; i < accepts_per_turn_max; i++) {
    auto pending = listener_->try_accept();
    if (pending == nullptr) return;
    if (!make_room() || !gate_.enter()) continue;  // dropped
    // A bdev that has grown is shown as it is to whoever comes now; NBD has no word for those who are there.
    info_.size_bytes = bdev_.bdev().count_blocks() * bdev_.info().block_size_bytes;
    auto socket = reactor_.poller().adopt(std::move(pending));
    connections_.push_back(std::make_unique<Connection>(*this, std::move(socket)));
    stats_.accepted_count++;
    connections_.back()->start();
  }
}

// Clients that never finish their handshake must not keep others out: the oldest of them gives way.
bool Server::make_room() {
  if (connections_.size() >= 2 * connection_count_max) return false;  // most of them ended, with requests in flight
  size_t live_count = 0;
  Connection* oldest_negotiating = nullptr;
  for (const auto& connection : connections_) {
    if (connection->ended()) continue;
    live_count++;
    if (oldest_negotiating == nullptr && connection->negotiating()) oldest_negotiating = connection.get();
  }
  if (live_count < connection_count_max) return true;
  if (oldest_negotiating == nullptr) return false;
  oldest_negotiating->drop();
  return true;
}

void Server::remove(Connection* connection) {
  std::erase_if(connections_, [&](const auto& owned) { return owned.get() == connection; });
  gate_.leave();
}

ServerStats Server::stats() const {
  ServerStats stats = stats_;
  stats.connection_count = connections_.size();
  return stats;
}

Task<Outcome> Server::stop() {
  listener_.reset();
  std::vector<Connection*> all;
  for (const auto& connection : connections_)
    all.push_back(connection.get());
  for (Connection* connection : all)
    connection->drop();
  co_await gate_.close();
  co_return success();
}

}  // namespace basalt::nbd
