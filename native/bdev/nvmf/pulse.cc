// SPDX-License-Identifier: Apache-2.0
#include "bdev/nvmf/pulse.h"

#include <utility>

namespace basalt::bdev {
namespace {

nvmf::PeerWatchOptions watch_options(PulseOptions options) {
  nvmf::PeerWatchOptions out;
  out.address = std::move(options.address);
  out.hostnqn = std::move(options.hostnqn);
  out.keep_alive_ms = options.keep_alive_ms;
  return out;
}

}  // namespace

Pulse::Pulse(Reactor& reactor, nvmf::HostTransport& transport, PulseOptions options)
    : watch_(reactor, transport, watch_options(std::move(options)), this) {}

Pulse::~Pulse() {
  BASALT_ASSERT(followers_.empty());
}

Outcome Pulse::start() {
  return watch_.start();
}

Task<void> Pulse::stop() {
  co_await watch_.stop();
}

void Pulse::add(Follower* follower) {
  followers_.emplace(next_, follower);
  places_.emplace(follower, next_++);
}

void Pulse::remove(Follower* follower) {
  const auto place = places_.find(follower);
  BASALT_ASSERT(place != places_.end());
  followers_.erase(place->second);
  places_.erase(place);
}

void Pulse::peer_lost(const Error&) {
  for (const auto& [place, follower] : followers_)
    follower->pulse_stopped();
}

}  // namespace basalt::bdev
