// SPDX-License-Identifier: Apache-2.0
// BlockStates: what each 4 KiB block of a cluster is - parent, data or zero - in 31 bits per cluster. A cluster whose
// blocks are all the same needs nothing else; with two states of which one is data, one bit per block; otherwise two
// bits. The bits lie in equal pieces ("planes") of a pool that reuses them.
//
// Thread: the store's reactor. Invariant: the form is the smallest that holds the states, so equal states of the same
// kind compare equal without a look at the bits.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bdev/lvol/format.h"

namespace basalt::bdev::lvs {

// Bits of clusters, in planes of a fixed number of words.
class PlanePool {
 public:
  explicit PlanePool(uint32_t plane_words) : plane_words_(plane_words) {}
  uint32_t take();
  void give(uint32_t plane) { free_.push_back(plane); }
  uint64_t* words(uint32_t plane) {
    return &chunks_[plane / chunk_planes][size_t{plane % chunk_planes} * plane_words_];
  }
  const uint64_t* words(uint32_t plane) const {
    return &chunks_[plane / chunk_planes][size_t{plane % chunk_planes} * plane_words_];
  }
  uint64_t memory_bytes() const { return chunks_.size() * chunk_planes * plane_words_ * 8; }

 private:
  static constexpr uint32_t chunk_planes = 256;
  const uint32_t plane_words_;
  uint32_t count_ = 0;
  std::vector<std::unique_ptr<uint64_t[]>> chunks_;
  std::vector<uint32_t> free_;
};

class BlockStates {
 public:
  // A cluster's states. Below uniform_end: the BlockState of all blocks. Otherwise plane * 4 + form.
  using Code = uint32_t;
  static constexpr Code uniform(BlockState state) { return static_cast<Code>(state); }
  static constexpr Code all_parent = 0;
  static constexpr Code all_data = 1;
  static constexpr Code all_zero = 2;

  explicit BlockStates(uint32_t cluster_blocks);

  BlockState at(Code code, uint32_t block) const;
  // How many blocks from `block` on have its state: at least 1, at most count_max.
  uint32_t same_blocks(Code code, uint32_t block, uint32_t count_max) const;
  bool all(Code code, uint32_t first_block, uint32_t count_blocks, BlockState state) const;
  bool any(Code code, BlockState state) const;
  bool any(Code code, uint32_t first_block, uint32_t count_blocks, BlockState state) const;
  // The new code; the old one is gone.
  Code set(Code code, uint32_t first_block, uint32_t count_blocks, BlockState state);
  void drop(Code code);
  // The blocks of word `word` (64 each) that have this state, as bits.
  uint64_t bits(Code code, uint32_t word, BlockState state) const;
  uint32_t word_count() const { return words_; }
  uint64_t memory_bytes() const { return narrow_.memory_bytes() + wide_.memory_bytes(); }

  // As on disk: two bits per block.
  void write(Code code, bool parent_as_zero, uint8_t* out) const;
  bool read(const uint8_t* in, Code& code);  // false: a state that does not exist

 private:
  enum Form : uint32_t { data_or_zero = 0, data_or_parent = 1, three = 2 };
  static constexpr Code uniform_end = 4;
  static constexpr uint32_t words_max = cluster_bytes_max / block_bytes / 64;
  struct Planes {
    uint64_t data[words_max];
    uint64_t zero[words_max];
  };
  static Form form_of(Code code) { return static_cast<Form>(code & 3); }
  static uint32_t plane_of(Code code) { return (code >> 2) - 1; }
  uint64_t valid(uint32_t word) const { return word + 1 == words_ ? last_valid_ : ~uint64_t{0}; }
  void load(Code code, Planes& planes) const;
  Code store(Code old, const Planes& planes);

  const uint32_t blocks_;
  const uint32_t words_;
  const uint64_t last_valid_;
  PlanePool narrow_;
  PlanePool wide_;
};

}  // namespace basalt::bdev::lvs
