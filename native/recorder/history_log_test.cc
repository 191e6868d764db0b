// SPDX-License-Identifier: Apache-2.0
// Goal: the file of a history holds what was saved, whole lines in order, and nobody's data is taken for an empty disk.
// Method: a simulated raw disk, and real files.
#include "recorder/history_log.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "env/linux/linux_env.h"
#include "recorder/recorder_test_util.h"

namespace basalt::recorder {
namespace {

check::Op write_of(HistoryLog& log) {
  check::Op op;
  op.id = log.next_id();
  op.client = 3;
  op.type = check::OpType::write;
  op.count_blocks = 1;
  op.writer = 3;
  op.sequence = log.next_sequence(3);
  op.invoked_ns = log.now_ns();
  return op;
}

TEST(HistoryLog, WhatWasSavedOutlivesAKillAndAnotherRunGoesOnBehindIt) {
  RecorderRig rig(1);
  {
    auto log = rig.open_log();
    ASSERT_TRUE(log.ok()) << log.error().message;
    EXPECT_FALSE((*log)->resumed());
    for (int i = 0; i < 100; i++) {
      check::Op op = write_of(**log);
      (*log)->announce(op);
      EXPECT_TRUE(rig.run((*log)->saved()));
      op.completed_ns = (*log)->now_ns();
      op.status = check::OpStatus::ok;
      (*log)->add(op);
    }
    check::Op last = write_of(**log);
    (*log)->announce(last);
    EXPECT_TRUE(rig.run((*log)->saved()));
    (*log)->add(last);  // never saved
  }
  const check::History history = RecorderRig::history_of(rig.log_text());
  ASSERT_EQ(history.ops.size(), 101u);
  EXPECT_EQ(history.volume, 1u);
  EXPECT_EQ(history.ops[99].status, check::OpStatus::ok);
  EXPECT_EQ(history.ops[100].status, check::OpStatus::info);
  EXPECT_EQ(history.ops[100].completed_ns, check::never_ns);
  auto log = rig.open_log(true);
  ASSERT_TRUE(log.ok()) << log.error().message;
  EXPECT_TRUE((*log)->resumed());
  EXPECT_GT((*log)->now_ns(), history.ops[100].invoked_ns);
  EXPECT_EQ((*log)->next_sequence(3), 102u);
  EXPECT_EQ((*log)->next_id(), 102u);
}

TEST(HistoryLog, TakesNoDiskThatHoldsSomethingElse) {
  env::SimImage table(2 << 20);
  table.write(510, "\x55\xaa", 2);  // as disks with partitions begin
  env::SimImage loader = table;
  loader.write(0, "\xeb\x63\x90", 3);  // and those that machines start from
  env::SimImage text(2 << 20);
  text.write(0, "dear diary\n", 11);
  for (const env::SimImage& image : {table, loader, text}) {
    for (const bool resume : {false, true}) {
      RecorderRig rig(2);
      rig.log_disk().load(image);
      EXPECT_FALSE(rig.open_log(resume).ok()) << resume;
      EXPECT_EQ(rig.log_disk().contents().digest(), image.digest());
    }
  }
  RecorderRig other(2);
  ASSERT_TRUE(other.open_log().ok());
  const auto again = other.open_log();
  ASSERT_FALSE(again.ok());
  EXPECT_NE(again.error().message.find("--resume"), std::string::npos) << again.error().message;
}

TEST(HistoryLog, BeginsAgainWhereNothingButAPartOfTheFirstLineWasWritten) {
  for (const char* part : {"", "{", R"({"history":1,"volu)"}) {
    RecorderRig rig(2);
    env::SimImage image(2 << 20);
    image.write(0, part, strlen(part));
    rig.log_disk().load(image);
    auto log = rig.open_log(true);
    ASSERT_TRUE(log.ok()) << log.error().message;
    EXPECT_FALSE((*log)->resumed());
    EXPECT_EQ(RecorderRig::history_of(rig.log_text()).volume, 2u);
  }
}

// What a kill left lies behind the end, also where the end is that of a block.
TEST(HistoryLog, EndsWithAZeroByteEvenAtTheEndOfABlock) {
  RecorderRig rig(2);
  check::History head;
  head.volume = 2;
  check::Op op;
  op.type = check::OpType::zero;
  op.count_blocks = 1;
  std::ostringstream line;
  check::write_operation(head, op, line);
  std::ostringstream text;
  check::write_head(head, text);
  text << std::string(4096 - line.str().size() - text.str().size(), '\n') << '{' << std::string(6000, 'x');
  env::SimImage image(2 << 20);
  image.write(0, text.str().data(), text.str().size());
  rig.log_disk().load(image);
  auto log = rig.open_log(true);
  ASSERT_TRUE(log.ok()) << log.error().message;
  (*log)->add(op);
  ASSERT_TRUE(rig.run((*log)->saved()));
  EXPECT_EQ(RecorderRig::history_of(rig.log_text()).ops.size(), 1u);
}

// Whatever is there, a kill left no more than one write behind the end. It goes when the history is gone on with: it
// might join what is written in front of it.
TEST(HistoryLog, IsNotGoneOnWithWhenThereIsMoreThanAKillLeaves) {
  const auto lines = [](size_t bytes) {
    std::ostringstream text;
    check::History head;
    head.volume = 2;
    check::write_head(head, text);
    return text.str() + std::string(bytes - text.str().size(), '\n');
  };
  struct {
    uint64_t end, more;
    bool damaged;
  } const cases[] = {{5000, 8192, false},      {5000, 5001 + check::history_write_bytes_max - 1, false},
                     {8192, 8193, false},      {5000, 5001 + check::history_write_bytes_max, true},
                     {300'000, 1 << 20, true}, {5000, (2 << 20) - 1, true}};
  for (const auto& one : cases) {
    SCOPED_TRACE(one.more);
    RecorderRig rig(2);
    env::SimImage image(2 << 20);
    image.write(0, lines(one.end).data(), one.end);
    image.write(one.more, "}", 1);
    rig.log_disk().load(image);
    auto log = rig.open_log(true);
    ASSERT_EQ(log.ok(), !one.damaged);
    if (one.damaged) {
      EXPECT_EQ(log.error().message, "log: the zero byte at " + std::to_string(one.end) +
                                         " ends the history, but there is more from byte " + std::to_string(one.more) +
                                         " on");
      EXPECT_EQ(rig.log_disk().contents().digest(), image.digest());
      continue;
    }
    EXPECT_TRUE((*log)->resumed());
    EXPECT_EQ(rig.log_text().find_first_not_of('\0', one.end), std::string::npos) << "before anything is added";
    EXPECT_EQ(rig.log_text().substr(0, one.end), lines(one.end));
  }
}

TEST(HistoryLog, SaysWhenItsDiskIsFull) {
  RecorderRig rig(3, 64 << 10);
  WorkloadOptions options;
  options.block_count = 128;
  options.operation_count = 5000;
  const auto totals = rig.record(options);
  ASSERT_FALSE(totals.ok());
  EXPECT_EQ(totals.error().message, "log: the disk is full: it holds 65536 bytes");
  EXPECT_EQ(RecorderRig::judged(rig.log_text()), "") << "what was written down is right";
}

TEST(HistoryLog, AFileThatFailsEndsTheRun) {
  RecorderRig rig(4);
  rig.world.at(rig.world.now() + milliseconds(20), [&] { rig.log_disk().fail_writes = true; });
  WorkloadOptions options;
  options.block_count = 128;
  const auto totals = rig.record(options);
  ASSERT_FALSE(totals.ok());
  EXPECT_EQ(totals.error().message, "log: write: Input/output error");
}

class HistoryLogOnFiles : public ::testing::Test {
 protected:
  HistoryLogOnFiles() : arena_(size_t{64} << 20) {
    std::string name = ::testing::TempDir() + "/basalt-history-XXXXXX";
    folder_ = mkdtemp(name.data());
  }
  ~HistoryLogOnFiles() override { std::filesystem::remove_all(folder_); }

  std::string path() const { return folder_ + "/h.ndjson"; }
  std::string text() const {
    std::ifstream in(path());
    return {std::istreambuf_iterator<char>(in), {}};
  }
  // What opening it came to: the error, or "". Then one operation is put down.
  std::string open(bool resume) {
    HistoryLogOptions options;
    options.path = path();
    options.resume = resume;
    options.volume = 9;
    Reactor reactor(*env_, arena_, {});
    EXPECT_TRUE(reactor.init().ok());
    std::string said;
    spawn(put_down(reactor, options, &said));
    reactor.run();
    return said;
  }

 private:
  static Task<void> put_down(Reactor& reactor, HistoryLogOptions options, std::string* said) {
    auto log = co_await HistoryLog::open(reactor, options);
    if (log) {
      (*log)->add(write_of(**log));
      const bool good = co_await (*log)->saved();
      EXPECT_TRUE(good);
    } else {
      *said = log.error().message;
    }
    log = Error{Errc::closed, ""};
    reactor.stop();
  }
  std::unique_ptr<env::Env> env_ = env::make_linux_env();
  Arena arena_;
  std::string folder_;
};

TEST_F(HistoryLogOnFiles, AreTextToTheLastByte) {
  EXPECT_NE(open(true), "") << "nothing is there to go on with";
  ASSERT_EQ(open(false), "");
  EXPECT_EQ(text().find('\0'), std::string::npos);
  EXPECT_EQ(text().back(), '\n');
  EXPECT_EQ(RecorderRig::history_of(text()).ops.size(), 1u);
  EXPECT_NE(open(false).find("--resume"), std::string::npos);
  std::ofstream(path(), std::ios::app) << R"({"op":"write","id")";  // whoever wrote this was killed
  ASSERT_EQ(open(true), "");
  ASSERT_EQ(open(true), "");
  EXPECT_EQ(text().back(), '\n');
  const check::History history = RecorderRig::history_of(text());
  ASSERT_EQ(history.ops.size(), 3u);
  EXPECT_EQ(history.ops[2].sequence, 3u);
  EXPECT_LT(history.ops[1].invoked_ns, history.ops[2].invoked_ns);
  const size_t before = text().size();
  std::ofstream(path(), std::ios::app) << '\0' << '\n';
  EXPECT_EQ(open(true), path() + ": the zero byte at " + std::to_string(before) +
                            " ends the history, but there is more from byte " + std::to_string(before + 1) + " on");
}

}  // namespace
}  // namespace basalt::recorder
