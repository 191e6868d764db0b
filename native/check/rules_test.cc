// SPDX-License-Identifier: Apache-2.0
// Goal: what spans several blocks, devices and power cuts is judged: R6, R7, R9, and torn blocks. Method: small
// histories by hand, known good and known bad.
#include <gtest/gtest.h>

#include <sstream>

#include "check/checker.h"
#include "check/history_file.h"

namespace basalt::check {
namespace {

// Operations in a row, one after the other, unless times are given.
class Story {
 public:
  explicit Story(const std::string& head = "") {
    text_ = R"({"history":1,"volume":1,"block_bytes":4096)" + head + "}\n";
  }
  Story& at(int64_t inv, int64_t end) {
    inv_ = inv;
    end_ = end;
    return *this;
  }
  Story& write(uint64_t seq, uint64_t lba = 0, uint64_t blocks = 1, const std::string& more = "") {
    return line("write", lba, blocks, R"(,"seq":)" + std::to_string(seq) + status_ + more);
  }
  Story& unknown(uint64_t seq, uint64_t lba = 0, uint64_t blocks = 1) {
    status_ = R"(,"status":"info")";
    return write(seq, lba, blocks);
  }
  Story& zero(uint64_t lba = 0) { return line("zero", lba, 1, status_); }
  Story& flush() {
    add(R"({"op":"flush","client":1)" + times() + status_ + "}");
    return *this;
  }
  Story& read(const std::string& values, uint64_t lba = 0) {
    const auto count = static_cast<uint64_t>(std::count(values.begin(), values.end(), ' ') + 1);
    std::string list;
    for (const char c : values)
      list += c == ' ' ? "\",\"" : std::string(1, c);
    return line("read", lba, count, status_ + R"(,"values":[")" + list + R"("])");
  }
  Story& on(const std::string& device) {
    device_ = R"(,"device":")" + device + "\"";
    return *this;
  }
  Story& snapshot(const std::string& name, const std::string& of = "") {
    add(R"({"op":"snapshot","device":")" + name + R"(","of":")" + of + "\"" + times() + status_ + "}");
    return *this;
  }
  Story& clone(const std::string& name, const std::string& of) {
    add(R"({"op":"clone","device":")" + name + R"(","of":")" + of + "\"}");
    return *this;
  }
  Story& power_cut() {
    now_ += 10;
    add(R"({"event":"power_cut","at":)" + std::to_string(now_) + "}");
    return *this;
  }
  // "" when the history is right, else the rule.
  std::string verdict() const { return violation() ? violation()->rule : ""; }
  std::optional<Violation> violation() const {
    std::istringstream in(text_);
    auto history = read_history(in);
    if (!history.ok()) return Violation{history.error().message + "\n" + text_, "", 0};
    return check_history(history.value());
  }

 private:
  std::string times() {
    if (inv_ < 0) {
      inv_ = now_ + 10;
      end_ = now_ + 20;
    }
    now_ = std::max(now_, end_);
    std::string text = R"(,"inv":)" + std::to_string(inv_) + R"(,"end":)" + std::to_string(end_);
    inv_ = -1;
    return text;
  }
  Story& line(const std::string& op, uint64_t lba, uint64_t blocks, const std::string& more) {
    add(R"({"op":")" + op + R"(","client":1,"lba":)" + std::to_string(lba) + R"(,"blocks":)" + std::to_string(blocks) +
        times() + more + device_ + "}");
    return *this;
  }
  void add(const std::string& line) {
    text_ += line + "\n";
    device_.clear();
    status_ = R"(,"status":"ok")";
  }
  std::string text_;
  std::string device_;
  std::string status_ = R"(,"status":"ok")";
  int64_t inv_ = -1;
  int64_t end_ = -1;
  int64_t now_ = 0;
};

const std::string four_blocks = R"(,"atomic_bytes":16384)";

