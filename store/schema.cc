// schema.cc — table names and key builders of schema.h.
// Holds:  a key never exceeds LMDB's limit: callers bound what they add before they come here.
#include "store/schema.h"

#include "core/base/check.h"

namespace cm::store {
namespace {

constexpr std::uint8_t bit(Role role) noexcept {
  return static_cast<std::uint8_t>(1u << static_cast<unsigned>(role));
}
constexpr std::uint8_t kRolesDaemon = bit(Role::kDaemon);
constexpr std::uint8_t kRolesBroker = bit(Role::kBroker);
constexpr std::uint8_t kRolesBoth = kRolesDaemon | kRolesBroker;
constexpr bool kFormRow = false;
constexpr bool kFormIndex = true;

constexpr TableInfo kTables[] = {
#define CM_TABLE_ROW(enum_name, name, role, form, key, value) {name, kRoles##role, kForm##form},
    CM_TABLES(CM_TABLE_ROW)
#undef CM_TABLE_ROW
};

}  // namespace

const TableInfo& info_of(TableId table) noexcept {
  CHECK(table < TableId::kCount);
  return kTables[static_cast<std::size_t>(table)];
}

Key& Key::add(Bytes part) noexcept {
  CHECK(size_ + part.size() <= data_.size());
  if (!part.empty()) std::memcpy(data_.data() + size_, part.data(), part.size());
  size_ += part.size();
  return *this;
}

Key& Key::add_u8(std::uint8_t value) noexcept { return add(Bytes(&value, 1)); }

Key& Key::add_u32(std::uint32_t value) noexcept {
  std::uint8_t bytes[4];
  store_be32(bytes, value);
  return add(Bytes(bytes));
}

Key& Key::add_u64(std::uint64_t value) noexcept {
  std::uint8_t bytes[8];
  store_be64(bytes, value);
  return add(Bytes(bytes));
}

Key ulid_key(const Ulid& id) noexcept { return Key().add(id); }
Key u32_key(std::uint32_t no) noexcept { return Key().add_u32(no); }
Key text_key(std::string_view text) noexcept { return Key().add(text); }

Key u32_bytes_key(std::uint32_t no, Bytes rest) noexcept { return Key().add_u32(no).add(rest); }

Key presence_key(std::uint32_t mesh_no, MailboxKind kind, const KeyBytes& key) noexcept {
  return Key().add_u32(mesh_no).add_u8(static_cast<std::uint8_t>(kind)).add(Bytes(key));
}

Key hello_key(std::uint64_t timestamp_ms, Bytes signature) noexcept {
  return Key().add_u64(timestamp_ms).add(signature);
}

Key delivery_prefix(MailboxId mailbox, std::uint8_t priority) noexcept {
  return Key().add_u8(static_cast<std::uint8_t>(mailbox.kind)).add_u32(mailbox.no).add_u8(priority);
}

Key delivery_key(MailboxId mailbox, std::uint8_t priority, const Ulid& message) noexcept {
  return delivery_prefix(mailbox, priority).add(message);
}

Key receipt_key(const Ulid& message, MailboxId mailbox) noexcept {
  return Key().add(message).add_u8(static_cast<std::uint8_t>(mailbox.kind)).add_u32(mailbox.no);
}

Key pair_key(std::uint32_t first, std::uint32_t second) noexcept {
  return Key().add_u32(first).add_u32(second);
}

Key topic_post_key(std::uint32_t topic_no, const Ulid& message) noexcept {
  return Key().add_u32(topic_no).add(message);
}

Key known_peer_prefix(std::string_view mesh_id, std::string_view name_folded) noexcept {
  return Key().add(mesh_id).add_u8(0).add(name_folded).add_u8(0);
}

Key known_peer_key(std::string_view mesh_id, std::string_view name_folded,
                   const KeyBytes& member) noexcept {
  return known_peer_prefix(mesh_id, name_folded).add(Bytes(member));
}

Key inbox_dedupe_key(std::string_view mesh_id, std::string_view sender, std::string_view id,
                     const KeyBytes& recipient) noexcept {
  return Key().add(mesh_id).add_u8(0).add(sender).add_u8(0).add(Bytes(recipient)).add(id);
}

bool parse_delivery_key(Bytes key, DeliveryKeyParts& parts) noexcept {
  if (key.size() != kDeliveryKeyBytes || key[0] > 1 ||
      key[5] >= static_cast<std::uint8_t>(Priority::kCount)) {
    return false;
  }
  parts.mailbox = {static_cast<MailboxKind>(key[0]), load_be32(key.data() + 1)};
  parts.priority = key[5];
  std::memcpy(parts.message.bytes.data(), key.data() + 6, 16);
  return true;
}

bool parse_ulid_key(Bytes key, Ulid& id) noexcept {
  if (key.size() != id.bytes.size()) return false;
  std::memcpy(id.bytes.data(), key.data(), key.size());
  return true;
}

bool parse_receipt_key(Bytes key, Ulid& message, MailboxId& mailbox) noexcept {
  constexpr std::size_t kUlidBytes = sizeof message.bytes;
  if (key.size() != kUlidBytes + 5 || key[kUlidBytes] > 1) return false;
  std::memcpy(message.bytes.data(), key.data(), kUlidBytes);
  mailbox = {static_cast<MailboxKind>(key[kUlidBytes]), load_be32(key.data() + kUlidBytes + 1)};
  return true;
}

}  // namespace cm::store
