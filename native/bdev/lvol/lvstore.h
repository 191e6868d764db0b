// SPDX-License-Identifier: Apache-2.0
// LvStore: thin logical volumes on one base bdev. Owned by one reactor, the one that created or loaded it.
//
// What holds through crashes (docs/on-disk/lvol.md tells how):
//  - a write that completed survives the end of the process; what a flush covered survives power loss
//  - blocks never written, unmapped or lost read as zeroes or as older data of the same lvol; never as another's
//  - an lvol, a snapshot, their deletion, size, name and attribute are there whole or not at all
//  - a snapshot never changes
//  - metadata that is damaged, foreign or unknown is refused and nothing is written
// A journal write or flush that fails puts the store in the failed state: writes are refused (write fault), reads go
// on, nothing is retried; loading it again tells what is there.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/pool.h"
#include "bdev/lvol/checksums.h"
#include "bdev/lvol/lvol.h"
#include "bdev/lvol/space.h"

namespace basalt::bdev {

struct LvStoreOptions {
  std::string name;
  Uuid uuid;  // zero: a random one
  uint32_t cluster_bytes = 1 << 20;
  bool clear = true;   // zero the base now; otherwise in the background, before each cluster's first use
  bool force = false;  // overwrite what the base holds
};

// Bugs that tests switch on, to see that they would be found.
struct LvolPlantedBugs {
  bool reuse_early = false;           // a freed cluster is given to the next owner before it is stable that it is free
  bool reuse_unzeroed = false;        // and is given to the next owner with what is in it
  bool log_outlives_cluster = false;  // or while the log of checksums still names it
  bool trust_snapshots = false;       // what a snapshot or its clones read is not verified
  lvs::ChecksumPlantedBugs checksums = {};
};

struct LvolOptions {
  std::string name;
  Uuid uuid;  // zero: a random one
  uint64_t size_bytes = 0;
  // Each 4 KiB block is verified when it is read; what does not match answers unrecovered_read_error. For good, and for
  // its snapshots and clones. The first one of a store sets 0.1 % of it aside for checksums.
  bool checksums = false;
};

struct LvolScrubOptions {
  uint64_t bytes_per_s = 0;  // 0: as fast as it goes
  uint64_t first_block = 0;
  uint64_t count_blocks = UINT64_MAX;  // or as many as there are
};

struct LvolScrub {
  uint64_t checked_blocks = 0;
  uint64_t bad_blocks = 0;  // could not be read, or did not match
};

// Of an lvol's own clusters: what deleting it alone would free, and what those above it still read.
struct LvolSizes {
  uint64_t exclusive_bytes = 0;
  uint64_t shared_bytes = 0;
};

struct LayerInfo {
  uint32_t id = 0;
  uint32_t parent_id = 0;
  uint32_t flags = 0;
  std::string name;
  Uuid uuid;
  uint64_t size_bytes = 0;
  uint64_t overlap_bytes = 0;
  uint32_t mapped_clusters = 0;
  uint32_t extents_pages = 0;
  uint32_t attribute_bytes = 0;
};

struct LvStoreStats {
  uint32_t cluster_bytes = 0;
  uint64_t total_clusters = 0;
  uint64_t free_clusters = 0;     // usable now or once zeroed
  uint64_t to_zero_clusters = 0;  // of those: still to be zeroed
  uint64_t checkpoint_count = 0;
  uint64_t journal_used_blocks = 0;
  uint64_t journal_completed_sequence = 0;
  bool failed = false;
  uint64_t refused_count = 0;            // requests that found no space
  uint64_t checksum_mismatch_count = 0;  // blocks that were read, since it was loaded
  uint64_t checksum_clusters = 0;        // set aside for checksums
  uint64_t checksum_lost_records = 0;    // of their log, when it was loaded: what they said may read as damaged
  uint32_t hidden_layers = 0;            // deleted snapshots that others still read
  uint64_t memory_bytes = 0;             // of the maps
};

// Who gives the store's lvols their names outside. Hears of snapshots that were asked for at an lvol (Bdev::snapshot).
class LvStoreOwner {
 public:
  // An error from it: none is made.
  virtual Outcome snapshot_begins(LvStore& store, const std::string& name) = 0;
  virtual void snapshot_ended(LvStore& store, const std::string& name, Lvol* made) = 0;  // null: it was not made

