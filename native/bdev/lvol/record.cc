// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/record.h"

#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"

namespace basalt::bdev::lvs {
namespace {

constexpr uint32_t text_bytes_max = 1024;

uint32_t put_text(uint8_t* at, std::string_view text) {
  BASALT_ASSERT(text.size() <= text_bytes_max);
  const auto padded = static_cast<uint32_t>(align_up(text.size(), 8));
  store_le<uint64_t>(at, text.size());
  std::memset(at + 8, 0, padded);
  if (!text.empty()) std::memcpy(at + 8, text.data(), text.size());
  return 8 + padded;
}

bool get_text(const uint8_t* at, uint32_t available_bytes, std::string_view& text) {
  if (available_bytes < 8) return false;
  const uint64_t length = load_le<uint64_t>(at);
  if (length > text_bytes_max || align_up(length, 8) != available_bytes - 8) return false;
  text = {reinterpret_cast<const char*>(at + 8), static_cast<size_t>(length)};
  return true;
}

}  // namespace

uint32_t encode_record(const Record& record, uint8_t* out) {
  uint32_t length = 8;
  switch (record.type) {
    case RecordType::lvol_create:
      store_le(out + 8, record.size_bytes);
      std::memcpy(out + 16, record.uuid.bytes.data(), 16);
      length = 32 + put_text(out + 32, record.text);
      break;
    case RecordType::lvol_delete:
      break;
    case RecordType::attribute:
      length = 8 + put_text(out + 8, record.text);
      break;
    case RecordType::map:
    case RecordType::zero:
      store_le(out + 8, record.cluster);
      store_le(out + 12, record.physical);
      store_le(out + 16, record.first_block);
      store_le(out + 20, record.count);
      length = map_record_bytes;
      break;
    case RecordType::snapshot:
    case RecordType::clone:
      store_le(out + 8, record.other_id);
      store_le(out + 12, record.flags);
      std::memcpy(out + 16, record.uuid.bytes.data(), 16);
      length = 32 + put_text(out + 32, record.text);
      break;
    case RecordType::resize:
    case RecordType::checksum_area:
      store_le(out + 8, record.size_bytes);
      length = 16;
      break;
    case RecordType::rename:
      length = 8 + put_text(out + 8, record.text);
      break;
    case RecordType::set_flags:
    case RecordType::reparent:
      store_le(out + 8, record.type == RecordType::reparent ? record.other_id : record.flags);
      store_le(out + 12, uint32_t{0});
      length = 16;
      break;
    case RecordType::splice:
      break;
    case RecordType::unmap:
    case RecordType::fold:
    case RecordType::reserve:
    case RecordType::clean:
      store_le(out + 8, record.cluster);
      store_le(out + 12, record.count);
      length = 16;
      break;
  }
  store_le(out, static_cast<uint16_t>(record.type));
  store_le(out + 2, static_cast<uint16_t>(length));
  store_le(out + 4, record.lvol_id);
  return length;
}

uint32_t decode_record(const uint8_t* bytes, uint32_t available_bytes, Record& record) {
  if (available_bytes < 8) return 0;
  const uint32_t length = load_le<uint16_t>(bytes + 2);
  if (length < 8 || length % 8 != 0 || length > available_bytes) return 0;
  record = {};
  record.type = static_cast<RecordType>(load_le<uint16_t>(bytes));
  record.lvol_id = load_le<uint32_t>(bytes + 4);
  switch (record.type) {
    case RecordType::lvol_create:
      if (length < 40) return 0;
      record.size_bytes = load_le<uint64_t>(bytes + 8);
      std::memcpy(record.uuid.bytes.data(), bytes + 16, 16);
      return get_text(bytes + 32, length - 32, record.text) ? length : 0;
    case RecordType::lvol_delete:
    case RecordType::splice:
      return length == 8 ? length : 0;
    case RecordType::attribute:
    case RecordType::rename:
      return get_text(bytes + 8, length - 8, record.text) ? length : 0;
    case RecordType::snapshot:
    case RecordType::clone:
      if (length < 40) return 0;
      record.other_id = load_le<uint32_t>(bytes + 8);
      record.flags = load_le<uint32_t>(bytes + 12);
      std::memcpy(record.uuid.bytes.data(), bytes + 16, 16);
      return get_text(bytes + 32, length - 32, record.text) ? length : 0;
    case RecordType::resize:
    case RecordType::checksum_area:
      if (length != 16) return 0;
      record.size_bytes = load_le<uint64_t>(bytes + 8);
      return length;
    case RecordType::set_flags:
    case RecordType::reparent:
      if (length != 16) return 0;
      record.flags = record.other_id = load_le<uint32_t>(bytes + 8);
      return length;
    case RecordType::map:
    case RecordType::zero:
      if (length != map_record_bytes) return 0;
      record.cluster = load_le<uint32_t>(bytes + 8);
      record.physical = load_le<uint32_t>(bytes + 12);
      record.first_block = load_le<uint32_t>(bytes + 16);
      record.count = load_le<uint32_t>(bytes + 20);
      return length;
    case RecordType::unmap:
    case RecordType::fold:
    case RecordType::reserve:
    case RecordType::clean:
      if (length != 16) return 0;
      record.cluster = load_le<uint32_t>(bytes + 8);
      record.count = load_le<uint32_t>(bytes + 12);
      return length;
  }
  return 0;
}

}  // namespace basalt::bdev::lvs
