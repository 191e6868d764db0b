// SPDX-License-Identifier: Apache-2.0
// The multipath host against the real target: data whatever happens to connections and ANA states, exact errors,
// bounded waiting. Oracle: an array of bytes.
#include "bdev/nvmf/nvmf_world_testing.h"

namespace basalt::bdev {
namespace {

using basalt::testing::TestDisk;
using basalt::testing::TestIo;
using nvme::AnaState;
using testing::NvmfWorld;

constexpr uint64_t disk_blocks = testing::nvmf_world_blocks;

// Keeps requests of random shape in flight, none overlapping another, and compares with an array of bytes.
class Load {
 public:
  Load(NvmfWorld& world, uint64_t seed) : world_(world), random_(seed), oracle_(world.disk.bytes) {}

  void start_one() {
    constexpr uint64_t slot_blocks = 64;
    const uint64_t slot = draw(disk_blocks / slot_blocks);
    if (busy_[slot]) return;
    const auto type = static_cast<IoType>(draw(5));
    const uint64_t offset = draw(slot_blocks);
    const auto count = static_cast<uint32_t>(1 + draw(slot_blocks - offset));
    auto io = std::make_unique<TestIo>(type, slot * slot_blocks + offset, count, 600 + draw(20000));
    if (type == IoType::write) {
      for (uint8_t& byte : io->data)
        byte = static_cast<uint8_t>(random_());
    }
    io->fua = type != IoType::read && type != IoType::flush && draw(4) == 0;
    if (type != IoType::flush) busy_[slot] = true;
    world_.bdev().submit(io.get());
    flying_.push_back({std::move(io), slot});
  }
  void collect() {
    for (size_t i = 0; i < flying_.size();) {
      TestIo& io = *flying_[i].io;
      if (!io.ended) {
        i++;
        continue;
      }
      judge(io);
      if (io.type != IoType::flush) busy_[flying_[i].slot] = false;
      ended_count++;
      flying_.erase(flying_.begin() + static_cast<long>(i));
    }
  }
  bool idle() const { return flying_.empty(); }
  size_t in_flight() const { return flying_.size(); }
  const std::vector<uint8_t>& oracle() const { return oracle_; }
  uint64_t draw(uint64_t below) { return random_() % below; }
  size_t ended_count = 0;

