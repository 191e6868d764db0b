// SPDX-License-Identifier: Apache-2.0
// EngineConfig: what an engine is made with; every field is set.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "env/env.h"
#include "runtime/reactor.h"

namespace basalt {

constexpr unsigned reactor_count_max = 64;

// Bugs for the simulator to catch; nothing else sets them.
struct PlantedBugs {
  bool no_gate = false;         // replicas let every controller in, whatever its epoch
  bool no_export_gate = false;  // exports of parts let every front in, whatever its epoch
  bool forget_epoch = false;    // a restarted replica does not remember what it had accepted
  bool ignore_lease = false;    // reads are answered however old the members' last word is
  bool cut_unheld = false;      // members cut their snapshots one after another, while requests go on
  bool cut_joining = false;     // a member cuts with the others while it is being copied
  bool away_unmarked = false;   // legs with parity do not mark what members that are away miss
};

struct EngineConfig {
  unsigned reactor_count = 1;
  std::vector<int> cores;  // of reactor 0, 1, ...; those without one are not pinned
  PollMode poll_mode = PollMode::adaptive;
  env::PollerKind poller = env::PollerKind::automatic;
  size_t memory_bytes_max = size_t{1} << 30;
  size_t buffer_bytes_max = size_t{128} << 20;  // of one reactor
  std::string rpc_path;                         // not empty: also serve JSON-RPC on this Unix socket
  PlantedBugs planted;
};

}  // namespace basalt
