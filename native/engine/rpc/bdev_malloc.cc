// SPDX-License-Identifier: Apache-2.0
// bdev_malloc_create, bdev_malloc_delete.
#include "bdev/malloc/malloc.h"

#include "engine/rpc/bdev_params.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {
namespace {

class BdevMalloc final : public Module {
 public:
  explicit BdevMalloc(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("bdev_malloc_create", this, &BdevMalloc::create);
    dispatcher.add("bdev_malloc_delete", this, &BdevMalloc::remove);
  }

 private:
  Task<RpcResult> create(JsonValue params) {
    Fields in(params);
    const Geometry geometry = read_geometry(in);
    std::string name = in.string_or("name", "Malloc" + std::to_string(next_index_));
    const Uuid uuid = in.uuid("uuid").value_or(engine_.make_uuid());
    if (auto error = in.error()) co_return *error;
    if (auto reserved = engine_.bdevs().reserve(name); !reserved) co_return std::move(reserved).error();
    bdev::MallocOptions options;
    options.name = name;
    options.uuid = uuid;
    options.block_size_bytes = geometry.block_size_bytes;
    options.count_blocks = geometry.count_blocks;
    auto made = bdev::MallocBdev::create(engine_.management(), options);
    if (!made) {
      engine_.bdevs().withdraw(name);
      co_return std::move(made).error();
    }
    engine_.bdevs().publish(name, std::move(*made));
    next_index_++;
    co_return JsonValue(std::move(name));
  }

  Task<RpcResult> remove(JsonValue params) {
    auto deleting = delete_bdev(engine_, std::move(params), "malloc");
    auto result = co_await deleting;
    co_return result;
  }

  Engine& engine_;
  uint64_t next_index_ = 0;
};

}  // namespace

std::unique_ptr<Module> make_bdev_malloc(Engine& engine) {
  return std::make_unique<BdevMalloc>(engine);
}

}  // namespace basalt::rpc