 private:
  struct Flying {
    std::unique_ptr<TestIo> io;
    uint64_t slot;
  };
  void judge(const TestIo& io) {
    ASSERT_TRUE(io.status.ok()) << nvme::to_string(io.status);
    uint8_t* at = oracle_.data() + io.offset_blocks * 4096;
    if (io.type == IoType::read) {
      ASSERT_TRUE(std::equal(io.data.begin(), io.data.end(), at)) << "block " << io.offset_blocks;
    }
    if (io.type == IoType::write) std::copy(io.data.begin(), io.data.end(), at);
    if (io.type == IoType::write_zeroes || io.type == IoType::unmap) {
      std::fill_n(at, size_t{io.count_blocks} * 4096, 0);
    }
  }
  NvmfWorld& world_;
  std::mt19937_64 random_;
  std::vector<uint8_t> oracle_;
  std::vector<Flying> flying_;
  bool busy_[64] = {};
};

class Multipath : public ::testing::TestWithParam<const char*> {};

TEST_P(Multipath, ReadsWritesZeroesUnmapsAndFlushes) {
  NvmfWorld w(GetParam());
  ASSERT_TRUE(w.attach(false).ok());
  EXPECT_EQ(w.bdev().info().name, "volumen1");
  EXPECT_EQ(w.bdev().info().count_blocks, disk_blocks);
  EXPECT_EQ(w.bdev().info().uuid, w.disk.info().uuid);
  EXPECT_TRUE(w.bdev().info().volatile_cache);
  Load load(w, 11);
  while (load.ended_count < 600) {
    while (load.in_flight() < 16)
      load.start_one();
    ASSERT_TRUE(w.world.net.run_until([&] {
      load.collect();
      return load.in_flight() < 16;
    }));
  }
  ASSERT_TRUE(w.world.net.run_until([&] {
    load.collect();
    return load.idle();
  }));
  EXPECT_EQ(w.disk.bytes, load.oracle());
  EXPECT_GT(w.disk.flush_count, 0u);
}

TEST_P(Multipath, ErrorsThatAreNotOfThePathGoUpUnchangedAndOnce) {
  NvmfWorld w(GetParam());
  ASSERT_TRUE(w.attach(true).ok());
  const nvme::Status statuses[] = {nvme::status::write_fault.dnr(), nvme::status::reservation_conflict,
                                   nvme::status::capacity_exceeded, nvme::status::namespace_not_ready.dnr()};
  for (const nvme::Status status : statuses) {
    w.disk.on_io = [status](const Io&) { return status; };
    const size_t before = w.disk.submit_count;
    EXPECT_TRUE(w.world.write(w.bdev(), 0, 1, 1).is(status)) << nvme::to_string(status);
    EXPECT_EQ(w.disk.submit_count, before + 1);
  }
  TestIo beyond(IoType::read, disk_blocks, 1);
  EXPECT_TRUE(w.world.io(w.bdev(), beyond).is(nvme::status::lba_out_of_range));
  EXPECT_EQ(w.bdev().resent_count(), 0u);
}

TEST_P(Multipath, FollowsAnaStates) {
  NvmfWorld w(GetParam());
  ASSERT_TRUE(w.attach(true).ok());
  w.set_ana(w.b, AnaState::inaccessible);
  EXPECT_TRUE(w.world.write(w.bdev(), 0, 8, 1).ok());
  // The only optimized one goes: requests wait, and go on when the other becomes optimized.
  w.set_ana(w.a, AnaState::inaccessible);
  TestIo waits(IoType::write, 8, 8);
  TestIo flush(IoType::flush, 0, 0);
  w.bdev().submit(&waits);
  w.bdev().submit(&flush);
  w.world.net.run_for(seconds(3));
  EXPECT_FALSE(waits.ended || flush.ended);
  const size_t flushes = w.disk.flush_count;
  w.set_ana(w.b, AnaState::optimized);
  ASSERT_TRUE(w.world.net.run_until([&] { return waits.ended && flush.ended; }, seconds(1)));
  EXPECT_TRUE(waits.status.ok() && flush.status.ok());
  EXPECT_EQ(w.disk.flush_count, flushes + 1);
  // A non-optimized path is better than none.
  w.set_ana(w.b, AnaState::change);
  w.set_ana(w.a, AnaState::non_optimized);
  EXPECT_TRUE(w.world.write(w.bdev(), 0, 8, 2).ok());
  EXPECT_EQ(w.world.read(w.bdev(), 0, 8), 2);
}

TEST_P(Multipath, WhatWaitsTooLongEndsWithItsPathError) {
  NvmfWorld w(GetParam());
  w.options.fast_io_fail_timeout = milliseconds(500);
  ASSERT_TRUE(w.attach(false).ok());
  w.set_ana(w.a, AnaState::inaccessible);
  const Instant begin = w.world.net.now();
  const nvme::Status status = w.world.write(w.bdev(), 0, 1, 1);
  EXPECT_EQ(status.type(), nvme::StatusType::path) << nvme::to_string(status);
  EXPECT_LE((w.world.net.now() - begin).to_ms(), 560);
  w.set_ana(w.a, AnaState::optimized);
  const NvmfPath& path = *w.set->paths().front();
  ASSERT_TRUE(w.world.net.run_until([&] { return w.bdev().ana_state(path) == AnaState::optimized; }, seconds(1)));
  EXPECT_TRUE(w.world.write(w.bdev(), 0, 1, 1).ok());
}

TEST_P(Multipath, AnotherNamespaceUnderTheSameNameIsRefused) {
  NvmfWorld w(GetParam());
  ASSERT_TRUE(w.attach(false).ok());
  TestDisk other(w.world.home, disk_blocks, 2);
  ASSERT_TRUE(w.world.net.run(w.subsystem->remove_namespace(1)).ok());
  ns::NamespaceOptions options;
  options.nsid = 1;
  ASSERT_TRUE(w.world.net.run(w.subsystem->add_namespace(options, &other)).ok());
  const Outcome outcome = w.add(w.b);
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.error().code, Errc::invalid_argument);
  EXPECT_EQ(w.set->paths().size(), 1u);
  EXPECT_EQ(w.add(w.a).error().code, Errc::exists);
  ASSERT_TRUE(w.world.net.run(w.subsystem->remove_namespace(1)).ok());
}

TEST_P(Multipath, TakesTheNewSizeOfItsNamespace) {
  NvmfWorld w(GetParam());
  ASSERT_TRUE(w.attach(true).ok());
  w.disk.resize(disk_blocks * 2);
  ASSERT_TRUE(w.world.net.run_until([&] { return w.bdev().info().count_blocks == disk_blocks * 2; }, seconds(2)));
  EXPECT_TRUE(w.world.write(w.bdev(), disk_blocks + 5, 4, 9).ok());
}

TEST_P(Multipath, ClosingEndsWhatWaits) {
  NvmfWorld w(GetParam());
  ASSERT_TRUE(w.attach(false).ok());
  w.set_ana(w.a, AnaState::inaccessible);
  TestIo waits(IoType::write, 8, 8);
  w.bdev().submit(&waits);
  w.world.net.run_for(milliseconds(100));
  EXPECT_FALSE(waits.ended);
  w.world.net.run_void(w.set->close());
  w.set.reset();
  EXPECT_TRUE(waits.ended);
  EXPECT_EQ(waits.status, nvme::status::host_aborted);
}

INSTANTIATE_TEST_SUITE_P(All, Multipath, ::testing::Values("TCP", "LOOPBACK"),
                         [](const auto& info) { return std::string(info.param); });

// Connections are cut at random transfers while requests of all kinds are in flight: every one succeeds, and the bytes
// are the oracle's. One path or two.
TEST(MultipathLoss, ReplaysWhatWasInFlightWhereverTheConnectionIsCut) {
  for (uint64_t seed = 1; seed <= 12; seed++) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    NvmfWorld w("TCP", seed);
    const bool both = seed % 2 == 0;
    ASSERT_TRUE(w.attach(both).ok());
    Load load(w, seed);
    size_t cuts = 0;
    for (int round = 0; round < 250; round++) {
      while (load.in_flight() < 12)
        load.start_one();
      if (round % 10 == 3) {
        w.world.net.cut_after(1 + load.draw(40), w.world.port(both && load.draw(2) == 0 ? w.b : w.a));
        cuts++;
      }
      ASSERT_TRUE(w.world.net.run_until([&] {
        load.collect();
        return load.in_flight() < 12;
      }));
    }
    ASSERT_TRUE(w.world.net.run_until([&] {
      load.collect();
      return load.idle();
    }));
    EXPECT_EQ(w.disk.bytes, load.oracle());
    EXPECT_GT(w.bdev().resent_count(), 0u);
    EXPECT_GT(cuts, 10u);
  }
}

