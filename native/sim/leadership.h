// SPDX-License-Identifier: Apache-2.0
// What the store holds of one volume, and every change of it as a pure function: the orchestrator's planners
// (src/reconcile/membership.ts), so that whole failovers run natively in one thread. Keep them the same.
//
// Invariants: - no function gives a leg without a member
//             - an epoch grows by taking over, and by nothing else
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/time.h"

namespace basalt::sim {

struct InSyncMember {
  std::string replica;
  std::string incarnation;  // empty: not known yet
  auto operator<=>(const InSyncMember&) const = default;
};

struct Leadership {
  uint64_t epoch = 0;
  std::string controller;  // empty: nobody
  std::string instance;
  bool clean = true;
  Duration lease = milliseconds(300);
  std::vector<std::vector<InSyncMember>> legs;
};
// The order of members does not matter.
bool same(const Leadership& one, const Leadership& other);

struct MemberRef {
  size_t leg = 0;
  std::string replica;
  bool operator==(const MemberRef&) const = default;
};
struct TakenMember : MemberRef {
  std::string incarnation;
};

struct Holder {
  std::string controller;
  std::string instance;
};
bool holds(const Leadership& present, const Holder& holder);

// `above`: the highest epoch that a replica is known to have accepted, when that is more than the store knows.
Leadership plan_new_epoch(const Leadership& present, const Holder& holder, uint64_t above = 0);

struct TakeoverPlan {
  std::optional<Leadership> next;  // nothing: a leg has no member that was taken over
  std::vector<MemberRef> left;
  bool all_taken = true;
  std::vector<size_t> doubtful;  // no member is known to have kept its cache, while others were not reached
  std::vector<size_t> empty;
};
TakeoverPlan plan_takeover(const Leadership& present, const std::vector<TakenMember>& taken);

struct ShrinkPlan {
  std::optional<Leadership> next;  // nothing to swap
  std::vector<MemberRef> last;     // failed, and the last of their leg: they stay, and writes wait
};
ShrinkPlan plan_shrink(const Leadership& present, const std::vector<MemberRef>& failed);

// Nothing: it is in the set with that incarnation already.
std::optional<Leadership> plan_join(const Leadership& present, const TakenMember& member);

Leadership plan_hand_over(const Leadership& present, bool clean);

}  // namespace basalt::sim
