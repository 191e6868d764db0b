// SPDX-License-Identifier: Apache-2.0
// Any bytes as a one-writer gate's record: it is refused, or it is exactly what encoding its meaning gives.
#include "base/bytes.h"
#include "base/crc32c.h"
#include "ns/gate_record.h"
#include "testing/fuzz_target.h"

namespace basalt::ns {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  const bool repair = (input.u8() & 1) != 0;
  const auto rest = input.rest();
  std::string attribute(rest.begin(), rest.end());
  if (repair && attribute.size() >= 48) store_le<uint32_t>(attribute.data() + 44, crc32c(0, attribute.data(), 44));
  const auto record = decode_gate(attribute);
  const auto epoch = highest_epoch(attribute);
  BASALT_ASSERT(record.ok() == epoch.ok());
  if (!record.ok()) {
    BASALT_ASSERT(record.error().code == Errc::corrupt);
    return;
  }
  if (attribute.empty()) return;
  const auto note = decode_note(attribute);
  BASALT_ASSERT(note.ok());
  const std::string encoded = encode_gate(record.value(), note.value());
  BASALT_ASSERT(encoded.size() == attribute.size() && decode_note(encoded).value() == note.value());
  const auto again = decode_gate(encoded);
  BASALT_ASSERT(again.ok() && again.value().highest_epoch == epoch.value() &&
                again.value().holder == record.value().holder && again.value().holder_key == record.value().holder_key);
}

std::vector<FuzzSeed> seeds() {
  GateRecord record;
  record.highest_epoch = 7;
  record.holder.bytes[3] = 9;
  record.holder_key = 7;
  const std::string held = encode_gate(record);
  const std::string fresh = encode_gate({});
  const std::string noted = encode_gate(record, "a note");
  return {{"noted", FuzzOutput().u8(0).add(noted).bytes()},
          {"noted-repaired", FuzzOutput().u8(1).add(noted).bytes()},
          {"noted-cut", FuzzOutput().u8(0).add(noted.substr(0, 60)).bytes()},
          {"held", FuzzOutput().u8(0).add(held).bytes()},
          {"held-repaired", FuzzOutput().u8(1).add(held).bytes()},
          {"short", FuzzOutput().u8(0).add(held.substr(0, 20)).bytes()},
          {"changed", FuzzOutput().u8(0).add(held.substr(0, 10) + "x" + held.substr(11)).bytes()},
          {"other", FuzzOutput().u8(0).add("x" + held.substr(1)).bytes()},
          {"fresh", FuzzOutput().u8(0).add(fresh).bytes()},
          {"empty", FuzzBytes{}}};
}

BASALT_FUZZ_TARGET(gate_record, run, seeds)

}  // namespace
}  // namespace basalt::ns
