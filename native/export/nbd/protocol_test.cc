// SPDX-License-Identifier: Apache-2.0
// The NBD codec: exact bytes out, and any bytes in.
#include "export/nbd/protocol.h"

#include <gtest/gtest.h>

#include "env/sim/sim_world.h"

namespace basalt::nbd {
namespace {

using Bytes = std::vector<uint8_t>;

template <size_t count>
std::span<const uint8_t, count> fixed(const Bytes& bytes) {
  return std::span<const uint8_t, count>(bytes.data(), count);
}

TEST(NbdProtocol, greeting_is_fixed_newstyle_without_zeroes) {
  Bytes out;
  append_greeting(out);
  EXPECT_EQ(out, (Bytes{'N', 'B', 'D', 'M', 'A', 'G', 'I', 'C', 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 3}));
}

TEST(NbdProtocol, option_header_is_parsed_and_a_wrong_magic_refused) {
  Bytes bytes{'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff};
  const auto header = parse_option_header(fixed<option_header_bytes>(bytes));
  ASSERT_TRUE(header.has_value());
  EXPECT_EQ(header->option, 7u);
  EXPECT_EQ(header->length_bytes, 0xffffffffu);
  bytes[0] = 'i';
  EXPECT_FALSE(parse_option_header(fixed<option_header_bytes>(bytes)).has_value());
}

TEST(NbdProtocol, request_is_parsed_and_a_wrong_magic_refused) {
  Bytes bytes{0x25, 0x60, 0x95, 0x13, 0, 1,    0, 6,    1,    2,    3,    4,    5, 6,
              7,    8,    0,    0,    0, 0xab, 0, 0xcd, 0x10, 0x00, 0x00, 0x01, 0, 0};
  const auto request = parse_request(fixed<request_header_bytes>(bytes));
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->flags, command_flag_fua);
  EXPECT_EQ(request->type, static_cast<uint16_t>(Command::write_zeroes));
  EXPECT_EQ(request->cookie, 0x0102030405060708u);
  EXPECT_EQ(request->offset_bytes, 0x000000ab00cd1000u);
  EXPECT_EQ(request->length_bytes, 0x10000u);
  bytes[3] ^= 1;
  EXPECT_FALSE(parse_request(fixed<request_header_bytes>(bytes)).has_value());
}

TEST(NbdProtocol, info_request_holds_a_name_and_kinds) {
  const Bytes bytes{0, 0, 0, 2, 'a', 'b', 0, 2, 0, 3, 0, 1};
  const auto request = parse_info_request(bytes);
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->name, "ab");
  EXPECT_EQ(request->kinds, (std::vector<uint16_t>{info_block_size, info_name}));
}

TEST(NbdProtocol, info_request_with_lengths_that_do_not_fit_is_refused) {
  EXPECT_FALSE(parse_info_request({}).has_value());
  EXPECT_FALSE(parse_info_request(Bytes{0, 0, 0, 0, 0}).has_value());
  EXPECT_FALSE(parse_info_request(Bytes{0, 0, 0, 1, 0, 0}).has_value()) << "the name reaches into the count";
  EXPECT_FALSE(parse_info_request(Bytes{0xff, 0xff, 0xff, 0xff, 0, 0}).has_value());
  EXPECT_FALSE(parse_info_request(Bytes{0xff, 0xff, 0xff, 0xfa, 0, 0}).has_value()) << "length + 6 would wrap";
  EXPECT_FALSE(parse_info_request(Bytes{0, 0, 0, 0, 0, 1}).has_value()) << "a kind is missing";
  EXPECT_FALSE(parse_info_request(Bytes{0, 0, 0, 0, 0, 0, 0}).has_value()) << "a byte too many";
  EXPECT_FALSE(parse_info_request(Bytes{0, 0, 0, 0, 0xff, 0xff}).has_value());
}

TEST(NbdProtocol, a_name_of_4096_bytes_is_the_longest) {
  const auto with_name = [](size_t count_bytes) {
    Bytes bytes{0, 0, static_cast<uint8_t>(count_bytes >> 8), static_cast<uint8_t>(count_bytes)};
    bytes.resize(4 + count_bytes, 'n');
    bytes.resize(bytes.size() + 2, 0);
    return parse_info_request(bytes);
  };
  EXPECT_TRUE(with_name(name_bytes_max).has_value());
  EXPECT_FALSE(with_name(name_bytes_max + 1).has_value());
}

TEST(NbdProtocol, option_reply_has_magic_option_type_and_length) {
  Bytes out;
  append_option_reply(out, 6, reply_err_unknown, "no");
  EXPECT_EQ(out, (Bytes{0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, 6, 0x80, 0, 0, 6, 0, 0, 0, 2, 'n', 'o'}));
}

TEST(NbdProtocol, export_name_answer_has_124_zeroes_unless_they_were_waived) {
  const ExportInfo info{"disk", 0x10000, 0x016d, 4096, 4096, 1 << 20};
  Bytes out;
  append_export_name_answer(out, info, true);
  EXPECT_EQ(out, (Bytes{0, 0, 0, 0, 0, 1, 0, 0, 0x01, 0x6d}));
  out.clear();
  append_export_name_answer(out, info, false);
  EXPECT_EQ(out.size(), 134u);
}

TEST(NbdProtocol, simple_reply_is_sixteen_bytes) {
  Bytes out(simple_reply_bytes);
  build_simple_reply(out.data(), 0x1122334455667788, error_no_space);
  EXPECT_EQ(out, (Bytes{0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}));
}

TEST(NbdProtocol, any_info_request_is_parsed_within_its_bytes) {
  // Goal: no read past the end (AddressSanitizer sees the exact allocation). Method: random bytes with plausible heads.
  constexpr uint64_t seed = 0x6e6264;
  env::SimRandom random(seed);
  size_t accepted = 0;
  for (int round = 0; round < 20000; round++) {
    const size_t count_bytes = random.below(40);
    const std::unique_ptr<uint8_t[]> bytes(new uint8_t[count_bytes]);
    for (size_t i = 0; i < count_bytes; i++)
      bytes[i] = static_cast<uint8_t>(i < 3 || random.chance(0.3) ? 0 : random.below(12));
    const auto request = parse_info_request({bytes.get(), count_bytes});
    if (!request) continue;
    accepted++;
    EXPECT_EQ(request->name.size() + 6 + 2 * request->kinds.size(), count_bytes) << "seed " << seed;
  }
  EXPECT_GT(accepted, 100u) << "seed " << seed;
}

}  // namespace
}  // namespace basalt::nbd
