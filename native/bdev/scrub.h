// SPDX-License-Identifier: Apache-2.0
// What is asked of a scrub, and what it says: of mirrors and of parity.
#pragma once

#include <cstdint>

namespace basalt::bdev {

struct ScrubOptions {
  uint64_t bytes_per_s = 0;  // of the blocks that are compared, as users of the leg or raid count them; 0: no limit
  // What most members say is written to the others; the first member's word where none is most. With parity: what can
  // be had from the others where a strip cannot be read, or alone does not fit them; otherwise the data's word.
  bool repair = true;
};

enum class ScrubState : uint8_t { idle, running, finished, stopped };

struct ScrubInfo {
  ScrubState state = ScrubState::idle;
  uint64_t compared_blocks = 0;
  uint64_t different_blocks = 0;   // parity: rows of blocks, one of each strip, that do not fit each other
  uint64_t unreadable_blocks = 0;  // on some member
  uint64_t repaired_blocks = 0;    // of members
};

}  // namespace basalt::bdev
