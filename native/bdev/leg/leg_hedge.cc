// SPDX-License-Identifier: Apache-2.0
// Slow members: who takes far longer than the others to read is avoided for a while; later its reads are hedged, until
// it has kept up for some time: when it does not answer soon, another member is asked too, and the first answer counts.
// While nobody was slow none of this costs more than a look at the oldest read in flight.
//
// A hedged read goes to memory of its own on each side, and is copied to the host's by the side that wins: the other
// one may end long after the host has its memory back. So a read that was sent before its member was known to be slow
// waits.
#include <algorithm>

#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {
namespace {

constexpr Duration slow_min = milliseconds(10);  // nobody is slow before that
constexpr int64_t slow_factor = 8;               // of the fastest other member's usual time
constexpr Duration avoided_for = seconds(1);
constexpr Duration suspect_for = seconds(30);
constexpr Duration hedge_after_min = milliseconds(1);

}  // namespace

Duration LegBdev::slow_after(uint32_t slot) const {
  int64_t fastest_ns = 0;
  for_each_slot(in_sync_ & ~failed_ & ~bit(slot), [&](uint32_t other) {
    const int64_t ns = members_[other].read_latency.ns;
    if (ns > 0 && (fastest_ns == 0 || ns < fastest_ns)) fastest_ns = ns;
  });
  return std::max(slow_min, nanoseconds(fastest_ns * slow_factor));
}

void LegBdev::note_read(uint32_t slot, Instant sent) {
  Member& member = members_[slot];
  const Instant now = home().now();
  const Duration took = now - sent;
  member.read_latency = member.read_latency + (took - member.read_latency) / 8;
  if (took < slow_min || took < slow_after(slot)) return;
  member.slow_until = now + avoided_for;
  member.suspect_until = now + suspect_for;
}

bool LegBdev::is_slow(uint32_t slot) {
  Member& member = members_[slot];
  const Instant now = home().now();
  if (Op* oldest = lists_->reads[slot].front(); oldest != nullptr && now - oldest->sent >= slow_min) {
    if (now - oldest->sent >= slow_after(slot)) {
      member.slow_until = now + avoided_for;
      member.suspect_until = now + suspect_for;
    }
  }
  return now < member.slow_until;
}

// False: it goes the usual way.
bool LegBdev::start_hedged_read(Op* op, uint32_t slot) {
  if (members_[slot].suspect_until <= home().now()) [[likely]]
    return false;
  if (choose_reader(op->tried | bit(slot)) == member_slot_count) return false;
  HedgedRead* read = hedged_reads_->take();
  if (read == nullptr) return false;
  read->leg = this;
  read->op = op;
  read->side_count = read->pending_count = 0;
  if (!hedge_side(read, slot)) {
    hedged_reads_->give(read);
    return false;
  }
  BASALT_ASSERT(gate_.enter());
  read->run = [](Work* work) {
    auto* due = static_cast<HedgedRead*>(work);
    due->leg->hedge_due(due);
  };
  const Duration wait = std::max(hedge_after_min, slow_after(slot) / slow_factor * 2);
  home().arm_after(read, std::min(wait, slow_min));
  return true;
}

// Never waits for the pool. False: it has no buffer.
bool LegBdev::hedge_side(HedgedRead* read, uint32_t slot) {
  const size_t length_bytes = size_t{read->op->io->count_blocks} * info_.block_size_bytes;
  Buffer* buffer = home().buffers().take(length_bytes);
  if (buffer == nullptr) return false;
  HedgedRead::Side& side = read->sides[read->side_count++];
  side.buffer = buffer;
  side.slot = slot;
  side.sent = home().now();
  side.iov = {buffer->data, length_bytes};
  side.io.type = IoType::read;
  side.io.offset_blocks = read->op->io->offset_blocks;
  side.io.count_blocks = read->op->io->count_blocks;
  side.io.iov = &side.iov;
  side.io.iov_count = 1;
  side.io.context = read;
  side.io.done = [](Io* io) {
    auto* ended = static_cast<HedgedRead*>(io->context);
    ended->leg->hedge_side_done(ended, io);
  };
  read->pending_count++;
  members_[slot].in_flight_count++;
  members_[slot].handle.submit(&side.io);
  return true;
}

void LegBdev::hedge_due(HedgedRead* read) {
  if (read->op == nullptr || fenced_) return;
  Member& first = members_[read->sides[0].slot];
  first.slow_until = home().now() + avoided_for;
  first.suspect_until = home().now() + suspect_for;
  const uint32_t slot = choose_reader(read->op->tried | bit(read->sides[0].slot));
  if (slot != member_slot_count && hedge_side(read, slot)) leg_stats_.hedged_read_count++;
}

void LegBdev::hedge_side_done(HedgedRead* read, Io* io) {
  HedgedRead::Side& side = read->sides[io == &read->sides[0].io ? 0 : 1];
  const nvme::Status status = io->status;
  note_read(side.slot, side.sent);
  request_ended(side.slot);
  read->pending_count--;
  if (status.is(nvme::status::reservation_conflict)) fence();
  Op* op = read->op;
  if (op != nullptr && !fenced_ && status.ok()) {
    iovec_copy_in(op->io->iov, op->io->iov_count, side.buffer->data);
    if (&side == &read->sides[1]) leg_stats_.hedge_won_count++;
    read->op = nullptr;
  } else if (op != nullptr && !fenced_) {
    read_failed(op, side.slot, status);
    // The other side, or whoever is chosen next.
    if (read->pending_count == 0) read->op = nullptr;
  } else if (op != nullptr) {
    read->op = nullptr;
  }
  const bool over = op != nullptr && read->op == nullptr;
  home().buffers().give(std::exchange(side.buffer, nullptr));
  const bool last = read->pending_count == 0;
  if (over) home().cancel(read);
  if (last) hedged_reads_->give(read);
  if (over) {
    if (fenced_) {
      finish(op, nvme::status::ana_inaccessible);
    } else if (status.ok()) {
      answer_read(op);
    } else {
      start_read(op);
    }
  }
  if (last) gate_.leave();
}

}  // namespace basalt::bdev
