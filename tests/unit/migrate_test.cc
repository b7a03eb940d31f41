// migrate_test.cc — stores that an older version left behind, as it left them.
// Holds:  tests/snapshots/schema_N.tar.xz: the stores of a broker, of alice and of bob, after alice
//         sent bob four messages: one read, two queued when bob was killed, one in alice's outbox
//         because the broker was killed, too. Written by the last version with schema N.
//         tests/snapshots/schema_2.tar.xz likewise, with a dead row, an aborted one and its second
//         attempt, and a broadcast beside them.
// Why:    a migration is tested against bytes that the code under test did not write.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <tuple>

#include "core/broker/broker.h"
#include "tests/unit/core_fixture.h"

namespace cm::store {
namespace {

std::uint64_t schema_of(CoreParts& parts) {
  MetaRow row;
  EXPECT_TRUE(parts.store->batch().get(TableId::kMeta, text_key("schema_version").bytes(), row));
  return row.fixed.number;
}

void put_snapshot(CoreParts& parts, const char* name, const char* schema = "1") {
  const auto from = std::filesystem::path(CM_SNAPSHOTS_DIR) / schema / name / "data.mdb";
  ASSERT_TRUE(std::filesystem::exists(from)) << from;
  std::filesystem::copy_file(from, std::filesystem::path(parts.options.directory) / "data.mdb");
}

TEST(Migrate, the_broker_of_schema_1_keeps_everything_but_its_leases) {
  CoreParts parts(Role::kBroker);
  put_snapshot(parts, "broker");
  parts.open();
  EXPECT_EQ(schema_of(parts), kSchemaVersion);
  EXPECT_EQ(parts.count(TableId::kPresence), 0u);
  EXPECT_EQ(parts.count(TableId::kMesh), 1u);
  EXPECT_EQ(parts.count(TableId::kMember), 2u);
  EXPECT_EQ(parts.count(TableId::kMessage), 4u);
  EXPECT_EQ(parts.count(TableId::kDelivery), 2u);
  parts.expect_sound();
  broker::Effects effects;
  broker::Broker core({}, parts.limits, parts.env, effects, parts.metrics, parts.slab);
  ASSERT_TRUE(core.load());
  EXPECT_STREQ(core.verify_all(), nullptr);
}

TEST(Migrate, the_daemons_of_schema_1_keep_their_outbox_and_inbox) {
  for (const auto& [name, outbox, inbox] : {std::tuple{"alice", std::size_t{4}, std::size_t{1}},
                                            std::tuple{"bob", std::size_t{1}, std::size_t{1}}}) {
    CoreParts parts(Role::kDaemon);
    put_snapshot(parts, name);
    parts.open();
    EXPECT_EQ(schema_of(parts), kSchemaVersion) << name;
    EXPECT_EQ(parts.count(TableId::kOutbox), outbox) << name;
    EXPECT_EQ(parts.count(TableId::kInbox), inbox) << name;
    OutboxRow row;
    std::size_t pending = 0;
    Cursor cursor(parts.store->batch(), TableId::kOutbox);
    for (bool more = cursor.seek({}); more; more = cursor.next()) {
      ASSERT_TRUE(cursor.row(row));
      pending += row.fixed.status <= OutboxStatus::kInflight ? 1u : 0u;
    }
    EXPECT_EQ(pending, outbox == 4 ? 1u : 0u) << name;
  }
}

TEST(Migrate, rows_of_schema_2_read_with_zeros_where_they_have_grown) {
  CoreParts parts(Role::kDaemon);
  put_snapshot(parts, "alice", "2");
  parts.open();
  EXPECT_EQ(schema_of(parts), kSchemaVersion);
  parts.expect_sound();
  std::size_t rows = 0;
  OutboxRow row;
  row.fixed.ended_ms = 7;  // what a row before left behind
  row.text[kOutboxSupersedes] = "left behind";
  Cursor cursor(parts.store->batch(), TableId::kOutbox);
  for (bool more = cursor.seek({}); more; more = cursor.next()) {
    ASSERT_TRUE(cursor.row(row));
    ++rows;
    EXPECT_EQ(row.fixed.ended_ms, 0u);
    EXPECT_EQ(row.text[kOutboxSupersedes], "");
    EXPECT_EQ(row.text[kOutboxSupersededBy].empty(), row.text[kOutboxClientId] != "s2-aborted");
  }
  EXPECT_EQ(rows, 8u);
}

TEST(Migrate, the_broker_of_schema_2_keeps_its_receipts) {
  CoreParts parts(Role::kBroker);
  put_snapshot(parts, "broker", "2");
  parts.open();
  parts.expect_sound();
  std::size_t delivered = 0;
  Cursor cursor(parts.store->batch(), TableId::kReceipt);
  for (bool more = cursor.seek({}); more; more = cursor.next()) {
    ReceiptRow row;
    ASSERT_TRUE(cursor.row(row));
    delivered += row.fixed.state == ReceiptState::kDelivered ? 1u : 0u;
    EXPECT_EQ(row.fixed.signed_ms, 0u);
    EXPECT_EQ(row.text[kReceiptSignature], "");
  }
  EXPECT_EQ(delivered, 1u);
  EXPECT_EQ(parts.count(TableId::kDelivery), 3u);
}

TEST(Migrate, a_reader_beside_the_owner_does_not_migrate_and_says_who_will) {
  CoreParts parts(Role::kBroker);
  put_snapshot(parts, "broker");
  parts.options.read_only = true;
  const auto opened = Store::open(parts.options, parts.scratch);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.code(), Err::kUnavailable);
  parts.options.read_only = false;
  parts.open();
  EXPECT_EQ(parts.count(TableId::kDelivery), 2u);
}

}  // namespace
}  // namespace cm::store
