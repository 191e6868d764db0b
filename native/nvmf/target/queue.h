// SPDX-License-Identifier: Apache-2.0
// TargetQueue: one NVMe queue pair as the target sees it, made by a transport for each connection. It judges commands
// (transfer_plan), executes them, and counts what is executing, so that a connection's end never frees what the backend
// still uses.
//
// Thread: everything here is called on the queue's reactor. I/O commands run there; admin and Connect commands travel
// to the target's home reactor, where controllers live, and come back.
//
// Life: made -> Connect -> connected -> disconnect() -> (executing commands end, the controller lets go) -> drained.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/work.h"
#include "nvmf/target/request.h"
#include "nvmf/target/tls_keys.h"
#include "runtime/reactor.h"

namespace basalt::nvmf {

class Attachments;
class Controller;
class Listener;
class QueueAuthentication;
class Subsystem;
class SubsystemListener;
class Target;

constexpr uint16_t queue_entries_max = 128;
constexpr uint32_t data_bytes_max = 1u << 20;  // of one command: MDTS
constexpr uint32_t compare_write_blocks_max = 32;
static_assert(data_bytes_max <= bdev::io_bytes_max);
constexpr uint32_t authentication_bytes_max = 8192;  // of one authentication command

class TargetQueue {
 public:
  // What the transport does when asked; on the queue's reactor.
  struct Callbacks {
    // End the connection (expired keep-alive, superseded, removed): lead to disconnect() soon.
    void (*close)(TargetQueue*) = nullptr;
    // Nothing executes any more and the target has forgotten the queue: it may be destroyed.
    void (*drained)(TargetQueue*) = nullptr;
    void* context = nullptr;
  };

  TargetQueue(Target& target, Reactor& reactor, Listener& listener, const Callbacks& callbacks);
  ~TargetQueue();
  TargetQueue(const TargetQueue&) = delete;
  TargetQueue& operator=(const TargetQueue&) = delete;

  // Sets request->direction and data_bytes. Not ok: move no data, fill_completion() with it.
  nvme::Status transfer_plan(Request* request);
  // Ends with request->finish(request), later.
  void execute(Request* request);
  // For a command that the transport ends itself; then it sends the completion.
  void fill_completion(Request* request, nvme::Status status);
  // Whether the command's payload may use up what others need: only when it does not wait for another node. Replicas
  // (behind a gate) and the queue's own commands end here; what else a namespace stands on is not known.
  BufferUse buffer_use(const Request& request) const;
  // Who is at the other end, by TLS: before the first command, if at all.
  void proven(TlsGrant grant) { proven_ = std::make_unique<const TlsGrant>(std::move(grant)); }
  // The connection is gone. Once.
  void disconnect();

  void* context() const { return callbacks_.context; }
  Reactor& reactor() const { return reactor_; }
  bool connected() const { return state_ == State::connected; }
  // The host may use the queue: it has authenticated, or nobody asks it to. False: it may authenticate, and that is
  // all.
  bool admitted() const { return admitted_.load(std::memory_order_acquire); }
  uint16_t qid() const { return qid_; }
  const std::string& hostnqn() const;  // only when connected
  // How many commands the host may have outstanding: 1 until connected.
  uint16_t entries() const { return connected() ? entries_ : 1; }
  size_t executing_count() const { return executing_count_; }

 private:
  friend class Controller;
  friend class QueueAuthentication;
  friend class Target;
  enum class State : uint8_t { fresh, connecting, connected };
  // Whom a command is meant for, and who asks: the association's host, or the attachment's under the command's epoch.
  struct Addressee {
    ns::Namespace* space = nullptr;
    ns::HostId host;
    const SubsystemListener* path = nullptr;
  };

  // queue.cc
  bool channel_fits(const Subsystem& subsystem, const std::string& hostnqn) const;  // connect.cc
  void complete_later(Request* request, nvme::Status status);
  void complete(Request* request, nvme::Status status);
  static void return_from_home(Request* request, nvme::Status status);  // on the home reactor
  void maybe_drained();
  static void returned(Work* work);
  // queue_io.cc
  static void io_done(bdev::Io* io);
  void step(Request* request);
  nvme::Status compare_step(Request* request);
  nvme::Status deallocate_step(Request* request);
  Task<void> run_reservation(Request* request, Addressee to);
  Task<void> run_snapshot(Request* request, Addressee to);  // queue_snapshot.cc
  Task<void> run_note(Request* request, Addressee to);      // queue_note.cc
  nvme::Status plan_io(Request* request);
  void execute_io(Request* request);
  nvme::Status start_io(Request* request);
  nvme::Status start_read_write(Request* request, const Addressee& to);
  nvme::Status start_compare(Request* request, const Addressee& to);
  nvme::Status start_deallocate(Request* request, const Addressee& to);
  // queue_fused.cc
  nvme::Status pair(Request* request);
  void execute_fused(Request* request);
  void start_fused(Request* compare, Request* write);
  nvme::Status judge_fused(Request* compare, Request* write, Addressee* to);
  void abandon(Request* half, nvme::Status status);
  void half_ended(Request* half);
  void abandon_waiting_halves();

  nvme::Status find_addressee(const nvme::Command& command, Addressee* out) const;
  static nvme::Status ana_status(const Addressee& to);
  void submit(Request* request, const Addressee& to);

  Target& target_;
  Reactor& reactor_;
  Listener& listener_;
  const Callbacks callbacks_;
  State state_ = State::fresh;
  std::unique_ptr<const TlsGrant> proven_;
  bool disconnecting_ = false;
  bool leaving_ = false;
  uint16_t qid_ = 0;
  uint16_t entries_ = 1;
  uint16_t sqhd_ = 0;
  size_t executing_count_ = 0;
  Request* fused_first_ = nullptr;   // came last, and is the first half of a pair
  bool fused_first_failed_ = false;  // the one that came last was, and has ended
  List<Request, &Request::node> fused_waiting_;
  ns::HostId hostid_;
  Subsystem* subsystem_ = nullptr;
  SubsystemListener* path_ = nullptr;
  const Attachments* attachments_ = nullptr;  // of a node link; the controller's
  Controller* controller_ = nullptr;          // at home; here only its `enabled` flag is read
  std::atomic<int64_t> last_command_ns_{0};   // for keep-alive by traffic
  std::atomic<bool> admitted_{false};         // written at home

  // The home reactor's.
  std::unique_ptr<QueueAuthentication> authentication_;  // from the first need of it
  bool close_asked_ = false;
  void ask_close();
  void end_unauthenticated();  // controller_authentication.cc
  struct Message : Work {
    TargetQueue* queue = nullptr;
  };
  Message close_message_;
  Message gone_message_;
  Message leave_message_;
};

}  // namespace basalt::nvmf
