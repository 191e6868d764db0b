// SPDX-License-Identifier: Apache-2.0
// Journal: the ring of record blocks, with group commit. One write is in flight at most; what is appended meanwhile
// goes with the next one. The block with sequence s has its place at s modulo the ring's length.
//
// Invariants: - records are applied in memory when their block's write has completed, in order, before their entries'
// done
//             - tail_sequence <= stable_sequence + 1 <= completed_sequence + 1 <= next_sequence
//             - after a failed write or flush nothing is written any more
#pragma once

#include "base/list.h"
#include "bdev/lvol/device.h"

namespace basalt::bdev::lvs {

struct JournalEntry {
  ListNode node;
  const uint8_t* records = nullptr;  // the appender's, unchanged until done; at most one block's worth, kept together
  uint32_t length_bytes = 0;
  bool flush_first = false;  // what the records publish has to be stable before they are written
  nvme::Status status;
  void (*done)(JournalEntry*) = nullptr;
  void* context = nullptr;
};

class JournalHost {
 public:
  virtual void journal_apply(const uint8_t* records, uint32_t length_bytes) = 0;
  virtual void journal_progress() = 0;  // after each batch, and when the ring is full
  virtual void journal_failed() = 0;

 protected:
  ~JournalHost() = default;
};

class Journal {
 public:
  Journal(Reactor& reactor, const Device& device, const Layout& layout, JournalHost& host);
  ~Journal();

  // Before the first append.
  void start(const Uuid& store_uuid, uint64_t incarnation, uint64_t generation, uint64_t next_sequence);

  void append(JournalEntry* entry);                        // done is called later
  void trim(uint64_t tail_sequence, uint64_t generation);  // a superblock that starts there is stable
  void flushed(uint64_t sequence);  // a flush that was submitted when `sequence` had completed has succeeded
  void fail();                      // the store has failed elsewhere

  uint64_t completed_sequence() const { return next_sequence_ - 1 - in_flight_blocks_; }
  bool all_stable() const { return completed_sequence() <= stable_sequence_; }
  uint64_t used_blocks() const { return next_sequence_ - tail_sequence_; }
  bool idle() const { return !writing_ && !kicked_; }
  bool failed() const { return failed_; }

 private:
  static constexpr uint32_t batch_blocks_max = 16;
  void kick();
  void begin_batch();
  void fill(uint64_t blocks_max);
  void write_batch();
  void batch_done(nvme::Status status);
  void fail_all(nvme::Status batch_status);

  Reactor& reactor_;
  const Device& device_;
  const Layout& layout_;
  JournalHost& host_;
  Uuid store_uuid_;
  uint64_t incarnation_ = 0;
  uint64_t generation_ = 0;
  uint64_t next_sequence_ = 1;
  uint64_t tail_sequence_ = 1;
  uint64_t stable_sequence_ = 0;
  uint64_t in_flight_blocks_ = 0;
  bool writing_ = false;
  bool kicked_ = false;
  bool failed_ = false;
  List<JournalEntry, &JournalEntry::node> pending_;
  List<JournalEntry, &JournalEntry::node> batch_;
  BlockMemory memory_{batch_blocks_max};
  Iovec iov_;
  Io io_;
  struct Kick : Work {
    Journal* journal;
  } kick_;
};

// co_await journal_wait(journal, entry): appends and resumes with the status.
class JournalWait {
 public:
  JournalWait(Journal& journal, JournalEntry& entry) : journal_(journal), entry_(entry) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    entry_.context = this;
    entry_.done = [](JournalEntry* entry) { static_cast<JournalWait*>(entry->context)->waiter_.resume(); };
    journal_.append(&entry_);
  }
  nvme::Status await_resume() const noexcept { return entry_.status; }

 private:
  Journal& journal_;
  JournalEntry& entry_;
  std::coroutine_handle<> waiter_;
};
inline JournalWait journal_wait(Journal& journal, JournalEntry& entry) {
  return JournalWait(journal, entry);
}

}  // namespace basalt::bdev::lvs
