// SPDX-License-Identifier: Apache-2.0
// Goal: a block of a checksummed lvol that is not what was written is never given out; nothing that a crash leaves
// looks like that. Method: a disk in memory whose bytes the test changes, and power cuts at each of its writes and
// flushes. Each bug that is planted must show.
#include <map>

#include "bdev/lvol/checksum_store_test_util.h"
#include "bdev/lvol/fsck.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

using namespace test;  // NOLINT
using Store = ChecksumStore;

TEST(LvolChecksum, a_block_that_was_changed_on_the_disk_answers_unrecovered_read_error_until_it_is_written) {
  Store s(1);
  Lvol& lvol = s.make("a", true);
  ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 0, 40, 0x11).ok());
  ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 7, 1, 0x22).ok());
  ASSERT_GE(s.damage(0x22), 1u);
  EXPECT_TRUE(s.is_unreadable(lvol, 7));
  EXPECT_TRUE(s.read(lvol, 6).ok());
  EXPECT_TRUE(do_io(s.world, lvol, IoType::read, 0, 40).is(nvme::status::unrecovered_read_error));
  EXPECT_EQ(s.store->stats().checksum_mismatch_count, 2u);
  auto scrub = run(s.world, s.store->scrub_lvol("a"));
  ASSERT_TRUE(scrub.ok());
  EXPECT_EQ(scrub->checked_blocks, 40u);
  EXPECT_EQ(scrub->bad_blocks, 1u);
  ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 7, 1, 0x33).ok());
  EXPECT_TRUE(all_are(read_blocks(s.world, lvol, 7, 1), 0x33));
}

TEST(LvolChecksum, a_write_that_the_disk_lost_or_put_elsewhere_is_noticed) {
  Store s(2);
  Lvol& lvol = s.make("a", true);
  ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 0, 20, 0x11).ok());
  const std::vector<uint8_t> before = s.disk.bytes_now();
  ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 3, 1, 0x22).ok());
  std::vector<uint8_t>& now = s.disk.bytes_now();
  size_t place = 0;
  for (size_t at = 0; at < now.size(); at += 4096) {
    if (now[at] == 0x22 && before[at] == 0x11) place = at;
  }
  ASSERT_GT(place, 0u);
  std::memcpy(now.data() + place, before.data() + place, 4096);  // lost
  EXPECT_TRUE(s.is_unreadable(lvol, 3));
  std::memset(now.data() + place + 4096, 0x22, 4096);  // and over its neighbour
  EXPECT_TRUE(s.is_unreadable(lvol, 4));
  EXPECT_TRUE(s.read(lvol, 5).ok());
}

// Damages a snapshot's block below a head and a clone; how many of the three show it.
int readers_that_notice(bool trust_snapshots) {
  Store s(3);
  s.store->plant({.trust_snapshots = trust_snapshots});
  Lvol& lvol = s.make("a", true);
  EXPECT_TRUE(do_io(s.world, lvol, IoType::write, 0, 20, 0x22).ok());
  auto snapshot = run(s.world, s.store->snapshot_lvol("a", {.name = "snap", .uuid = {}}));
  auto clone = run(s.world, s.store->clone_lvol("snap", {.name = "clone", .uuid = {}}));
  EXPECT_TRUE(snapshot.ok() && clone.ok());
  EXPECT_TRUE((*snapshot)->checksums() && (*clone)->checksums() && lvol.checksums());
  s.damage(0x22);
  int noticed = 0;
  for (Lvol* reader : {&lvol, *snapshot, *clone}) {
    noticed += s.is_unreadable(*reader, 5);
  }
  return noticed;
}

TEST(LvolChecksum, what_shows_through_from_a_snapshot_is_verified_too) {
  EXPECT_EQ(readers_that_notice(false), 3);
  EXPECT_EQ(readers_that_notice(true), 0) << "the planted bug must show";
}

