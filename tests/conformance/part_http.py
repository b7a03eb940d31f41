"""part_http.py — HTTP clients of others on the daemon and the broker: curl, npm's eventsource,
promtool.

curl speaks to the Unix socket, eventsource to TCP with the bearer token.
"""

import json
import re
import socket
import subprocess

from suite import DEADLINE_S, Failed, Node, World, wait_until

MIB = 1 << 20
WROTE = "%{stderr}|%{http_code} %{http_version} %{num_connects}\n"


class Curl:
    """curl on one address: the Unix socket of a daemon, or a port."""

    def __init__(self, base, *always):
        self.base, self.always = base, always

    def run(self, *arguments, feed=None):
        command = ["curl", "--disable", "-sS", "--max-time", "20", *self.always, *arguments]
        return subprocess.run(command, input=feed, capture_output=True, timeout=DEADLINE_S,
                              check=False)

    def get(self, path, *arguments, feed=None):
        """(status, version, body, what curl said) of one request."""
        done = self.run("-w", WROTE, *arguments, self.base + path, feed=feed)
        said = done.stderr.decode(errors="replace")
        wrote = re.findall(r"^\|(\d+) (\S+) (\d+)$", said, re.MULTILINE)
        if not wrote:
            raise Failed(f"curl {path} ended with {done.returncode}: {said}")
        return int(wrote[-1][0]), wrote[-1][1], done.stdout, said


def over_socket(member):
    return Curl("http://localhost", "--unix-socket", str(member.socket))


def expect(good, seen):
    if not good:
        raise Failed(f"saw {seen!r}")


def json_of(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


# --- curl ---

def connections(part, curl, member):
    paths = ["/v1/version", "/v1/health", "/v1/nothing", "/v1/inbox", "/v1/version"]
    done = curl.run("-w", WROTE, *[curl.base + path for path in paths])
    wrote = re.findall(r"\|(\d+) (\S+) (\d+)", done.stderr.decode())
    part.equal("curl: five requests, an error among them, on one connection",
               [(int(status), int(made)) for status, _, made in wrote],
               [(200, 1), (200, 0), (404, 0), (200, 0), (200, 0)])
    part.check("curl: every answer is HTTP/1.1", {w[1] for w in wrote} == {"1.1"}, wrote)
    done = curl.run("-w", WROTE, "-H", "Connection: close", *[curl.base + p for p in paths[:2]])
    part.equal("curl: 'Connection: close' is done as asked",
               re.findall(r"\|\d+ \S+ (\d+)", done.stderr.decode()), ["1", "1"])
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(20)
        raw.connect(str(member.socket))
        raw.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
                             for path in paths[:-1])
                    + b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        text = b""
        while data := raw.recv(65536):
            text += data
    part.equal("five pipelined requests are answered in their order",
               re.findall(rb"HTTP/1.1 (\d+)", text), [b"200", b"200", b"404", b"200", b"200"])


