// SPDX-License-Identifier: Apache-2.0
// bdev: a block device as an interface. Everything is a bdev and stacks: malloc, file, lvol, raid, nvmf (initiator)...
//
// A bdev lives on one reactor, its home, and is touched there only. Users on any reactor go through a Handle
// (bdev/handle.h), which forwards when the user's reactor is another one.
//
// Contract of submit(io), the same for every type:
//  - it never fails: it always completes, exactly once, later, by io->done(io) with io->status; never inside submit()
//  - the submitter owns the Io and everything it points to and keeps them unchanged until done
//  - done may free, reuse or resubmit the Io
//  - a range outside the device completes with lba_out_of_range, a type outside info().io_types with invalid_opcode
//  - concurrent Ios are not ordered; a flush covers the writes that had completed before it was submitted
//  - a failed write may have changed any part of its range, and nothing outside
//  - never-written and unmapped blocks read as zeroes
//
// Size. A bdev may grow while it is used, and never shrinks while it is. What was there keeps its address; what is new
// reads as zeroes. From the moment that count_blocks() says so, requests for the new range are taken. Bdevs that stand
// on one bdev (raid0, crypt, ...) watch it (watch_size) and follow; what has a size of its own choosing (slot) is told.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/iovec.h"
#include "base/list.h"
#include "base/task.h"
#include "base/uuid.h"
#include "base/work.h"
#include "nvme/status.h"
#include "runtime/reactor.h"

namespace basalt::bdev {

enum class IoType : uint8_t {
  read,
  write,
  flush,         // whole device; offset and count are ignored
  write_zeroes,  // reads as zeroes afterwards; may deallocate
  unmap,         // gives the space back; reads as zeroes afterwards (over a parent too)
};

struct IoTypes {
  uint8_t mask = 0x1f;
  constexpr bool has(IoType type) const { return mask >> static_cast<unsigned>(type) & 1; }
};

struct Io;
using IoDone = void (*)(Io*);

// One request. The Work base queues it (completion, messages); `node` is for the bdev that currently holds it.
struct Io : Work {
  IoType type = IoType::read;
  bool fua = false;           // write, write_zeroes, unmap: on stable media before completion
  uint16_t iov_count = 0;     // read, write: pieces whose lengths add up to count_blocks; no alignment is asked for
  uint32_t count_blocks = 0;  // > 0 but for flush
  uint64_t offset_blocks = 0;
  const Iovec* iov = nullptr;
  // A read may be answered by a loan instead of a copy. Who sets `borrows`, on the bdev's home reactor, finds in `lent`
  // where the data lies, in one piece, or nullptr: then it is in `iov` as ever. The loan ends with the turn in which
  // done runs; until then the data may change, by whole writes.
  bool borrows = false;
  const void* lent = nullptr;
  nvme::Status status;
  IoDone done = nullptr;
  void* context = nullptr;  // the submitter's
  ListNode node;
  // While a Handle forwards the Io to another reactor: what to restore.
  struct {
    IoDone done = nullptr;
    Reactor* reactor = nullptr;
    void* target = nullptr;
  } forwarded;
};

constexpr uint64_t io_bytes_max = uint64_t{1} << 20;  // of one read or write; larger ones complete with invalid_field
constexpr size_t iov_count_max = 512;

struct BdevInfo {
  std::string name;
  std::string product;  // "malloc", "file", "lvol", ...
  Uuid uuid;
  uint32_t block_size_bytes = 4096;  // a power of two, 512..4096
  uint64_t count_blocks = 0;
  IoTypes io_types;
  bool volatile_cache = false;  // completed writes need a flush to survive power loss
  // Iovec pieces that keep this alignment (base and length) travel without a copy; others are bounced.
  uint32_t memory_alignment_bytes = 1;
};

// What was asked of a bdev since it was made, by IoType; refused requests are not counted.
struct IoStats {
  uint64_t count[5] = {};
  uint64_t blocks[5] = {};
};

class Bdev;

// Hears of changes of a bdev's size: what stands on it, or shows it to somebody. On the bdev's home reactor, where
// watch_size() and unwatch_size() are called too; it has left before the bdev is destroyed.
class SizeWatcher {
 public:
  // The new size is in force already. May grow bdevs above and may leave; must neither close nor destroy anything.
  virtual void size_changed(Bdev& bdev) = 0;
  ListNode size_node;

 protected:
  ~SizeWatcher() = default;
};

class Bdev {
 public:
  explicit Bdev(Reactor& home) : home_(home) {}
  virtual ~Bdev() = default;
  Bdev(const Bdev&) = delete;
  Bdev& operator=(const Bdev&) = delete;

  Reactor& home() { return home_; }
  const BdevInfo& info() const { return info_; }
  const IoStats& stats() const { return stats_; }

  // Of info(), from any reactor: it may grow meanwhile.
  uint64_t count_blocks() const { return __atomic_load_n(&info_.count_blocks, __ATOMIC_ACQUIRE); }
  void watch_size(SizeWatcher* watcher) { size_watchers_.push_back(watcher); }
  void unwatch_size(SizeWatcher* watcher) { size_watchers_.remove(watcher); }

  virtual void submit(Io* io) = 0;

  // Ends the bdev: nothing is submitted any more and nothing is in flight. On the home reactor, once, before
  // destruction.
  virtual Task<Outcome> close() = 0;

  // A small record (at most attribute_bytes_max) kept durably with the device, replaced atomically: it is on stable
  // media when the task ends. Errc::unsupported where the device cannot (see lvol). Used for the one-writer gate.
  static constexpr size_t attribute_bytes_max = 1024;
  virtual Task<Outcome> set_attribute(std::string value);
  virtual std::string attribute() const { return {}; }  // empty: never set

  // What the device holds becomes a read-only device of its own beside this one, called `name`, durably: in it is what
  // had completed before, and nothing that is submitted afterwards. Data is as stable as a flush has made it.
  // `may_begin` is asked once, right before the point of no return; false from it: Errc::fenced, and nothing was made.
  // exists: the name is taken. unsupported: the device cannot (see lvol).
  virtual Task<Outcome> snapshot(std::string name, std::function<bool()> may_begin);
  // What the first snapshot of a device has to do beforehand, so that snapshot() itself is short.
  virtual Task<Outcome> prepare_snapshot();

  // For read leases: when the latest command that the device completed with success was sent to it. A device that
  // nobody else can take over always answers now.
  virtual Instant last_success_sent() const { return home_.now(); }

 protected:
  // Completes inside submit(): queued, so that done never runs there.
  void complete_later(Io* io, nvme::Status status) {
    io->status = status;
    io->run = [](Work* work) {
      Io* done = static_cast<Io*>(work);
      done->done(done);
    };
    home_.defer(io);
  }
  // Completes from a completion context (a child's done, poll, a timer).
  static void complete_now(Io* io, nvme::Status status) {
    io->status = status;
    io->done(io);
  }
  // What every type does first with a request: checks and counts it. ok() or what to complete with.
  nvme::Status check(const Io& io);
  // Puts the size in force and tells the watchers, when it is another one. Smaller only while nobody uses the bdev.
  void set_size(uint64_t count_blocks);

  BdevInfo info_;

 private:
  Reactor& home_;
  IoStats stats_;
  List<SizeWatcher, &SizeWatcher::size_node> size_watchers_;
};

}  // namespace basalt::bdev
