// SPDX-License-Identifier: Apache-2.0
// Every way in which a store can be damaged is named exactly, nothing is written, and load() agrees with fsck.
#include "bdev/lvol/fsck.h"

#include <cstdlib>

#include "base/crc32c.h"
#include "bdev/lvol/crash_disk_test_util.h"
#include "bdev/lvol/golden_test_util.h"

namespace basalt::bdev {
namespace {

using namespace test;  // NOLINT

constexpr uint64_t disk_bytes = 4 << 20;
using Image = std::vector<uint8_t>;

// Two snapshots, a clone, a deleted snapshot that two still read. Not closed: some of it is only in the journal.
Image tree_image() {
  World world(1);
  CrashDisk disk(world, disk_bytes);
  disk.in_order = true;
  LvStoreOptions options{.name = "pool", .uuid = {}, .cluster_bytes = 64 << 10};
  options.uuid.bytes[0] = 1;
  auto store = run(world, LvStore::create(world.reactor, disk.handle(), options)).value();
  const auto named = [](const std::string& name, uint8_t uuid_byte) {
    LvolOptions options{.name = name, .uuid = {}, .size_bytes = 1 << 20};
    options.uuid.bytes[0] = uuid_byte;
    return options;
  };
  EXPECT_TRUE(run(world, store->create_lvol(named("a", 2))).ok());
  EXPECT_TRUE(do_io(world, *store->find("a"), IoType::write, 0, 40, 1).ok());
  EXPECT_TRUE(run(world, store->snapshot_lvol("a", named("s1", 3))).ok());
  EXPECT_TRUE(do_io(world, *store->find("a"), IoType::write, 3, 1, 2).ok());
  EXPECT_TRUE(do_io(world, *store->find("a"), IoType::unmap, 8, 24).ok());
  EXPECT_TRUE(run(world, store->clone_lvol("s1", named("c", 4))).ok());
  EXPECT_TRUE(run(world, store->delete_lvol("s1")).ok());
  world.settle();
  EXPECT_TRUE(run(world, store->close()).ok());
  world.settle();
  store = run(world, LvStore::load(world.reactor, disk.handle())).value();
  EXPECT_TRUE(run(world, store->snapshot_lvol("a", named("s2", 5))).ok());
  EXPECT_TRUE(do_io(world, *store->find("a"), IoType::write, 4, 1, 3).ok());
  world.settle();
  Image image = disk.bytes_now();
  EXPECT_TRUE(run(world, store->close()).ok());
  world.settle();
  return image;
}

struct Checked {
  FsckReport report;
  std::string loaded;  // load()'s error, or "loaded"
  std::string first() const { return report.problems.empty() ? "none" : report.problems.front().message; }
};

Checked check(const Image& image) {
  Checked out;
  World world(1);
  CrashDisk disk(world, image);
  disk.in_order = true;
  out.report = run(world, fsck(world.reactor, disk.handle()));
  EXPECT_EQ(disk.write_count, 0u);
  EXPECT_EQ(disk.flush_count, 0u);
  EXPECT_TRUE(disk.bytes_now() == image);
  auto loaded = run(world, LvStore::load(world.reactor, disk.handle()));
  out.loaded = loaded.ok() ? "loaded" : loaded.error().message;
  if (loaded.ok()) {
    world.settle();
    EXPECT_TRUE(run(world, (*loaded)->close()).ok());
    world.settle();
  } else {
    EXPECT_EQ(disk.write_count, 0u) << "load() wrote to a store that it refused";
  }
  EXPECT_EQ(out.report.sound(), loaded.ok()) << out.first() << " / " << out.loaded;
  return out;
}

uint8_t* block_of(Image& image, uint64_t block) {
  return image.data() + block * 4096;
}
template <class Block, class F>
void edit(Image& image, uint64_t block, F&& change) {
  auto* bytes = block_of(image, block);
  change(*reinterpret_cast<Block*>(bytes));
  auto& header = *reinterpret_cast<lvs::BlockHeader*>(bytes);
  header.crc32c = 0;
  header.crc32c = crc32c(0, bytes, 4096);
}
template <class F>
void edit_superblocks(Image& image, F&& change) {
  for (uint64_t slot = 0; slot < 4; slot++) {
    const uint64_t block = slot * lvs::superblock_stride_blocks;
    if (lvs::block_intact(block_of(image, block))) edit<lvs::Superblock>(image, block, change);
  }
}
// Blocks of a type that are in use: those whose damage is noticed.
std::vector<uint64_t> used(const Image& good, lvs::BlockType type) {
  std::vector<uint64_t> out;
  for (uint64_t block = lvs::superblock_area_blocks; block * 4096 < disk_bytes; block++) {
    Image image = good;
    const auto& header = *reinterpret_cast<lvs::BlockHeader*>(block_of(image, block));
    if (!lvs::block_intact(block_of(image, block)) || header.type != static_cast<uint16_t>(type)) continue;
    block_of(image, block)[100] ^= 1;
    if (!check(image).report.sound()) out.push_back(block);
  }
  return out;
}

TEST(Fsck, a_sound_store_is_described_and_has_no_problem) {
  const Checked c = check(tree_image());
  EXPECT_TRUE(c.report.sound() && c.report.problems.empty()) << c.first();
  EXPECT_TRUE(c.report.readable);
  EXPECT_EQ(c.report.name, "pool");
  EXPECT_EQ(c.report.incompatible, lvs::incompatible_layers);
  EXPECT_EQ(c.report.layers.size(), 4u);
  EXPECT_EQ(c.report.stats.hidden_layers, 1u);
  EXPECT_GT(c.report.journal_blocks, 0u);
  const std::string text = fsck_text(c.report, true);
  for (const char* part : {"lvstore pool 01000000-", "superblock slot 0: intact", "(hidden), parent 0, read-only, ",
                           ": s2, parent ", "snapshot, read-only, 1048576 bytes", "\nno errors\n"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
}

TEST(Fsck, the_golden_image_with_layers_loads_and_is_what_is_written_today) {
  constexpr const char* golden = "lvstore_v1_layers.hex";
  if (std::getenv("BASALT_REWRITE_GOLDEN") != nullptr) write_golden(golden, tree_image());
  const Image image = read_golden(golden);
  EXPECT_TRUE(image == tree_image()) << "a change of the format needs a version or a feature bit";
  World world(1);
  CrashDisk disk(world, image);
  auto store = run(world, LvStore::inspect(world.reactor, disk.handle())).value();
  const auto reads = [&](const std::string& name, uint64_t offset, uint32_t count, uint8_t value) {
    return all_are(read_blocks(world, *store->find(name), offset, count), value);
  };
  EXPECT_TRUE(reads("c", 0, 40, 1) && reads("c", 40, 216, 0));
  EXPECT_TRUE(reads("s2", 0, 3, 1) && reads("s2", 3, 1, 2) && reads("s2", 4, 4, 1) && reads("s2", 8, 24, 0));
  EXPECT_TRUE(reads("a", 3, 1, 2) && reads("a", 4, 1, 3) && reads("a", 5, 3, 1) && reads("a", 32, 8, 1));
}

TEST(Fsck, devices_without_a_store_say_so) {
  EXPECT_EQ(check(Image(disk_bytes)).first(), "the device carries no lvstore");
  EXPECT_EQ(check(Image(disk_bytes, 0x41)).first(), "the device carries no lvstore");
  EXPECT_EQ(check(Image(64 << 10)).first(), "no lvstore: the device is too small");
}

TEST(Fsck, damaged_superblocks_are_named_and_the_newest_intact_one_serves) {
  const Image good = tree_image();
  Image image = good;
  for (uint64_t slot = 0; slot < 4; slot++)
    block_of(image, slot * lvs::superblock_stride_blocks)[1000] ^= 1;
  EXPECT_EQ(check(image).first(), "no superblock is intact");
  // An older one: a warning.
  image = good;
  const uint64_t newest = check(good).report.generation % 4;
  const uint64_t older = (newest + 3) % 4;
  block_of(image, older * lvs::superblock_stride_blocks)[1000] ^= 1;
  const Checked c = check(image);
  EXPECT_TRUE(c.report.sound());
  EXPECT_EQ(c.first(), "superblock slot " + std::to_string(older) + " is damaged; slot " + std::to_string(newest) +
                           " is the newest intact one");
  // The newest one: what it referred to is newer than what is left.
  image = good;
  block_of(image, newest * lvs::superblock_stride_blocks)[1000] ^= 1;
  EXPECT_FALSE(check(image).report.sound());
}

TEST(Fsck, unknown_versions_features_and_shrunken_devices_are_refused) {
  const Image good = tree_image();
  Image image = good;
  edit_superblocks(image, [](lvs::Superblock& superblock) { superblock.version = 7; });
  EXPECT_EQ(check(image).first(), "lvstore: format version 7 is not known; nothing was changed");
  image = good;
  edit_superblocks(image, [](lvs::Superblock& superblock) { superblock.incompatible |= 4; });
  EXPECT_EQ(check(image).first(), "lvstore: it uses features that are not known; nothing was changed");
  image = good;
  image.resize(disk_bytes - 8192);
  EXPECT_EQ(check(image).first(), "lvstore: the device has 1022 blocks of 4096 bytes, the store was made for 1024");
  image = good;
  edit_superblocks(image, [](lvs::Superblock& superblock) { superblock.cluster_count *= 2; });
  EXPECT_EQ(check(image).first(), "lvstore: the superblock's layout contradicts itself");
}

TEST(Fsck, damaged_misdirected_foreign_and_lost_pages_are_told_apart) {
  const Image good = tree_image();
  for (const lvs::BlockType type : {lvs::BlockType::directory, lvs::BlockType::lvol, lvs::BlockType::extents}) {
    const std::vector<uint64_t> blocks = used(good, type);
    ASSERT_FALSE(blocks.empty());
    const uint64_t block = blocks.front();
    const auto ends = [&](const Image& image, const std::string& why) {
      const std::string message = check(image).first();
      EXPECT_NE(message.find("(block " + std::to_string(block) + "): " + why), std::string::npos) << message;
    };
    Image image = good;
    block_of(image, block)[4000] ^= 0x10;
    ends(image, "its checksum does not match");
    image = good;
    std::memset(block_of(image, block), 0, 4096);
    ends(image, "it is all zeroes");
    image = good;
    std::memset(block_of(image, block), 0x33, 4096);
    ends(image, "it is no metadata block");
    image = good;
    edit<lvs::BlockHeader>(image, block, [](lvs::BlockHeader& header) { header.address_blocks++; });
    ends(image, "it was written for another place");
    image = good;
    edit<lvs::BlockHeader>(image, block, [](lvs::BlockHeader& header) { header.store_uuid[3] ^= 1; });
    ends(image, "it belongs to another store");
    image = good;
    edit<lvs::BlockHeader>(image, block, [](lvs::BlockHeader& header) { header.generation += 100; });
    ends(image, "it is newer than the newest superblock");
  }
}

TEST(Fsck, contradictions_between_intact_pages_are_found) {
  const Image good = tree_image();
  const std::vector<uint64_t> lvols = used(good, lvs::BlockType::lvol);
  const std::vector<uint64_t> extents = used(good, lvs::BlockType::extents);
  ASSERT_GE(lvols.size(), 3u);
  Image image = good;
  edit<lvs::LvolPage>(image, lvols[1], [](lvs::LvolPage& page) { page.parent_id = 999; });
  EXPECT_NE(check(image).first().find("names a parent that cannot be"), std::string::npos) << check(image).first();
  image = good;
  edit<lvs::LvolPage>(image, lvols[1], [](lvs::LvolPage& page) { page.flags = 64; });
  EXPECT_NE(check(image).first().find("is damaged"), std::string::npos) << check(image).first();
  // A circle of parents.
  image = good;
  for (const uint64_t block : lvols) {
    edit<lvs::LvolPage>(image, block, [](lvs::LvolPage& page) {
      page.flags |= lvs::layer_read_only;
      if (page.parent_id == 0) page.parent_id = static_cast<uint32_t>(page.header.owner) + 1;
    });
  }
  EXPECT_FALSE(check(image).report.sound());
  // One cluster in two places.
  image = good;
  for (const uint64_t block : extents) {
    edit<lvs::BlockHeader>(image, block, [](lvs::BlockHeader& header) {
      auto* entry = reinterpret_cast<lvs::ExtentEntry*>(reinterpret_cast<uint8_t*>(&header) + sizeof(header));
      entry[0].physical = 1;
      entry[0].kind = 1;
    });
  }
  EXPECT_NE(check(image).first().find("a cluster is used twice, or is not recorded as in use"), std::string::npos)
      << check(image).first();
}

TEST(Fsck, a_hole_in_the_flushed_journal_is_an_error) {
  const Image good = tree_image();
  unsigned holes = 0;
  for (const uint64_t block : used(good, lvs::BlockType::journal)) {
    Image image = good;
    block_of(image, block)[300] ^= 1;
    const std::string message = check(image).first();
    EXPECT_NE(message.find("is damaged, and later ones are intact"), std::string::npos) << message;
    holes++;
  }
  EXPECT_GT(holes, 0u);
}

TEST(Fsck, an_inspected_store_reads_and_never_writes) {
  World world(1);
  CrashDisk disk(world, tree_image());
  auto store = run(world, LvStore::inspect(world.reactor, disk.handle())).value();
  EXPECT_TRUE(all_are(read_blocks(world, *store->find("c"), 0, 40), 1));
  EXPECT_TRUE(do_io(world, *store->find("a"), IoType::write, 0, 1, 1).is(nvme::status::namespace_write_protected));
  EXPECT_EQ(do_io(world, *store->find("a"), IoType::flush), nvme::status::write_fault);
  EXPECT_FALSE(run(world, store->delete_lvol("c")).ok());
  world.settle();
  EXPECT_EQ(disk.write_count + disk.flush_count, 0u);
}

}  // namespace
}  // namespace basalt::bdev
