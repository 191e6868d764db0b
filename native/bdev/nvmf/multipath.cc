// SPDX-License-Identifier: Apache-2.0
// The path half of the multipath host: connecting, losing, coming back.
#include "bdev/nvmf/multipath.h"

#include <algorithm>

namespace basalt::bdev {

const char* path_state_name(PathState state) {
  switch (state) {
    case PathState::connecting:
      return "connecting";
    case PathState::live:
      return "live";
    case PathState::lost:
      return "lost";
    case PathState::failed:
      return "failed";
  }
  return "unknown";
}

// ---- path ----------------------------------------------------------------------------------------------------------

NvmfPath::NvmfPath(NvmfController& set, nvmf::HostTransport& transport, nvmf::HostAddress address)
    : set_(set), transport_(transport), address_(std::move(address)) {}

NvmfPath::~NvmfPath() {
  BASALT_ASSERT(controller_ == nullptr);
}

void NvmfPath::controller_lost(const Error& reason) {
  state_ = PathState::lost;
  lost_since_ = set_.reactor_.now();
  last_error_ = reason.message;
  set_.paths_changed();
  wake_.set();
}

void NvmfPath::namespaces_changed() {
  set_.paths_changed();
}

Task<Outcome> NvmfPath::connect_once() {
  controller_ = std::make_unique<nvmf::HostController>(set_.reactor_, transport_, set_.controller_options(address_),
                                                       static_cast<nvmf::HostController::Listener*>(this));
  Outcome outcome = co_await controller_->connect();
  if (outcome.ok()) outcome = set_.fits(*controller_);
  if (outcome.ok() && !stopping_) {
    state_ = PathState::live;
    co_return outcome;
  }
  if (!outcome) last_error_ = outcome.error().message;
  co_await controller_->close();
  controller_.reset();
  co_return outcome;
}

void NvmfPath::start_keeping() {
  (void)gate_.enter();
  spawn(keep());
}

Task<void> NvmfPath::keep() {
  Gate::Leaver leaver(gate_);
  Reactor& reactor = set_.reactor_;
  const MultipathOptions& options = set_.options();
  while (!stopping_) {
    while (state_ == PathState::live && !stopping_)
      co_await wake_.wait(reactor);
    co_await controller_->close();
    controller_.reset();
    Duration delay = options.reconnect_delay;
    while (!stopping_ && state_ != PathState::live) {
      state_ = PathState::lost;
      const Duration gone = reactor.now() - lost_since_;
      if (gone >= options.ctrlr_loss_timeout) {
        state_ = PathState::failed;
        set_.paths_changed();
        co_return;
      }
      wake_.clear();
      co_await wake_.wait_for(reactor, std::min(delay, options.ctrlr_loss_timeout - gone));
      delay = std::min(delay * 2, options.reconnect_delay_max);
      if (stopping_) break;
      state_ = PathState::connecting;
      (void)co_await connect_once();
    }
    set_.paths_changed();
  }
  if (controller_) {
    co_await controller_->close();
    controller_.reset();
  }
}

Task<void> NvmfPath::stop() {
  stopping_ = true;
  // A live one shuts down in order, in keep(); one that is connecting is cut short.
  if (controller_ && state_ == PathState::connecting) controller_->abort({Errc::closed, "detached"});
  wake_.set();
  co_await gate_.close();
  if (controller_) {  // never kept
    co_await controller_->close();
    controller_.reset();
  }
  state_ = PathState::failed;
}

// ---- controller ----------------------------------------------------------------------------------------------------

NvmfController::NvmfController(Reactor& reactor, MultipathOptions options)
    : reactor_(reactor), options_(std::move(options)) {
  constexpr Duration for_ever = seconds(int64_t{100} * 365 * 24 * 3600);  // fits beside any Instant
  options_.ctrlr_loss_timeout = std::min(options_.ctrlr_loss_timeout, for_ever);
  if (options_.hostid.is_zero()) reactor_.env().random(options_.hostid.bytes.data(), options_.hostid.bytes.size());
}

NvmfController::~NvmfController() {
  BASALT_ASSERT(paths_.empty());
}

nvmf::HostControllerOptions NvmfController::controller_options(const nvmf::HostAddress& address) const {
  nvmf::HostControllerOptions out;
  out.address = address;
  out.subnqn = options_.subnqn;
  out.hostnqn = options_.hostnqn;
  out.hostid = options_.hostid;
  out.keep_alive_ms = options_.keep_alive_ms;
  out.connect_timeout = options_.connect_timeout;
  out.command_timeout = options_.command_timeout;
  out.io_queue_count = options_.io_queue_count;
  out.io_queue_depth = options_.io_queue_depth;
  return out;
}

// A further path must lead to the same namespaces; one that is missing there for the moment does no harm.
Outcome NvmfController::fits(nvmf::HostController& controller) const {
  for (const auto& bdev : bdevs_) {
    const nvmf::HostNamespace* ns = controller.find(bdev->nsid());
    if (ns != nullptr && !bdev->is_same(*ns)) {
      return Error{Errc::invalid_argument, "traddr: namespace " + std::to_string(bdev->nsid()) + " at " +
                                               controller.options().address.to_string() + " is not " +
                                               bdev->info().name + " (another UUID, NGUID or block size)"};
    }
  }
  return success();
}

void NvmfController::make_bdevs(nvmf::HostController& controller) {
  for (const nvmf::HostNamespace& ns : controller.namespaces()) {
    bdevs_.push_back(std::make_unique<NvmfBdev>(*this, ns, controller.info()));
  }
}

Task<Outcome> NvmfController::add_path(nvmf::HostTransport& transport, nvmf::HostAddress address) {
  for (size_t i = 0; i < paths_.size(); i++) {
    if (paths_[i]->address().traddr != address.traddr || paths_[i]->address().trsvcid != address.trsvcid) continue;
    if (paths_[i]->state() != PathState::failed) {
      co_return Error{Errc::exists, "traddr: " + address.to_string() + " is a path of " + options_.name + " already"};
    }
    paths_.erase(paths_.begin() + static_cast<long>(i));  // given up: it may be tried anew
    paths_changed();
    break;
  }
  if (closing_ || !gate_.enter()) co_return Error{Errc::closed, options_.name + " is being detached"};
  Gate::Leaver leaver(gate_);
  auto path = std::make_unique<NvmfPath>(*this, transport, std::move(address));
  Outcome outcome = co_await path->connect_once();
  if (outcome.ok() && closing_) outcome = Error{Errc::closed, options_.name + " is being detached"};
  if (!outcome) {
    co_await path->stop();
    co_return outcome;
  }
  if (!made_) {
    made_ = true;
    make_bdevs(path->controller());
  }
  paths_.push_back(std::move(path));
  paths_.back()->start_keeping();
  paths_changed();
  co_return success();
}

void NvmfController::paths_changed() {
  if (closing_) return;
  for (const auto& bdev : bdevs_)
    bdev->refresh_views();
}

bool NvmfController::hopeful() const {
  return std::any_of(paths_.begin(), paths_.end(), [](const auto& path) { return path->state() != PathState::failed; });
}

Task<void> NvmfController::close() {
  closing_ = true;
  co_await gate_.close();
  // Sent commands end by their association's end; waiting ones at once.
  for (const auto& bdev : bdevs_) {
    bdev->closing_ = true;
    bdev->kick();
  }
  for (size_t i = 0; i < paths_.size(); i++)
    co_await paths_[i]->stop();
  for (size_t i = 0; i < bdevs_.size(); i++)
    (void)co_await bdevs_[i]->close();
  bdevs_.clear();
  paths_.clear();
}

}  // namespace basalt::bdev