TEST(MultipathLoss, AFrozenPathIsLeftAfterItsKeepAliveAndAFlushIsSentAgain) {
  NvmfWorld w("TCP", 3);
  ASSERT_TRUE(w.attach(true).ok());
  w.set_ana(w.b, AnaState::non_optimized);
  w.world.net.run_for(milliseconds(20));
  w.world.net.freeze(true, w.world.port(w.a));
  TestIo write(IoType::write, 0, 1);
  TestIo flush(IoType::flush, 0, 0);
  w.bdev().submit(&write);
  w.bdev().submit(&flush);
  const Instant begin = w.world.net.now();
  ASSERT_TRUE(w.world.net.run_until([&] { return write.ended && flush.ended; }, seconds(5)));
  EXPECT_TRUE(write.status.ok() && flush.status.ok());
  EXPECT_LE((w.world.net.now() - begin).to_ms(), 310);
  EXPECT_EQ(w.disk.flush_count, 1u);
  EXPECT_EQ(w.bdev().resent_count(), 2u);
}

TEST(MultipathLoss, AllPathsGoneForTooLongFailsRequestsAndAnAddedPathRevivesThem) {
  NvmfWorld w("TCP", 4);
  w.options.ctrlr_loss_timeout = seconds(2);
  ASSERT_TRUE(w.attach(false).ok());
  w.world.net.refuse(w.world.port(w.a), true);
  w.world.net.cut(w.world.port(w.a));
  w.world.net.run_for(milliseconds(10));
  const Instant begin = w.world.net.now();
  EXPECT_EQ(w.world.write(w.bdev(), 0, 1, 1), nvme::status::host_path_error);
  EXPECT_GE((w.world.net.now() - begin).to_ms(), 1900);
  EXPECT_LE((w.world.net.now() - begin).to_ms(), 2600);
  EXPECT_EQ(w.set->paths()[0]->state(), PathState::failed);
  EXPECT_EQ(w.world.write(w.bdev(), 0, 1, 1), nvme::status::host_path_error);
  ASSERT_TRUE(w.add(w.b).ok());
  EXPECT_TRUE(w.world.write(w.bdev(), 0, 1, 1).ok());
  w.world.net.refuse(w.world.port(w.a), false);
  ASSERT_TRUE(w.add(w.a).ok());
  EXPECT_EQ(w.set->paths().size(), 2u);
}