def bodies(part, curl, bob_key):
    def message(text):
        return json.dumps({"to": bob_key, "message": text}).encode()

    def sent(case, *arguments, feed, status=202, says=None):
        def work():
            seen, _, body, said = curl.get("/v1/send", *arguments, feed=feed)
            expect(seen in (200, 202) if status == 202 else seen == status, (seen, body))
            expect(says is None or says in said, said)
        part.attempt(f"curl: {case}", work)
    kind = ["-H", "Content-Type: application/json"]
    sent("a body with its length", *kind, "--data-binary", "@-", feed=message("by length"))
    sent("a chunked body", *kind, "-H", "Transfer-Encoding: chunked", "--data-binary", "@-",
         feed=message("by chunks"))
    sent("an upload of unknown length", *kind, "-X", "POST", "-T", "-",
         feed=message("of unknown length"))
    sent("'Expect: 100-continue' is answered before the body", *kind, "-v", "-H",
         "Expect: 100-continue", "--expect100-timeout", "15", "--data-binary", "@-",
         feed=message("after a 100"), says="HTTP/1.1 100 Continue")
    sent("another expectation is 417", *kind, "-H", "Expect: a-miracle", "--data-binary", "@-",
         feed=message("never"), status=417)
    sent("a body of exactly 1 MiB is read", *kind, "--data-binary", "@-",
         feed=message("spaces").ljust(MIB))
    for how, flags in (("length", ["-H", "Expect:"]), ("length, after asking", []),
                       ("chunks", ["-H", "Transfer-Encoding: chunked"])):
        sent(f"a body of 1 MiB and a byte by {how} is 413", *kind, *flags, "--data-binary", "@-",
             feed=message("too long").ljust(MIB + 1), status=413)
    sent("a body that is no JSON is 400", *kind, "--data-binary", "@-", feed=b"to=bob", status=400)
    sent("an empty body is 400", *kind, "-X", "POST", feed=None, status=400)


def requests(part, curl):
    def case(what, path, *arguments, status=200, good=lambda body, said: True, feed=None):
        def work():
            seen, _, body, said = curl.get(path, *arguments, feed=feed)
            expect(seen == status, (seen, body[:200]))
            expect(good(body, said), (body[:200], said[:1000]))
        part.attempt(f"curl: {what}", work)
    key = "grüße & mehr=☂? +%2B#"
    case("a key of all kinds of characters is written", "/v1/state", "--json",
         json.dumps({"key": key, "value": {"wert": "ü"}}))
    case("and read back by its percent-encoded name", "/v1/state", "-G", "--data-urlencode",
         f"key={key}", good=lambda body, said: "ü" in body.decode() and "wert" in body.decode())
    case("two bytes that are no UTF-8 are 400", "/v1/state?key=%ff%fe", status=400)
    case("a half escape is 400", "/v1/state?key=%4", status=400)
    case("HEAD is of no route, and answered without a body", "/v1/version", "--head", status=404,
         good=lambda body, said: b"{" not in body)
    part.decide("HEAD", "the daemon's routes are those of its table; no client asks for heads")
    case("--compressed is answered plain", "/v1/version", "--compressed", "-v",
         good=lambda body, said: json_of(body) and "content-encoding" not in said.lower())
    case("a range is answered whole", "/v1/version", "-r", "0-3",
         good=lambda body, said: json_of(body))
    case("an upgrade to HTTP/2 is not taken up", "/v1/version", "--http2",
         good=lambda body, said: json_of(body))
    case("dots are not resolved", "/v1/x/../version", "--path-as-is", status=404)
    case("a method of no route is 404", "/v1/version", "-X", "PUT", status=404)
    case("an unknown method is 501", "/v1/version", "-X", "BREW", status=501)
    case("HTTP/1.0 is 505", "/v1/version", "--http1.0", status=505)
    case("20,000 bytes of headers are 431", "/v1/version", "-H", "X: " + "x" * 20_000, status=431)
    case("a target of 9,000 bytes is 414", "/v1/" + "x" * 9000, status=414)
    done = curl.run("--http2-prior-knowledge", curl.base + "/v1/version")
    part.check("curl: HTTP/2 without asking is refused at once",
               done.returncode not in (0, 28), done.returncode)
    done = curl.run("-w", WROTE, curl.base + "/v1/version")
    part.check("curl: and the next request is served", b"|200" in done.stderr, done.stderr)


def bearer(part, port, token):
    curl = Curl(f"http://127.0.0.1:{port}")
    for what, arguments, status in (
            ("the token", ["--oauth2-bearer", token], 200), ("no token", [], 401),
            ("a wrong token", ["--oauth2-bearer", "x" * 43], 401),
            ("the token as a password", ["--user", f"user:{token}"], 401),
            ("another Host", ["--oauth2-bearer", token, "-H", "Host: a.example"], 403),
            ("an Origin", ["--oauth2-bearer", token, "-H", "Origin: http://localhost"], 403)):
        part.attempt(f"curl over TCP: {what}", lambda: expect(
            (seen := curl.get("/v1/version", *arguments))[0] == status, seen))


