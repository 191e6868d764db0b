// SPDX-License-Identifier: Apache-2.0
// basalt_slot_snapshot: one instant of a volume. New requests are held at its slot, those in flight end, every in-sync
// member of every leg cuts a snapshot, requests go on. All of it here, and not step by step from outside, so that a
// busy event loop never prolongs the time for which requests are held.
//
// Several volumes at one instant: with `group` the requests are held until basalt_slot_release says that all of the
// group are held, and slot_held tells when this one is. Each cut lies within its own hold, and all holds have one
// instant in common. What can be done before is basalt_slot_snapshot_prepare's: then it takes no time while others are
// held.
//
// Thread: the management reactor, the home of slots, legs and members.
// Invariants: - requests are held for at most hold_ms, whatever becomes of the cuts
//             - success means that every member has the snapshot, that all were cut between the same two requests, and
//               that what they hold was flushed on every member afterwards; of a group, that it was held until released
//             - after a failure some members may have theirs, or get it yet: the caller removes them. When no member
//             was
//               asked yet, the error's data says so (`cut`: false)
#include <algorithm>
#include <map>
#include <utility>

#include "bdev/driven_leg.h"
#include "bdev/slot/slot.h"
#include "engine/rpc/bdev_params.h"
#include "engine/rpc/fields.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {
namespace {

constexpr size_t snapshot_members_max = 1024;

struct SnapshotOf {
  std::string member;
  std::string name;
};

// Counts what runs beside the task that awaits it.
struct Beside {
  size_t pending_count = 1;
  std::coroutine_handle<> waiter;
  void done() {
    if (--pending_count == 0 && waiter) waiter.resume();
  }
  bool await_ready() noexcept { return --pending_count == 0; }
  void await_suspend(std::coroutine_handle<> coroutine) noexcept { waiter = coroutine; }
  void await_resume() const noexcept {}
};

class SlotSnapshot final : public Module {
 public:
  explicit SlotSnapshot(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("basalt_slot_snapshot", this, &SlotSnapshot::snapshot);
    dispatcher.add("basalt_slot_snapshot_prepare", this, &SlotSnapshot::prepare);
    dispatcher.add("basalt_slot_release", this, &SlotSnapshot::release);
  }

 private:
  enum class Step : uint8_t { prepare, flush, cut };

  // Ends by itself; one that a group shares ends well only when it is released before.
  struct Hold : Timer {
    bdev::SlotBdev* slot = nullptr;
    std::string group;
    bool ran_out = false;
    bool released = false;
    std::coroutine_handle<> waiter;
    // This may be gone afterwards.
    void ended() {
      if (waiter) std::exchange(waiter, {}).resume();
    }
  };

  struct EndOf {
    Hold& hold;
    bool await_ready() const noexcept { return hold.released || hold.ran_out; }
    void await_suspend(std::coroutine_handle<> coroutine) noexcept { hold.waiter = coroutine; }
    void await_resume() const noexcept {}
  };

  struct Wish {
    std::vector<SnapshotOf> of;
    Duration hold;
    std::string group;  // empty: it is alone
  };

  static std::vector<SnapshotOf> read_members(Fields& in) {
    std::vector<SnapshotOf> of;
    for (const JsonValue& item : in.objects("members", 1, snapshot_members_max)) {
      Fields nested(item, in.path_of("members") + "[" + std::to_string(of.size()) + "]");
      SnapshotOf one;
      one.member = nested.string("name");
      one.name = nested.string("snapshot_name");
      in.adopt(nested);
      of.push_back(std::move(one));
    }
    return of;
  }

  Task<RpcResult> prepare(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const std::vector<SnapshotOf> of = read_members(in);
    if (auto error = in.error()) co_return *error;
    auto found = engine_.bdevs().find(name, "slot");
    if (!found) co_return std::move(found).error();
    Outcome outcome = check(**found, of);
    for (const Step step : {Step::prepare, Step::flush}) {
      if (!outcome) break;
      outcome = co_await on_all(of, step);
    }
    if (!outcome) co_return std::move(outcome).error();
    co_return done();
  }

