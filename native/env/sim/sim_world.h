// SPDX-License-Identifier: Apache-2.0
// The simulated world: seeded, in virtual time, in one thread. Nodes are processes on machines; each has an Env of its
// own. Time moves only when nothing is left to do at the present instant. One seed gives one history.
//
//   SimWorld world(seed);
//   SimNode& a = world.add_node("a");         // an env::Env: give it to an Engine or a Reactor
//   world.run_for(seconds(1));  world.run_until([&] { return done; }, seconds(30));
//
// What it can do to you: short transfers, spurious wake-ups, delays, connections cut or stalled, partitions, crashed
// processes (sockets reset; completed writes stay), power cuts (unflushed writes lost or torn by 512 bytes), failing
// and slow disks.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "env/env.h"

namespace basalt::env {

class SimNode;
class SimDisk;
class SimSocket;
class SimListener;

// xoshiro256** seeded by splitmix64: small, fast, the same on every machine.
class SimRandom {
 public:
  explicit SimRandom(uint64_t seed);
  uint64_t next();
  uint64_t below(uint64_t bound) { return bound == 0 ? 0 : next() % bound; }
  bool chance(double probability) { return static_cast<double>(next() >> 11) * 0x1p-53 < probability; }

 private:
  uint64_t state_[4];
};

struct SimKnobs {
  Duration network_delay_min = microseconds(5);
  Duration network_delay_max = microseconds(50);
  Duration disk_delay_min = microseconds(10);
  Duration disk_delay_max = microseconds(200);
  size_t socket_buffer_bytes = 256 * 1024;
  double short_transfer_chance = 0.1;
  double spurious_wake_chance = 0.01;
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
  // Resets every connection between two nodes; bytes on their way are lost.
  void cut_connections(const std::string& one, const std::string& other);

  SimDisk& disk(const std::string& node, const std::string& path);

 private:
  friend class SimNode;
  friend class SimPoller;
  friend class SimSocket;
  friend class SimListener;
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
  std::map<std::string, std::unique_ptr<SimDisk>> disks_;  // by "node:path"; outlive crashes
  std::vector<std::pair<std::string, std::string>> partitions_;
  std::vector<SimSocket*> sockets_;
  std::set<SimListener*> listeners_;
  uint16_t next_port_ = 20000;
};

// One process. Its loops run while it is not paused; after crash() nothing of it may be used but restart().
class SimNode final : public Env {
 public:
  SimNode(SimWorld& world, std::string name) : world_(world), name_(std::move(name)) {}
  Instant now() const override { return world_.now() + skew_; }
  int64_t wall_ms() const override { return world_.now().ns / 1'000'000; }
  void random(void* out, size_t length_bytes) override;
  Result<std::unique_ptr<Poller>> make_poller(const PollerOptions& options) override;
  std::unique_ptr<LoopHandle> start(Loop& loop, const LoopOptions& options) override;

  const std::string& name() const { return name_; }
  SimWorld& world() { return world_; }
  // SIGSTOP and SIGCONT.
  void pause() { paused_ = true; }
  void resume() { paused_ = false; }
  bool paused() const { return paused_; }
  // SIGKILL: resets the process's sockets and forgets its disk requests in flight (each may or may not have happened).
  // What lived in the process is abandoned by the caller, never destroyed: a killed process runs no destructors.
  void crash();
  // The machine loses power: like crash(), and unflushed writes of its disks are lost or torn.
  void power_cut();
  bool crashed() const { return crashed_; }
  uint64_t incarnation() const { return incarnation_; }
  void restart() { crashed_ = paused_ = false; }

 private:
  friend class SimWorld;
  friend class SimPoller;
  struct Running {
    Loop* loop;
    bool alive;
  };
  SimWorld& world_;
  std::string name_;
  bool paused_ = false;
  bool crashed_ = false;
  uint64_t incarnation_ = 1;
  Duration skew_;
  std::vector<std::shared_ptr<Running>> loops_;
};

// A disk's contents and faults. Made by opening it (create_bytes) or by SimWorld::disk().
class SimDisk {
 public:
  static constexpr size_t sector_bytes = 512;
  void resize(uint64_t size_bytes) {
    stable_.resize(size_bytes);
    current_.resize(size_bytes);
  }
  uint64_t size_bytes() const { return current_.size(); }

  // Faults.
  bool fail_writes = false;
  bool fail_reads = false;
  bool fail_flushes = false;
  bool hang = false;  // requests wait until it is false again
  Duration extra_delay;
  size_t atomic_bytes = sector_bytes;  // what a power cut keeps or loses as a whole; a multiple of sectors

  // Every unflushed sector is kept or lost, at random; what is kept becomes stable.
  void power_cut(SimRandom& random);
  void crash(SimRandom& random);
  const std::vector<uint8_t>& contents() const { return current_; }
  std::vector<uint8_t>& contents_for_corruption() { return current_; }

 private:
  friend class SimFile;
  friend class SimPoller;
  void write(uint64_t offset, const Iovec* iov, size_t count, uint64_t length, bool durable);
  void flush();
  bool open_ = false;
  std::vector<FileIo*> in_flight_;
  std::vector<uint8_t> stable_;
  std::vector<uint8_t> current_;
  std::map<uint64_t, bool> unflushed_;  // sectors that differ, or may
};

}  // namespace basalt::env
