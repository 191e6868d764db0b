// SPDX-License-Identifier: Apache-2.0
// The beginning of a leg with tails: the members' tails are read, under the epoch that they were just taken over at.
// Until then nothing is known of what is dirty, and requests wait.
#include <algorithm>

#include "bdev/leg/leg_internal.h"

namespace basalt::bdev {

using leg_tail::Image;
using leg_tail::Page;
using leg_tail::RosterEntry;

// Holds a place in the gate, entered by its starter.
Task<void> LegBdev::open_tails() {
  Gate::Leaver leaver(gate_);
  std::vector<Image> images(member_slot_count);
  std::vector<Image> grown(member_slot_count);  // what lies where the tails may have moved to
  const Tail moved_to(shape_of(std::max(options_.grown_blocks, info_.count_blocks)));
  const bool may_have_moved = options_.grown_blocks > info_.count_blocks;
  uint64_t read = 0;
  // Inside create(): nobody may hear of anything yet.
  co_await hop(home());
  while (!fenced_ && (in_sync_ & ~read) != 0) {
    Countdown countdown;
    struct Reader {
      static Task<void> run(LegBdev& leg, uint32_t slot, Image& image, Image* grown, const Tail& moved_to,
                            uint64_t& read, Countdown& countdown) {
        image = co_await leg.read_tail(slot);
        if (grown != nullptr) *grown = co_await leg.read_tail(slot, moved_to.wanted, moved_to.at_blocks);
        if ((leg.failed_ & leg.bit(slot)) == 0) read |= leg.bit(slot);
        countdown.done();
      }
    };
    for_each_slot(in_sync_ & ~read & ~failed_, [&](uint32_t slot) {
      countdown.add();
      Image* there = may_have_moved ? &grown[slot] : nullptr;
      spawn(Reader::run(*this, slot, images[slot], there, moved_to, read, countdown));
    });
    co_await countdown;
    // One that could not be read stays in the set until its removal is committed.
    Settled settled(*this);
    co_await settled;
  }
  if (fenced_) co_return;
  const bool moved = may_have_moved && tails_moved(images, grown);
  const uint64_t old_blocks = info_.count_blocks;
  if (moved) adopt_shape(moved_to, options_.grown_blocks);
  adopt_tails(moved ? grown : images);
  if (moved) {
    // The last controller may have got no further than the first member.
    if (!options_.planted.skip_vacate) co_await vacate_all(old_blocks);
    if (fenced_) co_return;
    if (!options_.planted.trust_absent) forget_absent();
    set_size(options_.grown_blocks);
  }
  opened();
  write_tails_soon(true);
}

Task<Image> LegBdev::read_tail(uint32_t slot) {
  Image image = co_await read_tail(slot, tail_->wanted, tail_->at_blocks);
  co_return image;
}

Task<Image> LegBdev::read_tail(uint32_t slot, const RegionMap& shape, uint64_t at_blocks) {
  Image image;
  // A member that has no room for a tail there has none.
  image.state = Page::blank;
  if (members_[slot].handle.info().count_blocks < at_blocks + leg_tail::tail_bytes / info_.block_size_bytes)
    co_return image;
  image.state = Page::damaged;
  members_[slot].task_count++;
  const size_t length_bytes = leg_tail::image_bytes(shape);
  TaskMemory memory(length_bytes);
  Iovec iov{memory.data(), length_bytes};
  Io io;
  io.type = IoType::read;
  io.offset_blocks = at_blocks;
  io.count_blocks = static_cast<uint32_t>(length_bytes / info_.block_size_bytes);
  io.iov = &iov;
  io.iov_count = 1;
  const nvme::Status status = co_await member_io(slot, io);
  if (status.ok()) {
    const leg_tail::Expected expected{options_.identity, shape, at_blocks, info_.block_size_bytes};
    image = leg_tail::decode_image(memory.data(), expected);
    if (image.state == Page::whole && image.superblock.replica != members_[slot].replica) image.state = Page::damaged;
    if (image.state == Page::unknown) member_failed(slot, "its tail is of a later version");
  }
  task_ended(slot);
  co_return image;
}

// What the in-sync members' tails say together: marks are durable on all before data can differ, so their union names
// every region that may; a member without readable marks may differ anywhere.
void LegBdev::adopt_tails(std::vector<Image>& images) {
  Tail& tail = *tail_;
  const Image* newest = nullptr;
  for_each_slot(in_sync_, [&](uint32_t slot) {
    const Image& image = images[slot];
    if (image.state != Page::whole) return;
    const auto age = [](const Image& of) { return std::pair(of.superblock.epoch, of.superblock.generation); };
    if (newest == nullptr || age(image) > age(*newest)) newest = &image;
  });
  leg_tail::Superblock& common = tail.superblock;
  if (newest != nullptr) common = newest->superblock;
  bool all_known = true;
  for_each_slot(in_sync_, [&](uint32_t slot) {
    Image& image = images[slot];
    const RosterEntry* entry = common.find(members_[slot].replica);
    const bool known = image.state == Page::whole && entry != nullptr && entry->stay == image.superblock.stay;
    if (known) {
      tail.wanted.add(*image.marks);
    } else {
      image.state = Page::damaged;
      all_known = false;
    }
  });
  if (options_.all_dirty && __builtin_popcountll(in_sync_) > 1) {
    if (!all_known) tail.wanted.set_all();
    for (uint64_t region = tail.wanted.next(0); region < tail.wanted.region_count();
         region = tail.wanted.next(region + 1))
      dirty_.set_range(tail.wanted.first_block(region), tail.wanted.end_block(region));
  }
  common.leg = options_.identity;
  common.epoch = options_.epoch;
  common.generation++;
  common.block_size_bytes = info_.block_size_bytes;
  common.count_blocks = tail.at_blocks;
  common.region_blocks = tail.wanted.region_blocks();
  if (!options_.replicas.empty()) forget_others(options_.replicas);
  for (RosterEntry& entry : common.roster) {
    if (entry.state == RosterEntry::State::in_sync) entry.state = RosterEntry::State::absent;
  }
  tail.durable = tail.wanted;
  for_each_slot(in_sync_, [&](uint32_t slot) {
    Member& member = members_[slot];
    const Image& image = images[slot];
    const bool known = image.state == Page::whole;
    member.tail_known = true;
    member.stay = known ? image.superblock.stay : home().env().random_u64();
    member.generation = known ? image.superblock.generation : 0;
    member.page_written.assign(tail.page_version.size(), 0);
    RosterEntry& entry = roster_entry(slot);
    entry.stay = member.stay;
    entry.state = RosterEntry::State::in_sync;
    if (known && image.marks->count() == tail.wanted.count()) {
      member.page_written = tail.page_version;  // the union is no more than its own
    } else if (known) {
      tail.durable.keep(*image.marks);
    } else {
      tail.durable.clear_all();
    }
  });
}

void LegBdev::opened() {
  open_ = true;
  if (!dirty_.empty()) {
    BASALT_ASSERT(gate_.enter());
    cleaning_ = true;
    spawn(clean_in_background(Refusal::expels));
  } else if (tail_ != nullptr && events_.clean) {
    events_.clean();  // until now nobody could say so
  }
  List<Op, &Op::node> early;
  early.splice_back(lists_->early);
  while (Op* op = early.pop_front())
    admit(op);
}

RosterEntry& LegBdev::roster_entry(uint32_t slot) {
  auto& roster = tail_->superblock.roster;
  const std::string& replica = members_[slot].replica;
  if (RosterEntry* entry = tail_->superblock.find(replica)) return *entry;
  if (roster.size() == leg_tail::roster_count_max) {
    // Somebody who is out is forgotten: a full resync when it returns.
    const auto is_member = [&](const RosterEntry& entry) {
      return std::any_of(members_.begin(), members_.end(), [&](const Member& member) {
        return member.state != MemberState::empty && member.replica == entry.replica;
      });
    };
    const auto out = std::find_if_not(roster.begin(), roster.end(), is_member);
    BASALT_ASSERT(out != roster.end());
    roster.erase(out);
  }
  RosterEntry entry;
  entry.replica = replica;
  roster.push_back(std::move(entry));
  return roster.back();
}

void LegBdev::forget_others(const std::vector<std::string>& replicas) {
  std::erase_if(tail_->superblock.roster, [&](const RosterEntry& entry) {
    const auto is_member = [&](const Member& member) {
      return member.state != MemberState::empty && member.replica == entry.replica;
    };
    if (std::any_of(members_.begin(), members_.end(), is_member)) return false;
    return std::find(replicas.begin(), replicas.end(), entry.replica) == replicas.end();
  });
}

void LegBdev::keep_marks_for(const std::vector<std::string>& replicas) {
  options_.replicas = replicas;
  if (tail_ == nullptr || !open_) return;
  forget_others(replicas);
  roster_changed();
}

void LegBdev::roster_changed() {
  tail_->superblock.generation++;
  tail_->superblock_version++;
  write_tails_soon(false);
}

}  // namespace basalt::bdev
