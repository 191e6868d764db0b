// SPDX-License-Identifier: Apache-2.0
#include "sim/intruder.h"

#include <optional>

namespace basalt::sim {
namespace {

constexpr Duration takeover_timeout = seconds(2);

Task<void> take_over(bdev::Member* member, uint64_t epoch, std::optional<Result<bdev::MemberInfo>>* result) {
  auto begin = hop(member->home());
  co_await begin;
  auto taking = member->takeover(epoch, takeover_timeout);
  result->emplace(co_await taking);
}

}  // namespace

Intruder::Intruder(Cluster& cluster, const std::string& name)
    : cluster_(cluster), process_(cluster.world().add_node(name)) {}

void Intruder::kill(std::unique_ptr<Intruder> intruder) {
  intruder->process_.node().crash();
  intruder->process_.free_memory();
  keep_for_ever(intruder.release());
}

Result<bdev::MemberInfo> Intruder::take(DiskNode& disk, const std::string& replica, uint64_t epoch) {
  if (member_ != nullptr) keep_for_ever(member_.release());
  bdev::MemberOptions options;
  options.name = "intruder";
  options.address = {disk.options().endpoint.address, std::to_string(disk.options().endpoint.port)};
  options.subnqn = replica_nqn(replica);
  options.hostnqn = "nqn.2026-01.sim:intruder";
  member_ = std::make_unique<bdev::Member>(process_.reactor(), transport_, options);
  std::optional<Result<bdev::MemberInfo>> result;
  spawn(take_over(member_.get(), epoch, &result));
  BASALT_ASSERT(cluster_.run_until([&] { return result.has_value(); }));
  return *result;
}

nvme::Status Intruder::io(bdev::IoType type, uint64_t lba) {
  bool done = false;
  data_.assign(block_bytes, 0x77);
  Iovec iov{data_.data(), data_.size()};
  bdev::Io io;
  io.type = type;
  io.offset_blocks = lba;
  io.count_blocks = 1;
  io.iov = &iov;
  io.iov_count = 1;
  io.context = &done;
  io.done = [](bdev::Io* ended) { *static_cast<bool*>(ended->context) = true; };
  member_->submit(&io);
  BASALT_ASSERT(cluster_.run_until([&] { return done; }));
  return io.status;
}

}  // namespace basalt::sim
