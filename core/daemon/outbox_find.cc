// outbox_find.cc — which row of the outbox an id means: a whole one, its beginning or its end.
// Holds:  a whole client_message_id wins, then a whole row id; anything shorter is looked for among
//         the newest rows and must fit one alone. Tombstones are found like rows.
// Limits: 50,000 rows and as many tombstones are looked at, newest first.
// Source: design/delivery.md, "Ids" (short forms are the last 8 characters).
// Not:    what becomes of the row (routes_outbox_row.cc, requeue.cc).
#include <algorithm>

#include "core/daemon/daemon.h"

namespace cm::daemon {
namespace {

using store::TableId;

constexpr std::size_t kShortForm = 8;
constexpr std::size_t kLooksMost = 50'000;

// The texts by which people name a row, against what one of them typed.
class Pattern {
 public:
  explicit Pattern(std::string_view typed) : typed_(typed), upper_(typed) {
    std::transform(upper_.begin(), upper_.end(), upper_.begin(), [](char c) {
      return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    });
  }
  bool fits(const Ulid& id, std::string_view client_id, std::string_view broker_id) const {
    const UlidText text = ulid_text(id);
    return fits(view(text), upper_) || fits(client_id, typed_) || fits(broker_id, typed_);
  }

 private:
  static bool fits(std::string_view text, std::string_view typed) {
    return text.starts_with(typed) || (typed.size() == kShortForm && text.ends_with(typed));
  }
  std::string_view typed_;
  std::string upper_;  // ULIDs are shown in upper case
};

}  // namespace

bool Daemon::tombstone_row(const Ulid& id, store::TombstoneRow& row) {
  return batch().get(TableId::kTombstone, store::ulid_key(id).bytes(), row);
}

// Nothing also when the index entry is damaged.
std::optional<Daemon::FoundRow> Daemon::find_outbox_id(std::string_view client_id) {
  FoundRow found;
  const Bytes value = batch().get_index(TableId::kOutboxId, store::text_key(client_id).bytes());
  if (!store::parse_ulid_key(value, found.id)) return std::nullopt;
  const store::Key key = store::ulid_key(found.id);
  found.is_tombstone = !batch().get_raw(TableId::kOutbox, key.bytes()) &&
                       batch().get_raw(TableId::kTombstone, key.bytes());
  return found;
}

Result<Daemon::FoundRow> Daemon::find_outbox(std::string_view named) {
  if (const auto whole = find_outbox_id(named)) return *whole;
  if (const auto id = ulid_parse(named)) {
    const store::Key key = store::ulid_key(*id);
    if (batch().get_raw(TableId::kOutbox, key.bytes())) return FoundRow{*id, false};
    if (batch().get_raw(TableId::kTombstone, key.bytes())) return FoundRow{*id, true};
  }
  if (named.size() < kShortForm) {
    return fail(Err::kNotFound, "no message of the outbox has this id; a part of one needs " +
                                    std::to_string(kShortForm) + " characters");
  }
  const Pattern pattern(named);
  std::optional<FoundRow> found;
  std::size_t matches = 0;
  bool whole_broker_id = false;  // it is exact: what only begins like it is another message
  const auto look = [&](const FoundRow& row, std::string_view client_id,
                        std::string_view broker_id) {
    const bool exact = broker_id == named;
    if (!pattern.fits(row.id, client_id, broker_id) || (whole_broker_id && !exact)) return;
    matches = exact && !whole_broker_id ? 1 : matches + 1;
    whole_broker_id = whole_broker_id || exact;
    found = row;
  };
  bool all = true;
  const auto walk = [&](TableId table, auto row, bool is_tombstone, std::size_t client_at,
                        std::size_t broker_at) {
    store::Cursor cursor(batch(), table);
    std::size_t looks = 0;
    for (bool more = cursor.seek_before({}); more; more = cursor.previous()) {
      if (++looks > kLooksMost) {
        all = false;
        return;
      }
      Ulid id;
      if (!store::parse_ulid_key(cursor.key(), id) || !cursor.row(row)) continue;
      look({id, is_tombstone}, row.text[client_at], row.text[broker_at]);
    }
  };
  walk(TableId::kOutbox, store::OutboxRow{}, false, store::kOutboxClientId, store::kOutboxBrokerId);
  walk(TableId::kTombstone, store::TombstoneRow{}, true, store::kTombstoneClientId,
       store::kTombstoneBrokerId);
  if (matches > 1) {
    return fail(Err::kAmbiguousId,
                std::to_string(matches) + " messages of the outbox have it in their ids");
  }
  if (found) return *found;
  return fail(Err::kNotFound,
              all ? std::string("no message of the outbox has this id, or begins with it")
                  : "none of the newest " + std::to_string(kLooksMost) +
                        " messages has this id; an older one is found by its whole "
                        "client_message_id");
}

}  // namespace cm::daemon
