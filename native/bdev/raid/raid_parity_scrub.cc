// SPDX-License-Identifier: Apache-2.0
// Scrub of raid5 and raid6: all strips are read, band by band under the range's lock, and compared.
//
// A row is one block of each strip. A block that cannot be read is recovered from the others of its row. Where all can
// be read and do not fit each other, two parities or more tell which one is wrong if it is only one; otherwise nobody
// can tell, and the data's word counts.
//
// What is rewritten is stable at once. Records of the same blocks leave the log before: a replay would bring back the
// parity that they were written with. Stripes that the resync has yet to make right are left to it.
#include <algorithm>
#include <cstring>

#include "base/probe.h"
#include "bdev/raid/raid_parity.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {

// What one scrub works with.
struct RaidParityBdev::Scrubbing {
  Scrubbing(const ParityLayout& layout, uint32_t columns_max, const ScrubOptions& from)
      : options(from), workspace(layout, columns_max) {
    const size_t strip_bytes = size_t{columns_max} * layout.block_bytes;
    expected_memory.resize(strip_bytes * layout.parity_count);
    for (uint32_t i = 0; i < layout.parity_count; i++)
      expected[i] = expected_memory.data() + i * strip_bytes;
    tried.resize(size_t{layout.parity_count} * layout.block_bytes);
    wrong.resize(columns_max);
  }
  const ScrubOptions options;
  Workspace workspace;
  std::array<uint8_t*, ParityCodec::parity_count_max> expected{};  // parity of the data that was read
  std::vector<uint8_t> expected_memory;
  std::vector<uint8_t> tried;   // blocks of a row, if another one were wrong
  std::vector<uint32_t> wrong;  // by column of the band: roles whose right blocks are in the workspace now
};

Outcome RaidParityBdev::begin_scrub(const ScrubOptions& options) {
  if (scrub_runs_) return Error{Errc::busy, info_.name + " is being scrubbed"};
  if (degraded() || failed_ != 0) return Error{Errc::busy, info_.name + ": a member is missing"};
  if (closing_ || offline_ || !gate_.enter()) return Error{Errc::closed, info_.name + " is closing"};
  scrub_runs_ = true;
  scrub_info_ = {};
  scrub_info_.state = ScrubState::running;
  scrub_pace_.set(options.bytes_per_s, false);
  return success();
}

Outcome RaidParityBdev::start_scrub(const ScrubOptions& options) {
  auto begun = begin_scrub(options);
  if (begun) spawn(run_scrub(options));
  return begun;
}

Task<Result<ScrubInfo>> RaidParityBdev::scrub(ScrubOptions options) {
  auto begun = begin_scrub(options);
  if (!begun) co_return std::move(begun).error();
  BASALT_ASSERT(gate_.enter());  // what it found is here until that was said
  Gate::Leaver leaver(gate_);
  co_await run_scrub(options);
  if (scrub_info_.state == ScrubState::finished) co_return scrub_info_;
  if (closing_ || offline_) co_return Error{Errc::closed, info_.name + " is closing"};
  co_return Error{Errc::busy, info_.name + (degraded() ? ": a member is missing" : ": the scrub was stopped")};
}

void RaidParityBdev::stop_scrub() {
  if (scrub_info_.state != ScrubState::running) return;
  scrub_info_.state = ScrubState::stopped;
  wake_background();
}

bool RaidParityBdev::scrub_goes_on() const {
  return scrub_info_.state == ScrubState::running && !closing_ && !offline_ && !degraded();
}

// Holds a place in the gate, entered by its starter.
Task<void> RaidParityBdev::run_scrub(ScrubOptions options) {
  Gate::Leaver leaver(gate_);
  Scrubbing work(layout_, columns_max_, options);
  const auto goes_on = [this] { return scrub_goes_on(); };
  co_await hop(home());
  uint64_t told_percent = 0;
  if (events_.scrub) events_.scrub(scrub_info_);
  ParityBand band;
  band.role_count = layout_.member_count();
  for (band.stripe = 0; band.stripe < layout_.strip_count && goes_on();) {
    band.column_count = std::min(columns_max_, layout_.strip_blocks - band.column);
    co_await scrub_pace_.keep(uint64_t{band.column_count} * layout_.data_count * layout_.block_bytes, goes_on);
    // One that failed leaves, or has a twin in its place; then it is known whether all are there.
    while (goes_on() && broken()) {
      Woken woken{*this};
      co_await woken;
    }
    if (!goes_on()) break;
    RangeEntry range;
    range.first_block = layout_.member_block(band.stripe, band.column);
    range.end_block = range.first_block + band.column_count;
    RangeHeld held(*this, range);
    co_await held;
    bool looked = false;
    if (goes_on() && !broken()) looked = suspect(band.stripe) || co_await scrub_band(work, band);
    locks_.release(&range);
    if (!looked) continue;  // once more, when whoever failed has left
    band.column += band.column_count;
    if (band.column == layout_.strip_blocks) {
      band.column = 0;
      band.stripe++;
    }
    const uint64_t percent = band.stripe * 100 / layout_.strip_count;
    if (percent >= told_percent + 10 && percent < 100 && goes_on() && events_.scrub) {
      told_percent = percent;
      events_.scrub(scrub_info_);
    }
    // Let the reactor serve others between bands.
    co_await hop(home());
  }
  scrub_info_.state = goes_on() ? ScrubState::finished : ScrubState::stopped;
  scrub_runs_ = false;
  if (events_.scrub) events_.scrub(scrub_info_);
}

