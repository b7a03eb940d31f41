// canonical.cc — one builder for all signed texts; it remembers the first field that is refused.
#include "core/crypto/canonical.h"

#include <algorithm>
#include <array>

#include "core/crypto/encoding.h"

namespace cm::crypto {
namespace {

class Joined {
 public:
  explicit Joined(TextBuf& out) : out_(&out), start_(out.size()) {}

  // Fixed words of the format.
  Joined& word(std::string_view text) {
    separate();
    out_->append(text);
    return *this;
  }
  // Text from outside, named for the error.
  Joined& text(std::string_view name, std::string_view value) {
    if (refused_.empty() && value.find('|') != std::string_view::npos) refused_ = name;
    return word(value);
  }
  Joined& hex(const std::array<std::uint8_t, 32>& bytes) { return word(view(hex_text(bytes))); }
  Joined& number(std::uint64_t value) {
    separate();
    out_->append_unsigned(value);
    return *this;
  }
  // Room for one more field, which the caller appends.
  TextBuf& open_field() {
    separate();
    return *out_;
  }
  Status finish() {
    if (refused_.empty()) return {};
    out_->truncate(start_);
    std::string detail(refused_);
    detail += ": must not contain '|'";
    return Error{Err::kInvalidArgument, std::move(detail)};
  }

 private:
  void separate() {
    if (!first_) out_->append('|');
    first_ = false;
  }

  TextBuf* out_;
  std::size_t start_;
  bool first_ = true;
  std::string_view refused_;
};

char to_lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool is_capability(std::string_view text) noexcept {
  if (text.empty() || text.size() > kCapabilityText) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    const char lower = to_lower(c);
    return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == ':' || c == '-';
  });
}

std::string_view lower_copy(std::string_view text, ScratchArena& arena) {
  auto* at = reinterpret_cast<char*>(arena.allocate(text.size(), 1));
  std::transform(text.begin(), text.end(), at, to_lower);
  return {at, text.size()};
}

}  // namespace

Status canonical_hello(std::string_view mesh_id, std::string_view member_id,
                       const PublicKey& member, std::uint64_t timestamp_ms, TextBuf& out) {
  Joined joined(out);
  joined.text("meshId", mesh_id).text("memberId", member_id).hex(member).number(timestamp_ms);
  return joined.finish();
}

void canonical_attestation_v1(const PublicKey& parent, const PublicKey& session,
                              std::uint64_t expires_at_ms, TextBuf& out) {
  Joined(out).word("claudemesh-session-attest").hex(parent).hex(session).number(expires_at_ms);
}

Status canonical_attestation_v2(const PublicKey& parent, const PublicKey& session,
                                std::uint64_t expires_at_ms,
                                std::span<const std::string_view> capabilities, TextBuf& out) {
  const std::size_t start = out.size();
  Joined joined(out);
  joined.word("claudemesh-session-attest-v2").hex(parent).hex(session).number(expires_at_ms);
  const Status csv = capabilities_csv(capabilities, joined.open_field());
  if (!csv) out.truncate(start);
  return csv;
}

Status capabilities_csv(std::span<const std::string_view> capabilities, TextBuf& out) {
  if (capabilities.size() > kCapabilitiesMax) {
    return fail(Err::kInvalidArgument, "allowed_caps: at most 64");
  }
  std::array<std::string_view, kCapabilitiesMax> sorted;
  std::size_t count = 0;
  for (const std::string_view capability : capabilities) {
    if (!is_capability(capability)) {
      return fail(Err::kInvalidArgument, "allowed_caps: 1 to 64 characters of [A-Za-z0-9._:-]");
    }
    sorted[count++] = lower_copy(capability, out.arena());
  }
  const auto begin = sorted.begin();
  std::sort(begin, begin + static_cast<std::ptrdiff_t>(count));
  const auto end = std::unique(begin, begin + static_cast<std::ptrdiff_t>(count));
  for (auto each = begin; each != end; ++each) {
    if (each != begin) out.append(',');
    out.append(*each);
  }
  return {};
}

Status canonical_session_hello(std::string_view mesh_id, const PublicKey& parent,
                               const PublicKey& session, std::uint64_t timestamp_ms, TextBuf& out) {
  Joined joined(out);
  joined.word("claudemesh-session-hello").text("meshId", mesh_id).hex(parent).hex(session);
  joined.number(timestamp_ms);
  return joined.finish();
}

Status canonical_invite_v1(const InviteV1& invite, TextBuf& out) {
  Joined joined(out);
  joined.word("1").text("mesh_id", invite.mesh_id).text("mesh_slug", invite.mesh_slug);
  joined.text("broker_url", invite.broker_url).number(invite.expires_at_s);
  joined.text("mesh_root_key", invite.mesh_root_key).text("role", invite.role).hex(invite.owner);
  return joined.finish();
}

Status canonical_invite_v2(std::string_view mesh_id, std::string_view invite_id,
                           std::uint64_t expires_at_s, std::string_view role,
                           const PublicKey& owner, TextBuf& out) {
  Joined joined(out);
  joined.word("v=2").text("mesh_id", mesh_id).text("invite_id", invite_id).number(expires_at_s);
  joined.text("role", role).hex(owner);
  return joined.finish();
}

Status canonical_handed(const HandedReceipt& receipt, TextBuf& out) {
  Joined joined(out);
  joined.word("claudemesh-handed").text("meshId", receipt.mesh_id);
  joined.text("brokerMessageId", receipt.broker_message_id).word(receipt.client_message_id);
  joined.hex(receipt.recipient).hex(receipt.ciphertext_hash).number(receipt.handed_at_ms);
  return joined.finish();
}

}  // namespace cm::crypto
