// SPDX-License-Identifier: Apache-2.0
// The exact judge of one block: is there an order of its operations that respects real time and explains every read,
// power cuts included? Goes through the history by time and keeps every state that the block may be in; an operation is
// put in order no earlier than its own end, or another one's that needs it, forces it (Lowe's just-in-time
// linearization).
//
// At a power cut the block becomes any value since the last durable one, or that of a write in flight. A flush makes
// durable what the block held when it was asked for (what completed before is then in order); FUA the write itself.
#pragma once

#include <functional>

#include "check/block.h"

namespace basalt::check {

enum class Judgement : uint8_t { right, wrong, undecided };

struct BlockJudgement {
  Judgement judgement = Judgement::right;
  const Op* stuck = nullptr;  // wrong: no state explains the block at this operation's end
};

// `without`: operations that are left out (flushes too), to find the few that prove a violation; may be empty.
BlockJudgement search_order(const Block& block, uint64_t steps_max, const std::function<bool(const Op&)>& without = {});

}  // namespace basalt::check
