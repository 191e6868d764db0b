// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/memory_net_testing.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace basalt::testing {
namespace {

constexpr size_t pipe_bytes_max = 256 * 1024;

class MemoryPending final : public env::PendingSocket {
 public:
  explicit MemoryPending(std::shared_ptr<MemoryConnection> connection) : connection(std::move(connection)) {}
  ~MemoryPending() override {
    if (connection) connection->pipes[1].ended = connection->pipes[0].reset = true;
  }
  std::shared_ptr<MemoryConnection> connection;
};

}  // namespace

class MemoryPoller final : public env::Poller {
 public:
  explicit MemoryPoller(MemoryNet& net) : net_(net), rdma_(net.rdma(), "memory") {}
  size_t poll() override;
  void wait(Instant deadline) override {}
  void wake() override {}
  Result<std::unique_ptr<env::StreamListener>> listen(const env::Address& address) override;
  Result<std::unique_ptr<env::StreamSocket>> connect(const env::Address& address) override;
  std::unique_ptr<env::StreamSocket> adopt(std::unique_ptr<env::PendingSocket> pending) override;
  Result<std::unique_ptr<env::BlockFile>> open(const env::FileOptions& options) override {
    return Error{Errc::unsupported, "no files here"};
  }
  env::Rdma* rdma() override { return &rdma_; }
  std::string description() const override { return "in memory"; }

  // Something that can be armed.
  struct Watched {
    virtual ~Watched() = default;
    virtual Work* take_ready() = 0;  // nullptr: nothing
  };
  uint64_t watch(Watched* watched) {
    watched_[++last_id_] = watched;
    return last_id_;
  }
  void forget(uint64_t id) { watched_.erase(id); }
  MemoryNet& net() { return net_; }

 private:
  MemoryNet& net_;
  uint64_t last_id_ = 0;
  std::map<uint64_t, Watched*> watched_;
  env::SimRdma rdma_;
};

class MemorySocket final : public env::StreamSocket, MemoryPoller::Watched {
 public:
  MemorySocket(MemoryPoller& poller, std::shared_ptr<MemoryConnection> connection, int side)
      : poller_(poller), connection_(std::move(connection)), side_(side), id_(poller.watch(this)) {}
  ~MemorySocket() override {
    poller_.forget(id_);
    // Whoever goes takes its own unsent bytes along; the other side sees a reset.
    out().ended = out().reset = true;
    in().reset = true;
    in().bytes.clear();
  }
  env::Transfer try_recv(const Iovec* iov, size_t count) override;
  env::Transfer try_send(const Iovec* iov, size_t count) override;
  void arm_readable(Work* work) override {
    BASALT_ASSERT(readable_ == nullptr);
    readable_ = work;
  }
  void arm_writable(Work* work) override {
    BASALT_ASSERT(writable_ == nullptr);
    writable_ = work;
  }
  void disarm() override { readable_ = writable_ = nullptr; }
  Outcome connect_result() override {
    if (out().reset) return Error{Errc::unreachable, "refused"};
    return success();
  }
  std::string peer() const override { return "memory"; }

 private:
  MemoryPipe& out() { return connection_->pipes[side_]; }
  MemoryPipe& in() { return connection_->pipes[1 - side_]; }
  Work* take_ready() override;
  MemoryPoller& poller_;
  std::shared_ptr<MemoryConnection> connection_;
  const int side_;
  const uint64_t id_;
  Work* readable_ = nullptr;
  Work* writable_ = nullptr;
};

Work* MemorySocket::take_ready() {
  if (readable_ != nullptr) {
    const bool data = !in().bytes.empty() && !connection_->frozen;
    if (data || in().reset || (in().ended && !connection_->frozen)) return std::exchange(readable_, nullptr);
  }
  if (writable_ != nullptr && (out().bytes.size() < pipe_bytes_max || out().reset)) {
    return std::exchange(writable_, nullptr);
  }
  return nullptr;
}

