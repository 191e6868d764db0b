// SPDX-License-Identifier: Apache-2.0
#include "sim/controller_daemon.h"

#include <algorithm>

#include "base/probe.h"
#include "nvmf/transport/tcp/tcp_target.h"

namespace basalt::sim {
namespace {
constexpr Duration decide_interval = milliseconds(20);
constexpr Duration store_interval = milliseconds(150);
constexpr Duration promotion_interval = milliseconds(100);
constexpr uint32_t peer_keep_alive_ms = 300;
constexpr uint16_t cntlids_per_controller = 1000;
constexpr Duration peer_delay_max = milliseconds(500);
}  // namespace

ControllerNode::Daemon::Daemon(env::SimNode& node, SimStore& store, const ControllerNodeOptions& daemon_options,
                               uint64_t* promotions_made)
    : Process(node), options(daemon_options), leadership(store, node, reactor()), promotion_count(promotions_made) {}

Task<void> ControllerNode::Daemon::run() {
  auto begin = hop(reactor());
  co_await begin;
  auto serving = serve_slot();
  const bool served = co_await serving;
  BASALT_ASSERT(served);
  for (const ControllerPeer& peer : options.order) {
    if (peer.name == options.name) continue;
    auto watch = std::make_unique<Watch>();
    watch->name = peer.name;
    nvmf::PeerWatchOptions watch_options;
    watch_options.address = {peer.endpoint.address, std::to_string(peer.endpoint.port)};
    watch_options.hostnqn = "nqn.2026-01.sim:controller:" + options.name;
    watch_options.keep_alive_ms = peer_keep_alive_ms;
    watch_options.connect_timeout = milliseconds(500);
    watch_options.delay_max = peer_delay_max;
    watch->peer = std::make_unique<nvmf::PeerWatch>(reactor(), host_transport, watch_options, watch.get());
    BASALT_ASSERT(watch->peer->start().ok());
    watches.push_back(std::move(watch));
  }
  auto driving = drive();
  co_await driving;
}

// What hosts see, from the start: a namespace without a backing, inaccessible.
Task<bool> ControllerNode::Daemon::serve_slot() {
  bdev::SlotOptions slot_options;
  slot_options.name = "slot";
  slot_options.uuid.bytes[0] = 1;
  slot_options.block_size_bytes = 4096;
  slot_options.count_blocks = options.volume->count_blocks();
  auto made = bdev::SlotBdev::create(reactor(), slot_options);
  if (!made) co_return false;
  slot = std::move(made).value();
  target = std::make_unique<nvmf::Target>(std::vector<Reactor*>{&reactor()});
  target->add_transport(std::make_unique<nvmf::TcpTargetTransport>(*target));
  size_t rank = 0;
  while (options.order[rank].name != options.name)
    rank++;
  nvmf::SubsystemOptions subsystem_options;
  subsystem_options.nqn = volume_nqn();
  subsystem_options.serial_number = "volume";
  subsystem_options.allow_any_host = true;
  subsystem_options.cntlid_min = static_cast<uint16_t>(1 + rank * cntlids_per_controller);
  subsystem_options.cntlid_max = static_cast<uint16_t>((rank + 1) * cntlids_per_controller);
  subsystem_options.namespaces_max = 1;
  subsystem_options.one_active = true;
  auto created = target->create_subsystem(subsystem_options);
  if (!created) co_return false;
  subsystem = created.value();
  ns::NamespaceOptions space;
  space.nsid = 1;
  space.ana_group = 1;
  auto adding = subsystem->add_namespace(space, slot.get());
  auto added = co_await adding;
  if (!added) co_return false;
  address.traddr = options.endpoint.address;
  address.trsvcid = std::to_string(options.endpoint.port);
  // Listening begins before the state is set, as with a real daemon: the empty slot answers in between.
  auto listening = subsystem->add_listener(address);
  auto bound = co_await listening;
  if (!bound) co_return false;
  auto setting = set_ana(nvme::AnaState::inaccessible);
  co_await setting;
  co_return true;
}

Task<void> ControllerNode::Daemon::set_ana(nvme::AnaState ana) {
  auto setting = subsystem->set_ana_state(address, 0, ana);
  const Outcome set = co_await setting;
  BASALT_ASSERT(set.ok());
}

Task<void> ControllerNode::Daemon::drive() {
  Instant store_due = reactor().now();
  for (;;) {
    co_await sleep_for(reactor(), decide_interval);
    if (reactor().now() >= store_due) {
      // As a watch on the store would tell; away, it tells nothing.
      auto asking = leadership.refresh_once();
      (void)co_await asking;
      store_due = reactor().now() + store_interval;
    }
    if (state == ControllerState::active) {
      const bool superseded = leadership.known().epoch > assembly->epoch();
      const MembershipWorker::End end = superseded ? MembershipWorker::End::fenced : worker->ended();
      if (end == MembershipWorker::End::none) continue;
      auto ending = disassemble();
      co_await ending;
      if (end == MembershipWorker::End::fenced) {
        state = ControllerState::idle;
        continue;
      }
      // Every member of a leg failed: the same controller goes on as soon as one is back, unless another one has it.
      state = ControllerState::promoting;
      bool promoted = false;
      while (!promoted && (leadership.known().controller == options.name || leadership.known().controller.empty())) {
        auto promoting = promote(false);
        promoted = co_await promoting;
        if (!promoted) co_await sleep_for(reactor(), promotion_interval);
      }
      state = promoted ? ControllerState::active : ControllerState::idle;
      continue;
    }
    if (!should_promote()) continue;
    state = ControllerState::promoting;
    auto promoting = promote(true);
    const bool promoted = co_await promoting;
    state = promoted ? ControllerState::active : ControllerState::idle;
    if (!promoted) co_await sleep_for(reactor(), promotion_interval);
  }
}

bool ControllerNode::Daemon::should_promote() {
  const Leadership& known = leadership.known();
  if (known.legs.empty()) return false;  // not read yet
  const std::string& has_it = known.controller;
  std::set<std::string> alive = leadership.alive();
  std::set<std::string> lost;
  for (const auto& watch : watches) {
    if (watch->connected) alive.insert(watch->name);
    if (watch->lost) lost.insert(watch->name);
  }
  Duration delay;
  if (has_it != options.name) {
    if (!has_it.empty() && alive.contains(has_it) && !lost.contains(has_it)) {
      wish.clear();
      return false;
    }
    int64_t rank = 0;
    for (const ControllerPeer& peer : options.order) {
      if (peer.name == options.name) break;
      if (peer.name != has_it && alive.contains(peer.name) && !lost.contains(peer.name)) rank++;
    }
    delay = options.timing.standby_step * rank;
  }
  const std::string what = std::to_string(known.epoch) + " " + has_it;
  if (wish != what) {
    wish = what;
    wish_since = reactor().now();
  }
  return reactor().now() >= wish_since + delay;
}

Task<bool> ControllerNode::Daemon::promote(bool takeover) {
  auto taking = take_right(takeover);
  const bool right = co_await taking;
  if (!right) co_return false;
  auto assembling = assemble();
  const bool assembled = co_await assembling;
  if (!assembled) {
    auto ending = disassemble();
    co_await ending;
  }
  co_return assembled;
}

// Step 1: a new epoch by swap, which gives the in-sync sets.
Task<bool> ControllerNode::Daemon::take_right(bool takeover) {
  auto reading = leadership.refresh(never_stop);
  (void)co_await reading;
  const Leadership present = leadership.known();
  if (!takeover && !present.controller.empty() && present.controller != options.name) co_return false;
  holder = {options.name, std::to_string(node().random_u64())};
  const Holder self = holder;
  const uint64_t above = fenced_by;
  auto swapping = leadership.swap(
      [self, above](const Leadership& now) -> std::optional<Leadership> { return plan_new_epoch(now, self, above); },
      never_stop);
  const bool won = co_await swapping;
  if (!won) reach(Mark::epoch_race_lost);
  signed_stop = present.clean && present.controller.empty();
  co_return won;
}

// Steps 2 to 5: members, sets, old leases, legs.
Task<bool> ControllerNode::Daemon::assemble() {
  const Leadership before = leadership.known();
  assembly = std::make_unique<Assembly>(reactor(), host_transport, links, *options.volume, options.name, before.epoch);
  std::vector<Assembly::Attached*> members;
  bool fenced = false;
  auto taking = take_members(before, &members, &fenced);
  co_await taking;
  if (fenced) co_return false;
  std::vector<TakenMember> taken;
  for (const Assembly::Attached* attached : members)
    taken.push_back(attached->member);
  const TakeoverPlan plan = plan_takeover(before, taken);
  const Instant taken_at = reactor().now();
  if (!plan.next) co_return false;
  if (!options.bugs.promote_before_takeover) {
    auto swapping = leadership.swap(
        [taken](const Leadership& present) -> std::optional<Leadership> { return plan_takeover(present, taken).next; },
        never_stop);
    const bool swapped = co_await swapping;
    if (!swapped || !holds(leadership.known(), holder)) co_return false;
    for (const MemberRef& left : plan.left) {
      const auto found = std::find_if(members.begin(), members.end(),
                                      [&](const Assembly::Attached* entry) { return entry->member == left; });
      if (found == members.end()) continue;
      const std::string name = (*found)->name;
      members.erase(found);
      auto detaching = assembly->detach(name);
      co_await detaching;
    }
    if (!plan.all_taken && !signed_stop) {
      reach(Mark::leases_waited_out);
      auto waiting = outwait_leases(before.lease, taken_at);
      co_await waiting;
    }
  }
  auto serving = serve(members, !before.clean, before.lease);
  co_return co_await serving;
}

Task<void> ControllerNode::Daemon::take_members(const Leadership& present, std::vector<Assembly::Attached*>* taken,
                                                bool* fenced) {
  const Instant give_up_at = reactor().now() + options.timing.grace;
  for (;;) {
    std::vector<MemberRef> missing;
    for (size_t leg = 0; leg < present.legs.size(); leg++) {
      const size_t chosen = present.legs[leg].empty() ? 0 : present.epoch % present.legs[leg].size();
      for (const InSyncMember& member : present.legs[leg]) {
        const bool first = &member == &present.legs[leg][chosen];
        const bool has = std::any_of(taken->begin(), taken->end(), [&](const Assembly::Attached* entry) {
          return entry->member.leg == leg && entry->member.replica == member.replica;
        });
        if (!has && (first || !options.bugs.promote_before_takeover)) missing.push_back({leg, member.replica});
      }
    }
    size_t left = missing.size();
    for (const MemberRef& member : missing)
      spawn(attach_into(member, taken, fenced, &left));
    while (left > 0)
      co_await sleep_for(reactor(), microseconds(200));
    if (*fenced) co_return;
    std::vector<TakenMember> members;
    for (const Assembly::Attached* attached : *taken)
      members.push_back(attached->member);
    const TakeoverPlan plan = plan_takeover(present, members);
    const bool again = !plan.doubtful.empty() || !plan.empty.empty();
    if (!again || reactor().now() >= give_up_at) co_return;
    co_await sleep_for(reactor(), options.timing.attach_retry);
  }
}

Task<void> ControllerNode::Daemon::attach_into(MemberRef member, std::vector<Assembly::Attached*>* taken, bool* fenced,
                                               size_t* left) {
  auto attaching = assembly->attach(member, options.timing.attach_timeout);
  const Assembly::AttachResult result = co_await attaching;
  if (result.outcome == Assembly::Attach::taken) taken->push_back(result.attached);
  if (result.outcome == Assembly::Attach::fenced) {
    *fenced = true;
    fenced_by = std::max(fenced_by, result.fenced_by);
  }
  --*left;
}

// A controller that was not reached answers reads until its leases end; the margin covers the two clocks' rates.
Task<void> ControllerNode::Daemon::outwait_leases(Duration lease, Instant taken_at) {
  const Instant end = taken_at + lease * 11 / 10 + milliseconds(10);
  while (reactor().now() < end)
    co_await sleep_for(reactor(), end - reactor().now());
}

Task<bool> ControllerNode::Daemon::serve(std::vector<Assembly::Attached*> members, bool all_dirty, Duration lease) {
  worker = std::make_unique<MembershipWorker>(reactor(), *assembly, *options.volume, leadership, holder, options.bugs);
  const Outcome built = assembly->build(members, all_dirty, lease, options.bugs, worker->events());
  if (!built) co_return false;
  auto setting = slot->set(bdev::Handle(*assembly->raid(), reactor()));
  const Outcome set = co_await setting;
  if (!set) co_return false;
  auto opening = set_ana(nvme::AnaState::optimized);
  co_await opening;
  worker->start();
  ++*promotion_count;
  co_return true;
}

// Fence first: what is in flight ends with path errors, then everything of the epoch goes.
Task<void> ControllerNode::Daemon::disassemble() {
  if (assembly == nullptr) co_return;
  assembly->fence();
  auto closing = set_ana(nvme::AnaState::inaccessible);
  co_await closing;
  if (worker != nullptr) {
    auto stopping = worker->stop();
    co_await stopping;
  }
  for (const auto& attached : assembly->attached())
    attached->gate->release();
  auto clearing = slot->set(bdev::Handle());
  const Outcome cleared = co_await clearing;
  BASALT_ASSERT(cleared.ok());
  auto tearing = assembly->tear_down();
  co_await tearing;
  assembly.reset();
  worker.reset();
}

}  // namespace basalt::sim
