// SPDX-License-Identifier: Apache-2.0
// Random work on several lvols, cut off at every write and flush of the base. From each crash state a second store is
// loaded and everything is compared with an oracle that knows, per 512-byte sector, what it may hold:
//  - after a kill of the process: the last write that completed (or one in flight)
//  - after a power cut: what the last flush covered, or anything written since, never anything else
// In every other run most lvols are checksummed: nothing that a crash leaves may look damaged there.
// Every sector on the disk carries who wrote it (lvol, block, sequence), so that a foreign byte shows at once.
#include <cstdlib>
#include <map>

#include "bdev/lvol/crash_disk_test_util.h"
#include "bdev/lvol/lvstore.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t seeds_of_a_run = testing::rounds_here({.plain = 16, .asan = 5, .tsan = 1});

using namespace test;  // NOLINT

constexpr uint64_t disk_bytes = 3 << 20;
constexpr uint32_t cluster_bytes = 64 << 10;
constexpr uint32_t lvol_blocks = 96;
constexpr uint32_t sectors_per_block = 8;

// A sector's content: a tag, repeated. Sequence 0: zeroes.
struct Tag {
  uint64_t lvol = 0;
  uint64_t block = 0;
  uint64_t sequence = 0;
  auto operator<=>(const Tag&) const = default;
};

constexpr uint64_t zeroes_bit = uint64_t{1} << 63;
uint64_t content(uint64_t version) {
  return (version & zeroes_bit) != 0 ? 0 : version;
}

struct BlockOracle {
  uint64_t base[sectors_per_block] = {};  // what is on stable media, per sector
  std::vector<uint64_t> since;            // versions since, oldest first: a sequence, with zeroes_bit for zeroes
  uint64_t completed = 0;                 // how many of them completed (all, or all but the last)
  bool busy = false;
};

enum class Life { creating, live, deleting };

struct LvolOracle {
  uint64_t number = 0;  // of the tag
  Life life = Life::creating;
  Lvol* lvol = nullptr;
  std::vector<BlockOracle> blocks = std::vector<BlockOracle>(lvol_blocks);
  std::vector<std::string> attributes = {""};  // [0] is stable; more: being set
  uint64_t io_count = 0;
};

class Crash : public ::testing::Test {
 protected:
  void begin(uint64_t seed, std::vector<uint8_t> image) {
    world_ = std::make_unique<World>(seed);
    disk_ = std::make_unique<CrashDisk>(*world_, std::move(image));
  }
  void end() {
    lvols_.clear();
    disk_.reset();
    world_.reset();
  }

  std::unique_ptr<World> world_;
  std::unique_ptr<CrashDisk> disk_;
  std::unique_ptr<LvStore> store_;
  std::map<std::string, LvolOracle> lvols_;
  uint64_t next_number_ = 1;
  uint64_t next_sequence_ = 1;
  uint64_t crash_states_ = 0;
  uint64_t seed_ = 0;

  static void fill(std::vector<uint8_t>& data, uint64_t lvol, uint64_t first_block, uint64_t sequence) {
    for (size_t at = 0; at < data.size(); at += CrashDisk::sector_bytes) {
      const Tag tag{lvol, first_block + at / 4096, sequence};
      for (size_t i = 0; i + sizeof(tag) <= CrashDisk::sector_bytes; i += sizeof(tag))
        std::memcpy(data.data() + at + i, &tag, sizeof(tag));
    }
  }

  // Nothing of the old process but the image is left: everything in flight fails, and the store goes.
  void drop_store() {
    disk_->on_change = {};
    disk_->fault = [](const Io&) { return std::optional(nvme::status::internal_error); };
    world_->settle();
    if (store_ != nullptr) {
      (void)run(*world_, store_->close()).ok();
      world_->settle();
      store_.reset();
    }
  }

