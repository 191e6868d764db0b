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
// A copy that rots, or cannot be read, is made good from the others, like any other strip. Where none is left that can
// be read, nobody knows whether there was a record: all data of a stripe that it may have named is there, or the log is
// not replayed, and an exact error says so. Of a driven one the parity of those stripes is made right afterwards, and
// its superblocks say which ones until then.
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

#include "base/bytes.h"
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

// What it says counts, if its payload is whole: nobody has said that it is done with.
bool RaidParityBdev::is_live(const parity::RecordHeader& header, uint32_t index) const {
  return parity::valid_record(header, superblock_) && header.sequence >= durable_tail_ &&
         header.sequence % slots_.size() == index;
}

// Page by page where the whole of it cannot be read: what lies behind a record is of no interest. A status other than
// success is no medium's error, and the member has failed.
Task<nvme::Status> RaidParityBdev::read_slot(uint32_t member, uint32_t index, FoundLog& found, bool* has_record,
                                             uint8_t* slot) {
  *has_record = false;
  const uint64_t first = (parity::log_first_page + uint64_t{index} * superblock_.log_slot_pages) * page_factor();
  const auto read = [&](uint64_t pages, uint64_t from_page, Fan& fan) {
    fan.add(members_[member], IoType::read, first + from_page * page_factor(), pages * page_factor(),
            slot + from_page * parity::page_bytes);
  };
  Fan all(1, &phases_);
  read(superblock_.log_slot_pages, 0, all);
  co_await all;
  bool payload_readable = all.status(0).ok();
  if (!payload_readable && all.status(0).type() != nvme::StatusType::media) co_return all.status(0);
  if (!payload_readable) {
    Fan head(1, &phases_);
    read(1, 0, head);
    co_await head;
    if (!head.status(0).ok()) {
      found.silent[index].unreadable |= 1u << member;
      co_return head.status(0).type() == nvme::StatusType::media ? nvme::status::success : head.status(0);
    }
  }
  parity::RecordHeader header;
  std::memcpy(&header, slot, sizeof(header));
  if (!is_live(header, index)) {
    if (parity::check(header) == parity::PageState::damaged) found.silent[index].damaged |= 1u << member;
    co_return nvme::status::success;
  }
  if (!payload_readable && header.payload_bytes > 0) {
    Fan payload(1, &phases_);
    read((header.payload_bytes + parity::page_bytes - 1) / parity::page_bytes, 1, payload);
    co_await payload;
    payload_readable = payload.status(0).ok();
    if (!payload_readable && payload.status(0).type() != nvme::StatusType::media) co_return payload.status(0);
    if (!payload_readable) {
      found.silent[index].unreadable |= 1u << member;
      found.silent[index].stripes = parity::stripes_of(header);
      co_return nvme::status::success;
    }
  }
  if (crc32c(0, slot + parity::page_bytes, header.payload_bytes) != header.payload_crc32c) {
    found.silent[index].damaged |= 1u << member;
    co_return nvme::status::success;
  }
  *has_record = true;
  co_return nvme::status::success;
}

// The logs of all members of the set that are there.
Task<nvme::Status> RaidParityBdev::read_log(FoundLog& found) {
  found.silent.resize(superblock_.log_slot_count);
  const PageMemory memory(superblock_.log_slot_pages);
  uint8_t* slot = memory.page(0);
  for (uint32_t member = 0; member < member_count(); member++) {
    if (!usable(member)) continue;
    for (uint32_t index = 0; index < superblock_.log_slot_count; index++) {
      bool has_record = false;
      const nvme::Status status = co_await read_slot(member, index, found, &has_record, slot);
      if (!status.ok()) co_return status;
      if (!has_record) continue;
      parity::RecordHeader header;
      std::memcpy(&header, slot, sizeof(header));
      const uint32_t role = role_of(header.stripe, member);
      const bool zeroes = header.zeroed_stripes != 0;
      if (!zeroes && role != header.parity_role) continue;
      next_sequence_ = std::max(next_sequence_, header.sequence + 1);
      if (driven_ && !bugs_.marks_without_log) stripes_to_mark_.push_back(parity::stripes_of(header));
      FoundRecord& record = found.records[header.sequence];
      // Members tell the same of one write. Where they do not, one of them was out and has a record of before: the
      // newer set's counts.
      if (!record.parity.empty() && !parity::same_write(header, record.header)) {
        if (header.epoch <= record.header.epoch) continue;
        record.parity.clear();
      }
      const uint8_t* payload = slot + parity::page_bytes;
      const size_t strip_bytes = zeroes ? 0 : size_t{header.column_count} * layout_.block_bytes;
      const size_t data_bytes = header.payload_bytes - strip_bytes;
      record.header = header;
      record.data.assign(payload, payload + data_bytes);
      record.parity[role].assign(payload + data_bytes, payload + header.payload_bytes);
    }
  }
  co_return nvme::status::success;
}

