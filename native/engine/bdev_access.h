// SPDX-License-Identifier: Apache-2.0
// BdevAccess: one opening of a bdev for a program outside the reactors (the addon). Reads and writes of any length are
// cut into the pieces that bdevs take; the caller's memory goes down the stack as it is.
//
// Thread: submit() on any thread; Transfer::done runs on the bdev's home reactor and must be quick.
// Invariants: - a Transfer and its memory belong to the engine from submit() until done, which is called exactly once
//             - after the engine began to stop, transfers end with host_aborted
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "base/gate.h"
#include "base/task.h"
#include "base/work.h"
#include "bdev/bdev.h"
#include "bdev/handle.h"

namespace basalt {

class BdevAccess;

struct Transfer : Work {
  enum class Type : uint8_t { read, write, flush };
  Type type = Type::read;
  uint64_t offset_bytes = 0;  // multiples of the block size, as is length_bytes
  uint64_t length_bytes = 0;
  char* memory = nullptr;
  nvme::Status status;
  void (*done)(Transfer*) = nullptr;
  void* context = nullptr;  // the caller's

  // The engine's, while it runs.
  struct Piece {
    bdev::Io io;
    Iovec iov;
    Transfer* transfer = nullptr;
    bool busy = false;
  };
  static constexpr size_t pieces_max = 8;  // in flight of one transfer
  BdevAccess* access = nullptr;
  uint64_t started_bytes = 0;
  unsigned in_flight = 0;
  std::array<Piece, pieces_max> pieces;
};

class BdevAccess {
 public:
  BdevAccess(std::string name, bdev::Bdev& bdev) : name_(std::move(name)), bdev_(bdev), info_(bdev.info()) {}

  const std::string& name() const { return name_; }
  const bdev::BdevInfo& info() const { return info_; }            // as it was when opened
  uint64_t count_blocks() const { return bdev_.count_blocks(); }  // now

  void submit(Transfer* transfer);  // any thread

  // Home reactor.
  void refuse() { refusing_ = true; }
  Task<void> drain();

 private:
  void begin(Transfer* transfer);
  void feed(Transfer* transfer);
  void piece_done(Transfer::Piece* piece);
  void end(Transfer* transfer);

  const std::string name_;
  bdev::Bdev& bdev_;
  const bdev::BdevInfo info_;
  Gate gate_;
  bool refusing_ = false;
};

}  // namespace basalt
