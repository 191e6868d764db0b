// SPDX-License-Identifier: Apache-2.0
// Our own host against our own target with authentication, over every transport: it connects when both keys are right,
// and says what is wrong when they are not.
#include "bdev/nvmf/multipath.h"
#include "nvmf/host/controller.h"
#include "nvmf/transport/target_world_testing.h"

namespace basalt::nvmf {
namespace {

using basalt::testing::TargetWorld;
using basalt::testing::TestDisk;

constexpr char host_text[] = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
constexpr char controller_text[] =
    "DHHC-1:03:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOEhYaHiImKi4yNjo+QkZKTlJWWl5iZmpucnZ6foKGio8FPdnY=:";

auth::SharedSecret secret_of(const char* text) {
  auto secret = auth::Secret::parse(text);
  BASALT_ASSERT(secret.ok());
  return std::make_shared<const auth::Secret>(std::move(secret).value());
}

struct Recorder : HostController::Listener {
  std::vector<Error> lost;
  void controller_lost(const Error& reason) override { lost.push_back(reason); }
  void namespaces_changed() override {}
};

class HostAuthenticates : public ::testing::TestWithParam<const char*> {
 protected:
  HostAuthenticates() {
    subsystem = world.add_subsystem(basalt::testing::test_subnqn, &disk);
    address = world.listen(subsystem, GetParam());
    keys = {secret_of(host_text), secret_of(controller_text), "host-key", "controller-key"};
    BASALT_ASSERT(subsystem->add_host(basalt::testing::test_hostnqn, keys).ok());
    options.address = address;
    options.subnqn = basalt::testing::test_subnqn;
    options.hostnqn = basalt::testing::test_hostnqn;
    options.hostid.bytes[0] = 1;
    options.io_queue_count = 2;
    options.authentication.host = keys.host;
    options.authentication.policy = {auth::default_hashes(), {auth::GroupId::ffdhe2048}};
  }
  ~HostAuthenticates() override {
    close();
    world.close();
  }
  void close() {
    if (controller) world.net.run_void(controller->close());
    controller.reset();
  }
  Outcome connect() {
    close();
    controller = std::make_unique<HostController>(world.host, world.transport(GetParam()), options, &recorder);
    return world.net.run(controller->connect());
  }
  void expect_refused(const char* reason) {
    const Outcome outcome = connect();
    ASSERT_FALSE(outcome.ok());
    EXPECT_EQ(outcome.error().code, Errc::permission) << outcome.error().message;
    EXPECT_NE(outcome.error().message.find(reason), std::string::npos) << outcome.error().message;
    EXPECT_EQ(outcome.error().message.find("DHHC"), std::string::npos);
  }

  TargetWorld world;
  TestDisk disk{world.home, 1024, 1};
  Subsystem* subsystem = nullptr;
  HostAddress address;
  HostKeys keys;
  HostControllerOptions options;
  Recorder recorder;
  std::unique_ptr<HostController> controller;
};

TEST_P(HostAuthenticates, InOneDirectionAndInBoth) {
  const Outcome one_way = connect();
  ASSERT_TRUE(one_way.ok()) << one_way.error().message;
  EXPECT_EQ(controller->io_queue_count(), 2u);
  options.authentication.controller = keys.controller;
  const Outcome two_way = connect();
  ASSERT_TRUE(two_way.ok()) << two_way.error().message;
  EXPECT_EQ(controller->namespaces().size(), 1u);
}

TEST_P(HostAuthenticates, WithEveryHashAndGroup) {
  options.authentication.controller = keys.controller;
  options.io_queue_count = 1;
  for (const auth::HashId hash : {auth::HashId::sha256, auth::HashId::sha384, auth::HashId::sha512}) {
    for (uint8_t group = 0; group <= 2; group++) {
      options.authentication.policy = {{hash}, {static_cast<auth::GroupId>(group)}};
      world.target->set_authentication_policy(options.authentication.policy);
      const Outcome outcome = connect();
      ASSERT_TRUE(outcome.ok()) << outcome.error().message;
    }
  }
}

TEST_P(HostAuthenticates, AgainWhileItIsConnected) {
  options.authentication.controller = keys.controller;
  ASSERT_TRUE(connect().ok());
  const Outcome again = world.net.run(controller->reauthenticate());
  EXPECT_TRUE(again.ok()) << again.error().message;
  EXPECT_TRUE(controller->live());
  // The host's key was changed on the other side, and nobody told the host.
  ASSERT_TRUE(subsystem->set_host_keys(basalt::testing::test_hostnqn, {keys.controller, nullptr, "", ""}).ok());
  const Outcome refused = world.net.run(controller->reauthenticate());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Errc::permission);
  ASSERT_TRUE(world.net.run_until([&] { return recorder.lost.size() == 1; }, seconds(5)));
  EXPECT_FALSE(controller->live());
}

TEST_P(HostAuthenticates, NotWithAWrongKey) {
  options.authentication.host = keys.controller;
  expect_refused("authentication failed");
}

TEST_P(HostAuthenticates, NotWithoutAKey) {
  options.authentication = {};
  expect_refused("there is no dhchap_key");
}

TEST_P(HostAuthenticates, NotWithAControllerThatHasAnotherKey) {
  options.authentication.controller = secret_of("DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:");
  expect_refused("authentication failed");
}

TEST_P(HostAuthenticates, NotWithAControllerThatDoesNotEvenAsk) {
  ASSERT_TRUE(subsystem->set_host_keys(basalt::testing::test_hostnqn, {}).ok());
  ASSERT_TRUE(connect().ok());  // one direction: the controller decides
  options.authentication.controller = keys.controller;
  expect_refused("authentication");
}

TEST_P(HostAuthenticates, NotWithLessThanItAllows) {
  options.authentication.policy = {auth::default_hashes(), auth::default_groups()};
  world.target->set_authentication_policy({{auth::HashId::sha256}, {auth::GroupId::none}});
  expect_refused("DH group not usable");
}

TEST_P(HostAuthenticates, AndComesBackByItselfAfterALoss) {
  bdev::MultipathOptions set;
  set.name = "n";
  set.subnqn = options.subnqn;
  set.hostnqn = options.hostnqn;
  set.authentication = options.authentication;
  set.authentication.controller = keys.controller;
  bdev::NvmfController many(world.host, set);
  ASSERT_TRUE(world.net.run(many.add_path(world.transport(GetParam()), address)).ok());
  ASSERT_EQ(many.bdevs().size(), 1u);
  EXPECT_TRUE(world.write(*many.bdevs()[0], 0, 1, 0x5a).ok());
  many.paths()[0]->controller().abort({Errc::io, "a test ends it"});
  EXPECT_EQ(world.read(*many.bdevs()[0], 0, 1), 0x5a);
  world.net.run_void(many.close());
}

INSTANTIATE_TEST_SUITE_P(Transports, HostAuthenticates, ::testing::Values("TCP", "RDMA", "LOOPBACK"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace basalt::nvmf
