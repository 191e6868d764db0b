// SPDX-License-Identifier: Apache-2.0
// A takeover of a coded leg whose members' superblocks, marks and logs are damaged in any way, or that fail meanwhile,
// and the return of a member that was away. An open that is refused says why. A leg that opens reads and writes, takes
// the member back, ends, and opens again. Where checksums tell the damage of one member, no data differs, neither
// before the other one is back nor when it has to stand for one that is lost; in a log, while parity is left to do
// without it.
#include <cstring>

#include "bdev/mark_pages_testing.h"
#include "bdev/raid/parity_leg.h"
#include "testing/fuzz_image.h"
#include "testing/fuzz_members.h"

namespace basalt::bdev {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzDamage;
using basalt::testing::FuzzFault;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzMembers;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;

constexpr uint32_t block_bytes = FuzzMembers::block_bytes;
constexpr uint32_t data_count = 2;
constexpr uint32_t parity_count_max = 2;
constexpr uint32_t slot_count = 4;
constexpr uint64_t leg_blocks = 32;
constexpr uint64_t disk_blocks = 144;
constexpr size_t away_place = 1;
constexpr uint64_t zeroed_first = 2;
constexpr uint64_t zeroed_blocks = 27;

constexpr uint8_t mode_raid6 = 1;
constexpr uint8_t mode_missing = 2;  // the member that the next byte names is out of reach
constexpr uint8_t mode_join = 4;     // the one that was away comes back
constexpr uint8_t mode_blank = 8;    // as a device that was never in the leg
// Instead of a member that is damaged: one that will fail, named by what follows.
constexpr uint8_t member_fails = 0xff;

enum Past : uint8_t { past_none, past_away, past_returning, past_zeroed, past_zeroed_away, past_count };

bool has_left(Past past) {
  return past != past_none && past != past_zeroed;
}

using Blocks = std::vector<uint8_t>;  // the value of each

struct Rig : FuzzMembers {
  Rig(uint64_t seed, uint32_t of_parity)
      : FuzzMembers(seed, data_count + of_parity, disk_blocks), parity_count(of_parity) {}

  Outcome open(uint64_t epoch, const std::vector<size_t>& set) {
    ParityLegOptions options;
    options.name = "leg";
    options.identity = "volume/0";
    options.epoch = epoch;
    options.data_count = data_count;
    options.parity_count = parity_count;
    options.count_blocks = leg_blocks;
    options.log_slot_count = slot_count;
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
    for (const size_t index : set)
      members.push_back({handle(index)});
    auto opened = world.run(ParityLegBdev::open(world.home(), options, std::move(members), events));
    if (!opened.ok()) {
      BASALT_ASSERT(!opened.error().message.empty());
      return std::move(opened).error();
    }
    leg = std::move(opened).value();
    return success();
  }
  void close() { FuzzMembers::close(leg); }

  // As the orchestrator: who is reported leaves. False: the rest cannot do without.
  bool drop_failed() {
    bool enough = true;
    for (const std::string& name : std::exchange(failed, {}))
      enough &= leg->remove_member(name).ok();
    return enough;
  }
  // False: it does not end before the orchestrator gives it another member, and was given up.
  bool io(IoType type, uint64_t block, FuzzBytes& data) {
    struct Waiting : Io {
      bool ended = false;
    } request;
    Iovec iov{data.data(), data.size()};
    request.type = type;
    request.offset_blocks = block;
    request.count_blocks = static_cast<uint32_t>(data.size() / block_bytes);
    request.iov = &iov;
    request.iov_count = 1;
    request.done = [](Io* io) { static_cast<Waiting*>(io)->ended = true; };
    leg->submit(&request);
    while (!request.ended) {
      world.must([&] { return request.ended || !failed.empty(); });
      if (drop_failed() || request.ended) continue;
      leg->fence();
      world.must([&] { return request.ended; });
    }
    return request.status.ok();
  }
  bool write(uint64_t block, uint8_t value) {
    FuzzBytes data(block_bytes, value);
    return io(IoType::write, block, data);
  }
  bool holds(const Blocks& blocks) {
    FuzzBytes data(size_t{leg_blocks} * block_bytes);
    if (!io(IoType::read, 0, data)) return false;
    for (uint64_t block = 0; block < leg_blocks; block++) {
      const uint8_t* at = data.data() + block * block_bytes;
      if (!std::all_of(at, at + block_bytes, [&](uint8_t byte) { return byte == blocks[block]; })) return false;
    }
    return true;
  }

