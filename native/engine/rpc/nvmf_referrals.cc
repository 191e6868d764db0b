// SPDX-License-Identifier: Apache-2.0
// nvmf_discovery_*_referral(s): the discovery services of others that this target names.
#include "engine/fabric.h"
#include "engine/rpc/fields.h"
#include "engine/rpc/modules.h"
#include "engine/rpc/nvmf_params.h"

namespace basalt::rpc {
namespace {

class NvmfReferrals final : public Module {
 public:
  explicit NvmfReferrals(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("nvmf_discovery_add_referral", this, &NvmfReferrals::add);
    dispatcher.add("nvmf_discovery_remove_referral", this, &NvmfReferrals::remove);
    dispatcher.add("nvmf_discovery_get_referrals", this, &NvmfReferrals::get);
  }

 private:
  static nvmf::ListenAddress read(Fields& in) {
    const bool secure = in.boolean_or("secure_channel", false);
    nvmf::ListenAddress address = read_listen_address(in, "address");
    address.secure_channel = secure;
    if (address.trtype == "LOOPBACK") in.refuse("address", "must be of TCP or RDMA");
    if (address.trsvcid == "0") in.refuse("address", "must have a port");
    if (address.traddr.size() > 255) in.refuse("address", "must have at most 255 bytes");
    return address;
  }

  Task<RpcResult> add(JsonValue params) {
    Fields in(params);
    const nvmf::ListenAddress address = read(in);
    if (auto error = in.error()) co_return *error;
    auto added = engine_.fabric().target().add_referral(address);
    if (!added) co_return std::move(added).error();
    co_return done();
  }

  Task<RpcResult> remove(JsonValue params) {
    Fields in(params);
    const nvmf::ListenAddress address = read(in);
    if (auto error = in.error()) co_return *error;
    auto removed = engine_.fabric().target().remove_referral(address);
    if (!removed) co_return std::move(removed).error();
    co_return done();
  }

  Task<RpcResult> get(JsonValue params) {
    Fields in(params);
    if (auto error = in.error()) co_return *error;
    auto list = JsonValue::array();
    for (const nvmf::ListenAddress& address : engine_.fabric().target().referrals()) {
      auto one = JsonValue::object();
      one.set("address", describe_address(address)).set("secure_channel", address.secure_channel);
      list.push(std::move(one));
    }
    co_return list;
  }

  Engine& engine_;
};

}  // namespace

std::unique_ptr<Module> make_nvmf_referrals(Engine& engine) {
  return std::make_unique<NvmfReferrals>(engine);
}

}  // namespace basalt::rpc
