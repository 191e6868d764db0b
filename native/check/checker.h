// SPDX-License-Identifier: Apache-2.0
// The checker: a block device as an array of registers. Takes a history and gives the first violation, with the few
// operations that prove it, or nothing. Pure.
//
//   R0 shape: a block that was read is one stamp or all zeroes      R1 provenance: written here, and before it was read
//   R2 no stale read                                                R3 one order: linearizable, block by block
//   R4 durable after a power cut what was flushed before            R5 after it, the first value read stays
//   R6 a flush covers what had been read, through later cuts too    R7 a write within an atomic unit is whole
//   R8 zeroes: a zero that was read was written, or never undone    R9 snapshots are instants, clones start as these
//   R10 replicas are equal at rest                                  R11 after the last fault everything ends in time
//
// Each block is judged by a search for an order that explains it (block_search.h); the rules then say what is wrong. A
// block whose search grows too large is judged by the rules alone: they accuse nothing that is right, but may miss
// something. A write whose outcome is unknown may take effect until for ever, but counts as one effect: clients of a
// host that resends must not have two writes to one block in flight while paths fail (the workload sees to it).
#pragma once

#include <optional>
#include <string>

#include "check/history.h"

namespace basalt::check {

struct Violation {
  std::string rule;  // "R2"
  std::string explanation;
  uint64_t lba = 0;
  bool is_liveness() const { return rule == "R11"; }
};

struct Verdict {
  std::optional<Violation> violation;
  uint64_t block_count = 0;
  uint64_t undecided_count = 0;  // blocks that only the rules judged
};

struct CheckOptions {
  uint64_t search_steps_max = 2'000'000;  // for one block
};

Verdict check(const History& history, const CheckOptions& options = {});
std::optional<Violation> check_history(const History& history);

// "[12.003456 .. 12.009000] client 3 write 17+2 w3#9: ok"
std::string describe(const History& history, const Op& op);

}  // namespace basalt::check
