// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/checksum_replay.h"

#include <algorithm>

#include "base/crc32c.h"

namespace basalt::bdev::lvs {
namespace {

constexpr size_t sector_bytes = 512;  // what a disk keeps or loses as a whole

}  // namespace

ChecksumLogImage::ChecksumLogImage(const ChecksumArea& area)
    : area_(area), memory_(area.log_blocks()), unreadable_(area.log_blocks()) {}

// A record of this log that belongs to this place, or nullptr. Its data may have rotted.
const ChecksumRecord* ChecksumLogImage::record_at(const Start& start, uint64_t position) {
  if (!readable(position)) return nullptr;
  const auto* record = reinterpret_cast<const ChecksumRecord*>(block(position));
  const bool whole =
      block_matches(record, BlockType::checksum_record, start.store_uuid, area_.log_base_block(position)) &&
      record->nonce == start.nonce && record->header.index == position && record->block_count > 0 &&
      record->block_count < area_.left_in_cluster(position) && record->block_count <= checksum_record_blocks_max;
  return whole ? record : nullptr;
}

// One record is on its way at a time, and stable before the next one begins. So whatever is missing before one that is
// there has been lost; what is missing at the end was never acknowledged, or cannot be told from that.
Result<ChecksumLogContents> ChecksumLogImage::read(const Start& start) {
  ChecksumLogContents out;
  out.next_sequence = start.sequence;
  out.end_position = start.position;
  const uint64_t limit = start.position + area_.log_blocks();
  bool last_whole = true;
  while (out.end_position < limit) {
    const ChecksumRecord* record = nullptr;
    uint64_t position = out.end_position;
    for (; position < limit; position++) {
      record = record_at(start, position);
      if (record != nullptr && record->header.owner >= out.next_sequence && position + record->block_count < limit)
        break;
      record = nullptr;
    }
    if (record == nullptr) break;
    if (record->header.generation > start.generation)
      return corrupt("the log of the checksums is newer than every intact superblock of theirs");
    if (record->header.owner > out.next_sequence) {
      out.lost_count += record->header.owner - out.next_sequence;
      out.lost_sequence = record->header.owner - 1;
    }
    out.lost_count += last_whole ? 0 : 1;
    for (uint32_t i = 0; i < record->block_count; i++) {
      if (!area_.holds(record->blocks[i])) return corrupt("the log of the checksums names a block that is none");
    }
    last_whole = take(*record, position, out);
    out.next_sequence = record->header.owner + 1;
    out.end_position = position + 1 + record->block_count;
  }
  // The next one would follow, or begin the next cluster.
  const uint64_t end = out.end_position;
  const uint64_t next_cluster = end + area_.left_in_cluster(end);
  const bool perhaps_more = (end < limit && !readable(end)) || (next_cluster < limit && !readable(next_cluster));
  if (perhaps_more) {
    out.lost_count++;
    out.lost_sequence = out.next_sequence++;
  } else if (!last_whole) {
    for (auto entry = out.blocks.begin(); entry != out.blocks.end();) {
      std::vector<ChecksumLogContents::Version>& versions = entry->second;
      if (versions.back().sequence + 1 == out.next_sequence && versions.back().data == nullptr) {
        out.perhaps[entry->first] = versions.back().tag;
        versions.pop_back();
      }
      entry = versions.empty() ? out.blocks.erase(entry) : std::next(entry);
    }
  }
  return out;
}

// False: some of its data has rotted. A tag that differs from the data's checksum is that of a damaged block which was
// copied as it was; it counts where the data is what was written.
bool ChecksumLogImage::take(const ChecksumRecord& record, uint64_t position, ChecksumLogContents& out) {
  uint32_t crcs[checksum_record_blocks_max] = {};
  bool all_readable = true;
  for (uint32_t i = 0; i < record.block_count; i++) {
    const bool can = readable(position + 1 + i);
    if (can) crcs[i] = crc32c(0, block(position + 1 + i), block_bytes);
    all_readable &= can;
  }
  const bool whole =
      all_readable && crc32c(0, crcs, size_t{record.block_count} * sizeof(uint32_t)) == record.data_crc32c;
  for (uint32_t i = 0; i < record.block_count; i++) {
    const bool right = whole || (readable(position + 1 + i) && crcs[i] == record.tags[i]);
    out.blocks[record.blocks[i]].push_back(
        {record.header.owner, record.tags[i], right ? block(position + 1 + i) : nullptr});
  }
  return whole;
}

ChecksumLogContents::Judgement ChecksumLogContents::judge(uint64_t block, const uint8_t* place,
                                                          uint32_t page_tag) const {
  const uint32_t found = place == nullptr ? 0 : crc32c(0, place, block_bytes);
  if (const auto maybe = perhaps.find(block); maybe != perhaps.end() && place != nullptr && found == maybe->second)
    return {Verdict::tag, maybe->second};
  const auto entry = blocks.find(block);
  if (entry == blocks.end()) return {Verdict::as_it_is};
  const Version& newest = entry->second.back();
  const bool in_place = place != nullptr && (newest.data != nullptr ? std::memcmp(place, newest.data, block_bytes) == 0
                                                                    : found == newest.tag);
  if (in_place) return {Verdict::tag, newest.tag};
  if (newest.sequence <= lost_sequence) {
    // Something newer may have been lost. What was promised of it is in place.
    const bool agrees = place == nullptr || found == page_tag;
    return agrees ? Judgement{Verdict::as_it_is} : Judgement{Verdict::tag, newest.tag};
  }
  if (newest.data == nullptr) return {Verdict::tag, newest.tag};
  const bool hidden = place != nullptr && found != page_tag && foreign(entry->second, place, page_tag);
  return {hidden ? Verdict::tag : Verdict::write, newest.tag};
}

// Whether something else was written there than what the log knows and what was there before it: by a record at the
// end that has rotted. A power cut leaves sectors of what is known; and zeroes, where it was the first write.
bool ChecksumLogContents::foreign(const std::vector<Version>& versions, const uint8_t* place, uint32_t page_tag) {
  // A page that was written while the log was being trimmed no longer says what was there before.
  if (std::any_of(versions.begin(), versions.end(), [&](const Version& one) { return one.tag == page_tag; }))
    return false;
  if (std::all_of(place, place + block_bytes, [](uint8_t byte) { return byte == 0; })) return false;
  for (size_t at = 0; at < block_bytes; at += sector_bytes) {
    for (const Version& version : versions) {
      if (version.data == nullptr || std::memcmp(place + at, version.data + at, sector_bytes) == 0) return false;
    }
  }
  return true;
}

}  // namespace basalt::bdev::lvs
