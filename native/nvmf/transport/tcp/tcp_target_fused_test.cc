// SPDX-License-Identifier: Apache-2.0
// Fused Compare and Write over the wire: whole pairs, halves, wrong pairs, and what else touches their blocks.
#include <map>

#include "nvmf/transport/tcp/tcp_target_fixture_testing.h"

namespace basalt::nvmf::testing {
namespace {

using nvme::NvmOpcode;
using nvme::Status;
namespace status = nvme::status;

class Fused : public TcpTargetFixture {
 protected:
  explicit Fused(bool offered = true) : TcpTargetFixture(Wire::memory, {}, {}, offered) { add_namespace(); }
  struct Half {
    nvme::Command command;
    Bytes data;
  };
  static Half half(NvmOpcode opcode, uint8_t fuse, uint16_t cid, uint64_t slba, const Bytes& data) {
    Half out{RawHost::io_command(opcode, 1, slba, static_cast<uint32_t>(data.size() / 4096)), data};
    out.command.cid = cid;
    out.command.flags = static_cast<uint8_t>(0x40 | fuse);
    const bool in_capsule = data.size() <= 8192;
    out.command.sgl = {0,
                       static_cast<uint32_t>(data.size()),
                       {},
                       in_capsule ? nvme::sgl_data_block_offset : nvme::sgl_transport_data_block};
    return out;
  }
  static Half compare(uint64_t slba, const Bytes& data) { return half(NvmOpcode::compare, 1, 100, slba, data); }
  static Half write(uint64_t slba, const Bytes& data) { return half(NvmOpcode::write, 2, 101, slba, data); }
  static Bytes capsule(const Half& half) {
    const bool in_capsule = half.command.sgl.type_subtype == nvme::sgl_data_block_offset;
    return RawHost::capsule(half.command, in_capsule ? half.data : Bytes());
  }
  // Sends all in one go, gives data when asked, and waits for as many answers.
  std::map<uint16_t, Status> exchange(RawHost& host, const std::vector<Half>& halves) {
    Bytes bytes;
    for (const Half& half : halves) {
      const Bytes one = capsule(half);
      bytes.insert(bytes.end(), one.begin(), one.end());
    }
    host.send(bytes);
    return answers(host, halves);
  }
  std::map<uint16_t, Status> answers(RawHost& host, const std::vector<Half>& halves) {
    std::map<uint16_t, Status> out;
    while (out.size() < halves.size()) {
      const auto pdu = host.next();
      if (!pdu) break;
      if (pdu->type == pdu::Type::r2t) {
        const auto r2t = pdu->as<pdu::R2t>();
        for (const Half& half : halves) {
          if (half.command.cid == r2t.cccid) host.send_data(r2t, half.data);
        }
      } else if (pdu->type == pdu::Type::capsule_response) {
        const auto completion = pdu->as<pdu::CapsuleResponse>().completion;
        out[completion.cid] = Status{static_cast<uint16_t>(completion.status >> 1)};
      }
    }
    return out;
  }
};

TEST_F(Fused, WritesWhenTheBlocksAreAsExpectedAndNotOtherwise) {
  const Pair pair = associate();
  const Bytes id = pair.admin->identify(1).data;
  EXPECT_EQ(load_le<uint16_t>(id.data() + 522), 1);   // FUSES
  EXPECT_EQ(load_le<uint16_t>(id.data() + 532), 31);  // ACWU
  // In the capsule, and asked for with R2Ts.
  for (const size_t blocks : {1, 2, 3, 32}) {
    SCOPED_TRACE(blocks);
    const Bytes before = pattern(blocks * 4096, 1);
    const Bytes after = pattern(blocks * 4096, 2);
    ASSERT_TRUE(pair.io->write(1, 10, before, false).status.ok());
    auto result = exchange(*pair.io, {compare(10, before), write(10, after)});
    EXPECT_TRUE(result[100].ok()) << to_string(result[100]);
    EXPECT_TRUE(result[101].ok()) << to_string(result[101]);
    EXPECT_EQ(pair.io->read(1, 10, static_cast<uint32_t>(blocks)).data, after);
    result = exchange(*pair.io, {compare(10, before), write(10, before)});
    EXPECT_TRUE(result[100].is(status::compare_failure)) << to_string(result[100]);
    EXPECT_TRUE(result[101].is(status::failed_fused)) << to_string(result[101]);
    EXPECT_EQ(pair.io->read(1, 10, static_cast<uint32_t>(blocks)).data, after);
  }
}

TEST_F(Fused, HalvesAndWrongPairsAreRefusedAndNothingIsWritten) {
  const Pair pair = associate();
  const Bytes zero(4096);
  const Bytes data = pattern(4096, 3);
  const auto plain = [&](uint16_t cid) { return half(NvmOpcode::compare, 0, cid, 0, zero); };
  struct Row {
    const char* name;
    std::vector<Half> sent;
    std::vector<Status> expected;
  };
  const Bytes large(33 * 4096);
  const std::vector<Row> rows = {
      {"a second without a first", {write(0, data)}, {status::missing_fused}},
      {"a first without a second", {compare(0, zero), plain(102)}, {status::missing_fused, status::success}},
      {"two firsts",
       {half(NvmOpcode::compare, 1, 99, 0, zero), compare(8, zero), write(8, zero)},
       {status::missing_fused, status::success, status::success}},
      {"something in between",
       {compare(0, zero), plain(102), write(0, data)},
       {status::missing_fused, status::success, status::missing_fused}},
      {"other blocks", {compare(0, zero), write(1, data)}, {status::invalid_field, status::invalid_field}},
      {"another length",
       {compare(0, zero), write(0, pattern(8192, 1))},
       {status::invalid_field, status::invalid_field}},
      {"write first",
       {half(NvmOpcode::write, 1, 100, 0, data), write(0, data)},
       {status::invalid_field, status::failed_fused}},
      {"a second that is no write",
       {compare(0, zero), half(NvmOpcode::compare, 2, 101, 0, zero)},
       {status::invalid_field, status::invalid_field}},
      {"both bits", {half(NvmOpcode::write, 3, 101, 0, data)}, {status::invalid_field}},
      {"beyond the end",
       {compare(blocks, zero), write(blocks, data)},
       {status::lba_out_of_range, status::failed_fused}},
      {"more than is atomic",
       {compare(0, large), write(0, large)},
       {status::atomic_write_unit_exceeded, status::failed_fused}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    auto result = exchange(*pair.io, row.sent);
    for (size_t i = 0; i < row.sent.size(); i++) {
      const Status status = result[row.sent[i].command.cid];
      EXPECT_TRUE(status.is(row.expected[i])) << i << ": " << to_string(status);
    }
    EXPECT_EQ(pair.io->read(1, 0, 2).data, Bytes(8192));
  }
  // The queue is as it was.
  const auto result = exchange(*pair.io, {compare(0, zero), write(0, data)});
  EXPECT_TRUE(result.at(100).ok() && result.at(101).ok());
}

TEST_F(Fused, AFirstWithBadDataTakesItsSecondAlong) {
  const Pair pair = associate();
  nvme::Command bad = compare(0, Bytes(4096)).command;
  bad.sgl.type_subtype = 0x7f;
  pair.io->send(RawHost::capsule(bad));
  EXPECT_TRUE(pair.io->collect(100).status.is(status::sgl_type_invalid));
  const Half second = write(0, pattern(4096, 1));
  EXPECT_TRUE(exchange(*pair.io, {second})[101].is(status::failed_fused));
  EXPECT_EQ(pair.io->read(1, 0, 1).data, Bytes(4096));
}

// What touches the blocks while a pair runs is carried out before or after it, never in between.
TEST_F(Fused, NothingComesInBetween) {
  const Pair pair = associate(1);
  const Pair other = associate(2);
  const Bytes zero(4096);
  bdev_->hold_all = true;
  pair.io->send(capsule(compare(5, zero)));
  pair.io->send(capsule(write(5, pattern(4096, 1))));
  ASSERT_TRUE(run_until([&] { return bdev_->held.size() == 1; }));  // the comparison's read
  // A write of another host to the same block, one beside it, and a second pair.
  const Half over = half(NvmOpcode::write, 0, 200, 5, pattern(4096, 2));
  const Half beside = half(NvmOpcode::write, 0, 201, 6, pattern(4096, 3));
  other.io->send(capsule(over));
  other.io->send(capsule(beside));
  other.io->send(capsule(compare(5, zero)));
  other.io->send(capsule(write(5, pattern(4096, 4))));
  run_for(milliseconds(50));
  ASSERT_EQ(bdev_->held.size(), 2u) << "the read and the write beside it";
  bdev_->release();
  auto mine = answers(*pair.io, {compare(5, zero), write(5, zero)});
  auto theirs = answers(*other.io, {over, beside, compare(5, zero), write(5, zero)});
  EXPECT_TRUE(mine[100].ok() && mine[101].ok());
  EXPECT_TRUE(theirs[200].ok() && theirs[201].ok());
  EXPECT_TRUE(theirs[100].is(status::compare_failure));
  EXPECT_EQ(pair.io->read(1, 5, 1).data, pattern(4096, 2));
}

TEST_F(Fused, AHalfThatWaitsEndsWithItsConnection) {
  const Pair pair = associate();
  const Bytes zero(4096);
  pair.io->send(capsule(compare(0, zero)));
  const Bytes whole = capsule(write(0, pattern(4096, 1)));
  pair.io->send(Bytes(whole.begin(), whole.begin() + 100));
  run_for(milliseconds(10));
  pair.drop();
  EXPECT_TRUE(run_until([&] { return transport_->connection_count() == 0; }));
  expect_no_buffers();
  const Pair again = associate();
  EXPECT_EQ(again.io->read(1, 0, 1).data, zero);
}

// Hosts that count with compare and write: no step is lost.
TEST_F(Fused, CountersOfManyHostsLoseNothing) {
  constexpr size_t host_count = 4;
  constexpr uint64_t steps = 25;
  std::vector<Pair> pairs;
  for (size_t i = 0; i < host_count; i++)
    pairs.push_back(associate(static_cast<uint16_t>(i + 1)));
  struct Counter {
    uint64_t seen = 0;
    uint64_t done = 0;
    std::map<uint16_t, Status> answers;
  };
  std::vector<Counter> counters(host_count);
  const auto value = [](uint64_t count) {
    Bytes out(4096);
    store_le<uint64_t>(out.data() + 8, count);
    return out;
  };
  const auto try_one = [&](size_t i) {
    counters[i].answers.clear();
    pairs[i].io->send(capsule(compare(0, value(counters[i].seen))));
    pairs[i].io->send(capsule(write(0, value(counters[i].seen + 1))));
  };
  for (size_t i = 0; i < host_count; i++)
    try_one(i);
  size_t failures = 0;
  ASSERT_TRUE(run_until([&] {
    bool all = true;
    for (size_t i = 0; i < host_count; i++) {
      Counter& counter = counters[i];
      if (counter.done == steps) continue;
      all = false;
      while (auto pdu = pairs[i].io->poll()) {
        const auto completion = pdu->as<pdu::CapsuleResponse>().completion;
        counter.answers[completion.cid] = Status{static_cast<uint16_t>(completion.status >> 1)};
      }
      if (counter.answers.size() < 2) continue;
      const bool won = counter.answers[100].ok();
      EXPECT_EQ(counter.answers[101].ok(), won);
      counter.done += won ? 1 : 0;
      failures += won ? 0 : 1;
      counter.seen++;  // somebody has made that step
      if (counter.done < steps) try_one(i);
    }
    return all;
  }));
  EXPECT_EQ(load_le<uint64_t>(pairs[0].io->read(1, 0, 1).data.data() + 8), host_count * steps);
  EXPECT_GT(failures, 0u);
}

class NotFused : public Fused {
 protected:
  NotFused() : Fused(false) {}
};

TEST_F(NotFused, BothHalvesAreRefusedAndNothingIsWrittenWhereItIsNotOffered) {
  const Pair pair = associate();
  const Bytes id = pair.admin->identify(1).data;
  EXPECT_EQ(load_le<uint16_t>(id.data() + 522), 0);  // FUSES
  EXPECT_EQ(load_le<uint16_t>(id.data() + 532), 0);  // ACWU
  const Bytes before = pattern(4096, 1);
  ASSERT_TRUE(pair.io->write(1, 10, before, false).status.ok());
  auto result = exchange(*pair.io, {compare(10, before), write(10, pattern(4096, 2))});
  EXPECT_EQ(result[100], status::invalid_field.dnr());
  EXPECT_EQ(result[101], status::invalid_field.dnr());
  EXPECT_EQ(pair.io->read(1, 10, 1).data, before);
}

}  // namespace
}  // namespace basalt::nvmf::testing
