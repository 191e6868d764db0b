// SPDX-License-Identifier: Apache-2.0
// Random trees of snapshots and clones, cut off at every write and flush of the base. Goal: what was promised holds in
// every crash state - a snapshot never changes, a deletion is whole, nothing of one lvol shows in another that does not
// descend from it. Method: an oracle with the content of every lvol per 512-byte sector; each sector written carries
// its block and a sequence number that is used once.
#include <cstdlib>
#include <map>

#include "bdev/lvol/crash_disk_test_util.h"
#include "bdev/lvol/lvstore.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t seeds_of_a_run = testing::rounds_here({.plain = 12, .asan = 4, .tsan = 1});

using namespace test;  // NOLINT

constexpr uint64_t disk_bytes = 5 << 20;
constexpr uint32_t cluster_bytes = 64 << 10;
constexpr uint32_t blocks_max = 80;
constexpr uint32_t sectors_per_block = 8;
constexpr uint64_t zeroes_bit = uint64_t{1} << 63;

uint64_t content(uint64_t version) {
  return (version & zeroes_bit) != 0 ? 0 : version;
}

struct Tag {
  uint64_t block = 0;
  uint64_t sequence = 0;
  auto operator<=>(const Tag&) const = default;
};

struct Block {
  uint64_t base[sectors_per_block] = {};  // on stable media, per sector
  std::vector<uint64_t> since;            // oldest first
  size_t completed = 0;                   // how many of them completed
  bool busy = false;

  void make_stable(size_t count) {
    if (count == 0) return;
    for (uint64_t& sector : base)
      sector = content(since[count - 1]);
    since.erase(since.begin(), since.begin() + static_cast<ptrdiff_t>(count));
    completed -= count;
  }
  bool admits(uint32_t sector, uint64_t sequence, bool killed) const {
    if (killed) {
      if (since.size() > completed && sequence == content(since.back())) return true;
      return sequence == (completed > 0 ? content(since[completed - 1]) : base[sector]);
    }
    if (sequence == base[sector]) return true;
    return std::any_of(since.begin(), since.end(), [&](uint64_t version) { return content(version) == sequence; });
  }
};

enum class Life { creating, live, deleting };

struct Volume {
  Life life = Life::live;
  std::string source;  // while creating: what it is made from
  bool read_only = false;
  uint32_t size_blocks = blocks_max;
  uint32_t new_size_blocks = 0;  // while it is being resized
  std::vector<Block> blocks = std::vector<Block>(blocks_max);
  std::string attribute;
  unsigned user_count = 0;
};

class TreeCrash : public ::testing::Test {
 protected:
  std::unique_ptr<World> world_;
  std::unique_ptr<CrashDisk> disk_;
  std::unique_ptr<LvStore> store_;
  std::map<std::string, Volume> volumes_;
  std::vector<uint8_t> image_;
  uint64_t next_number_ = 1;
  uint64_t next_sequence_ = 1;
  uint64_t crash_states_ = 0;
  uint64_t seed_ = 0;
  uint64_t active_ = 0;
  uint64_t folds_ = 0;
  bool dead_ = false;

  uint64_t random() { return world_->random(); }

  static void fill(std::vector<uint8_t>& data, uint64_t first_block, uint64_t sequence) {
    for (size_t at = 0; at < data.size(); at += CrashDisk::sector_bytes) {
      const Tag tag{first_block + at / 4096, sequence};
      for (size_t i = 0; i + sizeof(tag) <= CrashDisk::sector_bytes; i += sizeof(tag))
        std::memcpy(data.data() + at + i, &tag, sizeof(tag));
    }
  }

