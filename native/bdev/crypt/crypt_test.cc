// SPDX-License-Identifier: Apache-2.0
// Goal: what lies below an encrypted bdev is ciphertext, and what is asked of it comes out as exact as without. (The
// contract suite runs on it, too.) Method: a malloc bdev below, read directly; the cipher itself as the oracle.
#include "bdev/crypt/crypt.h"

#include <algorithm>

#include "bdev/fault/fault.h"
#include "bdev/malloc/malloc.h"
#include "bdev/testing/sim_fixture.h"

namespace basalt::bdev {
namespace {

constexpr uint32_t block = 4096;

crypto::XtsCipher cipher_of(uint8_t seed) {
  crypto::SecretBytes keys[2] = {crypto::SecretBytes(32), crypto::SecretBytes(32)};
  for (size_t i = 0; i < 32; i++) {
    keys[0].data()[i] = static_cast<uint8_t>(seed + i);
    keys[1].data()[i] = static_cast<uint8_t>(seed + 3 * i + 1);
  }
  auto cipher = crypto::XtsCipher::create(keys[0], keys[1]);
  EXPECT_TRUE(cipher.ok());
  return std::move(cipher).value();
}

std::vector<uint8_t> text_of(size_t bytes) {
  const std::string text = "the quick brown fox ";
  std::vector<uint8_t> data(bytes);
  for (size_t i = 0; i < bytes; i++)
    data[i] = static_cast<uint8_t>(text[i % text.size()]);
  return data;
}

bool is_zero(const std::vector<uint8_t>& data) {
  return std::all_of(data.begin(), data.end(), [](uint8_t byte) { return byte == 0; });
}

// Notes what reaches the bdev below.
class Spy final : public Bdev {
 public:
  Spy(Reactor& home, Bdev& base) : Bdev(home), base_(base) {
    info_ = base.info();
    info_.count_blocks /= 2;
  }
  void grow() { set_size(2 * info_.count_blocks); }
  void submit(Io* io) override {
    seen.push_back({io->type, io->fua, io->count_blocks, io->iov_count > 0 ? io->iov[0].base : nullptr});
    if (holding) {
      held.push_back(io);
    } else {
      base_.submit(io);
    }
  }
  void release() {
    holding = false;
    for (Io* io : std::exchange(held, {}))
      base_.submit(io);
  }
  Task<Outcome> close() override { co_return success(); }

  struct Seen {
    IoType type;
    bool fua;
    uint32_t count_blocks;
    void* memory;
  };
  std::vector<Seen> seen;
  std::vector<Io*> held;
  bool holding = false;

 private:
  Bdev& base_;
};

class Crypt : public ::testing::Test {
 protected:
  void SetUp() override {
    base = std::move(MallocBdev::create(fixture.reactor, {"m", {}, block, 1024})).value();
    fault = std::make_unique<FaultBdev>(fixture.reactor, "fault", Uuid{}, Handle(*base, fixture.reactor));
    spy = std::make_unique<Spy>(fixture.reactor, *fault);
    crypt = make(7);
  }
  std::unique_ptr<CryptBdev> make(uint8_t seed) {
    auto made = CryptBdev::create(fixture.reactor, {"crypt", {}}, Handle(*spy, fixture.reactor), cipher_of(seed));
    EXPECT_TRUE(made.ok());
    return std::move(made).value();
  }
  void TearDown() override { EXPECT_TRUE(fixture.run(crypt->close()).ok()); }

