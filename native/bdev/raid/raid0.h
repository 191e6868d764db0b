// SPDX-License-Identifier: Apache-2.0
// raid0: strips over members. strip s lies on member s mod n, at strip s div n. A request becomes at most one request
// per member: what it touches of a member is one contiguous range there, scattered only in memory.
// concat: the members one after the other, of any sizes.
//
// raid0 grows as its members do: a strip's place depends on its number and on how many members there are, never on the
// size. concat grows with its last member; where the others begin was decided when it was made.
#pragma once

#include <memory>
#include <vector>

#include "bdev/child_io.h"
#include "bdev/handle.h"

namespace basalt::bdev {

struct Raid0Options {
  std::string name;
  Uuid uuid;
  uint64_t strip_bytes = 64 * 1024;  // a power of two, at least one block
  bool concat = false;               // one after the other: no strips
};

class Raid0Bdev final : public Bdev {
 public:
  static constexpr size_t member_count_max = 256;
  // Members of one block size; each gives as many whole strips as the smallest has. concat: all of each.
  static Result<std::unique_ptr<Raid0Bdev>> create(Reactor& home, const Raid0Options& options,
                                                   std::vector<Handle> members);
  ~Raid0Bdev() override;
  void submit(Io* io) override;
  Task<Outcome> close() override;
  const std::vector<Handle>& members() const { return members_; }

 private:
  struct Parent;
  struct Part {
    uint64_t offset_blocks;
    uint64_t end_blocks;
  };
  using Bdev::Bdev;
  // One ear for each member, since a watcher is in one list.
  struct Ear;
  uint64_t usable_blocks() const;
  Part part_of(uint64_t first_block, uint64_t end_block, size_t member) const;
  void gather(const Io& io, ChildIo& child) const;
  static void child_done(Io* child);

  std::vector<Handle> members_;
  uint64_t strip_blocks_ = 0;
  std::vector<uint64_t> begins_;  // concat: where each member does; empty: raid0
  ChildIoPool children_{child_io_count_max};
  std::unique_ptr<Pool<Parent>> parents_;
  std::vector<std::unique_ptr<Ear>> ears_;
};

}  // namespace basalt::bdev