// False: a member has failed meanwhile.
Task<bool> RaidParityBdev::scrub_band(Scrubbing& work, ParityBand band) {
  const uint64_t block = layout_.member_block(band.stripe, band.column);
  Fan reads(member_count(), &phases_);
  uint32_t asked[ParityCodec::strip_count_max];
  uint32_t attached[ParityCodec::strip_count_max];
  for (uint32_t role = 0; role < member_count(); role++) {
    asked[role] = member_of(band.stripe, role);
    attached[role] = attachments_[asked[role]];
    reads.add(members_[asked[role]], IoType::read, block, band.column_count, work.workspace.strip(role));
  }
  co_await reads;
  uint32_t unreadable = 0;
  for (uint32_t role = 0; role < member_count(); role++) {
    const nvme::Status status = reads.status(role);
    if (status.ok()) continue;
    unreadable |= 1u << role;
    if (!raid_member_failed(status)) continue;
    if (attachments_[asked[role]] == attached[role]) member_failed(asked[role], status);
    co_return false;
  }
  if (unreadable != 0 && band.column_count > 1) {
    // Block by block: what else was read is good, and another strip may be bad in another row.
    const uint32_t end = band.column + band.column_count;
    for (band.column_count = 1; band.column < end; band.column++) {
      const bool looked = co_await scrub_band(work, band);
      if (!looked) co_return false;
    }
    co_return true;
  }
  find_wrong(work, band, unreadable);
  scrub_info_.compared_blocks += uint64_t{band.column_count} * layout_.data_count;
  if (!work.options.repair) co_return true;
  const bool repaired = co_await repair_rows(work, band);
  co_return repaired;
}

// Fills in which roles' blocks have to be rewritten, and with what.
void RaidParityBdev::find_wrong(Scrubbing& work, const ParityBand& band, uint32_t unreadable) {
  const Workspace& space = work.workspace;
  const size_t length_bytes = size_t{band.column_count} * layout_.block_bytes;
  std::fill(work.wrong.begin(), work.wrong.end(), 0);
  scrub_info_.unreadable_blocks += static_cast<uint32_t>(std::popcount(unreadable));
  if (unreadable != 0) {
    const uint32_t present = (layout_.data_roles() | layout_.parity_roles()) & ~unreadable;
    const ParityCodec::Recovery* recovery = recovery_for(present, unreadable);
    if (recovery == nullptr) return;  // lost
    recover_row(*recovery, space, 0, nullptr);
    work.wrong[0] = unreadable;
  }
  codec_.encode(length_bytes, space.strips.data(), work.expected.data());
  for (uint32_t column = 0; column < band.column_count; column++) {
    const size_t at = size_t{column} * layout_.block_bytes;
    uint32_t unlike = 0;
    for (uint32_t i = 0; i < layout_.parity_count; i++) {
      const uint8_t* found = space.strip(layout_.data_count + i) + at;
      if (std::memcmp(found, work.expected[i] + at, layout_.block_bytes) != 0) unlike |= 1u << (layout_.data_count + i);
    }
    if (unlike == 0) continue;
    scrub_info_.different_blocks++;
    // What was recovered is not to be believed then: it stays unreadable.
    if (unreadable != 0) {
      work.wrong[column] = 0;
      continue;
    }
    work.wrong[column] = odd_one_out(work, column);
    if (work.wrong[column] != 0) continue;
    for_each_bit(unlike, [&](uint32_t role) {
      std::memcpy(space.strip(role) + at, work.expected[role - layout_.data_count] + at, layout_.block_bytes);
    });
    work.wrong[column] = unlike;
  }
}

// Computes blocks of a row from others of it; into `out`, one after the other, or where they belong.
void RaidParityBdev::recover_row(const ParityCodec::Recovery& recovery, const Workspace& space, uint32_t column,
                                 uint8_t* out) const {
  const size_t at = size_t{column} * layout_.block_bytes;
  uint8_t* from[ParityCodec::data_count_max];
  uint8_t* to[ParityCodec::strip_count_max];
  for (size_t i = 0; i < recovery.sources().size(); i++)
    from[i] = space.strip(recovery.sources()[i]) + at;
  for (size_t i = 0; i < recovery.results().size(); i++)
    to[i] = out != nullptr ? out + i * layout_.block_bytes : space.strip(recovery.results()[i]) + at;
  recovery.run(layout_.block_bytes, from, to);
}

