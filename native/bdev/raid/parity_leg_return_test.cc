// SPDX-License-Identifier: Apache-2.0
// Goal: a member of a leg with parity that comes back gets what it missed and no more, whoever drove the leg meanwhile;
// and everything where that cannot be known. Method: members in memory; what is written to one is counted. That nothing
// is missing is judged by what the leg gives without others (random lives: parity_leg_crash_test.cc).
#include <functional>

#include "bdev/raid/parity_leg_test_util.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t stripes_of_leg = 64;

class ParityReturn : public ::testing::Test {
 protected:
  void begin(uint32_t k, uint32_t m, uint32_t spare_count = 1) {
    rig = std::make_unique<ParityLegRig>(k, m, spare_count);
    rig->leg_blocks = stripes_of_leg * stripe_blocks();
    for (auto& member : rig->members)
      member->grow(512);
    open_with({});
    values.assign(rig->leg_blocks, 0);
    for (uint64_t stripe = 0; stripe < stripes_of_leg; stripe++)
      write(stripe * stripe_blocks() + stripe % stripe_blocks());
    flush();
  }
  uint64_t stripe_blocks() const { return uint64_t{4} * rig->k; }
  void open_with(std::vector<size_t> away) {
    std::vector<size_t> set;
    for (size_t i = 0; i < rig->k + rig->m; i++)
      if (std::find(away.begin(), away.end(), i) == away.end()) set.push_back(i);
    const Outcome opened = rig->open(set);
    ASSERT_TRUE(opened.ok()) << opened.error().message;
  }
  void write(uint64_t block) {
    values[block] = ++last_value;
    ASSERT_TRUE(rig->write(block, last_value));
  }
  void flush() {
    PendingIo& op = rig->start(IoType::flush, 0);
    ASSERT_TRUE(rig->ends(op) && op.io.status.ok());
  }
  // Until the log knows of no write that somebody may not have flushed.
  void quiesce(uint64_t stripe) {
    for (int i = 0; i < 8; i++)
      write(stripe * stripe_blocks());
    rig->settle();
  }
  void leave(size_t i) {
    rig->members[i]->status = nvme::status::host_path_error;
    rig->leg->member_lost(rig->members[i]->info().name);
    rig->settle();
    ASSERT_TRUE(rig->leg->remove_member(rig->members[i]->info().name).ok());
    rig->settle();
    rig->members[i]->status = nvme::status::success;
  }
  LegMemberInfo info_of(size_t i) const {
    for (const LegMemberInfo& info : rig->leg->members())
      if (info.name == rig->members[i]->info().name) return info;
    ADD_FAILURE() << "no member " << i;
    return {};
  }
  // How many stripes were copied to it; `full` when it got everything.
  struct Copied {
    Resync resync = Resync::none;
    uint64_t stripes = 0;
    uint64_t bytes_written = 0;  // of its strips
  };
  Copied come_back(size_t i) {
    Copied result;
    const uint64_t first = rig->leg->raid().layout().first_block;
    rig->members[i]->on_effect = [&](const Io& io) {
      const bool written = io.type == IoType::write || io.type == IoType::write_zeroes;
      if (written && io.offset_blocks >= first) result.bytes_written += uint64_t{io.count_blocks} * block_bytes;
    };
    rig->copied.clear();
    const auto added = [&] { return rig->leg->add_member(rig->handle(i)).ok(); };
    EXPECT_TRUE(rig->fixture.run_until(added, seconds(1)));
    EXPECT_TRUE(rig->fixture.run_until([&] { return !rig->copied.empty(); }, seconds(20)));
    rig->members[i]->on_effect = {};
    const LegMemberInfo info = info_of(i);
    result.resync = info.resync;
    result.stripes = info.to_copy_blocks / stripe_blocks();
    EXPECT_EQ(info.copied_blocks, info.to_copy_blocks);
    EXPECT_TRUE(rig->leg->commit_member(rig->members[i]->info().name).ok());
    return result;
  }
  // Any m members are lost: the others give everything.
  void expect_whole(const std::string& when) {
    rig->die();
    std::vector<std::vector<uint8_t>> contents;
    for (const auto& member : rig->members)
      contents.push_back(member->contents);
    const size_t count = rig->k + rig->m;
    for (uint32_t lost = 0; lost < 1u << count; lost++) {
      if (static_cast<uint32_t>(__builtin_popcount(lost)) != rig->m) continue;
      std::vector<size_t> away;
      for (size_t i = 0; i < count; i++)
        if ((lost >> i & 1) != 0) away.push_back(i);
      open_with(away);
      for (uint64_t block = 0; block < values.size(); block++)
        ASSERT_EQ(rig->read(block), values[block]) << when << ", lost " << lost << ": block " << block;
      rig->die();
      for (size_t i = 0; i < contents.size(); i++)
        rig->members[i]->contents = contents[i];
    }
    open_with({});
  }
  void each_superblock(size_t i, const std::function<void(parity::Superblock&)>& change) {
    for (const uint32_t page : parity::superblock_pages) {
      auto* at = rig->members[i]->contents.data() + size_t{page} * parity::page_bytes;
      parity::Superblock superblock;
      std::memcpy(&superblock, at, sizeof(superblock));
      if (parity::check(superblock) != parity::PageState::valid) continue;
      change(superblock);
      parity::seal(&superblock);
      std::memcpy(at, &superblock, sizeof(superblock));
    }
  }

