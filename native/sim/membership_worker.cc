// SPDX-License-Identifier: Apache-2.0
#include "sim/membership_worker.h"

#include <algorithm>

namespace basalt::sim {
namespace {
// The worker looks at what it was told this often: legs tell from completion contexts, where nothing may be done.
constexpr Duration work_interval = milliseconds(2);
constexpr Duration rejoin_interval = milliseconds(100);
constexpr Duration rejoin_delay = milliseconds(300);
constexpr Duration attach_timeout = milliseconds(800);
}  // namespace

MembershipWorker::MembershipWorker(Reactor& reactor, Assembly& assembly, const VolumeShape& volume,
                                   LeadershipRegister& store, Holder holder, const PlantedBugs& bugs)
    : reactor_(reactor),
      assembly_(assembly),
      volume_(volume),
      register_(store),
      holder_(std::move(holder)),
      bugs_(bugs) {}

Assembly::Events MembershipWorker::events() {
  Assembly::Events events;
  events.member_failed = [this](size_t leg, const std::string& name, const std::string&) { member_failed(leg, name); };
  events.member_copied = [this](size_t, const std::string& name) {
    const auto found = joining_.find(name);
    if (found != joining_.end()) found->second.copied = true;
  };
  events.joining_failed = [this](size_t, const std::string& name) {
    const auto found = joining_.find(name);
    if (found != joining_.end()) found->second.failed = true;
  };
  events.fenced = [this](size_t) { end(End::fenced); };
  return events;
}

void MembershipWorker::member_failed(size_t, const std::string& name) {
  const auto found = joining_.find(name);
  if (found != joining_.end()) {
    found->second.failed = true;
  } else {
    failed_.push_back(name);
  }
}

void MembershipWorker::start() {
  running_count_ = 2;
  spawn(work());
  spawn(rejoin());
}

Task<void> MembershipWorker::stop() {
  *stop_ = true;
  while (running_count_ > 0)
    co_await sleep_for(reactor_, milliseconds(1));
}

void MembershipWorker::end(End how) {
  if (ended_ == End::none) ended_ = how;
  *stop_ = true;
}

Task<void> MembershipWorker::work() {
  while (!*stop_) {
    std::string failed_join;
    std::string copied;
    bool swapped = false;
    for (const auto& [name, joining] : joining_) {
      if (joining.failed) {
        failed_join = name;
        swapped |= joining.swapped;
      } else if (joining.copied) {
        copied = name;
      }
    }
    if (!failed_.empty() || swapped) {
      auto shrinking = shrink();
      co_await shrinking;
    } else if (!failed_join.empty()) {
      auto giving_up = give_up(failed_join);
      co_await giving_up;
    } else if (!copied.empty()) {
      auto joining = join(copied);
      co_await joining;
    } else {
      co_await sleep_for(reactor_, work_interval);
    }
  }
  running_count_--;
}

// Everything that failed by now, over all legs, in one swap.
Task<void> MembershipWorker::shrink() {
  const std::vector<std::string> failed = failed_;
  std::vector<std::string> joins;
  for (const auto& [name, joining] : joining_) {
    if (joining.failed && joining.swapped) joins.push_back(name);
  }
  std::vector<std::string> leaving = failed;
  leaving.insert(leaving.end(), joins.begin(), joins.end());
  std::vector<MemberRef> refs;
  for (const std::string& name : leaving) {
    if (const Assembly::Attached* attached = assembly_.find(name)) refs.push_back(attached->member);
  }
  const std::vector<MemberRef> last = plan_shrink(register_.known(), refs).last;
  if (!bugs_.shrink_without_consent) {
    auto swapping = swap([refs](const Leadership& present) { return plan_shrink(present, refs).next; });
    const bool swapped = co_await swapping;
    if (!swapped) co_return;
  }
  for (const std::string& name : failed) {
    std::erase(failed_, name);
    Assembly::Attached* attached = assembly_.find(name);
    if (attached == nullptr) continue;
    const MemberRef member = attached->member;
    if (std::find(last.begin(), last.end(), member) != last.end()) continue;
    const Outcome removed = assembly_.leg(member.leg).remove_member(name);
    (void)removed.ok();
    auto detaching = assembly_.detach(name);
    co_await detaching;
    not_before_[member.replica] = reactor_.now() + rejoin_delay;
  }
  if (!last.empty()) {
    end(End::stuck);
    co_return;
  }
  for (const std::string& name : joins) {
    auto giving_up = give_up(name);
    co_await giving_up;
  }
}

Task<void> MembershipWorker::join(std::string name) {
  Assembly::Attached* attached = assembly_.find(name);
  const TakenMember member = attached->member;
  joining_[name].swapped = true;
  auto swapping = swap([member](const Leadership& present) { return plan_join(present, member); });
  const bool swapped = co_await swapping;
  // It may have failed while the outcome was open: then shrink() swaps it out again.
  if (!swapped || joining_[name].failed) co_return;
  const Outcome committed = assembly_.leg(member.leg).commit_member(name);
  if (!committed) {
    joining_[name].failed = true;
    co_return;
  }
  joining_.erase(name);
}

Task<void> MembershipWorker::give_up(std::string name) {
  joining_.erase(name);
  Assembly::Attached* attached = assembly_.find(name);
  if (attached == nullptr) co_return;
  const MemberRef member = attached->member;
  const Outcome abandoned = assembly_.leg(member.leg).abandon_member(name);
  (void)abandoned.ok();
  auto detaching = assembly_.detach(name);
  co_await detaching;
  not_before_[member.replica] = reactor_.now() + rejoin_delay;
}

// False: this controller holds the volume no more, and the worker has ended.
Task<bool> MembershipWorker::swap(LeadershipRegister::Plan plan) {
  while (!*stop_) {
    auto swapping = register_.swap(plan, stop_);
    const bool swapped = co_await swapping;
    if (swapped) co_return true;
    if (*stop_) break;
    if (!holds(register_.known(), holder_) || register_.known().epoch != assembly_.epoch()) {
      end(End::fenced);
      break;
    }
  }
  co_return false;
}

Task<void> MembershipWorker::rejoin() {
  while (!*stop_) {
    co_await sleep_for(reactor_, rejoin_interval);
    const Leadership present = register_.known();
    for (size_t leg = 0; leg < volume_.legs.size() && !*stop_; leg++) {
      for (const ReplicaPlace& place : volume_.legs[leg]) {
        const auto& in_sync = present.legs[leg];
        const bool known = std::any_of(in_sync.begin(), in_sync.end(),
                                       [&](const InSyncMember& entry) { return entry.replica == place.replica; });
        const auto rest = not_before_.find(place.replica);
        const bool resting = rest != not_before_.end() && rest->second > reactor_.now();
        if (known || resting || assembly_.has_replica(place.replica) || *stop_) continue;
        auto rejoining = rejoin_member({leg, place.replica});
        co_await rejoining;
      }
    }
  }
  running_count_--;
}

Task<void> MembershipWorker::rejoin_member(MemberRef member) {
  not_before_[member.replica] = reactor_.now() + rejoin_delay;
  auto attaching = assembly_.attach(member, attach_timeout);
  const Assembly::AttachResult result = co_await attaching;
  if (result.outcome == Assembly::Attach::fenced) end(End::fenced);
  if (result.outcome != Assembly::Attach::taken) co_return;
  const std::string name = result.attached->name;
  joining_[name] = {};
  const Outcome added = assembly_.leg(member.leg).add_member(assembly_.as_leg_member(*result.attached));
  if (added.ok()) {
    if (!result.attached->bdev->taken()) assembly_.leg(member.leg).member_lost(name);
    co_return;
  }
  joining_.erase(name);
  auto detaching = assembly_.detach(name);
  co_await detaching;
}

}  // namespace basalt::sim
