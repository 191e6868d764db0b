// SPDX-License-Identifier: Apache-2.0
#include "env/sim/sim_world.h"

#include <algorithm>

#include "base/assert.h"
#include "base/probe.h"
#include "env/sim/sim_listener.h"
#include "env/sim/sim_rdma_fabric.h"

namespace basalt::env {

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
      if (due != Instant::never()) next = std::min(next, node->world_time(due));
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

void SimWorld::stall(const std::string& from, const std::string& to, Duration duration) {
  partition(from, to, false);
  at(now_ + duration, [this, from, to] {
    const auto cut = std::find(partitions_.begin(), partitions_.end(), std::make_pair(from, to));
    if (cut != partitions_.end()) partitions_.erase(cut);
    for (SimSocket* socket : sockets_)
      socket->deliver_later();
  });
}

void SimWorld::set_link(const std::string& from, const std::string& to, const SimLink& link) {
  links_[{from, to}] = link;
}

Duration SimWorld::random_delay(Duration min, Duration max) {
  return min + nanoseconds(static_cast<int64_t>(random_.below(static_cast<uint64_t>((max - min).ns + 1))));
}

Duration SimWorld::travel_time(const std::string& from, const std::string& to) {
  Duration time = random_delay(knobs_.network_delay_min, knobs_.network_delay_max);
  if (links_.empty()) return time;
  const auto found = links_.find({from, to});
  if (found == links_.end()) return time;
  const SimLink& link = found->second;
  time = time + link.extra_delay;
  if (link.extra_delay > Duration{}) {
    reach(Mark::fault_link_slow);
    link_counts_.slowed++;
  }
  for (Duration again = link.retransmit; again < seconds(60) && random_.strikes(link.loss_chance); again = again * 2) {
    reach(Mark::fault_packet_lost);
    link_counts_.lost++;
    time = time + again;
  }
  return time;
}

bool SimWorld::dark(const Address& address) const {
  return std::any_of(dark_.begin(), dark_.end(), [&](const auto& entry) {
    const Address& bound = entry.second;
    return bound.family == address.family && bound.port == address.port &&
           (bound.host == address.host || entry.first->name() == address.host);
  });
}

void SimWorld::cut_connections(const std::string& one, const std::string& other) {
  for (SimSocket* socket : std::vector<SimSocket*>(sockets_)) {
    const std::string& near = socket->node().name();
    const std::string& far = socket->peer_node();
    if ((near == one && far == other) || (near == other && far == one)) socket->reset();
  }
}

void SimWorld::hold_connections(const std::string& from, uint16_t port, Duration duration) {
  for (SimSocket* socket : sockets_) {
    if (socket->node().name() == from && socket->peer_port() == port) socket->hold_sent(now_ + duration);
  }
}

SimDisk& SimWorld::disk(const std::string& node, const std::string& path) {
  auto& disk = disks_[node + ":" + path];
  if (disk == nullptr) {
    disk = std::make_unique<SimDisk>();
    disk->atomic_bytes = knobs_.disk_atomic_bytes;
  }
  return *disk;
}

void SimNode::random(void* out, size_t length_bytes) {
  auto* bytes = static_cast<uint8_t*>(out);
  for (size_t i = 0; i < length_bytes; i++)
    bytes[i] = static_cast<uint8_t>(world_.random_.next());
}

Result<std::string> SimNode::read_secret_file(const std::string& path) {
  const auto found = world_.secret_files_.find(name_ + ":" + path);
  if (found == world_.secret_files_.end()) return Error{Errc::not_found, path + ": No such file or directory"};
  return found->second;
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
  stop(false);
}

void SimNode::power_cut() {
  stop(true);
}

void SimNode::restart() {
  crashed_ = paused_ = powered_off_ = false;
  std::erase_if(world_.dark_, [this](const auto& entry) { return entry.first == this; });
}

void SimNode::stop(bool power_lost) {
  crashed_ = true;
  powered_off_ = power_lost;
  incarnation_++;
  const std::string prefix = name_ + ":";
  for (auto& [key, disk] : world_.disks_) {
    if (!key.starts_with(prefix)) continue;
    if (power_lost) {
      disk->power_cut(world_.random_);
    } else {
      disk->crash(world_.random_);
    }
  }
  for (const auto& running : loops_)
    running->alive = false;
  for (SimSocket* socket : std::vector<SimSocket*>(world_.sockets_)) {
    if (&socket->node() != this) continue;
    if (power_lost) {
      socket->vanished();
    } else {
      socket->killed();
    }
  }
  if (world_.rdma_) world_.rdma_->node_stopped(name_, power_lost);
  std::erase_if(world_.sockets_, [this](SimSocket* socket) { return &socket->node() == this; });
  std::erase_if(world_.listeners_, [&](SimListener* listener) {
    if (&listener->node() != this) return false;
    if (power_lost) world_.dark_.emplace_back(this, listener->address());
    return true;
  });
}

// ---- clocks --------------------------------------------------------------------------------------------------------

Instant SimNode::local(Instant world) const {
  const Duration passed = world - clock_base_world_;
  if (clock_ppm_ == 0) return clock_base_local_ + passed;
  return clock_base_local_ + passed +
         nanoseconds(static_cast<int64_t>(static_cast<__int128>(passed.ns) * clock_ppm_ / 1'000'000));
}

Instant SimNode::world_time(Instant local_time) const {
  const Duration passed = local_time - clock_base_local_;
  if (clock_ppm_ == 0) return clock_base_world_ + passed;
  Instant world =
      clock_base_world_ +
      nanoseconds(static_cast<int64_t>(static_cast<__int128>(passed.ns) * 1'000'000 / (1'000'000 + clock_ppm_)));
  while (local(world) < local_time)
    world = world + nanoseconds(1);
  return world;
}

void SimNode::set_clock_rate(int32_t parts_per_million) {
  BASALT_ASSERT(parts_per_million > -1'000'000);
  clock_base_local_ = now();
  clock_base_world_ = world_.now();
  clock_ppm_ = parts_per_million;
}

void SimNode::jump_clock(Duration ahead) {
  BASALT_ASSERT(ahead.ns >= 0);
  clock_base_local_ = clock_base_local_ + ahead;
}

}  // namespace basalt::env
