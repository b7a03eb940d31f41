// send.cc — POST /v1/send: the accept table of design/delivery.md.
// Holds:  the look-up of the id comes before target resolution and encryption: a retry succeeds
//         when the peer is away by now. A row is written after every check has passed, and the
//         202 leaves after the commit that has it.
// Why:    accepted means durable (promise 1); an id names one request for good (promise 2).
// Source: docs/PROTOCOL.md §10.2.
// Not:    who a name is (resolve.cc), draining (drain.cc).
#include <algorithm>

#include "core/crypto/encoding.h"
#include "core/crypto/random.h"
#include "core/daemon/sending.h"
#include "core/wire/json_writer.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;

constexpr std::uint64_t kParkMs = 5'000;

// state x match: the answer to a request whose id already has a row. The table of
// design/delivery.md, "Outbox: states", in its order.
struct KnownAnswer {
  int status;
  std::string_view word;      // `status` of a 2xx
  std::string_view conflict;  // of a 409
};
constexpr KnownAnswer kKnownAnswers[static_cast<std::size_t>(OutboxStatus::kCount)][2] = {
    /* pending  */ {{202, "queued", ""}, {409, "", "outbox_pending_fingerprint_mismatch"}},
    /* inflight */ {{202, "inflight", ""}, {409, "", "outbox_inflight_fingerprint_mismatch"}},
    /* done     */ {{200, "done", ""}, {409, "", "outbox_done_fingerprint_mismatch"}},
    /* dead     */
    {{409, "", "outbox_dead_fingerprint_match"}, {409, "", "outbox_dead_fingerprint_mismatch"}},
    /* aborted  */
    {{409, "", "outbox_aborted_fingerprint_match"},
     {409, "", "outbox_aborted_fingerprint_mismatch"}},
};

}  // namespace

void Daemon::handle_send(ConnRef conn, const ParkedRequest& input, ParkedRef parked) {
  wire::SendRequest request;
  Outgoing out;
  Status done = wire::parse_send_request(
      parser_, input.body, input.idempotency_key, scratch(), request,
      input.is_post ? wire::SendForm::kTopicPost : wire::SendForm::kMessage);
  if (done) done = try_send(conn, request, parked, out);
  if (!done) {
    metrics_.add(Metric::kDaemonSendRefused);
    if (done.code() == Err::kTooBig) metrics_.add(Metric::kDaemonRefusedPayload);
    reply_error(conn, done.error());
  } else if (out.wait != Wait::kNo) {
    park(conn, out, input, parked);
  }
}

// Answers by itself, or sets `out.wait` when a list of the broker is needed first.
Status Daemon::try_send(ConnRef conn, const wire::SendRequest& request, ParkedRef parked,
                        Outgoing& out) {
  const auto fingerprint = crypto::request_fingerprint(
      {crypto::map_destination(request.to), request.reply_to, text_of(request.priority),
       request.meta_jcs, as_bytes(request.message)});
  if (!fingerprint) return fingerprint.error();
  out.fingerprint = *fingerprint;
  const auto mesh = choose_mesh(request.mesh);
  // A known id is answered even if its mesh can no longer be chosen.
  const auto answered = answer_known_id(conn, request, out.fingerprint, mesh ? *mesh : MeshRef{});
  if (!answered) return answered.error();
  if (*answered) return {};
  if (mesh) {
    out.mesh = *mesh;
  } else if (mesh.code() == Err::kMeshRequired) {
    bool told = false;
    const Status found = find_mesh(conn, request.to, parked, out, told);
    if (told) metrics_.add(Metric::kDaemonSendRefused);
    if (!found || told || out.wait != Wait::kNo) return found;
  } else {
    return mesh.error();
  }
  if (Status room = has_room(); !room) return room;
  if (Status found = resolve(request.to, parked, out); !found || out.wait != Wait::kNo) {
    return found;
  }
  if (out.encrypted) {
    if (out.target == config_of(out.mesh).key) {
      return fail(Err::kInvalidArgument, "field 'to': this is your own key");
    }
    out.target_text = crypto::view(crypto::hex_text(out.target));
  }
  UlidText minted{};
  std::string_view client_id = request.client_message_id;
  if (Status sealed = encrypt(request, out); !sealed) return sealed;
  if (client_id.empty()) {
    minted = ulid_text(ulids_.next(env_.wall_ms));
    client_id = view(minted);
  }
  if (Status fits = check_size(request, out, client_id, "message"); !fits) {
    if (fits.code() != Err::kBrokerAway || parked || !may_learn_terms(out.mesh)) return fits;
    out.wait = Wait::kTerms;
    return {};
  }
  insert_row(request, out, client_id);

  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("client_message_id", client_id).field("status", "queued");
  json.field("mesh", config_of(out.mesh).slug);
  append_target(out.mesh, out.target_text, json);
  if (!out.encrypted) json.field("encrypted", false);
  if (!request.meta_jcs.empty()) json.field("meta_delivered", false);
  json.end_object();
  reply(conn, 202, text.view());
  metrics_.add(Metric::kDaemonSendAccepted);
  return {};
}

