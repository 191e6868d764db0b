// SPDX-License-Identifier: Apache-2.0
#include "bdev/raid/parity_member.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "base/bytes.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t piece_bytes = 256 * 1024;

// A request's memory: what it gives, and what of each copy it is made of.
class Strips {
 public:
  Strips(size_t count, size_t bytes_each)
      : memory_(static_cast<uint8_t*>(std::aligned_alloc(parity::page_bytes, count * stride_of(bytes_each)))),
        stride_(stride_of(bytes_each)) {
    BASALT_ASSERT(memory_ != nullptr);
  }
  uint8_t* at(size_t index) const { return memory_.get() + index * stride_; }

 private:
  static size_t stride_of(size_t bytes) { return align_up(bytes, parity::page_bytes); }
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<uint8_t, Free> memory_;
  size_t stride_;
};

}  // namespace

Task<Result<std::unique_ptr<ParityMemberBdev>>> ParityMemberBdev::open(Reactor& home, ParityMemberOptions options,
                                                                       std::vector<Handle> copies) {
  auto checked = raid_open::check_members(home, copies);
  if (!checked) co_return std::move(checked).error();
  std::vector<raid_open::FoundSuperblock> found;
  std::vector<Handle> readable;
  std::optional<Error> unreadable;
  for (const Handle& copy : copies) {
    auto superblock = co_await raid_open::read_superblock(copy);
    if (!superblock) {
      if (!unreadable) unreadable = std::move(superblock).error();
      continue;
    }
    const std::string& device = copy.info().name;
    if (!found.empty() && (std::memcmp(superblock->uuid, found[0].uuid, sizeof(found[0].uuid)) != 0 ||
                           !raid_open::same_geometry(*superblock, found[0], true))) {
      co_return Error{Errc::corrupt, "base_bdevs: " + device + " belongs to another leg"};
    }
    found.push_back(*superblock);
    readable.push_back(copy);
  }
  if (found.empty()) {
    if (unreadable) co_return std::move(*unreadable);
    co_return Error{Errc::invalid_argument, "base_bdevs: none given"};
  }
  const parity::Superblock& any = found.front();
  const uint32_t count = uint32_t{any.data_count} + any.parity_count;
  if (options.place >= count) {
    co_return Error{Errc::invalid_argument, "place: below " + std::to_string(count)};
  }
  std::unique_ptr<ParityMemberBdev> made(new ParityMemberBdev(home, options, any));
  for (size_t i = 0; i < readable.size(); i++) {
    const uint32_t place = found[i].member;
    if (made->members_[place]) {
      co_return Error{Errc::invalid_argument, "base_bdevs: " + readable[i].info().name + " has place " +
                                                  std::to_string(place) + ", and another one does"};
    }
    made->members_[place] = readable[i];
    made->present_ |= 1u << place;
    made->info_.count_blocks = std::min(made->info_.count_blocks, readable[i].info().count_blocks);
    made->superblock_.generation = std::max(made->superblock_.generation, found[i].generation);
    made->superblock_.epoch = std::max(made->superblock_.epoch, found[i].epoch);
  }
  if (!made->enough(made->present_)) {
    if (unreadable) co_return std::move(*unreadable);
    co_return Error{Errc::invalid_argument, "base_bdevs: " + std::to_string(readable.size()) +
                                                " given, none of them with place " + std::to_string(options.place) +
                                                "; " + std::to_string(any.data_count) + " are needed"};
  }
  made->superblock_.in_sync = (1u << count) - 1;
  parity::seal(&made->superblock_);
  co_return made;
}

