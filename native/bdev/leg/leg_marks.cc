// SPDX-License-Identifier: Apache-2.0
// Marks: a write waits until its regions' marks are durable on every member that receives; one that finds them durable
// costs a look at a bit. All changes of the tails go through one task, which writes whatever is behind on any member,
// one batch after the other: marks that are asked for while a batch is under way share the next one.
#include <algorithm>

#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {

struct LegBdev::Batch {
  std::vector<uint64_t> page_version;
  uint64_t superblock_version;
  RegionMap wanted;
  bool urgent;
  nvme::Status refused;  // an exact error: what waits ends with it
  std::vector<std::unique_ptr<TailWrite>> writes;
  Countdown countdown;
};

uint64_t LegBdev::marked_count() const {
  return tail_ == nullptr ? 0 : tail_->wanted.count();
}

uint64_t LegBdev::mark_region_count() const {
  return tail_ == nullptr ? 0 : tail_->wanted.region_count();
}

// True: durable already. False: asked for; somebody must call write_tails_soon().
bool LegBdev::mark(uint64_t first_block, uint64_t end_block) {
  Tail& tail = *tail_;
  bool durable = true;
  const uint64_t last = tail.wanted.region_of(end_block - 1);
  for (uint64_t region = tail.wanted.region_of(first_block); region <= last; region++) {
    tail.touched.set(region);
    if (tail.durable.has(region)) continue;
    tail.want(region);
    durable = false;
  }
  return durable;
}

bool LegBdev::mark_or_wait(Op* op) {
  const bool durable = mark(op->io->offset_blocks, op->io->offset_blocks + op->io->count_blocks);
  if (durable || options_.planted.skip_marks) return true;
  lists_->mark_waits.push_back(op);
  write_tails_soon(true);
  return false;
}

// For a task that is going to write where members are equal. False: fenced, or a member refused the mark.
Task<bool> LegBdev::mark_for_task(uint64_t first_block, uint64_t end_block) {
  if (tail_ == nullptr) co_return true;
  // The batch that is under way may be too early; what the next ones do not bring was refused.
  for (int tries = 0; tries < 3 && !fenced_; tries++) {
    if (mark(first_block, end_block)) co_return true;
    write_tails_soon(true);
    TailsWritten written(*this);
    co_await written;
  }
  if (fenced_) co_return false;
  co_return mark(first_block, end_block);
}

void LegBdev::write_tails_soon(bool urgent) {
  if (tail_ == nullptr || !open_ || fenced_) return;
  tail_->urgent |= urgent;
  arm_sweep();
  if (tail_->writing || tail_->moving || !gate_.enter()) return;
  tail_->writing = true;
  spawn(write_tails());
}

bool LegBdev::tails_behind() const {
  for (uint32_t slot = 0; slot < member_slot_count; slot++) {
    const Member& member = members_[slot];
    if (member.state == MemberState::empty || !member.tail_known || (failed_ & bit(slot)) != 0) continue;
    if (member.superblock_written < tail_->superblock_version) return true;
    for (size_t page = 0; page < member.page_written.size(); page++) {
      if (member.page_written[page] < tail_->page_version[page]) return true;
    }
  }
  return false;
}

Task<void> LegBdev::write_tails() {
  Gate::Leaver leaver(gate_);
  Tail& tail = *tail_;
  nvme::Status refused;
  do {
    // What else this turn asks for comes into the same batch.
    co_await hop(home());
    if (fenced_) break;
    Batch batch{tail.page_version, tail.superblock_version, tail.wanted, std::exchange(tail.urgent, false), {}, {}, {}};
    collect_writes(batch);
    for (const auto& write : batch.writes) {
      batch.countdown.add();
      spawn(write_tail(write->slot, *write));
    }
    co_await batch.countdown;
    batch_ended(batch);
    refused = batch.refused;
    release_marked(refused);
  } while (!fenced_ && !tail.moving && (tail.urgent || (refused.ok() && tails_behind())));
  tail.writing = false;
  if (tail.moving) Lists::resume_all(lists_->tail_waiters);
  if (may_clear()) arm_sweep();
}

void LegBdev::collect_writes(Batch& batch) {
  for (uint32_t slot = 0; slot < member_slot_count; slot++) {
    const Member& member = members_[slot];
    if (member.state == MemberState::empty || !member.tail_known || (failed_ & bit(slot)) != 0) continue;
    std::vector<TailWrite::Run> runs;
    uint64_t page_count = 0;
    for (uint64_t page = 0; page < batch.page_version.size(); page++) {
      if (member.page_written[page] >= batch.page_version[page]) continue;
      page_count++;
      if (!runs.empty() && runs.back().first_page + runs.back().page_count == page) {
        runs.back().page_count++;
      } else {
        runs.push_back({page, 1});
      }
    }
    const bool superblock = member.superblock_written < batch.superblock_version;
    if (page_count == 0 && !superblock) continue;
    auto write = std::make_unique<TailWrite>((page_count + 1) * leg_tail::page_bytes);
    write->slot = slot;
    write->batch = &batch;
    char* at = write->memory.data();
    for (const TailWrite::Run& run : runs) {
      for (uint64_t i = 0; i < run.page_count; i++, at += leg_tail::page_bytes)
        leg_tail::encode_marks(batch.wanted, member.left_marked.get(), run.first_page + i, member.stay, at);
    }
    write->runs = std::move(runs);
    write->superblock = superblock;
    if (superblock) {
      write->generation = tail_->superblock.generation;
      leg_tail::encode_superblock(own_superblock(slot, tail_->superblock), at);
    }
    batch.writes.push_back(std::move(write));
  }
}