Result<MeshRef> Daemon::choose_mesh(std::string_view wanted) {
  MeshRef found;
  tables_.meshes.each([&](MeshRef mesh) {
    const MeshConfig& config = config_of(mesh);
    if (wanted.empty() ? tables_.meshes.count() == 1
                       : config.slug == wanted || config.mesh_id == wanted) {
      found = mesh;
    }
  });
  if (found) return found;
  if (!wanted.empty()) return fail(Err::kMeshNotAttached, wanted);
  if (tables_.meshes.count() == 0) return Err::kNoMesh;
  std::string attached = "attached:";
  tables_.meshes.each([&](MeshRef mesh) { attached += " " + config_of(mesh).slug; });
  return fail(Err::kMeshRequired, attached);
}

Result<bool> Daemon::answer_known_id(ConnRef conn, const wire::SendRequest& request,
                                     const crypto::Hash32& fingerprint, MeshRef mesh) {
  if (request.client_message_id.empty()) return false;
  const store::Key key = store::text_key(request.client_message_id);
  if (!batch().get_raw(TableId::kOutboxId, key.bytes())) return false;
  // The id was written once: a damaged row must not give it to a second request (promise 2).
  KnownRow known;
  if (!read_known(request.client_message_id, known)) {
    return fail(Err::kCorrupt, "the outbox row of this client_message_id");
  }
  // The row binds (id, mesh, fingerprint); a request that names no mesh means the row's.
  const bool same_mesh = mesh ? config_of(mesh).mesh_id == known.mesh : request.mesh.empty();
  const bool same = same_mesh && crypto::equal_in_constant_time(fingerprint, known.fingerprint);
  outbox_next(known.state, same ? OutboxEvent::kSendSame : OutboxEvent::kSendOther);
  const KnownAnswer& answer =
      kKnownAnswers[static_cast<std::size_t>(status_of(known.answers_as))][same ? 0 : 1];
  if (answer.status == 409) {
    // What was damaged has lost its fingerprint; that it is lost is no secret of its sender.
    const bool dead = known.answers_as == OutboxState::kDead;
    const bool told = dead && (same || known.reason.starts_with(store::kCorruptReason));
    reply_conflict(conn, answer.conflict, fingerprint, known.broker_id,
                   told ? known.reason : std::string_view{});
    return true;
  }
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("client_message_id", request.client_message_id);
  json.field("status", answer.word);
  if (answer.status == 200) {
    json.field("broker_message_id", known.broker_id).field("duplicate", true);
  }
  // A tombstone has no target any more.
  if (!known.target.empty()) append_target(mesh_by_id(known.mesh), known.target, json);
  json.end_object();
  reply(conn, static_cast<std::uint32_t>(answer.status), text.view());
  metrics_.add(Metric::kDaemonSendDuplicate);
  return true;
}