// Whether a write of this stripe may have been begun of which nothing is left but that: all parity members that are
// here are silent.
bool RaidParityBdev::may_name(const HiddenRecord& hidden, uint64_t stripe) const {
  const SilentSlot& slot = hidden.slot;
  if (slot.stripes.count != 0 && !slot.stripes.has(stripe)) return false;
  const uint32_t parities = layout_.parity_roles() & roles_of(stripe, in_sync_ & ~failed_);
  return parities != 0 && (parities & ~roles_of(stripe, slot.unreadable)) == 0;
}

// An older record must not be carried out over it. What is in place is old or new, block by block.
bool RaidParityBdev::may_be_outdone(uint64_t stripe, uint64_t sequence, const FoundLog& found) const {
  return std::any_of(found.hidden.begin(), found.hidden.end(), [&](const HiddenRecord& hidden) {
    return hidden.sequence > sequence && may_name(hidden, stripe);
  });
}

void RaidParityBdev::find_hidden(FoundLog& found) {
  const uint64_t slots = slots_.size();
  for (uint32_t index = 0; index < slots; index++) {
    const SilentSlot& silent = found.silent[index];
    if (silent.unreadable == 0) continue;
    for_each_bit(silent.unreadable, [&](uint32_t member) { unreadable_slots_.emplace_back(member, index); });
    // The only number that a record there can have; it is not given again, if the page should be readable one day.
    const uint64_t sequence = durable_tail_ + (index + slots - durable_tail_ % slots) % slots;
    next_sequence_ = std::max(next_sequence_, sequence + 1);
    if (!found.records.contains(sequence)) found.hidden.push_back({sequence, silent});
  }
}

// Of stripes that such a record may name all data is there: their parity is made right. Where a data strip is missing
// nobody can tell any more what it holds: refused.
Outcome RaidParityBdev::find_doubtful(const FoundLog& found) {
  for (const HiddenRecord& hidden : found.hidden) {
    const bool known = hidden.slot.stripes.count != 0;
    // Of all stripes, each in whose place another one has the same members.
    const StripeRange all{0, std::min<uint64_t>(member_count(), layout_.strip_count)};
    const StripeRange stripes = known ? hidden.slot.stripes : all;
    for (uint64_t stripe = stripes.first; stripe < stripes.end(); stripe++) {
      if (!may_name(hidden, stripe)) continue;
      if ((layout_.data_roles() & ~roles_of(stripe, in_sync_ & ~failed_)) != 0) {
        const auto member = static_cast<uint32_t>(std::countr_zero(hidden.slot.unreadable));
        return Error{Errc::io, info_.name + ": reading the log: " + members_[member].info().name +
                                   " cannot read a page of it, which may be about strips of members that are away"};
      }
      if (!driven_ || bugs_.hidden_ignored) continue;  // of one of its own all parity is made right
      stripes_to_mark_.push_back(known ? StripeRange{stripe, 1} : StripeRange{0, layout_.strip_count});
      if (known) {
        doubtful_.push_back(stripe);
      } else {
        superblock_.doubtful |= 1u << stripe;
      }
    }
  }
  return success();
}

