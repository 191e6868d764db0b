// SPDX-License-Identifier: Apache-2.0
#include "check/snapshots.h"

#include <algorithm>

namespace basalt::check {
namespace {

struct Sight {
  const Op* op = nullptr;
  BlockValue value;
};
using Sights = std::map<BlockPlace, std::vector<Sight>>;  // of a snapshot's block

size_t depth_of(const History& history, uint32_t device) {
  size_t depth = 0;
  for (uint32_t at = device; history.devices[at].kind != DeviceKind::volume; at = history.devices[at].parent)
    depth++;
  return depth;
}

bool has_zeroing(const Block& block) {
  return std::any_of(block.events().begin(), block.events().end(),
                     [](const Event& event) { return event.op->type == OpType::zero; });
}

// Whether a read of a clone shows what the clone began with.
bool inherited(const Block& block, const BlockValue& value) {
  if (value.kind == BlockKind::zero) return !has_zeroing(block);
  return value.kind == BlockKind::stamp && block.write_of(value) == nullptr;
}

class Resolver {
 public:
  explicit Resolver(BlockSet& blocks) : blocks_(blocks), history_(blocks.history) {}

  // Children first: what they show of their parents is then known.
  std::optional<Violation> run() {
    std::vector<uint32_t> order;
    for (uint32_t i = 0; i < history_.devices.size(); i++)
      order.push_back(i);
    std::stable_sort(order.begin(), order.end(), [this](uint32_t one, uint32_t other) {
      return depth_of(history_, one) > depth_of(history_, other);
    });
    for (const uint32_t device : order) {
      if (history_.devices[device].kind == DeviceKind::clone) look_through(device);
      if (history_.devices[device].kind != DeviceKind::snapshot) continue;
      if (auto bad = settle(device)) return bad;
    }
    for (auto& [place, block] : blocks_.blocks) {
      if (history_.devices[place.device].kind != DeviceKind::clone) continue;
      const auto found = contents_.find({history_.devices[place.device].parent, place.lba});
      if (found != contents_.end()) block.initial = found->second;
    }
    return std::nullopt;
  }

 private:
  // What a clone shows of its snapshot.
  void look_through(uint32_t clone) {
    const uint32_t snapshot = history_.devices[clone].parent;
    for (auto at = blocks_.blocks.lower_bound({clone, 0}); at != blocks_.blocks.end() && at->first.device == clone;
         ++at) {
      for (const Event& event : at->second.events()) {
        if (!event.is_read() || !inherited(at->second, event.value)) continue;
        sights_[{snapshot, at->first.lba}].push_back({event.op, event.value});
      }
    }
  }

  std::optional<Violation> settle(uint32_t snapshot) {
    for (auto at = blocks_.blocks.lower_bound({snapshot, 0});
         at != blocks_.blocks.end() && at->first.device == snapshot; ++at) {
      for (const Event& event : at->second.events()) {
        if (!event.is_read()) {
          return at->second.violation("R9", "a snapshot was written to, and that was allowed", {event.op});
        }
        sights_[at->first].push_back({event.op, event.value});
      }
    }
    for (auto at = sights_.lower_bound({snapshot, 0}); at != sights_.end() && at->first.device == snapshot; ++at) {
      if (auto bad = settle_block(snapshot, at->first.lba, at->second)) return bad;
    }
    return std::nullopt;
  }

  std::optional<Violation> settle_block(uint32_t snapshot, uint64_t lba, const std::vector<Sight>& sights) {
    const Device& device = history_.devices[snapshot];
    const BlockValue& value = sights[0].value;
    int64_t seen_ns = never_ns;
    for (const Sight& sight : sights) {
      seen_ns = std::min(seen_ns, sight.op->completed_ns);
      if (sight.value == value) continue;
      const bool clone = sight.op->device != snapshot || sights[0].op->device != snapshot;
      const std::string what = clone ? "a clone does not show what its snapshot " + device.name + " holds"
                                     : "snapshot " + device.name + " changed";
      return make_violation(history_, "R9", what, {sights[0].op, sight.op}, lba);
    }
    contents_[{snapshot, lba}] = value;
    // The snapshot as a read of its parent.
    Op& op = blocks_.made.emplace_back();
    op.id = snapshot;
    op.client = snapshot_client;
    op.type = OpType::read;
    op.status = OpStatus::ok;
    op.device = device.parent;
    op.lba = lba;
    op.count_blocks = 1;
    op.invoked_ns = device.invoked_ns;
    op.completed_ns = device.status == OpStatus::ok ? device.completed_ns : std::max(seen_ns, device.invoked_ns);
    op.values = {value};
    blocks_.at({device.parent, lba}).add(op, value);
    return std::nullopt;
  }

