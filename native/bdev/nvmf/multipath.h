// SPDX-License-Identifier: Apache-2.0
// NvmfController: a subsystem as a host sees it over one or several paths, and a bdev for each of its namespaces.
//
// An Io goes to an optimized path, else to a non-optimized one, else it waits; among equal paths the policy chooses.
// After a path error, an abort or the loss of the association it waits for a path and is sent again - all of it, a
// Flush too (verdict.h has the statuses):
//  - a command without an answer is sent again only after every connection of its association was ended; when it
//    changes data, only after nothing of that association can happen any more (remnant.h)
//  - a command that was answered with a path error has ended at its controller; it may go elsewhere at once
// Other errors go up as they are. What cannot be sent again in time (fast_io_fail_timeout if set, else
// ctrlr_loss_timeout, counted from the first failure) goes up with its last path error; a change that was lost may then
// still happen, as with any write that failed for an unknown reason.
//
// Paths come back by themselves: reconnect_delay, doubled up to reconnect_delay_max - or, while no path is usable, up
// to reconnect_delay_unusable_max - with a jitter, until ctrlr_loss_timeout. A sign of life of the subsystem on any
// path has the others try at once.
//
// Thread: everything on one reactor, the bdevs' home.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/gate.h"
#include "base/pool.h"
#include "bdev/bdev.h"
#include "bdev/nvmf/flight.h"
#include "bdev/nvmf/path_policy.h"
#include "bdev/nvmf/remnant.h"
#include "nvmf/host/controller.h"
#include "nvmf/host/wake_up.h"

namespace basalt::bdev {

struct MultipathOptions {
  std::string name;  // bdevs are <name>n<nsid>
  std::string subnqn;
  std::string hostnqn;
  Uuid hostid;  // zero: a random one
  Duration ctrlr_loss_timeout = seconds(600);
  Duration fast_io_fail_timeout{0};  // 0: off
  Duration reconnect_delay = milliseconds(100);
  Duration reconnect_delay_max = seconds(10);
  Duration reconnect_delay_unusable_max = seconds(1);
  Duration connect_timeout = seconds(5);
  Duration command_timeout = seconds(30);
  uint32_t keep_alive_ms = 5000;
  uint16_t io_queue_count = 1;
  uint16_t io_queue_depth = 127;
  // Changes that were lost with an association go elsewhere without waiting: an old copy may land after newer data.
  bool resend_at_once = false;
  nvmf::HostAuthentication authentication;
};

class NvmfBdev;
class NvmfController;

enum class PathState : uint8_t { connecting, live, lost, failed };
const char* path_state_name(PathState state);

class NvmfPath final : nvmf::HostController::Listener {
 public:
  NvmfPath(NvmfController& set, nvmf::HostTransport& transport, nvmf::HostAddress address);
  ~NvmfPath() override;

  PathState state() const { return state_; }
  const nvmf::HostAddress& address() const { return address_; }
  const char* trtype() const { return transport_.name(); }
  // Only while live.
  nvmf::HostController& controller() const { return *controller_; }
  uint64_t association() const { return association_; }  // another number each time it connects
  const PathLoad& load() const { return load_; }
  bool live() const { return state_ == PathState::live && controller_->live(); }
  const std::string& last_error() const { return last_error_; }

 private:
  friend class NvmfController;
  friend class NvmfBdev;
  void controller_lost(const Error& reason) override;
  void namespaces_changed() override;
  Task<Outcome> connect_once(Duration connect_timeout);
  Duration pause(Duration delay) const;
  void hurry();
  Task<void> keep();  // live, lost, back-off, connect, ...
  void start_keeping();
  Task<void> stop();

  NvmfController& set_;
  nvmf::HostTransport& transport_;
  const nvmf::HostAddress address_;
  PathState state_ = PathState::connecting;
  Instant lost_since_;
  std::string last_error_;
  std::unique_ptr<nvmf::HostController> controller_;
  uint64_t association_ = 0;
  std::shared_ptr<Remnant> remnant_;  // of the association that was lost last, when it left one
  PathLoad load_;
  bool stopping_ = false;
  bool hurried_ = false;
  nvmf::WakeUp wake_;
  Gate gate_;
};

class NvmfController {
 public:
  NvmfController(Reactor& reactor, MultipathOptions options);
  ~NvmfController();

