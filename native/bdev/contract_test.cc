// SPDX-License-Identifier: Apache-2.0
// Goal: every bdev type and several stacks keep the contract of bdev.h. Method: one parameterised suite, an array of
// bytes as the oracle, requests of random shape in flight together, on a simulated node.
#include <algorithm>

#include "bdev/crypt/crypt.h"
#include "bdev/fault/fault.h"
#include "bdev/file/file.h"
#include "bdev/leg/leg.h"
#include "bdev/lvol/testing/lvol_stack.h"
#include "bdev/malloc/malloc.h"
#include "bdev/raid/raid0.h"
#include "bdev/raid/raid_parity.h"
#include "bdev/slot/slot.h"
#include "bdev/testing/contract.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t test_blocks = 512;

Bdev* add(BdevStack& stack, std::unique_ptr<Bdev> bdev) {
  stack.owned.push_back(std::move(bdev));
  stack.top = stack.owned.back().get();
  return stack.top;
}

Bdev* add_malloc(BdevStack& stack, SimFixture& fixture, const std::string& name, uint32_t block_size_bytes = 4096) {
  auto made = MallocBdev::create(fixture.reactor, {name, {}, block_size_bytes, test_blocks});
  EXPECT_TRUE(made.ok());
  return add(stack, std::move(made).value());
}

Bdev* add_file(BdevStack& stack, SimFixture& fixture, const std::string& name) {
  FileBdevOptions options;
  options.name = name;
  options.path = "/" + name;
  options.create_bytes = test_blocks * 4096;
  auto made = FileBdev::open(fixture.reactor, options);
  EXPECT_TRUE(made.ok());
  return add(stack, std::move(made).value());
}

BdevStack make_malloc(SimFixture& fixture) {
  BdevStack stack;
  add_malloc(stack, fixture, "m");
  return stack;
}

BdevStack make_malloc_512(SimFixture& fixture) {
  BdevStack stack;
  add_malloc(stack, fixture, "m", 512);
  return stack;
}

BdevStack make_file(SimFixture& fixture) {
  BdevStack stack;
  add_file(stack, fixture, "f");
  return stack;
}

BdevStack make_fault(SimFixture& fixture) {
  BdevStack stack;
  Bdev* base = add_malloc(stack, fixture, "m");
  add(stack, std::make_unique<FaultBdev>(fixture.reactor, "fault", Uuid{}, Handle(*base, fixture.reactor)));
  return stack;
}

BdevStack make_slot(SimFixture& fixture) {
  BdevStack stack;
  Bdev* base = add_malloc(stack, fixture, "m");
  auto slot = SlotBdev::create(fixture.reactor, {"slot", {}, 4096, test_blocks});
  EXPECT_TRUE(fixture.run((*slot)->set(Handle(*base, fixture.reactor))).ok());
  add(stack, std::move(slot).value());
  return stack;
}

Bdev* add_leg(BdevStack& stack, SimFixture& fixture, std::vector<Handle> members, bool all_dirty) {
  LegOptions options;
  options.name = "leg" + std::to_string(stack.owned.size());
  options.epoch = 1;
  options.all_dirty = all_dirty;
  auto leg = LegBdev::create(fixture.reactor, options, {members.begin(), members.end()}, {});
  EXPECT_TRUE(leg.ok());
  return add(stack, std::move(leg).value());
}

BdevStack make_leg(SimFixture& fixture) {
  BdevStack stack;
  Bdev* one = add_malloc(stack, fixture, "m1");
  Bdev* two = add_file(stack, fixture, "f2");
  add_leg(stack, fixture, {Handle(*one, fixture.reactor), Handle(*two, fixture.reactor)}, false);
  return stack;
}

BdevStack make_dirty_leg(SimFixture& fixture) {
  BdevStack stack;
  Bdev* one = add_malloc(stack, fixture, "m1");
  Bdev* two = add_file(stack, fixture, "f2");
  add_leg(stack, fixture, {Handle(*one, fixture.reactor), Handle(*two, fixture.reactor)}, true);
  return stack;
}

