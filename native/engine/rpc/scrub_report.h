// SPDX-License-Identifier: Apache-2.0
// How answers and events tell of a scrub, of whatever it compares.
#pragma once

#include <algorithm>

#include "bdev/scrub.h"
#include "engine/rpc/json.h"

namespace basalt::rpc {

// `count_blocks`: how many there are to compare, not 0.
inline JsonValue about_scrub(const bdev::ScrubInfo& scrub, uint64_t count_blocks) {
  static constexpr const char* states[] = {"idle", "running", "finished", "stopped"};
  auto about = JsonValue::object();
  about.set("state", states[static_cast<size_t>(scrub.state)])
      .set("percent", std::min<uint64_t>(100, scrub.compared_blocks * 100 / count_blocks))
      .set("compared_blocks", scrub.compared_blocks)
      .set("different_blocks", scrub.different_blocks)
      .set("unreadable_blocks", scrub.unreadable_blocks)
      .set("repaired_blocks", scrub.repaired_blocks);
  return about;
}

}  // namespace basalt::rpc
