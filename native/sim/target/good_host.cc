// SPDX-License-Identifier: Apache-2.0
#include "sim/target/good_host.h"

#include <algorithm>

#include "bdev/handle.h"
#include "sim/target/target_node.h"

namespace basalt::sim {

GoodHost::GoodHost(env::SimWorld& world, size_t index, Options options, Arena& arena)
    : world_(world),
      node_(world.add_node("h" + std::to_string(index))),
      index_(index),
      options_(std::move(options)),
      reactor_(node_, arena, {}),
      transport_({.digests = {options_.digests, options_.digests}}),
      oracle_(index + 1, own_blocks) {
  BASALT_ASSERT(reactor_.init().ok());
  loop_ = node_.start(reactor_, {});
}

GoodHost::~GoodHost() = default;

void GoodHost::connect() {
  spawn(connect_path());
}

Task<void> GoodHost::connect_path() {
  bdev::MultipathOptions options;
  options.name = "volume";
  options.subnqn = good_subnqn;
  options.hostnqn = good_hostnqn + std::to_string(index_);
  options.ctrlr_loss_timeout = seconds(3600);
  options.reconnect_delay_max = milliseconds(500);
  options.connect_timeout = milliseconds(800);
  options.command_timeout = seconds(2);
  options.keep_alive_ms = 500;
  options.resend_at_once = options_.resend_at_once;
  controller_ = std::make_unique<bdev::NvmfController>(reactor_, options);
  for (const env::Address& path : options_.paths) {
    const nvmf::HostAddress target{path.host, std::to_string(path.port)};
    for (;;) {
      auto adding = controller_->add_path(transport_, target);
      const Outcome added = co_await adding;
      if (added) break;
      co_await sleep_for(reactor_, milliseconds(50));
    }
  }
  controller_->bdevs().front()->set_policy(options_.policy);
  connected_ = true;
}

bdev::Bdev& GoodHost::bdev() {
  return *controller_->bdevs().front();
}

void GoodHost::step(env::SimRandom& random) {
  const uint64_t first = random.below(own_blocks);
  const auto count = static_cast<uint32_t>(std::min(own_blocks - first, 1 + random.below(random.chance(0.2) ? 40 : 4)));
  const bool fua = random.chance(0.1);
  op_count_++;
  switch (random.below(8)) {
    case 0:
    case 1:
    case 2:
      return spawn(change(bdev::IoType::write, first, count, fua));
    case 3:
      return spawn(change(random.chance(0.5) ? bdev::IoType::unmap : bdev::IoType::write_zeroes, first, count, false));
    case 4:
      return spawn(flush());
    default:
      return spawn(read(first, count));
  }
}

void GoodHost::ended(uint64_t what, nvme::Status status) {
  active_count_--;
  digest_ = (digest_ ^ (what << 16 ^ status.value)) * 0x100000001b3;
  if (!status.ok() && violation_.empty()) violation_ = "a request of a good host failed: " + nvme::to_string(status);
}

Task<void> GoodHost::change(bdev::IoType type, uint64_t first, uint32_t count, bool fua) {
  for (uint64_t b = first; b < first + count; b++) {
    if (changing_[b]) co_return;
  }
  const bool writes = type == bdev::IoType::write;
  const uint64_t sequence = writes ? next_sequence_++ : 0;
  std::vector<uint8_t> data(writes ? size_t{count} * oracle_block_bytes : 0);
  if (writes) fill_tagged(data.data(), oracle_.volume(), first, count, sequence);
  Iovec piece{data.data(), data.size()};
  bdev::Io io;
  io.type = type;
  io.fua = fua;
  io.offset_blocks = place(first);
  io.count_blocks = count;
  io.iov = &piece;
  io.iov_count = writes ? 1 : 0;
  active_count_++;
  for (uint64_t b = first; b < first + count; b++)
    changing_[b] = true;
  const auto id = oracle_.change_begins(first, count, sequence);
  const bdev::Handle handle(bdev(), reactor_);
  const nvme::Status status = co_await bdev::io_wait(handle, io);
  for (uint64_t b = first; b < first + count; b++)
    changing_[b] = false;
  oracle_.change_ends(id, first, count, status.ok() ? BlockOracle::Ending::done : BlockOracle::Ending::unknown);
  ended(id, status);
}

Task<void> GoodHost::read(uint64_t first, uint32_t count) {
  std::vector<uint8_t> data(size_t{count} * oracle_block_bytes, 0xee);
  Iovec piece{data.data(), data.size()};
  bdev::Io io;
  io.type = bdev::IoType::read;
  io.offset_blocks = place(first);
  io.count_blocks = count;
  io.iov = &piece;
  io.iov_count = 1;
  active_count_++;
  const uint64_t begun = oracle_.read_begins();
  const bdev::Handle handle(bdev(), reactor_);
  const nvme::Status status = co_await bdev::io_wait(handle, io);
  ended(begun, status);
  if (!status.ok()) co_return;
  const auto wrong = oracle_.judge_read(begun, first, data.data(), count);
  oracle_.read_ends(begun);
  if (wrong && violation_.empty()) violation_ = node_.name() + " read what cannot be there: " + *wrong;
}

Task<void> GoodHost::flush() {
  bdev::Io io;
  io.type = bdev::IoType::flush;
  active_count_++;
  const uint64_t begun = oracle_.flush_begins();
  const bdev::Handle handle(bdev(), reactor_);
  const nvme::Status status = co_await bdev::io_wait(handle, io);
  if (status.ok()) oracle_.flush_ends(begun);
  ended(begun, status);
}

void GoodHost::read_everything() {
  for (uint64_t first = 0; first < own_blocks; first += 16)
    spawn(read(first, 16));
}

void GoodHost::start_closing() {
  spawn(close());
}

Task<void> GoodHost::close() {
  auto closing = controller_->close();
  co_await closing;
  controller_.reset();
  closed_ = true;
}

}  // namespace basalt::sim
