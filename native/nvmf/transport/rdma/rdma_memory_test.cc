// SPDX-License-Identifier: Apache-2.0
// Goal: a key is only ever used for the mapping that it was made for. Method: mappings of an arena come and go.
#include "nvmf/transport/rdma/rdma_memory.h"

#include <gtest/gtest.h>

#include "nvmf/transport/memory_net_testing.h"

namespace basalt::nvmf {
namespace {

using basalt::testing::MemoryNet;
using Answer = RdmaMemory::Answer;

class RdmaRegistrations : public ::testing::Test {
 protected:
  RdmaRegistrations() {
    // Any connection knows its device.
    connection = rdma.connect({.host = "127.0.0.1", .port = 1}).value();
    BASALT_ASSERT(net.run_until([&] { return connection->state() == env::RdmaConnection::State::resolved; }));
    memory = std::make_unique<RdmaMemory>(arena, connection->device());
  }
  MemoryNet net{1};
  Arena arena{size_t{32} << 20};
  env::SimRdma rdma{net.rdma(), "memory"};
  std::unique_ptr<env::RdmaConnection> connection;
  std::unique_ptr<RdmaMemory> memory;
  uint32_t key = 0;
};

TEST_F(RdmaRegistrations, AreMadeOncePerMappingAndCoverAllOfIt) {
  auto* base = static_cast<char*>(arena.map(2 * Arena::slab_bytes));
  ASSERT_EQ(memory->find(base + 5, 100, &key), Answer::found);
  const uint32_t first = key;
  ASSERT_EQ(memory->find(base + Arena::slab_bytes - 1, 2, &key), Answer::found);
  EXPECT_EQ(key, first);
  ASSERT_EQ(memory->find(base + Arena::slab_bytes + 7, 1, &key), Answer::found);
  EXPECT_EQ(key, first);
  EXPECT_EQ(memory->region_count(), 1u);
  EXPECT_EQ(net.rdma().counts().pinned_bytes, 2 * Arena::slab_bytes);
}

TEST_F(RdmaRegistrations, DoNotReachOverTheEndOfAMappingNorToOthersMemory) {
  auto* base = static_cast<char*>(arena.map(Arena::slab_bytes));
  EXPECT_EQ(memory->find(base + Arena::slab_bytes - 10, 11, &key), Answer::foreign);
  EXPECT_EQ(memory->find(base + Arena::slab_bytes - 10, 10, &key), Answer::found);
  char elsewhere[16];
  EXPECT_EQ(memory->find(elsewhere, sizeof(elsewhere), &key), Answer::foreign);
}

TEST_F(RdmaRegistrations, EndWithTheirMappingAlsoWhenAnotherTakesItsPlace) {
  void* base = arena.map(Arena::slab_bytes);
  ASSERT_EQ(memory->find(base, 1, &key), Answer::found);
  const uint32_t old_key = key;
  void* kept = arena.map(Arena::slab_bytes);
  ASSERT_EQ(memory->find(kept, 1, &key), Answer::found);
  const uint32_t kept_key = key;
  arena.unmap(base);
  void* again = arena.map(Arena::slab_bytes);  // at the same address, as a rule
  ASSERT_EQ(memory->find(again, 1, &key), Answer::found);
  EXPECT_NE(key, old_key);
  ASSERT_EQ(memory->find(kept, 1, &key), Answer::found);
  EXPECT_EQ(key, kept_key);
  EXPECT_EQ(memory->region_count(), 2u);
  arena.unmap(again);
  EXPECT_EQ(memory->find(again, 1, &key), Answer::foreign);
  EXPECT_EQ(net.rdma().counts().regions, 1u);
}

TEST_F(RdmaRegistrations, AreRefusedWithoutALossOfThoseThatThereAre) {
  void* base = arena.map(Arena::slab_bytes);
  ASSERT_EQ(memory->find(base, 1, &key), Answer::found);
  net.rdma().knobs.pinned_bytes_max = Arena::slab_bytes;
  void* more = arena.map(Arena::slab_bytes);
  EXPECT_EQ(memory->find(more, 1, &key), Answer::refused);
  EXPECT_EQ(memory->find(base, 1, &key), Answer::found);
  memory.reset();
  EXPECT_EQ(net.rdma().counts().regions, 0u);
}

}  // namespace
}  // namespace basalt::nvmf