TEST(TornBlocks, AreAllowedAfterAPowerCutWhereTheDeviceDoesNotPromiseMore) {
  const std::string sectors = R"(,"atomic_bytes":512)";
  EXPECT_EQ(Story(sectors).write(1).write(2).power_cut().read("torn").verdict(), "");
  EXPECT_EQ(Story().write(1).write(2).power_cut().read("torn").verdict(), "R0");
  EXPECT_EQ(Story(sectors).write(1).write(2).read("torn").power_cut().verdict(), "R0");
  EXPECT_EQ(Story(sectors).write(1).write(2).power_cut().read("torn").write(3).read("w1#3").verdict(), "");
  EXPECT_NE(Story(sectors).write(1).write(2).power_cut().write(3).read("torn").verdict(), "");
  EXPECT_NE(Story(sectors).write(1).flush().power_cut().read("torn").verdict(), "");
}

TEST(WriteCache, WithoutOneEverythingAcknowledgedIsDurable) {
  const std::string none = R"(,"write_cache":false)";
  EXPECT_EQ(Story().write(1).power_cut().read("zero").verdict(), "");
  EXPECT_EQ(Story(none).write(1).power_cut().read("zero").verdict(), "R4");
  EXPECT_EQ(Story(none).write(1).unknown(2).power_cut().read("w1#2").verdict(), "");
  EXPECT_EQ(Story(none).write(1).unknown(2).power_cut().read("w1#1").verdict(), "");
}

TEST(FlushMonotone, HoldsThroughLaterPowerCuts) {
  EXPECT_EQ(Story().write(1).write(2).flush().power_cut().read("w1#2").power_cut().read("w1#2").verdict(), "");
  EXPECT_EQ(Story().write(1).write(2).flush().power_cut().power_cut().read("w1#1").verdict(), "R6");
  EXPECT_EQ(Story().write(1).write(2).flush().power_cut().write(3).power_cut().read("w1#2").verdict(), "");
  EXPECT_EQ(Story().write(1).write(2).flush().power_cut().write(3).power_cut().read("w1#1").verdict(), "R6");
}

TEST(FlushMonotone, CoversWhatHadBeenRead) {
  EXPECT_EQ(Story().write(1).unknown(2).flush().power_cut().read("w1#1").verdict(), "");
  EXPECT_EQ(Story().write(1).unknown(2).read("w1#2").power_cut().read("w1#1").verdict(), "");
  EXPECT_EQ(Story().write(1).unknown(2).read("w1#2").flush().power_cut().read("w1#1").verdict(), "R6");
  EXPECT_EQ(Story().write(1).unknown(2).read("w1#2").flush().power_cut().read("w1#2").verdict(), "");
  // A read that ends while the flush is under way proves nothing.
  EXPECT_EQ(Story().write(1).unknown(2).at(50, 70).read("w1#2").at(60, 80).flush().power_cut().read("w1#1").verdict(),
            "");
  // What survived one cut and was flushed then survives the next.
  EXPECT_EQ(Story().write(1).write(2).power_cut().read("w1#2").flush().power_cut().read("w1#1").verdict(), "R5");
  EXPECT_EQ(Story().write(1).write(2).power_cut().read("w1#2").power_cut().read("w1#1").verdict(), "R5");
}

TEST(FlushMonotone, GoesByTheOrderThatReadsHaveShown) {
  // Two writes at the same time, of which 1 was seen to lose; then 2 was flushed.
  EXPECT_EQ(Story().at(10, 50).write(1).at(10, 50).write(2).flush().power_cut().read("w1#1").verdict(), "");
  const auto seen = [] {
    return Story().at(10, 50).write(1).at(10, 50).write(2).at(20, 22).read("w1#1").at(30, 32).read("w1#2");
  };
  EXPECT_EQ(seen().flush().power_cut().read("w1#2").verdict(), "");
  EXPECT_EQ(seen().flush().power_cut().read("w1#1").verdict(), "R6");
}