// Whether it is carried out; of those that lack it, what they hold is computed. Of a driven one what some member surely
// lacks was not begun.
Result<bool> RaidParityBdev::weigh(FoundRecord& record, const SilentSlot& silent) {
  const parity::RecordHeader& header = record.header;
  const uint32_t present = roles_of(header.stripe, in_sync_ & ~failed_);
  const uint32_t unreadable = roles_of(header.stripe, silent.unreadable);
  const uint32_t silent_roles = unreadable | roles_of(header.stripe, silent.damaged);
  // Zeroes need nothing that was on that page; but a copy that was torn cannot be told from one that was never there.
  if (header.zeroed_stripes != 0) return !driven_ || (present & ~unreadable & ~record.having()) == 0;
  // Also one that it was not written for: it had failed, and nothing changes in place before it has left.
  const uint32_t wanted = layout_.parity_roles() & present & ~record.having();
  if (wanted == 0) return true;
  const bool surely_lacked = (wanted & ~(silent_roles & header.parity_roles)) != 0;
  record.surely_lacked = surely_lacked;
  if ((driven_ && surely_lacked) || bugs_.skip_incomplete) return false;
  const uint32_t sources = changed_by(header) | (layout_.data_roles() & present) | record.having();
  if (recovery_for(sources, wanted) != nullptr) return true;
  if (surely_lacked || (wanted & unreadable) == 0) return false;
  return Error{Errc::io, info_.name + ": replaying the log: too few copies of a record of stripe " +
                             std::to_string(header.stripe) + " can be read"};
}

uint32_t RaidParityBdev::changed_by(const parity::RecordHeader& header) {
  return ((1u << header.role_count) - 1) << header.first_role;
}

// What is in the log, before anything is written: whether it can be carried out. `record.known` where it is.
Task<Outcome> RaidParityBdev::find_log(FoundLog& found) {
  if (mirrors()) co_return success();  // they log nothing
  auto reading = read_log(found);
  const nvme::Status read = co_await reading;
  if (!read.ok()) co_return Error{Errc::io, info_.name + ": reading the log: " + nvme::to_string(read)};
  find_hidden(found);
  auto told = find_doubtful(found);
  if (!told) co_return told;
  for (auto& [sequence, record] : found.records) {
    auto known = weigh(record, found.silent[sequence % slots_.size()]);
    if (!known) co_return std::move(known).error();
    record.known = *known;
    record.counts = driven_ && *known;
  }
  co_return success();
}

// Applies what may not have been applied.
Task<nvme::Status> RaidParityBdev::replay(FoundLog& found) {
  for (auto& [sequence, record] : found.records) {
    if (!record.known) continue;
    if (record.header.zeroed_stripes == 0 && may_be_outdone(record.header.stripe, sequence, found)) continue;
    auto completing = complete(record);
    nvme::Status status = co_await completing;
    // Nothing has changed in place, and nothing does.
    if (!status.ok() && !driven_ && record.surely_lacked) continue;
    if (status.ok()) {
      auto replaying = replay_record(record, found);
      status = co_await replaying;
    }
    if (!status.ok()) co_return status;
    parity_stats_.replayed_count++;
  }
  co_return nvme::status::success;
}

// A parity member of the set that is here does not have the record. It may never have been durable there, then nothing
// has changed in place; or it was, and has rotted. The other copies tell what that member's parity becomes, and to
// carry the write out is right in both cases; but it gets its copy first, durably: were it cut short, and the members
// that have one lost then, nobody could finish it. Strips beside that cannot be read are computed, too.
Task<nvme::Status> RaidParityBdev::complete(FoundRecord& record) {
  const parity::RecordHeader& header = record.header;
  if (header.zeroed_stripes != 0) co_return nvme::status::success;
  const uint32_t present = roles_of(header.stripe, in_sync_ & ~failed_);
  // Also of one that it was not written for: it had failed, and that it left was not durable yet. Carried out without
  // it, its parity would be believed.
  const uint32_t wanted = layout_.parity_roles() & present & ~record.having();
  if (wanted == 0) co_return nvme::status::success;
  const size_t strip_bytes = size_t{header.column_count} * layout_.block_bytes;
  const size_t page_strip_bytes = align_up(strip_bytes, parity::page_bytes);
  const std::unique_ptr<uint8_t, Workspace::Free> memory(
      static_cast<uint8_t*>(std::aligned_alloc(parity::page_bytes, member_count() * page_strip_bytes)));
  BASALT_ASSERT(memory != nullptr);
  const auto strip = [&](uint32_t role) { return memory.get() + role * page_strip_bytes; };
  const uint32_t changed = changed_by(header);
  uint32_t beside = layout_.data_roles() & present & ~changed;  // the strips that it leaves as they are
  if (beside != 0) {
    Fan reads(member_count(), &phases_);
    for_each_bit(beside, [&](uint32_t role) {
      reads.add(members_[member_of(header.stripe, role)], IoType::read,
                layout_.member_block(header.stripe, header.column), header.column_count, strip(role));
    });
    co_await reads;
    size_t index = 0;
    uint32_t lost = 0;
    nvme::Status failed;
    for_each_bit(beside, [&](uint32_t role) {
      const nvme::Status status = reads.status(index++);
      if (!status.ok()) lost |= 1u << role;
      if (status.type() != nvme::StatusType::media && !status.ok()) failed = status;
    });
    if (!failed.ok()) co_return failed;
    beside &= ~lost;
  }
  const ParityCodec::Recovery* recovery = recovery_for(changed | beside | record.having(), wanted);
  if (recovery == nullptr) co_return nvme::status::unrecovered_read_error;
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
  if (bugs_.copies_not_restored) co_return nvme::status::success;
  auto restoring = restore_copies(record, wanted);
  co_return co_await restoring;
}

