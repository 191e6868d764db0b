// SPDX-License-Identifier: Apache-2.0
// The log of partial stripes. A partial write changes some data strips and the parities, one after the other; a crash
// in between, and the loss of a member, must not change what the stripe's other strips hold. So before anything changes
// in place, each parity member of the stripe has a record durably: the new data and its own new parity.
//
// Why records on the m parity members are enough: whatever up to m members are lost later, either a parity member with
// its record is left - then the record says what data and that parity become, and parities and data that are there
// give what is lost - or all m lost ones are the parity members, and no data is missing at all.
//
// Slots are used in the order of sequence numbers. A slot is free again when its write was applied, every member
// flushed, and the superblocks say (`log_tail`) that the record is done with; only then is it overwritten, so that an
// older record of the same blocks can never outlive a newer one. Writes that need no record (whole stripes) wait for
// the same when a record of the same blocks is still in the log. And a record's write waits until whole stripes that
// lie under it are flushed: its parity fits no other data than that which it was computed from.
//
// A record of zeroes is on all members (raid_parity_write.cc), and so it outlives those that the parity members alone
// have: a write over what it names waits until it has left the log. With all of those lost, a replay would undo it.
//
// A copy that rots is made good from the others, like any other strip.
//
// A member that comes back may hold records of before it left. They are erased before it gets new ones.
//
// A driven raid has promised that nothing acknowledged is lost while only processes end, and it makes no parity right
// after a crash. So its replay writes each block once, as the newest record has it: were it cut short after an older
// one, and the newer one's member lost, the older value would stay. And a record that one of its members lacks is left
// alone: nothing has changed in place, and carried out halfway it could not be finished without the members that have
// it.
#include <algorithm>
#include <cstring>
#include <map>

#include "base/crc32c.h"
#include "bdev/raid/raid_parity.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {

bool RaidParityBdev::slot_free() const {
  return next_sequence_ - durable_tail_ < slots_.size();
}

bool RaidParityBdev::log_has(const ParityBand& band, Logged what) const {
  if (bugs_.whole_stripes_ignore_log) return false;
  for (uint64_t sequence = durable_tail_; sequence < next_sequence_; sequence++) {
    const LogSlot& slot = slots_[sequence % slots_.size()];
    if (what == Logged::zeroes && !slot.zeroes) continue;
    if (slot.stripes.first < band.stripe + band.stripe_count && band.stripe < slot.stripes.end() &&
        slot.column < band.column + band.column_count && band.column < slot.column + slot.column_count) {
      return true;
    }
  }
  return false;
}

// Erases whatever records a member has; the flush with which it joins makes that durable. False: not now.
Task<bool> RaidParityBdev::blank_log(uint32_t member) {
  constexpr uint32_t at_once_max = 16;
  const Handle device = members_[member];
  for (uint32_t first = 0; first < superblock_.log_slot_count; first += at_once_max) {
    // It may have left meanwhile, and be gone.
    if (!members_[member] || &members_[member].bdev() != &device.bdev()) co_return false;
    const uint32_t end = std::min(first + at_once_max, superblock_.log_slot_count);
    Fan writes(end - first, &phases_);
    for (uint32_t index = first; index < end; index++) {
      const uint64_t page = parity::log_first_page + uint64_t{index} * superblock_.log_slot_pages;
      writes.add(device, IoType::write, page * page_factor(), page_factor(), lists_->zeroes.get());
    }
    co_await writes;
    for (size_t i = 0; i < writes.count(); i++) {
      if (writes.status(i).ok()) continue;
      if (members_[member] && &members_[member].bdev() == &device.bdev()) member_failed(member, writes.status(i));
      co_return false;
    }
  }
  co_return true;
}

// A write as the records of it tell.
struct RaidParityBdev::FoundRecord {
  parity::RecordHeader header;
  bool counts = false;                              // driven: all of its members that are here have it
  std::vector<uint8_t> data;                        // of the roles, one after the other
  std::map<uint32_t, std::vector<uint8_t>> parity;  // by role
  uint32_t having() const {
    uint32_t roles = 0;
    for (const auto& [role, bytes] : parity)
      roles |= 1u << role;
    return roles;
  }
};