  const uint32_t parity_count;
  std::unique_ptr<ParityLegBdev> leg;
  std::vector<std::string> failed;
  bool copied = false;
  bool joining_failed = false;
};

struct Image {
  std::vector<FuzzBytes> members;
  Blocks blocks;
  size_t head_pages = 0;  // superblocks, marks and log
};

// A leg whose controller died, with records in its logs.
Image make_image(uint32_t parity_count, Past past) {
  Rig rig(1, parity_count);
  std::vector<size_t> all(rig.disks.size());
  for (size_t i = 0; i < all.size(); i++)
    all[i] = i;
  BASALT_ASSERT(rig.open(7, all).ok());
  Image image;
  image.blocks.assign(leg_blocks, 0);
  image.head_pages = rig.leg->raid().layout().first_block;
  const auto write = [&](uint64_t block, uint8_t value) {
    BASALT_ASSERT(rig.write(block, value));
    image.blocks[block] = value;
  };
  for (const uint64_t block : {0, 3, 9, 17, 30})
    write(block, static_cast<uint8_t>(0x10 + block));
  const bool zeroed = past == past_zeroed || past == past_zeroed_away;
  if (has_left(past)) {
    const std::string name = rig.disks[away_place]->info().name;
    rig.leg->member_lost(name);
    rig.world.must([&] { return !rig.failed.empty(); });
    BASALT_ASSERT(rig.drop_failed());
    for (const uint64_t block : {1, 9, 20})
      write(block, static_cast<uint8_t>(0x40 + block));
  }
  if (past == past_returning) {
    BASALT_ASSERT(rig.leg->pace_resync(0, true).ok());
    BASALT_ASSERT(rig.leg->add_member({rig.handle(away_place)}).ok());
    rig.world.world.run_for(seconds(1));
    for (const uint64_t block : {2, 21})
      write(block, static_cast<uint8_t>(0x70 + block));
  }
  if (zeroed) {
    // Whole stripes and parts of some; then a write over them.
    FuzzBytes span(size_t{zeroed_blocks} * block_bytes);
    BASALT_ASSERT(rig.io(IoType::write_zeroes, zeroed_first, span));
    std::fill_n(image.blocks.begin() + zeroed_first, zeroed_blocks, uint8_t{0});
    write(zeroed_first + 9, 0x80);
  }
  for (const auto& disk : rig.disks)
    image.members.push_back(disk->bytes);
  rig.close();
  return image;
}

const Image& good_image(uint32_t parity_count, Past past) {
  static std::unique_ptr<Image> images[parity_count_max][past_count];
  std::unique_ptr<Image>& image = images[parity_count - 1][past];
  if (image == nullptr) image = std::make_unique<Image>(make_image(parity_count, past));
  return *image;
}

bool is_marks(size_t page) {
  return page >= parity::mark_first_page && page < parity::superblock_pages[1];
}

void reseal(uint8_t* page, size_t index) {
  if (is_marks(index)) return mark_pages::reseal(page);
  if (index >= parity::log_first_page) {
    parity::RecordHeader header;
    std::memcpy(&header, page, sizeof(header));
    // The payload lies in the pages behind it, if it is all there.
    if (header.payload_bytes <= 4 * parity::page_bytes) {
      header.payload_crc32c = crc32c(0, page + parity::page_bytes, header.payload_bytes);
      std::memcpy(page, &header, sizeof(header));
    }
  }
  FuzzDamage::seal(page);
}

bool in_checksum(size_t index, size_t offset) {
  return is_marks(index) ? mark_pages::in_checksum(offset) : offset >= 8 && offset < 16;
}

struct Damaged {
  bool can_be_told = true;
  bool in_log = false;
  uint32_t members = 0;  // as bits
  uint32_t failing = 0;  // the same
};

Damaged damage(Rig& rig, const Image& image, FuzzInput& input) {
  for (size_t i = 0; i < rig.disks.size(); i++)
    rig.disks[i]->bytes = image.members[i];
  FuzzDamage damage;
  Damaged damaged;
  const auto disk = [&](FuzzInput& from) {
    uint8_t byte = from.u8();
    while (byte == member_fails) {
      const size_t failing = from.u8() % rig.disks.size();
      damaged.failing |= 1u << failing;
      rig.disks[failing]->fault = FuzzFault::take(from);
      if (from.empty()) return std::span<uint8_t>();
      byte = from.u8();
    }
    const size_t member = byte % rig.disks.size();
    damaged.members |= 1u << member;
    return std::span(rig.disks[member]->bytes);
  };
  damage.take_all(input, disk, image.head_pages, {reseal, in_checksum});
  damaged.can_be_told = !damage.forged;
  damaged.in_log = damage.page_last >= parity::log_first_page;
  return damaged;
}

// The one that was away comes back. True: it is of the set.
bool join(Rig& rig, bool blank) {
  auto& disk = *rig.disks[away_place];
  if (blank) std::fill(disk.bytes.begin(), disk.bytes.end(), uint8_t{0});
  if (!rig.leg->add_member({rig.handle(away_place)}).ok()) return false;
  rig.world.must([&] { return rig.copied || rig.joining_failed || !rig.failed.empty(); });
  if (rig.copied) return rig.leg->commit_member(disk.info().name).ok();
  BASALT_ASSERT(rig.joining_failed || !rig.drop_failed());
  (void)rig.leg->abandon_member(disk.info().name).ok();
  return false;
}

// The first of the set is lost: the others have everything, who came back too.
void expect_redundant(Rig& rig, const Blocks& blocks, std::vector<size_t> set) {
  if (set.size() <= data_count) return;
  set.erase(set.begin());
  BASALT_ASSERT(rig.open(10, set).ok());
  BASALT_ASSERT(rig.holds(blocks));
  rig.close();
}

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  const uint8_t mode = input.u8();
  const uint32_t parity_count = (mode & mode_raid6) != 0 ? 2 : 1;
  const auto past = static_cast<Past>(input.u8() % past_count);
  const Image& image = good_image(parity_count, past);
  const size_t member_count = image.members.size();
  const size_t missing = (mode & mode_missing) != 0 ? input.u8() % member_count : member_count;
  Rig rig(2, parity_count);
  const Damaged damaged = damage(rig, image, input);
  std::vector<size_t> set;
  for (size_t i = 0; i < member_count; i++)
    if (i != missing && (!has_left(past) || i != away_place)) set.push_back(i);
  const bool untouched = damaged.members == 0 && damaged.failing == 0;
  const Outcome opened = rig.open(8, set);
  for (const auto& disk : rig.disks)
    disk->fault = {};
  if (untouched) BASALT_ASSERT(opened.ok() == (set.size() >= data_count));
  if (!opened.ok()) return;
  Blocks blocks = image.blocks;
  const size_t gone =
      member_count - set.size() + static_cast<size_t>(std::popcount(damaged.failing & ~damaged.members));
  const bool one_member = (damaged.members & (damaged.members - 1)) == 0;
  const bool right =
      damaged.members == 0 || (damaged.can_be_told && one_member && (!damaged.in_log || gone < parity_count));
  if (right && gone <= parity_count) BASALT_ASSERT(rig.holds(blocks) || rig.leg->fenced());
  bool alive = true;
  for (const uint64_t block : {uint64_t{0}, uint64_t{9}, leg_blocks - 1}) {
    alive = alive && rig.write(block, 0x99);
    blocks[block] = 0x99;
  }
  const bool comes_back = has_left(past) && (mode & mode_join) != 0 && alive;
  const bool joined = comes_back && join(rig, (mode & mode_blank) != 0);
  if (untouched && comes_back) BASALT_ASSERT(joined);
  alive = alive && !rig.leg->fenced() && rig.drop_failed();
  if (right && alive) BASALT_ASSERT(rig.holds(blocks));
  set.clear();
  for (const LegMemberInfo& member : rig.leg->members())
    if (member.state == MemberState::in_sync) set.push_back(static_cast<size_t>(member.name[0] - 'a'));
  rig.close();
  if (!alive || set.size() < data_count) return;
  BASALT_ASSERT(rig.open(9, set).ok());
  if (right) BASALT_ASSERT(rig.holds(blocks));
  rig.close();
  if (right) expect_redundant(rig, blocks, set);
}

