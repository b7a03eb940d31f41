"""part_brokers.py — our daemon and CLI on a JavaScript broker that behaves as existing ones do.

It does not dedupe, answers nothing that it does not know, pushes without sender members and drops
what it likes. Our side still ends every send in `done` and shows every message once.
"""

import json
import subprocess

from suite import Failed, Node, World, wait_until

# spec/observed.md, "Handshake".
HELLO = ["type", "meshId", "memberId", "pubkey", "sessionId", "pid", "cwd", "hostname", "peerType",
         "channel", "timestamp", "signature"]
SEND = ["type", "id", "client_message_id", "request_fingerprint", "targetSpec", "priority", "nonce",
        "ciphertext"]
JOIN = ["invite_token", "invite_payload", "peer_pubkey", "display_name"]
RATE = "rate_limit: max 60 msg/min (burst 10) — slow down"
NOBODY = ("no connected peer for target (not online, or targetSpec is your own key without "
          "another session)")
BLOCKED = "blocked by recipient grants (sender lacks dm capability)"
TOO_LARGE = "payload too large: 70000 bytes > MAX_MESSAGE_BYTES=65536"


def outbox(member, message_id):
    status, reply = member.call("GET", "/v1/outbox?limit=500")
    if status != 200:
        raise Failed(f"outbox answered {status}")
    return next(i for i in reply["items"] if i["client_message_id"] == message_id)


def wait_state(member, message_id, state):
    return wait_until(lambda: (row := outbox(member, message_id))["status"] == state and row,
                      f"{message_id} is {state}")


def bodies(member):
    return [i["body"] for i in member.inbox()]


def wait_body(member, body):
    return wait_until(lambda: next((i for i in member.inbox() if i["body"] == body), None),
                      f"{member.name} receives '{body}'")


def frames(broker, kind):
    out = []
    for text in broker.call("seen")["frames"]:
        frame = json.loads(text)
        if frame.get("type") == kind:
            out.append(frame)
    return out


def joining(part, world, broker):
    members = []
    for name in ("alice", "bob"):
        member = world.member(name)
        joined = member.json("join", broker.call("invite"), "--name", name)
        part.check(f"our CLI joins with a foreign token ({name})", joined["ok"], joined)
        member.daemon.start()
        members.append(member)
    for member in members:
        member.wait_connected()
    body = broker.call("seen")["joins"][0]
    part.equal("the body of POST /join has the reference's members", list(body), JOIN)
    part.equal("the token travels unchanged",
               body["invite_token"].count("."), 0)
    upgrade = broker.call("seen")["upgrades"][0]
    part.equal("the path is exactly /ws", upgrade["url"], "/ws")
    part.check("no extension is offered", "sec-websocket-extensions" not in upgrade["headers"])
    hello = frames(broker, "hello")[0]
    part.equal("hello has the reference's members, in its order",
               [k for k in hello if k in HELLO], HELLO)
    part.equal("hello has nothing that a reference daemon leaves out",
               {"displayName", "sessionPubkey"} & set(hello), set())
    part.check("hello's values", hello["peerType"] == "ai"
               and hello["channel"] == "claudemesh-daemon"
               and hello["sessionId"].startswith(f"daemon-{hello['pid']}"), hello)
    return members


def sends(part, broker, alice, bob, bob_key):
    wait_until(lambda: any(p["displayName"] == "bob"
                           for p in alice.call("GET", "/v1/peers")[1]["peers"]), "alice sees bob")
    alice.run("send", "bob", "by name")
    item = wait_body(bob, "by name")
    part.equal("by name, to the member's key; its sender is known without sender members",
               item["sender_pubkey"], alice.json("list")["meshes"][0]["pubkey"])
    frame = frames(broker, "send")[0]
    part.attempt("its send ends done", lambda: wait_state(alice, frame["id"], "done"))
    part.equal("send has the reference's members, in its order",
               [k for k in frame if k in SEND], SEND)
    part.equal("id is client_message_id", frame["id"], frame["client_message_id"])
    ack = wait_until(lambda: frames(broker, "client_ack"), "a client_ack")[0]
    part.check("client_ack names both ids", ack["clientMessageId"] == frame["id"]
               and ack["brokerMessageId"] == broker.call("queue")[0]["messageId"], ack)
    row = wait_until(lambda: broker.call("queue")[0]["deliveredAt"], "delivered at the broker")
    part.check("the broker's row is delivered", row)
    broker.call("faults", bare=True)
    alice.send(bob_key, "without ids")
    wait_body(bob, "without ids")
    broker.call("redeliver")
    broker.call("faults", bare=False)
    alice.send(bob_key, "after the redelivery")
    wait_body(bob, "after the redelivery")
    part.equal("pushes without any id of the sender are deduped by messageId",
               bodies(bob).count("without ids"), 1)