  // Loads what a crash left and compares. With `adopt`, what was read becomes the oracle's truth.
  void verify(std::vector<uint8_t> image, bool killed, bool adopt, const char* what) {
    crash_states_++;
    World world(seed_ + crash_states_);
    CrashDisk disk(world, std::move(image));
    disk.in_order = true;
    auto loaded = run(world, LvStore::load(world.reactor, disk.handle()));
    ASSERT_TRUE(loaded.ok()) << what << " seed " << seed_ << " state " << crash_states_ << ": "
                             << loaded.error().message;
    auto store = std::move(*loaded);
    for (auto it = lvols_.begin(); it != lvols_.end();) {
      Lvol* lvol = store->find(it->first);
      if (lvol == nullptr) {
        ASSERT_NE(it->second.life, Life::live) << what << " seed " << seed_ << ": lvol " << it->first << " is gone";
        if (adopt) {
          it = lvols_.erase(it);
          continue;
        }
      } else {
        compare(world, *lvol, it->second, killed, adopt, what);
        if (adopt) it->second.life = Life::live;
      }
      ++it;
    }
    for (Lvol* lvol : store->list())
      ASSERT_TRUE(lvols_.contains(lvol->name())) << what << " seed " << seed_ << ": unknown " << lvol->name();
    if (HasFatalFailure()) std::abort();
    ASSERT_TRUE(run(world, store->close()).ok());
    world.settle();
    store.reset();
    if (adopt) image_ = std::move(disk.bytes_now());
  }

  void compare(World& world, Lvol& lvol, LvolOracle& oracle, bool killed, bool adopt, const char* what) {
    const std::string attribute = lvol.attribute();
    const bool known =
        std::find(oracle.attributes.begin(), oracle.attributes.end(), attribute) != oracle.attributes.end();
    EXPECT_TRUE(known) << what << " seed " << seed_ << ": attribute " << attribute.substr(0, 20);
    if (adopt) oracle.attributes = {attribute};
    const std::vector<uint8_t> data = read_blocks(world, lvol, 0, lvol_blocks);
    for (uint32_t block = 0; block < lvol_blocks; block++) {
      BlockOracle& expected = oracle.blocks[block];
      for (uint32_t sector = 0; sector < sectors_per_block; sector++) {
        const uint8_t* at = data.data() + size_t{block} * 4096 + size_t{sector} * CrashDisk::sector_bytes;
        Tag tag;
        std::memcpy(&tag, at, sizeof(tag));
        bool right = tag == Tag{} || (tag.lvol == oracle.number && tag.block == block && tag.sequence != 0);
        for (size_t i = 0; i + sizeof(tag) <= CrashDisk::sector_bytes; i += sizeof(tag))
          right = right && std::memcmp(at + i, &tag, sizeof(tag)) == 0;
        right = right && admissible(expected, sector, tag.sequence, killed);
        EXPECT_TRUE(right) << what << " seed " << seed_ << " state " << crash_states_ << ": lvol " << lvol.name()
                           << " (" << oracle.number << ") block " << block << " sector " << sector << " holds lvol "
                           << tag.lvol << " block " << tag.block << " sequence " << tag.sequence << "; stable is "
                           << expected.base[sector] << ", " << expected.since.size() << " since, of which completed "
                           << expected.completed;
        if (!right) std::abort();
        if (adopt) expected.base[sector] = tag.sequence;
      }
      if (adopt) {
        expected.since.clear();
        expected.completed = 0;
        expected.busy = false;
      }
    }
  }

  static bool admissible(const BlockOracle& block, uint32_t sector, uint64_t sequence, bool killed) {
    if (killed) {
      // The last that completed, or the one in flight (an unmap in flight may show as zeroes).
      if (block.since.size() > block.completed && sequence == content(block.since.back())) return true;
      const uint64_t last = block.completed > 0 ? content(block.since[block.completed - 1]) : block.base[sector];
      return sequence == last;
    }
    if (sequence == block.base[sector]) return true;
    return std::any_of(block.since.begin(), block.since.end(),
                       [&](uint64_t version) { return content(version) == sequence; });
  }

