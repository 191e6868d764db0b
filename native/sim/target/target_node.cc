// SPDX-License-Identifier: Apache-2.0
#include "sim/target/target_node.h"

#include "bdev/malloc/malloc.h"

namespace basalt::sim {
namespace {
constexpr uint16_t first_port = 4420;
constexpr uint64_t block_bytes = 4096;
}  // namespace

TargetNode::TargetNode(env::SimWorld& world, const TargetNodeOptions& options, Arena& arena)
    : world_(world), node_(world.add_node("t")), options_(options) {
  for (size_t i = 0; i < options.reactor_count; i++) {
    ReactorOptions reactor;
    reactor.index = static_cast<unsigned>(i);
    reactor.buffer_bytes_max = options.buffer_bytes_max;
    reactors_.push_back(std::make_unique<Reactor>(node_, arena, reactor));
    BASALT_ASSERT(reactors_.back()->init().ok());
    loops_.push_back(node_.start(*reactors_.back(), {}));
  }
}

TargetNode::~TargetNode() = default;

void TargetNode::open() {
  std::vector<Reactor*> reactors;
  for (const auto& reactor : reactors_)
    reactors.push_back(reactor.get());
  target_ = std::make_unique<nvmf::Target>(reactors);
  auto tcp = std::make_unique<nvmf::TcpTargetTransport>(*target_);
  tcp_ = tcp.get();
  target_->add_transport(std::move(tcp));
  const Outcome opened = run(open_all());
  BASALT_ASSERT(opened.ok());
}

Task<Outcome> TargetNode::open_all() {
  auto good_opening = open_disk("good", options_.disk);
  auto good = co_await good_opening;
  if (!good) co_return std::move(good).error();
  auto rude_opening = open_disk("rude", TargetDisk::malloc);
  auto rude = co_await rude_opening;
  if (!rude) co_return std::move(rude).error();
  auto good_serving = serve(good_subnqn, *good, false);
  Outcome served = co_await good_serving;
  if (!served) co_return served;
  auto rude_serving = serve(rude_subnqn, *rude, true);
  served = co_await rude_serving;
  co_return served;
}

Task<Result<bdev::Bdev*>> TargetNode::open_disk(std::string name, TargetDisk kind) {
  if (kind == TargetDisk::malloc) {
    auto made = bdev::MallocBdev::create(home(), {name, {}, block_bytes, options_.count_blocks});
    if (!made) co_return std::move(made).error();
    bdevs_.push_back(std::move(made).value());
    co_return bdevs_.back().get();
  }
  bdev::FileBdevOptions file;
  file.name = name;
  file.path = name;
  file.create_bytes = options_.count_blocks * block_bytes * (kind == TargetDisk::lvol ? 4 : 1);
  auto opened = bdev::FileBdev::open(home(), file);
  if (!opened) co_return std::move(opened).error();
  bdevs_.push_back(std::move(opened).value());
  if (kind == TargetDisk::file) co_return bdevs_.back().get();
  bdev::LvStoreOptions store;
  store.name = name;
  store.cluster_bytes = 64 << 10;
  auto creating = bdev::LvStore::create(home(), bdev::Handle(*bdevs_.back(), home()), store);
  auto created = co_await creating;
  if (!created) co_return std::move(created).error();
  store_ = std::move(created).value();
  bdev::LvolOptions lvol;
  lvol.name = name;
  lvol.size_bytes = options_.count_blocks * block_bytes;
  auto making = store_->create_lvol(lvol);
  auto made = co_await making;
  if (!made) co_return std::move(made).error();
  co_return made.value();
}

Task<Outcome> TargetNode::serve(std::string nqn, bdev::Bdev* bdev, bool anybody) {
  nvmf::SubsystemOptions options;
  options.nqn = nqn;
  options.serial_number = "1";
  options.allow_any_host = anybody;
  auto made = target_->create_subsystem(options);
  if (!made) co_return std::move(made).error();
  nvmf::Subsystem* subsystem = *made;
  for (size_t i = 0; !anybody && i < options_.good_host_count; i++) {
    Outcome added = subsystem->add_host(good_hostnqn + std::to_string(i));
    if (!added) co_return added;
  }
  ns::NamespaceOptions space;
  space.nsid = 1;
  auto adding = subsystem->add_namespace(space, bdev);
  auto added = co_await adding;
  if (!added) co_return std::move(added).error();
  for (const env::Address& address : addresses()) {
    nvmf::ListenAddress listen;
    listen.traddr = address.host;
    listen.trsvcid = std::to_string(address.port);
    auto listening = subsystem->add_listener(listen);
    auto bound = co_await listening;
    if (!bound) co_return std::move(bound).error();
  }
  co_return success();
}

std::vector<env::Address> TargetNode::addresses() const {
  std::vector<env::Address> addresses;
  for (size_t i = 0; i < options_.port_count; i++)
    addresses.push_back({.host = "127.0.0.1", .port = static_cast<uint16_t>(first_port + i)});
  return addresses;
}

size_t TargetNode::buffers_in_use() const {
  size_t count = 0;
  for (const auto& reactor : reactors_)
    count += reactor->buffers().in_use_count();
  return count;
}

void TargetNode::close() {
  const Outcome closed = run(close_all());
  BASALT_ASSERT(closed.ok());
  target_.reset();
  bdevs_.clear();
}

Task<Outcome> TargetNode::close_all() {
  auto closing = target_->close();
  co_await closing;
  if (store_ != nullptr) {
    auto store_closing = store_->close();
    Outcome closed = co_await store_closing;
    if (!closed) co_return closed;
    store_.reset();
  }
  for (const auto& bdev : bdevs_) {
    auto bdev_closing = bdev->close();
    Outcome closed = co_await bdev_closing;
    if (!closed) co_return closed;
  }
  co_return success();
}

}  // namespace basalt::sim