env::Transfer MemorySocket::try_recv(const Iovec* iov, size_t count) {
  using State = env::Transfer::State;
  MemoryNet& net = poller_.net();
  net.before_transfer();
  if (in().reset) return {State::failed, 0};
  if (connection_->frozen) return {State::would_block, 0};
  if (in().bytes.empty()) return {in().ended ? State::closed : State::would_block, 0};
  uint64_t allowed = in().bytes.size();
  if (net.shred_ && net.draw(4) != 0) allowed = 1 + net.draw(std::min<uint64_t>(allowed, 9000));
  size_t moved = 0;
  for (size_t i = 0; i < count && moved < allowed; i++) {
    const size_t take = std::min<size_t>({iov[i].length_bytes, in().bytes.size(), allowed - moved});
    std::copy_n(in().bytes.begin(), take, static_cast<uint8_t*>(iov[i].base));
    in().bytes.erase(in().bytes.begin(), in().bytes.begin() + static_cast<long>(take));
    moved += take;
  }
  return {State::done, moved};
}

env::Transfer MemorySocket::try_send(const Iovec* iov, size_t count) {
  using State = env::Transfer::State;
  MemoryNet& net = poller_.net();
  net.before_transfer();
  if (out().reset) return {State::failed, 0};
  if (out().bytes.size() >= pipe_bytes_max) return {State::would_block, 0};
  uint64_t allowed = pipe_bytes_max - out().bytes.size();
  if (net.shred_ && net.draw(4) != 0) allowed = 1 + net.draw(std::min<uint64_t>(allowed, 9000));
  size_t moved = 0;
  for (size_t i = 0; i < count && moved < allowed; i++) {
    const auto* from = static_cast<const uint8_t*>(iov[i].base);
    const size_t take = std::min<size_t>(iov[i].length_bytes, allowed - moved);
    out().bytes.insert(out().bytes.end(), from, from + take);
    moved += take;
  }
  return {State::done, moved};
}

class MemoryListener final : public env::StreamListener, MemoryPoller::Watched {
 public:
  MemoryListener(MemoryPoller& poller, env::Address address)
      : poller_(poller), address_(std::move(address)), id_(poller.watch(this)) {
    poller_.net().listeners_[address_.port] = &waiting_;
  }
  ~MemoryListener() override {
    poller_.forget(id_);
    poller_.net().listeners_.erase(address_.port);
    for (auto& connection : waiting_)
      connection->pipes[0].reset = connection->pipes[1].reset = true;
  }
  std::unique_ptr<env::PendingSocket> try_accept() override {
    if (waiting_.empty()) return nullptr;
    auto connection = waiting_.front();
    waiting_.pop_front();
    return std::make_unique<MemoryPending>(std::move(connection));
  }
  void arm_acceptable(Work* work) override { acceptable_ = work; }
  const env::Address& address() const override { return address_; }

 private:
  Work* take_ready() override { return waiting_.empty() ? nullptr : std::exchange(acceptable_, nullptr); }
  MemoryPoller& poller_;
  const env::Address address_;
  const uint64_t id_;
  Work* acceptable_ = nullptr;
  std::deque<std::shared_ptr<MemoryConnection>> waiting_;
};

size_t MemoryPoller::poll() {
  std::vector<uint64_t> ids;
  for (const auto& [id, watched] : watched_)
    ids.push_back(id);
  size_t ran = 0;
  for (const uint64_t id : ids) {
    // A callback may end any of them.
    const auto found = watched_.find(id);
    if (found == watched_.end()) continue;
    if (Work* work = found->second->take_ready()) {
      work->run(work);
      ran++;
    }
  }
  return ran + rdma_.poll();
}

Result<std::unique_ptr<env::StreamListener>> MemoryPoller::listen(const env::Address& address) {
  env::Address bound = address;
  if (bound.port == 0) bound.port = net_.next_port_++;
  if (net_.listeners_.count(bound.port) != 0) return Error{Errc::busy, "port in use"};
  std::unique_ptr<env::StreamListener> listener = std::make_unique<MemoryListener>(*this, bound);
  return listener;
}