BdevStack make_raid0(SimFixture& fixture) {
  BdevStack stack;
  std::vector<Handle> members;
  for (int i = 0; i < 3; i++) {
    members.emplace_back(*add_malloc(stack, fixture, "m" + std::to_string(i)), fixture.reactor);
  }
  auto raid = Raid0Bdev::create(fixture.reactor, {"raid0", {}, 16384}, members);
  EXPECT_TRUE(raid.ok());
  add(stack, std::move(raid).value());
  return stack;
}

BdevStack make_concat(SimFixture& fixture) {
  BdevStack stack;
  std::vector<Handle> members;
  for (int i = 0; i < 3; i++) {
    auto made = MallocBdev::create(fixture.reactor, {"m" + std::to_string(i), {}, 4096, 100 + 77u * i});
    EXPECT_TRUE(made.ok());
    members.emplace_back(*add(stack, std::move(made).value()), fixture.reactor);
  }
  auto raid = Raid0Bdev::create(fixture.reactor, {.name = "concat", .uuid = {}, .concat = true}, members);
  EXPECT_TRUE(raid.ok());
  add(stack, std::move(raid).value());
  return stack;
}

BdevStack make_parity(SimFixture& fixture, uint32_t data_count, uint32_t parity_count) {
  BdevStack stack;
  std::vector<Handle> members;
  for (uint32_t i = 0; i < data_count + parity_count; i++) {
    auto made = MallocBdev::create(fixture.reactor, {"m" + std::to_string(i), {}, 4096, 4 * test_blocks});
    EXPECT_TRUE(made.ok());
    members.emplace_back(*add(stack, std::move(made).value()), fixture.reactor);
  }
  RaidParityOptions options;
  options.name = "parity";
  options.parity_count = parity_count;
  options.strip_bytes = 16384;
  auto raid = fixture.run(RaidParityBdev::create(fixture.reactor, options, std::move(members), {}));
  EXPECT_TRUE(raid.ok());
  add(stack, std::move(raid).value());
  return stack;
}
BdevStack make_raid5(SimFixture& fixture) {
  return make_parity(fixture, 3, 1);
}
BdevStack make_raid6(SimFixture& fixture) {
  return make_parity(fixture, 4, 2);
}

BdevStack make_striped(SimFixture& fixture) {
  BdevStack stack;
  std::vector<Handle> legs;
  for (int i = 0; i < 2; i++) {
    Bdev* one = add_file(stack, fixture, "a" + std::to_string(i));
    Bdev* two = add_file(stack, fixture, "b" + std::to_string(i));
    Bdev* leg = add_leg(stack, fixture, {Handle(*one, fixture.reactor), Handle(*two, fixture.reactor)}, i == 1);
    legs.emplace_back(*leg, fixture.reactor);
  }
  auto raid = Raid0Bdev::create(fixture.reactor, {"raid0", {}, 65536}, legs);
  add(stack, std::move(raid).value());
  return stack;
}

// A volume as a controller assembles it.
BdevStack make_volume(SimFixture& fixture) {
  BdevStack stack = make_striped(fixture);
  Bdev* striped = stack.top;
  auto slot = SlotBdev::create(fixture.reactor, {"slot", {}, 4096, striped->info().count_blocks});
  EXPECT_TRUE(fixture.run((*slot)->set(Handle(*striped, fixture.reactor))).ok());
  add(stack, std::move(slot).value());
  return stack;
}

BdevStack make_lvol(SimFixture& fixture) {
  BdevStack stack;
  auto base = MallocBdev::create(fixture.reactor, {"m", {}, 512, 32 * test_blocks});
  EXPECT_TRUE(base.ok());
  Bdev* disk = add(stack, std::move(base).value());
  add(stack, make_lvol_over(fixture, *disk, test_blocks * 4096));
  return stack;
}
BdevStack make_checksummed_lvol(SimFixture& fixture) {
  BdevStack stack;
  auto base = MallocBdev::create(fixture.reactor, {"m", {}, 512, 32 * test_blocks});
  EXPECT_TRUE(base.ok());
  Bdev* disk = add(stack, std::move(base).value());
  add(stack, make_lvol_over(fixture, *disk, test_blocks * 4096, true));
  return stack;
}

