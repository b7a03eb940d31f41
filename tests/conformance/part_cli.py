"""part_cli.py — a command line of the reference's kind, written from the specification alone, on
our daemon's IPC: every route that it uses, with every status that is documented.

dora and emil are foreign clients with sessions (reference_client.mjs): a reference command line
looks for sessions, and sends to nothing else by name.
"""

import json
import os
import re
import signal
import uuid

from suite import Failed, Node, World, wait_until

ISO = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
ITEM = {"id", "client_message_id", "broker_message_id", "mesh", "topic", "sender_pubkey",
        "sender_name", "body", "received_at", "reply_to_id", "seen_at", "recipient_pubkey",
        "recipient_kind"}
ROW = {"id", "client_message_id", "status", "attempts", "enqueued_at", "next_attempt_at",
       "delivered_at", "broker_message_id", "last_error", "aborted_at", "aborted_by",
       "superseded_by", "payload_bytes"}
FEATURES = {"version", "health", "send", "inbox", "events", "peers", "profile", "skills", "state",
            "memory"}
EVENT = {"ts", "id", "mesh", "client_message_id", "broker_message_id", "sender_pubkey",
         "sender_member_pubkey", "sender_name", "topic", "reply_to_id", "priority", "body",
         "created_at"}
STRANGER = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"


