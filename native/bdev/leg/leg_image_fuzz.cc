// SPDX-License-Identifier: Apache-2.0
// A takeover of a leg whose members' tails are damaged in any way, and the return of a third member. The leg opens, or
// reports the members that it will not use; it reads and writes, ends, and opens again. Where checksums tell all of the
// damage, what differed between the members is made equal.
#include <cstring>

#include "bdev/leg/leg.h"
#include "bdev/leg/leg_tail_fuzz_testing.h"
#include "testing/fuzz_members.h"

namespace basalt::bdev {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzDamage;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzMembers;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;

constexpr uint32_t block_bytes = FuzzMembers::block_bytes;
constexpr uint64_t leg_blocks = 64;
constexpr uint64_t region_blocks = 16;
constexpr uint64_t disk_blocks = leg_blocks + leg_tail::tail_bytes / block_bytes;
constexpr size_t tail_at = leg_blocks * block_bytes;
constexpr size_t tail_pages = leg_tail::mark_page_first + 1;
constexpr size_t member_count = 3;

constexpr uint8_t mode_clean = 1;  // a takeover of a leg that was closed in order
constexpr uint8_t mode_join = 2;   // the third member comes back
constexpr uint8_t mode_full = 4;   // marks are kept for nobody else

// The members' beginnings: the blocks of the leg, and the pages of the tail that are used.
struct Images {
  FuzzBytes bytes[member_count];
};

struct Rig : FuzzMembers {
  explicit Rig(uint64_t seed) : FuzzMembers(seed, member_count, disk_blocks) {}
  LegMember member(size_t index) { return {handle(index)}; }
  void open(uint64_t epoch, bool unclean, const std::vector<std::string>& replicas,
            const std::vector<size_t>& in_sync) {
    LegOptions options;
    options.name = "leg";
    options.identity = "volume/0";
    options.epoch = epoch;
    options.count_blocks = leg_blocks;
    options.all_dirty = unclean;
    options.mark_region_bytes_min = region_blocks * block_bytes;
    options.replicas = replicas;
    LegEvents events;
    events.member_failed = [this](const std::string& name, const std::string& why) {
      BASALT_ASSERT(!why.empty());
      failed.push_back(name);
    };
    events.member_copied = [this](const LegMemberInfo&) { copied = true; };
    events.joining_failed = [this](const std::string&, const std::string&) { joining_failed = true; };
    failed.clear();
    copied = joining_failed = false;
    std::vector<LegMember> members;
    for (const size_t index : in_sync)
      members.push_back(member(index));
    auto made = LegBdev::create(world.home(), options, members, events);
    BASALT_ASSERT(made.ok());
    leg = std::move(made).value();
  }
  void close() { FuzzMembers::close(leg); }
  void write(uint64_t block, uint8_t value) {
    std::vector<uint8_t> data(block_bytes, value);
    BASALT_ASSERT(world.io(*leg, IoType::write, block, &data).ok());
  }
  uint8_t read(uint64_t block) {
    std::vector<uint8_t> data(block_bytes);
    BASALT_ASSERT(world.io(*leg, IoType::read, block, &data).ok());
    return data[0];
  }
  // Until it is known that all members are equal, as the orchestrator would: who is reported leaves. False: the leg has
  // no member left that it would use.
  bool settle() {
    for (;;) {
      world.must([&] { return leg->equal() || !failed.empty(); });
      if (failed.empty()) return true;
      for (const std::string& name : std::exchange(failed, {})) {
        if (!leg->remove_member(name).ok()) return false;
      }
    }
  }
  bool is_member(const std::string& name) const {
    const auto members = leg->members();
    return std::any_of(members.begin(), members.end(), [&](const LegMemberInfo& member) {
      return member.name == name && member.state == MemberState::in_sync;
    });
  }
  bool equal(size_t one, size_t other) const {
    return std::equal(disks[one]->bytes.begin(), disks[one]->bytes.begin() + static_cast<ptrdiff_t>(tail_at),
                      disks[other]->bytes.begin());
  }

