// SPDX-License-Identifier: Apache-2.0
// Goal: the exit code of `sim` tells what kind of failure there was, the worst one when there were several. Method:
// shell commands stand in for runs.
#include "sim/session.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace basalt::sim {
namespace {

std::string answer(const std::string& failure, const std::string& trace = "ff", const std::string& events = "") {
  return R"(echo '{"failure":")" + failure + R"(","explanation":"x: y","summary":"","trace":")" +
         std::string(16 - trace.size(), '0') + trace + R"(","ops":1,"takeovers":0,"virtual_ns":1,"steps":0,)" +
         R"("clients":0,"rare_events":[)" + events + "]}'";
}

class SessionRuns : public ::testing::Test {
 protected:
  SessionRuns() {
    arguments_.suites = {Suite::cluster_ts};
    arguments_.shrink = false;
    arguments_.found = (std::filesystem::path(::testing::TempDir()) / "basalt-session-test").string();
  }
  ~SessionRuns() override { std::filesystem::remove_all(arguments_.found); }

  // Of a call of `sim` whose runs are these.
  int exit_code(const std::vector<std::string>& scripts) {
    ::testing::internal::CaptureStdout();
    const Interrupt interrupt;
    int code = -1;
    {
      // Each run gets its script by its seed.
      std::string script = "number=$(echo \"$1\" | tr -d '\\n' | sed 's/.*\"seed\": *\"0x\\([0-9a-f]*\\)\".*/\\1/')\n";
      for (size_t i = 0; i < scripts.size(); i++)
        script += "if test \"$number\" = " + std::to_string(i + 1) + "; then " + scripts[i] + "; fi\n";
      arguments_.worker = {"sh", "-c", script, "sh"};
      Session session(arguments_, interrupt);
      for (size_t i = 0; i < scripts.size(); i++) {
        RunOptions options;
        options.seed = i + 1;
        options.suite = Suite::cluster_ts;
        session.start(options, "run", "");
      }
      code = session.end();
    }
    told_ = ::testing::internal::GetCapturedStdout();
    return code;
  }

  Arguments arguments_;
  std::string told_;
};

TEST_F(SessionRuns, EndWithACodeForEachKindOfFailure) {
  EXPECT_EQ(exit_code({answer("none"), answer("none")}), 0) << told_;
  EXPECT_NE(told_.find("2 passed, 0 failed, trace "), std::string::npos) << told_;
  EXPECT_EQ(exit_code({answer("liveness")}), 3) << told_;
  EXPECT_EQ(exit_code({answer("correctness")}), 4) << told_;
  EXPECT_EQ(exit_code({answer("crash")}), 6) << told_;
  EXPECT_EQ(exit_code({"kill -SEGV $$"}), 6) << told_;
  EXPECT_EQ(exit_code({"echo"}), 6) << told_;  // no answer at all
}

TEST_F(SessionRuns, EndWithTheWorstOfTheirCodes) {
  EXPECT_EQ(exit_code({answer("none"), answer("liveness"), answer("correctness")}), 4) << told_;
  EXPECT_EQ(exit_code({answer("correctness"), "exit 1", answer("liveness")}), 6) << told_;
  EXPECT_NE(told_.find("0 passed, 3 failed, trace "), std::string::npos) << told_;
}

TEST_F(SessionRuns, OfOneSeedWithTwoHistoriesFail) {
  // The first of twenty is run twice.
  EXPECT_EQ(exit_code({"pid=$(printf %016x $$); " +
                       answer("none").replace(answer("none").find("00000000000000ff"), 16, "'$pid'")}),
            5)
      << told_;
  EXPECT_NE(told_.find("the same seed gave another history"), std::string::npos) << told_;
}

TEST_F(SessionRuns, ThatNeverReachARareEventFailWhereCoverageIsAskedFor) {
  const std::string never = R"({"name":"a","text":"b","count":0})";
  const std::string once = R"({"name":"a","text":"b","count":1})";
  EXPECT_EQ(exit_code({answer("none", "ff", never)}), 0) << told_;
  arguments_.require_coverage = true;
  EXPECT_EQ(exit_code({answer("none", "ff", never)}), 7) << told_;
  EXPECT_NE(told_.find("error: never reached: a"), std::string::npos) << told_;
  EXPECT_EQ(exit_code({answer("none", "ff", never), answer("none", "ff", once)}), 0) << told_;
  EXPECT_EQ(exit_code({answer("liveness", "ff", never)}), 3) << told_;
}

TEST_F(SessionRuns, ThatJudgeTooFewCrashStatesFail) {
  arguments_.crash_states = 1;
  EXPECT_EQ(exit_code({answer("none")}), 7) << told_;
}

}  // namespace
}  // namespace basalt::sim
