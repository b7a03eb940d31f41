// hello_fuzz.cc — who may connect: hellos and session hellos with signatures that verify.
// Input:  see broker_world.h; ~S and ~T stand for the signatures that belong there.
// Why:    a forged signature ends every check behind it, so a fuzzer alone never gets there.
// Not:    what a client does once it is in (broker_fuzz.cc).
#include "fuzz/broker_world.h"
#include "fuzz/json_mutator.h"
#include "fuzz/registry.h"
#include "fuzz/wire_names.h"

namespace {

constexpr std::string_view kLines[] = {
    "o",
    "t",
    "M",
    "T",
    "r",
    "x",
    "k",
    "C0",
    "C1",
    "C2",
    R"(3{"type":"hello","meshId":"~w","memberId":"~A","pubkey":"~a","sessionId":"n",)"
    R"("pid":7,"cwd":"/w","hostname":"h","peerType":"ai","channel":"c","model":"x",)"
    R"("displayName":"al","groups":[{"name":"team","role":"lead"}],"protocolVersion":1,)"
    R"("capabilities":["dm"],"timestamp":~n,"signature":"~S"})",
    R"(3{"type":"hello","meshId":"~w","memberId":"~B","pubkey":"~b","sessionPubkey":"~s",)"
    R"("sessionId":"n","pid":7,"cwd":"/w","timestamp":~n,"signature":"~S"})",
    R"(3{"type":"hello","meshId":"~w","memberId":"~B","pubkey":"~z","sessionId":"n",)"
    R"("pid":7,"cwd":"/w","timestamp":~n,"signature":"~S"})",
    R"(3{"type":"hello","meshId":"~w","memberId":"~B","pubkey":"~b","sessionPubkey":"~z",)"
    R"("sessionId":"n","pid":7,"cwd":"/w","timestamp":~n,"signature":"~S"})",
    R"(3{"type":"session_hello","meshId":"~w","sessionPubkey":"~s",)"
    R"("parentMemberPubkey":"~a","parentMemberId":"~A","sessionId":"n","pid":7,"cwd":"/w",)"
    R"("timestamp":~n,"signature":"~S","parentAttestation":{"sessionPubkey":"~s",)"
    R"("parentMemberPubkey":"~a","expiresAt":~l,"signature":"~T"}})",
    R"(3{"type":"session_hello","meshId":"~w","sessionPubkey":"~z",)"
    R"("parentMemberPubkey":"~b","sessionId":"n","pid":7,"cwd":"/w",)"
    R"("groups":[{"name":"team"}],"timestamp":~n,"signature":"~S",)"
    R"("parentAttestation":{"sessionPubkey":"~z","parentMemberPubkey":"~b","expiresAt":~l,)"
    R"("version":2,"allowed_caps":["dm","broadcast","state-read"],"signature":"~T"}})",
    R"(3{"type":"session_hello","meshId":"~w","sessionPubkey":"~z",)"
    R"("parentMemberPubkey":"~b","sessionId":"n","pid":7,"cwd":"/w","timestamp":~n,)"
    R"("signature":"~S","parentAttestation":{"sessionPubkey":"~z",)"
    R"("parentMemberPubkey":"~b","expiresAt":~l,"version":2,"allowed_caps":[],)"
    R"("signature":"~T"}})",
    R"(3{"type":"feature_negotiation_request","require":["concurrent_connection_policy"],)"
    R"("_reqId":"r"})",
    R"(3{"type":"session_end"})",
    R"(3{"type":"set_summary","summary":"s"})",
    R"(3{"type":"list_peers","_reqId":"r"})",
    R"(1{"type":"send","targetSpec":"~s","priority":"next","nonce":"","ciphertext":"AAAA",)"
    R"("id":"i1"})",
    R"(1{"type":"send","targetSpec":"~z","priority":"next","nonce":"","ciphertext":"AAAA",)"
    R"("id":"i2"})",
    R"(h0PATCH /mesh/~w/settings {"concurrent_connection_policy":"prefer_newest"})",
    R"(h0PATCH /mesh/~w/member/~B {"permission":"observer"})",
    "h0DELETE /cli/mesh/crew",
};

}  // namespace

CM_FUZZ_LINE_MUTATOR(kLines, cm::fuzz::kWireNames)

CM_FUZZ_TARGET(hello) {
  static cm::fuzz::BrokerWorld world;
  world.run({reinterpret_cast<const char*>(data), size});
  return 0;
}
