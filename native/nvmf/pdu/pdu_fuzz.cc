// SPDX-License-Identifier: Apache-2.0
// Any bytes into the PDU decoder, in one piece and cut at places that the input chooses, with and without payload that
// goes past it: what it tells must be the same, and stay within what was sent and what is allowed.
#include <span>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "nvmf/pdu/decoder.h"
#include "nvmf/pdu/encoder.h"
#include "testing/fuzz_target.h"

namespace basalt::nvmf::pdu {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;

constexpr uint8_t mode_host = 1;
constexpr uint8_t mode_header_digest = 2;
constexpr uint8_t mode_data_digest = 4;
constexpr uint8_t mode_small_limits = 8;
constexpr uint8_t mode_repair = 16;  // give the PDUs the digests that they need

struct Setting {
  Role role;
  DecoderLimits limits;
  Digests digests;
};

// All that a decoder told, in order, without the cuts.
struct Told {
  FuzzBytes bytes;
  uint64_t payload_bytes = 0;
  void note(Event event) { bytes.push_back(static_cast<uint8_t>(event)); }
  void note32(uint32_t value) {
    bytes.resize(bytes.size() + 4);
    store_le<uint32_t>(bytes.data() + bytes.size() - 4, value);
  }
  void note(std::span<const uint8_t> more) { bytes.insert(bytes.end(), more.begin(), more.end()); }
};

// Walks one decoder over pieces of the stream.
class Walk {
 public:
  explicit Walk(const Setting& setting) : setting_(setting), decoder_(setting.role, setting.limits) {}

  bool push(std::span<const uint8_t> input) {
    for (;;) {
      const Event event = decoder_.push(input);
      if (event == Event::need_more) {
        BASALT_ASSERT(input.empty());
        return true;
      }
      if (event == Event::data) {
        take(decoder_.chunk());
        continue;
      }
      told.note(event);
      if (event == Event::failed) {
        told.note32(static_cast<uint32_t>(decoder_.error().fes));
        told.note32(decoder_.error().fei);
        BASALT_ASSERT(decoder_.error().fes != Fes::none);
        return false;
      }
      if (event == Event::header) begin();
      if (event == Event::complete) end();
    }
  }
  // As the transports do: payload straight from the socket to its place.
  size_t push_direct(std::span<const uint8_t> input) {
    if (!decoder_.wants_data() || input.empty()) return 0;
    const auto part = input.first(std::min<size_t>(input.size(), decoder_.data_left_bytes()));
    const Iovec iov{const_cast<uint8_t*>(part.data()), part.size()};
    decoder_.took_data(&iov, 1);
    take(part);
    return part.size();
  }

  Told told;

 private:
  void begin() {
    const bool capsule = decoder_.type() == Type::capsule_command;
    const bool term = decoder_.type() == Type::h2c_term_request || decoder_.type() == Type::c2h_term_request;
    const uint32_t limit_bytes = term      ? term_data_bytes_max
                                 : capsule ? setting_.limits.capsule_data_bytes_max
                                           : setting_.limits.data_bytes_max;
    BASALT_ASSERT(decoder_.data_bytes() <= limit_bytes);
    BASALT_ASSERT(decoder_.data_left_bytes() == decoder_.data_bytes());
    told.note(decoder_.wrong_header());
    told.note32(decoder_.data_bytes());
    pdu_payload_bytes_ = 0;
  }
  void take(std::span<const uint8_t> payload) {
    BASALT_ASSERT(!payload.empty());
    told.note(payload);
    told.payload_bytes += payload.size();
    pdu_payload_bytes_ += payload.size();
  }
  void end() {
    BASALT_ASSERT(pdu_payload_bytes_ == decoder_.data_bytes() && decoder_.data_left_bytes() == 0);
    told.bytes.push_back(decoder_.data_digest_ok() ? 1 : 0);
    const bool ic = decoder_.type() == Type::ic_request || decoder_.type() == Type::ic_response;
    if (ic) decoder_.set_digests(setting_.digests);
  }

