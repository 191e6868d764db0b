// SPDX-License-Identifier: Apache-2.0
// basalt_slot_*: a volume's place in a namespace, whose backing comes and goes.
#include "bdev/slot/slot.h"

#include <set>

#include "engine/rpc/bdev_params.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {
namespace {

class Slot final : public Module {
 public:
  explicit Slot(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("basalt_slot_create", this, &Slot::create);
    dispatcher.add("basalt_slot_delete", this, &Slot::remove);
    dispatcher.add("basalt_slot_set", this, &Slot::set);
    dispatcher.add("basalt_slot_resize", this, &Slot::resize);
    dispatcher.add("basalt_slot_quiesce", this, &Slot::quiesce);
    dispatcher.add("basalt_slot_resume", this, &Slot::resume);
  }

  // Held requests would wait for somebody who has gone.
  void abort() override {
    for (BdevRegistry::Entry* entry : engine_.bdevs().list()) {
      if (entry->bdev->info().product == "slot") static_cast<bdev::SlotBdev*>(entry->bdev)->resume();
    }
  }

  // A slot is made before what backs it: it lets go of that first.
  Task<bool> stop_some() override {
    bool some = false;
    for (BdevRegistry::Entry* entry : engine_.bdevs().list()) {
      if (entry->bdev->info().product != "slot" || entry->used()) continue;
      const std::string name = entry->name;
      auto destroying = engine_.bdevs().destroy(name, "slot");
      auto destroyed = co_await destroying;
      BASALT_ASSERT(destroyed.ok());
      some = true;
      break;  // the list has changed
    }
    co_return some;
  }

 private:
  Task<RpcResult> create(JsonValue params) {
    Fields in(params);
    bdev::SlotOptions options;
    options.name = in.string("name");
    const Geometry geometry = read_geometry(in);
    options.block_size_bytes = geometry.block_size_bytes;
    options.count_blocks = geometry.count_blocks;
    options.uuid = in.uuid_required("uuid");
    if (auto error = in.error()) co_return *error;
    if (auto reserved = engine_.bdevs().reserve(options.name); !reserved) co_return std::move(reserved).error();
    auto made = bdev::SlotBdev::create(engine_.management(), options);
    if (!made) {
      engine_.bdevs().withdraw(options.name);
      co_return std::move(made).error();
    }
    engine_.bdevs().publish(options.name, std::move(*made));
    co_return JsonValue(options.name);
  }

  Task<RpcResult> remove(JsonValue params) {
    auto deleting = delete_bdev(engine_, std::move(params), "slot");
    auto result = co_await deleting;
    co_return result;
  }

  Task<RpcResult> set(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const bool none = in.is_null("bdev_name");
    const std::string backing = none ? std::string() : in.string("bdev_name");
    if (auto error = in.error()) co_return *error;
    auto found = engine_.bdevs().find(name, "slot");
    if (!found) co_return std::move(found).error();
    BdevRegistry::Entry* entry = *found;
    if (changing_.contains(name)) co_return Error{Errc::busy, "slot " + name + " is being changed"};
    if (!none && entry->children == std::vector<std::string>{backing}) co_return done();
    changing_.insert(name);
    auto replacing = replace(entry, backing);
    auto replaced = co_await replacing;
    changing_.erase(name);
    if (!replaced) co_return std::move(replaced).error();
    co_return done();
  }

  // The slot counts as opened meanwhile, so that it stays.
  Task<Outcome> replace(BdevRegistry::Entry* entry, std::string backing) {
    BdevRegistry& bdevs = engine_.bdevs();
    const std::string user = child_user(entry->name);
    bdev::Handle handle;
    if (!backing.empty()) {
      auto child = bdevs.claim(backing, user);
      if (!child) co_return std::move(child).error();
      handle = bdev::Handle(**child, engine_.management());
    }
    entry->opened_by.emplace_back("basalt_slot_set");
    auto setting = static_cast<bdev::SlotBdev*>(entry->bdev)->set(handle);
    auto result = co_await setting;
    bdevs.release(entry->name, "basalt_slot_set");
    if (!result) {
      if (!backing.empty()) bdevs.release(backing, user);
      co_return result;
    }
    bdevs.release_all(entry->children, user);
    entry->children.clear();
    if (!backing.empty()) entry->children.push_back(backing);
    co_return success();
  }

  Task<RpcResult> resize(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const uint64_t count_blocks = in.natural("num_blocks", {.min = 1});
    if (auto error = in.error()) co_return *error;
    auto found = engine_.bdevs().find(name, "slot");
    if (!found) co_return std::move(found).error();
    auto grown = static_cast<bdev::SlotBdev*>((*found)->bdev)->grow(count_blocks);
    if (!grown) co_return std::move(grown).error();
    co_return done();
  }

  Task<RpcResult> quiesce(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const uint64_t timeout_ms = in.natural("timeout_ms", {.min = 1, .max = 600'000});
    if (auto error = in.error()) co_return *error;
    auto found = engine_.bdevs().find(name, "slot");
    if (!found) co_return std::move(found).error();
    if (changing_.contains(name)) co_return Error{Errc::busy, "slot " + name + " is being changed"};
    BdevRegistry::Entry* entry = *found;
    changing_.insert(name);
    entry->opened_by.emplace_back("basalt_slot_quiesce");
    auto quiescing = static_cast<bdev::SlotBdev*>(entry->bdev)->quiesce(milliseconds(static_cast<int64_t>(timeout_ms)));
    auto result = co_await quiescing;
    engine_.bdevs().release(name, "basalt_slot_quiesce");
    changing_.erase(name);
    if (!result) co_return std::move(result).error();
    co_return done();
  }

  Task<RpcResult> resume(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    auto found = engine_.bdevs().find(name, "slot");
    if (!found) co_return std::move(found).error();
    static_cast<bdev::SlotBdev*>((*found)->bdev)->resume();
    co_return done();
  }

  Engine& engine_;
  std::set<std::string> changing_;
};

}  // namespace

std::unique_ptr<Module> make_slot(Engine& engine) {
  return std::make_unique<Slot>(engine);
}

}  // namespace basalt::rpc
