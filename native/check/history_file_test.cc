// SPDX-License-Identifier: Apache-2.0
// Goal: histories are read as docs/history-format.md says, and nothing else is. Method: small files by hand; what was
// written is read back.
#include "check/history_file.h"

#include <gtest/gtest.h>

#include <sstream>

#include "check/checker.h"

namespace basalt::check {
namespace {

const std::string head = R"({"history":1,"volume":1,"block_bytes":4096})"
                         "\n";

std::string problem(const std::string& text) {
  std::istringstream in(text);
  const auto history = read_history(in);
  return history.ok() ? "" : history.error().message;
}
std::string problem_after_head(const std::string& line) {
  return problem(head + line);
}
// "" or the rule.
std::string rule(const std::string& text) {
  std::istringstream in(head + text);
  auto history = read_history(in);
  if (!history.ok()) return history.error().message;
  const auto violation = check_history(history.value());
  return violation ? violation->rule : "";
}

constexpr const char* write_17 =
    R"({"op":"write","client":1,"lba":17,"blocks":2,"inv":100,"end":250,"status":"ok","seq":9})"
    "\n";

TEST(HistoryFile, IsReadAndJudged) {
  const std::string text = std::string(write_17) +
                           R"({"op":"flush","client":1,"inv":420,"end":600,"status":"ok"})"
                           "\n\n"
                           R"({"op":"read","client":2,"lba":16,"blocks":3,"inv":700,"end":800,"status":"ok",)"
                           R"("values":["zero","w1#9","w1#9"]})"
                           "\n"
                           R"({"event":"power_cut","at":850})"
                           "\n";
  EXPECT_EQ(rule(text), "");
  EXPECT_EQ(rule(text + R"({"op":"read","client":2,"lba":17,"blocks":1,"inv":900,"end":950,"status":"ok",)"
                        R"("values":["zero"]})"),
            "R4");
  EXPECT_EQ(rule(text + R"({"op":"read","client":2,"lba":17,"blocks":1,"inv":900,"end":950,"status":"ok",)"
                        R"("values":["w1#9@18"]})"),
            "R1");
}

TEST(HistoryFile, NamesAreWrittenAndReadBackWhateverTheyAreMadeOf) {
  std::istringstream in(head + R"({"op":"snapshot","device":"a","inv":1,"end":2,"status":"ok"})"
                               "\n"
                               R"({"op":"snapshot","device":"a\n\u0000","inv":1,"end":2,"status":"ok"})");
  auto history = read_history(in);
  ASSERT_TRUE(history.ok()) << history.error().message;
  std::ostringstream out;
  write_history(*history, out);
  std::istringstream written(out.str());
  auto again = read_history(written);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->devices[2].name, std::string("a\n\0", 3));
}

TEST(HistoryFile, NamesTheLineAndTheFieldOfWhatIsWrong) {
  EXPECT_EQ(problem(""), "line 0: no history: the first line must be {\"history\":1,...}");
  EXPECT_EQ(problem("{}"), "line 1: no history: the first line must be {\"history\":1,...}");
  EXPECT_EQ(problem(R"({"history":2,"volume":1,"block_bytes":4096})"), "line 1: 'history': only version 1 is known");
  EXPECT_EQ(problem(R"({"history":1,"volume":1,"block_bytes":1000})"),
            "line 1: 'block_bytes': a power of two, at least 512");
  EXPECT_EQ(problem_after_head("nothing"), "line 2: not JSON: Invalid value. (column 2)");
  EXPECT_EQ(problem_after_head("[1]"), "line 2: not an object");
  EXPECT_EQ(problem_after_head(std::string(100'000, '[')), "line 2: nested too deeply");
  EXPECT_EQ(problem_after_head("{}"), "line 2: neither 'op' nor 'event' nor 'image'");
  EXPECT_EQ(problem_after_head(R"({"op":"trim"})"),
            "line 2: 'op': read, write, flush, zero, snapshot or clone, not 'trim'");
  EXPECT_EQ(problem_after_head(R"({"op":"flush","client":1,"end":250,"status":"ok"})"), "line 2: 'inv' is missing");
  EXPECT_EQ(problem_after_head(R"({"op":"flush","client":1,"inv":1,"status":"ok"})"),
            "line 2: 'end' is missing, and 'status' is ok");
  EXPECT_EQ(problem_after_head(R"({"op":"flush","client":1,"inv":2,"end":1,"status":"ok"})"),
            "line 2: 'end' is before 'inv'");
  EXPECT_EQ(problem_after_head(R"({"op":"flush","client":1,"inv":-2,"status":"info"})"),
            "line 2: 'inv': a whole number from 0 to 9223372036854775806");
  EXPECT_EQ(problem_after_head(R"({"op":"flush","client":1,"inv":2,"status":"late"})"),
            "line 2: 'status': ok, fail or info, not 'late'");
  EXPECT_EQ(problem_after_head(R"({"op":"flush","client":1,"inv":2,"status":"info","lba":3})"),
            "line 2: 'lba' is no field of such a line");
  EXPECT_EQ(problem_after_head(std::string(write_17) + write_17),
            "line 3: w1#9 is written a second time, after line 2");
  const std::string read = R"({"op":"read","client":2,"lba":17,"blocks":2,"inv":700,"end":800,"status":"ok")";
  EXPECT_EQ(problem_after_head(read + "}"), "line 2: 'values' is missing");
  EXPECT_EQ(problem_after_head(read + R"(,"values":["zero"]})"), "line 2: 'values': 1 of them for 2 blocks");
  EXPECT_EQ(problem_after_head(read + R"(,"values":["zero","w1"]})"), "line 2: 'values': 'w1' is no value");
  EXPECT_EQ(problem_after_head(read + R"(,"device":"c1","values":["zero","zero"]})"),
            "line 2: 'device': 'c1' is no device");
  EXPECT_EQ(problem_after_head(R"({"op":"clone","device":"c1","of":"s1"})"), "line 2: 'of': 's1' is no device");
  EXPECT_EQ(problem_after_head(R"({"op":"clone","device":"c1","of":""})"), "line 2: 'of': '' is no snapshot");
  EXPECT_EQ(problem_after_head(R"({"op":"snapshot","device":"s1","of":"c1","inv":1,"end":2,"status":"ok"})"
                               "\n"
                               R"({"op":"clone","device":"c1","of":"s1"})"),
            "line 2: 'of': 's1' descends from itself");
  EXPECT_EQ(problem_after_head(R"({"event":"flood","at":1})"),
            "line 2: 'event': power_cut, healed or clean, not 'flood'");
}

TEST(HistoryFile, WhatWasPutDownBeforeItWasSentCountsOnce) {
  const std::string sent = R"({"op":"write","id":5,"client":1,"lba":17,"blocks":2,"inv":90,"status":"sent","seq":9})"
                           "\n";
  const std::string ended =
      R"({"op":"write","id":5,"client":1,"lba":17,"blocks":2,"inv":100,"end":250,"status":"ok","seq":9})"
      "\n";
  const auto read_of = [](const std::string& value) {
    return R"({"op":"read","client":2,"lba":17,"blocks":1,"inv":700,"end":800,"status":"ok","values":[")" + value +
           "\"]}\n";
  };
  // Without an outcome it may have happened, or not.
  EXPECT_EQ(rule(sent + read_of("w1#9")), "");
  EXPECT_EQ(rule(sent + read_of("zero")), "");
  for (const std::string& both : {sent + ended, ended + sent}) {
    EXPECT_EQ(rule(both + read_of("w1#9")), "");
    EXPECT_EQ(rule(both + read_of("zero")), "R8");
    std::istringstream in(head + both);
    EXPECT_EQ(read_history(in).value().ops.size(), 1u);
  }
  const std::string zero = R"({"op":"zero","id":6,"client":1,"lba":17,"blocks":1,"inv":300,"status":"sent"})"
                           "\n";
  EXPECT_EQ(rule(sent + ended + zero + read_of("zero")), "");
}

TEST(HistoryFile, NamesTheLineOfAnnouncementsThatFitNothing) {
  const std::string sent = R"({"op":"write","id":5,"client":1,"lba":17,"blocks":2,"inv":90,"status":"sent","seq":9})"
                           "\n";
  const std::string rest = R"("client":1,"lba":17,"blocks":2,"inv":100,"end":250,"status":"ok","seq":)";
  EXPECT_EQ(problem_after_head(sent + R"({"op":"write","id":5,)" + rest + "8}"),
            "line 2: 'id': line 3 is about something else");
  EXPECT_EQ(problem_after_head(sent + R"({"op":"write","id":6,)" + rest + "9}"),
            "line 2: w1#9 is written a second time, after line 3");
  EXPECT_EQ(problem_after_head(R"({"op":"zero","client":1,"lba":1,"blocks":2,"inv":90,"status":"sent"})"),
            "line 2: 'id' is missing");
  EXPECT_EQ(
      problem_after_head(R"({"op":"zero","id":1,"client":1,"lba":1,"blocks":2,"inv":9,"end":10,"status":"sent"})"),
      "line 2: 'end' is no field of such a line");
  EXPECT_EQ(problem_after_head(R"({"op":"flush","id":1,"client":1,"inv":9,"status":"sent"})"),
            "line 2: 'status': ok, fail or info, not 'sent'");
}

TEST(HistoryFile, EndsWithAZeroByteOrWhereItsWriterWasKilled) {
  const auto count = [](const std::string& text) {
    std::istringstream in(text);
    auto history = read_history(in);
    EXPECT_TRUE(history.ok()) << history.error().message;
    return history.ok() ? history->ops.size() : 0;
  };
  const std::string line = write_17;
  const std::string zeroes(5000, '\0');
  EXPECT_EQ(count(head + line + zeroes), 1u);
  EXPECT_EQ(count(head + line.substr(0, line.size() - 1) + zeroes), 1u);
  for (size_t cut = 1; cut < line.size() - 1; cut++) {
    const std::string half = R"({"op":"flush","client":1,"inv":1,"status":"info"})"
                             "\n" +
                             line.substr(0, cut);
    EXPECT_EQ(count(head + half), 1u) << cut;
    EXPECT_EQ(count(head + half + zeroes), 1u) << cut;
  }
  EXPECT_NE(problem(head.substr(0, 20)), "") << "a history has its first line";
  EXPECT_EQ(problem_after_head(line.substr(0, 30) + "\n" + line).substr(0, 16), "line 2: not JSON");
}

// A lost block in the middle of a history would make a short one of it, and of a violation behind it, nothing wrong.
TEST(HistoryFile, WithMoreBehindAZeroByteIsNone) {
  const std::string line = write_17;
  const auto said = [](const std::string& text, uint64_t cut_bytes_max) {
    std::istringstream in(text);
    const auto history = read_history(in, {.cut_bytes_max = cut_bytes_max});
    return history.ok() ? std::to_string(history->ops.size()) : history.error().message;
  };
  const size_t end = head.size() + line.size();
  const auto refusal = [&](size_t zero, size_t more) {
    return "the zero byte at " + std::to_string(zero) + " ends the history, but there is more from byte " +
           std::to_string(more) + " on: its last write was cut short, or it is damaged";
  };
  std::string hole = head + line + line;
  hole[end] = '\0';
  EXPECT_EQ(said(hole, 0), "line 3: " + refusal(end, end + 1));
  hole = head + line + line;
  hole[end + 4] = '\0';
  EXPECT_EQ(said(hole, 0), "line 3: " + refusal(end + 4, end + 5));
  const std::string far = head + line + std::string(200'000, '\0') + "}\n";
  EXPECT_EQ(said(far, 0), "line 3: " + refusal(end, end + 200'000));
  EXPECT_EQ(said(far, 199'999), "line 3: " + refusal(end, end + 200'000)) << "the zero byte is not one of those behind";
  EXPECT_EQ(said(far, 200'001), "1");
  EXPECT_EQ(said(std::string(1, '\0') + head + line, 0), "line 1: " + refusal(0, 1));
}

TEST(HistoryFile, IsReadBackAsItWasWritten) {
  History history;
  history.volume = UINT64_MAX;
  history.atomic_bytes = 16384;
  history.write_cache = false;
  history.devices.push_back({DeviceKind::snapshot, "s \"1\"", 0, 5, 9, OpStatus::ok});
  history.devices.push_back({DeviceKind::clone, "c1", 1});
  Op op;
  op.type = OpType::write;
  op.status = OpStatus::ok;
  op.fua = true;
  op.device = 2;
  op.lba = 4;
  op.count_blocks = 2;
  op.completed_ns = 3;
  op.writer = UINT64_MAX;
  op.sequence = 9;
  history.ops.push_back(op);
  op.type = OpType::read;
  op.fua = false;
  op.id = 1;
  op.values = {{BlockKind::torn, {}}, {BlockKind::stamp, {3, 4, 5, 6}}};
  history.ops.push_back(op);
  history.power_cuts = {{7}};
  history.healed_ns = 8;
  history.clean_bound_ns = 100;
  history.clean_ns = 10;
  history.replicas.push_back({"r0", 1, {BlockValue{}, {BlockKind::stamp, {history.volume, 3, 1, 9}}}, 2});
  std::ostringstream first;
  write_history(history, first);
  std::istringstream in(first.str());
  auto read = read_history(in);
  ASSERT_TRUE(read.ok()) << read.error().message << "\n" << first.str();
  std::ostringstream second;
  write_history(read.value(), second);
  EXPECT_EQ(first.str(), second.str());
  EXPECT_EQ(read.value().ops[1].values[1], (BlockValue{BlockKind::stamp, {3, 4, 5, 6}}));
  EXPECT_EQ(read.value().devices[2].parent, 1u);
}

}  // namespace
}  // namespace basalt::check
