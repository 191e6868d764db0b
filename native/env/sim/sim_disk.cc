// SPDX-License-Identifier: Apache-2.0
#include "env/sim/sim_disk.h"

#include <algorithm>
#include <cerrno>

#include "base/assert.h"
#include "base/probe.h"

namespace basalt::env {

// ---- faults --------------------------------------------------------------------------------------------------------

void SimDisk::make_unreadable(uint64_t offset_bytes, uint64_t length_bytes) {
  for (uint64_t at = offset_bytes / sector_bytes; at * sector_bytes < offset_bytes + length_bytes; at++)
    unreadable_.insert(at);
}

bool SimDisk::readable(uint64_t offset_bytes, uint64_t length_bytes) const {
  const auto first = unreadable_.lower_bound(offset_bytes / sector_bytes);
  return first == unreadable_.end() || *first * sector_bytes >= offset_bytes + length_bytes;
}

void SimDisk::flip_bit(uint64_t offset_bytes, unsigned bit) {
  for (SimImage* image : {&stable_, &current_}) {
    uint8_t byte = 0;
    image->read(offset_bytes, &byte, 1);
    byte ^= static_cast<uint8_t>(1u << (bit % 8));
    image->write(offset_bytes, &byte, 1);
  }
  silent_fault_count_++;
}

uint64_t SimDisk::elsewhere(uint64_t offset_bytes, uint64_t length_bytes, SimRandom& random) const {
  const uint64_t step = offset_bytes % 4096 == 0 ? 4096 : sector_bytes;
  const uint64_t end = std::min(misdirect_end_byte, size_bytes());
  const uint64_t places = (end - misdirect_first_byte - length_bytes) / step + 1;
  return misdirect_first_byte + random.below(places) * step;
}

bool SimDisk::misdirects(const Change& change, SimRandom& random) {
  const bool inside =
      change.offset_bytes >= misdirect_first_byte && change.offset_bytes + change.length_bytes <= misdirect_end_byte;
  if (!inside || misdirect_count_max == 0 || !random.strikes(misdirect_write_chance)) return false;
  misdirect_count_max--;
  return true;
}

// ---- requests ------------------------------------------------------------------------------------------------------

int SimDisk::carry_out(FileIo& io, uint64_t flush_until, SimRandom& random) {
  if (io.type == FileIo::Type::flush) {
    if (fail_flushes) {
      reach(Mark::fault_disk_failed);
      forget(flush_until);
      return EIO;
    }
    if (!ignore_flushes) flush(flush_until);
    return 0;
  }
  const bool moves = io.type == FileIo::Type::read || io.type == FileIo::Type::write;
  const uint64_t length = moves ? iovec_bytes(io.iov, io.iov_count) : io.length_bytes;
  if (io.offset_bytes + length > size_bytes()) return EIO;
  if (io.type != FileIo::Type::read) {
    if (!fail_writes) return write(io, random);
    reach(Mark::fault_disk_failed);
    change_parts(change_of(io), random.chance(0.5) ? 0 : 50, random);
    return EIO;
  }
  if (fail_reads || !readable(io.offset_bytes, length)) {
    reach(fail_reads ? Mark::fault_disk_failed : Mark::fault_sector_unreadable);
    return EIO;
  }
  if (random.strikes(misdirect_read_chance)) {
    silent_fault_count_++;
    read(io, elsewhere(io.offset_bytes, length, random));
  } else {
    read(io, io.offset_bytes);
  }
  return 0;
}

void SimDisk::read(const FileIo& io, uint64_t offset_bytes) const {
  for (uint32_t i = 0; i < io.iov_count; i++) {
    current_.read(offset_bytes, io.iov[i].base, io.iov[i].length_bytes);
    offset_bytes += io.iov[i].length_bytes;
  }
}

SimDisk::Change SimDisk::change_of(const FileIo& io) {
  Change change{0, io.offset_bytes, io.length_bytes, nullptr, 0};
  if (io.type == FileIo::Type::write) {
    change.length_bytes = iovec_bytes(io.iov, io.iov_count);
    change.data = std::make_shared<std::vector<uint8_t>>(change.length_bytes);
    iovec_copy_out(io.iov, io.iov_count, change.data->data());
  }
  return change;
}

int SimDisk::write(const FileIo& io, SimRandom& random) {
  Change change = change_of(io);
  if (io.type == FileIo::Type::write && space_bytes != UINT64_MAX) {
    const uint64_t missing = current_.missing_pages(change.offset_bytes, change.length_bytes) * SimImage::page_bytes;
    if (missing > 0 && current_.allocated_bytes() + missing > space_bytes) {
      reach(Mark::fault_disk_full);
      return ENOSPC;
    }
  }
  if (random.strikes(lose_write_chance)) {
    silent_fault_count_++;
    reach(Mark::fault_write_lost);
    return 0;
  }
  if (io.type == FileIo::Type::write && misdirects(change, random)) {
    silent_fault_count_++;
    const bool nowhere = random.strikes(misdirect_nowhere_chance);
    reach(nowhere ? Mark::fault_write_lost : Mark::fault_write_elsewhere);
    if (nowhere) return 0;
    change.offset_bytes = elsewhere(change.offset_bytes, change.length_bytes, random);
  }
  this->change(std::move(change), io.fua && io.type == FileIo::Type::write);
  return 0;
}

// To both images when durable; else to the cache.
void SimDisk::change(Change change, bool durable) {
  const uint64_t end = change.offset_bytes + change.length_bytes;
  if (!unreadable_.empty()) {
    unreadable_.erase(unreadable_.lower_bound((change.offset_bytes + sector_bytes - 1) / sector_bytes),
                      unreadable_.lower_bound(end / sector_bytes));
  }
  apply(current_, change, change.offset_bytes, end);
  if (durable) {
    // What these bytes held before in the cache must not come back.
    trim(change.offset_bytes, end, false);
    apply(stable_, change, change.offset_bytes, end);
    return;
  }
  change.sequence = sequence_++;
  unflushed_.push_back(std::move(change));
}

void SimDisk::apply(SimImage& image, const Change& change, uint64_t from, uint64_t to) {
  if (from >= to) return;
  if (change.data == nullptr) {
    image.zero(from, to - from);
  } else {
    image.write(from, change.data->data() + change.data_at + (from - change.offset_bytes), to - from);
  }
}

// Takes [from, to) out of the unflushed changes.
void SimDisk::trim(uint64_t from, uint64_t to, bool only_forgotten) {
  for (size_t i = 0; i < unflushed_.size();) {
    Change& change = unflushed_[i];
    const uint64_t end = change.offset_bytes + change.length_bytes;
    if ((only_forgotten && !change.forgotten) || end <= from || change.offset_bytes >= to) {
      i++;
      continue;
    }
    Change rest = change;
    if (end > to) {
      const uint64_t cut = to - change.offset_bytes;
      rest.offset_bytes += cut;
      rest.data_at += cut;
      rest.length_bytes -= cut;
    }
    if (change.offset_bytes < from) {
      change.length_bytes = from - change.offset_bytes;
      i++;
      if (end > to) {
        unflushed_.insert(unflushed_.begin() + static_cast<ptrdiff_t>(i), std::move(rest));
        i++;
      }
    } else if (end > to) {
      change = std::move(rest);
      i++;
    } else {
      unflushed_.erase(unflushed_.begin() + static_cast<ptrdiff_t>(i));
    }
  }
}

void SimDisk::flush(uint64_t until) {
  const bool forgotten =
      std::any_of(unflushed_.begin(), unflushed_.end(), [](const Change& change) { return change.forgotten; });
  if (until == sequence_ && !forgotten) {
    stable_ = current_;
    unflushed_.clear();
    return;
  }
  std::deque<Change> flushed;
  std::deque<Change> left;
  for (Change& change : unflushed_)
    (change.sequence < until && !change.forgotten ? flushed : left).push_back(std::move(change));
  unflushed_ = std::move(left);
  for (const Change& change : flushed) {
    const uint64_t end = change.offset_bytes + change.length_bytes;
    apply(stable_, change, change.offset_bytes, end);
    if (forgotten) trim(change.offset_bytes, end, true);
  }
}

void SimDisk::forget(uint64_t until) {
  for (Change& change : unflushed_)
    change.forgotten |= change.sequence < until;
}

// ---- crashes -------------------------------------------------------------------------------------------------------

// Each atomic unit of the change is there or not.
bool SimDisk::tear(SimImage& image, const Change& change, unsigned keep_percent, double shorn,
                   SimRandom& random) const {
  const uint64_t end = change.offset_bytes + change.length_bytes;
  bool kept = false;
  bool lost = false;
  for (uint64_t at = change.offset_bytes; at < end;) {
    const uint64_t next = std::min<uint64_t>(end, (at / atomic_bytes + 1) * atomic_bytes);
    if (random.strikes(shorn)) {
      kept = lost = true;
      for (; at < next; at += sizeof(uint64_t)) {
        const uint64_t garbage = random.next();
        image.write(at, &garbage, std::min<uint64_t>(sizeof(garbage), next - at));
      }
    } else if (random.below(100) < keep_percent) {
      apply(image, change, at, next);
      kept = true;
    } else {
      lost = true;
    }
    at = next;
  }
  if (kept && lost) reach(Mark::fault_write_torn);
  return !lost;
}

void SimDisk::tear_in_flight(SimImage& image, unsigned keep_percent, double shorn, SimRandom& random) const {
  for (const FileIo* io : in_flight_) {
    const bool changes = io->type == FileIo::Type::write || io->type == FileIo::Type::zero;
    if (!changes || fail_writes) continue;
    const Change change = change_of(*io);
    if (change.offset_bytes + change.length_bytes > size_bytes()) continue;
    (void)tear(image, change, keep_percent, change.data == nullptr ? 0 : shorn, random);
  }
}

SimImage SimDisk::after_kill(SimRandom& random) const {
  static constexpr unsigned keeps[] = {0, 100, 50};
  SimImage image = current_;
  tear_in_flight(image, keeps[random.below(3)], 0, random);
  return image;
}

SimImage SimDisk::after_power_cut(SimRandom& random, unsigned keep_percent) const {
  SimImage image = stable_;
  for (const Change& change : unflushed_) {
    if (!tear(image, change, keep_percent, 0, random)) reach(Mark::fault_cache_lost);
  }
  tear_in_flight(image, keep_percent, shorn_chance, random);
  return image;
}

SimImage SimDisk::after_prefix(size_t count) const {
  SimImage image = stable_;
  for (size_t i = 0; i < std::min(count, unflushed_.size()); i++)
    apply(image, unflushed_[i], unflushed_[i].offset_bytes, unflushed_[i].offset_bytes + unflushed_[i].length_bytes);
  return image;
}

void SimDisk::load(const SimImage& image) {
  BASALT_ASSERT(in_flight_.empty());
  stable_ = current_ = image;
  unflushed_.clear();
}

void SimDisk::crash(SimRandom& random) {
  static constexpr unsigned keeps[] = {0, 100, 50};
  for (const FileIo* io : std::exchange(in_flight_, {})) {
    const bool changes = io->type == FileIo::Type::write || io->type == FileIo::Type::zero;
    if (!changes || fail_writes) continue;
    Change whole = change_of(*io);
    if (whole.offset_bytes + whole.length_bytes <= size_bytes()) change_parts(whole, keeps[random.below(3)], random);
  }
  open_ = false;
}

// Each atomic unit of a change that nobody was told of happens or does not.
void SimDisk::change_parts(const Change& whole, unsigned keep_percent, SimRandom& random) {
  const uint64_t end = whole.offset_bytes + whole.length_bytes;
  uint64_t kept_bytes = 0;
  for (uint64_t at = whole.offset_bytes; at < end;) {
    const uint64_t next = std::min<uint64_t>(end, (at / atomic_bytes + 1) * atomic_bytes);
    if (random.below(100) < keep_percent) {
      Change part = whole;
      part.data_at = at - whole.offset_bytes;
      part.offset_bytes = at;
      part.length_bytes = next - at;
      change(std::move(part), false);
      kept_bytes += next - at;
    }
    at = next;
  }
  if (kept_bytes > 0 && kept_bytes < whole.length_bytes) reach(Mark::fault_write_torn);
}

void SimDisk::power_cut(SimRandom& random) {
  static constexpr unsigned keeps[] = {0, 10, 50, 90, 100};
  stable_ = current_ = after_power_cut(random, keeps[random.below(5)]);
  in_flight_.clear();
  unflushed_.clear();
  open_ = false;
}

}  // namespace basalt::env
