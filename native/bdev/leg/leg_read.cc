// SPDX-License-Identifier: Apache-2.0
// Reads: from one member of the set, answered under leases from all of them.
//
// A lease from a member runs from the sending of the latest command that it completed with success: at that moment the
// member still obeyed this epoch. A controller that takes the member over and cannot take over all others waits a full
// lease before it serves, so an answer given under unexpired leases from all members is never stale.
#include "base/probe.h"
#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {
namespace {
// A member that cannot read any of so many blocks, spread over it, gives no lease: it is no good as a member.
constexpr uint32_t renewal_tries_max = 8;
constexpr uint32_t slow_load = 1 << 20;  // more than a member ever has in flight
}  // namespace

// The nearest of the least loaded: each step of distance counts like one more request in flight. Slow ones come last.
uint32_t LegBdev::choose_reader(uint64_t excluded) {
  const uint64_t candidates = in_sync_ & ~failed_ & ~excluded;
  if (candidates == 0) return member_slot_count;
  const bool alone = (candidates & (candidates - 1)) == 0;
  uint32_t best = member_slot_count;
  uint32_t best_load = UINT32_MAX;
  for (uint32_t i = 0; i < member_slot_count; i++) {
    const uint32_t slot = (next_reader_ + i) % member_slot_count;
    if ((candidates & bit(slot)) == 0) continue;
    uint32_t load = members_[slot].in_flight_count + members_[slot].distance;
    if (!alone && is_slow(slot)) load += slow_load;
    if (load >= best_load) continue;
    best = slot;
    best_load = load;
  }
  return best;
}

void LegBdev::start_read(Op* op) {
  // Never inside submit(): a fenced leg refuses there.
  if (fenced_) return finish(op, nvme::status::ana_inaccessible);
  const uint32_t slot = choose_reader(op->tried);
  if (slot == member_slot_count) {
    // A media error on all members that still serve is the answer; otherwise wait for the orchestrator.
    if (!op->status.ok() && (failed_ & in_sync_) == 0) {
      return finish(op, op->status);
    }
    return lists_->held_reads.push_back(op);
  }
  next_reader_ = (slot + 1) % member_slot_count;
  if (start_hedged_read(op, slot)) return;
  ChildIo* child = children_.take();
  BASALT_ASSERT(child != nullptr);
  child->mirror(op->io, read_child_done, op);
  child->member = slot;
  op->sent = home().now();
  lists_->reads[slot].push_back(op);
  members_[slot].in_flight_count++;
  members_[slot].handle.submit(child);
}

void LegBdev::read_child_done(Io* io) {
  Op* op = static_cast<Op*>(io->context);
  ChildIo* child = ChildIo::of(io);
  LegBdev* leg = op->leg;
  const uint32_t slot = child->member;
  const nvme::Status status = io->status;
  leg->children_.give(child);
  op->reading.unlink();
  leg->note_read(slot, op->sent);
  leg->request_ended(slot);
  if (status.is(nvme::status::reservation_conflict)) leg->fence();
  if (leg->fenced_) return leg->finish(op, nvme::status::ana_inaccessible);
  if (status.ok()) return leg->answer_read(op);
  leg->read_failed(op, slot, status);
  leg->start_read(op);
}

void LegBdev::read_failed(Op* op, uint32_t slot, nvme::Status status) {
  op->tried |= bit(slot);
  if (is_member_failure(status)) return member_failed(slot, status);
  op->status = status;
  if (status.type() == nvme::StatusType::media) op->bad |= bit(slot);
}

void LegBdev::answer_read(Op* op) {
  if (fenced_) return finish(op, nvme::status::ana_inaccessible);
  if (!leases_valid()) {
    reach(Mark::lease_refused_read);
    return lists_->lease_waits.push_back(op);
  }
  if (op->bad != 0) [[unlikely]] {
    repair_later(op->io->offset_blocks, op->io->offset_blocks + op->io->count_blocks, op->bad);
  }
  finish(op, nvme::status::success);
}

// The clock is read here, after the data came: the process may have been stopped at any point before.
bool LegBdev::leases_valid() {
  if (options_.planted.ignore_lease) return true;
  // A copied member may be in the set already, and the next controller may have it alone.
  if ((must_have_ & (must_have_ - 1)) == 0) return true;  // one member: its own answer is the lease
  const Instant now = home().env().now();
  bool valid = true;
  for_each_slot(must_have_, [&](uint32_t slot) {
    const Duration age = now - members_[slot].handle.bdev().last_success_sent();
    if (age >= options_.lease) valid = false;
    if (age >= options_.lease / 3) renew(slot);
  });
  return valid;
}

void LegBdev::renew(uint32_t slot) {
  Member& member = members_[slot];
  if (member.renewing || (failed_ & bit(slot)) != 0 || fenced_ || !gate_.enter()) return;
  auto& renewal = lists_->renewals[slot];
  if (renewal == nullptr) renewal = std::make_unique<Lists::Renewal>();
  renewal->leg = this;
  renewal->slot = slot;
  renewal->iov = {lists_->scratch.get(), info_.block_size_bytes};
  renewal->io.type = IoType::read;
  // Another block after a media error: the lease must not hang on one bad block.
  renewal->io.offset_blocks = info_.count_blocks / renewal_tries_max * renewal->refused_count;
  renewal->io.count_blocks = 1;
  renewal->io.iov = &renewal->iov;
  renewal->io.iov_count = 1;
  renewal->io.context = renewal.get();
  renewal->io.done = renewal_done;
  member.renewing = true;
  member.in_flight_count++;
  member.handle.submit(&renewal->io);
}

void LegBdev::renewal_done(Io* io) {
  auto* renewal = static_cast<Lists::Renewal*>(io->context);
  LegBdev* leg = renewal->leg;
  const uint32_t slot = renewal->slot;
  leg->members_[slot].renewing = false;
  leg->request_ended(slot);
  if (io->status.is(nvme::status::reservation_conflict)) {
    leg->fence();
  } else if (io->status.ok()) {
    renewal->refused_count = 0;
  } else if (is_member_failure(io->status) || ++renewal->refused_count == renewal_tries_max) {
    renewal->refused_count = 0;
    leg->member_failed(slot, io->status);
  }
  leg->recheck();
  leg->gate_.leave();
}

}  // namespace basalt::bdev