Task<nvme::Status> RaidParityBdev::restore_copies(const FoundRecord& record, uint32_t roles) {
  const parity::RecordHeader& header = record.header;
  const uint64_t page = parity::log_first_page + header.sequence % slots_.size() * superblock_.log_slot_pages;
  const uint64_t pages = 1 + (header.payload_bytes + parity::page_bytes - 1) / parity::page_bytes;
  const uint64_t blocks = (parity::page_bytes + header.payload_bytes) / layout_.block_bytes;
  const PageMemory memory(pages);
  for (uint32_t left = roles; left != 0; left &= left - 1) {
    const auto role = static_cast<uint32_t>(std::countr_zero(left));
    const std::vector<uint8_t>& parity = record.parity.at(role);
    uint8_t* payload = memory.page(1);
    std::memcpy(payload, record.data.data(), record.data.size());
    std::memcpy(payload + record.data.size(), parity.data(), parity.size());
    parity::RecordHeader copy = header;
    copy.parity_role = static_cast<uint8_t>(role);
    copy.parity_roles |= 1u << role;
    copy.payload_crc32c = crc32c(0, payload, header.payload_bytes);
    parity::seal(&copy);
    std::memcpy(memory.page(0), &copy, sizeof(copy));
    Fan write(1, &phases_);
    write.add(members_[member_of(header.stripe, role)], IoType::write, page * page_factor(), blocks, memory.page(0),
              true);
    co_await write;
    if (!write.status(0).ok()) co_return write.status(0);
  }
  co_return nvme::status::success;
}

// What could not be read is done with: overwritten, it is no matter for the next one who opens it.
Task<void> RaidParityBdev::blank_unreadable_slots() {
  for (const auto& [member, index] : std::exchange(unreadable_slots_, {})) {
    const uint64_t page = parity::log_first_page + uint64_t{index} * superblock_.log_slot_pages;
    Fan writes(superblock_.log_slot_pages, &phases_);
    for (uint64_t i = 0; i < superblock_.log_slot_pages; i++)
      writes.add(members_[member], IoType::write, (page + i) * page_factor(), page_factor(), lists_->zeroes.get());
    co_await writes;
  }
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

Task<nvme::Status> RaidParityBdev::replay_record(FoundRecord& record, const FoundLog& log) {
  const parity::RecordHeader& header = record.header;
  const FoundRecords& found = log.records;
  if (header.zeroed_stripes != 0) {
    auto zeroing = replay_zeroes(record, log);
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
Task<nvme::Status> RaidParityBdev::replay_zeroes(const FoundRecord& record, const FoundLog& log) {
  const FoundRecords& found = log.records;
  const StripeRange all = parity::stripes_of(record.header);
  const uint64_t run_max = (UINT32_MAX - layout_.strip_blocks) / layout_.strip_blocks;
  for (uint64_t stripe = all.first; stripe < all.end();) {
    const auto outdone = [&](uint64_t one) { return may_be_outdone(one, record.header.sequence, log); };
    if (outdone(stripe)) {
      stripe++;
      continue;
    }
    uint64_t run_end = std::min(all.end(), stripe + run_max);
    if (!log.hidden.empty()) {
      uint64_t end = stripe + 1;
      while (end < run_end && !outdone(end))
        end++;
      run_end = end;
    }
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
