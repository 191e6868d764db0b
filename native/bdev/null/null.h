// SPDX-License-Identifier: Apache-2.0
// null: forgets every write and reads as zeroes: what the stack above costs, and nothing else.
#pragma once

#include <memory>

#include "bdev/bdev.h"

namespace basalt::bdev {

struct NullOptions {
  std::string name;
  Uuid uuid;
  uint32_t block_size_bytes = 4096;
  uint64_t count_blocks = 0;
};

class NullBdev final : public Bdev {
 public:
  static Result<std::unique_ptr<NullBdev>> create(Reactor& home, const NullOptions& options);
  void submit(Io* io) override;
  Task<Outcome> close() override;

 private:
  using Bdev::Bdev;
};

}  // namespace basalt::bdev
