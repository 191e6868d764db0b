// SPDX-License-Identifier: Apache-2.0
// Requests: cut into bands, counted, completed. Flush.
#include "bdev/raid/raid_parity.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {
namespace {

constexpr uint32_t bands_of_one_request_max = 16;

}  // namespace

const char* to_string(RaidMemberState state) {
  switch (state) {
    case RaidMemberState::missing:
      return "missing";
    case RaidMemberState::in_sync:
      return "in_sync";
    case RaidMemberState::rebuilding:
      return "rebuilding";
    case RaidMemberState::failed:
      return "failed";
  }
  return "?";
}

RaidParityBdev::Workspace::Workspace(const ParityLayout& layout, uint32_t columns_max) {
  const size_t header_bytes = size_t{layout.parity_count} * parity::page_bytes;
  memory.reset(static_cast<uint8_t*>(std::aligned_alloc(parity::page_bytes, band_memory_bytes + header_bytes)));
  BASALT_ASSERT(memory != nullptr);
  headers = reinterpret_cast<parity::RecordHeader*>(memory.get() + band_memory_bytes);
  std::memset(headers, 0, header_bytes);
  for (uint32_t role = 0; role < layout.member_count(); role++)
    strips[role] = memory.get() + size_t{role} * columns_max * layout.block_bytes;
  const size_t wide_bytes = align_down(band_memory_bytes / layout.parity_count, parity::page_bytes);
  for (uint32_t i = 0; i < layout.parity_count; i++)
    wide_parity[i] = memory.get() + i * wide_bytes;
}

RaidParityBdev::RaidParityBdev(Reactor& home, const parity::Superblock& geometry, RaidParityEvents events)
    : Bdev(home),
      events_(std::move(events)),
      superblock_(geometry),
      epoch_of_all_(geometry.epoch),
      layout_(parity::layout_of(geometry)),
      codec_(geometry.data_count, geometry.parity_count),
      seats_(uint32_t{geometry.data_count} + geometry.parity_count),
      members_(size_t{geometry.data_count} + geometry.parity_count + 1),
      missed_(geometry.strip_count, geometry.mark_strips, static_cast<uint32_t>(members_.size())),
      rebuilt_blocks_(members_.size()),
      to_rebuild_blocks_(members_.size()),
      attachments_(members_.size()),
      slots_(geometry.log_slot_count),
      ops_(std::make_unique<Pool<Op>>(child_io_count_max)),
      bands_(std::make_unique<Pool<Band>>(child_io_count_max)),
      lists_(std::make_unique<Lists>(static_cast<uint32_t>(members_.size()))) {
  const uint32_t page_blocks = parity::page_bytes / layout_.block_bytes;
  columns_max_ =
      static_cast<uint32_t>(align_down(band_memory_bytes / member_count() / layout_.block_bytes, page_blocks));
  columns_max_ = std::min(columns_max_, layout_.strip_blocks);
  full_columns_max_ =
      static_cast<uint32_t>(align_down(band_memory_bytes / layout_.parity_count / layout_.block_bytes, page_blocks));
  full_columns_max_ = std::min(full_columns_max_, layout_.strip_blocks);
  in_sync_ = geometry.in_sync;
  next_sequence_ = durable_tail_ = geometry.log_tail;
  resync_stripe_ = geometry.clean != 0 ? layout_.strip_count : 0;
  lists_->workspaces.reserve(Lists::workspace_count);
  lists_->free_workspaces.reserve(Lists::workspace_count);
  const size_t zero_bytes = size_t{layout_.strip_blocks} * layout_.block_bytes;
  lists_->zeroes.reset(
      static_cast<uint8_t*>(std::aligned_alloc(parity::page_bytes, align_up(zero_bytes, parity::page_bytes))));
  BASALT_ASSERT(lists_->zeroes != nullptr);
  std::memset(lists_->zeroes.get(), 0, zero_bytes);
  lists_->rest_timer.raid = this;
  lists_->rest_timer.run = rested;
  info_.product = geometry.data_count == 1 ? "raid1" : geometry.parity_count == 1 ? "raid5" : "raid6";
  info_.name.assign(geometry.name, geometry.name_length_bytes);
  std::memcpy(info_.uuid.bytes.data(), geometry.uuid, sizeof(geometry.uuid));
  info_.block_size_bytes = layout_.block_bytes;
  info_.count_blocks = layout_.count_blocks();
  info_.volatile_cache = true;
}

