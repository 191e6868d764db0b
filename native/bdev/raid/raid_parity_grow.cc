// SPDX-License-Identifier: Apache-2.0
// Growth: more stripes behind those that are there, on members that have room for them. Nothing moves: superblocks and
// log are in front. The new strips are zeroes on all members, and so fit each other.
//
// Superblocks of all members of the set say the new size, durably and in both places, before it is in force. A crash in
// between leaves some with either size, and nothing was written behind the old one. Of a driven raid the orchestrator
// knows which size is in force, and that growing was under way (`grown_blocks`). Else the newest superblock says so:
// what is behind the old size may hold anything on a device that was not made for the raid, and so is zeroed, durably,
// before any superblock tells of it.
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
  std::vector<uint32_t> attachments;  // of those that were zeroed
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
  if (grows_) co_return Error{Errc::busy, info_.name + ": grows already"};
  if (offline_ || closing_ || !gate_.enter()) co_return Error{Errc::closed, info_.name + " is offline"};
  Gate::Leaver leaver(gate_);
  grows_ = true;
  growth.attachments = attachments_;
  if (!driven_) {
    auto zeroing = zero_behind(growth.strip_count);
    growth.outcome = co_await zeroing;
  }
  if (growth.outcome) {
    growth_ = &growth;
    kick_keeper();
    co_await growth;
  }
  grows_ = false;
  co_return std::move(growth.outcome);
}

uint64_t RaidParityBdev::count_blocks_max() const {
  uint64_t strips = UINT64_MAX;
  for_each_bit(set(), [&](uint32_t member) {
    const uint64_t blocks = members_[member].bdev().count_blocks();
    strips = std::min(strips, (blocks - std::min(blocks, layout_.first_block)) / layout_.strip_blocks);
  });
  return strips * layout_.strip_blocks * layout_.data_count;
}

Outcome RaidParityBdev::may_grow() const {
  if (offline_ || closing_) return Error{Errc::closed, info_.name + " is offline"};
  if (broken() || joining_ != 0) return Error{Errc::busy, info_.name + ": a member has failed or is joining"};
  if (!driven_ && degraded()) return Error{Errc::busy, info_.name + ": a member is missing"};
  return success();
}

// Of those that are of the set now; who comes meanwhile was not zeroed (Growth::attachments).
Task<Outcome> RaidParityBdev::zero_behind(uint64_t strip_count) {
  auto may = may_grow();
  if (!may) co_return may;
  const uint64_t end = layout_.first_block + strip_count * layout_.strip_blocks;
  const uint64_t room = count_blocks_max();
  if (room < strip_count * layout_.strip_blocks * layout_.data_count) {
    co_return Error{Errc::no_space, info_.name + ": its members have room for " + std::to_string(room) + " blocks"};
  }
  constexpr uint64_t piece_bytes = uint64_t{4} << 20;
  const auto goes_on = [this] { return may_grow().ok(); };
  uint64_t block = layout_.first_block + layout_.strip_count * layout_.strip_blocks;
  while (block < end) {
    const uint64_t count = std::min(end - block, piece_bytes / layout_.block_bytes);
    co_await resync_pace_.keep(count * layout_.block_bytes, goes_on);
    may = may_grow();
    if (!may) co_return may;
    Fan writes(seat_count(), &phases_);
    uint32_t order[ParitySeats::seat_count_max];
    for_each_bit(set(), [&](uint32_t member) {
      order[writes.count()] = member;
      if (!bugs_.grow_unzeroed) writes.add(members_[member], IoType::write_zeroes, block, count, nullptr);
    });
    co_await writes;
    for (size_t i = 0; i < writes.count(); i++) {
      const nvme::Status status = writes.status(i);
      if (status.ok()) continue;
      if (raid_member_failed(status) && members_[order[i]]) member_failed(order[i], status);
      const Errc code = status.is(nvme::status::capacity_exceeded) ? Errc::no_space : Errc::io;
      co_return Error{code, info_.name + ": zeroing what is new: " + nvme::to_string(status)};
    }
    block += count;
  }
  co_return success();
}

// By the keeper.
Task<void> RaidParityBdev::carry_out_growth() {
  Growth* growth = std::exchange(growth_, nullptr);
  if (offline_) {
    growth->outcome = Error{Errc::closed, info_.name + " is offline"};
  } else {
    auto lengthening = lengthen(*growth);
    growth->outcome = co_await lengthening;
  }
  growth->done = true;
  if (growth->waiter) growth->waiter.resume();
}

Task<Outcome> RaidParityBdev::lengthen(const Growth& growth) {
  const uint64_t strip_count = growth.strip_count;
  // The rebuild of who joins has begun with the old size.
  auto may = may_grow();
  if (!may) co_return may;
  if (!driven_) {
    if (growth.attachments != attachments_) co_return Error{Errc::busy, info_.name + ": another member has joined"};
    const bool flushed = co_await checkpoint(Flush::always);
    if (!flushed) co_return Error{Errc::io, info_.name + ": a member was not flushed"};
    superblock_.epoch++;
  }
  // Marks are of a shape: whoever is away gets everything.
  for (uint32_t place = 0; place < member_count(); place++) {
    if (is_away(place)) superblock_.joined_epoch[place] = 0;
  }
  const uint32_t told = set();
  const bool was_right = !resyncing();
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
  missed_.grow(strip_count);
  if (was_right) resync_stripe_ = strip_count;  // parity of zeroes is zeroes
  if (!settled_.empty()) settled_.resize(strip_count, true);
  set_size(layout_.count_blocks());
  co_return success();
}

}  // namespace basalt::bdev