  LvolOracle* pick(std::string& name) {
    std::vector<std::string> live;
    for (auto& [n, oracle] : lvols_) {
      if (oracle.life == Life::live) live.push_back(n);
    }
    if (live.empty()) return nullptr;
    name = live[world_->random() % live.size()];
    return &lvols_.at(name);
  }

  void start_change(std::string name, LvolOracle& oracle, IoType type, uint64_t first, uint32_t count, bool fua) {
    for (uint64_t b = first; b < first + count; b++) {
      if (oracle.blocks[b].busy) return;
    }
    const uint64_t sequence = next_sequence_++ | (type == IoType::write ? 0 : zeroes_bit);
    for (uint64_t b = first; b < first + count; b++) {
      oracle.blocks[b].busy = true;
      oracle.blocks[b].since.push_back(sequence);
    }
    spawn(change(std::move(name), type, first, count, sequence, fua));
  }

  Task<void> change(std::string name, IoType type, uint64_t first, uint32_t count, uint64_t sequence, bool fua) {
    LvolOracle& oracle = lvols_.at(name);
    oracle.io_count++;
    active_++;
    Io io;
    std::vector<uint8_t> data(type == IoType::write ? size_t{count} * 4096 : 0);
    fill(data, oracle.number, first, sequence);
    // In uneven pieces.
    Iovec pieces[2] = {{data.data(), data.size() / 3}, {data.data() + data.size() / 3, data.size() - data.size() / 3}};
    io.type = type;
    io.fua = fua;
    io.offset_blocks = first;
    io.count_blocks = count;
    io.iov = pieces;
    io.iov_count = type == IoType::write ? 2 : 0;
    const Handle handle = Handle(*oracle.lvol, world_->reactor);
    const nvme::Status status = co_await io_wait(handle, io);
    active_--;
    oracle.io_count--;
    if (dead_) co_return;
    if (!status.ok()) {
      EXPECT_EQ(status, nvme::status::capacity_exceeded) << "seed " << seed_;
    }
    for (uint64_t b = first; b < first + count; b++) {
      BlockOracle& block = oracle.blocks[b];
      block.busy = false;
      if (!status.ok()) {
        block.since.pop_back();  // it changed nothing
        continue;
      }
      block.completed = block.since.size();
      if (fua) make_stable(block, block.completed);
    }
  }

  static void make_stable(BlockOracle& block, size_t count) {
    if (count == 0) return;
    for (uint64_t& base : block.base)
      base = content(block.since[count - 1]);
    block.since.erase(block.since.begin(), block.since.begin() + static_cast<ptrdiff_t>(count));
    block.completed -= count;
  }

  Task<void> flush(std::string name) {
    // A flush of one lvol covers its own writes. (It covers the others', too; the oracle does not ask for that.)
    LvolOracle& oracle = lvols_.at(name);
    std::vector<uint64_t> last;
    for (const BlockOracle& block : oracle.blocks)
      last.push_back(block.completed > 0 ? block.since[block.completed - 1] : UINT64_MAX);
    oracle.io_count++;
    active_++;
    Io io;
    io.type = IoType::flush;
    const Handle handle = Handle(*oracle.lvol, world_->reactor);
    const nvme::Status status = co_await io_wait(handle, io);
    active_--;
    oracle.io_count--;
    if (dead_ || !status.ok()) co_return;
    for (size_t b = 0; b < last.size(); b++) {
      BlockOracle& block = oracle.blocks[b];
      if (last[b] == UINT64_MAX) continue;
      for (size_t i = 0; i < block.completed; i++) {
        if (block.since[i] != last[b]) continue;
        make_stable(block, i + 1);
        break;
      }
    }
  }

  Task<void> set_attribute(std::string name) {
    LvolOracle& oracle = lvols_.at(name);
    if (oracle.attributes.size() > 1) co_return;
    std::string value = std::to_string(next_sequence_++) + std::string(world_->random() % 1000, 'x');
    oracle.attributes.push_back(value);
    oracle.io_count++;
    active_++;
    const Outcome outcome = co_await oracle.lvol->set_attribute(value);
    active_--;
    oracle.io_count--;
    if (dead_) co_return;
    EXPECT_TRUE(outcome.ok());
    oracle.attributes.erase(oracle.attributes.begin());
  }

