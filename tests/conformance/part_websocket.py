"""part_websocket.py — WebSocket stacks of others, in both roles, against our server and client.

Clients: npm ws, websocket, faye-websocket, websocket-driver; python3-websockets; libwebsockets'
test client. Servers: the same behind a broker, and libwebsockets' test server.
"""

import json
import pathlib
import re
import socket
import subprocess

from suite import HERE, DEADLINE_S, Failed, Node, Peer, World, wait_until
from test_tls import TlsWorld

STACKS = ["ws", "websocket", "faye-websocket", "websocket-driver"]
PYTHON = "python3-websockets"
MIB = 1 << 20


def client_peer(stack):
    if stack == PYTHON:
        return Peer("pyws", ["/usr/bin/python3", HERE / "pyws_peer.py", "client"])
    return Node("ws_client_peer.mjs", stack)


class Caller:
    """One client and what it has received so far."""

    def __init__(self, part, name, peer, url, ca=None):
        self.part, self.name, self.peer, self.url, self.ca = part, name, peer, url, ca

    def open(self):
        return self.peer.call("open", url=self.url, **({"ca": str(self.ca)} if self.ca else {}))

    def act(self, what, *values):
        self.peer.call("act", what=what, arguments=list(values))

    def reply(self, request_id):
        def found():
            got = self.peer.call("got")
            for message in got["messages"]:
                frame = json.loads(message)
                if request_id in (frame.get("_reqId"), frame["type"]):
                    return frame
            if got["close"]:
                raise Failed(f"closed with {got['close']} before {request_id}")
            return None
        return wait_until(found, f"{self.name}: reply {request_id}", 10)

    def closed(self):
        return wait_until(lambda: self.peer.call("got")["close"], f"{self.name} is closed", 10)

    def case(self, case, work):
        self.part.attempt(f"{self.name}: {case}", work)


def request(request_id):
    return json.dumps({"type": "list_peers", "_reqId": request_id}, ensure_ascii=False)


def exchange(part, caller, hello):
    """The life of one connection, and what ends it."""
    def expect(good, seen):
        if not good:
            raise Failed(f"saw {seen!r}")

    got = caller.open()
    part.check(f"{caller.name}: handshake, without an extension",
               got["open"] and not got.get("extensions"), got)
    if not got["open"]:
        return
    caller.act("text", request("early"))
    caller.case("a frame before hello is answered no_hello",
                lambda: expect(caller.reply("early")["code"] == "no_hello", ""))
    caller.act("text", hello("one"))
    caller.case("hello_ack", lambda: caller.reply("hello_ack"))
    caller.act("text", request("grüße ☂ 😀"))
    caller.case("UTF-8 comes back as it went", lambda: caller.reply("grüße ☂ 😀"))
    caller.act("binary", request("binary"))
    caller.case("a binary frame", lambda: caller.reply("binary"))
    if caller.peer.call("can", what="fragments"):
        text = request("in fragments" + " ☂" * 20)
        caller.act("fragments", [text[n:n + 7] for n in range(0, len(text), 7)])
        caller.case("fragments, cut within a JSON token",
                    lambda: caller.reply("in fragments" + " ☂" * 20))
    for payload in ("p", "x" * 125):
        caller.act("ping", payload)
        caller.case(f"a ping of {len(payload)} bytes is answered with its payload",
                    lambda: wait_until(lambda: payload in caller.peer.call("got")["pongs"], "pong"))
    head, tail = request("one MiB")[:-1], "}"
    caller.peer.call("pad", bytes=MIB, head=head, tail=tail)
    caller.case("a frame of exactly 1 MiB", lambda: caller.reply("one MiB"))
    caller.peer.call("pad", bytes=MIB + 1, head=head, tail=tail)
    caller.case("one of 1 MiB and a byte closes 1009",
                lambda: expect(caller.closed()["code"] == 1009, caller.closed()))
    for code in (1000, 3000, 4999):
        caller.open()
        caller.act("close", code, "bye")
        caller.case(f"our answer to close {code} carries it",
                    lambda: expect(caller.closed()["code"] == code, caller.closed()))
    caller.open()
    caller.peer.call("pad", bytes=100_000, head=head, tail=tail)
    caller.case("100,000 bytes before hello end the connection with 1008 or 1009",
                lambda: expect(caller.closed()["code"] in (1008, 1009), caller.closed()))


