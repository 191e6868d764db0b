// SPDX-License-Identifier: Apache-2.0
// VerbsLibrary: the functions of libibverbs and librdmacm, found at run time. VerbsChannel: a channel of the connection
// manager's events, with the library that it needs.
//
// Nothing here may call a function of these libraries by its name: that would link them. (What verbs.h defines inline
// goes through the device's own table and is fine.)
//
// Threads: the functions may be called from any; a channel's events are read by one.
#pragma once

#if __has_include(<infiniband/verbs.h>) && __has_include(<rdma/rdma_cma.h>)
#define BASALT_HAS_VERBS 1

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <memory>

#include "base/result.h"

namespace basalt::env {

#define BASALT_VERBS_FUNCTIONS(each)                                                                                   \
  each(fork_init) each(open_device) each(close_device) each(get_async_event) each(ack_async_event) each(query_device)  \
      each(alloc_pd) each(dealloc_pd) each(reg_mr) each(dereg_mr) each(create_comp_channel) each(destroy_comp_channel) \
          each(create_cq) each(destroy_cq) each(get_cq_event) each(ack_cq_events) each(create_srq) each(destroy_srq)   \
              each(create_qp) each(modify_qp) each(destroy_qp)
#define BASALT_RDMACM_FUNCTIONS(each)                                                                             \
  each(create_event_channel) each(destroy_event_channel) each(create_id) each(destroy_id) each(bind_addr)         \
      each(resolve_addr) each(resolve_route) each(connect) each(establish) each(listen) each(accept) each(reject) \
          each(notify) each(disconnect) each(get_cm_event) each(ack_cm_event) each(get_src_port) each(set_option) \
              each(migrate_id) each(init_qp_attr)

struct VerbsLibrary {
  // `unsupported`: no adapter here, or the libraries are not installed or too old.
  static Result<std::shared_ptr<const VerbsLibrary>> load();

  struct Verbs {
#define BASALT_VERBS_FIELD(name) decltype(&::ibv_##name) name = nullptr;
    BASALT_VERBS_FUNCTIONS(BASALT_VERBS_FIELD)
#undef BASALT_VERBS_FIELD
  } verbs;
  struct Manager {
#define BASALT_RDMACM_FIELD(name) decltype(&::rdma_##name) name = nullptr;
    BASALT_RDMACM_FUNCTIONS(BASALT_RDMACM_FIELD)
#undef BASALT_RDMACM_FIELD
  } manager;
};

class VerbsChannel {
 public:
  static Result<std::shared_ptr<VerbsChannel>> open(std::shared_ptr<const VerbsLibrary> library);
  ~VerbsChannel() { library->manager.destroy_event_channel(events); }
  VerbsChannel(const VerbsChannel&) = delete;
  VerbsChannel& operator=(const VerbsChannel&) = delete;

  const std::shared_ptr<const VerbsLibrary> library;
  rdma_event_channel* const events;

 private:
  VerbsChannel(std::shared_ptr<const VerbsLibrary> with, rdma_event_channel* opened)
      : library(std::move(with)), events(opened) {}
};

}  // namespace basalt::env
#endif