Bdev* add_crypt(BdevStack& stack, SimFixture& fixture, Bdev& base) {
  crypto::SecretBytes keys[2] = {crypto::SecretBytes(32), crypto::SecretBytes(32)};
  for (crypto::SecretBytes& key : keys)
    fixture.node.random(key.data(), key.size());
  auto cipher = crypto::XtsCipher::create(keys[0], keys[1]);
  EXPECT_TRUE(cipher.ok());
  const CryptOptions options{"crypt" + std::to_string(stack.owned.size()), {}};
  auto crypt = CryptBdev::create(fixture.reactor, options, Handle(base, fixture.reactor), std::move(cipher).value());
  EXPECT_TRUE(crypt.ok());
  return add(stack, std::move(crypt).value());
}

BdevStack make_crypt(SimFixture& fixture) {
  BdevStack stack;
  add_crypt(stack, fixture, *add_malloc(stack, fixture, "m"));
  return stack;
}

BdevStack make_crypt_512(SimFixture& fixture) {
  BdevStack stack;
  add_crypt(stack, fixture, *add_malloc(stack, fixture, "m", 512));
  return stack;
}

BdevStack make_crypt_file(SimFixture& fixture) {
  BdevStack stack;
  add_crypt(stack, fixture, *add_file(stack, fixture, "f"));
  return stack;
}

BdevStack make_crypt_lvol(SimFixture& fixture) {
  BdevStack stack = make_lvol(fixture);
  add_crypt(stack, fixture, *stack.top);
  return stack;
}

BdevStack make_crypt_crypt(SimFixture& fixture) {
  BdevStack stack = make_crypt(fixture);
  add_crypt(stack, fixture, *stack.top);
  return stack;
}

BdevStack make_lvol_crypt(SimFixture& fixture) {
  BdevStack stack;
  auto base = MallocBdev::create(fixture.reactor, {"m", {}, 512, 32 * test_blocks});
  EXPECT_TRUE(base.ok());
  Bdev* disk = add_crypt(stack, fixture, *add(stack, std::move(base).value()));
  add(stack, make_lvol_over(fixture, *disk, test_blocks * 4096));
  return stack;
}

// An encrypted volume as a controller assembles it: over raid0, one of its legs dirty.
BdevStack make_crypt_volume(SimFixture& fixture) {
  BdevStack stack = make_striped(fixture);
  Bdev* crypt = add_crypt(stack, fixture, *stack.top);
  auto slot = SlotBdev::create(fixture.reactor, {"slot", {}, 4096, crypt->info().count_blocks});
  EXPECT_TRUE(fixture.run((*slot)->set(Handle(*crypt, fixture.reactor))).ok());
  add(stack, std::move(slot).value());
  return stack;
}

INSTANTIATE_TEST_SUITE_P(Crypt, BdevContract,
                         ::testing::Values(BdevFactory{"crypt", make_crypt}, BdevFactory{"crypt512", make_crypt_512},
                                           BdevFactory{"over_file", make_crypt_file},
                                           BdevFactory{"over_lvol", make_crypt_lvol},
                                           BdevFactory{"below_lvol", make_lvol_crypt},
                                           BdevFactory{"twice", make_crypt_crypt},
                                           BdevFactory{"volume", make_crypt_volume}),
                         factory_name);

INSTANTIATE_TEST_SUITE_P(Lvol, BdevContract,
                         ::testing::Values(BdevFactory{"lvol", make_lvol},
                                           BdevFactory{"checksummed", make_checksummed_lvol}),
                         factory_name);

INSTANTIATE_TEST_SUITE_P(Types, BdevContract,
                         ::testing::Values(BdevFactory{"malloc", make_malloc},
                                           BdevFactory{"malloc512", make_malloc_512}, BdevFactory{"file", make_file},
                                           BdevFactory{"fault", make_fault}, BdevFactory{"slot", make_slot},
                                           BdevFactory{"leg", make_leg}, BdevFactory{"dirty_leg", make_dirty_leg},
                                           BdevFactory{"raid0", make_raid0}, BdevFactory{"concat", make_concat},
                                           BdevFactory{"raid5", make_raid5}, BdevFactory{"raid6", make_raid6},
                                           BdevFactory{"volume", make_volume}),
                         factory_name);

