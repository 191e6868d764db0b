// SPDX-License-Identifier: Apache-2.0
// Goal: what a run puts down is a right history of a right device, shows every fault of a wrong one, and can be judged
// and gone on with wherever the run was killed. Method: simulated disks, honest and with planted faults; images of them
// from random moments.
#include "recorder/workload.h"

#include <gtest/gtest.h>

#include "recorder/recorder_test_util.h"

namespace basalt::recorder {
namespace {

using check::OpStatus;
using check::OpType;

WorkloadOptions some_blocks(uint64_t seed, uint64_t operation_count = 1000) {
  WorkloadOptions options;
  options.block_count = 128;
  options.operation_count = operation_count;
  options.seed = seed;
  return options;
}

TEST(Workload, PutsDownARightHistoryOfARightDevice) {
  for (uint64_t seed = 1; seed <= 3; seed++) {
    RecorderRig rig(seed);
    const auto totals = rig.record(some_blocks(seed));
    ASSERT_TRUE(totals.ok()) << totals.error().message;
    const std::string text = rig.log_text();
    EXPECT_EQ(RecorderRig::judged(text), "") << "seed " << seed;
    const check::History history = RecorderRig::history_of(text);
    uint64_t counts[4] = {};
    uint64_t fua_count = 0;
    for (const check::Op& op : history.ops) {
      EXPECT_EQ(op.status, OpStatus::ok);
      counts[static_cast<size_t>(op.type)]++;
      fua_count += op.fua ? 1 : 0;
    }
    EXPECT_EQ(counts[static_cast<size_t>(OpType::read)], totals.value().read_count);
    EXPECT_EQ(counts[static_cast<size_t>(OpType::write)], totals.value().write_count);
    EXPECT_EQ(counts[static_cast<size_t>(OpType::zero)], totals.value().zero_count);
    EXPECT_EQ(counts[static_cast<size_t>(OpType::flush)], totals.value().flush_count);
    EXPECT_EQ(history.ops.size(), 1000u + 4u) << "and each block is read once more, 32 at a time";
    EXPECT_GT(totals.value().write_count, 300u);
    EXPECT_GT(totals.value().zero_count, 20u);
    EXPECT_GT(totals.value().flush_count, 20u);
    EXPECT_GT(fua_count, 20u);
  }
}

// Reads are in flight together with writes of the same blocks, and other clients write them; writes never are.
TEST(Workload, SharesBlocksAmongClientsButNeverSendsTwoChangesOfOneBlock) {
  RecorderRig rig(3);
  ASSERT_TRUE(rig.record(some_blocks(3)).ok());
  const check::History history = RecorderRig::history_of(rig.log_text());
  uint64_t read_beside_change_count = 0;
  for (const check::Op& one : history.ops) {
    if (one.type != OpType::write && one.type != OpType::zero) continue;
    for (const check::Op& other : history.ops) {
      if (&one == &other || other.type == OpType::flush || one.client == other.client) continue;
      const bool places = one.lba < other.lba + other.count_blocks && other.lba < one.lba + one.count_blocks;
      const bool times = one.invoked_ns < other.completed_ns && other.invoked_ns < one.completed_ns;
      if (!places || !times) continue;
      ASSERT_EQ(other.type, OpType::read) << check::describe(history, one) << "\n" << check::describe(history, other);
      read_beside_change_count++;
    }
  }
  EXPECT_GT(read_beside_change_count, 20u);
}

TEST(Workload, EndsByTimeAndKeepsToItsRate) {
  RecorderRig rig(4);
  WorkloadOptions options = some_blocks(4, 0);
  options.length = seconds(10);
  options.rate = 50;
  const auto totals = rig.record(options);
  ASSERT_TRUE(totals.ok());
  const Totals& done = totals.value();
  const uint64_t count = done.read_count + done.write_count + done.zero_count + done.flush_count;
  EXPECT_GE(count, 480u);
  EXPECT_LE(count, 520u);
}

TEST(Workload, EndsWhenItIsToldTo) {
  RecorderRig rig(5);
  WorkloadOptions options = some_blocks(5, 0);
  options.rate = 1;
  const Instant told = rig.world.now() + seconds(3);
  options.told_to_stop = [&] { return rig.world.now() > told; };
  ASSERT_TRUE(rig.record(options).ok());
  EXPECT_LT(rig.world.now(), told + seconds(1));
  EXPECT_EQ(RecorderRig::judged(rig.log_text()), "");
}

// Of a device with this fault, over a few seeds.
template <class F>
std::string found_with(F&& plant) {
  for (uint64_t seed = 1; seed <= 5; seed++) {
    RecorderRig rig(seed);
    plant(rig.device());
    EXPECT_TRUE(rig.record(some_blocks(seed)).ok());
    EXPECT_GT(rig.device().silent_fault_count(), 0u);
    const std::string said = RecorderRig::judged(rig.log_text());
    if (!said.empty()) return said;
  }
  return "";
}

TEST(Workload, ShowsWritesThatWereLost) {
  EXPECT_NE(found_with([](env::SimDisk& disk) { disk.lose_write_chance = 0.01; }), "");
}

TEST(Workload, ShowsWritesAndReadsThatWentElsewhere) {
  EXPECT_NE(found_with([](env::SimDisk& disk) { disk.misdirect_write_chance = 0.01; }), "");
  EXPECT_NE(found_with([](env::SimDisk& disk) { disk.misdirect_read_chance = 0.01; }), "");
}

TEST(Workload, ShowsStaleTornAndDamagedBlocks) {
  const auto after = [](uint64_t seed, auto&& damage) {
    RecorderRig rig(seed);
    EXPECT_TRUE(rig.record(some_blocks(seed)).ok());
    const env::SimImage old = rig.device().after_prefix(rig.device().unflushed_count());
    EXPECT_TRUE(rig.record(some_blocks(seed + 1), true).ok());
    EXPECT_EQ(RecorderRig::judged(rig.log_text()), "");
    damage(rig, old);
    EXPECT_TRUE(rig.record(some_blocks(seed + 2, 1), true).ok());
    return RecorderRig::judged(rig.log_text());
  };
  const std::string stale = after(1, [](RecorderRig& rig, const env::SimImage& old) { rig.device().load(old); });
  EXPECT_TRUE(stale.starts_with("R2: ") || stale.starts_with("R3: ") || stale.starts_with("R8: ")) << stale;
  const std::string torn = after(2, [](RecorderRig& rig, const env::SimImage& old) {
    env::SimImage image = rig.device().contents();
    std::vector<uint8_t> half(check::block_bytes / 2);
    for (uint64_t at = 0; at < 128 * check::block_bytes; at += check::block_bytes) {
      old.read(at, half.data(), half.size());
      image.write(at, half.data(), half.size());
    }
    rig.device().load(image);
  });
  EXPECT_TRUE(torn.starts_with("R0: ")) << torn;
  const std::string damaged = after(3, [](RecorderRig& rig, const env::SimImage&) {
    for (uint64_t block = 0; block < 128; block++)
      rig.device().flip_bit(block * check::block_bytes + 100, 3);
  });
  EXPECT_TRUE(damaged.starts_with("R0: ")) << damaged;
}

// What is there after an error may be either; the blocks are worked on as before.
TEST(Workload, OperationsThatFailAreOfUnknownOutcome) {
  RecorderRig rig(6);
  const Instant from = rig.world.now() + milliseconds(20);
  rig.world.at(from, [&] { rig.device().fail_writes = rig.device().fail_flushes = rig.device().fail_reads = true; });
  rig.world.at(from + milliseconds(300),
               [&] { rig.device().fail_writes = rig.device().fail_flushes = rig.device().fail_reads = false; });
  const auto totals = rig.record(some_blocks(6, 3000));
  ASSERT_TRUE(totals.ok());
  EXPECT_GT(totals.value().error_count, 8u);
  EXPECT_LT(totals.value().error_count, 100u) << "a client that was refused waits";
  EXPECT_EQ(totals.value().complaints.size(), 5u);
  EXPECT_NE(totals.value().complaints[0].find(": Input/output error"), std::string::npos);
  const check::History history = RecorderRig::history_of(rig.log_text());
  uint64_t info_count = 0;
  for (const check::Op& op : history.ops)
    info_count += op.status == OpStatus::info ? 1 : 0;
  EXPECT_EQ(info_count, totals.value().error_count);
  EXPECT_EQ(RecorderRig::judged(rig.log_text()), "");
}

// The judge must know of whatever reached the device, wherever the client was killed, and a new run goes on from there:
// on another machine, whose clock shows less.
TEST(Workload, IsJudgedAndGoneOnWithWhereverItWasKilled) {
  uint64_t open_count = 0;
  uint64_t cut_short_count = 0;
  for (uint64_t seed = 1; seed <= 15; seed++) {
    RecorderRig rig(seed);
    env::SimImage device;
    env::SimImage log;
    rig.world.at(rig.world.now() + microseconds(static_cast<int64_t>(2000 + 1500 * seed)), [&] {
      device = rig.device().after_kill(rig.world.random());
      log = rig.log_disk().after_kill(rig.world.random());
    });
    ASSERT_TRUE(rig.record(some_blocks(seed)).ok());
    ASSERT_GT(device.size_bytes(), 0u);
    const std::string cut = RecorderRig::text_of(log);
    ASSERT_EQ(RecorderRig::judged(cut, RecorderRig::killed), "") << "seed " << seed;
    cut_short_count += RecorderRig::judged(cut) == "" ? 0 : 1;
    for (const check::Op& op : RecorderRig::history_of(cut, RecorderRig::killed).ops)
      open_count += op.completed_ns == check::never_ns ? 1 : 0;
    RecorderRig next(seed + 1000);
    next.device().load(device);
    next.log_disk().load(log);
    const auto totals = next.record(some_blocks(seed + 1000, 200), true);
    ASSERT_TRUE(totals.ok()) << totals.error().message;
    EXPECT_EQ(RecorderRig::judged(next.log_text()), "") << "seed " << seed;
  }
  EXPECT_GT(open_count, 15u) << "kills must find writes under way";
  EXPECT_GT(cut_short_count, 0u) << "also of the history, and leave a later part of one";
}

TEST(Workload, ANewHistoryBeginsWithZeroes) {
  RecorderRig rig(7);
  env::SimImage image(RecorderRig::device_bytes);
  image.write(17 * check::block_bytes + 5, "x", 1);
  rig.device().load(image);
  const auto refused = rig.record(some_blocks(7));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message,
            "--device: block 17 is not zero; --erase zeroes all of them first, what they hold is lost");
  WorkloadOptions options = some_blocks(7);
  options.erase = true;
  ASSERT_TRUE(rig.record(options).ok());
  EXPECT_EQ(RecorderRig::judged(rig.log_text()), "");
}

TEST(Workload, NamesTheBlocksThatADeviceLacks) {
  RecorderRig rig(8);
  WorkloadOptions options = some_blocks(8);
  options.first_block = 200;
  const auto refused = rig.record(options);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message, "--blocks: --device has 256 blocks of 4096 bytes, too few for 128 from 200 on");
}

}  // namespace
}  // namespace basalt::recorder