leg_tail::Superblock LegBdev::own_superblock(uint32_t slot, const leg_tail::Superblock& common) {
  leg_tail::Superblock own = common;
  own.replica = members_[slot].replica;
  own.stay = members_[slot].stay;
  for_each_slot(receives_, [&](uint32_t other) {
    leg_tail::RosterEntry* entry = own.find(members_[other].replica);
    if (entry != nullptr) entry->generation = members_[other].generation;
  });
  return own;
}

// The marks before the superblock: a stay begins when its marks are there.
Task<void> LegBdev::write_tail(uint32_t slot, TailWrite& write) {
  Member& member = members_[slot];
  Batch& batch = *write.batch;
  member.task_count++;
  const uint64_t page_blocks = leg_tail::page_bytes / info_.block_size_bytes;
  Iovec iov{write.memory.data(), 0};
  Io io;
  io.type = IoType::write;
  io.fua = batch.urgent;
  io.iov = &iov;
  io.iov_count = 1;
  nvme::Status status;
  for (const TailWrite::Run& run : write.runs) {
    iov.length_bytes = run.page_count * leg_tail::page_bytes;
    io.offset_blocks = tail_->at_blocks + (leg_tail::mark_page_first + run.first_page) * page_blocks;
    io.count_blocks = static_cast<uint32_t>(run.page_count * page_blocks);
    status = co_await member_io(slot, io);
    if (!status.ok()) break;
    for (uint64_t page = run.first_page; page < run.first_page + run.page_count; page++)
      member.page_written[page] = batch.page_version[page];
    iov.base = static_cast<char*>(iov.base) + iov.length_bytes;
  }
  // One copy after the other: one of them is whole at every instant.
  iov.length_bytes = leg_tail::page_bytes;
  io.fua = true;
  io.count_blocks = static_cast<uint32_t>(page_blocks);
  for (int copy = 0; copy < 2 && write.superblock && status.ok(); copy++) {
    io.offset_blocks = tail_->at_blocks + leg_tail::superblock_pages[copy] * page_blocks;
    status = co_await member_io(slot, io);
  }
  if (status.ok() && write.superblock) {
    member.superblock_written = batch.superblock_version;
    member.generation = write.generation;
  }
  if (!status.ok() && !fenced_ && (failed_ & bit(slot)) == 0) {
    // No space for the mark of a write: the writer is told, and nothing differs. Anything else is a broken member.
    if (status.is(nvme::status::capacity_exceeded) && (must_have_ & bit(slot)) != 0) {
      batch.refused = status;
    } else {
      member_failed(slot, status);
    }
  }
  task_ended(slot);
  batch.countdown.done();
}

void LegBdev::batch_ended(const Batch& batch) {
  if (fenced_) return;
  if (batch.urgent && !batch.writes.empty()) leg_stats_.mark_write_count++;
  const auto has_page = [&](const Member& member, uint64_t page) {
    return member.page_written[page] >= batch.page_version[page];
  };
  const uint64_t page_count = batch.page_version.size();
  // A joining member receives from the moment its tail has everything that the others' have.
  bool more = false;
  for (uint32_t slot = 0; slot < member_slot_count; slot++) {
    Member& member = members_[slot];
    const bool waits = member.state == MemberState::joining && member.left != nullptr;
    if (!waits || !member.tail_known || member.receives) continue;
    bool ready = member.superblock_written >= batch.superblock_version;
    for (uint64_t page = 0; page < page_count; page++)
      ready = ready && has_page(member, page);
    if (!ready) continue;
    // What was written since its resync began did not go to it: it lacks that too.
    member.receives = more = true;
    member.left->add(tail_->wanted);
    member.to_copy_blocks = member.left->count_blocks();
  }
  if (more) refresh_masks();
  for (uint64_t page = 0; page < page_count; page++) {
    bool everywhere = true;
    for_each_slot(receives_ & ~failed_, [&](uint32_t slot) { everywhere &= has_page(members_[slot], page); });
    if (!everywhere) continue;
    const uint64_t first = page * leg_tail::page_region_count;
    tail_->durable.assign(batch.wanted, first,
                          std::min(first + leg_tail::page_region_count, batch.wanted.region_count()));
  }
  tail_->durable.keep(tail_->wanted);
}

void LegBdev::release_marked(nvme::Status refused) {
  List<Op, &Op::node> waiting_ops;
  waiting_ops.splice_back(lists_->mark_waits);
  while (Op* op = waiting_ops.pop_front()) {
    if (fenced_) {
      finish(op, nvme::status::ana_inaccessible);
    } else if (mark(op->io->offset_blocks, op->io->offset_blocks + op->io->count_blocks)) {
      start_write(op);
    } else if (!refused.ok()) {
      finish(op, refused);
    } else {
      lists_->mark_waits.push_back(op);
      tail_->urgent = true;
    }
  }
  Lists::resume_all(lists_->tail_waiters);
}

}  // namespace basalt::bdev
