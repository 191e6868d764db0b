// SPDX-License-Identifier: Apache-2.0
// fsck: looks at every metadata block of an lvstore in use and at what they say together, and writes nothing. It goes
// on after the first problem; a store without errors is one that LvStore::load() takes.
#pragma once

#include <string>
#include <vector>

#include "bdev/lvol/lvstore.h"

namespace basalt::bdev {

struct FsckReport {
  struct Problem {
    bool error = true;  // otherwise the store loads all the same
    std::string message;
  };
  struct Slot {
    enum class State : uint8_t { blank, intact, damaged };
    State state = State::blank;
    uint64_t generation = 0;
  };
  std::vector<Problem> problems;
  Slot superblocks[lvs::superblock_slot_count];
  // From the newest intact superblock; zero when there is none.
  Uuid uuid;
  std::string name;
  uint64_t generation = 0;
  uint64_t incarnation = 0;
  uint64_t incompatible = 0;
  bool clean = false;
  lvs::Layout layout;
  uint32_t pages_used = 0;
  uint64_t journal_start_sequence = 0;
  uint64_t journal_blocks = 0;  // to be replayed
  // What the store holds, if it could be read as a whole.
  bool readable = false;
  LvStoreStats stats;
  std::vector<LayerInfo> layers;

  bool sound() const;  // no errors
};

Task<FsckReport> fsck(Reactor& reactor, Handle base);
std::string fsck_text(const FsckReport& report, bool dump);

}  // namespace basalt::bdev
