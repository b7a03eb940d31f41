// broker_damage_test.cc — a broker over rows that do not match their checksums.
// Why:    bit rot is confined to the row that it hit. Every byte is tried by
// tests/faults/bit_rot.cc;
//         what that found is here by name.
#include "tests/unit/broker_fixture.h"

namespace cm::broker {
namespace {

using BrokerDamage = BrokerTest;

TEST_F(BrokerDamage, a_damaged_mesh_row_refuses_its_members_and_ends_no_process) {
  found(2);
  parts_.holds_foreign_rows = true;
  parts_.store->batch().put(TableId::kMesh, store::u32_key(1).bytes(), store::MetaRow{});
  ASSERT_EQ(parts_.store->commit(), store::CommitResult::kCommitted);
  start();
  const ConnRef conn = open();
  text(conn, write(members_[0], hello_of(members_[0])));
  EXPECT_EQ(field(first(conn), "type"), "error") << first(conn);
  EXPECT_NE(closed(conn), 0u);
  EXPECT_GT(parts_.store->batch().corrupt_count(), 0u);
  EXPECT_EQ(parts_.store->batch().corrupt_table(), TableId::kMesh);
}

}  // namespace
}  // namespace cm::broker