TEST(LvolChecksum, a_damaged_block_of_a_deleted_snapshot_does_not_stop_its_folding_and_stays_damaged) {
  Store s(4);
  Lvol& lvol = s.make("a", true);
  ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 0, 16, 0x11).ok());
  ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 5, 1, 0x22).ok());
  ASSERT_TRUE(run(s.world, s.store->snapshot_lvol("a", {.name = "snap", .uuid = {}})).ok());
  ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 9, 1, 0x33).ok());  // so that the rest has to be copied
  s.damage(0x22);
  ASSERT_TRUE(run(s.world, s.store->delete_lvol("snap")).ok());
  s.world.settle();
  EXPECT_EQ(s.store->stats().hidden_layers, 0u);
  EXPECT_TRUE(s.is_unreadable(lvol, 5));
  EXPECT_TRUE(all_are(read_blocks(s.world, lvol, 4, 1), 0x11));
  EXPECT_TRUE(all_are(read_blocks(s.world, lvol, 9, 1), 0x33));
}

TEST(LvolChecksum, unmapped_resized_and_never_written_blocks_read_as_zeroes) {
  Store s(5);
  Lvol& lvol = s.make("a", true);
  ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 0, 64, 0x11).ok());
  ASSERT_TRUE(do_io(s.world, lvol, IoType::unmap, 3, 30).ok());
  ASSERT_TRUE(do_io(s.world, lvol, IoType::write_zeroes, 40, 2).ok());
  ASSERT_TRUE(run(s.world, s.store->resize_lvol("a", 50 * 4096)).ok());
  ASSERT_TRUE(run(s.world, s.store->resize_lvol("a", Store::lvol_bytes)).ok());
  for (uint64_t block = 0; block < 70; block++) {
    const bool zero = (block >= 3 && block < 33) || block == 40 || block == 41 || block >= 50;
    EXPECT_TRUE(all_are(read_blocks(s.world, lvol, block, 1), zero ? 0 : 0x11)) << block;
  }
}

TEST(LvolChecksum, only_the_lvols_that_asked_for_them_have_checksums_and_a_restart_keeps_that) {
  std::vector<uint8_t> image;
  {
    Store s(6);
    ASSERT_TRUE(do_io(s.world, s.make("plain", false), IoType::write, 0, 4, 0x11).ok());
    EXPECT_EQ(s.store->stats().checksum_clusters, 0u);
    ASSERT_TRUE(do_io(s.world, s.make("sure", true), IoType::write, 0, 4, 0x22).ok());
    EXPECT_GT(s.store->stats().checksum_clusters, 0u);
    ASSERT_TRUE(run(s.world, s.store->close()).ok());
    s.world.settle();
    s.store.reset();
    image = s.disk.bytes_now();
  }
  Store s(7, image);
  ASSERT_NE(s.store, nullptr);
  Lvol& plain = *s.store->find("plain");
  Lvol& sure = *s.store->find("sure");
  EXPECT_FALSE(plain.checksums());
  EXPECT_TRUE(sure.checksums());
  s.damage(0x11);
  s.damage(0x22);
  EXPECT_TRUE(s.read(plain, 1).ok());
  EXPECT_TRUE(s.is_unreadable(sure, 1));
  const FsckReport report = run(s.world, fsck(s.world.reactor, s.disk.handle()));
  EXPECT_TRUE(report.sound()) << fsck_text(report, true);
  EXPECT_EQ(report.incompatible, lvs::incompatible_layers | lvs::incompatible_checksums);
}

TEST(LvolChecksum, a_store_without_room_for_checksums_says_so_and_is_as_before) {
  Store s(8);
  Lvol& lvol = s.make("a", false, 16 << 20);
  for (uint64_t block = 0; do_io(s.world, lvol, IoType::write, block, 16, 0x11).ok();)
    block += 16;
  const auto bits = [&s] { return run(s.world, fsck(s.world.reactor, s.disk.handle())).incompatible; };
  EXPECT_EQ(bits(), 0u);
  LvolOptions options{.name = "b", .uuid = {}, .size_bytes = Store::lvol_bytes, .checksums = true};
  auto made = run(s.world, s.store->create_lvol(options));
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.error().code, Errc::no_space);
  EXPECT_EQ(bits(), 0u) << "older code can load it still";
  EXPECT_EQ(s.store->stats().checksum_clusters, 0u);
  ASSERT_TRUE(do_io(s.world, lvol, IoType::unmap, 0, 512).ok());
  s.world.settle();
  EXPECT_TRUE(run(s.world, s.store->create_lvol(options)).ok());
}

