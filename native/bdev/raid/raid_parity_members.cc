// SPDX-License-Identifier: Apache-2.0
// Members that fail and come back: rebuild, and resync after an unclean end.
#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "bdev/raid/raid_parity.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {

void RaidParityBdev::member_failed(uint32_t member, nvme::Status status) {
  const uint32_t bit = 1u << member;
  if ((failed_ & bit) != 0 || ((in_sync_ | joining_) & bit) == 0) return;
  failed_ |= bit;
  note_failed(member);
  const std::string name = members_[member].info().name;
  if ((in_sync_ & bit) != 0) {
    if (events_.member_failed) events_.member_failed(name, nvme::to_string(status));
  } else if (events_.rebuild_failed) {
    events_.rebuild_failed(name, nvme::to_string(status));
  }
  kick_keeper();
}

void RaidParityBdev::member_lost(const std::string& name) {
  for (uint32_t member = 0; member < seat_count(); member++) {
    if (members_[member] && members_[member].info().name == name) {
      member_failed(member, nvme::status::controller_path_error);
    }
  }
}

Outcome RaidParityBdev::replace_member(uint32_t index, Handle device) {
  if (index >= member_count()) {
    return Error{Errc::invalid_argument, "member: 0 to " + std::to_string(member_count() - 1)};
  }
  const uint32_t seat = seats_.seat_of(index);
  if (((in_sync_ | joining_ | failed_) >> seat & 1) != 0) {
    return Error{Errc::busy,
                 "member " + std::to_string(index) + " of " + info_.name + " is " + to_string(member(seat).state)};
  }
  auto checked = check_device(device);
  if (!checked) return checked;
  if (!gate_.enter()) return Error{Errc::closed, info_.name + " is closing"};
  begin_rebuild(seat, device);
  return success();
}

// Whether it can become a member.
Outcome RaidParityBdev::check_device(const Handle& device) const {
  if (offline_ || closing_) return Error{Errc::closed, info_.name + " is offline"};
  const BdevInfo& info = device.info();
  if (info.block_size_bytes != layout_.block_bytes) {
    return Error{Errc::invalid_argument, "base_bdev: " + info.name + " has another block size"};
  }
  const uint64_t needed = layout_.first_block + layout_.strip_count * layout_.strip_blocks;
  if (info.count_blocks < needed) {
    return Error{Errc::invalid_argument, "base_bdev: " + info.name + " has " + std::to_string(info.count_blocks) +
                                             " blocks; " + std::to_string(needed) + " are needed"};
  }
  for (const Handle& other : members_) {
    if (other && &other.bdev() == &device.bdev()) return Error{Errc::exists, info.name + " is a member already"};
  }
  return success();
}

Task<Outcome> RaidParityBdev::add_member(Handle device) {
  auto found = co_await raid_open::read_superblock(device);
  uint32_t place = free_place();
  if (found) {
    const uint32_t seat = found->member < member_count() ? seats_.seat_of(found->member) : seats_.spare();
    const bool is_free = ((in_sync_ | joining_ | failed_) >> seat & 1) == 0;
    if (is_free && (counted_ >> seat & 1) != 0 && is_who_left(seat, *found)) place = found->member;
  }
  if (place == member_count()) co_return Error{Errc::busy, info_.name + " has all its members"};
  co_return replace_member(place, device);
}

Task<void> RaidParityBdev::drained() {
  if (!gate_.enter()) co_return;
  Gate::Leaver leaver(gate_);
  co_await phases_.drained();
}

void RaidParityBdev::begin_rebuild(uint32_t member, Handle device) {
  members_[member] = device;
  joining_ |= 1u << member;
  if (driven_) arriving_ |= 1u << member;
  delta_ &= ~(1u << member);
  rebuilt_blocks_[member] = 0;
  to_rebuild_blocks_[member] = layout_.strip_count * layout_.strip_blocks;
  attachments_[member]++;
  spawn(rebuild(member));
}

bool RaidParityBdev::rebuild_goes_on(const Rebuild& rebuild) const {
  return !closing_ && !offline_ && ((joining_ & ~failed_) >> rebuild.member & 1) != 0 &&
         attachments_[rebuild.member] == rebuild.attachment;
}

