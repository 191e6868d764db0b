// SPDX-License-Identifier: Apache-2.0
// Keyring: secrets by name. Methods name keys; what a key is comes from a file that only its owner may read, or from
// the program that this engine is part of, and leaves the engine by no method, event or log.
// Thread: the management reactor.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "crypto/bytes.h"

namespace basalt {

class Keyring {
 public:
  // Takes over the file's text, without the line's end; erases what it was given. `path` is empty for what is in no
  // file.
  Outcome add(const std::string& name, const std::string& path, std::string text);
  Outcome remove(const std::string& name);  // who uses the key keeps it

  struct Entry {
    std::string name;
    std::string path;
  };
  std::vector<Entry> entries() const;
  // The text; valid until the key is removed.
  Result<std::string_view> find(const std::string& name) const;

 private:
  struct Key {
    std::string path;
    crypto::SecretBytes text;
  };
  std::map<std::string, Key> keys_;
};

}  // namespace basalt
