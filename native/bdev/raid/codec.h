// SPDX-License-Identifier: Apache-2.0
// Codec: the arithmetic of k data and m parity strips over GF(2^8). The first parity is the exclusive or of the data
// (raid5's), the second weighs strip i with 2^i (raid6's), the third with 4^i, the fourth with 8^i. Any k of the k + m
// strips determine the others. ISA-L does the work and picks the code for the processor at run time. Pure; threads may
// share one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace basalt::bdev {

// Strips by role: 0..k-1 data, k..k+m-1 parity.
class ParityCodec {
 public:
  static constexpr uint32_t data_count_max = 16;
  static constexpr uint32_t parity_count_max = 4;
  static constexpr uint32_t strip_count_max = data_count_max + parity_count_max;

  // 1 <= k <= 16, 1 <= m <= 4.
  ParityCodec(uint32_t data_count, uint32_t parity_count);

  uint32_t data_count() const { return k_; }
  uint32_t parity_count() const { return m_; }
  uint32_t strip_count() const { return k_ + m_; }

  // All parities of all data.
  void encode(size_t length_bytes, uint8_t* const* data, uint8_t* const* parity) const;
  // What a change of one data strip does to every parity: parity ^= weight * (old ^ new).
  void update(size_t length_bytes, uint32_t role, const uint8_t* difference, uint8_t* const* parity) const;

  // How to compute strips that are not there from those that are. `present` and `wanted` are bit masks of roles without
  // a bit in common. Invalid argument when fewer than k are present.
  class Recovery;
  Result<Recovery> recovery(uint32_t present, uint32_t wanted) const;

 private:
  const uint8_t* row(uint32_t role) const { return &matrix_[role * k_]; }
  uint32_t k_;
  uint32_t m_;
  std::vector<uint8_t> matrix_;         // (k + m) x k; the first k rows are the identity
  std::vector<uint8_t> encode_tables_;  // ISA-L's, for the parity rows
};

class ParityCodec::Recovery {
 public:
  // The k roles whose strips run() takes, ascending, and those that it gives, ascending.
  std::span<const uint8_t> sources() const { return sources_; }
  std::span<const uint8_t> results() const { return results_; }
  void run(size_t length_bytes, uint8_t* const* sources, uint8_t* const* results) const;

 private:
  friend class ParityCodec;
  std::vector<uint8_t> sources_;
  std::vector<uint8_t> results_;
  std::vector<uint8_t> tables_;
};

}  // namespace basalt::bdev
