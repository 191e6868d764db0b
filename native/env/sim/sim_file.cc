// SPDX-License-Identifier: Apache-2.0
// Files of the simulated world: requests wait for a random time, then the disk carries them out.
#include "base/assert.h"
#include "base/probe.h"
#include "env/sim/sim_poller.h"

namespace basalt::env {

class SimFile final : public BlockFile {
 public:
  SimFile(SimPoller& poller, SimDisk& disk) : poller_(poller), disk_(disk), limits_{disk.size_bytes(), 1, 512} {
    disk.open_ = true;
  }
  ~SimFile() override {
    *alive_ = false;
    disk_.open_ = false;
    poller_.forget(this);
  }
  const FileLimits& limits() const override { return limits_; }

  void submit(FileIo* io) override {
    SimWorld& world = poller_.node().world();
    const SimKnobs& knobs = world.knobs();
    Duration delay = world.random_delay(knobs.disk_delay_min, knobs.disk_delay_max) + disk_.extra_delay;
    if (disk_.extra_delay > Duration{}) reach(Mark::fault_disk_slow);
    if (world.random().strikes(disk_.slow_chance)) {
      reach(Mark::fault_disk_slow);
      delay = delay + disk_.slow_delay;
    }
    disk_.in_flight_.push_back(io);
    // A flush covers what has completed by now; what completes while it waits, it need not.
    perform_later(io, delay, disk_.sequence_);
  }

 private:
  // The transfer happens at a random moment of the request's life; a crash before it leaves either outcome.
  void perform_later(FileIo* io, Duration delay, uint64_t flush_until) {
    SimWorld& world = poller_.node().world();
    const uint64_t incarnation = poller_.node().incarnation();
    world.at(world.now() + delay, [this, io, flush_until, alive = alive_, incarnation] {
      if (*alive && poller_.node().incarnation() == incarnation) perform(io, flush_until);
    });
  }

  void perform(FileIo* io, uint64_t flush_until) {
    if (disk_.hang) {
      reach(Mark::fault_disk_hung);
      return perform_later(io, milliseconds(1), flush_until);
    }
    std::erase(disk_.in_flight_, io);
    io->error = disk_.carry_out(*io, flush_until, poller_.node().world().random());
    if (disk_.on_boundary && io->type != FileIo::Type::read) disk_.on_boundary(io->type);
    poller_.queue(io, this);
  }

  SimPoller& poller_;
  SimDisk& disk_;
  FileLimits limits_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

Result<std::unique_ptr<BlockFile>> SimPoller::open(const FileOptions& options) {
  SimDisk& disk = node_.world().disk(node_.name(), options.path);
  if (options.create_bytes != 0) {
    if (disk.size_bytes() != 0) return Error{Errc::exists, options.path + ": exists"};
    disk.resize(options.create_bytes);
  }
  if (disk.size_bytes() == 0) return Error{Errc::not_found, options.path + ": no such file"};
  if (disk.open_) return Error{Errc::busy, options.path + ": in use"};
  return std::unique_ptr<BlockFile>(std::make_unique<SimFile>(*this, disk));
}

}  // namespace basalt::env