  std::unique_ptr<ParityLegRig> rig;
  std::vector<uint8_t> values;
  uint8_t last_value = 0;
};

TEST_F(ParityReturn, GetsWhatItMissedAndNoMore) {
  begin(2, 1);
  quiesce(0);
  leave(0);
  for (const uint64_t stripe : {5, 6, 40})
    write(stripe * stripe_blocks() + 1);
  EXPECT_GE(rig->leg->counts().marked_regions, 3u);
  const Copied copied = come_back(0);
  EXPECT_EQ(copied.resync, Resync::delta);
  // And what the log still named when it left, which is stripe 0.
  EXPECT_LE(copied.stripes, 4u);
  EXPECT_GE(copied.stripes, 3u);
  EXPECT_EQ(copied.bytes_written, copied.stripes * ParityLegBdev::strip_bytes);
  EXPECT_EQ(rig->leg->counts().marked_regions, 0u) << "nobody is away";
  expect_whole("afterwards");
}

TEST_F(ParityReturn, GetsNothingWhereNothingWasWritten) {
  begin(2, 1);
  quiesce(7);
  leave(1);
  const Copied copied = come_back(1);
  EXPECT_EQ(copied.resync, Resync::delta);
  EXPECT_LE(copied.stripes, 1u);
  expect_whole("afterwards");
}

TEST_F(ParityReturn, WhatItHadNotFlushedIsAmongIt) {
  begin(2, 1);
  quiesce(0);
  for (const uint64_t stripe : {11, 12, 13})
    write(stripe * stripe_blocks());
  leave(2);
  rig->members[2]->lose_cache();
  const Copied copied = come_back(2);
  EXPECT_EQ(copied.resync, Resync::delta);
  EXPECT_GE(copied.stripes, 3u);
  EXPECT_LE(copied.stripes, 8u) << "as much as the log has room for";
  expect_whole("afterwards");
}

TEST_F(ParityReturn, TheNextControllersKnowWhatItMissed) {
  begin(2, 2);
  quiesce(0);
  leave(1);
  write(5 * stripe_blocks());
  rig->die();
  open_with({1});
  write(6 * stripe_blocks());
  rig->die();
  open_with({1, 3});  // this one was not reached
  write(7 * stripe_blocks());
  const Copied one = come_back(1);
  EXPECT_EQ(one.resync, Resync::delta);
  EXPECT_LE(one.stripes, 12u);
  const Copied three = come_back(3);
  EXPECT_EQ(three.resync, Resync::delta);
  EXPECT_LE(three.stripes, 12u);
  expect_whole("afterwards");
}

// The first free place is another one's.
TEST_F(ParityReturn, SeveralComeBackToTheirOwnPlacesInAnyOrder) {
  for (const bool turned : {false, true}) {
    begin(3, 2);
    quiesce(0);
    leave(0);
    write(5 * stripe_blocks());
    leave(1);
    write(6 * stripe_blocks());
    const Copied first = come_back(turned ? 1 : 0);
    write(8 * stripe_blocks());
    const Copied second = come_back(turned ? 0 : 1);
    for (const Copied& copied : {first, second}) {
      EXPECT_EQ(copied.resync, Resync::delta);
      EXPECT_LE(copied.stripes, 12u);
    }
    expect_whole(turned ? "the later one first" : "the earlier one first");
  }
}

TEST_F(ParityReturn, SeveralComeBackAtOnce) {
  begin(2, 2);
  quiesce(0);
  leave(0);
  leave(1);
  write(5 * stripe_blocks());
  rig->copied.clear();
  ASSERT_TRUE(rig->leg->add_member(rig->handle(1)).ok());
  ASSERT_TRUE(rig->leg->add_member(rig->handle(0)).ok());
  write(9 * stripe_blocks());
  ASSERT_TRUE(rig->fixture.run_until([&] { return rig->copied.size() == 2; }));
  for (const size_t i : {0, 1}) {
    EXPECT_EQ(info_of(i).resync, Resync::delta);
    EXPECT_EQ(info_of(i).place, i);
    ASSERT_TRUE(rig->leg->commit_member(rig->members[i]->info().name).ok());
  }
  expect_whole("afterwards");
}

