// SPDX-License-Identifier: Apache-2.0
// bdev_get_bdevs, bdev_get_iostat: what bdevs there are, and what was asked of them.
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
      .set("aliases", JsonValue::array().push(info.uuid.to_string()))
      .set("product_name", info.product)
      .set("uuid", info.uuid.to_string())
      .set("block_size", info.block_size_bytes)
      .set("num_blocks", info.count_blocks)
      .set("claimed", !entry.claimed_by.empty())
      .set("zoned", false)
      .set("supported_io_types", std::move(types));
  return one;
}

JsonValue describe_stats(const BdevRegistry::Entry& entry) {
  const bdev::IoStats& stats = entry.bdev->stats();
  const uint64_t block_bytes = entry.bdev->info().block_size_bytes;
  const auto count = [&](bdev::IoType type) { return stats.count[static_cast<size_t>(type)]; };
  const auto bytes = [&](bdev::IoType type) { return stats.blocks[static_cast<size_t>(type)] * block_bytes; };
  auto one = JsonValue::object();
  one.set("name", entry.name)
      .set("bytes_read", bytes(bdev::IoType::read))
      .set("num_read_ops", count(bdev::IoType::read))
      .set("bytes_written", bytes(bdev::IoType::write))
      .set("num_write_ops", count(bdev::IoType::write))
      .set("bytes_unmapped", bytes(bdev::IoType::unmap))
      .set("num_unmap_ops", count(bdev::IoType::unmap))
      .set("num_write_zeroes_ops", count(bdev::IoType::write_zeroes))
      .set("num_flush_ops", count(bdev::IoType::flush));
  return one;
}

class BdevList final : public Module {
 public:
  explicit BdevList(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("bdev_get_bdevs", this, &BdevList::get_bdevs);
    dispatcher.add("bdev_get_iostat", this, &BdevList::get_iostat);
  }

 private:
  using Describe = JsonValue (*)(const BdevRegistry::Entry& entry);

  Task<RpcResult> get_bdevs(JsonValue params) {
    auto described = list(params, describe);
    if (!described) co_return *described.error;
    co_return std::move(described.value);
  }

  // One tick is a nanosecond.
  Task<RpcResult> get_iostat(JsonValue params) {
    auto described = list(params, describe_stats);
    if (!described) co_return *described.error;
    auto answer = JsonValue::object();
    answer.set("tick_rate", uint64_t{1'000'000'000})
        .set("ticks", static_cast<uint64_t>(engine_.management().now().ns))
        .set("bdevs", std::move(described.value));
    co_return answer;
  }

  struct Listed {
    JsonValue value;
    std::optional<RpcError> error;
    explicit operator bool() const { return !error.has_value(); }
  };
  // All bdevs, or those that `name` or `names` (SPDK's newer word) name.
  Listed list(const JsonValue& params, Describe describe_one) {
    Fields in(params);
    std::vector<std::string> wanted;
    if (in.has("name")) wanted.push_back(in.string("name"));
    if (in.has("names")) wanted = in.strings("names", 1, 1024);
    if (in.has("name") && in.has("names")) in.refuse("names", "cannot be given together with name");
    if (auto error = in.error()) return {{}, *error};
    auto all = JsonValue::array();
    if (wanted.empty()) {
      for (const BdevRegistry::Entry* entry : engine_.bdevs().list())
        all.push(describe_one(*entry));
    }
    for (const std::string& name : wanted) {
      auto found = engine_.bdevs().find(name);
      if (!found) {
        const int code = found.error().code == Errc::not_found ? -19 : errc_to_code(found.error().code);
        return {{}, RpcError{code, found.error().message, {}}};
      }
      all.push(describe_one(**found));
    }
    return {std::move(all), {}};
  }

  Engine& engine_;
};

}  // namespace

std::unique_ptr<Module> make_bdev(Engine& engine) {
  return std::make_unique<BdevList>(engine);
}

}  // namespace basalt::rpc
