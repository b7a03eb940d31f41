"""part_clients.py — JavaScript clients, written from the specification alone, on our broker.

Two of them and one of our daemons exchange every kind of message; then the broker is killed while
all of them send. Source: spec/observed.md for what a reference client sends and waits for.
"""

import re
import signal
import socket

from suite import Failed, Node, World, wait_until

ISO = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
ID = re.compile(r"^[0-9A-Za-z]{32}$")
MESSAGE_ID = re.compile(r"^[0-9A-Za-z]{8,32}$")
HELLO_ACK = ["type", "presenceId", "memberDisplayName", "memberProfile", "meshPolicy"]
REPLIES = ("ack", "error")  # what a client might take for the answer to something else
PUSH = {"type", "messageId", "meshId", "senderPubkey", "senderMemberPubkey", "senderMemberId",
        "senderName", "priority", "nonce", "ciphertext", "createdAt", "client_message_id",
        "request_fingerprint"}
PEER = {"pubkey", "memberPubkey", "displayName", "status", "summary", "groups", "sessionId",
        "connectedAt", "cwd", "peerRole", "hostname", "visible"}


def texts(peer):
    return [row["text"] for row in peer.call("inbox")]


def wait_text(peer, text):
    """The inbox row of a foreign peer."""
    return wait_until(lambda: next((r for r in peer.call("inbox") if r["text"] == text), None),
                      f"'{text[:40]}' arrives")


def wait_item(member, good, what="a message"):
    return wait_until(lambda: next((i for i in member.inbox() if good(i)), None),
                      f"{member.name} receives {what}")


def wait_body(member, body):
    return wait_item(member, lambda item: item["body"] == body, f"'{body[:40]}'")


