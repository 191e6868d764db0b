// SPDX-License-Identifier: Apache-2.0
// basalt_perf: a closed loop of random reads or writes through the project's own initiator against an NVMe/TCP target;
// says what it achieved as one line of JSON (bench/meter.h).
//
//   basalt_perf --port 4420 --nqn nqn.… --op read|write --depth 32 --milliseconds 1000 [--server-pid N,...]
//               [--bytes 4096] [--queues 1] [--digests 1] [--pause-ms 0] [--host bench] [--announce 1] [--fill 1]
//
// `depth` is over all queues. With a pause, each request waits that long after the one before it: with depth 1, what is
// timed are first requests after idleness. `announce` says "running" when the load begins.
#include <condition_variable>
#include <mutex>

#include "bdev/handle.h"
#include "bdev/nvmf/multipath.h"
#include "bench/arguments.h"
#include "bench/meter.h"
#include "env/linux/linux_env.h"
#include "nvmf/transport/tcp/tcp_host.h"

namespace basalt::bench {
namespace {

struct Plan {
  std::string port;
  std::string nqn;
  bool writes = false;
  bool fill = false;
  unsigned depth = 1;
  uint32_t bytes = 4096;
  uint16_t queues = 1;
  bool digests = false;
  bool announce = false;
  std::string host;
  Duration pause{0};
  Duration length;
  std::string server_pids;
};

class Load {
 public:
  Load(Reactor& reactor, const Plan& plan, bdev::Bdev& bdev)
      : reactor_(reactor), plan_(plan), bdev_(bdev), meter_(plan.server_pids), slots_(plan.depth) {
    io_blocks_ = plan.bytes / bdev.info().block_size_bytes;
    position_count_ = bdev.info().count_blocks / io_blocks_;
    for (Slot& slot : slots_) {
      slot.load = this;
      slot.buffer = reactor.buffers().take(plan.bytes);
      BASALT_ASSERT(slot.buffer != nullptr);
      std::memset(slot.buffer->data, 0x5a, plan.bytes);
      slot.iov = {slot.buffer->data, plan.bytes};
      slot.pause.slot = &slot;
      slot.pause.run = [](Work* work) {
        Slot* paused = static_cast<Pause*>(work)->slot;
        paused->load->submit(paused);
      };
      slot.io.type = plan.writes ? bdev::IoType::write : bdev::IoType::read;
      slot.io.iov = &slot.iov;
      slot.io.iov_count = 1;
      slot.io.count_blocks = io_blocks_;
      slot.io.context = &slot;
      slot.io.done = done;
    }
  }
  ~Load() {
    for (Slot& slot : slots_)
      reactor_.buffers().give(slot.buffer);
  }
  Task<bool> run() {
    meter_.start(reactor_.env().now(), plan_.length);
    running_count_ = slots_.size();
    for (Slot& slot : slots_)
      next(&slot);
    co_return co_await ended_;
  }
  const Meter& meter() const { return meter_; }

 private:
  struct Slot;
  struct Pause : Timer {
    Slot* slot = nullptr;
  };
  struct Slot {
    bdev::Io io;
    Pause pause;
    Iovec iov;
    Buffer* buffer = nullptr;
    Load* load = nullptr;
    Instant started;
  };
  // Alone, each request is timed by itself; among many, the turn's time will do and costs nothing.
  Instant now() { return slots_.size() == 1 ? reactor_.env().now() : reactor_.now(); }
  void next(Slot* slot) {
    if (plan_.pause.ns == 0) return submit(slot);
    reactor_.arm_after(&slot->pause, plan_.pause);
  }
  void submit(Slot* slot) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    slot->io.offset_blocks = state_ % position_count_ * io_blocks_;
    slot->started = now();
    bdev_.submit(&slot->io);
  }
  static void done(bdev::Io* io) {
    Slot* slot = static_cast<Slot*>(io->context);
    slot->load->completed(slot);
  }
  void completed(Slot* slot) {
    const Instant at = now();
    if (!slot->io.status.ok()) failed_ = true;
    const bool counts = !failed_ && !meter_.over(at);
    if (counts) meter_.complete(at, at - slot->started);
    if (counts && !meter_.over(at + plan_.pause)) return next(slot);
    if (--running_count_ > 0) return;
    meter_.finish(at);
    ended_.set(!failed_);
  }

