// SPDX-License-Identifier: Apache-2.0
#include "sim/host.h"

namespace basalt::sim {
namespace {
constexpr Duration resend_interval = milliseconds(20);
}

// Its posted work is the submission, then the bdev's.
struct SimHost::Request : bdev::Io {
  SimHost* host = nullptr;
  OpIndex index = 0;
  Iovec piece;
  std::vector<uint8_t> data;
};

struct SimHost::Daemon final : Process {
  Daemon(env::SimNode& node, const SimHostOptions& host_options) : Process(node), options(host_options) {}

  Task<void> run() {
    auto begin = hop(reactor());
    co_await begin;
    bdev::MultipathOptions paths;
    paths.name = options.name;
    paths.subnqn = "nqn.2026-01.sim:volume";
    paths.hostnqn = "nqn.2026-01.sim:" + options.name;
    paths.ctrlr_loss_timeout = seconds(3600);
    paths.reconnect_delay = options.timing.reconnect_delay;
    paths.reconnect_delay_max = options.timing.reconnect_delay_max;
    paths.connect_timeout = options.timing.connect_timeout;
    paths.command_timeout = options.timing.command_timeout;
    paths.keep_alive_ms = options.timing.keep_alive_ms;
    controller = std::make_unique<bdev::NvmfController>(reactor(), paths);
    for (const Endpoint& endpoint : options.controllers) {
      for (;;) {
        const nvmf::HostAddress address{endpoint.address, std::to_string(endpoint.port)};
        auto adding = controller->add_path(transport, address);
        const Outcome added = co_await adding;
        if (added) break;
        co_await sleep_for(reactor(), resend_interval);
      }
    }
    ready = true;
  }

  const SimHostOptions& options;
  nvmf::TcpHostTransport transport;
  std::unique_ptr<bdev::NvmfController> controller;
  bool ready = false;
};

SimHost::SimHost(env::SimWorld& world, SimHostOptions options, OpLog& log)
    : world_(world), options_(std::move(options)), node_(world.add_node(options_.name)), log_(log) {}

SimHost::~SimHost() {
  if (daemon_ == nullptr) return;
  node_.crash();
  bury(daemon_);
}

void SimHost::start() {
  daemon_ = std::make_unique<Daemon>(node_, options_);
  spawn(daemon_->run());
}

bool SimHost::connected() const {
  return daemon_ != nullptr && daemon_->ready;
}

uint64_t SimHost::resent_count() const {
  return connected() ? daemon_->controller->bdevs().front()->resent_count() : 0;
}

OpIndex SimHost::write(uint32_t client, uint64_t lba, uint32_t count_blocks, bool fua) {
  return submit(client, bdev::IoType::write, OpType::write, lba, count_blocks, fua);
}
OpIndex SimHost::read(uint32_t client, uint64_t lba, uint32_t count_blocks) {
  return submit(client, bdev::IoType::read, OpType::read, lba, count_blocks, false);
}
OpIndex SimHost::zero(uint32_t client, uint64_t lba, uint32_t count_blocks, bool unmap) {
  return submit(client, unmap ? bdev::IoType::unmap : bdev::IoType::write_zeroes, OpType::zero, lba, count_blocks,
                false);
}
OpIndex SimHost::flush(uint32_t client) {
  return submit(client, bdev::IoType::flush, OpType::flush, 0, 0, false);
}

OpIndex SimHost::submit(uint32_t client, bdev::IoType type, OpType op_type, uint64_t lba, uint32_t count_blocks,
                        bool fua) {
  BASALT_ASSERT(connected());
  const OpIndex index = log_.ops.size();
  Op& op = log_.ops.emplace_back();
  op.id = index;
  op.client = client;
  op.type = op_type;
  op.fua = fua;
  op.lba = lba;
  op.count_blocks = count_blocks;
  op.invoked_ns = world_.now().ns;
  auto* request = new Request();
  request->host = this;
  request->index = index;
  request->type = type;
  request->fua = fua;
  request->offset_blocks = lba;
  request->count_blocks = count_blocks;
  if (op_type == OpType::read || op_type == OpType::write) {
    request->data.resize(size_t{count_blocks} * block_bytes, 0xee);
    request->piece = {request->data.data(), request->data.size()};
    request->iov = &request->piece;
    request->iov_count = 1;
  }
  if (op_type == OpType::write) {
    op.writer = client;
    op.sequence = ++sequence_;
    for (uint32_t i = 0; i < count_blocks; i++)
      write_stamp(request->data.data() + size_t{i} * block_bytes, {options_.volume, lba + i, op.writer, op.sequence});
  }
  request->done = [](bdev::Io* io) {
    auto* ended = static_cast<Request*>(io);
    ended->host->ended(ended);
  };
  request->run = [](Work* work) {
    auto* begun = static_cast<Request*>(work);
    begun->host->daemon_->controller->bdevs().front()->submit(begun);
  };
  log_.pending_count++;
  daemon_->reactor().post(request);
  return index;
}

void SimHost::ended(Request* request) {
  Op& op = log_.ops[request->index];
  op.completed_ns = world_.now().ns;
  op.status = request->status.ok() ? OpStatus::ok : OpStatus::info;
  if (op.type == OpType::read && request->status.ok()) {
    for (uint32_t i = 0; i < op.count_blocks; i++)
      op.values.push_back(read_stamp(request->data.data() + size_t{i} * block_bytes));
  }
  log_.pending_count--;
  world_.trace(request->index << 8 ^ request->status.value);
  const OpIndex index = request->index;
  delete request;
  if (on_trace) on_trace(index);
  if (on_done) on_done(index);
}

}  // namespace basalt::sim
