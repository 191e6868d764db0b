// SPDX-License-Identifier: Apache-2.0
// One maker per method family; each is in the file of its name.
#pragma once

#include <memory>

#include "engine/engine.h"
#include "engine/module.h"

namespace basalt::rpc {

std::unique_ptr<Module> make_server(Engine& engine);
std::unique_ptr<Module> make_nbd(Engine& engine);
std::unique_ptr<Module> make_nvmf(Engine& engine);
std::unique_ptr<Module> make_nvmf_status(Engine& engine);
std::unique_ptr<Module> make_nvmf_referrals(Engine& engine);
std::unique_ptr<Module> make_nvmf_reservation(Engine& engine);
std::unique_ptr<Module> make_peer(Engine& engine);
std::unique_ptr<Module> make_leg(Engine& engine);
std::unique_ptr<Module> make_nvme(Engine& engine);
std::unique_ptr<Module> make_lvol(Engine& engine);
std::unique_ptr<Module> make_slot(Engine& engine);
std::unique_ptr<Module> make_slot_snapshot(Engine& engine);
std::unique_ptr<Module> make_bdev_crypto(Engine& engine);
std::unique_ptr<Module> make_raid(Engine& engine);
std::unique_ptr<Module> make_bdev_error(Engine& engine);
std::unique_ptr<Module> make_bdev_aio(Engine& engine);
std::unique_ptr<Module> make_bdev_null(Engine& engine);
std::unique_ptr<Module> make_bdev_malloc(Engine& engine);
std::unique_ptr<Module> make_bdev(Engine& engine);
std::unique_ptr<Module> make_bdev_copy(Engine& engine);
std::unique_ptr<Module> make_keyring(Engine& engine);
std::unique_ptr<Module> make_framework(Engine& engine);

}  // namespace basalt::rpc