RaidParityBdev::~RaidParityBdev() = default;

// False: the band waits for one.
bool RaidParityBdev::take_workspace(Band* band) {
  if (lists_->free_workspaces.empty() && lists_->workspaces.size() < Lists::workspace_count) {
    // Only until it is warm.
    lists_->workspaces.push_back(std::make_unique<Workspace>(layout_, columns_max_));
    lists_->free_workspaces.push_back(lists_->workspaces.back().get());
  }
  if (lists_->free_workspaces.empty()) {
    lists_->workspace_waits.push_back(band);
    return false;
  }
  band->workspace = lists_->free_workspaces.back();
  lists_->free_workspaces.pop_back();
  return true;
}

void RaidParityBdev::submit(Io* io) {
  const nvme::Status checked = check(*io);
  if (!checked.ok()) return complete_later(io, checked);
  const bool none_left = (in_sync_ & ~failed_) == 0;  // the keeper will find out
  if (offline_ || none_left || closing_ || !gate_.enter()) return complete_later(io, nvme::status::internal_path_error);
  Op* op = ops_->take();
  BASALT_ASSERT(op != nullptr);
  op->raid = this;
  op->io = io;
  op->status = nvme::status::success;
  op->band_count = 0;
  op->missed = 0;
  op->all_started = false;
  op->phase = phases_.begin();
  if (io->type == IoType::flush) return start_flush(op);
  const bool zeroes = io->type == IoType::write_zeroes || io->type == IoType::unmap;
  op->gives_back = zeroes && members_give_back();
  op->bands = ParityBands(io->offset_blocks, io->offset_blocks + io->count_blocks, op->gives_back);
  // Nothing below completes inside: children and locks answer later, or the band is counted until advance() returns.
  advance(op);
}

// What tells members that something is zeroes, without data.
bool RaidParityBdev::members_give_back() const {
  return std::all_of(members_.begin(), members_.end(), [](const Handle& member) {
    return !member || (member.info().io_types.has(IoType::unmap) && member.info().io_types.has(IoType::write_zeroes));
  });
}

// Starts as many bands as may be in flight.
void RaidParityBdev::advance(Op* op) {
  if (op->starting) return;
  op->starting = true;
  const bool reads = op->io->type == IoType::read;
  while (!op->all_started && op->band_count < bands_of_one_request_max) {
    ParityBand shape;
    const uint32_t columns = reads ? layout_.strip_blocks : columns_max_;
    const uint32_t full_columns = reads ? layout_.strip_blocks : logs_all() ? columns_max_ : full_columns_max_;
    if (!op->status.ok() || !op->bands.next(layout_, columns, full_columns, &shape)) {
      op->all_started = true;
      break;
    }
    // A read goes strip by strip: each has its own place. Data that has to have a record is never a whole stripe.
    const bool halves = !reads && !op->gives_back && logs_all() && shape.role_count == layout_.data_count;
    const uint32_t pieces = reads ? shape.role_count : halves ? 2 : 1;
    for (uint32_t i = 0; i < pieces; i++) {
      Band* band = bands_->take();
      BASALT_ASSERT(band != nullptr);
      band->raid = this;
      band->op = op;
      band->shape = shape;
      if (reads) {
        band->shape.first_role = shape.first_role + i;
        band->shape.role_count = 1;
      } else if (halves) {
        band->shape.first_role = i == 0 ? 0 : layout_.data_count - 1;
        band->shape.role_count = i == 0 ? layout_.data_count - 1 : 1;
      }
      band->locked = band->counted = band->repair = false;
      band->stage = Band::Stage::prepare;
      band->workspace = nullptr;
      band->waiting_count = 0;
      band->status = nvme::status::success;
      band->sources = band->unreadable = band->parities = band->got = band->missed = 0;
      band->sequence = 0;
      band->recovery = nullptr;
      op->band_count++;
      if (reads) {
        start_read_band(band);
      } else {
        start_write_band(band);
      }
    }
  }
  op->starting = false;
  if (op->all_started && op->band_count == 0) finish(op);
}

