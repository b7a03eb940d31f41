// relay.cc — the lies.
#include "tests/sim/relay.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/wire/json_writer.h"

namespace cm::sim {
namespace {

// What a broker of the reference implementation does not send (spec/observed.md).
constexpr std::string_view kNewMembers[] = {"code",
                                            "conflict",
                                            "broker_fingerprint_prefix",
                                            "retry_after_ms",
                                            "duplicate",
                                            "recipient",
                                            "history_available",
                                            "first_seen_at",
                                            "targetSpec",
                                            "senderMemberId",
                                            "senderMemberPubkey",
                                            "senderName",
                                            "senderAttestation",
                                            "leaseTtlMs",
                                            "brokerVersion",
                                            "receipts"};

bool is_one_of(std::string_view frame, std::initializer_list<std::string_view> types) {
  return std::any_of(types.begin(), types.end(),
                     [frame](std::string_view type) { return is_type(frame, type); });
}

std::string lane_of(std::string_view frame) {
  const std::string_view party =
      member_of_frame(frame, is_type(frame, "push") ? "senderPubkey" : "targetSpec");
  return std::string(party) + '|' + std::string(member_of_frame(frame, "priority"));
}

}  // namespace

std::string_view member_of_frame(std::string_view frame, std::string_view key) {
  const std::string name = "\"" + std::string(key) + "\":\"";
  const std::size_t at = frame.find(name);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = frame.substr(at + name.size());
  return rest.substr(0, rest.find('"'));
}

bool is_type(std::string_view frame, std::string_view type) {
  constexpr std::string_view kHead = "{\"type\":\"";
  return frame.starts_with(kHead) && frame.substr(kHead.size()).starts_with(type) &&
         frame.substr(kHead.size() + type.size()).starts_with('"');
}

bool may_change_places(std::string_view first, std::string_view second) {
  const auto free = [](std::string_view frame) {
    return is_one_of(frame, {"send", "client_ack", "ack", "push", "list_peers", "peers_list"});
  };
  if (!free(first) || !free(second)) return false;
  const bool both_push = is_type(first, "push") && is_type(second, "push");
  const bool both_send = is_type(first, "send") && is_type(second, "send");
  return (!both_push && !both_send) || lane_of(first) != lane_of(second);
}

void Relay::remember(std::deque<std::string>& where, std::string_view text,
                     std::size_t most) const {
  where.emplace_back(text);
  if (where.size() > most) where.pop_front();
}

void Relay::up(std::uint32_t daemon, std::string_view text, std::vector<std::string>& out) {
  Line& line = lines_[daemon];
  if (is_one_of(text, {"hello", "session_hello"})) line.hello = text;
  if (plan_.legacy_broker && is_type(text, "feature_negotiation_request")) {
    counters_.faults.add(Fault::kLegacyBroker);
    return;  // it says nothing to what it does not know
  }
  if (is_type(text, "client_ack")) {
    const auto open = line.open.find(std::string(member_of_frame(text, "brokerMessageId")));
    if (open != line.open.end()) {
      remember(line.acknowledged, open->second);
      line.open.erase(open);
    }
    remember(line.sent, text);
  }
  std::string changed;
  const std::string_view true_text = text;
  if (is_type(text, "send")) {
    remember(line.sent, text);
    if (!line.key.empty()) {
      remember(client_ids_, member_of_frame(text, "client_message_id"));
      remember(line.own_ids, member_of_frame(text, "client_message_id"), kKeptLong);
      sent_ids_.emplace_back(daemon, member_of_frame(text, "client_message_id"));
      if (sent_ids_.size() > 4 * kKept) sent_ids_.pop_front();
    }
    if (!line.key.empty() && strikes(plan_.tamper)) text = changed = tamper(line.key, text);
  }
  out.emplace_back(text);
  // A changed one first, then the true one: the broker must not take them for the same.
  if (!changed.empty() && rng_.chance(500)) out.emplace_back(true_text);
  if (is_one_of(text, {"send", "client_ack", "list_peers"}) && strikes(plan_.duplicate)) {
    counters_.faults.add(Fault::kDuplicate);
    out.emplace_back(text);
  }
}

void Relay::down(std::uint32_t daemon, std::string_view text, std::vector<std::string>& out) {
  Line& line = lines_[daemon];
  if (is_type(text, "hello_ack")) remember(hellos_, line.hello);
  if (is_type(text, "ack")) {
    if (const auto id = member_of_frame(text, "messageId"); !id.empty()) remember(broker_ids_, id);
  }
  std::string made;
  if (plan_.legacy_broker && is_type(text, "receipt")) return;
  if (plan_.legacy_broker) text = made = as_legacy(text);
  if (is_type(text, "ack")) {
    remember(line.acks, text);
    // Who changes a send may keep its answer, too: then it is sent again, as it was.
    const bool lied = changed(line.key, std::string(member_of_frame(text, "id")));
    if (lied && !calm_ && rng_.chance(400)) {
      line.kept.emplace_back(text);
      return;
    }
    if (text.find("\"queued\":true") != std::string_view::npos) {
      remember(line.true_acks, text, kKeptLong);
    }
  }
  if (is_type(text, "push") && member_of_frame(text, "subtype") != "system") {
    if (line.open.size() > 8 * kKept) line.open.erase(line.open.begin());
    line.open[std::string(member_of_frame(text, "messageId"))] = text;
    if (!line.key.empty() && is_honest(member_of_frame(text, "senderPubkey")) &&
        strikes(plan_.tamper)) {
      text = made = tamper(member_of_frame(text, "senderPubkey"), text);
    }
  }
  out.emplace_back(text);
  if (!is_type(text, "error") && strikes(plan_.duplicate)) {
    counters_.faults.add(Fault::kDuplicate);
    out.emplace_back(text);
  }
  if (!line.key.empty() && !is_type(text, "error") && strikes(plan_.forged_ack)) {
    if (std::string forged = forged_ack(daemon); !forged.empty()) {
      counters_.faults.add(Fault::kForgedAck);
      out.push_back(std::move(forged));
    }
  }
}

void Relay::late(std::uint32_t daemon, std::vector<std::string>& to_broker,
                 std::vector<std::string>& to_daemon) {
  Line& line = lines_[daemon];
  if (strikes(plan_.late)) {
    const auto some = [&](const std::deque<std::string>& from, std::vector<std::string>& to) {
      for (const std::string& frame : from) {
        if (!rng_.chance(400)) continue;
        counters_.faults.add(Fault::kLateFrame);
        to.push_back(frame);
      }
    };
    some(line.sent, to_broker);
    some(line.acks, to_daemon);
    some(line.acknowledged, to_daemon);
  }
  for (std::string& frame : line.kept) to_daemon.push_back(std::move(frame));
  line.kept.clear();
  line.sent.clear();
  line.acks.clear();
  line.open.clear();
}

bool Relay::is_honest(std::string_view key) const {
  return std::any_of(lines_.begin(), lines_.end(),
                     [key](const auto& line) { return line.second.key == key; });
}

// One digit of one member is another one.
std::string Relay::tamper(std::string_view sender, std::string_view text) {
  std::string made(text);
  const bool may_both =
      plan_.may(Fault::kChangedCiphertext) && plan_.may(Fault::kMismatchedFingerprint);
  const bool fingerprint = may_both ? rng_.chance(400) : plan_.may(Fault::kMismatchedFingerprint);
  const std::string_view value =
      member_of_frame(made, fingerprint ? "request_fingerprint" : "ciphertext");
  const std::string id(member_of_frame(made, "client_message_id"));
  if (value.size() < 8 || id.empty()) return made;
  const std::size_t at = static_cast<std::size_t>(value.data() - made.data()) +
                         static_cast<std::size_t>(rng_.below(value.size() - 4));
  made[at] = made[at] == 'a' ? 'b' : 'a';
  changed_.insert({std::string(sender), id});
  counters_.faults.add(fingerprint ? Fault::kMismatchedFingerprint : Fault::kChangedCiphertext);
  journal_.line("relay changes %s of %s", fingerprint ? "the fingerprint" : "the ciphertext",
                id.c_str());
  return made;
}

std::string Relay::as_legacy(std::string_view text) {
  if (!is_one_of(text, {"ack", "push", "hello_ack"}) ||
      member_of_frame(text, "subtype") == "system") {
    return std::string(text);
  }
  arena_.reset();
  wire::JsonTape tape;
  CHECK(parser_.parse(text, arena_, tape));
  TextBuf out(arena_, text.size());
  wire::JsonWriter json(out);
  json.begin_object();
  for (std::uint32_t at = tape.first(tape.root()); at < tape.root().next; at = tape.at(at).next) {
    const wire::JsonNode& node = tape.at(at);
    const bool is_new = std::find(std::begin(kNewMembers), std::end(kNewMembers), node.key) !=
                        std::end(kNewMembers);
    if (is_new) continue;
    json.key(node.key).value(node);
  }
  json.end_object();
  return std::string(out.view());
}

// A second answer to a send that it saw, at any time: what was stored is repeated, or what may be
// stored is refused.
std::string Relay::forged_answer(Line& line) {
  if (!line.true_acks.empty() && rng_.chance(400)) {
    return line.true_acks[rng_.below(line.true_acks.size())];
  }
  // The newest, which may be under way, or any.
  const std::size_t back = rng_.below(rng_.chance(400) ? 1 : line.own_ids.size());
  const std::string& id = line.own_ids[line.own_ids.size() - 1 - back];
  constexpr std::string_view kRefusals[] = {"queue_full", "not_found", "idempotency_key_reused"};
  const std::size_t kind = rng_.below(std::size(kRefusals));
  const std::string code(kRefusals[kind]);
  if (kind != 0) slain_.insert({line.key, id});
  return R"({"type":"ack","id":")" + id + R"(","messageId":"","queued":false,"error":")" + code +
         R"(: forged","code":")" + code + "\"}";
}

// Or of a send that another daemon made, or that nobody made: this one must not believe it.
std::string Relay::forged_ack(std::uint32_t daemon) {
  Line& line = lines_[daemon];
  if (!line.own_ids.empty() && rng_.chance(600)) return forged_answer(line);
  std::string id = "id-never-sent";
  for (const auto& [who, sent] : sent_ids_) {
    if (who != daemon && rng_.chance(300)) id = sent;
  }
  constexpr std::string_view kRests[] = {
      R"("messageId":"01HZZZZZZZZZZZZZZZZZZZZZZZ","queued":true})",
      R"("messageId":"01HZZZZZZZZZZZZZZZZZZZZZZZ","queued":true,"duplicate":true})",
      R"("messageId":"","queued":false,"error":"forbidden: forged"})",
      R"("messageId":"","queued":false,"error":"forged","code":"idempotency_key_reused"})",
      R"("messageId":"","queued":false,"error":"queue_full: forged","code":"queue_full"})"};
  const std::string_view rest = kRests[rng_.below(std::size(kRests))];
  return R"({"type":"ack","id":")" + id + R"(",)" + std::string(rest);
}

}  // namespace cm::sim
