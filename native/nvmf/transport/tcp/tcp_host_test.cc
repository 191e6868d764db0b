// SPDX-License-Identifier: Apache-2.0
// The host against a scripted target over sockets in memory: what it sends, and that nothing a bad target sends can
// hurt.
#include "nvmf/transport/tcp/tcp_host.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "nvmf/host/controller.h"
#include "nvmf/host/peer_watch.h"
#include "nvmf/transport/tcp/fake_target_testing.h"

namespace basalt::nvmf {
namespace {

using basalt::testing::FakeConnection;
using basalt::testing::FakeTarget;
using basalt::testing::MemoryNet;
using nvme::DataDirection;

constexpr uint16_t port = 4420;

struct Recorder : HostController::Listener {
  std::vector<Error> lost;
  size_t changes = 0;
  void controller_lost(const Error& reason) override { lost.push_back(reason); }
  void namespaces_changed() override { changes++; }
};

class TcpHost : public ::testing::Test {
 protected:
  explicit TcpHost(uint64_t seed = 1) : net(seed) {}
  void SetUp() override {
    ASSERT_TRUE(host.init().ok());
    ASSERT_TRUE(peer.init().ok());
    net.add(&host);
    net.add(&peer);
    target = std::make_unique<FakeTarget>(net, peer, port);
  }
  void TearDown() override {
    if (controller) {
      net.run_void(controller->close());
      controller.reset();
    }
    target.reset();
    net.run_for(milliseconds(1));
  }
  HostControllerOptions options() {
    HostControllerOptions out;
    out.address = {"127.0.0.1", "4420"};
    out.subnqn = "nqn.2026-01.test:one";
    out.hostnqn = "nqn.2026-01.test:host";
    out.hostid.bytes[0] = 1;
    return out;
  }
  Outcome connect(HostControllerOptions with) {
    controller = std::make_unique<HostController>(host, transport, std::move(with), &recorder);
    return net.run(controller->connect());
  }
  Outcome connect() { return connect(options()); }

  struct Ended : HostCommand {
    bool ended = false;
  };
  void fill(Ended& command, nvme::NvmOpcode opcode, uint64_t block, std::vector<Iovec>& pieces) {
    command.command.opcode = static_cast<uint8_t>(opcode);
    command.command.nsid = 1;
    command.command.cdw10 = static_cast<uint32_t>(block);
    command.data_bytes = static_cast<uint32_t>(iovec_bytes(pieces.data(), pieces.size()));
    command.command.cdw12 = command.data_bytes / 4096 - 1;
    command.direction = nvme::data_direction(command.command.opcode);
    command.iov = pieces.data();
    command.iov_count = static_cast<uint16_t>(pieces.size());
    command.done = [](HostCommand* done) { static_cast<Ended*>(done)->ended = true; };
  }
  nvme::Status io(nvme::NvmOpcode opcode, uint64_t block, void* data, size_t bytes) {
    std::vector<Iovec> pieces{{data, bytes}};
    Ended command;
    fill(command, opcode, block, pieces);
    controller->submit(&command);
    EXPECT_FALSE(command.ended);
    EXPECT_TRUE(net.run_until([&] { return command.ended; }));
    was_lost = command.lost;
    return command.status();
  }

