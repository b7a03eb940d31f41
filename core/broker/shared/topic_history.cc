// topic_history.cc — what was posted to a topic, newest first.
// Holds:  a page has at most `limit` posts and kPageBytes; `beforeId` continues it.
// Source: docs/PROTOCOL.md §6; spec/wire.md §7.3 (topic_history).
// Not:    posting (accept.cc), membership (topics.cc).
#include "core/broker/broker.h"
#include "core/crypto/encoding.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr std::int64_t kPageDefault = 50;
constexpr std::int64_t kPageMax = 200;
constexpr std::size_t kPageBytes = 900 << 10;  // a reply fits into a peer's frame limit

}  // namespace

void Broker::handle_topic_history(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::int64_t limit =
      fields.integer("limit", 1, kPageMax, wire::Need::kOptional, kPageDefault);
  const std::string_view before = fields.broker_id("beforeId", wire::Need::kOptional);
  const auto before_id = before.empty() ? std::nullopt : ulid_parse(before);
  if (fields.ok() && !before.empty() && !before_id) {
    fields.refuse("beforeId", "the id of a post");
  }
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  TopicFacts topic;
  if (!topic_of_frame(client, frame, topic)) return;
  TextBuf text(scratch(), 4096);
  wire::JsonWriter json(text);
  json.begin_object().field("type", "topic_history_response");
  json.key("topic").value(*frame.tape.find("topic")).key("messages").begin_array();
  store::Cursor cursor(batch(), TableId::kTopicPost);
  const store::Key from =
      before_id ? store::topic_post_key(topic.no, *before_id) : store::u32_key(topic.no + 1);
  std::int64_t count = 0;
  for (bool more = cursor.seek_before(from.bytes()); more && count < limit;
       more = cursor.previous()) {
    constexpr std::size_t kKeyBytes = 4 + 16;
    if (cursor.key().size() != kKeyBytes || load_be32(cursor.key().data()) != topic.no) break;
    Ulid id;
    CHECK(store::parse_ulid_key(cursor.key().subspan(4), id));
    store::TopicPostRow post;
    store::MessageRow row;
    if (!cursor.row(post) || !batch().get(TableId::kMessage, store::ulid_key(id).bytes(), row)) {
      continue;
    }
    if (count > 0 && text.size() + row.text[store::kMessageCiphertext].size() > kPageBytes) break;
    TextBuf entry(scratch(), 512);
    write_post(id, post, row, entry);
    json.raw(entry.view());
    ++count;
  }
  json.end_array();
  finish_reply(client, frame, json, text);
}

void Broker::write_post(const Ulid& id, const store::TopicPostRow& post,
                        const store::MessageRow& row, TextBuf& out) {
  const UlidText id_text = ulid_text(id);
  wire::JsonWriter json(out);
  json.begin_object().field("id", view(id_text));
  json.key("senderPubkey").hex(row.fixed.sender_key);
  if (const MemberMirror* sender = member(row.fixed.sender_member_no); sender != nullptr) {
    json.field("senderMemberId", sender->id).field("senderName", sender->name);
  }
  json.field("nonce", row.text[store::kMessageNonce]);
  json.field("ciphertext", row.text[store::kMessageCiphertext]);
  json.field("bodyVersion", post.fixed.body_version);
  json.optional_field("replyToId", row.text[store::kMessageReplyTo]);
  json.key("createdAt").iso_time(row.fixed.created_ms).end_object();
}

}  // namespace cm::broker
