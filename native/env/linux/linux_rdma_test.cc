// SPDX-License-Identifier: Apache-2.0
// Goal: a poller's RDMA is there, or says what is missing. Method: this machine, whatever it has; what needs an adapter
// is tried in a guest (npm run lab -- rdma).
#include "env/linux/linux_rdma.h"

#include <gtest/gtest.h>

#include "env/linux/linux_env.h"
#include "env/linux/verbs_completions.h"

namespace basalt::env {
namespace {

TEST(LinuxRdma, IsThereOrSaysInOneLineWhatIsMissing) {
  const auto env = make_linux_env();
  auto poller = env->make_poller({PollerKind::epoll});
  ASSERT_TRUE(poller.ok());
  Rdma* rdma = poller.value()->rdma();
  ASSERT_NE(rdma, nullptr);
  const Address nowhere{.host = "192.0.2.1", .port = 4420};
  const auto listening = rdma->listen(nowhere);
  ASSERT_FALSE(listening.ok());  // no adapter has this address
  const Outcome available = rdma->available();
  if (available) return;
  EXPECT_EQ(available.error().code, Errc::unsupported);
  EXPECT_NE(available.error().message.find("there is no RDMA"), std::string::npos) << available.error().message;
  EXPECT_EQ(available.error().message.find('\n'), std::string::npos);
  EXPECT_EQ(listening.error().message, available.error().message);
  EXPECT_EQ(rdma->connect(nowhere).error().message, available.error().message);
  EXPECT_EQ(rdma->adopt(nullptr), nullptr);
}

#ifdef BASALT_HAS_VERBS

TEST(VerbsCompletions, HaveAnEntryForEverythingThatMayComplete) {
  VerbsLibrary library;
  library.verbs.destroy_cq = [](ibv_cq*) { return 0; };
  VerbsCompletions completions(library, nullptr, 100);
  const auto* shared = reinterpret_cast<const VerbsReceiveQueue*>(&library);
  EXPECT_TRUE(completions.reserve(30, shared, 40));
  EXPECT_TRUE(completions.reserve(30, shared, 40));  // the shared receives count once
  EXPECT_FALSE(completions.reserve(1, nullptr, 0));
  completions.release(30);
  EXPECT_FALSE(completions.reserve(31, nullptr, 0));
  EXPECT_TRUE(completions.reserve(30, nullptr, 0));
  completions.release(30);
  completions.release(30);
  EXPECT_TRUE(completions.unused());
  completions.forget(shared);
  EXPECT_TRUE(completions.reserve(100, nullptr, 0));
  EXPECT_FALSE(completions.unused());
  completions.release(100);
}

#endif

}  // namespace
}  // namespace basalt::env
