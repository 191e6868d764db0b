// SPDX-License-Identifier: Apache-2.0
// Pulse: whether a node answers, asked once for everything on it. A thousand volumes have thousands of members on a few
// nodes; if each kept its own association alive every half second, that alone would keep the processors busy.
//
// One association with the discovery subsystem at the node's address carries the quick keep-alive. While it stands, the
// followers ask rarely. When it does not, they are told, and ask for themselves: losing the pulse proves nothing about
// any of them.
// Thread: one reactor, which is its followers'. stop() before the end of its life.
#pragma once

#include <map>
#include <string>

#include "nvmf/host/peer_watch.h"

namespace basalt::bdev {

struct PulseOptions {
  nvmf::HostAddress address;
  std::string hostnqn;
  uint32_t keep_alive_ms = 500;  // at least 100
};

class Pulse final : nvmf::PeerWatch::Listener {
 public:
  class Follower {
   public:
    virtual ~Follower() = default;
    // Must not end the life of any follower.
    virtual void pulse_stopped() = 0;
  };

  Pulse(Reactor& reactor, nvmf::HostTransport& transport, PulseOptions options);
  ~Pulse() override;

  Outcome start();    // names the option that is wrong
  Task<void> stop();  // then it beats no more, and nobody is told
  bool beats() const { return watch_.connected(); }
  bool followed() const { return !followers_.empty(); }
  void add(Follower* follower);
  void remove(Follower* follower);

 private:
  void peer_connected() override {}
  void peer_lost(const Error&) override;

  nvmf::PeerWatch watch_;
  // In the order in which they came, so that a run in virtual time can be repeated.
  std::map<uint64_t, Follower*> followers_;
  std::map<const Follower*, uint64_t> places_;  // only looked up
  uint64_t next_ = 0;
};

}  // namespace basalt::bdev
