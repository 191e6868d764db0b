// SPDX-License-Identifier: Apache-2.0
// basalt_peer_watch, basalt_peer_unwatch: hints about peers that come and go.
#include "engine/fabric.h"
#include "engine/rpc/authentication_params.h"
#include "engine/rpc/fields.h"
#include "engine/rpc/modules.h"
#include "engine/rpc/nvmf_params.h"
#include "nvmf/host/peer_watch.h"

namespace basalt::rpc {
namespace {

class Peer final : public Module {
 public:
  explicit Peer(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("basalt_peer_watch", this, &Peer::watch);
    dispatcher.add("basalt_peer_unwatch", this, &Peer::unwatch);
  }

  Task<bool> stop_some() override {
    const bool some = !watches_.empty();
    while (!watches_.empty()) {
      auto held = std::move(watches_.begin()->second);
      watches_.erase(watches_.begin());
      auto stopping = held->peer->stop();
      co_await stopping;
    }
    co_return some;
  }

 private:
  struct Watch final : nvmf::PeerWatch::Listener {
    EventBus* bus = nullptr;
    std::string name;
    std::unique_ptr<nvmf::PeerWatch> peer;
    void peer_connected() override { bus->emit("peer_connected", JsonValue::object().set("name", name)); }
    void peer_lost(const Error& reason) override {
      bus->emit("peer_lost", JsonValue::object().set("name", name).set("reason", reason.message));
    }
    void peer_refused(const Error& reason) override {
      bus->emit("peer_refused", JsonValue::object().set("name", name).set("reason", reason.message));
    }
    void peer_denied(const Error& reason) override {
      bus->emit("peer_denied", JsonValue::object().set("name", name).set("reason", reason.message));
    }
  };

  Task<RpcResult> watch(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    nvmf::PeerWatchOptions options;
    options.address = {in.string("traddr"), read_port(in, "trsvcid")};
    options.keep_alive_ms = static_cast<uint32_t>(in.natural("keep_alive_ms", {.min = 100, .max = 60'000}));
    options.hostnqn = in.has("hostnqn") ? read_nqn(in, "hostnqn")
                                        : "nqn.2014-08.org.nvmexpress:uuid:" + engine_.make_uuid().to_string();
    const std::string tls_name = in.string_or("psk", "");
    if (auto error = in.error()) co_return *error;
    auto tls_key = find_tls_key(engine_.keyring(), tls_name);
    if (!tls_key) co_return std::move(tls_key).error();
    options.authentication.tls = *tls_key;
    if (watches_.contains(name)) co_return Error{Errc::exists, "peer watch " + name + " exists"};
    auto held = std::make_unique<Watch>();
    held->bus = &engine_.events();
    held->name = name;
    held->peer =
        std::make_unique<nvmf::PeerWatch>(engine_.management(), engine_.fabric().tcp(), std::move(options), held.get());
    auto started = held->peer->start();
    if (!started) co_return std::move(started).error();
    watches_.emplace(name, std::move(held));
    co_return JsonValue(name);
  }

  Task<RpcResult> unwatch(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    auto node = watches_.extract(name);
    if (node.empty()) co_return Error{Errc::not_found, "peer watch " + name + " does not exist"};
    auto stopping = node.mapped()->peer->stop();
    co_await stopping;
    co_return done();
  }

  Engine& engine_;
  std::map<std::string, std::unique_ptr<Watch>> watches_;
};

}  // namespace

std::unique_ptr<Module> make_peer(Engine& engine) {
  return std::make_unique<Peer>(engine);
}

}  // namespace basalt::rpc
