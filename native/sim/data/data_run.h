// SPDX-License-Identifier: Apache-2.0
// One run of the data suite: seed -> a random stack of real bdevs over simulated disks, a random workload mix on it,
// power cuts at every write and flush boundary (with members of raids that are gone afterwards), members that fail and
// come back, sectors that cannot be read, disks that are full in the middle; scrubs, which must leave nothing wrong and
// find nothing where nothing was damaged. After each crash the stack is brought up again from what the disks hold, and
// everything is read and judged. One thread, virtual time, one seed one history.
#pragma once

#include "bdev/leg/leg.h"
#include "bdev/lvol/lvstore.h"
#include "bdev/raid/raid_parity.h"
#include "sim/run.h"

namespace basalt::sim {

// What a run must catch when it is switched on.
struct DataBugs {
  bdev::LegPlanted leg;
  bdev::RaidPlantedBugs raid;
  bdev::LvolPlantedBugs lvol;
  double lose_write_chance = 0;       // disks lie: they acknowledge writes that never happen
  double misdirect_write_chance = 0;  // or happen elsewhere
  bool ignore_flushes = false;
  bool misdirect_below_checksums = false;  // no bug: runs in which that is done
  bool scrub_mends_nothing = false;
};

RunResult run_data_stack(const RunOptions& options);
RunResult run_data_stack(const RunOptions& options, const DataBugs& bugs);

}  // namespace basalt::sim
