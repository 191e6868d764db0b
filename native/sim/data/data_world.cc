// SPDX-License-Identifier: Apache-2.0
#include "sim/data/data_world.h"

#include <algorithm>

#include "bdev/handle.h"

namespace basalt::sim {
namespace {

constexpr size_t volume_count_max = 7;
constexpr char only_volume[] = "top";

}  // namespace

std::string DataMix::to_string() const {
  std::string text;
  const auto add = [&](const char* name, uint32_t weight) {
    if (weight > 0) text += std::string(text.empty() ? "" : " ") + name;
  };
  add("write", write);
  add("read", read);
  add("unmap", unmap);
  add("write-zeroes", write_zeroes);
  add("flush", flush);
  add("attribute", attribute);
  add("create", create);
  add("delete", remove);
  add("snapshot", snapshot);
  add("fold", fold);
  if (overlapping) text += " overlapping";
  return text;
}

DataMix random_data_mix(env::SimRandom& random) {
  DataMix mix;
  for (uint32_t* weight :
       {&mix.read, &mix.unmap, &mix.write_zeroes, &mix.flush, &mix.attribute, &mix.remove, &mix.snapshot, &mix.fold})
    *weight = random.chance(0.3) ? 0 : static_cast<uint32_t>(1 + random.below(2 * *weight));
  mix.fua_chance = random.chance(0.5) ? 0 : 0.3;
  mix.long_blocks_max = random.chance(0.3) ? 4 : 48;
  mix.overlapping = random.chance(0.3);
  return mix;
}

DataWorld::DataWorld(env::SimRandom& random, const StackPlan& plan, const DataMix& mix, bool shorn)
    : random_(random),
      pool_(plan.pool),
      checksums_(plan.pool_checksums),
      mirrored_(!legs_of(plan.top).empty()),
      mix_(mix),
      shorn_(shorn) {
  if (pool_) return;
  Volume& volume = volumes_.emplace(only_volume, Volume(next_number_++, shorn_)).first->second;
  volume.life = Life::live;
}

void DataWorld::attach(Stack& stack) {
  stack_ = &stack;
  crashed_ = failures_expected_ = garbage_seen_ = false;
  for (auto& [name, volume] : volumes_) {
    volume.bdev = pool_ ? stack.pool()->find(name) : &stack.top();
    volume.io_count = 0;
    std::fill(volume.changing.begin(), volume.changing.end(), 0);
  }
}

void DataWorld::note(uint64_t what) {
  digest_ = (digest_ ^ what) * 0x100000001b3;
  digest_ ^= digest_ >> 31;
}

void DataWorld::violated(const std::string& what) {
  if (violation_.empty()) violation_ = what;
}

// ---- work ----------------------------------------------------------------------------------------------------------

DataWorld::Volume* DataWorld::pick(std::string* name) {
  std::vector<std::string> live;
  for (const auto& [each, volume] : volumes_) {
    if (volume.life == Life::live) live.push_back(each);
  }
  if (live.empty()) return nullptr;
  *name = live[random_.below(live.size())];
  return &volumes_.at(*name);
}

void DataWorld::step() {
  std::string name;
  Volume* volume = pick(&name);
  if (pool_ && (volume == nullptr || (volumes_.size() < volume_count_max && random_.below(30) < mix_.create))) {
    return spawn(create());
  }
  const uint32_t weights[] = {mix_.write,     mix_.read,   mix_.unmap,    mix_.write_zeroes, mix_.flush,
                              mix_.attribute, mix_.remove, mix_.snapshot, mix_.fold};
  uint32_t total = 0;
  for (const uint32_t weight : weights)
    total += weight;
  uint64_t dice = random_.below(total);
  size_t kind = 0;
  while (dice >= weights[kind])
    dice -= weights[kind++];
  const uint64_t first = random_.below(volume_blocks);
  const uint64_t longest = random_.chance(0.3) ? mix_.long_blocks_max : 4;
  const auto count = static_cast<uint32_t>(std::min(volume_blocks - first, 1 + random_.below(longest)));
  const bool fua = random_.chance(mix_.fua_chance);
  op_count_++;
  switch (kind) {
    case 0:
      return spawn(change(name, bdev::IoType::write, first, count, fua));
    case 1:
      return spawn(read(name, first, count));
    case 2:
      return spawn(change(name, bdev::IoType::unmap, first, count, fua));
    case 3:
      return spawn(change(name, bdev::IoType::write_zeroes, first, count, fua));
    case 4:
      return spawn(flush(name));
    case 5:
      if (pool_) spawn(set_attribute(name));
      return;
    // Rarely, so that volumes have a past.
    case 6:
      if (pool_ && random_.below(4) == 0) spawn(remove(name));
      return;
    case 7:
      if (pool_ && volumes_.size() < volume_count_max) spawn(copy(name, random_.chance(0.5)));
      return;
    default:
      if (pool_) spawn(fold(name, random_.chance(0.5)));
  }
}

Task<void> DataWorld::change(std::string name, bdev::IoType type, uint64_t first, uint32_t count, bool fua) {
  Volume& volume = volumes_.at(name);
  if (volume.immutable) co_return;
  for (uint64_t b = first; b < first + count; b++) {
    if (volume.changing[b] > 0 && !mix_.overlapping) co_return;
  }
  const bool writes = type == bdev::IoType::write;
  const uint64_t sequence = writes ? next_sequence_++ : 0;
  std::vector<uint8_t> data(writes ? size_t{count} * oracle_block_bytes : 0);
  if (writes) fill_tagged(data.data(), volume.oracle.volume(), first, count, sequence);
  // In uneven pieces.
  Iovec pieces[2] = {{data.data(), data.size() / 3}, {data.data() + data.size() / 3, data.size() - data.size() / 3}};
  bdev::Io io;
  io.type = type;
  io.fua = fua;
  io.offset_blocks = first;
  io.count_blocks = count;
  io.iov = pieces;
  io.iov_count = writes ? 2 : 0;
  for (uint64_t b = first; b < first + count; b++)
    volume.changing[b]++;
  volume.io_count++;
  active_count_++;
  const auto id = volume.oracle.change_begins(first, count, sequence);
  const bdev::Handle handle(*volume.bdev, stack_->reactor());
  const nvme::Status status = co_await bdev::io_wait(handle, io);
  active_count_--;
  if (crashed_) co_return;
  note(id << 16 ^ status.value);
  volume.io_count--;
  for (uint64_t b = first; b < first + count; b++)
    volume.changing[b]--;
  using Ending = BlockOracle::Ending;
  if (status.ok()) {
    volume.oracle.change_ends(id, first, count, fua ? Ending::forced : Ending::done);
  } else if (status.is(nvme::status::capacity_exceeded) && !failures_expected_) {
    volume.oracle.change_ends(id, first, count, Ending::refused);
  } else if (failures_expected_) {
    volume.oracle.change_ends(id, first, count, Ending::unknown);
  } else {
    violated("a change failed: " + nvme::to_string(status));
  }
}

Task<void> DataWorld::read(std::string name, uint64_t first, uint32_t count) {
  Volume& volume = volumes_.at(name);
  std::vector<uint8_t> data(size_t{count} * oracle_block_bytes, 0xee);
  Iovec piece{data.data(), data.size()};
  bdev::Io io;
  io.type = bdev::IoType::read;
  io.offset_blocks = first;
  io.count_blocks = count;
  io.iov = &piece;
  io.iov_count = 1;
  volume.io_count++;
  active_count_++;
  const uint64_t begun = volume.oracle.read_begins();
  const bdev::Handle handle(*volume.bdev, stack_->reactor());
  const nvme::Status status = co_await bdev::io_wait(handle, io);
  active_count_--;
  if (crashed_) co_return;
  note(begun << 16 ^ status.value);
  volume.io_count--;
  if (!status.ok() && failures_expected_) co_return volume.oracle.read_ends(begun);
  if (!status.ok()) co_return violated("a read failed: " + nvme::to_string(status));
  const auto wrong = volume.oracle.judge_read(begun, first, data.data(), count);
  volume.oracle.read_ends(begun);
  if (wrong) violated("a read returned what cannot be there: " + *wrong);
}

Task<void> DataWorld::flush(std::string name) {
  Volume& volume = volumes_.at(name);
  bdev::Io io;
  io.type = bdev::IoType::flush;
  volume.io_count++;
  active_count_++;
  const uint64_t begun = volume.oracle.flush_begins();
  const bdev::Handle handle(*volume.bdev, stack_->reactor());
  const nvme::Status status = co_await bdev::io_wait(handle, io);
  active_count_--;
  if (crashed_) co_return;
  note(begun << 16 ^ status.value);
  volume.io_count--;
  if (!status.ok() && failures_expected_) co_return;
  if (!status.ok()) co_return violated("a flush failed: " + nvme::to_string(status));
  volume.oracle.flush_ends(begun);
}

Task<void> DataWorld::set_attribute(std::string name) {
  Volume& volume = volumes_.at(name);
  if (volume.attributes.size() > 1 || volume.immutable) co_return;
  std::string value = std::to_string(next_sequence_++) + std::string(random_.below(900), 'x');
  volume.attributes.push_back(value);
  volume.io_count++;
  active_count_++;
  auto setting = volume.bdev->set_attribute(std::move(value));
  const Outcome outcome = co_await setting;
  active_count_--;
  if (crashed_) co_return;
  volume.io_count--;
  if (!outcome && failures_expected_) co_return;  // the old one or the new one
  if (!outcome) co_return violated("an attribute could not be set: " + outcome.error().message);
  volume.attributes.erase(volume.attributes.begin());
}

Task<void> DataWorld::create() {
  const uint64_t number = next_number_++;
  const std::string name = "v" + std::to_string(number);
  Volume& volume = volumes_.emplace(name, Volume(number, shorn_)).first->second;
  active_count_++;
  bdev::LvolOptions options;
  options.name = name;
  options.size_bytes = volume_blocks * oracle_block_bytes;
  options.checksums = checksums_ && number % 2 == 0;
  auto creating = stack_->pool()->create_lvol(std::move(options));
  auto made = co_await creating;
  active_count_--;
  if (crashed_) co_return;
  note(number);
  if (!made && failures_expected_) co_return;  // it may be there
  if (!made && made.error().code == Errc::no_space) {
    volumes_.erase(name);
    co_return;
  }
  if (!made) co_return violated("a volume could not be created: " + made.error().message);
  volume.bdev = made.value();
  volume.life = Life::live;
}

Task<void> DataWorld::remove(std::string name) {
  Volume& volume = volumes_.at(name);
  if (volume.io_count > 0) co_return;
  volume.life = Life::deleting;
  active_count_++;
  auto deleting = stack_->pool()->delete_lvol(name);
  const Outcome outcome = co_await deleting;
  active_count_--;
  if (crashed_) co_return;
  if (!outcome && failures_expected_) co_return;
  if (!outcome) co_return violated("a volume could not be deleted: " + outcome.error().message);
  volumes_.erase(name);
}

// A snapshot of it, or a clone.
Task<void> DataWorld::copy(std::string origin, bool snapshot) {
  Volume& source = volumes_.at(origin);
  if (snapshot && source.immutable) co_return;
  const uint64_t number = next_number_++;
  const std::string name = (snapshot ? "s" : "c") + std::to_string(number);
  Volume& volume = volumes_.emplace(name, Volume(number, shorn_)).first->second;
  volume.immutable = snapshot;
  volume.origin = origin;
  volume.copying_since = source.oracle.read_begins();
  // A snapshot keeps the attribute that the volume had; a clone has none.
  if (snapshot) volume.attributes = source.attributes;
  source.io_count++;
  active_count_++;
  bdev::LvolOptions options;
  options.name = name;
  auto copying = snapshot ? stack_->pool()->snapshot_lvol(origin, std::move(options))
                          : stack_->pool()->clone_lvol(origin, std::move(options));
  auto made = co_await copying;
  active_count_--;
  if (crashed_) co_return;
  note(number);
  // It may have been made: as if it still were on its way.
  if (!made && failures_expected_) co_return;
  source.io_count--;
  volume.oracle = source.oracle.copied(volume.copying_since, number);
  source.oracle.read_ends(volume.copying_since);
  volume.origin.clear();
  if (snapshot) volume.attributes.insert(volume.attributes.end(), source.attributes.begin(), source.attributes.end());
  if (made.ok()) {
    volume.bdev = made.value();
    volume.life = Life::live;
    co_return;
  }
  volumes_.erase(name);
  if (made.error().code != Errc::no_space) violated("a copy of a volume could not be made: " + made.error().message);
}

// Changes nothing that can be seen.
Task<void> DataWorld::fold(std::string name, bool inflate) {
  Volume& volume = volumes_.at(name);
  if (volume.immutable) co_return;
  volume.io_count++;
  active_count_++;
  auto folding = inflate ? stack_->pool()->inflate_lvol(name) : stack_->pool()->decouple_lvol(name);
  const Outcome folded = co_await folding;
  active_count_--;
  if (crashed_) co_return;
  volume.io_count--;
  if (!folded && failures_expected_) co_return;
  if (!folded && folded.error().code != Errc::no_space)
    violated("a volume could not be folded: " + folded.error().message);
}

// ---- after a crash -------------------------------------------------------------------------------------------------

std::string DataWorld::judge(Stack& stack, CrashRule rule, bool adopt) {
  garbage_seen_ = false;
  const auto find = [&](const std::string& name) -> bdev::Bdev* {
    return pool_ ? stack.pool()->find(name) : &stack.top();
  };
  for (auto& [name, volume] : volumes_) {
    bdev::Bdev* bdev = find(name);
    if (bdev == nullptr) {
      if (volume.life == Life::live) return "volume " + name + " is gone";
      continue;
    }
    // It was being copied when the crash came.
    std::optional<BlockOracle> copied;
    if (!volume.origin.empty()) {
      copied = volumes_.at(volume.origin).oracle.copied(volume.copying_since, volume.oracle.volume());
    }
    const BlockOracle& oracle = copied ? *copied : volume.oracle;
    if (std::string wrong = judge_volume(stack, *bdev, volume, oracle, rule); !wrong.empty())
      return name + ": " + wrong;
    if (adopt && copied && !garbage_seen_) volume.oracle = *copied;
  }
  for (bdev::Lvol* lvol : pool_ ? stack.pool()->list() : std::vector<bdev::Lvol*>()) {
    if (!volumes_.contains(lvol->name())) return "volume " + lvol->name() + " should not be there";
  }
  if (!adopt || garbage_seen_) return "";
  std::erase_if(volumes_, [&](const auto& entry) { return find(entry.first) == nullptr; });
  for (auto& [name, volume] : volumes_) {
    volume.attributes = {find(name)->attribute()};
    volume.oracle.forget_history();
    volume.oracle.adopt(0, volume.seen.data(), volume_blocks);
    volume.life = Life::live;
    volume.origin.clear();
  }
  return "";
}

std::string DataWorld::judge_volume(Stack& stack, bdev::Bdev& bdev, Volume& volume, const BlockOracle& oracle,
                                    CrashRule rule) {
  const std::string attribute = bdev.attribute();
  const auto known = [&](const Volume& one) {
    return std::find(one.attributes.begin(), one.attributes.end(), attribute) != one.attributes.end();
  };
  const bool copying = volume.immutable && !volume.origin.empty();
  if (!known(volume) && !(copying && known(volumes_.at(volume.origin)))) {
    return "its attribute is " + attribute.substr(0, 24);
  }
  struct Reading {
    static Task<nvme::Status> run(bdev::Handle handle, uint64_t first, uint8_t* data) {
      Iovec piece{data, judge_bytes};
      bdev::Io io;
      io.type = bdev::IoType::read;
      io.offset_blocks = first;
      io.count_blocks = judge_blocks;
      io.iov = &piece;
      io.iov_count = 1;
      co_return co_await bdev::io_wait(handle, io);
    }
  };
  static_assert(volume_blocks % judge_blocks == 0);
  volume.seen.resize(volume_blocks * oracle_block_bytes);
  // Mirrors are asked twice, so that every member speaks.
  for (int pass = 0; pass < (mirrored_ ? 2 : 1); pass++) {
    for (uint64_t first = 0; first < volume_blocks; first += judge_blocks) {
      std::vector<uint8_t>& data = scratch_;
      std::fill(data.begin(), data.end(), 0xee);
      const nvme::Status status = *stack.run(Reading::run(bdev::Handle(bdev, stack.reactor()), first, data.data()));
      if (!status.ok()) return "block " + std::to_string(first) + ": " + nvme::to_string(status);
      uint8_t* seen = volume.seen.data() + first * oracle_block_bytes;
      if (pass > 0 && !std::equal(data.begin(), data.end(), seen)) {
        return "blocks from " + std::to_string(first) + " were read twice and differ";
      }
      std::copy(data.begin(), data.end(), seen);
      if (pass > 0) continue;
      auto wrong = oracle.judge_crash(rule, first, data.data(), judge_blocks);
      if (!wrong) continue;
      for (uint32_t i = 0; i < judge_blocks; i++) {
        if (stack.may_lack(first + i) && oracle.unsettled(rule, first + i)) continue;
        wrong = oracle.judge_crash(rule, first + i, data.data() + size_t{i} * oracle_block_bytes, 1);
        if (wrong) return *wrong;
      }
      garbage_seen_ = true;
    }
  }
  return "";
}

}  // namespace basalt::sim
