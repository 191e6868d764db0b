// SPDX-License-Identifier: Apache-2.0
#include "check/block_rules.h"

#include <algorithm>

namespace basalt::check {
namespace {

// The events of one block between two power cuts.
struct Epoch {
  std::vector<Event> writes;  // stamped; all by completion
  std::vector<Event> zeroes;
  std::vector<Event> reads;
};

bool writes_value(const Event& write, const BlockValue& value) {
  return value.kind == BlockKind::stamp && write.op->writer == value.stamp.writer &&
         write.op->sequence == value.stamp.sequence;
}

// A value with all that is known of when it was there.
struct Zone {
  int64_t finish_min = never_ns;
  int64_t start_max = always_ns;
  const Op* write = nullptr;
  const Op* finish_op = nullptr;
  const Op* start_op = nullptr;
  bool read = false;
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

class Rules {
 public:
  explicit Rules(const Block& block) : block_(block), cuts_(block.history().power_cuts) {}

  std::optional<Violation> run() {
    // Power cuts divide the block's life; each epoch is judged alone, from the value that survived.
    int64_t from = always_ns;
    for (size_t i = 0; i <= cuts_.size(); i++) {
      const int64_t to = i == cuts_.size() ? never_ns : cuts_[i].at_ns;
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
  // Operations of (from, to], since whoever was told at the moment of the cut was told before it. One that spans a cut:
  // its client resends it, so a write counts on both sides, a read on neither.
  Epoch cut(int64_t from, int64_t to) const {
    Epoch epoch;
    for (const Event& event : block_.events()) {
      if (event.op->status == OpStatus::fail) continue;
      if (event.invoked_ns >= to || event.completed_ns <= from) continue;
      Event inside = event;
      inside.carried = event.invoked_ns < from;
      inside.invoked_ns = std::max(event.invoked_ns, from);
      if (event.completed_ns > to) inside.completed_ns = never_ns;
      if (event.is_read()) {
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

  // Flushed or forced within the epoch that it completed in: one that a cut took may not count for a later flush.
  bool durable_before(const Op& write, int64_t cut_ns) const {
    if (write.status != OpStatus::ok || write.completed_ns > cut_ns) return false;
    if (write.fua || !block_.history().write_cache) return true;
    return write.completed_ns < block_.facts().flushed_until_ns[epoch_of(write)];
  }
  size_t epoch_of(const Op& ended) const {
    size_t epoch = 0;
    while (ended.completed_ns > cuts_[epoch].at_ns)
      epoch++;
    return epoch;
  }

  // The durable change that overwrote what was invoked and completed before `ended_ns`, at a cut; nullptr: none.
  const Event* durable_after(int64_t ended_ns, int64_t cut_ns) const {
    for (const Event& event : block_.events()) {
      if (event.is_read() || !durable_before(*event.op, cut_ns)) continue;
      if (ended_ns < event.invoked_ns) return &event;
    }
    return nullptr;
  }

  // It had outlived another power cut.
  const char* lost_rule(const Op& durable, int64_t cut_ns) const {
    return cuts_[epoch_of(durable)].at_ns < cut_ns ? "R6" : "R4";
  }

  // R4 and R5: the first value from before the cut that is read after it fixes what survived.
  std::optional<Violation> survived(const Epoch& epoch, int64_t cut_ns, std::optional<Event>* survivor) const {
    const Event* first = nullptr;
    for (const Event& read : epoch.reads) {
      if (from_inside(epoch, read.value) || read.value.kind == BlockKind::torn) continue;
      if (read.value.kind == BlockKind::zero) {
        // Never written, zeroed, or lost with nothing durable: only a durable write that no zeroing may have undone
        // forbids it.
        if (auto bad = zero_survived(read, cut_ns)) return bad;
        if (first == nullptr) first = &read;
        if (first->value.kind != BlockKind::zero) {
          return block_.violation("R5", first->value.to_string() + " was read after the power cut, then zero",
                                  {first->op, read.op});
        }
        continue;
      }
      const Event* write = block_.write_of(read.value);
      if (write == nullptr) continue;  // what a clone began as
      if (const Event* newer = durable_after(write->completed_ns, cut_ns)) {
        return block_.violation(lost_rule(*newer->op, cut_ns),
                                "a power cut brought back what a flushed write had replaced",
                                {write->op, newer->op, read.op});
      }
      if (first == nullptr) first = &read;
      if (first->value != read.value) {
        return block_.violation(
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
    for (const Event& write : block_.events()) {
      if (write.op->type != OpType::write || !durable_before(*write.op, cut_ns)) continue;
      const bool undone = std::any_of(block_.events().begin(), block_.events().end(), [&](const Event& zero) {
        return zero.op->type == OpType::zero && zero.op->status != OpStatus::fail && zero.invoked_ns < cut_ns &&
               zero.completed_ns >= write.invoked_ns;
      });
      if (undone) continue;
      return block_.violation(lost_rule(*write.op, cut_ns), "a flushed write reads as zero after a power cut",
                              {write.op, read.op});
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
    const Event* write = block_.write_of(read.value);
    const bool inside = from_inside(epoch, read.value);
    const int64_t since = inside ? write->completed_ns : always_ns;
    const Event* newer = change_between(epoch, since, read.invoked_ns);
    if (newer == nullptr) return std::nullopt;
    return block_.violation("R2", "a read returned " + read.value.to_string() + ", which had been overwritten",
                            {write == nullptr ? newer->op : write->op, newer->op, read.op});
  }

  // Some zeroing, or the beginning, must be able to be what the read saw.
  std::optional<Violation> stale_zero(const Epoch& epoch, const Event& read, bool first) const {
    const Event* newer = change_between(epoch, always_ns, read.invoked_ns);
    if (newer == nullptr) return std::nullopt;  // nothing was surely written: the beginning, or a survivor
    for (const Event& zero : epoch.zeroes) {
      if (zero.invoked_ns > read.completed_ns) continue;
      if (change_between(epoch, zero.completed_ns, read.invoked_ns) == nullptr) return std::nullopt;
    }
    return block_.violation(
        "R8", first ? "a written block reads as zero" : "a block written after the power cut reads as zero",
        {newer->op, read.op});
  }

  // R3: Gibbons and Korach's zones, for unique values. Zeroes are not unique; R8 judges them.
  std::optional<Violation> one_order(const Epoch& epoch, const std::optional<Event>& survivor) const {
    std::map<std::pair<uint64_t, uint64_t>, Zone> zones;
    for (const Event& write : epoch.writes) {
      Zone& zone = zones[{write.op->writer, write.op->sequence}];
      zone.write = write.op;
      zone.take(write);
    }
    if (survivor) {
      Zone& zone = zones[{survivor->op->writer, survivor->op->sequence}];
      zone.write = survivor->op;
      Event beginning = *survivor;
      beginning.invoked_ns = beginning.completed_ns = always_ns;
      zone.take(beginning);
    }
    for (const Event& read : epoch.reads) {
      if (read.value.kind != BlockKind::stamp) continue;
      Zone& zone = zones[{read.value.stamp.writer, read.value.stamp.sequence}];
      zone.take(read);
      zone.read = true;
    }
    std::vector<Zone> forward;
    std::vector<Zone> backward;
    for (const auto& [key, zone] : zones) {
      // Of unknown outcome and never seen: it may not have happened.
      if (zone.finish_min == never_ns && !zone.read) continue;
      (zone.forward() ? forward : backward).push_back(zone);
    }
    std::sort(forward.begin(), forward.end(),
              [](const Zone& one, const Zone& other) { return one.begin() < other.begin(); });
    for (size_t i = 1; i < forward.size(); i++) {
      if (forward[i].begin() < forward[i - 1].end()) {
        return block_.violation("R3", "two values were each there before and after the other",
                                proof(forward[i - 1], forward[i]));
      }
    }
    for (const Zone& zone : backward) {
      // Forward zones do not overlap: only the last one that begins before it can be around it.
      const auto after = std::lower_bound(forward.begin(), forward.end(), zone.begin(),
                                          [](const Zone& one, int64_t at_ns) { return one.begin() < at_ns; });
      if (after == forward.begin()) continue;
      const Zone& around = *(after - 1);
      if (around.begin() < zone.begin() && zone.end() < around.end()) {
        return block_.violation("R3", "a value was there before and after a write that lies between",
                                proof(around, zone));
      }
    }
    return std::nullopt;
  }

  static std::vector<const Op*> proof(const Zone& one, const Zone& other) {
    std::vector<const Op*> ops;
    for (const Op* op : {one.write, one.finish_op, one.start_op, other.write, other.finish_op, other.start_op}) {
      if (op != nullptr) ops.push_back(op);
    }
    return ops;
  }

  const Block& block_;
  const std::vector<PowerCut>& cuts_;
};

// A cut may tear a block of a device that does not promise to write whole blocks, until it is written again.
bool may_be_torn(const Block& block, const Event& read) {
  const History& history = block.history();
  if (history.atomic_bytes >= history.block_bytes) return false;
  return std::any_of(history.power_cuts.begin(), history.power_cuts.end(),
                     [&](const PowerCut& cut) { return cut.at_ns <= read.invoked_ns; });
}

}  // namespace

std::optional<Violation> check_shape(const Block& block) {
  for (const Event& read : block.events()) {
    if (!read.is_read()) continue;
    const BlockValue& value = read.value;
    if (value.kind == BlockKind::torn && may_be_torn(block, read)) continue;
    if (value.kind == BlockKind::torn || value.kind == BlockKind::garbage) {
      return block.violation("R0", "a read returned " + value.to_string(), {read.op});
    }
    if (value.kind == BlockKind::zero) continue;
    if (value.stamp.volume != block.history().volume) {
      return block.violation("R1", "bytes of another volume", {read.op});
    }
    if (value.stamp.lba != block.lba()) {
      return block.violation("R1", "bytes of block " + std::to_string(value.stamp.lba), {read.op});
    }
  }
  return std::nullopt;
}

std::optional<Violation> check_provenance(const Block& block) {
  for (const Event& read : block.events()) {
    if (!read.is_read() || read.value.kind != BlockKind::stamp || read.value == block.initial) continue;
    const std::string name = read.value.to_string();
    const Event* write = block.write_of(read.value);
    if (write == nullptr) return block.violation("R1", name + " was never written here", {read.op});
    if (write->op->status == OpStatus::fail) {
      return block.violation("R1", name + " was refused, and yet was read", {write->op, read.op});
    }
    if (write->invoked_ns >= read.completed_ns) {
      return block.violation("R1", name + " was read before it was written", {write->op, read.op});
    }
  }
  return std::nullopt;
}

std::optional<Violation> check_rules(const Block& block) {
  return Rules(block).run();
}

}  // namespace basalt::check