  MemoryNet net;
  Arena arena{size_t{64} << 20};
  Reactor host{net, arena, {}};
  Reactor peer{net, arena, {}};
  TcpHostTransport transport;
  std::unique_ptr<FakeTarget> target;
  std::unique_ptr<HostController> controller;
  Recorder recorder;
  bool was_lost = false;
};

TEST_F(TcpHost, ConnectsAndSeesTheNamespace) {
  const Outcome outcome = connect();
  ASSERT_TRUE(outcome.ok()) << outcome.error().message;
  ASSERT_EQ(controller->namespaces().size(), 1u);
  EXPECT_EQ(controller->namespaces()[0].count_blocks, 1024u);
  EXPECT_EQ(controller->namespaces()[0].uuid.bytes[3], 0x5a);
  EXPECT_EQ(controller->info().serial_number, "fake");
}

// Random sizes and pieces against a byte array, with in-capsule writes, R2T in parts, several C2HData, digests or not.
TEST_F(TcpHost, MovesTheSameBytesWhateverTheCuts) {
  for (uint64_t round = 0; round < 8; round++) {
    SCOPED_TRACE("round " + std::to_string(round));
    TcpHostTransport::Options digests;
    digests.digests = {(round & 1) != 0, (round & 2) != 0};
    transport = TcpHostTransport(digests);
    target->success_flag = (round & 4) == 0;
    target->maxh2cdata_bytes = 4096 << (round % 3);
    ASSERT_TRUE(connect().ok());
    std::vector<uint8_t> oracle = target->disk;
    for (int i = 0; i < 60; i++) {
      const uint64_t blocks = 1 + net.draw(32);
      const uint64_t block = net.draw(1024 - blocks);
      std::vector<uint8_t> data(blocks * 4096);
      std::vector<Iovec> pieces;
      for (size_t at = 0; at < data.size();) {
        const size_t take = std::min<size_t>(data.size() - at, 1 + net.draw(9000));
        pieces.push_back({data.data() + at, take});
        at += take;
      }
      const bool writes = net.draw(2) == 0;
      if (writes) net.random(data.data(), data.size());
      Ended command;
      fill(command, writes ? nvme::NvmOpcode::write : nvme::NvmOpcode::read, block, pieces);
      controller->submit(&command);
      ASSERT_TRUE(net.run_until([&] { return command.ended; }));
      ASSERT_TRUE(command.status().ok()) << nvme::to_string(command.status());
      if (writes)
        std::copy(data.begin(), data.end(), oracle.begin() + static_cast<long>(block * 4096));
      else
        ASSERT_TRUE(std::equal(data.begin(), data.end(), oracle.begin() + static_cast<long>(block * 4096)));
    }
    EXPECT_EQ(oracle, target->disk);
    EXPECT_TRUE(recorder.lost.empty());
    net.run_void(controller->close());
    controller.reset();
  }
  EXPECT_GT(target->h2c_count, 0u);
}

TEST_F(TcpHost, KeepsManyCommandsInFlightBeyondItsSlots) {
  auto with = options();
  with.io_queue_depth = 4;
  ASSERT_TRUE(connect(with).ok());
  std::vector<std::vector<uint8_t>> data(100, std::vector<uint8_t>(16384, 0x11));
  std::vector<std::vector<Iovec>> pieces(100);
  std::vector<Ended> commands(100);
  for (size_t i = 0; i < 100; i++) {
    pieces[i] = {{data[i].data(), data[i].size()}};
    fill(commands[i], i % 2 == 0 ? nvme::NvmOpcode::write : nvme::NvmOpcode::read, i * 4, pieces[i]);
    controller->submit(&commands[i]);
  }
  ASSERT_TRUE(net.run_until([&] {
    return std::all_of(commands.begin(), commands.end(), [](const Ended& command) { return command.ended; });
  }));
  for (const Ended& command : commands)
    EXPECT_TRUE(command.status().ok());
}

TEST_F(TcpHost, GivesExactStatusesUnchanged) {
  ASSERT_TRUE(connect().ok());
  target->on_command = [](FakeConnection& connection, const nvme::Command& command, const std::vector<uint8_t>&) {
    if (connection.qid == 0) return false;
    connection.respond(command.cid, nvme::status::reservation_conflict.dnr());
    return true;
  };
  std::vector<uint8_t> data(65536);
  EXPECT_EQ(io(nvme::NvmOpcode::write, 0, data.data(), 65536), nvme::status::reservation_conflict.dnr());
  EXPECT_EQ(io(nvme::NvmOpcode::read, 0, data.data(), 4096), nvme::status::reservation_conflict.dnr());
  EXPECT_TRUE(recorder.lost.empty());
}

TEST_F(TcpHost, LosesTheAssociationWhenKeepAliveHasNoAnswer) {
  auto with = options();
  with.keep_alive_ms = 100;
  ASSERT_TRUE(connect(with).ok());
  net.run_for(milliseconds(1000));
  EXPECT_GE(target->keep_alive_count, 15u);
  EXPECT_TRUE(recorder.lost.empty());
  const Instant frozen = net.now();
  net.freeze(true, port);
  ASSERT_TRUE(net.run_until([&] { return !recorder.lost.empty(); }));
  EXPECT_EQ(recorder.lost[0].code, Errc::timed_out);
  EXPECT_LE((net.now() - frozen).to_ms(), 151);
  EXPECT_EQ(net.connection_count(port), 0u);
}

TEST_F(TcpHost, LosesTheAssociationWhenACommandHasNoAnswer) {
  auto with = options();
  with.command_timeout = milliseconds(300);
  ASSERT_TRUE(connect(with).ok());
  target->on_command = [](FakeConnection& connection, const nvme::Command& command, const std::vector<uint8_t>&) {
    return connection.qid != 0;
  };
  const Instant begin = net.now();
  std::vector<uint8_t> data(4096);
  EXPECT_EQ(io(nvme::NvmOpcode::read, 0, data.data(), 4096), nvme::status::host_path_error);
  EXPECT_TRUE(was_lost);
  EXPECT_EQ((net.now() - begin).to_ms(), 300);
  net.run_for(milliseconds(1));
  EXPECT_EQ(recorder.lost.size(), 1u);
}

TEST_F(TcpHost, ReadsTheAnaLogAfterItsEvent) {
  ASSERT_TRUE(connect().ok());
  EXPECT_EQ(controller->namespaces()[0].ana_state, nvme::AnaState::optimized);
  target->ana_state = nvme::AnaState::inaccessible;
  target->send_event(0x000c0302);
  ASSERT_TRUE(net.run_until([&] { return recorder.changes > 0; }));
  EXPECT_EQ(controller->namespaces()[0].ana_state, nvme::AnaState::inaccessible);
}

TEST_F(TcpHost, SeesANewSizeAfterItsEvent) {
  ASSERT_TRUE(connect().ok());
  target->disk.resize(8 << 20);
  target->send_event(0x00040002);
  ASSERT_TRUE(net.run_until([&] { return recorder.changes > 0; }));
  EXPECT_EQ(controller->namespaces()[0].count_blocks, 2048u);
}

TEST_F(TcpHost, ConnectFailsWithTheReason) {
  net.refuse(port, true);
  EXPECT_EQ(connect().error().code, Errc::unreachable);
  net.run_void(controller->close());
  net.refuse(port, false);
  target->on_command = [](FakeConnection& connection, const nvme::Command& command, const std::vector<uint8_t>&) {
    connection.respond(command.cid, nvme::status::connect_invalid_host.dnr());
    return true;
  };
  EXPECT_EQ(connect().error().code, Errc::permission);
  net.run_void(controller->close());
  target->on_command = nullptr;
  target->on_ic_request = [](FakeConnection&) { return true; };  // no answer
  EXPECT_EQ(connect().error().code, Errc::timed_out);
  net.run_void(controller->close());
  auto with = options();
  with.keep_alive_ms = 50;
  EXPECT_EQ(connect(with).error().code, Errc::invalid_argument);
}

// Each bad answer to an I/O command ends the association with an error, the command is lost, and no byte outside its
// data is written.
struct Malice {
  const char* name;
  nvme::NvmOpcode opcode;
  std::function<void(FakeConnection&, const nvme::Command&)> act;
};

class BadTarget : public TcpHost, public ::testing::WithParamInterface<Malice> {};

TEST_P(BadTarget, IsDropped) {
  ASSERT_TRUE(connect().ok());
  const Malice& malice = GetParam();
  target->on_command = [&](FakeConnection& connection, const nvme::Command& command, const std::vector<uint8_t>&) {
    if (connection.qid == 0) return false;
    malice.act(connection, command);
    return true;
  };
  std::vector<uint8_t> data(3 * 65536, 0xee);
  EXPECT_EQ(io(malice.opcode, 0, data.data() + 65536, 65536), nvme::status::host_path_error);
  EXPECT_TRUE(was_lost);
  net.run_for(milliseconds(1));
  ASSERT_EQ(recorder.lost.size(), 1u);
  EXPECT_EQ(recorder.lost[0].code, Errc::io) << recorder.lost[0].message;
  EXPECT_TRUE(std::all_of(data.begin(), data.begin() + 65536, [](uint8_t byte) { return byte == 0xee; }));
  EXPECT_TRUE(std::all_of(data.begin() + 131072, data.end(), [](uint8_t byte) { return byte == 0xee; }));
}

std::vector<uint8_t> bytes_of(size_t count) {
  return std::vector<uint8_t>(count, 0x77);
}
void send_raw(FakeConnection& connection, std::vector<uint8_t> bytes) {
  connection.send(bytes.data(), bytes.size());
}

const Malice malices[] = {
    {"ResponseToAnUnknownCid", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) { c.respond(m.cid ^ 1, nvme::status::success); }},
    {"ResponseWithAnOldGeneration", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) {
       c.respond(static_cast<uint16_t>(m.cid - 128), nvme::status::success);
     }},
    {"CidBeyondAllSlots", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) { c.respond(0xffff, nvme::status::success); }},
    {"SuccessWithoutData", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) { c.respond(m.cid, nvme::status::success); }},
    {"SuccessWithoutTakingTheWrite", nvme::NvmOpcode::write,
     [](FakeConnection& c, const nvme::Command& m) { c.respond(m.cid, nvme::status::success); }},
    {"DataBeyondTheEnd", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) {
       c.send_data(m.cid, 0, bytes_of(65540).data(), 65540, false, false);
     }},
    {"DataAtAGap", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) { c.send_data(m.cid, 4, bytes_of(8).data(), 8, false, false); }},
    {"DataTwice", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) {
       c.send_data(m.cid, 0, bytes_of(4096).data(), 4096, false, false);
       c.send_data(m.cid, 0, bytes_of(4096).data(), 4096, false, false);
     }},
    {"DataOffsetWraps", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) {
       c.send_data(m.cid, 0xfffffff0, bytes_of(64).data(), 64, false, false);
     }},
    {"DataForAWrite", nvme::NvmOpcode::write,
     [](FakeConnection& c, const nvme::Command& m) { c.send_data(m.cid, 0, bytes_of(8).data(), 8, true, true); }},
    {"ShortDataWithSuccess", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) { c.send_data(m.cid, 0, bytes_of(512).data(), 512, true, true); }},
    {"R2tForARead", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) { c.send_r2t(m.cid, 1, 0, 4096); }},
    {"R2tBeyondTheEnd", nvme::NvmOpcode::write,
     [](FakeConnection& c, const nvme::Command& m) { c.send_r2t(m.cid, 1, 0, 65537); }},
    {"R2tOfNothing", nvme::NvmOpcode::write,
     [](FakeConnection& c, const nvme::Command& m) { c.send_r2t(m.cid, 1, 0, 0); }},
    {"R2tWraps", nvme::NvmOpcode::write,
     [](FakeConnection& c, const nvme::Command& m) { c.send_r2t(m.cid, 1, 0, 0xffffffff); }},
    {"R2tAtAGap", nvme::NvmOpcode::write,
     [](FakeConnection& c, const nvme::Command& m) { c.send_r2t(m.cid, 1, 4096, 4096); }},
    {"R2tTwice", nvme::NvmOpcode::write,
     [](FakeConnection& c, const nvme::Command& m) {
       c.send_r2t(m.cid, 1, 0, 8192);
       c.send_r2t(m.cid, 2, 0, 8192);
     }},
    {"R2tForNobody", nvme::NvmOpcode::write,
     [](FakeConnection& c, const nvme::Command& m) { c.send_r2t(m.cid ^ 3, 1, 0, 4096); }},
    {"SecondIcResponse", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) {
       uint8_t out[pdu::encoded_header_bytes_max];
       c.send(out, pdu::encode_ic_response(out, {}, 4096));
     }},
    {"HostsOwnPduType", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) {
       uint8_t out[pdu::encoded_header_bytes_max];
       c.send(out, pdu::encode_capsule_command(out, {}, m, 0));
     }},
    {"Rubbish", nvme::NvmOpcode::read, [](FakeConnection& c, const nvme::Command& m) { send_raw(c, bytes_of(4000)); }},
    {"HugePlen", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) {
       send_raw(c, {0x07, 0, 24, 24, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
     }},
    {"PlenBelowHeader", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) {
       send_raw(c, {0x05, 0, 24, 0, 8, 0, 0, 0});
     }},
    {"TerminationRequest", nvme::NvmOpcode::read,
     [](FakeConnection& c, const nvme::Command& m) {
       uint8_t out[pdu::encoded_header_bytes_max];
       const uint8_t wrong[8] = {};
       c.send(out, pdu::encode_term_request(out, pdu::Type::c2h_term_request, {pdu::Fes::sequence_error, 0}, wrong, 8));
     }},
};
INSTANTIATE_TEST_SUITE_P(Malice, BadTarget, ::testing::ValuesIn(malices),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_F(TcpHost, SurvivesRandomBytesAnywhere) {
  for (uint64_t seed = 1; seed <= 200; seed++) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    uint64_t countdown = 1 + net.draw(14);
    target->on_command = [&](FakeConnection& connection, const nvme::Command& command,
                             const std::vector<uint8_t>& data) {
      if (--countdown != 0) return false;
      // A right answer with one flipped bit.
      const size_t before = connection.output.size();
      connection.serve(command, data);
      const size_t added = connection.output.size() - before;
      if (added > 0) connection.output[before + net.draw(std::min<size_t>(added, 40))] ^= 1u << net.draw(8);
      return true;
    };
    auto with = options();
    with.admin_timeout = with.command_timeout = milliseconds(200);
    if (connect(with).ok()) {
      std::vector<uint8_t> data(32768);
      (void)io(nvme::NvmOpcode::read, 0, data.data(), data.size());
      if (controller->live()) (void)io(nvme::NvmOpcode::write, 8, data.data(), data.size());
    }
    net.run_void(controller->close());
    controller.reset();
    recorder.lost.clear();
  }
}