  Reactor& reactor_;
  const Plan& plan_;
  bdev::Bdev& bdev_;
  Meter meter_;
  std::vector<Slot> slots_;
  uint32_t io_blocks_ = 1;
  uint64_t position_count_ = 1;
  uint64_t state_ = 0x9e3779b97f4a7c15;
  size_t running_count_ = 0;
  bool failed_ = false;
  Signal<bool> ended_;
};

// So that reads find data, and files have their blocks.
Task<bool> fill(Reactor& reactor, bdev::Bdev& bdev) {
  Buffer* buffer = reactor.buffers().take(bdev::io_bytes_max);
  BASALT_ASSERT(buffer != nullptr);
  std::memset(buffer->data, 0xa5, bdev::io_bytes_max);
  const bdev::Handle handle(bdev, reactor);
  const uint64_t step_blocks = bdev::io_bytes_max / bdev.info().block_size_bytes;
  bool good = true;
  for (uint64_t at = 0; good && at < bdev.info().count_blocks; at += step_blocks) {
    const uint64_t count_blocks = std::min(step_blocks, bdev.info().count_blocks - at);
    const Iovec iov{buffer->data, count_blocks * bdev.info().block_size_bytes};
    bdev::Io io;
    io.type = bdev::IoType::write;
    io.offset_blocks = at;
    io.count_blocks = static_cast<uint32_t>(count_blocks);
    io.iov = &iov;
    io.iov_count = 1;
    const nvme::Status status = co_await bdev::io_wait(handle, io);
    good = status.ok();
  }
  reactor.buffers().give(buffer);
  co_return good;
}

Task<int> measure(Reactor& reactor, nvmf::HostTransport& transport, const Plan& plan) {
  bdev::MultipathOptions options;
  options.name = "perf";
  options.subnqn = plan.nqn;
  options.hostnqn = "nqn.2024-01.io.basalt:" + plan.host;
  options.io_queue_count = plan.queues;
  bdev::NvmfController controller(reactor, options);
  auto adding = controller.add_path(transport, {"127.0.0.1", plan.port});
  const Outcome added = co_await adding;
  int code = 1;
  if (!added) {
    std::fprintf(stderr, "basalt_perf: %s\n", added.error().message.c_str());
  } else if (controller.bdevs().empty()) {
    std::fprintf(stderr, "basalt_perf: the subsystem has no namespace\n");
  } else {
    bdev::Bdev& bdev = *controller.bdevs().front();
    bool good = true;
    if (plan.fill) good = co_await fill(reactor, bdev);
    if (good && plan.length.ns > 0) {
      Load load(reactor, plan, bdev);
      auto running = load.run();
      if (plan.announce) {
        std::printf("running\n");
        std::fflush(stdout);
      }
      good = co_await running;
      if (good) std::printf("%s\n", load.meter().report().c_str());
    }
    if (!good) std::fprintf(stderr, "basalt_perf: the device answered with an error\n");
    code = good ? 0 : 1;
  }
  auto closing = controller.close();
  co_await closing;
  co_return code;
}

struct Program : Work {
  Reactor& reactor;
  nvmf::HostTransport& transport;
  const Plan& plan;
  std::mutex mutex;
  std::condition_variable changed;
  bool ended = false;
  int code = 0;
  Program(Reactor& on, nvmf::HostTransport& through, const Plan& what) : reactor(on), transport(through), plan(what) {}
};

Task<void> run_program(Program* program) {
  const int code = co_await measure(program->reactor, program->transport, program->plan);
  const std::lock_guard lock(program->mutex);
  program->code = code;
  program->ended = true;
  program->changed.notify_one();
}

Plan read_plan(int argc, char** argv) {
  Arguments arguments(argc, argv, 1);
  Plan plan;
  plan.port = arguments.text("port");
  plan.nqn = arguments.text("nqn");
  const std::string op = arguments.text("op", "read");
  if (op != "read" && op != "write") Arguments::fail("--op", "must be read or write");
  plan.writes = op == "write";
  plan.depth = static_cast<unsigned>(arguments.number("depth", 1, 1024));
  if (plan.depth == 0) Arguments::fail("--depth", "must be at least 1");
  plan.length = milliseconds(static_cast<int64_t>(arguments.number("milliseconds", 1000, 3'600'000)));
  plan.server_pids = arguments.text("server-pid", "");
  plan.bytes = static_cast<uint32_t>(arguments.number("bytes", 4096, bdev::io_bytes_max));
  if (plan.bytes == 0 || plan.bytes % 4096 != 0) Arguments::fail("--bytes", "must be a multiple of 4096");
  plan.queues = static_cast<uint16_t>(arguments.number("queues", 1, 64));
  plan.host = arguments.text("host", "bench");
  plan.announce = arguments.number("announce", 0, 1) == 1;
  plan.digests = arguments.number("digests", 0, 1) == 1;
  plan.pause = milliseconds(static_cast<int64_t>(arguments.number("pause-ms", 0, 3'600'000)));
  plan.fill = arguments.number("fill", 0, 1) == 1;
  arguments.end();
  return plan;
}

int run(const Plan& plan) {
  const auto env = env::make_linux_env();
  Arena arena(size_t{1} << 30);
  Reactor reactor(*env, arena, {});
  if (auto made = reactor.init(); !made) {
    std::fprintf(stderr, "basalt_perf: %s\n", made.error().message.c_str());
    return 1;
  }
  nvmf::TcpHostTransport transport(nvmf::TcpHostTransport::Options{.digests = {plan.digests, plan.digests}});
  Program program(reactor, transport, plan);
  program.run = [](Work* work) { spawn(run_program(static_cast<Program*>(work))); };
  const auto loop = env->start(reactor, {"perf", -1});
  reactor.post(&program);
  std::unique_lock lock(program.mutex);
  program.changed.wait(lock, [&] { return program.ended; });
  reactor.stop();
  return program.code;
}

}  // namespace
}  // namespace basalt::bench

int main(int argc, char** argv) {
  return basalt::bench::run(basalt::bench::read_plan(argc, argv));
}