// False: the index, the row or the tombstone is damaged.
bool Daemon::read_known(std::string_view client_id, KnownRow& known) {
  const auto found = find_outbox_id(client_id);
  if (!found) return false;
  if (found->is_tombstone) {
    store::TombstoneRow row;
    if (!tombstone_row(found->id, row)) return false;
    known.state = OutboxState::kTombstone;
    known.answers_as = outbox_state(row.fixed.status);
    known.fingerprint = row.fixed.request_fingerprint;
    known.mesh = row.text[store::kTombstoneMesh];
    known.broker_id = row.text[store::kTombstoneBrokerId];
    known.reason = row.text[store::kTombstoneReason];
    return true;
  }
  store::OutboxRow row;
  if (!outbox_row(found->id, row)) return false;
  known.state = known.answers_as = outbox_state(row.fixed.status);
  known.fingerprint = row.fixed.request_fingerprint;
  known.mesh = row.text[store::kOutboxMesh];
  known.target = row.text[store::kOutboxTarget];
  known.broker_id = row.text[store::kOutboxBrokerId];
  known.reason = row.text[store::kOutboxLastError];
  return true;
}

// Where the message goes, and of a single peer whether the list that is kept has it.
void Daemon::append_target(MeshRef mesh, std::string_view target, wire::JsonWriter& json) const {
  json.field("target", target);
  const auto key = crypto::public_key_parse(target);
  if (!key) return;
  json.key("recipient_online");
  if (!mesh || tables_.meshes.get<kMeshRoster>(mesh).state != RosterState::kLoaded) {
    json.null();
    return;
  }
  const std::vector<PeerRef>& peers = tables_.meshes.get<kMeshRoster>(mesh).peers;
  json.boolean(std::any_of(peers.begin(), peers.end(), [&](PeerRef peer) {
    return tables_.peers.get<kPeerMember>(peer) == *key ||
           tables_.peers.get<kPeerKey>(peer) == *key;
  }));
}

void Daemon::reply_conflict(ConnRef conn, std::string_view conflict,
                            const crypto::Hash32& fingerprint, std::string_view broker_id,
                            std::string_view reason) {
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("error", "idempotency_key_reused").field("conflict", conflict);
  json.key("daemon_fingerprint_prefix").hex(Bytes(fingerprint).first(8));
  json.nullable_field("broker_message_id", broker_id).optional_field("reason", reason);
  json.field("remedy", info_of(Err::kIdReused).remedy).end_object();
  reply(conn, 409, text.view());
  metrics_.add(Metric::kDaemonSendConflict);
}

Status Daemon::encrypt(const wire::SendRequest& request, Outgoing& out) {
  out.nonce = crypto::random_nonce(env_.rng);
  TextBuf sealed(scratch(), request.message.size() + crypto::kBoxTag);
  if (!out.encrypted) {
    sealed.append(request.message);  // spec/crypto.md §5
  } else if (Status done = boxes_.seal(config_of(out.mesh).secret, out.target, out.nonce,
                                       as_bytes(request.message), sealed);
             !done) {
    return fail(Err::kInvalidArgument, "field 'to': the key cannot be encrypted to");
  }
  TextBuf text(scratch(), sealed.size() * 4 / 3 + 4);
  crypto::base64_append(as_bytes(sealed.view()), text);
  out.ciphertext = text.view();
  TextBuf nonce(scratch(), 40);
  crypto::base64_append(out.nonce, nonce);
  out.nonce_text = nonce.view();
  return {};
}

// The connection is being made, or its broker is being asked.
bool Daemon::may_learn_terms(MeshRef mesh) const {
  const LinkRef link = link_of(mesh);
  return tables_.links.get<kLinkState>(link) != LinkState::kRefused &&
         (tables_.links.get<kLinkState>(link) != LinkState::kConnecting ||
          tables_.links.get<kLinkHoldUntil>(link) > env_.mono_ms);
}

