// SPDX-License-Identifier: Apache-2.0
// SimDisk: a disk with a volatile write cache: its contents, its faults, and what a crash may leave of it. Made by
// opening it (create_bytes) or by SimWorld::disk(); outlives the process that uses it.
//
// What it promises, as a real one does:
//  - a flush makes stable what had completed when it was submitted, and nothing that it need not
//  - a write with FUA is stable when it completes; others are not, whatever was written before or after
//  - writes in flight together happen in any order
// After a power cut each atomic unit holds what was stable, or any of the contents written since.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "env/env.h"
#include "env/sim/sim_image.h"
#include "env/sim/sim_random.h"

namespace basalt::env {

class SimDisk {
 public:
  static constexpr size_t sector_bytes = 512;
  void resize(uint64_t size_bytes) {
    stable_.resize(size_bytes);
    current_.resize(size_bytes);
  }
  uint64_t size_bytes() const { return current_.size_bytes(); }

  // Faults that the user of the disk is told of.
  bool fail_writes = false;  // each may have changed any part of its range
  bool fail_reads = false;
  // What a failed flush should have made stable is forgotten: a later flush does not cover it.
  bool fail_flushes = false;
  bool hang = false;  // requests wait until it is false again
  Duration extra_delay;
  double slow_chance = 0;  // of a request to take slow_delay more
  Duration slow_delay = milliseconds(500);
  uint64_t space_bytes = UINT64_MAX;  // thin backing: a write that would allocate more than this is refused (ENOSPC)
  // Reading these sectors fails until they were rewritten as a whole.
  void make_unreadable(uint64_t offset_bytes, uint64_t length_bytes);
  bool readable(uint64_t offset_bytes, uint64_t length_bytes) const;
  size_t unreadable_count() const { return unreadable_.size(); }

  // Faults that it is not told of.
  double lose_write_chance = 0;       // acknowledged, never there
  double misdirect_write_chance = 0;  // acknowledged, but at another place
  // Only writes that lie in here are, to places in here, and no more than so many.
  uint64_t misdirect_first_byte = 0;
  uint64_t misdirect_end_byte = UINT64_MAX;
  uint64_t misdirect_count_max = UINT64_MAX;
  double misdirect_nowhere_chance = 0;  // of one of those to be at no other place either: lost
  double misdirect_read_chance = 0;     // the bytes of another place
  bool ignore_flushes = false;          // acknowledged, and nothing was made stable
  void flip_bit(uint64_t offset_bytes, unsigned bit);
  uint64_t silent_fault_count() const { return silent_fault_count_; }

  size_t atomic_bytes = sector_bytes;  // what a power cut keeps or loses as a whole; a multiple of sectors
  // Of a unit that was being written when the power went: to hold neither the old nor the new, but garbage.
  double shorn_chance = 0;

  // The process was killed, or the power went. What was in flight may have happened in any part.
  void crash(SimRandom& random);
  void power_cut(SimRandom& random);

  // Crash states, without crashing. Each may be loaded into a disk of another world.
  SimImage after_kill(SimRandom& random) const;
  SimImage after_power_cut(SimRandom& random, unsigned keep_percent) const;  // of what is not stable
  SimImage after_prefix(size_t count) const;  // the first `count` unflushed writes, and nothing else
  size_t unflushed_count() const { return unflushed_.size(); }
  size_t in_flight_count() const { return in_flight_.size(); }
  void load(const SimImage& image);
  // After every write and flush that was carried out, before its submitter hears of it. Must not touch the disk.
  std::function<void(FileIo::Type)> on_boundary;

  const SimImage& contents() const { return current_; }

 private:
  friend class SimFile;
  friend class SimPoller;
  struct Change {
    uint64_t sequence;
    uint64_t offset_bytes;
    uint64_t length_bytes;
    std::shared_ptr<std::vector<uint8_t>> data;  // nullptr: zeroes
    uint64_t data_at;
    bool forgotten = false;  // its flush failed
  };
  int carry_out(FileIo& io, uint64_t flush_until, SimRandom& random);
  void read(const FileIo& io, uint64_t offset_bytes) const;
  int write(const FileIo& io, SimRandom& random);
  void flush(uint64_t until);
  void forget(uint64_t until);
  void change(Change change, bool durable);
  void change_parts(const Change& whole, unsigned keep_percent, SimRandom& random);
  void trim(uint64_t from, uint64_t to, bool only_forgotten);
  uint64_t elsewhere(uint64_t offset_bytes, uint64_t length_bytes, SimRandom& random) const;
  bool misdirects(const Change& change, SimRandom& random);
  // False: something of it is not there.
  bool tear(SimImage& image, const Change& change, unsigned keep_percent, double shorn, SimRandom& random) const;
  void tear_in_flight(SimImage& image, unsigned keep_percent, double shorn, SimRandom& random) const;
  static Change change_of(const FileIo& io);
  static void apply(SimImage& image, const Change& change, uint64_t from, uint64_t to);

  bool open_ = false;
  std::vector<FileIo*> in_flight_;
  SimImage stable_;
  SimImage current_;
  std::deque<Change> unflushed_;  // in the order in which they completed
  uint64_t sequence_ = 0;         // of the next change
  uint64_t silent_fault_count_ = 0;
  std::set<uint64_t> unreadable_;  // sectors
};

}  // namespace basalt::env
