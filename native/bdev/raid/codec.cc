// SPDX-License-Identifier: Apache-2.0
#include "bdev/raid/codec.h"

#include <isa-l/erasure_code.h>

#include <algorithm>
#include <bit>
#include <string>

#include "base/assert.h"

namespace basalt::bdev {
namespace {

constexpr size_t table_bytes = 32;  // per coefficient, ISA-L's expanded form

// ISA-L's prototypes lack const; it reads what it is given as input.
uint8_t* mutable_bytes(const uint8_t* bytes) {
  return const_cast<uint8_t*>(bytes);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
}

int as_int(size_t value) {
  return static_cast<int>(value);
}

}  // namespace

ParityCodec::ParityCodec(uint32_t data_count, uint32_t parity_count)
    : k_(data_count),
      m_(parity_count),
      matrix_((data_count + parity_count) * data_count),
      encode_tables_(table_bytes * data_count * parity_count) {
  BASALT_ASSERT(k_ >= 1 && k_ <= data_count_max && m_ >= 1 && m_ <= parity_count_max);
  // Powers of 1, 2, 4 and 8. Any k rows are independent up to k = 16 and m = 4: codec_test.cc tries them all.
  gf_gen_rs_matrix(matrix_.data(), as_int(k_ + m_), as_int(k_));
  ec_init_tables(as_int(k_), as_int(m_), &matrix_[k_ * k_], encode_tables_.data());
}

void ParityCodec::encode(size_t length_bytes, uint8_t* const* data, uint8_t* const* parity) const {
  ec_encode_data(as_int(length_bytes), as_int(k_), as_int(m_), mutable_bytes(encode_tables_.data()),
                 const_cast<uint8_t**>(data), const_cast<uint8_t**>(parity));  // NOLINT
}

void ParityCodec::update(size_t length_bytes, uint32_t role, const uint8_t* difference, uint8_t* const* parity) const {
  BASALT_ASSERT(role < k_);
  ec_encode_data_update(as_int(length_bytes), as_int(k_), as_int(m_), as_int(role),
                        mutable_bytes(encode_tables_.data()), mutable_bytes(difference),
                        const_cast<uint8_t**>(parity));  // NOLINT
}

Result<ParityCodec::Recovery> ParityCodec::recovery(uint32_t present, uint32_t wanted) const {
  BASALT_ASSERT((present & wanted) == 0 && ((present | wanted) >> strip_count()) == 0);
  if (static_cast<uint32_t>(std::popcount(present)) < k_) {
    return Error{Errc::invalid_argument, "of " + std::to_string(strip_count()) + " strips only " +
                                             std::to_string(std::popcount(present)) + " are present; " +
                                             std::to_string(k_) + " are needed"};
  }
  Recovery recovery;
  // Data first: what is there of it needs no arithmetic.
  for (uint32_t role = 0; role < strip_count() && recovery.sources_.size() < k_; role++) {
    if ((present >> role & 1) != 0) recovery.sources_.push_back(static_cast<uint8_t>(role));
  }
  for (uint32_t role = 0; role < strip_count(); role++) {
    if ((wanted >> role & 1) != 0) recovery.results_.push_back(static_cast<uint8_t>(role));
  }
  std::vector<uint8_t> square(k_ * k_);
  std::vector<uint8_t> inverse(k_ * k_);
  for (uint32_t i = 0; i < k_; i++)
    std::copy_n(row(recovery.sources_[i]), k_, &square[i * k_]);
  if (gf_invert_matrix(square.data(), inverse.data(), as_int(k_)) != 0) {
    return Error{Errc::corrupt, "the coding matrix of these strips has no inverse"};
  }
  // sources = square * data, so data = inverse * sources, and any strip = its row * inverse * sources.
  const auto result_count = static_cast<uint32_t>(recovery.results_.size());
  std::vector<uint8_t> rows(result_count * k_);
  for (uint32_t i = 0; i < result_count; i++) {
    for (uint32_t column = 0; column < k_; column++) {
      uint8_t sum = 0;
      for (uint32_t j = 0; j < k_; j++)
        sum ^= gf_mul(row(recovery.results_[i])[j], inverse[j * k_ + column]);
      rows[i * k_ + column] = sum;
    }
  }
  recovery.tables_.resize(table_bytes * k_ * result_count);
  ec_init_tables(as_int(k_), as_int(result_count), rows.data(), recovery.tables_.data());
  return recovery;
}

void ParityCodec::Recovery::run(size_t length_bytes, uint8_t* const* sources, uint8_t* const* results) const {
  ec_encode_data(as_int(length_bytes), as_int(sources_.size()), as_int(results_.size()), mutable_bytes(tables_.data()),
                 const_cast<uint8_t**>(sources), const_cast<uint8_t**>(results));  // NOLINT
}

}  // namespace basalt::bdev
