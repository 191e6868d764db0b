// SPDX-License-Identifier: Apache-2.0
// PeerWatch: keeps an association with a peer's discovery subsystem, to notice when the peer goes: its connection
// breaks or a keep-alive has no answer in time, and connecting again at once does not help (the peer may have ended the
// association because this process was stalled). After a loss it connects again, with back-off, for as long as it is
// watched; most attempts are short, because a network that heals is noticed by a new attempt sooner than by an old one.
// A peer whose machine refuses the connection, or that no way leads to, is told once more; so is one that is there, and
// does not let this host in. All of it are hints that trigger decisions; they prove nothing about the peer. Thread: one
// reactor. Callbacks come from reactor work, never inside start() or stop().
#pragma once

#include <memory>

#include "nvmf/host/controller.h"
#include "nvmf/host/wake_up.h"

namespace basalt::nvmf {

struct PeerWatchOptions {
  HostAddress address;
  std::string hostnqn;
  HostAuthentication authentication;  // with `tls` at a port that has it
  uint32_t keep_alive_ms = 500;       // at least 100
  Duration connect_timeout = seconds(2);
  Duration delay_min = milliseconds(100);
  Duration delay_max = seconds(1);
};

class PeerWatch final : HostController::Listener {
 public:
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void peer_connected() = 0;
    virtual void peer_lost(const Error& reason) = 0;  // once for each peer_connected()
    // An attempt ended with `unreachable`: once after start(), and once for each peer_connected() or peer_denied().
    virtual void peer_refused(const Error&) {}
    // An attempt ended with `permission`: once after start(), and once for each peer_connected() or peer_refused().
    virtual void peer_denied(const Error&) {}
  };

  PeerWatch(Reactor& reactor, HostTransport& transport, PeerWatchOptions options, Listener* listener);
  ~PeerWatch() override;

  Outcome start();    // names the option that is wrong
  Task<void> stop();  // then it may be destroyed; no callback any more
  bool connected() const { return connected_; }

 private:
  void controller_lost(const Error& reason) override;
  void namespaces_changed() override {}
  HostControllerOptions controller_options(Duration connect_timeout);
  void report_lost();
  void report_failure(const Error& reason);
  Duration patience(unsigned attempt) const;
  Task<void> run();

  Reactor& reactor_;
  HostTransport& transport_;
  const PeerWatchOptions options_;
  Listener* listener_;
  Uuid hostid_;
  bool stopping_ = false;
  bool live_ = false;       // the association stands
  bool connected_ = false;  // what the listener was told
  bool refused_ = false;    // the same
  bool denied_ = false;     // the same
  Error lost_reason_{Errc::closed, ""};
  std::unique_ptr<HostController> controller_;
  WakeUp wake_;
  Gate gate_;
};

}  // namespace basalt::nvmf
