// SPDX-License-Identifier: Apache-2.0
#include "bdev/leg/leg.h"

#include <algorithm>

#include "base/probe.h"
#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {
namespace {

constexpr Duration lease_max = seconds(1);

Outcome check_tails(const LegOptions& options, const std::vector<LegMember>& members) {
  if (options.identity.empty() || options.identity.size() > leg_tail::name_bytes_max) {
    return Error{Errc::invalid_argument, "identity: 1 to 96 bytes"};
  }
  for (size_t i = 0; i < members.size(); i++) {
    const std::string& replica = members[i].replica;
    if (replica.empty() || replica.size() > leg_tail::name_bytes_max) {
      return Error{Errc::invalid_argument, "replica: 1 to 96 bytes"};
    }
    for (size_t j = 0; j < i; j++) {
      if (members[j].replica == replica) return Error{Errc::invalid_argument, "members: two are replica " + replica};
    }
  }
  return success();
}

Result<BdevInfo> geometry_of(Reactor& home, const LegOptions& options, const std::vector<LegMember>& members) {
  BdevInfo geometry = members[0].handle.info();
  for (const LegMember& member : members) {
    const BdevInfo& info = member.handle.info();
    if (info.block_size_bytes != geometry.block_size_bytes) {
      return Error{Errc::invalid_argument, "members: " + info.name + " has another block size"};
    }
    if (&member.handle.bdev().home() != &home) {
      return Error{Errc::invalid_argument, "members: " + info.name + " lives on another reactor than the leg"};
    }
    geometry.count_blocks = std::min(geometry.count_blocks, info.count_blocks);
  }
  if (options.count_blocks == 0) return geometry;
  auto checked = check_tails(options, members);
  if (!checked) return std::move(checked).error();
  if (geometry.count_blocks < options.count_blocks ||
      geometry.count_blocks - options.count_blocks < leg_tail::tail_bytes / geometry.block_size_bytes) {
    return Error{Errc::invalid_argument, "num_blocks: members have no room for " +
                                             std::to_string(options.count_blocks) + " blocks and a tail of 1 MiB"};
  }
  geometry.count_blocks = options.count_blocks;
  return geometry;
}

}  // namespace

Result<std::unique_ptr<LegBdev>> LegBdev::create(Reactor& home, const LegOptions& options,
                                                 std::vector<LegMember> in_sync, LegEvents events) {
  if (in_sync.empty() || in_sync.size() > member_count_max) {
    return Error{Errc::invalid_argument, "members: 1 to " + std::to_string(member_count_max) + " in sync, got " +
                                             std::to_string(in_sync.size())};
  }
  if (options.lease <= Duration{} || options.lease > lease_max) {
    return Error{Errc::invalid_argument, "lease_ms: 1 to 1000"};
  }
  auto geometry = geometry_of(home, options, in_sync);
  if (!geometry) return std::move(geometry).error();
  std::unique_ptr<LegBdev> leg(new LegBdev(home, options, *geometry));
  leg->events_ = std::move(events);
  for (size_t i = 0; i < in_sync.size(); i++)
    leg->put_member(static_cast<uint32_t>(i), in_sync[i], MemberState::in_sync);
  leg->next_slot_ = static_cast<uint32_t>(in_sync.size());
  leg->refresh_masks();
  if (leg->tail_ != nullptr) {
    BASALT_ASSERT(leg->gate_.enter());
    spawn(leg->open_tails());
    return leg;
  }
  if (options.all_dirty && in_sync.size() > 1) leg->dirty_.set_all();
  leg->opened();
  return leg;
}

LegBdev::LegBdev(Reactor& home, const LegOptions& options, const BdevInfo& geometry)
    : DrivenLeg(home),
      options_(options),
      dirty_(geometry.count_blocks, geometry.block_size_bytes),
      members_(member_slot_count),
      ops_(std::make_unique<Pool<Op>>(child_io_count_max)),
      hedged_reads_(std::make_unique<Pool<HedgedRead>>(child_io_count_max)),
      lists_(std::make_unique<Lists>()) {
  info_.name = options.name;
  info_.product = "leg";
  info_.uuid = options.uuid;
  info_.block_size_bytes = geometry.block_size_bytes;
  info_.count_blocks = geometry.count_blocks;
  info_.volatile_cache = true;
  info_.memory_alignment_bytes = geometry.memory_alignment_bytes;
  lists_->renewals.resize(member_slot_count);
  lists_->scratch = std::make_unique<char[]>(geometry.block_size_bytes);
  if (options.count_blocks == 0) return;
  tail_ = std::make_unique<Tail>(shape_of(info_.count_blocks));
  tail_->sweep_timer.leg = this;
}

LegBdev::~LegBdev() = default;