def faults(part, broker, alice, bob, bob_key):
    """Redeliveries, lost acks, cut connections and strange frames."""
    sent = alice.send(bob_key, "inserted, ack lost", client_message_id="lost-1")
    wait_state(alice, sent["client_message_id"], "done")
    broker.call("faults", dropAfterInsert=1)
    alice.send(bob_key, "dropped after insert", client_message_id="drop-1")
    wait_state(alice, "drop-1", "done")
    wait_until(lambda: sum(r["frame"]["id"] == "drop-1" for r in broker.call("queue")) == 2,
               "the retry made a second row")
    wait_until(lambda: all(r["deliveredAt"] for r in broker.call("queue")
                           if r["frame"]["id"] == "drop-1"), "both are acked")
    part.equal("a broker without dedupe pushes twice, our inbox holds one",
               bodies(bob).count("dropped after insert"), 1)
    before = bodies(bob)
    acks = len(frames(broker, "client_ack"))
    broker.call("redeliver")
    rows = sum(r["frame"]["targetSpec"] == bob_key for r in broker.call("queue"))
    wait_until(lambda: len(frames(broker, "client_ack")) >= acks + rows, "redeliveries are acked")
    part.equal("redeliveries are acked again and not shown again", bodies(bob), before)
    for case, injected in (
            ("a ping without payload", {"ping": True}),
            ("an unknown type", {"text": json.dumps({"type": "news", "x": [1, {"y": None}]})}),
            ("a binary frame that holds JSON", {"text": '{"type":"later"}', "binary": True}),
            ("a frame of 0 bytes", {"text": ""}),
            ("text that is no JSON", {"text": "{{{"}),
            ("an error without a code", {"text": '{"type":"error"}'}),
            ("a push that is not whole", {"text": '{"type":"push","messageId":"x"}'})):
        broker.call("inject", **injected)
        text = f"after {case}"
        wait_until(lambda: set(broker.call("online")) >= {"alice", "bob"}, "both are online")
        alice.send(bob_key, text)
        part.attempt(f"{case} loses nothing", lambda: wait_body(bob, text))
    for code in (1000, 1001, 1011, 4001, 4002, None):
        broker.call("cut", code=code)
        text = f"after {code or 'an abort'}"
        alice.send(bob_key, text)
        part.attempt(f"a connection closed with {code or 'nothing'} is opened again",
                     lambda: wait_body(bob, text))
    part.equal("everything once", len(bodies(bob)), len(set(bodies(bob))))


def refusals(part, broker, alice, bob, bob_key):
    """Error texts, of which old brokers send no code: spec/decisions.md, spec/wire.md §5.1."""
    for case, text in (("the rate limit", RATE), ("nobody is connected", NOBODY),
                       ("an internal failure", "database is busy")):
        broker.call("faults", errors=[text])
        sent = alice.send(bob_key, f"despite {case}")
        wait_state(alice, sent["client_message_id"], "done")
        part.attempt(f"transient: {case}", lambda: wait_body(bob, f"despite {case}"))
    for case, text in (("too large", TOO_LARGE), ("blocked by grants", BLOCKED),
                       ("an invalid target", "invalid target"),
                       ("not found", "target_not_found: no such key")):
        broker.call("faults", errors=[text])
        sent = alice.send(bob_key, f"refused: {case}")
        row = wait_state(alice, sent["client_message_id"], "dead")
        part.check(f"permanent: {case}, with the broker's words", text in row["last_error"], row)
    part.check("a refused message never arrives",
               not any(b and b.startswith("refused") for b in bodies(bob)))
    status, reply = alice.call("POST", "/v1/send", {"to": bob_key, "message": "y" * 60_000,
                                                    "client_message_id": "large-1"})
    part.check("what does not fit 65,536 bytes is refused at once: 413, with size and limit",
               status == 413 and "65536" in json.dumps(reply).replace(",", "").replace("_", ""),
               (status, reply))
    alice.send(bob_key, "small", client_message_id="large-1")
    part.attempt("its id is not consumed", lambda: wait_body(bob, "small"))


def legacy(part, alice):
    def negotiation():
        meshes = alice.call("GET", "/v1/health")[1]["meshes"]
        return meshes[0].get("negotiation") == "legacy"
    part.attempt("health shows the broker as legacy",
                 lambda: wait_until(negotiation, "legacy in health"))
    shown = alice.run("daemon", "status").stdout
    part.check("daemon status says so", "legacy" in shown, shown)


def refused_hellos(part, world, broker):
    """Nobody that a foreign verifier should refuse gets in: the proof that it verifies at all."""
    stranger = world.member("carol")
    link = broker.call("invite")
    broken = link[:-8] + ("AAAAAAAA" if not link.endswith("AAAAAAAA") else "BBBBBBBB")
    done = stranger.run("join", broken, check=False)
    part.check("our CLI refuses a token that was changed", done.returncode != 0)
    part.equal("and asks no broker about it", len(broker.call("seen")["joins"]), 2)


def run(part):
    with World(part.build, durability="relaxed" if part.quick else "sync") as world, \
            Node("reference_broker.mjs") as broker:
        broker.call("start")
        alice, bob = joining(part, world, broker)
        bob_key = bob.json("list")["meshes"][0]["pubkey"]
        for step, arguments in ((sends, (broker, alice, bob, bob_key)),
                                (faults, (broker, alice, bob, bob_key)),
                                (refusals, (broker, alice, bob, bob_key)),
                                (legacy, (alice,)), (refused_hellos, (world, broker))):
            try:
                step(part, *arguments)
            except (Failed, subprocess.SubprocessError) as error:
                part.check(f"{step.__name__} runs to its end", False, str(error))