std::vector<uint8_t> pattern(SimFixture& fixture, size_t bytes) {
  std::vector<uint8_t> data(bytes);
  fixture.node.random(data.data(), bytes);
  return data;
}

TEST_P(BdevContract, NeverWrittenBlocksReadAsZeroes) {
  const auto data = fixture_.read(bdev(), 0, 16);
  EXPECT_TRUE(std::all_of(data.begin(), data.end(), [](uint8_t byte) { return byte == 0; }));
}

TEST_P(BdevContract, WhatWasWrittenIsReadBack) {
  const auto data = pattern(fixture_, 8 * bdev().info().block_size_bytes);
  EXPECT_TRUE(fixture_.write(bdev(), 5, data).ok());
  EXPECT_EQ(fixture_.read(bdev(), 5, 8), data);
}

TEST_P(BdevContract, UnmappedAndZeroedBlocksReadAsZeroesAndNeighboursStay) {
  const uint32_t block = bdev().info().block_size_bytes;
  const auto data = pattern(fixture_, 24 * block);
  for (const IoType type : {IoType::unmap, IoType::write_zeroes}) {
    ASSERT_TRUE(fixture_.write(bdev(), 0, data).ok());
    ASSERT_TRUE(fixture_.io(bdev(), type, 5, 7).ok());
    auto expected = data;
    std::fill(expected.begin() + 5 * block, expected.begin() + 12 * block, uint8_t{0});
    EXPECT_EQ(fixture_.read(bdev(), 0, 24), expected);
  }
}

TEST_P(BdevContract, RangesOutsideTheDeviceAreRefused) {
  std::vector<uint8_t> data(2 * bdev().info().block_size_bytes);
  const uint64_t end = bdev().info().count_blocks;
  EXPECT_TRUE(fixture_.io(bdev(), IoType::read, end, 1, data.data()).is(nvme::status::lba_out_of_range));
  EXPECT_TRUE(fixture_.io(bdev(), IoType::write, end - 1, 2, data.data()).is(nvme::status::lba_out_of_range));
  EXPECT_TRUE(fixture_.io(bdev(), IoType::read, UINT64_MAX, 2, data.data()).is(nvme::status::lba_out_of_range));
  EXPECT_TRUE(fixture_.io(bdev(), IoType::unmap, end - 1, UINT32_MAX).is(nvme::status::lba_out_of_range));
}

TEST_P(BdevContract, CompletionNeverRunsInsideSubmit) {
  struct State {
    bool inside = true;
    int completed_inside = 0;
    int completed = 0;
  } state;
  std::vector<uint8_t> data(bdev().info().block_size_bytes);
  Iovec iov{data.data(), data.size()};
  Io ios[6];
  const IoType types[] = {IoType::read,         IoType::write, IoType::flush,
                          IoType::write_zeroes, IoType::unmap, IoType::read};
  for (int i = 0; i < 6; i++) {
    ios[i].type = types[i];
    ios[i].count_blocks = 1;
    ios[i].offset_blocks = i == 5 ? bdev().info().count_blocks : 3;
    ios[i].iov = &iov;
    ios[i].iov_count = 1;
    ios[i].context = &state;
    ios[i].done = [](Io* io) {
      auto* seen = static_cast<State*>(io->context);
      seen->completed++;
      if (seen->inside) seen->completed_inside++;
    };
    bdev().submit(&ios[i]);
  }
  state.inside = false;
  EXPECT_TRUE(fixture_.run_until([&] { return state.completed == 6; }));
  EXPECT_EQ(state.completed_inside, 0);
}

