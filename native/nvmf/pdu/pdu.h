// SPDX-License-Identifier: Apache-2.0
// The PDUs of NVMe/TCP as they travel (NVM Express TCP Transport Specification): little-endian, sizes and offsets
// asserted. decoder.h reads them from any byte stream, encoder.h writes them. Pure data; any thread.
//
//   header (HLEN bytes) | header digest (4, when negotiated) | pad up to PDO | data | data digest (4, when negotiated)
#pragma once

#include <cstddef>
#include <cstdint>

#include "nvme/spec.h"

namespace basalt::nvmf::pdu {

enum class Type : uint8_t {
  ic_request = 0x00,
  ic_response = 0x01,
  h2c_term_request = 0x02,
  c2h_term_request = 0x03,
  capsule_command = 0x04,
  capsule_response = 0x05,
  h2c_data = 0x06,
  c2h_data = 0x07,
  r2t = 0x09,
};

constexpr uint8_t flag_header_digest = 0x01;
constexpr uint8_t flag_data_digest = 0x02;
constexpr uint8_t flag_last = 0x04;     // H2CData, C2HData: the last of this R2T or command
constexpr uint8_t flag_success = 0x08;  // C2HData: stands for a successful response capsule; only with flag_last

// Fatal error status of a termination request.
enum class Fes : uint16_t {
  none = 0,
  invalid_header_field = 1,
  sequence_error = 2,
  header_digest_error = 3,
  transfer_out_of_range = 4,
  transfer_limit_exceeded = 5,  // R2T limit in later revisions
  unsupported_parameter = 6,
};

constexpr size_t digest_bytes = 4;
constexpr size_t common_header_bytes = 8;
constexpr size_t header_bytes_max = 128;     // ICReq, ICResp
constexpr size_t term_data_bytes_max = 128;  // of the offending header
constexpr uint16_t pdu_format_version = 0;   // PFV
constexpr uint32_t max_h2c_data_bytes_min = 4096;

struct CommonHeader {
  Type type;
  uint8_t flags;
  uint8_t hlen;
  uint8_t pdo;
  uint32_t plen;
};
static_assert(sizeof(CommonHeader) == 8 && offsetof(CommonHeader, plen) == 4);

struct IcRequest {
  CommonHeader common;
  uint16_t pfv;
  uint8_t hpda;
  uint8_t digests;  // bit 0 header, bit 1 data
  uint32_t maxr2t;  // zero-based
  uint8_t reserved[112];
};
static_assert(sizeof(IcRequest) == 128 && offsetof(IcRequest, hpda) == 10 && offsetof(IcRequest, maxr2t) == 12);

struct IcResponse {
  CommonHeader common;
  uint16_t pfv;
  uint8_t cpda;
  uint8_t digests;
  uint32_t maxh2cdata;
  uint8_t reserved[112];
};
static_assert(sizeof(IcResponse) == 128 && offsetof(IcResponse, cpda) == 10 && offsetof(IcResponse, maxh2cdata) == 12);

struct TermRequest {  // followed by the header that was wrong
  CommonHeader common;
  uint16_t fes;
  uint16_t fei_low;
  uint16_t fei_high;
  uint8_t reserved[10];
};
static_assert(sizeof(TermRequest) == 24 && offsetof(TermRequest, fei_low) == 10);

struct CapsuleCommand {
  CommonHeader common;
  nvme::Command command;
};
static_assert(sizeof(CapsuleCommand) == 72);

struct CapsuleResponse {
  CommonHeader common;
  nvme::Completion completion;
};
static_assert(sizeof(CapsuleResponse) == 24);

struct Data {  // H2CData and C2HData (which has no TTAG: 0)
  CommonHeader common;
  uint16_t cccid;
  uint16_t ttag;
  uint32_t datao;
  uint32_t datal;
  uint8_t reserved[4];
};
static_assert(sizeof(Data) == 24 && offsetof(Data, ttag) == 10 && offsetof(Data, datao) == 12 &&
              offsetof(Data, datal) == 16);

struct R2t {
  CommonHeader common;
  uint16_t cccid;
  uint16_t ttag;
  uint32_t r2to;
  uint32_t r2tl;
  uint8_t reserved[4];
};
static_assert(sizeof(R2t) == 24 && offsetof(R2t, r2to) == 12 && offsetof(R2t, r2tl) == 16);

// What both sides agreed on in ICReq and ICResp.
struct Digests {
  bool header = false;
  bool data = false;
  constexpr uint8_t bits() const { return static_cast<uint8_t>((header ? 1 : 0) | (data ? 2 : 0)); }
  static constexpr Digests from_bits(uint8_t bits) { return {(bits & 1) != 0, (bits & 2) != 0}; }
};

struct ProtocolError {
  Fes fes = Fes::none;
  uint32_t fei = 0;  // invalid_header_field, unsupported_parameter: offset of the field in the PDU
};

}  // namespace basalt::nvmf::pdu