// Band by band, some of them at once, in no order that anybody counts on: writes have gone to the new member as well
// since it came, and records since its log is blank. The writes that it has no record of end before their range is
// rebuilt, since both lock it. Where only what is marked is rebuilt, that holds as well: what was begun while the
// member was away is marked by now (raid_parity_marks.cc).
Task<void> RaidParityBdev::rebuild(uint32_t member) {
  const uint32_t bit = 1u << member;
  const Bdev* device = &members_[member].bdev();
  arriving_from_.push_back(device);
  Rebuild rebuild{member, attachments_[member], {}};
  bool arrived = true;
  if (driven_) arrived = co_await arrive(rebuild);
  if (!driven_) {
    co_await recognize(rebuild);
    begin_counting(rebuild);
  }
  bool blank = arrived && bugs_.keep_old_records;
  if (arrived && !blank && rebuild_goes_on(rebuild)) blank = co_await blank_log(member);
  std::erase(arriving_from_, device);
  if (blank && rebuild_goes_on(rebuild)) {
    if (!bugs_.no_record_for_joining) logging_ |= bit;
    if (rebuild.left) {
      rebuild.left = marks_;
      to_rebuild_blocks_[member] = marks_.count_blocks() * layout_.strip_blocks;
    }
    if (driven_ && events_.rebuild_progress) events_.rebuild_progress(members_[member].info().name, 0);
    const bool early = bugs_.twin_before_equal && member == seats_.spare();
    for (uint32_t i = 0; i < rebuild_worker_count() && !early; i++) {
      rebuild.countdown.add();
      spawn(rebuild_bands(rebuild));
    }
    co_await rebuild.countdown;
  }
  if (blank && rebuild_goes_on(rebuild)) {
    want_join_ |= bit;
    kick_keeper();
  }
  gate_.leave();
}

// As many bands as disks need to be busy while others of them are on their way.
uint32_t RaidParityBdev::rebuild_worker_count() const {
  constexpr uint32_t under_way_bytes = 512 * 1024;
  constexpr uint32_t worker_count_min = 4;
  constexpr uint32_t worker_count_max = 16;
  const uint32_t band_bytes = columns_max_ * layout_.block_bytes;
  return std::clamp(under_way_bytes / band_bytes, worker_count_min, worker_count_max);
}

Task<void> RaidParityBdev::rebuild_bands(Rebuild& rebuild) {
  const auto goes_on = [this, &rebuild] { return rebuild_goes_on(rebuild); };
  Workspace workspace(layout_, columns_max_);
  ParityBand band;
  while (goes_on() && next_band(rebuild, &band)) {
    co_await resync_pace_.keep(uint64_t{band.column_count} * layout_.block_bytes, goes_on);
    if (!goes_on()) break;
    const nvme::Status status = co_await rebuild_band(rebuild, band, workspace);
    if (!goes_on()) break;
    if (!status.ok()) {
      member_failed(rebuild.member, status);
      break;
    }
    band_rebuilt(rebuild, band);
  }
  rebuild.countdown.done();
}

// What it has already counts as rebuilt.
void RaidParityBdev::begin_counting(Rebuild& rebuild) {
  uint64_t had_strips = 0;
  rebuild.bands_left.resize(missed_.region_count());
  for (uint32_t region = 0; region < missed_.region_count(); region++) {
    rebuild.bands_left[region] = missed_.stripes_of(region) * strip_bands();
    if (!missed_.lacked_by(rebuild.member).test(region)) had_strips += missed_.stripes_of(region);
  }
  if (rebuild_goes_on(rebuild)) rebuilt_blocks_[rebuild.member] = had_strips * layout_.strip_blocks;
  rebuild.told_percent = had_strips * 100 / layout_.strip_count / 10 * 10;
}

// The next one that the member lacks and nobody has begun with; false: there is none.
bool RaidParityBdev::next_band(Rebuild& rebuild, ParityBand* band) const {
  const uint64_t band_count = layout_.strip_count * strip_bands();
  while (rebuild.next_band < band_count) {
    const uint64_t next = rebuild.next_band++;
    band->stripe = next / strip_bands();
    if (rebuild.left && !rebuild.left->has(rebuild.left->region_of(band->stripe))) {
      const uint64_t region = rebuild.left->next(rebuild.left->region_of(band->stripe));
      const bool more = region < rebuild.left->region_count();
      rebuild.next_band = more ? rebuild.left->first_block(region) * strip_bands() : band_count;
      continue;
    }
    if (!driven_ && !missed_.lacks(rebuild.member, band->stripe)) {
      const uint32_t region = missed_.region_of(band->stripe);
      rebuild.next_band = (missed_.first_stripe(region) + missed_.stripes_of(region)) * strip_bands();
      continue;
    }
    band->column = static_cast<uint32_t>(next % strip_bands()) * columns_max_;
    band->column_count = std::min(columns_max_, layout_.strip_blocks - band->column);
    return true;
  }
  return false;
}

