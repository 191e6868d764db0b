// SPDX-License-Identifier: Apache-2.0
// Checksums: the base as checksummed lvols see it. Each 4 KiB block of data has a tag, the CRC32C of what was written;
// a read whose data does not match answers unrecovered_read_error, as an unreadable sector does, so that a mirror or
// parity raid above repairs it. Why it is built so: decision 011.
//
// A write goes to the log first, data and tags, with FUA; then the data goes to its place and the tags to their pages
// in memory. What is in the log is carried out again when the store is loaded. So neither a torn write nor one that was
// lost looks like damage, and damage is never taken for either. trim() writes the pages back and empties the log.
//
// Thread: the store's reactor. Order: writes of a block exclude each other and reads of it (range_lock.h).
// Invariants: - data changes in place only under a record that is stable
//             - the log's tail moves only when what the records before it say is in place, flushed
//             - the log names no block whose cluster is free and clean: whoever frees one trims first
#pragma once

#include <memory>

#include "base/framed_task.h"
#include "base/pool.h"
#include "bdev/lvol/control.h"
#include "bdev/lvol/tag_pages.h"
#include "bdev/range_lock.h"

namespace basalt::bdev::lvs {

struct ChecksumLogContents;
class ChecksumLogImage;

class ChecksumHost {
 public:
  virtual void checksums_failed() = 0;  // a write or flush of the base has failed: nothing is written any more
  virtual void checksums_begin() = 0;   // work of its own, until checksums_end()
  virtual void checksums_end() = 0;

 protected:
  ~ChecksumHost() = default;
};

// Bugs that tests switch on.
struct ChecksumPlantedBugs {
  bool no_record = false;           // data goes in place without a record
  bool record_not_durable = false;  // or before its record is stable
  bool trim_before_flush = false;   // the log is emptied before what it says is stable
  bool no_verify = false;           // what does not match its tag is given out
};

class Checksums {
 public:
  Checksums(Reactor& reactor, const Device& device, const Layout& layout, const Uuid& store_uuid, ChecksumHost& host,
            std::vector<uint32_t> clusters);
  ~Checksums();
  Checksums(const Checksums&) = delete;
  Checksums& operator=(const Checksums&) = delete;

  Task<Outcome> format();  // a new area: all zeroes on stable media
  // not_found: it was never formatted. corrupt: a superblock or the log. Writes nothing; afterwards replay() is needed.
  Task<Outcome> load();
  // Carries out what load() found in the log. Afterwards reads and writes are possible. in_memory: nothing is written,
  // then or later; what the log has and the place has not reads as damaged.
  enum class Replay : uint8_t { carry_out, in_memory };
  Task<Outcome> replay(Replay how = Replay::carry_out);
  void plant(const ChecksumPlantedBugs& bugs) { bugs_ = bugs; }

  // A read or write of the data area, as prepared for the device. Completes later, never inside.
  void submit(Io* io) { begin(io, nullptr); }
  // Data and tags as they are, right or not: a copy of what is damaged is damaged.
  Task<nvme::Status> copy(IoType type, uint64_t block, uint32_t count_blocks, uint8_t* memory, uint32_t* tags);

  // What was written before is stable in its place, and the log does not name it any more.
  FramedTask<nvme::Status> trim();
  void fail();
  FrameMemory& frames() { return frames_; }  // of what trims
  uint64_t mismatch_count() const { return mismatch_count_; }
  uint64_t lost_record_count() const { return lost_record_count_; }  // of the log, when it was loaded
  uint64_t memory_bytes() const { return pages_.memory_bytes() + ops_.count() * sizeof(Op); }

 private:
  struct Op : TagPageWaiter {
    Checksums* owner = nullptr;
    Io* io = nullptr;
    uint32_t* copied_tags = nullptr;  // a copy's; else nullptr
    RangeEntry range;
    ListNode node;  // in pending_ or batch_
    uint32_t done_blocks = 0;
    uint32_t chunk_blocks = 0;
    uint32_t page_count = 0;
    bool phase = false;
    TagPage* pages[2] = {};
    Io child;
    std::unique_ptr<Iovec[]> slice;
    nvme::Status status;                // of a chunk's write
    std::unique_ptr<BlockMemory> look;  // at what a failed one left
    Iovec look_iov;
    uint32_t tags[128];
    uint64_t chunk_block() const { return range.first_block + done_blocks; }
    uint32_t count_blocks() const { return static_cast<uint32_t>(range.end_block - range.first_block); }
    bool writing() const { return range.exclusive; }
  };
  struct Copy;
  struct Kick : Work {
    Checksums* owner = nullptr;
  };
  static constexpr size_t ops_max = size_t{1} << 20;
  static constexpr size_t writers_max = 16;