  // Does the lvol hold what the volume may hold? With `adopt`, what it holds is the truth from now on.
  void compare(World& world, Lvol& lvol, Volume& volume, bool killed, bool adopt, const std::string& what) {
    const auto size = static_cast<uint32_t>(lvol.size_bytes() / 4096);
    const bool size_right =
        size == volume.size_blocks || (volume.new_size_blocks != 0 && size == volume.new_size_blocks);
    ASSERT_TRUE(size_right) << what << ": " << lvol.name() << " has " << size << " blocks";
    if (!lvol.is_snapshot()) {
      EXPECT_EQ(lvol.attribute(), volume.attribute) << what << ": " << lvol.name();
    }
    const std::vector<uint8_t> data = read_blocks(world, lvol, 0, size);
    volume.blocks.resize(std::max<size_t>(volume.blocks.size(), size));
    for (uint32_t block = 0; block < size; block++) {
      Block& expected = volume.blocks[block];
      const Block zero;
      const Block& allowed = block < volume.size_blocks ? expected : zero;
      for (uint32_t sector = 0; sector < sectors_per_block; sector++) {
        const uint8_t* at = data.data() + size_t{block} * 4096 + size_t{sector} * CrashDisk::sector_bytes;
        Tag tag;
        std::memcpy(&tag, at, sizeof(tag));
        bool right = tag == Tag{} || (tag.block == block && tag.sequence != 0);
        for (size_t i = 0; i + sizeof(tag) <= CrashDisk::sector_bytes; i += sizeof(tag))
          right = right && std::memcmp(at + i, &tag, sizeof(tag)) == 0;
        right = right && allowed.admits(sector, tag.sequence, killed);
        ASSERT_TRUE(right) << what << ": " << lvol.name() << " block " << block << " sector " << sector
                           << " holds block " << tag.block << " sequence " << tag.sequence << "; stable is "
                           << allowed.base[sector] << ", " << allowed.since.size() << " since, of which completed "
                           << allowed.completed;
        if (adopt) expected.base[sector] = tag.sequence;
      }
      if (adopt) {
        expected.since.clear();
        expected.completed = 0;
        expected.busy = false;
      }
    }
    if (adopt) {
      volume.size_blocks = size;
      volume.new_size_blocks = 0;
      volume.blocks.resize(size);
      volume.life = Life::live;
    }
  }

  void compare_all(World& world, LvStore& store, bool killed, bool adopt, const std::string& what) {
    // What was being made holds what its source holds; that is compared first, while the source is not yet adopted.
    for (auto& [name, volume] : volumes_) {
      if (volume.life != Life::creating || volume.source.empty() || store.find(name) == nullptr) continue;
      const Volume& source = volumes_.at(volume.source);
      volume.size_blocks = source.size_blocks;
      volume.blocks = source.blocks;
      volume.attribute = volume.read_only ? source.attribute : "";
    }
    for (auto it = volumes_.begin(); it != volumes_.end();) {
      Lvol* lvol = store.find(it->first);
      if (lvol == nullptr) {
        ASSERT_NE(it->second.life, Life::live) << what << ": " << it->first << " is gone";
        if (adopt) {
          it = volumes_.erase(it);
          continue;
        }
      } else {
        ASSERT_NO_FATAL_FAILURE(compare(world, *lvol, it->second, killed, adopt, what));
      }
      ++it;
    }
    for (Lvol* lvol : store.list())
      ASSERT_TRUE(volumes_.contains(lvol->name())) << what << ": unknown " << lvol->name();
  }

  void verify(std::vector<uint8_t> image, bool killed, bool adopt, const char* kind) {
    crash_states_++;
    const std::string what =
        std::string(kind) + " seed " + std::to_string(seed_) + " state " + std::to_string(crash_states_);
    World world(seed_ + crash_states_);
    CrashDisk disk(world, std::move(image));
    disk.in_order = true;
    auto loaded = run(world, LvStore::load(world.reactor, disk.handle()));
    if (!loaded) std::printf("%s: %s\n", what.c_str(), loaded.error().message.c_str());
    BASALT_ASSERT(loaded.ok());
    auto store = std::move(*loaded);
    const bool settles = adopt || crash_states_ % 4 == 0;
    if (settles) world.settle();  // folds what can be folded
    compare_all(world, *store, killed, adopt, what);
    if (HasFatalFailure()) std::abort();
    if (settles) {
      // A hidden layer is left only where two still read it.
      BASALT_ASSERT(store->stats().hidden_layers < std::max<size_t>(1, store->list().size()));
      folds_ += store->stats().hidden_layers;
    }
    BASALT_ASSERT(run(world, store->close()).ok());
    world.settle();
    store.reset();
    if (adopt) image_ = std::move(disk.bytes_now());
  }

