// SPDX-License-Identifier: Apache-2.0
#include "bdev/raid/raid0.h"

#include <algorithm>

#include "base/bytes.h"

namespace basalt::bdev {

// What is left to do of one request above.
struct Raid0Bdev::Parent {
  Raid0Bdev* raid = nullptr;
  Io* io = nullptr;
  uint32_t waiting_count = 0;
  nvme::Status status;
};

// Members of other reactors are not followed: the engine makes raids of one reactor's bdevs.
struct Raid0Bdev::Ear final : SizeWatcher {
  Raid0Bdev* raid = nullptr;
  void size_changed(Bdev&) override {
    const uint64_t now_blocks = raid->usable_blocks();
    if (now_blocks > raid->info_.count_blocks) raid->set_size(now_blocks);
  }
};

Raid0Bdev::~Raid0Bdev() {
  for (size_t i = 0; i < ears_.size(); i++) {
    if (ears_[i]->size_node.linked()) members_[i].bdev().unwatch_size(ears_[i].get());
  }
}

uint64_t Raid0Bdev::usable_blocks() const {
  if (!begins_.empty()) return begins_.back() + members_.back().info().count_blocks;
  uint64_t member_blocks = UINT64_MAX;
  for (const Handle& member : members_)
    member_blocks = std::min(member_blocks, member.info().count_blocks);
  return member_blocks / strip_blocks_ * strip_blocks_ * members_.size();
}

Result<std::unique_ptr<Raid0Bdev>> Raid0Bdev::create(Reactor& home, const Raid0Options& options,
                                                     std::vector<Handle> members) {
  if (members.empty() || members.size() > member_count_max) {
    return Error{Errc::invalid_argument,
                 "base_bdevs: 1 to " + std::to_string(member_count_max) + ", got " + std::to_string(members.size())};
  }
  const uint32_t block_size_bytes = members[0].info().block_size_bytes;
  if (!options.concat && (!is_power_of_two(options.strip_bytes) || options.strip_bytes < block_size_bytes)) {
    return Error{Errc::invalid_argument, "strip_size_kb: a power of two, not smaller than a block"};
  }
  uint32_t memory_alignment_bytes = 1;
  bool volatile_cache = false;
  for (const Handle& member : members) {
    const BdevInfo& info = member.info();
    if (info.block_size_bytes != block_size_bytes) {
      return Error{Errc::invalid_argument,
                   "base_bdevs: " + info.name + " has another block size than " + members[0].info().name};
    }
    memory_alignment_bytes = std::max(memory_alignment_bytes, info.memory_alignment_bytes);
    volatile_cache |= info.volatile_cache;
  }
  std::unique_ptr<Raid0Bdev> raid(new Raid0Bdev(home));
  raid->strip_blocks_ = options.concat ? 1 : options.strip_bytes / block_size_bytes;
  raid->members_ = std::move(members);
  uint64_t begin = 0;
  for (size_t i = 0; options.concat && i < raid->members_.size(); i++) {
    raid->begins_.push_back(begin);
    const uint64_t member_blocks = raid->members_[i].info().count_blocks;
    if (member_blocks > UINT64_MAX / block_size_bytes - begin)
      return Error{Errc::invalid_argument, "base_bdevs: together they are larger than a bdev can be"};
    begin += member_blocks;
  }
  const uint64_t count_blocks = raid->usable_blocks();
  if (count_blocks == 0) return Error{Errc::invalid_argument, "base_bdevs: a member is smaller than one strip"};
  raid->info_.name = options.name;
  raid->info_.product = options.concat ? "concat" : "raid0";
  raid->info_.uuid = options.uuid;
  raid->info_.block_size_bytes = block_size_bytes;
  raid->info_.count_blocks = count_blocks;
  raid->info_.volatile_cache = volatile_cache;
  raid->info_.memory_alignment_bytes = memory_alignment_bytes;
  for (const Handle& member : raid->members_) {
    raid->ears_.push_back(std::make_unique<Ear>());
    raid->ears_.back()->raid = raid.get();
    if (&member.bdev().home() == &home) member.bdev().watch_size(raid->ears_.back().get());
  }
  raid->parents_ = std::make_unique<Pool<Parent>>(child_io_count_max);
  return raid;
}

// The blocks of `member` that [first_block, end_block) touches: one range, possibly empty.
Raid0Bdev::Part Raid0Bdev::part_of(uint64_t first_block, uint64_t end_block, size_t member) const {
  if (!begins_.empty()) {
    const uint64_t begin = begins_[member];
    const uint64_t end = member + 1 < begins_.size() ? begins_[member + 1] : UINT64_MAX;
    const uint64_t from = std::clamp(first_block, begin, end);
    return {from - begin, std::clamp(end_block, from, end) - begin};
  }
  const uint64_t count = members_.size();
  // How many of the member's blocks lie before volume block b.
  const auto blocks_before = [&](uint64_t b) {
    const uint64_t strip = b / strip_blocks_;
    const uint64_t row = strip / count;
    const uint64_t column = strip % count;
    if (column > member) return (row + 1) * strip_blocks_;
    if (column < member) return row * strip_blocks_;
    return row * strip_blocks_ + b % strip_blocks_;
  };
  return {blocks_before(first_block), blocks_before(end_block)};
}

// Collects the memory of the request that belongs to the child's member.
void Raid0Bdev::gather(const Io& io, ChildIo& child) const {
  child.pieces.clear();
  const uint64_t end_block = io.offset_blocks + io.count_blocks;
  uint64_t block = io.offset_blocks;
  Iovec pieces[iov_count_max];
  if (!begins_.empty()) {
    const uint64_t first = begins_[child.member] + child.offset_blocks;
    const size_t used = iovec_slice(io.iov, io.iov_count, (first - io.offset_blocks) * info_.block_size_bytes,
                                    uint64_t{child.count_blocks} * info_.block_size_bytes, pieces, iov_count_max);
    BASALT_ASSERT(used > 0);
    child.pieces.assign(pieces, pieces + used);
    block = end_block;
  }
  while (block < end_block) {
    const uint64_t strip = block / strip_blocks_;
    const uint64_t strip_end = std::min((strip + 1) * strip_blocks_, end_block);
    if (strip % members_.size() == child.member) {
      const size_t used = iovec_slice(io.iov, io.iov_count, (block - io.offset_blocks) * info_.block_size_bytes,
                                      (strip_end - block) * info_.block_size_bytes, pieces, iov_count_max);
      BASALT_ASSERT(used > 0);
      child.pieces.insert(child.pieces.end(), pieces, pieces + used);
    }
    block = strip_end;
  }
  child.iov = child.pieces.data();
  child.iov_count = static_cast<uint16_t>(child.pieces.size());
}

void Raid0Bdev::submit(Io* io) {
  const nvme::Status checked = check(*io);
  if (!checked.ok()) return complete_later(io, checked);
  Parent* parent = parents_->take();
  BASALT_ASSERT(parent != nullptr);
  parent->raid = this;
  parent->io = io;
  parent->status = nvme::status::success;
  parent->waiting_count = 1;  // this loop's own, so that nothing ends before all is submitted
  const bool moves_data = io->type == IoType::read || io->type == IoType::write;
  for (uint32_t member = 0; member < members_.size(); member++) {
    const Part part = io->type == IoType::flush
                          ? Part{0, 0}
                          : part_of(io->offset_blocks, io->offset_blocks + io->count_blocks, member);
    if (io->type != IoType::flush && part.offset_blocks == part.end_blocks) continue;
    ChildIo* child = children_.take();
    BASALT_ASSERT(child != nullptr);
    child->mirror(io, child_done, parent);
    child->member = member;
    child->offset_blocks = part.offset_blocks;
    child->count_blocks = static_cast<uint32_t>(part.end_blocks - part.offset_blocks);
    if (moves_data) gather(*io, *child);
    parent->waiting_count++;
    members_[member].submit(child);
  }
  parent->waiting_count--;
  BASALT_ASSERT(parent->waiting_count > 0);
}

void Raid0Bdev::child_done(Io* io) {
  auto* parent = static_cast<Parent*>(io->context);
  Raid0Bdev* raid = parent->raid;
  if (!io->status.ok() && parent->status.ok()) parent->status = io->status;
  raid->children_.give(ChildIo::of(io));
  if (--parent->waiting_count > 0) return;
  Io* above = parent->io;
  const nvme::Status status = parent->status;
  raid->parents_->give(parent);
  complete_now(above, status);
}

Task<Outcome> Raid0Bdev::close() {
  BASALT_ASSERT(children_.in_use() == 0);
  co_return success();
}

}  // namespace basalt::bdev
