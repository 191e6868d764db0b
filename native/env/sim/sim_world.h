// SPDX-License-Identifier: Apache-2.0
// The simulated world: seeded, in virtual time, in one thread. Nodes are processes on machines; each has an Env of its
// own. Time moves only when nothing is left to do at the present instant. One seed gives one history.
//
//   SimWorld world(seed);
//   SimNode& a = world.add_node("a");         // an env::Env: give it to an Engine or a Reactor
//   world.run_for(seconds(1));  world.run_until([&] { return done; }, seconds(30));
//
// What it can do to you:
//  - sockets (sim_poller.h): short transfers, spurious wake-ups, delays, lost packets (TCP: late, never gone), stalls,
//    partitions one way or both, connections cut with what the kernels held, full backlogs, peers whose machine has
//    vanished without a word
//  - RDMA adapters (sim_rdma_fabric.h): connections and keys that break, adapters that go
//  - disks (sim_disk.h): slow, hung, full, failing, with unreadable sectors; lost and misdirected writes, misdirected
//    reads, flipped bits; after a power cut unflushed writes are there in any part
//  - processes: paused, killed (what they had sent still arrives, writes in flight happen in any part), powered off
//  - clocks: running fast or slow, jumping ahead; the wall clock anywhere
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <vector>

#include "env/env.h"
#include "env/sim/sim_disk.h"
#include "env/sim/sim_random.h"

namespace basalt::env {

class SimNode;
class SimSocket;
class SimListener;
class SimRdmaFabric;
class SimRdmaGround;

struct SimKnobs {
  Duration network_delay_min = microseconds(5);
  Duration network_delay_max = microseconds(50);
  Duration disk_delay_min = microseconds(10);
  Duration disk_delay_max = microseconds(200);
  size_t disk_atomic_bytes = SimDisk::sector_bytes;  // of every disk: SimDisk::atomic_bytes
  size_t socket_buffer_bytes = 256 * 1024;
  double short_transfer_chance = 0.1;
  double spurious_wake_chance = 0.01;
  size_t backlog_max = 128;  // connections that wait to be accepted; more have to try again
  double refuse_chance = 0;  // of a connection attempt
};

// What is wrong with the way from one node to another. Nothing is lost for good: TCP sends it again.
struct SimLink {
  double loss_chance = 0;                   // of what one send call sent; what follows on the connection waits for it
  Duration retransmit = milliseconds(200);  // doubled for each further loss
  Duration extra_delay;
};

class SimWorld {
 public:
  explicit SimWorld(uint64_t seed, const SimKnobs& knobs = {});
  ~SimWorld();
  SimWorld(const SimWorld&) = delete;
  SimWorld& operator=(const SimWorld&) = delete;

  SimNode& add_node(const std::string& name);
  uint64_t seed() const { return seed_; }
  SimRandom& random() { return random_; }
  const SimKnobs& knobs() const { return knobs_; }
  Instant now() const { return now_; }

  void at(Instant when, std::function<void()> event);
  void run_for(Duration duration);
  // True when the condition held within the time.
  bool run_until(const std::function<bool()>& condition, Duration limit);
  // A digest of every event so far: two runs of one seed must agree.
  uint64_t trace_hash() const { return trace_hash_; }
  void trace(uint64_t value);

  // Between two nodes, in both directions unless said otherwise: bytes are held back (not lost) until healed.
  void partition(const std::string& from, const std::string& to, bool both_ways = true);
  void heal(const std::string& from, const std::string& to);
  void heal_all();
  bool partitioned(const std::string& from, const std::string& to) const;
  void stall(const std::string& from, const std::string& to, Duration duration);  // a partition that heals by itself
  void set_link(const std::string& from, const std::string& to, const SimLink& link);
  void clear_links() { links_.clear(); }
  // What links did to what was sent.
  struct LinkCounts {
    uint64_t lost = 0;
    uint64_t slowed = 0;
  };
  const LinkCounts& link_counts() const { return link_counts_; }
  // What a node has on its way to this port, on the connections that there are, arrives only after so long: also what
  // it had sent on one that it closes meanwhile. Other connections between the two go on.
  void hold_connections(const std::string& from, uint16_t port, Duration duration);
  // Resets every connection between two nodes; bytes on their way are lost.
  void cut_connections(const std::string& one, const std::string& other);

