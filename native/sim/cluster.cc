// SPDX-License-Identifier: Apache-2.0
#include "sim/cluster.h"

namespace basalt::sim {
namespace {
constexpr uint16_t disk_port = 21000;
constexpr uint16_t controller_port = 22000;
constexpr uint64_t volume_stamp = 1;
// Superblocks, journal and checkpoints beside the data.
constexpr uint64_t disk_overhead_bytes = uint64_t{6} << 20;

std::string replica_name(size_t leg, size_t copy) {
  return "r" + std::to_string(leg) + "." + std::to_string(copy);
}

// A logical block is the least that an NVMe device writes whole when its power goes.
env::SimKnobs with_whole_blocks(env::SimKnobs knobs) {
  knobs.disk_atomic_bytes = block_bytes;
  return knobs;
}
}  // namespace

Cluster::Cluster(uint64_t seed, const ClusterShape& shape)
    : shape_(shape),
      world_(std::make_unique<env::SimWorld>(seed, with_whole_blocks(shape.world))),
      store_(std::make_unique<SimStore>(*world_, shape.store)) {
  BASALT_ASSERT(shape.copies <= shape.disk_nodes);
  std::vector<DiskNodeOptions> disks(shape.disk_nodes);
  for (size_t i = 0; i < disks.size(); i++) {
    disks[i].name = "d" + std::to_string(i + 1);
    disks[i].endpoint.port = static_cast<uint16_t>(disk_port + i);
    disks[i].replica_bytes = shape.leg_blocks * block_bytes + bdev::leg_tail::tail_bytes;
    disks[i].disk_bytes = disk_overhead_bytes + 2 * shape.legs * disks[i].replica_bytes;
    disks[i].link = (shape.disks_without_link >> i & 1) == 0;
    disks[i].bugs = shape.bugs;
  }
  volume_.leg_blocks = shape.leg_blocks;
  if (shape.brief_marks) {
    volume_.mark_region_bytes = 16 * 1024;
    volume_.mark_rest = milliseconds(20);
  }
  Leadership leadership;
  leadership.lease = shape.lease;
  for (size_t leg = 0; leg < shape.legs; leg++) {
    std::vector<ReplicaPlace> places;
    std::vector<InSyncMember> in_sync;
    for (size_t copy = 0; copy < shape.copies; copy++) {
      DiskNodeOptions& disk = disks[(leg + copy) % disks.size()];
      disk.replicas.push_back(replica_name(leg, copy));
      places.push_back({disk.replicas.back(), disk.endpoint});
      in_sync.push_back({disk.replicas.back(), ""});
    }
    volume_.legs.push_back(places);
    leadership.legs.push_back(in_sync);
  }
  store_->put(leadership);
  for (DiskNodeOptions& options : disks)
    disks_.push_back(std::make_unique<DiskNode>(*world_, options));
  ControllerNodeOptions controller;
  controller.volume = &volume_;
  controller.timing = shape.timing;
  controller.bugs = shape.bugs;
  SimHostOptions host;
  for (size_t i = 0; i < shape.controllers; i++) {
    const auto port = static_cast<uint16_t>(controller_port + i);
    controller.order.push_back({"c" + std::to_string(i + 1), {"127.0.0.1", port}});
    host.controllers.push_back({"127.0.0.1", port});
  }
  for (const ControllerPeer& peer : controller.order) {
    controller.name = peer.name;
    controller.endpoint = peer.endpoint;
    controllers_.push_back(std::make_unique<ControllerNode>(*world_, *store_, controller));
  }
  host.volume = volume_stamp;
  host.timing = shape.host_timing;
  for (size_t i = 0; i < shape.hosts; i++) {
    host.name = "h" + std::to_string(i + 1);
    hosts_.push_back(std::make_unique<SimHost>(*world_, host, log_));
  }
}

Cluster::~Cluster() {
  for (const auto& disk : disks_) {
    disk->kill();
    env::SimDisk& contents = disk->disk();
    contents.resize(0);
  }
  // The dead refer to their nodes, and these to the world.
  hosts_.clear();
  controllers_.clear();
  disks_.clear();
  keep_for_ever(world_.release());
  keep_for_ever(store_.release());
}

bool Cluster::start() {
  for (const auto& disk : disks_)
    disk->start();
  // The first one has it; the others find it driven.
  controllers_[0]->start();
  for (const auto& host : hosts_)
    host->start();
  if (!run_until([this] { return active() == 0; }, seconds(30))) return false;
  for (size_t i = 1; i < controllers_.size(); i++)
    controllers_[i]->start();
  return run_until(
      [this] {
        for (const auto& host : hosts_) {
          if (!host->connected()) return false;
        }
        return active() >= 0 && (redundant() || shape_.bugs.promote_before_takeover);
      },
      seconds(60));
}

int Cluster::active() {
  for (size_t i = 0; i < controllers_.size(); i++) {
    const ControllerNode& controller = *controllers_[i];
    if (controller.state() == ControllerState::active && controller.epoch() == store_->present().value.epoch) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

bool Cluster::redundant() {
  const int index = active();
  if (index < 0) return false;
  const Leadership& present = store_->present().value;
  for (size_t leg = 0; leg < volume_.legs.size(); leg++) {
    if (present.legs[leg].size() != volume_.legs[leg].size()) return false;
    // The controller may not have noticed yet that one of them was restarted, and what its cache held is gone.
    for (const InSyncMember& member : present.legs[leg]) {
      if (!member.incarnation.empty() && member.incarnation != disk_of(member.replica).incarnation()) return false;
    }
  }
  Assembly& assembly = *controllers_[static_cast<size_t>(index)]->assembly();
  for (size_t leg = 0; leg < assembly.leg_count(); leg++) {
    size_t in_sync = 0;
    for (const bdev::LegMemberInfo& member : assembly.leg(leg).members())
      in_sync += member.state == bdev::MemberState::in_sync && !member.failed;
    if (in_sync != volume_.legs[leg].size()) return false;
  }
  return assembly.clean();
}

DiskNode& Cluster::disk_of(const std::string& replica) {
  for (const auto& disk : disks_) {
    for (const std::string& name : disk->options().replicas) {
      if (name == replica) return *disk;
    }
  }
  BASALT_ASSERT(false);
  return *disks_[0];
}

void Cluster::supervise() {
  for (const auto& disk : disks_) {
    if (disk->failed()) disk->kill();
    if (!disk->up()) disk->start();
  }
}

bool Cluster::converge(Duration limit) {
  world_->heal_all();
  world_->clear_links();
  store_->heal();
  for (const auto& disk : disks_) {
    env::SimDisk& faults = disk->disk();
    faults.fail_reads = faults.fail_writes = faults.fail_flushes = faults.hang = false;
    faults.extra_delay = {};
    disk->node().resume();
  }
  for (const auto& controller : controllers_) {
    controller->node().resume();
    if (!controller->up()) controller->start();
  }
  for (const auto& host : hosts_)
    host->node().resume();
  healed_ns_ = world_->now().ns;
  const Instant end = world_->now() + limit;
  const auto at_rest = [this] { return log_.pending_count == 0 && redundant(); };
  while (world_->now() < end) {
    supervise();
    if (run_until(at_rest, milliseconds(500))) return true;
  }
  return false;
}

std::string Cluster::unrest() {
  std::string text;
  const int index = active();
  const Leadership& present = store_->present().value;
  text += "  store: epoch " + std::to_string(present.epoch) + " " + present.controller +
          "; active: " + (index < 0 ? "nobody" : controllers_[static_cast<size_t>(index)]->name()) +
          "; pending: " + std::to_string(log_.pending_count) + "\n";
  for (const auto& disk : disks_)
    text += "  " + disk->name() +
            (disk->ready() ? " ready"
             : disk->up()  ? " up"
                           : " down") +
            (disk->failed() ? ", its store failed" : "") + "\n";
  for (size_t leg = 0; index >= 0 && leg < volume_.legs.size(); leg++) {
    Assembly& assembly = *controllers_[static_cast<size_t>(index)]->assembly();
    text += "  leg " + std::to_string(leg) + ": " + std::to_string(present.legs[leg].size()) + " in the set;";
    for (const bdev::LegMemberInfo& member : assembly.leg(leg).members()) {
      static constexpr const char* states[] = {"empty", "in sync", "joining", "copied"};
      text += " " + member.name + " " + states[static_cast<size_t>(member.state)] + (member.failed ? " failed" : "");
    }
    text += "\n";
  }
  for (size_t i = 0, told = 0; i < log_.ops.size() && told < 4; i++) {
    if (done(i)) continue;
    told++;
    text += "  " + check::describe(check::History{}, log_.ops[i]) + "\n";
  }
  return text;
}

void Cluster::power_cut_everything() {
  // Answers on their way go with the power: whoever was told was told before it.
  for (const auto& host : hosts_) {
    for (const auto& controller : controllers_)
      world_->cut_connections(host->name(), controller->name());
  }
  run_for(nanoseconds(1));
  power_cuts_.push_back({world_->now().ns});
  for (const auto& disk : disks_) {
    if (disk->up()) {
      disk->power_cut();
    } else {
      disk->disk().power_cut(world_->random());
    }
  }
  for (const auto& controller : controllers_)
    controller->kill();
}

void Cluster::divide() {
  world_->partition("c1", "c2");
  world_->partition("c1", "d2");
  world_->partition("c2", "d1");
  store_->set_cut("c1", true);
}

namespace {

Task<void> read_image(bdev::Lvol* lvol, Reactor* reactor, std::vector<uint8_t>* bytes, bool* done) {
  auto begin = hop(*reactor);
  co_await begin;
  const bdev::Handle handle(*lvol, *reactor);
  constexpr uint64_t step_blocks = 64;
  // What lies behind the data (the leg's own tail) is nobody's value.
  const uint64_t count_blocks = bytes->size() / block_bytes;
  for (uint64_t block = 0; block < count_blocks; block += step_blocks) {
    const uint64_t count = std::min(step_blocks, count_blocks - block);
    Iovec iov{bytes->data() + block * block_bytes, count * block_bytes};
    bdev::Io io;
    io.offset_blocks = block;
    io.count_blocks = static_cast<uint32_t>(count);
    io.iov = &iov;
    io.iov_count = 1;
    auto waiting = bdev::io_wait(handle, io);
    const nvme::Status status = co_await waiting;
    BASALT_ASSERT(status.ok());
  }
  *done = true;
}

}  // namespace

std::vector<BlockValue> Cluster::image(const std::string& replica) {
  DiskNode& node = disk_of(replica);
  BASALT_ASSERT(node.ready());
  std::vector<uint8_t> bytes(shape_.leg_blocks * block_bytes);
  bool done = false;
  spawn(read_image(node.lvol(replica), &node.reactor(), &bytes, &done));
  BASALT_ASSERT(run_until([&] { return done; }, seconds(60)));
  std::vector<BlockValue> values;
  for (uint64_t block = 0; block < shape_.leg_blocks; block++)
    values.push_back(read_stamp(bytes.data() + block * block_bytes));
  return values;
}

History Cluster::history(bool images) {
  History history;
  history.volume = volume_stamp;
  history.power_cuts = power_cuts_;
  history.healed_ns = healed_ns_;
  if (images) {
    for (size_t leg = 0; leg < volume_.legs.size(); leg++) {
      for (const ReplicaPlace& place : volume_.legs[leg])
        history.replicas.push_back({place.replica, leg, image(place.replica)});
    }
  }
  history.ops.assign(log_.ops.begin(), log_.ops.end());
  return history;
}

std::string Cluster::verdict(bool images) {
  const auto violation = check_history(history(images));
  return violation ? violation->explanation : "";
}

}  // namespace basalt::sim
