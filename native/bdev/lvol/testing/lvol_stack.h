// SPDX-License-Identifier: Apache-2.0
// For the contract suite: an lvol that owns its store, so that one close() ends both.
#pragma once

#include "bdev/lvol/lvstore.h"
#include "bdev/testing/contract.h"

namespace basalt::bdev {

class LvolWithStore final : public Bdev {
 public:
  LvolWithStore(std::unique_ptr<LvStore> store, Lvol& lvol) : Bdev(lvol.home()), store_(std::move(store)), lvol_(lvol) {
    info_ = lvol.info();
  }
  void submit(Io* io) override { lvol_.submit(io); }
  Task<Outcome> close() override {
    Outcome closed = co_await lvol_.close();
    if (closed) closed = co_await store_->close();
    co_return closed;
  }
  Task<Outcome> set_attribute(std::string value) override { return lvol_.set_attribute(std::move(value)); }
  std::string attribute() const override { return lvol_.attribute(); }

 private:
  std::unique_ptr<LvStore> store_;
  Lvol& lvol_;
};

// Small clusters, so that requests span several.
inline std::unique_ptr<Bdev> make_lvol_over(SimFixture& fixture, Bdev& base, uint64_t size_bytes,
                                            bool checksums = false) {
  LvStoreOptions options;
  options.name = "pool";
  options.cluster_bytes = lvs::cluster_bytes_min;
  auto store = fixture.run(LvStore::create(fixture.reactor, Handle(base, fixture.reactor), options));
  EXPECT_TRUE(store.ok());
  LvolOptions lvol_options;
  lvol_options.name = "v";
  lvol_options.size_bytes = size_bytes;
  lvol_options.checksums = checksums;
  auto lvol = fixture.run((*store)->create_lvol(lvol_options));
  EXPECT_TRUE(lvol.ok());
  return std::make_unique<LvolWithStore>(std::move(*store), **lvol);
}

}  // namespace basalt::bdev