def clients(part):
    with World(part.build, durability="relaxed") as world:
        world.start_broker(limits=["rate_per_minute=0"])
        clients_of(part, world, None)
        libwebsockets_client(part, world)
    with TlsWorld(part.build) as world:
        world.start_broker()
        clients_of(part, world, world.ca.file)


def clients_of(part, world, ca):
    alice = world.member("alice")
    alice.json("create", "demo", "--broker", world.url, "--display-name", "alice")
    home = world.root / "carol"
    home.mkdir(mode=0o700)
    with Node("reference_client.mjs", home) as carol:
        invite = alice.json("share")["url"]
        if ca:  # joins as people do; its hellos travel over the stacks under test
            carol.call("adopt", **adopted(alice))
        else:
            carol.call("join", invite=invite, name="carol")
        for stack in [*STACKS, PYTHON]:
            with client_peer(stack) as peer:
                name = f"{stack}{' over TLS' if ca else ''}"
                caller = Caller(part, name, peer, world.url, ca)
                try:
                    exchange(part, caller,
                             lambda tag: carol.call("hello", sessionId=f"{stack}-{tag}"))
                except Failed as error:
                    part.check(f"{name}: runs to its end", False, str(error))


def adopted(member):
    """The membership of one of our homes, for a client that cannot join over this TLS."""
    config = json.loads((member.home / ".claudemesh/config.json").read_text())
    mesh = config["meshes"][0]
    return {"pubkey": mesh["pubkey"], "secret": mesh["secretKey"], "memberId": mesh["memberId"],
            "meshId": mesh["meshId"], "url": mesh["brokerUrl"]}


def libwebsockets_client(part, world):
    """libwebsockets' client asks for a subprotocol that we do not speak, and lives with it."""
    port = world.broker.started["port"]
    log = world.root / "lws.log"
    with open(log, "wb") as out:
        child = subprocess.Popen(["libwebsockets-test-client", f"ws://127.0.0.1:{port}/ws", "-d",
                                  "1039"], stdout=out, stderr=out)
    try:
        part.attempt("libwebsockets: its test client is upgraded", lambda: wait_until(
            lambda: re.search(rb"(?i)established|CLIENT_ESTABLISHED", log.read_bytes()),
            "established", 20))
    except Failed as error:
        part.check("libwebsockets: its test client is upgraded", False, str(error))
    finally:
        child.kill()
        child.wait()


def daemons_on(part, stack, world, broker, name):
    """Our daemons over somebody else's server: messages of all sizes, control frames, closes."""
    alice, bob = world.members["alice"], world.members["bob"]
    bob_key = bob.json("list")["meshes"][0]["pubkey"]

    def arrives(text):
        wait_until(lambda: any(i["body"] == text for i in bob.inbox()), f"'{text[:20]}' arrives")

    for size in (1, 125, 126, 1000, 40_000):
        alice.send(bob_key, "ü" + "x" * (size - 1))
        part.attempt(f"{name}: {size} characters arrive",
                     lambda: arrives("ü" + "x" * (size - 1)))
    alice.send(bob_key, "in order, too")
    arrives("in order, too")
    if stack == PYTHON:
        return
    broker.call("inject", ping=True, text="are you there?")
    part.attempt(f"{name}: a ping is answered with its payload", lambda: wait_until(
        lambda: broker.call("seen")["pongs"].count("are you there?") >= 2, "two pongs"))
    broker.call("inject", text='{"type":"news"}', pad=MIB)
    alice.send(bob_key, "behind 1 MiB")
    part.attempt(f"{name}: a frame of 1 MiB is taken", lambda: arrives("behind 1 MiB"))
    for code in (1000, 1011 if stack == "ws" else 3000, 4001):
        before = len(broker.call("seen")["closes"])
        broker.call("cut", code=code)

        def two_closes():
            seen = [c["code"] for c in broker.call("seen")["closes"][before:]]
            if len(seen) >= 2 and seen.count(code) < 2:
                raise Failed(f"saw {seen!r}")
            return len(seen) >= 2

        part.attempt(f"{name}: our answer to close {code} carries it",
                     lambda: wait_until(two_closes, "two closes"))
        wait_until(lambda: {"alice", "bob"} <= set(broker.call("online")), "both are back")
    broker.call("inject", text='{"type":"news"}', pad=(16 << 20) + 1)
    # Our close frame may be lost for the sender: what it still sends is answered with a reset.
    part.attempt(f"{name}: more than 16 MiB end the connection with 1009", lambda: wait_until(
        lambda: all(lost_with(m, 1009) for m in (alice, bob)), "both daemons say 1009"))
    wait_until(lambda: {"alice", "bob"} <= set(broker.call("online")), "both are back")
    alice.send(bob_key, "after all that")
    part.attempt(f"{name}: and mail flows again", lambda: arrives("after all that"))


