// rows.cc — walks, and the rows that no traffic of these tests makes.
#include "tests/faults/rows.h"

#include <algorithm>

#include "core/base/check.h"

namespace cm::faults {
namespace {

using store::TableId;

bool is_of(TableId table, store::Role role) noexcept {
  return (store::info_of(table).roles & (1u << static_cast<unsigned>(role))) != 0;
}

bool is_empty(store::Batch& batch, TableId table) {
  store::Cursor cursor(batch, table);
  return !cursor.seek({});
}

// The first key of a table; the mesh and the member that the others hang on.
std::uint32_t first_number(store::Batch& batch, TableId table) {
  store::Cursor cursor(batch, table);
  CHECK(cursor.seek({}));
  return load_be32(cursor.key().data());
}

// The newest message of the inbox was read, and its broker has not answered to that yet.
void note_seen_due(store::Batch& batch) {
  constexpr std::uint8_t kDue[] = {1};
  std::string newest;
  {
    store::Cursor cursor(batch, TableId::kInbox);
    if (!cursor.seek_before({})) return;
    newest = as_text(cursor.key());
  }
  batch.put_index(TableId::kSeenDue, as_bytes(newest), kDue);
}

}  // namespace

Rows read_rows(store::Batch& batch, store::Role role) {
  Rows rows;
  for (std::size_t index = 0; index < store::kTableCount; ++index) {
    const auto table = static_cast<TableId>(index);
    if (!is_of(table, role)) continue;
    store::Cursor cursor(batch, table);
    for (bool more = cursor.seek({}); more; more = cursor.next()) {
      rows.emplace_back(static_cast<char>(index) + std::string(as_text(cursor.key())),
                        as_text(cursor.value()));
    }
  }
  return rows;
}

std::size_t differing(const Rows& left, const Rows& right) {
  Rows first = left, second = right, difference;
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  std::set_symmetric_difference(first.begin(), first.end(), second.begin(), second.end(),
                                std::back_inserter(difference));
  return (difference.size() + 1) / 2;
}

void fill_every_table(store::Store& store, store::Role role) {
  store::Batch& batch = store.batch();
  if (role == store::Role::kBroker) {
    const std::uint32_t mesh = first_number(batch, TableId::kMesh);
    const std::uint32_t member = first_number(batch, TableId::kMember);
    store::KeyBytes key{};
    key.fill(7);
    const store::Key of_member = store::u32_key(member), of_mesh = store::u32_key(mesh);
    const store::Key session = store::u32_bytes_key(mesh, key);
    const auto put = [&](TableId table, const store::Key& at, const auto& row) {
      if (is_empty(batch, table)) batch.put(table, at.bytes(), row);
    };
    store::BindingRow binding;
    binding.fixed.member_no = member;
    binding.fixed.session_no = 9;
    put(TableId::kBinding, session, binding);
    put(TableId::kMeshSettings, of_mesh, store::MeshSettingsRow{});
    store::MemberProfileRow profile;
    profile.text[store::kProfileRoleTag] = "lead";
    put(TableId::kMemberProfile, of_member, profile);
    store::PeerStateRow state;
    state.text[store::kStateSummary] = "summary";
    put(TableId::kPeerState, of_member, state);
    store::AttestationRow attestation;
    attestation.fixed.member_no = member;
    attestation.text[store::kAttestationJson] = "{}";
    put(TableId::kAttestation, session, attestation);
    store::SkillRow skill;
    skill.text[store::kSkillName] = "review";
    put(TableId::kSkill, store::u32_bytes_key(mesh, as_bytes("review")), skill);
    store::CodeRow code;
    code.text[store::kCodeToken] = "token";
    put(TableId::kCode, store::Key().add(Bytes(key)), code);
    store::InviteRow invite;
    invite.fixed.mesh_no = mesh;
    put(TableId::kInvite, store::Key().add(Bytes(key)), invite);
    if (is_empty(batch, TableId::kGrant)) batch.put_number(TableId::kGrant, session.bytes(), 1);
    if (is_empty(batch, TableId::kHttpNonce)) {
      batch.put_number(TableId::kHttpNonce, store::hello_key(1, key).bytes(), member);
    }
    if (is_empty(batch, TableId::kHelloSeen)) {
      batch.put_number(TableId::kHelloSeen, store::hello_key(1, key).bytes(), member);
    }
  } else {
    if (is_empty(batch, TableId::kKnownPeer)) {
      store::KnownPeerRow peer;
      peer.text[store::kKnownPeerName] = "carol";
      batch.put(TableId::kKnownPeer, store::known_peer_key("mesh", "carol", {}).bytes(), peer);
    }
    if (is_empty(batch, TableId::kSeenDue)) note_seen_due(batch);
  }
  CHECK(store.commit() <= store::CommitResult::kCommitted);
}

std::string empty_tables(store::Batch& batch, store::Role role) {
  std::string names;
  for (std::size_t index = 0; index < store::kTableCount; ++index) {
    const auto table = static_cast<TableId>(index);
    if (!is_of(table, role) || !is_empty(batch, table)) continue;
    names += (names.empty() ? "" : ", ") + std::string(store::info_of(table).name);
  }
  return names;
}

}  // namespace cm::faults
