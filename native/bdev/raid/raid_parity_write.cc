// SPDX-License-Identifier: Apache-2.0
// The way of a written band: range lock -> (not clean, durably) -> plan -> read sources -> compute parity -> log
// record, durable on the parity members -> in place -> acknowledged when all of the set have it.
//
// All data roles at once ("full") need no sources and no record. What that leaves unflushed is flushed before a band of
// some roles goes over it: a power cut may leave any part of a full band, while the record of the other one is durable
// and brings back a parity that fits all of it.
//
// Zeroes give space back. All data roles of any number of stripes: one request to each member, since the parity of
// zeroes is zeroes; that is a full band, and in a driven one has a record without data on every member, so that
// whichever of them are left finish what was begun. Zeroes of some roles are a write like any other that reaches their
// members without data, and so does a parity that has become zeroes.
#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "bdev/raid/raid_parity.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {
namespace {

bool moves_zeroes(IoType type) {
  return type == IoType::write_zeroes || type == IoType::unmap;
}

// Too many pieces for one record beside its header and parity: the record takes the copies in the workspace.
bool scattered(const Io& io) {
  return io.iov_count > iov_count_max / 2;
}

void exclusive_or(uint8_t* into, const uint8_t* from, size_t length_bytes) {
  for (size_t i = 0; i < length_bytes; i++)
    into[i] ^= from[i];
}

}  // namespace

void RaidParityBdev::start_write_band(Band* band) {
  const ParityBand& shape = band->shape;
  band->range.first_block = layout_.member_block(shape.stripe, shape.column);
  band->range.end_block =
      layout_.member_block(shape.stripe + shape.stripe_count - 1, shape.column) + shape.column_count;
  band->range.exclusive = true;
  band->range.context = band;
  band->range.granted = band_granted;
  band->locked = true;
  if (locks_.acquire(&band->range)) prepare(band);
}

void RaidParityBdev::band_granted(RangeEntry* entry) {
  Band* band = static_cast<Band*>(entry->context);
  band->raid->prepare(band);
}

// What must be so before anything may change; each wait ends by coming here again.
void RaidParityBdev::prepare(Band* band) {
  if (offline_) return fail_band(band, nvme::status::internal_path_error);
  // While a failed member is still of the recorded set, nothing changes: it would be believed after a crash.
  if (broken()) return lists_->parked.push_back(band);
  if (!may_write_) {
    want_dirty_ = true;
    lists_->dirty_waits.push_back(band);
    return kick_keeper();
  }
  const ParityBand& shape = band->shape;
  if (counted_ != 0 && !bugs_.no_marks && !band->counted && !missed_.durable(shape.stripe, shape.stripe_count)) {
    missed_.want(shape.stripe, shape.stripe_count);
    want_missed_ = true;
    lists_->dirty_waits.push_back(band);
    return kick_keeper();
  }
  if (!band->counted) {
    missed_.write_begins(shape.stripe, shape.stripe_count, absent());
    band->counted = true;
    write_count_++;
    band->number = ++activity_;
  }
  if (!is_marked(*band)) return wait_for_mark(band);
  plan(band);
  if (band->method == Band::Method::plain || band->method == Band::Method::full) {
    // A record of older data under it must not come back.
    if (log_has(band->shape, Logged::anything)) {
      want_checkpoint_ = true;
      lists_->checkpoint_waits.push_back(band);
      return kick_keeper();
    }
  } else if (unflushed_.has(band->range.first_block, band->range.end_block) && !bugs_.no_flush_before_record) {
    want_checkpoint_ = want_flush_ = true;
    lists_->checkpoint_waits.push_back(band);
    return kick_keeper();
  }
  // Nor one of zeroes, which more members have than have this one's.
  const bool over_zeroes = logs_all() && band->method != Band::Method::zeroes && !bugs_.writes_over_zeroes &&
                           log_has(band->shape, Logged::zeroes);
  if (over_zeroes) {
    want_checkpoint_ = true;
    lists_->checkpoint_waits.push_back(band);
    return kick_keeper();
  }
  const bool needs_no_parity = band->method == Band::Method::full && (band->op->gives_back || mirrors());
  if (needs_no_parity && !band->op->gives_back) parity_stats_.full_stripe_count++;
  if (needs_no_parity || band->method == Band::Method::plain) return write_in_place(band);
  if (band->workspace == nullptr && !take_workspace(band)) return;
  if (band->method == Band::Method::zeroes) return write_record(band);
  if (band->method == Band::Method::full) {
    parity_stats_.full_stripe_count++;
    compute_full(band);
    return write_in_place(band);
  }
  parity_stats_.partial_stripe_count++;
  read_sources(band);
}