ParityMemberBdev::ParityMemberBdev(Reactor& home, const ParityMemberOptions& options,
                                   const parity::Superblock& geometry)
    : Bdev(home),
      place_(options.place),
      superblock_(geometry),
      layout_(parity::layout_of(geometry)),
      codec_(geometry.data_count, geometry.parity_count),
      members_(size_t{geometry.data_count} + geometry.parity_count) {
  superblock_.member = static_cast<uint8_t>(place_);
  info_.name = options.name;
  info_.product = product;
  info_.uuid = options.uuid;
  info_.block_size_bytes = geometry.block_bytes;
  info_.count_blocks = UINT64_MAX;  // until the copies are known
  info_.io_types = IoTypes{1u << static_cast<unsigned>(IoType::read)};
}

void ParityMemberBdev::submit(Io* io) {
  const nvme::Status checked = check(*io);
  if (!checked.ok()) return complete_later(io, checked);
  if (!gate_.enter()) return complete_later(io, nvme::status::internal_path_error);
  spawn(read(io));
}

Task<void> ParityMemberBdev::read(Io* io) {
  const uint32_t block_bytes = info_.block_size_bytes;
  const auto piece_blocks = static_cast<uint32_t>(piece_bytes / block_bytes);
  const uint64_t strips_end = layout_.member_block(layout_.strip_count, 0);
  const Strips piece(1, piece_bytes);
  std::vector<Iovec> to(io->iov_count);
  nvme::Status status;
  uint32_t single_until = 0;
  for (uint32_t done = 0; done < io->count_blocks && status.ok();) {
    const uint64_t block = io->offset_blocks + done;
    const uint64_t border = block < layout_.first_block ? layout_.first_block
                            : block < strips_end        ? strips_end
                                                        : io->offset_blocks + io->count_blocks;
    const uint32_t most = done < single_until ? 1 : piece_blocks;
    const auto count = static_cast<uint32_t>(std::min<uint64_t>({most, io->count_blocks - done, border - block}));
    status = co_await read_piece(block, count, piece.at(0));
    // Each of its blocks may be had, of different copies.
    if (status.type() == nvme::StatusType::media && count > 1) {
      single_until = done + count;
      status = nvme::status::success;
      continue;
    }
    const size_t pieces = iovec_slice(io->iov, io->iov_count, uint64_t{done} * block_bytes,
                                      uint64_t{count} * block_bytes, to.data(), to.size());
    if (status.ok()) iovec_copy_in(to.data(), pieces, piece.at(0));
    done += count;
  }
  // Later: nobody may be told within submit().
  complete_later(io, status);
  gate_.leave();
}

// It lies within what is before the strips, the strips, or what is behind them.
Task<nvme::Status> ParityMemberBdev::read_piece(uint64_t block, uint32_t count_blocks, uint8_t* out) {
  const uint32_t itself = 1u << place_;
  const bool strips = block >= layout_.first_block && block < layout_.member_block(layout_.strip_count, 0);
  uint32_t usable = present_;
  nvme::Status status = nvme::status::internal_path_error;
  for (;;) {
    const uint32_t places = strips ? choose(usable) : usable & itself & ~doubtful_;
    if (strips && places == 0) co_return status;
    if (!strips && places == 0) break;
    uint32_t failed = 0;
    if (places == itself) {
      Fan read(1);
      read.add(members_[place_], IoType::read, block, count_blocks, out);
      co_await read;
      status = read.status(0);
      if (!status.ok()) failed = itself;
    } else {
      status = co_await recover(places, block, count_blocks, out, &failed);
    }
    if (status.ok()) co_return status;
    doubtful_ |= failed;
    usable &= ~failed;
  }
  std::memset(out, 0, size_t{count_blocks} * info_.block_size_bytes);
  if (block < layout_.first_block) write_front(block, count_blocks, out);
  co_return nvme::status::success;
}

bool ParityMemberBdev::enough(uint32_t places) const {
  const uint32_t itself = 1u << place_;
  return (places & itself) != 0 || static_cast<uint32_t>(std::popcount(places & ~itself)) >= layout_.data_count;
}