def lost_with(member, code):
    lines = [line for line in member.daemon.log_path.read_text(errors="replace").splitlines()
             if '"event":"broker_lost"' in line]
    return any(json.loads(line)["code"] == code for line in lines)


def servers(part):
    for stack in ["websocket"] if part.quick else [*STACKS, PYTHON]:
        name = f"{stack} as the server"
        with World(part.build, durability="relaxed") as world, \
                Node("reference_broker.mjs", "ws" if stack == PYTHON else stack) as broker:
            port = broker.call("start")
            relay = None
            if stack == PYTHON:
                relay = subprocess.Popen(["/usr/bin/python3", HERE / "pyws_peer.py", "relay",
                                          f"ws://127.0.0.1:{port}/ws"], stdout=subprocess.PIPE,
                                         text=True)
                relayed = relay.stdout.readline().strip()
            try:
                for who in ("alice", "bob"):
                    member = world.member(who)
                    member.json("join", broker.call("invite"), "--name", who)
                    if relay:
                        config = member.home / ".claudemesh/config.json"
                        config.write_text(config.read_text().replace(f":{port}/", f":{relayed}/"))
                    member.daemon.start()
                for member in world.members.values():
                    member.wait_connected()
                part.check(f"{name}: handshake and hello", True)
                daemons_on(part, stack, world, broker, name)
            except (Failed, subprocess.SubprocessError) as error:
                part.check(f"{name}: runs to its end", False, str(error))
            finally:
                if relay:
                    relay.kill()
                    relay.wait()


def libwebsockets_server(part):
    """It speaks no mesh: our client is upgraded, gives up the hello after 5 s and stays well."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with World(part.build, durability="relaxed") as world, \
            Node("reference_broker.mjs") as broker:
        real = broker.call("start")
        alice = world.member("alice")
        alice.json("join", broker.call("invite"), "--name", "alice")
        config = alice.home / ".claudemesh/config.json"
        config.write_text(config.read_text().replace(f":{real}/", f":{port}/"))
        child = subprocess.Popen(["libwebsockets-test-server", f"--port={port}", "-i", "lo"],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            alice.daemon.start()

            def told():
                mesh = alice.call("GET", "/v1/health")[1]["meshes"][0]
                return mesh["last_error"]
            error = part.attempt("libwebsockets as the server: our daemon says what is wrong",
                                 lambda: wait_until(told, "an error in health", DEADLINE_S))
            part.check("libwebsockets as the server: the daemon runs on",
                       alice.daemon.child.poll() is None, error)
        finally:
            child.kill()
            child.wait()


def run(part):
    clients(part)
    servers(part)
    if part.quick:
        return
    if pathlib.Path("/usr/bin/libwebsockets-test-server").exists():
        libwebsockets_server(part)
    else:
        part.check("libwebsockets-test-server is installed", False, "sh tests/deps.sh conf")
