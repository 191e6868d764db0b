// SPDX-License-Identifier: Apache-2.0
// The bdev contract (bdev.h) as a suite: each type, and each stack worth trying, instantiates it with a factory.
//
//   INSTANTIATE_TEST_SUITE_P(Malloc, BdevContract, ::testing::Values(BdevFactory{"malloc", make_malloc}),
//   factory_name);
#pragma once

#include "bdev/testing/sim_fixture.h"

namespace basalt::bdev {

// Owns a bdev with all below it, closed and freed in order.
struct BdevStack {
  Bdev* top = nullptr;
  std::vector<std::unique_ptr<Bdev>> owned;  // bottom first
};

struct BdevFactory {
  const char* name;
  BdevStack (*make)(SimFixture& fixture);
};

inline std::string factory_name(const ::testing::TestParamInfo<BdevFactory>& info) {
  return info.param.name;
}

class BdevContract : public ::testing::TestWithParam<BdevFactory> {
 protected:
  void SetUp() override { stack_ = GetParam().make(fixture_); }
  void TearDown() override {
    while (!stack_.owned.empty()) {
      EXPECT_TRUE(fixture_.run(stack_.owned.back()->close()).ok());
      stack_.owned.pop_back();
    }
  }
  Bdev& bdev() { return *stack_.top; }
  SimFixture fixture_{20261121};
  BdevStack stack_;
};

}  // namespace basalt::bdev
