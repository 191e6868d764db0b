// SPDX-License-Identifier: Apache-2.0
// Goal: a run in another program is a result like any other, also when that program crashes, hangs, or talks nonsense;
// and nothing of it is left when the simulator is told to stop. Method: shell commands stand in for the worker.
#include "sim/worker.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sim/guard.h"

namespace basalt::sim {
namespace {

constexpr int limit_s = 60;

RunOptions by_shell(const std::string& script) {
  RunOptions options{.seed = 0x2a, .suite = Suite::cluster_ts};
  options.worker = {"sh", "-c", script, "sh"};
  return options;
}

const std::string answer =
    R"({"failure":"none","explanation":"","summary":"2 copies","trace":"00000000000000ff","ops":12,"takeovers":3,)"
    R"("virtual_ns":1500000000,"steps":7,"clients":2,"rare_events":[{"name":"a","text":"b","count":4}]})";

TEST(Worker, GetsThePlanAndGivesItsResult) {
  RunOptions options = by_shell("echo \"$1\" | grep -q 0x2a && test \"$2$3\" = --historyH && echo '" + answer + "'");
  options.history = "H";
  const GuardedResult result = run_guarded(options, limit_s);
  ASSERT_TRUE(result.passed()) << result.run.explanation << result.output;
  EXPECT_EQ(result.run.trace_hash, 0xffu);
  EXPECT_EQ(result.run.op_count, 12u);
  EXPECT_EQ(result.run.step_count, 7u);
  EXPECT_EQ(result.run.client_count, 2u);
  EXPECT_EQ(result.run.virtual_ns, 1'500'000'000);
  ASSERT_EQ(result.run.rare_events.size(), 1u);
  EXPECT_EQ(result.run.rare_events[0].name, "a");
  EXPECT_EQ(result.run.rare_events[0].count, 4u);
}

TEST(Worker, FailsAsItSays) {
  std::string failing = answer;
  failing.replace(failing.find("none"), 4, "liveness");
  const GuardedResult result = run_guarded(by_shell("echo '" + failing + "'"), limit_s);
  EXPECT_EQ(result.end, End::finished);
  EXPECT_EQ(result.run.failure, Failure::liveness);
}

TEST(Worker, CrashesWhenItEndsWithoutAResult) {
  const GuardedResult exit = run_guarded(by_shell("echo went wrong >&2; exit 3"), limit_s);
  EXPECT_EQ(exit.end, End::crashed);
  EXPECT_EQ(exit.run.explanation, "the worker ended with exit code 3");
  EXPECT_EQ(exit.output, "went wrong\n");
  const GuardedResult killed = run_guarded(by_shell("kill -SEGV $$"), limit_s);
  EXPECT_EQ(killed.end, End::crashed);
  EXPECT_EQ(killed.run.explanation, "the worker ended by Segmentation fault");
  EXPECT_EQ(run_guarded(by_shell("echo '{}'"), limit_s).run.explanation,
            "the worker's answer is not one: failure: missing");
  RunOptions nowhere = by_shell("");
  nowhere.worker = {"/nowhere/worker"};
  EXPECT_EQ(run_guarded(nowhere, limit_s).run.explanation, "the worker ended with exit code 127");
}

TEST(Worker, AnswersAreCheckedFieldByField) {
  EXPECT_TRUE(parse_worker_answer(answer).ok());
  EXPECT_EQ(parse_worker_answer("nonsense").error().message, "not a JSON object");
  const std::pair<const char*, const char*> wrong[] = {
      {R"("none")", R"("odd")"}, {R"("00000000000000ff")", R"("0xff")"}, {"12", "-1"}, {"[{", "[1,{"}};
  for (const auto& [good, bad] : wrong) {
    std::string text = answer;
    text.replace(text.find(good), std::string(good).size(), bad);
    EXPECT_FALSE(parse_worker_answer(text).ok()) << text;
  }
}

TEST(Guard, StopsWhenToldTo_AndLeavesNothingBehind) {
  // What the worker leaves behind comes to us, so that we see it end.
  if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
    GTEST_SKIP() << "an emulator without PR_SET_CHILD_SUBREAPER: " << std::strerror(errno);
  int stop[2];
  int ready[2];
  ASSERT_EQ(pipe(stop), 0);
  ASSERT_EQ(pipe(ready), 0);
  {
    Guard guard({.jobs = 1, .stop_fd = stop[0]});
    const std::string fd = std::to_string(ready[1]);
    const RunOptions options = by_shell("sleep 1000 & echo >/proc/self/fd/" + fd + "; wait");
    guard.start(
        0, [options] { return run_worker(options); }, options);
    char byte = 0;
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    ASSERT_EQ(write(stop[1], "x", 1), 1);
    EXPECT_FALSE(guard.wait().has_value());
  }
  // The guard has waited for its child; the shell and its sleep come to us, killed and not run to their end.
  size_t killed_count = 0;
  for (int status = 0; waitpid(-1, &status, 0) > 0; killed_count++)
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  EXPECT_EQ(killed_count, 2u);
  for (const int fd : {stop[0], stop[1], ready[0], ready[1]})
    close(fd);
}

TEST(Guard, RunThatIsStoppedIsNoResult) {
  int stop[2];
  ASSERT_EQ(pipe(stop), 0);
  ASSERT_EQ(write(stop[1], "x", 1), 1);
  const GuardedResult result = run_guarded(by_shell("sleep 1000"), limit_s, stop[0]);
  EXPECT_EQ(result.end, End::stopped);
  EXPECT_FALSE(result.passed());
  close(stop[0]);
  close(stop[1]);
}

}  // namespace
}  // namespace basalt::sim
