// SPDX-License-Identifier: Apache-2.0
// SimRdmaFabric: the RDMA adapters of a simulated world and what connects them. It moves memory to memory at the
// moments that a real one may: a source is read when the message arrives, a destination written then or, by a read,
// when the answer comes back; so what is reused too early shows.
//
// What it can do to you: queue pairs that break, completions that are lost with them, peers without receives, keys that
// are out of bounds, closed or another connection's, private data longer than what was sent, refused connections and
// registrations, adapters that go, partitions, peers whose machine has vanished.
//
// Works on any ground that has virtual time: SimWorld, or a test's own.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "env/rdma.h"
#include "env/sim/sim_random.h"

namespace basalt::env {

class SimRdmaConnection;
class SimRdmaDevice;
class SimRdmaListener;
class SimRdmaWindow;

// What the fabric needs of the world that it is in.
class SimRdmaGround {
 public:
  virtual ~SimRdmaGround() = default;
  virtual Instant now() const = 0;
  virtual void at(Instant when, std::function<void()> event) = 0;
  virtual Duration travel_time(const std::string& from, const std::string& to) = 0;
  virtual bool reachable(const std::string& from, const std::string& to) const = 0;
};

struct SimRdmaKnobs {
  RdmaLimits limits{.pieces_max = 16,
                    .send_depth_max = 4096,
                    .receive_depth_max = 4096,
                    .shared_receive_depth_max = 16384,
                    .window_count_max = 65536};
  Duration rnr_delay = milliseconds(1);
  Duration retransmit = milliseconds(100);
  Duration give_up = seconds(4);          // on a peer that does not answer
  Duration connect_give_up = seconds(8);  // the same while connecting
  double pad_private_data_chance = 0.5;
  size_t backlog_max = 128;
  // Faults; may be changed at any time.
  double lose_completion_chance = 0;  // of a request that was under way when its connection broke
  double refuse_chance = 0;           // of a connection attempt
  size_t pinned_bytes_max = SIZE_MAX;
};

// What exists now; a test that has ended everything finds zeroes.
struct SimRdmaCounts {
  size_t connections = 0;
  size_t listeners = 0;
  size_t regions = 0;
  size_t windows = 0;
  size_t receive_queues = 0;
  size_t pinned_bytes = 0;
  bool operator==(const SimRdmaCounts&) const = default;
};

class SimRdmaFabric {
 public:
  SimRdmaFabric(SimRdmaGround& ground, uint64_t seed) : ground_(ground), random_(seed) {}
  SimRdmaFabric(const SimRdmaFabric&) = delete;
  SimRdmaFabric& operator=(const SimRdmaFabric&) = delete;

  SimRdmaKnobs knobs;
  SimRdmaCounts counts() const;
  uint64_t moved_bytes() const { return moved_bytes_; }  // by reads and writes into a peer's memory

  // Every machine has the adapter "rdma0"; more are added. One that is removed does not come back.
  void add_device(const std::string& node, const std::string& name) { devices_[node].insert(name); }
  void remove_device(const std::string& node, const std::string& name);
  // An asynchronous error on the queue pairs of this node: it is told, its peers find out.
  void break_queue_pairs(const std::string& node);
  // The process has ended, or the machine has lost power: then nobody tells its peers.
  void node_stopped(const std::string& node, bool power_lost);

 private:
  friend class SimRdma;
  friend class SimRdmaConnection;
  friend class SimRdmaDevice;
  friend class SimRdmaListener;
  friend class SimRdmaPending;
  friend class SimRdmaRegion;
  friend class SimRdmaWindow;
  const std::string* device_of(const std::string& node);  // one that works; nullptr: none
  SimRdmaListener* find_listener(const Address& address);
  SimRdmaWindow* find_window(uint32_t key);
  uint32_t next_key() { return last_key_ += 1 + static_cast<uint32_t>(random_.below(1000)); }

  SimRdmaGround& ground_;
  SimRandom random_;
  uint32_t last_key_ = 0x100;
  uint64_t moved_bytes_ = 0;
  uint16_t next_port_ = 30000;
  std::map<std::string, std::set<std::string>> devices_;  // by node
  std::vector<SimRdmaDevice*> open_devices_;
  std::vector<SimRdmaConnection*> connections_;
  std::vector<SimRdmaListener*> listeners_;
  std::vector<SimRdmaWindow*> windows_;
};

}  // namespace basalt::env
