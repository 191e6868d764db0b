// SPDX-License-Identifier: Apache-2.0
// ParityMemberBdev: what a member of a leg with parity holds at a given place, read-only: from the copy that has the
// place, where there is one that can be read, and recomputed from k that have other places. All of them are copies of
// one instant, which nobody writes.
//
// Owner: its home reactor, where the copies live too.
//
// Invariants: - copies of different legs, or of different sizes, are refused; so are two of one place
//             - which place a copy has is what its superblocks say
//             - a copy that cannot be read costs nothing as long as others make up for it, range by range; where they
//             do
//               not, it is an error of the request, never other bytes
//             - what is recomputed has no log (zeroes): what was in it was carried out before the instant
#pragma once

#include <map>
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

  // Copies whose superblocks cannot be read count for nothing. Too few others: what is wrong with the first one of
  // those, or invalid_argument.
  static Task<Result<std::unique_ptr<ParityMemberBdev>>> open(Reactor& home, ParityMemberOptions options,
                                                              std::vector<Handle> copies);

  void submit(Io* io) override;
  Task<Outcome> close() override;

 private:
  ParityMemberBdev(Reactor& home, const ParityMemberOptions& options, const parity::Superblock& geometry);
  Task<void> read(Io* io);
  Task<nvme::Status> read_piece(uint64_t block, uint32_t count_blocks, uint8_t* out);
  void write_front(uint64_t block, uint32_t count_blocks, uint8_t* out) const;
  Task<nvme::Status> recover(uint32_t places, uint64_t block, uint32_t count_blocks, uint8_t* out, uint32_t* failed);
  uint32_t choose(uint32_t usable) const;
  bool enough(uint32_t places) const;
  const std::vector<ParityCodec::Recovery>& recoveries_of(uint32_t places);

  const uint32_t place_;
  parity::Superblock superblock_;  // as this member has it
  ParityLayout layout_;
  ParityCodec codec_;
  std::vector<Handle> members_;  // by place; empty where there is no copy
  uint32_t present_ = 0;         // places that have one
  uint32_t doubtful_ = 0;        // those that something could not be read of: asked where there is no other way
  // By the k places that they take, by stripe, modulo the number of members.
  std::map<uint32_t, std::vector<ParityCodec::Recovery>> recoveries_;
  Gate gate_;
};

}  // namespace basalt::bdev
