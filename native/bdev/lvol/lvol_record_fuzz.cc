// SPDX-License-Identifier: Apache-2.0
// Any bytes as journal records: what is decoded stays within them, and encoding its meaning decodes to the same.
#include "bdev/lvol/record.h"

#include <cstring>

#include "testing/fuzz_target.h"

namespace basalt::bdev::lvs {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzSeed;

bool same(const Record& a, const Record& b) {
  return a.type == b.type && a.lvol_id == b.lvol_id && a.cluster == b.cluster && a.count == b.count &&
         a.physical == b.physical && a.first_block == b.first_block && a.size_bytes == b.size_bytes &&
         a.uuid == b.uuid && a.text == b.text && a.other_id == b.other_id && a.flags == b.flags;
}

void run(std::span<const uint8_t> bytes) {
  // Exactly as long as the bytes, so that reading one further is seen.
  const std::vector<uint8_t> journal(bytes.begin(), bytes.end());
  uint32_t at = 0;
  while (at < journal.size()) {
    Record record;
    const auto left = static_cast<uint32_t>(journal.size() - at);
    const uint32_t length = decode_record(journal.data() + at, left, record);
    if (length == 0) return;
    BASALT_ASSERT(length <= left && length % 8 == 0);
    uint8_t again[record_bytes_max + 64];
    Record twice;
    const uint32_t encoded = encode_record(record, again);
    BASALT_ASSERT(encoded == length && decode_record(again, encoded, twice) == length && same(record, twice));
    at += length;
  }
}

std::vector<FuzzSeed> seeds() {
  const Record records[] = {
      {.type = RecordType::lvol_create, .lvol_id = 1, .size_bytes = 1 << 20, .text = "alpha"},
      {.type = RecordType::lvol_delete, .lvol_id = 1},
      {.type = RecordType::attribute, .lvol_id = 2, .text = "an attribute"},
      {.type = RecordType::map, .lvol_id = 1, .cluster = 3, .count = 4, .physical = 5, .first_block = 6},
      {.type = RecordType::zero, .lvol_id = 1, .cluster = 3, .count = 4, .first_block = 2},
      {.type = RecordType::unmap, .lvol_id = 1, .cluster = 3, .count = 1},
      {.type = RecordType::reserve, .cluster = 8, .count = 2},
      {.type = RecordType::clean, .cluster = 8, .count = 2},
      {.type = RecordType::snapshot, .lvol_id = 1, .text = "s", .other_id = 2, .flags = 3},
      {.type = RecordType::clone, .lvol_id = 3, .text = "c", .other_id = 1},
      {.type = RecordType::resize, .lvol_id = 3, .size_bytes = 1 << 21},
      {.type = RecordType::rename, .lvol_id = 3, .text = "d"},
      {.type = RecordType::set_flags, .lvol_id = 3, .flags = 1},
      {.type = RecordType::fold, .lvol_id = 3, .cluster = 1, .count = 2},
      {.type = RecordType::splice, .lvol_id = 3},
      {.type = RecordType::reparent, .lvol_id = 3, .other_id = 1},
  };
  std::vector<FuzzSeed> out;
  FuzzBytes all;
  for (const Record& record : records) {
    FuzzBytes bytes(record_bytes_max);
    bytes.resize(encode_record(record, bytes.data()));
    all.insert(all.end(), bytes.begin(), bytes.end());
    out.push_back({"type-" + std::to_string(static_cast<int>(record.type)), bytes});
  }
  out.push_back({"all", all});
  return out;
}

BASALT_FUZZ_TARGET(lvol_record, run, seeds)

}  // namespace
}  // namespace basalt::bdev::lvs