TEST(LvolChecksum, a_page_of_checksums_that_cannot_be_read_makes_its_blocks_unreadable_but_not_unwritable) {
  std::vector<uint8_t> image;
  {
    Store s(9);
    ASSERT_TRUE(do_io(s.world, s.make("a", true), IoType::write, 0, 8, 0x22).ok());
    ASSERT_TRUE(run(s.world, s.store->close()).ok());
    s.world.settle();
    s.store.reset();
    image = s.disk.bytes_now();
  }
  Store s(10, image);
  Lvol& lvol = *s.store->find("a");
  // The first read of a data block reads its page of tags first.
  int reads = 0;
  s.disk.fault = [&](const Io& io) -> std::optional<nvme::Status> {
    if (io.type == IoType::read && reads++ < 2) return nvme::status::unrecovered_read_error;
    return std::nullopt;
  };
  EXPECT_TRUE(s.is_unreadable(lvol, 1));
  ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 1, 1, 0x33).ok());
  EXPECT_TRUE(all_are(read_blocks(s.world, lvol, 1, 1), 0x33));
  EXPECT_TRUE(s.is_unreadable(lvol, 2));
}

TEST(LvolChecksum, a_damaged_superblock_of_the_checksums_refuses_the_store) {
  std::vector<uint8_t> image;
  {
    Store s(11);
    ASSERT_TRUE(do_io(s.world, s.make("a", true), IoType::write, 0, 8, 0x22).ok());
    ASSERT_TRUE(run(s.world, s.store->close()).ok());
    s.world.settle();
    s.store.reset();
    image = s.disk.bytes_now();
  }
  const std::vector<size_t> superblocks = checksum_superblocks(image);
  ASSERT_EQ(superblocks.size(), 2u);
  for (const size_t at : superblocks)
    image[at + 70] ^= 1;
  const Store s(12, image);
  EXPECT_EQ(s.store, nullptr);
}

TEST(LvolChecksum, damaged_superblocks_of_checksums_that_nobody_has_any_more_do_not_refuse_the_store) {
  std::vector<uint8_t> image;
  {
    Store s(13);
    ASSERT_TRUE(do_io(s.world, s.make("plain", false), IoType::write, 0, 4, 0x11).ok());
    ASSERT_TRUE(do_io(s.world, s.make("a", true), IoType::write, 0, 8, 0x22).ok());
    ASSERT_TRUE(run(s.world, s.store->delete_lvol("a")).ok());
    s.world.settle();
    ASSERT_TRUE(run(s.world, s.store->close()).ok());
    s.world.settle();
    s.store.reset();
    image = s.disk.bytes_now();
  }
  for (const size_t at : checksum_superblocks(image))
    image[at + 70] ^= 1;
  {
    Store s(14, image);
    ASSERT_NE(s.store, nullptr);
    EXPECT_TRUE(all_are(read_blocks(s.world, *s.store->find("plain"), 0, 4), 0x11));
    ASSERT_TRUE(do_io(s.world, s.make("b", true), IoType::write, 0, 8, 0x33).ok());
    image = s.disk.bytes_now();
  }
  Store s(15, image);
  ASSERT_NE(s.store, nullptr);
  EXPECT_TRUE(all_are(read_blocks(s.world, *s.store->find("b"), 0, 8), 0x33));
}