// Chooses how the new parity is found, from the members that are there now.
void RaidParityBdev::plan(Band* band) {
  const uint64_t stripe = band->shape.stripe;
  const uint32_t data = layout_.data_roles();
  const uint32_t changed = band->shape.roles();
  const uint32_t present = roles_of(stripe, in_sync_ & ~failed_) & ~band->unreadable;
  band->parities = roles_of(stripe, receiving()) & layout_.parity_roles();
  band->sources = 0;
  band->recovery = nullptr;
  if (changed == data) {
    band->method = logs_all() && band->op->gives_back ? Band::Method::zeroes : Band::Method::full;
    return;
  }
  if (band->parities == 0) {
    band->method = Band::Method::plain;
    return;
  }
  const uint32_t kept = data & ~changed;
  const bool can_modify =
      (changed & ~present) == 0 && (band->parities & ~present) == 0 && !suspect(stripe) && !scattered(*band->op->io);
  const bool can_rebuild = (kept & ~present) == 0;
  const auto modify_cost = static_cast<uint32_t>(std::popcount(changed | band->parities));
  const auto rebuild_cost = static_cast<uint32_t>(std::popcount(kept));
  if (can_modify && (!can_rebuild || modify_cost < rebuild_cost)) {
    band->method = Band::Method::modify;
    band->sources = changed | band->parities;
  } else if (can_rebuild) {
    band->method = Band::Method::rebuild;
    band->sources = kept;
  } else {
    band->method = Band::Method::recover;
    band->recovery = recovery_for(present, kept & ~present);
    if (band->recovery == nullptr) return;
    for (const uint8_t role : band->recovery->sources())
      band->sources |= 1u << role;
    band->sources |= kept & present;
  }
}

// Where the new contents of a role lie in the caller's memory.
size_t RaidParityBdev::data_pieces(const Band& band, uint32_t role, Iovec* out, size_t out_max) const {
  const Io& io = *band.op->io;
  const size_t length_bytes = size_t{band.shape.column_count} * layout_.block_bytes;
  if (moves_zeroes(io.type)) {
    out[0] = {lists_->zeroes.get(), length_bytes};
    return 1;
  }
  const uint64_t block = band.shape.stripe * layout_.stripe_blocks() + uint64_t{role} * layout_.strip_blocks +
                         band.shape.column - io.offset_blocks;
  const size_t used = iovec_slice(io.iov, io.iov_count, block * layout_.block_bytes, length_bytes, out, out_max);
  BASALT_ASSERT(used > 0);
  return used;
}

ChildIo* RaidParityBdev::child_for(Band* band, uint32_t role, IoType type, IoDone done) {
  ChildIo* child = children_.take();
  BASALT_ASSERT(child != nullptr);
  child->type = type;
  child->fua = false;
  child->member = member_of(band->shape.stripe, role);
  child->role = role;
  child->offset_blocks = layout_.member_block(band->shape.stripe, band->shape.column);
  child->count_blocks = band->shape.column_count;
  child->iov = nullptr;
  child->iov_count = 0;
  child->done = done;
  child->context = band;
  child->pieces.clear();
  return child;
}

void RaidParityBdev::submit_child(Band* band, ChildIo* child) {
  child->iov = child->pieces.data();
  child->iov_count = static_cast<uint16_t>(child->pieces.size());
  band->waiting_count++;
  child->attachment = attachments_[child->member];
  members_[child->member].submit(child);
}

RaidParityBdev::Answer RaidParityBdev::take_answer(Io* child) {
  Band* band = static_cast<Band*>(child->context);
  const uint32_t member = band->raid->asked_member(*ChildIo::of(child));
  const Answer answer{band->raid, band, member, ChildIo::of(child)->role, child->status};
  band->raid->children_.give(ChildIo::of(child));
  return answer;
}

