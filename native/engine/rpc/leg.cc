// SPDX-License-Identifier: Apache-2.0
// basalt_member_*, basalt_leg_*: the replicas that this engine drives, and the legs over them: mirrors, or k data and m
// parity members.
#include "bdev/leg/leg.h"

#include <algorithm>

#include "base/hex.h"
#include "bdev/nvmf/link.h"
#include "bdev/nvmf/member.h"
#include "bdev/raid/parity_leg.h"
#include "engine/fabric.h"
#include "engine/rpc/authentication_params.h"
#include "engine/rpc/fields.h"
#include "engine/rpc/modules.h"
#include "engine/rpc/nvmf_params.h"
#include "engine/rpc/scrub_report.h"

namespace basalt::rpc {
namespace {

constexpr uint64_t leg_blocks_max = uint64_t{1} << 44;
constexpr size_t leg_members_max = bdev::ParityCodec::strip_count_max;

class Leg final : public Module {
 public:
  explicit Leg(Engine& engine) : engine_(engine), links_(engine.management(), engine.fabric().tcp()) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("basalt_member_attach", this, &Leg::attach);
    dispatcher.add("basalt_member_detach", this, &Leg::detach);
    dispatcher.add("basalt_member_write_note", this, &Leg::write_note);
    dispatcher.add("basalt_member_read_note", this, &Leg::read_note);
    dispatcher.add("basalt_link_get", this, &Leg::get_links);
    dispatcher.add("basalt_leg_create", this, &Leg::create);
    dispatcher.add("basalt_leg_get", this, &Leg::get);
    dispatcher.add("basalt_leg_remove_member", this, &Leg::remove_member);
    dispatcher.add("basalt_leg_add_member", this, &Leg::add_member);
    dispatcher.add("basalt_leg_commit_member", this, &Leg::commit_member);
    dispatcher.add("basalt_leg_abandon_member", this, &Leg::abandon_member);
    dispatcher.add("basalt_leg_resize", this, &Leg::resize);
    dispatcher.add("basalt_leg_keep_marks", this, &Leg::keep_marks);
    dispatcher.add("basalt_leg_settle", this, &Leg::settle);
    dispatcher.add("basalt_leg_set_resync", this, &Leg::set_resync);
    dispatcher.add("basalt_leg_scrub_start", this, &Leg::scrub_start);
    dispatcher.add("basalt_leg_scrub_stop", this, &Leg::scrub_stop);
    dispatcher.add("basalt_leg_fence", this, &Leg::fence);
    dispatcher.add("basalt_leg_delete", this, &Leg::remove);
  }

  Task<bool> stop_some() override {
    bool some = !pulses_.empty();
    while (!pulses_.empty()) {
      auto node = pulses_.extract(pulses_.begin());
      auto stopping = node.mapped()->stop();
      co_await stopping;
    }
    // Its last member ends a link.
    if (!links_closed_ && links_.list().empty()) {
      some = links_closed_ = true;
      auto closing = links_.close();
      co_await closing;
    }
    co_return some;
  }

  // What waits for the orchestrator's word would wait for ever, and takeovers under way are given up.
  void abort() override {
    for (const auto& [name, leg] : legs_)
      leg->fence();
    for (const auto& [name, attached] : attaching_)
      attached->member->fail({Errc::closed, "the engine is stopping"});
  }

 private:
  // A member with the ear that its failure is told to.
  struct Attached final : bdev::Member::Listener {
    Leg* module = nullptr;
    std::unique_ptr<bdev::Member> member;  // until it is published
    std::string address;
    std::string leg;  // empty: free
    bool lost = false;
    void member_failed(bdev::Member& failed, const Error&) override {
      lost = true;
      module->tell_leg(*this, failed.info().name);
    }
  };

  void tell_leg(const Attached& attached, const std::string& name) {
    // By way of the registry: while the engine stops, legs go before their members, and a peer that stops too is lost
    // in between.
    auto leg = find(attached.leg);
    if (leg.ok()) (*leg)->member_lost(name);
  }