  std::unique_ptr<LegBdev> leg;
  std::vector<std::string> failed;
  bool copied = false;
  bool joining_failed = false;
};

// c was a member and left; a and b went on, and their controller died in the middle of writes.
Images make_images() {
  Rig rig(1);
  rig.open(1, false, {"a", "b", "c"}, {0, 1, 2});
  rig.write(3, 0x33);
  rig.leg->member_lost("c");
  BASALT_ASSERT(rig.leg->remove_member("c").ok());
  rig.write(40, 0x44);
  rig.close();
  Images images;
  for (size_t i = 0; i < member_count; i++)
    images.bytes[i] = rig.disks[i]->bytes;
  // Block 41 is in a region that is marked.
  std::memset(images.bytes[0].data() + 41 * size_t{block_bytes}, 0x55, block_bytes);
  for (FuzzBytes& bytes : images.bytes)
    bytes.resize(tail_at + tail_pages * FuzzDamage::page_bytes);
  return images;
}

const Images& good_images() {
  static const Images images = make_images();
  return images;
}

bool damage_tails(Rig& rig, FuzzInput& input) {
  for (size_t i = 0; i < member_count; i++)
    std::copy(good_images().bytes[i].begin(), good_images().bytes[i].end(), rig.disks[i]->bytes.begin());
  FuzzDamage damage;
  const auto tail = [&](FuzzInput& from) {
    return std::span(rig.disks[from.u8() % member_count]->bytes).subspan(tail_at);
  };
  damage.take_all(input, tail, tail_pages, leg_tail::damage_format);
  return damage.forged;
}

// The third member comes back, whatever its tail says.
void join(Rig& rig, bool forged) {
  BASALT_ASSERT(rig.leg->add_member(rig.member(2)).ok());
  rig.world.must([&] { return rig.copied || rig.joining_failed || !rig.failed.empty(); });
  if (!rig.copied) {
    BASALT_ASSERT(rig.joining_failed);
    (void)rig.leg->abandon_member("c").ok();
    return;
  }
  BASALT_ASSERT(rig.leg->commit_member("c").ok());
  if (!forged) BASALT_ASSERT(rig.equal(0, 2) || rig.equal(1, 2));
}

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  const uint8_t mode = input.u8();
  Rig rig(2);
  const bool forged = damage_tails(rig, input);
  const bool unclean = (mode & mode_clean) == 0;
  std::vector<std::string> replicas;
  if ((mode & mode_full) != 0) replicas = {"a", "b"};
  rig.open(2, unclean, replicas, {0, 1});
  if (!rig.settle()) return rig.close();
  if (unclean && !forged && rig.is_member("a") && rig.is_member("b")) {
    BASALT_ASSERT(rig.equal(0, 1));
    BASALT_ASSERT(rig.read(3) == 0x33 && rig.read(40) == 0x44);
  }
  for (const uint64_t block : {uint64_t{0}, uint64_t{41}, leg_blocks - 1}) {
    rig.write(block, 0x77);
    BASALT_ASSERT(rig.read(block) == 0x77);
  }
  if ((mode & mode_join) != 0) join(rig, forged || !unclean);
  rig.world.world.run_for(seconds(12));  // marks rest, and are cleared
  BASALT_ASSERT(rig.failed.empty());
  const size_t left = rig.is_member("a") ? 0 : 1;
  rig.close();
  // What it wrote is read by the next.
  rig.open(3, true, {}, {left});
  BASALT_ASSERT(rig.settle());
  rig.close();
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out;
  for (unsigned mode = 0; mode < 8; mode++)
    out.push_back({"good-" + std::to_string(mode), FuzzOutput().u8(mode).bytes()});
  const unsigned marks = leg_tail::mark_page_first;
  for (const unsigned disk : {0u, 2u}) {
    FuzzOutput both;
    both.u8(mode_join);
    for (const unsigned page : {0u, 1u}) {
      both.u8(disk).u8(FuzzDamage::blank).u8(page).u8(0);
      for (const unsigned offset : {12u, 24u, 28u, 40u, 48u, 128u, 224u, 384u, 480u, 496u, 640u}) {
        FuzzOutput one;
        one.u8(mode_join);
        for (const unsigned copy : {0u, page})
          one.u8(disk).u8(FuzzDamage::patch | FuzzDamage::flag_reseal).u8(copy).u16(offset).u8(1).u8(3);
        out.push_back({"superblock-" + std::to_string(disk) + "-" + std::to_string(page) + "-" + std::to_string(offset),
                       one.bytes()});
      }
    }
    out.push_back({"blank-" + std::to_string(disk), both.bytes()});
    for (const unsigned flag : {0u, FuzzDamage::flag_reseal + 0u}) {
      out.push_back({"marks-" + std::to_string(disk) + "-" + std::to_string(flag),
                     FuzzOutput().u8(mode_join).u8(disk).u8(flag).u8(marks).u16(32).u8(1).u8(0x0f).bytes()});
    }
  }
  // A roster without room, of replicas that were all about to join; and one where a replica is named twice.
  for (const unsigned name : {unsigned{'x'}, unsigned{'a'}}) {
    FuzzOutput full;
    full.u8(mode_join);
    const auto patch = [&](unsigned offset, unsigned value) {
      full.u8(0).u8(FuzzDamage::patch | FuzzDamage::flag_reseal).u8(1).u16(offset).u8(1).u8(value);
    };
    full.u8(0).u8(FuzzDamage::blank).u8(0).u8(0);
    patch(28, leg_tail::roster_count_max);
    patch(46, 1);  // the newest by far
    for (unsigned entry = 1; entry < leg_tail::roster_count_max; entry++) {
      patch(384 + 128 * entry, name == 'a' ? name : name + entry);
      patch(384 + 128 * entry + 112, 2);
    }
    out.push_back({"roster-full-" + std::to_string(name), full.bytes()});
  }
  return out;
}

BASALT_FUZZ_TARGET(leg_image, run, seeds)

}  // namespace
}  // namespace basalt::bdev