// A base on which nothing can be written where the block of these bytes lies.
uint64_t sector_of(Store& s, uint8_t fill) {
  const std::vector<uint8_t> block(4096, fill);
  uint64_t last = 0;  // the log has it too, at a place before or after
  std::vector<uint8_t>& bytes = s.disk.bytes_now();
  for (uint64_t at = 0; at < bytes.size(); at += 4096) {
    if (std::memcmp(bytes.data() + at, block.data(), 4096) != 0) continue;
    bytes[at] ^= 1;
    const bool in_place = s.is_unreadable(*s.store->find("a"), 7);
    bytes[at] ^= 1;
    if (in_place) last = at / CrashDisk::sector_bytes;
  }
  return last;
}
void refuse_writes(CrashDisk& disk, uint64_t sector, nvme::Status with) {
  disk.fault = [=](const Io& io) -> std::optional<nvme::Status> {
    const bool hit =
        io.type == IoType::write && io.offset_blocks <= sector && sector < io.offset_blocks + io.count_blocks;
    return hit ? std::optional<nvme::Status>(with) : std::nullopt;
  };
}

// Begins with blocks 0 to 15 as 0x11 and block 7 as 0x22; then a write of 0x33 to 4 to 11 meets the bad block.
void judge_after_refused_write(Store& s, bool answered) {
  ASSERT_NE(s.store, nullptr) << "does not load";
  for (uint64_t block = 0; block < 16; block++) {
    uint8_t byte = 0;
    const nvme::Status status = s.read(*s.store->find("a"), block, &byte);
    if (block < 4 || block > 11) {
      EXPECT_TRUE(status.ok() && byte == 0x11) << block;
    } else if (answered) {  // what was read after the answer stays
      EXPECT_TRUE(status.ok() && byte == (block == 7 ? 0x22 : 0x11)) << block << ": " << nvme::to_string(status);
    } else if (block != 7) {
      EXPECT_TRUE(status.ok() && byte == 0x33) << block << ": " << nvme::to_string(status);
    } else {
      EXPECT_FALSE(status.ok() && byte != 0x33);
    }
  }
  EXPECT_TRUE(all_are(read_blocks(s.world, *s.store->find("plain"), 0, 4), 0x44));
}

TEST(LvolChecksum, a_write_that_the_base_refused_is_not_carried_out_when_the_store_is_loaded_again) {
  for (const nvme::Status with : {nvme::status::write_fault, nvme::status::capacity_exceeded}) {
    std::vector<uint8_t> at_refusal;
    std::vector<uint8_t> image;
    uint64_t sector = 0;
    {
      Store s(31);
      Lvol& lvol = s.make("a", true);
      ASSERT_TRUE(do_io(s.world, s.make("plain", false), IoType::write, 0, 4, 0x44).ok());
      ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 0, 16, 0x11).ok());
      ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 7, 1, 0x22).ok());
      sector = sector_of(s, 0x22);
      ASSERT_GT(sector, 0u);
      refuse_writes(s.disk, sector, with);
      const auto fault = s.disk.fault;
      s.disk.fault = [&, fault](const Io& io) {
        const auto status = fault(io);
        if (status && at_refusal.empty()) at_refusal = s.disk.bytes_now();
        return status;
      };
      EXPECT_TRUE(do_io(s.world, lvol, IoType::write, 4, 8, 0x33).is(with));
      image = s.disk.bytes_now();
      judge_after_refused_write(s, true);
      s.disk.fault = {};
    }
    // The process ended before the answer, or after it; the block is bad still, or good again.
    for (const bool answered : {false, true}) {
      for (const bool bad : {false, true}) {
        Store s(33, answered ? image : at_refusal, [&](CrashDisk& disk) {
          if (bad) refuse_writes(disk, sector, with);
        });
        judge_after_refused_write(s, answered);
      }
    }
  }
}

