// SPDX-License-Identifier: Apache-2.0
// NBD requests over simulated sockets: what they do, what is refused, and what a client cannot do to the others.
#include "export/nbd/connection.h"

#include <map>

#include "export/nbd/fixture_testing.h"

namespace basalt::nbd {
namespace {

Bytes pattern(size_t count_bytes, uint8_t salt) {
  Bytes bytes(count_bytes);
  for (size_t i = 0; i < count_bytes; i++)
    bytes[i] = static_cast<uint8_t>(i * 31 + (i >> 8) + salt);
  return bytes;
}

TEST(NbdConnection, what_was_written_is_read_back) {
  NbdFixture f;
  auto client = f.ready_client();
  const Bytes data = pattern(1 << 20, 3);
  EXPECT_EQ(client->write(65536, data), 0u);
  EXPECT_EQ(client->read(65536, 1 << 20), data);
  EXPECT_EQ(client->ask(Command::flush, 0, 0), 0u);
  EXPECT_EQ(client->ask(Command::trim, 65536, 8192), 0u);
  EXPECT_EQ(client->read(65536, 8192), Bytes(8192, 0));
  EXPECT_EQ(client->ask(Command::write_zeroes, 65536 + 8192, 4096, command_flag_no_hole), 0u);
  EXPECT_EQ(client->read(65536 + 8192, 4096), Bytes(4096, 0));
  EXPECT_EQ(client->read(65536 + 12288, 4096), Bytes(data.begin() + 12288, data.begin() + 16384));
}

TEST(NbdConnection, blocks_of_512_bytes_are_served_at_any_of_them) {
  NbdFixture f(1, "disk", 512);
  auto client = f.ready_client();
  EXPECT_EQ(client->write(512, pattern(1536, 9)), 0u);
  EXPECT_EQ(client->read(512, 1536), pattern(1536, 9));
  EXPECT_EQ(client->ask(Command::read, 100, 512), error_invalid);
}

TEST(NbdConnection, fua_reaches_the_disk_and_is_accepted_on_every_command) {
  NbdFixture f;
  auto client = f.ready_client();
  EXPECT_EQ(client->write(0, pattern(4096, 1), command_flag_fua), 0u);
  EXPECT_EQ(f.disk->fua_count, 1u);
  EXPECT_EQ(client->ask(Command::flush, 0, 0, command_flag_fua), 0u);
  EXPECT_EQ(client->ask(Command::trim, 0, 4096, command_flag_fua), 0u);
  EXPECT_EQ(client->ask(Command::read, 0, 4096, command_flag_fua), 0u);
  client->receive(4096);
}

TEST(NbdConnection, several_connections_serve_one_disk) {
  NbdFixture f;
  auto one = f.ready_client();
  auto other = f.ready_client();
  EXPECT_EQ(one->write(0, pattern(4096, 1)), 0u);
  EXPECT_EQ(other->read(0, 4096), pattern(4096, 1));
}

TEST(NbdConnection, disconnect_is_answered_by_closing_after_the_last_answer) {
  NbdFixture f;
  auto client = f.ready_client();
  f.disk->holding = true;
  client->request(Command::read, 1, 0, 4096);
  client->request(Command::disconnect, 2, 0, 0);
  f.run_until([&] { return f.disk->held_count == 1; });
  f.world.run_for(milliseconds(10));
  EXPECT_FALSE(client->closed());
  f.disk->release();
  EXPECT_EQ(client->reply().cookie, 1u);
  EXPECT_EQ(client->receive(4096), Bytes(4096, 0));
  EXPECT_TRUE(client->wait_closed());
}

TEST(NbdConnection, requests_outside_the_disk_are_refused_and_the_connection_stays) {
  NbdFixture f;
  auto client = f.ready_client();
  constexpr uint64_t size = NbdFixture::size_bytes;
  struct Case {
    uint64_t offset_bytes;
    uint32_t length_bytes;
  };
  const uint64_t highest = ~uint64_t{0};
  for (const Case& c : {Case{size, 4096}, Case{size - 4096, 8192}, Case{highest - 4095, 4096},
                        Case{highest - 4095, 8192}, Case{uint64_t{1} << 63, 4096}}) {
    EXPECT_EQ(client->ask(Command::read, c.offset_bytes, c.length_bytes), error_invalid) << c.offset_bytes;
    EXPECT_EQ(client->write(c.offset_bytes, Bytes(c.length_bytes, 1)), error_no_space) << c.offset_bytes;
    EXPECT_EQ(client->ask(Command::trim, c.offset_bytes, c.length_bytes), error_no_space) << c.offset_bytes;
    EXPECT_EQ(client->ask(Command::write_zeroes, c.offset_bytes, c.length_bytes), error_no_space) << c.offset_bytes;
  }
  EXPECT_EQ(f.disk->submitted_count, 0u);
  EXPECT_EQ(client->read(size - 4096, 4096), Bytes(4096, 0));
}

TEST(NbdConnection, lengths_that_cannot_be_are_refused) {
  NbdFixture f;
  auto client = f.ready_client();
  EXPECT_EQ(client->ask(Command::read, 0, 0), error_invalid);
  EXPECT_EQ(client->ask(Command::write, 0, 0), error_invalid);
  EXPECT_EQ(client->ask(Command::trim, 0, 0), error_invalid);
  EXPECT_EQ(client->ask(Command::read, 0, 0xffffffff), error_invalid);
  EXPECT_EQ(client->ask(Command::read, 0, 0xfffff000), error_invalid);
  EXPECT_EQ(client->ask(Command::read, 0, 1), error_invalid);
  EXPECT_EQ(client->ask(Command::read, 1, 4096), error_invalid);
  EXPECT_EQ(client->ask(Command::read, 0, (1 << 20) + 4096), error_invalid) << "above the announced maximum";
  EXPECT_EQ(client->write(0, Bytes((1 << 20) + 4096, 1)), error_invalid);
  EXPECT_EQ(client->ask(Command::trim, 0, 8 << 20), 0u) << "a trim moves no data";
  EXPECT_EQ(f.disk->submitted_count, 1u);
}

TEST(NbdConnection, a_write_too_large_to_read_away_closes) {
  NbdFixture f;
  auto client = f.ready_client();
  client->request(Command::write, 1, 0, 0xfffff000);
  EXPECT_TRUE(client->wait_closed());
  f.expect_serves();
}

TEST(NbdConnection, unknown_flags_and_commands_are_refused_with_the_payload_taken) {
  NbdFixture f;
  auto client = f.ready_client();
  for (const uint16_t flags : {uint16_t{command_flag_no_hole}, uint16_t{1 << 2}, uint16_t{1 << 3},
                               uint16_t{command_flag_fast_zero}, uint16_t{1 << 5}, uint16_t{0x8000}}) {
    EXPECT_EQ(client->write(0, Bytes(4096, 1), flags), error_invalid) << flags;
    EXPECT_EQ(client->ask(Command::read, 0, 4096, flags), error_invalid) << flags;
  }
  EXPECT_EQ(client->ask(Command::write_zeroes, 0, 4096, command_flag_fast_zero), error_invalid);
  for (const uint16_t type : {5, 7, 8, 9, 255, 0xffff})
    EXPECT_EQ(client->ask(static_cast<Command>(type), 0, 4096), error_invalid) << type;
  EXPECT_EQ(f.disk->submitted_count, 0u);
  EXPECT_EQ(client->read(0, 4096), Bytes(4096, 0));
}

TEST(NbdConnection, a_read_only_disk_is_announced_and_refuses_changes) {
  NbdFixture f;
  f.stop();
  f.disk->allow({1u << static_cast<unsigned>(bdev::IoType::read) | 1u << static_cast<unsigned>(bdev::IoType::flush)});
  f.serve("disk");
  EXPECT_EQ(f.server->info().flags, flag_has_flags | flag_read_only | flag_send_flush | flag_can_multi_conn);
  auto client = f.ready_client();
  EXPECT_EQ(client->write(0, Bytes(4096, 1)), error_perm);
  EXPECT_EQ(client->ask(Command::trim, 0, 4096), error_perm);
  EXPECT_EQ(client->read(0, 4096), Bytes(4096, 0));
}

TEST(NbdConnection, a_disk_that_cannot_trim_does_not_announce_it_and_refuses_it) {
  NbdFixture f;
  f.stop();
  f.disk->allow({0x7});
  f.serve("disk");
  EXPECT_EQ(f.server->info().flags & (flag_send_trim | flag_send_write_zeroes), 0);
  auto client = f.ready_client();
  EXPECT_EQ(client->ask(Command::trim, 0, 4096), error_invalid);
  EXPECT_EQ(client->ask(Command::write_zeroes, 0, 4096), error_invalid);
}

TEST(NbdConnection, wrong_request_magic_closes) {
  NbdFixture f;
  auto client = f.ready_client();
  client->send(std::string(28, 'x'));
  EXPECT_TRUE(client->wait_closed());
  f.expect_serves();
}

TEST(NbdConnection, a_write_whose_payload_ends_early_changes_nothing) {
  NbdFixture f;
  for (const size_t sent_bytes : {0, 1, 4095, 8191}) {
    auto client = f.ready_client();
    client->request(Command::write, 1, 0, 8192);
    client->send(Bytes(sent_bytes, 0xff));
    f.run_until([&] { return client->all_sent(); });
    client->disconnect();
    EXPECT_TRUE(f.wait_connections(0)) << sent_bytes;
  }
  EXPECT_EQ(f.disk->submitted_count, 0u);
  EXPECT_EQ(f.reactor.buffers().in_use_count(), 0u);
}

TEST(NbdConnection, a_payload_that_stops_coming_is_closed_in_time) {
  NbdFixture f;
  auto stalled = f.ready_client();
  stalled->request(Command::write, 1, 0, 8192);
  auto refused = f.ready_client();
  refused->request(Command::write, 1, 1, 8192);
  f.run_until([&] { return stalled->all_sent() && refused->all_sent(); });
  f.world.run_for(seconds(29));
  EXPECT_FALSE(stalled->closed());
  EXPECT_TRUE(stalled->wait_closed(seconds(2)));
  EXPECT_TRUE(refused->wait_closed(seconds(2)));
  EXPECT_EQ(f.reactor.buffers().in_use_count(), 0u);
}

TEST(NbdConnection, a_hundred_thousand_requests_without_reading_are_held_back) {
  NbdFixture f;
  auto client = f.ready_client();
  client->reading = false;
  constexpr uint64_t count = 100'000;
  std::string bytes;
  for (uint64_t cookie = 1; cookie <= count; cookie++)
    bytes += TestClient::request_bytes(Command::read, cookie, 0, 4096);
  client->send(bytes);
  f.world.run_until([&] { return client->all_sent(); }, milliseconds(100));
  EXPECT_GT(client->unsent_bytes(), 1'000'000u);
  EXPECT_LE(f.reactor.buffers().in_use_count(), 129u);
  f.expect_serves();
  // One that reads again gets every answer, once.
  client->reading = true;
  std::vector<bool> answered(count + 1);
  for (uint64_t i = 0; i < 2000; i++) {
    const SimpleReply reply = client->reply();
    EXPECT_EQ(reply.error, 0u);
    ASSERT_LE(reply.cookie, count);
    EXPECT_FALSE(answered[reply.cookie]);
    answered[reply.cookie] = true;
    client->receive(4096);
  }
  client->disconnect();
  EXPECT_TRUE(f.wait_connections(0));
}

TEST(NbdConnection, large_reads_in_flight_are_bounded_by_their_bytes) {
  NbdFixture f;
  auto client = f.ready_client();
  f.disk->holding = true;
  for (uint64_t cookie = 1; cookie <= 100; cookie++)
    client->request(Command::read, cookie, 0, 1 << 20);
  EXPECT_TRUE(f.run_until([&] { return f.disk->held_count == 16; }));
  f.world.run_for(milliseconds(10));
  EXPECT_EQ(f.disk->held_count, 16u);
  f.disk->release();
  for (uint64_t i = 0; i < 100; i++) {
    EXPECT_EQ(client->reply().error, 0u);
    client->receive(1 << 20);
  }
}

TEST(NbdConnection, refused_writes_do_not_stop_others) {
  // Goal: reading refused payload away is bounded per turn. Method: a client that always has more of it in the socket.
  NbdFixture f;
  auto flood = f.ready_client();
  for (int i = 0; i < 4; i++) {
    flood->request(Command::write, 1, 1, 4 << 20);
    flood->send(Bytes(4 << 20, 0));
  }
  auto other = f.ready_client();
  f.run_until([&] { return flood->received_bytes() == 4 * simple_reply_bytes; });
  EXPECT_EQ(other->write(0, Bytes(4096, 1)), 0u);
  EXPECT_EQ(flood->reply().error, error_invalid);
}

TEST(NbdConnection, disconnect_with_requests_in_flight_keeps_their_memory_until_they_end) {
  NbdFixture f;
  auto client = f.ready_client();
  f.disk->holding = true;
  for (uint64_t cookie = 1; cookie <= 20; cookie++) {
    client->request(Command::read, cookie, 0, 65536);
    client->request(Command::write, 100 + cookie, 65536 * cookie, 4096);
    client->send(Bytes(4096, 7));
  }
  f.run_until([&] { return f.disk->held_count == 40; });
  client->disconnect();
  f.world.run_for(milliseconds(10));
  EXPECT_EQ(f.server->stats().connection_count, 1u) << "its requests still use its memory";
  EXPECT_EQ(f.reactor.buffers().in_use_count(), 40u);
  f.disk->release();
  EXPECT_TRUE(f.wait_connections(0));
  EXPECT_EQ(f.reactor.buffers().in_use_count(), 0u);
}

TEST(NbdConnection, stopping_waits_for_requests_in_flight) {
  NbdFixture f;
  auto client = f.ready_client();
  f.disk->holding = true;
  client->request(Command::read, 1, 0, 4096);
  f.run_until([&] { return f.disk->held_count == 1; });
  f.world.at(f.world.now() + milliseconds(50), [&] { f.disk->release(); });
  const Instant before = f.world.now();
  f.stop();
  EXPECT_GE((f.world.now() - before).ns, milliseconds(50).ns);
  EXPECT_TRUE(client->wait_closed());
}

TEST(NbdConnection, disk_errors_are_errors_of_the_request) {
  NbdFixture f;
  auto client = f.ready_client();
  f.disk->fail_with = nvme::status::internal_error;
  EXPECT_EQ(client->write(0, Bytes(4096, 1)), error_io);
  EXPECT_EQ(client->ask(Command::read, 0, 4096), error_io) << "and no data follows";
  f.disk->fail_with = nvme::status::capacity_exceeded;
  EXPECT_EQ(client->write(0, Bytes(4096, 1)), error_no_space);
  f.disk->fail_with = nvme::status::success;
  EXPECT_EQ(client->read(0, 4096), Bytes(4096, 0));
}

TEST(NbdConnection, path_errors_end_the_connection_without_an_answer) {
  NbdFixture f;
  auto client = f.ready_client();
  f.disk->holding = true;
  client->request(Command::read, 1, 0, 4096);
  f.run_until([&] { return f.disk->held_count == 1; });
  f.disk->fail_with = nvme::status::ana_inaccessible;
  client->request(Command::read, 2, 4096, 4096);
  EXPECT_TRUE(client->wait_closed());
  f.disk->release();
  EXPECT_TRUE(f.wait_connections(0));
  EXPECT_EQ(f.reactor.buffers().in_use_count(), 0u);
  f.disk->fail_with = nvme::status::success;
  EXPECT_EQ(f.ready_client()->read(0, 4096), Bytes(4096, 0)) << "a new connection is served when the path is back";
}

TEST(NbdConnection, random_requests_agree_with_an_array_of_bytes) {
  for (uint64_t seed = 1; seed <= 8; seed++) {
    NbdFixture f(seed);
    env::SimRandom random(seed);
    auto client = f.ready_client();
    Bytes oracle(1 << 20, 0);
    for (int round = 0; round < 150; round++) {
      const uint64_t first = random.below(256);
      const uint64_t count = 1 + random.below(std::min<uint64_t>(256 - first, 64));
      const auto at = oracle.begin() + static_cast<int64_t>(first * 4096);
      const auto length_bytes = static_cast<uint32_t>(count * 4096);
      switch (random.below(4)) {
        case 0: {
          const Bytes data = pattern(length_bytes, static_cast<uint8_t>(round));
          ASSERT_EQ(client->write(first * 4096, data), 0u) << "seed " << seed;
          std::copy(data.begin(), data.end(), at);
          break;
        }
        case 1:
          ASSERT_EQ(client->ask(random.chance(0.5) ? Command::trim : Command::write_zeroes, first * 4096, length_bytes),
                    0u);
          std::fill_n(at, length_bytes, 0);
          break;
        default:
          ASSERT_EQ(client->read(first * 4096, length_bytes), Bytes(at, at + length_bytes)) << "seed " << seed;
      }
    }
  }
}

TEST(NbdServer, only_loopback_and_unix_sockets_are_served) {
  NbdFixture f;
  auto started = Server::start(f.reactor, bdev::Handle(*f.disk, f.reactor),
                               {{env::Address::Family::ip, "192.0.2.1", 10809}, "disk"});
  ASSERT_FALSE(started.ok());
  EXPECT_EQ(started.error().code, Errc::invalid_argument);
  started = Server::start(f.reactor, bdev::Handle(*f.disk, f.reactor),
                          {{env::Address::Family::unix_path, "/run/x", 0}, std::string(name_bytes_max + 1, 'n')});
  ASSERT_FALSE(started.ok());
  EXPECT_EQ(started.error().code, Errc::invalid_argument);
}

}  // namespace
}  // namespace basalt::nbd
