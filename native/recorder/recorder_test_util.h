// SPDX-License-Identifier: Apache-2.0
// A simulated machine with a device to work on and a raw disk for the history, for this folder's tests.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <sstream>
#include <string>

#include "bdev/testing/sim_fixture.h"
#include "check/checker.h"
#include "check/history_file.h"
#include "recorder/workload.h"

namespace basalt::recorder {

class RecorderRig : public bdev::SimFixture {
 public:
  static constexpr uint64_t device_bytes = 1 << 20;

  explicit RecorderRig(uint64_t seed, uint64_t log_bytes = 2 << 20) : SimFixture(seed) {
    device().resize(device_bytes);
    device().atomic_bytes = check::block_bytes;
    log_disk().resize(log_bytes);
  }

  env::SimDisk& device() { return world.disk("node", "device"); }
  env::SimDisk& log_disk() { return world.disk("node", "log"); }

  Result<std::unique_ptr<HistoryLog>> open_log(bool resume = false) {
    HistoryLogOptions options;
    options.path = "log";
    options.disk = true;
    options.resume = resume;
    options.volume = world.seed();
    return run(HistoryLog::open(reactor, options));
  }

  // A whole run. Its error, or what it did.
  Result<Totals> record(const WorkloadOptions& options, bool resume = false) {
    return run(record_task(options, resume));
  }

  // What the disk of the history holds now, were everything killed: of what is under way, any part.
  std::string log_text() { return text_of(log_disk().after_kill(world.random())); }
  static std::string text_of(const env::SimImage& image) {
    std::string text(image.size_bytes(), '\0');
    image.read(0, text.data(), text.size());
    return text;
  }
  // Of what a kill left, a write may be there in part.
  static constexpr check::HistoryReading killed{.cut_bytes_max = check::history_write_bytes_max};
  // "" when nothing is wrong, else the rule, or why it is no history.
  static std::string judged(const std::string& text, const check::HistoryReading& reading = {}) {
    std::istringstream in(text);
    auto history = check::read_history(in, reading);
    if (!history.ok()) return history.error().message;
    const auto violation = check::check_history(history.value());
    return violation ? violation->explanation : "";
  }
  static check::History history_of(const std::string& text, const check::HistoryReading& reading = {}) {
    std::istringstream in(text);
    auto history = check::read_history(in, reading);
    EXPECT_TRUE(history.ok()) << history.error().message;
    return history.ok() ? std::move(history).value() : check::History{};
  }

 private:
  // A parameter: what it holds must live as long as the task.
  Task<Result<Totals>> record_task(WorkloadOptions options, bool resume) {
    auto file = reactor.poller().open({.path = "device"});
    if (!file) co_return std::move(file).error();
    const bool unknown = !resume && !options.erase;
    Outcome right = co_await check_blocks(**file, options.first_block, options.block_count, unknown);
    if (!right) co_return std::move(right).error();
    HistoryLogOptions log_options;
    log_options.path = "log";
    log_options.disk = true;
    log_options.resume = resume;
    log_options.volume = world.seed();
    auto log = co_await HistoryLog::open(reactor, log_options);
    if (!log) co_return std::move(log).error();
    Workload workload(reactor, **file, **log, options);
    Outcome ended = co_await workload.run();
    if (!ended) co_return std::move(ended).error();
    co_return workload.totals();
  }
};

}  // namespace basalt::recorder