  std::string pick(bool writable) {
    std::vector<std::string> names;
    for (auto& [name, volume] : volumes_) {
      if (volume.life == Life::live && volume.new_size_blocks == 0 && !(writable && volume.read_only))
        names.push_back(name);
    }
    return names.empty() ? "" : names[random() % names.size()];
  }
  std::string new_name() { return "v" + std::to_string(next_number_++); }

  void start_change(const std::string& name, IoType type, uint64_t first, uint32_t count, bool fua) {
    Volume& volume = volumes_.at(name);
    for (uint64_t b = first; b < first + count; b++) {
      if (volume.blocks[b].busy) return;
    }
    const uint64_t sequence = next_sequence_++ | (type == IoType::write ? 0 : zeroes_bit);
    for (uint64_t b = first; b < first + count; b++) {
      volume.blocks[b].busy = true;
      volume.blocks[b].since.push_back(sequence);
    }
    spawn(change(name, type, first, count, sequence, fua));
  }

  Task<void> change(std::string name, IoType type, uint64_t first, uint32_t count, uint64_t sequence, bool fua) {
    Volume& volume = volumes_.at(name);
    volume.user_count++;
    active_++;
    Io io;
    std::vector<uint8_t> data(type == IoType::write ? size_t{count} * 4096 : 0);
    fill(data, first, sequence);
    Iovec piece{data.data(), data.size()};
    io.type = type;
    io.fua = fua;
    io.offset_blocks = first;
    io.count_blocks = count;
    io.iov = &piece;
    io.iov_count = type == IoType::write ? 1 : 0;
    const Handle handle = Handle(*store_->find(name), world_->reactor);
    const nvme::Status status = co_await io_wait(handle, io);
    active_--;
    if (dead_) co_return;
    volume.user_count--;
    if (!status.ok()) {
      EXPECT_EQ(status, nvme::status::capacity_exceeded) << "seed " << seed_;
    }
    for (uint64_t b = first; b < first + count; b++) {
      Block& block = volume.blocks[b];
      block.busy = false;
      if (!status.ok()) {
        block.since.pop_back();  // it changed nothing
        continue;
      }
      block.completed = block.since.size();
      if (fua) block.make_stable(block.completed);
    }
  }

  Task<void> flush(std::string name) {
    Volume& volume = volumes_.at(name);
    std::vector<uint64_t> last;
    for (const Block& block : volume.blocks)
      last.push_back(block.completed > 0 ? block.since[block.completed - 1] : UINT64_MAX);
    volume.user_count++;
    active_++;
    Io io;
    io.type = IoType::flush;
    const Handle handle = Handle(*store_->find(name), world_->reactor);
    const nvme::Status status = co_await io_wait(handle, io);
    active_--;
    if (dead_) co_return;
    volume.user_count--;
    if (!status.ok()) co_return;
    for (size_t b = 0; b < last.size(); b++) {
      Block& block = volume.blocks[b];
      for (size_t i = 0; last[b] != UINT64_MAX && i < block.completed; i++) {
        if (block.since[i] != last[b]) continue;
        block.make_stable(i + 1);
        break;
      }
    }
  }

  Task<void> create(std::string name) {
    volumes_[name].life = Life::creating;
    active_++;
    LvolOptions options{.name = name, .uuid = {}, .size_bytes = uint64_t{blocks_max} * 4096};
    options.checksums = seed_ % 2 == 0 && random() % 4 != 0;
    auto made = co_await store_->create_lvol(std::move(options));
    active_--;
    if (dead_) co_return;
    EXPECT_TRUE(made.ok()) << made.error().message;
    volumes_.at(name).life = Life::live;
  }

  // A snapshot, or a clone: it holds what completed before it was done, and all of that is stable.
  Task<void> derive(std::string source, std::string name, bool snapshot) {
    Volume& made = volumes_[name];
    made.life = Life::creating;
    made.source = source;
    made.read_only = snapshot;
    volumes_.at(source).user_count++;
    active_++;
    LvolOptions options{.name = name, .uuid = {}};
    Result<Lvol*> outcome = Error{Errc::busy, ""};
    if (snapshot) {
      outcome = co_await store_->snapshot_lvol(source, options);
    } else {
      outcome = co_await store_->clone_lvol(source, options);
    }
    active_--;
    if (dead_) co_return;
    Volume& from = volumes_.at(source);
    from.user_count--;
    if (!outcome.ok()) {
      EXPECT_TRUE(outcome.error().code == Errc::unsupported || outcome.error().code == Errc::no_space)
          << outcome.error().message;
      volumes_.erase(name);
      co_return;
    }
    for (Block& block : from.blocks)
      block.make_stable(block.completed);
    made.blocks = from.blocks;
    made.size_blocks = from.size_blocks;
    made.attribute = snapshot ? from.attribute : "";
    for (Block& block : made.blocks) {
      block.since.clear();
      block.busy = false;
    }
    made.source.clear();
    made.life = Life::live;
  }

