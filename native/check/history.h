// SPDX-License-Identifier: Apache-2.0
// History: what clients of one volume asked for, when, and what they were told; what the checker judges. Times are
// nanoseconds of one clock that all clients share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "check/stamp.h"

namespace basalt::check {

constexpr int64_t never_ns = INT64_MAX;

enum class OpType : uint8_t { read, write, flush, zero };

enum class OpStatus : uint8_t {
  ok,
  fail,  // proven: was refused before it had any effect
  info,  // failed, timed out or still pending: it may have happened, and may still happen
};

struct Op {
  uint64_t id = 0;
  uint32_t client = 0;
  OpType type = OpType::read;
  OpStatus status = OpStatus::info;
  bool fua = false;
  uint64_t lba = 0;
  uint32_t count_blocks = 0;
  int64_t invoked_ns = 0;
  int64_t completed_ns = never_ns;  // when the client was told; never: it still waits
  uint64_t writer = 0;              // write: the stamp of each block
  uint64_t sequence = 0;
  std::vector<BlockValue> values;  // read with status ok: one per block
};

// Everything that stores the volume lost its unflushed bytes at this moment. Clients live on.
struct PowerCut {
  int64_t at_ns = 0;
};

// One replica's or mirror half's whole contents, after everything came to rest.
struct ReplicaImage {
  std::string name;
  uint64_t leg = 0;
  std::vector<BlockValue> values;
};

struct History {
  uint64_t volume = 0;
  std::vector<Op> ops;
  std::vector<PowerCut> power_cuts;
  std::vector<ReplicaImage> replicas;  // all of one leg must be the same
  int64_t healed_ns = never_ns;        // the last fault ended; never: liveness is not judged
  int64_t bound_ns = 30'000'000'000;   // from there on everything pending completes within this
};

}  // namespace basalt::check
