// enrol.cc — making a mesh and joining it.
#include "tests/sim/enrol.h"

#include <sodium.h>

#include "core/base/check.h"
#include "core/crypto/encoding.h"
#include "core/wire/json_tape.h"
#include "core/wire/json_writer.h"

namespace cm::sim {
namespace {

std::string member_of(std::string_view json, std::string_view key) {
  ScratchArena arena(16 * 1024);
  wire::JsonParser parser;
  wire::JsonTape tape;
  CHECK(parser.parse(json, arena, tape));
  const wire::JsonNode* node = tape.find(key);
  CHECK(node != nullptr && node->type == wire::JsonType::kText);
  return std::string(node->text);
}

}  // namespace

Identity Enrolment::join(std::uint64_t now_ms, std::uint32_t number) {
  Identity who;
  who.number = number;
  who.name = "peer-" + std::to_string(number);
  std::uint8_t secret[64];
  randombytes_buf(who.seed.data(), who.seed.size());
  crypto_sign_seed_keypair(who.key.data(), secret, who.seed.data());
  const crypto::HexText64 hex = crypto::hex_text(who.key);
  who.key_hex = crypto::view(hex);
  ScratchArena arena(16 * 1024);
  TextBuf body(arena);
  wire::JsonWriter json(body);
  if (number == 0) {
    json.begin_object().field("name", "sim").field("pubkey", who.key_hex);
    json.field("display_name", who.name).end_object();
    const auto made = broker_.call(now_ms, "POST", "/cli/mesh/create", body.view(), "admin");
    CHECK(made);
    who.mesh_id = member_of(*made, "id");
    who.member_id = member_of(*made, "member_id");
    who.broker_url = member_of(*made, "broker_url");
    who.slug = member_of(*made, "slug");
    const auto invite = broker_.call(now_ms, "POST", "/cli/mesh/" + who.slug + "/invite",
                                     R"({"max_uses":16})", "admin");
    CHECK(invite);
    token_ = member_of(*invite, "token");
    first_ = who;
    return who;
  }
  const auto payload = crypto::base64url_decode(token_, arena);
  CHECK(payload);
  json.begin_object().field("invite_token", token_);
  json.key("invite_payload").raw(as_text(*payload));
  json.field("peer_pubkey", who.key_hex).field("display_name", who.name).end_object();
  const auto joined = broker_.call(now_ms, "POST", "/join", body.view(), {});
  CHECK(joined);
  who.member_id = member_of(*joined, "memberId");
  who.mesh_id = first_.mesh_id;
  who.broker_url = first_.broker_url;
  who.slug = first_.slug;
  return who;
}

}  // namespace cm::sim