// The one role without which all others of the row fit each other; its block is right afterwards. 0: there is none, or
// more than one, as with a single parity.
uint32_t RaidParityBdev::odd_one_out(Scrubbing& work, uint32_t column) {
  if (layout_.parity_count < 2) return 0;
  const Workspace& space = work.workspace;
  const size_t at = size_t{column} * layout_.block_bytes;
  const uint32_t all = layout_.data_roles() | layout_.parity_roles();
  const auto try_without = [&](uint32_t role) {
    uint32_t sources = 0;
    uint32_t left = all & ~(1u << role);
    for (uint32_t i = 0; i < layout_.data_count; i++, left &= left - 1)
      sources |= left & -left;
    const ParityCodec::Recovery* recovery = recovery_for(sources, all & ~sources);
    BASALT_ASSERT(recovery != nullptr);
    recover_row(*recovery, space, column, work.tried.data());
    bool fits = true;
    const uint8_t* own = nullptr;
    for (size_t i = 0; i < recovery->results().size(); i++) {
      const uint8_t* computed = work.tried.data() + i * layout_.block_bytes;
      const uint32_t result = recovery->results()[i];
      if (result == role) {
        own = computed;
      } else {
        fits &= std::memcmp(computed, space.strip(result) + at, layout_.block_bytes) == 0;
      }
    }
    return fits ? own : nullptr;
  };
  uint32_t odd = 0;
  for (uint32_t role = 0; role < member_count(); role++) {
    if (try_without(role) != nullptr) odd |= 1u << role;
  }
  if (std::popcount(odd) != 1) return 0;
  const auto role = static_cast<uint32_t>(std::countr_zero(odd));
  std::memcpy(space.strip(role) + at, try_without(role), layout_.block_bytes);
  return odd;
}

// False: a member has failed meanwhile, or nobody wants it any more.
Task<bool> RaidParityBdev::repair_rows(Scrubbing& work, ParityBand band) {
  const uint32_t end = band.column + band.column_count;
  const uint32_t first = band.column;
  while (band.column < end) {
    const uint32_t wrong = work.wrong[band.column - first];
    band.column_count = 1;
    while (band.column + band.column_count < end && work.wrong[band.column - first + band.column_count] == wrong)
      band.column_count++;
    if (wrong != 0) {
      const bool written = co_await rewrite(work, band, {.first_column = first, .roles = wrong});
      if (!written) co_return false;
    }
    band.column += band.column_count;
  }
  co_return true;
}

Task<bool> RaidParityBdev::rewrite(Scrubbing& work, ParityBand band, Rewritten which) {
  while (scrub_goes_on() && !broken() && log_has(band, Logged::anything)) {
    want_checkpoint_ = true;
    kick_keeper();
    Woken woken{*this};
    co_await woken;
  }
  if (!scrub_goes_on() || broken()) co_return false;
  const bool marked = co_await begin_marked(band.stripe);
  if (!marked) co_return false;
  bool written = false;
  if (scrub_goes_on() && !broken()) written = co_await rewrite_now(work, band, which);
  missed_.write_ends(band.stripe, 1);
  co_return written;
}

Task<bool> RaidParityBdev::rewrite_now(Scrubbing& work, ParityBand band, Rewritten which) {
  const uint64_t block = layout_.member_block(band.stripe, band.column);
  const size_t at = size_t{band.column - which.first_column} * layout_.block_bytes;
  Fan writes(seat_count(), &phases_);
  uint32_t asked[ParitySeats::seat_count_max];
  uint32_t attached[ParitySeats::seat_count_max];
  for_each_bit(which.roles, [&](uint32_t role) {
    // Also one that joins: it may have a copy of what was wrong.
    for_each_having(band.stripe, role, receiving(), [&](uint32_t member) {
      asked[writes.count()] = member;
      attached[writes.count()] = attachments_[member];
      writes.add(members_[member], IoType::write, block, band.column_count, work.workspace.strip(role) + at, true);
    });
  });
  co_await writes;
  bool all = true;
  for (size_t i = 0; i < writes.count(); i++) {
    if (writes.status(i).ok()) {
      reach(Mark::scrub_rewrote);
      scrub_info_.repaired_blocks += band.column_count;
      parity_stats_.repaired_count++;
      if (events_.repaired && members_[asked[i]])
        events_.repaired(members_[asked[i]].info().name, block, band.column_count);
      continue;
    }
    // It can be neither believed nor written there.
    if (attachments_[asked[i]] != attached[i]) continue;
    member_failed(asked[i], writes.status(i));
    all &= !broken();
  }
  co_return all;
}

}  // namespace basalt::bdev