  SimFixture fixture{20261121};
  std::unique_ptr<MallocBdev> base;
  std::unique_ptr<FaultBdev> fault;
  std::unique_ptr<Spy> spy;
  std::unique_ptr<CryptBdev> crypt;
};

struct Pending {
  Pending(Bdev& bdev, IoType type, uint64_t offset_blocks, std::vector<uint8_t>& data) : iov{data.data(), data.size()} {
    io.type = type;
    io.offset_blocks = offset_blocks;
    io.count_blocks = static_cast<uint32_t>(data.size() / block);
    io.iov = &iov;
    io.iov_count = 1;
    io.context = this;
    io.done = [](Io* ended) { static_cast<Pending*>(ended->context)->done = true; };
    bdev.submit(&io);
  }
  Io io;
  Iovec iov;
  bool done = false;
};

TEST_F(Crypt, WhatLiesBelowIsTheCiphertextOfEachBlockUnderItsNumber) {
  const auto data = text_of(3 * block);
  ASSERT_TRUE(fixture.write(*crypt, 100, data).ok());
  std::vector<uint8_t> expected(3 * block);
  auto cipher = cipher_of(7);
  for (uint64_t i = 0; i < 3; i++)
    ASSERT_TRUE(cipher.encrypt(100 + i, data.data() + i * block, expected.data() + i * block, block));
  EXPECT_EQ(fixture.read(*base, 100, 3), expected);
  EXPECT_EQ(fixture.read(*crypt, 100, 3), data);
}

TEST_F(Crypt, OneTextAtTwoPlacesLooksDifferentAndAnotherKeyReadsNothing) {
  const auto data = text_of(block);
  ASSERT_TRUE(fixture.write(*crypt, 1, data).ok());
  ASSERT_TRUE(fixture.write(*crypt, 2, data).ok());
  EXPECT_NE(fixture.read(*base, 1, 1), fixture.read(*base, 2, 1));
  auto other = make(8);
  EXPECT_NE(fixture.read(*other, 1, 1), data);
  EXPECT_TRUE(is_zero(fixture.read(*other, 3, 1)));
  EXPECT_TRUE(fixture.run(other->close()).ok());
}

TEST_F(Crypt, TheCallersMemoryIsNeitherChangedNorShownBelow) {
  auto data = text_of(2 * block);
  const auto before = data;
  Pending write(*crypt, IoType::write, 0, data);
  EXPECT_EQ(data, before);
  ASSERT_TRUE(fixture.run_until([&] { return write.done; }));
  EXPECT_TRUE(write.io.status.ok());
  EXPECT_EQ(data, before);
  ASSERT_EQ(spy->seen.size(), 1u);
  EXPECT_NE(spy->seen[0].memory, data.data());
  const std::vector<uint8_t> below = fixture.read(*base, 0, 2);
  EXPECT_EQ(std::search(below.begin(), below.end(), before.begin(), before.begin() + 16), below.end());
}

TEST_F(Crypt, ReadsDecryptWhereTheCallerWantsTheData) {
  const auto data = text_of(2 * block);
  ASSERT_TRUE(fixture.write(*crypt, 0, data).ok());
  spy->seen.clear();
  std::vector<uint8_t> into(2 * block);
  Pending read(*crypt, IoType::read, 0, into);
  ASSERT_TRUE(fixture.run_until([&] { return read.done; }));
  ASSERT_EQ(spy->seen.size(), 1u);
  EXPECT_EQ(spy->seen[0].memory, into.data());
  EXPECT_EQ(into, data);
}

TEST_F(Crypt, UnmapAndZeroesGoBelowAsTheyAreAndReadAsZeroes) {
  const auto data = text_of(8 * block);
  for (const IoType type : {IoType::unmap, IoType::write_zeroes}) {
    ASSERT_TRUE(fixture.write(*crypt, 0, data).ok());
    spy->seen.clear();
    ASSERT_TRUE(fixture.io(*crypt, type, 2, 4, nullptr, true).ok());
    ASSERT_EQ(spy->seen.size(), 1u);
    EXPECT_EQ(spy->seen[0].type, type);
    EXPECT_TRUE(spy->seen[0].fua);
    EXPECT_TRUE(is_zero(fixture.read(*base, 2, 4)));
    auto expected = data;
    std::fill(expected.begin() + 2 * block, expected.begin() + 6 * block, uint8_t{0});
    EXPECT_EQ(fixture.read(*crypt, 0, 8), expected);
  }
}

TEST_F(Crypt, WrittenZeroesAreDataAndReadAsZeroes) {
  const std::vector<uint8_t> zeroes(2 * block);
  ASSERT_TRUE(fixture.write(*crypt, 0, zeroes).ok());
  EXPECT_FALSE(is_zero(fixture.read(*base, 0, 1)));
  EXPECT_EQ(fixture.read(*crypt, 0, 2), zeroes);
}

TEST_F(Crypt, TheOnePlaintextThatWouldReadAsNeverWrittenIsRefused) {
  ASSERT_TRUE(fixture.write(*crypt, 5, text_of(block)).ok());
  std::vector<uint8_t> data(2 * block);
  auto cipher = cipher_of(7);
  ASSERT_TRUE(cipher.decrypt(5, data.data(), data.data(), block));
  EXPECT_TRUE(fixture.write(*crypt, 5, data).is(nvme::status::internal_error));
  EXPECT_EQ(fixture.read(*crypt, 5, 1), text_of(block));
  // At any other place it is data like any other.
  EXPECT_TRUE(fixture.write(*crypt, 7, data).ok());
  EXPECT_EQ(fixture.read(*crypt, 7, 2), data);
}

TEST_F(Crypt, GrowsWithItsBaseAndKeepsWhatIsThere) {
  const auto data = text_of(block);
  ASSERT_TRUE(fixture.write(*crypt, 511, data).ok());
  EXPECT_TRUE(fixture.io(*crypt, IoType::unmap, 512, 1).is(nvme::status::lba_out_of_range));
  spy->grow();
  EXPECT_EQ(crypt->count_blocks(), 1024u);
  EXPECT_EQ(fixture.read(*crypt, 511, 1), data);
  EXPECT_TRUE(is_zero(fixture.read(*crypt, 512, 512 - 256 - 1)));
  ASSERT_TRUE(fixture.write(*crypt, 1023, data).ok());
  EXPECT_EQ(fixture.read(*crypt, 1023, 1), data);
}

TEST_F(Crypt, ErrorsAndFlagsPassAsTheyAre) {
  std::vector<uint8_t> data = text_of(block);
  ASSERT_TRUE(fixture.io(*crypt, IoType::write, 0, 1, data.data(), true).ok());
  EXPECT_TRUE(spy->seen.back().fua);
  ASSERT_TRUE(fixture.write(*crypt, 0, data).ok());
  EXPECT_FALSE(spy->seen.back().fua);
  fault->inject({.kind = FaultKind::failure, .count = 1});
  EXPECT_TRUE(fixture.write(*crypt, 0, data).is(nvme::status::write_fault));
  fault->inject({.kind = FaultKind::failure, .count = 1});
  EXPECT_TRUE(fixture.io(*crypt, IoType::flush, 0, 0).is(nvme::status::write_fault));
  fault->inject({.kind = FaultKind::failure, .count = 1});
  const auto before = data;
  EXPECT_TRUE(fixture.io(*crypt, IoType::read, 0, 1, data.data()).is(nvme::status::unrecovered_read_error));
  EXPECT_EQ(data, before) << "nothing was read: nothing is decrypted";
}

TEST_F(Crypt, WritesWaitInOrderForBuffersAndGoOnThroughTheReserve) {
  BufferPool& buffers = fixture.reactor.buffers();
  constexpr uint32_t big = 64;  // blocks; the reserve holds 16
  std::vector<Buffer*> taken;
  while (Buffer* buffer = buffers.take(big * block, BufferUse::upper))
    taken.push_back(buffer);
  spy->holding = true;
  auto first = text_of(big * block);
  auto second = first;
  auto third = first;
  std::fill(second.begin(), second.end(), uint8_t{2});
  std::fill(third.begin(), third.end(), uint8_t{3});
  Pending one(*crypt, IoType::write, 0, first);
  Pending two(*crypt, IoType::write, 100, second);
  Pending three(*crypt, IoType::write, 200, third);
  ASSERT_EQ(spy->seen.size(), 1u) << "one of them has the reserve";
  EXPECT_EQ(spy->seen[0].count_blocks, CryptBdev::reserve_bytes / block);
  EXPECT_EQ(crypt->waiting_count(), 2u);
  // No buffer ever comes back, and all of them end.
  spy->release();
  ASSERT_TRUE(fixture.run_until([&] { return one.done && two.done && three.done; }));
  EXPECT_TRUE(one.io.status.ok() && two.io.status.ok() && three.io.status.ok());
  EXPECT_EQ(spy->seen.size(), 3 * big / 16u);
  for (Buffer* buffer : taken)
    buffers.give(buffer);
  EXPECT_EQ(fixture.read(*crypt, 0, big), first);
  EXPECT_EQ(fixture.read(*crypt, 100, big), second);
  EXPECT_EQ(fixture.read(*crypt, 200, big), third);
}

TEST_F(Crypt, AWriteThatWaitsTakesTheBufferThatComesBack) {
  BufferPool& buffers = fixture.reactor.buffers();
  std::vector<Buffer*> taken;
  while (Buffer* buffer = buffers.take(block, BufferUse::upper))
    taken.push_back(buffer);
  spy->holding = true;
  auto data = text_of(block);
  Pending one(*crypt, IoType::write, 0, data);
  Pending two(*crypt, IoType::write, 1, data);
  EXPECT_EQ(spy->seen.size(), 1u);
  for (Buffer* buffer : taken)
    buffers.give(buffer);
  EXPECT_EQ(spy->seen.size(), 2u);
  EXPECT_EQ(crypt->waiting_count(), 0u);
  spy->release();
  ASSERT_TRUE(fixture.run_until([&] { return one.done && two.done; }));
}

TEST_F(Crypt, APartThatFailsEndsItsWriteWithThatStatus) {
  BufferPool& buffers = fixture.reactor.buffers();
  std::vector<Buffer*> taken;
  while (Buffer* buffer = buffers.take(64 * block, BufferUse::upper))
    taken.push_back(buffer);
  auto data = text_of(64 * block);
  // The second part holds the plaintext that encrypts to zeroes.
  std::fill(data.begin() + 20 * block, data.begin() + 21 * block, uint8_t{0});
  auto cipher = cipher_of(7);
  ASSERT_TRUE(cipher.decrypt(20, data.data() + 20 * block, data.data() + 20 * block, block));
  Pending bad(*crypt, IoType::write, 0, data);
  Pending good(*crypt, IoType::write, 100, data);
  ASSERT_TRUE(fixture.run_until([&] { return bad.done && good.done; }));
  EXPECT_TRUE(bad.io.status.is(nvme::status::internal_error));
  EXPECT_TRUE(good.io.status.ok());
  for (Buffer* buffer : taken)
    buffers.give(buffer);
}

}  // namespace
}  // namespace basalt::bdev
