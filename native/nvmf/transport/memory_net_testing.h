// SPDX-License-Identifier: Apache-2.0
// MemoryNet: an env for tests, with a virtual clock and stream sockets that are queues in memory. Transfers are cut at
// random (seeded) places; connections can be cut, or frozen so that nothing arrives any more. Simulated RDMA adapters.
// Everything runs on the test's thread: run_until() turns the reactors, and moves the clock when nothing else happens.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "env/env.h"
#include "env/sim/sim_rdma.h"
#include "runtime/reactor.h"

namespace basalt::testing {

class MemoryPoller;
class MemorySocket;

struct MemoryPipe {
  std::deque<uint8_t> bytes;
  bool ended = false;  // the writer has gone
  bool reset = false;
};

struct MemoryConnection {
  MemoryPipe pipes[2];  // [0]: from the one that connected
  uint16_t port = 0;
  bool frozen = false;
};

class MemoryNet final : public env::Env, env::SimRdmaGround {
 public:
  explicit MemoryNet(uint64_t seed) : seed_(seed), random_(seed), rdma_(*this, seed) {}
  ~MemoryNet() override;

  Instant now() const override { return now_; }
  int64_t wall_ms() const override { return now_.ns / 1'000'000; }
  void random(void* out, size_t length_bytes) override;
  Result<std::unique_ptr<env::Poller>> make_poller(const env::PollerOptions& options) override;
  std::unique_ptr<env::LoopHandle> start(env::Loop& loop, const env::LoopOptions& options) override;

  // Turns all reactors until `done`; false when that has not come within `limit` of virtual time.
  bool run_until(const std::function<bool()>& done, Duration limit = seconds(60));
  void run_for(Duration duration);
  void add(Reactor* reactor) { reactors_.push_back(reactor); }
  void remove(Reactor* reactor);
  // Runs a task to its end and returns its value.
  template <class T>
  T run(Task<T> task, Duration limit = seconds(60)) {
    std::optional<T> result;
    spawn(store(std::move(task), &result));
    const bool ended = run_until([&] { return result.has_value(); }, limit);
    BASALT_ASSERT(ended);
    return std::move(*result);
  }
  void run_void(Task<void> task, Duration limit = seconds(60)) {
    bool ended = false;
    spawn(note(std::move(task), &ended));
    const bool in_time = run_until([&] { return ended; }, limit);
    BASALT_ASSERT(in_time);
  }

  void cut(uint16_t port = 0);  // resets all connections to the port; 0: all
  void freeze(bool frozen, uint16_t port = 0);
  void refuse(uint16_t port, bool refused) { refused_[port] = refused; }
  // Resets connections to the port after that many more transfers anywhere.
  void cut_after(uint64_t transfer_count, uint16_t port) {
    cut_countdown_ = transfer_count;
    cut_port_ = port;
  }
  size_t connection_count(uint16_t port);
  void shred(bool on) { shred_ = on; }
  env::SimRdmaFabric& rdma() { return rdma_; }
  uint64_t draw(uint64_t below) { return below == 0 ? 0 : random_() % below; }

 private:
  friend class MemoryPoller;
  friend class MemorySocket;
  friend class MemoryListener;
  template <class T>
  static Task<void> store(Task<T> task, std::optional<T>* result) {
    T value = co_await task;
    result->emplace(std::move(value));
  }
  static Task<void> note(Task<void> task, bool* ended) {
    co_await task;
    *ended = true;
  }
  void before_transfer();
  // SimRdmaGround
  void at(Instant when, std::function<void()> event) override;
  Duration travel_time(const std::string& from, const std::string& to) override;
  bool reachable(const std::string& from, const std::string& to) const override { return true; }
  bool run_events();

  const uint64_t seed_;
  std::mt19937_64 random_;
  Instant now_{1'000'000'000};
  std::multimap<Instant, std::function<void()>> events_;
  env::SimRdmaFabric rdma_;
  std::vector<Reactor*> reactors_;
  std::vector<std::weak_ptr<MemoryConnection>> connections_;
  std::map<uint16_t, std::deque<std::shared_ptr<MemoryConnection>>*> listeners_;
  std::map<uint16_t, bool> refused_;
  uint16_t next_port_ = 20000;
  uint64_t cut_countdown_ = 0;
  uint16_t cut_port_ = 0;
  bool shred_ = true;
};

}  // namespace basalt::testing
