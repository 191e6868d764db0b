// SPDX-License-Identifier: Apache-2.0
// What a fuzz target is made of. A `<name>_fuzz.cc` beside the code defines a function over any bytes, and valid
// messages to start from, and last in its namespace
//
//   BASALT_FUZZ_TARGET(name, run, seeds)
//
// Built with BASALT_FUZZ it becomes the libFuzzer program `fuzz_<name>` (npm run fuzz). In every other build it is a
// GoogleTest case of its folder's test program, which replays the seeds and test/fuzz/corpus/<name>: an input that once
// hurt can never hurt again unnoticed.
//
// `run` must be a function of its bytes alone (no clock, no randomness, nothing kept from one call to the next) and
// must stop by assertion or sanitizer when a promise is broken.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "base/assert.h"

#ifndef BASALT_FUZZ
#include <gtest/gtest.h>

#include "testing/rounds.h"
#include "testing/source_tree.h"
#endif

namespace basalt::testing {

using FuzzBytes = std::vector<uint8_t>;

struct FuzzSeed {
  std::string name;
  FuzzBytes bytes;
};

// Takes values off the front; zeroes when nothing is left.
class FuzzInput {
 public:
  explicit FuzzInput(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  template <class T>
  T number() {
    T value = 0;
    const auto from = take(sizeof(T));
    if (!from.empty()) std::memcpy(&value, from.data(), from.size());
    return value;
  }
  uint8_t u8() { return number<uint8_t>(); }
  uint16_t u16() { return number<uint16_t>(); }
  uint32_t u32() { return number<uint32_t>(); }
  uint64_t u64() { return number<uint64_t>(); }
  std::span<const uint8_t> take(size_t count_max) {
    const auto out = bytes_.first(std::min(count_max, bytes_.size()));
    bytes_ = bytes_.subspan(out.size());
    return out;
  }
  std::span<const uint8_t> rest() { return take(bytes_.size()); }
  // A length, then that many bytes: how FuzzOutput::blob() writes them.
  std::span<const uint8_t> blob() { return take(u16()); }
  // Overwrites parts of a valid message: how many patches, then offset, length and bytes of each.
  void patch(std::span<uint8_t> message) {
    const unsigned count = u8() % 16;
    for (unsigned i = 0; i < count; i++) {
      const size_t offset = u16();
      const auto bytes = take(u8() % 32);
      for (size_t b = 0; b < bytes.size() && offset + b < message.size(); b++)
        message[offset + b] = bytes[b];
    }
  }

 private:
  std::span<const uint8_t> bytes_;
};

// Writes what FuzzInput reads, for seeds.
class FuzzOutput {
 public:
  template <class T>
  FuzzOutput& number(T value) {
    uint8_t bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    return add({bytes, sizeof(T)});
  }
  FuzzOutput& u8(unsigned value) { return number(static_cast<uint8_t>(value)); }
  FuzzOutput& u16(unsigned value) { return number(static_cast<uint16_t>(value)); }
  FuzzOutput& u32(uint32_t value) { return number(value); }
  FuzzOutput& u64(uint64_t value) { return number(value); }
  FuzzOutput& add(std::span<const uint8_t> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  FuzzOutput& add(const std::string& text) { return add({reinterpret_cast<const uint8_t*>(text.data()), text.size()}); }
  FuzzOutput& blob(std::span<const uint8_t> bytes) { return u16(static_cast<unsigned>(bytes.size())).add(bytes); }
  FuzzOutput& no_patch() { return u8(0); }
  FuzzOutput& patch_one(unsigned offset, std::span<const uint8_t> bytes) {
    return u8(1).u16(offset).u8(static_cast<unsigned>(bytes.size())).add(bytes);
  }
  const FuzzBytes& bytes() const { return bytes_; }

 private:
  FuzzBytes bytes_;
};

using FuzzRun = void (*)(std::span<const uint8_t>);

// Of a target that plays one world for its bytes, the first of which seeds that world.
template <class Play>
void fuzz_play(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  const uint8_t seed = input.u8();
  Play play(input, seed);
  play.perform();
}

using FuzzSeeds = std::vector<FuzzSeed> (*)();

inline FuzzBytes read_fuzz_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return FuzzBytes(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

inline void write_fuzz_seeds(const std::string& folder, const std::vector<FuzzSeed>& seeds) {
  std::filesystem::create_directories(folder);
  for (const FuzzSeed& seed : seeds) {
    std::ofstream file(std::filesystem::path(folder) / ("seed-" + seed.name), std::ios::binary);
    file.write(reinterpret_cast<const char*>(seed.bytes.data()), static_cast<std::streamsize>(seed.bytes.size()));
  }
}

#ifndef BASALT_FUZZ
inline void replay_fuzz_corpus(const char* name, FuzzRun run, FuzzSeeds seeds) {
  const std::vector<FuzzSeed> all = seeds();
  for (size_t i = 0; i < all.size(); i += case_stride)
    run(all[i].bytes);
  std::vector<std::filesystem::path> files;
  const std::string folder = source_path(std::string("test/fuzz/corpus/") + name);
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  const bool chatty = std::getenv("BASALT_FUZZ_NAMES") != nullptr;  // for finding the one that crashes
  for (size_t i = 0; i < files.size(); i += case_stride) {
    if (chatty) std::fprintf(stderr, "%s\n", files[i].c_str());
    const FuzzBytes bytes = read_fuzz_file(files[i]);
    run(bytes);
  }
  EXPECT_FALSE(files.empty()) << folder << " holds nothing";
}
#endif

}  // namespace basalt::testing

#ifdef BASALT_FUZZ
// With BASALT_FUZZ_SEEDS=<folder> the program writes its seeds there and ends.
#define BASALT_FUZZ_TARGET(name, run, seeds)                                        \
  extern "C" int LLVMFuzzerInitialize(int*, char***);                               \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t count);        \
  extern "C" int LLVMFuzzerInitialize(int*, char***) {                              \
    if (const char* folder = std::getenv("BASALT_FUZZ_SEEDS"); folder != nullptr) { \
      ::basalt::testing::write_fuzz_seeds(folder, seeds());                         \
      std::exit(0);                                                                 \
    }                                                                               \
    return 0;                                                                       \
  }                                                                                 \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t count) {       \
    run(std::span<const uint8_t>(bytes, count));                                    \
    return 0;                                                                       \
  }
#else
#define BASALT_FUZZ_TARGET(name, run, seeds)                  \
  TEST(FuzzCorpus, name##_survives_every_input_kept_for_it) { \
    ::basalt::testing::replay_fuzz_corpus(#name, run, seeds); \
  }
#endif
