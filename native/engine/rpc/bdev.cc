// SPDX-License-Identifier: Apache-2.0
// bdev_get_bdevs: what bdevs there are.
#include "engine/rpc/fields.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {
namespace {

JsonValue describe(const BdevRegistry::Entry& entry) {
  const bdev::BdevInfo& info = entry.bdev->info();
  auto types = JsonValue::object();
  types.set("read", info.io_types.has(bdev::IoType::read))
      .set("write", info.io_types.has(bdev::IoType::write))
      .set("flush", info.io_types.has(bdev::IoType::flush))
      .set("unmap", info.io_types.has(bdev::IoType::unmap))
      .set("write_zeroes", info.io_types.has(bdev::IoType::write_zeroes));
  auto one = JsonValue::object();
  one.set("name", entry.name)
      .set("product_name", info.product)
      .set("uuid", info.uuid.to_string())
      .set("block_size", info.block_size_bytes)
      .set("num_blocks", info.count_blocks)
      .set("claimed", !entry.claimed_by.empty())
      .set("supported_io_types", std::move(types));
  return one;
}

class BdevList final : public Module {
 public:
  explicit BdevList(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("bdev_get_bdevs", this, &BdevList::get_bdevs);
  }

 private:
  Task<RpcResult> get_bdevs(JsonValue params) {
    Fields in(params);
    const std::string name = in.string_or("name", "");
    if (auto error = in.error()) co_return *error;
    auto list = JsonValue::array();
    if (!name.empty()) {
      auto found = engine_.bdevs().find(name);
      if (!found && found.error().code == Errc::not_found) {
        RpcError missing{-19, found.error().message, {}};
        co_return missing;
      }
      if (!found) co_return std::move(found).error();
      list.push(describe(**found));
    } else {
      for (const BdevRegistry::Entry* entry : engine_.bdevs().list())
        list.push(describe(*entry));
    }
    co_return list;
  }

  Engine& engine_;
};

}  // namespace

std::unique_ptr<Module> make_bdev(Engine& engine) {
  return std::make_unique<BdevList>(engine);
}

}  // namespace basalt::rpc
