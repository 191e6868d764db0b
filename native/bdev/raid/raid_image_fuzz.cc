// SPDX-License-Identifier: Apache-2.0
// raid5 and raid6 from members whose superblocks and logs are damaged in any way, and that fail while they are loaded.
// A load that is refused has written nothing, unless a member failed. One that succeeds gives a set that reads, writes,
// can be scrubbed, closes, and loads again. Where only one member is damaged and checksums tell it, no data differs; in
// its log, while parity is left to do without it. Where none is, a load that failed with its members succeeds after
// them. The set has a past: none, a member that is away, or comes back, or is exchanged, or growth of which some
// members know.
#include <cstring>

#include "bdev/raid/raid_parity.h"
#include "testing/fuzz_image.h"
#include "testing/fuzz_members.h"

namespace basalt::bdev {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzDamage;
using basalt::testing::FuzzDisk;
using basalt::testing::FuzzFault;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzMembers;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;

constexpr uint32_t block_bytes = FuzzMembers::block_bytes;
constexpr uint32_t data_count = 2;
constexpr uint32_t parity_count_max = 2;
constexpr uint32_t slot_count = 4;
constexpr uint32_t strip_bytes = 2 * block_bytes;
constexpr uint32_t slot_pages = 5;
constexpr uint64_t disk_blocks = 112;

constexpr uint8_t mode_raid6 = 1;
constexpr uint8_t mode_missing = 2;  // the member that the next byte names
constexpr uint8_t mode_other_name = 4;
constexpr uint8_t mode_shuffled = 8;
constexpr uint8_t mode_create = 16;      // a new one is made of them
constexpr uint8_t mode_unreadable = 32;  // the first of them cannot be read
constexpr uint8_t mode_replace = 64;     // the one that is missing comes back blank
constexpr uint8_t mode_bad_log = 128;    // a record of the first of them has a bad sector
constexpr uint8_t mode_not_as_it_was = mode_other_name | mode_unreadable | mode_bad_log;
constexpr uint8_t mode_past = mode_create | mode_replace;  // both: the next byte says which; nothing is created then
// Instead of a member that is damaged: one that will fail, named by what follows. Apart from those that there are.
constexpr uint8_t member_fails = 0xff;

using Raid = std::unique_ptr<RaidParityBdev>;

struct Rig : FuzzMembers {
  Rig(uint64_t seed, uint32_t member_count) : FuzzMembers(seed, member_count, disk_blocks) {}
};

enum Past : uint8_t { past_none, past_away, past_returning, past_exchange, past_growth, past_count };
constexpr size_t away_place = 2;

struct Image {
  std::vector<FuzzBytes> members;  // in an exchange the last one is the twin
  std::vector<FuzzBytes> blocks;   // what the raid holds
  size_t head_pages = 0;           // superblocks and log
};

void write(Rig& rig, RaidParityBdev& raid, Image& image, uint64_t block, uint8_t value) {
  FuzzBytes data(block_bytes, value);
  BASALT_ASSERT(rig.world.io(raid, IoType::write, block, &data).ok());
  image.blocks[block] = data;
}

Raid make_raid(Rig& rig, uint32_t parity_count, uint64_t count_blocks) {
  RaidParityOptions options;
  options.name = "r";
  options.uuid.bytes[0] = 7;
  options.parity_count = parity_count;
  options.strip_bytes = strip_bytes;
  options.log_slot_count = slot_count;
  options.count_blocks = count_blocks;
  std::vector<size_t> all(data_count + parity_count);
  for (size_t i = 0; i < all.size(); i++)
    all[i] = i;
  auto made = rig.world.run(RaidParityBdev::create(rig.world.home(), options, rig.handles(all), {}));
  BASALT_ASSERT(made.ok());
  // Parity of strips that nobody wrote is made right in the background.
  rig.world.must([&] { return !made.value()->resyncing(); });
  return std::move(made).value();
}

Result<Raid> load(Rig& rig, const std::string& name, const std::vector<size_t>& present) {
  auto loaded = rig.world.run(RaidParityBdev::load(rig.world.home(), name, rig.handles(present), {}));
  BASALT_ASSERT(loaded.ok() || !loaded.error().message.empty());
  return loaded;
}

// Brings the raid to where something has begun that members keep on record, and stops it there.
void give_past(Rig& rig, Raid& raid, Image& image, Past past) {
  if (past == past_none) return;
  raid->set_resync(0, true);
  if (past == past_away || past == past_returning) {
    rig.disks[away_place]->fail = true;
    for (const uint64_t block : {1, 5})
      write(rig, *raid, image, block, static_cast<uint8_t>(0x20 + block));
    BASALT_ASSERT(raid->degraded());
  }
  if (past == past_returning) {
    rig.disks[away_place]->fail = false;
    const Handle device = rig.handle(away_place);
    BASALT_ASSERT(raid->replace_member(away_place, device).ok());
  }
  if (past == past_exchange) BASALT_ASSERT(raid->add_twin(*rig.disks[0], rig.handle(rig.disks.size() - 1)).ok());
  if (past == past_growth) {
    const uint64_t count_blocks = raid->count_blocks_max();
    BASALT_ASSERT(count_blocks > raid->info().count_blocks);
    const auto ended = std::make_shared<bool>(false);
    spawn([](RaidParityBdev& growing, uint64_t to, std::shared_ptr<bool> done) -> Task<void> {
      auto grow = growing.grow(to);
      (void)(co_await grow).ok();  // some members know by then, others do not
      *done = true;
    }(*raid, count_blocks, ended));
    // The last member hears of it after the others.
    const std::vector<uint8_t> before = rig.disks[0]->bytes;
    const auto knows = [&](size_t member) {
      for (const uint64_t page : parity::superblock_pages) {
        const size_t at = page * parity::page_bytes;
        if (std::memcmp(rig.disks[member]->bytes.data() + at, before.data() + at, 1024) != 0) return true;
      }
      return false;
    };
    rig.world.must([&] { return knows(0) || *ended; });
    return;
  }
  rig.world.world.run_for(seconds(5));
  write(rig, *raid, image, 6, 0x36);
}

// A set that was not closed; its log has records.
Image make_image(uint32_t parity_count, Past past) {
  const uint32_t twins = past == past_exchange ? 1 : 0;
  Rig rig(1, data_count + parity_count + twins);
  Raid raid = make_raid(rig, parity_count, past == past_growth ? 8 : 0);
  Image image;
  image.head_pages = raid->layout().first_block;
  image.blocks.assign(raid->info().count_blocks, FuzzBytes(block_bytes));
  for (const uint64_t block : {0, 3, 7, 2, 4})
    write(rig, *raid, image, block, static_cast<uint8_t>(0x10 + block));
  give_past(rig, raid, image, past);
  for (const auto& disk : rig.disks)
    image.members.push_back(disk->bytes);
  rig.close(raid);
  return image;
}

const Image& good_image(uint32_t parity_count, Past past) {
  static std::unique_ptr<Image> images[parity_count_max][past_count];
  std::unique_ptr<Image>& image = images[parity_count - 1][past];
  if (image == nullptr) image = std::make_unique<Image>(make_image(parity_count, past));
  return *image;
}

bool is_superblock(size_t page) {
  return page == parity::superblock_pages[0] || page == parity::superblock_pages[1];
}

void reseal(uint8_t* page, size_t index) {
  if (!is_superblock(index)) {
    parity::RecordHeader header;
    std::memcpy(&header, page, sizeof(header));
    // The payload lies in the pages behind it, if it is all there.
    if (header.payload_bytes <= 4 * parity::page_bytes && index >= parity::log_first_page) {
      header.payload_crc32c = crc32c(0, page + parity::page_bytes, header.payload_bytes);
      std::memcpy(page, &header, sizeof(header));
    }
  }
  FuzzDamage::seal(page);
}

bool in_checksum(size_t, size_t offset) {
  return offset >= 8 && offset < 16;
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

void expect_blocks(Rig& rig, RaidParityBdev& raid, const std::vector<FuzzBytes>& blocks, Past past) {
  const uint64_t count_blocks = raid.info().count_blocks;
  BASALT_ASSERT(count_blocks == blocks.size() || (past == past_growth && count_blocks > blocks.size()));
  FuzzBytes data(block_bytes);
  for (uint64_t block = 0; block < count_blocks; block++) {
    const FuzzBytes zeroes(block_bytes);
    BASALT_ASSERT(rig.world.io(raid, IoType::read, block, &data).ok());
    BASALT_ASSERT(data == (block < blocks.size() ? blocks[block] : zeroes));
  }
}

void exercise(Rig& rig, RaidParityBdev& raid) {
  const uint64_t last = raid.info().count_blocks - 1;
  FuzzBytes data(block_bytes);
  for (uint32_t round = 0; round < 2 * slot_count; round++) {
    const uint64_t block = round % 2 == 0 ? std::min<uint64_t>(round, last) : last - std::min<uint64_t>(round, last);
    std::fill(data.begin(), data.end(), static_cast<uint8_t>(round + 1));
    BASALT_ASSERT(rig.world.io(raid, IoType::write, block, &data).ok());
    std::fill(data.begin(), data.end(), uint8_t{0});
    BASALT_ASSERT(rig.world.io(raid, IoType::read, block, &data).ok() && data[0] == round + 1);
  }
  rig.world.must([&] { return !raid.resyncing(); });
  // Who comes back by itself, or takes over, does so meanwhile.
  if (raid.degraded() || raid.has_twin()) rig.world.world.run_for(seconds(60));
  if (!raid.degraded() && !raid.has_twin()) {
    BASALT_ASSERT(rig.world.run(raid.scrub({})).ok());
    const auto scrubbed = rig.world.run(raid.scrub({.repair = false}));
    BASALT_ASSERT(scrubbed.ok() && scrubbed->different_blocks == 0);
  }
}

// A blank disk in the place of the one that was missing. True: it is one of the set's now.
bool replace(Rig& rig, RaidParityBdev& raid, size_t missing) {
  std::fill(rig.disks[missing]->bytes.begin(), rig.disks[missing]->bytes.end(), uint8_t{0});
  const auto index = static_cast<uint32_t>(missing);
  if (!raid.replace_member(index, rig.handle(missing)).ok()) return false;
  rig.world.world.run_for(seconds(60));
  return raid.member(index).state == RaidMemberState::in_sync;
}

// Members that belong to a raid, or did, are not overwritten; nor are any for options that cannot be.
enum Odd : uint8_t { odd_none, odd_parity, odd_name, odd_strip, odd_slots, odd_twice, odd_count };

void create_over(Rig& rig, std::vector<size_t> members, Odd odd) {
  RaidParityOptions options;
  options.name = odd == odd_name ? "" : "s";
  options.strip_bytes = odd == odd_strip ? strip_bytes + 1 : strip_bytes;
  if (odd == odd_parity) options.parity_count = parity_count_max + 1;
  if (odd == odd_slots) options.log_slot_count = 1;
  if (odd == odd_twice) members.push_back(members[0]);
  auto made = rig.world.run(RaidParityBdev::create(rig.world.home(), options, rig.handles(members), {}));
  BASALT_ASSERT(!made.ok() || odd == odd_none);
  if (made.ok()) return rig.close(made.value());
  BASALT_ASSERT(!made.error().message.empty());
  for (const auto& disk : rig.disks)
    BASALT_ASSERT(disk->write_count == 0);
}

// How many places of the set nobody has.
size_t empty_places(Past past, size_t missing, size_t place_count) {
  const bool one_away = past == past_away || past == past_returning;
  const bool other_missing = missing < place_count && !(one_away && missing == away_place);
  return (one_away ? 1 : 0) + (other_missing ? 1 : 0);
}

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  uint8_t mode = input.u8();
  const uint32_t parity_count = (mode & mode_raid6) != 0 ? 2 : 1;
  Past past = past_none;
  if ((mode & mode_past) == mode_past) {
    mode &= static_cast<uint8_t>(~mode_create);
    past = static_cast<Past>(input.u8() % past_count);
  }
  const Image& image = good_image(parity_count, past);
  const size_t member_count = image.members.size();
  const size_t missing = (mode & mode_missing) != 0 ? input.u8() % member_count : member_count;
  const Odd odd = (mode & mode_create) != 0 ? static_cast<Odd>(input.u8() % odd_count) : odd_none;
  Rig rig(2, static_cast<uint32_t>(member_count));
  Damaged damaged = damage(rig, image, input);
  std::vector<size_t> present;
  for (size_t i = 0; i < member_count; i++) {
    const size_t index = (mode & mode_shuffled) != 0 ? member_count - 1 - i : i;
    if (index != missing) present.push_back(index);
  }
  FuzzDisk& first = *rig.disks[present[0]];
  first.fail = (mode & mode_unreadable) != 0;
  if ((mode & mode_bad_log) != 0) {
    first.bad_block = parity::log_first_page + 1;
    damaged.members |= 1u << present[0];
    damaged.in_log = true;
  }
  if ((mode & mode_create) != 0) return create_over(rig, present, odd);
  const std::string name = (mode & mode_other_name) != 0 ? "other" : "r";
  const size_t empty = empty_places(past, missing, data_count + parity_count);
  auto loaded = load(rig, name, present);
  for (const auto& disk : rig.disks)
    disk->fault = {};
  if (!loaded.ok() && damaged.failing != 0 && damaged.members == 0 && (mode & mode_not_as_it_was) == 0) {
    loaded = load(rig, name, present);
    BASALT_ASSERT(loaded.ok() || empty > parity_count);
  }
  if (damaged.failing == 0 && damaged.members == 0 && (mode & mode_not_as_it_was) == 0)
    BASALT_ASSERT(loaded.ok() == (empty <= parity_count));
  if (!loaded.ok()) {
    for (const auto& disk : rig.disks)
      BASALT_ASSERT(disk->write_count == 0 || damaged.failing != 0);
    return;
  }
  Raid raid = std::move(loaded).value();
  const bool one_member = (damaged.members & (damaged.members - 1)) == 0;
  const size_t gone = empty + ((mode & mode_unreadable) != 0 ? 1 : 0) +
                      static_cast<size_t>(std::popcount(damaged.failing & ~damaged.members));
  const bool only_failed = damaged.members == 0 && (mode & mode_not_as_it_was) == 0;
  if (only_failed || (damaged.can_be_told && one_member && (!damaged.in_log || gone < parity_count)))
    expect_blocks(rig, *raid, image.blocks, past);
  if ((mode & mode_replace) != 0 && missing < data_count + parity_count && replace(rig, *raid, missing))
    present.push_back(missing);
  exercise(rig, *raid);
  rig.close(raid);
  auto again = load(rig, name, present);
  BASALT_ASSERT(again.ok());
  raid = std::move(again).value();
  rig.close(raid);
}

unsigned record_page(unsigned slot) {
  return parity::log_first_page + slot * slot_pages;
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out;
  for (unsigned mode = 0; mode < 64; mode++)
    out.push_back({"good-" + std::to_string(mode), FuzzOutput().u8(mode).u8(1).bytes()});
  // Those with a past, whole, without each of their members, and with a field of a superblock that makes no sense.
  for (unsigned past = 1; past < past_count; past++) {
    for (const unsigned mode : {mode_past + 0u, mode_past + mode_raid6 + 0u}) {
      const std::string name = "past-" + std::to_string(past) + "-" + std::to_string(mode);
      out.push_back({name, FuzzOutput().u8(mode).u8(past).bytes()});
      for (unsigned member = 0; member <= data_count + parity_count_max; member++) {
        out.push_back({name + "-without-" + std::to_string(member),
                       FuzzOutput().u8(mode | mode_missing).u8(past).u8(member).bytes()});
        for (const unsigned page : parity::superblock_pages) {
          out.push_back({name + "-blank-" + std::to_string(member) + "-" + std::to_string(page),
                         FuzzOutput().u8(mode).u8(past).u8(member).u8(FuzzDamage::blank).u8(page).u8(0).bytes()});
        }
      }
      for (const unsigned offset : {384u, 392u, 400u, 552u, 560u, 568u, 720u, 724u, 728u, 732u, 1024u}) {
        for (const unsigned value : {0u, 0xf3u}) {
          FuzzOutput one = FuzzOutput().u8(mode).u8(past);
          FuzzOutput all = one;
          for (unsigned member = 0; member <= data_count + parity_count_max; member++) {
            for (const unsigned page : parity::superblock_pages) {
              all.u8(member).u8(FuzzDamage::patch | FuzzDamage::flag_reseal).u8(page).u16(offset).u8(1).u8(value);
              if (member == 1)
                one.u8(1).u8(FuzzDamage::patch | FuzzDamage::flag_reseal).u8(page).u16(offset).u8(1).u8(value);
            }
          }
          const std::string field = "-" + std::to_string(offset) + "-" + std::to_string(value);
          out.push_back({name + field + "-one", one.bytes()});
          out.push_back({name + field + "-all", all.bytes()});
        }
      }
    }
  }
  for (unsigned odd = 0; odd < odd_count; odd++) {
    FuzzOutput blank;
    blank.u8(mode_create).u8(odd);
    for (const unsigned page : parity::superblock_pages) {
      for (unsigned member = 0; member <= data_count; member++)
        blank.u8(member).u8(FuzzDamage::blank).u8(page).u8(0);
    }
    out.push_back({"create-blank-" + std::to_string(odd), blank.bytes()});
  }
  for (const unsigned mode : {0u, mode_raid6 + 0u, mode_shuffled + 0u, mode_bad_log + 0u}) {
    for (unsigned member = 0; member < data_count + parity_count_max; member++) {
      const std::string name = std::to_string(mode) + "-" + std::to_string(member);
      out.push_back({"replace-" + name, FuzzOutput().u8(mode | mode_missing | mode_replace).u8(member).bytes()});
      out.push_back({"bad-log-" + name, FuzzOutput().u8(mode | mode_missing | mode_bad_log).u8(member).bytes()});
    }
    out.push_back({"bad-log-" + std::to_string(mode), FuzzOutput().u8(mode | mode_bad_log).bytes()});
  }
  // A member that fails at each request of a load: once, twice, from then on.
  for (const unsigned mode : {0u, mode_raid6 + 0u, mode_raid6 + mode_missing + 0u}) {
    for (unsigned after = 0; after < 48; after++) {
      for (const unsigned count : {1u, 2u, 255u}) {
        for (unsigned kind = 0; kind < std::size(FuzzFault::statuses); kind++) {
          FuzzOutput play = FuzzOutput().u8(mode);
          if ((mode & mode_missing) != 0) play.u8(3);
          play.u8(member_fails).u8(after % 3).u16(after / 3).u8(count).u8(kind);
          out.push_back({"fails-" + std::to_string(mode) + "-" + std::to_string(after) + "-" + std::to_string(count) +
                             "-" + std::to_string(kind),
                         play.bytes()});
        }
      }
    }
  }
  const auto patch = [&](const std::string& name, const std::vector<unsigned>& pages, unsigned offset, unsigned value) {
    for (const unsigned mode : {0u, mode_raid6 + 0u}) {
      FuzzOutput all;
      all.u8(mode);
      for (const unsigned page : pages) {
        for (unsigned member = 0; member < data_count + parity_count_max; member++)
          all.u8(member).u8(FuzzDamage::patch | FuzzDamage::flag_reseal).u8(page).u16(offset).u8(1).u8(value);
      }
      out.push_back({name + "-all-" + std::to_string(mode), all.bytes()});
    }
    for (const unsigned flag : {0u, FuzzDamage::flag_reseal + 0u}) {
      FuzzOutput one;
      one.u8(0);
      for (const unsigned page : pages)
        one.u8(1).u8(flag).u8(page).u16(offset).u8(1).u8(value);
      out.push_back({name + "-one-" + std::to_string(flag), one.bytes()});
    }
  };
  // Every field of a superblock: nonsense, less than it was, and the last of its numbers.
  const std::vector<unsigned> superblocks(std::begin(parity::superblock_pages), std::end(parity::superblock_pages));
  for (unsigned offset = 12; offset < 130; offset += offset < 112 ? 4 : 1) {
    for (const unsigned value : {0u, 2u, 0xf3u})
      patch("superblock-" + std::to_string(value) + "-" + std::to_string(offset), superblocks, offset, value);
  }
  for (const unsigned offset : {55u, 63u, 111u})
    patch("superblock-last-" + std::to_string(offset), superblocks, offset, 0xff);
  for (unsigned slot = 0; slot < slot_count; slot++) {
    patch("record-last-" + std::to_string(slot), {record_page(slot)}, 47, 0xff);  // its sequence number
    for (const unsigned offset : {16u, 32u, 40u, 48u, 56u, 60u, 64u, 68u, 69u, 70u, 72u})
      patch("record-" + std::to_string(slot) + "-" + std::to_string(offset), {record_page(slot)}, offset, 1);
  }
  // Two members' records of one write that tell different shapes of it.
  const uint8_t wide[] = {2, 0, 0, 0, 0, 0x40, 0, 0};  // columns, bytes of payload
  for (unsigned slot = 0; slot < slot_count; slot++) {
    for (unsigned member = 0; member < data_count + parity_count_max; member++) {
      FuzzOutput edit;
      edit.u8(mode_raid6).u8(member).u8(FuzzDamage::patch | FuzzDamage::flag_reseal).u8(record_page(slot));
      edit.u16(60).u8(sizeof(wide)).add(wide);
      out.push_back({"record-wide-" + std::to_string(slot) + "-" + std::to_string(member), edit.bytes()});
    }
  }
  for (const unsigned page : parity::superblock_pages)
    out.push_back(
        {"blank-" + std::to_string(page), FuzzOutput().u8(0).u8(0).u8(FuzzDamage::blank).u8(page).u8(0).bytes()});
  out.push_back({"copy", FuzzOutput().u8(0).u8(0).u8(FuzzDamage::copy).u8(record_page(1)).u8(record_page(0)).bytes()});
  return out;
}

BASALT_FUZZ_TARGET(raid_image, run, seeds)

}  // namespace
}  // namespace basalt::bdev
