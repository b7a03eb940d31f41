// broker_fuzz.cc — a whole broker: frames of clients and strangers, HTTP, restarts, failed commits.
// Input:  see broker_world.h.
// Not:    hellos in detail (hello_fuzz.cc).
#include "fuzz/broker_world.h"
#include "fuzz/json_mutator.h"
#include "fuzz/registry.h"
#include "fuzz/wire_names.h"

namespace {

constexpr std::string_view kLines[] = {
    "t",
    "M",
    "T",
    "B",
    "c0",
    "c1",
    "c2",
    "C0",
    "C1",
    "C2",
    "o",
    "x",
    "k",
    "r",
    R"(0{"type":"send","targetSpec":"~b","priority":"next","nonce":"","ciphertext":"AAAA",)"
    R"("id":"i1","client_message_id":"i1",)"
    R"("request_fingerprint":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa)"
    R"(aaa"})",
    R"(+0{"type":"send","targetSpec":"~b","priority":"now","nonce":"","ciphertext":"AAAA",)"
    R"("id":"i2"})",
    R"(1{"type":"send","targetSpec":"~a","priority":"low",)"
    R"("nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYX","ciphertext":"AAAA","id":"i3",)"
    R"("client_message_id":"i3",)"
    R"("request_fingerprint":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)"
    R"(bbb"})",
    R"(1{"type":"send","targetSpec":"~s","priority":"next","nonce":"","ciphertext":"AAAA",)"
    R"("id":"i4"})",
    R"(0{"type":"send","targetSpec":"*","priority":"next","nonce":"","ciphertext":"AAAA",)"
    R"("id":"i5"})",
    R"(1{"type":"send","targetSpec":"@team","priority":"next","nonce":"",)"
    R"("ciphertext":"AAAA","id":"i6"})",
    R"(2{"type":"send","targetSpec":"#news","priority":"next","nonce":"",)"
    R"("ciphertext":"AAAA","id":"i7","mentions":["~b"]})",
    R"(1{"type":"client_ack","brokerMessageId":"~m"})",
    R"(0{"type":"client_ack","client_message_id":"i1","brokerMessageId":"~m"})",
    R"(2{"type":"client_ack","clientMessageId":"i1","brokerMessageId":"~m"})",
    R"(0{"type":"message_status","messageId":"~m","_reqId":"r"})",
    R"(0{"type":"list_peers","_reqId":"r"})",
    R"(0{"type":"feature_negotiation_request","require":["client_message_id_dedupe"],)"
    R"("optional":["concurrent_connection_policy"],"_reqId":"r"})",
    R"(0{"type":"set_status","status":"dnd"})",
    R"(0{"type":"set_summary","summary":"s"})",
    R"(0{"type":"set_visible","visible":false})",
    R"(0{"type":"set_profile","avatar":"a","title":"t","bio":"b","capabilities":["x"]})",
    R"(0{"type":"set_stats","stats":{"messagesIn":1}})",
    R"(0{"type":"join_group","name":"team","role":"lead"})",
    R"(1{"type":"join_group","name":"team"})",
    R"(0{"type":"leave_group","name":"team"})",
    R"(0{"type":"topic_create","name":"news","description":"d","visibility":"private"})",
    R"(1{"type":"topic_join","topic":"news"})",
    R"(1{"type":"topic_leave","topic":"news"})",
    R"(1{"type":"topic_list","_reqId":"r"})",
    R"(1{"type":"topic_members","topic":"news","_reqId":"r"})",
    R"(1{"type":"topic_history","topic":"news","limit":5,"beforeId":"~m","_reqId":"r"})",
    R"(1{"type":"topic_mark_read","topic":"news"})",
    R"(0{"type":"set_state","key":"k","value":{"a":[1]}})",
    R"(1{"type":"get_state","key":"k","_reqId":"r"})",
    R"(1{"type":"list_state","_reqId":"r"})",
    R"(0{"type":"remember","content":"the red house","tags":["a","b"]})",
    R"(1{"type":"recall","query":"red","_reqId":"r"})",
    R"(0{"type":"forget","memoryId":"~m"})",
    R"(0{"type":"share_skill","name":"s","description":"d","instructions":"i","tags":["t"]})",
    R"(1{"type":"get_skill","name":"s"})",
    R"(1{"type":"list_skills","query":"s"})",
    R"(0{"type":"remove_skill","name":"s"})",
    R"(2{"type":"session_end"})",
    R"(3{"type":"hello","meshId":"~w","memberId":"~A","pubkey":"~a","sessionId":"n",)"
    R"("pid":7,"cwd":"/w","groups":[{"name":"team"}],"timestamp":~n,"signature":"~S"})",
    R"(3{"type":"session_hello","meshId":"~w","sessionPubkey":"~s",)"
    R"("parentMemberPubkey":"~a","sessionId":"n","pid":7,"cwd":"/w","timestamp":~n,)"
    R"("signature":"~S","parentAttestation":{"sessionPubkey":"~s",)"
    R"("parentMemberPubkey":"~a","expiresAt":~l,"signature":"~T"}})",
    "hnGET /health",
    "hnGET /health/ready",
    "h0GET /metrics",
    R"(haPOST /cli/mesh/crew/invite {"role":"member","max_uses":2,"expires_in":3600})",
    R"(h0POST /cli/mesh/crew/invite {"role":"admin"})",
    R"(haPOST /cli/mesh/create {"name":"other","slug":"other","pubkey":"~z","display_name":"zed"})",
    R"(hnPOST /join {"invite_token":"~i","invite_payload":~p,"peer_pubkey":"~z",)"
    R"("display_name":"zed"})",
    "hnGET /api/public/invite-code/~c",
    "hnGET /api/public/invite/~i",
    "hnGET /i/~c",
    R"(hnPOST /invites/~c/claim )"
    R"({"recipient_x25519_pubkey":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="})",
    R"(hnPOST /hook/set-status {"cwd":"/w","pid":7,"status":"idle","session_id":"s0"})",
    "h0GET /cli/meshes",
    R"(h0PATCH /cli/mesh/crew {"name":"team"})",
    "h0DELETE /cli/mesh/crew",
    "h0GET /cli/mesh/crew/grants",
    R"(h1POST /cli/mesh/crew/grants {"grants":{"~a":["dm"]}})",
    "h1GET /cli/mesh/crew/permissions",
    R"(h0POST /cli/mesh/crew/permissions {"member_id":"~B","permissions":{"canSend":false}})",
    "h0GET /mesh/~w/members",
    R"(h0PATCH /mesh/~w/member/~B {"displayName":"rob","permission":"admin",)"
    R"("groups":[{"name":"team"}],"messageMode":"push"})",
    R"(h0PATCH /mesh/~w/settings {"selfEditable":{"displayName":false},)"
    R"("concurrent_connection_policy":"prefer_newest"})",
};

}  // namespace

CM_FUZZ_LINE_MUTATOR(kLines, cm::fuzz::kWireNames)

CM_FUZZ_TARGET(broker) {
  static cm::fuzz::BrokerWorld world;
  world.run({reinterpret_cast<const char*>(data), size});
  return 0;
}
