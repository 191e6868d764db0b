// SPDX-License-Identifier: Apache-2.0
// slot: a volume's place in a namespace, whose backing comes and goes while hosts stay connected: none on a standby
// controller, the volume's raid0 on the active one. Without a backing it answers with ANA Inaccessible, so that a host
// looks for another path.
//
// Invariants: - after set(none) or quiesce() has ended, no request is in flight below
//             - held requests go on, in order of arrival, at resume() or set()
#pragma once

#include <memory>

#include "bdev/child_io.h"
#include "bdev/handle.h"

namespace basalt::bdev {

struct SlotOptions {
  std::string name;
  Uuid uuid;
  uint32_t block_size_bytes = 4096;
  uint64_t count_blocks = 0;
};

class SlotBdev final : public Bdev {
 public:
  static Result<std::unique_ptr<SlotBdev>> create(Reactor& home, const SlotOptions& options);
  void submit(Io* io) override;
  Task<Outcome> close() override;

  // A backing must have the slot's block size and at least its blocks. An empty handle: none; ends when all is drained.
  Task<Outcome> set(Handle backing);
  // Only larger, and never larger than the backing. Hosts that are connected are told.
  Outcome grow(uint64_t count_blocks);
  Task<Outcome> quiesce(Duration timeout);  // timed_out: nothing is held any more, as before the call
  void resume();
  bool has_backing() const { return static_cast<bool>(backing_); }
  Bdev* backing() const { return backing_ ? &backing_.bdev() : nullptr; }

 private:
  using Bdev::Bdev;
  void pass(Io* io);
  Task<bool> drained(Instant deadline);
  static void child_done(Io* child);
  void release_held();

  Handle backing_;
  bool holding_ = false;
  List<Io, &Io::node> held_;
  ChildIoPool children_{child_io_count_max};
};

}  // namespace basalt::bdev
