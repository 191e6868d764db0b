// SPDX-License-Identifier: Apache-2.0
// Intrusive doubly linked list: queues on the hot path without allocation. A node is in at most one list per ListNode
// member; it knows whether it is linked and can unlink itself in O(1). The list owns nothing. Not thread-safe.
//
//   struct Request { ListNode node; };   List<Request, &Request::node> queue;
#pragma once

#include <cstddef>

#include "base/assert.h"

namespace basalt {

struct ListNode {
  ListNode* prev = nullptr;
  ListNode* next = nullptr;

  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  ~ListNode() { BASALT_ASSERT(!linked()); }

  bool linked() const { return next != nullptr; }
  void unlink() {
    BASALT_ASSERT(linked());
    prev->next = next;
    next->prev = prev;
    prev = next = nullptr;
  }
};

template <class T, ListNode T::*member>
class List {
 public:
  List() { head_.prev = head_.next = &head_; }
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  ~List() {
    BASALT_ASSERT(empty());
    head_.prev = head_.next = nullptr;
  }

  bool empty() const { return head_.next == &head_; }
  T* front() { return empty() ? nullptr : owner(head_.next); }
  T* back() { return empty() ? nullptr : owner(head_.prev); }
  void push_back(T* item) { insert(head_.prev, &head_, &(item->*member)); }
  void push_front(T* item) { insert(&head_, head_.next, &(item->*member)); }
  T* pop_front() {
    T* item = front();
    if (item != nullptr) (item->*member).unlink();
    return item;
  }
  static void remove(T* item) { (item->*member).unlink(); }
  T* next(T* item) {
    ListNode* node = (item->*member).next;
    return node == &head_ ? nullptr : owner(node);
  }
  // Moves all of the other list's items to this one's end.
  void splice_back(List& other) {
    while (T* item = other.pop_front())
      push_back(item);
  }
  // Calls f(item) for each item; f may remove the item it was given.
  template <class F>
  void for_each(F&& f) {
    for (ListNode* node = head_.next; node != &head_;) {
      ListNode* following = node->next;
      f(owner(node));
      node = following;
    }
  }

 private:
  static void insert(ListNode* before, ListNode* after, ListNode* node) {
    BASALT_ASSERT(!node->linked());
    node->prev = before;
    node->next = after;
    before->next = node;
    after->prev = node;
  }
  static T* owner(ListNode* node) {
    const T* zero = reinterpret_cast<const T*>(alignof(T) * 64);
    const auto offset = reinterpret_cast<const char*>(&(zero->*member)) - reinterpret_cast<const char*>(zero);
    return reinterpret_cast<T*>(reinterpret_cast<char*>(node) - offset);
  }
  ListNode head_;
};

}  // namespace basalt
