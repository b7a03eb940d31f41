"""rules.py — the rules that run.py breaks, one at a time: a piece of text and what takes its place.

Each row is one sentence of design/ that somebody could get wrong. `also` names end-to-end tests that
judge what no core sees (the order of a shell's iteration); they run only when the others are content.
"""

from typing import NamedTuple


class Rule(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    also: tuple = ()


D, B = "core/daemon/", "core/broker/"

RULES = [
    # --- what is answered is durable ---
    Rule("the daemon replies before its commit", "cli/run_daemon.cc",
         "    plugins::Verdict verdict = plugins::Verdict::kOk;\n    switch (store_.commit()) {",
         "    plugins::Verdict verdict = plugins::Verdict::kOk;\n    execute_all();\n"
         "    switch (store_.commit()) {", ("test_disk_full.py",)),
    Rule("every message wakes", D + "events.cc",
         "!std::exchange(is_woken_, true)", "!std::exchange(is_woken_, false)"),
    Rule("an old row does not wait for the window", D + "features.cc",
         "  if (!knows_terms(mesh)) {\n", "  if (!knows_terms(mesh) && false) {\n"),
    Rule("a row that is too large is sent for ever", D + "features.cc",
         "frame_bytes > payload_limit(mesh);", "frame_bytes > payload_limit(mesh) && false;"),
    Rule("an emptied data file passes for a new one", "store/store.cc",
         "  if (is_new && is_made) {", "  if (is_new && is_made && false) {"),
    Rule("the broker replies before its commit", "cli/run_broker.cc",
         "    core_.step();\n    commit();\n", "    core_.step();\n    execute_all();\n    commit();\n",
         ("test_disk_full.py",)),
    Rule("an abandoned daemon lets its effects go", D + "load.cc",
         "void Daemon::abandon(Err why) {\n  effects_.clear();", "void Daemon::abandon(Err why) {"),
    Rule("an abandoned broker lets its effects go", B + "load.cc",
         "  // are closed, so that hellos are repeated and what they sent is sent again.\n"
         "  effects_.clear();",
         "  // are closed, so that hellos are repeated and what they sent is sent again.\n"),
    # --- an id names one request ---
    Rule("the broker forgets to look an id up", B + "accept.cc",
         "  if (!batch().get(TableId::kDedupe, key.bytes(), row)) return false;",
         "  if (!batch().get(TableId::kDedupe, key.bytes(), row) || true) return false;"),
    Rule("the broker writes no dedupe row", B + "accept.cc",
         "  if (!send.client_message_id.empty()) {\n    store::DedupeRow dedupe;",
         "  if (send.client_message_id.empty()) {\n    store::DedupeRow dedupe;"),
    Rule("the broker ignores the fingerprint", B + "accept.cc",
         " &&\n                    crypto::equal_in_constant_time(send.fingerprint, "
         "row.fixed.fingerprint);", ";"),
    Rule("the daemon ignores the fingerprint", D + "send.cc",
         "  const bool same = same_mesh && crypto::equal_in_constant_time(fingerprint, "
         "known.fingerprint);", "  const bool same = same_mesh;"),
    Rule("an id is not bound to its mesh", D + "send.cc",
         "  const bool same = same_mesh && crypto::equal_in_constant_time(",
         "  static_cast<void>(same_mesh);\n  const bool same = crypto::equal_in_constant_time("),
    Rule("the bare fingerprint goes on the wire", D + "drain.cc",
         "  send.fingerprint = row.fixed.wire_fingerprint;",
         "  send.fingerprint = row.fixed.request_fingerprint;"),
    # --- the outbox ---
    Rule("a lost connection forgets what was in flight", D + "link.cc",
         "  lanes_lost(mesh);\n", ""),
    Rule("no ack is waited for in vain", D + "drain.cc",
         "      retry_later(work, row, cell, \"the broker did not answer within 15 s\", true);",
         "      static_cast<void>(cell);"),
    Rule("a row never grows too old", D + "drain.cc",
         "      if (end > env_.wall_ms || !outbox_row(tables_.work.get<kWorkId>(work), row)) {",
         "      if (true || !outbox_row(tables_.work.get<kWorkId>(work), row)) {"),
    Rule("a permanent refusal is tried again", D + "drain.cc",
         "  if (!is_permanent(ack)) return", "  if (!is_permanent(ack) || true) return"),
    Rule("a transient refusal ends a row", D + "drain.cc",
         "  if (!is_permanent(ack)) return", "  if (!is_permanent(ack) && false) return"),
    Rule("another broker's ack counts", D + "drain.cc",
         "  if (!mesh || !(tables_.meshes.get<kMeshLink>(mesh) == link) ||",
         "  if (!mesh || (false && !(tables_.meshes.get<kMeshLink>(mesh) == link)) ||"),
    Rule("a row made under another key is sent", D + "drain.cc",
         "  if (expected != row.fixed.wire_fingerprint) {",
         "  if (expected != row.fixed.wire_fingerprint && false) {"),
    Rule("a second attempt forgets its target", D + "requeue.cc",
         "  fresh.text[store::kOutboxLastError] = {};",
         "  fresh.text[store::kOutboxLastError] = {};\n"
         "  fresh.text[store::kOutboxTarget] = \"*\";"),
    Rule("a message too large is taken", D + "send.cc",
         "  if (frame.size() <= most) return {};", "  if (frame.size() <= most || true) return {};"),
    Rule("a second row of a lane is in flight", D + "drain.cc",
         "  tables_.lanes.get<kLaneLast>(where) = work;\n",
         "  tables_.lanes.get<kLaneLast>(where) = work;\n"
         "  tables_.lanes.get<kLaneFirst>(where) = work;\n"),
    Rule("a tombstone forgets how its row ended", D + "send.cc",
         "    known.answers_as = outbox_state(row.fixed.status);",
         "    known.answers_as = OutboxState::kPending;"),
    Rule("open rows shrink", D + "tombstones.cc", "      if (state <= OutboxState::kInflight) {",
         "      if (state < OutboxState::kPending) {"),
    # --- the inbox ---
    Rule("a redelivery makes a second row", D + "receive.cc",
         "known = batch().get_index(TableId::kInboxKey, key.bytes()); !known.empty()) {",
         "known = batch().get_index(TableId::kInboxKey, key.bytes()); false) {"),
    Rule("what did not open is shown as text", D + "receive.cc",
         "  if (!plain) return refuse(reason);\n",
         "  if (!plain && false) return refuse(reason);\n"),
    Rule("whoever a push names is believed", D + "receive.cc",
         "  row.fixed.has_member = opened && push.sender_member == push.sender_key;",
         "  row.fixed.has_member = opened && push.sender_member.has_value();"),
    Rule("a name that changed its bearer is used", D + "resolve.cc",
         "  if (bearers.size() > 1) return name_conflict(name, bearers);\n", ""),
    # --- the broker's queue ---
    Rule("leases never end", B + "broker.cc", "  expire_claims();\n", ""),
    Rule("what a lost connection held is not pushed again", B + "claim.cc",
         "    unlink_claim(client, claim);\n    tables_.mailboxes.get<kBoxRescan>(box) = 1;\n"
         "    mark_dirty(box);\n    metrics_.add(Metric::kBrokerRedeliveries);\n  }\n}\n\n"
         "// Releases",
         "    unlink_claim(client, claim);\n    static_cast<void>(box);\n"
         "    metrics_.add(Metric::kBrokerRedeliveries);\n  }\n}"
         "\n\n// Releases"),
    Rule("a mailbox is split between connections", B + "queue.cc",
         "  if (tables_.mailboxes.get<kBoxClaimed>(box) > 0) {\n"
         "    CHECK(tables_.clients.alive(holder));\n    return holder;\n  }\n",
         "  static_cast<void>(holder);\n"),
    Rule("the window is not kept", B + "queue.cc",
         "      (held >= limits_.claim_rows_max ||", "      (held >= limits_.claim_rows_max * 2 ||"),
    Rule("working peers get everything", B + "queue.cc",
         "  return key.message > status.open_until;", "  return false && status.open_until.is_zero();"),
    Rule("a revoked sender's mail goes out", B + "queue.cc",
         "  if (sender == nullptr || sender->revoked) return \"sender_revoked\";",
         "  if (sender == nullptr) return \"sender_revoked\";"),
    Rule("a block does not hold what was queued", B + "queue.cc",
         "  metrics_.add(Metric::kBrokerDroppedByGrant);\n  return \"blocked\";",
         "  return {};"),
    Rule("undelivered mail never expires", B + "broker.cc", "  expire_old_mail();\n", ""),
    # --- the broker's door ---
    Rule("a hello needs no signature", B + "hello.cc",
         "  if (!crypto::verify(facts.key, canonical.view(), facts.signature)) {", "  if (false) {"),
    Rule("anybody may vouch for a session", B + "session_hello.cc",
         "  if (!crypto::verify(facts.key, canonical.view(), *signature)) {", "  if (false) {"),
    Rule("a hello may be used twice", B + "hello.cc",
         "  if (!batch().get_index(TableId::kHelloSeen, seen.bytes()).empty()) {",
         "  if (!batch().get_index(TableId::kHelloSeen, seen.bytes()).empty() && false) {"),
    Rule("an old hello is as good", B + "hello.cc",
         "  if (skew > wire::kHelloSkewMs || skew < -wire::kHelloSkewMs) {", "  if (false) {"),
    Rule("a removed member may come back", B + "hello.cc", "  if (found->revoked) {",
         "  if (false) {"),
    # --- budgets, disk, retention, status ---
    Rule("a retry pays again", B + "budget.cc",
         "  mine.parts -= std::int64_t{count - std::min(count, paid)} * kParts;",
         "  mine.parts -= std::int64_t{count} * kParts + paid * 0;"),
    Rule("one sender may fill a queue", B + "budget.cc",
         "  return found->second.rows < limits_.queue_pair_rows_max &&", "  return"),
    Rule("what can never fit is tried for ever", B + "accept.cc",
         "  if (recipients_.size() > 1 && all > limits_.queue_sender_bytes_max) {",
         "  if (recipients_.size() > 1 && all > UINT64_MAX / 2) {"),
    Rule("who is away gets no post", B + "accept.cc",
         "    queue_for(recipient, id, delivery, send.priority, route);",
         "    if (recipient.online || !route.multicast) "
         "queue_for(recipient, id, delivery, send.priority, route);"),
    Rule("a full disk takes messages", B + "pressure.cc",
         "  if (batch().admits() && pressure_ < Pressure::kRefusing) return {};",
         "  if (batch().admits() || true) return {};"),
    Rule("an id is forgotten before its time", B + "retention.cc",
         "row.fixed.expires_ms <= env_.wall_ms;", "row.fixed.first_seen_ms <= env_.wall_ms;"),
    Rule("history goes before it was delivered", B + "retention.cc",
         "  if (is_kept) return true;\n",
         "  if (is_kept && false) return true;\n"),
    Rule("a pruned history is still promised", B + "retention.cc",
         "  note_history_pruned(message.fixed.sender_member_no, client_id, id);\n", ""),
    Rule("strangers may ask for a message's status", B + "message_status.cc",
         "  if (row.fixed.sender_member_no == member_no) return true;",
         "  if (member_no != 0) return true;"),
    # --- receipts ---
    Rule("a receipt's signature is believed", D + "chain.cc",
         " && crypto::verify(*signer, text.view(), *signature)) {", ") {"),
    Rule("what was seen is counted twice", B + "receipts.cc", "receipt.fixed.seen_ms != 0 ||",
         "false ||"),
    Rule("seen is shown of who reports no more than stored", B + "receipts.cc",
         "receipt.fixed.level == ReportLevel::kStored ||", "false ||"),
    Rule("who is hidden is told of", B + "receipts.cc",
         "      is_hidden(*recipient, mailbox, routing_key(row, mailbox, recipient))) {",
         "      (mailbox.no == 0 && is_hidden(*recipient, mailbox, "
         "routing_key(row, mailbox, recipient)))) {"),
    # --- the store ---
    Rule("the store of another role is opened", "store/store.cc",
         "  if (role.fixed.number != static_cast<std::uint64_t>(options_.role)) {",
         "  if (role.fixed.number > 7) {"),
    Rule("a damaged row is read", "store/row.cc",
         "  if (load_le<std::uint64_t>(at + 8) != expected) return false;",
         "  static_cast<void>(expected);"),
    Rule("a damaged index is read", "store/row.cc",
         "  if (load_le<std::uint32_t>(stored.data() + value.size()) != index_check(key, value)) "
         "return {};", "  static_cast<void>(key);"),
]
