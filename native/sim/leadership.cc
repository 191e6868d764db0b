// SPDX-License-Identifier: Apache-2.0
#include "sim/leadership.h"

#include <algorithm>

namespace basalt::sim {
namespace {

bool names(const std::vector<MemberRef>& list, size_t leg, const std::string& replica) {
  return std::find(list.begin(), list.end(), MemberRef{leg, replica}) != list.end();
}

struct LegTakeover {
  std::vector<InSyncMember> stay;
  size_t reached_count = 0;
  size_t kept_count = 0;
};

// A member with another incarnation has lost its cache, so it leaves, unless the volume was left clean or no member
// with its cache was taken over.
LegTakeover take_over_leg(bool clean, const std::vector<InSyncMember>& in_sync, const std::vector<TakenMember>& taken,
                          size_t leg) {
  LegTakeover out;
  std::vector<InSyncMember> reached;
  std::vector<InSyncMember> kept;
  for (const InSyncMember& member : in_sync) {
    for (const TakenMember& found : taken) {
      if (found.leg != leg || found.replica != member.replica) continue;
      reached.push_back({member.replica, found.incarnation});
      if (member.incarnation == found.incarnation) kept.push_back(reached.back());
      break;
    }
  }
  out.reached_count = reached.size();
  out.kept_count = kept.size();
  out.stay = clean || kept.empty() ? reached : kept;
  return out;
}

}  // namespace

bool same(const Leadership& one, const Leadership& other) {
  const auto sorted = [](Leadership value) {
    for (auto& leg : value.legs)
      std::sort(leg.begin(), leg.end());
    return value;
  };
  const Leadership a = sorted(one);
  const Leadership b = sorted(other);
  return a.epoch == b.epoch && a.controller == b.controller && a.instance == b.instance && a.clean == b.clean &&
         a.lease == b.lease && a.legs == b.legs;
}

bool holds(const Leadership& present, const Holder& holder) {
  return present.controller == holder.controller && present.instance == holder.instance;
}

Leadership plan_new_epoch(const Leadership& present, const Holder& holder, uint64_t above) {
  Leadership next = present;
  next.epoch = std::max(present.epoch, above) + 1;
  next.controller = holder.controller;
  next.instance = holder.instance;
  return next;
}

TakeoverPlan plan_takeover(const Leadership& present, const std::vector<TakenMember>& taken) {
  TakeoverPlan plan;
  Leadership next = present;
  next.clean = false;
  for (size_t leg = 0; leg < present.legs.size(); leg++) {
    const auto& in_sync = present.legs[leg];
    const LegTakeover outcome = take_over_leg(present.clean, in_sync, taken, leg);
    if (outcome.stay.empty()) plan.empty.push_back(leg);
    if (outcome.reached_count < in_sync.size()) plan.all_taken = false;
    if (outcome.reached_count < in_sync.size() && outcome.kept_count == 0) plan.doubtful.push_back(leg);
    for (const InSyncMember& member : in_sync) {
      const bool stays = std::any_of(outcome.stay.begin(), outcome.stay.end(),
                                     [&](const InSyncMember& entry) { return entry.replica == member.replica; });
      if (!stays) plan.left.push_back({leg, member.replica});
    }
    next.legs[leg] = outcome.stay;
  }
  if (plan.empty.empty()) plan.next = std::move(next);
  return plan;
}

ShrinkPlan plan_shrink(const Leadership& present, const std::vector<MemberRef>& failed) {
  ShrinkPlan plan;
  Leadership next = present;
  bool changed = false;
  for (size_t leg = 0; leg < present.legs.size(); leg++) {
    std::vector<InSyncMember> stay;
    for (const InSyncMember& member : present.legs[leg]) {
      if (!names(failed, leg, member.replica)) stay.push_back(member);
    }
    if (stay.size() == present.legs[leg].size()) continue;
    if (stay.empty()) {
      for (const InSyncMember& member : present.legs[leg])
        plan.last.push_back({leg, member.replica});
      continue;
    }
    next.legs[leg] = stay;
    changed = true;
  }
  if (changed) plan.next = std::move(next);
  return plan;
}

std::optional<Leadership> plan_join(const Leadership& present, const TakenMember& member) {
  Leadership next = present;
  auto& in_sync = next.legs[member.leg];
  const InSyncMember joined{member.replica, member.incarnation};
  if (std::find(in_sync.begin(), in_sync.end(), joined) != in_sync.end()) return std::nullopt;
  std::erase_if(in_sync, [&](const InSyncMember& entry) { return entry.replica == member.replica; });
  in_sync.push_back(joined);
  return next;
}

Leadership plan_hand_over(const Leadership& present, bool clean) {
  Leadership next = present;
  next.controller.clear();
  next.instance.clear();
  next.clean = clean;
  return next;
}

}  // namespace basalt::sim
