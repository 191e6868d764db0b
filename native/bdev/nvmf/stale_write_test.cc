// SPDX-License-Identifier: Apache-2.0
// A write that was lost with its path and still lies in that path's target must not land after newer data. Each case
// parks a copy there, loses the path, lets the host go on, writes newer data over it and lets the copy go.
#include "bdev/nvmf/nvmf_world_testing.h"
#include "nvmf/transport/tcp/tcp_target.h"

namespace basalt::bdev {
namespace {

using basalt::testing::TestIo;
using nvme::AnaState;
using testing::NvmfWorld;

// Writes 1 to the first block over path a and parks it at the disk; everything else passes.
void park(NvmfWorld& w, TestIo& write) {
  w.bdev().set_policy({PathSelector::stay});
  w.disk.hold = true;
  std::fill(write.data.begin(), write.data.end(), 1);
  w.bdev().submit(&write);
  ASSERT_TRUE(w.world.net.run_until([&] { return w.disk.held.size() == 1; }));
  w.disk.hold = false;
}
void lose(NvmfWorld& w, const nvmf::HostAddress& address) {
  w.world.net.refuse(w.world.port(address), true);
  w.world.net.cut(w.world.port(address));
}

// What is read at the end, after 2 was written over the parked 1.
int last_value(bool resend_at_once) {
  NvmfWorld w("TCP", 7);
  w.options.resend_at_once = resend_at_once;
  EXPECT_TRUE(w.attach(true).ok());
  TestIo old(IoType::write, 0, 1);
  park(w, old);
  lose(w, w.a);
  w.world.net.run_for(seconds(30));
  const bool early = old.ended;
  if (early) EXPECT_TRUE(w.world.write(w.bdev(), 0, 1, 2).ok());
  w.disk.release();
  EXPECT_TRUE(w.world.net.run_until([&] { return old.ended; }, seconds(1)));
  EXPECT_TRUE(old.status.ok());
  if (!early) EXPECT_TRUE(w.world.write(w.bdev(), 0, 1, 2).ok());
  w.world.net.run_for(seconds(1));
  EXPECT_EQ(w.set->remnant_count(), 0u);
  return w.world.read(w.bdev(), 0, 1);
}

TEST(StaleWrite, ACopyInTheOldPathsTargetDoesNotLandOnNewerData) {
  EXPECT_EQ(last_value(false), 2);
  EXPECT_EQ(last_value(true), 1) << "the case does not show what it is for";
}

TEST(StaleWrite, KeepsNothingElseWaiting) {
  NvmfWorld w("TCP", 8);
  ASSERT_TRUE(w.attach(true).ok());
  TestIo old(IoType::write, 0, 1);
  park(w, old);
  w.disk.hold = true;
  TestIo read(IoType::read, 64, 1);
  TestIo flush(IoType::flush, 0, 0);
  w.bdev().submit(&read);
  w.bdev().submit(&flush);
  ASSERT_TRUE(w.world.net.run_until([&] { return w.disk.held.size() == 3; }));
  w.disk.hold = false;
  lose(w, w.a);
  // What changes nothing is sent again at once; new requests of all kinds go on.
  const Instant begin = w.world.net.now();
  ASSERT_TRUE(w.world.net.run_until([&] { return read.ended && flush.ended; }, milliseconds(20)));
  EXPECT_TRUE(read.status.ok() && flush.status.ok());
  EXPECT_TRUE(w.world.write(w.bdev(), 8, 1, 3).ok());
  EXPECT_LE((w.world.net.now() - begin).to_ms(), 25);
  EXPECT_FALSE(old.ended);
  EXPECT_EQ(w.set->remnant_count(), 1u);
}

TEST(StaleWrite, IsResentAtOnceWhenNothingIsLeftOfTheOldPath) {
  NvmfWorld w("TCP", 9);
  ASSERT_TRUE(w.attach(true).ok());
  w.bdev().set_policy({PathSelector::stay});
  for (int round = 0; round < 20; round++) {
    TestIo write(IoType::write, 0, 4);
    w.bdev().submit(&write);
    // The path is lost before the write is answered, and comes back.
    w.world.net.cut_after(w.world.net.draw(6), w.world.port(w.a));
    const Instant begin = w.world.net.now();
    ASSERT_TRUE(w.world.net.run_until([&] { return write.ended; }, seconds(1)));
    EXPECT_TRUE(write.status.ok());
    EXPECT_LE((w.world.net.now() - begin).to_ms(), 2);
    ASSERT_TRUE(w.world.net.run_until([&] { return w.set->paths()[0]->live(); }, seconds(2)));
  }
}

// A second node with controllers of the same subsystem, on the same disk.
class SecondNode {
 public:
  SecondNode(NvmfWorld& w, bool one_active) : w_(w) {
    target_ = std::make_unique<nvmf::Target>(std::vector<Reactor*>{&w.world.home, &w.world.host});
    target_->add_transport(std::make_unique<nvmf::TcpTargetTransport>(*target_));
    nvmf::SubsystemOptions options;
    options.nqn = basalt::testing::test_subnqn;
    options.serial_number = "incarnation-1";
    options.allow_any_host = true;
    options.cntlid_min = 0x1001;
    options.one_active = one_active;
    subsystem_ = target_->create_subsystem(options).value();
    ns::NamespaceOptions space;
    space.nsid = 1;
    BASALT_ASSERT(w.world.net.run(subsystem_->add_namespace(space, &w.disk)).ok());
    auto bound = w.world.net.run(subsystem_->add_listener({"TCP", "127.0.0.1", "0"}));
    BASALT_ASSERT(bound.ok());
    address = {bound->traddr, bound->trsvcid};
  }
  // The host must be gone before.
  ~SecondNode() {
    w_.world.net.run_void(target_->close());
    w_.world.net.run_for(milliseconds(5));
  }
  void set_ana(AnaState state) {
    ASSERT_TRUE(w_.world.net.run(subsystem_->set_ana_state({"TCP", address.traddr, address.trsvcid}, 0, state)).ok());
  }
  nvmf::HostAddress address;

