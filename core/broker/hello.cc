// hello.cc — who may connect: the checks of a hello, in the order of spec/wire.md §2.1.
// Holds:  the first failure wins and nothing has been written by then. A signature is accepted
//         once: it is remembered until its timestamp is too old to be accepted again.
// Why:    a hello is the only place where the broker verifies a signature; messages ride on it.
// Source: docs/PROTOCOL.md §2, §2.1.
// Not:    sessions (session_hello.cc), what an accepted hello becomes (attach.cc).
#include "core/broker/broker.h"
#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr std::uint32_t kCloseRefused = 1008;
constexpr std::uint32_t kCloseRevoked = 4002;

}  // namespace

void Broker::handle_hello(ClientRef client, const Frame& frame) {
  if (tables_.clients.get<kClientHelloDeadline>(client) == 0) {
    send_error(client, "malformed", "hello was already accepted on this connection",
               frame.request_id);
    return;
  }
  wire::Hello hello;
  HelloFacts facts;
  if (Status parsed = wire::parse_hello(frame, hello); !parsed) {
    refuse_hello(client, parsed.error());
    return;
  }
  if (Status checked = check_hello(hello, facts); !checked) {
    refuse_hello(client, checked.error());
    return;
  }
  std::vector<PeerGroup> groups;
  if (hello.groups != nullptr) {
    if (Status read = parse_groups(frame.tape, *hello.groups, groups); !read) {
      refuse_hello(client, read.error());
      return;
    }
  }
  admit(client, hello, facts, std::move(groups));
}

Status Broker::check_hello(const wire::Hello& hello, HelloFacts& facts) {
  if (!hello.session_pubkey_text.empty()) {
    facts.session = crypto::public_key_parse(hello.session_pubkey_text);
    if (!facts.session) {
      return fail(Err::kBadSessionPubkey, "sessionPubkey must be 64 lowercase hex chars");
    }
  }
  if (Status room = check_mesh(hello, facts); !room) return room;
  if (Status time = check_time(hello); !time) return time;
  if (Status signature = check_signature(hello, facts); !signature) return signature;
  if (Status found = check_member(facts); !found) return found;
  if (Status fresh = check_fresh(hello, facts); !fresh) return fresh;
  if (Status session = check_session_key(facts); !session) return session;
  return check_room(facts);
}

Status Broker::check_mesh(const wire::Hello& hello, HelloFacts& facts) {
  const auto mesh_no =
      wire::is_broker_id(hello.mesh_id)
          ? batch().get_number(TableId::kMeshId, store::text_key(hello.mesh_id).bytes())
          : std::nullopt;
  facts.mesh_no = mesh_no.value_or(0);
  const MeshMirror* const known = mesh(facts.mesh_no);
  if (known == nullptr && facts.mesh_no != 0) {
    return fail(Err::kCorrupt,
                "the broker cannot read its row of this mesh; its operator runs "
                "'claudemesh broker fsck'");
  }
  if (known != nullptr && known->clients >= limits_.mesh_connections_max) {
    return fail(Err::kCapacity, "mesh at connection capacity");
  }
  return {};
}

Status Broker::check_time(const wire::Hello& hello) {
  if (!hello.timestamp_valid) return fail(Err::kTimestampSkew, "timestamp must be a number");
  const std::int64_t skew = static_cast<std::int64_t>(env_.wall_ms) - hello.timestamp_ms;
  if (skew > wire::kHelloSkewMs || skew < -wire::kHelloSkewMs) {
    return fail(Err::kTimestampSkew, "timestamp is " + std::to_string(skew) +
                                         " ms behind the broker's clock; at most 60000");
  }
  return {};
}

Status Broker::check_signature(const wire::Hello& hello, HelloFacts& facts) {
  if (!crypto::is_hex_text(hello.pubkey_text, 64) ||
      !crypto::is_hex_text(hello.signature_text, 128)) {
    return fail(Err::kMalformed, "pubkey must be 64 and signature 128 hex chars");
  }
  // Keys are compared as texts by every peer, so an upper-case one names no member.
  const auto key = crypto::public_key_parse(hello.pubkey_text);
  const auto signature = crypto::signature_parse(hello.signature_text);
  if (!key) return fail(Err::kUnauthorized, "pubkey not found in mesh");
  CHECK(signature.has_value());
  facts.key = *key;
  facts.signature = *signature;
  TextBuf canonical(scratch());
  const Status built =
      crypto::canonical_hello(hello.mesh_id, hello.member_id, facts.key,
                              static_cast<std::uint64_t>(hello.timestamp_ms), canonical);
  if (!built) return fail(Err::kMalformed, built.error().detail);
  if (!crypto::verify(facts.key, canonical.view(), facts.signature)) {
    return fail(Err::kBadSignature, "signature does not verify");
  }
  return {};
}

