// SPDX-License-Identifier: Apache-2.0
// The keeper: one coroutine that writes superblocks, so that what is durable about the set changes in one order. What
// it does when asked, most urgent first: a failed member leaves, a rebuilt one joins, a new one is named, more stripes,
// marks, `not clean` before the first write, a checkpoint of the log, `clean` after a rest.
#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "bdev/raid/raid_parity.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {

void RaidParityBdev::kick_keeper() {
  if (keeper_runs_ || !gate_.enter()) return;
  keeper_runs_ = true;
  (void)keep();
}

FramedSpawn RaidParityBdev::keep() {
  for (;;) {
    const bool more = co_await keep_once();
    if (!more) break;
  }
  keeper_runs_ = false;
  gate_.leave();
}

// One thing; false: there was nothing to do.
FramedTask<bool> RaidParityBdev::keep_once() {
  if (offline_ && growth_ != nullptr) co_await carry_out_growth();
  if (offline_) co_return false;
  if (may_leave() != 0) {
    co_await shrink();
    wake_all();
    wake_background();
    if (events_.set_changed) events_.set_changed();
    co_return true;
  }
  // While a failed member waits for the orchestrator's word nobody is flushed, and so nobody joins.
  if (want_join_ != 0 && !broken()) {
    co_await join();
    wake_all();
    if (events_.set_changed) events_.set_changed();
    co_return true;
  }
  if (want_enrol_ != 0 && !broken()) {
    co_await enrol();
    wake_all();
    co_return true;
  }
  if (growth_ != nullptr) {
    co_await carry_out_growth();
    co_return true;
  }
  if (want_missed_) {
    want_missed_ = false;
    co_await write_missed();
    wake_all();
    co_return true;
  }
  if (want_dirty_) {
    want_dirty_ = false;
    want_clean_ = false;
    co_await set_clean(false);
    wake_all();
    co_return true;
  }
  if (marks_are_waited_for() && !broken()) {
    co_await write_marks();
    wake_all();
    co_return true;
  }
  if (want_checkpoint_) {
    want_checkpoint_ = false;
    const uint64_t before = durable_tail_;
    (void)co_await checkpoint(Flush::when_wanted);
    // Where the oldest record is still being carried out nothing is free yet: those who wait would only ask again,
    // without end. finish_band() asks when there is something new, and so does a flush from above when it ends.
    if (durable_tail_ != before || woken_at_flush_ != unflushed_.flush_count()) {
      woken_at_flush_ = unflushed_.flush_count();
      wake_all();
    }
    co_return true;
  }
  if (want_sweep_) {
    want_sweep_ = false;
    co_await sweep();
    wake_all();
    co_return true;
  }
  if (want_clean_) {
    want_clean_ = false;
    if (write_count_ == 0 && !resyncing() && lists_->rest_timer.activity == activity_) {
      const bool flushed = co_await checkpoint(bugs_.no_flush_before_clean ? Flush::when_wanted : Flush::always);
      // A write may have begun meanwhile; it saw `not clean` and would not ask again.
      if ((flushed || bugs_.no_flush_before_clean) && write_count_ == 0 && lists_->rest_timer.activity == activity_)
        co_await set_clean(true);
      wake_all();
    }
    co_return true;
  }
  co_return false;
}

// Of a fan of one request to each of these, in their order: those that have it; the others have failed.
uint32_t RaidParityBdev::succeeded(const Fan& fan, uint32_t members) {
  uint32_t found = 0;
  size_t index = 0;
  for_each_bit(members, [&](uint32_t member) {
    const nvme::Status status = fan.status(index++);
    if (status.ok()) {
      found |= 1u << member;
    } else {
      member_failed(member, status);
    }
  });
  return found;
}

// The present superblock, one generation on, to these members; of each over the older one that it has, which may be a
// damaged one: after two crashes in a row that slot is not the same on all of them.
// Gives those that have it; the others have failed.
FramedTask<uint32_t> RaidParityBdev::write_superblocks(uint32_t targets) {
  describe_away();
  superblock_.generation++;
  if (driven_) superblock_.kept_epoch = superblock_.epoch;
  Fan writes(lists_->superblock_fan, &phases_);
  for_each_bit(targets, [&](uint32_t member) {
    parity::Superblock& copy = lists_->superblock_pages.get()[member];
    copy = superblock_;
    copy.member = static_cast<uint8_t>(seats_.place_of(member));
    copy.stay = stays_[member];
    parity::seal(&copy);
    const uint32_t page = parity::superblock_pages[1 - good_slots_[member]];
    writes.add(members_[member], IoType::write, page * page_factor(), page_factor(), &copy, true);
  });
  // As it is written: who fails may change it at once.
  const uint64_t epoch = superblock_.epoch;
  const uint32_t in_sync = superblock_.in_sync;
  co_await writes;
  const uint32_t written = succeeded(writes, targets);
  if ((in_sync & ~seats_.places_of(written)) == 0) epoch_of_all_ = epoch;
  for_each_bit(written,
               [this](uint32_t member) { good_slots_[member] = static_cast<uint8_t>(1 - good_slots_[member]); });
  co_return written;
}