def broker(part, world):
    curl = Curl(f"http://127.0.0.1:{world.broker.started['port']}")
    done = curl.run("-w", WROTE, *[curl.base + p for p in ("/health", "/health/ready", "/x",
                                                          "/metrics")])
    part.equal("curl on the broker: four requests on one connection",
               re.findall(r"\|(\d+) \S+ (\d+)", done.stderr.decode()),
               [("200", "1"), ("200", "0"), ("404", "0"), ("200", "0")])
    for path, arguments, status in (("/ws", [], 426), ("/health", ["--http1.0"], 505),
                                    ("/join", ["--json", "{"], 400), ("/join", ["-T", "-"], 404)):
        part.attempt(f"curl on the broker: {path} {' '.join(arguments)} is {status}", lambda: expect(
            (seen := curl.get(path, *arguments, feed=b""))[0] == status, seen))


class CurlStream:
    """`curl -N` on /v1/events; what came so far is in its file."""

    def __init__(self, world, member, *arguments):
        self.path = world.root / f"curl-{id(self)}.txt"
        with open(self.path, "wb") as out:
            self.child = subprocess.Popen(
                ["curl", "--disable", "-sSN", "-D", "-", "--unix-socket", str(member.socket),
                 *arguments, "http://localhost/v1/events"], stdout=out, stderr=out)

    def events(self):
        """(id, kind, data) in their order; the last block may be on its way."""
        found = []
        for block in self.path.read_text(errors="replace").split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if {"id", "event", "data"} <= set(fields):
                found.append((fields["id"], fields["event"], json.loads(fields["data"])))
        return found

    def bodies(self):
        return [data["body"] for _, kind, data in self.events() if kind == "message"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()


def curl_streams(part, world, alice, bob):
    with CurlStream(world, bob) as first:
        wait_until(lambda: ": connected" in first.path.read_text(), "the stream is open")
        alice.send("bob", "eins ☂\nzwei")
        wait_until(lambda: first.bodies() == ["eins ☂\nzwei"], "the message is an event")
        text = first.path.read_text().lower()
        last = [i for i, kind, _ in first.events() if kind == "message"][-1]
    part.check("curl -N: an event as it happens, a line feed within it", True)
    part.check("curl -N: the stream is text/event-stream and not to be kept",
               "content-type: text/event-stream" in text
               and "cache-control: no-cache" in text, text[:400])
    for words in ("two", "three"):
        alice.send("bob", words)
    wait_until(lambda: len([i for i in bob.inbox() if i["body"] == "three"]) == 1, "it is there")
    with CurlStream(world, bob, "-H", f"Last-Event-ID: {last}") as second:
        part.attempt("curl -N: Last-Event-ID brings what was missed, once, in order",
                     lambda: wait_until(lambda: second.bodies() == ["two", "three"], "both"))
    with CurlStream(world, bob, "-H", "Last-Event-ID: nonsense") as third:
        part.attempt("curl -N: an id that is none is told as a gap", lambda: wait_until(
            lambda: [e[2]["reason"] for e in third.events() if e[1] == "gap"] == ["unknown_id"],
            "a gap"))


# --- eventsource ---

def port_of(member):
    return int(member.daemon.started["tcp"].rsplit(":", 1)[1])


def event_source(part, alice, bob):
    def bodies(kind="message"):
        return [e["data"].get("body") for e in peer.call("got")["events"] if e["kind"] == kind]

    def arrives(text):
        wait_until(lambda: text in bodies(), f"'{text}' arrives")

    token = (alice.home / ".claudemesh/daemon/local-token").read_text().strip()
    with Node("eventsource_peer.mjs") as peer:
        peer.call("open", port=port_of(alice), token=token)
        bob.send("alice", "grüße ☂\r\nover two lines\n\n")
        part.attempt("eventsource: an event as it happens", lambda: arrives(
            "grüße ☂\r\nover two lines\n\n"))
        ids = [int(e["id"]) for e in peer.call("got")["events"]]
        part.check("eventsource: ids grow", ids == sorted(set(ids)) and ids, ids)
        peer.call("cut")
        for text in ("while away 1", "while away 2"):
            bob.send("alice", text)
        wait_until(lambda: any(i["body"] == "while away 2" for i in alice.inbox()), "it is there")
        peer.call("mend")
        part.attempt("eventsource: it comes back by itself", lambda: wait_until(
            lambda: peer.call("got")["opens"] == 2, "a second open"))
        arrives("while away 2")
        bob.send("alice", "back again")
        arrives("back again")
        part.equal("eventsource: Last-Event-ID brings what was missed, once, in order",
                   bodies(), ["grüße ☂\r\nover two lines\n\n", "while away 1", "while away 2",
                              "back again"])
        part.check("eventsource: it was the header that did it", "last-event-id: "
                   in peer.call("got")["requests"][-1].lower(), peer.call("got")["requests"])
        alice.daemon.stop()
        alice.daemon.start()
        alice.wait_connected()
        peer.call("mend", port=port_of(alice))
        part.attempt("eventsource: a restart is told as a gap", lambda: wait_until(
            lambda: [e["data"]["reason"] for e in peer.call("got")["events"]
                     if e["kind"] == "gap"] == ["restart"], "a gap"))
        bob.send("alice", "after the restart")
        part.attempt("eventsource: and events go on", lambda: arrives("after the restart"))
        ids = [int(e["id"]) for e in peer.call("got")["events"]]
        part.check("eventsource: ids grow over the restart", ids == sorted(ids), ids)
    with Node("eventsource_peer.mjs") as peer:
        peer.call("open", port=port_of(alice), token="x" * 43)
        seen = peer.call("got")
        part.equal("eventsource: a wrong token is an error for good",
                   (seen["state"], [e["code"] for e in seen["errors"]], seen["opens"]),
                   (2, [401], 0))


# --- promtool ---

def metrics(part, name, text):
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True,
                          timeout=DEADLINE_S, check=False)
    part.equal(f"promtool: the metrics of the {name} are clean",
               (done.returncode, (done.stdout + done.stderr).decode()), (0, ""))
    part.check(f"promtool: there are some of the {name}",
               text.count(b"# TYPE ") > 20 and text.count(b"# TYPE ") == text.count(b"# HELP "),
               text.count(b"# TYPE "))


def run(part):
    with World(part.build, durability="relaxed") as world:
        world.start_broker(limits=["rate_per_minute=0"])
        alice, bob = world.member("alice"), world.member("bob")
        alice.daemon.arguments.extend(["--tcp-port", "0"])
        alice.json("create", "demo", "--broker", world.url, "--display-name", "alice")
        bob.json("join", alice.json("share")["url"], "--name", "bob")
        for member in (alice, bob):
            member.daemon.start()
        for member in (alice, bob):
            member.wait_connected()
        bob_key = bob.json("list")["meshes"][0]["pubkey"]
        curl = over_socket(alice)
        connections(part, curl, alice)
        bodies(part, curl, bob_key)
        requests(part, curl)
        bearer(part, port_of(alice),
               (alice.home / ".claudemesh/daemon/local-token").read_text().strip())
        broker(part, world)
        curl_streams(part, world, alice, bob)
        event_source(part, alice, bob)
        metrics(part, "daemon", curl.get("/v1/metrics")[2])
        broker_curl = Curl(f"http://127.0.0.1:{world.broker.started['port']}")
        metrics(part, "broker", broker_curl.get("/metrics")[2])
