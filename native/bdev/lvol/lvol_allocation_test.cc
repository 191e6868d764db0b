// SPDX-License-Identifier: Apache-2.0
// Reads and writes of an lvol, first ones and overwrites, take nothing from the heap once warm; nor do the reserve of
// clusters, the zeroing of those that were given back, and checkpoints. Every operator new of this program is counted.
#include <cstdlib>
#include <new>

#include "bdev/lvol/crash_disk_test_util.h"
#include "bdev/lvol/lvstore.h"
#include "bdev/malloc/malloc.h"

namespace {
size_t allocation_count = 0;
}

void* operator new(size_t bytes) {
  allocation_count++;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace basalt::bdev {
namespace {

using namespace test;  // NOLINT

class LvAllocation : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made_base = MallocBdev::create(world.reactor, {"m", {}, 4096, 4096});
    ASSERT_TRUE(made_base.ok());
    base = std::move(*made_base);
    LvStoreOptions options{.name = "pool", .uuid = {}, .cluster_bytes = 64 << 10};
    auto made = run(world, LvStore::create(world.reactor, Handle(*base, world.reactor), options));
    ASSERT_TRUE(made.ok());
    store = std::move(*made);
    auto created = run(world, store->create_lvol({.name = "a", .uuid = {}, .size_bytes = 4 << 20}));
    ASSERT_TRUE(created.ok());
    lvol = *created;
    ASSERT_TRUE(do_io(world, *lvol, IoType::write, 0, 256, 1).ok());
  }
  void TearDown() override {
    EXPECT_TRUE(run(world, store->close()).ok());
    world.settle();
    store.reset();
    EXPECT_TRUE(run(world, base->close()).ok());
  }
  World world{1};
  std::unique_ptr<MallocBdev> base;
  std::unique_ptr<LvStore> store;
  Lvol* lvol = nullptr;
};

TEST_F(LvAllocation, overwrites_and_reads_take_nothing_from_the_heap) {
  TestIo write;
  TestIo read;
  size_t before = 0;
  for (int round = 0; round < 2000; round++) {
    if (round == 1000) before = allocation_count;
    const auto offset = static_cast<uint64_t>(round) % 200;
    write.start(*lvol, IoType::write, offset, 20, static_cast<uint8_t>(round % 250 + 1));
    read.start(*lvol, IoType::read, 200 + offset % 20, 20);  // data and zeroes
    while (!write.ended || !read.ended)
      world.reactor.turn();
    ASSERT_TRUE(write.io.status.ok() && read.io.status.ok());
  }
  EXPECT_EQ(allocation_count - before, 0u);
}

// All but the first clusters are given back and written again, round after round, some blocks at a time.
TEST_F(LvAllocation, first_writes_and_what_they_cause_take_nothing_from_the_heap) {
  TestIo io;
  const auto end = [&] {
    while (!io.ended)
      world.reactor.turn();
    return io.io.status.ok();
  };
  size_t before = 0;
  uint64_t checkpoints_before = 0;
  for (int round = 0; round < 600; round++) {
    if (round == 300) {
      before = allocation_count;
      checkpoints_before = store->stats().checkpoint_count;
    }
    for (uint64_t block = 256; block < 1024; block += 24) {
      io.start(*lvol, IoType::write, block, 24, static_cast<uint8_t>(round % 250 + 1));
      ASSERT_TRUE(end());
    }
    io.start(*lvol, IoType::unmap, 256, 768);
    ASSERT_TRUE(end());
  }
  EXPECT_EQ(allocation_count - before, 0u);
  EXPECT_GT(store->stats().checkpoint_count, checkpoints_before + 3) << "they are among it";
}

}  // namespace
}  // namespace basalt::bdev
