// SPDX-License-Identifier: Apache-2.0
#include "bdev/nvmf/own_reach.h"

#include <algorithm>

#include "bdev/nvmf/member.h"

namespace basalt::bdev {

OwnReach::OwnReach(Reactor& reactor, nvmf::HostTransport& transport, const MemberOptions& options,
                   Reach::Listener& listener)
    : reactor_(reactor), transport_(transport), options_(options), listener_(listener) {}

Task<Outcome> OwnReach::open(Duration timeout) {
  nvmf::HostControllerOptions options;
  options.address = options_.address;
  options.subnqn = options_.subnqn;
  options.hostnqn = options_.hostnqn;
  options.authentication = options_.authentication;
  reactor_.env().random(options.hostid.bytes.data(), options.hostid.bytes.size());
  options.keep_alive_ms = options_.keep_alive_ms;
  options.keep_alive_rare_ms = std::max(options_.keep_alive_ms, options_.keep_alive_rare_ms);
  options.connect_timeout = options.admin_timeout = options.command_timeout = timeout;
  options.io_queue_depth = options_.io_queue_depth;
  nvmf::HostController::Listener* listener = this;
  controller_ = std::make_unique<nvmf::HostController>(reactor_, transport_, std::move(options), listener);
  Outcome connected = co_await controller_->connect();
  co_return connected;
}

const nvmf::HostNamespace* OwnReach::space() const {
  return controller_->find(options_.nsid);
}

void OwnReach::end(Error reason) {
  if (controller_) controller_->abort(std::move(reason));
}

void OwnReach::submit(nvmf::HostCommand* command) {
  command->unaged = false;
  controller_->submit(command);
}

Task<nvmf::HostController::Answer> OwnReach::call(nvmf::HostController::Call call) {
  const auto answer = co_await controller_->io_call(call);
  co_return answer;
}

void OwnReach::ask() {
  if (controller_) controller_->ask();
}

Task<void> OwnReach::close() {
  if (controller_) co_await controller_->close();
}

}  // namespace basalt::bdev
