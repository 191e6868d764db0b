// SPDX-License-Identifier: Apache-2.0
#include "check/checker.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>

namespace basalt::check {
namespace {

constexpr int64_t always_ns = INT64_MIN;

// What happened to one block: a write, a zeroing or a read, cut out of an operation.
struct Event {
  const Op* op = nullptr;
  int64_t invoked_ns = 0;
  int64_t completed_ns = never_ns;  // never for a write whose outcome is unknown
  BlockValue value;                 // read: what came back
  bool carried = false;             // it began before the power cut that this epoch follows
};

// The events of one block between two power cuts.
struct Epoch {
  std::vector<Event> writes;  // stamped
  std::vector<Event> zeroes;
  std::vector<Event> reads;
};

std::string seconds_text(int64_t ns) {
  if (ns == never_ns) return "never";
  char text[32];
  std::snprintf(text, sizeof(text), "%.6f", static_cast<double>(ns) / 1e9);
  return text;
}

bool writes_value(const Event& write, const BlockValue& value) {
  return value.kind == BlockKind::stamp && write.op->writer == value.stamp.writer &&
         write.op->sequence == value.stamp.sequence;
}

class BlockCheck {
 public:
  // `flushed_until_ns`: for each power cut, what completed before this was flushed before the cut.
  BlockCheck(const History& history, const std::vector<int64_t>& flushed_until_ns, uint64_t lba)
      : history_(history), flushed_until_ns_(flushed_until_ns), lba_(lba) {}

  void add(const Op& op, const BlockValue& value) { all_.push_back({&op, op.invoked_ns, effect_end(op), value}); }

  std::optional<Violation> run() {
    for (const Event& event : all_) {
      if (event.op->type != OpType::read) continue;
      if (auto bad = shape_and_provenance(event)) return bad;
    }
    // Power cuts divide the block's life; each epoch is judged alone, from the value that survived.
    int64_t from = always_ns;
    for (size_t i = 0; i <= history_.power_cuts.size(); i++) {
      const bool last = i == history_.power_cuts.size();
      const int64_t to = last ? never_ns : history_.power_cuts[i].at_ns;
      Epoch epoch = cut(from, to);
      std::optional<Event> survivor;
      if (i > 0) {
        if (auto bad = survived(epoch, from, &survivor)) return bad;
      }
      if (auto bad = judge(epoch, i == 0, survivor)) return bad;
      from = to;
    }
    return std::nullopt;
  }

 private:
  // A write of unknown outcome has effect until for ever.
  static int64_t effect_end(const Op& op) { return op.status == OpStatus::ok ? op.completed_ns : never_ns; }

  Violation violation(const char* rule, const std::string& what, std::vector<const Op*> proof) const {
    Violation out{rule, std::string(rule) + ": block " + std::to_string(lba_) + ": " + what, lba_};
    std::sort(proof.begin(), proof.end(),
              [](const Op* one, const Op* other) { return one->invoked_ns < other->invoked_ns; });
    proof.erase(std::unique(proof.begin(), proof.end()), proof.end());
    for (const Op* op : proof)
      out.explanation += "\n  " + describe(*op);
    return out;
  }

  const Event* write_of(const BlockValue& value) const {
    for (const Event& event : all_) {
      if (event.op->type == OpType::write && writes_value(event, value)) return &event;
    }
    return nullptr;
  }

  std::optional<Violation> shape_and_provenance(const Event& read) const {
    const BlockValue& value = read.value;
    if (value.kind == BlockKind::torn || value.kind == BlockKind::garbage) {
      return violation("R0", "a read returned " + value.to_string(), {read.op});
    }
    if (value.kind == BlockKind::zero) return std::nullopt;
    if (value.stamp.volume != history_.volume) return violation("R1", "bytes of another volume", {read.op});
    if (value.stamp.lba != lba_) {
      return violation("R1", "bytes of block " + std::to_string(value.stamp.lba), {read.op});
    }
    const Event* write = write_of(value);
    if (write == nullptr) return violation("R1", value.to_string() + " was never written", {read.op});
    if (write->op->status == OpStatus::fail) {
      return violation("R1", value.to_string() + " was refused, and yet was read", {write->op, read.op});
    }
    if (write->invoked_ns >= read.completed_ns) {
      return violation("R1", value.to_string() + " was read before it was written", {write->op, read.op});
    }
    return std::nullopt;
  }

