// SPDX-License-Identifier: Apache-2.0
// The way of a read: straight from the strip's member; from the others when that one is not there or cannot read it,
// under the range lock, part by part. What could not be read is rewritten.
#include <algorithm>
#include <cstring>

#include "bdev/raid/raid_parity.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {

void RaidParityBdev::start_read_band(Band* band) {
  // After a crash, what is shown has to stay so when a member is lost later.
  if (!settled_.empty() && suspect(band->shape.stripe)) return settle_and_read(band);
  read_strip(band);
}

void RaidParityBdev::read_strip(Band* band) {
  const uint32_t member = member_of(band->shape.stripe, band->shape.first_role);
  if (usable(member)) {
    if ((handed_ >> member & 1) != 0 && !band->locked) {
      const auto granted = [](RangeEntry* entry) {
        Band* reading = static_cast<Band*>(entry->context);
        reading->raid->read_strip(reading);
      };
      if (!lock_for_read(band, false, granted)) return;
    }
    ChildIo* child = child_for(band, band->shape.first_role, IoType::read, read_child_done);
    child->pieces.resize(iov_count_max);
    child->pieces.resize(data_pieces(*band, band->shape.first_role, child->pieces.data(), iov_count_max));
    return submit_child(band, child);
  }
  recover(band);
}

void RaidParityBdev::read_child_done(Io* io) {
  const auto [raid, band, member, role, status] = take_answer(io);
  band->waiting_count--;
  if (status.ok()) return raid->finish_band(band);
  if (raid_member_failed(status)) {
    raid->member_failed(member, status);
  } else if (status.type() == nvme::StatusType::media) {
    band->repair = true;
  } else {
    return raid->fail_band(band, status);
  }
  raid->recover(band);
}

// Alone when the strip is to be rewritten; otherwise reads may share.
void RaidParityBdev::recover(Band* band) {
  band->part_column = band->shape.column;
  parity_stats_.degraded_read_count++;
  if (lock_for_read(band, band->repair, read_granted)) recover_part(band);
}

// True: it is locked, at once. What was shared and is to be had alone is let go of before.
bool RaidParityBdev::lock_for_read(Band* band, bool exclusive, void (*granted)(RangeEntry*)) {
  if (band->locked && !exclusive) return true;
  if (band->locked) locks_.release(&band->range);
  band->range.first_block = layout_.member_block(band->shape.stripe, band->shape.column);
  band->range.end_block = band->range.first_block + band->shape.column_count;
  band->range.exclusive = exclusive;
  band->range.context = band;
  band->range.granted = granted;
  band->locked = true;
  return locks_.acquire(&band->range);
}

void RaidParityBdev::read_granted(RangeEntry* entry) {
  Band* band = static_cast<Band*>(entry->context);
  band->raid->recover_part(band);
}

void RaidParityBdev::recover_part(Band* band) {
  if (band->workspace == nullptr && !take_workspace(band)) return;
  const uint32_t role = band->shape.first_role;
  const uint32_t present = roles_of(band->shape.stripe, in_sync_ & ~failed_) & ~band->unreadable & ~(1u << role);
  band->recovery = recovery_for(present, 1u << role);
  if (band->recovery == nullptr) {
    // Its own member may have come back while the others were asked, and one of those have left.
    if (!offline_ && !band->repair && usable(member_of(band->shape.stripe, role))) return read_strip(band);
    // Later, because this may be inside submit().
    band->status = why_unrecoverable();
    band->later.run = [](Work* work) {
      Band* failed = static_cast<Band::Later*>(work)->band;
      failed->raid->fail_band(failed, failed->status);
    };
    band->later.band = band;
    return home().defer(&band->later);
  }
  band->part_count = std::min(columns_max_, band->shape.column + band->shape.column_count - band->part_column);
  const size_t length_bytes = size_t{band->part_count} * layout_.block_bytes;
  band->waiting_count = 1;  // this loop's own
  for (const uint8_t source : band->recovery->sources()) {
    ChildIo* child = child_for(band, source, IoType::read, recover_child_done);
    child->offset_blocks = layout_.member_block(band->shape.stripe, band->part_column);
    child->count_blocks = band->part_count;
    child->pieces.push_back({band->workspace->strip(source), length_bytes});
    submit_child(band, child);
  }
  band->waiting_count--;
}

