// SPDX-License-Identifier: Apache-2.0
// Any bytes to an NBD server: handshake, options, requests; in pieces, from clients that read, do not read, or leave.
// Whatever they say, a well-behaved client is served afterwards, the server stops, and no buffer is missing.
#include "base/bytes.h"
#include "export/nbd/server.h"
#include "testing/fuzz_target.h"
#include "testing/fuzz_world.h"

namespace basalt::nbd {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzDisk;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;
using basalt::testing::FuzzWorld;

constexpr uint8_t mode_negotiated = 1;  // a right handshake comes first
constexpr uint8_t mode_deaf = 2;        // the client reads nothing until the end
constexpr uint8_t mode_read_only = 4;
constexpr uint8_t mode_hold = 8;  // the disk answers only after the client has gone
constexpr uint8_t mode_fail = 16;
constexpr uint8_t mode_no_name = 32;
constexpr size_t received_bytes_kept_max = size_t{1} << 22;

std::string be(uint64_t value, size_t count) {
  std::string out;
  for (size_t i = count; i > 0; i--)
    out.push_back(static_cast<char>(value >> (8 * (i - 1))));
  return out;
}
std::string option_text(Option option, const std::string& data) {
  return be(magic_option, 8) + be(static_cast<uint32_t>(option), 4) + be(data.size(), 4) + data;
}
std::string info_text(const std::string& name, const std::vector<uint16_t>& kinds) {
  std::string out = be(name.size(), 4) + name + be(kinds.size(), 2);
  for (const uint16_t kind : kinds)
    out += be(kind, 2);
  return out;
}
std::string request_text(Command command, uint64_t offset, uint32_t length, uint16_t flags = 0) {
  return be(magic_request, 4) + be(flags, 2) + be(static_cast<uint16_t>(command), 2) + be(77, 8) + be(offset, 8) +
         be(length, 4);
}
const std::string greeting_answer = be(3, 4);
const std::string handshake = greeting_answer + option_text(Option::go, info_text("", {}));

class Client {
 public:
  Client(FuzzWorld& world, const Server& server) : world_(world) {
    auto connecting = world.home().poller().connect(server.address());
    BASALT_ASSERT(connecting.ok());
    socket_ = std::move(connecting).value();
    world_.world.run_for(milliseconds(1));
  }
  // What is left when the server does not take it is dropped: a client that gave up.
  void send(std::string_view bytes) {
    size_t at = 0;
    for (int turn = 0; turn < 64 && at < bytes.size() && socket_ != nullptr; turn++) {
      const Iovec iov{const_cast<char*>(bytes.data()) + at, bytes.size() - at};
      const env::Transfer moved = socket_->try_send(&iov, 1);
      if (moved.state == env::Transfer::State::done) {
        at += moved.count_bytes;
        continue;
      }
      if (moved.state != env::Transfer::State::would_block) return;
      world_.world.run_for(microseconds(200));
      if (!deaf) receive();
    }
  }
  void receive() {
    uint8_t bytes[16384];
    const Iovec iov{bytes, sizeof(bytes)};
    while (!closed) {
      const env::Transfer moved = socket_->try_recv(&iov, 1);
      if (moved.state == env::Transfer::State::would_block) return;
      if (moved.state != env::Transfer::State::done) {
        closed = true;
        return;
      }
      if (received.size() < received_bytes_kept_max) received.append(reinterpret_cast<char*>(bytes), moved.count_bytes);
    }
  }
  void leave() { socket_.reset(); }

  bool deaf = false;
  bool closed = false;
  std::string received;