  // One for all members at that address. Members with TLS have a link, whose loss they share.
  void follow_pulse(bdev::Member& member) {
    const bdev::MemberOptions& options = member.options();
    if (options.authentication.tls != nullptr || member.shares_link()) return;
    const std::string address = options.address.to_string();
    auto found = pulses_.find(address);
    if (found == pulses_.end()) {
      bdev::PulseOptions watched{.address = options.address, .hostnqn = options.hostnqn};
      auto pulse = std::make_shared<bdev::Pulse>(engine_.management(), engine_.fabric().tcp(), std::move(watched));
      if (!pulse->start().ok()) return;
      found = pulses_.emplace(address, std::move(pulse)).first;
    }
    member.follow(found->second);
  }

  // The last member there takes it along.
  Task<void> rest_pulse(std::string address) {
    const auto found = pulses_.find(address);
    if (found == pulses_.end() || found->second->followed()) co_return;
    auto node = pulses_.extract(found);
    auto stopping = node.mapped()->stop();
    co_await stopping;
  }

  Task<RpcResult> attach(JsonValue params) {
    Fields in(params);
    bdev::MemberOptions options;
    options.name = in.string("name");
    options.address = {in.string("traddr"), read_port(in, "trsvcid")};
    options.subnqn = read_nqn(in, "subnqn");
    options.hostnqn = read_nqn(in, "hostnqn");
    if (in.has("link_nqn")) options.link_nqn = read_nqn(in, "link_nqn");
    const uint64_t epoch = in.epoch("epoch");
    options.command_timeout =
        milliseconds(static_cast<int64_t>(in.natural_or("command_timeout_ms", 1000, {.min = 1, .max = 600'000})));
    const auto timeout = milliseconds(static_cast<int64_t>(in.natural("timeout_ms", {.min = 1, .max = 600'000})));
    const KeyNames key_names = read_key_names(in);
    read_policy(in, &options.authentication.policy);
    if (auto error = in.error()) co_return *error;
    auto key = find_secret(engine_.keyring(), "dhchap_key", key_names.host);
    if (!key) co_return std::move(key).error();
    auto controller_key = find_secret(engine_.keyring(), "dhchap_ctrlr_key", key_names.controller);
    if (!controller_key) co_return std::move(controller_key).error();
    auto tls_key = find_tls_key(engine_.keyring(), key_names.tls);
    if (!tls_key) co_return std::move(tls_key).error();
    options.authentication.host = *key;
    options.authentication.controller = *controller_key;
    options.authentication.tls = *tls_key;
    const std::string name = options.name;
    if (auto reserved = engine_.bdevs().reserve(name); !reserved) co_return std::move(reserved).error();

    auto attached = std::make_unique<Attached>();
    attached->module = this;
    attached->address = options.address.to_string();
    attached->member =
        std::make_unique<bdev::Member>(engine_.management(), engine_.fabric().tcp(), std::move(options), &links_);
    Attached& held = *attached;
    attaching_.emplace(name, std::move(attached));
    auto taking = held.member->takeover(epoch, timeout);
    auto taken = co_await taking;
    auto node = attaching_.extract(name);
    if (!taken) {
      const uint64_t fencing_epoch = held.member->fencing_epoch();
      auto closing = held.member->close();
      auto closed = co_await closing;
      (void)closed.ok();
      held.member.reset();
      engine_.bdevs().withdraw(name);
      co_return refusal(taken.error(), epoch, fencing_epoch);
    }
    held.member->set_listener(&held);
    follow_pulse(*held.member);
    auto result = JsonValue::object();
    result.set("incarnation", taken->incarnation)
        .set("num_blocks", taken->count_blocks)
        .set("block_size", taken->block_size_bytes)
        .set("shared", held.member->shares_link());
    members_.insert(std::move(node));
    engine_.bdevs().publish(name, std::move(held.member));
    co_return result;
  }

  Task<RpcResult> get_links(JsonValue params) {
    Fields in(params);
    if (auto error = in.error()) co_return *error;
    auto list = JsonValue::array();
    for (const bdev::Links::Info& link : links_.list()) {
      auto one = JsonValue::object();
      one.set("address", link.address)
          .set("hostnqn", link.hostnqn)
          .set("state", link.live ? "live" : "connecting")
          .set("connections", uint64_t{link.connection_count})
          .set("members", uint64_t{link.member_count});
      list.push(std::move(one));
    }
    co_return list;
  }

  static RpcResult refusal(const Error& error, uint64_t epoch, uint64_t fencing_epoch) {
    if (error.code != Errc::fenced) return Error(error);
    // A replica that does not tell: some higher epoch, at least the next one.
    const std::string higher = std::to_string(fencing_epoch != 0 ? fencing_epoch : epoch + 1);
    auto data = JsonValue::object();
    data.set("epoch", higher);
    return RpcError{errc_to_code(Errc::fenced), error.message + " (the replica obeys epoch " + higher + ")",
                    std::move(data)};
  }

  Task<RpcResult> detach(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    if (!members_.contains(name)) {
      if (const auto taking = attaching_.find(name); taking != attaching_.end()) {
        taking->second->member->fail({Errc::closed, name + ": detached while it was attached"});
        co_return Error{Errc::busy, "member " + name + " is being attached; that was told to end"};
      }
      co_return Error{Errc::not_found, "member " + name + " does not exist"};
    }
    auto destroying = engine_.bdevs().destroy(name, "nvmf");
    auto destroyed = co_await destroying;
    if (!destroyed) co_return std::move(destroyed).error();
    auto node = members_.extract(name);
    auto resting = rest_pulse(node.mapped()->address);
    co_await resting;
    co_return done();
  }

  // A member that is closed meanwhile waits for the end of its commands.
  Result<bdev::Member*> find_attached(const std::string& name) {
    if (!members_.contains(name)) return Error{Errc::not_found, "member " + name + " does not exist"};
    auto found = engine_.bdevs().find(name, "nvmf");
    if (!found) return std::move(found).error();
    return static_cast<bdev::Member*>((*found)->bdev);
  }

  Task<RpcResult> write_note(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    std::string note = in.hex("note", nvme::note_bytes_max);
    if (auto error = in.error()) co_return *error;
    auto member = find_attached(name);
    if (!member) co_return std::move(member).error();
    auto writing = (*member)->write_note(std::move(note));
    auto written = co_await writing;
    if (!written) co_return std::move(written).error();
    co_return done();
  }

  Task<RpcResult> read_note(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    auto member = find_attached(name);
    if (!member) co_return std::move(member).error();
    auto reading = (*member)->read_note();
    auto note = co_await reading;
    if (!note) co_return std::move(note).error();
    auto result = JsonValue::object();
    result.set("note", to_hex(*note));
    co_return result;
  }

  struct Named {
    std::string name;
    bool in_sync = false;
    std::string replica;  // empty: as the member's NQN or the bdev's name says
    uint32_t distance = 0;
  };

  static void read_replica(Fields& in, Named& member) {
    member.replica = in.string_or("replica", "");
    member.distance = static_cast<uint32_t>(in.natural_or("distance", 0, {.max = 1000}));
  }

  // A replica's lasting name is its NQN: bdevs are named anew for each attachment.
  bdev::LegMember as_leg_member(const Named& named, bdev::Bdev& bdev) {
    std::string replica = named.replica;
    if (replica.empty() && members_.contains(named.name)) {
      replica = static_cast<const bdev::Member&>(bdev).options().subnqn;
    }
    return {bdev::Handle(bdev, engine_.management()), replica.empty() ? named.name : replica, named.distance};
  }

  static std::vector<Named> read_members(Fields& in) {
    std::vector<Named> members;
    for (const JsonValue& item : in.objects("members", 1, leg_members_max)) {
      Fields nested(item, in.path_of("members") + "[" + std::to_string(members.size()) + "]");
      Named member;
      member.name = nested.string("name");
      member.in_sync = nested.boolean("in_sync");
      read_replica(nested, member);
      in.adopt(nested);
      members.push_back(std::move(member));
    }
    return members;
  }

  Task<RpcResult> create(JsonValue params) {
    Fields in(params);
    bdev::LegOptions options;
    options.name = in.string("name");
    options.epoch = in.epoch("epoch");
    const std::vector<Named> members = read_members(in);
    options.all_dirty = in.boolean("all_dirty");
    options.lease = milliseconds(static_cast<int64_t>(in.natural("lease_ms", {.min = 1, .max = 1000})));
    if (in.has("num_blocks") || in.has("identity") || in.has("replicas")) {
      // Members keep superblocks and marks in a tail behind so many blocks.
      options.count_blocks = in.natural("num_blocks", {.min = 1});
      options.identity = in.string("identity");
      // Those with parity keep no marks for anybody.
      if (!in.has("data_members")) options.replicas = in.strings("replicas", 1, bdev::leg_tail::roster_count_max);
      options.grown_blocks = in.natural_or("grown_num_blocks", 0);
    }
    options.uuid = engine_.make_uuid();
    options.planted.ignore_lease = engine_.config().planted.ignore_lease;
    const Parity parity = read_parity(in, options);
    if (auto error = in.error()) co_return *error;

    BdevRegistry& bdevs = engine_.bdevs();
    const std::string name = options.name;
    const std::string user = child_user(name);
    std::vector<std::string> names;
    for (const Named& member : members)
      names.push_back(member.name);
    if (auto reserved = bdevs.reserve(name); !reserved) co_return std::move(reserved).error();
    auto claimed = bdevs.claim_all(names, user);
    if (!claimed) {
      bdevs.withdraw(name);
      co_return std::move(claimed).error();
    }
    auto making = parity.data_count == 0 ? make_leg(options, members, *claimed)
                                         : open_parity_leg(options, parity, members, *claimed);
    auto made = co_await making;
    if (!made) {
      bdevs.release_all(names, user);
      bdevs.withdraw(name);
      co_return std::move(made).error();
    }
    bdev::DrivenLeg& leg = **made;
    legs_[name] = &leg;
    bdevs.publish(name, std::move(*made), names);
    for (const std::string& member : names)
      join(member, name);
    auto result = JsonValue::object();
    result.set("num_blocks", leg.info().count_blocks);
    co_return result;
  }

  using MadeLeg = Result<std::unique_ptr<bdev::DrivenLeg>>;

  Task<MadeLeg> make_leg(bdev::LegOptions options, std::vector<Named> members, std::vector<bdev::Bdev*> bdevs) {
    std::vector<bdev::LegMember> in_sync;
    for (size_t i = 0; i < members.size(); i++) {
      if (members[i].in_sync) in_sync.push_back(as_leg_member(members[i], *bdevs[i]));
    }
    auto made = bdev::LegBdev::create(engine_.management(), options, std::move(in_sync), events_of(options));
    if (!made) co_return std::move(made).error();
    for (size_t i = 0; i < members.size(); i++) {
      if (members[i].in_sync) continue;
      auto added = (*made)->add_member(as_leg_member(members[i], *bdevs[i]));
      if (added) continue;
      auto closing = (*made)->close();
      auto closed = co_await closing;
      (void)closed.ok();
      co_return std::move(added).error();
    }
    co_return std::unique_ptr<bdev::DrivenLeg>(std::move(*made));
  }

  struct Parity {
    uint32_t data_count = 0;  // 0: a mirror
    uint32_t parity_count = 0;
    std::string origin = {};
  };

  static Parity read_parity(Fields& in, const bdev::LegOptions& options) {
    if (!in.has("data_members") && !in.has("parity_members")) return {};
    using Codec = bdev::ParityCodec;
    const Parity parity{static_cast<uint32_t>(in.natural("data_members", {.min = 2, .max = Codec::data_count_max})),
                        static_cast<uint32_t>(in.natural("parity_members", {.min = 1, .max = Codec::parity_count_max})),
                        in.string_or("origin", "")};
    if (options.count_blocks == 0) in.refuse("num_blocks", "is missing: a leg with parity members needs it");
    return parity;
  }

  // It has read what its members hold, and replayed their logs, when this ends.
  Task<MadeLeg> open_parity_leg(bdev::LegOptions options, Parity parity, std::vector<Named> members,
                                std::vector<bdev::Bdev*> bdevs) {
    std::vector<bdev::LegMember> in_sync;
    for (size_t i = 0; i < members.size(); i++) {
      if (!members[i].in_sync) {
        co_return Error{Errc::invalid_argument,
                        "members: a leg with parity is made of those in sync; add " + members[i].name + " afterwards"};
      }
      in_sync.push_back(as_leg_member(members[i], *bdevs[i]));
    }
    bdev::ParityLegOptions with;
    with.name = options.name;
    with.uuid = options.uuid;
    with.epoch = options.epoch;
    with.lease = options.lease;
    with.identity = options.identity;
    with.origin = parity.origin;
    with.count_blocks = options.count_blocks;
    with.grown_blocks = options.grown_blocks;
    with.data_count = parity.data_count;
    with.parity_count = parity.parity_count;
    with.planted.ignore_lease = options.planted.ignore_lease;
    with.planted.raid.away_unmarked = engine_.config().planted.away_unmarked;
    auto opening =
        bdev::ParityLegBdev::open(engine_.management(), std::move(with), std::move(in_sync), events_of(options));
    auto opened = co_await opening;
    if (!opened) co_return std::move(opened).error();
    co_return std::unique_ptr<bdev::DrivenLeg>(std::move(*opened));
  }

  bdev::LegEvents events_of(const bdev::LegOptions& options) {
    EventBus& bus = engine_.events();
    const std::string leg = options.name;
    const auto about = [leg](const std::string& member) {
      auto event = JsonValue::object();
      event.set("leg", leg).set("member", member);
      return event;
    };
    bdev::LegEvents events;
    events.member_failed = [this, &bus, about](const std::string& member, const std::string& reason) {
      bus.emit("leg_member_failed", about(member).set("reason", reason).set("sequence", ++sequence_));
    };
    events.member_copied = [&bus, about](const bdev::LegMemberInfo& member) {
      bus.emit("leg_member_copied", about_resync(about(member.name), member));
    };
    events.resync_progress = [&bus, about](const bdev::LegMemberInfo& member) {
      bus.emit("leg_resync", about_resync(about(member.name), member));
    };
    events.joining_failed = [&bus, about](const std::string& member, const std::string& reason) {
      bus.emit("leg_joining_failed", about(member).set("reason", reason));
    };
    events.repaired = [&bus, about](const std::string& member, uint64_t offset_blocks, uint64_t count_blocks) {
      bus.emit("leg_repaired", about(member).set("offset_blocks", offset_blocks).set("num_blocks", count_blocks));
    };
    events.scrub = [this, &bus, leg](const bdev::ScrubInfo& scrub) {
      auto found = find(leg);
      if (found.ok()) bus.emit("leg_scrub", about_scrub(scrub, (*found)->info().count_blocks).set("leg", leg));
    };
    events.fenced = [&bus, leg, epoch = options.epoch] {
      bus.emit("leg_fenced", JsonValue::object().set("leg", leg).set("epoch", std::to_string(epoch)));
    };
    events.clean = [&bus, leg] { bus.emit("leg_clean", JsonValue::object().set("leg", leg)); };
    return events;
  }

  static const char* resync_name(bdev::Resync resync) {
    return resync == bdev::Resync::delta ? "delta" : resync == bdev::Resync::full ? "full" : "none";
  }

  static JsonValue about_resync(JsonValue event, const bdev::LegMemberInfo& member) {
    event.set("resync", resync_name(member.resync))
        .set("copied_blocks", member.copied_blocks)
        .set("to_copy_blocks", member.to_copy_blocks);
    return event;
  }

  void join(const std::string& member, const std::string& leg) {
    const auto found = members_.find(member);
    if (found == members_.end()) return;
    found->second->leg = leg;
    if (found->second->lost) tell_leg(*found->second, member);
  }

  Result<bdev::DrivenLeg*> find(const std::string& name) {
    auto found = engine_.bdevs().find(name, "leg");
    if (!found) return std::move(found).error();
    return static_cast<bdev::DrivenLeg*>((*found)->bdev);
  }

  static const char* state_name(const bdev::LegMemberInfo& member) {
    if (member.failed) return "failed";
    switch (member.state) {
      case bdev::MemberState::empty:
        return "empty";
      case bdev::MemberState::in_sync:
        return "in_sync";
      case bdev::MemberState::joining:
        return "joining";
      case bdev::MemberState::copied:
        return "copied";
    }
    return "unknown";
  }

  Task<RpcResult> get(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    auto found = find(name);
    if (!found) co_return std::move(found).error();
    const bdev::DrivenLeg& leg = **found;
    const bdev::LegCounts counts = leg.counts();
    auto members = JsonValue::array();
    for (const bdev::LegMemberInfo& member : leg.members()) {
      const bool whole = member.state == bdev::MemberState::in_sync || member.state == bdev::MemberState::copied;
      auto one = JsonValue::object();
      one.set("name", member.name)
          .set("state", state_name(member))
          .set("synced_blocks", whole ? leg.info().count_blocks
                                      : leg.info().count_blocks -
                                            std::min(leg.info().count_blocks, member.to_copy_blocks) +
                                            member.copied_blocks)
          .set("repaired_blocks", member.repaired_blocks);
      if (member.place) one.set("place", uint64_t{*member.place});
      one = about_resync(std::move(one), member);
      members.push(std::move(one));
    }
    auto result = JsonValue::object();
    result.set("epoch", std::to_string(leg.epoch()))
        .set("state", leg.fenced()    ? "fenced"
                      : leg.waiting() ? "waiting"
                                      : "active")
        .set("members", std::move(members))
        .set("dirty_regions", counts.dirty_regions)
        .set("region_count", counts.region_count)
        .set("marked_regions", counts.marked_regions)
        .set("mark_region_count", counts.mark_region_count)
        .set("hedged_reads", counts.hedged_reads)
        .set("scrub", about_scrub(leg.scrub(), leg.info().count_blocks));
    co_return result;
  }

  struct LegAndMember {
    std::string leg_name;
    bdev::DrivenLeg* leg = nullptr;
    std::string member;
  };

  Result<LegAndMember> find_member(Fields& in, std::optional<RpcError>* wrong) {
    LegAndMember both;
    both.leg_name = in.string("name");
    both.member = in.string("member");
    *wrong = in.error();
    auto found = find(both.leg_name);
    if (!found) return std::move(found).error();
    both.leg = *found;
    return both;
  }

  Task<RpcResult> remove_member(JsonValue params) {
    auto running = leave(std::move(params), &bdev::DrivenLeg::remove_member);
    auto result = co_await running;
    co_return result;
  }

  Task<RpcResult> abandon_member(JsonValue params) {
    auto running = leave(std::move(params), &bdev::DrivenLeg::abandon_member);
    auto result = co_await running;
    co_return result;
  }

  // The member is out at once; it is free when nothing of the leg refers to it any more.
  Task<RpcResult> leave(JsonValue params, Outcome (bdev::DrivenLeg::*out)(const std::string&)) {
    Fields in(params);
    std::optional<RpcError> wrong;
    auto both = find_member(in, &wrong);
    if (wrong) co_return *wrong;
    if (!both) co_return std::move(both).error();
    auto left = (both->leg->*out)(both->member);
    if (!left) co_return std::move(left).error();
    auto releasing = release_member(both->leg_name, both->member);
    co_await releasing;
    co_return done();
  }

  Task<void> release_member(std::string leg_name, std::string member) {
    auto entry = engine_.bdevs().find(leg_name, "leg");
    auto below = engine_.bdevs().find(member);
    BASALT_ASSERT(entry.ok() && below.ok());
    static constexpr const char* user = "basalt_leg_remove_member";
    (*entry)->opened_by.emplace_back(user);  // the leg stays meanwhile
    auto* leg = static_cast<bdev::DrivenLeg*>((*entry)->bdev);
    auto releasing = leg->released(*(*below)->bdev);
    co_await releasing;
    engine_.bdevs().release(leg_name, user);
    std::erase((*entry)->children, member);
    engine_.bdevs().release(member, child_user(leg_name));
    if (const auto found = members_.find(member); found != members_.end()) found->second->leg.clear();
  }

  Task<RpcResult> add_member(JsonValue params) {
    Fields in(params);
    std::optional<RpcError> wrong;
    Named named;
    read_replica(in, named);
    const std::string instead_of = in.string_or("instead_of", "");
    auto both = find_member(in, &wrong);
    if (wrong) co_return *wrong;
    if (!both) co_return std::move(both).error();
    named.name = both->member;
    const std::string user = child_user(both->leg_name);
    auto claimed = engine_.bdevs().claim(both->member, user);
    if (!claimed) co_return std::move(claimed).error();
    bdev::LegMember member = as_leg_member(named, **claimed);
    member.instead_of = instead_of;
    auto added = both->leg->add_member(std::move(member));
    if (!added) {
      engine_.bdevs().release(both->member, user);
      co_return std::move(added).error();
    }
    auto entry = engine_.bdevs().find(both->leg_name, "leg");
    (*entry)->children.push_back(both->member);
    join(both->member, both->leg_name);
    co_return done();
  }

  Task<RpcResult> commit_member(JsonValue params) {
    Fields in(params);
    std::optional<RpcError> wrong;
    auto both = find_member(in, &wrong);
    if (wrong) co_return *wrong;
    if (!both) co_return std::move(both).error();
    auto committed = both->leg->commit_member(both->member);
    if (!committed) co_return std::move(committed).error();
    co_return done();
  }

  // The leg stays meanwhile; what it waits for ends with a fence at the latest.
  Task<RpcResult> resize(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const uint64_t count_blocks = in.natural("num_blocks", {.min = 1, .max = leg_blocks_max});
    if (auto error = in.error()) co_return *error;
    auto entry = engine_.bdevs().find(name, "leg");
    if (!entry) co_return std::move(entry).error();
    static constexpr const char* user = "basalt_leg_resize";
    (*entry)->opened_by.emplace_back(user);
    auto growing = static_cast<bdev::DrivenLeg*>((*entry)->bdev)->grow(count_blocks);
    auto grown = co_await growing;
    engine_.bdevs().release(name, user);
    if (!grown) co_return std::move(grown).error();
    co_return done();
  }

  // The leg stays meanwhile, as in resize().
  Task<RpcResult> settle(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    auto entry = engine_.bdevs().find(name, "leg");
    if (!entry) co_return std::move(entry).error();
    static constexpr const char* user = "basalt_leg_settle";
    (*entry)->opened_by.emplace_back(user);
    auto settling = static_cast<bdev::DrivenLeg*>((*entry)->bdev)->settle_all();
    const bool clean = co_await settling;
    const uint64_t marked_count = static_cast<bdev::DrivenLeg*>((*entry)->bdev)->counts().marked_regions;
    engine_.bdevs().release(name, user);
    auto result = JsonValue::object();
    result.set("clean", clean).set("marked_regions", marked_count);
    co_return result;
  }

  Task<RpcResult> keep_marks(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const std::vector<std::string> replicas = in.strings("replicas", 1, bdev::leg_tail::roster_count_max);
    if (auto error = in.error()) co_return *error;
    auto found = find(name);
    if (!found) co_return std::move(found).error();
    (*found)->keep_marks_for(replicas);
    co_return done();
  }

  Task<RpcResult> set_resync(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const uint64_t bytes_per_s = in.natural_or("bytes_per_s", 0);
    const bool paused = in.boolean_or("paused", false);
    if (auto error = in.error()) co_return *error;
    auto found = find(name);
    if (!found) co_return std::move(found).error();
    auto paced = (*found)->pace_resync(bytes_per_s, paused);
    if (!paced) co_return std::move(paced).error();
    co_return done();
  }

  Task<RpcResult> scrub_start(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    bdev::ScrubOptions options;
    options.bytes_per_s = in.natural_or("bytes_per_s", 0);
    options.repair = in.boolean_or("repair", true);
    if (auto error = in.error()) co_return *error;
    auto found = find(name);
    if (!found) co_return std::move(found).error();
    auto started = (*found)->start_scrub(options);
    if (!started) co_return std::move(started).error();
    co_return done();
  }

  Task<RpcResult> scrub_stop(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    auto found = find(name);
    if (!found) co_return std::move(found).error();
    (*found)->stop_scrub();
    co_return done();
  }

  Task<RpcResult> fence(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    auto found = find(name);
    if (!found) co_return std::move(found).error();
    (*found)->fence();
    co_return done();
  }

  Task<RpcResult> remove(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    auto found = engine_.bdevs().find(name, "leg");
    if (!found) co_return std::move(found).error();
    const std::vector<std::string> children = (*found)->children;
    auto destroying = engine_.bdevs().destroy(name, "leg");
    // Its events find it no more from here on when it may go.
    auto destroyed = co_await destroying;
    if (!destroyed) co_return std::move(destroyed).error();
    legs_.erase(name);
    for (const std::string& child : children) {
      const auto member = members_.find(child);
      if (member != members_.end() && member->second->leg == name) member->second->leg.clear();
    }
    co_return done();
  }

  Engine& engine_;
  bdev::Links links_;
  bool links_closed_ = false;
  std::map<std::string, std::unique_ptr<Attached>> members_;
  std::map<std::string, std::unique_ptr<Attached>> attaching_;
  std::map<std::string, bdev::DrivenLeg*> legs_;
  std::map<std::string, std::shared_ptr<bdev::Pulse>> pulses_;  // by address
  uint64_t sequence_ = 0;
};

}  // namespace

std::unique_ptr<Module> make_leg(Engine& engine) {
  return std::make_unique<Leg>(engine);
}

}  // namespace basalt::rpc