void RaidParityBdev::recover_child_done(Io* io) {
  const auto [raid, band, member, role, status] = take_answer(io);
  if (!status.ok()) {
    if (raid_member_failed(status)) raid->member_failed(member, status);
    band->unreadable |= 1u << role;
    band->status = status;
  }
  if (--band->waiting_count > 0) return;
  if (band->status.ok()) return raid->recovered_part(band);
  // Without that one; every round loses a role, so it ends.
  band->status = nvme::status::success;
  raid->recover_part(band);
}

void RaidParityBdev::recovered_part(Band* band) {
  const size_t length_bytes = size_t{band->part_count} * layout_.block_bytes;
  const uint32_t role = band->shape.first_role;
  uint8_t* from[ParityCodec::data_count_max];
  size_t count = 0;
  for (const uint8_t source : band->recovery->sources())
    from[count++] = band->workspace->strip(source);
  uint8_t* to[1] = {band->workspace->strip(role)};
  band->recovery->run(length_bytes, from, to);
  Iovec pieces[iov_count_max];
  Iovec cut[iov_count_max];
  const size_t piece_count = data_pieces(*band, role, pieces, iov_count_max);
  const size_t cut_count =
      iovec_slice(pieces, piece_count, uint64_t{band->part_column - band->shape.column} * layout_.block_bytes,
                  length_bytes, cut, iov_count_max);
  iovec_copy_in(cut, cut_count, to[0]);
  if (!band->repair || !usable(member_of(band->shape.stripe, role))) return part_ended(band);
  ChildIo* child = child_for(band, role, IoType::write, repair_child_done);
  child->offset_blocks = layout_.member_block(band->shape.stripe, band->part_column);
  child->count_blocks = band->part_count;
  child->pieces.push_back({to[0], length_bytes});
  submit_child(band, child);
}

void RaidParityBdev::repair_child_done(Io* io) {
  const auto [raid, band, member, role, status] = take_answer(io);
  band->waiting_count--;
  if (status.ok()) {
    raid->parity_stats_.repaired_count++;
    if (raid->events_.repaired) {
      raid->events_.repaired(raid->members_[member].info().name, io->offset_blocks, io->count_blocks);
    }
    if (raid->suspect(band->shape.stripe)) raid->start_resync();  // it may have been what the resync could not read
  } else {
    // It can be neither read nor written there.
    raid->member_failed(member, status);
  }
  raid->part_ended(band);
}

void RaidParityBdev::part_ended(Band* band) {
  band->part_column += band->part_count;
  if (band->part_column < band->shape.column + band->shape.column_count) return recover_part(band);
  finish_band(band);
}

// Too few members are left, whether the keeper has noticed or not: then it is the raid that is lost to whoever asks. Or
// some of them cannot read the place.
nvme::Status RaidParityBdev::why_unrecoverable() const {
  const bool too_few = static_cast<uint32_t>(std::popcount(in_sync_ & ~failed_)) < layout_.data_count;
  return offline_ || too_few ? nvme::status::internal_path_error : nvme::status::unrecovered_read_error;
}

// Made once for each pair of sets; nullptr: too few are present.
const ParityCodec::Recovery* RaidParityBdev::recovery_for(uint32_t present, uint32_t wanted) {
  const auto known = lists_->recoveries.find({present, wanted});
  if (known != lists_->recoveries.end()) return &known->second;
  auto made = codec_.recovery(present, wanted);
  if (!made) return nullptr;
  return &lists_->recoveries.emplace(std::pair{present, wanted}, std::move(*made)).first->second;
}

}  // namespace basalt::bdev
