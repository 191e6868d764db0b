// SPDX-License-Identifier: Apache-2.0
// StackPlan: which bdevs lie on which, drawn from the seed; and what an orchestrator would have recorded durably about
// the stack (who is in sync in each leg), which outlives crashes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "env/sim/sim_random.h"

namespace basalt::sim {

// remote: what is below, served over NVMe/TCP and attached again. crypt: encryption.
enum class LayerKind : uint8_t { file, fault, raid0, leg, lvol, raid, remote, crypt };

struct LayerPlan {
  LayerKind kind = LayerKind::file;
  uint32_t id = 0;  // unique within the plan
  uint32_t disk = 0;
  uint64_t size_bytes = 0;  // members of a leg are of one size, whatever they consist of
  bool tails = false;       // leg: marks on its members
  bool concat = false;      // raid0: its members one after the other
  bool checksums = false;   // lvol
  // raid: the last ones of `below` count as parity
  uint32_t parity_count = 0;
  uint64_t strip_bytes = 0;
  uint32_t log_slot_count = 0;
  bool grows = false;  // its members have more room than it takes at first: by a stripe or more
  uint64_t bytes_at_first() const { return size_bytes - (grows ? (below.size() - parity_count) * strip_bytes : 0); }
  std::vector<LayerPlan> below;
  std::vector<LayerPlan> spare;  // may take the place of one of them
  std::string name() const;
  size_t device_count() const { return below.size() + spare.size(); }
  const LayerPlan& device(size_t index) const {
    return index < below.size() ? below[index] : spare[index - below.size()];
  }
};

struct StackPlan {
  LayerPlan top;
  bool pool = false;            // the volumes are lvols on the top; else there is one volume, the top itself
  bool pool_checksums = false;  // of every other one of them
  uint32_t disk_count = 0;
  // Some raid is written in whole stripes: what was not flushed of them may be garbage once a member is lost too
  // (docs/decisions/006).
  bool whole_stripes() const;
  bool encrypted() const;
  bool checksummed() const;  // some lvol
  std::string to_string() const;
};

StackPlan random_plan(env::SimRandom& random);

// Of each leg, by its id: which of the layers below it are in sync.
using InSyncSets = std::map<uint32_t, std::vector<bool>>;
InSyncSets all_in_sync(const StackPlan& plan);

// Of a member of a leg that verifies what it reads: the layer of checksums and the file under it. What that disk does
// to the data unnoticed, the layer notices, and the leg repairs.
struct VerifiedMember {
  const LayerPlan* lvol = nullptr;
  const LayerPlan* file = nullptr;
};
std::vector<VerifiedMember> verified_members_of(const LayerPlan& plan);

std::vector<const LayerPlan*> legs_of(const LayerPlan& plan);
std::vector<const LayerPlan*> raids_of(const LayerPlan& plan);
std::vector<const LayerPlan*> files_of(const LayerPlan& plan);

}  // namespace basalt::sim
