// SPDX-License-Identifier: Apache-2.0
// HostController: one association of a host with one controller: its admin queue, its I/O queues, what Identify and the
// ANA log say, keep-alive and asynchronous events. It connects once; when it is lost it stays lost, and its user makes
// a new one.
//
// Life: connect() -> live -> (lost | close()) -> close() -> destruction.
// Lost means: every connection of the association was ended in one go, before any of its commands completes as lost.
// Keep-alive: sent at half of the time-out; no answer within the time-out loses the association. A command that is
// older than its time-out does too. While somebody vouches for the controller's node, keep-alives are rare; how long
// one may have no answer stays the same. Thread: one reactor.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/gate.h"
#include "base/uuid.h"
#include "nvmf/host/authentication.h"
#include "nvmf/host/transport.h"

namespace basalt::nvmf {

struct HostControllerOptions {
  HostAddress address;
  std::string subnqn;
  std::string hostnqn;
  Uuid hostid;
  uint32_t keep_alive_ms = 5000;  // 0: none; at least 100 otherwise
  // What the controller is told that it has to wait for a keep-alive; while the listener vouches, one comes at half of
  // it. 0: as keep_alive_ms, also while it vouches; not below keep_alive_ms otherwise.
  uint32_t keep_alive_rare_ms = 0;
  Duration connect_timeout = seconds(5);
  Duration admin_timeout = seconds(10);
  Duration command_timeout = seconds(30);
  uint16_t io_queue_count = 1;  // the controller may give fewer
  uint16_t io_queue_depth = 127;
  bool discovery = false;  // no I/O queues, no namespaces
  bool node_link = false;  // no namespaces of its own: they are attached one by one
  HostAuthentication authentication;

  Outcome check() const;  // names the field that is wrong
};

struct HostNamespace {
  uint32_t nsid = 0;
  Uuid uuid;   // zero: none
  Uuid nguid;  // zero: none
  uint32_t block_size_bytes = 0;
  uint64_t count_blocks = 0;
  uint32_t anagrpid = 0;
  nvme::AnaState ana_state = nvme::AnaState::optimized;
  uint8_t dlfeat = 0;
  uint8_t rescap = 0;
};

struct HostControllerInfo {
  uint16_t cntlid = 0;
  std::string serial_number;
  std::string model_number;
  uint64_t transfer_bytes_max = 0;
  bool volatile_write_cache = false;
  bool ana = false;
  uint16_t oncs = 0;
  uint32_t capsule_data_bytes_max = 0;
  // Which instance of its identifier the controller is (cirn 0: it does not say), and what it promises about commands
  // of an association that was lost.
  uint8_t ciu = 0;
  uint64_t cirn = 0;
  uint16_t command_quiesce_ms = 0;  // 0: it promises nothing
  uint8_t cross_reset_limit = 0;    // 0: it cannot reset others
  bool traffic_keep_alive = false;
};

constexpr uint16_t oncs_dataset_management = 1 << 2;
constexpr uint16_t oncs_write_zeroes = 1 << 3;
constexpr uint16_t oncs_reservations = 1 << 5;

// CC: I/O queue entry sizes of 64 and 16 bytes, enabled.
constexpr uint32_t cc_enabled = 4u << 20 | 6u << 16 | 1u;
constexpr uint32_t cc_shutdown_normal = 1u << 14;

class HostController final : HostQueue::Owner {
 public:
  class Listener {
   public:
    virtual ~Listener() = default;
    // Once, after a successful connect(), unless close() came first. All commands have completed by then.
    virtual void controller_lost(const Error& reason) = 0;
    // namespaces() was read again: sizes, the list itself, or ANA states.
    virtual void namespaces_changed() = 0;
    // Whether the controller's node is known to answer, by other means. Asked when a keep-alive is due.
    virtual bool vouches() const { return false; }
    // Of a node link: these attachments have changed or ended; `all`: any may have.
    virtual void attachments_changed(const std::vector<uint32_t>&, bool /*all*/) {}
  };

  HostController(Reactor& reactor, HostTransport& transport, HostControllerOptions options, Listener* listener);
  ~HostController() override;

  Task<Outcome> connect();  // once
  // Shuts the controller down in order when it is live, ends the association and waits until nothing is left of it.
  Task<void> close();
  void abort(Error reason);  // ends the association at once

  bool live() const { return state_ == State::live; }
  const HostControllerOptions& options() const { return options_; }
  const HostControllerInfo& info() const { return info_; }
  const std::vector<HostNamespace>& namespaces() const { return namespaces_; }
  const HostNamespace* find(uint32_t nsid) const;
  size_t io_queue_count() const { return io_queues_.size(); }

  void submit(HostCommand* command);  // an I/O command; only when live
  HostQueue& io_queue(size_t index) { return *io_queues_[index]; }
  HostQueue& admin_queue() { return *admin_; }
  // From now on, for I/O commands; also those that are outstanding.
  void set_command_timeout(Duration timeout);
  // Sends a keep-alive now, unless one has no answer yet.
  void ask();
  // Has the ANA log read again, or all about the namespaces, after a status said that it is out of date.
  void refresh_ana();
  void refresh_namespaces();

