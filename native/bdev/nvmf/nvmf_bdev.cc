// SPDX-License-Identifier: Apache-2.0
// The I/O half of the multipath host: choosing a path, judging answers, waiting and sending again.
#include <algorithm>

#include "base/probe.h"
#include "bdev/nvmf/multipath.h"

namespace basalt::bdev {
namespace {

constexpr size_t flights_max = 8192;
constexpr Duration blocked_after_path_error = milliseconds(20);
constexpr Duration look_interval = milliseconds(20);

bool is_ana(nvme::Status status) {
  return status.is(nvme::status::ana_inaccessible) || status.is(nvme::status::ana_transition) ||
         status.is(nvme::status::ana_persistent_loss);
}

bool is_path_error(nvme::Status status) {
  return status.type() == nvme::StatusType::path || status.is(nvme::status::abort_requested) ||
         status.is(nvme::status::aborted_sq_deletion);
}

}  // namespace

NvmfBdev::NvmfBdev(NvmfController& set, const nvmf::HostNamespace& ns, const nvmf::HostControllerInfo& controller)
    : Bdev(set.reactor()), set_(set), nsid_(ns.nsid), uuid_(ns.uuid), nguid_(ns.nguid), flights_(flights_max) {
  fill_nvmf_info(info_, ns, controller);
  info_.name = set.options().name + "n" + std::to_string(nsid_);
  resend_work_.bdev = look_timer_.bdev = this;
  resend_work_.run = [](Work* work) { static_cast<OwnedWork*>(work)->bdev->resend(); };
  look_timer_.run = [](Work* work) { static_cast<OwnedTimer*>(work)->bdev->look_again(); };
}

NvmfBdev::~NvmfBdev() {
  BASALT_ASSERT(gate_.count() == 0 && !resend_queued_);
}

bool NvmfBdev::is_same(const nvmf::HostNamespace& ns) const {
  return ns.nsid == nsid_ && ns.uuid == uuid_ && ns.nguid == nguid_ && ns.block_size_bytes == info_.block_size_bytes;
}

nvme::AnaState NvmfBdev::ana_state(const NvmfPath& path) const {
  for (const View& view : views_) {
    if (view.path == &path && view.present) return view.ana_state;
  }
  return nvme::AnaState::inaccessible;
}

// After any change of the paths: who has this namespace, in which state. The first path that has it gives the size.
void NvmfBdev::refresh_views() {
  std::vector<View> before;
  before.swap(views_);
  bool usable = false;
  bool sized = false;
  for (const auto& path : set_.paths_) {
    View view;
    view.path = path.get();
    for (const View& old : before) {
      if (old.path == path.get()) view.blocked_until = old.blocked_until;
    }
    const nvmf::HostNamespace* ns = path->live() ? path->controller().find(nsid_) : nullptr;
    if (ns != nullptr && is_same(*ns)) {
      view.present = true;
      view.ana_state = ns->ana_state;
      view.geometry = nvmf_geometry(*ns, path->controller().info());
      usable |= ns->ana_state == nvme::AnaState::optimized || ns->ana_state == nvme::AnaState::non_optimized;
      if (!sized) set_size(ns->count_blocks);
      sized = true;
    }
    views_.push_back(view);
  }
  if (usable) {
    unusable_since_ = Instant::never();
  } else if (unusable_since_ == Instant::never()) {
    unusable_since_ = home().now();
  }
  kick();
}

// Optimized before non-optimized; equal ones in turn.
NvmfBdev::View* NvmfBdev::choose() {
  View* best = nullptr;
  for (size_t i = 0; i < views_.size(); i++) {
    View& view = views_[(view_next_ + i) % views_.size()];
    if (!view.present || view.stale || !view.path->live() || view.blocked_until > home().now()) continue;
    if (view.ana_state == nvme::AnaState::optimized) {
      best = &view;
      break;
    }
    if (view.ana_state == nvme::AnaState::non_optimized && best == nullptr) best = &view;
  }
  if (best != nullptr) view_next_ = static_cast<size_t>(best - views_.data()) + 1;
  return best;
}

void NvmfBdev::submit(Io* io) {
  const nvme::Status status = closing_ ? nvme::status::host_aborted : check(*io);
  if (!status.ok()) return complete_later(io, status);
  (void)gate_.enter();
  Flight* flight = flights_.take();
  if (flight == nullptr) {
    ios_without_flight_.push_back(io);
    return;
  }
  flight->begin(io);
  flight->owner = this;
  dispatch(flight);
}

void NvmfBdev::dispatch(Flight* flight) {
  // Behind those that wait already, so that nobody is overtaken for ever.
  View* view = waiting_.empty() ? choose() : nullptr;
  if (view == nullptr) return wait(flight);
  send(flight, *view);
}

void NvmfBdev::send(Flight* flight, View& view) {
  flight->prepare(view.geometry);
  flight->route = view.path;
  flight->done = [](nvmf::HostCommand* command) {
    auto* done = static_cast<Flight*>(command);
    static_cast<NvmfBdev*>(done->owner)->answered(done);
  };
  view.path->controller().submit(flight);
}

void NvmfBdev::answered(Flight* flight) {
  const nvme::Status status = flight->status();
  if (status.ok()) {
    if (!flight->advance()) return finish(flight, nvme::status::success);
    flight->waited = false;
    return dispatch(flight);
  }
  if (!is_path_error(status)) return finish(flight, status);
  flight->path_status = status;
  for (View& view : views_) {
    if (view.path == flight->route) path_error(flight, &view);
  }
  wait(flight);
}

void NvmfBdev::path_error(Flight* flight, View* view) {
  if (flight->lost || !view->path->live()) return;
  if (is_ana(flight->path_status)) {
    view->stale = true;
    view->path->controller().refresh_ana();
  }
  view->blocked_until = home().now() + blocked_after_path_error;
}

void NvmfBdev::wait(Flight* flight) {
  if (!flight->waited) {
    flight->waited = true;
    flight->waiting_since = home().now();
  }
  waiting_.push_back(flight);
  waiting_count_++;
  kick();
}

void NvmfBdev::finish(Flight* flight, nvme::Status status) {
  Io* io = std::exchange(flight->io, nullptr);
  if (Io* next = ios_without_flight_.pop_front()) {
    flight->begin(next);
    dispatch(flight);
  } else {
    flights_.give(flight);
  }
  complete_now(io, status);
  gate_.leave();
}

// Has the waiting ones looked at later in this turn.
void NvmfBdev::kick() {
  if (waiting_.empty() || resend_queued_) return;
  resend_queued_ = true;
  home().defer(&resend_work_);
}

Instant NvmfBdev::give_up_at(const Flight& flight) const {
  const MultipathOptions& options = set_.options();
  const Duration limit = options.fast_io_fail_timeout.ns > 0
                             ? std::min(options.fast_io_fail_timeout, options.ctrlr_loss_timeout)
                             : options.ctrlr_loss_timeout;
  return std::min(flight.waiting_since, unusable_since_) + limit;
}

void NvmfBdev::resend() {
  resend_queued_ = false;
  List<Flight, &Flight::flight_node> ready;
  ready.splice_back(waiting_);
  waiting_count_ = 0;
  const bool hopeless = closing_ || !set_.hopeful();
  const Instant now = home().now();
  while (Flight* flight = ready.pop_front()) {
    View* view = closing_ ? nullptr : choose();
    if (view != nullptr) {
      resent_count_++;
      reach(Mark::path_replay);
      send(flight, *view);
    } else if (hopeless || now >= give_up_at(*flight)) {
      nvme::Status status = flight->path_status;
      if (closing_) status = nvme::status::host_aborted;
      if (status.ok()) status = nvme::status::host_path_error;
      finish(flight, status);
    } else {
      waiting_.push_back(flight);
      waiting_count_++;
    }
  }
  if (!waiting_.empty() && !look_timer_.armed()) home().arm_after(&look_timer_, look_interval);
}

void NvmfBdev::look_again() {
  kick();
}

Task<Outcome> NvmfBdev::close() {
  closing_ = true;
  kick();
  co_await gate_.close();
  while (resend_queued_)
    co_await sleep_for(home(), Duration{0});
  home().cancel(&look_timer_);
  co_return success();
}

}  // namespace basalt::bdev
