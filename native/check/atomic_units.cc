// SPDX-License-Identifier: Apache-2.0
#include "check/atomic_units.h"

#include <algorithm>

namespace basalt::check {
namespace {

// What one block of a unit was seen to hold, at the same moment as its neighbours.
struct Part {
  uint64_t lba = 0;
  BlockValue value;
  const Op* seen_by = nullptr;
};

class Units {
 public:
  explicit Units(const BlockSet& blocks)
      : blocks_(blocks), unit_blocks_(blocks.history.atomic_bytes / blocks.history.block_bytes) {}

  std::optional<Violation> run() const {
    if (unit_blocks_ < 2) return std::nullopt;
    for (const Op& op : blocks_.history.ops) {
      if (op.type != OpType::read || op.status != OpStatus::ok) continue;
      for (uint32_t i = 0; i < op.count_blocks;) {
        const uint64_t end = (unit_of(op.lba + i) + 1) * unit_blocks_;
        std::vector<Part> parts;
        for (; i < op.count_blocks && op.lba + i < end; i++)
          parts.push_back({op.lba + i, op.values[i], &op});
        if (auto bad = agree(op.device, parts, "a read saw")) return bad;
      }
    }
    for (const PowerCut& cut : blocks_.history.power_cuts) {
      if (auto bad = survivors(cut.at_ns)) return bad;
    }
    return std::nullopt;
  }

 private:
  uint64_t unit_of(uint64_t lba) const { return lba / unit_blocks_; }

  // The first sight of each block after a power cut, where it is from before.
  std::optional<Violation> survivors(int64_t cut_ns) const {
    std::map<BlockPlace, std::vector<Part>> units;
    for (const auto& [place, block] : blocks_.blocks) {
      const Event* first = nullptr;
      bool changed = false;  // since the cut, or by one that was in flight
      for (const Event& event : block.events()) {
        if (event.is_read() && event.invoked_ns >= cut_ns) {
          if (first == nullptr || event.completed_ns < first->completed_ns) first = &event;
        }
      }
      if (first == nullptr) continue;
      for (const Event& event : block.events()) {
        changed |= !event.is_read() && event.op->status != OpStatus::fail && event.completed_ns > cut_ns &&
                   event.invoked_ns < first->completed_ns;
      }
      if (!changed) units[{place.device, unit_of(place.lba)}].push_back({place.lba, first->value, first->op});
    }
    for (const auto& [unit, parts] : units) {
      if (auto bad = agree(unit.device, parts, "a power cut left")) return bad;
    }
    return std::nullopt;
  }

  // The write of a value, when it lies inside one unit.
  const Op* whole_write(uint32_t device, const Part& part) const {
    const Block* block = blocks_.find({device, part.lba});
    const Event* event = block == nullptr ? nullptr : block->write_of(part.value);
    if (event == nullptr) return nullptr;
    const Op& op = *event->op;
    return unit_of(op.lba) == unit_of(op.lba + op.count_blocks - 1) ? &op : nullptr;
  }
  static bool covers(const Op& op, uint64_t lba) { return lba >= op.lba && lba < op.lba + op.count_blocks; }

  std::optional<Violation> agree(uint32_t device, const std::vector<Part>& parts, const char* who) const {
    for (const Part& part : parts) {
      const Op* write = whole_write(device, part);
      if (write == nullptr) continue;
      for (const Part& other : parts) {
        if (&other == &part || !covers(*write, other.lba)) continue;
        const Op* shown = nullptr;
        if (!half(device, *write, part, other, &shown)) continue;
        std::vector<const Op*> proof = {write, part.seen_by, other.seen_by};
        if (shown != nullptr) proof.push_back(shown);
        return make_violation(blocks_.history, "R7",
                              std::string(who) + " half of an atomic write: block " + std::to_string(part.lba) +
                                  " holds " + part.value.to_string() + ", block " + std::to_string(other.lba) +
                                  " holds " + other.value.to_string(),
                              proof, part.lba);
      }
    }
    return std::nullopt;
  }

  // `write` is there in `part`; whether `other` shows that it is not there.
  bool half(uint32_t device, const Op& write, const Part& part, const Part& other, const Op** shown) const {
    const Block& block = *blocks_.find({device, other.lba});
    if (other.value.kind == BlockKind::zero) {
      return std::none_of(block.events().begin(), block.events().end(),
                          [](const Event& event) { return event.op->type == OpType::zero; });
    }
    const Event* event = block.write_of(other.value);
    if (event == nullptr || event->op == &write) return false;
    *shown = event->op;
    // Older, or as whole as this one, and then one of them must have replaced the other in both blocks.
    if (event->completed_ns < write.invoked_ns) return true;
    return covers(*event->op, part.lba) && whole_write(device, other) != nullptr;
  }

  const BlockSet& blocks_;
  const uint64_t unit_blocks_;
};

}  // namespace

std::optional<Violation> check_atomic_units(const BlockSet& blocks) {
  return Units(blocks).run();
}

}  // namespace basalt::check
