// SPDX-License-Identifier: Apache-2.0
// The list of method families; it only lists. Exports come first: the order in which they stop.
#include "engine/rpc/modules.h"

namespace basalt {

ModuleList make_modules(Engine& engine) {
  ModuleList modules;
  modules.push_back(rpc::make_server(engine));
  modules.push_back(rpc::make_nbd(engine));
  modules.push_back(rpc::make_nvmf(engine));
  modules.push_back(rpc::make_nvmf_status(engine));
  modules.push_back(rpc::make_nvmf_referrals(engine));
  modules.push_back(rpc::make_nvmf_reservation(engine));
  modules.push_back(rpc::make_peer(engine));
  modules.push_back(rpc::make_bdev_copy(engine));
  modules.push_back(rpc::make_slot_snapshot(engine));
  modules.push_back(rpc::make_slot(engine));
  modules.push_back(rpc::make_bdev_crypto(engine));
  modules.push_back(rpc::make_raid(engine));
  modules.push_back(rpc::make_leg(engine));
  modules.push_back(rpc::make_nvme(engine));
  modules.push_back(rpc::make_lvol(engine));
  modules.push_back(rpc::make_bdev_error(engine));
  modules.push_back(rpc::make_bdev_aio(engine));
  modules.push_back(rpc::make_bdev_null(engine));
  modules.push_back(rpc::make_bdev_malloc(engine));
  modules.push_back(rpc::make_bdev(engine));
  modules.push_back(rpc::make_keyring(engine));
  modules.push_back(rpc::make_framework(engine));
  return modules;
}

}  // namespace basalt
