// SPDX-License-Identifier: Apache-2.0
// The simulated world as the ground of its RDMA fabric.
#include "env/sim/sim_rdma_fabric.h"
#include "env/sim/sim_world.h"

namespace basalt::env {

class SimWorldRdma final : public SimRdmaGround {
 public:
  explicit SimWorldRdma(SimWorld& world) : world_(world) {}
  Instant now() const override { return world_.now(); }
  void at(Instant when, std::function<void()> event) override { world_.at(when, std::move(event)); }
  Duration travel_time(const std::string& from, const std::string& to) override { return world_.travel_time(from, to); }
  bool reachable(const std::string& from, const std::string& to) const override {
    for (const auto& node : world_.nodes_) {
      if (node->powered_off_ && node->name() == to) return false;
    }
    return !world_.partitioned(from, to);
  }

 private:
  SimWorld& world_;
};

SimRdmaFabric& SimWorld::rdma() {
  if (rdma_ == nullptr) {
    rdma_ground_ = std::make_unique<SimWorldRdma>(*this);
    rdma_ = std::make_unique<SimRdmaFabric>(*rdma_ground_, seed_ ^ 0x7264);
  }
  return *rdma_;
}

}  // namespace basalt::env
