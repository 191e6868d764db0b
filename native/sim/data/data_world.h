// SPDX-License-Identifier: Apache-2.0
// DataWorld: the volumes of one run of the data suite: what lives in the stack, what its oracle says, and the work that
// is going on. Outlives the stacks: after a crash the next one takes over.
//
// Thread: the run's. Everything that was asked of a stack has ended before the stack goes (drain()); what is answered
// after a crash was taken counts no more.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sim/data/block_oracle.h"
#include "sim/data/stack.h"

namespace basalt::sim {

struct DataMix {
  // Weights; swarm: some are 0.
  uint32_t write = 8;
  uint32_t read = 4;
  uint32_t unmap = 1;
  uint32_t write_zeroes = 1;
  uint32_t flush = 2;
  uint32_t attribute = 1;
  uint32_t create = 2;
  uint32_t remove = 1;
  uint32_t snapshot = 2;  // and clones
  uint32_t fold = 1;      // inflate and decouple
  double fua_chance = 0.1;
  uint32_t long_blocks_max = 48;
  bool overlapping = false;  // changes in flight may meet
  std::string to_string() const;
};
DataMix random_data_mix(env::SimRandom& random);

class DataWorld {
 public:
  static constexpr uint64_t volume_blocks = 96;
  static constexpr uint32_t judge_blocks = 32;  // read at once
  static constexpr size_t judge_bytes = size_t{judge_blocks} * oracle_block_bytes;

  DataWorld(env::SimRandom& random, const StackPlan& plan, const DataMix& mix, bool shorn);

  void attach(Stack& stack);  // finds its volumes there
  void step();                // asks for something
  bool idle() const { return active_count_ == 0; }
  // A crash was taken: answers from now on mean nothing.
  void crashed() { crashed_ = true; }
  void detach() { stack_ = nullptr; }

  // Everything in a stack that was brought up again after a crash. With `adopt` it becomes the truth.
  // Empty: all right. What was changing may be garbage where a raid may lack it (Stack::may_lack); when such was seen
  // and would have to be adopted, nothing is, and garbage_seen() says so.
  std::string judge(Stack& stack, CrashRule rule, bool adopt);
  bool garbage_seen() const { return garbage_seen_; }
  // From now on requests may fail: a disk broke that nobody can replace. Until the next attach().
  void expect_failures() { failures_expected_ = true; }
  const std::string& violation() const { return violation_; }  // what a read or an answer showed; empty: none
  uint64_t op_count() const { return op_count_; }
  uint64_t digest() const { return digest_; }

 private:
  enum class Life : uint8_t { creating, live, deleting };
  struct Volume {
    Volume(uint64_t number, bool shorn) : oracle(number, volume_blocks, shorn) {}
    BlockOracle oracle;
    bool immutable = false;  // a snapshot
    // Being copied from another one, since then.
    std::string origin;
    uint64_t copying_since = 0;
    Life life = Life::creating;
    bdev::Bdev* bdev = nullptr;
    std::vector<std::string> attributes = {""};  // the first is stable; another one is being set
    uint32_t io_count = 0;
    std::vector<uint8_t> seen;                                              // as it was last judged
    std::vector<uint32_t> changing = std::vector<uint32_t>(volume_blocks);  // changes in flight, by block
  };
  Volume* pick(std::string* name);
  Task<void> change(std::string name, bdev::IoType type, uint64_t first, uint32_t count, bool fua);
  Task<void> read(std::string name, uint64_t first, uint32_t count);
  Task<void> flush(std::string name);
  Task<void> set_attribute(std::string name);
  Task<void> create();
  Task<void> remove(std::string name);
  Task<void> copy(std::string origin, bool snapshot);
  Task<void> fold(std::string name, bool inflate);
  void note(uint64_t what);
  void violated(const std::string& what);
  std::string judge_volume(Stack& stack, bdev::Bdev& bdev, Volume& volume, const BlockOracle& oracle, CrashRule rule);

  env::SimRandom& random_;
  const bool pool_;
  const bool checksums_;
  const bool mirrored_;
  const DataMix mix_;
  const bool shorn_;
  Stack* stack_ = nullptr;
  std::vector<uint8_t> scratch_ = std::vector<uint8_t>(judge_bytes);
  bool crashed_ = false;
  bool failures_expected_ = false;
  bool garbage_seen_ = false;
  std::map<std::string, Volume> volumes_;
  uint64_t next_number_ = 1;
  uint64_t next_sequence_ = 1;
  uint64_t active_count_ = 0;
  uint64_t op_count_ = 0;
  uint64_t digest_ = 0xcbf29ce484222325;
  std::string violation_;
};

}  // namespace basalt::sim
