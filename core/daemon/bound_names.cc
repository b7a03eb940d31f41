// bound_names.cc — which member key a display name was bound to, in memory; and what a row of the
// inbox may say of its sender.
// Holds:  tables_.bound has each name whose row in the table of known peers is bound, and no other:
//         a binding whose iteration was abandoned is forgotten again. A binding never ends.
// Why:    the name of each message is compared with it, and a hostile mesh may hold thousands of
//         rows of one name.
// Source: docs/PROTOCOL.md §10.3; design/delivery.md, "Who a name is".
// Limits: one entry for each name that this daemon sent something to.
// Not:    when a name is bound (resolve.cc), who was seen under it (link.cc).
#include <utility>

#include "core/crypto/encoding.h"
#include "core/daemon/daemon.h"
#include "core/daemon/names.h"
#include "core/wire/limits.h"

namespace cm::daemon {
namespace {

using store::TableId;

}  // namespace

void Daemon::load_bound_names() {
  tables_.bound.clear();
  store::Cursor cursor(batch(), TableId::kKnownPeer);
  for (bool more = cursor.seek({}); more; more = cursor.next()) {
    store::KnownPeerRow row;
    const std::string_view key = as_text(cursor.key());
    if (!cursor.row(row) || row.fixed.bound_ms == 0 || key.size() <= row.fixed.member.size()) {
      continue;
    }
    // The key ends with the member's; what is before it is the mesh and the name.
    tables_.bound[std::string(key.substr(0, key.size() - row.fixed.member.size()))] =
        row.fixed.member;
  }
}

void Daemon::note_bound_name(std::string_view mesh_id, std::string_view folded,
                             const PublicKey& member) {
  const store::Key prefix = store::known_peer_prefix(mesh_id, folded);
  const auto [entry, is_new] =
      tables_.bound.try_emplace(std::string(as_text(prefix.bytes())), member);
  if (is_new) tables_.newly_bound.push_back(entry->first);
}

void Daemon::forget_new_bindings() {
  for (const std::string& name : std::exchange(tables_.newly_bound, {})) tables_.bound.erase(name);
}

// Rows of earlier versions say it of readable texts too.
bool Daemon::is_attested(const store::InboxRow& row) noexcept {
  return row.fixed.has_member != 0 && row.fixed.plaintext == 0 && row.fixed.body_missing == 0;
}

// The name that is shown with this row names another member than the row is from, as far as the
// broker says who that is.
bool Daemon::has_name_conflict(const store::InboxRow& row) const {
  const std::string_view name = row.text[store::kInboxSenderName];
  if (name.size() > wire::kDisplayNameMax) return false;  // nothing longer is ever bound
  const store::Key prefix = store::known_peer_prefix(row.text[store::kInboxMesh], fold_name(name));
  const auto found = tables_.bound.find(std::string(as_text(prefix.bytes())));
  if (found == tables_.bound.end()) return false;
  const PublicKey& bound = found->second;
  return row.fixed.sender_member != bound &&
         row.text[store::kInboxSender] != crypto::view(crypto::hex_text(bound));
}

}  // namespace cm::daemon
