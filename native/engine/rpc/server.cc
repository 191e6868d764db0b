// SPDX-License-Identifier: Apache-2.0
// The JSON-RPC 2.0 server on a Unix socket (EngineConfig::rpc_path). The socket's mode and the check of who connects
// are env's: the same user, and root.
#include "engine/rpc/connection.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {
namespace {

constexpr size_t connection_count_max = 64;

class Server final : public Module {
 public:
  explicit Server(Engine& engine) : engine_(engine) {
    acceptable_.server = this;
    acceptable_.run = [](Work* work) { static_cast<Event*>(work)->server->accept(); };
  }

  void register_methods(Dispatcher&) override {}

  Outcome start() override {
    if (engine_.config().rpc_path.empty()) return success();
    env::Address address;
    address.family = env::Address::Family::unix_path;
    address.host = engine_.config().rpc_path;
    auto listening = engine_.management().poller().listen(address);
    if (!listening) return std::move(listening).error();
    listener_ = std::move(*listening);
    listener_->arm_acceptable(&acceptable_);
    return success();
  }

  void abort() override {
    listener_.reset();
    for (const auto& connection : connections_)
      connection->close();
  }

  Task<bool> stop_some() override {
    reap();
    // Running methods have ended before modules stop.
    BASALT_ASSERT(connections_.empty());
    co_return false;
  }

 private:
  struct Event : Work {
    Server* server = nullptr;
  };

  void accept() {
    if (!listener_) return;
    reap();
    while (auto pending = listener_->try_accept()) {
      if (connections_.size() == connection_count_max) continue;  // dropped
      auto socket = engine_.management().poller().adopt(std::move(pending));
      connections_.push_back(std::make_unique<Connection>(engine_, std::move(socket)));
      connections_.back()->start();
    }
    listener_->arm_acceptable(&acceptable_);
  }

  void reap() {
    std::erase_if(connections_, [](const std::unique_ptr<Connection>& each) { return each->idle(); });
  }

  Engine& engine_;
  Event acceptable_;
  std::unique_ptr<env::StreamListener> listener_;
  std::vector<std::unique_ptr<Connection>> connections_;
};

}  // namespace

std::unique_ptr<Module> make_server(Engine& engine) {
  return std::make_unique<Server>(engine);
}

}  // namespace basalt::rpc