Result<std::unique_ptr<env::StreamSocket>> MemoryPoller::connect(const env::Address& address) {
  auto connection = std::make_shared<MemoryConnection>();
  connection->port = address.port;
  const auto listener = net_.listeners_.find(address.port);
  if (listener == net_.listeners_.end() || net_.refused_[address.port]) {
    connection->pipes[0].reset = connection->pipes[1].reset = true;
  } else {
    listener->second->push_back(connection);
    net_.connections_.push_back(connection);
  }
  std::unique_ptr<env::StreamSocket> socket = std::make_unique<MemorySocket>(*this, connection, 0);
  return socket;
}

std::unique_ptr<env::StreamSocket> MemoryPoller::adopt(std::unique_ptr<env::PendingSocket> pending) {
  auto connection = std::exchange(static_cast<MemoryPending*>(pending.get())->connection, nullptr);
  return std::make_unique<MemorySocket>(*this, std::move(connection), 1);
}

MemoryNet::~MemoryNet() = default;

void MemoryNet::random(void* out, size_t length_bytes) {
  auto* to = static_cast<uint8_t*>(out);
  for (size_t i = 0; i < length_bytes; i++)
    to[i] = static_cast<uint8_t>(random_());
}

Result<std::unique_ptr<env::Poller>> MemoryNet::make_poller(const env::PollerOptions& options) {
  std::unique_ptr<env::Poller> poller = std::make_unique<MemoryPoller>(*this);
  return poller;
}

std::unique_ptr<env::LoopHandle> MemoryNet::start(env::Loop& loop, const env::LoopOptions& options) {
  BASALT_ASSERT(false);  // the test turns its reactors itself
  return nullptr;
}

bool MemoryNet::run_until(const std::function<bool()>& done, Duration limit) {
  const Instant end = now_ + limit;
  while (!done()) {
    bool worked = run_events();
    for (size_t i = 0; i < reactors_.size(); i++)
      worked |= reactors_[i]->turn();
    if (worked) {
      now_ = now_ + microseconds(1);
      continue;
    }
    Instant next = end;
    for (Reactor* reactor : reactors_)
      next = std::min(next, reactor->deadline());
    if (!events_.empty()) next = std::min(next, events_.begin()->first);
    if (now_ >= end) {
      std::fprintf(stderr, "gave up after %lld ms of virtual time; seed %llu\n", static_cast<long long>(limit.to_ms()),
                   static_cast<unsigned long long>(seed_));
      return false;
    }
    now_ = std::max(next, now_ + microseconds(1));
  }
  return true;
}

void MemoryNet::at(Instant when, std::function<void()> event) {
  events_.emplace(std::max(when, now_), std::move(event));
}

Duration MemoryNet::travel_time(const std::string& from, const std::string& to) {
  return microseconds(1 + static_cast<int64_t>(draw(20)));
}

bool MemoryNet::run_events() {
  bool ran = false;
  while (!events_.empty() && events_.begin()->first <= now_) {
    const auto event = std::move(events_.begin()->second);
    events_.erase(events_.begin());
    event();
    ran = true;
  }
  return ran;
}

void MemoryNet::run_for(Duration duration) {
  const Instant end = now_ + duration;
  (void)run_until([&] { return now_ >= end; }, duration + milliseconds(1));
}

void MemoryNet::remove(Reactor* reactor) {
  std::erase(reactors_, reactor);
}

void MemoryNet::before_transfer() {
  if (cut_countdown_ > 0 && --cut_countdown_ == 0) cut(cut_port_);
}

void MemoryNet::cut(uint16_t port) {
  for (auto& weak : connections_) {
    auto connection = weak.lock();
    if (!connection || (port != 0 && connection->port != port)) continue;
    connection->pipes[0].reset = connection->pipes[1].reset = true;
  }
}

void MemoryNet::freeze(bool frozen, uint16_t port) {
  for (auto& weak : connections_) {
    auto connection = weak.lock();
    if (connection && (port == 0 || connection->port == port)) connection->frozen = frozen;
  }
}

size_t MemoryNet::connection_count(uint16_t port) {
  size_t count = 0;
  for (auto& weak : connections_) {
    auto connection = weak.lock();
    if (connection && connection->port == port && !connection->pipes[0].reset) count++;
  }
  return count;
}

}  // namespace basalt::testing
