// SPDX-License-Identifier: Apache-2.0
// DiskNode: a machine with one disk and the daemon that serves replicas from it: file bdev, lvstore, one lvol with a
// one-writer namespace per replica, NVMe/TCP. A daemon draws its incarnation anew at each start and ends by itself when
// its lvstore fails (a supervisor starts it again).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bdev/file/file.h"
#include "bdev/lvol/lvstore.h"
#include "nvmf/target/target.h"
#include "sim/planted_bugs.h"
#include "sim/process.h"

namespace basalt::sim {

struct DiskNodeOptions {
  std::string name;
  Endpoint endpoint;
  std::vector<std::string> replicas;
  uint64_t replica_bytes = 0;
  uint64_t disk_bytes = 0;
  bool link = true;  // false: it is of a version that knows no node links
  PlantedBugs bugs;
};

std::string replica_nqn(const std::string& replica);
std::string node_link_nqn();

class DiskNode {
 public:
  DiskNode(env::SimWorld& world, DiskNodeOptions options);
  ~DiskNode();

  const std::string& name() const { return options_.name; }
  const DiskNodeOptions& options() const { return options_; }
  env::SimNode& node() { return node_; }
  env::SimDisk& disk() { return world_.disk(options_.name, "disk"); }

  void start();
  void kill();       // SIGKILL
  void power_cut();  // kills, too
  bool up() const { return daemon_ != nullptr; }
  bool ready() const;               // serves all replicas
  bool failed() const;              // its lvstore refuses writes until it is loaded again
  std::string incarnation() const;  // of its daemon; empty while there is none
  uint64_t conflict_count() const;
  // The replica's lvol, while the daemon runs; for looking at it from beside the gate.
  bdev::Lvol* lvol(const std::string& replica);
  ns::Namespace* space(const std::string& replica);
  Reactor& reactor();

 private:
  struct Daemon;
  env::SimWorld& world_;
  const DiskNodeOptions options_;
  env::SimNode& node_;
  std::unique_ptr<Daemon> daemon_;
};

}  // namespace basalt::sim