// The connection ends at every transfer of a short session.
TEST_F(TcpHost, EndsCleanlyWhereverTheConnectionIsCut) {
  for (uint64_t transfers = 1; transfers < 160; transfers++) {
    SCOPED_TRACE("cut after " + std::to_string(transfers));
    net.cut_after(transfers, port);
    if (connect().ok()) {
      std::vector<uint8_t> data(65536);
      if (controller->live()) (void)io(nvme::NvmOpcode::write, 0, data.data(), data.size());
      if (controller->live()) (void)io(nvme::NvmOpcode::read, 0, data.data(), data.size());
    }
    net.run_void(controller->close());
    controller.reset();
  }
}

struct Watcher : PeerWatch::Listener {
  size_t connected = 0;
  size_t lost = 0;
  void peer_connected() override { connected++; }
  void peer_lost(const Error&) override { lost++; }
  void peer_refused(const Error&) override { refused++; }
  size_t refused = 0;
};

TEST_F(TcpHost, PeerWatchTellsEachLossOnceAndComesBack) {
  Watcher watcher;
  PeerWatchOptions watch_options;
  watch_options.address = {"127.0.0.1", "4420"};
  watch_options.hostnqn = "nqn.2026-01.test:host";
  watch_options.keep_alive_ms = 100;
  watch_options.connect_timeout = milliseconds(300);
  PeerWatch watch(host, transport, watch_options, &watcher);
  ASSERT_TRUE(watch.start().ok());
  EXPECT_EQ(watcher.connected, 0u);
  ASSERT_TRUE(net.run_until([&] { return watcher.connected == 1; }));
  // A connection that ended while the peer still answers is no loss.
  net.cut(port);
  net.run_for(seconds(2));
  EXPECT_TRUE(watch.connected());
  EXPECT_EQ(watcher.connected, 1u);
  EXPECT_EQ(watcher.lost, 0u);
  // A peer that has died refuses at once.
  net.refuse(port, true);
  net.cut(port);
  ASSERT_TRUE(net.run_until([&] { return watcher.lost == 1; }, milliseconds(20)));
  net.refuse(port, false);
  ASSERT_TRUE(net.run_until([&] { return watcher.connected == 2; }));
  // A silent one is given up after some keep-alive times: the loss, and the last try.
  target->on_ic_request = [](FakeConnection&) { return true; };
  net.freeze(true, port);
  ASSERT_TRUE(net.run_until([&] { return watcher.lost == 2; }, milliseconds(600)));
  target->on_ic_request = {};
  net.refuse(port, true);
  net.run_for(seconds(20));
  EXPECT_EQ(watcher.lost, 2u);
  net.refuse(port, false);
  ASSERT_TRUE(net.run_until([&] { return watcher.connected == 3; }));
  net.run_void(watch.stop());
  EXPECT_EQ(watcher.lost, 2u);
}

