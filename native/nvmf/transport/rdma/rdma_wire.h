// SPDX-License-Identifier: Apache-2.0
// What NVMe/RDMA puts into the connection manager's private data and into SGL descriptors (NVM Express RDMA Transport
// Specification): little-endian, sizes asserted. Pure data; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/bytes.h"
#include "nvme/spec.h"

namespace basalt::nvmf::rdma {

constexpr uint16_t record_format = 0;  // RECFMT, the only one

// With the connection request. Sizes as the host counts them: HRQSIZE entries, HSQSIZE zero-based.
struct RequestData {
  uint16_t recfmt;
  uint16_t qid;
  uint16_t hrqsize;
  uint16_t hsqsize;
  uint16_t cntlid;
  uint8_t reserved[22];
};
static_assert(sizeof(RequestData) == 32 && offsetof(RequestData, cntlid) == 8);

struct AcceptData {
  uint16_t recfmt;
  uint16_t crqsize;
  uint8_t reserved[28];
};
static_assert(sizeof(AcceptData) == 32);

struct RejectData {
  uint16_t recfmt;
  uint16_t status;
};
static_assert(sizeof(RejectData) == 4);

enum class RejectStatus : uint16_t {
  none = 0,
  invalid_private_data_length = 1,
  invalid_recfmt = 2,
  invalid_qid = 3,
  invalid_hsqsize = 4,
  invalid_hrqsize = 5,
  no_resources = 6,
  invalid_ird = 7,
  invalid_ord = 8,
  invalid_cntlid = 9,
};
inline const char* reject_text(uint16_t status) {
  switch (static_cast<RejectStatus>(status)) {
    case RejectStatus::none:
      break;
    case RejectStatus::invalid_private_data_length:
      return "private data of a wrong length";
    case RejectStatus::invalid_recfmt:
      return "an unknown format of private data";
    case RejectStatus::invalid_qid:
      return "a wrong queue identifier";
    case RejectStatus::invalid_hsqsize:
      return "a wrong send queue size";
    case RejectStatus::invalid_hrqsize:
      return "a wrong receive queue size";
    case RejectStatus::no_resources:
      return "no resources";
    case RejectStatus::invalid_ird:
      return "a wrong inbound read depth";
    case RejectStatus::invalid_ord:
      return "a wrong outbound read depth";
    case RejectStatus::invalid_cntlid:
      return "a wrong controller identifier";
  }
  return "an unknown status";
}

// Private data may arrive padded, never shorter. False: shorter.
template <class T>
bool read_private_data(std::span<const uint8_t> bytes, T* out) {
  if (bytes.size() < sizeof(T)) return false;
  std::memcpy(out, bytes.data(), sizeof(T));
  return true;
}
template <class T>
std::span<const uint8_t> private_bytes(const T& data) {
  return {reinterpret_cast<const uint8_t*>(&data), sizeof(T)};
}

// Keyed SGL Data Block descriptor: the command's data in the host's memory.
constexpr uint8_t sgl_keyed = 0x40;             // subtype 0: address
constexpr uint8_t sgl_keyed_invalidate = 0x4f;  // and the key is invalidated with the response
constexpr uint32_t keyed_bytes_max = (1u << 24) - 1;

struct KeyedSgl {
  uint64_t address = 0;
  uint32_t length_bytes = 0;  // 24 bits
  uint32_t key = 0;
  bool invalidate = false;
};
inline nvme::SglDescriptor encode_keyed(const KeyedSgl& keyed) {
  uint8_t bytes[sizeof(nvme::SglDescriptor)];
  store_le<uint64_t>(bytes, keyed.address);
  store_le<uint32_t>(bytes + 8, keyed.length_bytes);
  store_le<uint32_t>(bytes + 11, keyed.key);
  bytes[15] = keyed.invalidate ? sgl_keyed_invalidate : sgl_keyed;
  nvme::SglDescriptor out;
  std::memcpy(&out, bytes, sizeof(out));
  return out;
}
inline KeyedSgl decode_keyed(const nvme::SglDescriptor& sgl) {
  uint8_t bytes[sizeof(sgl)];
  std::memcpy(bytes, &sgl, sizeof(sgl));
  KeyedSgl out;
  out.address = load_le<uint64_t>(bytes);
  out.length_bytes = load_le<uint32_t>(bytes + 8) & keyed_bytes_max;
  out.key = load_le<uint32_t>(bytes + 11);
  out.invalidate = bytes[15] == sgl_keyed_invalidate;
  return out;
}

}  // namespace basalt::nvmf::rdma
