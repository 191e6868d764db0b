// SPDX-License-Identifier: Apache-2.0
#include "bdev/raid/codec.h"

#include <isa-l/erasure_code.h>

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "base/assert.h"

namespace basalt::bdev {
namespace {

constexpr size_t table_bytes = 32;  // per coefficient, ISA-L's expanded form

// ISA-L's prototypes lack const; it reads what it is given as input.
uint8_t* mutable_bytes(const uint8_t* bytes) {
  return const_cast<uint8_t*>(bytes);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
}

// GF(2^8) with polynomial 0x11d. ISA-L has these as well, but its matrix functions call a `gf_mul` that Node.js
// exports, too, with another meaning: inside an addon they would reach that one.
uint8_t multiply(uint8_t a, uint8_t b) {
  uint32_t sum = 0;
  for (uint32_t factor = a; b != 0; b >>= 1) {
    if ((b & 1) != 0) sum ^= factor;
    factor <<= 1;
    if ((factor & 0x100) != 0) factor ^= 0x11d;
  }
  return static_cast<uint8_t>(sum);
}

uint8_t inverse_of(uint8_t a) {
  uint8_t power = a;  // a^254
  for (int i = 0; i < 6; i++)
    power = multiply(multiply(power, power), a);
  return multiply(power, power);
}

// Gauss and Jordan; `square` is used up. False: it has no inverse.
bool invert(std::vector<uint8_t>& square, std::vector<uint8_t>* inverse, uint32_t k) {
  inverse->assign(k * k, 0);
  for (uint32_t i = 0; i < k; i++)
    (*inverse)[i * k + i] = 1;
  for (uint32_t column = 0; column < k; column++) {
    uint32_t pivot = column;
    while (pivot < k && square[pivot * k + column] == 0)
      pivot++;
    if (pivot == k) return false;
    for (uint32_t j = 0; j < k && pivot != column; j++) {
      std::swap(square[pivot * k + j], square[column * k + j]);
      std::swap((*inverse)[pivot * k + j], (*inverse)[column * k + j]);
    }
    const uint8_t scale = inverse_of(square[column * k + column]);
    for (uint32_t j = 0; j < k; j++) {
      square[column * k + j] = multiply(square[column * k + j], scale);
      (*inverse)[column * k + j] = multiply((*inverse)[column * k + j], scale);
    }
    for (uint32_t row = 0; row < k; row++) {
      const uint8_t factor = square[row * k + column];
      if (row == column || factor == 0) continue;
      for (uint32_t j = 0; j < k; j++) {
        square[row * k + j] ^= multiply(square[column * k + j], factor);
        (*inverse)[row * k + j] ^= multiply((*inverse)[column * k + j], factor);
      }
    }
  }
  return true;
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
  for (uint32_t i = 0; i < k_; i++)
    matrix_[i * k_ + i] = 1;
  for (uint32_t parity = 0; parity < m_; parity++) {
    uint8_t power = 1;
    for (uint32_t i = 0; i < k_; i++) {
      matrix_[(k_ + parity) * k_ + i] = power;
      power = multiply(power, static_cast<uint8_t>(1u << parity));
    }
  }
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
  std::vector<uint8_t> inverse;
  for (uint32_t i = 0; i < k_; i++)
    std::copy_n(row(recovery.sources_[i]), k_, &square[i * k_]);
  if (!invert(square, &inverse, k_)) {
    return Error{Errc::corrupt, "the coding matrix of these strips has no inverse"};
  }
  // sources = square * data, so data = inverse * sources, and any strip = its row * inverse * sources.
  const auto result_count = static_cast<uint32_t>(recovery.results_.size());
  std::vector<uint8_t> rows(result_count * k_);
  for (uint32_t i = 0; i < result_count; i++) {
    for (uint32_t column = 0; column < k_; column++) {
      uint8_t sum = 0;
      for (uint32_t j = 0; j < k_; j++)
        sum ^= multiply(row(recovery.results_[i])[j], inverse[j * k_ + column]);
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
