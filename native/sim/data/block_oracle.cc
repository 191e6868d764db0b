// SPDX-License-Identifier: Apache-2.0
#include "sim/data/block_oracle.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"

namespace basalt::sim {
namespace {

struct Tag {
  uint64_t magic = 0;
  uint64_t volume = 0;
  uint64_t block = 0;
  uint64_t sequence = 0;
};
static_assert(oracle_sector_bytes % sizeof(Tag) == 0);
constexpr uint64_t tag_magic = 0x6b636f6c42676154;

// The tag that fills the sector (all zero: zeroes), or nothing.
std::optional<Tag> tag_of(const uint8_t* sector) {
  Tag tag;
  std::memcpy(&tag, sector, sizeof(tag));
  if (std::memcmp(sector, sector + sizeof(tag), oracle_sector_bytes - sizeof(tag)) != 0) return std::nullopt;
  const bool zero = tag.magic == 0 && tag.volume == 0 && tag.block == 0 && tag.sequence == 0;
  if (!zero && tag.magic != tag_magic) return std::nullopt;
  return tag;
}

std::string text_of(const std::optional<Tag>& tag) {
  if (!tag) return "garbage";
  if (tag->magic == 0) return "zeroes";
  return "volume " + std::to_string(tag->volume) + " block " + std::to_string(tag->block) + " #" +
         std::to_string(tag->sequence);
}

}  // namespace

void fill_tagged(uint8_t* data, uint64_t volume, uint64_t first_block, uint64_t count_blocks, uint64_t sequence) {
  for (uint64_t i = 0; i < count_blocks; i++) {
    const Tag tag{tag_magic, volume, first_block + i, sequence};
    uint8_t* block = data + i * oracle_block_bytes;
    for (size_t at = 0; at < oracle_block_bytes; at += sizeof(tag))
      std::memcpy(block + at, &tag, sizeof(tag));
  }
}

BlockOracle::ChangeId BlockOracle::change_begins(uint64_t first_block, uint64_t count_blocks, uint64_t sequence) {
  const ChangeId change = ++clock_;
  for (uint64_t b = first_block; b < first_block + count_blocks; b++)
    blocks_[b].versions.push_back({change, sequence, change});
  return change;
}

void BlockOracle::change_ends(ChangeId change, uint64_t first_block, uint64_t count_blocks, Ending ending) {
  const uint64_t now = ++clock_;
  for (uint64_t b = first_block; b < first_block + count_blocks; b++) {
    Block& block = blocks_[b];
    const auto version = std::find_if(block.versions.begin(), block.versions.end(),
                                      [&](const Version& each) { return each.change == change; });
    BASALT_ASSERT(version != block.versions.end());
    if (ending == Ending::refused) {
      block.versions.erase(version);
    } else if (ending != Ending::unknown) {
      version->ended = now;
      version->durable = ending == Ending::forced;
      if (version->durable) prune(block);
    }
  }
}

void BlockOracle::flush_ends(uint64_t begun) {
  for (Block& block : blocks_) {
    bool any = false;
    for (Version& version : block.versions) {
      if (version.ended >= begun || version.durable) continue;
      version.durable = any = true;
    }
    if (any) prune(block);
  }
}

// Forgets what a stable version has replaced for good.
void BlockOracle::prune(Block& block) const {
  const uint64_t until = reads_.empty() ? never : *reads_.begin();
  uint64_t newest_begun = 0;
  for (const Version& version : block.versions) {
    if (version.durable && version.certain && version.ended < until)
      newest_begun = std::max(newest_begun, version.begun);
  }
  if (newest_begun == 0) return;
  block.base_possible = false;
  std::erase_if(block.versions, [&](const Version& version) { return version.ended < newest_begun; });
}

// Some other change surely came after one that ended then, and had ended before `before`.
bool BlockOracle::overwritten(const Block& block, uint64_t ended, uint64_t before, bool only_durable) {
  return std::any_of(block.versions.begin(), block.versions.end(), [&](const Version& newer) {
    return newer.certain && ended < newer.begun && newer.ended < before && (newer.durable || !only_durable);
  });
}

bool BlockOracle::possible(const Block& block, uint32_t sector, uint64_t sequence, uint64_t before, uint64_t until,
                           bool only_durable) {
  if (block.base_possible && block.base[sector] == sequence && !overwritten(block, 0, before, only_durable))
    return true;
  return std::any_of(block.versions.begin(), block.versions.end(), [&](const Version& version) {
    return version.sequence == sequence && version.begun < until &&
           !overwritten(block, version.ended, before, only_durable);
  });
}

std::string BlockOracle::describe(const Block& block, uint32_t sector) const {
  std::string text = block.base_possible ? "; before: #" + std::to_string(block.base[sector]) : "";
  for (const Version& version : block.versions) {
    text += "; #" + std::to_string(version.sequence) + " [" + std::to_string(version.begun) + ".." +
            (version.ended == never ? "" : std::to_string(version.ended)) + "]" + (version.durable ? " stable" : "");
  }
  return text;
}

std::optional<std::string> BlockOracle::judge(uint64_t first_block, const uint8_t* data, uint64_t count_blocks,
                                              uint64_t before, uint64_t until, bool only_durable, bool crashed) const {
  for (uint64_t i = 0; i < count_blocks; i++) {
    const Block& block = blocks_[first_block + i];
    for (uint32_t sector = 0; sector < oracle_sectors; sector++) {
      const auto tag = tag_of(data + i * oracle_block_bytes + size_t{sector} * oracle_sector_bytes);
      const bool here = tag && (tag->magic == 0 || (belongs(tag->volume) && tag->block == first_block + i));
      if (here && possible(block, sector, tag->sequence, before, until, only_durable)) continue;
      if (!tag && shorn_) {
        if (possible(block, sector, garbage, before, until, only_durable)) continue;
        if (crashed && in_flight(block)) continue;
      }
      return "volume " + std::to_string(volume_) + " block " + std::to_string(first_block + i) + " sector " +
             std::to_string(sector) + " holds " + text_of(tag) + describe(block, sector);
    }
  }
  return std::nullopt;
}

bool BlockOracle::belongs(uint64_t volume) const {
  return volume == volume_ || std::find(ancestors_.begin(), ancestors_.end(), volume) != ancestors_.end();
}

// What was in flight at any time since then may have been copied, or not.
BlockOracle BlockOracle::copied(uint64_t begun, uint64_t volume) const {
  BlockOracle copy(volume, count_blocks(), shorn_);
  copy.clock_ = clock_;
  copy.ancestors_ = ancestors_;
  copy.ancestors_.push_back(volume_);
  copy.blocks_ = blocks_;
  for (Block& block : copy.blocks_) {
    for (Version& version : block.versions) {
      if (version.ended < begun) continue;
      version.ended = clock_;
      version.durable = version.certain = false;
    }
  }
  return copy;
}

bool BlockOracle::in_flight(const Block& block) {
  return std::any_of(block.versions.begin(), block.versions.end(),
                     [](const Version& version) { return version.ended == never || !version.certain; });
}

std::optional<std::string> BlockOracle::judge_read(uint64_t begun, uint64_t first_block, const uint8_t* data,
                                                   uint64_t count_blocks) const {
  return judge(first_block, data, count_blocks, begun, never, false, false);
}

std::optional<std::string> BlockOracle::judge_crash(CrashRule rule, uint64_t first_block, const uint8_t* data,
                                                    uint64_t count_blocks) const {
  const bool power_cut = rule == CrashRule::power_cut;
  return judge(first_block, data, count_blocks, never, never, power_cut, power_cut);
}

bool BlockOracle::unsettled(CrashRule rule, uint64_t block) const {
  if (in_flight(blocks_[block])) return true;
  if (rule == CrashRule::kill) return false;
  const auto& versions = blocks_[block].versions;
  return std::any_of(versions.begin(), versions.end(), [](const Version& version) { return !version.durable; });
}

void BlockOracle::forget_history() {
  for (Block& block : blocks_)
    block = {};
  reads_.clear();
}

void BlockOracle::adopt(uint64_t first_block, const uint8_t* data, uint64_t count_blocks) {
  for (uint64_t i = 0; i < count_blocks; i++) {
    for (uint32_t sector = 0; sector < oracle_sectors; sector++) {
      const auto tag = tag_of(data + i * oracle_block_bytes + size_t{sector} * oracle_sector_bytes);
      BASALT_ASSERT(tag.has_value() || shorn_);
      blocks_[first_block + i].base[sector] = tag ? tag->sequence : garbage;
    }
  }
}

}  // namespace basalt::sim
