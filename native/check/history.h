// SPDX-License-Identifier: Apache-2.0
// History: what clients of one volume, of its snapshots and clones asked for, when, and what they were told; what the
// checker judges. Times are nanoseconds of one clock that all clients share. docs/history-format.md is the same as
// text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "check/stamp.h"

namespace basalt::check {

constexpr int64_t never_ns = INT64_MAX;
constexpr int64_t always_ns = INT64_MIN;

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
  uint32_t device = 0;  // index into History::devices
  uint64_t lba = 0;
  uint32_t count_blocks = 0;
  int64_t invoked_ns = 0;
  int64_t completed_ns = never_ns;  // when the client was told; never: it still waits
  uint64_t writer = 0;              // write: the stamp of each block
  uint64_t sequence = 0;
  std::vector<BlockValue> values;  // read with status ok: one per block
};

enum class DeviceKind : uint8_t { volume, snapshot, clone };

// A snapshot names an instant of its parent; a clone starts as its parent, a snapshot.
struct Device {
  DeviceKind kind = DeviceKind::volume;
  std::string name;
  uint32_t parent = 0;  // not for the volume
  // Of a snapshot: when it was taken.
  int64_t invoked_ns = always_ns;
  int64_t completed_ns = never_ns;
  OpStatus status = OpStatus::ok;
};

// Everything that stores the volume lost its unflushed bytes at this moment. Clients live on; answers on their way
// were lost.
struct PowerCut {
  int64_t at_ns = 0;
};

// One replica's or mirror half's contents, after everything came to rest.
struct ReplicaImage {
  std::string name;
  uint64_t leg = 0;
  std::vector<BlockValue> values;
  uint64_t first_block = 0;
};

struct History {
  uint64_t volume = 0;
  uint64_t block_bytes = check::block_bytes;
  uint64_t atomic_bytes = check::block_bytes;  // written as a whole, in normal work and when power fails
  bool write_cache = true;                     // false: what was acknowledged is durable
  std::vector<Device> devices{Device{}};       // the first is the volume; a parent may stand behind its children
  std::vector<Op> ops;
  std::vector<PowerCut> power_cuts;    // by time
  std::vector<ReplicaImage> replicas;  // all of one leg must be the same
  int64_t healed_ns = never_ns;        // the last fault ended; never: liveness is not judged
  int64_t bound_ns = 30'000'000'000;   // from there on everything pending completes within this
  int64_t clean_bound_ns = never_ns;   // and the volume is redundant again within this; never: not judged
  int64_t clean_ns = never_ns;         // when it was
};

}  // namespace basalt::check