 private:
  FuzzWorld& world_;
  std::unique_ptr<env::StreamSocket> socket_;
};

void expect_serves(FuzzWorld& world, const Server& server) {
  Client client(world, server);
  client.send(handshake + request_text(Command::flush, 0, 0));
  const std::string reply = be(magic_simple_reply, 4) + be(0, 4) + be(77, 8);
  world.must([&] {
    client.receive();
    return client.received.size() >= reply.size() && client.received.ends_with(reply);
  });
}

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  const uint8_t mode = input.u8();
  FuzzWorld world(input.u8());
  FuzzDisk disk(world.home(), 512, 256);
  if ((mode & mode_read_only) != 0) {
    disk.allow({1u << static_cast<unsigned>(bdev::IoType::read) | 1u << static_cast<unsigned>(bdev::IoType::flush)});
  }
  disk.hold = (mode & mode_hold) != 0;
  disk.fail = (mode & mode_fail) != 0;
  auto started =
      Server::start(world.home(), bdev::Handle(disk, world.home()),
                    {{env::Address::Family::unix_path, "/run/nbd", 0}, (mode & mode_no_name) != 0 ? "" : "disk"});
  BASALT_ASSERT(started.ok());
  const std::unique_ptr<Server> server = std::move(started).value();
  {
    Client client(world, *server);
    client.deaf = (mode & mode_deaf) != 0;
    if ((mode & mode_negotiated) != 0) client.send(handshake);
    const auto rest = input.rest();
    client.send({reinterpret_cast<const char*>(rest.data()), rest.size()});
    world.world.run_for(milliseconds(2));
    if (!client.deaf) client.receive();
    if (disk.hold) {
      client.leave();
      world.world.run_for(milliseconds(2));
    }
    disk.release();
    disk.fail = false;
    world.world.run_for(milliseconds(2));
  }
  expect_serves(world, *server);
  const Outcome stopped = world.run(server->stop());
  BASALT_ASSERT(stopped.ok() && world.buffers_in_use_count() == 0);
  BASALT_ASSERT((mode & mode_read_only) == 0 || disk.write_count == 0);
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out;
  const auto add = [&](const std::string& name, unsigned mode, const std::string& text) {
    out.push_back({name, FuzzOutput().u8(mode).u8(1).add(text).bytes()});
  };
  const std::string block(512, 'x');
  const std::string all_requests =
      request_text(Command::write, 512, 512, command_flag_fua) + block + request_text(Command::read, 512, 1024) +
      request_text(Command::flush, 0, 0) + request_text(Command::trim, 0, 4096) +
      request_text(Command::write_zeroes, 4096, 4096, command_flag_no_hole) + request_text(Command::cache, 0, 512) +
      request_text(Command::read, 512 * 255, 1024) + request_text(Command::write, 512 * 256, 512) + block +
      request_text(Command::read, 1, 3) + request_text(Command::read, 0, 0) + request_text(Command::disconnect, 0, 0);
  for (const unsigned mode : {0u, mode_deaf + 0u, mode_read_only + 0u, mode_hold + 0u, mode_fail + 0u})
    add("requests-" + std::to_string(mode), mode_negotiated | mode, all_requests);
  add("write-cut", mode_negotiated, request_text(Command::write, 0, 8192) + block);
  add("write-huge", mode_negotiated, request_text(Command::write, 0, UINT32_MAX));
  add("write-refused", mode_negotiated, request_text(Command::write, 512 * 300, 1024) + block + block);
  std::string options = greeting_answer + option_text(Option::list, "") + option_text(Option::list, "no data here") +
                        option_text(Option::info, info_text("disk", {info_name, info_block_size})) +
                        option_text(Option::info, info_text("other", {})) + option_text(Option::starttls, "") +
                        option_text(static_cast<Option>(99), "data") + option_text(Option::info, "\1\2\3");
  add("options", 0, options + option_text(Option::go, info_text("disk", {info_name})) + all_requests);
  add("abort", 0, options + option_text(Option::abort, ""));
  add("export-name", 0, greeting_answer + option_text(Option::export_name, "disk") + all_requests);
  add("export-name-zeroes", 0, be(1, 4) + option_text(Option::export_name, "") + all_requests);
  add("export-name-unknown", 0, greeting_answer + option_text(Option::export_name, "other"));
  add("flags-unknown", 0, be(0x80, 4));
  add("option-huge", 0, greeting_answer + be(magic_option, 8) + be(7, 4) + be(UINT32_MAX, 4));
  add("no-name", mode_no_name, greeting_answer + option_text(Option::list, ""));
  return out;
}

BASALT_FUZZ_TARGET(nbd, run, seeds)

}  // namespace
}  // namespace basalt::nbd
