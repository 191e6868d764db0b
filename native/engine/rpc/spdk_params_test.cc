// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/spdk_params.h"

#include <gtest/gtest.h>

namespace basalt::rpc {
namespace {

std::string left_of(std::string_view method, std::string_view params) {
  auto parsed = parse_json(params);
  EXPECT_TRUE(parsed.ok()) << params;
  return without_spdk_defaults(method, parsed.ok() ? std::move(*parsed) : JsonValue()).to_text();
}

TEST(SpdkParams, AreDroppedWhereTheyAskForNothing) {
  EXPECT_EQ(left_of("bdev_malloc_create", R"({"num_blocks":8,"md_interleave":false,"dif_type":0,"numa_id":-1})"),
            R"({"num_blocks":8})");
  EXPECT_EQ(left_of("nvmf_delete_subsystem", R"({"nqn":"nqn.a","tgt_name":"nvmf_tgt"})"), R"({"nqn":"nqn.a"})");
  EXPECT_EQ(left_of("nvmf_create_transport", R"({"trtype":"TCP","io_unit_size":131072})"), R"({"trtype":"TCP"})");
}

TEST(SpdkParams, StayWhereTheyAskForSomething) {
  for (const char* params :
       {R"({"md_interleave":true})", R"({"dif_type":1})", R"({"numa_id":0})", R"({"md_size":"0"})"})
    EXPECT_EQ(left_of("bdev_malloc_create", params), params);
  EXPECT_EQ(left_of("nvmf_delete_subsystem", R"({"tgt_name":"other"})"), R"({"tgt_name":"other"})");
}

TEST(SpdkParams, AreKnownByMethod) {
  EXPECT_EQ(left_of("bdev_lvol_create", R"({"md_interleave":false})"), R"({"md_interleave":false})");
  EXPECT_EQ(left_of("keyring_get_keys", R"({"tgt_name":"nvmf_tgt"})"), R"({"tgt_name":"nvmf_tgt"})");
}

TEST(SpdkParams, InsideAnObjectAreDroppedThere) {
  EXPECT_EQ(left_of("nvmf_subsystem_add_ns", R"({"namespace":{"bdev_name":"m","no_auto_visible":false}})"),
            R"({"namespace":{"bdev_name":"m"}})");
  EXPECT_EQ(left_of("nvmf_subsystem_add_ns", R"({"no_auto_visible":false,"namespace":{"no_auto_visible":true}})"),
            R"({"no_auto_visible":false,"namespace":{"no_auto_visible":true}})");
}

TEST(SpdkParams, OfAnyOtherShapeAreLeftToTheMethod) {
  for (const char* params : {"null", "[1]", R"({"namespace":[]})", R"({"nqn":"a","nqn":"b"})"})
    EXPECT_EQ(left_of("nvmf_subsystem_add_ns", params), params);
}

}  // namespace
}  // namespace basalt::rpc
