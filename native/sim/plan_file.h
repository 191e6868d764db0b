// SPDX-License-Identifier: Apache-2.0
// A run as a small JSON file, kept under test/sim when it has found something:
//
//   {"suite":"cluster","seed":"0x1f3a","reduction":{"steps":[3,7],"clients":[1,2],"hosts":1},
//    "bugs":["skip_fence"],"found":"R2: ...","why":"..."}
//
// `reduction`, `bugs`, `found` and `why` may be missing; the last two are for people.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "sim/run.h"

namespace basalt::sim {

struct PlanFile {
  RunOptions options;
  std::string found;
  std::string why;
};

Result<PlanFile> parse_plan(const std::string& text);
std::string plan_text(const PlanFile& plan);

// Names of the planted bugs, and which suites have them.
struct BugName {
  const char* name;
  bool PlantedBugs::*flag;
  std::vector<Suite> suites = {Suite::cluster};
};
const std::vector<BugName>& bug_names();
bool has_bug(Suite suite, const BugName& bug);

}  // namespace basalt::sim
