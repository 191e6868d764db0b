// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/lvol.h"

#include "bdev/lvol/lvstore.h"

namespace basalt::bdev {
namespace {

constexpr IoTypes read_only_types{1u << static_cast<unsigned>(IoType::read) |
                                  1u << static_cast<unsigned>(IoType::flush)};

void add_nearest(const lvs::Layer& layer, std::vector<const Lvol*>& out) {
  // Hidden layers have few children and lie at most layer_depth_max deep.
  const_cast<lvs::Layer&>(layer).children.for_each([&](lvs::Layer* child) {
    if (child->hidden()) {
      add_nearest(*child, out);
    } else if (child->published) {
      out.push_back(child->lvol.get());
    }
  });
}

}  // namespace

Lvol::Lvol(LvStore& store, lvs::Layer& layer) : Bdev(store.reactor_), store_(store), layer_(&layer) {
  info_.product = "lvol";
  info_.block_size_bytes = lvs::block_bytes;
  info_.volatile_cache = true;
  info_.memory_alignment_bytes = store.device_.handle().info().memory_alignment_bytes;
  show(layer);
}

Lvol::~Lvol() {
  BASALT_ASSERT(!busy());
}

void Lvol::show(lvs::Layer& layer) {
  layer_ = &layer;
  // Others may be reading it: only what differs is written. A rename needs an lvol that nobody uses.
  if (info_.name != layer.name) info_.name = layer.name;
  info_.uuid = layer.uuid;
  const IoTypes types = layer.read_only() ? read_only_types : IoTypes{};
  __atomic_store_n(&info_.io_types.mask, types.mask, __ATOMIC_RELAXED);  // target queues look at it on their reactors
  set_size(layer.count_blocks);
}

Task<Outcome> Lvol::close() {
  BASALT_ASSERT(op_count_ == 0);
  co_return success();
}

Task<Outcome> Lvol::set_attribute(std::string value) {
  if (value.size() > attribute_bytes_max) {
    co_return Error{Errc::invalid_argument, info_.name + ": an attribute has at most 1024 bytes"};
  }
  while (cutting_)
    co_await attributes_changed_.wait();
  if (deleting_) co_return Error{Errc::closed, info_.name + ": being deleted"};
  attributes_in_flight_++;
  lvs::Record record{.type = lvs::RecordType::attribute, .lvol_id = layer_->id, .uuid = {}, .text = value};
  Outcome outcome = co_await store_.commit({&record, 1}, true);
  if (--attributes_in_flight_ == 0) attributes_changed_.wake_all();
  co_return outcome;
}

Task<Outcome> Lvol::snapshot(std::string name, std::function<bool()> may_begin) {
  LvStoreOwner* owner = store_.owner_;
  if (owner != nullptr) {
    Outcome begun = owner->snapshot_begins(store_, name);
    if (!begun) co_return begun;
  }
  LvolOptions options;
  options.name = name;
  auto making = store_.snapshot_lvol(info_.name, std::move(options), std::move(may_begin));
  Result<Lvol*> made = co_await making;
  if (owner != nullptr) owner->snapshot_ended(store_, name, made ? *made : nullptr);
  if (!made) co_return std::move(made).error();
  co_return success();
}

Task<Outcome> Lvol::prepare_snapshot() {
  Outcome prepared = co_await store_.prepare_snapshot(info_.name);
  co_return prepared;
}

uint64_t Lvol::allocated_bytes() const {
  return uint64_t{layer_->map.mapped_count()} * store_.layout_.cluster_bytes;
}

const Lvol* Lvol::base() const {
  const lvs::Layer* layer = layer_->parent;
  while (layer != nullptr && layer->hidden())
    layer = layer->parent;
  return layer == nullptr ? nullptr : layer->lvol.get();
}

std::vector<const Lvol*> Lvol::clones() const {
  std::vector<const Lvol*> out;
  add_nearest(*layer_, out);
  return out;
}

}  // namespace basalt::bdev