 protected:
  ~LvStoreOwner() = default;
};

class LvStore final : private lvs::JournalHost, lvs::ChecksumHost {
 public:
  // Errc::exists: the base holds an lvstore or something else (and force is not set). unsupported: the base cannot
  // zero ranges, or has blocks of another size than 512 or 4096.
  static Task<Result<std::unique_ptr<LvStore>>> create(Reactor& reactor, Handle base, LvStoreOptions options);
  // not_found: no lvstore there. unsupported: a version or incompatible features that are not known. corrupt: damaged,
  // or the device has shrunk. In none of these cases was anything written.
  static Task<Result<std::unique_ptr<LvStore>>> load(Reactor& reactor, Handle base);
  // As load(), but nothing is ever written: reads work, changes of data answer namespace_write_protected, everything
  // else as in a store that has failed. It may be destroyed without close(). Opens what load() refuses where something
  // can be read for sure: of a device that has shrunk what is left, and of a store whose checksums are damaged what has
  // none. The rest answers unrecovered_read_error.
  static Task<Result<std::unique_ptr<LvStore>>> inspect(Reactor& reactor, Handle base);
  FrameMemory& frames() { return frames_; }                         // of the keeper, and of checkpoints
  bool read_only() const { return read_only_; }                     // inspect() gave it
  const std::optional<Error>& refusal() const { return refusal_; }  // then: what load() answers
  ~LvStore();
  void plant(const LvolPlantedBugs& bugs);
  LvStore(const LvStore&) = delete;
  LvStore& operator=(const LvStore&) = delete;

  // Nothing is in flight on any lvol. Io error when the store had failed; it may be destroyed then, too.
  Task<Outcome> close();

  // All durable when the task ends, and one at a time. I/O goes on meanwhile; a snapshot, and a resize to less, hold it
  // for the time of one journal write.
  Task<Result<Lvol*>> create_lvol(LvolOptions options);
  // A snapshot of a writable lvol, named and identified by the options (size_bytes is not used). Its size is that of
  // the lvol. unsupported: more than lvs::layer_depth_max layers below. fenced: `may_begin`, asked when nothing else
  // has to be waited for but the lvol's own requests, said no.
  Task<Result<Lvol*>> snapshot_lvol(std::string name, LvolOptions options, std::function<bool()> may_begin = {});
  // Whether it could be made now; afterwards it is one journal block.
  Task<Outcome> prepare_snapshot(std::string name);
  void set_owner(LvStoreOwner* owner) { owner_ = owner; }
  // A writable lvol that begins as what a snapshot holds, or what another lvol holds at this instant.
  Task<Result<Lvol*>> clone_lvol(std::string name, LvolOptions options);
  // In any order. What others still read of it stays, unnamed, until it can be given to the only one that does.
  // busy: I/O in flight. Pointers and handles to it must be gone.
  Task<Outcome> delete_lvol(std::string name);
  // Growth reads as zeroes. What lies beyond a smaller size is freed, and reads as zeroes if it grows again.
  Task<Outcome> resize_lvol(std::string name, uint64_t size_bytes);
  Task<Outcome> rename_lvol(std::string name, std::string new_name);
  Task<Outcome> set_read_only(std::string name);  // for good
  // Copies from below what the lvol does not have itself, while I/O goes on. inflate: from all layers; it has no parent
  // afterwards. decouple: from the parent only; the parent's parent is its parent afterwards. If it is interrupted (no
  // space, a crash), what was copied stays copied, and calling it again goes on.
  Task<Outcome> inflate_lvol(std::string name);
  Task<Outcome> decouple_lvol(std::string name);
  Task<Result<LvolSizes>> lvol_sizes(std::string name);
  // Reads what the lvol holds of these blocks, and counts; I/O goes on meanwhile.
  Task<Result<LvolScrub>> scrub_lvol(std::string name, LvolScrubOptions options = {});

  Lvol* find(const std::string& name);
  Lvol* find(const Uuid& uuid);
  std::vector<Lvol*> list();
  LvStoreStats stats() const;
  std::vector<LayerInfo> layers() const;  // by id, hidden ones too
  const std::string& name() const { return name_; }
  const Uuid& uuid() const { return uuid_; }
  bool failed() const { return journal_.failed(); }
  Reactor& reactor() { return reactor_; }

 private:
  friend class Lvol;
  using Op = lvs::Op;
  using Layer = lvs::Layer;
  static constexpr size_t ops_max = 4096;
  static constexpr size_t dirty_pages_max = 1024;  // a checkpoint starts there

  LvStore(Reactor& reactor, Handle base, const lvs::Layout& layout, const Uuid& uuid, std::string name);

  // lvstore_load.cc
  enum class Opening : uint8_t { read_write, read_only };
  static Task<Result<std::unique_ptr<LvStore>>> read_all(Reactor& reactor, Handle base, Opening opening);
  static Task<Result<std::unique_ptr<lvs::BlockMemory>>> read_superblock(lvs::Device device);
  struct LoadingExtents {
    uint32_t lvol_id;
    uint32_t index;
    uint32_t page;
    std::vector<uint8_t> payload;
  };
  Task<Outcome> read_directory(const lvs::Superblock& superblock);
  Task<Outcome> read_pages();
  Outcome adopt_page(uint32_t number, const uint8_t* block);
  Outcome link_layers();
  Outcome claim_clusters();
  Task<Outcome> replay(const lvs::Superblock& superblock);