void RaidParityBdev::read_sources(Band* band) {
  if (band->method == Band::Method::recover && band->recovery == nullptr) {
    const nvme::Status why = why_unrecoverable();
    return fail_band(band, why.type() == nvme::StatusType::path ? why : nvme::status::write_fault);
  }
  const size_t length_bytes = size_t{band->shape.column_count} * layout_.block_bytes;
  band->waiting_count = 1;  // this loop's own
  for_each_bit(band->sources, [&](uint32_t role) {
    ChildIo* child = child_for(band, role, IoType::read, source_child_done);
    child->pieces.push_back({band->workspace->strip(role), length_bytes});
    submit_child(band, child);
  });
  if (--band->waiting_count == 0) sources_read(band);
}

void RaidParityBdev::source_child_done(Io* io) {
  const auto [raid, band, member, role, status] = take_answer(io);
  if (!status.ok()) {
    if (raid_member_failed(status)) raid->member_failed(member, status);
    band->unreadable |= 1u << role;
  }
  if (--band->waiting_count == 0) raid->sources_read(band);
}

void RaidParityBdev::sources_read(Band* band) {
  if ((band->sources & band->unreadable) != 0) {
    // Without those. Every round loses at least one role, so it ends.
    if (!is_marked(*band)) return wait_for_mark(band);
    plan(band);
    if (band->method != Band::Method::plain) return read_sources(band);
    return write_in_place(band);
  }
  compute(band);
  write_record(band);
}

// The parity of a part of the data roles.
void RaidParityBdev::compute(Band* band) {
  const Workspace& space = *band->workspace;
  const size_t length_bytes = size_t{band->shape.column_count} * layout_.block_bytes;
  Iovec pieces[iov_count_max];
  uint8_t* strips[ParityCodec::strip_count_max];
  std::copy_n(space.strips.begin(), member_count(), strips);
  for (uint32_t i = 0; i < layout_.parity_count; i++)
    band->parity[i] = strips[layout_.data_count + i];
  if (band->method == Band::Method::recover) {
    const ParityCodec::Recovery& recovery = *band->recovery;
    uint8_t* from[ParityCodec::data_count_max];
    uint8_t* to[ParityCodec::strip_count_max];
    for (size_t i = 0; i < recovery.sources().size(); i++)
      from[i] = strips[recovery.sources()[i]];
    for (size_t i = 0; i < recovery.results().size(); i++)
      to[i] = strips[recovery.results()[i]];
    recovery.run(length_bytes, from, to);
  }
  for_each_bit(band->shape.roles(), [&](uint32_t role) {
    const size_t count = data_pieces(*band, role, pieces, iov_count_max);
    if (band->method != Band::Method::modify) return iovec_copy_out(pieces, count, strips[role]);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
      exclusive_or(strips[role] + at, static_cast<const uint8_t*>(pieces[i].base), pieces[i].length_bytes);
      at += pieces[i].length_bytes;
    }
    codec_.update(length_bytes, role, strips[role], &strips[layout_.data_count]);
  });
  if (band->method != Band::Method::modify) codec_.encode(length_bytes, strips, &strips[layout_.data_count]);
}

// The parity of all data, from where it lies when each strip is in one piece there.
void RaidParityBdev::compute_full(Band* band) {
  Workspace& space = *band->workspace;
  const size_t length_bytes = size_t{band->shape.column_count} * layout_.block_bytes;
  Iovec pieces[iov_count_max];
  uint8_t* data[ParityCodec::data_count_max];
  bool direct = true;
  for (uint32_t role = 0; role < layout_.data_count && direct; role++) {
    direct = data_pieces(*band, role, pieces, iov_count_max) == 1;
    data[role] = static_cast<uint8_t*>(pieces[0].base);
  }
  for (uint32_t i = 0; i < layout_.parity_count; i++)
    band->parity[i] = space.wide_parity[i];
  if (direct) return codec_.encode(length_bytes, data, band->parity.data());
  // In portions that fit the memory beside the parity: the parity of the whole band, then a block of each strip.
  std::array<uint8_t, parity::page_bytes> block[ParityCodec::data_count_max];
  for (uint32_t column = 0; column < band->shape.column_count; column++) {
    const size_t at = size_t{column} * layout_.block_bytes;
    uint8_t* parities[ParityCodec::parity_count_max];
    for (uint32_t i = 0; i < layout_.parity_count; i++)
      parities[i] = band->parity[i] + at;
    for (uint32_t role = 0; role < layout_.data_count; role++) {
      const size_t count = data_pieces(*band, role, pieces, iov_count_max);
      Iovec cut[iov_count_max];
      const size_t used = iovec_slice(pieces, count, at, layout_.block_bytes, cut, iov_count_max);
      iovec_copy_out(cut, used, block[role].data());
      data[role] = block[role].data();
    }
    codec_.encode(layout_.block_bytes, data, parities);
  }
}