TEST(AtomicUnits, AreSeenWhole) {
  EXPECT_EQ(Story(four_blocks).write(1, 0, 4).read("w1#1 w1#1 w1#1 w1#1").verdict(), "");
  const auto during = [](const std::string& head) { return Story(head).write(1, 0, 4).at(30, 90).write(2, 0, 2); };
  EXPECT_EQ(during(four_blocks).at(40, 50).read("w1#2 w1#2 w1#1").verdict(), "");
  EXPECT_EQ(during(four_blocks).at(40, 50).read("w1#1 w1#1").verdict(), "");
  EXPECT_EQ(during(four_blocks).at(40, 50).read("w1#2 w1#1").verdict(), "R7");
  EXPECT_EQ(during("").at(40, 50).read("w1#2 w1#1").verdict(), "");
  // Across two units nothing is promised.
  EXPECT_EQ(Story(four_blocks).at(10, 90).write(1, 3, 2).at(40, 50).read("w1#1 zero", 3).verdict(), "");
  EXPECT_EQ(Story(four_blocks).at(10, 90).write(1, 0, 2).at(40, 50).read("w1#1 zero").verdict(), "R7");
}

TEST(AtomicUnits, LetNoTwoWholeWritesMix) {
  const auto two = [] { return Story(four_blocks).at(10, 90).write(1, 0, 2).at(10, 90).write(2, 0, 2); };
  EXPECT_EQ(two().at(100, 110).read("w1#1 w1#1").verdict(), "");
  EXPECT_EQ(two().at(100, 110).read("w1#1 w1#2").verdict(), "R7");
  // A third one that covers one block only may stand beside either.
  EXPECT_EQ(two().at(10, 90).write(3, 1, 1).at(100, 110).read("w1#1 w1#3").verdict(), "");
}

TEST(AtomicUnits, SurvivePowerCutsWhole) {
  const auto cut = [](const std::string& head) {
    return Story(head).write(1, 0, 2).flush().write(2, 0, 2).power_cut();
  };
  EXPECT_EQ(cut(four_blocks).read("w1#1").read("w1#1", 1).verdict(), "");
  EXPECT_EQ(cut(four_blocks).read("w1#2").read("w1#2", 1).verdict(), "");
  EXPECT_EQ(cut(four_blocks).read("w1#2").read("w1#1", 1).verdict(), "R7");
  EXPECT_EQ(cut("").read("w1#2").read("w1#1", 1).verdict(), "");
  EXPECT_EQ(cut(four_blocks).read("w1#2").write(3, 1, 1).read("w1#3", 1).verdict(), "");
}

TEST(Snapshots, AreInstantsBetweenTheirBeginAndEnd) {
  EXPECT_EQ(Story().write(1).snapshot("s").write(2).on("s").read("w1#1").verdict(), "");
  EXPECT_NE(Story().write(1).snapshot("s").write(2).on("s").read("w1#2").verdict(), "");
  EXPECT_EQ(Story().write(1).write(2).snapshot("s").on("s").read("w1#1").verdict(), "R2");
  EXPECT_NE(Story().write(1).snapshot("s").on("s").read("zero").verdict(), "");
  EXPECT_EQ(Story().at(10, 50).write(1).at(20, 30).snapshot("s").on("s").read("zero").verdict(), "");
  EXPECT_EQ(Story().at(10, 50).write(1).at(20, 30).snapshot("s").on("s").read("w1#1").verdict(), "");
  // Seen before the snapshot, so it is in it.
  EXPECT_NE(Story().at(10, 50).write(1).at(15, 18).read("w1#1").at(20, 30).snapshot("s").on("s").read("zero").verdict(),
            "");
}

TEST(Snapshots, AreOneInstantForAllBlocks) {
  // Write 1 had come before 2 was asked for: who holds 2 holds 1. Both fall into the time of the snapshot.
  const auto two = [] { return Story().at(10, 100).snapshot("s").at(20, 30).write(1, 0).at(40, 50).write(2, 1); };
  EXPECT_EQ(two().at(110, 120).on("s").read("w1#1 w1#2").verdict(), "");
  EXPECT_EQ(two().at(110, 120).on("s").read("w1#1 zero").verdict(), "");
  EXPECT_EQ(two().at(110, 120).on("s").read("zero zero").verdict(), "");
  EXPECT_EQ(two().at(110, 120).on("s").read("zero w1#2").verdict(), "R9");
  // Not acknowledged, but seen before 2 was asked for.
  const auto seen = [] {
    return Story().at(10, 100).snapshot("s").at(20, 90).write(1, 0).at(30, 35).read("w1#1").at(40, 50).write(2, 1);
  };
  EXPECT_EQ(seen().at(110, 120).on("s").read("w1#1 w1#2").verdict(), "");
  EXPECT_EQ(seen().at(110, 120).on("s").read("zero w1#2").verdict(), "R9");
}

