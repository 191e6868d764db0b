// SPDX-License-Identifier: Apache-2.0
// Goal: a record of the checksums' log that has rotted, or cannot be read, takes with it what it alone said: those
// blocks answer an error until they are written, the rest is there, and nothing old comes back. Method: a disk in
// memory, images of it after the process ended or the power went, and one damaged block of the log.
#include "bdev/lvol/checksum_store_test_util.h"
#include "bdev/lvol/fsck.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

using namespace test;  // NOLINT
using Store = ChecksumStore;
using Image = std::vector<uint8_t>;

// Where the records lie, the oldest first.
std::vector<size_t> records_of(const Image& image) {
  std::vector<size_t> found;
  for (size_t at = 0; at < image.size(); at += 4096) {
    const lvs::BlockHeader& header = lvs::header_of(image.data() + at);
    if (header.magic == lvs::block_magic && header.type == static_cast<uint16_t>(lvs::BlockType::checksum_record) &&
        lvs::block_intact(image.data() + at))
      found.push_back(at);
  }
  std::sort(found.begin(), found.end(), [&](size_t a, size_t b) {
    return lvs::header_of(image.data() + a).owner < lvs::header_of(image.data() + b).owner;
  });
  return found;
}

struct Write {
  uint64_t block;
  uint32_t count_blocks;
  uint8_t fill;
};

// The process ended after these, each of them a record. So short that the log is not trimmed.
Image image_after(const std::vector<Write>& writes) {
  Store s(40);
  Lvol& lvol = s.make("a", true);
  for (const Write& write : writes)
    EXPECT_TRUE(do_io(s.world, lvol, IoType::write, write.block, write.count_blocks, write.fill).ok());
  return s.disk.bytes_now();
}

// What the block holds, or "error".
std::string held(Store& s, uint64_t block) {
  uint8_t byte = 0;
  const nvme::Status status = s.read(*s.store->find("a"), block, &byte);
  if (status.is(nvme::status::unrecovered_read_error)) return "error";
  EXPECT_TRUE(status.ok()) << nvme::to_string(status);
  return std::to_string(byte);
}

enum class Damage { rotten, unreadable };

// The store of this image with one block of 4 KiB damaged.
std::unique_ptr<Store> load_damaged(Image image, size_t at, Damage damage) {
  if (damage == Damage::rotten) image[at + 1000] ^= 0x10;
  return std::make_unique<Store>(41, std::move(image), [=](CrashDisk& disk) {
    if (damage == Damage::rotten) return;
    disk.fault = [at](const Io& io) -> std::optional<nvme::Status> {
      const uint64_t first = io.offset_blocks * CrashDisk::sector_bytes;
      const uint64_t end = first + uint64_t{io.count_blocks} * CrashDisk::sector_bytes;
      if (io.type == IoType::read && first <= at && at < end) return nvme::status::unrecovered_read_error;
      return std::nullopt;
    };
  });
}

constexpr Damage both[] = {Damage::rotten, Damage::unreadable};

TEST(ChecksumLog, a_lost_record_takes_its_own_blocks_and_those_behind_it_are_used) {
  const Image image = image_after({{0, 3, 11}, {10, 3, 22}, {20, 3, 33}});
  const std::vector<size_t> records = records_of(image);
  ASSERT_EQ(records.size(), 3u);
  for (const Damage damage : both) {
    auto s = load_damaged(image, records[1], damage);
    ASSERT_NE(s->store, nullptr);
    EXPECT_EQ(held(*s, 0), "11");
    EXPECT_EQ(held(*s, 2), "11");
    EXPECT_EQ(held(*s, 20), "33");
    EXPECT_EQ(held(*s, 22), "33");
    for (uint64_t block = 10; block < 13; block++)
      EXPECT_EQ(held(*s, block), "error") << "its tag was in the record";
    EXPECT_EQ(s->store->stats().checksum_lost_records, 1u);
    ASSERT_TRUE(do_io(s->world, *s->store->find("a"), IoType::write, 12, 1, 44).ok());
    EXPECT_EQ(held(*s, 12), "44");
  }
}