// Failed members leave: the others say so, durably, under a new epoch. Until all of those have said it the old set
// counts as well. Where a twin that is equal has the place of one, the set is as it was.
Task<void> RaidParityBdev::shrink() {
  const uint32_t leaving = may_leave();
  const bool inherited = seats_.has_twin() && (leaving >> seats_.twinned() & 1) != 0;
  const uint32_t heirs = inherited ? second_ & ~leaving : 0;
  const uint32_t staying = (in_sync_ & ~leaving) | heirs;
  want_join_ &= ~leaving;
  const uint32_t spare = 1u << seats_.spare();
  const bool twin_leaves = !driven_ && seats_.has_twin() && (leaving & spare) != 0;
  mark_leaving(leaving);
  const ParityMarks::Regions wanted = missed_.wanted();
  const bool smaller = seats_.places_of(staying) != superblock_.in_sync;
  if (smaller || twin_leaves || (driven_ && heirs != 0)) {
    if (static_cast<uint32_t>(std::popcount(staying)) < layout_.data_count) {
      offline_ = true;
      co_return;
    }
    if (smaller && driven_) co_await begin_marks((staying | second_) & ~failed_);
    superblock_.epoch++;
    // Whose place it was does not come back by marks that were not kept for it.
    if (driven_ && heirs != 0) superblock_.joined_epoch[seats_.place_of(seats_.spare())] = superblock_.epoch;
    superblock_.in_sync = seats_.places_of(staying);
    const uint32_t told = driven_ ? (staying | second_) & ~failed_ : staying;
    const uint32_t having = co_await write_superblocks(told);
    // Another one has failed: again, without it. Of a driven one the record says who left, whatever a member knows.
    if (having != told && !driven_) co_return;
    missed_.said(wanted);
  }
  std::string instead_of;
  if (!driven_ && inherited && !twin_leaves && heirs != 0) instead_of = members_[seats_.twinned()].info().name;
  in_sync_ = staying;
  failed_ &= ~leaving;
  released_ &= ~leaving;
  no_longer_joining(leaving | heirs);
  for_each_bit(leaving, [&](uint32_t member) {
    members_[member] = {};
    rebuilt_blocks_[member] = 0;
  });
  if (seats_.has_twin() && (leaving >> seats_.spare() & 1) != 0) {
    seats_.end_twin();
    stays_[seats_.spare()] = 0;
  } else if (inherited) {
    const uint32_t twin = seats_.spare();
    seats_.promote_twin();
    exchanged_ = false;
    stays_[seats_.spare()] = 0;
    if (!instead_of.empty() && events_.member_exchanged)
      events_.member_exchanged(members_[twin].info().name, instead_of);
    // Not by a lock over everything: writes that wait for this would never end.
    handed_ = write_count_ == 0 ? 0 : handed_ | heirs;
    handed_write_count_ = write_count_;
    handed_until_ = activity_;
  }
  look_who_is_away();
  if (!resyncing()) co_return;
  if (redundant(in_sync_)) {
    suspect_from(resync_stripe_);
  } else {
    resync_stripe_ = layout_.strip_count;  // data can be had in no other way: parity is believed
  }
}

void RaidParityBdev::no_longer_joining(uint32_t members) {
  joining_ &= ~members;
  known_ &= ~members;
  arriving_ &= ~members;
  logging_ &= ~members;
  copied_ &= ~members;
  second_ &= ~members;
}

// A rebuilt member becomes one of the set. It was made from what the others had in their caches: from here on flushes
// count it, and what was written until here is flushed everywhere. Records from before it took part leave the log: as
// it does not have them, they would look as if they had never been durable.
Task<void> RaidParityBdev::join() {
  uint32_t coming = want_join_ & ~failed_;
  want_join_ = 0;
  if (coming == 0) co_return;
  copied_ |= coming;
  if (!bugs_.no_flush_before_join) {
    const bool flushed = co_await checkpoint(Flush::always);
    if (!flushed) {
      want_join_ |= coming & ~failed_;  // after the next shrink
      co_return;
    }
  }
  // Marks for others that are away are on all of the set.
  if (tracked_) coming &= co_await put_marks(marks_, coming, true);
  superblock_.epoch++;
  superblock_.in_sync = seats_.places_of(in_sync_ | coming);
  if (driven_) {
    for_each_bit(coming,
                 [&](uint32_t member) { superblock_.joined_epoch[seats_.place_of(member)] = superblock_.epoch; });
  }
  // Of one that is driven the orchestrator decides when a twin has the place.
  const bool exchanges = !driven_ && seats_.has_twin() && (coming >> seats_.spare() & 1) != 0;
  const uint32_t old = exchanges ? 1u << seats_.twinned() : 0;
  counted_ &= ~coming;
  exchanged_ |= exchanges;
  // Itself first: it is complete, and must know its place before another member names it.
  coming = co_await write_superblocks(coming);
  const uint32_t having = coming == 0 ? 0 : co_await write_superblocks((set() & ~old) | coming);
  // Others have failed: the next shrink writes what is so then. A joining one that failed is not in its set.
  const uint32_t joined = having & coming;
  // One with the place of another stands by, with all that this one gets, until this one is let go.
  const uint32_t twins = seats_.has_twin() ? joined & (1u << seats_.spare()) : 0;
  in_sync_ |= joined & ~twins;
  no_longer_joining(joined & ~twins);
  second_ |= twins;
  look_who_is_away();
  if (bugs_.marks_cleared_early && joined != 0) marks_.clear_all();
  if (counted_ == 0) missed_.forget();
  // Its place is the twin's now: it leaves, with the next shrink.
  if (!driven_ && twins != 0) failed_ |= old;
  for_each_bit(joined, [&](uint32_t member) {
    if (events_.member_rebuilt) events_.member_rebuilt(members_[member].info().name);
  });
}