  // lvstore_apply.cc
  void journal_apply(const uint8_t* records, uint32_t length_bytes) override;
  void journal_progress() override;
  void journal_failed() override;
  bool apply_all(const uint8_t* records, uint32_t length_bytes);
  bool apply(const lvs::Record& record);
  bool apply_create(const lvs::Record& record);
  bool apply_delete(const lvs::Record& record);
  bool apply_attribute(const lvs::Record& record);
  bool apply_map(const lvs::Record& record);
  bool apply_blocks_zero(const lvs::Record& record);
  bool apply_unmap(const lvs::Record& record);
  bool apply_clusters(const lvs::Record& record);
  void free_cluster(Layer& layer, uint32_t cluster);
  void drop_place_without_data(Layer& layer, uint32_t cluster);
  void publish(Layer& layer, std::string name, const Uuid& uuid);
  // lvstore_apply_layers.cc
  bool apply_snapshot(const lvs::Record& record);
  bool apply_clone(const lvs::Record& record);
  bool apply_resize(const lvs::Record& record);
  bool apply_rename(const lvs::Record& record);
  bool apply_flags(const lvs::Record& record);
  bool apply_fold(const lvs::Record& record);
  bool apply_splice(const lvs::Record& record);
  bool apply_reparent(const lvs::Record& record);
  bool fold_cluster(Layer& layer, Layer& child, uint32_t cluster);

  // lvstore_checksums.cc
  void checksums_failed() override { fail(); }
  void checksums_begin() override { background_count_++; }
  void checksums_end() override { background_left(); }
  Layer* checksum_layer();
  bool area_whole(Layer& layer);
  void open_area(Layer& layer);
  Task<Outcome> load_checksums();
  Outcome room_for_area();
  Task<Outcome> enable_checksums();
  Task<Outcome> fill_area(uint32_t id);
  bool apply_area(const lvs::Record& record);
  FramedTask<nvme::Status> forget_checksums();  // before clusters that were freed get another owner
  // The data of a layer's clusters.
  void submit_data(const Layer& layer, Io* io) {
    if (partial_) [[unlikely]] {
      submit_partial(layer, io);
    } else if (!layer.checksums()) [[likely]] {
      device_.submit(io);
    } else if (bugs_.trust_snapshots && (layer.read_only() || layer.parent != nullptr) && io->type == IoType::read) {
      device_.submit(io);
    } else {
      checksums_->submit(io);
    }
  }
  void submit_partial(const Layer& layer, Io* io);
  void lose_checksums(Error why);
  Task<nvme::Status> transfer_data(const Layer& layer, IoType type, uint64_t block, uint32_t count_blocks,
                                   uint8_t* memory, uint32_t* tags);
  Task<nvme::Status> scrub_run(Lvol* lvol, uint64_t block, uint32_t count_blocks, uint8_t* memory);

  // lvstore_checkpoint.cc
  FramedTask<nvme::Status> checkpoint(uint64_t start_sequence, bool clean);
  FramedTask<void> checkpoint_in_background();
  FramedSpawn begin_checkpoint();
  struct PendingPage;
  struct CheckpointMemory;
  void take_dirty_pages(CheckpointMemory& memory);
  void fill_pages(CheckpointMemory& memory);
  uint8_t* fill_superblock(CheckpointMemory& memory, uint64_t start_sequence, bool clean);
  void serialize_page(lvs::Page& page, uint8_t* block);
  static void write_layer(const Layer& layer, lvs::LvolPage& out);
  FramedTask<nvme::Status> write_pages(CheckpointMemory& memory);

  // lvstore_keeper.cc: reserves clean clusters and zeroes freed ones.
  enum class Admission : uint8_t { granted, queued, refused };
  Admission admit(Op* op, uint32_t cluster_count, bool retried);
  Error no_cluster_for_it() const;
  void kick_keeper();
  bool reserve_low() const;
  FramedSpawn keep_space();
  FramedTask<bool> reserve_run();
  FramedTask<bool> zero_run();
  FramedTask<nvme::Status> device_io(IoType type, uint64_t offset_blocks, uint64_t count_blocks, uint8_t* memory);
  FramedTask<nvme::Status> flush_device();
  void wake_space_waiters();

  // lvstore_layers.cc: the tree.
  struct Busy;
  struct Turn;
  Uuid random_uuid();
  Result<Layer*> writable(const std::string& name);
  Outcome size_sound(uint64_t size_bytes) const;
  Outcome new_name_free(const LvolOptions& options) const;
  Result<Layer*> make_layer(uint64_t count_blocks);  // with a page and a new id, not in the journal yet
  Task<Outcome> enable_layers() { return enable(lvs::incompatible_layers); }
  Task<Outcome> enable(uint64_t features);
  void drop_unpublished(uint32_t id);
  Task<void> cut(Lvol* lvol, Op* hold);
  void cut_ended(Lvol* lvol, Op* hold);

