// SPDX-License-Identifier: Apache-2.0
#include "ns/gate_record.h"

#include <cstring>

#include "base/bytes.h"
#include "base/crc32c.h"

namespace basalt::ns {
namespace {
constexpr char magic[] = "BASGATE1";
constexpr size_t magic_bytes = 8;
constexpr size_t crc_offset = 44;
constexpr size_t record_bytes = 48;
}  // namespace

std::string encode_gate(const GateRecord& record) {
  std::string out(record_bytes, '\0');
  char* bytes = out.data();
  std::memcpy(bytes, magic, magic_bytes);
  store_le<uint64_t>(bytes + 8, record.highest_epoch);
  std::memcpy(bytes + 16, record.holder.bytes.data(), 16);
  store_le<uint64_t>(bytes + 32, record.holder_key);
  store_le<uint32_t>(bytes + crc_offset, crc32c(0, bytes, crc_offset));
  return out;
}

Result<GateRecord> decode_gate(std::string_view attribute) {
  if (attribute.empty()) return GateRecord{};
  const char* bytes = attribute.data();
  if (attribute.size() != record_bytes || std::memcmp(bytes, magic, magic_bytes) != 0) {
    return Error{Errc::corrupt, "the attribute is not a one-writer gate record of a known version"};
  }
  if (load_le<uint32_t>(bytes + crc_offset) != crc32c(0, bytes, crc_offset)) {
    return Error{Errc::corrupt, "the one-writer gate record has a wrong checksum"};
  }
  GateRecord record;
  record.highest_epoch = load_le<uint64_t>(bytes + 8);
  std::memcpy(record.holder.bytes.data(), bytes + 16, 16);
  record.holder_key = load_le<uint64_t>(bytes + 32);
  return record;
}

Result<uint64_t> highest_epoch(std::string_view attribute) {
  auto record = decode_gate(attribute);
  if (!record) return std::move(record).error();
  return record->highest_epoch;
}

}  // namespace basalt::ns