  // Has another controller of the subsystem, with which this host lost its association, reset (Cross-Controller Reset).
  struct Instance {
    uint16_t cntlid = 0;
    uint8_t ciu = 0;
    uint64_t cirn = 0;
  };
  enum class Remains : uint8_t {
    ended,        // nothing that it was asked for can happen any more
    in_progress,  // ask again
    unknown       // this controller does not know, cannot tell, or was lost
  };
  Task<Remains> end_instance(Instance instance);

  // Control path: one command and its data, awaited. Also with I/O commands (reservations), when `io`.
  struct Call {
    nvme::Command command{};
    nvme::DataDirection direction = nvme::DataDirection::none;
    void* data = nullptr;
    uint32_t data_bytes = 0;
  };
  struct Answer {
    nvme::Status status;
    uint64_t value = 0;  // dw0, dw1
    bool lost = false;
  };
  Task<Answer> call(Call call);
  Task<Answer> io_call(Call call);
  // A fused pair, on one I/O queue that holds at least two commands.
  struct PairAnswer {
    Answer first;
    Answer second;
  };
  Task<PairAnswer> fused_io_call(Call first, Call second);

  // Authenticates every queue anew, with the same keys. A failure ends the association.
  Task<Outcome> reauthenticate();

 private:
  enum class State : uint8_t { idle, connecting, live, lost };
  struct OwnedWork : Work {
    HostController* controller = nullptr;
  };
  struct OwnedTimer : Timer {
    HostController* controller = nullptr;
  };
  class CallWait;

  void queue_lost(HostQueue& queue, const Error& reason) override;
  void queue_timed_out(HostQueue& queue, const HostCommand& command) override;
  void queue_drained(HostQueue& queue) override;
  void fail(Error reason);
  void report_lost();
  void attach(HostQueue& queue);

  // controller_connect.cc
  Task<Outcome> connect_steps();
  Task<Result<std::unique_ptr<HostQueue>>> connect_queue(uint16_t qid, uint16_t slot_count);
  Task<Outcome> fabrics_connect(HostQueue& queue, uint16_t slot_count);
  Task<Outcome> enable();
  Task<Outcome> connect_io_queues();
  Task<Result<uint64_t>> property_get(uint32_t offset, bool wide);
  Task<Outcome> property_set(uint32_t offset, uint32_t value);
  Task<Answer> call_on(HostQueue& queue, Call call);
  Error refused(const char* step, const Answer& answer) const;

  // controller_authentication.cc
  Outcome authentication_needed(uint64_t connect_result, bool* needed) const;
  Task<Outcome> authenticate(HostQueue& queue);
  Task<Answer> authentication_call(HostQueue& queue, nvme::FabricsType type, auth::Message* message);

  // controller_identify.cc
  Task<Outcome> identify_controller();
  Task<Outcome> identify_namespaces();
  Task<Result<HostNamespace>> identify_namespace(uint32_t nsid);
  Task<Outcome> read_ana_log();
  Task<Answer> identify(uint8_t cns, uint32_t nsid, void* out);
  Task<Answer> log_page(nvme::LogPageId page, void* out, uint32_t bytes, uint8_t specific = 0);

  // controller_events.cc
  Task<Outcome> start_events();
  void send_event_request(HostCommand* request);
  void event_arrived(HostCommand* request);
  void refresh(bool identify);
  Task<void> refresh_steps();
  void tell_changed(const std::vector<uint8_t>& list);
  void start_keep_alive();
  Instant next_keep_alive() const;
  void send_keep_alive();
  void keep_alive_due();
  void keep_alive_answered();

  Reactor& reactor_;
  HostTransport& transport_;
  const HostControllerOptions options_;
  Listener* listener_;
  State state_ = State::idle;
  bool closing_ = false;
  bool cancelled_ = false;
  bool was_live_ = false;
  Error reason_{Errc::closed, ""};
  Gate gate_;                   // coroutines that use this object
  Gate lost_gate_;              // from fail() until everything has completed
  size_t undrained_count_ = 0;  // queues

  std::unique_ptr<HostQueue> admin_;
  std::vector<std::unique_ptr<HostQueue>> io_queues_;
  size_t io_queue_next_ = 0;
  uint64_t cap_ = 0;
  HostControllerInfo info_;
  uint32_t namespace_count_max_ = 0;
  uint32_t ana_log_bytes_max_ = 0;
  std::vector<HostNamespace> namespaces_;

  static constexpr size_t event_request_count_max = 4;
  std::array<HostCommand, event_request_count_max> event_requests_;
  size_t event_request_count_ = 0;
  bool refreshing_ = false;
  bool refresh_identify_ = false;
  bool refresh_ana_ = false;
  HostCommand keep_alive_;
  bool keep_alive_outstanding_ = false;
  Instant keep_alive_sent_;
  OwnedTimer keep_alive_timer_;
  OwnedWork lost_work_;
};

}  // namespace basalt::nvmf
