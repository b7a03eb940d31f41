// row_fuzz.cc — durable rows, index values and keys out of hostile bytes.
// Input:  [selector u8][key size u8][key][value]. The selector's high half, modulo 3, chooses what
//         is done to the value; its quotient by 3 and the low half choose the kind of row.
// Holds:  what decodes encodes to the same bytes; a row under another key, or with one byte
//         changed, does not decode.
// Not:    the store's transactions (tests/unit/store_test.cc).
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <vector>

#include "core/base/check.h"
#include "fuzz/registry.h"
#include "store/row.h"
#include "store/schema.h"

namespace cm::store {
namespace {

enum class Mode : std::uint8_t { kAsIs, kForged, kBuilt };

// Puts a correct head and checksum on the value, so that its lengths are what is judged.
std::vector<std::uint8_t> forged(RowShape shape, Bytes key, Bytes value) {
  std::vector<std::uint8_t> row(value.begin(), value.end());
  if (row.size() < kRowHeadBytes) return row;
  row[0] = shape.kind;
  row[1] = shape.schema;
  store_le(row.data() + 2, shape.fixed_bytes);
  store_le(row.data() + 4, static_cast<std::uint32_t>(row.size()));
  XXH64_hash_t hash = XXH3_64bits(key.data(), key.size());
  hash = XXH3_64bits_withSeed(row.data(), 8, hash);
  hash = XXH3_64bits_withSeed(row.data() + kRowHeadBytes, row.size() - kRowHeadBytes, hash);
  store_le(row.data() + 8, std::uint64_t{hash});
  return row;
}

template <class R>
void run_decode(Bytes key, Bytes value, ScratchArena& arena) {
  R row;
  if (!decode(row, key, value)) return;
  for (const std::string_view text : row.text) {
    CHECK(text.empty() || (as_bytes(text).data() >= value.data() &&
                           as_bytes(text).data() + text.size() <= value.data() + value.size()));
  }
  const Bytes again = encode(row, key, arena);
  CHECK(std::equal(again.begin(), again.end(), value.begin(), value.end()));
}

template <class R>
void run_built(Bytes key, Bytes value, ScratchArena& arena) {
  R row;
  const std::size_t fixed = std::min(value.size(), sizeof row.fixed);
  if (fixed != 0) std::memcpy(static_cast<void*>(&row.fixed), value.data(), fixed);
  std::string_view rest = as_text(value.subspan(fixed));
  for (std::string_view& text : row.text) {
    const std::size_t size = rest.empty() ? 0 : static_cast<unsigned char>(rest[0]) % rest.size();
    text = rest.substr(0, size);
    rest.remove_prefix(size);
  }
  const Bytes bytes = encode(row, key, arena);
  R again;
  CHECK(decode(again, key, bytes));
  CHECK(std::memcmp(&again.fixed, &row.fixed, sizeof row.fixed) == 0);
  CHECK(again.text == row.text);

  std::vector<std::uint8_t> damaged(bytes.begin(), bytes.end());
  std::uint8_t& victim = damaged[value.size() * 7 % damaged.size()];
  victim = static_cast<std::uint8_t>(victim ^ (1u << (value.size() % 8)));
  CHECK(!decode(again, key, damaged));
  damaged.assign(key.begin(), key.end());
  damaged.push_back(0);
  CHECK(!decode(again, damaged, bytes));
}

template <class R>
void run_kind(Mode mode, Bytes key, Bytes value, ScratchArena& arena) {
  switch (mode) {
    case Mode::kAsIs: return run_decode<R>(key, value, arena);
    case Mode::kForged: return run_decode<R>(key, forged(shape_of<R>(), key, value), arena);
    case Mode::kBuilt: return run_built<R>(key, value, arena);
  }
}

void run_keys(Bytes key) {
  DeliveryKeyParts parts;
  if (parse_delivery_key(key, parts)) {
    const Key again = delivery_key(parts.mailbox, parts.priority, parts.message);
    CHECK(std::equal(again.bytes().begin(), again.bytes().end(), key.begin(), key.end()));
  }
  Ulid id;
  if (parse_ulid_key(key, id)) {
    const Key again = ulid_key(id);
    CHECK(std::equal(again.bytes().begin(), again.bytes().end(), key.begin(), key.end()));
  }
}

void run_index(Bytes key, Bytes value) {
  std::array<std::uint8_t, kIndexValueMax + kIndexCheckBytes> room;
  if (const Bytes found = decode_index(key, value); !found.empty()) {
    CHECK(found.size() <= kIndexValueMax);
    const std::size_t size = encode_index(key, found, room);
    CHECK(std::equal(room.begin(), room.begin() + static_cast<std::ptrdiff_t>(size), value.begin(),
                     value.end()));
  }
  if (value.empty() || value.size() > kIndexValueMax) return;
  const std::size_t size = encode_index(key, value, room);
  const Bytes found = decode_index(key, Bytes(room).first(size));
  CHECK(std::equal(found.begin(), found.end(), value.begin(), value.end()));
}

using RunKind = void (*)(Mode, Bytes, Bytes, ScratchArena&);
constexpr RunKind kKinds[] = {
    run_kind<MetaRow>,          run_kind<OutboxRow>,      run_kind<OutboxBodyRow>,
    run_kind<InboxRow>,         run_kind<KnownPeerRow>,   run_kind<MeshRow>,
    run_kind<MemberRow>,        run_kind<InviteRow>,      run_kind<BindingRow>,
    run_kind<PresenceRow>,      run_kind<MessageRow>,     run_kind<DedupeRow>,
    run_kind<DeliveryRow>,      run_kind<ReceiptRow>,     run_kind<MeshSettingsRow>,
    run_kind<MemberProfileRow>, run_kind<PeerStateRow>,   run_kind<AttestationRow>,
    run_kind<TopicRow>,         run_kind<TopicMemberRow>, run_kind<TopicPostRow>,
    run_kind<StateRow>,         run_kind<MemoryRow>,      run_kind<SkillRow>,
    run_kind<CodeRow>,
};
// A kind that is added to the schema is added here.
static_assert(std::size(kKinds) == CodeRow::kKind);

}  // namespace
}  // namespace cm::store

CM_FUZZ_TARGET(row) {
  using namespace cm;
  using namespace cm::store;
  if (size < 2) return 0;
  static ScratchArena arena;
  arena.reset();
  const Bytes all(data, size);
  const std::size_t key_size = std::min<std::size_t>(data[1], size - 2);
  const Bytes key = all.subspan(2, key_size);
  const Bytes value = all.subspan(2 + key_size);
  const auto mode = static_cast<Mode>((data[0] >> 4) % 3);
  const std::size_t kind = (data[0] >> 4) / 3 * 16 + (data[0] & 15u);
  kKinds[kind % std::size(kKinds)](mode, key, value, arena);
  run_index(key, value);
  run_keys(key);
  return 0;
}