  // lvstore_fold.cc: hidden layers into their children, parents into theirs.
  enum class CopyFrom : uint8_t { parent, all };
  struct CopyRun {
    uint64_t base_block;
    uint32_t first_block;
    uint32_t count_blocks;
  };
  void kick_folder();
  Layer* next_to_fold();
  Task<void> fold_layers();
  Task<bool> fold_step(Layer* layer);
  static bool must_copy(Layer& layer, Layer& child, uint32_t cluster);
  static uint32_t fold_end(Layer& layer, Layer& child, uint32_t first);
  struct Copying;
  Task<void> copy_some(Copying& copying, const Layer* layer);
  Task<Outcome> copy_runs(Layer* to, uint32_t cluster, std::vector<CopyRun> runs, const lvs::Record* last = nullptr);
  void runs_from(Layer& layer, uint32_t cluster, CopyFrom from, std::vector<CopyRun>& runs,
                 std::vector<lvs::Record>* zeroes);
  Task<Outcome> take_parent_in(std::string name, CopyFrom from);
  Task<Outcome> take_cluster_in(Layer* layer, uint32_t cluster, CopyFrom from);
  struct ClusterWait;
  struct Decoupling;
  bool retry_coroutine(Op* op);  // false: it waits again

  void background_left();
  Layer* by_id(uint32_t id);
  Layer* insert_layer(uint32_t id, uint64_t count_blocks);
  void name_layer(Layer& layer, std::string name, const Uuid& uuid);  // the old name is free afterwards
  void show_layer(Layer& layer);                                      // with an Lvol of its own
  void erase_layer(Layer* layer);
  void hide_layer(Layer& layer);
  // Writes records that go together; with `durable`, waits until they are on stable media.
  Task<Outcome> commit(std::span<const lvs::Record> records, bool durable, bool flush_first = false);
  void fail();
  Op* take_op(Io* io, Lvol* lvol);
  void give_op(Op* op);
  void read_begins(Op* op) {
    op->reading = true;
    op->read_phase = read_phase_;
    reads_in_flight_[read_phase_]++;
  }
  void read_ended(Op* op) {
    if (--reads_in_flight_[op->read_phase] == 0 && op->read_phase != read_phase_) reads_ended_.wake_all();
  }
  // All that have begun have ended. Those that wait for their range do not count: they may wait for what the keeper
  // does.
  FramedTask<void> reads_passed();

  Reactor& reactor_;
  LvStoreOwner* owner_ = nullptr;
  const lvs::Layout layout_;
  const Uuid uuid_;
  const std::string name_;
  lvs::Device device_;
  lvs::PageTable pages_;
  lvs::BlockStates states_;
  lvs::Space space_;
  lvs::Journal journal_;
  std::unique_ptr<lvs::Checksums> checksums_;  // none before the first checksummed lvol
  std::unordered_map<uint32_t, std::unique_ptr<Layer>> layers_;
  std::unordered_map<std::string, Layer*> by_name_;
  std::map<Uuid, Layer*> by_uuid_;
  List<Layer, &Layer::hidden_node> hidden_;
  uint32_t lvol_id_next_ = 1;
  uint64_t incompatible_ = 0;
  uint64_t generation_ = 0;
  uint64_t incarnation_ = 0;
  std::vector<bool> directory_in_b_;
  Pool<Op> ops_{ops_max};
  List<Io, &Io::node> starved_;  // Ios that found no Op
  List<Op, &Op::space_node> space_waiters_;
  std::vector<LoadingExtents> loading_extents_;
  struct LoadingLayer {
    uint32_t id;
    uint32_t parent_id;
    uint64_t overlap_blocks;
  };
  std::vector<LoadingLayer> loading_layers_;
  uint64_t checkpoint_count_ = 0;
  uint64_t refused_count_ = 0;
  bool checkpointing_ = false;
  lvs::WaitList checkpoint_ended_;
  std::unique_ptr<CheckpointMemory> checkpoint_memory_;
  FrameMemory frames_;
  lvs::ControlLock control_;
  uint64_t reads_in_flight_[2] = {};
  bool read_phase_ = false;
  lvs::WaitList reads_ended_;
  LvolPlantedBugs bugs_;
  bool read_only_ = false;
  bool partial_ = false;  // opened to be read as far as it goes: some of it cannot be
  std::optional<Error> refusal_;
  bool folding_ = false;
  bool keeping_ = false;
  bool closing_ = false;
  bool closed_ = false;
  uint32_t background_count_ = 0;
  Signal<Unit>* background_idle_ = nullptr;
};

}  // namespace basalt::bdev
