// SPDX-License-Identifier: Apache-2.0
// Journal records: what changed, in absolute terms, so that replaying one twice gives the same. A record is
// {type u16, length u16 (all of it, a multiple of 8), lvol id u32} and a body.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/uuid.h"

namespace basalt::bdev::lvs {

enum class RecordType : uint16_t {
  lvol_create = 1,
  lvol_delete = 2,
  attribute = 3,
  map = 4,      // logical cluster -> physical, and blocks of it are data
  zero = 5,     // blocks of a cluster are zero
  unmap = 6,    // a range of logical clusters is not allocated any more
  reserve = 7,  // physical clusters may be written from now on: not known to be zero
  clean = 8,    // physical clusters were zeroed and flushed
};

struct Record {
  RecordType type;
  uint32_t lvol_id = 0;
  uint32_t cluster = 0;   // map, zero: logical; unmap: first logical; reserve, clean: first physical
  uint32_t count = 0;     // map, zero: blocks; else clusters
  uint32_t physical = 0;  // map
  uint32_t first_block = 0;
  uint64_t size_bytes = 0;  // lvol_create
  Uuid uuid;                // lvol_create
  std::string_view text;    // lvol_create: name; attribute: value
};

constexpr uint32_t map_record_bytes = 24;
constexpr uint32_t record_bytes_max = 8 + 8 + 1024;

// Writes the record (text: at most 1024 bytes) and returns its length.
uint32_t encode_record(const Record& record, uint8_t* out);
// Reads one; returns its length, or 0 when the bytes are not a record of this version.
uint32_t decode_record(const uint8_t* bytes, uint32_t available_bytes, Record& record);

}  // namespace basalt::bdev::lvs