// On the encoded frame, as the broker will count it (spec/decisions.md, "oversize").
Status Daemon::check_size(const wire::SendRequest& request, const Outgoing& out,
                          std::string_view client_id, std::string_view field) {
  wire::Send send;
  send.id = client_id;
  send.client_message_id = client_id;
  send.has_fingerprint = true;
  send.target = out.target_text;
  send.priority = request.priority;
  send.nonce = out.nonce_text;
  send.ciphertext = out.ciphertext;
  send.reply_to = request.reply_to;
  TextBuf frame(scratch(), out.ciphertext.size() + 512);
  wire::write_send(send, frame);
  const std::uint32_t most = payload_limit(out.mesh);
  if (frame.size() <= most) return {};
  if (!has_met(out.mesh)) {
    return fail(Err::kBrokerAway, "field '" + std::string(field) + "': the encoded message has " +
                                      std::to_string(frame.size()) +
                                      " bytes; until this broker was reached once, " +
                                      std::to_string(most) + " are taken; the id was not consumed");
  }
  return fail(Err::kTooBig, "field '" + std::string(field) + "': the encoded message has " +
                                std::to_string(frame.size()) + " bytes, the broker takes " +
                                std::to_string(most) + "; the id was not consumed");
}

void Daemon::insert_row(const wire::SendRequest& request, const Outgoing& out,
                        std::string_view client_id) {
  const MeshConfig& mesh = config_of(out.mesh);
  const Ulid id = ulids_.next(env_.wall_ms);
  const store::Key key = store::ulid_key(id);

  store::OutboxRow row;
  row.fixed.status = status_of(outbox_next(OutboxState::kNone, OutboxEvent::kSendSame).next);
  row.fixed.priority = static_cast<store::Priority>(request.priority);
  row.fixed.payload_bytes = static_cast<std::uint32_t>(request.message.size());
  row.fixed.enqueued_ms = env_.wall_ms;
  row.fixed.next_attempt_ms = env_.wall_ms;
  row.fixed.request_fingerprint = out.fingerprint;
  row.fixed.wire_fingerprint = crypto::wire_fingerprint(slab_, mesh.secret, out.fingerprint);
  row.text[store::kOutboxClientId] = client_id;
  row.text[store::kOutboxMesh] = mesh.mesh_id;
  row.text[store::kOutboxTarget] = out.target_text;
  batch().put(TableId::kOutbox, key.bytes(), row);

  store::OutboxBodyRow body;
  body.fixed.nonce = out.nonce;
  body.text[store::kBodyPayload] = request.message;
  body.text[store::kBodyCiphertext] = out.ciphertext;
  body.text[store::kBodyReplyTo] = request.reply_to;
  batch().put(TableId::kOutboxBody, key.bytes(), body);
  batch().put_index(TableId::kOutboxId, store::text_key(client_id).bytes(), id.bytes);
  if (out.bind_member) bind_name(out.mesh, out.bind_name, *out.bind_member);
  const bool added = add_work(id, row);
  CHECK(added);  // room was checked before anything was written
}

