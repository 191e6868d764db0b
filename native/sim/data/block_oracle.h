// SPDX-License-Identifier: Apache-2.0
// BlockOracle: what each 512-byte sector of a volume may hold, from what was asked and what was answered. Sectors are
// judged one by one: no device below promises more than that a sector is old or new after a crash.
//
// Every changed sector carries a tag (volume, block, sequence), repeated, so that foreign, old and misplaced bytes
// show. Time is a counter of events. Changes may overlap; a change is one version of each block it touches.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace basalt::sim {

constexpr uint32_t oracle_block_bytes = 4096;
constexpr uint32_t oracle_sector_bytes = 512;
constexpr uint32_t oracle_sectors = oracle_block_bytes / oracle_sector_bytes;

// Fills `count_blocks` blocks with the tags of one change.
void fill_tagged(uint8_t* data, uint64_t volume, uint64_t first_block, uint64_t count_blocks, uint64_t sequence);

enum class CrashRule : uint8_t {
  kill,       // what completed is there
  power_cut,  // what a flush covered, or anything written since
};

class BlockOracle {
 public:
  // `shorn`: a power cut may leave garbage in a sector that was being written.
  BlockOracle(uint64_t volume, uint64_t count_blocks, bool shorn = false)
      : volume_(volume), shorn_(shorn), blocks_(count_blocks) {}
  // What another volume holds that was copied from this one (a snapshot, a clone) at some moment since `begun` (a
  // read's beginning).
  BlockOracle copied(uint64_t begun, uint64_t volume) const;
  uint64_t volume() const { return volume_; }
  uint64_t count_blocks() const { return blocks_.size(); }

  using ChangeId = uint64_t;
  // `sequence` 0: zeroes. Sequences are never used twice for one block.
  ChangeId change_begins(uint64_t first_block, uint64_t count_blocks, uint64_t sequence);
  // ok: it is there (stable, when forced). Not ok: it may be there in any part, and refused: it surely never is.
  enum class Ending : uint8_t { done, forced, unknown, refused };
  void change_ends(ChangeId change, uint64_t first_block, uint64_t count_blocks, Ending ending);
  uint64_t flush_begins() { return ++clock_; }
  void flush_ends(uint64_t begun);  // with success
  uint64_t read_begins() {
    reads_.insert(++clock_);
    return clock_;
  }
  void read_ends(uint64_t begun) { reads_.erase(begun); }

  // nullopt: right. Else what is wrong with the first bad sector.
  std::optional<std::string> judge_read(uint64_t begun, uint64_t first_block, const uint8_t* data,
                                        uint64_t count_blocks) const;
  std::optional<std::string> judge_crash(CrashRule rule, uint64_t first_block, const uint8_t* data,
                                         uint64_t count_blocks) const;
  // Whether a crash may have come upon this block while it was changing, or before a change of it was stable.
  bool unsettled(CrashRule rule, uint64_t block) const;
  // These bytes were read after a crash: they are the truth from now on, on stable media.
  void adopt(uint64_t first_block, const uint8_t* data, uint64_t count_blocks);
  void forget_history();  // before adopting everything: whatever was in flight has ended with the crash

 private:
  static constexpr uint64_t never = UINT64_MAX;
  static constexpr uint64_t garbage = UINT64_MAX;  // as a sequence
  struct Version {
    ChangeId change;
    uint64_t sequence;
    uint64_t begun;
    uint64_t ended = never;
    bool durable = false;
    bool certain = true;  // not: a copy was made meanwhile, and may lack it
  };
  struct Block {
    std::array<uint64_t, oracle_sectors> base = {};  // by sequence; stable since before everything
    bool base_possible = true;
    std::vector<Version> versions;
  };
  bool belongs(uint64_t volume) const;
  static bool in_flight(const Block& block);
  static bool overwritten(const Block& block, uint64_t ended, uint64_t before, bool only_durable);
  static bool possible(const Block& block, uint32_t sector, uint64_t sequence, uint64_t before, uint64_t until,
                       bool only_durable);
  std::optional<std::string> judge(uint64_t first_block, const uint8_t* data, uint64_t count_blocks, uint64_t before,
                                   uint64_t until, bool only_durable, bool crashed) const;
  void prune(Block& block) const;
  std::string describe(const Block& block, uint32_t sector) const;

  uint64_t volume_;
  std::vector<uint64_t> ancestors_;  // whose bytes may be here
  bool shorn_;
  uint64_t clock_ = 0;
  std::set<uint64_t> reads_;  // in flight: they may still see what was replaced since they began
  std::vector<Block> blocks_;
};

}  // namespace basalt::sim
