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
  // From here on only in stores with incompatible_layers.
  snapshot = 9,  // the layer becomes read-only under a new name; a new one with the old name goes on above it
  clone = 10,    // a new lvol above a read-only layer
  resize = 11,
  rename = 12,
  set_flags = 13,
  fold = 14,      // a range of clusters of a hidden layer goes to its only child
  splice = 15,    // an empty hidden layer goes; its child is its parent's
  reparent = 16,  // the layer no longer needs its parent: 0, or the parent's parent
  // Only in stores with incompatible_checksums.
  checksum_area = 17,  // a layer of this size, whose clusters hold the tags
};

struct Record {
  RecordType type;
  uint32_t lvol_id = 0;
  uint32_t cluster = 0;   // map, zero: logical; unmap, fold: first logical; reserve, clean: first physical
  uint32_t count = 0;     // map, zero: blocks; else clusters
  uint32_t physical = 0;  // map
  uint32_t first_block = 0;
  uint64_t size_bytes = 0;  // lvol_create, resize, checksum_area
  Uuid uuid;                // lvol_create, clone, snapshot: of the snapshot
  std::string_view text;    // lvol_create, clone, rename: name; snapshot: its name; attribute: value
  uint32_t other_id = 0;    // snapshot: of the new head; clone, reparent: of the parent
  uint32_t flags = 0;       // snapshot: of the snapshot; set_flags: all of them from now on
};

constexpr uint32_t map_record_bytes = 24;
constexpr uint32_t record_bytes_max = 8 + 8 + 1024;

// Writes the record (text: at most 1024 bytes) and returns its length.
uint32_t encode_record(const Record& record, uint8_t* out);
// Reads one; returns its length, or 0 when the bytes are not a record of this version.
uint32_t decode_record(const uint8_t* bytes, uint32_t available_bytes, Record& record);

}  // namespace basalt::bdev::lvs