  // Connects the path once. The first one decides which namespaces there are; the others must have the same (UUID or
  // NGUID, block size). An error leaves everything as it was.
  Task<Outcome> add_path(nvmf::HostTransport& transport, nvmf::HostAddress address);
  // Ios that wait complete with host_aborted; then everything ends. The bdevs must not be used any more.
  Task<void> close();

  const MultipathOptions& options() const { return options_; }
  const std::vector<std::unique_ptr<NvmfBdev>>& bdevs() const { return bdevs_; }
  const std::vector<std::unique_ptr<NvmfPath>>& paths() const { return paths_; }
  Reactor& reactor() { return reactor_; }
  size_t remnant_count() const { return remnants_.count(); }
  void kick();  // what waits is looked at again

 private:
  friend class NvmfPath;
  friend class NvmfBdev;
  nvmf::HostControllerOptions controller_options(const nvmf::HostAddress& address, Duration connect_timeout) const;
  Outcome fits(nvmf::HostController& controller) const;
  void make_bdevs(nvmf::HostController& controller);
  void paths_changed();
  bool hopeful() const;  // some path may still come back
  bool usable() const;   // every namespace has an accessible path
  void sign_of_life(const NvmfPath& from);

  Reactor& reactor_;
  MultipathOptions options_;
  bool closing_ = false;
  bool made_ = false;
  Gate gate_;
  uint64_t association_count_ = 0;
  std::vector<std::unique_ptr<NvmfPath>> paths_;
  std::vector<std::unique_ptr<NvmfBdev>> bdevs_;
  Remnants remnants_{*this};
};

class NvmfBdev final : public Bdev {
 public:
  NvmfBdev(NvmfController& set, const nvmf::HostNamespace& ns, const nvmf::HostControllerInfo& controller);
  ~NvmfBdev() override;

  void submit(Io* io) override;
  Task<Outcome> close() override;  // the NvmfController's to call

  uint32_t nsid() const { return nsid_; }
  size_t waiting_count() const { return waiting_count_; }
  uint64_t resent_count() const { return resent_count_; }
  nvme::AnaState ana_state(const NvmfPath& path) const;
  const PathPolicy& policy() const { return chooser_.policy(); }
  void set_policy(PathPolicy policy) { chooser_.set_policy(policy); }  // for what is sent from now on

 private:
  friend class NvmfController;
  struct View {
    NvmfPath* path = nullptr;
    uint64_t association = 0;
    Instant accessible_since;  // by an ANA change on this association; 0: not by one
    bool present = false;      // the path has this very namespace
    bool stale = false;        // a status contradicted the ANA state; the log is being read
    nvme::AnaState ana_state = nvme::AnaState::inaccessible;
    Instant blocked_until;
    NvmfGeometry geometry;
  };
  struct OwnedTimer : Timer {
    NvmfBdev* bdev = nullptr;
  };
  struct OwnedWork : Work {
    NvmfBdev* bdev = nullptr;
  };

  bool is_same(const nvmf::HostNamespace& ns) const;
  void refresh_views();
  View* choose(const Flight& flight);
  bool may_take(const View& view, const Flight& flight);
  void dispatch(Flight* flight);
  void send(Flight* flight, View& view);
  void answered(Flight* flight);
  void lost(Flight* flight, NvmfPath& path);
  void path_error(Flight* flight, View* view);
  void wait(Flight* flight);
  void park(Flight* flight);
  void finish(Flight* flight, nvme::Status status);
  void kick();
  void resend();
  void look_again();
  Instant give_up_at(const Flight& flight) const;

  NvmfController& set_;
  const uint32_t nsid_;
  const Uuid uuid_;
  const Uuid nguid_;
  std::vector<View> views_;
  PathChooser chooser_;
  std::vector<PathChooser::Candidate> candidates_;  // kept for its memory
  Pool<Flight> flights_;
  List<Io, &Io::node> ios_without_flight_;
  List<Flight, &Flight::flight_node> waiting_;  // for a path
  List<Flight, &Flight::flight_node> held_;     // for their time, or for a remnant to end
  size_t waiting_count_ = 0;
  uint64_t resent_count_ = 0;
  Instant unusable_since_ = Instant::never();
  bool closing_ = false;
  bool resend_queued_ = false;
  OwnedWork resend_work_;
  OwnedTimer look_timer_;
  Gate gate_;
};

}  // namespace basalt::bdev
