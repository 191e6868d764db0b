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
// the same when a record of the same blocks is still in the log.
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

bool RaidParityBdev::log_has(const ParityBand& band) const {
  if (bugs_.whole_stripes_ignore_log) return false;
  for (uint64_t sequence = durable_tail_; sequence < next_sequence_; sequence++) {
    const LogSlot& slot = slots_[sequence % slots_.size()];
    if (slot.stripe >= band.stripe && slot.stripe < band.stripe + band.stripe_count &&
        slot.column < band.column + band.column_count && band.column < slot.column + slot.column_count) {
      return true;
    }
  }
  return false;
}

// Reads the logs of all members of the set that are there, and applies what may not have been applied.
Task<nvme::Status> RaidParityBdev::replay() {
  struct Found {
    parity::RecordHeader header;
    std::vector<uint8_t> data;                        // of the roles, one after the other
    std::map<uint32_t, std::vector<uint8_t>> parity;  // by role
  };
  std::map<uint64_t, Found> found;
  const uint64_t slot_blocks = uint64_t{superblock_.log_slot_pages} * page_factor();
  std::vector<uint8_t> memory(slot_blocks * layout_.block_bytes + parity::page_bytes);
  auto* slot = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(memory.data()) + parity::page_bytes - 1) /
                                          parity::page_bytes * parity::page_bytes);
  for (uint32_t member = 0; member < member_count(); member++) {
    if (!usable(member)) continue;
    for (uint32_t index = 0; index < superblock_.log_slot_count; index++) {
      Fan read(1);
      read.add(members_[member], IoType::read,
               (parity::log_first_page + uint64_t{index} * superblock_.log_slot_pages) * page_factor(), slot_blocks,
               slot);
      co_await read;
      if (!read.status(0).ok()) co_return read.status(0);
      parity::RecordHeader header;
      std::memcpy(&header, slot, sizeof(header));
      if (!parity::valid_record(header, superblock_)) continue;
      if (header.sequence < durable_tail_ || header.sequence % slots_.size() != index) continue;
      if (layout_.role_of(header.stripe, member) != header.parity_role) continue;
      const uint8_t* payload = slot + parity::page_bytes;
      if (crc32c(0, payload, header.payload_bytes) != header.payload_crc32c) continue;
      next_sequence_ = std::max(next_sequence_, header.sequence + 1);
      Found& record = found[header.sequence];
      // Members tell the same of one write. Where they do not, one of them was out and has a record of before: the
      // newer set's counts.
      if (!record.parity.empty() && !parity::same_write(header, record.header)) {
        if (header.epoch <= record.header.epoch) continue;
        record.parity.clear();
      }
      const size_t strip_bytes = size_t{header.column_count} * layout_.block_bytes;
      const size_t data_bytes = header.payload_bytes - strip_bytes;
      record.header = header;
      record.data.assign(payload, payload + data_bytes);
      record.parity[header.parity_role].assign(payload + data_bytes, payload + header.payload_bytes);
    }
  }
  for (auto& [sequence, record] : found) {
    // One of the members that should have it is of the set and does not: it was not durable, so nothing has changed.
    const uint32_t present = layout_.roles_of(record.header.stripe, in_sync_ & ~failed_);
    uint32_t having = 0;
    for (const auto& [role, bytes] : record.parity)
      having |= 1u << role;
    if ((record.header.parity_roles & present & ~having) != 0) continue;
    const nvme::Status status = co_await replay_record(record.header, record.data, record.parity);
    if (!status.ok()) co_return status;
    parity_stats_.replayed_count++;
  }
  co_return nvme::status::success;
}

Task<nvme::Status> RaidParityBdev::replay_record(const parity::RecordHeader& header, std::vector<uint8_t>& data,
                                                 std::map<uint32_t, std::vector<uint8_t>>& parities) {
  Fan writes(member_count());
  const size_t strip_bytes = size_t{header.column_count} * layout_.block_bytes;
  const uint64_t block = layout_.member_block(header.stripe, header.column);
  for (uint32_t i = 0; i < header.role_count; i++) {
    const uint32_t member = layout_.member_of(header.stripe, header.first_role + i);
    if (!usable(member)) continue;
    writes.add(members_[member], IoType::write, block, header.column_count, data.data() + i * strip_bytes);
  }
  for (auto& [role, bytes] : parities) {
    const uint32_t member = layout_.member_of(header.stripe, role);
    if (usable(member)) writes.add(members_[member], IoType::write, block, header.column_count, bytes.data());
  }
  co_await writes;
  for (size_t i = 0; i < writes.count(); i++) {
    if (!writes.status(i).ok()) co_return writes.status(i);
  }
  co_return nvme::status::success;
}

}  // namespace basalt::bdev