class Scene:
    """alice (our daemon, who made the mesh), dora and emil (foreign clients with a session)."""

    def __init__(self, part, world):
        self.part, self.world = part, world
        world.start_broker(limits=["rate_per_minute=0"])
        self.alice = world.member("alice")
        self.alice.json("create", "demo", "--broker", world.url, "--display-name", "alice")
        self.alice.daemon.start()
        self.alice.wait_connected()
        self.alice_key = self.alice.json("list")["meshes"][0]["pubkey"]
        self.peers, self.joined, self.session = {}, {}, {}
        for name in ("dora", "emil"):
            home = world.root / name
            home.mkdir(mode=0o700)
            self.peers[name] = Node("reference_client.mjs", home)
            invite = self.alice.json("share")["url"]
            self.joined[name] = self.peers[name].call("join", invite=invite, name=name)
        self.dora, self.emil = self.peers["dora"], self.peers["emil"]

    def key(self, name):
        return self.joined[name]["pubkey"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for peer in self.peers.values():
            peer.__exit__()


def joins_and_hellos(part, scene):
    for name, joined in scene.joined.items():
        part.equal(f"POST /join of {name} answers 200", joined["status"], 200)
        part.check(f"the reply to {name} is ok and has memberId",
                   joined["body"]["ok"] is True and ID.match(joined["body"]["memberId"]))
    scene.session["dora"] = scene.dora.call("start", withSession=True, name="dora-work",
                                            groups=[{"name": "team"}])["session"]
    scene.session["emil"] = scene.emil.call("start", withSession=True, name="emil-work",
                                            groups=[{"name": "team", "role": "lead"}])["session"]
    for name, peer in scene.peers.items():
        peer.call("ready")
        status = peer.call("status")
        ack = status["member"]["helloAck"]
        wanted = [k for k in HELLO_ACK if k in ack]
        part.equal(f"hello_ack of {name}: the reference's members, in its order",
                   list(ack)[:len(wanted)], wanted)
        part.check(f"hello_ack of {name}: ids, profile, services",
                   ID.match(ack["presenceId"]) and ack["memberDisplayName"] == name
                   and {"roleTag", "groups", "messageMode"} <= set(ack["memberProfile"])
                   and isinstance(ack["services"], list), ack)
        session = status["session"]["helloAck"]
        part.check(f"hello_ack of {name}'s session: its name, no services",
                   session["memberDisplayName"] == f"{name}-work" and "services" not in session,
                   session)
        part.equal(f"{name}: permessage-deflate was offered and not accepted",
                   (status["member"]["extensions"], status["session"]["extensions"]), ("", ""))
        wait_until(lambda: peer.call("status")["member"]["pongs"] > 0, "a pong")
        part.check(f"{name}: an empty ping is answered", True)


def direct_messages(part, scene):
    dora, emil, alice = scene.dora, scene.emil, scene.alice
    ack = dora.call("send", target=scene.key("emil"), text="grüße, emil ☂")
    part.check("a direct message is acked with an id of 8 to 32 letters and digits",
               MESSAGE_ID.match(ack["messageId"]) and ack["state"] == "done", ack)
    part.decide("message ids are 26 characters",
                "ULIDs (ARCHITECTURE.md); clients take 8 to 32 letters and digits as an id")
    row = wait_text(emil, "grüße, emil ☂")
    part.check("crypto_box of another implementation opens", row["sealed"])
    part.check("a push has every member that old and new receivers look for",
               PUSH <= set(row["push"]), sorted(PUSH - set(row["push"])))
    part.check("createdAt has milliseconds", ISO.match(row["push"]["createdAt"]))
    part.equal("a direct push names its sender", (row["push"]["senderName"],
               row["push"]["senderPubkey"]), ("dora", scene.key("dora")))
    dora.call("send", target=scene.session["emil"], text="to the session", via="session")
    row = wait_text(emil, "to the session")
    part.equal("session to session: sender is the session key, on the session's socket",
               (row["push"]["senderPubkey"], row["via"], row["sealed"]),
               (scene.session["dora"], "session", True))
    dora.call("send", target=scene.alice_key, text="to the daemon")
    item = wait_body(alice, "to the daemon")
    part.equal("our daemon opens it and names the sender", (item["sender_pubkey"],
               item["sender_name"]), (scene.key("dora"), "dora"))
    alice.run("send", "emil", "from the daemon, by name")
    part.check("our CLI sends to a foreign client by name",
               wait_text(emil, "from the daemon, by name")["sealed"])
    alice.send(scene.session["dora"], "from the daemon, by session key")
    part.equal("our daemon sends to a foreign session",
               wait_text(dora, "from the daemon, by session key")["via"], "session")
    for size in (0, 1, 40_000):
        text = "x" * size
        if size:
            dora.call("send", target=scene.key("emil"), text=text)
            part.check(f"{size} bytes arrive", wait_text(emil, text)["sealed"])


def dedupe_and_refusals(part, scene):
    dora, emil = scene.dora, scene.emil
    first = dora.call("send", target=scene.key("emil"), text="only once", id="once-1")
    wait_text(emil, "only once")
    again = dora.call("resend", id="once-1")
    part.equal("the same id again: the same messageId, duplicate:true, no error",
               (again["messageId"], again["duplicate"], again["queued"], "error" in again),
               (first["messageId"], True, True, False))
    other = dora.call("send", target=scene.key("emil"), text="another text", id="once-1")
    part.check("the same id, another fingerprint: refused so that old clients stop",
               other["state"] == "dead" and "invalid" in other["error"], other)
    for case, target in (("an unknown key", "ab" * 32), ("an unknown topic", "#nowhere")):
        refused = dora.call("send", target=target, text="nobody")
        part.equal(f"{case}: one ack, messageId empty, permanent for old clients",
                   (refused["state"], refused["messageId"]), ("dead", ""))
    part.equal("emil holds it once", texts(emil).count("only once"), 1)
    part.equal("emil saw no second push", emil.call("duplicates"), 0)


def multicast(part, scene):
    dora, emil, alice = scene.dora, scene.emil, scene.alice
    dora.call("send", target="*", text="to everybody")
    part.check("a broadcast reaches a foreign client", wait_text(emil, "to everybody"))
    item = wait_item(alice, lambda i: i["sender_pubkey"] == scene.key("dora")
                     and i["body"] != "to the daemon")
    part.equal("a broadcast reaches our daemon", item["body"], "to everybody")
    part.check("it does not come back to its sender", "to everybody" not in texts(dora))
    dora.call("send", target="@team", text="to the team")
    row = wait_text(emil, "to the team")
    part.equal("a group of session_hello.groups is reached on the session's socket", row["via"],
               "session")
    dora.call("write", frame={"type": "join_group", "name": "night", "role": "lead"})
    emil.call("write", frame={"type": "join_group", "name": "night"})
    joined = lambda: any("night" in [g["name"] for g in p["groups"]]
                         for p in emil.call("request", frame={"type": "list_peers"},
                                            accept=["peers_list"])["peers"]
                         if p["pubkey"] == scene.key("emil"))
    wait_until(joined, "join_group is seen in peers_list")
    dora.call("send", target="@night", text="to the night")
    part.check("a group of join_group is reached", wait_text(emil, "to the night"))
    for case, target, text, receivers in (
            ("a group", "@team", "from alice to the team", (dora, emil)),
            ("everybody", "*", "from alice to all", (dora, emil))):
        sent = alice.run("send", target, text, check=False)
        part.check(f"our CLI sends to {case} of foreign clients", sent.returncode == 0
                   and all(wait_text(peer, text) for peer in receivers), sent.stderr)


def topics(part, scene):
    dora, emil = scene.dora, scene.emil
    made = dora.call("request", frame={"type": "topic_create", "name": "plans"},
                     accept=["topic_created"])
    part.check("topic_create answers topic_created", ID.match(made["topic"]["id"])
               and made["created"] is True, made)
    mark = emil.call("mark")
    emil.call("write", frame={"type": "topic_join", "topic": "plans"})
    members = emil.call("request", frame={"type": "topic_members", "topic": made["topic"]["id"]},
                        accept=["topic_members_response"])
    part.equal("topic_join subscribes, and has no reply",
               (sorted(m["displayName"] for m in members["members"]),
                [f for f in emil.call("frames", **{"from": mark}) if f["type"] in REPLIES]),
               (["dora", "emil"], []))
    dora.call("send", target="#" + made["topic"]["id"], text="a post")
    row = wait_text(emil, "a post")
    part.check("a post is pushed live with its topic", row["push"].get("topic"), row["push"])
    history = emil.call("request", frame={"type": "topic_history", "topic": "plans"},
                        accept=["topic_history_response"])
    part.equal("topic_history has it, with its sender", [m["senderName"]
               for m in history["messages"]], ["dora"])
    error = emil.call("request", frame={"type": "topic_members", "topic": "nothing"},
                      accept=["error"])
    part.equal("topic errors carry the request id in id and in _reqId",
               (error["code"], error["id"]), ("topic_not_found", error["_reqId"]))
    listed = dora.call("request", frame={"type": "topic_list"}, accept=["topic_list_response"])
    part.check("topic_list_response", "plans" in [t["name"] for t in listed["topics"]])


def shared_data(part, scene):
    """Both variants of observed.md's table: the daemon's and the cold CLI's."""
    dora, emil = scene.dora, scene.emil
    mark = emil.call("mark")
    dora.call("write", frame={"type": "set_state", "key": "release", "value": {"no": 7}})
    wait_until(lambda: any(f["type"] == "state_change"
                           for f in emil.call("frames", **{"from": mark})), "state_change")
    part.check("state_change reaches others", True)
    cold = emil.call("request", frame={"type": "get_state", "key": "release"},
                     accept=["state_result"])
    part.equal("state_result for the cold CLI", (cold["key"], cold["value"], cold["updatedBy"]),
               ("release", {"no": 7}, "dora"))
    daemon = emil.call("request", frame={"type": "get_state", "key": "release"},
                       accept=["state_value", "state_data"])
    part.equal("state_value with .state for the daemon", daemon["state"]["value"], {"no": 7})
    missing = emil.call("request", frame={"type": "get_state", "key": "none"},
                        accept=["state_result"])
    part.equal("a missing key is null", (missing["value"], missing["updatedBy"]), (None, ""))
    listed = emil.call("request", frame={"type": "list_state"}, accept=["state_list"])
    part.equal("state_list", [e["key"] for e in listed["entries"]], ["release"])
    stored = dora.call("request", frame={"type": "remember", "content": "the cat sat on mats",
                                         "tags": ["pets"]}, accept=["memory_stored"])
    part.check("memory_stored has id and memoryId", ID.match(stored["id"])
               and stored["memoryId"] == stored["id"], stored)
    cold = emil.call("request", frame={"type": "recall", "query": "cat"},
                     accept=["memory_results"])
    part.equal("memory_results for the cold CLI", [m["content"] for m in cold["memories"]],
               ["the cat sat on mats"])
    daemon = emil.call("request", frame={"type": "recall", "query": "cat"},
                       accept=["memory_recall_result"])
    part.equal("memory_recall_result for the daemon", [m["id"] for m in daemon["matches"]],
               [stored["id"]])
    forgot = dora.call("request", frame={"type": "forget", "memoryId": stored["id"]},
                       accept=["ack"])
    part.equal("forget is acked with queued:false and no error",
               (forgot["queued"], forgot.get("error")), (False, None))
    again = dora.call("request", frame={"type": "forget", "memoryId": stored["id"]},
                      accept=["ack"])
    part.equal("forgetting it again is acked too, and says why not",
               (again["queued"], again.get("code")), (False, "not_found"))


def presence(part, scene):
    dora = scene.dora
    listed = dora.call("request", frame={"type": "list_peers"}, accept=["peers_list"])["peers"]
    roles = {(p["displayName"], p["peerRole"]) for p in listed}
    part.check("peers_list has members and sessions", {("dora", "control-plane"),
               ("dora-work", "session"), ("emil-work", "session"), ("alice", "control-plane")}
               <= roles, roles)
    foreign = [p for p in listed if p["displayName"] != "alice"]
    part.check("its rows have every member of the reference",
               all(PEER <= set(p) for p in foreign), [sorted(PEER - set(p)) for p in foreign])
    part.check("connectedAt has milliseconds", all(ISO.match(p["connectedAt"]) for p in listed))
    sent = dora.call("send", target=scene.key("emil"), text="where is it?")
    wait_text(scene.emil, "where is it?")

    def delivered():
        reply = dora.call("request", frame={"type": "message_status",
                                            "messageId": sent["messageId"][:12]},
                          accept=["message_status_result"])
        return reply if reply["delivered"] else None
    reply = wait_until(delivered, "message_status says delivered")
    part.equal("message_status by prefix echoes it and names the recipient",
               (reply["messageId"], reply["recipients"][0]["status"],
                bool(ISO.match(reply["deliveredAt"]))),
               (sent["messageId"][:12], "delivered", True))
    error = dora.call("request", frame={"type": "message_status", "messageId": "short"},
                      accept=["error"])
    part.equal("message_status of too short a prefix", error["code"], "invalid_argument")
    error = dora.call("request", frame={"type": "message_status", "messageId": "Z" * 32},
                      accept=["error"])
    part.equal("message_status of an unknown id", error["code"], "not_found")


def silences_and_errors(part, scene):
    dora = scene.dora
    mark = dora.call("mark")
    silent = [{"type": "set_state", "key": "quiet", "value": None},
              {"type": "set_status", "status": "working"}, {"type": "set_status", "status": "idle"},
              {"type": "set_summary", "summary": "testing"},
              {"type": "set_stats", "stats": {"messagesIn": 1, "uptime": 5}},
              {"type": "join_group", "name": "brief"}, {"type": "leave_group", "name": "brief"},
              {"type": "topic_join", "topic": "plans"},
              {"type": "topic_mark_read", "topic": "plans"},
              {"type": "client_ack", "clientMessageId": "nothing", "brokerMessageId": "nothing"}]
    for frame in silent:
        dora.call("write", frame=frame)
    dora.call("request", frame={"type": "list_peers"}, accept=["peers_list"])
    answered = [f for f in dora.call("frames", **{"from": mark}) if f["type"] in REPLIES]
    part.equal("what the reference never answers has no answer", answered, [])
    mark = dora.call("mark")
    for number, frame in enumerate(silent[:-1]):
        dora.call("request", frame={**frame, "_reqId": f"quiet-{number}"}, accept=["ack"])
    acks = [f for f in dora.call("frames", **{"from": mark}) if f["type"] in REPLIES]
    part.check("with a _reqId they are acked under it, queued:false and without an error",
               all(a["type"] == "ack" and a["queued"] is False and "error" not in a
                   and a["id"] == a["_reqId"] for a in acks), acks)
    part.decide("requests without a reply, when they carry a _reqId, get an ack",
                "additive: existing clients match acks by id and ignore unknown ones")
    error = dora.call("request", frame={"type": "no_such_type"}, accept=["error"])
    part.equal("an unknown type", error["code"], "unknown_message_type")
    mark = dora.call("mark")
    dora.call("write", frame={"type": "list_peers", "_reqId": "binary-1"}, binary=True)
    wait_until(lambda: any(f.get("_reqId") == "binary-1"
                           for f in dora.call("frames", **{"from": mark})), "a reply")
    part.check("a binary frame that holds JSON is taken", True)
    for case, ack in (("set_visible", {"type": "set_visible", "visible": True}),
                      ("set_profile", {"type": "set_profile", "title": "tester"})):
        reply = dora.call("request", frame=ack, accept=["ack"])
        part.equal(f"{case} is acked with queued:false, no error, its id",
                   (reply["queued"], reply.get("error"), reply["id"] == reply["_reqId"],
                    reply["messageId"]), (False, None, True, ""))


def upgrade_paths(part, world):
    def status_of(target):
        with socket.create_connection(("127.0.0.1", world.broker.started["port"]), 30) as raw:
            raw.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\r\n".encode())
            return raw.recv(4096).split(b"\r\n")[0]
    part.check("/ws is upgraded", b" 101 " in status_of("/ws"))
    for target in ("/ws?x=1", "/ws/", "/", "/WS"):
        part.check(f"{target} is not", b" 101 " not in status_of(target))


def replacement(part, scene):
    closed = scene.emil.call("takeOver")
    part.equal("a second socket of a session: the older one is closed 1000 session_replaced",
               (closed["code"], closed["reason"]), (1000, "session_replaced"))
    scene.dora.call("send", target=scene.session["emil"], text="after the change")
    part.check("the newer socket receives", wait_text(scene.emil, "after the change"))


def restarts(part, scene, rounds=3, messages=100):
    """SIGKILL while everybody sends to everybody; then nothing is lost and nothing is twice."""
    dora, emil, alice = scene.dora, scene.emil, scene.alice
    wanted = {"dora": [], "emil": [], "alice": []}
    rounds_ids = set()
    for number in range(rounds):
        for index in range(messages):
            tag = f"r{number}-{index}"
            for name, target, peer in (("emil", scene.key("emil"), dora),
                                       ("dora", scene.key("dora"), emil),
                                       ("alice", scene.alice_key, dora)):
                text = f"{tag} to {name}"
                sent = peer.call("send", target=target, text=text, wait=False)
                rounds_ids.add(sent["id"])
                wanted[name].append(text)
            if index % 4 == 0:
                text = f"{tag} alice to emil"
                alice.send(scene.key("emil"), text)
                wanted["emil"].append(text)
            if index == messages // 2:
                scene.world.broker.kill()
                scene.world.broker.start()
        for peer in (dora, emil):
            peer.call("ready")
    alice.wait_connected()
    for name, peer in scene.peers.items():
        wait_until(lambda: set(wanted[name]) <= set(texts(peer)), f"{name} holds everything")
        held = [t for t in texts(peer) if t in set(wanted[name])]
        part.equal(f"{name}: {len(wanted[name])} messages over {rounds} kill -9, each once",
                   sorted(held), sorted(wanted[name]))
    wait_until(lambda: set(wanted["alice"]) <= {i["body"] for i in alice.inbox()}, "alice's mail")
    held = [i["body"] for i in alice.inbox() if i["body"] in set(wanted["alice"])]
    part.equal(f"our daemon: {len(wanted['alice'])} messages, each once and in order", held,
               wanted["alice"])
    wait_until(lambda: all(r["state"] != "pending" for p in (dora, emil)
                           for r in p.call("outbox")), "every send has its ack")
    part.equal("no send of the rounds was refused",
               [r for p in (dora, emil) for r in p.call("outbox")
                if r["id"] in rounds_ids and r["state"] != "done"], [])
    before = len(dora.call("status")["member"]["closes"])
    scene.world.broker.child.send_signal(signal.SIGTERM)
    wait_until(lambda: len(dora.call("status")["member"]["closes"]) > before, "dora is closed")
    part.equal("SIGTERM closes 1001", dora.call("status")["member"]["closes"][before]["code"],
               1001)
    scene.world.broker.child.wait(30)
    scene.world.broker.start()
    dora.call("ready")
    part.check("foreign clients reconnect after 1001", True)


def run(part):
    with World(part.build, durability="relaxed" if part.quick else "sync") as world, \
            Scene(part, world) as scene:
        joins_and_hellos(part, scene)
        for step in (direct_messages, dedupe_and_refusals, multicast, topics, shared_data,
                     presence, silences_and_errors, replacement):
            try:
                step(part, scene)
            except Failed as error:
                part.check(f"{step.__name__} runs to its end", False, str(error))
        upgrade_paths(part, world)
        restarts(part, scene, rounds=1 if part.quick else 3)