TEST(ChecksumLog, a_record_whose_data_has_rotted_still_says_what_is_right_in_place) {
  Image image = image_after({{0, 3, 11}, {10, 3, 22}, {20, 3, 33}});
  const std::vector<size_t> records = records_of(image);
  const size_t data_of_11 = records[1] + 4096 * 2;
  for (const Damage damage : both) {
    auto s = load_damaged(image, data_of_11, damage);
    ASSERT_NE(s->store, nullptr);
    for (uint64_t block = 10; block < 13; block++)
      EXPECT_EQ(held(*s, block), "22");
    EXPECT_EQ(held(*s, 22), "33");
  }
  // The power went as well, and what was not flushed is not in place: only one block cannot be had any more.
  for (size_t at = 0; at < image.size(); at += 4096) {
    const bool in_log = at > records[0] && at <= records[2] + 3 * 4096;
    if (!in_log && image[at] == 22 && image[at + 4095] == 22) std::memset(image.data() + at, 0, 4096);
  }
  for (const Damage damage : both) {
    auto s = load_damaged(image, data_of_11, damage);
    ASSERT_NE(s->store, nullptr);
    for (uint64_t block = 10; block < 13; block++)
      EXPECT_EQ(held(*s, block), block == 11 ? "error" : "22") << block;
  }
}

TEST(ChecksumLog, an_older_record_does_not_come_back_over_what_a_lost_one_wrote) {
  for (const bool last : {false, true}) {
    std::vector<Write> writes = {{0, 3, 11}, {0, 3, 22}};
    if (!last) writes.push_back({20, 3, 33});
    const Image image = image_after(writes);
    const std::vector<size_t> records = records_of(image);
    for (const Damage damage : both) {
      for (const size_t offset : {size_t{0}, size_t{4096}, size_t{3 * 4096}}) {
        auto s = load_damaged(image, records[1] + offset, damage);
        ASSERT_NE(s->store, nullptr);
        for (uint64_t block = 0; block < 3; block++)
          EXPECT_EQ(held(*s, block), offset == 0 ? "error" : "22") << block << ", last " << last;
      }
    }
  }
}

TEST(ChecksumLog, what_was_loaded_past_a_hole_loads_again) {
  Image image = image_after({{0, 3, 11}, {0, 2, 22}, {20, 3, 33}});
  const size_t record = records_of(image)[1];
  image[record + 9] ^= 1;
  for (int load = 0; load < 3; load++) {
    Store s(42, image);
    ASSERT_NE(s.store, nullptr);
    EXPECT_EQ(held(s, 1), "error");
    EXPECT_EQ(held(s, 2), "11") << "what is in place agrees";
    EXPECT_EQ(held(s, 22), "33");
    image = s.disk.bytes_now();
  }
}

TEST(ChecksumLog, a_disk_that_is_out_of_reach_refuses_the_store_and_nothing_is_written) {
  const Image image = image_after({{0, 3, 11}, {0, 3, 22}});
  const size_t record = records_of(image)[1];
  Store s(43, image, [=](CrashDisk& disk) {
    disk.fault = [=](const Io& io) -> std::optional<nvme::Status> {
      const uint64_t first = io.offset_blocks * CrashDisk::sector_bytes;
      const uint64_t end = first + uint64_t{io.count_blocks} * CrashDisk::sector_bytes;
      if (io.type == IoType::read && first <= record && record < end) return nvme::status::internal_path_error;
      return std::nullopt;
    };
  });
  EXPECT_EQ(s.store, nullptr);
  Store again(44, s.disk.bytes_now());
  ASSERT_NE(again.store, nullptr);
  EXPECT_EQ(held(again, 2), "22");
}

TEST(ChecksumLog, one_unreadable_superblock_is_done_without) {
  const Image image = image_after({{0, 5, 11}, {3, 2, 22}});
  for (const size_t at : checksum_superblocks(image)) {
    auto s = load_damaged(image, at, Damage::unreadable);
    ASSERT_NE(s->store, nullptr);
    EXPECT_EQ(held(*s, 0), "11");
    EXPECT_EQ(held(*s, 4), "22");
  }
}

TEST(ChecksumLog, fsck_tells_of_lost_records_and_a_store_opened_to_be_read_keeps_to_the_same_rules) {
  Image image = image_after({{0, 3, 11}, {0, 2, 22}, {20, 3, 33}});
  image[records_of(image)[1] + 9] ^= 1;
  World world(45);
  CrashDisk disk(world, image);
  const FsckReport report = run(world, fsck(world.reactor, disk.handle()));
  EXPECT_TRUE(report.sound());
  EXPECT_NE(fsck_text(report, false).find("lacks 1 records"), std::string::npos) << fsck_text(report, false);
  auto store = run(world, LvStore::inspect(world.reactor, disk.handle())).value();
  Lvol& lvol = *store->find("a");
  EXPECT_TRUE(all_are(read_blocks(world, lvol, 20, 3), 33));
  EXPECT_TRUE(do_io(world, lvol, IoType::read, 1, 1).is(nvme::status::unrecovered_read_error));
  EXPECT_EQ(disk.write_count + disk.flush_count, 0u);
}