void RaidParityBdev::band_rebuilt(Rebuild& rebuild, const ParityBand& band) {
  const uint64_t member_blocks = to_rebuild_blocks_[rebuild.member];
  rebuilt_blocks_[rebuild.member] += band.column_count;
  if (!driven_) region_rebuilt(rebuild, band);
  const uint64_t percent = rebuilt_blocks_[rebuild.member] * 100 / member_blocks;
  if (percent < rebuild.told_percent + 10) return;
  rebuild.told_percent = percent;
  if (events_.rebuild_progress) events_.rebuild_progress(members_[rebuild.member].info().name, percent);
}

void RaidParityBdev::region_rebuilt(Rebuild& rebuild, const ParityBand& band) {
  const uint64_t member_blocks = to_rebuild_blocks_[rebuild.member];
  const uint32_t region = missed_.region_of(band.stripe);
  rebuild.unswept_blocks += band.column_count;
  if (--rebuild.bands_left[region] == 0) {
    missed_.has_now(rebuild.member, region);
    // Durably, now and then.
    constexpr uint64_t swept_bytes = uint64_t{64} << 20;
    if (missed_.lacked_by(rebuild.member).any() &&
        rebuild.unswept_blocks >= std::min(swept_bytes / layout_.block_bytes, member_blocks / 32)) {
      rebuild.unswept_blocks = 0;
      want_sweep_ = !driven_;
      kick_keeper();
    }
  }
}

Task<nvme::Status> RaidParityBdev::rebuild_band(const Rebuild& rebuild, ParityBand band, Workspace& workspace) {
  const uint32_t member = rebuild.member;
  RangeEntry range;
  range.first_block = layout_.member_block(band.stripe, band.column);
  range.end_block = range.first_block + band.column_count;
  RangeHeld held(*this, range);
  co_await held;
  const uint32_t role = role_of(band.stripe, member);
  uint32_t unreadable = 0;
  nvme::Status result = nvme::status::unrecovered_read_error;
  for (;;) {
    const uint32_t present = roles_of(band.stripe, in_sync_ & ~failed_) & ~unreadable;
    // The one whose place it is to have holds the same.
    const bool copied = (present >> role & 1) != 0;
    const ParityCodec::Recovery* recovery = copied ? nullptr : recovery_for(present, 1u << role);
    if (!copied && recovery == nullptr) break;
    const auto itself = static_cast<uint8_t>(role);
    const std::span<const uint8_t> sources = copied ? std::span(&itself, 1) : recovery->sources();
    Fan reads(member_count(), &phases_);
    uint32_t asked[ParityCodec::data_count_max];
    uint32_t attached[ParityCodec::data_count_max];
    for (const uint8_t source : sources) {
      asked[reads.count()] = member_of(band.stripe, source);
      attached[reads.count()] = attachments_[asked[reads.count()]];
      reads.add(members_[asked[reads.count()]], IoType::read, range.first_block, band.column_count,
                workspace.strip(source));
    }
    co_await reads;
    uint8_t* from[ParityCodec::data_count_max];
    bool all = true;
    for (size_t i = 0; i < reads.count(); i++) {
      const uint32_t source = sources[i];
      from[i] = workspace.strip(source);
      if (reads.status(i).ok()) continue;
      const bool same = attachments_[asked[i]] == attached[i];
      if (same && raid_member_failed(reads.status(i))) member_failed(asked[i], reads.status(i));
      unreadable |= 1u << source;
      all = false;
    }
    if (!all) continue;
    uint8_t* to[1] = {workspace.strip(role)};
    if (!copied) recovery->run(size_t{band.column_count} * layout_.block_bytes, from, to);
    if (!rebuild_goes_on(rebuild)) break;
    Fan write(1, &phases_);
    // What was never written, or was given back, takes no space here either.
    const bool zeroes = members_[member].info().io_types.has(IoType::write_zeroes) &&
                        all_zero(to[0], size_t{band.column_count} * layout_.block_bytes);
    write.add(members_[member], zeroes ? IoType::write_zeroes : IoType::write, range.first_block, band.column_count,
              zeroes ? nullptr : to[0]);
    co_await write;
    result = write.status(0);
    break;
  }
  locks_.release(&range);
  co_return result;
}

