// SPDX-License-Identifier: Apache-2.0
// Writes, write-zeroes, unmaps and flushes: to every member that receives, acknowledged when all of must_have have it.
#include "base/probe.h"
#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {

void LegBdev::start_write(Op* op) {
  const uint64_t targets = receives_ & ~failed_;
  op->missed = receives_ & failed_;
  op->waiting_count = 1;  // this loop's own
  for_each_slot(targets, [&](uint32_t slot) {
    ChildIo* child = children_.take();
    BASALT_ASSERT(child != nullptr);
    child->mirror(op->io, write_child_done, op);
    child->member = slot;
    op->waiting_count++;
    members_[slot].in_flight_count++;
    members_[slot].handle.submit(child);
  });
  if (--op->waiting_count > 0) return;
  // Nobody to send to: every member is failed. It waits for the orchestrator.
  lists_->parked_writes.push_back(op);
}

void LegBdev::write_child_done(Io* io) {
  Op* op = static_cast<Op*>(io->context);
  ChildIo* child = ChildIo::of(io);
  LegBdev* leg = op->leg;
  const uint32_t slot = child->member;
  const nvme::Status status = io->status;
  leg->children_.give(child);
  leg->request_ended(slot);
  if (status.ok()) {
    op->got |= leg->bit(slot);
  } else {
    op->missed |= leg->bit(slot);
    if (status.is(nvme::status::reservation_conflict)) {
      leg->fence();
    } else if (is_member_failure(status) || op->io->type == IoType::flush || (leg->must_have_ & leg->bit(slot)) == 0) {
      // A failed flush expels, whatever its error; a joining member's error is nobody else's.
      leg->member_failed(slot, status);
    } else if (op->status.ok()) {
      op->status = status;
    }
  }
  if (--op->waiting_count == 0) leg->write_ended(op);
}

void LegBdev::write_ended(Op* op) {
  if (fenced_) return finish(op, nvme::status::ana_inaccessible);
  if (!op->status.ok()) {
    // An exact error (out of space, say): the host is told. Members may differ there now.
    const bool may_differ = op->got != 0 || (receives_ & (receives_ - 1)) != 0;
    if (may_differ && op->io->type != IoType::flush) {
      dirty_.set_range(op->io->offset_blocks, op->io->offset_blocks + op->io->count_blocks);
      clean_later();
    }
    return finish(op, op->status);
  }
  if (settle_write(op)) return;
  reach(Mark::parked_write);
  lists_->parked_writes.push_back(op);
}

// Acknowledges when every member that must have it has it; false: not yet.
bool LegBdev::settle_write(Op* op) {
  if ((op->missed & must_have_) != 0 || (op->got & in_sync_) == 0) return false;
  finish(op, nvme::status::success);
  return true;
}

}  // namespace basalt::bdev
