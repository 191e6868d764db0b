// SPDX-License-Identifier: Apache-2.0
// fault: passes everything to the bdev below, but for the faults that tests inject: a request fails, hangs until the
// fault is cleared, or delivers flipped bits. (RPC: bdev_error_*.)
#pragma once

#include <memory>
#include <optional>

#include "bdev/child_io.h"
#include "bdev/handle.h"

namespace basalt::bdev {

enum class FaultKind : uint8_t { failure, pending, corrupt_data };

struct Fault {
  FaultKind kind = FaultKind::failure;
  IoTypes types;                // which requests it hits
  uint64_t count = UINT64_MAX;  // how many of them, then it ends
};

class FaultBdev final : public Bdev {
 public:
  FaultBdev(Reactor& home, std::string name, Uuid uuid, Handle base);
  void submit(Io* io) override;
  Task<Outcome> close() override;

  void inject(const Fault& fault) { fault_ = fault; }
  void clear();  // hanging requests go on
  size_t pending_count() const { return pending_count_; }
  uint64_t injected_count() const { return injected_count_; }

 private:
  void pass(Io* io, bool corrupt);
  static void child_done(Io* child);
  Handle base_;
  std::optional<Fault> fault_;
  List<Io, &Io::node> pending_;
  size_t pending_count_ = 0;
  uint64_t injected_count_ = 0;
  ChildIoPool children_{child_io_count_max};
};

}  // namespace basalt::bdev
