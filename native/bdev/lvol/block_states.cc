// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/block_states.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/assert.h"

namespace basalt::bdev::lvs {
namespace {

constexpr uint32_t planes_max = (1u << 29) - 2;

// The bits first..first+count-1 that lie in word `word`, as a mask.
uint64_t word_mask(uint32_t word, uint32_t first, uint32_t count) {
  const uint64_t start = uint64_t{word} * 64;
  const uint64_t begin = std::max<uint64_t>(first, start) - start;
  const uint64_t end = std::min<uint64_t>(uint64_t{first} + count, start + 64) - start;
  return (end == 64 ? ~uint64_t{0} : (uint64_t{1} << end) - 1) & ~((uint64_t{1} << begin) - 1);
}

// Every second bit of a 64-bit group of 32 two-bit states, brought together.
uint32_t even_bits(uint64_t x) {
  x &= 0x5555555555555555;
  x = (x | x >> 1) & 0x3333333333333333;
  x = (x | x >> 2) & 0x0f0f0f0f0f0f0f0f;
  x = (x | x >> 4) & 0x00ff00ff00ff00ff;
  x = (x | x >> 8) & 0x0000ffff0000ffff;
  x = (x | x >> 16) & 0x00000000ffffffff;
  return static_cast<uint32_t>(x);
}
uint64_t spread_bits(uint32_t bits) {
  uint64_t x = bits;
  x = (x | x << 16) & 0x0000ffff0000ffff;
  x = (x | x << 8) & 0x00ff00ff00ff00ff;
  x = (x | x << 4) & 0x0f0f0f0f0f0f0f0f;
  x = (x | x << 2) & 0x3333333333333333;
  x = (x | x << 1) & 0x5555555555555555;
  return x;
}

}  // namespace

uint32_t PlanePool::take() {
  if (free_.empty()) {
    chunks_.push_back(std::make_unique<uint64_t[]>(size_t{chunk_planes} * plane_words_));
    for (uint32_t i = chunk_planes; i > 0; i--)
      free_.push_back(count_ + i - 1);
    count_ += chunk_planes;
    BASALT_ASSERT(count_ < planes_max);
  }
  const uint32_t plane = free_.back();
  free_.pop_back();
  return plane;
}

BlockStates::BlockStates(uint32_t cluster_blocks)
    : blocks_(cluster_blocks),
      words_((cluster_blocks + 63) / 64),
      last_valid_(cluster_blocks % 64 == 0 ? ~uint64_t{0} : (uint64_t{1} << cluster_blocks % 64) - 1),
      narrow_(words_),
      wide_(2 * words_) {
  BASALT_ASSERT(words_ <= words_max);
}

uint64_t BlockStates::bits(Code code, uint32_t word, BlockState state) const {
  if (code < uniform_end) return code == uniform(state) ? valid(word) : 0;
  const Form form = form_of(code);
  if (form != three) {
    const uint64_t data = narrow_.words(plane_of(code))[word];
    if (state == BlockState::data) return data;
    return (form == data_or_zero) == (state == BlockState::zero) ? ~data & valid(word) : 0;
  }
  const uint64_t* words = wide_.words(plane_of(code));
  if (state == BlockState::data) return words[word];
  if (state == BlockState::zero) return words[words_ + word];
  return ~(words[word] | words[words_ + word]) & valid(word);
}

BlockState BlockStates::at(Code code, uint32_t block) const {
  if (code < uniform_end) [[likely]]
    return static_cast<BlockState>(code);
  const uint64_t bit = uint64_t{1} << block % 64;
  if ((bits(code, block / 64, BlockState::data) & bit) != 0) return BlockState::data;
  return (bits(code, block / 64, BlockState::zero) & bit) != 0 ? BlockState::zero : BlockState::parent;
}

uint32_t BlockStates::same_blocks(Code code, uint32_t block, uint32_t count_max) const {
  if (code < uniform_end) [[likely]]
    return count_max;
  const BlockState state = at(code, block);
  uint32_t count = 0;
  while (count < count_max) {
    const uint32_t from = block + count;
    const uint64_t others = ~bits(code, from / 64, state) >> (from % 64);
    const uint32_t in_word = 64 - from % 64;
    const uint32_t same =
        others == 0 ? in_word : std::min<uint32_t>(static_cast<uint32_t>(std::countr_zero(others)), in_word);
    count += same;
    if (same < in_word) break;
  }
  return std::min(count, count_max);
}

bool BlockStates::all(Code code, uint32_t first_block, uint32_t count_blocks, BlockState state) const {
  if (code < uniform_end) return code == uniform(state);
  for (uint32_t word = first_block / 64; word <= (first_block + count_blocks - 1) / 64; word++) {
    const uint64_t mask = word_mask(word, first_block, count_blocks);
    if ((bits(code, word, state) & mask) != mask) return false;
  }
  return true;
}

bool BlockStates::any(Code code, uint32_t first_block, uint32_t count_blocks, BlockState state) const {
  if (code < uniform_end) return code == uniform(state);
  for (uint32_t word = first_block / 64; word <= (first_block + count_blocks - 1) / 64; word++) {
    if ((bits(code, word, state) & word_mask(word, first_block, count_blocks)) != 0) return true;
  }
  return false;
}

bool BlockStates::any(Code code, BlockState state) const {
  return any(code, 0, blocks_, state);
}

void BlockStates::load(Code code, Planes& planes) const {
  for (uint32_t word = 0; word < words_; word++) {
    planes.data[word] = bits(code, word, BlockState::data);
    planes.zero[word] = bits(code, word, BlockState::zero);
  }
}

BlockStates::Code BlockStates::store(Code old, const Planes& planes) {
  bool has_data = false;
  bool has_zero = false;
  bool has_parent = false;
  for (uint32_t word = 0; word < words_; word++) {
    has_data |= planes.data[word] != 0;
    has_zero |= planes.zero[word] != 0;
    has_parent |= (planes.data[word] | planes.zero[word]) != valid(word);
  }
  const bool wide = has_zero && has_parent;
  if (!wide && (!has_data || (!has_zero && !has_parent))) {
    drop(old);
    return has_data ? all_data : has_zero ? all_zero : all_parent;
  }
  const bool was_wide = old >= uniform_end && form_of(old) == three;
  const bool fits = old >= uniform_end && was_wide == wide;
  if (!fits) drop(old);
  const uint32_t plane = fits ? plane_of(old) : (wide ? wide_ : narrow_).take();
  uint64_t* words = (wide ? wide_ : narrow_).words(plane);
  std::memcpy(words, planes.data, size_t{words_} * 8);
  if (wide) std::memcpy(words + words_, planes.zero, size_t{words_} * 8);
  return (plane + 1) << 2 | (wide ? three : has_zero ? data_or_zero : data_or_parent);
}

BlockStates::Code BlockStates::set(Code code, uint32_t first_block, uint32_t count_blocks, BlockState state) {
  if (count_blocks == blocks_) {
    drop(code);
    return uniform(state);
  }
  if (code == uniform(state)) return code;
  Planes planes;
  load(code, planes);
  for (uint32_t word = first_block / 64; word <= (first_block + count_blocks - 1) / 64; word++) {
    const uint64_t mask = word_mask(word, first_block, count_blocks);
    planes.data[word] = state == BlockState::data ? planes.data[word] | mask : planes.data[word] & ~mask;
    planes.zero[word] = state == BlockState::zero ? planes.zero[word] | mask : planes.zero[word] & ~mask;
  }
  return store(code, planes);
}

void BlockStates::drop(Code code) {
  if (code < uniform_end) return;
  (form_of(code) == three ? wide_ : narrow_).give(plane_of(code));
}

void BlockStates::write(Code code, bool parent_as_zero, uint8_t* out) const {
  for (uint32_t word = 0; word < words_; word++) {
    const uint64_t data = bits(code, word, BlockState::data);
    uint64_t zero = bits(code, word, BlockState::zero);
    if (parent_as_zero) zero |= bits(code, word, BlockState::parent);
    for (uint32_t half = 0; half < 2 && word * 64 + half * 32 < blocks_; half++) {
      const auto low = static_cast<uint32_t>(data >> 32 * half);
      const auto high = static_cast<uint32_t>(zero >> 32 * half);
      const uint64_t pairs = spread_bits(low) | spread_bits(high) << 1;
      const uint32_t blocks_here = std::min<uint32_t>(32, blocks_ - word * 64 - half * 32);
      std::memcpy(out + (word * 64 + half * 32) / 4, &pairs, blocks_here / 4);
    }
  }
}

bool BlockStates::read(const uint8_t* in, Code& code) {
  Planes planes;
  for (uint32_t word = 0; word < words_; word++) {
    planes.data[word] = planes.zero[word] = 0;
    for (uint32_t half = 0; half < 2 && word * 64 + half * 32 < blocks_; half++) {
      uint64_t pairs = 0;
      const uint32_t blocks_here = std::min<uint32_t>(32, blocks_ - word * 64 - half * 32);
      std::memcpy(&pairs, in + (word * 64 + half * 32) / 4, blocks_here / 4);
      planes.data[word] |= uint64_t{even_bits(pairs)} << 32 * half;
      planes.zero[word] |= uint64_t{even_bits(pairs >> 1)} << 32 * half;
    }
    if ((planes.data[word] & planes.zero[word]) != 0) return false;
  }
  code = store(all_parent, planes);
  return true;
}

}  // namespace basalt::bdev::lvs
