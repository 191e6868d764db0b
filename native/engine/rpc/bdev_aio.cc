// SPDX-License-Identifier: Apache-2.0
// bdev_aio_create, bdev_aio_delete: files and block devices of this machine. SPDK's bdev_uring_* are the same here: how
// the file is driven is the poller's choice.
#include "bdev/file/file.h"
#include "engine/rpc/bdev_params.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {
namespace {

class BdevAio final : public Module {
 public:
  explicit BdevAio(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("bdev_aio_create", this, &BdevAio::create);
    dispatcher.add("bdev_aio_delete", this, &BdevAio::remove);
    dispatcher.add("bdev_uring_create", this, &BdevAio::create);
    dispatcher.add("bdev_uring_delete", this, &BdevAio::remove);
  }

 private:
  Task<RpcResult> create(JsonValue params) {
    Fields in(params);
    bdev::FileBdevOptions options;
    options.name = in.string("name");
    options.path = in.string("filename");
    options.block_size_bytes = read_block_size(in, 4096);
    options.read_only = in.boolean_or("readonly", false);
    options.buffered = in.boolean_or("buffered", false);
    const uint64_t unit = options.block_size_bytes;
    if (in.has("create_bytes")) {
      options.create_bytes = in.natural("create_bytes", {.min = 1});
      if (options.create_bytes % unit != 0) in.refuse("create_bytes", "must be a multiple of the block size");
      if (options.read_only) in.refuse("create_bytes", "cannot be given together with readonly");
    }
    options.uuid = in.uuid("uuid").value_or(engine_.make_uuid());
    if (auto error = in.error()) co_return *error;
    if (auto reserved = engine_.bdevs().reserve(options.name); !reserved) co_return std::move(reserved).error();
    auto made = bdev::FileBdev::open(engine_.management(), options);
    if (!made) {
      engine_.bdevs().withdraw(options.name);
      co_return std::move(made).error();
    }
    engine_.bdevs().publish(options.name, std::move(*made));
    co_return JsonValue(options.name);
  }

  Task<RpcResult> remove(JsonValue params) {
    auto deleting = delete_bdev(engine_, std::move(params), "file");
    auto result = co_await deleting;
    co_return result;
  }

  Engine& engine_;
};

}  // namespace

std::unique_ptr<Module> make_bdev_aio(Engine& engine) {
  return std::make_unique<BdevAio>(engine);
}

}  // namespace basalt::rpc
