// SPDX-License-Identifier: Apache-2.0
// ParityMemberBdev: what a member of a leg with parity holds at a given place, read-only, recomputed from members that
// have other places. All of them are copies of one instant, which nobody writes.
//
// Owner: its home reactor, where the copies live too.
//
// Invariants: - copies of different legs, or of different sizes, are refused; so are fewer than k
//             - the log reads as zeroes: what was in it was carried out before the instant
//             - a copy that cannot be read is an error of the request, never other bytes
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/gate.h"
#include "bdev/handle.h"
#include "bdev/raid/codec.h"
#include "bdev/raid/parity_format.h"
#include "bdev/raid/parity_layout.h"

namespace basalt::bdev {

struct ParityMemberOptions {
  std::string name;
  Uuid uuid;
  uint32_t place = 0;
};

class ParityMemberBdev final : public Bdev {
 public:
  static constexpr const char* product = "parity_member";

  // not_found, corrupt, io: as their superblocks are. invalid_argument: one has the place itself, or they are too few.
  static Task<Result<std::unique_ptr<ParityMemberBdev>>> open(Reactor& home, ParityMemberOptions options,
                                                              std::vector<Handle> copies);

  void submit(Io* io) override;
  Task<Outcome> close() override;

 private:
  ParityMemberBdev(Reactor& home, const ParityMemberOptions& options, const parity::Superblock& geometry);
  Task<void> read(Io* io);
  Task<nvme::Status> read_front(uint64_t block, uint32_t count_blocks, uint8_t* out);
  Task<nvme::Status> recover(uint64_t block, uint32_t count_blocks, uint8_t* out);

  const uint32_t place_;
  parity::Superblock superblock_;  // as this member has it
  ParityLayout layout_;
  ParityCodec codec_;
  uint32_t present_ = 0;                           // places whose copies are read, k of them
  std::vector<Handle> members_;                    // by place; empty where there is no copy
  std::vector<ParityCodec::Recovery> recoveries_;  // by stripe, modulo the number of members
  Gate gate_;
};

}  // namespace basalt::bdev
