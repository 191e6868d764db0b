// SPDX-License-Identifier: Apache-2.0
// basalt_bdev_copy: makes a range of one bdev read as the same range of another. Only blocks that differ are written,
// so that what a target shares with others stays shared; blocks of zeroes are written as such.
//
// Thread: the management reactor. The caller goes range by range: it sets the pace, and can end it between any two.
// Invariants: - success means: the whole range is equal, and durable where `flush` was asked for
//             - a source that changes meanwhile, or a second writer of the target, is the caller's mistake
#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/rpc/fields.h"
#include "engine/rpc/modules.h"

namespace basalt::rpc {
namespace {

constexpr uint64_t copy_piece_bytes = 256 * 1024;
constexpr size_t copy_workers_max = 4;
constexpr uint64_t copy_blocks_max = uint64_t{1} << 20;

// One call, and what its workers share.
struct RangeCopy {
  bdev::Handle source;
  bdev::Handle target;
  uint64_t next_block = 0;
  uint64_t end_block = 0;
  uint32_t block_bytes = 0;
  uint64_t written_blocks = 0;
  Outcome outcome = success();
  size_t pending_count = 1;
  std::coroutine_handle<> waiter;

  void worker_done() {
    if (--pending_count == 0 && waiter) waiter.resume();
  }
  bool await_ready() noexcept { return --pending_count == 0; }
  void await_suspend(std::coroutine_handle<> coroutine) noexcept { waiter = coroutine; }
  void await_resume() const noexcept {}
};

class BdevCopy final : public Module {
 public:
  explicit BdevCopy(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override { dispatcher.add("basalt_bdev_copy", this, &BdevCopy::copy); }
  void abort() override { aborted_ = true; }

 private:
  static constexpr const char* user = "basalt_bdev_copy";

  Task<RpcResult> copy(JsonValue params) {
    Fields in(params);
    const std::string source = in.string("source");
    const std::string target = in.string("target");
    const uint64_t first_block = in.natural("offset_blocks");
    const uint64_t count_blocks = in.natural("num_blocks", {.min = 1, .max = copy_blocks_max});
    const bool flush = in.boolean_or("flush", false);
    if (auto error = in.error()) co_return *error;
    if (source == target) co_return Error{Errc::invalid_argument, "target: must be another bdev than the source"};
    auto from = engine_.bdevs().open(source, user);
    if (!from) co_return std::move(from).error();
    auto to = engine_.bdevs().open(target, user);
    if (!to) {
      engine_.bdevs().release(source, user);
      co_return std::move(to).error();
    }
    RangeCopy range;
    range.source = bdev::Handle(**from, engine_.management());
    range.target = bdev::Handle(**to, engine_.management());
    range.next_block = first_block;
    range.end_block = first_block + count_blocks;
    range.outcome = check(range);
    if (range.outcome) {
      auto running = run(range, flush);
      co_await running;
    }
    engine_.bdevs().release(target, user);
    engine_.bdevs().release(source, user);
    if (!range.outcome) co_return std::move(range.outcome).error();
    auto result = JsonValue::object();
    result.set("written_blocks", range.written_blocks);
    co_return result;
  }

  static Outcome check(RangeCopy& range) {
    const bdev::BdevInfo& source = range.source.info();
    const bdev::BdevInfo& target = range.target.info();
    range.block_bytes = source.block_size_bytes;
    if (source.block_size_bytes != target.block_size_bytes) {
      return Error{Errc::invalid_argument, target.name + " has another block size than " + source.name};
    }
    for (const bdev::Handle* side : {&range.source, &range.target}) {
      if (range.end_block <= side->bdev().count_blocks()) continue;
      return Error{Errc::invalid_argument, side->info().name + " has " + std::to_string(side->bdev().count_blocks()) +
                                               " blocks, not " + std::to_string(range.end_block)};
    }
    return success();
  }

  Task<void> run(RangeCopy& range, bool flush) {
    for (size_t i = 0; i < copy_workers_max; i++) {
      range.pending_count++;
      spawn(work(range));
    }
    co_await range;
    if (!range.outcome || !flush) co_return;
    bdev::Io io;
    io.type = bdev::IoType::flush;
    const nvme::Status status = co_await bdev::io_wait(range.target, io);
    if (!status.ok()) range.outcome = failed(range.target, "flush", status);
  }

  static Error failed(const bdev::Handle& at, const char* what, nvme::Status status) {
    return Error{Errc::io, at.info().name + ": " + what + ": " + nvme::to_string(status)};
  }

  Task<void> work(RangeCopy& range) {
    std::vector<char> wanted(copy_piece_bytes);
    std::vector<char> present(copy_piece_bytes);
    const uint64_t piece_blocks = copy_piece_bytes / range.block_bytes;
    while (range.outcome && range.next_block < range.end_block) {
      if (aborted_) {
        range.outcome = Error{Errc::busy, "the engine ends"};
        break;
      }
      const uint64_t block = range.next_block;
      const uint64_t count = std::min(piece_blocks, range.end_block - block);
      range.next_block = block + count;
      auto reading_source = read(range, range.source, block, count, wanted);
      if (!co_await reading_source) break;
      auto reading_target = read(range, range.target, block, count, present);
      if (!co_await reading_target) break;
      auto writing = write_differences(range, block, count, wanted, present);
      if (!co_await writing) break;
    }
    range.worker_done();
  }

  static Task<bool> read(RangeCopy& range, const bdev::Handle& from, uint64_t block, uint64_t count,
                         std::vector<char>& into) {
    Iovec iov{into.data(), static_cast<size_t>(count * range.block_bytes)};
    bdev::Io io;
    io.type = bdev::IoType::read;
    io.offset_blocks = block;
    io.count_blocks = static_cast<uint32_t>(count);
    io.iov = &iov;
    io.iov_count = 1;
    const nvme::Status status = co_await bdev::io_wait(from, io);
    if (!status.ok() && range.outcome) range.outcome = failed(from, "read", status);
    co_return status.ok();
  }

  // One request for each run of neighbouring blocks that differ, and are zero or are not.
  static Task<bool> write_differences(RangeCopy& range, uint64_t block, uint64_t count, std::vector<char>& wanted,
                                      const std::vector<char>& present) {
    const size_t bytes = range.block_bytes;
    enum class Kind : uint8_t { equal, zero, data };
    const auto kind_of = [&](uint64_t at) {
      const char* one = wanted.data() + at * bytes;
      if (std::memcmp(one, present.data() + at * bytes, bytes) == 0) return Kind::equal;
      return one[0] == 0 && std::memcmp(one, one + 1, bytes - 1) == 0 ? Kind::zero : Kind::data;
    };
    for (uint64_t at = 0; at < count;) {
      const Kind kind = kind_of(at);
      uint64_t end = at + 1;
      while (end < count && kind_of(end) == kind)
        end++;
      if (kind != Kind::equal) {
        Iovec iov{wanted.data() + at * bytes, static_cast<size_t>((end - at) * bytes)};
        bdev::Io io;
        io.type = kind == Kind::zero ? bdev::IoType::write_zeroes : bdev::IoType::write;
        io.offset_blocks = block + at;
        io.count_blocks = static_cast<uint32_t>(end - at);
        io.iov = kind == Kind::zero ? nullptr : &iov;
        io.iov_count = kind == Kind::zero ? 0 : 1;
        const nvme::Status status = co_await bdev::io_wait(range.target, io);
        if (!status.ok() && range.outcome) range.outcome = failed(range.target, "write", status);
        if (!status.ok()) co_return false;
        range.written_blocks += end - at;
      }
      at = end;
    }
    co_return true;
  }

  Engine& engine_;
  bool aborted_ = false;
};

}  // namespace

std::unique_ptr<Module> make_bdev_copy(Engine& engine) {
  return std::make_unique<BdevCopy>(engine);
}

}  // namespace basalt::rpc
