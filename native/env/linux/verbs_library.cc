// SPDX-License-Identifier: Apache-2.0
#include "env/linux/verbs_library.h"

#ifdef BASALT_HAS_VERBS

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace basalt::env {
namespace {

constexpr char verbs_devices_folder[] = "/sys/class/infiniband";

// The kernel has adapters; which of them the libraries know is another matter.
bool kernel_has_adapter() {
  DIR* folder = opendir(verbs_devices_folder);
  if (folder == nullptr) return false;
  bool found = false;
  while (const dirent* entry = readdir(folder))
    found |= entry->d_name[0] != '.';
  closedir(folder);
  return found;
}

Error library_error() {
  const char* why = dlerror();
  return {Errc::unsupported, std::string("there is no RDMA: rdma-core cannot be used: ") + (why ? why : "?")};
}

template <class F>
bool find_function(void* library, const char* name, F* out) {
  *out = reinterpret_cast<F>(dlsym(library, name));
  return *out != nullptr;
}

}  // namespace

Result<std::shared_ptr<const VerbsLibrary>> VerbsLibrary::load() {
  if (!kernel_has_adapter()) return Error{Errc::unsupported, "there is no RDMA adapter on this machine"};
  // They stay loaded: device drivers of theirs do, too.
  void* verbs = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_NODELETE);
  void* manager = verbs == nullptr ? nullptr : dlopen("librdmacm.so.1", RTLD_NOW | RTLD_NODELETE);
  if (manager == nullptr) return library_error();
  auto library = std::make_shared<VerbsLibrary>();
  bool all = true;
#define BASALT_VERBS_FIND(name) all = all && find_function(verbs, "ibv_" #name, &library->verbs.name);
  BASALT_VERBS_FUNCTIONS(BASALT_VERBS_FIND)
#undef BASALT_VERBS_FIND
#define BASALT_RDMACM_FIND(name) all = all && find_function(manager, "rdma_" #name, &library->manager.name);
  BASALT_RDMACM_FUNCTIONS(BASALT_RDMACM_FIND)
#undef BASALT_RDMACM_FIND
  if (!all) return library_error();
  // Node.js forks; kernels before 5.12 would take registered pages away from the process that registered them.
  (void)library->verbs.fork_init();
  return std::shared_ptr<const VerbsLibrary>(std::move(library));
}

Result<std::shared_ptr<VerbsChannel>> VerbsChannel::open(std::shared_ptr<const VerbsLibrary> library) {
  rdma_event_channel* events = library->manager.create_event_channel();
  if (events == nullptr) {
    return Error{Errc::unsupported,
                 std::string("there is no RDMA: the connection manager (/dev/infiniband/rdma_cm, kernel module "
                             "rdma_ucm) cannot be used: ") +
                     std::strerror(errno)};
  }
  fcntl(events->fd, F_SETFL, fcntl(events->fd, F_GETFL) | O_NONBLOCK);
  return std::shared_ptr<VerbsChannel>(new VerbsChannel(std::move(library), events));
}

}  // namespace basalt::env
#endif
