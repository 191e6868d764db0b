// SPDX-License-Identifier: Apache-2.0
// Growth of a driven raid: more stripes behind those that are there, on members that have room for them. Nothing moves:
// superblocks and log are in front. The new strips are zeroes on all members, and so fit each other.
//
// Superblocks of all members of the set say the new size, durably and in both places, before it is in force. A crash in
// between leaves some with either size. The orchestrator knows which one is in force, and that growing was under way
// (`grown_blocks`); nothing was written behind the old size then, since hosts are told of the new one later.
#include <algorithm>

#include "bdev/raid/raid_parity.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {
namespace {

uint64_t strips_for(uint64_t count_blocks, const parity::Superblock& s) {
  const uint64_t stripe_blocks = uint64_t{s.strip_blocks} * s.data_count;
  return (count_blocks + stripe_blocks - 1) / stripe_blocks;
}

void set_strips(parity::Superblock& s, uint64_t strip_count) {
  s.strip_count = strip_count;
  s.member_blocks = s.first_block + strip_count * s.strip_blocks;
}

}  // namespace

// All are brought to the size that is in force.
Outcome raid_open::fit_size(const RaidParityOptions& options, std::vector<FoundSuperblock>& found) {
  for (FoundSuperblock& s : found) {
    const uint64_t least = strips_for(options.count_blocks, s);
    const uint64_t most = std::max(least, strips_for(options.grown_blocks, s));
    if (s.data_count == options.data_count && s.parity_count == options.parity_count && s.strip_count >= least &&
        s.strip_count <= most) {
      set_strips(s, least);
      continue;
    }
    const uint64_t blocks = s.strip_count * s.strip_blocks * s.data_count;
    return Error{Errc::corrupt, options.name + ": its members hold " + std::to_string(s.data_count) + "+" +
                                    std::to_string(s.parity_count) + " of " + std::to_string(blocks) + " blocks"};
  }
  return success();
}

struct RaidParityBdev::Growth {
  uint64_t strip_count = 0;
  Outcome outcome = success();
  bool done = false;
  std::coroutine_handle<> waiter;
  bool await_ready() const noexcept { return done; }
  void await_suspend(std::coroutine_handle<> coroutine) noexcept { waiter = coroutine; }
  void await_resume() const noexcept {}
};

uint64_t RaidParityBdev::member_blocks_for(uint64_t count_blocks) const {
  return layout_.first_block + strips_for(count_blocks, superblock_) * layout_.strip_blocks;
}

Task<Outcome> RaidParityBdev::grow(uint64_t count_blocks) {
  Growth growth;
  growth.strip_count = strips_for(count_blocks, superblock_);
  if (growth.strip_count <= layout_.strip_count) co_return success();
  if (growth_ != nullptr) co_return Error{Errc::busy, info_.name + ": grows already"};
  if (offline_ || closing_ || !gate_.enter()) co_return Error{Errc::closed, info_.name + " is offline"};
  Gate::Leaver leaver(gate_);
  growth_ = &growth;
  kick_keeper();
  co_await growth;
  co_return std::move(growth.outcome);
}

// By the keeper.
Task<void> RaidParityBdev::carry_out_growth() {
  Growth* growth = std::exchange(growth_, nullptr);
  if (offline_) {
    growth->outcome = Error{Errc::closed, info_.name + " is offline"};
  } else {
    auto lengthening = lengthen(growth->strip_count);
    growth->outcome = co_await lengthening;
  }
  growth->done = true;
  if (growth->waiter) growth->waiter.resume();
}

Task<Outcome> RaidParityBdev::lengthen(uint64_t strip_count) {
  // Their rebuild has begun with the old size.
  if (broken() || joining_ != 0) co_return Error{Errc::busy, info_.name + ": a member has failed or is joining"};
  // Marks are of a shape: whoever is away gets everything.
  for (uint32_t place = 0; place < member_count(); place++) {
    if (is_away(place)) superblock_.joined_epoch[place] = 0;
  }
  const uint32_t told = set();
  for (int slot = 0; slot < 2 && !bugs_.grow_unsaid; slot++) {
    set_strips(superblock_, strip_count);
    const uint32_t having = co_await write_superblocks(told);
    if (having == told) continue;
    set_strips(superblock_, layout_.strip_count);
    co_return Error{Errc::io, info_.name + ": a member was not told of the new size"};
  }
  layout_.strip_count = strip_count;
  shape_marks();
  look_who_is_away();
  resync_stripe_ = strip_count;  // parity of zeroes is zeroes
  set_size(layout_.count_blocks());
  co_return success();
}

}  // namespace basalt::bdev
