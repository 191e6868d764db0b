// SPDX-License-Identifier: Apache-2.0
// bdev_error_create, bdev_error_delete, bdev_error_inject_error: faults on purpose.
#include "bdev/fault/fault.h"
#include "engine/rpc/bdev_params.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {
namespace {

constexpr uint8_t type_bit(bdev::IoType type) {
  return static_cast<uint8_t>(1u << static_cast<unsigned>(type));
}

class BdevError final : public Module {
 public:
  explicit BdevError(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("bdev_error_create", this, &BdevError::create);
    dispatcher.add("bdev_error_delete", this, &BdevError::remove);
    dispatcher.add("bdev_error_inject_error", this, &BdevError::inject);
  }

  // What hangs on purpose would hang for ever.
  void abort() override {
    for (BdevRegistry::Entry* entry : engine_.bdevs().list()) {
      if (entry->bdev->info().product == "fault") static_cast<bdev::FaultBdev*>(entry->bdev)->clear();
    }
  }

 private:
  Task<RpcResult> create(JsonValue params) {
    Fields in(params);
    const std::string base = in.string("base_name");
    if (auto error = in.error()) co_return *error;
    const std::string name = "EE_" + base;
    if (auto reserved = engine_.bdevs().reserve(name); !reserved) co_return std::move(reserved).error();
    auto child = engine_.bdevs().claim(base, child_user(name));
    if (!child) {
      engine_.bdevs().withdraw(name);
      co_return std::move(child).error();
    }
    Reactor& home = engine_.management();
    auto made = std::make_unique<bdev::FaultBdev>(home, name, engine_.make_uuid(), bdev::Handle(**child, home));
    engine_.bdevs().publish(name, std::move(made), {base});
    co_return JsonValue(name);
  }

  Task<RpcResult> remove(JsonValue params) {
    auto deleting = delete_bdev(engine_, std::move(params), "fault");
    auto result = co_await deleting;
    co_return result;
  }

  Task<RpcResult> inject(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const size_t type = in.choice("io_type", {"read", "write", "flush", "unmap", "all", "clear"});
    const size_t kind = in.choice("error_type", {"failure", "pending", "corrupt_data"});
    const uint64_t count = in.natural_or("num", 1, {.min = 1});
    if (auto error = in.error()) co_return *error;
    auto found = engine_.bdevs().find(name, "fault");
    if (!found) co_return std::move(found).error();
    auto& target = static_cast<bdev::FaultBdev&>(*(*found)->bdev);
    constexpr size_t clear = 5;
    if (type == clear) {
      target.clear();
      co_return done();
    }
    const uint8_t masks[] = {type_bit(bdev::IoType::read), type_bit(bdev::IoType::write), type_bit(bdev::IoType::flush),
                             type_bit(bdev::IoType::unmap), 0x1f};
    const bdev::FaultKind kinds[] = {bdev::FaultKind::failure, bdev::FaultKind::pending, bdev::FaultKind::corrupt_data};
    bdev::Fault fault;
    fault.kind = kinds[kind];
    fault.types.mask = masks[type];
    fault.count = count;
    target.inject(fault);
    co_return done();
  }

  Engine& engine_;
};

}  // namespace

std::unique_ptr<Module> make_bdev_error(Engine& engine) {
  return std::make_unique<BdevError>(engine);
}

}  // namespace basalt::rpc