FuzzOutput begin(unsigned mode, unsigned past, unsigned missing) {
  FuzzOutput out = FuzzOutput().u8(mode).u8(past);
  if ((mode & mode_missing) != 0) out.u8(missing);
  return out;
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out;
  const auto add = [&](const std::string& name, const FuzzOutput& play) { out.push_back({name, play.bytes()}); };
  const unsigned marks = parity::mark_first_page;
  for (unsigned mode = 0; mode < 16; mode++) {
    for (unsigned past = 0; past < past_count; past++) {
      const std::string name = "-" + std::to_string(mode) + "-" + std::to_string(past);
      for (unsigned missing = 0; missing < ((mode & mode_missing) != 0 ? data_count + parity_count_max : 1); missing++)
        add("good" + name + "-" + std::to_string(missing), begin(mode, past, missing));
      if ((mode & (mode_missing | mode_blank)) != 0) continue;
      // Marks of one member, of all; torn, of another place, with other bits.
      for (const unsigned flag : {0u, FuzzDamage::flag_reseal + 0u}) {
        FuzzOutput all = begin(mode, past, 0);
        for (unsigned member = 0; member < data_count + parity_count_max; member++) {
          FuzzOutput one = begin(mode, past, 0);
          for (FuzzOutput* play : {&one, &all})
            play->u8(member).u8(FuzzDamage::patch | flag).u8(marks).u16(32).u8(1).u8(0);
          add("marks" + name + "-" + std::to_string(flag) + "-" + std::to_string(member), one);
        }
        add("marks" + name + "-" + std::to_string(flag) + "-all", all);
      }
      FuzzOutput blank = begin(mode, past, 0);
      for (unsigned member = 0; member < data_count + parity_count_max; member++)
        blank.u8(member).u8(FuzzDamage::blank).u8(marks).u8(0);
      add("marks-blank" + name, blank);
      for (unsigned member = 0; member < data_count + parity_count_max; member++) {
        for (const unsigned page : parity::superblock_pages) {
          add("blank" + name + "-" + std::to_string(member) + "-" + std::to_string(page),
              begin(mode, past, 0).u8(member).u8(FuzzDamage::blank).u8(page).u8(0));
        }
      }
      // Fields that only driven raids have, in one member's superblocks and in all.
      for (const unsigned offset : {48u, 56u, 104u, 112u, 118u, 119u, 192u, 200u, 208u, 216u, 224u, 232u, 240u}) {
        for (const unsigned value : {0u, 1u, 0xf3u}) {
          FuzzOutput all = begin(mode, past, 0);
          FuzzOutput one = begin(mode, past, 0);
          for (unsigned member = 0; member < data_count + parity_count_max; member++) {
            for (const unsigned page : parity::superblock_pages) {
              const auto patch = [&](FuzzOutput& play) {
                play.u8(member).u8(FuzzDamage::patch | FuzzDamage::flag_reseal).u8(page).u16(offset).u8(1).u8(value);
              };
              patch(all);
              if (member == 0) patch(one);
            }
          }
          const std::string field = name + "-" + std::to_string(offset) + "-" + std::to_string(value);
          add("superblock" + field + "-one", one);
          add("superblock" + field + "-all", all);
        }
      }
      // A member that fails at each request of an open: once, or from then on.
      for (unsigned after = 0; after < 24; after++) {
        for (const unsigned count : {1u, 255u}) {
          for (unsigned kind = 0; kind < 3; kind++) {
            add("fails" + name + "-" + std::to_string(after) + "-" + std::to_string(count) + "-" + std::to_string(kind),
                begin(mode, past, 0).u8(member_fails).u8(after % 3).u16(after / 3).u8(count).u8(kind));
          }
        }
      }
    }
  }
  return out;
}

BASALT_FUZZ_TARGET(parity_leg_image, run, seeds)

}  // namespace
}  // namespace basalt::bdev
