// SPDX-License-Identifier: Apache-2.0
#include "bdev/nvmf/path_policy.h"

#include <algorithm>

#include "base/assert.h"

namespace basalt::bdev {
namespace {

constexpr int64_t weight = 8;  // a sample counts as an eighth
constexpr Duration stale_after = seconds(1);

}  // namespace

const char* path_selector_name(PathSelector selector) {
  switch (selector) {
    case PathSelector::stay:
      return "stay";
    case PathSelector::round_robin:
      return "round_robin";
    case PathSelector::queue_depth:
      return "queue_depth";
    case PathSelector::latency:
      return "latency";
  }
  return "unknown";
}

void PathLoad::measured(Duration latency, Instant now) {
  const int64_t sample = std::max<int64_t>(latency.ns, 1);
  latency_.ns = latency_.ns == 0 ? sample : latency_.ns + (sample - latency_.ns) / weight;
  measured_at_ = now;
}

int64_t PathLoad::expected_ns(Instant now) const {
  const bool unknown = latency_.ns == 0 || now > measured_at_ + stale_after;
  if (unknown && in_flight_count_ == 0) return 0;
  return latency_.ns * (int64_t{in_flight_count_} + 1);
}

void PathChooser::set_policy(PathPolicy policy) {
  policy_ = policy;
  policy_.rr_min_io = std::max(policy_.rr_min_io, 1u);
  left_ = 0;
}

// The candidate with the least index from `index` on, around.
const PathChooser::Candidate& PathChooser::from(const std::vector<Candidate>& candidates, size_t index) const {
  for (const Candidate& candidate : candidates) {
    if (candidate.index >= index) return candidate;
  }
  return candidates.front();
}

size_t PathChooser::choose(const std::vector<Candidate>& candidates, Instant now) {
  BASALT_ASSERT_SLOW(!candidates.empty());
  const Candidate& next = from(candidates, current_ + 1);
  const Candidate& same = from(candidates, current_);
  switch (policy_.selector) {
    case PathSelector::stay:
      return current_ = same.index;
    case PathSelector::round_robin:
      if (left_ == 0 || same.index != current_) {
        left_ = policy_.rr_min_io;
        current_ = next.index;
      }
      left_--;
      return current_;
    case PathSelector::queue_depth:
    case PathSelector::latency:
      break;
  }
  // Equal ones in turn.
  const auto cost = [&](const Candidate& candidate) {
    return policy_.selector == PathSelector::latency ? candidate.load->expected_ns(now)
                                                     : int64_t{candidate.load->in_flight_count()};
  };
  const Candidate* best = &next;
  for (const Candidate& candidate : candidates) {
    if (cost(candidate) < cost(*best)) best = &candidate;
  }
  return current_ = best->index;
}

}  // namespace basalt::bdev
