// SPDX-License-Identifier: Apache-2.0
// basalt_leg_*: mirrors with the member gate. The leg reports and waits; these methods carry the orchestrator's word.
#include "bdev/leg/leg.h"

#include "engine/rpc/bdev_params.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {
namespace {

const char* state_name(const bdev::LegMemberInfo& member) {
  if (member.failed) return "failed";
  switch (member.state) {
    case bdev::MemberState::in_sync:
      return "in_sync";
    case bdev::MemberState::joining:
      return "joining";
    case bdev::MemberState::copied:
      return "copied";
    case bdev::MemberState::empty:
      break;
  }
  return "failed";
}

class Leg final : public Module {
 public:
  explicit Leg(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("basalt_leg_create", this, &Leg::create);
    dispatcher.add("basalt_leg_delete", this, &Leg::remove);
    dispatcher.add("basalt_leg_get", this, &Leg::get);
    dispatcher.add("basalt_leg_remove_member", this, &Leg::remove_member);
    dispatcher.add("basalt_leg_add_member", this, &Leg::add_member);
    dispatcher.add("basalt_leg_commit_member", this, &Leg::commit_member);
    dispatcher.add("basalt_leg_abandon_member", this, &Leg::abandon_member);
    dispatcher.add("basalt_leg_fence", this, &Leg::fence);
  }

  // What waits for the orchestrator would wait for ever.
  void abort() override {
    for (BdevRegistry::Entry* entry : engine_.bdevs().list()) {
      if (entry->bdev->info().product == "leg") leg_of(entry).fence();
    }
  }

 private:
  static bdev::LegBdev& leg_of(BdevRegistry::Entry* entry) { return *static_cast<bdev::LegBdev*>(entry->bdev); }

  Task<RpcResult> create(JsonValue params) {
    Fields in(params);
    bdev::LegOptions options;
    options.name = in.string("name");
    options.epoch = in.epoch("epoch");
    options.all_dirty = in.boolean("all_dirty");
    options.lease = milliseconds(static_cast<int64_t>(in.natural("lease_ms", {.min = 1, .max = 1000})));
    options.uuid = engine_.make_uuid();
    std::vector<std::string> names;
    const std::vector<JsonValue>& listed = in.objects("members", 1, bdev::LegBdev::member_count_max);
    for (size_t i = 0; i < listed.size(); i++) {
      Fields member(listed[i], in.path_of("members") + "[" + std::to_string(i) + "]");
      names.push_back(member.string("name"));
      if (!member.boolean_or("in_sync", true))
        member.refuse("in_sync", "must be true: others join by basalt_leg_add_member");
      in.adopt(member);
    }
    if (auto error = in.error()) co_return *error;

    BdevRegistry& bdevs = engine_.bdevs();
    const std::string user = child_user(options.name);
    if (auto reserved = bdevs.reserve(options.name); !reserved) co_return std::move(reserved).error();
    auto children = bdevs.claim_all(names, user);
    if (!children) {
      bdevs.withdraw(options.name);
      co_return std::move(children).error();
    }
    std::vector<bdev::Handle> members;
    for (bdev::Bdev* child : *children)
      members.emplace_back(*child, engine_.management());
    auto made = bdev::LegBdev::create(engine_.management(), options, std::move(members), events_of(options));
    if (!made) {
      bdevs.release_all(names, user);
      bdevs.withdraw(options.name);
      co_return std::move(made).error();
    }
    const uint64_t num_blocks = (*made)->info().count_blocks;
    bdevs.publish(options.name, std::move(*made), names);
    auto answer = JsonValue::object();
    answer.set("num_blocks", num_blocks);
    co_return answer;
  }

  bdev::LegEvents events_of(const bdev::LegOptions& options) {
    const std::string leg = options.name;
    const uint64_t epoch = options.epoch;
    bdev::LegEvents events;
    events.member_failed = [this, leg](const std::string& member, const std::string& reason) {
      auto params = event_of(leg);
      params.set("member", member).set("reason", reason).set("sequence", ++last_sequence_);
      engine_.events().emit("leg_member_failed", std::move(params));
    };
    events.member_copied = [this, leg](const std::string& member) {
      auto params = event_of(leg);
      params.set("member", member);
      engine_.events().emit("leg_member_copied", std::move(params));
    };
    events.joining_failed = [this, leg](const std::string& member, const std::string& reason) {
      auto params = event_of(leg);
      params.set("member", member).set("reason", reason);
      engine_.events().emit("leg_joining_failed", std::move(params));
    };
    events.fenced = [this, leg, epoch] {
      auto params = event_of(leg);
      params.set("epoch", std::to_string(epoch));
      engine_.events().emit("leg_fenced", std::move(params));
    };
    events.clean = [this, leg] { engine_.events().emit("leg_clean", event_of(leg)); };
    return events;
  }