TEST(LvolChecksum, a_base_that_is_full_refuses_writes_and_takes_them_again_when_it_has_room) {
  Store s(34);
  Lvol& lvol = s.make("a", true);
  ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 0, 16, 0x11).ok());
  s.disk.fault = [](const Io& io) -> std::optional<nvme::Status> {  // only the log is there already
    if (io.type != IoType::write || io.fua) return std::nullopt;
    return nvme::status::capacity_exceeded;
  };
  for (uint64_t block = 0; block < 3; block++)
    EXPECT_TRUE(do_io(s.world, lvol, IoType::write, block, 1, 0x22).is(nvme::status::capacity_exceeded));
  EXPECT_TRUE(all_are(read_blocks(s.world, lvol, 0, 16), 0x11));
  s.disk.fault = {};
  EXPECT_TRUE(do_io(s.world, lvol, IoType::write, 1, 1, 0x33).ok());
  EXPECT_TRUE(all_are(read_blocks(s.world, lvol, 1, 1), 0x33));
  EXPECT_TRUE(all_are(read_blocks(s.world, lvol, 0, 1), 0x11));
}

// Random work over a disk that rots, loses writes and puts them elsewhere, in its data area. Blocks that were read
// wrong, and how many reads were refused.
struct Rotten {
  uint64_t wrong = 0;
  uint64_t refused = 0;
};
Rotten work_on_a_rotten_disk(uint64_t seed, bool checksums) {
  Rotten rotten;
  Store s(seed);
  s.make("a", checksums);
  std::map<std::string, std::vector<uint8_t>> expected = {{"a", std::vector<uint8_t>(64)}};
  std::mt19937_64 random(seed);
  std::vector<uint8_t> past = s.disk.bytes_now();
  const uint64_t first = Store::disk_bytes / 4096 / 3;  // metadata lies before
  for (int step = 0; step < 600; step++) {
    const auto volume = std::next(expected.begin(), static_cast<ptrdiff_t>(random() % expected.size()));
    Lvol& lvol = *s.store->find(volume->first);
    const auto dice = random() % 100;
    const uint64_t block = random() % 64;
    if (dice < 40 && !lvol.read_only()) {
      const auto count = static_cast<uint32_t>(1 + random() % std::min<uint64_t>(8, 64 - block));
      const auto fill = static_cast<uint8_t>(1 + random() % 200);
      if (!do_io(s.world, lvol, IoType::write, block, count, fill).ok()) continue;
      std::fill_n(volume->second.begin() + static_cast<ptrdiff_t>(block), count, fill);
    } else if (dice < 44 && !lvol.read_only()) {
      EXPECT_TRUE(do_io(s.world, lvol, IoType::unmap, block, 1).ok());
      volume->second[block] = 0;
    } else if (dice < 47 && expected.size() < 4) {
      const std::string name = "v" + std::to_string(step);
      const LvolOptions options{.name = name, .uuid = {}};
      const bool cut = random() % 2 == 0 && !lvol.read_only();
      auto made =
          run(s.world, cut ? s.store->snapshot_lvol(lvol.name(), options) : s.store->clone_lvol(lvol.name(), options));
      if (made.ok()) expected.emplace(name, volume->second);
    } else if (dice < 49 && expected.size() > 1) {
      EXPECT_TRUE(run(s.world, s.store->delete_lvol(lvol.name())).ok());
      expected.erase(volume);
      s.world.settle();
    } else if (dice < 60) {
      std::vector<uint8_t>& now = s.disk.bytes_now();
      const uint64_t at = (first + random() % (now.size() / 4096 - first)) * 4096;
      const uint64_t from = (first + random() % (now.size() / 4096 - first)) * 4096;
      if (dice < 53) {
        now[at + random() % 4096] ^= 1;
      } else {
        std::memcpy(now.data() + at, (dice < 56 ? past : now).data() + (dice < 56 ? at : from), 4096);
      }
      if (random() % 4 == 0) past = now;
    } else {
      uint8_t byte = 0xff;
      if (!s.read(lvol, block, &byte).ok()) {
        rotten.refused++;
      } else if (byte != volume->second[block]) {
        rotten.wrong++;
      }
    }
  }
  return rotten;
}

