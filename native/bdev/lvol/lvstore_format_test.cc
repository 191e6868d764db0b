// SPDX-License-Identifier: Apache-2.0
// The format: the golden image of version 1, damage that is refused exactly and without a write, and crash states that
// random work meets too rarely.
#include <cstdlib>

#include "base/crc32c.h"
#include "bdev/lvol/crash_disk_test_util.h"
#include "bdev/lvol/golden_test_util.h"
#include "bdev/lvol/lvstore.h"

namespace basalt::bdev {
namespace {

using namespace test;  // NOLINT

constexpr uint64_t disk_bytes = 4 << 20;
constexpr uint32_t cluster_bytes = 64 << 10;
constexpr uint64_t journal_offset = uint64_t{lvs::superblock_area_blocks} * 4096;
constexpr uint64_t journal_bytes = 64 * 4096;

using Image = std::vector<uint8_t>;

struct Session {
  explicit Session(Image image, uint64_t seed = 1) : world(seed), disk(world, std::move(image)) {
    disk.in_order = true;
  }
  ~Session() {
    disk.fault = {};
    if (store != nullptr) {
      (void)run(world, store->close()).ok();
      world.settle();
    }
  }
  void create(const std::string& name = "pool") {
    LvStoreOptions options{.name = name, .uuid = {}, .cluster_bytes = cluster_bytes};
    options.uuid.bytes[0] = 1;
    auto made = run(world, LvStore::create(world.reactor, disk.handle(), options));
    ASSERT_TRUE(made.ok()) << made.error().message;
    store = std::move(*made);
  }
  Outcome load() {
    auto loaded = run(world, LvStore::load(world.reactor, disk.handle()));
    if (!loaded) return loaded.error();
    store = std::move(*loaded);
    return success();
  }
  Lvol* lvol(const std::string& name, uint64_t size_bytes, uint8_t uuid_byte) {
    LvolOptions options{.name = name, .uuid = {}, .size_bytes = size_bytes};
    options.uuid.bytes[0] = uuid_byte;
    auto made = run(world, store->create_lvol(options));
    EXPECT_TRUE(made.ok());
    return made.ok() ? *made : nullptr;
  }
  void write(Lvol* lvol, uint64_t offset, uint32_t count, uint8_t fill) {
    EXPECT_TRUE(do_io(world, *lvol, IoType::write, offset, count, fill).ok());
  }
  bool reads(Lvol* lvol, uint64_t offset, uint32_t count, uint8_t value) {
    return all_are(read_blocks(world, *lvol, offset, count), value);
  }
  // The process ends; the disk keeps what completed.
  Image kill() {
    world.settle();
    return disk.bytes_now();
  }

