// SPDX-License-Identifier: Apache-2.0
// PathPolicy: which of several equally accessible paths the next command takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/time.h"

namespace basalt::bdev {

enum class PathSelector : uint8_t {
  stay,         // one path for as long as it is among the best (active_passive)
  round_robin,  // each in turn, rr_min_io commands at a time
  queue_depth,  // the one with the fewest commands in flight
  latency       // the one where a command is likely to end first
};
const char* path_selector_name(PathSelector selector);

struct PathPolicy {
  PathSelector selector = PathSelector::round_robin;
  uint32_t rr_min_io = 1;
};

// What is known about a path, over all bdevs that use it.
class PathLoad {
 public:
  void sent() {
    in_flight_count_++;
    sent_count_++;
  }
  void ended() { in_flight_count_--; }
  void measured(Duration latency, Instant now);
  uint32_t in_flight_count() const { return in_flight_count_; }
  uint64_t sent_count() const { return sent_count_; }
  Duration latency() const { return latency_; }  // 0: not measured yet
  // How long a command that is sent now is likely to take. One that was not measured for a while, with nothing in
  // flight, is worth a try.
  int64_t expected_ns(Instant now) const;

 private:
  uint32_t in_flight_count_ = 0;
  uint64_t sent_count_ = 0;
  Duration latency_;
  Instant measured_at_;
};

class PathChooser {
 public:
  struct Candidate {
    size_t index = 0;  // of the path
    const PathLoad* load = nullptr;
  };
  void set_policy(PathPolicy policy);
  const PathPolicy& policy() const { return policy_; }
  // One of `candidates`, which are in the order of their index and at least one; gives its index.
  size_t choose(const std::vector<Candidate>& candidates, Instant now);

 private:
  const Candidate& from(const std::vector<Candidate>& candidates, size_t index) const;
  PathPolicy policy_;
  size_t current_ = 0;
  uint32_t left_ = 0;  // commands before the turn of the next
};

}  // namespace basalt::bdev
