// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/lvstore.h"

#include <algorithm>

namespace basalt::bdev {
namespace {

Uuid random_uuid(env::Env& env) {
  Uuid uuid;
  env.random(uuid.bytes.data(), uuid.bytes.size());
  uuid.bytes[6] = static_cast<uint8_t>((uuid.bytes[6] & 0x0f) | 0x40);
  uuid.bytes[8] = static_cast<uint8_t>((uuid.bytes[8] & 0x3f) | 0x80);
  return uuid;
}

Outcome base_usable(const BdevInfo& info) {
  if (info.block_size_bytes != 512 && info.block_size_bytes != lvs::block_bytes) {
    return Error{Errc::unsupported, info.name + ": an lvstore needs blocks of 512 or 4096 bytes"};
  }
  for (IoType type : {IoType::read, IoType::write, IoType::flush, IoType::write_zeroes}) {
    if (!info.io_types.has(type)) {
      return Error{Errc::unsupported, info.name + ": an lvstore needs read, write, flush and write_zeroes"};
    }
  }
  return success();
}

bool all_zero(const uint8_t* bytes, size_t length_bytes) {
  return std::all_of(bytes, bytes + length_bytes, [](uint8_t byte) { return byte == 0; });
}

// Refuses what is not blank, and not to be overwritten.
Task<Outcome> look_for_content(lvs::Device device, bool force) {
  if (force) co_return success();
  lvs::BlockMemory area(lvs::superblock_area_blocks);
  const nvme::Status status = co_await device.transfer(IoType::read, 0, lvs::superblock_area_blocks, area.data());
  if (!status.ok()) co_return lvs::io_error("reading the superblock area", status);
  for (uint32_t slot = 0; slot < lvs::superblock_slot_count; slot++) {
    const uint8_t* block = area.block(size_t{slot} * lvs::superblock_stride_blocks);
    if (load_le<uint32_t>(block) == lvs::block_magic) {
      co_return Error{Errc::exists, device.handle().info().name + ": carries an lvstore already"};
    }
  }
  if (!all_zero(area.data(), size_t{lvs::superblock_area_blocks} * lvs::block_bytes)) {
    co_return Error{Errc::exists, device.handle().info().name + ": is not blank; force overwrites what it holds"};
  }
  co_return success();
}

}  // namespace

LvStore::LvStore(Reactor& reactor, Handle base, const lvs::Layout& layout, const Uuid& uuid, std::string name)
    : reactor_(reactor),
      layout_(layout),
      uuid_(uuid),
      name_(std::move(name)),
      device_(base),
      pages_(layout_),
      planes_(layout_.cluster_blocks()),
      space_(layout_, pages_),
      journal_(reactor, device_, layout_, *this),
      directory_in_b_(layout_.directory_pages) {}

LvStore::~LvStore() {
  BASALT_ASSERT(background_count_ == 0 && space_waiters_.empty() && starved_.empty());
  while (pages_.pop_dirty() != nullptr) {
  }
}

Task<Result<std::unique_ptr<LvStore>>> LvStore::create(Reactor& reactor, Handle base, LvStoreOptions options) {
  Outcome usable = base_usable(base.info());
  if (!usable) co_return std::move(usable).error();
  if (!lvs::name_valid(options.name)) {
    co_return Error{Errc::invalid_argument,
                    "name: 1 to 63 letters, digits, '_', '.', '-', the first a letter or digit"};
  }
  const lvs::Device device(base);
  Result<lvs::Layout> made = lvs::Layout::make(device.count_blocks(), options.cluster_bytes);
  if (!made) co_return std::move(made).error();
  const lvs::Layout layout = *made;
  Outcome blank = co_await look_for_content(device, options.force);
  if (!blank) co_return std::move(blank).error();
  // No superblock first: what happens until the new one is stable leaves a blank device, not half a store.
  nvme::Status status = co_await device.transfer(IoType::write_zeroes, 0, lvs::superblock_area_blocks, nullptr);
  if (status.ok()) status = co_await device.flush();
  const uint64_t zero_to = options.clear ? layout.device_blocks : layout.data_first_block;
  if (status.ok()) status = co_await device.transfer(IoType::write_zeroes, 0, zero_to, nullptr);
  if (status.ok()) status = co_await device.flush();
  if (!status.ok()) co_return lvs::io_error("clearing the base", status);

  const Uuid uuid = options.uuid.is_zero() ? random_uuid(reactor.env()) : options.uuid;
  std::unique_ptr<LvStore> store(new LvStore(reactor, base, layout, uuid, options.name));
  if (!options.clear) store->space_.set_all_dirty();
  store->incarnation_ = 1;
  status = co_await store->checkpoint(1, false);
  if (!status.ok()) co_return lvs::io_error("writing the first superblock", status);
  store->journal_.start(uuid, 1, store->generation_, 1);
  store->kick_keeper();
  co_return store;
}

Task<Outcome> LvStore::close() {
  BASALT_ASSERT(!closed_ && space_waiters_.empty());
  for (const auto& lvol : lvols_)
    BASALT_ASSERT(!lvol->busy());
  closing_ = true;
  while (background_count_ > 0) {
    Signal<Unit> idle;
    background_idle_ = &idle;
    co_await idle;
  }
  closed_ = true;
  const Error had_failed{Errc::io, name_ + ": the lvstore had failed; what was not flushed may be lost"};
  if (failed()) co_return had_failed;
  space_.return_reserve();
  checkpointing_ = true;
  const nvme::Status status = co_await checkpoint(journal_.completed_sequence() + 1, true);
  checkpointing_ = false;
  if (!status.ok()) co_return lvs::io_error("the last checkpoint", status);
  co_return success();
}

void LvStore::background_left() {
  if (--background_count_ == 0 && background_idle_ != nullptr) std::exchange(background_idle_, nullptr)->set(Unit{});
}

Lvol* LvStore::by_id(uint32_t id) {
  for (const auto& lvol : lvols_) {
    if (lvol->id_ == id) return lvol.get();
  }
  return nullptr;
}

Lvol* LvStore::find(const std::string& name) {
  for (const auto& lvol : lvols_) {
    if (lvol->published_ && !lvol->deleting_ && lvol->name() == name) return lvol.get();
  }
  return nullptr;
}

Lvol* LvStore::find(const Uuid& uuid) {
  for (const auto& lvol : lvols_) {
    if (lvol->published_ && !lvol->deleting_ && lvol->uuid() == uuid) return lvol.get();
  }
  return nullptr;
}

std::vector<Lvol*> LvStore::list() {
  std::vector<Lvol*> all;
  for (const auto& lvol : lvols_) {
    if (lvol->published_ && !lvol->deleting_) all.push_back(lvol.get());
  }
  return all;
}

LvStoreStats LvStore::stats() const {
  return {layout_.cluster_bytes, layout_.cluster_count,  space_.free_count(),           space_.to_zero_count(),
          checkpoint_count_,     journal_.used_blocks(), journal_.completed_sequence(), journal_.failed()};
}

Lvol* LvStore::insert_lvol(uint32_t id, std::string name, const Uuid& uuid, uint64_t count_blocks) {
  lvols_.push_back(std::unique_ptr<Lvol>(new Lvol(*this, id, std::move(name), uuid, count_blocks)));
  if (id >= lvol_id_next_) lvol_id_next_ = id + 1;
  return lvols_.back().get();
}

void LvStore::erase_lvol(Lvol* lvol) {
  if (lvol->page_.number != lvs::no_page) pages_.give(lvol->page_);
  std::erase_if(lvols_, [&](const auto& other) { return other.get() == lvol; });
}

// Writes one record and waits until it is on stable media.
Task<Outcome> LvStore::record_durably(lvs::Record record) {
  if (failed() || closing_) co_return Error{Errc::io, name_ + ": the lvstore has failed or is closing"};
  const auto bytes = std::make_unique<uint8_t[]>(lvs::record_bytes_max);
  lvs::JournalEntry entry;
  entry.records = bytes.get();
  entry.length_bytes = lvs::encode_record(record, bytes.get());
  background_count_++;
  nvme::Status status = co_await lvs::journal_wait(journal_, entry);
  if (status.ok()) {
    const uint64_t sequence = journal_.completed_sequence();
    status = co_await device_.flush();
    if (status.ok() && !failed()) {
      journal_.flushed(sequence);
    } else {
      if (status.ok()) status = nvme::status::write_fault;
      fail();
    }
  }
  background_left();
  if (!status.ok()) co_return lvs::io_error("the journal", status);
  co_return success();
}

Task<Result<Lvol*>> LvStore::create_lvol(LvolOptions options) {
  if (!lvs::name_valid(options.name)) {
    co_return Error{Errc::invalid_argument,
                    "name: 1 to 63 letters, digits, '_', '.', '-', the first a letter or digit"};
  }
  if (options.size_bytes == 0 || options.size_bytes % lvs::block_bytes != 0) {
    co_return Error{Errc::invalid_argument, "size_bytes: a multiple of 4096, not zero"};
  }
  if (options.size_bytes / layout_.cluster_bytes >= lvs::no_cluster) {
    co_return Error{Errc::invalid_argument, "size_bytes: more clusters than an lvol can have"};
  }
  const Uuid uuid = options.uuid.is_zero() ? random_uuid(reactor_.env()) : options.uuid;
  for (const auto& lvol : lvols_) {
    if (lvol->name() == options.name) co_return Error{Errc::exists, options.name + ": the name is taken"};
    if (lvol->uuid() == uuid) co_return Error{Errc::exists, uuid.to_string() + ": the uuid is taken"};
  }
  uint32_t page;
  if (!pages_.take(page)) co_return Error{Errc::no_space, name_ + ": no metadata page is left"};
  const uint32_t id = lvol_id_next_;
  Lvol* lvol = insert_lvol(id, options.name, uuid, options.size_bytes / lvs::block_bytes);
  lvol->page_.number = page;
  lvs::Record record{.type = lvs::RecordType::lvol_create,
                     .lvol_id = id,
                     .size_bytes = options.size_bytes,
                     .uuid = uuid,
                     .text = options.name};
  lvol->control_count_++;
  Outcome outcome = co_await record_durably(record);
  lvol->control_count_--;
  if (!outcome) {
    if (!lvol->published_) erase_lvol(lvol);
    co_return std::move(outcome).error();
  }
  co_return lvol;
}

Task<Outcome> LvStore::delete_lvol(std::string name) {
  Lvol* lvol = find(name);
  if (lvol == nullptr) co_return Error{Errc::not_found, name + ": no such lvol"};
  if (lvol->busy()) co_return Error{Errc::busy, name + ": has I/O in flight"};
  lvol->deleting_ = true;
  lvs::Record record{.type = lvs::RecordType::lvol_delete, .lvol_id = lvol->id_, .uuid = {}, .text = {}};
  const uint32_t id = lvol->id_;
  Outcome outcome = co_await record_durably(record);
  Lvol* left = by_id(id);  // gone when the record was written
  if (left != nullptr) left->deleting_ = false;
  if (outcome) kick_keeper();
  co_return outcome;
}

void LvStore::fail() {
  if (!journal_.failed()) {
    journal_.fail();
    journal_failed();
  }
}

lvs::Op* LvStore::take_op(Io* io, Lvol* lvol) {
  Op* op = ops_.take();
  if (op == nullptr) {
    io->forwarded.target = lvol;
    starved_.push_back(io);
    return nullptr;
  }
  op->lvol = lvol;
  op->io = io;
  op->exclusive = op->holds_range = op->asynchronous = false;
  op->done_blocks = 0;
  return op;
}

void LvStore::give_op(Op* op) {
  ops_.give(op);
  if (starved_.empty()) [[likely]]
    return;
  Io* io = starved_.pop_front();
  Lvol* lvol = static_cast<Lvol*>(io->forwarded.target);
  lvol->begin(take_op(io, lvol));
}

}  // namespace basalt::bdev
