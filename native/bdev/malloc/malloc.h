// SPDX-License-Identifier: Apache-2.0
// malloc: a block device in memory; for tests, benchmarks and scratch space. Contents go with the bdev.
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
  MallocBdev(Reactor& home, uint64_t size_bytes) : Bdev(home), arena_(size_bytes + Arena::slab_bytes) {}
  Arena arena_;
  char* data_ = nullptr;
};

}  // namespace basalt::bdev
