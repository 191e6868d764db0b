// SPDX-License-Identifier: Apache-2.0
// Member: a replica of a leg, reached under an identity that belongs to this leg and epoch alone: by an attachment of
// the link that all members on its node share, or, where the node has none, over an association of its own (reach.h).
//
// takeover(epoch) takes on a fresh identity, registers key = epoch, acquires the namespace exclusively, preempting and
// aborting whoever held it, and returns when the replica has completed the takeover (the old holder's admitted commands
// have ended there). Until it has succeeded, and after any failure, Ios complete at once
// with a path error: there is no reconnecting and no resending here; the leg decides, and may take over again.
// Reservation Conflict goes up unchanged: it means "I am fenced".
//
// A failure is: a connection ended, a keep-alive or a command had no answer in time. Members of one node that have
// associations of their own leave asking whether it is there to the node's pulse; when that stops, each asks for
// itself, and goes on asking. The reach ends first, then all Ios in flight complete with host_path_error, then the
// listener hears of it. Thread: one reactor, the bdev's home.
#pragma once

#include <memory>
#include <string>

#include "base/gate.h"
#include "base/pool.h"
#include "bdev/bdev.h"
#include "bdev/nvmf/flight.h"
#include "bdev/nvmf/link.h"
#include "bdev/nvmf/pulse.h"
#include "bdev/nvmf/reach.h"

namespace basalt::bdev {

struct MemberOptions {
  std::string name;
  nvmf::HostAddress address;
  std::string subnqn;
  std::string link_nqn;  // of the node's link; empty: none
  std::string hostnqn;
  nvmf::HostAuthentication authentication;
  uint32_t nsid = 1;
  uint32_t keep_alive_ms = 1000;         // at least 100
  uint32_t keep_alive_rare_ms = 30'000;  // while the pulse that it follows beats
  Duration command_timeout = seconds(1);
  uint16_t io_queue_depth = 127;  // of an association of its own
};

struct MemberInfo {
  std::string incarnation;  // the subsystem's serial number
  uint64_t count_blocks = 0;
  uint32_t block_size_bytes = 0;
};

class Member final : public Bdev, Reach::Listener, Pulse::Follower {
 public:
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void member_failed(Member& member, const Error& reason) = 0;  // once per successful takeover()
  };

  // links: those of its reactor and transport; nullptr: it has an association of its own.
  Member(Reactor& home, nvmf::HostTransport& transport, MemberOptions options, Links* links = nullptr);
  ~Member() override;

  // Errc::fenced: a higher epoch has the replica; fencing_epoch() says which, when the replica told (else 0).
  // Anything else but success: the replica counts as unreachable. One call at a time.
  Task<Result<MemberInfo>> takeover(uint64_t epoch, Duration timeout);
  uint64_t fencing_epoch() const { return fencing_epoch_; }

  void set_listener(Listener* listener) { listener_ = listener; }
  // Once. The pulse of the node that it is on: while that beats, the member asks for itself rarely.
  void follow(std::shared_ptr<Pulse> pulse);
  bool taken() const { return taken_ && reach_ && reach_->live(); }
  bool shares_link() const { return reach_ && reach_->shared(); }
  uint64_t epoch() const { return epoch_; }
  const MemberOptions& options() const { return options_; }
  const std::string& incarnation() const { return incarnation_; }
  // When the latest command that has completed with success was sent: counts the replica's read lease.
  Instant last_success_sent() const { return last_success_sent_; }
  // Ends the reach: what is in flight completes with a path error.
  void fail(Error reason);

  void submit(Io* io) override;
  Task<Outcome> close() override;
  // Carried out behind the replica's gate, under this association's epoch. An answer that never came (unreachable):
  // it may have been made, or be made yet.
  Task<Outcome> snapshot(std::string name, std::function<bool()> may_begin) override;
  Task<Outcome> prepare_snapshot() override;
  // The replica's note (ns/namespace.h), at most nvme::note_bytes_max, durable when the task ends. unsupported: of an
  // earlier version.
  Task<Outcome> write_note(std::string note);
  Task<Result<std::string>> read_note();

 private:
  struct DeadlineTimer : Timer {
    Member* member = nullptr;
  };
  void reach_lost(const Error& reason) override;
  void reach_changed() override;
  bool vouches() const override { return pulse_ != nullptr && pulse_->beats(); }
  void pulse_stopped() override;
  Task<Result<MemberInfo>> takeover_steps(uint64_t epoch, Duration timeout);
  Task<Outcome> open_reach(Duration timeout);
  Task<Outcome> acquire(uint64_t epoch);
  Task<uint64_t> reported_key();
  Task<Outcome> snapshot_command(uint32_t step, std::string name);
  Task<Outcome> replica_command(nvmf::HostController::Call call, const char* what);
  void send(Flight* flight);
  void answered(Flight* flight);
  void finish(Flight* flight, nvme::Status status);

  nvmf::HostTransport& transport_;
  Links* const links_;
  const MemberOptions options_;
  Listener* listener_ = nullptr;
  std::shared_ptr<Pulse> pulse_;
  std::unique_ptr<Reach> reach_;
  NvmfGeometry geometry_;
  std::string incarnation_;
  uint64_t epoch_ = 0;
  uint64_t fencing_epoch_ = 0;
  bool taken_ = false;
  bool busy_ = false;
  bool closing_ = false;
  Instant last_success_sent_;
  DeadlineTimer deadline_timer_;
  Pool<Flight> flights_;
  List<Io, &Io::node> ios_without_flight_;
  Gate gate_;
};

}  // namespace basalt::bdev
