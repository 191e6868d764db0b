// SPDX-License-Identifier: Apache-2.0
// Namespace: a bdev with an identity and a gate. Every user - target queues, exports, in-process callers - submits
// through it, so that reservations and the one-writer gate are checked below all of them.
//
// Thread: its state lives on the bdev's home reactor. submit() may be called on any reactor: the request travels to the
// home reactor, is judged there at the moment of dispatch, and completes on the submitter's reactor. The tasks run on
// the home reactor: `co_await hop(ns.home())` first.
//
// A takeover (an Acquire that preempts) goes in this order: the old holder's commands are refused from that moment,
// also those on their way here; its admitted ones end at the device; {highest epoch, holder, key} is durable; only then
// does the command complete. When it cannot be made durable the command fails and the gate stays shut for the old
// holder.
#pragma once

#include <coroutine>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "base/list.h"
#include "base/result.h"
#include "base/task.h"
#include "bdev/bdev.h"
#include "ns/gate_record.h"
#include "ns/reservation.h"
#include "ns/shared_reservation.h"

namespace basalt::ns {

class Namespace;

// Counts the commands that somebody waits for.
struct Drain {
  size_t count = 0;
  std::coroutine_handle<> waiter;
  bool await_ready() const noexcept { return count == 0; }
  void await_suspend(std::coroutine_handle<> handle) noexcept { waiter = handle; }
  void await_resume() const noexcept {}
};

// One request. The submitter fills the bdev::Io part (done and context are its own) and `host`.
struct NsIo : bdev::Io {
  HostId host;
  // The namespace's, while it has the request.
  Namespace* owner = nullptr;
  Reactor* user = nullptr;
  bdev::IoDone user_done = nullptr;
  Drain* drain = nullptr;
  uint64_t admitted_count = 0;
  ListNode flight_node;
};

// Compare and Write: `io` reads the blocks, and when they are as expected writes them. Nothing else that touches any of
// them is carried out in between. The submitter keeps it all in place until `done`.
struct CompareWrite : Work {
  NsIo io;  // host, offset_blocks, count_blocks, fua (of the write); iov: memory for what is read
  const Iovec* expected = nullptr;
  const Iovec* data = nullptr;
  uint16_t expected_count = 0;
  uint16_t data_count = 0;
  void (*done)(CompareWrite*) = nullptr;
  nvme::Status compare_status;
  nvme::Status write_status;
  // The namespace's, while it has the request.
  Namespace* owner = nullptr;
  Reactor* user = nullptr;
  bool fua = false;
  bool running = false;
  ListNode compare_node;
};

struct NamespaceOptions {
  uint32_t nsid = 0;  // 0: the lowest free one
  Uuid uuid;          // zero: the bdev's
  Uuid nguid;         // zero: none is reported
  uint64_t eui64 = 0;
  uint32_t ana_group = 0;  // 0: same as nsid
  bool one_writer = false;
  // Of a gate whose record lives as long as this does, and nowhere else: it obeys no epoch below. 0: the bdev keeps it.
  uint64_t gate_epoch = 0;
  // Whether hosts may use reservations.
  bool reservations = true;
  // Who keeps them where several controllers serve the namespace; nullptr: they live and end here.
  std::shared_ptr<ReservationKeeper> keeper;
  Duration reservation_timeout = seconds(10);  // of a command that the keeper has to answer
  // Bugs for the simulator to catch; nothing else sets them.
  bool planted_no_gate = false;
  bool planted_forget_epoch = false;
};

struct NamespaceStats {
  uint64_t read_count = 0;
  uint64_t write_count = 0;
  uint64_t conflict_count = 0;
  uint64_t failed_count = 0;
};

class Namespace {
 public:
  // On the home reactor of the bdev. Loads the gate before any I/O is taken; fails when the bdev cannot keep one.
  static Task<Result<std::unique_ptr<Namespace>>> open(bdev::Bdev* bdev, NamespaceOptions options);
  ~Namespace();
  Namespace(const Namespace&) = delete;
  Namespace& operator=(const Namespace&) = delete;

  const NamespaceOptions& options() const { return options_; }
  uint32_t nsid() const { return options_.nsid; }
  bdev::Bdev& bdev() const { return bdev_; }
  Reactor& home() const { return bdev_.home(); }
  uint32_t block_size_bytes() const { return block_size_bytes_; }
  uint64_t count_blocks() const { return bdev_.count_blocks(); }  // grows with the bdev

  // On `user`, which is where io->done runs later. Never completes inside the call.
  void submit(NsIo* io, Reactor& user);

