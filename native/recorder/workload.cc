// SPDX-License-Identifier: Apache-2.0
#include "recorder/workload.h"

#include <algorithm>
#include <cstring>

#include "check/stamp.h"

namespace basalt::recorder {
namespace {

using check::Op;
using check::OpType;

constexpr uint64_t op_blocks_max = 32;
constexpr uint64_t usual_blocks_max = 8;
constexpr size_t hot_count = 4;
constexpr uint64_t hot_blocks = 8;
constexpr unsigned place_tries_max = 8;
constexpr size_t unsaved_bytes_max = 16 << 10;
constexpr size_t complaints_max = 5;
// So that a device that is gone does not fill the history with errors.
constexpr Duration pause_after_error = milliseconds(100);
constexpr Duration stop_noticed_within = milliseconds(200);
// What a stall held up is not made up for beyond this.
constexpr Duration arrears_max = seconds(1);

env::FileIo::Type file_type(OpType type) {
  switch (type) {
    case OpType::read:
      return env::FileIo::Type::read;
    case OpType::write:
      return env::FileIo::Type::write;
    case OpType::flush:
      return env::FileIo::Type::flush;
    case OpType::zero:
      return env::FileIo::Type::zero;
  }
  BASALT_ASSERT(false);
}

bool changes(const Op& op) {
  return op.type == OpType::write || op.type == OpType::zero;
}

bool is_set(uint8_t byte) {
  return byte != 0;
}

const char* name_of(OpType type) {
  constexpr const char* names[] = {"read", "write", "flush", "zeroing"};
  return names[static_cast<size_t>(type)];
}

}  // namespace

Task<Outcome> check_blocks(env::BlockFile& device, uint64_t first_block, uint64_t block_count, bool must_be_zero) {
  const env::FileLimits& limits = device.limits();
  if (check::block_bytes % limits.offset_alignment_bytes != 0) {
    co_return Error{Errc::unsupported, "--device: its blocks of " + std::to_string(limits.offset_alignment_bytes) +
                                           " bytes are larger than the history's of 4096"};
  }
  const uint64_t there = limits.size_bytes / check::block_bytes;
  if (first_block >= there || block_count > there - first_block) {
    co_return Error{Errc::invalid_argument, "--blocks: --device has " + std::to_string(there) +
                                                " blocks of 4096 bytes, too few for " + std::to_string(block_count) +
                                                " from " + std::to_string(first_block) + " on"};
  }
  AlignedBuffer buffer(op_blocks_max * check::block_bytes);
  for (uint64_t at = 0; must_be_zero && at < block_count; at += op_blocks_max) {
    const uint64_t first = first_block + at;
    const uint64_t length_bytes = std::min(op_blocks_max, block_count - at) * check::block_bytes;
    FileRequest request(device, env::FileIo::Type::read, first * check::block_bytes, buffer.data(), length_bytes);
    const int error = co_await request;
    if (error != 0) co_return Error{Errc::io, "--device: block " + std::to_string(first) + ": " + std::strerror(error)};
    const uint8_t* const end = buffer.data() + length_bytes;
    const uint8_t* const found = std::find_if(buffer.data(), buffer.data() + length_bytes, is_set);
    if (found == end) continue;
    const uint64_t block = first + static_cast<uint64_t>(found - buffer.data()) / check::block_bytes;
    co_return Error{Errc::exists, "--device: block " + std::to_string(block) +
                                      " is not zero; --erase zeroes all of them first, what they hold is lost"};
  }
  co_return success();
}

Workload::Client::Client(uint32_t client_number, uint64_t seed)
    : number(client_number),
      random(seed ^ (client_number * 0x9e3779b97f4a7c15)),
      buffer(op_blocks_max * check::block_bytes) {}

Workload::Workload(Reactor& reactor, env::BlockFile& device, HistoryLog& log, const WorkloadOptions& options)
    : reactor_(reactor),
      device_(device),
      log_(log),
      options_(options),
      passer_(0, options.seed),
      changing_(options.block_count) {
  for (uint32_t number = 1; number <= options.client_count; number++)
    clients_.push_back(std::make_unique<Client>(number, options.seed));
  for (size_t i = 0; i < hot_count; i++)
    hot_blocks_.push_back(passer_.below(options.block_count));
}

Task<Outcome> Workload::run() {
  if (log_.resumed()) co_await each_piece(passer_, OpType::read);
  if (options_.erase) co_await each_piece(passer_, OpType::zero);
  if (options_.length.ns > 0) end_ = reactor_.env().now() + options_.length;
  for (const std::unique_ptr<Client>& client : clients_)
    spawn(work(*client));
  if (options_.clients_started) options_.clients_started();
  co_await gate_.close();
  co_await each_piece(passer_, OpType::read);
  const bool good = co_await log_.saved();
  if (!good) co_return Error{Errc::io, log_.problem()};
  co_return success();
}

Task<void> Workload::work(Client& client) {
  const bool entered = gate_.enter();
  BASALT_ASSERT(entered);
  const Gate::Leaver leaver(gate_);
  const int64_t interval_ns =
      options_.rate == 0 ? 0 : 1'000'000'000 * int64_t{options_.client_count} / static_cast<int64_t>(options_.rate);
  Instant due = reactor_.env().now() + nanoseconds(static_cast<int64_t>(client.below(interval_ns + 1)));
  while (going_on()) {
    const Instant now = reactor_.env().now();
    if (due > now) {
      Sleep sleep = sleep_for(reactor_, std::min(due - now, stop_noticed_within));
      co_await sleep;
      continue;
    }
    due = std::max(due, now - arrears_max) + nanoseconds(interval_ns);
    started_count_++;
    const bool good = co_await carry_out(client, draw(client));
    if (good) continue;
    Sleep pause = sleep_for(reactor_, pause_after_error);
    co_await pause;
  }
}

bool Workload::going_on() const {
  if (!log_.problem().empty() || reactor_.env().now() >= end_) return false;
  if (options_.operation_count != 0 && started_count_ >= options_.operation_count) return false;
  return !options_.told_to_stop || !options_.told_to_stop();
}

Task<void> Workload::each_piece(Client& client, OpType type) {
  for (uint64_t at = 0; at < options_.block_count && log_.problem().empty(); at += op_blocks_max) {
    Op op;
    op.type = type;
    op.lba = options_.first_block + at;
    op.count_blocks = static_cast<uint32_t>(std::min(op_blocks_max, options_.block_count - at));
    co_await carry_out(client, op);
  }
}

// True: the device carried it out.
Task<bool> Workload::carry_out(Client& client, Op op) {
  op.id = log_.next_id();
  op.client = client.number;
  if (op.type == OpType::write) stamp(client, &op);
  if (changes(op)) {
    set_changing(op, true);
    op.invoked_ns = log_.now_ns();
    log_.announce(op);
    const bool on_record = co_await log_.saved();
    if (!on_record) co_return false;
  }
  FileRequest request(device_, file_type(op.type), op.lba * check::block_bytes, client.buffer.data(),
                      uint64_t{op.count_blocks} * check::block_bytes, op.fua);
  op.invoked_ns = log_.now_ns();
  const int error = co_await request;
  op.completed_ns = log_.now_ns();
  op.status = error == 0 ? check::OpStatus::ok : check::OpStatus::info;
  for (uint32_t i = 0; op.type == OpType::read && error == 0 && i < op.count_blocks; i++)
    op.values.push_back(check::read_stamp(client.buffer.data() + size_t{i} * check::block_bytes));
  if (changes(op)) set_changing(op, false);
  count(op, error);
  log_.add(op);
  if (log_.unsaved_bytes() > unsaved_bytes_max) co_await log_.saved();
  co_return error == 0;
}

Op Workload::draw(Client& client) {
  Op op;
  const uint64_t percent = client.below(100);
  if (percent < 5) {
    op.type = OpType::flush;
    return op;
  }
  op.type = percent < 10 ? OpType::zero : percent < 55 ? OpType::write : OpType::read;
  op.fua = op.type == OpType::write && client.below(8) == 0;
  place(client, &op);
  for (unsigned tries = 1; changes(op) && is_changing(op); tries++) {
    if (tries == place_tries_max) {
      op.type = OpType::read;
      op.fua = false;
    } else {
      place(client, &op);
    }
  }
  return op;
}

// Half of them in a few hot places, the others anywhere.
void Workload::place(Client& client, Op* op) {
  const uint64_t most = client.below(16) == 0 ? op_blocks_max : usual_blocks_max;
  const uint64_t count = 1 + client.below(std::min(most, options_.block_count));
  uint64_t at = client.below(options_.block_count);
  if (client.below(2) == 0) at = hot_blocks_[client.below(hot_blocks_.size())] + client.below(hot_blocks);
  op->lba = options_.first_block + std::min(at, options_.block_count - count);
  op->count_blocks = static_cast<uint32_t>(count);
}

bool Workload::is_changing(const Op& op) const {
  const auto begin = changing_.begin() + static_cast<ptrdiff_t>(op.lba - options_.first_block);
  return std::find(begin, begin + op.count_blocks, true) != begin + op.count_blocks;
}

void Workload::set_changing(const Op& op, bool changing) {
  const auto begin = changing_.begin() + static_cast<ptrdiff_t>(op.lba - options_.first_block);
  std::fill_n(begin, op.count_blocks, changing);
}

void Workload::stamp(Client& client, Op* op) {
  op->writer = client.number;
  op->sequence = log_.next_sequence(op->writer);
  for (uint32_t i = 0; i < op->count_blocks; i++) {
    check::write_stamp(client.buffer.data() + size_t{i} * check::block_bytes,
                       {log_.volume(), op->lba + i, op->writer, op->sequence});
  }
}

void Workload::count(const Op& op, int error) {
  uint64_t* const counts[] = {&totals_.read_count, &totals_.write_count, &totals_.flush_count, &totals_.zero_count};
  ++*counts[static_cast<size_t>(op.type)];
  totals_.longest = std::max(totals_.longest, nanoseconds(op.completed_ns - op.invoked_ns));
  if (error == 0) return;
  totals_.error_count++;
  if (totals_.complaints.size() == complaints_max) return;
  totals_.complaints.push_back(std::string(name_of(op.type)) + " of " + std::to_string(op.count_blocks) +
                               " blocks from " + std::to_string(op.lba) + " on: " + std::strerror(error));
}

}  // namespace basalt::recorder