  Task<RpcResult> release(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const std::string group = in.string("group");
    if (auto error = in.error()) co_return *error;
    const auto at = holds_.find(name);
    if (at == holds_.end() || at->second->group != group || at->second->ran_out)
      co_return Error{Errc::not_found, "slot " + name + " is not held for " + group};
    at->second->released = true;
    at->second->ended();
    co_return done();
  }

  Task<RpcResult> snapshot(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    Wish wish;
    wish.of = read_members(in);
    wish.hold = milliseconds(static_cast<int64_t>(in.natural("hold_ms", {.min = 1, .max = 1000})));
    wish.group = in.string_or("group", "");
    if (auto error = in.error()) co_return *error;
    auto found = engine_.bdevs().find(name, "slot");
    if (!found) co_return std::move(found).error();
    BdevRegistry::Entry* entry = *found;
    static constexpr const char* user = "basalt_slot_snapshot";
    if (std::find(entry->opened_by.begin(), entry->opened_by.end(), user) != entry->opened_by.end()) {
      auto data = JsonValue::object();
      data.set("cut", false);
      co_return RpcError{errc_to_code(Errc::busy), "slot " + name + ": a snapshot is being made", std::move(data)};
    }
    entry->opened_by.emplace_back(user);
    bool cut = false;
    auto making = make(entry, std::move(wish), cut);
    auto held = co_await making;
    engine_.bdevs().release(name, user);
    if (!held) {
      auto data = JsonValue::object();
      data.set("cut", cut);
      co_return RpcError{errc_to_code(held.error().code), std::move(held).error().message, std::move(data)};
    }
    auto result = JsonValue::object();
    result.set("held_us", static_cast<uint64_t>(held->ns / 1000));
    co_return result;
  }

  // How long requests were held. `cut`: members may have been asked.
  Task<Result<Duration>> make(BdevRegistry::Entry* entry, Wish wish, bool& cut) {
    auto& slot = *static_cast<bdev::SlotBdev*>(entry->bdev);
    const std::vector<SnapshotOf>& of = wish.of;
    const bool grouped = !wish.group.empty();
    Outcome outcome = check(*entry, of);
    // What would take long while requests are held; of a group it was done, and the others may be held already.
    for (const Step step : {Step::prepare, Step::flush}) {
      if (!outcome || grouped) break;
      outcome = co_await on_all(of, step);
    }
    if (!outcome) co_return std::move(outcome).error();
    Reactor& home = engine_.management();
    const Instant begun = home.now();
    if (engine_.config().planted.cut_unheld) {
      cut = true;
      for (size_t i = 0; i < of.size() && outcome; i++) {
        const std::vector<SnapshotOf> one{of[i]};
        auto cutting = on_all(one, Step::cut);
        outcome = co_await cutting;
      }
      if (!outcome) co_return std::move(outcome).error();
      co_return home.now() - begun;
    }
    outcome = co_await slot.quiesce(wish.hold);
    if (!outcome) co_return std::move(outcome).error();
    Hold hold;
    hold.slot = &slot;
    hold.group = wish.group;
    hold.run = [](Work* work) {
      auto* late = static_cast<Hold*>(work);
      late->ran_out = true;
      late->slot->resume();
      late->ended();
    };
    home.arm_after(&hold, begun + wish.hold - home.now());
    outcome = check(*entry, of);
    cut = outcome.ok();
    if (outcome && grouped) {
      holds_[entry->name] = &hold;
      engine_.events().emit("slot_held", JsonValue::object().set("name", entry->name).set("group", wish.group));
    }
    if (outcome) outcome = co_await on_all(of, Step::cut);
    EndOf end{hold};
    if (outcome && grouped) co_await end;
    if (grouped) holds_.erase(entry->name);
    home.cancel(&hold);
    if (hold.ran_out && outcome) {
      const char* late = hold.released || !grouped ? ": not every member had its snapshot in time"
                                                   : ": it was not told in time that all of its group are held";
      outcome = Error{Errc::timed_out, entry->name + late};
    }
    if (!hold.ran_out) slot.resume();
    const Duration held = home.now() - begun;
    // What the snapshots hold may be in caches yet.
    if (outcome) outcome = co_await on_all(of, Step::flush);
    if (outcome) outcome = check(*entry, of);
    if (!outcome) co_return std::move(outcome).error();
    co_return held;
  }