TEST(LvolChecksum, a_disk_that_rots_and_loses_and_misdirects_writes_never_shows_as_wrong_data) {
  Rotten without;
  Rotten with;
  for (uint64_t seed = 1; seed <= 12; seed++) {
    const Rotten sure = work_on_a_rotten_disk(seed, true);
    EXPECT_EQ(sure.wrong, 0u) << "seed " << seed;
    with.refused += sure.refused;
    without.wrong += work_on_a_rotten_disk(seed, false).wrong;
  }
  EXPECT_GT(with.refused, 0u);
  EXPECT_GT(without.wrong, 0u) << "the faults must show where nothing is verified";
}

// ---- power cuts ----------------------------------------------------------------------------------------------------

struct Cuts {
  uint64_t states = 0;
  uint64_t wrong = 0;
  std::string first;
};

// Every block is readable, and holds one version as a whole.
void judge(Cuts& cuts, std::vector<uint8_t> image, const ExpectedBytes& expected) {
  cuts.states++;
  Store s(cuts.states, std::move(image));
  std::string wrong;
  if (s.store == nullptr) wrong = "does not load";
  for (uint64_t block = 0; wrong.empty() && block < cut_blocks; block++) {
    uint8_t byte = 0xff;
    const nvme::Status status = s.read(*s.store->find("a"), block, &byte);
    if (!status.ok()) {
      wrong = "block " + std::to_string(block) + ": " + nvme::to_string(status);
    } else if (byte < expected.stable[block] || byte > expected.started[block]) {
      wrong = "block " + std::to_string(block) + " holds " + std::to_string(byte) + ", stable is " +
              std::to_string(expected.stable[block]);
    }
  }
  if (wrong.empty()) return;
  if (cuts.wrong++ == 0) cuts.first = wrong;
}

Cuts cut_everywhere(uint64_t seed, const lvs::ChecksumPlantedBugs& bugs) {
  Cuts cuts;
  Store s(seed);
  Lvol& lvol = s.make("a", true);
  s.store->plant({.checksums = bugs});
  ExpectedBytes expected;
  std::mt19937_64 random(seed);
  EXPECT_TRUE(do_io(s.world, lvol, IoType::write, 0, cut_blocks, 1).ok());
  EXPECT_TRUE(do_io(s.world, lvol, IoType::flush).ok());
  std::fill(std::begin(expected.stable), std::end(expected.stable), uint8_t{1});
  std::fill(std::begin(expected.started), std::end(expected.started), uint8_t{1});
  s.disk.on_change = [&] {
    const unsigned keep_percent[] = {0, 100, 50};
    judge(cuts, s.disk.image_of_power_cut(keep_percent[random() % 3], random), expected);
  };
  for (uint8_t version = 2; version < 20; version++) {
    TestIo writes[3];
    uint64_t first = 0;
    for (TestIo& write : writes) {  // side by side
      const auto count = static_cast<uint32_t>(1 + random() % 12);
      write.start(lvol, IoType::write, first, count, version, random() % 5 == 0);
      for (uint64_t block = first; block < first + count; block++)
        expected.started[block] = version;
      first += 20;
    }
    while (!(writes[0].ended && writes[1].ended && writes[2].ended))
      s.world.reactor.turn();
    for (const TestIo& write : writes)
      EXPECT_TRUE(write.io.status.ok());
    if (version % 3 != 0) continue;
    EXPECT_TRUE(do_io(s.world, lvol, IoType::flush).ok());
    std::copy(std::begin(expected.started), std::end(expected.started), std::begin(expected.stable));
  }
  s.disk.on_change = {};
  return cuts;
}

TEST(LvolChecksum, no_power_cut_makes_a_block_look_damaged_or_leaves_a_mixture_of_two_writes) {
  for (uint64_t seed = 1; seed <= testing::rounds_here({.plain = 4, .asan = 2, .tsan = 1}); seed++) {
    const Cuts cuts = cut_everywhere(seed, {});
    EXPECT_GT(cuts.states, 80u);
    EXPECT_EQ(cuts.wrong, 0u) << "seed " << seed << ": " << cuts.first;
  }
}