  BlockSet& blocks_;
  const History& history_;
  Sights sights_;
  std::map<BlockPlace, BlockValue> contents_;
};

// The changes of one block since the last power cut before a snapshot, around the value that the snapshot holds.
struct Surroundings {
  int64_t since_ns = always_ns;  // the value, or one that it surely replaced, was asked for then
  const Op* since = nullptr;
  int64_t until_ns = never_ns;  // what surely replaced the value had come by then
  const Op* until = nullptr;
};

struct Known {
  const Op* write = nullptr;
  int64_t invoked_ns = always_ns;
  int64_t finish_min = never_ns;  // a write's end, or the end of a read that saw it
  int64_t start_max = always_ns;
};

Surroundings around(const Block& block, const Op& cut, int64_t from_ns) {
  Known held;
  const BlockValue& value = cut.values[0];
  std::map<std::pair<uint64_t, uint64_t>, Known> others;
  if (value.kind == BlockKind::zero || block.write_of(value) == nullptr) held.finish_min = always_ns;
  for (const Event& event : block.events()) {
    const Op& op = *event.op;
    if (op.status == OpStatus::fail || event.completed_ns <= from_ns || op.type == OpType::zero) continue;
    if (event.is_read() && (event.value.kind != BlockKind::stamp || event.invoked_ns < from_ns)) continue;
    const bool same = event.is_read() ? event.value == value : block.write_of(value) == &event;
    const auto key = event.is_read() ? std::pair(event.value.stamp.writer, event.value.stamp.sequence)
                                     : std::pair(op.writer, op.sequence);
    Known& known = same ? held : others[key];
    if (!event.is_read()) {
      known.write = &op;
      known.invoked_ns = event.invoked_ns;
    }
    if (&op == &cut) continue;  // its own bounds are what is asked for
    known.finish_min = std::min(known.finish_min, event.completed_ns);
    known.start_max = std::max(known.start_max, event.invoked_ns);
  }
  // From before the last power cut: it was there from the beginning.
  if (held.write == nullptr) held.finish_min = always_ns;
  Surroundings out;
  out.since_ns = held.invoked_ns;
  out.since = held.write;
  for (const auto& [key, other] : others) {
    if (other.write == nullptr) continue;
    if (other.finish_min < held.start_max && other.invoked_ns > out.since_ns) {
      out.since_ns = other.invoked_ns;
      out.since = other.write;
    }
    if (held.finish_min < other.start_max && other.finish_min < out.until_ns) {
      out.until_ns = other.finish_min;
      out.until = other.write;
    }
  }
  return out;
}

}  // namespace

std::optional<Violation> resolve_snapshots(BlockSet& blocks) {
  return Resolver(blocks).run();
}

std::optional<Violation> check_cuts(const BlockSet& blocks) {
  // By snapshot: the latest that something it holds was asked for, and the earliest that something it lacks had come.
  struct Bounds {
    Surroundings latest;
    const Op* latest_cut = nullptr;
    Surroundings earliest;
    const Op* earliest_cut = nullptr;
  };
  std::map<uint64_t, Bounds> bounds;
  for (const Op& cut : blocks.made) {
    const Block& block = *blocks.find({cut.device, cut.lba});
    if (cut.values[0].kind == BlockKind::zero && has_zeroing(block)) continue;
    int64_t from_ns = always_ns;
    bool spans = false;
    for (const PowerCut& power : blocks.history.power_cuts) {
      if (power.at_ns <= cut.invoked_ns) from_ns = std::max(from_ns, power.at_ns);
      spans |= cut.invoked_ns < power.at_ns && power.at_ns < cut.completed_ns;
    }
    if (spans) continue;
    const Surroundings found = around(block, cut, from_ns);
    Bounds& all = bounds[cut.id];
    if (found.since_ns > all.latest.since_ns) {
      all.latest = found;
      all.latest_cut = &cut;
    }
    if (found.until_ns < all.earliest.until_ns) {
      all.earliest = found;
      all.earliest_cut = &cut;
    }
  }
  for (const auto& [snapshot, all] : bounds) {
    if (all.latest_cut == nullptr || all.earliest_cut == nullptr) continue;
    if (all.earliest.until_ns >= all.latest.since_ns) continue;
    const std::string what = "snapshot " + blocks.history.devices[snapshot].name +
                             " lacks a write that had come before one that it holds was asked for";
    return make_violation(blocks.history, "R9", what,
                          {all.earliest.until, all.earliest_cut, all.latest.since, all.latest_cut},
                          all.earliest_cut->lba);
  }
  return std::nullopt;
}

}  // namespace basalt::check
