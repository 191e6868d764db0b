// SPDX-License-Identifier: Apache-2.0
// keyring_*, basalt_keyring_add_key: secrets by name, out of files or out of the memory of who asks.
#include "engine/keyring.h"

#include "engine/engine.h"
#include "engine/rpc/fields.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {
namespace {

class KeyringMethods final : public Module {
 public:
  explicit KeyringMethods(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("keyring_file_add_key", this, &KeyringMethods::add);
    dispatcher.add("keyring_file_remove_key", this, &KeyringMethods::remove);
    dispatcher.add("basalt_keyring_add_key", this, &KeyringMethods::add_secret);
    dispatcher.add("basalt_keyring_remove_key", this, &KeyringMethods::remove);
    dispatcher.add("keyring_get_keys", this, &KeyringMethods::list);
  }

 private:
  Task<RpcResult> add(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const std::string path = in.string("path");
    if (!path.empty() && path[0] != '/') in.refuse("path", "must be an absolute path");
    if (auto error = in.error()) co_return *error;
    auto text = engine_.env().read_secret_file(path);
    if (!text) co_return std::move(text).error();
    auto added = engine_.keyring().add(name, path, std::move(text).value());
    if (!added) co_return std::move(added).error();
    co_return done();
  }

  // For secrets that are in no file in clear.
  Task<RpcResult> add_secret(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    std::string secret = in.secret("secret");
    const auto error = in.error();
    if (error) {
      crypto::erase(secret.data(), secret.size());
      co_return *error;
    }
    auto added = engine_.keyring().add(name, "", std::move(secret));
    if (!added) co_return std::move(added).error();
    co_return done();
  }

  Task<RpcResult> remove(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    auto removed = engine_.keyring().remove(name);
    if (!removed) co_return std::move(removed).error();
    co_return done();
  }

  Task<RpcResult> list(JsonValue params) {
    Fields in(params);
    if (auto error = in.error()) co_return *error;
    auto keys = JsonValue::array();
    for (const Keyring::Entry& entry : engine_.keyring().entries())
      keys.push(JsonValue::object().set("name", entry.name).set("path", entry.path));
    co_return keys;
  }

  Engine& engine_;
};

}  // namespace

std::unique_ptr<Module> make_keyring(Engine& engine) {
  return std::make_unique<KeyringMethods>(engine);
}

}  // namespace basalt::rpc