TEST(LvolChecksum, the_bugs_that_power_cuts_show_are_caught) {
  EXPECT_GT(cut_everywhere(1, {.no_record = true}).wrong, 0u);
  EXPECT_GT(cut_everywhere(1, {.record_not_durable = true}).wrong, 0u);
  EXPECT_GT(cut_everywhere(1, {.trim_before_flush = true}).wrong, 0u);
}

// A checksummed lvol goes, a plain one gets its clusters, and the process ends. Blocks of the second that are wrong.
uint64_t wrong_after_reuse(bool log_outlives_cluster, bool lose_newest_superblock = false) {
  std::vector<uint8_t> image;
  constexpr uint64_t plain_blocks = 512;
  // With a sector in common with what was there before: loading does not take it for what a lost record wrote.
  std::vector<uint8_t> owned(4096, 0x22);
  std::fill_n(owned.begin(), 512, uint8_t{0x11});
  uint64_t written = 0;
  {
    Store s(21);
    s.store->plant({.log_outlives_cluster = log_outlives_cluster});
    Lvol& sure = s.make("sure", true);
    EXPECT_TRUE(do_io(s.world, sure, IoType::write, 0, 8, 0x11).ok());
    EXPECT_TRUE(do_io(s.world, sure, IoType::flush).ok());
    EXPECT_TRUE(run(s.world, s.store->delete_lvol("sure")).ok());
    s.world.settle();
    Lvol& plain = s.make("plain", false, plain_blocks * 4 * 4096);
    TestIo io;
    for (nvme::Status status; status.ok() && written < plain_blocks * 4; written += status.ok() ? 16 : 0) {
      io.data.clear();
      for (int i = 0; i < 16; i++)
        io.data.insert(io.data.end(), owned.begin(), owned.end());
      io.start(plain, IoType::write, written, 16);
      while (!io.ended)
        s.world.reactor.turn();
      status = io.io.status;
    }
    EXPECT_TRUE(do_io(s.world, plain, IoType::flush).ok());
    image = s.disk.bytes_now();
  }
  if (lose_newest_superblock) image[checksum_superblocks(image).back() + 70] ^= 1;
  Store s(22, image);
  Lvol& plain = *s.store->find("plain");
  uint64_t wrong = 0;
  for (uint64_t block = 0; block < written; block++) {
    wrong += read_blocks(s.world, plain, block, 1) != owned ? 1 : 0;
  }
  EXPECT_GT(written, 500u);
  return wrong;
}

TEST(LvolChecksum, the_log_never_writes_over_the_next_owner_of_a_cluster) {
  EXPECT_EQ(wrong_after_reuse(false), 0u);
  EXPECT_GT(wrong_after_reuse(true), 0u) << "the planted bug must show";
}

TEST(LvolChecksum, an_older_superblock_that_has_to_stand_in_for_a_lost_one_knows_what_the_log_has_forgotten) {
  EXPECT_EQ(wrong_after_reuse(false, true), 0u);
}

TEST(LvolChecksum, superblocks_that_are_older_than_the_log_refuse_the_store) {
  std::vector<uint8_t> image;
  std::vector<uint8_t> before;
  {
    Store s(23);
    Lvol& lvol = s.make("a", true);
    ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 0, 8, 0x11).ok());
    before = s.disk.bytes_now();
    ASSERT_TRUE(do_io(s.world, lvol, IoType::unmap, 0, 16).ok());  // a whole cluster
    s.world.settle();
    ASSERT_TRUE(do_io(s.world, lvol, IoType::write, 20, 8, 0x22).ok());
    image = s.disk.bytes_now();
  }
  for (const size_t at : checksum_superblocks(before)) {
    ASSERT_NE(std::memcmp(image.data() + at, before.data() + at, 4096), 0);
    std::memcpy(image.data() + at, before.data() + at, 4096);
  }
  const Store s(24, image);
  EXPECT_EQ(s.store, nullptr);
}

}  // namespace
}  // namespace basalt::bdev
