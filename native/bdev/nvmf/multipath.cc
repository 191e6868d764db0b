// SPDX-License-Identifier: Apache-2.0
// The path half of the multipath host: connecting, losing, coming back.
#include "bdev/nvmf/multipath.h"

#include <algorithm>

namespace basalt::bdev {
namespace {

// An attempt while nothing is usable: a network that heals is noticed by a new attempt sooner than by an old one, whose
// packets are sent again ever more rarely. Now and then one takes its time, for a peer that is slow.
constexpr Duration hasty_connect_timeout = seconds(2);
constexpr unsigned patient_every = 4;

}  // namespace

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
  remnant_.reset();
  lost_since_ = set_.reactor_.now();
  last_error_ = reason.message;
  set_.paths_changed();
  if (!set_.usable()) set_.sign_of_life(*this);  // the others are needed sooner now
  wake_.set();
}

void NvmfPath::namespaces_changed() {
  const bool usable = set_.usable();
  set_.paths_changed();
  if (!usable && set_.usable()) set_.sign_of_life(*this);
}

Task<Outcome> NvmfPath::connect_once(Duration connect_timeout) {
  controller_ = std::make_unique<nvmf::HostController>(set_.reactor_, transport_,
                                                       set_.controller_options(address_, connect_timeout),
                                                       static_cast<nvmf::HostController::Listener*>(this));
  association_ = ++set_.association_count_;
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

// With a jitter, so that the hosts of a network that heals do not come all at once.
Duration NvmfPath::pause(Duration delay) const {
  const MultipathOptions& options = set_.options();
  const Duration limit = set_.usable() ? options.reconnect_delay_max
                                       : std::min(options.reconnect_delay_max, options.reconnect_delay_unusable_max);
  const Duration pause = std::min(delay, limit);
  uint32_t random = 0;
  set_.reactor_.env().random(&random, sizeof(random));
  return pause * 3 / 4 + pause * (random % 1024) / 2048;
}

void NvmfPath::hurry() {
  if (state_ != PathState::lost) return;
  hurried_ = true;
  wake_.set();
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
    unsigned attempt = 0;
    hurried_ = false;
    while (!stopping_ && state_ != PathState::live) {
      state_ = PathState::lost;
      const Duration gone = reactor.now() - lost_since_;
      if (gone >= options.ctrlr_loss_timeout) {
        state_ = PathState::failed;
        set_.paths_changed();
        co_return;
      }
      wake_.clear();
      co_await wake_.wait_for(reactor, std::min(pause(delay), options.ctrlr_loss_timeout - gone));
      delay =
          std::exchange(hurried_, false) ? options.reconnect_delay : std::min(delay * 2, options.reconnect_delay_max);
      if (stopping_) break;
      state_ = PathState::connecting;
      const bool hasty = !set_.usable() && ++attempt % patient_every != 0;
      (void)co_await connect_once(hasty ? std::min(options.connect_timeout, hasty_connect_timeout)
                                        : options.connect_timeout);
    }
    set_.paths_changed();
    if (state_ == PathState::live) set_.sign_of_life(*this);
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

nvmf::HostControllerOptions NvmfController::controller_options(const nvmf::HostAddress& address,
                                                               Duration connect_timeout) const {
  nvmf::HostControllerOptions out;
  out.address = address;
  out.subnqn = options_.subnqn;
  out.hostnqn = options_.hostnqn;
  out.hostid = options_.hostid;
  out.keep_alive_ms = options_.keep_alive_ms;
  out.connect_timeout = connect_timeout;
  out.command_timeout = options_.command_timeout;
  out.io_queue_count = options_.io_queue_count;
  out.io_queue_depth = options_.io_queue_depth;
  out.authentication = options_.authentication;
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
  Outcome outcome = co_await path->connect_once(options_.connect_timeout);
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
  remnants_.paths_changed();
}

void NvmfController::kick() {
  for (const auto& bdev : bdevs_)
    bdev->kick();
}

bool NvmfController::usable() const {
  return std::all_of(bdevs_.begin(), bdevs_.end(),
                     [](const auto& bdev) { return bdev->unusable_since_ == Instant::never(); });
}

void NvmfController::sign_of_life(const NvmfPath& from) {
  for (const auto& path : paths_) {
    if (path.get() != &from) path->hurry();
  }
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
  co_await remnants_.close();
  for (size_t i = 0; i < bdevs_.size(); i++)
    (void)co_await bdevs_[i]->close();
  bdevs_.clear();
  paths_.clear();
}

}  // namespace basalt::bdev