  World world;
  CrashDisk disk;
  std::unique_ptr<LvStore> store;
};

std::string load_error(const Image& image) {
  Session session(image);
  Outcome outcome = session.load();
  if (outcome) return "loaded";
  EXPECT_EQ(session.disk.write_count, 0u) << "something was written";
  return std::string(errc_name(outcome.error().code)) + ": " + outcome.error().message;
}
bool begins(const std::string& text, Errc code) {
  return text.rfind(errc_name(code), 0) == 0;
}

uint8_t* block_of(Image& image, uint64_t block) {
  return image.data() + block * 4096;
}

// Changes a metadata block and makes its CRC right again.
template <class Block, class F>
void edit(Image& image, uint64_t block, F&& change) {
  auto* bytes = block_of(image, block);
  auto& typed = *reinterpret_cast<Block*>(bytes);
  change(typed);
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

// A store with every kind of page and record in it; not closed.
Image rich_image() {
  Session s{Image(disk_bytes)};
  s.create("golden");
  Lvol* a = s.lvol("alpha", 1 << 20, 0xa);
  s.lvol("beta.1", uint64_t{1} << 40, 0xb);
  s.write(a, 0, 1, 1);
  s.write(a, 16, 16, 2);
  s.write(a, 40, 2, 3);
  EXPECT_TRUE(run(s.world, a->set_attribute("first")).ok());
  EXPECT_TRUE(run(s.world, s.store->close()).ok());
  s.world.settle();
  s.store.reset();
  EXPECT_TRUE(s.load().ok());
  a = s.store->find("alpha");
  Lvol* b = s.store->find("beta.1");
  EXPECT_TRUE(run(s.world, a->set_attribute("epoch 7")).ok());
  s.write(b, (uint64_t{1} << 28) - 1, 1, 4);
  s.write(a, 1, 1, 5);
  EXPECT_TRUE(do_io(s.world, *a, IoType::unmap, 41, 1).ok());
  EXPECT_TRUE(do_io(s.world, *a, IoType::write_zeroes, 16, 16).ok());
  s.lvol("gone", 1 << 20, 0xc);
  s.write(s.store->find("gone"), 0, 1, 6);
  EXPECT_TRUE(run(s.world, s.store->delete_lvol("gone")).ok());
  s.lvol("gamma", 4096, 0xd);
  return s.kill();
}

void expect_rich(Session& s) {
  EXPECT_EQ(s.store->name(), "golden");
  Lvol* a = s.store->find("alpha");
  Lvol* b = s.store->find("beta.1");
  Lvol* c = s.store->find("gamma");
  ASSERT_TRUE(a != nullptr && b != nullptr && c != nullptr);
  EXPECT_EQ(s.store->list().size(), 3u);
  EXPECT_EQ(s.store->find("gone"), nullptr);
  EXPECT_EQ(a->attribute(), "epoch 7");
  EXPECT_EQ(a->uuid().bytes[0], 0xa);
  EXPECT_EQ(b->size_bytes(), uint64_t{1} << 40);
  EXPECT_EQ(c->size_bytes(), 4096u);
  EXPECT_TRUE(s.reads(a, 0, 1, 1));
  EXPECT_TRUE(s.reads(a, 1, 1, 5));
  EXPECT_TRUE(s.reads(a, 2, 38, 0));
  EXPECT_TRUE(s.reads(a, 40, 1, 3));
  EXPECT_TRUE(s.reads(a, 41, 215, 0));
  EXPECT_TRUE(s.reads(b, (uint64_t{1} << 28) - 1, 1, 4));
  EXPECT_TRUE(s.reads(b, 0, 256, 0));
  EXPECT_EQ(a->allocated_bytes(), 2 * cluster_bytes);
}

constexpr const char* golden = "lvstore_v1.hex";

TEST(LvFormat, the_golden_image_of_version_1_loads) {
  if (std::getenv("BASALT_REWRITE_GOLDEN") != nullptr) write_golden(golden, rich_image());
  const Image image = read_golden(golden);
  ASSERT_EQ(image.size(), disk_bytes) << golden_path(golden);
  Session s(image);
  Outcome outcome = s.load();
  ASSERT_TRUE(outcome.ok()) << outcome.error().message;
  expect_rich(s);
}

TEST(LvFormat, what_is_written_today_is_what_the_golden_image_holds) {
  // Byte for byte: a change of the format shows here and needs a new version or a feature bit.
  EXPECT_TRUE(rich_image() == read_golden(golden));
}

TEST(LvFormat, blank_and_foreign_devices_hold_no_store) {
  EXPECT_TRUE(begins(load_error(Image(disk_bytes)), Errc::not_found));
  EXPECT_TRUE(begins(load_error(Image(64 << 10)), Errc::not_found));
  EXPECT_TRUE(begins(load_error(Image(disk_bytes, 0x41)), Errc::not_found));
}

TEST(LvFormat, an_older_superblock_serves_when_the_newest_was_torn_and_never_used) {
  Image image = rich_image();
  edit_superblocks(image, [](lvs::Superblock&) {});
  // The next slot to be written is torn.
  uint64_t newest = 0;
  for (uint64_t slot = 0; slot < 4; slot++) {
    const auto& header = *reinterpret_cast<lvs::BlockHeader*>(block_of(image, slot * lvs::superblock_stride_blocks));
    newest = std::max(newest, header.generation);
  }
  uint8_t* next = block_of(image, (newest + 1) % 4 * lvs::superblock_stride_blocks);
  std::memset(next, 0x77, 512);
  Session s(image);
  ASSERT_TRUE(s.load().ok());
  expect_rich(s);
}

TEST(LvFormat, no_intact_superblock_is_refused) {
  Image image = rich_image();
  for (uint64_t slot = 0; slot < 4; slot++)
    block_of(image, slot * lvs::superblock_stride_blocks)[1000] ^= 1;
  EXPECT_TRUE(begins(load_error(image), Errc::corrupt));
}

TEST(LvFormat, a_lost_newest_superblock_is_noticed) {
  Image image = rich_image();
  uint64_t newest = 0;
  uint64_t newest_slot = 0;
  for (uint64_t slot = 0; slot < 4; slot++) {
    const auto& header = *reinterpret_cast<lvs::BlockHeader*>(block_of(image, slot * lvs::superblock_stride_blocks));
    if (header.generation > newest) {
      newest = header.generation;
      newest_slot = slot;
    }
  }
  block_of(image, newest_slot * lvs::superblock_stride_blocks)[2000] ^= 1;
  EXPECT_TRUE(begins(load_error(image), Errc::corrupt));
}

TEST(LvFormat, unknown_versions_and_features_are_refused_untouched) {
  Image image = rich_image();
  edit_superblocks(image, [](lvs::Superblock& superblock) { superblock.incompatible = 4; });
  EXPECT_TRUE(begins(load_error(image), Errc::unsupported));
  image = rich_image();
  edit_superblocks(image, [](lvs::Superblock& superblock) { superblock.version = 2; });
  EXPECT_TRUE(begins(load_error(image), Errc::unsupported));
  image = rich_image();
  edit_superblocks(image, [](lvs::Superblock& superblock) { superblock.compatible = 1; });
  EXPECT_EQ(load_error(image), "loaded");
}

TEST(LvFormat, a_device_that_shrank_is_refused) {
  Image image = rich_image();
  image.resize(disk_bytes - 4096);
  EXPECT_TRUE(begins(load_error(image), Errc::corrupt));
}

TEST(LvFormat, a_device_that_grew_loads) {
  Image image = rich_image();
  image.resize(disk_bytes + 65536);
  EXPECT_EQ(load_error(image), "loaded");
}

TEST(LvFormat, an_impossible_layout_is_refused) {
  const auto refused = [](auto&& change) {
    Image image = rich_image();
    edit_superblocks(image, change);
    return begins(load_error(image), Errc::corrupt);
  };
  EXPECT_TRUE(refused([](lvs::Superblock& s) { s.cluster_bytes = 3; }));
  EXPECT_TRUE(refused([](lvs::Superblock& s) { s.cluster_count = 1 << 30; }));
  EXPECT_TRUE(refused([](lvs::Superblock& s) { s.journal_first_block = UINT64_MAX; }));
  EXPECT_TRUE(refused([](lvs::Superblock& s) { s.journal_blocks = 0; }));
  EXPECT_TRUE(refused([](lvs::Superblock& s) { s.page_count = 0xfffffff0; }));
  EXPECT_TRUE(refused([](lvs::Superblock& s) { s.dirty_map_pages = 0; }));
  EXPECT_TRUE(refused([](lvs::Superblock& s) { s.name_length_bytes = 64; }));
}

TEST(LvFormat, a_damaged_directory_or_page_is_refused) {
  const Image good = rich_image();
  unsigned damaged = 0;
  for (uint64_t block = 128; block * 4096 < disk_bytes; block++) {
    Image image = good;
    const auto type = reinterpret_cast<lvs::BlockHeader*>(block_of(image, block))->type;
    if (!lvs::block_intact(block_of(image, block))) continue;
    block_of(image, block)[100] ^= 4;
    const std::string error = load_error(image);
    // The other slot of a page is no longer, or not yet, in use.
    if (error == "loaded") continue;
    EXPECT_TRUE(begins(error, Errc::corrupt)) << block << " type " << type << ": " << error;
    damaged++;
  }
  EXPECT_GE(damaged, 5u);
}

TEST(LvFormat, a_misdirected_page_is_refused) {
  const Image good = rich_image();
  unsigned refused = 0;
  // Every page with the copy of its neighbour in it: intact, but of another place.
  for (uint64_t block = 128; block * 4096 < disk_bytes; block++) {
    Image image = good;
    if (!lvs::block_intact(block_of(image, block))) continue;
    std::memcpy(block_of(image, block), block_of(image, 0), 4096);
    refused += begins(load_error(image), Errc::corrupt);
  }
  EXPECT_GE(refused, 5u);
}

TEST(LvFormat, any_single_damaged_byte_of_metadata_is_survived_or_refused) {
  const Image good = rich_image();
  std::mt19937_64 random(5);
  for (int i = 0; i < 300; i++) {
    Image image = good;
    image[random() % (1300 * 1024)] ^= static_cast<uint8_t>(1 + random() % 255);
    const std::string error = load_error(image);
    EXPECT_TRUE(error == "loaded" || begins(error, Errc::corrupt)) << error;
  }
}

// The journal of a store with one lvol, whose first write is checkpointed and five more are only in the journal.
struct JournalCase {
  Image image;
  std::vector<uint64_t> blocks;  // of the five
};
JournalCase five_in_the_journal(bool flush_after_third) {
  Session s{Image(disk_bytes)};
  s.create();
  s.lvol("a", 1 << 20, 1);
  s.write(s.store->find("a"), 0, 1, 0x10);
  s.world.settle();
  JournalCase out;
  for (uint8_t i = 1; i <= 5; i++) {
    s.write(s.store->find("a"), i, 1, static_cast<uint8_t>(0x10 + i));
    out.blocks.push_back(lvs::superblock_area_blocks + s.store->stats().journal_completed_sequence % 64);
    if (flush_after_third && i == 3) {
      EXPECT_TRUE(do_io(s.world, *s.store->find("a"), IoType::flush).ok());
    }
  }
  out.image = s.kill();
  return out;
}

TEST(LvFormat, replay_stops_at_the_first_missing_journal_block) {
  JournalCase c = five_in_the_journal(false);
  std::memset(block_of(c.image, c.blocks[1]), 0, 4096);
  Session s(c.image);
  ASSERT_TRUE(s.load().ok());
  EXPECT_TRUE(s.reads(s.store->find("a"), 1, 1, 0x11));
  EXPECT_TRUE(s.reads(s.store->find("a"), 2, 4, 0));
}

TEST(LvFormat, a_hole_in_what_was_flushed_is_corruption) {
  JournalCase c = five_in_the_journal(true);
  block_of(c.image, c.blocks[1])[300] ^= 1;
  const std::string error = load_error(c.image);
  EXPECT_TRUE(begins(error, Errc::corrupt)) << error;
}

TEST(LvFormat, records_of_an_earlier_life_are_never_revived) {
  JournalCase c = five_in_the_journal(false);
  std::memset(block_of(c.image, c.blocks[0]), 0, 4096);
  Session first(c.image);
  ASSERT_TRUE(first.load().ok());
  Lvol* lvol = first.store->find("a");
  EXPECT_TRUE(first.reads(lvol, 1, 5, 0));
  first.write(lvol, 100, 1,
              0x55);  // its reservation and its record take the first places; the others still hold the old
  Session second(first.kill());
  ASSERT_TRUE(second.load().ok());
  lvol = second.store->find("a");
  EXPECT_TRUE(second.reads(lvol, 100, 1, 0x55));
  EXPECT_TRUE(second.reads(lvol, 1, 5, 0));
}

TEST(LvFormat, a_write_that_was_never_acknowledged_does_not_come_back_after_zeroes_were_read) {
  // 1. Data of block 1 arrives, its record does not.
  JournalCase c = five_in_the_journal(false);
  for (int i = 0; i < 5; i++)
    std::memset(block_of(c.image, c.blocks[static_cast<size_t>(i)]), 0, 4096);
  Session first(c.image);
  ASSERT_TRUE(first.load().ok());
  Lvol* lvol = first.store->find("a");
  EXPECT_TRUE(first.reads(lvol, 1, 1, 0));
  // 2. Block 1 is written again; of what was not flushed, the power cut keeps the journal only.
  first.write(lvol, 1, 1, 0x66);
  Session second(first.disk.image_keeping(
      [](uint64_t offset) { return offset >= journal_offset && offset < journal_offset + journal_bytes; }));
  ASSERT_TRUE(second.load().ok());
  const auto data = read_blocks(second.world, *second.store->find("a"), 1, 1);
  EXPECT_TRUE(all_are(data, 0) || all_are(data, 0x66)) << static_cast<int>(data[0]);
}

TEST(LvFormat, forty_tebibytes_lay_out_and_the_map_stays_small) {
  const auto layout = lvs::Layout::make((uint64_t{40} << 40) / 4096, 1 << 20);
  ASSERT_TRUE(layout.ok());
  EXPECT_TRUE(layout->check().ok());
  EXPECT_GT(uint64_t{layout->cluster_count} << 20, (uint64_t{40} << 40) / 100 * 99);
  // Worst case per TiB at 1 MiB: every cluster mixed.
  const uint64_t clusters = 1 << 20;
  const uint64_t windows = clusters / layout->clusters_per_extents() + 1;
  const uint64_t map_bytes = clusters * (sizeof(lvs::ClusterEntry) + 256 / 8) + windows * (sizeof(lvs::Window) + 16);
  EXPECT_LT(map_bytes, uint64_t{64} << 20);
}

}  // namespace
}  // namespace basalt::bdev