// A slot that cannot be read is as one without a record, while what it may have told can be had from the others.
Task<nvme::Status> RaidParityBdev::read_slot(uint32_t member, uint32_t index, uint8_t* slot, bool* readable) {
  const uint64_t first = (parity::log_first_page + uint64_t{index} * superblock_.log_slot_pages) * page_factor();
  Fan all(1, &phases_);
  all.add(members_[member], IoType::read, first, uint64_t{superblock_.log_slot_pages} * page_factor(), slot);
  co_await all;
  *readable = all.status(0).ok();
  if (all.status(0).type() != nvme::StatusType::media) co_return all.status(0);
  Fan head(1, &phases_);
  head.add(members_[member], IoType::read, first, page_factor(), slot);
  co_await head;
  parity::RecordHeader header;
  std::memcpy(&header, slot, sizeof(header));
  const bool done_with =
      head.status(0).ok() && (!parity::valid_record(header, superblock_) || header.sequence < durable_tail_);
  if (!done_with && !redundant(in_sync_)) co_return all.status(0);
  std::memset(slot, 0, parity::page_bytes);
  co_return nvme::status::success;
}

// Reads the logs of all members of the set that are there, and applies what may not have been applied.
Task<nvme::Status> RaidParityBdev::replay() {
  FoundRecords found;
  std::vector<uint32_t> unread(superblock_.log_slot_count);  // by slot: members that may have had a record there
  const uint64_t slot_bytes = uint64_t{superblock_.log_slot_pages} * parity::page_bytes;
  std::vector<uint8_t> memory(slot_bytes + parity::page_bytes);
  auto* slot = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(memory.data()) + parity::page_bytes - 1) /
                                          parity::page_bytes * parity::page_bytes);
  for (uint32_t member = 0; member < member_count(); member++) {
    if (!usable(member)) continue;
    for (uint32_t index = 0; index < superblock_.log_slot_count; index++) {
      bool readable = false;
      const nvme::Status status = co_await read_slot(member, index, slot, &readable);
      if (!status.ok()) co_return status;
      if (!readable) unread[index] |= 1u << member;
      parity::RecordHeader header;
      std::memcpy(&header, slot, sizeof(header));
      if (!parity::valid_record(header, superblock_)) continue;
      if (header.sequence < durable_tail_ || header.sequence % slots_.size() != index) continue;
      const uint32_t role = role_of(header.stripe, member);
      const bool zeroes = header.zeroed_stripes != 0;
      if (!zeroes && role != header.parity_role) continue;
      const uint8_t* payload = slot + parity::page_bytes;
      if (crc32c(0, payload, header.payload_bytes) != header.payload_crc32c) continue;
      next_sequence_ = std::max(next_sequence_, header.sequence + 1);
      if (driven_ && !bugs_.marks_without_log) stripes_to_mark_.push_back(parity::stripes_of(header));
      FoundRecord& record = found[header.sequence];
      // Members tell the same of one write. Where they do not, one of them was out and has a record of before: the
      // newer set's counts.
      if (!record.parity.empty() && !parity::same_write(header, record.header)) {
        if (header.epoch <= record.header.epoch) continue;
        record.parity.clear();
      }
      const size_t strip_bytes = zeroes ? 0 : size_t{header.column_count} * layout_.block_bytes;
      const size_t data_bytes = header.payload_bytes - strip_bytes;
      record.header = header;
      record.data.assign(payload, payload + data_bytes);
      record.parity[role].assign(payload + data_bytes, payload + header.payload_bytes);
    }
  }
  for (auto& [sequence, record] : found) {
    const uint32_t present = roles_of(record.header.stripe, in_sync_ & ~failed_);
    // Also one that it was not written for: it had failed, and nothing changes in place before it has left.
    // Whoever cannot be asked may have had it: zeroes need nothing that was on that page, and what is carried out
    // although it was not on all of them was not acknowledged, nor was it begun.
    const uint32_t silent = roles_of(record.header.stripe, unread[sequence % slots_.size()]);
    const uint32_t needed = record.header.zeroed_stripes != 0 ? present & ~silent : layout_.parity_roles() & present;
    record.counts = driven_ && (needed & ~record.having()) == 0;
  }
  for (auto& [sequence, record] : found) {
    const bool known = driven_ ? record.counts : co_await complete(record);
    if (!known) continue;
    const nvme::Status status = co_await replay_record(record, found);
    if (!status.ok()) co_return status;
    parity_stats_.replayed_count++;
  }
  co_return nvme::status::success;
}

