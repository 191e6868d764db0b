// SPDX-License-Identifier: Apache-2.0
#include "sim/controller_daemon.h"

namespace basalt::sim {

std::string volume_nqn() {
  return "nqn.2026-01.sim:volume";
}

ControllerNode::ControllerNode(env::SimWorld& world, SimStore& store, ControllerNodeOptions options)
    : store_(store), options_(std::move(options)), node_(world.add_node(options_.name)) {}

ControllerNode::~ControllerNode() {
  kill();
}

void ControllerNode::start() {
  BASALT_ASSERT(daemon_ == nullptr);
  node_.restart();
  daemon_ = std::make_unique<Daemon>(node_, store_, options_, &promotion_count_);
  spawn(daemon_->run());
}

void ControllerNode::kill() {
  if (daemon_ == nullptr) return;
  node_.crash();
  bury(daemon_);
}

ControllerState ControllerNode::state() const {
  return daemon_ == nullptr ? ControllerState::idle : daemon_->state;
}

uint64_t ControllerNode::epoch() const {
  return daemon_ == nullptr || daemon_->assembly == nullptr ? 0 : daemon_->assembly->epoch();
}

Assembly* ControllerNode::assembly() {
  return daemon_ == nullptr ? nullptr : daemon_->assembly.get();
}

bdev::SlotBdev& ControllerNode::slot() {
  BASALT_ASSERT(daemon_ != nullptr);
  return *daemon_->slot;
}

}  // namespace basalt::sim