// One page that is whole is enough; there is one on each member of the set.
TEST_F(ParityReturn, MarksThatNobodyCanReadMeanEverything) {
  for (const bool all : {false, true}) {
    begin(2, 1);
    quiesce(0);
    leave(0);
    write(5 * stripe_blocks());
    rig->die();
    rig->members[1]->fill(parity::mark_first_page, 0x5a, mark_pages::mark_page_count_max);
    if (all) rig->members[2]->fill(parity::mark_first_page, 0, mark_pages::mark_page_count_max);
    open_with({0});
    const Copied copied = come_back(0);
    EXPECT_EQ(copied.resync, all ? Resync::full : Resync::delta);
    if (all) EXPECT_EQ(copied.bytes_written, stripes_of_leg * ParityLegBdev::strip_bytes);
    expect_whole(all ? "nobody can read them" : "one can");
  }
}

TEST_F(ParityReturn, ALogOfItsOwnThatCannotBeReadMeansEverything) {
  begin(2, 1);
  quiesce(0);
  leave(0);
  write(5 * stripe_blocks());
  rig->members[0]->bad_block = parity::log_first_page;
  rig->copied.clear();
  ASSERT_TRUE(rig->leg->add_member(rig->handle(0)).ok());
  ASSERT_TRUE(rig->fixture.run_until([&] { return !rig->copied.empty(); }));
  EXPECT_EQ(info_of(0).resync, Resync::full);
}

TEST_F(ParityReturn, OneWhosePlaceAnotherOneHadMeanwhileGetsEverything) {
  begin(2, 1);
  quiesce(0);
  leave(0);
  EXPECT_EQ(come_back(3).resync, Resync::full) << "a new one";
  write(5 * stripe_blocks());
  quiesce(6);
  leave(3);
  write(7 * stripe_blocks());
  EXPECT_EQ(come_back(0).resync, Resync::full);
  expect_whole("afterwards");
}

TEST_F(ParityReturn, OneThatWasExchangedGetsEverything) {
  begin(2, 1);
  quiesce(0);
  LegMember with(rig->handle(3));
  with.instead_of = rig->members[0]->info().name;
  rig->copied.clear();
  ASSERT_TRUE(rig->leg->add_member(std::move(with)).ok());
  ASSERT_TRUE(rig->fixture.run_until([&] { return !rig->copied.empty(); }));
  ASSERT_TRUE(rig->leg->commit_member("d").ok() && rig->leg->remove_member("a").ok());
  rig->settle();
  write(5 * stripe_blocks());
  quiesce(6);
  leave(3);
  write(7 * stripe_blocks());
  EXPECT_EQ(come_back(0).resync, Resync::full);
  expect_whole("afterwards");
}

TEST_F(ParityReturn, ALegThatGrewMeanwhileGivesItEverything) {
  begin(2, 1);
  quiesce(0);
  leave(0);
  write(5 * stripe_blocks());
  const uint64_t grown = rig->leg_blocks + 8 * stripe_blocks();
  ASSERT_TRUE(rig->fixture.run(rig->leg->grow(grown)).ok());
  rig->leg_blocks = grown;
  values.resize(grown);
  write(66 * stripe_blocks());
  EXPECT_EQ(come_back(0).resync, Resync::full);
  expect_whole("afterwards");
}

// Code from before there were marks writes superblocks of later epochs, and keeps nothing up to date.
TEST_F(ParityReturn, MarksThatOlderCodeDidNotKeepAreNotBelieved) {
  begin(2, 1);
  quiesce(0);
  leave(0);
  write(5 * stripe_blocks());
  rig->die();
  for (const size_t i : {1, 2})
    each_superblock(i, [](parity::Superblock& superblock) { superblock.epoch += 3; });
  open_with({0});
  EXPECT_EQ(come_back(0).resync, Resync::full);
  expect_whole("afterwards");
}

// Its half of a copy is of another place: it must not be known by the one that it had.
TEST_F(ParityReturn, OneThatGetsEverythingIsNotKnownUntilItHasIt) {
  begin(2, 2);
  quiesce(0);
  leave(0);
  write(5 * stripe_blocks());
  ASSERT_TRUE(rig->leg->pace_resync(0, true).ok());
  LegMember with(rig->handle(0));
  with.instead_of = rig->members[1]->info().name;
  ASSERT_TRUE(rig->leg->add_member(std::move(with)).ok());
  rig->settle();
  write(6 * stripe_blocks() + 1);
  rig->die();
  open_with({0});
  EXPECT_EQ(come_back(0).resync, Resync::full);
  expect_whole("afterwards");
}

}  // namespace
}  // namespace basalt::bdev
