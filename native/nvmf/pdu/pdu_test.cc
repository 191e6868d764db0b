// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "nvmf/pdu/decoder.h"
#include "nvmf/pdu/encoder.h"

namespace basalt::nvmf::pdu {
namespace {

using Bytes = std::vector<uint8_t>;

struct Seen {
  Type type;
  Bytes header;
  Bytes data;
  bool digest_ok;
  bool operator==(const Seen&) const = default;
};

struct Decoded {
  std::vector<Seen> pdus;
  bool failed = false;
  ProtocolError error;
};

// Feeds `stream` cut at the places that `piece` draws.
template <class Piece>
Decoded decode(Role role, Digests digests, const Bytes& stream, Piece&& piece) {
  Decoder decoder(role, {});
  Decoded run;
  size_t at = 0;
  while (at < stream.size()) {
    const size_t take = std::min<size_t>(piece(), stream.size() - at);
    const Bytes copy(stream.begin() + static_cast<long>(at), stream.begin() + static_cast<long>(at + take));
    at += take;
    std::span<const uint8_t> input = copy;
    for (bool more = true; more;) {
      switch (decoder.push(input)) {
        case Event::need_more:
          EXPECT_TRUE(input.empty());
          more = false;
          break;
        case Event::header: {
          Bytes header(decoder.header<CommonHeader>().hlen);
          std::memcpy(header.data(), decoder.wrong_header().data(), header.size());
          run.pdus.push_back({decoder.type(), header, {}, true});
          break;
        }
        case Event::data:
          run.pdus.back().data.insert(run.pdus.back().data.end(), decoder.chunk().begin(), decoder.chunk().end());
          break;
        case Event::complete:
          run.pdus.back().digest_ok = decoder.data_digest_ok();
          if (decoder.type() == Type::ic_request || decoder.type() == Type::ic_response) decoder.set_digests(digests);
          break;
        case Event::failed:
          run.failed = true;
          run.error = decoder.error();
          return run;
      }
    }
  }
  return run;
}

Decoded decode_whole(Role role, Digests digests, const Bytes& stream) {
  return decode(role, digests, stream, [&] { return stream.size(); });
}

void append_data(Bytes& out, Digests digests, const Bytes& data) {
  if (data.empty()) return;
  out.insert(out.end(), data.begin(), data.end());
  if (!digests.data) return;
  Iovec iov{const_cast<uint8_t*>(data.data()), data.size()};
  uint8_t crc[4];
  store_le<uint32_t>(crc, data_digest(0, &iov, 1));
  out.insert(out.end(), crc, crc + 4);
}

Bytes pattern(size_t length, uint8_t seed) {
  Bytes out(length);
  for (size_t i = 0; i < length; i++)
    out[i] = static_cast<uint8_t>(i * 7 + seed);
  return out;
}

void append(Bytes& out, const uint8_t* bytes, size_t length) {
  out.insert(out.end(), bytes, bytes + length);
}

Bytes ic_request(Digests digests = {}) {
  uint8_t header[encoded_header_bytes_max];
  Bytes out;
  append(out, header, encode_ic_request(header, digests, 0));
  return out;
}

Bytes host_stream(Digests digests) {
  Bytes out = ic_request(digests);
  uint8_t header[encoded_header_bytes_max];
  nvme::Command command{};
  command.opcode = 1;
  command.cid = 0x1234;
  append(out, header, encode_capsule_command(header, digests, command, 0));
  const Bytes small = pattern(4096, 1);
  append(out, header, encode_capsule_command(header, digests, command, 4096));
  append_data(out, digests, small);
  const Bytes large = pattern(70000, 2);
  append(out, header,
         encode_h2c_data(header, digests,
                         {.cccid = 0x1234, .ttag = 7, .offset_bytes = 0, .length_bytes = 70000, .last = true}));
  append_data(out, digests, large);
  const uint8_t quoted[24] = {9, 9, 9};
  append(out, header,
         encode_term_request(header, Type::h2c_term_request, {Fes::invalid_header_field, 0x12345678}, quoted, 24));
  return out;
}

Bytes target_stream(Digests digests) {
  uint8_t header[encoded_header_bytes_max];
  Bytes out;
  append(out, header, encode_ic_response(header, digests, 131072));
  append(out, header, encode_r2t(header, digests, {.cccid = 3, .ttag = 4, .offset_bytes = 5, .length_bytes = 4096}));
  append(out, header,
         encode_c2h_data(header, digests,
                         {.cccid = 3, .offset_bytes = 0, .length_bytes = 512, .last = true, .success = true}));
  append_data(out, digests, pattern(512, 3));
  nvme::Completion completion{};
  completion.cid = 77;
  append(out, header, encode_capsule_response(header, digests, completion));
  return out;
}

const Digests digest_choices[] = {{false, false}, {true, false}, {false, true}, {true, true}};

TEST(Pdu, EveryTypeTravelsFromTheEncoderToTheDecoderInBothDirections) {
  for (const Digests digests : digest_choices) {
    const Decoded host = decode_whole(Role::target, digests, host_stream(digests));
    ASSERT_FALSE(host.failed) << static_cast<int>(host.error.fes) << " " << host.error.fei;
    ASSERT_EQ(host.pdus.size(), 5u);
    EXPECT_EQ(host.pdus[2].data, pattern(4096, 1));
    EXPECT_EQ(host.pdus[3].data, pattern(70000, 2));
    EXPECT_EQ(load_le<uint16_t>(host.pdus[3].header.data() + 10), 7);
    EXPECT_EQ(host.pdus[4].data.size(), 24u);
    const Decoded target = decode_whole(Role::host, digests, target_stream(digests));
    ASSERT_FALSE(target.failed);
    ASSERT_EQ(target.pdus.size(), 4u);
    EXPECT_EQ(load_le<uint32_t>(target.pdus[1].header.data() + 16), 4096u);
    EXPECT_EQ(target.pdus[2].data, pattern(512, 3));
    EXPECT_EQ(load_le<uint16_t>(target.pdus[3].header.data() + 8 + 12), 77);
    for (const auto& run : {host, target}) {
      for (const Seen& seen : run.pdus)
        EXPECT_TRUE(seen.digest_ok);
    }
  }
}

TEST(Pdu, TheCutOfTheStreamDoesNotChangeWhatIsDecoded) {
  const char* text = std::getenv("BASALT_SEED");
  const unsigned seed =
      text != nullptr ? static_cast<unsigned>(std::strtoul(text, nullptr, 0)) : std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (const Digests digests : digest_choices) {
    for (const Role role : {Role::target, Role::host}) {
      Bytes stream = role == Role::target ? host_stream(digests) : target_stream(digests);
      const Decoded bytewise = decode(role, digests, stream, [] { return size_t{1}; });
      EXPECT_EQ(bytewise.pdus, decode_whole(role, digests, stream).pdus);
      for (int i = 0; i < 50; i++) {
        // Every other time with a damaged byte: errors must not depend on the cut either.
        Bytes damaged = stream;
        if (i % 2 == 1)
          damaged[random() % std::min<size_t>(damaged.size(), 400)] ^= static_cast<uint8_t>(1u << random() % 8);
        const size_t piece_max = 1 + random() % 300;
        const Decoded cut = decode(role, digests, damaged, [&] { return 1 + random() % piece_max; });
        const Decoded whole = decode_whole(role, digests, damaged);
        EXPECT_EQ(cut.pdus, whole.pdus);
        EXPECT_EQ(cut.failed, whole.failed);
        EXPECT_EQ(cut.error.fes, whole.error.fes);
        EXPECT_EQ(cut.error.fei, whole.error.fei);
      }
    }
  }
}

TEST(Pdu, PayloadMayGoPastTheDecoder) {
  const Digests digests{true, true};
  const Bytes stream = host_stream(digests);
  Decoder decoder(Role::target, {});
  std::span<const uint8_t> input = stream;
  int large = 0;
  for (;;) {
    const Event event = decoder.push(input);
    if (event == Event::need_more) break;
    ASSERT_NE(event, Event::failed);
    if (event == Event::complete && decoder.type() == Type::ic_request) decoder.set_digests(digests);
    if (event == Event::complete) {
      EXPECT_TRUE(decoder.data_digest_ok());
    }
    if (event == Event::header && decoder.type() == Type::h2c_data) {
      ASSERT_TRUE(decoder.wants_data());
      Iovec iov[2] = {{const_cast<uint8_t*>(input.data()), 30000}, {const_cast<uint8_t*>(input.data()) + 30000, 30000}};
      decoder.took_data(iov, 2);
      input = input.subspan(60000);
      EXPECT_EQ(decoder.data_left_bytes(), 10000u);
      large++;
    }
  }
  EXPECT_EQ(large, 1);
}

struct Case {
  const char* name;
  Bytes bytes;
  Fes fes;
  uint32_t fei;
};

Bytes with(Bytes bytes, size_t at, uint8_t value) {
  bytes[at] = value;
  return bytes;
}
Bytes with32(Bytes bytes, size_t at, uint32_t value) {
  store_le<uint32_t>(bytes.data() + at, value);
  return bytes;
}
Bytes capsule(uint32_t data_bytes = 0) {
  uint8_t header[encoded_header_bytes_max];
  Bytes out;
  append(out, header, encode_capsule_command(header, {}, {}, data_bytes));
  return out;
}
Bytes h2c(uint32_t length_bytes) {
  uint8_t header[encoded_header_bytes_max];
  Bytes out;
  append(out, header, encode_h2c_data(header, {}, {.length_bytes = length_bytes, .last = true}));
  return out;
}

// facts: malformed PDU cases M1..M7, M12..M14, M22; each must end with the given termination request.
TEST(Pdu, MalformedHeadersAreRefusedWithTheFieldThatIsWrong) {
  const uint32_t huge[] = {1u << 31, UINT32_MAX};
  std::vector<Case> first = {
      {"M1 capsule before ICReq", capsule(), Fes::sequence_error, 0},
      {"M1 data before ICReq", h2c(4), Fes::sequence_error, 0},
      {"M1 term before ICReq", with32(with(with(Bytes(24), 0, 2), 2, 24), 4, 24), Fes::sequence_error, 0},
      {"M3 PFV", with(ic_request(), 8, 1), Fes::invalid_header_field, 8},
      {"M3 HPDA", with(ic_request(), 10, 32), Fes::invalid_header_field, 10},
  };
  for (const uint8_t hlen : {0, 7, 127, 129, 255})
    first.push_back({"M3 HLEN", with(ic_request(), 2, hlen), Fes::invalid_header_field, 2});
  for (const uint32_t plen : {0u, 7u, 127u, 129u, UINT32_MAX})
    first.push_back({"M3 PLEN", with32(ic_request(), 4, plen), Fes::invalid_header_field, 4});

  std::vector<Case> later = {
      {"M2 second ICReq", ic_request(), Fes::sequence_error, 0},
      {"M5 data HLEN", with(h2c(4), 2, 25), Fes::invalid_header_field, 2},
      {"M6 PLEN without data", with32(capsule(), 4, 76), Fes::invalid_header_field, 4},
      {"M6 PLEN below HLEN", with32(capsule(), 4, 71), Fes::invalid_header_field, 4},
      {"M7 PDO below HLEN", with(capsule(64), 3, 71), Fes::invalid_header_field, 3},
      {"M7 PDO beyond PLEN", with(capsule(64), 3, 252), Fes::invalid_header_field, 3},
      {"M7 PDO not aligned", with(capsule(64), 3, 74), Fes::invalid_header_field, 3},
      {"M7 PDO without data", with(capsule(), 3, 72), Fes::invalid_header_field, 3},
      {"M12 offset wraps", with32(h2c(4096), 12, 0xfffff001), Fes::transfer_out_of_range, 0},
      {"M12 length wraps", with32(with32(h2c(4096), 12, 4096), 16, 0xfffff001), Fes::transfer_out_of_range, 0},
      {"M13 nothing", h2c(0), Fes::invalid_header_field, 4},
      {"M13 too much", h2c((1u << 20) + 4), Fes::transfer_limit_exceeded, 0},
      {"M13 odd", h2c(6), Fes::invalid_header_field, 16},
      {"M14 PLEN differs", with32(h2c(4096), 16, 4092), Fes::invalid_header_field, 4},
      {"M16 digest not negotiated", with(capsule(), 1, 1), Fes::invalid_header_field, 1},
      {"M16 data digest not negotiated", with(capsule(64), 1, 2), Fes::invalid_header_field, 1},
      {"M19 in-capsule data beyond the limit", capsule(8196), Fes::invalid_header_field, 4},
  };
  for (const uint32_t plen : huge)
    later.push_back({"M6 PLEN", with32(capsule(64), 4, plen), Fes::invalid_header_field, 4});
  for (const uint8_t hlen : {0, 7, 71, 73, 255})
    later.push_back({"M5 HLEN", with(capsule(), 2, hlen), Fes::invalid_header_field, 2});
  for (const int type : {1, 3, 5, 7, 8, 9, 0x0a, 0x7f, 0xff})
    later.push_back({"M4 type", with(capsule(), 0, static_cast<uint8_t>(type)), Fes::invalid_header_field, 0});
  for (const uint32_t plen : {23u, 153u, UINT32_MAX}) {
    later.push_back(
        {"M22 term PLEN", with32(with(with(Bytes(24), 0, 2), 2, 24), 4, plen), Fes::invalid_header_field, 4});
  }

  for (const Case& bad : first) {
    const Decoded run = decode_whole(Role::target, {}, bad.bytes);
    EXPECT_TRUE(run.failed) << bad.name;
    EXPECT_EQ(run.error.fes, bad.fes) << bad.name;
    EXPECT_EQ(run.error.fei, bad.fei) << bad.name;
  }
  for (const Case& bad : later) {
    Bytes stream = ic_request();
    append(stream, bad.bytes.data(), bad.bytes.size());
    const Decoded run = decode_whole(Role::target, {}, stream);
    EXPECT_EQ(run.pdus.size(), 1u) << bad.name;
    EXPECT_TRUE(run.failed) << bad.name;
    EXPECT_EQ(run.error.fes, bad.fes) << bad.name;
    EXPECT_EQ(run.error.fei, bad.fei) << bad.name;
  }
}

TEST(Pdu, AnyMaxr2tIsTaken) {
  EXPECT_FALSE(decode_whole(Role::target, {}, with32(ic_request(), 12, UINT32_MAX)).failed);
}

TEST(Pdu, AWrongHeaderDigestIsFatalAndAWrongDataDigestIsNot) {
  const Digests digests{true, true};
  Bytes stream = host_stream(digests);
  const size_t capsule_with_data = 128 + 76;
  Bytes bad_header = stream;
  bad_header[capsule_with_data + 20] ^= 1;
  const Decoded header_run = decode_whole(Role::target, digests, bad_header);
  EXPECT_TRUE(header_run.failed);
  EXPECT_EQ(header_run.error.fes, Fes::header_digest_error);
  Bytes bad_data = stream;
  bad_data[capsule_with_data + 76 + 100] ^= 1;
  const Decoded data_run = decode_whole(Role::target, digests, bad_data);
  ASSERT_FALSE(data_run.failed);
  EXPECT_FALSE(data_run.pdus[2].digest_ok);
  EXPECT_TRUE(data_run.pdus[3].digest_ok);
}

TEST(Pdu, RandomBytesNeverPassForMoreThanTheyAre) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int i = 0; i < 2000; i++) {
    Bytes stream = ic_request();
    for (int n = 0; n < 300; n++)
      stream.push_back(static_cast<uint8_t>(random() % 3 == 0 ? random() : random() % 10));
    const Decoded run = decode(Role::target, {}, stream, [&] { return 1 + random() % 90; });
    size_t data_bytes = 0;
    for (const Seen& seen : run.pdus)
      data_bytes += seen.header.size() + seen.data.size();
    EXPECT_LE(data_bytes, stream.size());
  }
}

}  // namespace
}  // namespace basalt::nvmf::pdu