// Parity from `stripe` on may be wrong: it is made right again in the background.
void RaidParityBdev::suspect_from(uint64_t stripe) {
  resync_stripe_ = std::min(resync_stripe_, stripe);
  resync_next_ = std::min(resync_next_, stripe);
  if (stripe < settled_.size()) settled_[stripe] = false;
  start_resync();
}

void RaidParityBdev::start_resync() {
  if (resync_runs_ || !resyncing() || !redundant(in_sync_) || !gate_.enter()) return;
  resync_runs_ = true;
  spawn(resync());
}

// Once over all that is suspect. A stripe that cannot be read or written stays so until it was read or written from
// above, and holds up only itself.
Task<void> RaidParityBdev::resync() {
  Workspace workspace(layout_, columns_max_);
  resync_next_ = resync_stripe_;
  const auto goes_on = [this] {
    return resyncing() && resync_next_ < layout_.strip_count && !closing_ && !offline_ && !broken() &&
           redundant(in_sync_);
  };
  while (goes_on()) {
    co_await resync_pace_.keep(uint64_t{layout_.strip_blocks} * layout_.block_bytes, goes_on);
    if (!goes_on()) break;
    const uint64_t stripe = resync_next_++;
    const bool right = !suspect(stripe) || co_await settle_stripe(stripe, workspace);
    // An error while it ran, or a member that left, may have set it back.
    if (right && resync_next_ > stripe) settled(stripe);
  }
  resync_runs_ = false;
  if (!resyncing()) {
    settled_ = {};
    arm_rest();
  }
  gate_.leave();
}

void RaidParityBdev::settled(uint64_t stripe) {
  if (stripe == resync_stripe_) {
    resync_stripe_++;
  } else if (stripe > resync_stripe_) {
    settled_.resize(layout_.strip_count);
    settled_[stripe] = true;
  }
}

// The stripe's parity fits its data, durably.
Task<bool> RaidParityBdev::settle_stripe(uint64_t stripe, Workspace& workspace) {
  for (uint32_t column = 0; column < layout_.strip_blocks; column += columns_max_) {
    ParityBand band;
    band.stripe = stripe;
    band.column = column;
    band.column_count = std::min(columns_max_, layout_.strip_blocks - column);
    bool differed = false;
    const nvme::Status status = co_await check_band(band, true, workspace, &differed);
    if (!status.ok() || closing_) co_return false;
  }
  co_return true;
}

// Reads of stripes that may be torn: a few at a time are settled first, each stripe once.
void RaidParityBdev::settle_and_read(Band* band) {
  constexpr uint32_t settlers_max = 4;
  lists_->settle_waits.push_back(band);
  if (settler_count_ == settlers_max) return;
  settler_count_++;
  spawn(settle_waiting());
}

// A member kept it from being settled that leaves, or has left; the others can still tell.
bool RaidParityBdev::settle_later(uint64_t epoch_before) const {
  if (offline_ || closing_ || !redundant(in_sync_ & ~failed_)) return false;
  return broken() || superblock_.epoch != epoch_before;
}

Task<void> RaidParityBdev::settle_waiting() {
  Workspace workspace(layout_, columns_max_);
  while (Band* band = lists_->settle_waits.pop_front()) {
    const uint64_t stripe = band->shape.stripe;
    if (!settled_.empty() && suspect(stripe) && redundant(in_sync_ & ~failed_)) {
      const uint64_t epoch = superblock_.epoch;
      const bool right = co_await settle_stripe(stripe, workspace);
      if (right && stripe < settled_.size()) {
        settled_[stripe] = true;
        start_resync();
      } else if (!right && settle_later(epoch)) {
        // The keeper wakes it, or has done so already.
        (broken() ? lists_->settle_parked : lists_->settle_waits).push_back(band);
        continue;
      }
    }
    // Where it cannot be (a bad sector, too many members that fail), the data is as good as it gets.
    band->later.run = [](Work* work) {
      Band* settled = static_cast<Band::Later*>(work)->band;
      settled->raid->read_strip(settled);
    };
    band->later.band = band;
    home().defer(&band->later);
  }
  settler_count_--;
}