void Daemon::park(ConnRef conn, const Outgoing& out, const ParkedRequest& input, ParkedRef before) {
  // A request that waits a second time waits no longer than the first.
  const std::uint64_t deadline =
      before ? tables_.parked.get<kParkedDeadline>(before) : env_.mono_ms + kParkMs;
  if (!before && too_busy(conn)) return;
  const ParkedRef parked = tables_.parked.insert();
  if (!parked) {
    return reply_error(conn, fail(Err::kBusy, "too many sends wait for the peer list"), 1);
  }
  std::uint64_t serial = 0;
  if (out.wait == Wait::kTopics) {
    const Topics& topics = tables_.meshes.get<kMeshTopics>(out.mesh);
    if (!topics_are_coming(out.mesh)) ask_topics(out.mesh);
    serial = topics.asked_serial != 0 ? topics.asked_serial : request_serial_ + 1;
  } else if (out.wait == Wait::kTerms) {
    // Asked with the connection.
  } else if (out.wait == Wait::kRoster) {
    Roster& roster = tables_.meshes.get<kMeshRoster>(out.mesh);
    if (roster.asked_serial == 0) ask_roster(out.mesh);
    // Without a connection no request is on its way: the first list of the next one will do.
    serial = roster.asked_serial != 0 ? roster.asked_serial : roster_serial_ + 1;
  } else if (out.wait == Wait::kAllTopics) {
    serial = request_serial_ + 1;
    tables_.meshes.each([&](MeshRef mesh) {
      const bool loaded = tables_.meshes.get<kMeshTopics>(mesh).loaded;
      if (!loaded && !topics_are_coming(mesh)) ask_topics(mesh);
    });
  } else {
    serial = roster_serial_ + 1;
    tables_.meshes.each([&](MeshRef mesh) {
      const Roster& roster = tables_.meshes.get<kMeshRoster>(mesh);
      if (roster.asked_serial == 0) ask_roster(mesh);
      if (roster.asked_serial != 0) serial = std::min(serial, roster.asked_serial);
    });
  }
  tables_.parked.get<kParkedConn>(parked) = conn;
  tables_.parked.get<kParkedMesh>(parked) = out.mesh;
  tables_.parked.get<kParkedDeadline>(parked) = deadline;
  tables_.parked.get<kParkedRequest>(parked) = input;
  tables_.parked.get<kParkedSerial>(parked) = serial;
  tables_.parked.get<kParkedFor>(parked) = out.wait;
  parked_check_ms_ = std::min(parked_check_ms_, deadline);
}

// Is the list here that it waits for?
bool Daemon::parked_is_ready(ParkedRef parked) const {
  const MeshRef mesh = tables_.parked.get<kParkedMesh>(parked);
  const std::uint64_t serial = tables_.parked.get<kParkedSerial>(parked);
  const auto listed = [&](MeshRef each) {
    const Roster& roster = tables_.meshes.get<kMeshRoster>(each);
    return roster.state == RosterState::kLoaded && roster.loaded_serial >= serial;
  };
  switch (tables_.parked.get<kParkedFor>(parked)) {
    case Wait::kNo: return true;
    case Wait::kTerms: return has_met(mesh);
    case Wait::kRoster: return listed(mesh);
    case Wait::kTopics: {
      const Topics& topics = tables_.meshes.get<kMeshTopics>(mesh);
      return topics.loaded && topics.loaded_serial >= serial;
    }
    case Wait::kAllRosters: {
      bool all = true;
      tables_.meshes.each([&](MeshRef each) { all = all && (!can_answer(each) || listed(each)); });
      return all;
    }
    case Wait::kAllTopics: {
      bool all = true;
      tables_.meshes.each([&](MeshRef each) {
        all = all && (!can_answer(each) || tables_.meshes.get<kMeshTopics>(each).loaded);
      });
      return all;
    }
  }
  return true;
}

// Handles again what a fresh list, or the end of its patience, can decide.
void Daemon::wake_parked() {
  parked_check_ms_ = UINT64_MAX;
  std::vector<ParkedRef> ready;
  tables_.parked.each([&](ParkedRef parked) {
    const std::uint64_t deadline = tables_.parked.get<kParkedDeadline>(parked);
    if (deadline <= env_.mono_ms || parked_is_ready(parked)) {
      ready.push_back(parked);
    } else {
      parked_check_ms_ = std::min(parked_check_ms_, deadline);
    }
  });
  for (const ParkedRef parked : ready) {
    const ConnRef conn = tables_.parked.get<kParkedConn>(parked);
    const ParkedRequest request = tables_.parked.get<kParkedRequest>(parked);
    note_answered(conn);
    handle_send(conn, request, parked);
    tables_.parked.erase(parked);
  }
}

}  // namespace cm::daemon
