// SPDX-License-Identifier: Apache-2.0
// accel_crypto_key_create, accel_crypto_key_destroy, accel_crypto_keys_get, bdev_crypto_create, bdev_crypto_delete:
// encryption at rest. No answer, error or event ever holds what a key is made of.
#include <map>

#include "bdev/crypt/crypt.h"
#include "engine/rpc/bdev_params.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {
namespace {

class BdevCrypto final : public Module {
 public:
  explicit BdevCrypto(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("accel_crypto_key_create", this, &BdevCrypto::create_key);
    dispatcher.add("accel_crypto_key_destroy", this, &BdevCrypto::destroy_key);
    dispatcher.add("accel_crypto_keys_get", this, &BdevCrypto::get_keys);
    dispatcher.add("bdev_crypto_create", this, &BdevCrypto::create);
    dispatcher.add("bdev_crypto_delete", this, &BdevCrypto::remove);
  }

 private:
  struct Key {
    crypto::SecretBytes data;
    crypto::SecretBytes tweak;
  };
  static constexpr size_t key_count_max = 4096;

  static crypto::SecretBytes read_key(Fields& in, std::string_view name) {
    auto bytes = crypto::SecretBytes::from_hex(in.secret(name));
    if (!bytes || bytes->size() == 0) {
      in.refuse(name, "must be hexadecimal digits, two for each byte");
      return {};
    }
    return std::move(*bytes);
  }

  Task<RpcResult> create_key(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    in.choice("cipher", {"AES_XTS"});
    Key key;
    key.data = read_key(in, "key");
    key.tweak = read_key(in, "key2");
    in.choice_or("tweak_mode", 0, {"SIMPLE_LBA"});
    if (auto error = in.error()) co_return *error;
    if (keys_.contains(name)) co_return Error{Errc::exists, "key " + name + " exists"};
    if (keys_.size() >= key_count_max) co_return Error{Errc::no_memory, "there are too many keys"};
    auto cipher = crypto::XtsCipher::create(key.data, key.tweak);
    if (!cipher) co_return RpcError{code::invalid_params, "params." + cipher.error().message, {}};
    keys_.emplace(name, std::move(key));
    co_return done();
  }

  Task<RpcResult> destroy_key(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("key_name");
    if (auto error = in.error()) co_return *error;
    if (keys_.erase(name) == 0) co_return no_key(name);
    co_return done();
  }

  Task<RpcResult> get_keys(JsonValue params) {
    Fields in(params);
    const std::string wanted = in.string_or("key_name", "");
    if (auto error = in.error()) co_return *error;
    if (!wanted.empty() && !keys_.contains(wanted)) co_return no_key(wanted);
    auto all = JsonValue::array();
    for (const auto& [name, key] : keys_) {
      if (!wanted.empty() && name != wanted) continue;
      auto one = JsonValue::object();
      one.set("name", name)
          .set("cipher", "AES_XTS")
          .set("key_bits", static_cast<uint64_t>(key.data.size() * 8))
          .set("tweak_mode", "SIMPLE_LBA");
      all.push(std::move(one));
    }
    co_return all;
  }

  Task<RpcResult> create(JsonValue params) {
    Fields in(params);
    bdev::CryptOptions options;
    const std::string base = in.string("base_bdev_name");
    options.name = in.string("name");
    const std::string key_name = in.string("key_name");
    options.uuid = in.uuid("uuid").value_or(engine_.make_uuid());
    if (auto error = in.error()) co_return *error;
    const auto key = keys_.find(key_name);
    if (key == keys_.end()) co_return no_key(key_name);
    auto cipher = crypto::XtsCipher::create(key->second.data, key->second.tweak);
    if (!cipher) co_return std::move(cipher).error();
    BdevRegistry& bdevs = engine_.bdevs();
    if (auto reserved = bdevs.reserve(options.name); !reserved) co_return std::move(reserved).error();
    auto child = bdevs.claim(base, child_user(options.name));
    if (!child) {
      bdevs.withdraw(options.name);
      co_return std::move(child).error();
    }
    Reactor& home = engine_.management();
    auto made = bdev::CryptBdev::create(home, options, bdev::Handle(**child, home), std::move(*cipher));
    if (!made) {
      bdevs.release(base, child_user(options.name));
      bdevs.withdraw(options.name);
      co_return std::move(made).error();
    }
    bdevs.publish(options.name, std::move(*made), {base});
    co_return JsonValue(options.name);
  }

  Task<RpcResult> remove(JsonValue params) {
    auto deleting = delete_bdev(engine_, std::move(params), "crypto");
    auto result = co_await deleting;
    co_return result;
  }

  static Error no_key(const std::string& name) { return Error{Errc::not_found, "key " + name + " does not exist"}; }

  Engine& engine_;
  std::map<std::string, Key, std::less<>> keys_;
};

}  // namespace

std::unique_ptr<Module> make_bdev_crypto(Engine& engine) {
  return std::make_unique<BdevCrypto>(engine);
}

}  // namespace basalt::rpc
