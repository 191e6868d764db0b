// SPDX-License-Identifier: Apache-2.0
#include "env/sim/sim_world.h"

#include <algorithm>

#include "base/assert.h"
#include "env/sim/sim_poller.h"

namespace basalt::env {

SimRandom::SimRandom(uint64_t seed) {
  for (uint64_t& word : state_) {
    seed += 0x9e3779b97f4a7c15;
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    word = z ^ (z >> 31);
  }
}

uint64_t SimRandom::next() {
  const auto rotl = [](uint64_t x, int k) { return x << k | x >> (64 - k); };
  const uint64_t result = rotl(state_[1] * 5, 7) * 9;
  const uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = rotl(state_[3], 45);
  return result;
}

SimWorld::SimWorld(uint64_t seed, const SimKnobs& knobs) : seed_(seed), knobs_(knobs), random_(seed) {}
SimWorld::~SimWorld() = default;

SimNode& SimWorld::add_node(const std::string& name) {
  nodes_.push_back(std::make_unique<SimNode>(*this, name));
  return *nodes_.back();
}

void SimWorld::at(Instant when, std::function<void()> event) {
  events_.push({std::max(when, now_), event_sequence_++, std::move(event)});
}

void SimWorld::trace(uint64_t value) {
  for (int i = 0; i < 8; i++) {
    trace_hash_ = (trace_hash_ ^ (value & 0xff)) * 0x100000001b3;
    value >>= 8;
  }
}

// Lets every running loop take turns until none has anything to do at this instant.
bool SimWorld::turn_all() {
  bool any = false;
  for (bool worked = true; worked;) {
    worked = false;
    // By index: a turn may add nodes and loops.
    for (size_t n = 0; n < nodes_.size(); n++) {
      SimNode& node = *nodes_[n];
      for (size_t i = 0; i < node.loops_.size(); i++) {
        if (node.paused_ || node.crashed_) break;
        const auto running = node.loops_[i];
        if (running->alive && running->loop->turn()) worked = true;
      }
      std::erase_if(node.loops_, [](const auto& running) { return !running->alive; });
    }
    any |= worked;
  }
  return any;
}

// To the next event or timer, not past the limit. False: nothing before the limit; now is the limit.
bool SimWorld::advance(Instant limit) {
  Instant next = limit;
  if (!events_.empty()) next = std::min(next, events_.top().when);
  for (const auto& node : nodes_) {
    if (node->paused_ || node->crashed_) continue;
    for (const auto& running : node->loops_) {
      const Instant due = running->loop->deadline();
      if (due != Instant::never()) next = std::min(next, due - node->skew_);
    }
  }
  now_ = std::max(now_, next);
  bool ran = false;
  while (!events_.empty() && events_.top().when <= now_) {
    auto run = std::move(const_cast<Event&>(events_.top()).run);
    trace(static_cast<uint64_t>(now_.ns) ^ events_.top().sequence << 32);
    events_.pop();
    run();
    ran = true;
  }
  return ran || now_ < limit;
}

void SimWorld::run_for(Duration duration) {
  run_until([] { return false; }, duration);
}

bool SimWorld::run_until(const std::function<bool()>& condition, Duration limit) {
  const Instant end = now_ + limit;
  for (;;) {
    turn_all();
    if (condition()) return true;
    if (!advance(end) && now_ >= end) {
      turn_all();
      return condition();
    }
  }
}

void SimWorld::partition(const std::string& from, const std::string& to, bool both_ways) {
  partitions_.emplace_back(from, to);
  if (both_ways) partitions_.emplace_back(to, from);
}

void SimWorld::heal(const std::string& from, const std::string& to) {
  std::erase_if(partitions_, [&](const auto& cut) {
    return (cut.first == from && cut.second == to) || (cut.first == to && cut.second == from);
  });
  for (SimSocket* socket : sockets_)
    socket->deliver_later();
}

void SimWorld::heal_all() {
  partitions_.clear();
  for (SimSocket* socket : sockets_)
    socket->deliver_later();
}

bool SimWorld::partitioned(const std::string& from, const std::string& to) const {
  return std::find(partitions_.begin(), partitions_.end(), std::make_pair(from, to)) != partitions_.end();
}

void SimWorld::cut_connections(const std::string& one, const std::string& other) {
  for (SimSocket* socket : std::vector<SimSocket*>(sockets_)) {
    const std::string& near = socket->node().name();
    const std::string& far = socket->peer_node();
    if ((near == one && far == other) || (near == other && far == one)) socket->reset();
  }
}

SimDisk& SimWorld::disk(const std::string& node, const std::string& path) {
  auto& disk = disks_[node + ":" + path];
  if (disk == nullptr) disk = std::make_unique<SimDisk>();
  return *disk;
}

void SimNode::random(void* out, size_t length_bytes) {
  auto* bytes = static_cast<uint8_t*>(out);
  for (size_t i = 0; i < length_bytes; i++)
    bytes[i] = static_cast<uint8_t>(world_.random_.next());
}

Result<std::unique_ptr<Poller>> SimNode::make_poller(const PollerOptions&) {
  return std::unique_ptr<Poller>(std::make_unique<SimPoller>(*this));
}

std::unique_ptr<LoopHandle> SimNode::start(Loop& loop, const LoopOptions&) {
  struct Handle final : LoopHandle {
    std::shared_ptr<Running> running;
    ~Handle() override { running->alive = false; }
  };
  auto handle = std::make_unique<Handle>();
  handle->running = std::make_shared<Running>(Running{&loop, true});
  loops_.push_back(handle->running);
  return handle;
}

void SimNode::crash() {
  crashed_ = true;
  incarnation_++;
  const std::string prefix = name_ + ":";
  for (auto& [key, disk] : world_.disks_) {
    if (key.starts_with(prefix)) disk->crash(world_.random_);
  }
  for (const auto& running : loops_)
    running->alive = false;
  for (SimSocket* socket : std::vector<SimSocket*>(world_.sockets_)) {
    if (&socket->node() == this) socket->reset();
  }
  std::erase_if(world_.sockets_, [this](SimSocket* socket) { return &socket->node() == this; });
  SimPoller::forget_listeners(*this);
}

void SimNode::power_cut() {
  crash();
  const std::string prefix = name_ + ":";
  for (auto& [key, disk] : world_.disks_) {
    if (key.starts_with(prefix)) disk->power_cut(world_.random_);
  }
}

}  // namespace basalt::env
