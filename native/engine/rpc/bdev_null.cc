// SPDX-License-Identifier: Apache-2.0
// bdev_null_create, bdev_null_delete.
#include "bdev/null/null.h"

#include "engine/rpc/bdev_params.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {
namespace {

class BdevNull final : public Module {
 public:
  explicit BdevNull(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("bdev_null_create", this, &BdevNull::create);
    dispatcher.add("bdev_null_delete", this, &BdevNull::remove);
  }

 private:
  Task<RpcResult> create(JsonValue params) {
    Fields in(params);
    const Geometry geometry = read_geometry(in);
    std::string name = in.string("name");
    const Uuid uuid = in.uuid("uuid").value_or(engine_.make_uuid());
    if (auto error = in.error()) co_return *error;
    if (auto reserved = engine_.bdevs().reserve(name); !reserved) co_return std::move(reserved).error();
    bdev::NullOptions options;
    options.name = name;
    options.uuid = uuid;
    options.block_size_bytes = geometry.block_size_bytes;
    options.count_blocks = geometry.count_blocks;
    auto made = bdev::NullBdev::create(engine_.management(), options);
    if (!made) {
      engine_.bdevs().withdraw(name);
      co_return std::move(made).error();
    }
    engine_.bdevs().publish(name, std::move(*made));
    co_return JsonValue(std::move(name));
  }

  Task<RpcResult> remove(JsonValue params) {
    auto deleting = delete_bdev(engine_, std::move(params), "null");
    auto result = co_await deleting;
    co_return result;
  }

  Engine& engine_;
};

}  // namespace

std::unique_ptr<Module> make_bdev_null(Engine& engine) {
  return std::make_unique<BdevNull>(engine);
}

}  // namespace basalt::rpc
