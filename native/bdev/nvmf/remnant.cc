// SPDX-License-Identifier: Apache-2.0
#include "bdev/nvmf/remnant.h"

#include <algorithm>

#include "base/probe.h"
#include "bdev/nvmf/multipath.h"

namespace basalt::bdev {
namespace {

constexpr Duration ask_interval = milliseconds(50);
constexpr Duration in_progress_holds = seconds(1);
// A controller without keep-alive never finds out by itself.
constexpr uint32_t keep_alive_ms_without = 15'000;

bool has(const std::vector<uint64_t>& list, uint64_t association) {
  return std::find(list.begin(), list.end(), association) != list.end();
}

}  // namespace

std::shared_ptr<Remnant> Remnants::add(const nvmf::HostController& lost) {
  const nvmf::HostControllerInfo& info = lost.info();
  const uint32_t keep_alive_ms =
      lost.options().keep_alive_ms != 0 ? lost.options().keep_alive_ms : keep_alive_ms_without;
  auto remnant = std::make_shared<Remnant>();
  remnant->instance = {info.cntlid, info.ciu, info.cirn};
  remnant->lost_at = set_.reactor().now();
  remnant->quiet_at = remnant->lost_at + milliseconds(keep_alive_ms) * (info.traffic_keep_alive ? 3 : 2) +
                      milliseconds(info.command_quiesce_ms);
  remnants_.push_back(remnant);
  if (closing_ || !gate_.enter()) return remnant;
  spawn(settle(remnant));
  return remnant;
}

bool Remnants::may_send(const Remnant& remnant, const NvmfPath& path, Instant accessible_since) const {
  if (remnant.ended) return true;
  if (accessible_since <= remnant.lost_at) return false;
  const nvmf::HostControllerInfo& info = path.controller().info();
  return info.cross_reset_limit == 0 || remnant.instance.cirn == 0 || has(remnant.unknown, path.association());
}

void Remnants::paths_changed() {
  const auto remnants = remnants_;
  for (const auto& remnant : remnants) {
    remnant->unknown.clear();  // it may be able to tell now
    remnant->wake.set();
  }
}

bool Remnants::is_quiet(const Remnant& remnant) const {
  const Instant now = set_.reactor().now();
  return now >= remnant.quiet_at && now >= remnant.seen_in_progress_at + in_progress_holds;
}

Task<void> Remnants::settle(std::shared_ptr<Remnant> remnant) {
  Gate::Leaver leaver(gate_);
  Reactor& reactor = set_.reactor();
  co_await hop(reactor);  // the loss is told to everybody first
  while (!closing_ && !remnant->ended) {
    ask_all(remnant);
    if (remnant->ended || is_quiet(*remnant)) break;
    remnant->wake.clear();
    co_await remnant->wake.wait_for(reactor, ask_interval);
  }
  remnant->ended = remnant->ended || !closing_;
  std::erase(remnants_, remnant);
  set_.kick();
}

void Remnants::ask_all(const std::shared_ptr<Remnant>& remnant) {
  for (const auto& path : set_.paths()) {
    if (!path->live() || has(remnant->asking, path->association()) || has(remnant->unknown, path->association())) {
      continue;
    }
    if (path->controller().info().cross_reset_limit == 0 || remnant->instance.cirn == 0 || !gate_.enter()) continue;
    remnant->asking.push_back(path->association());
    spawn(ask(remnant, path.get()));
  }
}

// The path and its controller may be gone after the question.
Task<void> Remnants::ask(std::shared_ptr<Remnant> remnant, NvmfPath* path) {
  Gate::Leaver leaver(gate_);
  using Remains = nvmf::HostController::Remains;
  const uint64_t association = path->association();
  const Remains remains = co_await path->controller().end_instance(remnant->instance);
  std::erase(remnant->asking, association);
  switch (remains) {
    case Remains::ended:
      reach(Mark::old_copy_ended);
      remnant->ended = true;
      break;
    case Remains::in_progress:
      remnant->seen_in_progress_at = set_.reactor().now();
      co_return;  // asked again after a while
    case Remains::unknown:
      remnant->unknown.push_back(association);
      set_.kick();
      co_return;
  }
  remnant->wake.set();
}

Task<void> Remnants::close() {
  closing_ = true;
  paths_changed();
  co_await gate_.close();
}

}  // namespace basalt::bdev
