// SPDX-License-Identifier: Apache-2.0
// The seam between the host side of NVMe-oF (controllers, commands) and its transports (tcp, loopback, rdma...).
//
// HostCommand: one command in flight; intrusive, owned by its submitter, who keeps it and its data in place until done.
// HostQueue: one connected queue pair. submit() never fails: the command always completes, once, later, by done().
// HostTransport: makes connected queues.
//
// Invariants: - close() ends the queue's connection inside the call: nothing is read from or written to it any more
//             - after close() every outstanding command completes with `lost` set, when no one touches its data any
//             more
//             - then, as the queue's last word, Owner::queue_drained(): from there on the queue may be destroyed
// Thread: a queue belongs to the reactor it was connected on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/iovec.h"
#include "base/list.h"
#include "base/result.h"
#include "base/task.h"
#include "base/work.h"
#include "nvme/spec.h"
#include "nvme/status.h"
#include "nvmf/auth/tls_key.h"
#include "runtime/reactor.h"

namespace basalt::nvmf {

struct HostCommand : Work {
  nvme::Command command{};        // all but cid, flags and sgl, which are the queue's
  nvme::Completion completion{};  // valid when done
  nvme::DataDirection direction = nvme::DataDirection::none;
  // Lost: the queue ended before the controller answered; whether the command was executed is unknown. The status is
  // then host_path_error. By then the queue's connection is gone.
  bool lost = false;
  uint8_t fuse = 0;     // a half of a fused pair: both are submitted to one queue, one after the other
  bool unaged = false;  // waits for an event: no time-out (Asynchronous Event Request)
  uint16_t iov_count = 0;
  uint32_t data_bytes = 0;
  uint64_t iov_offset_bytes = 0;  // where in iov the data begins
  const Iovec* iov = nullptr;
  void (*done)(HostCommand*) = nullptr;
  void* context = nullptr;  // the submitter's
  Instant submitted;        // not later than the moment it was sent
  ListNode node;            // the queue's
  ListNode wait_node;       // the transport's, until a slot is free
  ListNode user_node;       // the submitter's

  nvme::Status status() const { return {static_cast<uint16_t>(completion.status >> 1)}; }
  void set_status(nvme::Status status) { completion.status = static_cast<uint16_t>(status.value << 1); }
};

class HostQueue {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    // The connection ended or broke the protocol; the queue has closed itself.
    virtual void queue_lost(HostQueue& queue, const Error& reason) = 0;
    // A command has waited longer than the time-out; the queue goes on until it is closed.
    virtual void queue_timed_out(HostQueue& queue, const HostCommand& command) = 0;
    virtual void queue_drained(HostQueue& queue) = 0;
  };

  HostQueue(Reactor& reactor, uint16_t qid) : reactor_(reactor), qid_(qid) {}
  virtual ~HostQueue();
  HostQueue(const HostQueue&) = delete;
  HostQueue& operator=(const HostQueue&) = delete;

  uint16_t qid() const { return qid_; }
  void set_owner(Owner* owner) { owner_ = owner; }
  void set_timeout(Duration timeout);  // also for what is outstanding
  void submit(HostCommand* command);
  void close();
  bool closed() const { return closed_; }
  // Lets go of a command that has no answer: it completes as lost inside this call, and nobody touches its data any
  // more. What the connection still needs of it (its number, a copy of the data that was not sent yet, a place for what
  // is read) the queue keeps until the answer comes. False: it cannot; nothing has happened.
  bool disown(HostCommand* command);
  size_t disowned_count() const { return disowned_count_; }
  size_t outstanding_count() const { return outstanding_count_; }

 protected:
  virtual void start(HostCommand* command) = 0;
  // Ends the connection; later calls all_lost() once, when nothing can touch the commands' data and no work of the
  // queue is queued on the reactor. Not inside this call.
  virtual void end_connection() = 0;
  // Puts a stand-in in the place of a command that start() was given. `unsent`: nothing of it was, and nothing will be.
  enum class Replaced : uint8_t { no, unsent, sent };
  virtual Replaced replace(HostCommand*, HostCommand*) { return Replaced::no; }

  Reactor& reactor() { return reactor_; }
  void complete(HostCommand* command);  // from a completion context; completion is filled
  void lose(Error reason);              // close() and tell the owner
  void all_lost();                      // `this` may be gone afterwards

 private:
  void check_age();
  void end_as_lost(HostCommand* command);
  struct Disowned;
  struct AgeTimer : Timer {
    HostQueue* queue = nullptr;
  };
  Reactor& reactor_;
  const uint16_t qid_;
  bool closed_ = false;
  bool drained_ = false;
  Owner* owner_ = nullptr;
  Duration timeout_ = seconds(30);
  size_t outstanding_count_ = 0;
  size_t disowned_count_ = 0;
  size_t disowned_bytes_ = 0;
  List<HostCommand, &HostCommand::node> outstanding_;  // oldest first
  List<HostCommand, &HostCommand::node> unaged_;
  AgeTimer age_timer_;
};

// As the transport understands it: TCP and RDMA: an IP literal and a port.
struct HostAddress {
  std::string traddr;
  std::string trsvcid;
  std::string to_string() const { return traddr + ":" + trsvcid; }
};

struct HostQueueOptions {
  uint16_t qid = 0;
  uint16_t slot_count = 31;                // commands in flight; SQSIZE is this (zero-based)
  uint32_t capsule_data_bytes_max = 8192;  // in-capsule data of I/O commands
  Instant deadline = Instant::never();     // to be connected
  const bool* cancelled = nullptr;         // becomes true: give up soon
  crypto::SharedTlsPsk tls;                // not nullptr: by TLS, with this key
};

class HostTransport {
 public:
  virtual ~HostTransport() = default;
  virtual const char* name() const = 0;  // as in trtype
  // On `reactor`. The queue that it returns has exchanged what the transport itself exchanges; Fabrics Connect is next.
  virtual Task<Result<std::unique_ptr<HostQueue>>> connect(Reactor& reactor, HostAddress address,
                                                           HostQueueOptions options) = 0;
};

}  // namespace basalt::nvmf