  Task<void> remove(std::string name) {
    Volume& volume = volumes_.at(name);
    if (volume.user_count > 0) co_return;
    volume.life = Life::deleting;
    active_++;
    const Outcome outcome = co_await store_->delete_lvol(name);
    active_--;
    if (dead_) co_return;
    EXPECT_TRUE(outcome.ok()) << outcome.error().message;
    volumes_.erase(name);
  }

  Task<void> resize(std::string name, uint32_t size_blocks) {
    Volume& volume = volumes_.at(name);
    if (volume.user_count > 0 || size_blocks == volume.size_blocks) co_return;
    volume.new_size_blocks = size_blocks;
    volume.user_count++;
    active_++;
    const Outcome outcome = co_await store_->resize_lvol(name, uint64_t{size_blocks} * 4096);
    active_--;
    if (dead_) co_return;
    EXPECT_TRUE(outcome.ok()) << outcome.error().message;
    volume.user_count--;
    volume.size_blocks = size_blocks;
    volume.new_size_blocks = 0;
    volume.blocks.resize(size_blocks);
  }

  Task<void> take_in(std::string name, bool inflate) {
    volumes_.at(name).user_count++;
    active_++;
    Outcome outcome = success();
    if (inflate) {
      outcome = co_await store_->inflate_lvol(name);
    } else {
      outcome = co_await store_->decouple_lvol(name);
    }
    active_--;
    if (dead_) co_return;
    EXPECT_TRUE(outcome.ok() || outcome.error().code == Errc::no_space) << outcome.error().message;
    volumes_.at(name).user_count--;
  }

  void random_step() {
    const uint64_t dice = random() % 100;
    const std::string any = pick(false);
    const std::string name = pick(true);
    if (name.empty() || (dice < 2 && volumes_.size() < 7)) {
      spawn(create(new_name()));
      return;
    }
    const uint32_t size = volumes_.at(name).size_blocks;
    const uint64_t first = random() % size;
    const auto longest = static_cast<uint32_t>(size - first);
    const uint32_t few = std::min<uint32_t>(longest, 1 + static_cast<uint32_t>(random() % 6));
    const uint32_t many = std::min<uint32_t>(longest, 1 + static_cast<uint32_t>(random() % 48));
    if (dice < 8) {
      if (volumes_.size() < 12) spawn(derive(name, new_name(), true));
    } else if (dice < 12) {
      if (volumes_.size() < 12 && volumes_.at(any).life == Life::live) spawn(derive(any, new_name(), false));
    } else if (dice < 20) {
      spawn(remove(any));
    } else if (dice < 24) {
      spawn(resize(name, 1 + static_cast<uint32_t>(random() % blocks_max)));
    } else if (dice < 27) {
      spawn(take_in(name, dice == 24));
    } else if (dice < 35) {
      spawn(flush(name));
    } else if (dice < 50) {
      start_change(name, dice % 2 == 0 ? IoType::unmap : IoType::write_zeroes, first, random() % 2 == 0 ? many : few,
                   dice % 7 == 0);
    } else {
      start_change(name, IoType::write, first, dice < 60 ? many : few, dice % 11 == 0);
    }
  }

  void check_crash_state() {
    if (random() % 4 != 0) return;
    const unsigned keep_percent[] = {0, 100, 50, 10, 90};
    const uint64_t kind = random() % 6;
    if (kind == 5) {
      verify(disk_->image_of_kill(world_->random), true, false, "kill");
    } else {
      verify(disk_->image_of_power_cut(keep_percent[kind], world_->random), false, false, "power cut");
    }
  }

