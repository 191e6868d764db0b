// SPDX-License-Identifier: Apache-2.0
// malloc: a block device in memory; for tests, benchmarks and scratch space. Contents go with the bdev.
//
// Requests are carried out together, later in the turn: by then the beginning of each block has been fetched into the
// cache. Reads may borrow (bdev.h).
#pragma once

#include <memory>

#include "bdev/bdev.h"
#include "memory/arena.h"

namespace basalt::bdev {

struct MallocOptions {
  std::string name;
  Uuid uuid;
  uint32_t block_size_bytes = 4096;  // 512..4096, a power of two
  uint64_t count_blocks = 0;         // > 0
};

class MallocBdev final : public Bdev {
 public:
  static Result<std::unique_ptr<MallocBdev>> create(Reactor& home, const MallocOptions& options);
  void submit(Io* io) override;
  Task<Outcome> close() override;

 private:
  MallocBdev(Reactor& home, uint64_t size_bytes);
  char* place_of(const Io& io) { return data_ + io.offset_blocks * info_.block_size_bytes; }
  void carry_out_all();
  void carry_out(Io* io);

  Arena arena_;
  char* data_ = nullptr;
  List<Io, &Io::node> waiting_;
  struct Event : Work {
    MallocBdev* bdev = nullptr;
  };
  Event carry_out_event_;
};

}  // namespace basalt::bdev
