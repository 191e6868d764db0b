// SPDX-License-Identifier: Apache-2.0
// LvStore: thin logical volumes on one base bdev. Owned by one reactor, the one that created or loaded it.
//
// What holds through crashes (docs/on-disk/lvol.md tells how):
//  - a write that completed survives the end of the process; what a flush covered survives power loss
//  - blocks never written, unmapped or lost read as zeroes or as older data of the same lvol; never as another's
//  - an lvol, its deletion and its attribute are there whole or not at all
//  - metadata that is damaged, foreign or unknown is refused and nothing is written
// A journal write or flush that fails puts the store in the failed state: writes are refused (write fault), reads go
// on, nothing is retried; loading it again tells what is there.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/pool.h"
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

struct LvolOptions {
  std::string name;
  Uuid uuid;  // zero: a random one
  uint64_t size_bytes = 0;
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
};

class LvStore final : private lvs::JournalHost {
 public:
  // Errc::exists: the base holds an lvstore or something else (and force is not set). unsupported: the base cannot
  // zero ranges, or has blocks of another size than 512 or 4096.
  static Task<Result<std::unique_ptr<LvStore>>> create(Reactor& reactor, Handle base, LvStoreOptions options);
  // not_found: no lvstore there. unsupported: a version or incompatible features that are not known. corrupt: damaged,
  // or the device has shrunk. In none of these cases was anything written.
  static Task<Result<std::unique_ptr<LvStore>>> load(Reactor& reactor, Handle base);
  ~LvStore();
  LvStore(const LvStore&) = delete;
  LvStore& operator=(const LvStore&) = delete;

  // Nothing is in flight on any lvol. Io error when the store had failed; it may be destroyed then, too.
  Task<Outcome> close();

  // Durable when the task ends.
  Task<Result<Lvol*>> create_lvol(LvolOptions options);
  Task<Outcome> delete_lvol(std::string name);  // busy: I/O in flight. Pointers and handles to it must be gone.

  Lvol* find(const std::string& name);
  Lvol* find(const Uuid& uuid);
  std::vector<Lvol*> list();
  LvStoreStats stats() const;
  const std::string& name() const { return name_; }
  const Uuid& uuid() const { return uuid_; }
  bool failed() const { return journal_.failed(); }
  Reactor& reactor() { return reactor_; }

 private:
  friend class Lvol;
  using Op = lvs::Op;
  static constexpr size_t ops_max = 4096;
  static constexpr size_t dirty_pages_max = 1024;  // a checkpoint starts there

  LvStore(Reactor& reactor, Handle base, const lvs::Layout& layout, const Uuid& uuid, std::string name);

  // lvstore_load.cc
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
  bool apply_map(const lvs::Record& record);
  bool apply_blocks_zero(const lvs::Record& record);
  bool apply_unmap(const lvs::Record& record);
  bool apply_clusters(const lvs::Record& record);
  void free_clusters(Lvol& lvol, uint32_t first_cluster, uint32_t count);

  // lvstore_checkpoint.cc
  Task<nvme::Status> checkpoint(uint64_t start_sequence, bool clean);
  Task<void> checkpoint_in_background();
  struct PendingPage;
  void serialize_page(lvs::Page& page, uint8_t* block);
  Task<nvme::Status> write_pages(std::vector<PendingPage>& pages);

  // lvstore_keeper.cc: reserves clean clusters and zeroes freed ones.
  enum class Admission : uint8_t { granted, queued, refused };
  Admission admit(Op* op, uint32_t cluster_count, bool retried);
  void kick_keeper();
  bool reserve_low() const;
  Task<void> keep_space();
  Task<bool> reserve_run();
  Task<bool> zero_run();
  void wake_space_waiters();

  void background_left();
  Lvol* by_id(uint32_t id);
  Lvol* insert_lvol(uint32_t id, std::string name, const Uuid& uuid, uint64_t count_blocks);
  void erase_lvol(Lvol* lvol);
  Task<Outcome> record_durably(lvs::Record record);
  void fail();
  Op* take_op(Io* io, Lvol* lvol);
  void give_op(Op* op);

  Reactor& reactor_;
  const lvs::Layout layout_;
  const Uuid uuid_;
  const std::string name_;
  lvs::Device device_;
  lvs::PageTable pages_;
  lvs::PlanePool planes_;
  lvs::Space space_;
  lvs::Journal journal_;
  std::vector<std::unique_ptr<Lvol>> lvols_;
  uint32_t lvol_id_next_ = 1;
  uint64_t generation_ = 0;
  uint64_t incarnation_ = 0;
  std::vector<bool> directory_in_b_;
  Pool<Op> ops_{ops_max};
  List<Io, &Io::node> starved_;  // Ios that found no Op
  List<Op, &Op::space_node> space_waiters_;
  std::vector<LoadingExtents> loading_extents_;
  uint64_t checkpoint_count_ = 0;
  bool checkpointing_ = false;
  bool keeping_ = false;
  bool closing_ = false;
  bool closed_ = false;
  uint32_t background_count_ = 0;
  Signal<Unit>* background_idle_ = nullptr;
};

}  // namespace basalt::bdev