// A parity member of the set that is here does not have the record. It may never have been durable there, then nothing
// has changed in place; or it was, and has rotted. The other copies tell what that member's parity becomes, and to
// carry the write out is right in both cases. False: they do not, because as many members as there is parity are out of
// it; then it counts as one that was never durable.
Task<bool> RaidParityBdev::complete(FoundRecord& record) {
  const parity::RecordHeader& header = record.header;
  if (header.zeroed_stripes != 0) co_return true;
  const uint32_t present = roles_of(header.stripe, in_sync_ & ~failed_);
  // Also of one that it was not written for: it had failed, and that it left was not durable yet. Carried out without
  // it, its parity would be believed.
  const uint32_t wanted = layout_.parity_roles() & present & ~record.having();
  if (wanted == 0) co_return true;
  if (bugs_.skip_incomplete) co_return false;
  const size_t strip_bytes = size_t{header.column_count} * layout_.block_bytes;
  const uint32_t changed = ((1u << header.role_count) - 1) << header.first_role;
  const uint32_t beside = layout_.data_roles() & present & ~changed;  // the strips that it leaves as they are
  const ParityCodec::Recovery* recovery = recovery_for(changed | beside | record.having(), wanted);
  if (recovery == nullptr) co_return false;
  const size_t page_strip_bytes = (strip_bytes + parity::page_bytes - 1) / parity::page_bytes * parity::page_bytes;
  const std::unique_ptr<uint8_t, Workspace::Free> memory(
      static_cast<uint8_t*>(std::aligned_alloc(parity::page_bytes, member_count() * page_strip_bytes)));
  BASALT_ASSERT(memory != nullptr);
  const auto strip = [&](uint32_t role) { return memory.get() + role * page_strip_bytes; };
  Fan reads(member_count(), &phases_);
  for_each_bit(beside, [&](uint32_t role) {
    reads.add(members_[member_of(header.stripe, role)], IoType::read,
              layout_.member_block(header.stripe, header.column), header.column_count, strip(role));
  });
  co_await reads;
  for (size_t i = 0; i < reads.count(); i++) {
    if (!reads.status(i).ok()) co_return false;
  }
  for (uint32_t i = 0; i < header.role_count; i++)
    std::memcpy(strip(header.first_role + i), record.data.data() + i * strip_bytes, strip_bytes);
  for (const auto& [role, bytes] : record.parity)
    std::memcpy(strip(role), bytes.data(), strip_bytes);
  uint8_t* from[ParityCodec::data_count_max];
  uint8_t* to[ParityCodec::strip_count_max];
  for (size_t i = 0; i < recovery->sources().size(); i++)
    from[i] = strip(recovery->sources()[i]);
  for (size_t i = 0; i < recovery->results().size(); i++)
    to[i] = strip(recovery->results()[i]);
  recovery->run(strip_bytes, from, to);
  for (const uint8_t role : recovery->results())
    record.parity[role].assign(strip(role), strip(role) + strip_bytes);
  co_return true;
}

// Of a driven one: a newer record says what the column of this role is; of any parity, whichever roles it changed.
bool RaidParityBdev::superseded(const FoundRecord& record, const FoundRecords& found, uint64_t stripe, uint32_t role,
                                uint32_t column) {
  if (!record.counts || bugs_.replay_one_after_the_other) return false;
  return std::any_of(found.upper_bound(record.header.sequence), found.end(), [&](const auto& entry) {
    const parity::RecordHeader& newer = entry.second.header;
    if (!entry.second.counts || !parity::stripes_of(newer).has(stripe)) return false;
    if (column < newer.column || column >= newer.column + newer.column_count) return false;
    return role >= layout_.data_count || (role >= newer.first_role && role < newer.first_role + newer.role_count);
  });
}

// What one record says about a stripe that newer ones name, too.
struct RaidParityBdev::ReplayedPiece {
  uint32_t member;
  uint32_t column;
  uint32_t column_count;
  uint8_t* data;  // null: zeroes
};