// The end of every request.
void RaidParityBdev::finish(Op* op) {
  Io* io = op->io;
  const nvme::Status status = op->status;
  const bool phase = op->phase;
  ops_->give(op);
  phases_.end(phase);
  complete_now(io, status);
  gate_.leave();
}

void RaidParityBdev::start_flush(Op* op) {
  const uint32_t targets = (in_sync_ | copied_) & ~failed_;
  op->missed = (in_sync_ | copied_) & failed_;
  op->followed = unflushed_.flush_begins();
  if (op->followed) missed_.flush_begins();
  op->band_count = 1;  // this loop's own
  for_each_bit(targets, [&](uint32_t member) {
    ChildIo* child = children_.take();
    BASALT_ASSERT(child != nullptr);
    child->mirror(op->io, flush_child_done, op);
    child->member = member;
    child->attachment = attachments_[member];
    op->band_count++;
    members_[member].submit(child);
  });
  op->band_count--;
  BASALT_ASSERT(op->band_count > 0);
}

void RaidParityBdev::flush_child_done(Io* io) {
  Op* op = static_cast<Op*>(io->context);
  RaidParityBdev* raid = op->raid;
  const uint32_t member = raid->asked_member(*ChildIo::of(io));
  const nvme::Status status = io->status;
  raid->children_.give(ChildIo::of(io));
  if (!status.ok()) {
    // A failed flush expels the member, whatever its error.
    op->missed |= 1u << member;
    raid->member_failed(member, status);
  }
  if (--op->band_count > 0) return;
  const bool followed = op->followed;
  const bool reached_all = op->missed == 0;
  if (followed) raid->unflushed_.flush_ended(reached_all);
  if (followed) raid->missed_.flush_ended(reached_all);
  if (followed && raid->lists_->log_is_waited_for()) {
    raid->want_checkpoint_ = true;
    raid->want_flush_ |= !reached_all;  // who waited for this flush needs another one
    raid->kick_keeper();
  }
  if (!raid->settle_flush(op)) raid->lists_->parked_flushes.push_back(op);
}

// What a member that left held unflushed is on the others' media: they were flushed, and its share is recovered from
// theirs. False: it waits for the superblocks.
bool RaidParityBdev::settle_flush(Op* op) {
  if (offline_) {
    op->status = nvme::status::internal_path_error;
  } else if ((op->missed & failed_ & (in_sync_ | copied_)) != 0) {
    return false;
  }
  finish(op);
  return true;
}

RaidMemberInfo RaidParityBdev::member(uint32_t seat) const {
  RaidMemberInfo info;
  const uint32_t bit = 1u << seat;
  if (members_[seat]) info.name = members_[seat].info().name;
  info.place = seats_.place_of(seat);
  if (seats_.has_twin() && seat == seats_.spare() && members_[seats_.twinned()])
    info.instead_of = members_[seats_.twinned()].info().name;
  info.delta = (delta_ & bit) != 0;
  info.to_rebuild_blocks = to_rebuild_blocks_[seat];
  if ((failed_ & bit) != 0) {
    info.state = RaidMemberState::failed;
  } else if ((joining_ & bit) != 0) {
    info.state = RaidMemberState::rebuilding;
    info.rebuilt_blocks = rebuilt_blocks_[seat];
  } else if ((in_sync_ & bit) != 0) {
    info.state = RaidMemberState::in_sync;
  }
  return info;
}

Task<Outcome> RaidParityBdev::close() {
  closing_ = true;
  home().cancel(&lists_->rest_timer);
  wake_background();
  co_await gate_.close();
  if (!driven_ && !offline_ && failed_ == 0 && !resyncing()) {
    co_await sweep();
    const bool flushed = co_await checkpoint(Flush::always);
    if (flushed) co_await set_clean(true);
  } else if (!driven_ && !offline_ && failed_ == 0) {
    co_await sweep();
  }
  BASALT_ASSERT(children_.in_use() == 0);
  co_return success();
}

}  // namespace basalt::bdev
