// SPDX-License-Identifier: Apache-2.0
// Goal: flushes of a file bdev tell every failure to everyone concerned. Method: a simulated disk whose flushes fail.
#include "bdev/file/file.h"

#include <algorithm>
#include <iterator>

#include "bdev/testing/sim_fixture.h"

namespace basalt::bdev {
namespace {

struct PendingFlush {
  Io io;
  bool done = false;
};

class FileFlush : public ::testing::Test {
 protected:
  void SetUp() override {
    FileBdevOptions options;
    options.name = "f";
    options.path = "/f";
    options.create_bytes = 1 << 20;
    auto made = FileBdev::open(fixture.reactor, options);
    ASSERT_TRUE(made.ok());
    bdev = std::move(made).value();
  }
  void TearDown() override { EXPECT_TRUE(fixture.run(bdev->close()).ok()); }
  void start(PendingFlush& flush) {
    flush.io.type = IoType::flush;
    flush.io.context = &flush;
    flush.io.done = [](Io* io) { static_cast<PendingFlush*>(io->context)->done = true; };
    bdev->submit(&flush.io);
  }
  env::SimDisk& disk() { return fixture.world.disk("node", "/f"); }
  SimFixture fixture;
  std::unique_ptr<FileBdev> bdev;
};

TEST_F(FileFlush, FlushesAtTheSameTimeAllHearOfAFailureAndSoDoesEveryLaterOne) {
  std::vector<uint8_t> data(4096, 1);
  ASSERT_TRUE(fixture.write(*bdev, 0, data).ok());
  disk().fail_flushes = true;
  PendingFlush flushes[4];
  for (PendingFlush& flush : flushes)
    start(flush);
  ASSERT_TRUE(fixture.run_until([&] {
    return std::all_of(std::begin(flushes), std::end(flushes), [](const PendingFlush& flush) { return flush.done; });
  }));
  for (PendingFlush& flush : flushes)
    EXPECT_FALSE(flush.io.status.ok());
  disk().fail_flushes = false;
  EXPECT_FALSE(fixture.io(*bdev, IoType::flush, 0, 0).ok()) << "what the failed flush lost is not known";
}

TEST_F(FileFlush, AFlushCoversWhatCompletedBeforeItWasSubmitted) {
  PendingFlush first;
  start(first);
  std::vector<uint8_t> data(4096, 7);
  ASSERT_TRUE(fixture.write(*bdev, 3, data).ok());
  PendingFlush second;
  start(second);
  ASSERT_TRUE(fixture.run_until([&] { return first.done && second.done; }));
  ASSERT_TRUE(second.io.status.ok());
  disk().power_cut(fixture.world.random());
  EXPECT_EQ(fixture.read(*bdev, 3, 1), data);
}

}  // namespace
}  // namespace basalt::bdev