Status Broker::check_member(HelloFacts& facts) {
  if (facts.mesh_no == 0) return fail(Err::kUnauthorized, "pubkey not found in mesh");
  const auto member_no = batch().get_number(TableId::kMemberKey,
                                            store::u32_bytes_key(facts.mesh_no, facts.key).bytes());
  const MemberMirror* found = member_no ? member(*member_no) : nullptr;
  if (found == nullptr) return fail(Err::kUnauthorized, "pubkey not found in mesh");
  if (found->revoked) {
    return fail(Err::kRevoked,
                "this member was removed from the mesh " + mesh(facts.mesh_no)->slug);
  }
  if (mesh(facts.mesh_no)->deleted) return fail(Err::kUnauthorized, "the mesh was deleted");
  facts.member_no = *member_no;
  return {};
}

Status Broker::check_fresh(const wire::Hello& hello, const HelloFacts& facts) {
  const store::Key seen =
      store::hello_key(static_cast<std::uint64_t>(hello.timestamp_ms), facts.signature);
  if (!batch().get_index(TableId::kHelloSeen, seen.bytes()).empty()) {
    return fail(Err::kBadSignature, "this signed hello was used before; sign a fresh one");
  }
  return {};
}

// A presence outlives its socket by a lease, so connection limits alone do not bound the table.
Status Broker::check_room(const HelloFacts& facts) {
  const MemberMirror* found = member(facts.member_no);
  if (found->clients.size() >= limits_.member_connections_max) {
    return fail(Err::kCapacity, "member at connection capacity");
  }
  const PresenceKey entry{facts.mesh_no,
                          facts.session ? MailboxKind::kSession : MailboxKind::kMember,
                          facts.session.value_or(facts.key)};
  if (tables_.presence_of.contains(entry)) return {};
  // What is told of new entries is debt of the member; who brings ever new keys waits. A session
  // that is proved and the member itself always get in.
  if (facts.session && !facts.proved && tables_.budget.in_debt(facts.member_no, env_.mono_ms)) {
    return fail(Err::kCapacity, "the member is over its rate: it brings too many new session keys");
  }
  if (tables_.presences.full()) {
    return fail(Err::kCapacity, "the broker is at its presence capacity");
  }
  if (found->presences >= limits_.member_connections_max) {
    return fail(Err::kCapacity, "member at presence capacity, leases included");
  }
  return {};
}

Status Broker::check_session_key(const HelloFacts& facts) {
  if (!facts.session) return {};
  const store::Key key = store::u32_bytes_key(facts.mesh_no, *facts.session);
  if (batch().get_number(TableId::kMemberKey, key.bytes())) {
    return fail(Err::kBadSessionPubkey, "sessionPubkey is a member key of this mesh");
  }
  store::BindingRow binding;
  if (!batch().get(TableId::kBinding, key.bytes(), binding)) return {};
  if (binding.fixed.member_no == facts.member_no) return {};
  if (facts.proved && binding.fixed.proved == 0) return {};  // a proof overrides a claim
  // An unproved claim lasts as long as its entry lives; a proved one for good.
  // Nor may it end while mail for it waits: a new owner would get another mailbox.
  const PresenceKey entry{facts.mesh_no, MailboxKind::kSession, *facts.session};
  const MailboxId old{MailboxKind::kSession, binding.fixed.session_no};
  if (binding.fixed.proved != 0 || tables_.presence_of.contains(entry) ||
      tables_.mailbox_of.contains(old.bits())) {
    return fail(Err::kBadSessionPubkey, "sessionPubkey belongs to another member");
  }
  return {};
}

void Broker::refuse_hello(ClientRef client, const Error& error) {
  const ErrInfo& info = info_of(error.code);
  std::string message = "hello rejected: ";
  message += error.detail.empty() ? std::string(info.meaning) : error.detail;
  send_error(client, info.wire_code, message, {});
  close(client, error.code == Err::kRevoked ? kCloseRevoked : kCloseRefused, info.wire_code);
  metrics_.add(error.code == Err::kCapacity ? Metric::kBrokerRejectedCapacity
                                            : Metric::kBrokerRejectedHello);
  env_.log->warn("hello_refused", {{"code", info.wire_code}, {"detail", error.detail}});
}

}  // namespace cm::broker