// The record goes to the parity members of the set, and to those that will be of it: what is in the log then counts.
void RaidParityBdev::write_record(Band* band) {
  if (offline_) return fail_band(band, nvme::status::internal_path_error);
  // What is in the log when a failed member leaves is marked for it; and for one that has left since this was planned.
  if (driven_ && broken()) return lists_->parked.push_back(band);
  if (!is_marked(*band)) return wait_for_mark(band);
  const ParityBand& shape = band->shape;
  const uint32_t logging = (in_sync_ | logging_) & ~failed_;
  const bool zeroes = band->method == Band::Method::zeroes;
  const uint32_t of = zeroes && !bugs_.zeroes_on_some ? layout_.data_roles() | layout_.parity_roles() : band->parities;
  const uint32_t logged = of & roles_of(shape.stripe, logging);
  if (logged == 0 || bugs_.no_record) return write_in_place(band);
  if (!slot_free()) {
    want_checkpoint_ = true;
    lists_->checkpoint_waits.push_back(band);
    return kick_keeper();
  }
  band->sequence = next_sequence_++;
  const auto slot = static_cast<uint32_t>(band->sequence % slots_.size());
  BASALT_ASSERT(slots_[slot].applied);
  slots_[slot] = {band->sequence, {shape.stripe, shape.stripe_count}, shape.column, shape.column_count, false, zeroes};
  if ((next_sequence_ - durable_tail_) * 2 >= slots_.size()) {
    want_checkpoint_ = true;  // early, so that writers seldom wait
    kick_keeper();
  }
  if (zeroes) return send_zero_records(band, logged);
  send_data_records(band, logged);
}

// What all records have.
void RaidParityBdev::describe(const Band& band, uint32_t logged, parity::RecordHeader* header) const {
  std::memcpy(header->uuid, superblock_.uuid, sizeof(header->uuid));
  header->epoch = bugs_.record_epoch_early ? superblock_.epoch : epoch_of_all_;
  header->sequence = band.sequence;
  header->stripe = band.shape.stripe;
  header->column = band.shape.column;
  header->column_count = band.shape.column_count;
  header->first_role = static_cast<uint8_t>(band.shape.first_role);
  header->role_count = static_cast<uint8_t>(band.shape.role_count);
  header->parity_roles = logged;
}

ChildIo* RaidParityBdev::record_child(Band* band, uint32_t role, uint32_t member, uint32_t payload_bytes) {
  const uint64_t slot = band->sequence % slots_.size();
  ChildIo* child = child_for(band, role, IoType::write, record_child_done);
  child->member = member;
  child->fua = !bugs_.record_not_durable;
  child->offset_blocks = (parity::log_first_page + slot * superblock_.log_slot_pages) * page_factor();
  child->count_blocks = (parity::page_bytes + payload_bytes) / layout_.block_bytes;
  return child;
}