  static JsonValue event_of(const std::string& leg) {
    auto params = JsonValue::object();
    params.set("leg", leg);
    return params;
  }

  Task<RpcResult> remove(JsonValue params) {
    auto deleting = delete_bdev(engine_, std::move(params), "leg");
    auto result = co_await deleting;
    co_return result;
  }

  Task<RpcResult> get(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    auto found = engine_.bdevs().find(name, "leg");
    if (!found) co_return std::move(found).error();
    const bdev::LegBdev& leg = leg_of(*found);
    auto members = JsonValue::array();
    for (const bdev::LegMemberInfo& member : leg.members()) {
      auto one = JsonValue::object();
      one.set("name", member.name).set("state", state_name(member)).set("synced_blocks", member.copied_blocks);
      members.push(std::move(one));
    }
    auto answer = JsonValue::object();
    answer.set("epoch", std::to_string(leg.epoch()))
        .set("state", leg.fenced()    ? "fenced"
                      : leg.waiting() ? "waiting"
                                      : "active")
        .set("members", std::move(members))
        .set("dirty_regions", leg.dirty().dirty_count())
        .set("region_count", leg.dirty().region_count());
    co_return answer;
  }

  struct Target {
    BdevRegistry::Entry* entry;
    std::string member;
  };
  Result<Target> target_of(Fields& in, std::optional<RpcError>& wrong) {
    const std::string name = in.string("name");
    const std::string member = in.string("member");
    wrong = in.error();
    if (wrong) return Error{Errc::invalid_argument, wrong->message};
    auto found = engine_.bdevs().find(name, "leg");
    if (!found) return std::move(found).error();
    return Target{*found, member};
  }

  // The member left the leg: free it for its owner.
  void release(BdevRegistry::Entry* entry, const std::string& member) {
    engine_.bdevs().release(member, child_user(entry->name));
    std::erase(entry->children, member);
  }

  Task<RpcResult> remove_member(JsonValue params) {
    Fields in(params);
    std::optional<RpcError> wrong;
    auto target = target_of(in, wrong);
    if (wrong) co_return *wrong;
    if (!target) co_return std::move(target).error();
    if (auto removed = leg_of(target->entry).remove_member(target->member); !removed)
      co_return std::move(removed).error();
    release(target->entry, target->member);
    co_return done();
  }

  Task<RpcResult> add_member(JsonValue params) {
    Fields in(params);
    std::optional<RpcError> wrong;
    auto target = target_of(in, wrong);
    if (wrong) co_return *wrong;
    if (!target) co_return std::move(target).error();
    const std::string user = child_user(target->entry->name);
    auto claimed = engine_.bdevs().claim(target->member, user);
    if (!claimed) co_return std::move(claimed).error();
    auto added = leg_of(target->entry).add_member(bdev::Handle(**claimed, engine_.management()));
    if (!added) {
      engine_.bdevs().release(target->member, user);
      co_return std::move(added).error();
    }
    target->entry->children.push_back(target->member);
    co_return done();
  }

  Task<RpcResult> commit_member(JsonValue params) {
    Fields in(params);
    std::optional<RpcError> wrong;
    auto target = target_of(in, wrong);
    if (wrong) co_return *wrong;
    if (!target) co_return std::move(target).error();
    if (auto committed = leg_of(target->entry).commit_member(target->member); !committed)
      co_return std::move(committed).error();
    co_return done();
  }

  Task<RpcResult> abandon_member(JsonValue params) {
    Fields in(params);
    std::optional<RpcError> wrong;
    auto target = target_of(in, wrong);
    if (wrong) co_return *wrong;
    if (!target) co_return std::move(target).error();
    if (auto abandoned = leg_of(target->entry).abandon_member(target->member); !abandoned)
      co_return std::move(abandoned).error();
    release(target->entry, target->member);
    co_return done();
  }

  Task<RpcResult> fence(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    auto found = engine_.bdevs().find(name, "leg");
    if (!found) co_return std::move(found).error();
    leg_of(*found).fence();
    co_return done();
  }

  Engine& engine_;
  uint64_t last_sequence_ = 0;
};

}  // namespace

std::unique_ptr<Module> make_leg(Engine& engine) {
  return std::make_unique<Leg>(engine);
}

}  // namespace basalt::rpc
