// daemon_fuzz.cc — a whole daemon: brokers, clients, transports, time, and commits that fail.
// Input:  see daemon_world.h.
// Not:    streams in detail (sse_fuzz.cc).
#include "fuzz/daemon_world.h"
#include "fuzz/json_mutator.h"
#include "fuzz/registry.h"
#include "fuzz/wire_names.h"

namespace {

constexpr std::string_view kLines[] = {
    "u0",
    "u1",
    "a0",
    "a1",
    "d01006",
    "d04003",
    "f0",
    "f1",
    "b0",
    "w0",
    "q0",
    "s",
    "t",
    "M",
    "T",
    "B",
    "x",
    "k",
    "r",
    "L0",
    "L1",
    "L3",
    "mhello",
    "nhello",
    R"(m{"type":"x"})",
    R"(S{"to":"~b","message":"hi","client_message_id":"c1","mesh":"crew"})",
    R"(S{"to":"~b","message":"hi","priority":"now","reply_to_id":"~m","mesh":"crew"})",
    R"(+S{"to":"bob","message":"hi","meta":{"a":1}})",
    R"(S{"to":"*","message":"hi","mesh":"crew"})",
    R"(S{"to":"@all","message":"hi","mesh":"other"})",
    R"(S{"to":"#news","message":"hi"})",
    R"(S{"to":"~b","message":"hi","client_message_id":"c1","mesh":"other"})",
    R"(Kc2 {"to":"eve","message":"hi","mesh":"crew"})",
    "G/v1/version",
    "G/v1/health",
    "G/v1/compat",
    "G/v1/metrics",
    "P/v1/heartbeat",
    "P/v1/token/rotate",
    "P/v1/reload",
    "G/v1/events",
    "G/v1/events?last_event_id=1",
    "G/v1/outbox",
    "G/v1/outbox?status=dead&limit=1",
    R"(P/v1/outbox/requeue {"id":"c1"})",
    R"(P/v1/outbox/requeue {"id":"c1","new_client_message_id":"c9","auto":true})",
    R"(P/v1/outbox/drop {"id":"c1"})",
    "P/v1/outbox/prune {}",
    "G/v1/outbox/inspect?id=c1",
    "G/v1/message/status?id=c1",
    "G/v1/message/explain?id=c1",
    "G/v1/inbox",
    "G/v1/inbox?unread=true&limit=1&after=~m",
    R"(P/v1/inbox/seen {"ids":["~m"]})",
    "D/v1/inbox",
    "D/v1/inbox?before=2030-01-01T00:00:00Z",
    "D/v1/inbox/~m",
    "G/v1/peers",
    "G/v1/peers?mesh=crew",
    "G/v1/state?key=k&mesh=crew",
    "G/v1/state",
    R"(P/v1/state {"key":"k","value":{"a":1},"mesh":"crew"})",
    "G/v1/memory?q=x",
    R"(P/v1/memory {"content":"x","tags":["a"],"mesh":"crew"})",
    "D/v1/memory/~m",
    "G/v1/skills",
    "G/v1/skills/x",
    R"(P/v1/profile {"status":"idle","summary":"s","visible":true,"mesh":"crew"})",
    "G/v1/topic/list",
    "G/v1/topic/members?topic=news",
    "G/v1/topic/history?topic=news&limit=2",
    R"(P/v1/topic/create {"name":"news","mesh":"crew"})",
    R"(P/v1/topic/post {"topic":"news","message":"hi","mesh":"crew"})",
    R"(P/v1/topic/subscribe {"topic":"news","mesh":"crew"})",
    R"(P/v1/topic/unsubscribe {"topic":"news","mesh":"crew"})",
    R"(P/v1/topic/read {"topic":"news","mesh":"crew"})",
    R"(P/v1/group/join {"name":"team","role":"lead","mesh":"crew"})",
    R"(P/v1/group/leave {"name":"team","mesh":"crew"})",
    R"(0{"type":"hello_ack","presenceId":"p","memberDisplayName":"self","brokerVersion":"1"})",
    R"(0{"type":"ack","id":"~c","messageId":"b1","queued":true})",
    R"(0{"type":"ack","id":"~c","messageId":"b1","queued":true,"duplicate":true})",
    R"(0{"type":"ack","id":"~c","messageId":"","queued":false,"error":"no","code":"rate_limit"})",
    R"(0{"type":"ack","id":"~c","messageId":"","queued":false,"error":"no","code":"not_found"})",
    R"(0{"type":"ack","_reqId":"~r","ok":true})",
    R"(0{"type":"error","code":"unauthorized","message":"m","_reqId":"~r"})",
    R"(0{"type":"error","code":"revoked","message":"m"})",
    R"(0{"type":"peers_list","_reqId":"~r","peers":[{"pubkey":"~b","memberPubkey":"~b",)"
    R"("displayName":"bob","peerRole":"control-plane"}]})",
    R"(0{"type":"push","subtype":"system","event":"peer_joined","eventData":{"name":"bob",)"
    R"("pubkey":"~b"},"messageId":"s1","meshId":"mesh0","senderPubkey":"system","nonce":"",)"
    R"("ciphertext":""})",
    R"(0{"type":"push","messageId":"b9","meshId":"mesh0","senderPubkey":"~b",)"
    R"("priority":"now","nonce":"","ciphertext":"aGk=","targetSpec":"#news","topic":"news",)"
    R"("createdAt":"2023-11-14T22:13:20.000Z"})",
    R"(0{"type":"feature_negotiation_response","_reqId":"~r",)"
    R"("supported":{"client_message_id_dedupe":{"params":{"version":1,)"
    R"("mode":"retention_scoped","dedupe_retention_days":3,"request_fingerprint":true}},)"
    R"("max_payload":{"params":{"version":1,"inline_bytes":2048}}},"missing_required":[]})",
    R"(0{"type":"state_result","_reqId":"~r","key":"k","value":1,"updatedBy":"~b",)"
    R"("updatedAt":"x"})",
    R"(0{"type":"state_list","_reqId":"~r","entries":[{"key":"k","value":1}]})",
    R"(0{"type":"memory_results","_reqId":"~r","memories":[{"id":"m1","content":"x"}]})",
    R"(0{"type":"memory_stored","_reqId":"~r","id":"m1"})",
    R"(0{"type":"skill_list","_reqId":"~r","skills":[{"name":"x"}]})",
    R"(0{"type":"skill_data","_reqId":"~r","skill":{"name":"x","instructions":"i"}})",
    R"(0{"type":"topic_list_response","_reqId":"~r","topics":[{"id":"t1","name":"news"}]})",
    R"(0{"type":"topic_created","_reqId":"~r","topic":{"id":"t1","name":"news"},"created":true})",
    R"(0{"type":"topic_members_response","_reqId":"~r","topic":"news",)"
    R"("members":[{"pubkey":"~b"}]})",
    R"(0{"type":"topic_history_response","_reqId":"~r","topic":"news",)"
    R"("messages":[{"id":"h1","ciphertext":"aGk=","bodyVersion":1}]})",
    R"(0{"type":"message_status_result","_reqId":"~r","messageId":"b1","targetSpec":"~b",)"
    R"("delivered":true,"recipients":[{"name":"bob","pubkey":"~b","status":"delivered"}]})",
};

}  // namespace

CM_FUZZ_LINE_MUTATOR(kLines, cm::fuzz::kWireNames)

CM_FUZZ_TARGET(daemon) {
  static cm::daemon::DaemonWorld world;
  world.run({reinterpret_cast<const char*>(data), size});
  return 0;
}
