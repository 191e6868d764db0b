// SPDX-License-Identifier: Apache-2.0
// For the tests of checksums: a store on a disk whose bytes the test changes, and what its blocks may hold.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bdev/lvol/crash_disk_test_util.h"
#include "bdev/lvol/lvstore.h"

namespace basalt::bdev::test {

struct ChecksumStore {
  static constexpr uint64_t disk_bytes = 5 << 20;
  static constexpr uint64_t lvol_bytes = 512 << 10;

  explicit ChecksumStore(uint64_t seed, uint64_t size_bytes = disk_bytes) : world(seed), disk(world, size_bytes) {
    LvStoreOptions options{.name = "pool", .uuid = {}, .cluster_bytes = 64 << 10};
    auto made = run(world, LvStore::create(world.reactor, disk.handle(), options));
    EXPECT_TRUE(made.ok());
    store = std::move(*made);
  }
  explicit ChecksumStore(uint64_t seed, std::vector<uint8_t> image, const std::function<void(CrashDisk&)>& prepare = {})
      : world(seed), disk(world, std::move(image)) {
    if (prepare) prepare(disk);
    auto loaded = run(world, LvStore::load(world.reactor, disk.handle()));
    if (loaded.ok()) store = std::move(*loaded);
  }
  ~ChecksumStore() {
    if (store == nullptr) return;
    disk.on_change = {};
    (void)run(world, store->close()).ok();
    world.settle();
    store.reset();
  }
  Lvol& make(const char* name, bool checksums, uint64_t size_bytes = lvol_bytes) {
    LvolOptions options{.name = name, .uuid = {}, .size_bytes = size_bytes, .checksums = checksums};
    auto made = run(world, store->create_lvol(std::move(options)));
    EXPECT_TRUE(made.ok());
    return **made;
  }
  nvme::Status read(Lvol& lvol, uint64_t block, uint8_t* first_byte = nullptr) {
    TestIo io;
    io.start(lvol, IoType::read, block, 1);
    while (!io.ended)
      world.reactor.turn();
    if (first_byte != nullptr) *first_byte = all_are(io.data, io.data[0]) ? io.data[0] : 0xff;
    return io.io.status;
  }
  // Wherever the base holds a block of these bytes. How many.
  size_t damage(uint8_t fill) {
    size_t count = 0;
    std::vector<uint8_t>& bytes = disk.bytes_now();
    const std::vector<uint8_t> block(4096, fill);
    for (size_t at = 0; at < bytes.size(); at += 4096) {
      if (std::memcmp(bytes.data() + at, block.data(), 4096) != 0) continue;
      bytes[at + 1234] ^= 0x10;
      count++;
    }
    return count;
  }
  bool is_unreadable(Lvol& lvol, uint64_t block) { return read(lvol, block).is(nvme::status::unrecovered_read_error); }

  World world;
  CrashDisk disk;
  std::unique_ptr<LvStore> store;
};

// Where the superblocks of the checksums are, the older one first.
inline std::vector<size_t> checksum_superblocks(const std::vector<uint8_t>& image) {
  std::vector<size_t> found;
  for (size_t at = 0; at < image.size(); at += 4096) {
    const lvs::BlockHeader& header = lvs::header_of(image.data() + at);
    if (header.magic == lvs::block_magic && header.type == static_cast<uint16_t>(lvs::BlockType::checksum_superblock))
      found.push_back(at);
  }
  std::sort(found.begin(), found.end(), [&](size_t a, size_t b) {
    return lvs::header_of(image.data() + a).generation < lvs::header_of(image.data() + b).generation;
  });
  return found;
}

inline constexpr uint64_t cut_blocks = 64;

struct ExpectedBytes {
  uint8_t stable[cut_blocks] = {};   // what a flush covered; each version writes a byte of its own
  uint8_t started[cut_blocks] = {};  // the newest that was begun
};

}  // namespace basalt::bdev::test