  // The slot stands on legs whose members are equal, and are the ones that were named.
  Outcome check(const BdevRegistry::Entry& entry, const std::vector<SnapshotOf>& of) {
    std::vector<std::string> present;
    auto added = add_members(entry, present);
    if (!added) return added;
    if (present.empty()) return Error{Errc::busy, entry.name + ": no leg backs it"};
    std::vector<std::string> named;
    for (const SnapshotOf& one : of)
      named.push_back(one.member);
    std::sort(present.begin(), present.end());
    std::sort(named.begin(), named.end());
    if (present != named) return Error{Errc::busy, entry.name + ": the members in sync are others"};
    return success();
  }

  Outcome add_members(const BdevRegistry::Entry& entry, std::vector<std::string>& names) {
    for (const std::string& child : entry.children) {
      auto found = engine_.bdevs().find(child);
      if (!found) return std::move(found).error();
      if ((*found)->bdev->info().product != "leg") {
        auto below = add_members(**found, names);
        if (!below) return below;
        continue;
      }
      const auto& leg = *static_cast<const bdev::DrivenLeg*>((*found)->bdev);
      if (engine_.config().planted.cut_joining) {
        add_unequal(leg, names);
        continue;
      }
      auto members = leg.equal_members();
      if (!members) return std::move(members).error();
      names.insert(names.end(), members->begin(), members->end());
    }
    return success();
  }

  static void add_unequal(const bdev::DrivenLeg& leg, std::vector<std::string>& names) {
    for (const bdev::LegMemberInfo& member : leg.members())
      if (!member.failed) names.push_back(member.name);
  }

  // The first member's error, when there is one.
  Task<Outcome> on_all(const std::vector<SnapshotOf>& of, Step step) {
    std::vector<Outcome> outcomes(of.size(), success());
    Beside beside;
    for (size_t i = 0; i < of.size(); i++) {
      beside.pending_count++;
      spawn(on_one(of[i], step, outcomes[i], beside));
    }
    co_await beside;
    for (Outcome& outcome : outcomes)
      if (!outcome) co_return std::move(outcome);
    co_return success();
  }

  // Looked up each time: the member may have left its leg, and be gone.
  Task<void> on_one(const SnapshotOf& of, Step step, Outcome& outcome, Beside& beside) {
    auto found = engine_.bdevs().find(of.member);
    if (!found) {
      outcome = std::move(found).error();
    } else if (step == Step::prepare) {
      outcome = co_await (*found)->bdev->prepare_snapshot();
    } else if (step == Step::cut) {
      std::function<bool()> always;
      auto cutting = (*found)->bdev->snapshot(of.name, std::move(always));
      outcome = co_await cutting;
    } else {
      const bdev::Handle handle(*(*found)->bdev, engine_.management());
      bdev::Io io;
      io.type = bdev::IoType::flush;
      const nvme::Status status = co_await bdev::io_wait(handle, io);
      if (!status.ok()) outcome = Error{Errc::io, of.member + ": flush: " + nvme::to_string(status)};
    }
    beside.done();
  }

  Engine& engine_;
  std::map<std::string, Hold*> holds_;  // of groups, by slot
};

}  // namespace

std::unique_ptr<Module> make_slot_snapshot(Engine& engine) {
  return std::make_unique<SlotSnapshot>(engine);
}

}  // namespace basalt::rpc
