// SPDX-License-Identifier: Apache-2.0
#include "engine/bdev_registry.h"

#include <algorithm>

#include "base/assert.h"

namespace basalt {

std::string child_user(std::string_view parent) {
  return "bdev " + std::string(parent);
}

BdevRegistry::~BdevRegistry() {
  BASALT_ASSERT(entries_.empty());
}

Outcome BdevRegistry::reserve(const std::string& name) {
  if (entries_.contains(name)) return Error{Errc::exists, "bdev " + name + " exists"};
  auto entry = std::make_unique<Entry>();
  entry->name = name;
  entry->sequence = ++last_sequence_;
  entries_.emplace(name, std::move(entry));
  return success();
}

void BdevRegistry::publish(const std::string& name, std::unique_ptr<bdev::Bdev> bdev,
                           std::vector<std::string> children) {
  publish_foreign(name, *bdev);
  Entry& entry = *entries_.find(name)->second;
  entry.owned = std::move(bdev);
  entry.children = std::move(children);
}

void BdevRegistry::publish_foreign(const std::string& name, bdev::Bdev& bdev) {
  const auto found = entries_.find(name);
  BASALT_ASSERT(found != entries_.end());
  BASALT_ASSERT(found->second->state == Entry::State::reserved);
  found->second->bdev = &bdev;
  found->second->state = Entry::State::ready;
}

void BdevRegistry::withdraw(const std::string& name) {
  const auto found = entries_.find(name);
  BASALT_ASSERT(found != entries_.end());
  BASALT_ASSERT(found->second->state != Entry::State::ready);
  BASALT_ASSERT(!found->second->used());
  BASALT_ASSERT(!found->second->owned);
  entries_.erase(found);
}

Result<BdevRegistry::Entry*> BdevRegistry::find(const std::string& name) {
  const auto found = entries_.find(name);
  if (found != entries_.end()) {
    if (found->second->state == Entry::State::ready) return found->second.get();
    return Error{Errc::busy, "bdev " + name + " is being made or deleted"};
  }
  if (const auto uuid = Uuid::parse(name); uuid && !uuid->is_zero()) {
    for (const auto& [key, entry] : entries_) {
      if (entry->state == Entry::State::ready && entry->bdev->info().uuid == *uuid) return entry.get();
    }
  }
  return Error{Errc::not_found, "bdev " + name + " does not exist"};
}

Result<BdevRegistry::Entry*> BdevRegistry::find(const std::string& name, std::string_view product) {
  auto found = find(name);
  if (!found) return found;
  const std::string& actual = (*found)->bdev->info().product;
  if (actual != product) {
    return Error{Errc::invalid_argument,
                 "bdev " + name + " is of type " + actual + ", this method is for type " + std::string(product)};
  }
  return found;
}

Result<bdev::Bdev*> BdevRegistry::claim(const std::string& name, std::string_view user) {
  auto found = find(name);
  if (!found) return std::move(found).error();
  Entry& entry = **found;
  if (entry.used()) return Error{Errc::busy, "bdev " + name + " is in use by " + entry.first_user()};
  entry.claimed_by = user;
  return entry.bdev;
}

Result<std::vector<bdev::Bdev*>> BdevRegistry::claim_all(const std::vector<std::string>& names, std::string_view user) {
  std::vector<bdev::Bdev*> claimed;
  for (const std::string& name : names) {
    auto one = claim(name, user);
    if (!one) {
      release_all({names.begin(), names.begin() + static_cast<ptrdiff_t>(claimed.size())}, user);
      return std::move(one).error();
    }
    claimed.push_back(*one);
  }
  return claimed;
}

Result<bdev::Bdev*> BdevRegistry::open(const std::string& name, std::string_view user) {
  auto found = find(name);
  if (!found) return std::move(found).error();
  Entry& entry = **found;
  if (!entry.claimed_by.empty()) return Error{Errc::busy, "bdev " + name + " is in use by " + entry.claimed_by};
  entry.opened_by.emplace_back(user);
  return entry.bdev;
}

void BdevRegistry::release(const std::string& name, std::string_view user) {
  auto found = find(name);
  BASALT_ASSERT(found.ok());
  Entry& entry = **found;
  if (entry.claimed_by == user) {
    entry.claimed_by.clear();
    return;
  }
  const auto opening = std::find(entry.opened_by.begin(), entry.opened_by.end(), user);
  BASALT_ASSERT(opening != entry.opened_by.end());
  entry.opened_by.erase(opening);
}

void BdevRegistry::release_all(const std::vector<std::string>& names, std::string_view user) {
  for (const std::string& name : names)
    release(name, user);
}

Outcome BdevRegistry::retire(Entry& entry) {
  BASALT_ASSERT(entry.state == Entry::State::ready);
  if (entry.used()) return Error{Errc::busy, "bdev " + entry.name + " is in use by " + entry.first_user()};
  entry.state = Entry::State::retiring;
  return success();
}

Task<Outcome> BdevRegistry::close(Entry* entry) {
  auto closing = entry->bdev->close();
  auto closed = co_await closing;
  if (!closed) {
    unretire(*entry);
    co_return closed;
  }
  const std::string name = entry->name;
  const std::vector<std::string> children = entry->children;
  entry->owned.reset();
  withdraw(name);
  const std::string user = child_user(name);
  release_all(children, user);
  co_return success();
}

Task<Outcome> BdevRegistry::destroy(std::string name, std::string product) {
  auto found = find(name, product);
  if (!found) co_return std::move(found).error();
  Entry* entry = *found;
  BASALT_ASSERT(entry->owned != nullptr);
  auto retired = retire(*entry);
  if (!retired) co_return retired;
  auto closing = close(entry);
  auto closed = co_await closing;
  co_return closed;
}

Task<bool> BdevRegistry::destroy_unused() {
  bool destroyed = false;
  auto entries = list();
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    if ((*entry)->owned == nullptr || !retire(**entry).ok()) continue;
    auto closing = close(*entry);
    auto closed = co_await closing;
    // At the end of the engine a device that fails to close is not asked again.
    BASALT_ASSERT(closed.ok());
    destroyed = true;
  }
  co_return destroyed;
}

std::vector<BdevRegistry::Entry*> BdevRegistry::list() {
  std::vector<Entry*> entries;
  for (const auto& [name, entry] : entries_) {
    if (entry->state == Entry::State::ready) entries.push_back(entry.get());
  }
  std::sort(entries.begin(), entries.end(), [](Entry* a, Entry* b) { return a->sequence < b->sequence; });
  return entries;
}

std::string BdevRegistry::describe() const {
  std::string text;
  for (const auto& [name, entry] : entries_)
    text += " " + name + (entry->used() ? " (in use by " + entry->first_user() + ")" : "");
  return text;
}

}  // namespace basalt
