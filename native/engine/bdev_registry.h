// SPDX-License-Identifier: Apache-2.0
// BdevRegistry: the names of an engine's bdevs, who owns them and who uses them.
//
// Thread: the management reactor.
// Invariants: - a name is taken from reserve() until withdraw() or destroy() ended, also while its bdev is being made
//             - a bdev has either one claim (its exclusive user above: a raid, an lvstore, a leg...) or any number of
//               openings (exports, handles), never both
//             - a bdev with a user is never destroyed; the refusal names the user
//             - a bdev's children stay claimed until it is closed
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/task.h"
#include "bdev/bdev.h"

namespace basalt {

class BdevRegistry {
 public:
  struct Entry {
    enum class State : uint8_t { reserved, ready, retiring };
    std::string name;
    State state = State::reserved;
    bdev::Bdev* bdev = nullptr;
    std::unique_ptr<bdev::Bdev> owned;  // empty: another object owns the bdev (lvstore, controller)
    std::vector<std::string> children;  // claimed for this bdev, by "bdev <name>"
    std::string claimed_by;
    std::vector<std::string> opened_by;
    uint64_t sequence = 0;  // grows with creation
    bool used() const { return !claimed_by.empty() || !opened_by.empty(); }
    std::string first_user() const { return !claimed_by.empty() ? claimed_by : opened_by.front(); }
  };

  BdevRegistry() = default;
  ~BdevRegistry();
  BdevRegistry(const BdevRegistry&) = delete;
  BdevRegistry& operator=(const BdevRegistry&) = delete;

  Outcome reserve(const std::string& name);
  // The reserved name becomes a usable bdev. The registry owns it.
  void publish(const std::string& name, std::unique_ptr<bdev::Bdev> bdev, std::vector<std::string> children = {});
  // The same for a bdev that its module owns and closes.
  void publish_foreign(const std::string& name, bdev::Bdev& bdev);
  // Frees a reserved name, or that of a foreign bdev after retire().
  void withdraw(const std::string& name);

  Result<bdev::Bdev*> claim(const std::string& name, std::string_view user);
  // All or none.
  Result<std::vector<bdev::Bdev*>> claim_all(const std::vector<std::string>& names, std::string_view user);
  Result<bdev::Bdev*> open(const std::string& name, std::string_view user);
  void release(const std::string& name, std::string_view user);
  void release_all(const std::vector<std::string>& names, std::string_view user);

  // By name, or by UUID. not_found names it.
  Result<Entry*> find(const std::string& name);
  // find() for the methods of one bdev type.
  Result<Entry*> find(const std::string& name, std::string_view product);

  // No new users from now on; `busy` when there are some. Goes on with withdraw() (foreign) or destroy().
  Outcome retire(Entry& entry);
  void unretire(Entry& entry) { entry.state = Entry::State::ready; }
  // Closes an owned bdev that nobody uses, frees it and its claims. When closing fails the bdev stays.
  Task<Outcome> destroy(std::string name, std::string product);
  // Destroys every owned bdev that nobody uses, newest first; true when there was one.
  Task<bool> destroy_unused();

  std::vector<Entry*> list();  // oldest first, only the ready ones
  bool empty() const { return entries_.empty(); }
  std::string describe() const;  // every name with its user, for an assertion's last words

 private:
  Task<Outcome> close(Entry* entry);
  std::map<std::string, std::unique_ptr<Entry>, std::less<>> entries_;
  uint64_t last_sequence_ = 0;
};

std::string child_user(std::string_view parent);  // "bdev <parent>"

}  // namespace basalt
