// SPDX-License-Identifier: Apache-2.0
// Hosts that leave at any byte, stop in the middle, never read, or come in crowds: M33 and M34 of
// docs/conformance-malformed.md and what bounds a bad host. Only they lose; everything they held comes back.
#include <cstring>

#include "base/probe.h"
#include "nvmf/transport/tcp/tcp_target_fixture_testing.h"

namespace basalt::nvmf {
namespace {

using namespace basalt::nvmf::testing;  // NOLINT
using nvme::NvmOpcode;
namespace status = nvme::status;

constexpr pdu::Digests both{true, true};

nvme::Command io_command(NvmOpcode opcode, uint16_t cid, uint64_t slba, uint32_t count, uint8_t sgl_type) {
  nvme::Command command = RawHost::io_command(opcode, 1, slba, count);
  command.cid = cid;
  command.sgl = {0, count * 4096, {}, sgl_type};
  return command;
}
Bytes in_capsule_write(uint16_t cid, uint64_t slba, pdu::Digests digests = {}) {
  return RawHost::capsule(io_command(NvmOpcode::write, cid, slba, 1, nvme::sgl_data_block_offset), pattern(4096, 1),
                          digests);
}
Bytes first_bytes(const Bytes& bytes, size_t count) {
  return Bytes(bytes.begin(), bytes.begin() + static_cast<long>(count));
}

class DisconnectAtEveryByte : public TcpTargetFixture, public ::testing::WithParamInterface<Wire> {
 protected:
  DisconnectAtEveryByte() : TcpTargetFixture(GetParam()) { add_namespace(); }
  void expect_all_back(size_t cut) {
    EXPECT_TRUE(run_until([&] { return transport_->connection_count() == 0; }, seconds(20))) << "cut at " << cut;
    ASSERT_EQ(buffers_in_use_count(), 0u) << "cut at " << cut;
    hosts_.clear();
  }
  // Every byte of the headers, some of the payload, every byte of the end.
  static size_t next_cut(size_t cut, size_t size) {
    if (cut < 100 || cut + 16 >= size) return cut + 1;
    return std::min(cut + 509, size - 16);
  }
};
INSTANTIATE_TEST_SUITE_P(, DisconnectAtEveryByte, ::testing::Values(Wire::memory, Wire::sockets), wire_name);

TEST_P(DisconnectAtEveryByte, M33OfIcReqGivesEverythingBack) {
  Bytes ic(sizeof(pdu::IcRequest));
  pdu::encode_ic_request(ic.data(), {}, 0);
  for (size_t cut = 0; cut <= ic.size(); cut++) {
    RawHost& host = dial();
    host.send(first_bytes(ic, cut));
    host.drop();
    expect_all_back(cut);
  }
}

TEST_P(DisconnectAtEveryByte, M33OfACapsuleWithItsDataAndDigestsGivesEverythingBack) {
  const Bytes stream = in_capsule_write(7, 0, both);
  for (size_t cut = 0; cut <= stream.size(); cut = next_cut(cut, stream.size())) {
    const Pair pair = associate(40, both);
    pair.io->send(first_bytes(stream, cut));
    pair.drop();
    expect_all_back(cut);
  }
  const auto stored = associate(41).io->read(1, 0, 1).data;
  EXPECT_TRUE(stored == Bytes(4096) || stored == pattern(4096, 1)) << "a write is there whole or not at all";
}

TEST_P(DisconnectAtEveryByte, M33OfH2CDataAndBeforeItGivesEverythingBack) {
  size_t size = 1;
  for (size_t cut = 0; cut <= size; cut = next_cut(cut, size)) {
    const Pair pair = associate(40, both);
    pair.io->send(RawHost::capsule(io_command(NvmOpcode::write, 7, 0, 1, nvme::sgl_transport_data_block), {}, both));
    const auto r2t = pair.io->next();
    ASSERT_TRUE(r2t && r2t->type == pdu::Type::r2t);
    Bytes data(pdu::encoded_small_header_bytes_max);
    data.resize(pdu::encode_h2c_data(
        data.data(), both, {.cccid = 7, .ttag = r2t->as<pdu::R2t>().ttag, .length_bytes = 4096, .last = true}));
    const Bytes payload = pattern(4096, 1);
    data.insert(data.end(), payload.begin(), payload.end());
    RawHost::append_digest(data, payload);
    size = data.size();
    pair.io->send(first_bytes(data, cut));
    pair.drop();
    expect_all_back(cut);
  }
}

TEST_P(DisconnectAtEveryByte, M33WhileCommandsAreAtTheDeviceWaitsForThemAndOnlyForThem) {
  const Pair pair = associate();
  bdev_->hold_all = true;
  for (uint16_t i = 0; i < 4; i++) {
    pair.io->send(in_capsule_write(i, i));
    pair.io->send(RawHost::capsule(
        io_command(NvmOpcode::read, static_cast<uint16_t>(100 + i), i, 1, nvme::sgl_transport_data_block)));
  }
  EXPECT_TRUE(run_until([&] { return bdev_->held.size() == 8; }));
  pair.drop();
  EXPECT_TRUE(run_until([&] { return transport_->connection_count() == 1; }))
      << "the queue with commands at the device";
  run_for(milliseconds(20));
  EXPECT_EQ(transport_->connection_count(), 1u);
  EXPECT_EQ(buffers_in_use_count(), 8u);
  bdev_->release();
  expect_all_back(0);
}

TEST_P(DisconnectAtEveryByte, M33WhileAnswersAreHalfSentGivesEverythingBack) {
  for (const uint16_t read_count : {1, 4, 9}) {
    const Pair pair = associate();
    for (uint16_t i = 0; i < read_count; i++) {
      pair.io->send(RawHost::capsule(io_command(NvmOpcode::read, i, 0, 256, nvme::sgl_transport_data_block)));
    }
    run_for(milliseconds(5));
    EXPECT_TRUE(buffers_in_use_count() > 0 || wire_ == Wire::sockets);  // the machine takes more
    pair.drop();
    expect_all_back(read_count);
  }
}

class Misbehaviour : public TcpTargetFixture {
 protected:
  explicit Misbehaviour(const TcpTargetOptions& options = {}, const TargetLimits& limits = {})
      : TcpTargetFixture(Wire::memory, options, limits) {}
  // How long the target keeps the connection.
  Duration time_to_close(RawHost& host) {
    const Instant start = now();
    EXPECT_TRUE(run_until([&] { return host.closed() || (host.poll(), host.closed()); }, seconds(300)));
    return now() - start;
  }
};

TEST_F(Misbehaviour, SilentConnectionsAreClosedInTime) {
  RawHost& silent = dial();
  const Instant start = now();
  EXPECT_TRUE(silent.closes());
  EXPECT_LT(now() - start, seconds(6));
  RawHost& half = dial();
  half.initialize();
  EXPECT_TRUE(half.closes());
  EXPECT_LT(now() - start, seconds(17));
}

TEST_F(Misbehaviour, AnyCommandKeepsAControllerAliveAndSilenceEndsIt) {
  add_namespace();
  RawHost& admin = dial();
  admin.initialize({});
  const auto connected = admin.connect(0, subnqn, hostnqn, 1, 0xffff, 1000);
  ASSERT_TRUE(connected.status.ok());
  EXPECT_TRUE(admin.property_set(nvme::property_cc, cc_enable).status.ok());
  // A host that was promised keep-alive by traffic sends none while its admin commands are answered.
  for (int turn = 0; turn < 10; turn++) {
    run_for(milliseconds(400));
    EXPECT_TRUE(admin.identify(1).status.ok()) << turn;
  }
  RawHost& io = dial();
  io.initialize({});
  ASSERT_TRUE(io.connect(1, subnqn, hostnqn, 1, static_cast<uint16_t>(connected.dw0)).status.ok());
  for (int turn = 0; turn < 10; turn++) {
    run_for(milliseconds(400));
    EXPECT_EQ(io.read(1, 0, 1).data.size(), 4096u) << turn;
  }
  run_for(milliseconds(900));
  EXPECT_EQ(subsystem_->controllers().size(), 1u);
  run_for(milliseconds(200));
  EXPECT_TRUE(subsystem_->controllers().empty());
  EXPECT_TRUE(admin.closes());
  EXPECT_TRUE(io.closes());
}

TEST_F(Misbehaviour, AHostThatStopsItsKeepAliveLosesItsController) {
  add_namespace();
  const Pair pair = associate(1, {}, 2000);
  for (int i = 0; i < 8; i++) {  // traffic on the I/O queue counts
    run_for(seconds(1));
    ASSERT_TRUE(pair.io->read(1, 0, 1).status.ok());
  }
  EXPECT_TRUE(pair.io->closes());
  EXPECT_TRUE(pair.admin->closes());
  EXPECT_TRUE(run_until([&] { return subsystem_->controllers().empty(); }));
}

TEST_F(Misbehaviour, M34AByteAtATimeIsServedLikeAnyOther) {
  add_namespace();
  const Pair pair = associate(1, both);
  const Bytes stream = in_capsule_write(7, 3, both);
  for (const uint8_t byte : stream)
    ASSERT_TRUE(pair.io->send({byte}));
  EXPECT_TRUE(pair.io->collect(7).status.ok());
  EXPECT_EQ(pair.io->read(1, 3, 1).data, pattern(4096, 1));
}

TEST_F(Misbehaviour, M34AHostThatStopsInTheMiddleOfAPduIsClosedInTimeAndABystanderGoesOn) {
  add_namespace();
  const Pair bystander = associate(2);
  for (const size_t cut : {size_t{4}, size_t{60}, size_t{72}, size_t{2000}}) {
    SCOPED_TRACE(cut);
    const Pair pair = associate(1);
    pair.io->send(first_bytes(in_capsule_write(7, 3), cut));
    EXPECT_LT(time_to_close(*pair.io), seconds(60));
    EXPECT_TRUE(bystander.io->read(1, 0, 1).status.ok());
    pair.drop();
  }
  EXPECT_EQ(bystander.io->read(1, 3, 1).data, Bytes(4096));
}

TEST_F(Misbehaviour, M34AHostThatNeverSendsTheDataItWasAskedForLosesItsBuffersInTime) {
  add_namespace();
  const Pair pair = associate(1);  // without a keep-alive time-out: nothing else would end it
  for (uint16_t i = 0; i < 4; i++)
    pair.io->send(RawHost::capsule(io_command(NvmOpcode::write, i, i, 16, nvme::sgl_transport_data_block)));
  EXPECT_TRUE(run_until([&] { return buffers_in_use_count() == 4; }));
  EXPECT_LT(time_to_close(*pair.io), seconds(60));
  EXPECT_TRUE(run_until([&] { return buffers_in_use_count() == 0; }));
}

TEST_F(Misbehaviour, M34DataThatDripsDoesNotKeepABufferForEver) {
  add_namespace();
  const Pair pair = associate(1);
  pair.io->send(RawHost::capsule(io_command(NvmOpcode::write, 7, 0, 256, nvme::sgl_transport_data_block)));
  const auto r2t = pair.io->next();
  ASSERT_TRUE(r2t && r2t->type == pdu::Type::r2t);
  const Instant start = now();
  uint32_t at = 0;
  while (!pair.io->closed() && now() - start < seconds(200)) {
    Bytes data(pdu::encoded_small_header_bytes_max);
    data.resize(pdu::encode_h2c_data(
        data.data(), {},
        {.cccid = 7, .ttag = r2t->as<pdu::R2t>().ttag, .offset_bytes = at, .length_bytes = 4, .last = false}));
    data.resize(data.size() + 4);
    at += 4;
    if (!pair.io->send(data)) break;
    run_for(seconds(1));
    pair.io->poll();
  }
  EXPECT_TRUE(pair.io->closes());
  EXPECT_LT(now() - start, seconds(60));
}

TEST_F(Misbehaviour, M34ASlowButSteadyHostIsNotCutOff) {
  add_namespace();
  const Pair pair = associate(1);
  const Bytes data = pattern(1 << 20, 3);
  pair.io->send(RawHost::capsule(io_command(NvmOpcode::write, 7, 0, 256, nvme::sgl_transport_data_block)));
  const auto r2t = pair.io->next();
  ASSERT_TRUE(r2t && r2t->type == pdu::Type::r2t);
  for (uint32_t at = 0; at < data.size(); at += 32768) {  // 32 KiB each two seconds: a minute in all
    Bytes out(pdu::encoded_small_header_bytes_max);
    out.resize(pdu::encode_h2c_data(out.data(), {},
                                    {.cccid = 7,
                                     .ttag = r2t->as<pdu::R2t>().ttag,
                                     .offset_bytes = at,
                                     .length_bytes = 32768,
                                     .last = at + 32768 == data.size()}));
    out.insert(out.end(), data.begin() + at, data.begin() + at + 32768);
    ASSERT_TRUE(pair.io->send(out));
    run_for(seconds(2));
  }
  EXPECT_TRUE(pair.io->collect(7).status.ok());
  EXPECT_EQ(pair.io->read(1, 0, 256).data, data);
}

TEST_F(Misbehaviour, M34APeerThatNeverReadsHoldsNoMoreThanItsShareAndIsClosedInTime) {
  add_namespace();
  const Pair greedy = associate(1);
  ASSERT_TRUE(subsystem_->add_host("nqn.2024-01.io.basalt:other").ok());
  RawHost& admin = dial();
  admin.initialize();
  const auto connected = admin.connect(0, subnqn, "nqn.2024-01.io.basalt:other", 2);
  ASSERT_TRUE(connected.status.ok());
  ASSERT_TRUE(admin.property_set(nvme::property_cc, cc_enable).status.ok());
  RawHost& other = dial();
  other.initialize();
  ASSERT_TRUE(
      other.connect(1, subnqn, "nqn.2024-01.io.basalt:other", 2, static_cast<uint16_t>(connected.dw0)).status.ok());
  // Reads of every size, so that a host without a share would take the buffers of every class.
  uint16_t cid = 0;
  for (const uint32_t count : {256u, 1u, 2u, 4u, 8u, 16u, 32u, 64u, 128u}) {
    for (int i = 0; i < 13; i++) {
      greedy.io->send(RawHost::capsule(io_command(NvmOpcode::read, cid++, 0, count, nvme::sgl_transport_data_block)));
    }
  }
  for (int i = 0; i < 20; i++) {
    EXPECT_TRUE(other.read(1, 0, 1).status.ok());
    EXPECT_TRUE(other.write(1, 5, pattern(4096, 1), true).status.ok());
    EXPECT_TRUE(other.read(1, 0, 8).status.ok());
  }
  const size_t pool_bytes = BufferPool::bytes_min;
  EXPECT_LE(reactors_[0]->buffers().in_use_bytes(), pool_bytes / 2 + (1 << 20));
  EXPECT_LE(reactors_[1]->buffers().in_use_bytes(), pool_bytes / 2 + (1 << 20));
  run_for(seconds(60));  // it read nothing in all this time
  EXPECT_TRUE(greedy.io->closes());
  EXPECT_TRUE(run_until([&] { return buffers_in_use_count() == 0; }));
  EXPECT_TRUE(other.read(1, 0, 1).status.ok());
}

// What a bdev lends is sent in the same turn or copied: nothing changes under a digest or in the middle of a block.
TEST_F(Misbehaviour, DataThatASlowHostReadsLateIsWhatItWasWhenItWasRead) {
  MarkTable marks;
  const CountMarks counting(marks);
  add_namespace();
  constexpr uint32_t blocks_per_read = 32;
  constexpr uint16_t read_count = 6;  // buffers are left for the writer
  const Bytes before = pattern(size_t{blocks_per_read} * 4096, 1);
  const Bytes after = pattern(size_t{blocks_per_read} * 4096, 2);
  // Several, because only a connection on the bdev's reactor borrows.
  for (uint16_t host = 1; host <= 3; host++) {
    const Pair writer = associate(host);
    const Pair slow = associate(static_cast<uint16_t>(10 + host), both);
    ASSERT_TRUE(writer.io->write(1, 0, before, false).status.ok());
    for (uint16_t i = 0; i < read_count; i++) {
      slow.io->send(RawHost::capsule(io_command(NvmOpcode::read, i, 0, blocks_per_read, nvme::sgl_transport_data_block),
                                     {}, both));
    }
    run_for(milliseconds(5));
    ASSERT_TRUE(writer.io->write(1, 0, after, false).status.ok());
    size_t old_count = 0;
    for (uint16_t i = 0; i < read_count; i++) {
      const auto answer = slow.io->next();
      ASSERT_TRUE(answer.has_value()) << i << " closed " << slow.io->closed() << " broken " << slow.io->broken();
      ASSERT_EQ(answer->type, pdu::Type::c2h_data) << i;
      EXPECT_TRUE(answer->digest_ok);
      EXPECT_TRUE(answer->data == before || answer->data == after);
      old_count += answer->data == before ? 1 : 0;
    }
    EXPECT_GT(old_count, 1u);
    slow.drop();
    writer.drop();
  }
  EXPECT_GT(marks.count(Mark::lent_data_kept), 0u);
}

TEST_F(Misbehaviour, CommandsBeyondAHostsShareWaitAndAllEnd) {
  add_namespace();
  const Pair one = associate(1);
  const Pair two = associate(2);  // another identifier, the same host
  for (const Pair& pair : {one, two}) {
    for (uint16_t i = 0; i < 30; i++) {
      pair.io->send(RawHost::capsule(io_command(NvmOpcode::read, i, i, 250, nvme::sgl_transport_data_block)));
    }
  }
  size_t answer_count = 0;
  EXPECT_TRUE(run_until([&] {
    for (const Pair& pair : {two, one}) {
      while (pair.io->poll())
        answer_count++;
    }
    return answer_count == 60;
  }));
}

class HalfOpen : public Misbehaviour {
 protected:
  static TcpTargetOptions few() {
    TcpTargetOptions options;
    options.half_open_max = 64;
    return options;
  }
  HalfOpen() : Misbehaviour(few()) { add_namespace(); }
};

TEST_F(HalfOpen, ACrowdThatSaysNothingNeitherDisturbsAHostNorKeepsAnotherOut) {
  const Pair working = associate(1);
  for (int i = 0; i < 1000; i++) {
    dial();
    if (i % 100 == 50) {
      EXPECT_TRUE(working.io->read(1, 0, 1).status.ok());
      EXPECT_TRUE(associate(static_cast<uint16_t>(100 + i)).io->write(1, 1, pattern(4096, 1), true).status.ok());
    }
  }
  EXPECT_LE(transport_->half_open_count(), 64u + 2);
  EXPECT_TRUE(working.io->write(1, 2, pattern(4096, 2), true).status.ok());
  run_for(seconds(20));
  EXPECT_EQ(transport_->half_open_count(), 0u);
  EXPECT_TRUE(working.io->read(1, 2, 1).status.ok());
}

class FewConnections : public Misbehaviour {
 protected:
  FewConnections() : Misbehaviour({}, {.connections_per_host_max = 6}) { add_namespace(); }
};

TEST_F(FewConnections, OneHostGetsNoMoreThanItsNumberAndAnotherGetsItsOwn) {
  ASSERT_TRUE(subsystem_->add_host("nqn.2024-01.io.basalt:other").ok());
  std::vector<Pair> pairs;
  for (uint16_t i = 0; i < 3; i++)
    pairs.push_back(associate(static_cast<uint16_t>(1 + i)));
  RawHost& seventh = dial();
  seventh.initialize();
  EXPECT_TRUE(seventh.connect(0, subnqn, hostnqn, 9).status.is(status::connect_controller_busy));
  RawHost& queue = dial();
  queue.initialize();
  EXPECT_TRUE(queue.connect(2, subnqn, hostnqn, 1, pairs[0].cntlid).status.is(status::connect_controller_busy));
  RawHost& other = dial();
  other.initialize();
  EXPECT_TRUE(other.connect(0, subnqn, "nqn.2024-01.io.basalt:other", 1).status.ok());
  pairs[2].drop();
  EXPECT_TRUE(run_until([&] { return subsystem_->controllers().size() == 3; }));  // two of the host, one of the other
  EXPECT_TRUE(seventh.connect(0, subnqn, hostnqn, 9).status.ok()) << "there is room again";
}

}  // namespace
}  // namespace basalt::nvmf
