// SPDX-License-Identifier: Apache-2.0
// Intruder: an association with a replica, as a controller of some epoch would have it; for tests of the gate.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bdev/nvmf/member.h"
#include "nvmf/transport/tcp/tcp_host.h"
#include "sim/cluster.h"

namespace basalt::sim {

class Intruder {
 public:
  Intruder(Cluster& cluster, const std::string& name);
  // Its process is killed; nothing of it may be used any more.
  static void kill(std::unique_ptr<Intruder> intruder);

  Result<bdev::MemberInfo> take(DiskNode& disk, const std::string& replica, uint64_t epoch);
  // One block; a write's bytes are no stamp.
  nvme::Status io(bdev::IoType type, uint64_t lba);

 private:
  Cluster& cluster_;
  Process process_;
  nvmf::TcpHostTransport transport_;
  std::unique_ptr<bdev::Member> member_;
  std::vector<uint8_t> data_;
};

}  // namespace basalt::sim
