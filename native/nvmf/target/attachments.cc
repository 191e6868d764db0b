// SPDX-License-Identifier: Apache-2.0
#include "nvmf/target/attachments.h"

#include <algorithm>

#include "base/bytes.h"

namespace basalt::nvmf {

namespace status = nvme::status;

uint64_t tag_of(const ns::HostId& host) {
  return load_le<uint64_t>(host.bytes.data());
}

ns::HostId Attachment::host_of(uint64_t epoch) const {
  ns::HostId out = host;
  uint8_t* rest = out.bytes.data() + sizeof(tag);
  store_le<uint64_t>(rest, load_le<uint64_t>(rest) ^ epoch);
  return out;
}

Attachments::Attachments(uint32_t count_max, bool planted_ignore_epoch)
    : count_max_(count_max),
      planted_ignore_epoch_(planted_ignore_epoch),
      table_(new std::atomic<Attachment*>[count_max]) {
  for (uint32_t i = 0; i < count_max; i++)
    table_[i].store(nullptr, std::memory_order_relaxed);
}

const Attachment* Attachments::at(uint32_t number) const {
  if (number == 0 || number > count_max_) return nullptr;
  return table_[number - 1].load(std::memory_order_acquire);
}

Attachments::Found Attachments::find(const nvme::Command& command) const {
  const Attachment* attachment = at(command.nsid);
  if (attachment == nullptr) return {.status = status::invalid_namespace.dnr()};
  // Of an earlier attachment that had this number: it is over, whatever it was.
  if (attachment->tag != command.link_tag()) return {.status = status::reservation_conflict.dnr()};
  uint64_t epoch = command.link_epoch();
  if (epoch == 0) return {.status = status::invalid_field.dnr()};
  const bool registers = command.opcode == static_cast<uint8_t>(nvme::NvmOpcode::reservation_register);
  const uint64_t latest = attachment->registered_epoch.load(std::memory_order_relaxed);
  if (planted_ignore_epoch_ && !registers && latest != 0) epoch = latest;
  return {status::success, attachment->space, attachment->host_of(epoch), attachment->path};
}

void Attachments::registered(const nvme::Command& command) const {
  const Attachment* attachment = at(command.nsid);
  if (planted_ignore_epoch_ && attachment != nullptr) attachment->registered_epoch.store(command.link_epoch());
}

uint32_t Attachments::add(std::unique_ptr<Attachment> attachment) {
  if (count_ == count_max_) return 0;
  uint32_t index = next_;
  while (table_[index].load(std::memory_order_relaxed) != nullptr)
    index = (index + 1) % count_max_;
  next_ = (index + 1) % count_max_;
  if (held_.size() <= index) held_.resize(index + 1);
  attachment->number = index + 1;
  table_[index].store(attachment.get(), std::memory_order_release);
  held_[index] = std::move(attachment);
  most_count_ = std::max(most_count_, ++count_);
  return index + 1;
}

void Attachments::take(uint32_t number, Taken* out) {
  if (at(number) == nullptr) return;
  table_[number - 1].store(nullptr, std::memory_order_seq_cst);
  out->push_back(std::move(held_[number - 1]));
  count_--;
}

std::vector<uint32_t> Attachments::take_all(const std::function<bool(const Attachment&)>& which, Taken* out) {
  std::vector<uint32_t> numbers;
  for (const auto& each : held_) {
    if (each != nullptr && which(*each)) numbers.push_back(each->number);
  }
  for (const uint32_t number : numbers)
    take(number, out);
  return numbers;
}

std::vector<uint32_t> Attachments::numbers_of(const ns::Namespace& space) const {
  std::vector<uint32_t> numbers;
  for (const auto& each : held_) {
    if (each != nullptr && each->space == &space) numbers.push_back(each->number);
  }
  return numbers;
}

}  // namespace basalt::nvmf