// The place itself, or k others; those without doubt first. 0: there are too few.
uint32_t ParityMemberBdev::choose(uint32_t usable) const {
  if (!enough(usable)) return 0;
  const uint32_t itself = 1u << place_;
  const uint32_t sure = usable & ~doubtful_;
  if ((sure & itself) != 0) return itself;
  const uint32_t others = usable & ~itself;
  if (!enough(others)) return itself;
  uint32_t chosen = 0;
  for (const uint32_t from : {others & sure, others & ~sure}) {
    for_each_bit(from, [&](uint32_t place) {
      if (static_cast<uint32_t>(std::popcount(chosen)) < layout_.data_count) chosen |= 1u << place;
    });
  }
  return chosen;
}

const std::vector<ParityCodec::Recovery>& ParityMemberBdev::recoveries_of(uint32_t places) {
  std::vector<ParityCodec::Recovery>& made = recoveries_[places];
  for (uint64_t stripe = made.size(); stripe < layout_.member_count(); stripe++) {
    auto recovery = codec_.recovery(layout_.roles_of(stripe, places), 1u << layout_.role_of(stripe, place_));
    BASALT_ASSERT(recovery.ok());  // k places, and not this one
    made.push_back(std::move(*recovery));
  }
  return made;
}

// The superblocks; everything else there is zeroes.
void ParityMemberBdev::write_front(uint64_t block, uint32_t count_blocks, uint8_t* out) const {
  const uint64_t page_blocks = parity::page_bytes / info_.block_size_bytes;
  for (const uint32_t page : parity::superblock_pages) {
    for (uint64_t i = 0; i < page_blocks; i++) {
      const uint64_t at = page * page_blocks + i;
      if (at < block || at >= block + count_blocks) continue;
      std::memcpy(out + (at - block) * info_.block_size_bytes,
                  reinterpret_cast<const uint8_t*>(&superblock_) + i * info_.block_size_bytes, info_.block_size_bytes);
    }
  }
}

// A range of strips lies at the same blocks of every member. `failed`: places of those that could not be read.
Task<nvme::Status> ParityMemberBdev::recover(uint32_t places, uint64_t block, uint32_t count_blocks, uint8_t* out,
                                             uint32_t* failed) {
  const uint32_t k = layout_.data_count;
  const size_t bytes = size_t{count_blocks} * info_.block_size_bytes;
  const Strips read(k, bytes);
  uint8_t* strips[ParityCodec::strip_count_max] = {};  // by place
  Fan reads(k);
  size_t next = 0;
  for_each_bit(places, [&](uint32_t place) {
    strips[place] = read.at(next++);
    reads.add(members_[place], IoType::read, block, count_blocks, strips[place]);
  });
  co_await reads;
  nvme::Status status;
  next = 0;
  for_each_bit(places, [&](uint32_t place) {
    const nvme::Status each = reads.status(next++);
    if (each.ok()) return;
    *failed |= 1u << place;
    status = each;
  });
  if (*failed != 0) co_return status;
  const std::vector<ParityCodec::Recovery>& recoveries = recoveries_of(places);
  for (uint32_t done = 0; done < count_blocks;) {
    const uint64_t at = block + done - layout_.first_block;
    const uint64_t stripe = at / layout_.strip_blocks;
    const auto left = static_cast<uint32_t>(layout_.strip_blocks - at % layout_.strip_blocks);
    const uint32_t count = std::min(left, count_blocks - done);
    const size_t offset = size_t{done} * info_.block_size_bytes;
    const ParityCodec::Recovery& recovery = recoveries[stripe % layout_.member_count()];
    uint8_t* from[ParityCodec::data_count_max];
    for (size_t i = 0; i < recovery.sources().size(); i++)
      from[i] = strips[layout_.member_of(stripe, recovery.sources()[i])] + offset;
    uint8_t* to = out + offset;
    recovery.run(size_t{count} * info_.block_size_bytes, from, &to);
    done += count;
  }
  co_return nvme::status::success;
}

Task<Outcome> ParityMemberBdev::close() {
  co_await gate_.close();
  co_return success();
}

}  // namespace basalt::bdev
