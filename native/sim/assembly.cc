// SPDX-License-Identifier: Apache-2.0
#include "sim/assembly.h"

#include <algorithm>

#include "sim/disk_node.h"

namespace basalt::sim {
namespace {
constexpr Duration member_command_timeout = milliseconds(800);
constexpr uint32_t member_keep_alive_ms = 1000;
}  // namespace

Assembly::Assembly(Reactor& reactor, nvmf::HostTransport& transport, bdev::Links& links, const VolumeShape& volume,
                   std::string controller, uint64_t epoch)
    : reactor_(reactor),
      transport_(transport),
      links_(links),
      volume_(volume),
      controller_(std::move(controller)),
      epoch_(epoch) {}

Assembly::~Assembly() {
  BASALT_ASSERT(attached_.empty() && legs_.empty());
}

Task<Assembly::AttachResult> Assembly::attach(MemberRef member, Duration timeout) {
  AttachResult result;
  const auto& places = volume_.legs[member.leg];
  const auto place = std::find_if(places.begin(), places.end(),
                                  [&](const ReplicaPlace& entry) { return entry.replica == member.replica; });
  BASALT_ASSERT(place != places.end());
  auto attached = std::make_unique<Attached>();
  attached->member.leg = member.leg;
  attached->member.replica = member.replica;
  attached->name = member.replica + "." + std::to_string(epoch_) + "." + std::to_string(++attempt_);
  bdev::MemberOptions options;
  options.name = attached->name;
  options.address = {place->endpoint.address, std::to_string(place->endpoint.port)};
  options.subnqn = replica_nqn(member.replica);
  options.link_nqn = node_link_nqn();
  options.hostnqn = "nqn.2026-01.sim:controller:" + controller_;
  options.keep_alive_ms = member_keep_alive_ms;
  options.command_timeout = member_command_timeout;
  attached->bdev = std::make_unique<bdev::Member>(reactor_, transport_, options, &links_);
  auto taking = attached->bdev->takeover(epoch_, timeout);
  auto taken = co_await taking;
  if (!taken.ok()) {
    if (taken.error().code == Errc::fenced) {
      result.outcome = Attach::fenced;
      result.fenced_by = std::max(attached->bdev->fencing_epoch(), epoch_ + 1);
    }
    auto closing = attached->bdev->close();
    auto closed = co_await closing;
    (void)closed.ok();
    co_return result;
  }
  attached->member.incarnation = taken->incarnation;
  attached->gate = std::make_unique<HoldBdev>(reactor_, *attached->bdev);
  attached->bdev->set_listener(this);
  result.outcome = Attach::taken;
  result.attached = attached.get();
  attached_.push_back(std::move(attached));
  co_return result;
}

Task<void> Assembly::detach(std::string name) {
  const auto found =
      std::find_if(attached_.begin(), attached_.end(), [&](const auto& entry) { return entry->name == name; });
  if (found == attached_.end()) co_return;
  std::unique_ptr<Attached> attached = std::move(*found);
  attached_.erase(found);
  attached->bdev->set_listener(nullptr);
  auto closing_gate = attached->gate->close();
  auto gate_closed = co_await closing_gate;
  (void)gate_closed.ok();
  auto closing = attached->bdev->close();
  auto closed = co_await closing;
  (void)closed.ok();
  for (const auto& leg : legs_) {
    auto releasing = leg->released(*attached->gate);
    co_await releasing;
  }
  // The member's own end may still be in hand of what told of it.
  co_await hop(reactor_);
}

bdev::LegMember Assembly::as_leg_member(Attached& attached) {
  return {bdev::Handle(*attached.gate, reactor_), attached.member.replica};
}

Outcome Assembly::build(const std::vector<Attached*>& members, bool all_dirty, Duration lease, const PlantedBugs& bugs,
                        Events events) {
  std::vector<bdev::Handle> handles;
  for (size_t index = 0; index < volume_.legs.size(); index++) {
    std::vector<bdev::LegMember> in_sync;
    for (Attached* attached : members) {
      if (attached->member.leg == index) in_sync.push_back(as_leg_member(*attached));
    }
    bdev::LegOptions options;
    options.name = "leg" + std::to_string(index) + "." + std::to_string(epoch_);
    options.epoch = epoch_;
    options.lease = lease;
    options.all_dirty = all_dirty && in_sync.size() > 1 && !bugs.read_unequal;
    options.count_blocks = volume_.leg_blocks;
    options.identity = "leg" + std::to_string(index);
    for (const ReplicaPlace& place : volume_.legs[index])
      options.replicas.push_back(place.replica);
    options.mark_region_bytes_min = volume_.mark_region_bytes;
    options.mark_rest = volume_.mark_rest;
    options.planted.ignore_lease = bugs.ignore_read_lease;
    options.planted.skip_marks = bugs.skip_marks;
    options.planted.clear_before_flush = bugs.clear_before_flush;
    options.planted.ignore_own_marks = bugs.ignore_own_marks;
    bdev::LegEvents leg_events;
    leg_events.member_failed = [index, events](const std::string& member, const std::string& reason) {
      events.member_failed(index, member, reason);
    };
    leg_events.member_copied = [index, events](const bdev::LegMemberInfo& member) {
      events.member_copied(index, member.name);
    };
    leg_events.joining_failed = [index, events](const std::string& member, const std::string&) {
      events.joining_failed(index, member);
    };
    leg_events.fenced = [index, events] { events.fenced(index); };
    auto made = bdev::LegBdev::create(reactor_, options, std::move(in_sync), std::move(leg_events));
    if (!made) return std::move(made).error();
    legs_.push_back(std::move(made).value());
    handles.emplace_back(*legs_.back(), reactor_);
  }
  bdev::Raid0Options options;
  options.name = "volume." + std::to_string(epoch_);
  options.strip_bytes = volume_.strip_bytes;
  auto raid = bdev::Raid0Bdev::create(reactor_, options, std::move(handles));
  if (!raid) return std::move(raid).error();
  raid_ = std::move(raid).value();
  // One that was lost between its takeover and now told nobody.
  for (Attached* attached : members) {
    if (!attached->bdev->taken()) legs_[attached->member.leg]->member_lost(attached->name);
  }
  return success();
}

void Assembly::member_failed(bdev::Member& member, const Error&) {
  Attached* attached = find(member.options().name);
  if (attached == nullptr || attached->member.leg >= legs_.size()) return;
  legs_[attached->member.leg]->member_lost(attached->name);
}

void Assembly::fence() {
  for (const auto& leg : legs_)
    leg->fence();
}

Task<void> Assembly::tear_down() {
  fence();
  for (const auto& attached : attached_)
    attached->gate->release();
  if (raid_ != nullptr) {
    auto closing = raid_->close();
    auto closed = co_await closing;
    (void)closed.ok();
    raid_.reset();
  }
  for (const auto& leg : legs_) {
    auto closing = leg->close();
    auto closed = co_await closing;
    (void)closed.ok();
  }
  legs_.clear();
  while (!attached_.empty()) {
    std::string name = attached_.back()->name;
    auto detaching = detach(std::move(name));
    co_await detaching;
  }
}

Assembly::Attached* Assembly::find(const std::string& name) {
  for (const auto& attached : attached_) {
    if (attached->name == name) return attached.get();
  }
  return nullptr;
}

bool Assembly::has_replica(const std::string& replica) const {
  return std::any_of(attached_.begin(), attached_.end(),
                     [&](const auto& attached) { return attached->member.replica == replica; });
}

bool Assembly::clean() {
  for (const auto& leg : legs_) {
    if (leg->fenced() || leg->waiting() || !leg->equal()) return false;
    for (const bdev::LegMemberInfo& member : leg->members()) {
      if (member.failed) return false;
    }
  }
  return true;
}

}  // namespace basalt::sim
