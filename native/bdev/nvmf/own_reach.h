// SPDX-License-Identifier: Apache-2.0
// OwnReach: an association that belongs to one member alone. Its identity is the association's host identifier. Any
// NVMe-oF target can be reached so.
#pragma once

#include "bdev/nvmf/reach.h"

namespace basalt::bdev {

class OwnReach final : public Reach, nvmf::HostController::Listener {
 public:
  OwnReach(Reactor& reactor, nvmf::HostTransport& transport, const MemberOptions& options, Reach::Listener& listener);

  Task<Outcome> open(Duration timeout) override;
  void end(Error reason) override;
  Task<void> close() override;
  bool live() const override { return controller_ != nullptr && controller_->live(); }
  bool shared() const override { return false; }
  const nvmf::HostNamespace* space() const override;
  const nvmf::HostControllerInfo& info() const override { return controller_->info(); }
  const std::string& incarnation() const override { return controller_->info().serial_number; }
  void set_epoch(uint64_t) override {}
  void submit(nvmf::HostCommand* command) override;
  void answered(nvmf::HostCommand*) override {}
  Task<nvmf::HostController::Answer> call(nvmf::HostController::Call call) override;
  void set_command_timeout(Duration timeout) override { controller_->set_command_timeout(timeout); }
  void ask() override;

 private:
  void controller_lost(const Error& reason) override { listener_.reach_lost(reason); }
  void namespaces_changed() override { listener_.reach_changed(); }
  bool vouches() const override { return listener_.vouches(); }

  Reactor& reactor_;
  nvmf::HostTransport& transport_;
  const MemberOptions& options_;
  Reach::Listener& listener_;
  std::unique_ptr<nvmf::HostController> controller_;
};

}  // namespace basalt::bdev