  // As submit().
  void compare_and_write(CompareWrite* request, Reactor& user);

  Task<nvme::Status> register_host(HostId host, RegisterFields fields);
  Task<nvme::Status> acquire(HostId host, AcquireFields fields);
  Task<nvme::Status> release(HostId host, ReleaseFields fields);

  // Snapshots of the bdev (bdev.h), for who may write. A takeover waits for one that has begun, and refuses one that
  // has not.
  Task<nvme::Status> prepare_snapshot(HostId host);
  Task<nvme::Status> snapshot(HostId host, std::string name);
  // A note (at most nvme::note_bytes_max) that is kept durably beside the gate, for who may write; it outlives
  // takeovers. note.cc. A failed write: either of the two may be there after a restart.
  Task<nvme::Status> write_note(HostId host, std::string note);
  Task<nvme::Status> read_note(HostId host, std::string* out);
  const Reservation& reservation() const { return reservation_; }

  // shared_reservation.cc; the first two only where there is a keeper. What is durable now: in force for all I/O that
  // comes from here on.
  void set_reservation(const KeptReservation& kept);
  // Ends the command whose change was not made.
  void refuse_change(const Uuid& change, nvme::Status with);
  const SharedReservation* shared() const { return shared_.get(); }  // nullptr: none
  // What is in force: where there is a keeper, after a read.
  Task<nvme::Status> report(Reservation* out);
  void watch_reservations(ReservationWatcher* watcher) { watcher_ = watcher; }
  const NamespaceStats& stats() const { return stats_; }
  size_t in_flight_count() const { return in_flight_count_; }

  // Refuses what comes from now on and waits until nothing is in flight. Afterwards it may be destroyed.
  Task<void> close();

 private:
  Namespace(bdev::Bdev& bdev, const NamespaceOptions& options, const GateRecord& record, std::string note);

  void dispatch(NsIo* io);
  nvme::Status judge(const HostId& host, Access access);
  static void arrive(Work* work);
  static void device_done(bdev::Io* io);
  static void send_back(NsIo* io);
  void admit(NsIo* io, bdev::IoDone done);
  void device_ended(NsIo* io);
  // compare_write.cc
  void begin(CompareWrite* request);
  void run_compares();
  bool must_wait(const CompareWrite& request);
  void read_ended(CompareWrite* request);
  void write_ended(CompareWrite* request);
  void end(CompareWrite* request, nvme::Status compare, nvme::Status write);
  bool is_kept_out(const NsIo& io);
  Task<nvme::Status> change_here(HostId host, ReservationCommand command);
  Task<nvme::Status> apply(Reservation next, HostId host);
  // shared_reservation.cc
  Task<nvme::Status> change_shared(HostId host, ReservationCommand command);
  Task<nvme::Status> change_locked(HostId host, ReservationCommand command, Instant deadline);
  Task<SharedReservation::Answer> ask(HostId host, ReservationCommand command, Reservation next, Instant deadline);
  Task<nvme::Status> confirm_serving();
  bool is_outlasted();
  Task<bool> outlasted(Instant deadline);
  void tell(const Notice& notice);
  // snapshot.cc
  bool begin_snapshot(const HostId& host);
  void unlock();
  void leave();

  // Reservation commands run one after another.
  struct LockAwaiter {
    Namespace& owner;
    bool await_ready() const noexcept;
    void await_suspend(std::coroutine_handle<> waiter);
    void await_resume() const noexcept {}
  };
  LockAwaiter lock() { return {*this}; }

  bdev::Bdev& bdev_;
  const NamespaceOptions options_;
  const uint32_t block_size_bytes_;
  Reservation reservation_;
  std::string note_;
  const std::unique_ptr<SharedReservation> shared_;
  ReservationWatcher* watcher_ = nullptr;
  uint64_t admitted_count_ = 0;
  bool closed_ = false;
  bool taking_over_ = false;  // the gate is shut for everybody
  bool locked_ = false;
  std::deque<std::coroutine_handle<>> lock_waiters_;
  List<NsIo, &NsIo::flight_node> in_flight_;
  List<CompareWrite, &CompareWrite::compare_node> compares_;  // in the order of their arrival
  List<NsIo, &NsIo::flight_node> kept_out_;                   // by a compare that runs
  NamespaceStats stats_;
  Drain snapshots_;             // that have begun
  size_t in_flight_count_ = 0;  // admitted commands and running reservation commands
  std::coroutine_handle<> close_waiter_;
};

}  // namespace basalt::ns
