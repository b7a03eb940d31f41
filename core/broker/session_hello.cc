// session_hello.cc — a session proves its key: the checks, in the order of spec/wire.md §2.2.
// Holds:  the session's signature proves possession of its key, the attestation that its member
//         vouches for it. Nothing has been written when the first check fails.
// Why:    only this proof binds a session key to a member (design/presence.md, "Binding").
// Source: docs/PROTOCOL.md §2.2.
// Not:    plain hellos (hello.cc), what an accepted hello becomes (attach.cc).
#include "core/broker/broker.h"
#include "core/broker/capability.h"
#include "core/broker/texts.h"
#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "core/wire/limits.h"

namespace cm::broker {

void Broker::handle_session_hello(ClientRef client, const Frame& frame) {
  if (tables_.clients.get<kClientHelloDeadline>(client) == 0) {
    send_error(client, "malformed", "hello was already accepted on this connection",
               frame.request_id);
    return;
  }
  wire::SessionHello hello;
  HelloFacts facts;
  facts.proved = true;
  if (Status parsed = wire::parse_session_hello(frame, hello); !parsed) {
    refuse_hello(client, parsed.error());
    return;
  }
  if (Status checked = check_session_hello(frame, hello, facts); !checked) {
    refuse_hello(client, checked.error());
    return;
  }
  std::vector<PeerGroup> groups;
  if (hello.common.groups != nullptr) {
    if (Status read = parse_groups(frame.tape, *hello.common.groups, groups); !read) {
      refuse_hello(client, read.error());
      return;
    }
  }
  admit(client, hello.common, facts, std::move(groups));
}

Status Broker::check_session_hello(const Frame& frame, const wire::SessionHello& hello,
                                   HelloFacts& facts) {
  facts.session = crypto::public_key_parse(hello.common.session_pubkey_text);
  if (!facts.session) {
    return fail(Err::kBadSessionPubkey, "sessionPubkey must be 64 lowercase hex chars");
  }
  const auto parent = crypto::public_key_parse(hello.parent_pubkey_text);
  if (!parent) {
    return fail(Err::kBadParentPubkey, "parentMemberPubkey must be 64 lowercase hex chars");
  }
  facts.key = *parent;
  if (hello.attestation == nullptr ||
      hello.attested_session_text != hello.common.session_pubkey_text ||
      hello.attested_parent_text != hello.parent_pubkey_text) {
    return fail(Err::kAttestationMismatch,
                "parentAttestation must name sessionPubkey and parentMemberPubkey of this hello");
  }
  if (Status room = check_mesh(hello.common, facts); !room) return room;
  if (Status attested = check_attestation(frame, hello, facts); !attested) return attested;
  if (Status time = check_time(hello.common); !time) return time;
  const auto signature = crypto::signature_parse(hello.common.signature_text);
  if (!signature) return fail(Err::kMalformed, "signature must be 128 hex chars");
  facts.signature = *signature;
  TextBuf canonical(scratch());
  const Status built = crypto::canonical_session_hello(
      hello.common.mesh_id, facts.key, *facts.session,
      static_cast<std::uint64_t>(hello.common.timestamp_ms), canonical);
  if (!built) return fail(Err::kMalformed, built.error().detail);
  if (!crypto::verify(*facts.session, canonical.view(), facts.signature)) {
    return fail(Err::kBadSignature, "signature does not verify with sessionPubkey");
  }
  if (Status found = check_member(facts); !found) return found;
  if (!hello.parent_member_id.empty() && hello.parent_member_id != member(facts.member_no)->id) {
    return fail(Err::kParentMemberMismatch, "parentMemberId is not the id of parentMemberPubkey");
  }
  if (Status fresh = check_fresh(hello.common, facts); !fresh) return fresh;
  if (Status session = check_session_key(facts); !session) return session;
  return check_room(facts);
}

Status Broker::check_attestation(const Frame& frame, const wire::SessionHello& hello,
                                 HelloFacts& facts) {
  if (!hello.attestation_expires_valid) {
    return fail(Err::kMalformed, "parentAttestation.expiresAt must be a number of milliseconds");
  }
  const auto now = static_cast<std::int64_t>(env_.wall_ms);
  if (hello.attestation_expires_ms <= now)
    return fail(Err::kExpired, "the attestation has expired");
  if (hello.attestation_expires_ms > now + wire::kAttestationMsMax) {
    return fail(Err::kTtlTooLong, "the attestation lasts longer than 24 hours");
  }
  const auto signature = crypto::signature_parse(hello.attestation_signature_text);
  if (!signature) {
    return fail(Err::kMalformed, "parentAttestation.signature must be 128 hex chars");
  }
  facts.attestation_ms = static_cast<std::uint64_t>(hello.attestation_expires_ms);
  facts.attestation_version = static_cast<std::uint32_t>(hello.attestation_version);
  TextBuf canonical(scratch());
  if (hello.attestation_version == 1) {
    crypto::canonical_attestation_v1(facts.key, *facts.session, facts.attestation_ms, canonical);
  } else if (Status built = check_capabilities(frame, hello, canonical, facts); !built) {
    return built;
  }
  if (!crypto::verify(facts.key, canonical.view(), *signature)) {
    return fail(Err::kBadSignature, "the attestation does not verify with parentMemberPubkey");
  }
  facts.attestation = attestation_json(hello, facts);
  return {};
}

// What the member signed and nothing else: whatever came beside it would go to every peer.
std::string_view Broker::attestation_json(const wire::SessionHello& hello,
                                          const HelloFacts& facts) {
  TextBuf text(scratch(), 512);
  wire::JsonWriter json(text);
  json.begin_object().field("sessionPubkey", hello.attested_session_text);
  json.field("parentMemberPubkey", hello.attested_parent_text);
  json.field("expiresAt", hello.attestation_expires_ms);
  json.field("signature", hello.attestation_signature_text);
  if (hello.attestation_version != 1) {
    json.field("version", hello.attestation_version).key("allowed_caps").raw(facts.caps_json);
  }
  json.end_object();
  return text.view();
}

// What a list of names allows; unknown ones give nothing, and case does not matter.
std::uint16_t Broker::caps_of_names(const wire::JsonTape& tape, const wire::JsonNode& list) {
  std::uint16_t caps = kCapNone;
  for (std::uint32_t index = tape.first(list); index < list.next; index = tape.at(index).next) {
    if (tape.at(index).type != wire::JsonType::kText) continue;
    std::string lower(tape.at(index).text);
    for (char& c : lower) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    caps = static_cast<std::uint16_t>(caps | session_cap(lower));
  }
  return caps;
}

// Version 2: an empty list allows nothing, an absent one is malformed (spec/decisions.md).
Status Broker::check_capabilities(const Frame& frame, const wire::SessionHello& hello,
                                  TextBuf& canonical, HelloFacts& facts) {
  if (hello.allowed_caps == nullptr) {
    return fail(Err::kMalformed, "parentAttestation.allowed_caps is required in version 2");
  }
  if (hello.allowed_caps->count > crypto::kCapabilitiesMax) {
    return fail(Err::kMalformed, "parentAttestation.allowed_caps has more than 64 entries");
  }
  std::array<std::string_view, crypto::kCapabilitiesMax> names;
  std::size_t count = 0;
  for (std::uint32_t index = frame.tape.first(*hello.allowed_caps);
       index < hello.allowed_caps->next; index = frame.tape.at(index).next) {
    const wire::JsonNode& node = frame.tape.at(index);
    if (node.type != wire::JsonType::kText) {
      return fail(Err::kMalformed, "parentAttestation.allowed_caps must be texts");
    }
    names[count++] = node.text;
  }
  facts.caps = caps_of_names(frame.tape, *hello.allowed_caps);
  TextBuf caps(scratch(), 256);
  wire::JsonWriter json(caps);
  write_texts(frame.tape, *hello.allowed_caps, json);
  facts.caps_json = caps.view();
  const Status built = crypto::canonical_attestation_v2(
      facts.key, *facts.session, facts.attestation_ms, {names.data(), count}, canonical);
  if (!built) return fail(Err::kMalformed, "parentAttestation: " + built.error().detail);
  return {};
}

}  // namespace cm::broker
