// SPDX-License-Identifier: Apache-2.0
// NBD negotiation over simulated sockets, with short transfers: what clients may ask, and what they may try.
#include "export/nbd/fixture_testing.h"

namespace basalt::nbd {
namespace {

std::string text(const Bytes& bytes) {
  return {bytes.begin(), bytes.end()};
}

TEST(NbdNegotiation, go_tells_size_flags_and_block_sizes_and_starts_requests) {
  NbdFixture f;
  auto client = f.client();
  client->greet();
  client->option(Option::go, TestClient::info_data("disk", {info_block_size}));
  const auto replies = client->option_replies();
  ASSERT_EQ(replies.size(), 3u);
  EXPECT_EQ(replies[0].type, reply_info);
  EXPECT_EQ(load_be16(replies[0].data.data()), info_export);
  EXPECT_EQ(load_be64(replies[0].data.data() + 2), NbdFixture::size_bytes);
  EXPECT_EQ(load_be16(replies[0].data.data() + 10), flag_has_flags | flag_send_flush | flag_send_fua | flag_send_trim |
                                                        flag_send_write_zeroes | flag_can_multi_conn);
  EXPECT_EQ(load_be16(replies[1].data.data()), info_block_size);
  EXPECT_EQ(load_be32(replies[1].data.data() + 2), 4096u);
  EXPECT_EQ(load_be32(replies[1].data.data() + 6), 4096u);
  EXPECT_EQ(load_be32(replies[1].data.data() + 10), bdev::io_bytes_max);
  EXPECT_EQ(replies[2].type, reply_ack);
  EXPECT_EQ(client->read(0, 4096), Bytes(4096, 0));
}

TEST(NbdNegotiation, a_bdev_that_grew_is_shown_as_it_is_to_whoever_connects_then) {
  NbdFixture f;
  auto before = f.ready_client();
  f.disk->grow(2 * NbdFixture::size_bytes / 4096);
  auto client = f.client();
  client->greet();
  client->option(Option::go, TestClient::info_data("disk"));
  const auto replies = client->option_replies();
  ASSERT_FALSE(replies.empty());
  EXPECT_EQ(load_be64(replies[0].data.data() + 2), 2 * NbdFixture::size_bytes);
  EXPECT_EQ(before->read(0, 4096), Bytes(4096, 0)) << "who was there goes on";
}

TEST(NbdNegotiation, info_answers_like_go_and_negotiation_goes_on) {
  NbdFixture f;
  auto client = f.client();
  client->greet();
  client->option(Option::info, TestClient::info_data("", {info_name}));
  const auto replies = client->option_replies();
  ASSERT_EQ(replies.size(), 4u);
  EXPECT_EQ(text(replies[1].data), TestClient::be16(info_name) + "disk") << "the empty name means the one export";
  EXPECT_EQ(replies[3].type, reply_ack);
  client->option(Option::go, TestClient::info_data("disk"));
  EXPECT_EQ(client->option_replies().back().type, reply_ack);
  EXPECT_EQ(client->read(4096, 4096), Bytes(4096, 0));
}

TEST(NbdNegotiation, list_names_the_export) {
  NbdFixture f;
  auto client = f.client();
  client->greet();
  client->option(Option::list);
  const auto replies = client->option_replies();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(text(replies[0].data), TestClient::be32(4) + "disk");
  client->option(Option::list, "data that does not belong there");
  EXPECT_EQ(client->option_reply().type, reply_err_invalid);
}

TEST(NbdNegotiation, export_name_starts_requests_with_and_without_zeroes) {
  NbdFixture f;
  for (const bool no_zeroes : {false, true}) {
    auto client = f.client();
    client->greet(handshake_fixed_newstyle | (no_zeroes ? handshake_no_zeroes : 0));
    client->option(Option::export_name, "disk");
    const Bytes answer = client->receive(no_zeroes ? 10 : 134);
    EXPECT_EQ(load_be64(answer.data()), NbdFixture::size_bytes);
    EXPECT_EQ(client->read(0, 4096), Bytes(4096, 0));
  }
}

TEST(NbdNegotiation, abort_is_acknowledged_and_ends_the_connection) {
  NbdFixture f;
  auto client = f.client();
  client->greet();
  client->option(Option::abort);
  EXPECT_EQ(client->option_reply().type, reply_ack);
  EXPECT_TRUE(client->wait_closed());
  EXPECT_TRUE(f.wait_connections(0));
}

TEST(NbdNegotiation, unknown_export_is_refused_and_another_may_be_asked_for) {
  NbdFixture f;
  auto client = f.client();
  client->greet();
  for (const std::string name : {"other", "../disk", "disk/../disk", "disk ", "DISK"}) {
    client->option(Option::go, TestClient::info_data(name));
    EXPECT_EQ(client->option_reply().type, reply_err_unknown) << name;
  }
  client->option(Option::go, TestClient::info_data("disk"));
  EXPECT_EQ(client->option_replies().back().type, reply_ack);
}

TEST(NbdNegotiation, unknown_export_name_closes_because_that_option_has_no_error) {
  NbdFixture f;
  auto client = f.client();
  client->greet();
  client->option(Option::export_name, "other");
  EXPECT_TRUE(client->wait_closed());
  f.expect_serves();
}

TEST(NbdNegotiation, options_that_are_not_offered_are_refused_one_by_one) {
  NbdFixture f;
  auto client = f.client();
  client->greet();
  // Structured replies, list and set of metadata contexts, extended headers, and some that do not exist.
  for (const uint32_t option : {8u, 9u, 10u, 11u, 0u, 4u, 999u, 0xffffffffu}) {
    client->send(TestClient::option_bytes(option, "some data"));
    const OptionReply reply = client->option_reply();
    EXPECT_EQ(reply.option, option);
    EXPECT_EQ(reply.type, reply_err_unsup);
  }
  client->option(Option::go, TestClient::info_data(""));
  EXPECT_EQ(client->option_replies().back().type, reply_ack);
}

TEST(NbdNegotiation, starttls_is_refused_every_time_and_pipelined_plaintext_stays_plaintext) {
  // CVE-2021-3716: what was sent before encryption must not count as if it had been encrypted. There is no encryption.
  NbdFixture f;
  auto client = f.client();
  client->greet();
  client->send(TestClient::option_bytes(5) + TestClient::option_bytes(5) + TestClient::option_bytes(3));
  EXPECT_EQ(client->option_reply().type, reply_err_unsup);
  EXPECT_EQ(client->option_reply().type, reply_err_unsup);
  EXPECT_EQ(client->option_reply().option, static_cast<uint32_t>(Option::list));
}

TEST(NbdNegotiation, unknown_client_flags_close) {
  NbdFixture f;
  for (const uint32_t flags : {4u, 0x80000000u, 0xffffffffu}) {
    auto client = f.client();
    client->greet(flags);
    client->option(Option::go, TestClient::info_data(""));
    EXPECT_TRUE(client->wait_closed()) << flags;
    EXPECT_EQ(client->received_bytes(), 0u);
  }
  f.expect_serves();
}

TEST(NbdNegotiation, wrong_option_magic_closes) {
  NbdFixture f;
  auto client = f.client();
  client->greet();
  client->send(std::string(16, '\0'));
  EXPECT_TRUE(client->wait_closed());
}

TEST(NbdNegotiation, option_length_beyond_the_limit_closes_without_reading_it) {
  NbdFixture f;
  for (const uint32_t length_bytes : {0xffffffffu, 0x80000000u, uint32_t{option_data_bytes_max + 1}}) {
    auto client = f.client();
    client->greet();
    client->send(TestClient::be64(magic_option) + TestClient::be32(7) + TestClient::be32(length_bytes));
    EXPECT_TRUE(client->wait_closed()) << length_bytes;
  }
  f.expect_serves();
}

TEST(NbdNegotiation, the_longest_name_is_looked_up_and_a_longer_one_is_invalid) {
  NbdFixture f(1, std::string(name_bytes_max, 'n'));
  auto client = f.client();
  client->greet();
  client->option(Option::info, TestClient::info_data(std::string(name_bytes_max + 1, 'n')));
  EXPECT_EQ(client->option_reply().type, reply_err_invalid);
  client->option(Option::info, TestClient::info_data(std::string(name_bytes_max, 'm')));
  EXPECT_EQ(client->option_reply().type, reply_err_unknown);
  client->option(Option::go, TestClient::info_data(std::string(name_bytes_max, 'n'), {info_name}));
  EXPECT_EQ(client->option_replies().back().type, reply_ack);
}

TEST(NbdNegotiation, wrong_nested_lengths_are_invalid_and_negotiation_goes_on) {
  NbdFixture f;
  auto client = f.client();
  client->greet();
  for (const std::string& data :
       {std::string(), std::string(5, '\0'), TestClient::be32(0xffffffff) + "disk" + TestClient::be16(0),
        TestClient::be32(5) + "disk" + TestClient::be16(0), TestClient::be32(3) + "disk" + TestClient::be16(0),
        TestClient::be32(4) + "disk" + TestClient::be16(7)}) {
    client->option(Option::go, data);
    EXPECT_EQ(client->option_reply().type, reply_err_invalid);
  }
  client->option(Option::go, TestClient::info_data("disk"));
  EXPECT_EQ(client->option_replies().back().type, reply_ack);
}

TEST(NbdNegotiation, a_handshake_that_is_not_finished_in_ten_seconds_is_closed) {
  NbdFixture f;
  auto silent = f.client();
  auto half = f.client();
  half->greet();
  half->send(std::string("IHAVE"));
  auto slow = f.client();
  slow->greet();
  auto done = f.ready_client();
  for (int i = 0; i < 9; i++) {
    slow->option(Option::list);
    slow->option_replies();
    f.world.run_for(seconds(1));
  }
  EXPECT_FALSE(silent->closed());
  EXPECT_FALSE(half->closed());
  f.world.run_for(seconds(2));
  EXPECT_TRUE(silent->closed());
  EXPECT_TRUE(half->closed());
  EXPECT_TRUE(slow->closed()) << "talking does not prolong it";
  EXPECT_FALSE(done->closed()) << "a negotiated connection may idle";
  EXPECT_EQ(done->read(0, 4096), Bytes(4096, 0));
}

TEST(NbdNegotiation, a_thousand_idle_handshakes_keep_nobody_out) {
  NbdFixture f;
  auto early = f.ready_client();
  std::vector<std::unique_ptr<TestClient>> idle;
  for (int i = 0; i < 1000; i++) {
    idle.push_back(f.client());
    f.world.run_for(microseconds(100));
    EXPECT_LE(f.server->stats().connection_count, Server::connection_count_max + 1);
  }
  EXPECT_EQ(early->write(4096, Bytes(4096, 1)), 0u) << "a negotiated connection is not given up";
  f.expect_serves();
  EXPECT_EQ(f.server->stats().accepted_count, 1002u);
  EXPECT_TRUE(f.wait_connections(1, seconds(11)));
}

TEST(NbdNegotiation, negotiated_connections_are_limited_and_none_of_them_is_given_up) {
  NbdFixture f;
  std::vector<std::unique_ptr<TestClient>> clients;
  for (size_t i = 0; i < Server::connection_count_max; i++)
    clients.push_back(f.ready_client());
  auto refused = f.client();
  EXPECT_TRUE(refused->wait_closed());
  EXPECT_EQ(clients.front()->read(0, 4096), Bytes(4096, 0));
  clients.pop_back();
  EXPECT_TRUE(f.wait_connections(Server::connection_count_max - 1));
  f.expect_serves();
}

TEST(NbdNegotiation, options_without_reading_the_answers_are_not_collected_for_ever) {
  NbdFixture f(1, std::string(4000, 'n'));
  auto client = f.client();
  client->greet();
  client->reading = false;
  for (int i = 0; i < 100'000; i++)
    client->option(Option::list);
  f.world.run_until([&] { return client->all_sent(); }, seconds(5));
  // 256 KiB wait in each direction's buffer, and some in the server; 1.6 MB were sent, for 400 MB of answers.
  EXPECT_GT(client->unsent_bytes(), 1'000'000u);
  f.expect_serves();
  EXPECT_TRUE(f.wait_connections(0, seconds(11))) << "the handshake's time goes on";
}

TEST(NbdNegotiation, random_bytes_hurt_nobody) {
  // Goal: no crash, no hang, whatever arrives in which pieces. Method: valid conversations with random damage.
  for (uint64_t seed = 1; seed <= 60; seed++) {
    NbdFixture f(seed);
    env::SimRandom random(seed * 77);
    auto client = f.client();
    client->greet();
    std::string bytes = TestClient::option_bytes(3) + TestClient::option_bytes(6, TestClient::info_data("disk", {1})) +
                        TestClient::option_bytes(7, TestClient::info_data(""));
    for (uint64_t cookie = 1; cookie <= 8; cookie++) {
      bytes += TestClient::request_bytes(Command::write, cookie, 4096 * cookie, 4096) + std::string(4096, 'w');
      bytes += TestClient::request_bytes(Command::read, 100 + cookie, 4096 * cookie, 8192);
    }
    for (uint64_t i = 0; i < 1 + random.below(4); i++)
      bytes[random.below(random.chance(0.5) ? 120 : bytes.size())] ^= static_cast<char>(1 << random.below(8));
    client->send(bytes);
    f.world.run_until([&] { return client->closed(); }, milliseconds(50));
    client->disconnect();
    EXPECT_TRUE(f.wait_connections(0, seconds(11))) << "seed " << seed;
    f.expect_serves();
  }
}

}  // namespace
}  // namespace basalt::nbd
