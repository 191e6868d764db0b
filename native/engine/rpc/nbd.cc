// SPDX-License-Identifier: Apache-2.0
// basalt_nbd_start, basalt_nbd_stop: bdevs served over NBD on Unix sockets.
#include "engine/rpc/fields.h"
#include "engine/rpc/modules.h"
#include "export/nbd/server.h"

namespace basalt::rpc {
namespace {

std::string percent_encoded(const std::string& text) {
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                       c == '.' || c == '_' || c == '~' || c == '/';
    if (plain) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', digits[byte >> 4], digits[byte & 15]};
    }
  }
  return out;
}

class Nbd final : public Module {
 public:
  explicit Nbd(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("basalt_nbd_start", this, &Nbd::start_export);
    dispatcher.add("basalt_nbd_stop", this, &Nbd::stop_export);
  }

  Task<bool> stop_some() override {
    const bool some = !exports_.empty();
    while (!exports_.empty()) {
      const std::string path = exports_.begin()->first;
      auto stopping = stop(path);
      auto stopped = co_await stopping;
      (void)stopped.ok();
    }
    co_return some;
  }

 private:
  struct Export {
    std::string bdev;
    std::unique_ptr<nbd::Server> server;
  };

  static std::string user_of(const std::string& path) { return "NBD export " + path; }

  Task<RpcResult> start_export(JsonValue params) {
    Fields in(params);
    const std::string bdev_name = in.string("bdev_name");
    const std::string path = in.string("path");
    const std::string export_name = in.string_or("export_name", "");
    constexpr size_t path_bytes_max = 107;  // what a Unix socket's address holds
    if (path.empty() || path[0] != '/' || path.size() > path_bytes_max) {
      in.refuse("path", "must be an absolute path of at most 107 bytes");
    }
    if (auto error = in.error()) co_return *error;
    if (exports_.contains(path)) co_return Error{Errc::exists, "an NBD export at " + path + " exists"};
    auto bdev = engine_.bdevs().open(bdev_name, user_of(path));
    if (!bdev) co_return std::move(bdev).error();
    nbd::ServerOptions options;
    options.address.family = env::Address::Family::unix_path;
    options.address.host = path;
    options.export_name = export_name;
    Reactor& reactor = engine_.management();
    auto server = nbd::Server::start(reactor, bdev::Handle(**bdev, reactor), options);
    if (!server) {
      engine_.bdevs().release(bdev_name, user_of(path));
      co_return std::move(server).error();
    }
    exports_[path] = {bdev_name, std::move(*server)};
    auto result = JsonValue::object();
    result.set("uri", "nbd+unix:///" + percent_encoded(export_name) + "?socket=" + percent_encoded(path));
    co_return result;
  }

  Task<RpcResult> stop_export(JsonValue params) {
    Fields in(params);
    const std::string path = in.string("path");
    if (auto error = in.error()) co_return *error;
    if (!exports_.contains(path)) co_return Error{Errc::not_found, "no NBD export at " + path};
    auto stopping = stop(path);
    auto stopped = co_await stopping;
    if (!stopped) co_return std::move(stopped).error();
    co_return done();
  }

  Task<Outcome> stop(std::string path) {
    auto node = exports_.extract(path);
    auto stopping = node.mapped().server->stop();
    auto stopped = co_await stopping;
    node.mapped().server.reset();
    engine_.bdevs().release(node.mapped().bdev, user_of(path));
    co_return stopped;
  }

  Engine& engine_;
  std::map<std::string, Export> exports_;
};

}  // namespace

std::unique_ptr<Module> make_nbd(Engine& engine) {
  return std::make_unique<Nbd>(engine);
}

}  // namespace basalt::rpc
