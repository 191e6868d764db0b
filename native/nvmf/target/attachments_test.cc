// SPDX-License-Identifier: Apache-2.0
// Attachments: who a command of a shared connection comes from.
#include "nvmf/target/attachments.h"

#include <gtest/gtest.h>

namespace basalt::nvmf {
namespace {

class AttachmentsTest : public ::testing::Test {
 protected:
  uint32_t add(uint8_t identity) {
    auto attachment = std::make_unique<Attachment>();
    attachment->host.bytes.fill(identity);
    attachment->tag = tag_of(attachment->host);
    return attachments.add(std::move(attachment));
  }
  static uint64_t tag(uint8_t identity) {
    ns::HostId host;
    host.bytes.fill(identity);
    return tag_of(host);
  }
  Attachments::Found find(uint32_t number, uint64_t tag, uint64_t epoch) {
    nvme::Command command{};
    command.nsid = number;
    command.set_link(tag, epoch);
    return attachments.find(command);
  }

  static constexpr uint32_t count_max = 300;
  Attachments attachments{count_max, false};
  Attachments::Taken taken;
};

TEST_F(AttachmentsTest, EachEpochIsAHostOfItsOwn) {
  const uint32_t number = add(1);
  const auto five = find(number, tag(1), 5);
  const auto six = find(number, tag(1), 6);
  ASSERT_TRUE(five.status.ok() && six.status.ok());
  EXPECT_NE(five.host, six.host);
  EXPECT_EQ(five.host, find(number, tag(1), 5).host);
}

TEST_F(AttachmentsTest, TwoAttachmentsAreTwoHostsUnderOneEpoch) {
  const uint32_t a = add(1);
  const uint32_t b = add(2);
  EXPECT_NE(find(a, tag(1), 5).host, find(b, tag(2), 5).host);
}

TEST_F(AttachmentsTest, ACommandOfAnEarlierOwnerOfTheNumberIsRefused) {
  const uint32_t number = add(1);
  attachments.take(number, &taken);
  EXPECT_EQ(find(number, tag(1), 5).status.value, nvme::status::invalid_namespace.dnr().value);
  uint32_t again = 0;
  // Numbers go round.
  for (uint32_t i = 0; i < count_max && again != number; i++) {
    again = add(2);
    if (again != number) attachments.take(again, &taken);
  }
  ASSERT_EQ(again, number);
  EXPECT_TRUE(find(number, tag(1), 5).status.is(nvme::status::reservation_conflict));
  EXPECT_TRUE(find(number, tag(2), 5).status.ok());
}

TEST_F(AttachmentsTest, WithoutAnEpochOrANumberNothingIsFound) {
  const uint32_t number = add(1);
  EXPECT_TRUE(find(number, tag(1), 0).status.is(nvme::status::invalid_field));
  EXPECT_TRUE(find(0, tag(1), 5).status.is(nvme::status::invalid_namespace));
  EXPECT_TRUE(find(count_max + 1, tag(1), 5).status.is(nvme::status::invalid_namespace));
  EXPECT_TRUE(find(UINT32_MAX, tag(1), 5).status.is(nvme::status::invalid_namespace));
}

TEST_F(AttachmentsTest, TakesSoManyAndNoMore) {
  for (uint32_t i = 0; i < count_max; i++)
    ASSERT_NE(add(1), 0u);
  EXPECT_EQ(add(1), 0u);
  attachments.take(77, &taken);
  EXPECT_EQ(add(1), 77u);
}

}  // namespace
}  // namespace basalt::nvmf
