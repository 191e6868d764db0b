// SPDX-License-Identifier: Apache-2.0
// Framer: finds where one JSON object or array ends and the next begins in a stream of bytes (JSON-RPC over a socket
// has no other framing). It looks at brackets and strings only; the parser judges the rest.
//
//   framer.push(bytes); while (framer.next(&text)) ...; if (framer.broken()) end the connection.
#pragma once

#include <string>
#include <string_view>

#include "engine/rpc/json.h"

namespace basalt::rpc {

class Framer {
 public:
  void push(std::string_view bytes) { buffer_.append(bytes); }

  // Moves the next whole value into `text`. False: more bytes are needed, or the stream is broken.
  bool next(std::string* text);
  // The stream cannot be followed any more: a value too long, or something that is no object or array.
  bool broken() const { return broken_; }
  const char* reason() const { return reason_; }

 private:
  bool skip_space();
  bool fail(const char* reason);

  std::string buffer_;
  size_t scanned_ = 0;
  unsigned depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
  bool broken_ = false;
  const char* reason_ = "";
};

}  // namespace basalt::rpc
