// SPDX-License-Identifier: Apache-2.0
#include "ns/gate_record.h"

#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "bdev/bdev.h"
#include "nvme/spec.h"

namespace basalt::ns {
namespace {
constexpr char magic[] = "BASGATE1";
constexpr size_t magic_bytes = 8;
constexpr size_t crc_offset = 44;
constexpr size_t record_bytes = 48;
constexpr char note_magic[] = "BASNOTE1";
constexpr size_t note_crc_offset = 12;
constexpr size_t note_header_bytes = 16;
static_assert(record_bytes + note_header_bytes + nvme::note_bytes_max <= bdev::Bdev::attribute_bytes_max);

uint32_t note_crc(const char* header, std::string_view note) {
  return crc32c(crc32c(0, header, note_crc_offset), note.data(), note.size());
}

// What follows the gate's record; the note in it is `out`.
bool read_note(std::string_view rest, std::string_view* out) {
  *out = {};
  if (rest.empty()) return true;
  if (rest.size() <= note_header_bytes || std::memcmp(rest.data(), note_magic, magic_bytes) != 0) return false;
  const std::string_view note = rest.substr(note_header_bytes);
  if (note.size() > nvme::note_bytes_max || load_le<uint32_t>(rest.data() + magic_bytes) != note.size()) return false;
  if (load_le<uint32_t>(rest.data() + note_crc_offset) != note_crc(rest.data(), note)) return false;
  *out = note;
  return true;
}
}  // namespace

std::string encode_gate(const GateRecord& record, std::string_view note) {
  BASALT_ASSERT(note.size() <= nvme::note_bytes_max);
  const size_t rest_bytes = note.empty() ? 0 : note_header_bytes + note.size();
  std::string out(record_bytes + rest_bytes, '\0');
  char* bytes = out.data();
  std::memcpy(bytes, magic, magic_bytes);
  store_le<uint64_t>(bytes + 8, record.highest_epoch);
  std::memcpy(bytes + 16, record.holder.bytes.data(), 16);
  store_le<uint64_t>(bytes + 32, record.holder_key);
  store_le<uint32_t>(bytes + crc_offset, crc32c(0, bytes, crc_offset));
  if (note.empty()) return out;
  char* header = bytes + record_bytes;
  std::memcpy(header, note_magic, magic_bytes);
  store_le<uint32_t>(header + magic_bytes, static_cast<uint32_t>(note.size()));
  store_le<uint32_t>(header + note_crc_offset, note_crc(header, note));
  std::memcpy(header + note_header_bytes, note.data(), note.size());
  return out;
}

Result<GateRecord> decode_gate(std::string_view attribute) {
  if (attribute.empty()) return GateRecord{};
  const char* bytes = attribute.data();
  if (attribute.size() < record_bytes || std::memcmp(bytes, magic, magic_bytes) != 0) {
    return Error{Errc::corrupt, "the attribute is not a one-writer gate record of a known version"};
  }
  if (load_le<uint32_t>(bytes + crc_offset) != crc32c(0, bytes, crc_offset)) {
    return Error{Errc::corrupt, "the one-writer gate record has a wrong checksum"};
  }
  std::string_view note;
  if (!read_note(attribute.substr(record_bytes), &note)) {
    return Error{Errc::corrupt, "what follows the one-writer gate record is no note of a known version"};
  }
  GateRecord record;
  record.highest_epoch = load_le<uint64_t>(bytes + 8);
  std::memcpy(record.holder.bytes.data(), bytes + 16, 16);
  record.holder_key = load_le<uint64_t>(bytes + 32);
  return record;
}

Result<std::string> decode_note(std::string_view attribute) {
  auto record = decode_gate(attribute);
  if (!record) return std::move(record).error();
  std::string_view note;
  if (!attribute.empty()) BASALT_ASSERT(read_note(attribute.substr(record_bytes), &note));
  return std::string(note);
}

Result<uint64_t> highest_epoch(std::string_view attribute) {
  auto record = decode_gate(attribute);
  if (!record) return std::move(record).error();
  return record->highest_epoch;
}

}  // namespace basalt::ns
