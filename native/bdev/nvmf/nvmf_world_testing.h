// SPDX-License-Identifier: Apache-2.0
// NvmfWorld: the multipath host in front of the real target, which has one disk and two listeners.
#pragma once

#include <memory>

#include "bdev/nvmf/multipath.h"
#include "nvmf/transport/target_world_testing.h"

namespace basalt::bdev::testing {

inline constexpr uint64_t nvmf_world_blocks = 2048;

class NvmfWorld {
 public:
  explicit NvmfWorld(const char* trtype, uint64_t seed = 1) : trtype(trtype), world(seed) {
    subsystem = world.add_subsystem(basalt::testing::test_subnqn, &disk);
    a = world.listen(subsystem, trtype);
    b = world.listen(subsystem, trtype);
    options.name = "volume";
    options.subnqn = basalt::testing::test_subnqn;
    options.hostnqn = basalt::testing::test_hostnqn;
    options.keep_alive_ms = 200;
    options.connect_timeout = milliseconds(500);
  }
  ~NvmfWorld() {
    disk.release();
    if (set) world.net.run_void(set->close());
    world.close();
  }
  Outcome attach(bool both) {
    set = std::make_unique<NvmfController>(world.host, options);
    Outcome outcome = add(a);
    if (outcome.ok() && both) outcome = add(b);
    return outcome;
  }
  Outcome add(const nvmf::HostAddress& address) {
    return world.net.run(set->add_path(world.transport(trtype), address));
  }
  NvmfBdev& bdev() { return *set->bdevs().front(); }
  void set_ana(const nvmf::HostAddress& address, nvme::AnaState state) {
    ASSERT_TRUE(world.net.run(subsystem->set_ana_state(world.as_listen(address, trtype), 0, state)).ok());
  }

  const char* const trtype;
  basalt::testing::TargetWorld world;
  basalt::testing::TestDisk disk{world.home, nvmf_world_blocks, 1};
  nvmf::Subsystem* subsystem = nullptr;
  nvmf::HostAddress a;
  nvmf::HostAddress b;
  MultipathOptions options;
  std::unique_ptr<NvmfController> set;
};

}  // namespace basalt::bdev::testing
