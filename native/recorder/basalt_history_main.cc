// SPDX-License-Identifier: Apache-2.0
// basalt_history --device PATH --history PATH ...: random stamped writes, zeroings, flushes and reads by several
// clients on a block device or file, with direct I/O, and the history of what they were told (docs/history-format.md).
// What the blocks held is lost. Ends after --seconds or --ops, or at SIGINT or SIGTERM, with what was under way
// finished; a second signal ends it at once. With --resume it goes on with the history of a run that was ended or
// killed. Exit codes: 0 no operation failed, 1 some did (they are on record as `info`), 2 it could not run or write the
// history.
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "env/linux/linux_env.h"
#include "recorder/arguments.h"
#include "recorder/workload.h"

namespace {

using namespace basalt;
using namespace basalt::recorder;

volatile std::sig_atomic_t told_to_stop = 0;

void stop(int signal) {
  told_to_stop = 1;
  std::signal(signal, SIG_DFL);
}

WorkloadOptions workload_options(const Arguments& arguments, uint64_t seed) {
  WorkloadOptions options;
  options.first_block = arguments.first_block;
  options.block_count = arguments.block_count;
  options.client_count = static_cast<uint32_t>(arguments.client_count);
  options.rate = arguments.rate;
  options.operation_count = arguments.operation_count;
  options.length = seconds(static_cast<int64_t>(arguments.length_s));
  options.seed = seed;
  options.erase = arguments.erase;
  options.told_to_stop = [] { return told_to_stop != 0; };
  options.clients_started = [] { std::printf("running\n"); };
  return options;
}

HistoryLogOptions log_options(const Arguments& arguments, Reactor& reactor) {
  HistoryLogOptions options;
  options.path = arguments.history;
  std::error_code no_matter;
  options.disk = std::filesystem::is_block_file(arguments.history, no_matter);
  options.resume = arguments.resume;
  options.durable = arguments.durable;
  options.volume = arguments.volume ? *arguments.volume : reactor.env().random_u64();
  return options;
}

void tell(const Totals& totals) {
  std::printf("%llu reads, %llu writes, %llu zeroings, %llu flushes, %llu errors; the longest took %lld ms\n",
              static_cast<unsigned long long>(totals.read_count), static_cast<unsigned long long>(totals.write_count),
              static_cast<unsigned long long>(totals.zero_count), static_cast<unsigned long long>(totals.flush_count),
              static_cast<unsigned long long>(totals.error_count), static_cast<long long>(totals.longest.to_ms()));
  for (const std::string& complaint : totals.complaints)
    std::fprintf(stderr, "%s\n", complaint.c_str());
}

Task<Result<Totals>> run(Reactor& reactor, const Arguments& arguments) {
  const uint64_t seed = arguments.seed ? *arguments.seed : reactor.env().random_u64();
  std::printf("seed 0x%llx\n", static_cast<unsigned long long>(seed));
  auto device = reactor.poller().open({.path = arguments.device});
  if (!device) co_return Error{device.error().code, "--device: " + device.error().message};
  const bool unknown = !arguments.resume && !arguments.erase;
  Outcome right = co_await check_blocks(**device, arguments.first_block, arguments.block_count, unknown);
  if (!right) co_return std::move(right).error();
  auto log = co_await HistoryLog::open(reactor, log_options(arguments, reactor));
  if (!log) co_return Error{log.error().code, "--history: " + log.error().message};
  Workload workload(reactor, **device, **log, workload_options(arguments, seed));
  Outcome ended = co_await workload.run();
  if (!ended) co_return Error{ended.error().code, "--history: " + ended.error().message};
  co_return workload.totals();
}

Task<void> session(Reactor& reactor, const Arguments& arguments, std::optional<Result<Totals>>* result) {
  result->emplace(co_await run(reactor, arguments));
  reactor.stop();
}

int record(const Arguments& arguments) {
  const std::unique_ptr<env::Env> env = env::make_linux_env();
  Arena arena(size_t{64} << 20);
  ReactorOptions options;
  options.mode = PollMode::interrupt;
  Reactor reactor(*env, arena, options);
  const Outcome started = reactor.init();
  if (!started) {
    std::fprintf(stderr, "%s\n", started.error().message.c_str());
    return 2;
  }
  std::signal(SIGINT, stop);
  std::signal(SIGTERM, stop);
  std::optional<Result<Totals>> result;
  spawn(session(reactor, arguments, &result));
  reactor.run();
  if (!result->ok()) {
    std::fprintf(stderr, "%s\n", result->error().message.c_str());
    return 2;
  }
  tell(result->value());
  return result->value().error_count == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** texts) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const auto arguments = read_arguments(std::vector<std::string>(texts + 1, texts + count));
  if (!arguments) {
    std::fprintf(stderr, "%s\n%s", arguments.error().message.c_str(), usage_text());
    return 2;
  }
  return record(arguments.value());
}