class Scene:
    def __init__(self, part, world):
        self.part, self.world = part, world
        world.start_broker(limits=["rate_per_minute=0"])
        self.alice = world.member("alice")
        self.alice.json("create", "demo", "--broker", world.url, "--display-name", "alice")
        self.peers, self.session = {}, {}
        for name in ("dora", "emil"):
            home = world.root / name
            home.mkdir(mode=0o700)
            self.peers[name] = Node("reference_client.mjs", home)
            self.peers[name].call("join", invite=self.alice.json("share")["url"], name=name)
            self.session[name] = self.peers[name].call(
                "start", withSession=True, name=f"{name}-work", groups=[{"name": "team"}])["session"]
            self.peers[name].call("ready")
        self.own = self.alice.json("list")["meshes"][0]["pubkey"]
        self.cli = Node("reference_cli.mjs", self.alice.socket)

    def call(self, method, path, **more):
        """(status, body) of one call."""
        reply = self.cli.call("call", method=method, path=path, **more)
        return reply["status"], reply["body"]

    def wait_text(self, name, text):
        return wait_until(lambda: next((r for r in self.peers[name].call("inbox")
                                        if r["text"] == text), None), f"'{text}' arrives")

    def row(self, message_id):
        items = self.call("GET", "/v1/outbox?limit=500")[1]["items"]
        return next((r for r in items if r["client_message_id"] == message_id), None)

    def wait_row(self, message_id, status):
        return wait_until(lambda: (self.row(message_id) or {}).get("status") == status and
                          self.row(message_id), f"{message_id} is {status}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cli.__exit__()
        for peer in self.peers.values():
            peer.__exit__()


def probes(part, scene):
    part.equal("no socket: the probe says so", scene.cli.call("probe"), "absent")
    scene.alice.daemon.start()
    scene.alice.wait_connected()
    part.equal("the probe finds the daemon", scene.cli.call("probe"), "up")
    status, version = scene.call("GET", "/v1/version")
    part.check("version: the members of the reference", status == 200
               and {"daemon_version", "ipc_api", "ipc_features", "schema_version"} <= set(version)
               and version["ipc_api"] == "v1" and FEATURES <= set(version["ipc_features"]), version)
    part.decide("ipc_features without 'sessions'", "they come with the sessions issue")
    status, health = scene.call("GET", "/v1/health")
    part.check("health: ok, pid, brokers by slug", status == 200 and health["ok"] is True
               and health["pid"] == scene.alice.daemon.child.pid
               and health["brokers"] == {"demo": "open"}, health)


def gates(part, scene):
    for case, path, headers, wanted in (
            ("a token in the query", "/v1/version?token=x", {}, 400),
            ("a foreign Host", "/v1/version", {"host": "evil.example"}, 403),
            ("any Origin", "/v1/version", {"origin": "http://localhost"}, 403),
            ("Host 127.0.0.1 with a port", "/v1/version", {"host": "127.0.0.1:47823"}, 200),
            ("Host [::1] with a port", "/v1/version", {"host": "[::1]:47823"}, 200),
            ("Host in capitals", "/v1/version", {"host": "LocalHost"}, 200),
            ("an unknown route", "/v1/nothing", {}, 404),
            ("an unknown session's token", "/v1/peers",
             {"authorization": "ClaudeMesh-Session " + "ab" * 32}, 401),
            ("the same on version", "/v1/version",
             {"authorization": "ClaudeMesh-Session " + "ab" * 32}, 200)):
        reply = scene.cli.call("call", method="GET", path=path, headers=headers)
        part.equal(f"{case}: {wanted}", reply["status"], wanted)
        part.check(f"{case}: JSON with a Content-Length, no CORS",
                   reply["headers"]["content-type"].startswith("application/json")
                   and int(reply["headers"]["content-length"]) > 0 and reply["body"] is not None
                   and not any(h.startswith("access-control") for h in reply["headers"]),
                   reply["headers"])
    part.equal("a wrong method is not found", scene.call("PUT", "/v1/send", body={})[0], 404)
    texts = {"/v1/version?token=x": ({}, "token must be in Authorization header, not query string"),
             "/v1/health": ({"host": "evil.example"}, "forbidden host"),
             "/v1/peers": ({"origin": "null"}, "forbidden origin"), "/v1/none": ({}, "not found")}
    for path, (headers, text) in texts.items():
        part.equal(f"the words of '{text}'",
                   scene.call("GET", path, headers=headers)[1]["error"], text)
    part.decide("an unknown session's token is 401 session_unknown",
                "decisions.md; the reference takes it for no session")


def peers(part, scene):
    listed = scene.cli.call("peerList", mesh="demo", own=scene.own)
    part.equal("without --all the control plane is hidden", {r["displayName"] for r in listed},
               {"dora-work", "emil-work"})
    every = scene.cli.call("peerList", own=scene.own, all=True)
    part.check("--all has daemons too, and every row its mesh",
               {"alice", "dora", "emil"} <= {r["displayName"] for r in every}
               and all(r["mesh"] == "demo" for r in every), every)
    part.equal("isSelf is this member's alone",
               {r["displayName"] for r in every if r["isSelf"]}, {"alice"})
    status, body = scene.call("GET", "/v1/peers?mesh=nowhere")
    part.equal("a mesh that is not joined", (status, body["error"], body["mesh"]),
               (404, "mesh_not_attached", "nowhere"))


def sends(part, scene):
    cli = scene.cli
    for case, to in (("a name", "dora-work"), ("a name in capitals", "DORA-WORK"),
                     ("a session key", scene.session["dora"]),
                     ("16 digits of it", scene.session["dora"][:16]),
                     ("4 digits of it", scene.session["dora"][:4])):
        sent = cli.call("send", to=to, message=f"to {case}", meshes=["demo"])
        part.equal(f"send to {case}: 202, and the line of the reference",
                   (sent["status"], sent["exit"], sent.get("line", {}).get("status"),
                    sent.get("line", {}).get("duplicate")), (202, 0, "queued", False))
        part.equal(f"{case}: it opens at the session", scene.wait_text("dora", f"to {case}")["via"],
                   "session")
    for case, to in (("everybody", "*"), ("a group", "@team")):
        sent = cli.call("send", to=to, message=f"to {case}", mesh="demo", priority="now")
        part.equal(f"send to {case}", sent["status"], 202)
        for name in ("dora", "emil"):
            scene.wait_text(name, f"to {case}")
    made = scene.peers["dora"].call("request", accept=["topic_created"],
                                    frame={"type": "topic_create", "name": "plans"})["topic"]["id"]
    scene.peers["dora"].call("write", frame={"type": "topic_join", "topic": "plans"})
    for case, to in (("a topic's id", "#" + made), ("a topic's name", "#plans")):
        part.equal(f"send to {case}", cli.call("send", to=to, message=f"to {case}",
                                               mesh="demo")["status"], 202)
        scene.wait_text("dora", f"to {case}")
    part.decide("'#name' is a topic", "the reference takes it for a display name; a defect of it")
    part.equal("a name of nobody is not even posted", cli.call(
        "send", to="nobody", message="x", meshes=["demo"])["exit"], 1)
    for case, body, wanted in (
            ("an unknown name", {"to": "nobody", "message": "x"}, 404),
            ("an unknown prefix", {"to": "ab" * 10, "message": "x"}, 404),
            ("an unknown mesh", {"to": "*", "message": "x", "mesh": "nowhere"}, 404)):
        part.equal(f"POST {case}: {wanted}", scene.call("POST", "/v1/send", body=body)[0], wanted)
    part.decide("an unknown target is 404",
                "the reference answers 502 route_failed; a script can tell it from a broken link")


def bad_sends(part, scene):
    good = {"to": scene.session["dora"], "message": "x"}
    for case, body in (
            ("no 'to'", {"message": "x"}), ("a blank 'to'", {**good, "to": "  "}),
            ("no 'message'", {"to": "x"}), ("an empty 'message'", {**good, "message": ""}),
            ("'to' is a number", {**good, "to": 7}), ("priority", {**good, "priority": "soon"}),
            ("meta is an array", {**good, "meta": []}), ("meta is a text", {**good, "meta": "x"})):
        status, reply = scene.call("POST", "/v1/send", body=body)
        part.check(f"{case}: 400 and says why", status == 400 and reply["detail"], (status, reply))
    for case, raw in (("an array", "[]"), ("no JSON", "{"), ("nothing", ""),
                      ("a duplicate key", '{"to":"*","to":"*","message":"x"}')):
        part.equal(f"the body is {case}: 400", scene.call("POST", "/v1/send", raw=raw)[0], 400)
    part.decide("a send whose body is no JSON is 400", "the reference answers 500 internal")
    status, reply = scene.call("POST", "/v1/send", body={**good, "message": "x" * 1_040_000,
                                                         "client_message_id": "too-large"})
    part.check("what does not fit into a frame: 413", status == 413, (status, reply))
    part.equal("and its id is not consumed", scene.call(
        "POST", "/v1/send", body={**good, "message": "fits", "client_message_id": "too-large"})[0],
        202)


def idempotent(part, scene):
    cli, to = scene.cli, scene.session["dora"]
    minted = str(uuid.uuid4())
    for case, how in (("in the body", "id"), ("in the header", "key")):
        name = f"once {case}"
        given = minted if how == "id" else f"{minted}-header"
        first = cli.call("send", to=to, message=name, mesh="demo", **{how: given})
        part.equal(f"an id {case} is taken", first["line"]["messageId"], given)
        scene.wait_row(given, "done")
        again = cli.call("send", to=to, message=name, mesh="demo", **{how: given})
        part.check(f"{case}, again: 200 duplicate with the broker's id", again["status"] == 200
                   and again["reply"]["duplicate"] is True and again["reply"]["broker_message_id"],
                   again)
        other = cli.call("send", to=to, message="another text", mesh="demo", **{how: given})
        part.check(f"{case}, another request: 409 and the conflict", other["status"] == 409
                   and other["reply"]["error"] == "idempotency_key_reused"
                   and other["reply"]["conflict"] == "outbox_done_fingerprint_mismatch"
                   and re.match("^[0-9a-f]{16}$", other["reply"]["daemon_fingerprint_prefix"])
                   and other["reply"]["broker_message_id"] == again["reply"]["broker_message_id"],
                   other)
    part.equal("dora has it once", [r["text"] for r in scene.peers["dora"].call("inbox")]
               .count("once in the body"), 1)
    status, _ = scene.call("POST", "/v1/send", body={"to": to, "message": "x",
                                                     "client_message_id": "a"},
                           headers={"idempotency-key": "b"})
    part.equal("header and body differ: 400", status, 400)
    for field, value in (("priority", "now"), ("reply_to_id", "another"), ("meta", {"a": 1})):
        status, reply = scene.call("POST", "/v1/send", body={
            "to": to, "message": "once in the body", "mesh": "demo", "client_message_id": minted,
            field: value})
        part.equal(f"another {field} is another request", (status, reply.get("conflict")),
                   (409, "outbox_done_fingerprint_mismatch"))


def states_of_the_outbox(part, scene):
    """pending, inflight, dead, aborted: what a repeated id is answered in each."""
    to, cli = scene.session["dora"], scene.cli

    def twice(state, given, target, text):
        again = cli.call("send", to=target, message=text, mesh="demo", id=given)
        other = cli.call("send", to=target, message=text + "?", mesh="demo", id=given)
        part.equal(f"{state}: another request is 409", (other["status"], other["reply"]["conflict"],
                   "broker_message_id" in other["reply"]),
                   (409, f"outbox_{state}_fingerprint_mismatch", True))
        return again
    cli.call("send", to=STRANGER, message="to nobody", mesh="demo", id="dead-1")
    dead = scene.wait_row("dead-1", "dead")
    part.check("a send to an unknown key dies with its reason", dead["last_error"], dead)
    again = twice("dead", "dead-1", STRANGER, "to nobody")
    part.equal("dead: the same request is 409, with the reason", (again["status"],
               again["reply"]["conflict"], bool(again["reply"]["reason"])),
               (409, "outbox_dead_fingerprint_match", True))
    status, requeued = scene.call("POST", "/v1/outbox/requeue", body={"id": "dead-1"})
    part.check("requeue: 200 and both rows", status == 200 and requeued["aborted_row_id"] ==
               dead["id"] and {"new_row_id", "new_client_message_id"} <= set(requeued), requeued)
    row = scene.row("dead-1")
    part.equal("the old row is aborted, by the operator, and names the new one",
               (row["status"], row["aborted_by"], row["superseded_by"], bool(row["aborted_at"])),
               ("aborted", "operator", requeued["new_client_message_id"], True))
    again = twice("aborted", "dead-1", STRANGER, "to nobody")
    part.equal("aborted: the same request is 409", again["reply"]["conflict"],
               "outbox_aborted_fingerprint_match")
    for case, body, wanted in (("an aborted row", {"id": "dead-1"}, 409),
                               ("an unknown row", {"id": "nothing"}, 409), ("no id", {}, 400),
                               ("a used new id", {"id": requeued["new_client_message_id"],
                                                  "new_client_message_id": "dead-1"}, 409)):
        status, reply = scene.call("POST", "/v1/outbox/requeue", body=body)
        part.equal(f"requeue of {case}: {wanted}", status, wanted)
        if case == "an aborted row":
            part.equal("in the reference's words", reply["error"],
                       "row not found, already aborted, or already done")
    os.kill(scene.world.broker.child.pid, signal.SIGSTOP)
    try:
        cli.call("send", to=to, message="held", mesh="demo", id="held-1")
        scene.wait_row("held-1", "inflight")
        again = twice("inflight", "held-1", to, "held")
        part.equal("inflight: 202 inflight", (again["status"], again["reply"]["status"]),
                   (202, "inflight"))
    finally:
        os.kill(scene.world.broker.child.pid, signal.SIGCONT)
    scene.wait_text("dora", "held")
    scene.world.broker.kill()
    wait_until(lambda: not scene.alice.connected(), "the daemon has noticed")
    status, reply = scene.call("POST", "/v1/send", body={
        "to": to, "message": "waits", "mesh": "demo", "client_message_id": "waits-1"})
    part.equal("without a broker: 202 queued", (status, reply["status"]), (202, "queued"))
    for text, wanted in (("waits", (202, None)),
                         ("waits?", (409, "outbox_pending_fingerprint_mismatch"))):
        status, reply = scene.call("POST", "/v1/send", body={
            "to": to, "message": text, "mesh": "demo", "client_message_id": "waits-1"})
        part.equal(f"pending: '{text}'", (status, reply.get("conflict")), wanted)
    status, body = scene.call("GET", "/v1/state?mesh=demo")
    part.check("what only a broker knows is 503 meanwhile, with an error", status == 503
               and body["error"], (status, body))
    scene.world.broker.start()
    scene.alice.wait_connected()
    for peer in scene.peers.values():
        peer.call("ready")
    scene.wait_text("dora", "waits")
    status, listed = scene.call("GET", "/v1/outbox?status=done&limit=3")
    part.check("outbox: rows by status, newest first, with the reference's members", status == 200
               and len(listed["items"]) == 3 and all(ROW <= set(r) and r["status"] == "done"
               and ISO.match(r["delivered_at"]) for r in listed["items"])
               and [r["enqueued_at"] for r in listed["items"]]
               == sorted((r["enqueued_at"] for r in listed["items"]), reverse=True), listed)


def received(part, scene):
    cli, emil = scene.cli, scene.peers["emil"]
    for text in ("one", "two", "three"):
        emil.call("send", target=scene.own, text=text, via="session")
    wait_until(lambda: {"one", "two", "three"} <=
               {i["body"] for i in cli.call("inbox", seen=False)["items"]}, "the mail is here")
    listed = cli.call("inbox", limit=2, seen=False)
    part.equal("newest first, --limit, nothing marked", ([i["body"] for i in listed["items"]],
               listed["marked"]), (["three", "two"], 0))
    part.check("rows have the reference's members and times",
               all(ITEM <= set(i) and ISO.match(i["received_at"]) and i["seen_at"] is None
                   and i["recipient_kind"] == "member" for i in listed["items"]), listed)
    marked = scene.call("POST", "/v1/inbox/seen", body={"ids": [listed["items"][0]["id"], "none"]})
    part.equal("seen marks the rows that exist", marked, (200, {"marked_seen": 1}))
    for case, body in (("no ids", {}), ("ids of another type", {"ids": [7]}),
                       ("ids no list", {"ids": "x"})):
        part.equal(f"seen, {case}: 400", scene.call("POST", "/v1/inbox/seen", body=body)[0], 400)
    unread = cli.call("inbox", unread=True)
    part.equal("--unread lists the others and marks them", ([i["body"] for i in unread["items"]],
               unread["marked"]), (["two", "one"], 2))
    part.equal("then nothing is unread", cli.call("inbox", unread=True)["items"], [])
    part.check("seen_at is a time", ISO.match(cli.call("inbox")["items"][0]["seen_at"]))
    first = cli.call("inbox")["items"][0]["id"]
    part.equal("delete: {ok,id}", cli.call("inboxDelete", id=first)["line"],
               {"ok": True, "id": first})
    part.equal("again: not_found", cli.call("inboxDelete", id=first)["line"],
               {"ok": False, "error": "not_found"})
    part.equal("flush without a filter is not even asked",
               cli.call("inboxFlush")["line"]["error"], "missing_filter")
    part.equal("flush --before a time of old", cli.call(
        "inboxFlush", before="2020-01-01T00:00:00.000Z")["line"], {"ok": True, "removed": 0})
    part.equal("flush --mesh that is not joined", cli.call(
        "inboxFlush", mesh="nowhere")["status"], 404)
    part.equal("before that is no time removes nothing: 400",
               scene.call("DELETE", "/v1/inbox?before=yesterday")[0], 400)
    part.decide("an unreadable 'before' is 400", "the reference ignores it, and deletes everything")
    kept = len(cli.call("inbox", limit=1000)["items"])
    part.equal("flush --all, which names no filter: 200 and everything",
               cli.call("inboxFlush", all=True), {"exit": 0, "status": 200,
                                                  "line": {"ok": True, "removed": kept}})
    part.equal("the inbox is empty", cli.call("inbox")["items"], [])


def shared(part, scene):
    call = scene.call
    status, body = call("POST", "/v1/state", body={"key": "build", "value": {"n": 7}})
    part.equal("state set", (status, body["ok"], body["key"], body["mesh"]),
               (200, True, "build", "demo"))
    part.equal("state without a key: 400", call("POST", "/v1/state", body={"value": 1})[0], 400)
    status, body = call("GET", "/v1/state?key=build")
    part.equal("state get", (status, body["state"]["value"], body["state"]["updatedBy"],
               body["state"]["mesh"]), (200, {"n": 7}, "alice", "demo"))
    status, body = call("GET", "/v1/state?key=none")
    part.equal("state get of nothing", (status, body), (404, {"error": "state_not_found",
                                                              "key": "none"}))
    status, body = call("GET", "/v1/state")
    part.equal("state list", (status, [e["key"] for e in body["entries"]]), (200, ["build"]))
    status, stored = call("POST", "/v1/memory", body={"content": "the cat sat", "tags": ["pets"]})
    part.check("remember: id and mesh", status == 200 and stored["id"] and stored["mesh"] == "demo",
               stored)
    part.equal("remember without content: 400", call("POST", "/v1/memory", body={})[0], 400)
    status, body = call("GET", "/v1/memory?q=cat")
    part.equal("recall", (status, [(m["id"], m["content"], m["mesh"]) for m in body["matches"]]),
               (200, [(stored["id"], "the cat sat", "demo")]))
    status, body = call("DELETE", f"/v1/memory/{stored['id']}?mesh=demo")
    part.equal("forget", (status, body["ok"], body["id"], body["mesh"]),
               (200, True, stored["id"], "demo"))
    part.equal("forgotten", call("GET", "/v1/memory?q=cat")[1]["matches"], [])
    scene.peers["dora"].call("request", accept=["skill_ack"], frame={
        "type": "share_skill", "name": "deploy", "description": "how", "instructions": "do it",
        "tags": ["ops"]})
    status, body = call("GET", "/v1/skills?query=deploy")
    part.equal("skills", (status, [(s["name"], s["mesh"]) for s in body["skills"]]),
               (200, [("deploy", "demo")]))
    status, body = call("GET", "/v1/skills/deploy")
    part.equal("a skill", (status, body["skill"]["instructions"]), (200, "do it"))
    part.equal("our command line shows the same skill with its documented members",
               set(scene.alice.json("skill", "get", "deploy")),
               {"name", "description", "instructions", "tags", "author", "manifest", "createdAt",
                "mesh"})
    status, body = call("GET", "/v1/skills/none")
    part.equal("an unknown skill", (status, body), (404, {"error": "skill_not_found",
                                                          "name": "none"}))
    status, body = call("POST", "/v1/profile", body={"summary": "busy", "status": "working",
                                                     "visible": True, "title": "Keeper"})
    part.check("profile: what was applied, and where", status == 200 and body["ok"] is True
               and {"summary", "status", "visible", "title"} <= set(body["applied"])
               and body["meshes"] == ["demo"], body)

    def seen():
        rows = scene.cli.call("peerList", own=scene.own, all=True)
        return any(r["isSelf"] and (r["summary"], r["status"]) == ("busy", "working") for r in rows)
    part.check("others see it", wait_until(seen, "the list shows the profile"))
    for case, body, wanted in (("an unknown mesh", {"status": "idle", "mesh": "nowhere"}, 404),
                               ("an unknown status", {"status": "asleep"}, 400)):
        part.equal(f"profile, {case}: {wanted}", call("POST", "/v1/profile", body=body)[0], wanted)
    call("POST", "/v1/profile", body={"status": "idle"})


def events(part, scene):
    opened = scene.cli.call("openEvents")
    headers = opened["headers"]
    part.equal("events: 200 and the stream's headers", (opened["status"], headers["content-type"]
               .split(";")[0], headers["cache-control"], headers["x-accel-buffering"]),
               (200, "text/event-stream", "no-cache, no-transform", "no"))
    wait_until(lambda: scene.cli.call("events")["first"] is not None, "the first bytes")
    part.equal("first a comment", scene.cli.call("events")["first"], ": connected")
    scene.peers["emil"].call("send", target=scene.own, text="live", via="session")

    def live():
        return [e for e in scene.cli.call("events")["events"]
                if e["kind"] == "message" and e["data"]["body"] == "live"]
    event = wait_until(live, "the message is an event")[0]
    part.check("a message event has the reference's members", EVENT <= set(event["data"])
               and ISO.match(event["data"]["ts"]), event)
    part.equal("of whom, and to whom", (event["data"]["mesh"], event["data"]["sender_pubkey"],
               event["data"].get("recipient_kind")), ("demo", scene.session["emil"], "member"))
    scene.peers["emil"].call("send", target=scene.own, text="and again", via="session")
    wait_until(lambda: scene.cli.call("events")["events"][-1]["data"].get("body") == "and again",
               "the next one is")
    ids = [e["id"] for e in scene.cli.call("events")["events"]]
    part.check("ids only grow", ids == sorted(set(ids)), ids)
    scene.cli.call("closeEvents")


def to_oneself(part, scene):
    """Our own command line: --self reaches the other sessions of one's own member."""
    mesh = json.loads((scene.alice.home / ".claudemesh/config.json").read_text())["meshes"][0]
    keys = {}
    for name in ("desk", "train"):
        home = scene.world.root / name
        home.mkdir(mode=0o700)
        scene.peers[name] = Node("reference_client.mjs", home)
        scene.peers[name].call("adopt", pubkey=mesh["pubkey"], secret=mesh["secretKey"],
                               memberId=mesh["memberId"], meshId=mesh["meshId"],
                               url=mesh["brokerUrl"])
        keys[name] = scene.peers[name].call("start", withSession=True, name=f"alice-{name}",
                                            alone=True)["session"]
        scene.peers[name].call("ready")
    rows = scene.alice.json("peer", "list")
    part.equal("our command line hides daemons, and marks its member's sessions",
               {r["displayName"]: r["isSelf"] for r in rows if r["displayName"] != "emil-work"},
               {"alice-desk": True, "alice-train": True, "dora-work": False})
    refused = scene.alice.run("send", scene.own, "to me", "--json", check=False)
    part.equal("one's own key without --self is refused", (refused.returncode,
               json.loads(refused.stdout)["error"]), (3, "invalid_argument"))
    sent = scene.alice.json("send", scene.own[:20], "note to myself", "--self", "--id", "note")
    part.check("--self sends to each of them", sent["ok"] is True and sent["via"] == "daemon"
               and {r["pubkey"] for r in sent["fanout"]} == set(keys.values())
               and all(r["ok"] and r["messageId"] == "note-" + r["pubkey"][:8]
                       for r in sent["fanout"]), sent)
    for name in keys:
        row = scene.wait_text(name, "note to myself")
        part.equal(f"it arrives at {name}, sealed", (row["via"], row["sealed"]), ("session", True))


def two_meshes(part, scene):
    """Without a mesh, where one is needed."""
    scene.alice.json("create", "second", "--broker", scene.world.url, "--display-name", "alice")
    wait_until(lambda: scene.call("GET", "/v1/health")[1]["brokers"] ==
               {"demo": "open", "second": "open"}, "both meshes are served")
    for case, method, path, body in (
            ("send to everybody", "POST", "/v1/send", {"to": "*", "message": "x"}),
            ("state set", "POST", "/v1/state", {"key": "a", "value": 1}),
            ("remember", "POST", "/v1/memory", {"content": "x"})):
        status, reply = scene.call(method, path, body=body)
        part.equal(f"{case} without a mesh: 400 mesh_required", (status, reply["error"],
                   sorted(reply["attached"])), (400, "mesh_required", ["demo", "second"]))
    status, body = scene.call("GET", "/v1/state")
    part.equal("a list is of both", (status, [e["mesh"] for e in body["entries"]]),
               (200, ["demo"]))
    sent = scene.cli.call("send", to=scene.session["dora"], message="which mesh?",
                          meshes=["demo", "second"])
    part.equal("the command line finds the mesh of a session", sent["status"], 202)
    scene.wait_text("dora", "which mesh?")


def run(part):
    with World(part.build, durability="relaxed" if part.quick else "sync") as world, \
            Scene(part, world) as scene:
        for step in (probes, gates, peers, sends, bad_sends, idempotent, states_of_the_outbox,
                     received, shared, events, to_oneself, two_meshes):
            try:
                step(part, scene)
            except Failed as error:
                part.check(f"{step.__name__} runs to its end", False, str(error))