 private:
  NvmfWorld& w_;
  std::unique_ptr<nvmf::Target> target_;
  nvmf::Subsystem* subsystem_ = nullptr;
};

class TwoNodes {
 public:
  explicit TwoNodes(bool one_active) : w("TCP", 10), second(w, one_active) {
    // Of this node only the first listener is used.
    first_options();
    EXPECT_TRUE(w.attach(false).ok());
  }
  ~TwoNodes() {
    w.disk.release();
    w.world.net.run_void(w.set->close());
    w.set.reset();
  }
  void first_options() { w.options.keep_alive_ms = 200; }
  NvmfWorld w;
  SecondNode second;
};

TEST(StaleWrite, APathThatBecomesAccessibleAfterTheLossIsTakenAtOnce) {
  TwoNodes nodes(false);
  NvmfWorld& w = nodes.w;
  nodes.second.set_ana(AnaState::inaccessible);
  ASSERT_TRUE(w.add(nodes.second.address).ok());
  TestIo old(IoType::write, 0, 1);
  park(w, old);
  lose(w, w.a);
  w.world.net.run_for(milliseconds(500));
  EXPECT_FALSE(old.ended);
  // As a promotion ends: whatever the first node had is fenced.
  nodes.second.set_ana(AnaState::optimized);
  ASSERT_TRUE(w.world.net.run_until([&] { return old.ended; }, milliseconds(5)));
  EXPECT_TRUE(old.status.ok());
}

TEST(StaleWrite, ANodeThatHasFencedTheOthersSaysSo) {
  TwoNodes nodes(true);
  NvmfWorld& w = nodes.w;
  // It has taken over before the host lost the first.
  ASSERT_TRUE(w.add(nodes.second.address).ok());
  TestIo old(IoType::write, 0, 1);
  park(w, old);
  lose(w, w.a);
  ASSERT_TRUE(w.world.net.run_until([&] { return old.ended; }, milliseconds(5)));
  EXPECT_TRUE(old.status.ok());
}

TEST(StaleWrite, AStandbyThatHasFencedNobodyDoesNotSaySo) {
  TwoNodes nodes(true);
  NvmfWorld& w = nodes.w;
  nodes.second.set_ana(AnaState::inaccessible);
  ASSERT_TRUE(w.add(nodes.second.address).ok());
  TestIo old(IoType::write, 0, 1);
  park(w, old);
  lose(w, w.a);
  w.world.net.run_for(seconds(2));
  EXPECT_EQ(w.set->remnant_count(), 1u);
  EXPECT_FALSE(old.ended);
}

TEST(StaleWrite, WaitsForTheKeepAliveAndTheQuiesceTimeWhenNobodyCanTell) {
  TwoNodes nodes(false);
  NvmfWorld& w = nodes.w;
  ASSERT_TRUE(w.add(nodes.second.address).ok());
  TestIo old(IoType::write, 0, 1);
  park(w, old);
  const Instant begin = w.world.net.now();
  lose(w, w.a);
  ASSERT_TRUE(w.world.net.run_until([&] { return old.ended; }, seconds(12)));
  EXPECT_TRUE(old.status.ok());
  // Three keep-alive time-outs, because any traffic counts; then what the target promises.
  EXPECT_GE((w.world.net.now() - begin).to_ms(), 10'600);
  EXPECT_LE((w.world.net.now() - begin).to_ms(), 10'700);
}

}  // namespace
}  // namespace basalt::bdev
