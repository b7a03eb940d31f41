// sender.cc — looks a name up among the peers, then among the senders of what was received.
#include "cli/sender.h"

#include <algorithm>
#include <vector>

#include "cli/output.h"
#include "cli/query.h"
#include "core/wire/fields.h"

namespace cm::cli {
namespace {

constexpr std::size_t kPrefixLeast = 16;
constexpr std::size_t kKeyDigits = 64;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

bool is_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// The keys in `list` of `reply` whose name or beginning is the wanted one, each once.
void collect(const Reply& reply, std::string_view list, std::string_view name_field,
             std::string_view key_field, const std::string& wanted,
             std::vector<std::string>& keys) {
  const wire::JsonNode* rows = array_of(reply, list);
  if (rows == nullptr) return;
  const bool by_key = wanted.size() >= kPrefixLeast && is_hex(wanted);
  each_of(reply, *rows, [&](const wire::JsonNode& row) {
    const std::string key(text_of(reply.tape, row, key_field));
    const bool named = lower(text_of(reply.tape, row, name_field)) == wanted;
    if (!wire::is_hex_key(key) || !(named || (by_key && key.starts_with(wanted)))) return;
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
  });
}

}  // namespace

Result<std::string> sender_key(std::string_view typed, std::string_view mesh) {
  const std::string wanted = lower(typed);
  if (wanted.size() == kKeyDigits && is_hex(wanted)) return wanted;
  if (wanted.empty()) {
    return fail(Err::kInvalidArgument, "--from: expected a name, or 16 or more digits of a key");
  }
  std::vector<std::string> keys;
  // Who is away may have written: both places are asked.
  const auto peers = daemon_call("GET", Target("/v1/peers").add("mesh", mesh).text());
  if (peers) collect(*peers, "peers", "displayName", "memberPubkey", wanted, keys);
  const auto inbox = daemon_call(
      "GET",
      Target("/v1/inbox").add("limit", "1000").add("mesh", mesh).add("mark_seen", "false").text());
  if (!inbox) return inbox.error();
  collect(*inbox, "items", "sender_name", "sender_pubkey", wanted, keys);
  if (keys.empty()) {
    return fail(Err::kNotFound, "--from: nobody online and no sender of a message is '" +
                                    harmless(typed.substr(0, 256)) + "'");
  }
  if (keys.size() == 1) return keys.front();
  std::string all;
  for (const std::string& key : keys) all += " " + key;
  return fail(Err::kPeerNameConflict,
              "--from: '" + harmless(typed.substr(0, 256)) + "' is borne by" + all);
}

}  // namespace cm::cli
