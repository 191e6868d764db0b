// SPDX-License-Identifier: Apache-2.0
// Decoder: one direction of one NVMe/TCP connection, from bytes in any pieces to PDUs. Sans-IO: it never allocates,
// holds at most one header, and hands payload on as it passes. What it returns does not depend on how the stream was
// cut.
//
//   std::span<const uint8_t> input = received;
//   for (;;) switch (decoder.push(input)) {            // push() takes bytes off the front of `input`
//     case header:    the header is whole and valid: decoder.header<CapsuleCommand>(), data_bytes() follow
//     case data:      decoder.chunk() is the next piece of payload (it lies in what was pushed)
//     case complete:  the PDU has ended; data_digest_ok() judges its payload
//     case need_more: `input` is used up
//     case failed:    error() and wrong_header() are for the termination request; the decoder stays failed
//   }
//
// Each PDU gives: header, data (0..n times), complete. Between header and complete the caller may also receive payload
// bytes from the socket itself and report them with took_data(): then no copy is made.
//
// Checked here: type against the direction, ICReq/ICResp first and once, HLEN, flags, PLEN, PDO, digests, DATAL against
// PLEN and the limits. For the caller: tags, offsets, order, SGLs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/assert.h"
#include "base/iovec.h"
#include "nvmf/pdu/pdu.h"

namespace basalt::nvmf::pdu {

enum class Role : uint8_t { host, target };  // who decodes

struct DecoderLimits {
  uint32_t capsule_data_bytes_max = 8192;  // in-capsule data that the target takes
  uint32_t data_bytes_max = 1u << 20;      // of one H2CData (MAXH2CDATA) or C2HData
};

enum class Event : uint8_t { need_more, header, data, complete, failed };

class Decoder {
 public:
  Decoder(Role role, const DecoderLimits& limits) : role_(role), limits_(limits) {}

  Event push(std::span<const uint8_t>& input);

  // Between PDUs: what ICReq and ICResp agreed on.
  void set_digests(Digests digests) {
    BASALT_ASSERT(state_ == State::header || state_ == State::ending);
    digests_ = digests;
  }
  void set_limits(const DecoderLimits& limits) { limits_ = limits; }
  Digests digests() const { return digests_; }

  // From `header` until the next push that follows `complete`.
  Type type() const { return common().type; }
  uint8_t flags() const { return common().flags; }
  template <class T>
  T header() const {
    T out;
    std::memcpy(&out, header_.data(), sizeof(T));
    return out;
  }
  uint32_t data_bytes() const { return data_bytes_; }  // payload of the whole PDU
  uint32_t data_left_bytes() const { return data_left_bytes_; }
  std::span<const uint8_t> chunk() const { return chunk_; }
  bool data_digest_ok() const { return data_digest_ok_; }

  // A PDU has begun and not ended.
  bool inside_pdu() const { return state_ != State::ending && (state_ != State::header || header_used_ > 0); }

  // Payload may go past the decoder: true after `header` (padding skipped) while payload is left.
  bool wants_data() const { return state_ == State::data && data_left_bytes_ > 0; }
  // The caller put the next `length` payload bytes where they belong; they lie in iov.
  void took_data(const Iovec* iov, size_t count);

  const ProtocolError& error() const { return error_; }
  std::span<const uint8_t> wrong_header() const { return {header_.data(), header_used_}; }

 private:
  enum class State : uint8_t { header, data_start, data, data_digest, ending, failed };

  CommonHeader common() const { return header<CommonHeader>(); }
  bool take_header(std::span<const uint8_t>& input, size_t until);
  Event fail(Fes fes, uint32_t fei);
  bool check_common();
  bool check_layout(const CommonHeader& common, uint32_t header_bytes, bool has_data);
  bool check_header();
  bool check_data(const Data& data);
  bool check_header_digest();
  bool type_is_expected(Type type) const;
  Event push_header(std::span<const uint8_t>& input);
  Event push_data(std::span<const uint8_t>& input);
  Event push_data_digest(std::span<const uint8_t>& input);
  void begin_next();

  const Role role_;
  DecoderLimits limits_;
  Digests digests_;
  State state_ = State::header;
  bool initialized_ = false;  // ICReq or ICResp has passed
  bool common_checked_ = false;
  bool data_digest_ok_ = true;
  bool data_digest_follows_ = false;
  uint8_t digest_used_ = 0;
  uint16_t header_used_ = 0;
  uint16_t header_needed_ = common_header_bytes;  // with the digest
  uint16_t pad_left_bytes_ = 0;
  uint32_t data_bytes_ = 0;
  uint32_t data_left_bytes_ = 0;
  uint32_t crc_ = 0;
  ProtocolError error_;
  std::span<const uint8_t> chunk_;
  std::array<uint8_t, header_bytes_max + digest_bytes> header_{};
  std::array<uint8_t, digest_bytes> digest_{};
};

}  // namespace basalt::nvmf::pdu