// Random writes, side by side and over each other; at each boundary the power goes or the process ends, and one block
// of the log rots or becomes unreadable. Nothing older than what was promised is ever read. How many blocks were right,
// and how many answered an error.
struct Tally {
  uint64_t states = 0;
  uint64_t right = 0;
  uint64_t errors = 0;
  std::string wrong;
};

void judge_damaged(Tally& tally, Image image, const ExpectedBytes& expected, std::mt19937_64& random) {
  const std::vector<size_t> records = records_of(image);
  if (records.empty()) return;
  const size_t record = records[random() % records.size()];
  const auto& found = *reinterpret_cast<const lvs::ChecksumRecord*>(image.data() + record);
  const size_t at = record + random() % (1 + found.block_count) * 4096;
  auto s = load_damaged(std::move(image), at, random() % 2 == 0 ? Damage::rotten : Damage::unreadable);
  tally.states++;
  if (s->store == nullptr) {
    tally.wrong = "does not load";
    return;
  }
  for (uint64_t block = 0; block < cut_blocks; block++) {
    uint8_t byte = 0xff;
    const nvme::Status status = s->read(*s->store->find("a"), block, &byte);
    const bool right = status.ok() && byte >= expected.stable[block] && byte <= expected.started[block];
    const bool error = status.is(nvme::status::unrecovered_read_error);
    tally.right += right ? 1 : 0;
    tally.errors += error ? 1 : 0;
    if (right || error || !tally.wrong.empty()) continue;
    tally.wrong = "block " + std::to_string(block) + " holds " + std::to_string(byte) + " (" + nvme::to_string(status) +
                  "), stable is " + std::to_string(expected.stable[block]) + ", begun " +
                  std::to_string(expected.started[block]);
  }
}

TEST(ChecksumLog, no_damaged_block_of_the_log_ever_brings_old_data_back) {
  constexpr uint64_t rounds = testing::rounds_here({.plain = 4, .asan = 2, .tsan = 1});
  Tally tally;
  for (uint64_t seed = 1; seed <= rounds && tally.wrong.empty(); seed++) {
    Store s(seed);
    Lvol& lvol = s.make("a", true);
    ExpectedBytes expected;
    std::mt19937_64 random(seed);
    EXPECT_TRUE(do_io(s.world, lvol, IoType::write, 0, cut_blocks, 1).ok());
    EXPECT_TRUE(do_io(s.world, lvol, IoType::flush).ok());
    std::fill(std::begin(expected.stable), std::end(expected.stable), uint8_t{1});
    std::fill(std::begin(expected.started), std::end(expected.started), uint8_t{1});
    s.disk.on_change = [&] {
      if (!tally.wrong.empty()) return;
      const unsigned keep_percent[] = {0, 100, 50};
      judge_damaged(tally, s.disk.image_of_power_cut(keep_percent[random() % 3], random), expected, random);
      if (!tally.wrong.empty()) tally.wrong += ", seed " + std::to_string(seed);
    };
    for (uint8_t version = 2; version < 22; version++) {
      TestIo writes[3];
      for (TestIo& write : writes) {
        const uint64_t first = static_cast<uint64_t>(&write - writes) * 20;
        const auto count = static_cast<uint32_t>(1 + random() % 2);  // several records between two trims
        write.start(lvol, IoType::write, first, count, version, random() % 5 == 0);
        for (uint64_t block = first; block < first + count; block++)
          expected.started[block] = version;
      }
      while (!(writes[0].ended && writes[1].ended && writes[2].ended))
        s.world.reactor.turn();
      if (version % 3 != 0) continue;
      EXPECT_TRUE(do_io(s.world, lvol, IoType::flush).ok());
      std::copy(std::begin(expected.started), std::end(expected.started), std::begin(expected.stable));
    }
    s.disk.on_change = {};
  }
  EXPECT_EQ(tally.wrong, "");
  EXPECT_GT(tally.states, 75 * rounds);
  EXPECT_GT(tally.errors, 0u);
  EXPECT_GT(tally.right, 10 * tally.errors);
  std::printf("%llu states, %llu blocks right, %llu errors\n", static_cast<unsigned long long>(tally.states),
              static_cast<unsigned long long>(tally.right), static_cast<unsigned long long>(tally.errors));
}

}  // namespace
}  // namespace basalt::bdev