void RaidParityBdev::send_data_records(Band* band, uint32_t logged) {
  const ParityBand& shape = band->shape;
  const uint32_t logging = (in_sync_ | logging_) & ~failed_;
  const size_t length_bytes = size_t{shape.column_count} * layout_.block_bytes;
  Iovec pieces[iov_count_max];
  uint32_t data_crc = 0;
  for_each_bit(shape.roles(), [&](uint32_t role) {
    const size_t count = data_pieces(*band, role, pieces, iov_count_max);
    for (size_t i = 0; i < count; i++)
      data_crc = crc32c(data_crc, pieces[i].base, pieces[i].length_bytes);
  });
  band->waiting_count = 1;  // this loop's own
  for_each_bit(logged, [&](uint32_t role) {
    const uint32_t index = role - layout_.data_count;
    parity::RecordHeader* header = band->workspace->header(index);
    describe(*band, logged, header);
    header->parity_role = static_cast<uint8_t>(role);
    header->zeroed_stripes = 0;
    header->payload_bytes = static_cast<uint32_t>((shape.role_count + 1) * length_bytes);
    header->payload_crc32c = crc32c(data_crc, band->parity[index], length_bytes);
    parity::seal(header);
    for_each_having(shape.stripe, role, logging, [&](uint32_t member) {
      if (bugs_.twin_without_records && member == seats_.spare()) return;
      ChildIo* child = record_child(band, role, member, header->payload_bytes);
      child->pieces.push_back({header, parity::page_bytes});
      for_each_bit(shape.roles(), [&](uint32_t data_role) {
        if (scattered(*band->op->io)) {
          child->pieces.push_back({band->workspace->strip(data_role), length_bytes});
          return;
        }
        const size_t count = data_pieces(*band, data_role, pieces, iov_count_max);
        child->pieces.insert(child->pieces.end(), pieces, pieces + count);
      });
      child->pieces.push_back({band->parity[index], length_bytes});
      submit_child(band, child);
    });
  });
  BASALT_ASSERT(band->waiting_count > 1);
  band->waiting_count--;
}

// The same page on all members: in each stripe others have the parity.
void RaidParityBdev::send_zero_records(Band* band, uint32_t logged) {
  const uint32_t logging = (in_sync_ | logging_) & ~failed_;
  parity::RecordHeader* header = band->workspace->header(0);
  describe(*band, logged, header);
  header->parity_role = 0;
  header->zeroed_stripes = static_cast<uint32_t>(band->shape.stripe_count);
  header->payload_bytes = 0;
  header->payload_crc32c = 0;
  parity::seal(header);
  band->waiting_count = 1;  // this loop's own
  for_each_bit(logged, [&](uint32_t role) {
    for_each_having(band->shape.stripe, role, logging, [&](uint32_t member) {
      if (bugs_.twin_without_records && member == seats_.spare()) return;
      ChildIo* child = record_child(band, role, member, 0);
      child->pieces.push_back({header, parity::page_bytes});
      submit_child(band, child);
    });
  });
  BASALT_ASSERT(band->waiting_count > 1);
  band->waiting_count--;
}

void RaidParityBdev::record_child_done(Io* io) {
  const auto [raid, band, member, role, status] = take_answer(io);
  if (!status.ok()) {
    // Whatever its error: without the record nothing may change in place while the member is of the set.
    raid->member_failed(member, status);
  }
  if (--band->waiting_count == 0) raid->write_in_place(band);
}

void RaidParityBdev::write_in_place(Band* band) {
  if (offline_) return fail_band(band, nvme::status::internal_path_error);
  band->stage = Band::Stage::in_place;
  if (broken()) return lists_->parked.push_back(band);
  band->stage = Band::Stage::written;
  const Io& io = *band->op->io;
  const ParityBand& shape = band->shape;
  const bool zeroes = band->op->gives_back;
  const bool all_zeroes = zeroes && shape.role_count == layout_.data_count;
  const size_t length_bytes = size_t{shape.column_count} * layout_.block_bytes;
  const uint32_t receiving = this->receiving();
  const uint32_t concerned = shape.roles() | layout_.parity_roles();
  band->waiting_count = 1;  // this loop's own
  Iovec pieces[iov_count_max];
  const auto send = [&](uint32_t role, uint32_t member) {
    const bool is_parity = role >= layout_.data_count;
    const uint8_t* parity = is_parity ? band->parity[role - layout_.data_count] : nullptr;
    const bool becomes_zeroes = all_zeroes || (zeroes && (!is_parity || all_zero(parity, length_bytes)));
    ChildIo* child = child_for(band, role, becomes_zeroes ? io.type : IoType::write, write_child_done);
    child->member = member;
    // What no parity member has a record of is stable at once in a driven one, like a record.
    child->fua = io.fua || (driven_ && band->sequence == 0 && band->method != Band::Method::full);
    if (becomes_zeroes) {
      child->count_blocks = static_cast<uint32_t>((shape.stripe_count - 1) * layout_.strip_blocks + shape.column_count);
    } else if (is_parity && !mirrors()) {
      child->pieces.push_back({band->parity[role - layout_.data_count], length_bytes});
    } else {
      const size_t count = data_pieces(*band, is_parity ? 0 : role, pieces, iov_count_max);
      child->pieces.assign(pieces, pieces + count);
    }
    submit_child(band, child);
  };
  for_each_bit(roles_of(shape.stripe, receiving) & concerned, [&](uint32_t role) {
    const bool is_parity = role >= layout_.data_count;
    if (is_parity && !all_zeroes && (band->parities >> role & 1) == 0) return;  // it came in after the plan
    for_each_having(shape.stripe, role, receiving, [&](uint32_t member) {
      if (!bugs_.twin_without_writes || member != seats_.spare()) send(role, member);
    });
  });
  if (--band->waiting_count == 0) write_ended(band);
}

