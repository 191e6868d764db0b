// SPDX-License-Identifier: Apache-2.0
// bdev_raid_create, bdev_raid_delete, bdev_raid_get_bdevs: stripe sets.
#include "base/bytes.h"
#include "bdev/raid/raid0.h"
#include "engine/rpc/bdev_params.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {
namespace {

class Raid final : public Module {
 public:
  explicit Raid(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("bdev_raid_create", this, &Raid::create);
    dispatcher.add("bdev_raid_delete", this, &Raid::remove);
    dispatcher.add("bdev_raid_get_bdevs", this, &Raid::get_bdevs);
  }

 private:
  Task<RpcResult> create(JsonValue params) {
    Fields in(params);
    bdev::Raid0Options options;
    options.name = in.string("name");
    in.choice("raid_level", {"raid0", "0"});
    const std::vector<std::string> bases = in.strings("base_bdevs", 1, bdev::Raid0Bdev::member_count_max);
    const uint64_t strip_kb = in.natural("strip_size_kb", {.min = 4, .max = 65536});
    if (!is_power_of_two(strip_kb))
      in.refuse("strip_size_kb", "must be a power of two, is " + std::to_string(strip_kb));
    options.strip_bytes = strip_kb * 1024;
    options.uuid = in.uuid("uuid").value_or(engine_.make_uuid());
    if (auto error = in.error()) co_return *error;

    BdevRegistry& bdevs = engine_.bdevs();
    const std::string user = child_user(options.name);
    if (auto reserved = bdevs.reserve(options.name); !reserved) co_return std::move(reserved).error();
    auto children = bdevs.claim_all(bases, user);
    if (!children) {
      bdevs.withdraw(options.name);
      co_return std::move(children).error();
    }
    std::vector<bdev::Handle> members;
    for (bdev::Bdev* child : *children)
      members.emplace_back(*child, engine_.management());
    auto made = bdev::Raid0Bdev::create(engine_.management(), options, std::move(members));
    if (!made) {
      bdevs.release_all(bases, user);
      bdevs.withdraw(options.name);
      co_return std::move(made).error();
    }
    bdevs.publish(options.name, std::move(*made), bases);
    strip_kb_[options.name] = strip_kb;
    co_return done();
  }

  Task<RpcResult> remove(JsonValue params) {
    auto deleting = delete_bdev(engine_, std::move(params), "raid0");
    auto result = co_await deleting;
    co_return result;
  }

  Task<RpcResult> get_bdevs(JsonValue params) {
    Fields in(params);
    const size_t category = in.choice("category", {"all", "online", "configuring", "offline"});
    if (auto error = in.error()) co_return *error;
    auto list = JsonValue::array();
    for (const BdevRegistry::Entry* entry : engine_.bdevs().list()) {
      // Here a stripe set is online from its creation to its end.
      if (entry->bdev->info().product != "raid0" || category > 1) continue;
      auto bases = JsonValue::array();
      for (const std::string& child : entry->children)
        bases.push(child);
      auto one = JsonValue::object();
      one.set("name", entry->name)
          .set("uuid", entry->bdev->info().uuid.to_string())
          .set("strip_size_kb", strip_kb_[entry->name])
          .set("state", "online")
          .set("raid_level", "raid0")
          .set("num_base_bdevs", uint64_t{entry->children.size()})
          .set("base_bdevs_list", std::move(bases));
      list.push(std::move(one));
    }
    co_return list;
  }

  Engine& engine_;
  std::map<std::string, uint64_t> strip_kb_;
};

}  // namespace

std::unique_ptr<Module> make_raid(Engine& engine) {
  return std::make_unique<Raid>(engine);
}

}  // namespace basalt::rpc
