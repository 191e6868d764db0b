// SPDX-License-Identifier: Apache-2.0
// Writes PDU headers, with their header digest when negotiated. Each function returns how many bytes it wrote: data
// (and its digest, data_digest()) follow right behind, without padding. `out` has room for encoded_header_bytes_max.
// Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/iovec.h"
#include "nvmf/pdu/pdu.h"

namespace basalt::nvmf::pdu {

constexpr size_t encoded_header_bytes_max = sizeof(TermRequest) + term_data_bytes_max;
constexpr size_t encoded_small_header_bytes_max = sizeof(CapsuleCommand) + digest_bytes;  // all but IC and Term

size_t encode_ic_request(uint8_t* out, Digests digests, uint32_t maxr2t_zero_based);
size_t encode_ic_response(uint8_t* out, Digests digests, uint32_t maxh2cdata_bytes);
// `type` is one of the two termination requests; at most term_data_bytes_max of the wrong header are quoted.
size_t encode_term_request(uint8_t* out, Type type, ProtocolError error, const uint8_t* wrong, size_t wrong_bytes);
size_t encode_capsule_command(uint8_t* out, Digests digests, const nvme::Command& command, uint32_t data_bytes);
size_t encode_capsule_response(uint8_t* out, Digests digests, const nvme::Completion& completion);

struct DataFields {
  uint16_t cccid = 0;
  uint16_t ttag = 0;  // H2CData
  uint32_t offset_bytes = 0;
  uint32_t length_bytes = 0;
  bool last = false;
  bool success = false;  // C2HData
};
size_t encode_h2c_data(uint8_t* out, Digests digests, const DataFields& fields);
size_t encode_c2h_data(uint8_t* out, Digests digests, const DataFields& fields);

struct R2tFields {
  uint16_t cccid = 0;
  uint16_t ttag = 0;
  uint32_t offset_bytes = 0;
  uint32_t length_bytes = 0;
};
size_t encode_r2t(uint8_t* out, Digests digests, const R2tFields& fields);

// CRC32C of the pieces, continuing from `crc` (0 to start); on the wire it is stored little-endian.
uint32_t data_digest(uint32_t crc, const Iovec* iov, size_t count);

}  // namespace basalt::nvmf::pdu