TEST(Snapshots, NeverChange) {
  const auto taken = [] { return Story().write(1).snapshot("s").clone("c", "s").on("s").read("w1#1"); };
  EXPECT_EQ(taken().write(2).on("c").write(3).on("s").read("w1#1").verdict(), "");
  EXPECT_EQ(taken().write(2).on("s").read("w1#2").verdict(), "R9");
  EXPECT_EQ(taken().on("c").write(3).on("s").read("w1#3").verdict(), "R9");
  EXPECT_EQ(taken().power_cut().on("s").read("zero").verdict(), "R9");
}

TEST(Clones, BeginAsTheirSnapshotsAndAreOnTheirOwn) {
  const auto cloned = [] { return Story().write(1).snapshot("s").clone("c", "s").write(2); };
  EXPECT_EQ(cloned().on("c").read("w1#1").on("c").write(3).on("c").read("w1#3").read("w1#2").verdict(), "");
  EXPECT_EQ(cloned().on("c").read("w1#2").verdict(), "R1");  // the snapshot would have to hold it
  EXPECT_EQ(cloned().on("c").write(3).read("w1#3").verdict(), "R1");
  EXPECT_EQ(cloned().on("c").write(3).on("c").read("w1#1").verdict(), "R2");
  EXPECT_EQ(cloned().on("c").read("w1#1").on("s").read("zero").verdict(), "R9");
  EXPECT_EQ(cloned().on("c").zero().on("c").read("zero").on("s").read("w1#1").verdict(), "");
  EXPECT_EQ(cloned().on("c").zero().on("c").read("w1#1").verdict(), "R2");
}

TEST(Clones, OfClonesShowTheFirstSnapshotThrough) {
  const auto chain = [] {
    return Story().write(1).snapshot("s").clone("c", "s").snapshot("t", "c").clone("d", "t").on("c").write(2);
  };
  EXPECT_EQ(chain().on("d").read("w1#1").on("t").read("w1#1").on("s").read("w1#1").verdict(), "");
  EXPECT_NE(chain().on("d").read("w1#2").verdict(), "");
  EXPECT_EQ(chain().on("d").read("w1#1").on("s").read("zero").verdict(), "R9");
}

TEST(Liveness, AsksForAVolumeThatIsCleanAgain) {
  const std::string head = R"({"history":1,"volume":1,"block_bytes":4096})"
                           "\n";
  const auto verdict = [&](const std::string& more) {
    std::istringstream in(head +
                          R"({"event":"healed","at":100,"clean_bound":50})"
                          "\n" +
                          more);
    auto history = read_history(in);
    const auto violation = check_history(history.value());
    return violation ? violation->rule : "";
  };
  EXPECT_EQ(verdict(R"({"event":"clean","at":150})"), "");
  EXPECT_EQ(verdict(R"({"event":"clean","at":151})"), "R11");
  EXPECT_EQ(verdict(""), "R11");
}

TEST(Explanations, AreFewOperationsOfMany) {
  Story story;
  for (uint64_t i = 1; i < 200; i++)
    story.write(i).zero().read("zero");
  story.write(1000).at(100'000, 100'010).read("w1#1000").at(100'020, 100'100).zero().at(100'030, 100'040).read("zero");
  story.at(100'050, 100'060).read("w1#1000");
  const auto violation = story.violation();
  ASSERT_TRUE(violation);
  EXPECT_LE(std::count(violation->explanation.begin(), violation->explanation.end(), '\n'), 4)
      << violation->explanation;
}

}  // namespace
}  // namespace basalt::check