  void drop_store() {
    disk_->on_change = {};
    disk_->fault = [](const Io&) { return std::optional(nvme::status::internal_error); };
    dead_ = true;
    world_->settle();
    BASALT_ASSERT(active_ == 0);
    (void)run(*world_, store_->close()).ok();
    world_->settle();
    store_.reset();
  }

  void live_once(unsigned steps) {
    dead_ = false;
    auto loaded = run(*world_, LvStore::load(world_->reactor, disk_->handle()));
    ASSERT_TRUE(loaded.ok()) << "seed " << seed_ << ": " << loaded.error().message;
    store_ = std::move(*loaded);
    for (auto& [name, volume] : volumes_)
      volume.user_count = 0;
    disk_->on_change = [this] { check_crash_state(); };
    for (unsigned i = 0; i < steps; i++) {
      for (uint64_t burst = random() % 4; burst > 0; burst--)
        random_step();
      for (uint64_t turns = random() % 12; turns > 0; turns--)
        world_->reactor.turn();
    }
    disk_->on_change = {};
    const uint64_t end = random() % 4;
    if (end == 0) {
      world_->settle();
      ASSERT_EQ(active_, 0u);
      compare_all(*world_, *store_, true, false, "live, seed " + std::to_string(seed_));
      ASSERT_FALSE(HasFatalFailure());
      ASSERT_TRUE(run(*world_, store_->close()).ok());
      world_->settle();
      store_.reset();
      verify(disk_->image_of_power_cut(0, world_->random), true, true, "closed");
      return;
    }
    const bool killed = end == 1;
    std::vector<uint8_t> image =
        killed ? disk_->image_of_kill(world_->random) : disk_->image_of_power_cut(random() % 101, world_->random);
    drop_store();
    verify(std::move(image), killed, true, killed ? "kill" : "power cut");
  }

  // Everything goes, in any order: nothing is left.
  void delete_everything() {
    auto loaded = run(*world_, LvStore::load(world_->reactor, disk_->handle()));
    ASSERT_TRUE(loaded.ok());
    store_ = std::move(*loaded);
    while (!store_->list().empty()) {
      const auto list = store_->list();
      const std::string name = list[random() % list.size()]->name();
      ASSERT_TRUE(run(*world_, store_->delete_lvol(name)).ok());
      if (random() % 2 == 0) world_->settle();
    }
    world_->settle();
    EXPECT_EQ(store_->stats().free_clusters + store_->stats().checksum_clusters, store_->stats().total_clusters)
        << "seed " << seed_;
    EXPECT_EQ(store_->stats().hidden_layers, 0u);
    EXPECT_EQ(store_->stats().to_zero_clusters, 0u);
    ASSERT_TRUE(run(*world_, store_->close()).ok());
    world_->settle();
    store_.reset();
    volumes_.clear();
  }

  void begin(uint64_t seed, std::vector<uint8_t> image) {
    world_ = std::make_unique<World>(seed);
    disk_ = std::make_unique<CrashDisk>(*world_, std::move(image));
  }
  void end() {
    disk_.reset();
    world_.reset();
  }
};

TEST_F(TreeCrash, every_crash_state_of_a_random_tree_holds_what_was_promised) {
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
    ASSERT_TRUE(run(*world_, (*made)->close()).ok());
    world_->settle();
    made->reset();
    image_ = disk_->bytes_now();
    end();
    for (uint64_t life = 0; life < 6; life++) {
      begin(seed_ * 100 + life, std::move(image_));
      live_once(60);
      ASSERT_FALSE(HasFailure()) << "seed " << seed_ << " life " << life;
      end();
    }
    begin(seed_ * 100 + 99, std::move(image_));
    delete_everything();
    ASSERT_FALSE(HasFailure()) << "seed " << seed_;
    end();
  }
  std::printf("seeds %llu to %llu: %llu crash states, %llu hidden layers seen\n",
              static_cast<unsigned long long>(first_seed), static_cast<unsigned long long>(first_seed + seeds - 1),
              static_cast<unsigned long long>(crash_states_), static_cast<unsigned long long>(folds_));
  if (given == nullptr && given_count == nullptr) {
    EXPECT_GE(crash_states_, seeds * 300);
    EXPECT_GT(folds_, 0u);
  }
}

}  // namespace
}  // namespace basalt::bdev
