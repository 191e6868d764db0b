// SPDX-License-Identifier: Apache-2.0
// One random run: seed -> shape, knobs, workload mix, nemeses within what redundancy promises -> stop the faults ->
// come to rest -> check. The same seed gives the same history, and so the same trace hash. A Reduction leaves out parts
// of what the seed gives; what is left happens as before, as far as it can.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "sim/planted_bugs.h"

namespace basalt::sim {

enum class Suite : uint8_t {
  data,        // one stack of bdevs on disks, through power cuts and lost members (data/)
  target,      // one target with good and rude hosts (target/)
  cluster,     // whole clusters; each block has one writer, or controllers stay and several may write it
  cluster_ts,  // whole clusters with the agents of src/agents, in a Node.js process (worker.h)
};
constexpr Suite all_suites[] = {Suite::data, Suite::target, Suite::cluster, Suite::cluster_ts};
std::optional<Suite> suite_from(const std::string& name);
const char* suite_name(Suite suite);

enum class Failure : uint8_t { none, liveness, correctness, crash };

// Of a kind that the process's marks (base/probe.h) do not have, or of a mark that another process reached.
struct RareEvent {
  std::string name;
  std::string text;
  uint64_t count = 0;
};

struct RunResult {
  Failure failure = Failure::none;
  std::string explanation;
  std::string summary;  // shape, what was asked and what went wrong on purpose
  uint64_t trace_hash = 0;
  uint64_t op_count = 0;
  uint64_t takeover_count = 0;
  uint64_t crash_state_count = 0;  // distinct states of disks that were recovered from and judged
  int64_t virtual_ns = 0;          // how long it took in its own time
  // Suite data, not told across processes: writes that a disk put elsewhere, and blocks that were found so.
  uint64_t misdirected_count = 0;
  uint64_t mismatch_count = 0;
  // What a Reduction may leave out of it.
  uint32_t step_count = 0;
  uint32_t client_count = 0;
  std::vector<RareEvent> rare_events;  // all that such a run knows, with those that did not happen
};

// Nothing: all of it.
struct Reduction {
  std::optional<std::vector<uint32_t>> steps;    // these steps of the nemesis
  std::optional<std::vector<uint32_t>> clients;  // these clients, from 1
  std::optional<uint64_t> ops_max;               // of each client
  std::optional<uint64_t> hosts;
  std::optional<uint64_t> legs;
  std::optional<uint64_t> copies;
  std::optional<uint64_t> controllers;
  std::optional<uint64_t> leg_blocks;
  std::optional<uint64_t> pause_ms_max;  // after a step; cluster-ts only
  bool operator==(const Reduction&) const = default;
  bool has_step(uint32_t index) const;
  bool has_client(uint32_t client) const;
};

struct RunOptions {
  uint64_t seed = 1;
  Suite suite = Suite::cluster;
  PlantedBugs bugs;
  Reduction reduction;
  bool verbose = false;  // what happens as it happens, on stderr
  std::string history;   // cluster-ts: a file for what its hosts saw (docs/history-format.md); "": none
  std::vector<std::string> worker = {"node", "dist/src/sim/main.js"};  // cluster-ts: the command that runs it
};

RunResult run_once(const RunOptions& options);
// The cluster suite's; the others have theirs in data/ and target/.
RunResult run_cluster(const RunOptions& options);

// A fixed cluster (3 disk nodes, 2 controllers) under 1,000 operations per virtual second, without faults: how fast
// virtual time goes by.
RunResult run_speed(Duration virtual_time);

}  // namespace basalt::sim
