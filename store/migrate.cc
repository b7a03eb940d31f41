// migrate.cc — one function a step of the schema.
#include "store/migrate.h"

#include "core/base/check.h"
#include "store/store.h"

namespace cm::store {
namespace {

void clear(Batch& batch, TableId table) {
  for (;;) {
    Bytes key;
    {
      Cursor cursor(batch, table);
      if (!cursor.seek({})) return;
      key = batch.scratch().copy(cursor.key());
    }
    if (!batch.erase(table, key) || batch.failed()) return;
  }
}

}  // namespace

void migrate(Batch& batch, Role role, std::uint32_t from) {
  CHECK(from < kSchemaVersion);
  if (from == 1 && role == Role::kBroker) clear(batch, TableId::kPresence);
}

}  // namespace cm::store
