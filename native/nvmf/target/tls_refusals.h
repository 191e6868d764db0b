// SPDX-License-Identifier: Apache-2.0
// TlsRefusals: connections that came to a TLS port and did not get in: how many, why, and from where. Each peer address
// is told once, however often it tries; when the list is full, further peers are counted only.
// Thread: any.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace basalt::nvmf {

enum class TlsRefusal : uint8_t {
  plaintext,  // no TLS at all
  key,        // a key that nobody here has, or a wrong one
  handshake,  // anything else: other versions, garbage, an end in the middle
  timeout,    // not ended in time
};
constexpr size_t tls_refusal_count = 4;
const char* to_string(TlsRefusal refusal);

class TlsRefusals {
 public:
  static constexpr size_t peers_max = 256;
  struct Peer {
    std::string traddr;
    TlsRefusal first;  // why, the first time
    uint64_t count = 0;
  };

  // `peer` as sockets name it, with its port. True: this peer has not been told yet.
  bool note(const std::string& peer, TlsRefusal refusal);
  uint64_t count(TlsRefusal refusal) const;
  std::vector<Peer> peers() const;

  static std::string address_of(const std::string& peer);  // without the port

 private:
  mutable std::mutex mutex_;
  uint64_t counts_[tls_refusal_count] = {};
  std::map<std::string, Peer> peers_;
};

}  // namespace basalt::nvmf