LegCounts LegBdev::counts() const {
  return {.dirty_regions = equal() ? 0 : std::max<uint64_t>(dirty_.count(), 1),
          .region_count = dirty_.region_count(),
          .marked_regions = marked_count(),
          .mark_region_count = mark_region_count(),
          .hedged_reads = leg_stats_.hedged_read_count};
}

void LegBdev::submit(Io* io) {
  const nvme::Status checked = check(*io);
  if (!checked.ok()) return complete_later(io, checked);
  if (fenced_ || !gate_.enter()) return complete_later(io, nvme::status::ana_inaccessible);
  Op* op = ops_->take();
  BASALT_ASSERT(op != nullptr);
  op->leg = this;
  op->io = io;
  op->waiting_count = 0;
  op->missed = op->got = op->tried = op->bad = 0;
  op->status = nvme::status::success;
  op->locked = false;
  if (!open_) return lists_->early.push_back(op);
  admit(op);
}

void LegBdev::admit(Op* op) {
  Io* io = op->io;
  if (io->type == IoType::flush && options_.planted.ack_before_flush) {
    complete_later(std::exchange(op->io, nullptr), nvme::status::success);
    return finish(op, nvme::status::success);
  }
  if (io->type == IoType::flush) return start_write(op);
  op->range.first_block = io->offset_blocks;
  op->range.end_block = io->offset_blocks + io->count_blocks;
  op->range.exclusive = io->type != IoType::read || dirty_.any(op->range.first_block, op->range.end_block);
  if (io->type == IoType::read && op->range.exclusive) {
    // Whole regions: they are made equal before the answer.
    op->range.first_block = dirty_.first_block(dirty_.region_of(op->range.first_block));
    op->range.end_block = dirty_.end_block(dirty_.region_of(op->range.end_block - 1));
  }
  if (io->type != IoType::read && options_.planted.ignore_order) return start(op);
  op->range.context = op;
  op->range.granted = op_granted;
  op->locked = true;
  if (locks_.acquire(&op->range)) start(op);
}

void LegBdev::op_granted(RangeEntry* entry) {
  Op* op = static_cast<Op*>(entry->context);
  op->leg->start(op);
}

void LegBdev::start(Op* op) {
  if (fenced_) {
    // May still be inside submit(): the answer comes later.
    complete_later(std::exchange(op->io, nullptr), nvme::status::ana_inaccessible);
    return finish(op, nvme::status::ana_inaccessible);
  }
  if (op->io->type != IoType::read) {
    if (tail_ != nullptr && !mark_or_wait(op)) return;
    return start_write(op);
  }
  if (!dirty_.any(op->io->offset_blocks, op->io->offset_blocks + op->io->count_blocks)) return start_read(op);
  if (!op->range.exclusive) {
    // It became dirty while the read waited: queue again, for the whole regions.
    Io* io = op->io;
    locks_.release(&op->range);
    op->range.exclusive = true;
    op->range.first_block = dirty_.first_block(dirty_.region_of(io->offset_blocks));
    op->range.end_block = dirty_.end_block(dirty_.region_of(io->offset_blocks + io->count_blocks - 1));
    if (locks_.acquire(&op->range)) start(op);
    return;
  }
  spawn(equalize_then_read(op));
}

// The end of every operation. Frees the range first, so that those waiting for it see what this one did.
void LegBdev::finish(Op* op, nvme::Status status) {
  Io* io = op->io;
  if (op->locked) locks_.release(&op->range);
  ops_->give(op);
  if (io != nullptr) complete_now(io, status);
  gate_.leave();
}

void LegBdev::fence() {
  if (fenced_) return;
  fenced_ = true;
  // What waits for a consent, a member or a lease will not get it any more. Children in flight end by themselves.
  while (Op* op = lists_->parked_writes.pop_front())
    finish(op, nvme::status::ana_inaccessible);
  while (Op* op = lists_->held_reads.pop_front())
    finish(op, nvme::status::ana_inaccessible);
  while (Op* op = lists_->lease_waits.pop_front())
    finish(op, nvme::status::ana_inaccessible);
  while (Op* op = lists_->mark_waits.pop_front())
    finish(op, nvme::status::ana_inaccessible);
  while (Op* op = lists_->early.pop_front())
    finish(op, nvme::status::ana_inaccessible);
  recheck();
  if (tail_ != nullptr) home().cancel(&tail_->sweep_timer);
  home().cancel(&lists_->clean_timer);
  Lists::resume_all(lists_->tail_waiters);
  wake_paced();
  reach(Mark::fenced);
  if (events_.fenced) events_.fenced();
}

Task<Outcome> LegBdev::close() {
  events_ = {};
  fence();
  co_await gate_.close();
  BASALT_ASSERT(children_.in_use() == 0);
  co_return success();
}

}  // namespace basalt::bdev