  // checksums.cc: reads and writes
  void begin(Io* io, uint32_t* copied_tags);
  void next_chunk(Op* op);
  void pin_pages(Op* op);
  void have_pages(Op* op);
  void unpin_pages(Op* op);
  uint32_t& tag_of(Op* op, uint32_t block_of_chunk);
  bool point_child(Op* op);
  void read_done(Op* op);
  bool verify(Op* op);
  void swap_tags(Op* op);
  void write_in_place(Op* op);
  void placed(Op* op);
  void looked(Op* op);
  static Task<void> forget_failed(Checksums* checksums, Op* op);
  void leave_phase(Op* op);
  void chunk_ended(Op* op);
  void finish(Op* op, nvme::Status status);

  // checksum_log.cc: the log and its trimming
  void log(Op* op);
  void kick();
  void begin_batch();
  bool fill();
  static void copy_chunk(const Op& op, uint8_t* to);
  void logged(nvme::Status status);
  void fail_pending();
  void trim_in_background();
  FramedSpawn run_trim();
  FramedTask<nvme::Status> empty_log();
  struct PageWriting;
  FramedSpawn write_some(PageWriting& writing, uint8_t* memory);
  FramedTask<nvme::Status> write_pages(const std::vector<TagPage*>& pages);
  FramedTask<nvme::Status> write_block(uint64_t block, uint8_t* memory);
  FramedTask<nvme::Status> write_superblocks(uint64_t tail_sequence, uint64_t tail_position);

  // checksum_load.cc
  Task<Outcome> load_superblocks();
  Task<Outcome> read_log(ChecksumLogImage& image);
  Task<Outcome> carry_out(const ChecksumLogContents& log, Replay how);
  Task<Outcome> carry_out_run(const ChecksumLogContents& log, uint64_t first, uint32_t count, Replay how);
  Task<nvme::Status> put_in_place(uint64_t block, uint32_t count_blocks, uint8_t* memory);
  struct PageWait;
  Task<Result<TagPage*>> page_of(uint64_t block);

  Reactor& reactor_;
  const Device& device_;
  const Uuid store_uuid_;
  ChecksumHost& host_;
  ChecksumArea area_;
  TagPages pages_;
  ChecksumPlantedBugs bugs_;
  Pool<Op> ops_{ops_max, 16};
  RangeLock locks_;
  List<Op, &Op::node> pending_;  // oldest first
  List<Op, &Op::node> batch_;
  BlockMemory memory_{1 + checksum_record_blocks_max};
  Io io_;
  Iovec iov_;
  Kick kick_;
  bool kicked_ = false;
  bool writing_ = false;
  bool failed_ = false;
  bool trimming_ = false;
  WaitList trimmed_;
  std::vector<TagPage*> trimmed_pages_;
  BlockMemory trim_memory_{writers_max};
  FrameMemory frames_;
  // Writes whose record was begun and that are not in place yet, in two phases: trim() waits for those before it.
  uint64_t unplaced_[2] = {};
  bool phase_ = false;
  WaitList phase_ended_;
  uint64_t nonce_ = 0;
  uint64_t generation_ = 0;
  uint64_t record_generation_ = 0;  // the lower one of the two superblocks with this tail
  uint64_t next_sequence_ = 1;
  uint64_t tail_sequence_ = 1;
  uint64_t head_ = 0;  // positions: blocks since the log was made
  uint64_t tail_ = 0;
  // Between load() and replay(); the contents point into the image.
  std::unique_ptr<ChecksumLogImage> log_image_;
  std::unique_ptr<ChecksumLogContents> log_;
  uint64_t mismatch_count_ = 0;
  uint64_t lost_record_count_ = 0;
};

}  // namespace basalt::bdev::lvs