  Task<void> create(std::string name) {
    LvolOracle& oracle = lvols_[name];
    oracle.number = next_number_++;
    active_++;
    LvolOptions options{.name = name, .uuid = {}, .size_bytes = uint64_t{lvol_blocks} * 4096};
    options.checksums = seed_ % 2 == 0 && world_->random() % 4 != 0;
    Result<Lvol*> made = co_await store_->create_lvol(std::move(options));
    active_--;
    if (dead_) co_return;
    EXPECT_TRUE(made.ok());
    oracle.lvol = *made;
    oracle.life = Life::live;
  }

  Task<void> remove(std::string name) {
    LvolOracle& oracle = lvols_.at(name);
    if (oracle.io_count > 0) co_return;
    oracle.life = Life::deleting;
    active_++;
    const Outcome outcome = co_await store_->delete_lvol(name);
    active_--;
    if (dead_) co_return;
    EXPECT_TRUE(outcome.ok());
    lvols_.erase(name);
  }

  void random_step() {
    std::string name;
    LvolOracle* oracle = pick(name);
    const uint64_t dice = world_->random() % 100;
    if (oracle == nullptr || (dice < 6 && lvols_.size() < 5)) {
      spawn(create("v" + std::to_string(next_number_)));
      return;
    }
    const uint64_t first = world_->random() % lvol_blocks;
    const auto longest = static_cast<uint32_t>(lvol_blocks - first);
    const uint32_t few = std::min<uint32_t>(longest, 1 + world_->random() % 6);
    const uint32_t many = std::min<uint32_t>(longest, 1 + world_->random() % 48);
    if (dice < 9) {
      spawn(remove(name));
    } else if (dice < 12) {
      spawn(set_attribute(name));
    } else if (dice < 22) {
      spawn(flush(name));
    } else if (dice < 34) {
      start_change(name, *oracle, dice % 2 == 0 ? IoType::unmap : IoType::write_zeroes, first,
                   world_->random() % 2 == 0 ? many : few, dice % 7 == 0);
    } else {
      start_change(name, *oracle, IoType::write, first, dice < 45 ? many : few, dice % 11 == 0);
    }
  }

  void check_crash_states(bool often) {
    if (!often && world_->random() % 3 != 0) return;
    const unsigned keep_percent[] = {0, 100, 50, 10, 90};
    const uint64_t pick = world_->random() % 6;
    if (pick == 5) {
      verify(disk_->image_of_kill(world_->random), true, false, "kill");
    } else {
      verify(disk_->image_of_power_cut(keep_percent[pick], world_->random), false, false, "power cut");
    }
  }

  // One life of the store: loaded from the image, worked with, ended by a crash (or closed in order).
  void live_once(unsigned steps) {
    dead_ = false;
    auto loaded = run(*world_, LvStore::load(world_->reactor, disk_->handle()));
    ASSERT_TRUE(loaded.ok()) << "seed " << seed_ << ": " << loaded.error().message;
    store_ = std::move(*loaded);
    for (auto& [name, oracle] : lvols_)
      oracle.lvol = store_->find(name);
    disk_->on_change = [this] { check_crash_states(false); };
    for (unsigned i = 0; i < steps; i++) {
      for (uint64_t burst = world_->random() % 4; burst > 0; burst--)
        random_step();
      for (uint64_t turns = world_->random() % 12; turns > 0; turns--)
        world_->reactor.turn();
    }
    disk_->on_change = {};
    const uint64_t end = world_->random() % 4;
    std::vector<uint8_t> image;
    if (end == 0) {
      world_->settle();
      ASSERT_EQ(active_, 0u);
      ASSERT_TRUE(run(*world_, store_->close()).ok());
      store_.reset();
      image = disk_->image_of_power_cut(0, world_->random);  // close() flushed
      verify(std::move(image), true, true, "closed");
    } else if (end == 1) {
      image = disk_->image_of_kill(world_->random);
      dead_ = true;
      drop_store();
      verify(std::move(image), true, true, "kill");
    } else {
      image = disk_->image_of_power_cut(world_->random() % 101, world_->random);
      dead_ = true;
      drop_store();
      verify(std::move(image), false, true, "power cut");
    }
    EXPECT_EQ(active_, 0u);
  }

