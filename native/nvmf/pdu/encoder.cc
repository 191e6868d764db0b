// SPDX-License-Identifier: Apache-2.0
#include "nvmf/pdu/encoder.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/crc32c.h"

namespace basalt::nvmf::pdu {
namespace {

// Fills the common header, appends the header digest, and returns the bytes written.
template <class T>
size_t finish(uint8_t* out, T& header, Type type, Digests digests, uint32_t data_bytes) {
  size_t length = sizeof(T);
  uint32_t plen = sizeof(T) + data_bytes;
  header.common.type = type;
  header.common.hlen = sizeof(T);
  if (digests.header) {
    header.common.flags |= flag_header_digest;
    plen += digest_bytes;
  }
  if (data_bytes > 0) {
    header.common.pdo = static_cast<uint8_t>(sizeof(T) + (digests.header ? digest_bytes : 0));
    if (digests.data) {
      header.common.flags |= flag_data_digest;
      plen += digest_bytes;
    }
  }
  header.common.plen = plen;
  std::memcpy(out, &header, sizeof(T));
  if (digests.header) {
    store_le<uint32_t>(out + length, crc32c(0, out, sizeof(T)));
    length += digest_bytes;
  }
  return length;
}

Data data_header(const DataFields& fields) {
  Data header{};
  header.cccid = fields.cccid;
  header.ttag = fields.ttag;
  header.datao = fields.offset_bytes;
  header.datal = fields.length_bytes;
  header.common.flags = static_cast<uint8_t>((fields.last ? flag_last : 0) | (fields.success ? flag_success : 0));
  return header;
}

}  // namespace

size_t encode_ic_request(uint8_t* out, Digests digests, uint32_t maxr2t_zero_based) {
  IcRequest header{};
  header.pfv = pdu_format_version;
  header.digests = digests.bits();
  header.maxr2t = maxr2t_zero_based;
  return finish(out, header, Type::ic_request, {}, 0);
}

size_t encode_ic_response(uint8_t* out, Digests digests, uint32_t maxh2cdata_bytes) {
  IcResponse header{};
  header.pfv = pdu_format_version;
  header.digests = digests.bits();
  header.maxh2cdata = maxh2cdata_bytes;
  return finish(out, header, Type::ic_response, {}, 0);
}

size_t encode_term_request(uint8_t* out, Type type, ProtocolError error, const uint8_t* wrong, size_t wrong_bytes) {
  const size_t quoted = std::min(wrong_bytes, term_data_bytes_max);
  TermRequest header{};
  header.common.type = type;
  header.common.hlen = sizeof(header);
  header.common.plen = static_cast<uint32_t>(sizeof(header) + quoted);
  header.fes = static_cast<uint16_t>(error.fes);
  header.fei_low = static_cast<uint16_t>(error.fei);
  header.fei_high = static_cast<uint16_t>(error.fei >> 16);
  std::memcpy(out, &header, sizeof(header));
  if (quoted > 0) std::memcpy(out + sizeof(header), wrong, quoted);
  return sizeof(header) + quoted;
}

size_t encode_capsule_command(uint8_t* out, Digests digests, const nvme::Command& command, uint32_t data_bytes) {
  CapsuleCommand header{};
  header.command = command;
  return finish(out, header, Type::capsule_command, digests, data_bytes);
}

size_t encode_capsule_response(uint8_t* out, Digests digests, const nvme::Completion& completion) {
  CapsuleResponse header{};
  header.completion = completion;
  return finish(out, header, Type::capsule_response, digests, 0);
}

size_t encode_h2c_data(uint8_t* out, Digests digests, const DataFields& fields) {
  Data header = data_header(fields);
  return finish(out, header, Type::h2c_data, digests, fields.length_bytes);
}

size_t encode_c2h_data(uint8_t* out, Digests digests, const DataFields& fields) {
  Data header = data_header(fields);
  return finish(out, header, Type::c2h_data, digests, fields.length_bytes);
}

size_t encode_r2t(uint8_t* out, Digests digests, const R2tFields& fields) {
  R2t header{};
  header.cccid = fields.cccid;
  header.ttag = fields.ttag;
  header.r2to = fields.offset_bytes;
  header.r2tl = fields.length_bytes;
  return finish(out, header, Type::r2t, digests, 0);
}

uint32_t data_digest(uint32_t crc, const Iovec* iov, size_t count) {
  for (size_t i = 0; i < count; i++)
    crc = crc32c(crc, iov[i].base, iov[i].length_bytes);
  return crc;
}

}  // namespace basalt::nvmf::pdu