  const Setting setting_;
  Decoder decoder_;
  uint64_t pdu_payload_bytes_ = 0;
};

void repair(FuzzBytes& stream, Digests digests) {
  bool first = true;
  for (size_t at = 0; at + common_header_bytes <= stream.size();) {
    uint8_t* pdu = stream.data() + at;
    const size_t hlen = pdu[2];
    const size_t pdo = pdu[3];
    const uint32_t plen = load_le<uint32_t>(pdu + 4);
    const size_t left = stream.size() - at;
    if (!first && digests.header && hlen + digest_bytes <= left) {
      store_le<uint32_t>(pdu + hlen, crc32c(0, pdu, hlen));
    }
    if (!first && digests.data && plen <= left && pdo > 0 && plen >= pdo + digest_bytes) {
      const size_t data_bytes = plen - pdo - digest_bytes;
      store_le<uint32_t>(pdu + pdo + data_bytes, crc32c(0, pdu + pdo, data_bytes));
    }
    first = false;
    if (plen < common_header_bytes) return;
    at += plen;
  }
}

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  const uint8_t mode = input.u8();
  uint32_t cut_state = input.u8() + 1u;
  Setting setting{(mode & mode_host) != 0 ? Role::host : Role::target,
                  {},
                  {(mode & mode_header_digest) != 0, (mode & mode_data_digest) != 0}};
  if ((mode & mode_small_limits) != 0) setting.limits = {.capsule_data_bytes_max = 16, .data_bytes_max = 64};
  const auto rest = input.rest();
  FuzzBytes stream(rest.begin(), rest.end());
  if ((mode & mode_repair) != 0) repair(stream, setting.digests);

  Walk whole(setting);
  const bool whole_ok = whole.push(stream);
  BASALT_ASSERT(whole.told.payload_bytes <= stream.size());

  Walk cut(setting);
  bool cut_ok = true;
  std::span<const uint8_t> left(stream);
  while (!left.empty() && cut_ok) {
    cut_state = cut_state * 1664525 + 1013904223;
    auto piece = left.first(std::min<size_t>(left.size(), 1 + (cut_state >> 16) % 97));
    left = left.subspan(piece.size());
    if ((cut_state >> 8 & 3) == 0) piece = piece.subspan(cut.push_direct(piece));
    cut_ok = cut.push(piece);
  }
  BASALT_ASSERT(whole_ok == cut_ok && whole.told.bytes == cut.told.bytes);
}

FuzzBytes stream_of(Role role, Digests digests) {
  FuzzBytes out;
  uint8_t pdu[encoded_header_bytes_max];
  const auto add = [&](size_t length) { out.insert(out.end(), pdu, pdu + length); };
  const auto data = [&](size_t length) {
    FuzzBytes payload(length, 0x5a);
    out.insert(out.end(), payload.begin(), payload.end());
    if (!digests.data) return;
    const Iovec iov{payload.data(), payload.size()};
    uint8_t crc[4];
    store_le<uint32_t>(crc, data_digest(0, &iov, 1));
    out.insert(out.end(), crc, crc + 4);
  };
  if (role == Role::target) {
    add(encode_ic_request(pdu, digests, 3));
    nvme::Command command{};
    command.opcode = 1;
    add(encode_capsule_command(pdu, digests, command, 64));
    data(64);
    add(encode_capsule_command(pdu, digests, command, 0));
    add(encode_h2c_data(pdu, digests, {.cccid = 1, .ttag = 2, .length_bytes = 32, .last = true}));
    data(32);
    const uint8_t wrong[24] = {};
    add(encode_term_request(pdu, Type::h2c_term_request, {Fes::sequence_error, 0}, wrong, sizeof(wrong)));
  } else {
    add(encode_ic_response(pdu, digests, 65536));
    add(encode_c2h_data(pdu, digests, {.cccid = 1, .length_bytes = 48, .last = true, .success = true}));
    data(48);
    add(encode_r2t(pdu, digests, {.cccid = 1, .ttag = 7, .offset_bytes = 0, .length_bytes = 4096}));
    add(encode_capsule_response(pdu, digests, {}));
    const uint8_t wrong[72] = {};
    add(encode_term_request(pdu, Type::c2h_term_request, {Fes::invalid_header_field, 4}, wrong, sizeof(wrong)));
  }
  return out;
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out;
  for (unsigned mode = 0; mode < 32; mode++) {
    const FuzzBytes stream = stream_of((mode & mode_host) != 0 ? Role::host : Role::target,
                                       {(mode & mode_header_digest) != 0, (mode & mode_data_digest) != 0});
    out.push_back({std::to_string(mode), FuzzOutput().u8(mode).u8(mode * 7).add(stream).bytes()});
  }
  return out;
}

BASALT_FUZZ_TARGET(pdu, run, seeds)

}  // namespace
}  // namespace basalt::nvmf::pdu