  // Operations of (from, to], since whoever was told at the moment of the cut was told before it. One that spans a cut:
  // its client resends it, so a write counts on both sides, a read on neither.
  Epoch cut(int64_t from, int64_t to) const {
    Epoch epoch;
    for (const Event& event : all_) {
      if (event.op->status == OpStatus::fail) continue;
      if (event.invoked_ns >= to || event.completed_ns <= from) continue;
      Event inside = event;
      inside.carried = event.invoked_ns < from;
      inside.invoked_ns = std::max(event.invoked_ns, from);
      if (event.completed_ns > to) inside.completed_ns = never_ns;
      if (event.op->type == OpType::read) {
        if (event.invoked_ns < from || event.completed_ns > to) continue;
        epoch.reads.push_back(inside);
      } else {
        (event.op->type == OpType::zero ? epoch.zeroes : epoch.writes).push_back(inside);
      }
    }
    const auto by_completion = [](const Event& one, const Event& other) {
      return std::pair(one.completed_ns, one.op->id) < std::pair(other.completed_ns, other.op->id);
    };
    std::sort(epoch.reads.begin(), epoch.reads.end(), by_completion);
    std::sort(epoch.writes.begin(), epoch.writes.end(), by_completion);
    std::sort(epoch.zeroes.begin(), epoch.zeroes.end(), by_completion);
    return epoch;
  }

  // Flushed (or FUA) within the epoch that it completed in: one that a cut took may not count for a later flush.
  bool durable_before(const Op& write, int64_t cut_ns) const {
    if (write.status != OpStatus::ok || write.completed_ns > cut_ns) return false;
    if (write.fua) return true;
    for (size_t i = 0; i < history_.power_cuts.size(); i++) {
      if (write.completed_ns <= history_.power_cuts[i].at_ns) return write.completed_ns < flushed_until_ns_[i];
    }
    return false;
  }

  // The durable change that overwrote what was invoked and completed before `ended_ns`, at a cut; nullptr: none.
  const Event* durable_after(int64_t ended_ns, int64_t cut_ns) const {
    for (const Event& event : all_) {
      if (event.op->type == OpType::read || !durable_before(*event.op, cut_ns)) continue;
      if (ended_ns < event.invoked_ns) return &event;
    }
    return nullptr;
  }

  // R4 and R5: the first value from before the cut that is read after it fixes what survived.
  std::optional<Violation> survived(const Epoch& epoch, int64_t cut_ns, std::optional<Event>* survivor) const {
    const Event* first = nullptr;
    for (const Event& read : epoch.reads) {
      if (from_inside(epoch, read.value)) continue;
      if (read.value.kind == BlockKind::zero) {
        // Never written, zeroed, or lost with nothing durable: only a durable write that no zeroing may have undone
        // forbids it.
        if (auto bad = zero_survived(read, cut_ns)) return bad;
        if (first == nullptr) first = &read;
        if (first->value.kind != BlockKind::zero) {
          return violation("R5", first->value.to_string() + " was read after the power cut, then zero",
                           {first->op, read.op});
        }
        continue;
      }
      const Event* write = write_of(read.value);
      if (const Event* newer = durable_after(write->completed_ns, cut_ns)) {
        return violation("R4", "a power cut brought back what a flushed write had replaced",
                         {write->op, newer->op, read.op});
      }
      if (first == nullptr) first = &read;
      if (first->value != read.value) {
        return violation(
            "R5", first->value.to_string() + " was read after the power cut, then the older " + read.value.to_string(),
            {first->op, read.op});
      }
      *survivor = *write;
    }
    return std::nullopt;
  }

  static bool from_inside(const Epoch& epoch, const BlockValue& value) {
    if (value.kind == BlockKind::zero) return !epoch.zeroes.empty();
    return std::any_of(epoch.writes.begin(), epoch.writes.end(),
                       [&](const Event& write) { return writes_value(write, value); });
  }

  std::optional<Violation> zero_survived(const Event& read, int64_t cut_ns) const {
    for (const Event& write : all_) {
      if (write.op->type != OpType::write || !durable_before(*write.op, cut_ns)) continue;
      const bool undone = std::any_of(all_.begin(), all_.end(), [&](const Event& zero) {
        return zero.op->type == OpType::zero && zero.op->status != OpStatus::fail && zero.invoked_ns < cut_ns &&
               zero.completed_ns >= write.invoked_ns;
      });
      if (!undone) return violation("R4", "a flushed write reads as zero after a power cut", {write.op, read.op});
    }
    return std::nullopt;
  }

