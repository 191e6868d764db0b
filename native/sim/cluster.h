// SPDX-License-Identifier: Apache-2.0
// Cluster: a whole cluster in one thread and virtual time: disk nodes, controller nodes, hosts and the store, from real
// parts. One seed gives one history. Faults are the members' own (kill, pause, disk faults) and the world's
// (partitions, cuts).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "sim/controller_node.h"
#include "sim/disk_node.h"
#include "sim/history.h"
#include "sim/host.h"
#include "sim/store.h"

namespace basalt::sim {

struct ClusterShape {
  size_t copies = 2;
  size_t legs = 1;
  size_t disk_nodes = 2;  // at least `copies`
  size_t controllers = 2;
  size_t hosts = 1;
  uint64_t leg_blocks = 64;
  bool brief_marks = false;  // marks of few blocks, soon cleared
  // Bit by bit, disk nodes that know no node links: controllers connect to each of their replicas.
  uint64_t disks_without_link = 0;
  Duration lease = milliseconds(300);
  ControllerTiming timing;
  HostTiming host_timing;
  env::SimKnobs world;
  StoreKnobs store;
  PlantedBugs bugs;
};

class Cluster {
 public:
  Cluster(uint64_t seed, const ClusterShape& shape);
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  // Starts everything and waits until the hosts are connected and somebody serves. False: not within the time.
  bool start();
  bool run_until(const std::function<bool()>& condition, Duration limit = seconds(30)) {
    return world().run_until(condition, limit);
  }
  void run_for(Duration duration) { world().run_for(duration); }

  env::SimWorld& world() { return *world_; }
  SimStore& store() { return *store_; }
  DiskNode& disk(size_t index) { return *disks_[index]; }
  ControllerNode& controller(size_t index) { return *controllers_[index]; }
  SimHost& host(size_t index = 0) { return *hosts_[index]; }
  size_t disk_count() const { return disks_.size(); }
  size_t controller_count() const { return controllers_.size(); }
  size_t host_count() const { return hosts_.size(); }
  const ClusterShape& shape() const { return shape_; }
  const VolumeShape& volume() const { return volume_; }
  uint64_t count_blocks() const { return volume_.count_blocks(); }

  // Index of the one that serves under the store's epoch; -1: nobody.
  int active();
  // All copies of all legs are in the store's set, nothing is dirty, nobody waits, and somebody serves.
  bool redundant();
  DiskNode& disk_of(const std::string& replica);

  // Ends every fault: heals, resumes, starts what is down, and keeps supervising until the cluster is redundant and the
  // hosts have their answers. False: it did not come to rest within the limit.
  bool converge(Duration limit = seconds(120));
  // Why it is not at rest, in words.
  std::string unrest();
  // Starts daemons again whose lvstore has failed, as a supervisor does.
  void supervise();

  // Of one operation.
  const Op& op(OpIndex index) const { return log_.ops[index]; }
  bool done(OpIndex index) const { return log_.ops[index].completed_ns != never_ns; }
  bool wait(OpIndex index, Duration limit = seconds(30)) {
    const bool ended = run_until([&] { return done(index); }, limit);
    run_for(nanoseconds(1));  // what is asked next is asked after it, not at the same instant
    return ended;
  }
  OpLog& log() { return log_; }

  void power_cut_everything();  // disks and controllers; recorded in the history
  std::vector<PowerCut>& power_cuts() { return power_cuts_; }

  // The first two controllers and disk nodes divide: c1 with d1, c2 with d2; only c2 has the store.
  void divide();

  // Contents of one replica, read beside the gate; its daemon runs.
  std::vector<BlockValue> image(const std::string& replica);
  // Everything that was seen, and, when `images`, every replica's contents now.
  History history(bool images);
  // The first violation in words; "" when there is none.
  std::string verdict(bool images = true);

 private:
  ClusterShape shape_;
  std::unique_ptr<env::SimWorld> world_;
  std::unique_ptr<SimStore> store_;
  VolumeShape volume_;
  OpLog log_;
  std::vector<PowerCut> power_cuts_;
  int64_t healed_ns_ = never_ns;
  std::vector<std::unique_ptr<DiskNode>> disks_;
  std::vector<std::unique_ptr<ControllerNode>> controllers_;
  std::vector<std::unique_ptr<SimHost>> hosts_;
};

}  // namespace basalt::sim
