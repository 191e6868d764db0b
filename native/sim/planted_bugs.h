// SPDX-License-Identifier: Apache-2.0
// Bugs that can be switched on, to prove that the tests would see them. All off in every honest run.
#pragma once

namespace basalt::sim {

struct PlantedBugs {
  bool skip_fence = false;               // replicas let every controller in, whatever its epoch
  bool promote_before_takeover = false;  // serve as soon as one member of each leg obeys; the others stay in the set
  bool forget_epoch = false;             // a restarted replica does not remember what it had accepted
  bool shrink_without_consent = false;   // go on without a failed member before the store agreed
  bool ignore_read_lease = false;        // answer reads however old the members' last word is
  bool skip_marks = false;               // data goes out before its region is marked
  bool clear_before_flush = false;       // marks are cleared although nothing was flushed
  bool ignore_own_marks = false;         // a resync asks only the survivors' marks
  bool resend_at_once = false;           // a host resends changes while an old copy may still land (target suite)
  bool read_unequal = false;             // after a takeover nothing is made equal
  bool reuse_early = false;            // an lvstore reuses clusters before it is stable that they are free (data suite)
  bool reuse_unzeroed = false;         // and does not zero them (data suite)
  bool ignore_leftover_lease = false;  // serve although an old controller out of reach may still answer reads
  bool resync_head_only = false;       // a snapshot counts a member that is still being copied (cluster-ts)
  bool operator==(const PlantedBugs&) const = default;
};

}  // namespace basalt::sim