TEST_F(TcpHost, PeerWatchTellsOnceThatAPeerRefuses) {
  net.refuse(port, true);
  Watcher watcher;
  PeerWatchOptions watch_options;
  watch_options.address = {"127.0.0.1", "4420"};
  watch_options.hostnqn = "nqn.2026-01.test:host";
  PeerWatch watch(host, transport, watch_options, &watcher);
  ASSERT_TRUE(watch.start().ok());
  ASSERT_TRUE(net.run_until([&] { return watcher.refused == 1; }, milliseconds(20)));
  net.run_for(seconds(20));
  EXPECT_EQ(watcher.refused, 1u);
  EXPECT_EQ(watcher.lost, 0u) << "it was never connected";
  net.refuse(port, false);
  ASSERT_TRUE(net.run_until([&] { return watcher.connected == 1; }, seconds(2)));
  net.refuse(port, true);
  net.cut(port);
  ASSERT_TRUE(net.run_until([&] { return watcher.refused == 2; }, milliseconds(20)));
  EXPECT_EQ(watcher.lost, 1u);
  net.run_void(watch.stop());
}

// An attempt that began while nothing went through finds out late that it does again, or never.
TEST_F(TcpHost, PeerWatchIsBackSoonAfterANetworkHeals) {
  Watcher watcher;
  PeerWatchOptions watch_options;
  watch_options.address = {"127.0.0.1", "4420"};
  watch_options.hostnqn = "nqn.2026-01.test:host";
  PeerWatch watch(host, transport, watch_options, &watcher);
  ASSERT_TRUE(watch.start().ok());
  ASSERT_TRUE(net.run_until([&] { return watcher.connected == 1; }));
  // Connections are made, and nothing is answered on them.
  for (const int away_ms : {2'000, 5'000, 60'000}) {
    SCOPED_TRACE(away_ms);
    target->on_ic_request = [](FakeConnection&) { return true; };
    net.freeze(true, port);
    net.run_for(milliseconds(away_ms));
    net.freeze(false, port);
    target->on_ic_request = {};
    const size_t before = watcher.connected;
    ASSERT_TRUE(net.run_until([&] { return watcher.connected == before + 1; }, milliseconds(3'100)));
  }
  net.run_void(watch.stop());
}

TEST_F(TcpHost, StoppingAWatchThatIsStillConnectingIsPrompt) {
  for (const int phase : {0, 1, 2}) {
    SCOPED_TRACE(phase);
    target->on_ic_request = phase == 1 ? [](FakeConnection&) { return true; } : std::function<bool(FakeConnection&)>();
    if (phase == 2) {
      target->on_command = [](FakeConnection&, const nvme::Command&, const std::vector<uint8_t>&) { return true; };
    }
    Watcher watcher;
    PeerWatchOptions watch_options;
    watch_options.address = {"127.0.0.1", "4420"};
    watch_options.hostnqn = "nqn.2026-01.test:host";
    watch_options.connect_timeout = seconds(30);
    PeerWatch watch(host, transport, watch_options, &watcher);
    ASSERT_TRUE(watch.start().ok());
    if (phase > 0) net.run_for(milliseconds(20));
    const Instant begin = net.now();
    net.run_void(watch.stop());
    EXPECT_LE((net.now() - begin).to_ms(), 60);
    EXPECT_EQ(watcher.connected, 0u);
    EXPECT_EQ(net.connection_count(port), 0u);
  }
}

}  // namespace
}  // namespace basalt::nvmf