void RaidParityBdev::replayed_pieces(const FoundRecord& record, const FoundRecords& found, uint64_t stripe,
                                     uint32_t role, uint8_t* strip, std::vector<ReplayedPiece>* pieces) {
  const parity::RecordHeader& header = record.header;
  const uint32_t member = member_of(stripe, role);
  if (!usable(member)) return;
  bool runs = false;
  for (uint32_t i = 0; i < header.column_count; i++) {
    const bool wanted = !superseded(record, found, stripe, role, header.column + i);
    uint8_t* data = strip == nullptr ? nullptr : strip + size_t{i} * layout_.block_bytes;
    if (wanted && !runs) pieces->push_back({member, header.column + i, 0, data});
    if (wanted) pieces->back().column_count++;
    runs = wanted;
  }
}

Task<nvme::Status> RaidParityBdev::replay_record(FoundRecord& record, const FoundRecords& found) {
  const parity::RecordHeader& header = record.header;
  if (header.zeroed_stripes != 0) {
    auto zeroing = replay_zeroes(record, found);
    co_return co_await zeroing;
  }
  std::vector<ReplayedPiece> pieces;
  const size_t strip_bytes = size_t{header.column_count} * layout_.block_bytes;
  for (uint32_t i = 0; i < header.role_count; i++)
    replayed_pieces(record, found, header.stripe, header.first_role + i, record.data.data() + i * strip_bytes, &pieces);
  for (auto& [role, bytes] : record.parity)
    replayed_pieces(record, found, header.stripe, role, bytes.data(), &pieces);
  auto writing = replay_pieces(header.stripe, pieces);
  co_return co_await writing;
}

// Stripes in a row that no newer record names are one request to each member.
Task<nvme::Status> RaidParityBdev::replay_zeroes(const FoundRecord& record, const FoundRecords& found) {
  const StripeRange all = parity::stripes_of(record.header);
  const uint64_t run_max = (UINT32_MAX - layout_.strip_blocks) / layout_.strip_blocks;
  for (uint64_t stripe = all.first; stripe < all.end();) {
    uint64_t run_end = std::min(all.end(), stripe + run_max);
    uint64_t zeroed_end = stripe;
    bool named = record.header.column_count != layout_.strip_blocks;
    for (auto entry = found.upper_bound(record.header.sequence); entry != found.end(); ++entry) {
      if (!entry->second.counts) continue;
      const StripeRange newer = parity::stripes_of(entry->second.header);
      if (newer.first > stripe) run_end = std::min(run_end, newer.first);
      if (!newer.has(stripe)) continue;
      named = true;
      if (newer.count > 1) zeroed_end = std::max(zeroed_end, newer.end());
    }
    if (zeroed_end > stripe && !bugs_.replay_one_after_the_other) {
      stripe = zeroed_end;
      continue;
    }
    std::vector<ReplayedPiece> pieces;
    if (named) run_end = stripe + 1;
    for (uint32_t role = 0; role < member_count(); role++) {
      if (named) {
        replayed_pieces(record, found, stripe, role, nullptr, &pieces);
      } else if (usable(member_of(stripe, role))) {
        const auto count_blocks = static_cast<uint32_t>((run_end - stripe) * layout_.strip_blocks);
        pieces.push_back({member_of(stripe, role), 0, count_blocks, nullptr});
      }
    }
    auto writing = replay_pieces(stripe, pieces);
    const nvme::Status status = co_await writing;
    if (!status.ok()) co_return status;
    stripe = run_end;
  }
  co_return nvme::status::success;
}

Task<nvme::Status> RaidParityBdev::replay_pieces(uint64_t stripe, const std::vector<ReplayedPiece>& pieces) {
  for (size_t first = 0; first < pieces.size(); first += ParityCodec::strip_count_max) {
    const size_t end = std::min(first + ParityCodec::strip_count_max, pieces.size());
    Fan writes(end - first, &phases_);
    for (size_t i = first; i < end; i++) {
      const ReplayedPiece& piece = pieces[i];
      const IoType type = piece.data == nullptr ? IoType::unmap : IoType::write;
      writes.add(members_[piece.member], type, layout_.member_block(stripe, piece.column), piece.column_count,
                 piece.data);
    }
    co_await writes;
    for (size_t i = 0; i < writes.count(); i++) {
      if (!writes.status(i).ok()) co_return writes.status(i);
    }
  }
  co_return nvme::status::success;
}

}  // namespace basalt::bdev