// While its connection is away, another one gets its name and place: with another UUID it is not this one.
TEST(MultipathLoss, NothingIsReadOfAnotherNamespaceThatHasItsNameByNow) {
  NvmfWorld w("TCP", 6);
  w.options.fast_io_fail_timeout = seconds(5);
  ASSERT_TRUE(w.attach(false).ok());
  TestDisk other(w.world.home, disk_blocks, 2);
  std::fill(other.bytes.begin(), other.bytes.end(), 0x77);
  const auto exchange = [&](const Uuid& uuid) {
    w.world.net.cut(w.world.port(w.a));
    EXPECT_TRUE(w.world.net.run(w.subsystem->remove_namespace(1)).ok());
    ns::NamespaceOptions options;
    options.nsid = 1;
    options.uuid = uuid;
    EXPECT_TRUE(w.world.net.run(w.subsystem->add_namespace(options, &other)).ok());
  };
  exchange({});
  TestIo read(IoType::read, 3, 1);
  w.bdev().submit(&read);
  ASSERT_TRUE(w.world.net.run_until([&] { return read.ended; }, seconds(10)));
  EXPECT_EQ(read.status.type(), nvme::StatusType::path) << nvme::to_string(read.status);
  EXPECT_EQ(other.submit_count, 0u);
  // Nothing but the UUID kept it away.
  exchange(w.disk.info().uuid);
  ASSERT_TRUE(w.world.net.run_until([&] { return w.set->paths()[0]->live(); }, seconds(60)));
  TestIo again(IoType::read, 3, 1);
  w.bdev().submit(&again);
  ASSERT_TRUE(w.world.net.run_until([&] { return again.ended; }, seconds(10)));
  EXPECT_TRUE(again.status.ok());
  EXPECT_EQ(again.data[0], 0x77);
  ASSERT_TRUE(w.world.net.run(w.subsystem->remove_namespace(1)).ok());
}

// However long it was away, and however slow the delays between its attempts had become.
TEST(MultipathLoss, IsBackSoonAfterTheTargetIs) {
  for (const int away_ms : {50, 700, 5000, 60'000}) {
    SCOPED_TRACE(away_ms);
    NvmfWorld w("TCP", 5);
    ASSERT_TRUE(w.attach(true).ok());
    TestIo waits(IoType::write, 0, 1);
    // One path goes first: with another one usable, its attempts become rare.
    w.world.net.refuse(w.world.port(w.a), true);
    w.world.net.cut(w.world.port(w.a));
    w.world.net.run_for(seconds(120));
    w.world.net.refuse(w.world.port(w.b), true);
    w.world.net.cut(w.world.port(w.b));
    w.world.net.run_for(milliseconds(1));
    w.bdev().submit(&waits);
    w.world.net.run_for(milliseconds(away_ms));
    EXPECT_FALSE(waits.ended);
    const bool first = away_ms % 100 == 0;
    w.world.net.refuse(w.world.port(first ? w.a : w.b), false);
    const Instant healed = w.world.net.now();
    ASSERT_TRUE(w.world.net.run_until([&] { return waits.ended; }, seconds(11)));
    EXPECT_TRUE(waits.status.ok());
    EXPECT_LE((w.world.net.now() - healed).to_ms(), 1300);
    // The other one hears of it.
    w.world.net.refuse(w.world.port(first ? w.b : w.a), false);
    ASSERT_TRUE(w.world.net.run_until([&] { return w.set->paths()[0]->live() && w.set->paths()[1]->live(); },
                                      milliseconds(1300)));
  }
}

TEST(MultipathLoss, ClosesWhilePathsAreAwayOrConnecting) {
  for (const int wait_ms : {0, 1, 50, 150, 1000}) {
    SCOPED_TRACE(wait_ms);
    NvmfWorld w("TCP", 8);
    ASSERT_TRUE(w.attach(true).ok());
    TestIo waits(IoType::write, 0, 1);
    w.world.net.freeze(true, w.world.port(w.b));
    w.world.net.refuse(w.world.port(w.a), true);
    w.world.net.cut(w.world.port(w.a));
    w.world.net.run_for(milliseconds(wait_ms));
    w.bdev().submit(&waits);
    w.world.net.run_void(w.set->close(), seconds(2));
    w.set.reset();
    EXPECT_TRUE(waits.ended);
    w.world.net.freeze(false, w.world.port(w.b));
  }
}

// Whatever is sent again: the old association's connections are gone before.
TEST(MultipathLoss, NothingIsResentWhileAConnectionOfTheOldAssociationLives) {
  NvmfWorld w("TCP", 6);
  w.options.io_queue_count = 4;
  w.options.command_timeout = milliseconds(300);
  ASSERT_TRUE(w.attach(true).ok());
  w.set_ana(w.b, AnaState::non_optimized);
  w.world.net.run_for(milliseconds(20));
  ASSERT_EQ(w.world.net.connection_count(w.world.port(w.a)), 5u);
  w.disk.hold = true;
  TestIo read(IoType::read, 0, 1);
  w.bdev().submit(&read);
  ASSERT_TRUE(w.world.net.run_until([&] { return w.disk.held.size() == 1; }));
  w.world.net.refuse(w.world.port(w.a), true);
  ASSERT_TRUE(w.world.net.run_until([&] { return w.disk.held.size() == 2; }));
  EXPECT_EQ(w.world.net.connection_count(w.world.port(w.a)), 0u);
  w.disk.release();
  ASSERT_TRUE(w.world.net.run_until([&] { return read.ended; }));
  EXPECT_TRUE(read.status.ok());
}

}  // namespace
}  // namespace basalt::bdev