// Compares the parity of a band with its data and rewrites it where it differs. Ok when both could be read (and
// written).
Task<nvme::Status> RaidParityBdev::check_band(ParityBand band, bool rewrite, Workspace& workspace, bool* differed) {
  const bool marked = co_await begin_marked(band.stripe);
  if (!marked) co_return nvme::status::internal_path_error;
  RangeEntry range;
  range.first_block = layout_.member_block(band.stripe, band.column);
  range.end_block = range.first_block + band.column_count;
  RangeHeld held(*this, range);
  co_await held;
  nvme::Status result = nvme::status::success;
  if (broken()) {
    result = nvme::status::internal_path_error;
  } else {
    result = co_await check_locked(band, rewrite, workspace, differed);
  }
  locks_.release(&range);
  missed_.write_ends(band.stripe, 1);
  co_return result;
}

// With members missing, what they held is recovered first; then there is less parity to compare.
Task<nvme::Status> RaidParityBdev::check_locked(ParityBand band, bool rewrite, Workspace& workspace, bool* differed) {
  const uint64_t block = layout_.member_block(band.stripe, band.column);
  const size_t length_bytes = size_t{band.column_count} * layout_.block_bytes;
  const uint32_t present = roles_of(band.stripe, in_sync_);
  const uint32_t absent_data = layout_.data_roles() & ~present;
  const ParityCodec::Recovery* recovery = absent_data == 0 ? nullptr : recovery_for(present, absent_data);
  if (absent_data != 0 && recovery == nullptr) co_return nvme::status::internal_path_error;
  uint32_t sources = present & layout_.data_roles();
  for (size_t i = 0; recovery != nullptr && i < recovery->sources().size(); i++)
    sources |= 1u << recovery->sources()[i];
  Fan reads(member_count(), &phases_);
  for_each_bit(present, [&](uint32_t role) {
    reads.add(members_[member_of(band.stripe, role)], IoType::read, block, band.column_count, workspace.strip(role));
  });
  co_await reads;
  uint32_t unreadable = 0;  // parities that nothing is recovered from: they are rewritten
  uint32_t left = present;
  for (size_t i = 0; i < reads.count(); i++, left &= left - 1) {
    const nvme::Status status = reads.status(i);
    if (status.ok()) continue;
    const auto role = static_cast<uint32_t>(std::countr_zero(left));
    if (raid_member_failed(status)) member_failed(member_of(band.stripe, role), status);
    if ((sources >> role & 1) != 0 || status.type() != nvme::StatusType::media) co_return status;
    unreadable |= 1u << role;
  }
  // One of them may have left meanwhile.
  if ((present & ~roles_of(band.stripe, in_sync_ & ~failed_)) != 0) co_return nvme::status::internal_path_error;
  if (recovery != nullptr) {
    uint8_t* from[ParityCodec::data_count_max];
    uint8_t* to[ParityCodec::strip_count_max];
    for (size_t i = 0; i < recovery->sources().size(); i++)
      from[i] = workspace.strip(recovery->sources()[i]);
    for (size_t i = 0; i < recovery->results().size(); i++)
      to[i] = workspace.strip(recovery->results()[i]);
    recovery->run(length_bytes, from, to);
  }
  std::vector<uint8_t> fresh(length_bytes * layout_.parity_count);
  uint8_t* parities[ParityCodec::parity_count_max];
  for (uint32_t i = 0; i < layout_.parity_count; i++)
    parities[i] = fresh.data() + i * length_bytes;
  codec_.encode(length_bytes, workspace.strips.data(), parities);
  Fan writes(seat_count(), &phases_);
  uint32_t written[ParityCodec::parity_count_max + 1];
  for_each_bit(present & layout_.parity_roles(), [&](uint32_t role) {
    uint8_t* parity = parities[role - layout_.data_count];
    if ((unreadable >> role & 1) == 0 && std::memcmp(parity, workspace.strip(role), length_bytes) == 0) return;
    *differed = true;
    if (!rewrite) return;
    // Also to one that takes over from it.
    for_each_having(band.stripe, role, (in_sync_ | joining_) & ~failed_, [&](uint32_t member) {
      written[writes.count()] = member;
      writes.add(members_[member], IoType::write, block, band.column_count, parity, true);
    });
  });
  co_await writes;
  nvme::Status result = nvme::status::success;
  for (size_t i = 0; i < writes.count(); i++) {
    if (writes.status(i).ok()) continue;
    result = writes.status(i);
    if (raid_member_failed(result)) member_failed(written[i], result);
  }
  co_return result;
}

}  // namespace basalt::bdev
