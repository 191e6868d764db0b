// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/framer.h"

namespace basalt::rpc {

bool Framer::fail(const char* reason) {
  broken_ = true;
  reason_ = reason;
  return false;
}

bool Framer::skip_space() {
  size_t start = 0;
  while (start < buffer_.size() &&
         (buffer_[start] == ' ' || buffer_[start] == '\t' || buffer_[start] == '\n' || buffer_[start] == '\r')) {
    start++;
  }
  buffer_.erase(0, start);
  return !buffer_.empty();
}

bool Framer::next(std::string* text) {
  if (broken_) return false;
  if (scanned_ == 0) {
    if (!skip_space()) return false;
    if (buffer_[0] != '{' && buffer_[0] != '[') return fail("not JSON: a request is an object");
  }
  for (; scanned_ < buffer_.size(); scanned_++) {
    const char c = buffer_[scanned_];
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      depth_++;
    } else if (c == '}' || c == ']') {
      if (--depth_ == 0) {
        text->assign(buffer_, 0, scanned_ + 1);
        buffer_.erase(0, scanned_ + 1);
        scanned_ = 0;
        return true;
      }
    }
  }
  if (scanned_ > json_bytes_max) return fail("not JSON: the request is too long");
  return false;
}

}  // namespace basalt::rpc