// Flushes all members, then says that the records up to the first unfinished write are done with. False: the members
// were not flushed.
FramedTask<bool> RaidParityBdev::checkpoint(Flush flush) {
  uint64_t tail = durable_tail_;
  while (tail < next_sequence_ && slots_[tail % slots_.size()].applied)
    tail++;
  const bool wanted = std::exchange(want_flush_, false) || flush == Flush::always;
  if (broken()) co_return false;
  const bool followed = wanted && unflushed_.flush_begins();
  if (followed) missed_.flush_begins();
  // Another flush is under way, from above: whoever wants one waits for its end.
  if (tail == durable_tail_ && !followed && flush != Flush::always) co_return false;
  parity_stats_.checkpoint_count++;
  Fan flushes(lists_->flush_fan, &phases_);
  const uint32_t targets = bugs_.no_flush_before_reuse ? 0 : (in_sync_ | joining_) & ~failed_;
  for_each_bit(targets, [&](uint32_t member) { flushes.add(members_[member], IoType::flush, 0, 0, nullptr); });
  co_await flushes;
  const bool all = succeeded(flushes, targets) == targets;
  if (followed) unflushed_.flush_ended(all);
  if (followed) missed_.flush_ended(all);
  if (!all) {
    want_checkpoint_ = true;
    co_return false;
  }
  if (tail == durable_tail_) co_return true;
  superblock_.log_tail = tail;
  const uint32_t told = set();
  if ((co_await write_superblocks(told)) != told) {
    want_checkpoint_ = true;
    co_return false;
  }
  durable_tail_ = tail;
  co_return true;
}

FramedTask<void> RaidParityBdev::set_clean(bool clean) {
  if (may_write_ != clean || broken()) co_return;
  if (clean) may_write_ = false;
  superblock_.clean = clean ? 1 : 0;
  const uint32_t told = set();
  uint32_t having = co_await write_superblocks(told);
  // In both places, so that no older one that says otherwise is believed when the newer one cannot be read.
  if (driven_ && having == told) having = co_await write_superblocks(told);
  // `Not clean` counts when all of the set have it; those who wait ask again after the next shrink.
  if (!clean && having == told) may_write_ = true;
}

void RaidParityBdev::arm_rest() {
  if (driven_ || write_count_ > 0 || closing_ || lists_->rest_timer.armed()) return;
  lists_->rest_timer.activity = activity_;
  home().arm_after(&lists_->rest_timer, rest_);
}

void RaidParityBdev::rested(Work* timer) {
  auto* rest = static_cast<Lists::RestTimer*>(timer);
  RaidParityBdev* raid = rest->raid;
  if (raid->closing_ || raid->write_count_ > 0) return;  // the last of them arms it again
  if (rest->activity != raid->activity_) return raid->arm_rest();
  raid->start_resync();  // what it could not settle before may have been written since
  raid->want_clean_ = true;
  raid->kick_keeper();
}

// Whatever waits looks again.
void RaidParityBdev::wake_all() {
  List<Band, &Band::node> bands;
  bands.splice_back(lists_->parked);
  bands.splice_back(lists_->checkpoint_waits);
  bands.splice_back(lists_->dirty_waits);
  bands.splice_back(lists_->mark_waits);
  while (Band* band = bands.pop_front())
    resume_parked(band);
  List<Band, &Band::node> reads;
  reads.splice_back(lists_->settle_parked);
  while (Band* band = reads.pop_front())
    settle_and_read(band);
  List<Op, &Op::node> flushes;
  flushes.splice_back(lists_->parked_flushes);
  while (Op* op = flushes.pop_front()) {
    if (!settle_flush(op)) lists_->parked_flushes.push_back(op);
  }
  wake_tasks();
}

void RaidParityBdev::wake_tasks() {
  List<Lists::TaskWaiter, &Lists::TaskWaiter::node> waiters;
  waiters.splice_back(lists_->task_waits);
  while (Lists::TaskWaiter* waiter = waiters.pop_front())
    waiter->coroutine.resume();
}

// Rebuild, resync and scrub, whatever they wait for: they look whether they go on.
void RaidParityBdev::wake_background() {
  resync_pace_.wake();
  scrub_pace_.wake();
  wake_tasks();
}

}  // namespace basalt::bdev