  std::vector<uint8_t> image_;
  uint64_t active_ = 0;
  bool dead_ = false;
};

TEST_F(Crash, every_crash_state_of_random_work_holds_what_was_promised) {
  const char* given = std::getenv("BASALT_SEED");
  const char* given_count = std::getenv("BASALT_SEEDS");
  const uint64_t first_seed = given != nullptr ? std::strtoull(given, nullptr, 0) : 1;
  const uint64_t seeds = given != nullptr         ? 1
                         : given_count != nullptr ? std::strtoull(given_count, nullptr, 0)
                                                  : seeds_of_a_run;
  for (seed_ = first_seed; seed_ < first_seed + seeds; seed_++) {
    begin(seed_, std::vector<uint8_t>(disk_bytes));
    LvStoreOptions options{.name = "pool", .uuid = {}, .cluster_bytes = cluster_bytes};
    auto made = run(*world_, LvStore::create(world_->reactor, disk_->handle(), options));
    ASSERT_TRUE(made.ok()) << made.error().message;
    auto store = std::move(*made);
    ASSERT_TRUE(run(*world_, store->close()).ok());
    world_->settle();
    store.reset();
    image_ = disk_->bytes_now();
    end();
    for (int life = 0; life < 5; life++) {
      begin(seed_ * 100 + static_cast<uint64_t>(life), std::move(image_));
      live_once(60);
      ASSERT_FALSE(HasFatalFailure()) << "seed " << seed_;
      auto lvols = std::move(lvols_);
      end();
      lvols_ = std::move(lvols);
    }
    lvols_.clear();
  }
  std::printf("seeds %llu to %llu: %llu crash states\n", static_cast<unsigned long long>(first_seed),
              static_cast<unsigned long long>(first_seed + seeds - 1), static_cast<unsigned long long>(crash_states_));
  if (given == nullptr && given_count == nullptr) {
    EXPECT_GE(crash_states_, seeds * 300);
  }
}

// The power goes at each write and flush of loading itself: the next load finds the same.
TEST_F(Crash, loading_can_be_cut_off_anywhere) {
  seed_ = 7;
  begin(seed_, std::vector<uint8_t>(disk_bytes));
  LvStoreOptions options{.name = "pool", .uuid = {}, .cluster_bytes = cluster_bytes};
  auto made = run(*world_, LvStore::create(world_->reactor, disk_->handle(), options));
  ASSERT_TRUE(made.ok());
  store_ = std::move(*made);
  for (int i = 0; i < 150; i++) {
    random_step();
    for (int turns = 0; turns < 8; turns++)
      world_->reactor.turn();
  }
  world_->settle();
  std::vector<uint8_t> image = disk_->image_of_kill(world_->random);
  dead_ = true;
  drop_store();
  verify(image, true, true, "kill");
  auto lvols = std::move(lvols_);
  end();
  lvols_ = std::move(lvols);
  for (int round = 0; round < 20; round++) {
    begin(seed_ + static_cast<uint64_t>(round), image);
    disk_->on_change = [this] { check_crash_states(true); };
    auto loaded = run(*world_, LvStore::load(world_->reactor, disk_->handle()));
    ASSERT_TRUE(loaded.ok());
    store_ = std::move(*loaded);
    world_->settle();
    drop_store();
    auto kept = std::move(lvols_);
    end();
    lvols_ = std::move(kept);
  }
  lvols_.clear();
  EXPECT_GT(crash_states_, 50u);
}

}  // namespace
}  // namespace basalt::bdev
