// SPDX-License-Identifier: Apache-2.0
// A run in another program: the clusters with TypeScript agents (src/sim), in a Node.js process of its own. The worker
// gets the plan as its first argument, in the form of plan_file.h, then `--verbose` and `--history FILE` where they are
// wanted. It writes what happens to stderr, and to stdout one JSON object:
//
//   {"failure":"none","explanation":"","summary":"...","trace":"<16 hex digits>","ops":120,"takeovers":2,
//    "virtual_ns":3e9,"steps":12,"clients":4,"rare_events":[{"name":"...","text":"...","count":3}]}
//
// A worker that ends with another exit code than 0, or without that, has crashed.
#pragma once

#include <string>

#include "base/result.h"
#include "sim/run.h"

namespace basalt::sim {

RunResult run_worker(const RunOptions& options);

Result<RunResult> parse_worker_answer(const std::string& text);

}  // namespace basalt::sim