void RaidParityBdev::write_child_done(Io* io) {
  const auto [raid, band, member, role, status] = take_answer(io);
  if (status.ok()) {
    band->got |= 1u << member;
  } else {
    band->missed |= 1u << member;
    // A driven one has no other way to make equal again what an exact error leaves.
    if (raid_member_failed(status) || (raid->in_sync_ >> member & 1) == 0 || raid->driven_) {
      raid->member_failed(member, status);
    } else if (band->status.ok()) {
      band->status = status;
    }
  }
  if (--band->waiting_count == 0) raid->write_ended(band);
}

void RaidParityBdev::write_ended(Band* band) {
  if (offline_) return fail_band(band, nvme::status::internal_path_error);
  if (!band->status.ok()) {
    // An exact error (out of space, say) on some of them: data and parity may differ now, until made equal.
    for (uint64_t i = 0; i < band->shape.stripe_count; i++)
      suspect_from(band->shape.stripe + i);
    return fail_band(band, band->status);
  }
  // Acknowledged when every member of the set that it concerns has it.
  if ((band->missed & (in_sync_ | copied_)) != 0) return lists_->parked.push_back(band);
  finish_band(band);
}

// The set has changed, or the raid went offline: goes on where the band was parked.
void RaidParityBdev::resume_parked(Band* band) {
  if (offline_) return fail_band(band, nvme::status::internal_path_error);
  switch (band->stage) {
    case Band::Stage::prepare:
      return prepare(band);
    case Band::Stage::in_place:
      return write_in_place(band);
    case Band::Stage::written:
      return write_ended(band);
  }
}

void RaidParityBdev::fail_band(Band* band, nvme::Status status) {
  if (band->op->status.ok()) band->op->status = status;
  finish_band(band);
}

void RaidParityBdev::finish_band(Band* band) {
  Op* op = band->op;
  if (band->sequence != 0) slots_[band->sequence % slots_.size()].applied = true;
  if (band->stage == Band::Stage::written && band->method == Band::Method::full)
    unflushed_.add(band->range.first_block, band->range.end_block);
  if (band->counted) {
    missed_.write_ends(band->shape.stripe, band->shape.stripe_count);
    write_count_--;
    if (band->number <= handed_until_ && --handed_write_count_ == 0) handed_ = 0;
    arm_rest();
  }
  Workspace* workspace = std::exchange(band->workspace, nullptr);
  if (band->locked) locks_.release(&band->range);
  const bool zeroes_logged = band->sequence != 0 && band->method == Band::Method::zeroes && !bugs_.writes_over_zeroes;
  bands_->give(band);
  // A record of zeroes that stays makes writes over it wait, a member that leaves miss all that it names, and each
  // takeover carry it out again.
  if (lists_->log_is_waited_for() || zeroes_logged) {
    want_checkpoint_ = true;
    kick_keeper();
  }
  if (workspace != nullptr) {
    lists_->free_workspaces.push_back(workspace);
    wake_workspace_waiters();
  }
  // Last: with its request the raid itself may end.
  op->band_count--;
  advance(op);
}

// As many as there is memory for: one that has waited may need none any more, and would wake nobody when it ends.
void RaidParityBdev::wake_workspace_waiters() {
  if (lists_->waking) return;  // one of those woken here has ended already
  lists_->waking = true;
  while (!lists_->free_workspaces.empty()) {
    Band* waiter = lists_->workspace_waits.pop_front();
    if (waiter == nullptr) break;
    if (waiter->op->io->type == IoType::read) {
      recover_part(waiter);
    } else {
      prepare(waiter);
    }
  }
  lists_->waking = false;
}

}  // namespace basalt::bdev