  std::optional<Violation> judge(const Epoch& epoch, bool first, const std::optional<Event>& survivor) const {
    for (const Event& read : epoch.reads) {
      if (auto bad = read.value.kind == BlockKind::zero ? stale_zero(epoch, read, first) : stale(epoch, read)) {
        return bad;
      }
    }
    return one_order(epoch, survivor);
  }

  // The acknowledged change that came after `since_ns` and before `until_ns`; nullptr: none.
  static const Event* change_between(const Epoch& epoch, int64_t since_ns, int64_t until_ns) {
    for (const auto* changes : {&epoch.writes, &epoch.zeroes}) {
      for (const Event& change : *changes) {
        if (change.completed_ns >= until_ns) break;
        if (since_ns < change.invoked_ns) return &change;
      }
    }
    return nullptr;
  }

  std::optional<Violation> stale(const Epoch& epoch, const Event& read) const {
    const Event* write = write_of(read.value);
    const bool inside = from_inside(epoch, read.value);
    const int64_t since = inside ? write->completed_ns : always_ns;
    const Event* newer = change_between(epoch, since, read.invoked_ns);
    if (newer == nullptr) return std::nullopt;
    return violation("R2", "a read returned " + read.value.to_string() + ", which had been overwritten",
                     {write->op, newer->op, read.op});
  }

  // Some zeroing, or the beginning, must be able to be what the read saw.
  std::optional<Violation> stale_zero(const Epoch& epoch, const Event& read, bool first) const {
    const Event* newer = change_between(epoch, always_ns, read.invoked_ns);
    if (newer == nullptr) return std::nullopt;  // nothing was surely written: the beginning, or a survivor
    for (const Event& zero : epoch.zeroes) {
      if (zero.invoked_ns >= read.completed_ns) continue;
      if (change_between(epoch, zero.completed_ns, read.invoked_ns) == nullptr) return std::nullopt;
    }
    return violation("R8",
                     first ? "a written block reads as zero" : "a block written after the power cut reads as zero",
                     {newer->op, read.op});
  }

  // A value with all that is known of when it was there.
  struct Zone {
    int64_t finish_min = never_ns;
    int64_t start_max = always_ns;
    const Op* write = nullptr;
    const Op* finish_op = nullptr;
    const Op* start_op = nullptr;
    bool forward() const { return finish_min < start_max; }
    int64_t begin() const { return std::min(finish_min, start_max); }
    int64_t end() const { return std::max(finish_min, start_max); }
    void take(const Event& event) {
      if (event.completed_ns < finish_min || finish_op == nullptr) {
        finish_min = std::min(finish_min, event.completed_ns);
        finish_op = event.op;
      }
      if (event.invoked_ns > start_max || start_op == nullptr) {
        start_max = std::max(start_max, event.invoked_ns);
        start_op = event.op;
      }
    }
  };

  // R3: Gibbons and Korach's zones, for unique values. Zeroes are not unique; R8 judges them.
  std::optional<Violation> one_order(const Epoch& epoch, const std::optional<Event>& survivor) const {
    std::map<std::pair<uint64_t, uint64_t>, Zone> zones;
    for (const Event& write : epoch.writes) {
      Zone& zone = zones[{write.op->writer, write.op->sequence}];
      zone.write = write.op;
      zone.take(write);
    }
    if (survivor && !from_inside(epoch, value_of(*survivor))) {
      Zone& zone = zones[{survivor->op->writer, survivor->op->sequence}];
      zone.write = survivor->op;
      Event beginning = *survivor;
      beginning.invoked_ns = beginning.completed_ns = always_ns;
      zone.take(beginning);
    }
    std::map<std::pair<uint64_t, uint64_t>, bool> read_at_all;
    for (const Event& read : epoch.reads) {
      if (read.value.kind != BlockKind::stamp) continue;
      const auto key = std::pair(read.value.stamp.writer, read.value.stamp.sequence);
      read_at_all[key] = true;
      zones[key].take(read);
    }
    std::vector<Zone> forward;
    std::vector<Zone> backward;
    for (const auto& [key, zone] : zones) {
      // Of unknown outcome and never seen: it may not have happened.
      if (zone.finish_min == never_ns && !read_at_all.contains(key)) continue;
      (zone.forward() ? forward : backward).push_back(zone);
    }
    std::sort(forward.begin(), forward.end(),
              [](const Zone& one, const Zone& other) { return one.begin() < other.begin(); });
    for (size_t i = 1; i < forward.size(); i++) {
      if (forward[i].begin() < forward[i - 1].end()) {
        return violation("R3", "two values were each there before and after the other",
                         proof(forward[i - 1], forward[i]));
      }
    }
    for (const Zone& zone : backward) {
      for (const Zone& around : forward) {
        if (around.begin() < zone.begin() && zone.end() < around.end()) {
          return violation("R3", "a value was there before and after a write that lies between", proof(around, zone));
        }
      }
    }
    return std::nullopt;
  }