  SimDisk& disk(const std::string& node, const std::string& path);
  // The machines' RDMA adapters; partitions and link delays are the network's.
  SimRdmaFabric& rdma();
  // Files that a node's read_secret_file() finds.
  void put_secret_file(const std::string& node, const std::string& path, const std::string& text) {
    secret_files_[node + ":" + path] = text;
  }

 private:
  friend class SimNode;
  friend class SimPoller;
  friend class SimSocket;
  friend class SimListener;
  friend class SimFile;
  friend class SimWorldRdma;
  Duration random_delay(Duration min, Duration max);
  Duration travel_time(const std::string& from, const std::string& to);
  // A machine without power has the address: nobody answers, not even to refuse.
  bool dark(const Address& address) const;
  bool turn_all();
  bool advance(Instant limit);
  struct Event {
    Instant when;
    uint64_t sequence;
    std::function<void()> run;
    bool operator<(const Event& other) const {
      return when != other.when ? when > other.when : sequence > other.sequence;
    }
  };
  uint64_t seed_;
  SimKnobs knobs_;
  SimRandom random_;
  Instant now_{seconds(1000).ns};
  uint64_t event_sequence_ = 0;
  uint64_t trace_hash_ = 0xcbf29ce484222325;
  std::priority_queue<Event> events_;
  std::vector<std::unique_ptr<SimNode>> nodes_;
  std::map<std::string, std::string> secret_files_;        // by "node:path"
  std::map<std::string, std::unique_ptr<SimDisk>> disks_;  // by "node:path"; outlive crashes
  std::vector<std::pair<std::string, std::string>> partitions_;
  std::map<std::pair<std::string, std::string>, SimLink> links_;
  LinkCounts link_counts_;
  std::vector<SimSocket*> sockets_;
  std::vector<SimListener*> listeners_;
  std::unique_ptr<SimRdmaGround> rdma_ground_;
  std::unique_ptr<SimRdmaFabric> rdma_;  // from the first use of it
  std::vector<std::pair<SimNode*, Address>> dark_;
  uint16_t next_port_ = 20000;
};

// One process. Its loops run while it is not paused; after crash() nothing of it may be used but restart().
class SimNode final : public Env {
 public:
  SimNode(SimWorld& world, std::string name) : world_(world), name_(std::move(name)) {}
  Instant now() const override { return local(world_.now()); }
  int64_t wall_ms() const override { return world_.now().ns / 1'000'000 + wall_offset_.to_ms(); }
  void random(void* out, size_t length_bytes) override;
  Result<std::unique_ptr<Poller>> make_poller(const PollerOptions& options) override;
  std::unique_ptr<LoopHandle> start(Loop& loop, const LoopOptions& options) override;
  Result<std::string> read_secret_file(const std::string& path) override;

  const std::string& name() const { return name_; }
  SimWorld& world() { return world_; }
  // SIGSTOP and SIGCONT.
  void pause() { paused_ = true; }
  void resume() { paused_ = false; }
  bool paused() const { return paused_; }
  // SIGKILL: the kernel closes its sockets (what was sent may still arrive) and its disk requests in flight happen in
  // any part. What lived in the process is abandoned by the caller, never destroyed: a killed process runs no
  // destructors.
  void crash();
  // The machine loses power: unflushed writes of its disks are lost in any part, and nobody tells its peers; they hear
  // of it when the machine is up again and does not know their connections.
  void power_cut();
  bool crashed() const { return crashed_; }
  uint64_t incarnation() const { return incarnation_; }
  void restart();

  // The monotonic clock runs by so many millionths too fast (or too slow), or jumps ahead; never back.
  void set_clock_rate(int32_t parts_per_million);
  void jump_clock(Duration ahead);
  void jump_wall_clock(Duration by) { wall_offset_ = wall_offset_ + by; }  // any direction

 private:
  friend class SimWorld;
  friend class SimWorldRdma;
  friend class SimPoller;
  struct Running {
    Loop* loop;
    bool alive;
  };
  SimWorld& world_;
  std::string name_;
  Instant local(Instant world) const;
  Instant world_time(Instant local) const;  // when this node's clock will show it
  void stop(bool power_lost);
  bool paused_ = false;
  bool powered_off_ = false;
  bool crashed_ = false;
  uint64_t incarnation_ = 1;
  // Its clock showed clock_base_local_ at clock_base_world_ and has run by clock_ppm_ too fast since.
  Instant clock_base_world_;
  Instant clock_base_local_;
  int32_t clock_ppm_ = 0;
  Duration wall_offset_;
  std::vector<std::shared_ptr<Running>> loops_;
};

}  // namespace basalt::env