// Scattered memory of odd lengths and alignments.
TEST_P(BdevContract, AnyShapeOfMemoryWorks) {
  const uint32_t block = bdev().info().block_size_bytes;
  std::vector<uint8_t> source = pattern(fixture_, 8 * block + 3);
  std::vector<Iovec> pieces;
  size_t at = 3;
  for (size_t length = 1; at < source.size(); length = length * 3 + 1) {
    const size_t take = std::min(length, source.size() - at);
    pieces.push_back({source.data() + at, take});
    at += take;
  }
  Io io;
  io.type = IoType::write;
  io.offset_blocks = 17;
  io.count_blocks = 8;
  io.iov = pieces.data();
  io.iov_count = static_cast<uint16_t>(pieces.size());
  bool done = false;
  io.context = &done;
  io.done = [](Io* ended) { *static_cast<bool*>(ended->context) = true; };
  bdev().submit(&io);
  ASSERT_TRUE(fixture_.run_until([&] { return done; }));
  ASSERT_TRUE(io.status.ok());
  EXPECT_EQ(fixture_.read(bdev(), 17, 8), std::vector<uint8_t>(source.begin() + 3, source.end()));
}

struct RandomOp {
  Io io;
  Iovec iov;
  std::vector<uint8_t> data;
  bool busy = false;
};

// Many requests at once on ranges that do not overlap, against an array of bytes.
TEST_P(BdevContract, RandomConcurrentRequestsMatchAnArrayOfBytes) {
  const uint32_t block = bdev().info().block_size_bytes;
  const uint64_t blocks = bdev().info().count_blocks;
  constexpr uint64_t slots = 8;
  const uint64_t slot_blocks = blocks / slots;
  std::vector<uint8_t> oracle(blocks * block);
  std::vector<RandomOp> ops(slots);
  env::SimRandom random(7);
  for (uint64_t round = 0; round < testing::rounds_here({.plain = 200, .asan = 200, .tsan = 20}); round++) {
    for (uint64_t slot = 0; slot < slots; slot++) {
      RandomOp& op = ops[slot];
      op.io.count_blocks = static_cast<uint32_t>(1 + random.below(std::min<uint64_t>(slot_blocks, 40)));
      op.io.offset_blocks = slot * slot_blocks + random.below(slot_blocks - op.io.count_blocks + 1);
      const uint64_t pick = random.below(10);
      op.io.type = pick < 4 ? IoType::write : pick < 8 ? IoType::read : pick < 9 ? IoType::unmap : IoType::write_zeroes;
      op.io.iov = &op.iov;
      op.io.fua = random.chance(0.2) && op.io.type != IoType::read;
      op.data.assign(size_t{op.io.count_blocks} * block, 0);
      if (op.io.type == IoType::write) fixture_.node.random(op.data.data(), op.data.size());
      op.iov = {op.data.data(), op.data.size()};
      op.io.iov = &op.iov;
      op.io.iov_count = 1;
      op.busy = true;
      op.io.context = &op;
      op.io.done = [](Io* io) { static_cast<RandomOp*>(io->context)->busy = false; };
      bdev().submit(&op.io);
    }
    ASSERT_TRUE(fixture_.run_until(
        [&] { return std::none_of(ops.begin(), ops.end(), [](const RandomOp& op) { return op.busy; }); }));
    for (RandomOp& op : ops) {
      ASSERT_TRUE(op.io.status.ok()) << nvme::to_string(op.io.status);
      uint8_t* expected = oracle.data() + op.io.offset_blocks * block;
      if (op.io.type == IoType::read) {
        ASSERT_EQ(std::memcmp(expected, op.data.data(), op.data.size()), 0) << "round " << round;
      } else {
        std::memcpy(expected, op.data.data(), op.data.size());
      }
    }
  }
  for (uint64_t at = 0; at < blocks; at += 64) {
    const auto count = static_cast<uint32_t>(std::min<uint64_t>(64, blocks - at));
    const auto data = fixture_.read(bdev(), at, count);
    ASSERT_EQ(std::memcmp(oracle.data() + at * block, data.data(), data.size()), 0) << "at block " << at;
  }
}

}  // namespace
}  // namespace basalt::bdev