  static BlockValue value_of(const Event& write) {
    BlockValue value;
    value.kind = BlockKind::stamp;
    value.stamp.writer = write.op->writer;
    value.stamp.sequence = write.op->sequence;
    return value;
  }
  static std::vector<const Op*> proof(const Zone& one, const Zone& other) {
    std::vector<const Op*> ops;
    for (const Op* op : {one.write, one.finish_op, one.start_op, other.write, other.finish_op, other.start_op}) {
      if (op != nullptr) ops.push_back(op);
    }
    return ops;
  }

  const History& history_;
  const std::vector<int64_t>& flushed_until_ns_;
  const uint64_t lba_;
  std::vector<Event> all_;
};

std::optional<Violation> check_liveness(const History& history) {
  if (history.healed_ns == never_ns) return std::nullopt;
  for (const Op& op : history.ops) {
    const int64_t due = std::max(op.invoked_ns, history.healed_ns) + history.bound_ns;
    if (op.completed_ns <= due) continue;
    return Violation{"R11",
                     "R11: not completed " + seconds_text(history.bound_ns) + " s after the last fault at " +
                         seconds_text(history.healed_ns) + "\n  " + describe(op),
                     op.lba};
  }
  return std::nullopt;
}

std::optional<Violation> check_replicas(const History& history) {
  std::map<uint64_t, const ReplicaImage*> first_of_leg;
  for (const ReplicaImage& image : history.replicas) {
    const ReplicaImage*& first = first_of_leg[image.leg];
    if (first == nullptr) first = &image;
    const size_t count = std::min(first->values.size(), image.values.size());
    for (size_t block = 0; block < count; block++) {
      if (first->values[block] == image.values[block]) continue;
      return Violation{"R10",
                       "R10: leg " + std::to_string(image.leg) + " block " + std::to_string(block) + ": " +
                           first->name + " holds " + first->values[block].to_string() + ", " + image.name + " holds " +
                           image.values[block].to_string(),
                       block};
    }
  }
  return std::nullopt;
}

}  // namespace

std::string describe(const Op& op) {
  static constexpr const char* types[] = {"read", "write", "flush", "zero"};
  static constexpr const char* states[] = {"ok", "refused", "unknown"};
  std::string text = "[" + seconds_text(op.invoked_ns) + " .. " + seconds_text(op.completed_ns) + "] client " +
                     std::to_string(op.client) + " " + types[static_cast<size_t>(op.type)];
  if (op.type != OpType::flush) text += " " + std::to_string(op.lba) + "+" + std::to_string(op.count_blocks);
  if (op.type == OpType::write) text += " w" + std::to_string(op.writer) + "#" + std::to_string(op.sequence);
  text += std::string(": ") + states[static_cast<size_t>(op.status)];
  for (const BlockValue& value : op.values)
    text += " " + value.to_string();
  return text;
}

std::optional<Violation> check_history(const History& history) {
  std::vector<int64_t> flushed_until_ns(history.power_cuts.size(), always_ns);
  for (size_t i = 0; i < history.power_cuts.size(); i++) {
    for (const Op& op : history.ops) {
      if (op.type != OpType::flush || op.status != OpStatus::ok) continue;
      if (op.completed_ns <= history.power_cuts[i].at_ns) {
        flushed_until_ns[i] = std::max(flushed_until_ns[i], op.invoked_ns);
      }
    }
  }
  std::map<uint64_t, BlockCheck> blocks;
  for (const Op& op : history.ops) {
    if (op.type == OpType::flush) continue;
    if (op.type == OpType::read && op.status != OpStatus::ok) continue;
    for (uint32_t i = 0; i < op.count_blocks; i++) {
      const uint64_t lba = op.lba + i;
      BlockCheck& block = blocks.try_emplace(lba, history, flushed_until_ns, lba).first->second;
      block.add(op, op.type == OpType::read ? op.values[i] : BlockValue{});
    }
  }
  for (auto& [lba, block] : blocks) {
    if (auto bad = block.run()) return bad;
  }
  if (auto bad = check_replicas(history)) return bad;
  return check_liveness(history);
}

}  // namespace basalt::check
