// SPDX-License-Identifier: Apache-2.0
// ChildIo: what a stacking bdev submits to the bdev below on behalf of one of its own requests. Pooled by the parent
// bdev; the iovec list keeps its capacity, so that a warm parent does not touch the heap.
#pragma once

#include <vector>

#include "base/pool.h"
#include "bdev/bdev.h"

namespace basalt::bdev {

struct ChildIo : Io {
  Io* parent = nullptr;
  uint32_t member = 0;        // which child, where there are several
  uint32_t attachment = 0;    // who was that child then, where others come in its place
  uint32_t role = 0;          // what it is for, where that is not the same
  std::vector<Iovec> pieces;  // for a parent that gathers memory

  // Becomes a request for the same thing as `from`, over the same memory.
  void mirror(Io* from, IoDone child_done, void* child_context) {
    parent = from;
    type = from->type;
    fua = from->fua;
    offset_blocks = from->offset_blocks;
    count_blocks = from->count_blocks;
    iov = from->iov;
    iov_count = from->iov_count;
    done = child_done;
    context = child_context;
  }
  static ChildIo* of(Io* io) { return static_cast<ChildIo*>(io); }
};

using ChildIoPool = Pool<ChildIo>;
constexpr size_t child_io_count_max = size_t{1} << 20;  // far above what all queues together can have in flight

}  // namespace basalt::bdev
