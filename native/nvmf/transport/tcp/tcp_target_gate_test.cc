// SPDX-License-Identifier: Apache-2.0
// The one-writer gate as hosts meet it: takeovers drain, are made durable, and only then complete.
#include "nvmf/transport/tcp/tcp_target_fixture_testing.h"

namespace basalt::nvmf {
namespace {

using namespace basalt::nvmf::testing;  // NOLINT
using nvme::NvmOpcode;
namespace status = nvme::status;

class TcpTargetGate : public TcpTargetFixture {
 protected:
  TcpTargetGate() : TcpTargetFixture(Wire::memory) {}
};

constexpr uint32_t acquire_preempt_and_abort = 2 | 2u << 8;

TEST_F(TcpTargetGate, ATakeoverRefusesTheOldHolderDrainsItPersistsAndOnlyThenCompletes) {
  add_namespace(true);
  const Pair old = associate(1);
  EXPECT_TRUE(old.io->read(1, 0, 1).status.is(status::reservation_conflict));
  ASSERT_TRUE(old.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 5).status.ok());
  ASSERT_TRUE(old.io->reservation(NvmOpcode::reservation_acquire, 1, acquire_preempt_and_abort, 5, 0).status.ok());
  EXPECT_EQ(ns::highest_epoch(bdev_->stored).value(), 5u);
  EXPECT_TRUE(old.io->write(1, 0, pattern(4096, 1), true).status.ok());

  bdev_->hold = true;
  nvme::Command parked = RawHost::io_command(NvmOpcode::write, 1, 1, 1);
  parked.cid = 900;
  parked.sgl = {0, 4096, {}, nvme::sgl_data_block_offset};
  old.io->send(RawHost::capsule(parked, pattern(4096, 2)));
  ASSERT_TRUE(run_until([&] { return bdev_->held.size() == 1; }));

  const Pair next = associate(2);
  EXPECT_TRUE(
      next.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 4).status.is(status::reservation_conflict));
  ASSERT_TRUE(next.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 6).status.ok());
  nvme::Command acquire{};
  acquire.opcode = static_cast<uint8_t>(NvmOpcode::reservation_acquire);
  acquire.flags = 0x40;
  acquire.cid = 901;
  acquire.nsid = 1;
  acquire.cdw10 = acquire_preempt_and_abort;
  acquire.sgl = {0, 16, {}, nvme::sgl_data_block_offset};
  Bytes keys(16);
  store_le<uint64_t>(keys.data(), 6);
  next.io->send(RawHost::capsule(acquire, keys));
  run_for(seconds(1));
  EXPECT_EQ(ns::highest_epoch(bdev_->stored).value(), 5u);  // not before the admitted write has ended
  EXPECT_TRUE(old.io->write(1, 2, pattern(4096, 3), true).status.is(status::reservation_conflict));
  bdev_->release();
  EXPECT_TRUE(next.io->collect(901).status.ok());
  EXPECT_EQ(ns::highest_epoch(bdev_->stored).value(), 6u);
  EXPECT_TRUE(old.io->read(1, 0, 1).status.is(status::reservation_conflict));
  EXPECT_EQ(next.io->read(1, 1, 1).data, pattern(4096, 2));
  EXPECT_EQ(next.io->read(1, 2, 1).data, Bytes(4096));

  // The same namespace, opened again: the gate is as it was.
  ASSERT_TRUE(run(subsystem_->remove_namespace(1)).ok());
  add_namespace(true);
  EXPECT_TRUE(old.io->read(1, 0, 1).status.is(status::reservation_conflict));
  EXPECT_TRUE(old.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 5).status.is(status::reservation_conflict));
  EXPECT_EQ(next.io->read(1, 1, 1).data, pattern(4096, 2));
}

TEST_F(TcpTargetGate, ATakeoverThatCannotBeMadeDurableFailsAndTheGateStaysShut) {
  add_namespace(true);
  const Pair old = associate(1);
  ASSERT_TRUE(old.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 5).status.ok());
  ASSERT_TRUE(old.io->reservation(NvmOpcode::reservation_acquire, 1, acquire_preempt_and_abort, 5, 0).status.ok());
  const Pair next = associate(2);
  ASSERT_TRUE(next.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 6).status.ok());
  bdev_->fail_attribute = true;
  EXPECT_TRUE(next.io->reservation(NvmOpcode::reservation_acquire, 1, acquire_preempt_and_abort, 6, 0)
                  .status.is(status::internal_error));
  EXPECT_TRUE(old.io->read(1, 0, 1).status.is(status::reservation_conflict));
  EXPECT_TRUE(next.io->read(1, 0, 1).status.is(status::reservation_conflict));
  EXPECT_TRUE(old.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 5).status.is(status::reservation_conflict));
  bdev_->fail_attribute = false;
  EXPECT_TRUE(next.io->reservation(NvmOpcode::reservation_acquire, 1, acquire_preempt_and_abort, 6, 0).status.ok());
  EXPECT_TRUE(next.io->read(1, 0, 1).status.ok());
}

}  // namespace
}  // namespace basalt::nvmf
