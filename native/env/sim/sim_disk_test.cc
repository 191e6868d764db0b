// SPDX-License-Identifier: Apache-2.0
// Goal: the simulated disk fails as real ones do, and no otherwise. Method: requests by hand, then a look at what is
// read and at what a power cut would leave.
#include "env/sim/sim_disk.h"

#include <cerrno>
#include <map>

#include "env/sim/machine_testing.h"

namespace basalt::env {
namespace {

using testing::DiskBench;
using testing::DiskIo;

TEST(SimImage, CopiesShareWhatNeitherHasChanged) {
  SimImage one(1 << 20);
  const std::vector<uint8_t> data(8192, 7);
  one.write(4096, data.data(), data.size());
  SimImage two = one;
  EXPECT_EQ(one.digest(), two.digest());
  two.write(5000, "x", 1);
  EXPECT_NE(one.digest(), two.digest());
  EXPECT_EQ(DiskBench::at(one, 4096, 8192), 7);
  EXPECT_EQ(DiskBench::at(two, 4096, 8192), -1);
  const uint8_t seven = 7;
  two.write(5000, &seven, 1);
  EXPECT_EQ(one.digest(), two.digest());
  EXPECT_EQ(two.allocated_bytes(), 8192u);
}

TEST(SimImage, ZeroesAndWhatWasNeverWrittenAreTheSame) {
  SimImage one(1 << 20);
  SimImage two(1 << 20);
  const std::vector<uint8_t> zeroes(4096);
  two.write(8192, zeroes.data(), zeroes.size());
  EXPECT_EQ(one.digest(), two.digest());
  const std::vector<uint8_t> data(4096, 1);
  one.write(0, data.data(), data.size());
  two.write(4096, data.data(), data.size());
  EXPECT_NE(one.digest(), two.digest());
  one.zero(0, 4096);
  EXPECT_EQ(one.allocated_bytes(), 0u);
  EXPECT_EQ(DiskBench::at(one, 0, 8192), 0);
}

TEST(SimDisk, AFlushCoversWhatHadCompletedWhenItWasSubmitted) {
  DiskBench bench;
  EXPECT_EQ(bench.write(0, 4096, 1), 0);
  bench.disk().extra_delay = milliseconds(10);
  DiskIo flush(FileIo::Type::flush, 0, 0);
  bench.submit(flush);
  bench.disk().extra_delay = {};
  EXPECT_EQ(bench.write(4096, 4096, 2), 0);
  EXPECT_FALSE(flush.ended);
  EXPECT_EQ(bench.wait(flush), 0);
  EXPECT_EQ(bench.stable(0, 4096), 1);
  EXPECT_EQ(bench.stable(4096, 4096), 0);
  EXPECT_EQ(bench.flush(), 0);
  EXPECT_EQ(bench.stable(4096, 4096), 2);
}

TEST(SimDisk, AForcedWriteIsStableAloneAndNotUndoneByOlderOnes) {
  DiskBench bench;
  EXPECT_EQ(bench.write(0, 12288, 1), 0);
  EXPECT_EQ(bench.write(16384, 4096, 2), 0);
  EXPECT_EQ(bench.write(4096, 4096, 3, true), 0);
  EXPECT_EQ(bench.stable(4096, 4096), 3);
  EXPECT_EQ(bench.stable(0, 4096), 0);
  EXPECT_EQ(bench.stable(16384, 4096), 0);
  // Whatever else of the cache survives, the older bytes of that range do not.
  SimRandom random(1);
  for (unsigned keep : {0u, 50u, 100u})
    EXPECT_EQ(DiskBench::at(bench.disk().after_power_cut(random, keep), 4096, 4096), 3);
  EXPECT_EQ(DiskBench::at(bench.disk().after_power_cut(random, 100), 0, 4096), 1);
  EXPECT_EQ(DiskBench::at(bench.disk().after_power_cut(random, 100), 8192, 4096), 1);
}

TEST(SimDisk, APowerCutLeavesAnyVersionWrittenSinceTheFlush) {
  DiskBench bench;
  EXPECT_EQ(bench.write(0, 512, 1), 0);
  EXPECT_EQ(bench.flush(), 0);
  EXPECT_EQ(bench.write(0, 512, 2), 0);
  EXPECT_EQ(bench.write(0, 512, 3), 0);
  SimRandom random(5);
  std::map<int, int> seen;
  for (int i = 0; i < 200; i++)
    seen[DiskBench::at(bench.disk().after_power_cut(random, 50), 0, 512)]++;
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_TRUE(seen.contains(1) && seen.contains(2) && seen.contains(3));
}

TEST(SimDisk, TearsBySectorsOrByWhatIsAtomic) {
  DiskBench bench;
  EXPECT_EQ(bench.write(0, 4096, 9), 0);
  SimRandom random(3);
  int torn = 0;
  for (int i = 0; i < 50; i++)
    torn += DiskBench::at(bench.disk().after_power_cut(random, 50), 0, 4096) == -1 ? 1 : 0;
  EXPECT_GT(torn, 25);
  bench.disk().atomic_bytes = 4096;
  for (int i = 0; i < 50; i++)
    EXPECT_NE(DiskBench::at(bench.disk().after_power_cut(random, 50), 0, 4096), -1);
}

TEST(SimDisk, WritesInFlightHappenInAnyPartAndMayBeShornByAPowerCut) {
  DiskBench bench;
  bench.disk().extra_delay = seconds(5);
  DiskIo io(FileIo::Type::write, 0, 4096, 8);
  bench.submit(io);
  SimRandom random(3);
  std::map<int, int> seen;
  for (int i = 0; i < 60; i++)
    seen[DiskBench::at(bench.disk().after_kill(random), 0, 4096)]++;
  EXPECT_TRUE(seen.contains(0) && seen.contains(8) && seen.contains(-1));
  bench.disk().shorn_chance = 1;
  EXPECT_EQ(DiskBench::at(bench.disk().after_power_cut(random, 100), 0, 8), -1);
}

TEST(SimDisk, ConcurrentWritesLandInAnyOrder) {
  std::map<int, int> last;
  for (uint64_t seed = 1; seed <= 40; seed++) {
    DiskBench bench(seed);
    DiskIo one(FileIo::Type::write, 0, 4096, 1);
    DiskIo two(FileIo::Type::write, 0, 4096, 2);
    bench.submit(one);
    bench.submit(two);
    bench.wait(one);
    bench.wait(two);
    last[bench.read(0, 4096)]++;
  }
  EXPECT_GT(last[1], 5);
  EXPECT_GT(last[2], 5);
}

TEST(SimDisk, PrefixStatesHoldTheFirstWritesAndNoMore) {
  DiskBench bench;
  for (uint8_t i = 0; i < 4; i++)
    EXPECT_EQ(bench.write(i * 4096u, 4096, static_cast<uint8_t>(i + 1)), 0);
  EXPECT_EQ(bench.disk().unflushed_count(), 4u);
  const SimImage two = bench.disk().after_prefix(2);
  EXPECT_EQ(DiskBench::at(two, 4096, 4096), 2);
  EXPECT_EQ(DiskBench::at(two, 8192, 8192), 0);
}

TEST(SimDisk, TellsOfEveryWriteAndFlushBeforeItsSubmitterHears) {
  DiskBench bench;
  DiskIo* watched = nullptr;
  int boundaries = 0;
  bench.disk().on_boundary = [&](FileIo::Type) {
    boundaries++;
    EXPECT_FALSE(watched != nullptr && watched->ended);
  };
  DiskIo io(FileIo::Type::write, 0, 4096, 1);
  watched = &io;
  bench.submit(io);
  bench.wait(io);
  watched = nullptr;
  bench.flush();
  bench.read(0, 512);
  EXPECT_EQ(boundaries, 2);
}

TEST(SimDisk, LosesWritesThatItAcknowledged) {
  DiskBench bench;
  bench.disk().lose_write_chance = 1;
  EXPECT_EQ(bench.write(0, 4096, 1, true), 0);
  EXPECT_EQ(bench.read(0, 4096), 0);
  EXPECT_EQ(bench.disk().silent_fault_count(), 1u);
}

TEST(SimDisk, WritesAndReadsTheWrongPlace) {
  DiskBench bench(4);
  bench.disk().misdirect_write_chance = 1;
  EXPECT_EQ(bench.write(0, 4096, 1), 0);
  bench.disk().misdirect_write_chance = 0;
  EXPECT_EQ(bench.read(0, 4096), 0);
  EXPECT_EQ(bench.disk().contents().allocated_bytes(), 4096u);
  EXPECT_EQ(bench.write(0, 4096, 3), 0);
  bench.disk().misdirect_read_chance = 1;
  EXPECT_EQ(bench.read(0, 4096), 0);
}

TEST(SimDisk, AcknowledgesFlushesThatDidNothing) {
  DiskBench bench;
  bench.disk().ignore_flushes = true;
  EXPECT_EQ(bench.write(0, 4096, 1), 0);
  EXPECT_EQ(bench.flush(), 0);
  EXPECT_EQ(bench.stable(0, 4096), 0);
}

TEST(SimDisk, UnreadableSectorsCanBeReadAgainOnceRewrittenWhole) {
  DiskBench bench;
  EXPECT_EQ(bench.write(0, 8192, 1), 0);
  bench.disk().make_unreadable(1024, 512);
  EXPECT_EQ(bench.read(0, 4096), -2);
  EXPECT_EQ(bench.read(4096, 4096), 1);
  EXPECT_EQ(bench.write(0, 1024, 2), 0);
  EXPECT_EQ(bench.read(0, 4096), -2);
  EXPECT_EQ(bench.write(0, 4096, 2), 0);
  EXPECT_EQ(bench.read(0, 4096), 2);
}

TEST(SimDisk, FlipsBits) {
  DiskBench bench;
  EXPECT_EQ(bench.write(0, 512, 1, true), 0);
  bench.disk().flip_bit(511, 3);
  EXPECT_EQ(bench.read(0, 511), 1);
  EXPECT_EQ(bench.read(511, 1), 9);
  EXPECT_EQ(bench.stable(511, 1), 9);
}

TEST(SimDisk, AFullThinDiskRefusesOnlyWhatWouldGrowIt) {
  DiskBench bench;
  bench.disk().space_bytes = 8192;
  EXPECT_EQ(bench.write(0, 8192, 1), 0);
  EXPECT_EQ(bench.write(8192, 4096, 1), ENOSPC);
  EXPECT_EQ(bench.write(0, 8192, 2), 0);
  EXPECT_EQ(bench.zero(0, 4096), 0);
  EXPECT_EQ(bench.write(8192, 4096, 3), 0);
}

TEST(SimDisk, WhatAFailedFlushShouldHaveSavedIsNotSavedByTheNextOne) {
  DiskBench bench;
  EXPECT_EQ(bench.write(0, 4096, 1), 0);
  bench.disk().fail_flushes = true;
  EXPECT_EQ(bench.flush(), EIO);
  bench.disk().fail_flushes = false;
  EXPECT_EQ(bench.write(8192, 4096, 2), 0);
  EXPECT_EQ(bench.flush(), 0);
  EXPECT_EQ(bench.read(0, 4096), 1);
  EXPECT_EQ(bench.stable(0, 4096), 0);
  EXPECT_EQ(bench.stable(8192, 4096), 2);
  // A newer write of the same range is what its flush saves.
  EXPECT_EQ(bench.write(0, 4096, 3), 0);
  EXPECT_EQ(bench.flush(), 0);
  SimRandom random(1);
  EXPECT_EQ(DiskBench::at(bench.disk().after_power_cut(random, 100), 0, 4096), 3);
  EXPECT_EQ(bench.stable(0, 4096), 3);
}

TEST(SimDisk, AFailedWriteMayHaveChangedAnyPartOfItsRange) {
  std::map<int, int> seen;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    DiskBench bench(seed);
    bench.disk().fail_writes = true;
    EXPECT_EQ(bench.write(0, 4096, 1), EIO);
    seen[bench.read(0, 4096)]++;
  }
  EXPECT_TRUE(seen.contains(0) && seen.contains(-1));
}

TEST(SimDisk, SomeRequestsAreSlow) {
  DiskBench bench;
  bench.disk().slow_chance = 1;
  const Instant begin = bench.world.now();
  EXPECT_EQ(bench.write(0, 4096, 1), 0);
  EXPECT_GE((bench.world.now() - begin).to_ms(), 500);
}

TEST(SimDisk, ACrashStateCanBeUsedInAnotherWorld) {
  DiskBench bench;
  EXPECT_EQ(bench.write(0, 4096, 1), 0);
  SimRandom random(1);
  const SimImage state = bench.disk().after_power_cut(random, 100);
  DiskBench other(2);
  other.disk().load(state);
  EXPECT_EQ(other.read(0, 4096), 1);
  EXPECT_EQ(other.write(0, 4096, 2), 0);
  EXPECT_EQ(bench.read(0, 4096), 1);
}

}  // namespace
}  // namespace basalt::env
