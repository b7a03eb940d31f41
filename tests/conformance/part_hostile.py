"""part_hostile.py — what no client may send, by section of RFC 6455, to the broker's process.

Every row goes over a socket of its own, whole and byte by byte; its verdict is a close code or an
HTTP status. After each row another client is served; at the end no descriptor is left behind, and
two daemons that were connected all along have not noticed.
"""

import os
import re
import struct

from raw_ws import (BINARY, CLOSE, NO_HELLO, PING, PONG, TEXT, Raw, accept_of, close_frame, frame,
                    upgrade)
from suite import DEADLINE_S, Failed, World, wait_until

UNAUTHENTICATED = 64 << 10  # what a frame before hello may have (limit unauthenticated_bytes_max)
BAD_TEXTS = [b"\xff", b"\xc0\xaf", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
             b"\xf8\x88\x80\x80\x80", b"ok\x80", b"\xef\xbf"]


def violations():
    """(section, what, bytes behind a good handshake, close code)."""
    for bit in (0x40, 0x20, 0x10, 0x70):
        for name, first in (("text", TEXT), ("ping", PING), ("close", CLOSE)):
            yield "5.2", f"reserved bits {bit:#x} on {name}", frame(first | bit, b"{}"), 1002
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield "5.2", f"reserved opcode {opcode}", frame(0x80 | opcode, b"{}"), 1002
    for name, first in (("text", TEXT), ("binary", BINARY), ("ping", PING), ("pong", PONG),
                        ("close", CLOSE)):
        yield "5.1", f"{name} without a mask", frame(first, b"", mask=False), 1002
    for name, first in (("close", CLOSE), ("ping", PING), ("pong", PONG)):
        yield "5.5", f"a fragment of a {name}", frame(first & 0x7F), 1002
        for size in (126, 1000, 65536):
            yield "5.5", f"a {name} of {size} bytes", frame(first, b"c" * size), 1002
    yield "5.5.1", "a close of one byte", frame(CLOSE, b"\x03"), 1002
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
        yield "7.4", f"close code {code}", close_frame(code), 1002
    yield "5.5.1", "a close reason that is no UTF-8", close_frame(1000, b"\xff\xfe"), 1007
    yield "5.5.1", "a close reason cut in a character", close_frame(1000, b"bye\xe2\x82"), 1007
    for text in BAD_TEXTS:
        yield "8.1", f"text {text!r}", frame(TEXT, text), 1007
        yield ("8.1", f"text {text!r} in two fragments",
               frame(0x01, text[:1]) + frame(0x80, text[1:]), 1007)
    yield ("8.1", "a character that a ping interrupts and nothing ends",
           frame(0x01, b"\xe2\x82") + frame(PING) + frame(0x80, b"x"), 1007)
    half = NO_HELLO[:9], NO_HELLO[9:]
    for name, first in (("text", TEXT), ("binary", BINARY), ("a fragment of text", 0x01)):
        yield ("5.4", f"{name} within a fragmented message",
               frame(0x01, half[0]) + frame(first, half[1]), 1002)
    yield "5.4", "a continuation of nothing", frame(0x80, b"{}"), 1002
    yield "5.4", "an unfinished continuation of nothing", frame(0x00, b"{}"), 1002
    yield ("5.4", "a continuation after the end",
           frame(0x01, half[0]) + frame(0x80, half[1]) + frame(0x80, b"{}"), 1002)
    yield "5.2", "5 bytes, length in 16 bits", frame(TEXT, b"aaaaa", form=2), 1002
    yield "5.2", "125 bytes, length in 16 bits", frame(TEXT, b"a" * 125, form=2), 1002
    yield "5.2", "5 bytes, length in 64 bits", frame(TEXT, b"aaaaa", form=8), 1002
    yield "5.2", "65,535 bytes, length in 64 bits", frame(TEXT, declared=65535, form=8), 1002
    yield "5.2", "a length of 2^63", frame(TEXT, declared=1 << 63, form=8), 1002
    yield "5.2", "a length of 2^64 - 1", frame(TEXT, declared=(1 << 64) - 1, form=8), 1002
    yield "10.4", "a length of 2^63 - 1", frame(TEXT, declared=(1 << 63) - 1, form=8), 1009
    yield "10.4", "a byte over the limit", frame(TEXT, declared=UNAUTHENTICATED + 1), 1009
    yield ("10.4", "fragments that are together over the limit",
           frame(0x01, b"abc") + frame(0x80, declared=UNAUTHENTICATED - 2), 1009)
    yield "4.1", "a second handshake in place of a frame", upgrade(), 1002
    yield ("7.1.4", "a violation behind a good message", frame(TEXT, NO_HELLO) + frame(0x83), 1002)


def closes():
    """(section, what, bytes behind a good handshake, the code that comes back)."""
    for code in (1000, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 4999):
        yield "5.5.1", f"close {code}", close_frame(code, "tschüß".encode()), code
    yield "5.5.1", "an empty close", frame(CLOSE), None
    yield "5.5", "a close of 125 bytes", close_frame(1000, b"r" * 123), 1000
    yield "5.5.1", "text behind the close", close_frame(1000) + frame(TEXT, NO_HELLO), 1000
    yield "5.5.1", "a violation behind the close", close_frame(1000) + frame(0xFF), 1000
    yield "5.5.1", "no frame at all behind the close", close_frame(1000) + b"GET / HTTP/1.1", 1000
    yield "5.5.1", "a second close", close_frame(1000) + close_frame(4000), 1000
    yield ("5.4", "a close within a fragmented message",
           frame(0x01, NO_HELLO[:5]) + close_frame(1001), 1001)


def refusals():
    """(section, what, bytes of the handshake, status)."""
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    for name, value in (("missing", None), ("8", "8"), ("14", "14"), ("0", "0"),
                        ("a word", "thirteen"), ("a list", "8, 13"), ("given twice", ["13", "8"])):
        yield "4.2.1", f"version {name}", upgrade(Sec_WebSocket_Version=value), 426
    for name, value in (("missing", None), ("empty", ""), ("of 15 bytes", "dGhlIHNhbXBsZSBub25j"),
                        ("of 17 bytes", "dGhlIHNhbXBsZSBub25jZSE="), ("of 4 bytes", "c2hvcnQ="),
                        ("that is no base64", "dGhlIHNhbXBsZSBu!25jZQ=="),
                        ("without padding", "dGhlIHNhbXBsZSBub25jZQ"),
                        ("given twice", [key, key])):
        yield "4.2.1", f"key {name}", upgrade(Sec_WebSocket_Key=value), 400
    for method, status in (("POST", 400), ("PUT", 400), ("DELETE", 400), ("HEAD", 400),
                           ("BREW", 501), ("get", 501)):
        yield "4.2.1", f"method {method}", upgrade(line=f"{method} /ws HTTP/1.1"), status
    for version, status in (("HTTP/1.0", 505), ("HTTP/1.2", 505), ("HTTP/2.0", 505),
                            ("http/1.1", 400), ("HTTPS/1.1", 400), ("", 400)):
        yield "4.2.1", f"version '{version}' of HTTP", upgrade(line=f"GET /ws {version}"), status
    yield "4.2.1", "no Upgrade", upgrade(Upgrade=None), 426
    yield "4.2.1", "Upgrade to something else", upgrade(Upgrade="h2c"), 426
    yield "4.2.1", "no Connection", upgrade(Connection=None), 426
    yield "4.2.1", "Connection without Upgrade", upgrade(Connection="keep-alive"), 426
    yield "4.2.1", "no Host", upgrade(Host=None), 400
    yield "4.2.1", "two Hosts", upgrade(Host=["localhost", "elsewhere"]), 400
    for target, status in (("/ws/", 404), ("/ws?token=x", 404), ("/", 404), ("/health", 404),
                           ("/WS", 404), ("/%77s", 404), ("/x/../ws", 404), ("//ws", 404),
                           ("http://localhost/ws", 400), ("ws", 400), ("*", 400)):
        yield "4.2.1", f"target {target}", upgrade(line=f"GET {target} HTTP/1.1"), status
    yield "4.2.1", "a target of 9,000 bytes", upgrade(line=f"GET /{'w' * 9000} HTTP/1.1"), 414
    yield "10.4", "a header of 17,000 bytes", upgrade(X_Filler="f" * 17000), 431
    yield "10.4", "a header without an end", upgrade(X_Filler="f" * 17000)[:-4], 431
    yield "10.4", "65 headers", upgrade(X_Filler=["f"] * 60), 431
    yield "4.2.1", "a body", upgrade(Content_Length="4") + b"body", 400
    yield "4.2.1", "a chunked body", (upgrade(Transfer_Encoding="chunked")
                                      + b"4\r\nbody\r\n0\r\n\r\n"), 400
    yield "10.4", "a body of 2 MiB is announced", upgrade(Content_Length=str(2 << 20)), 413
    yield "4.2.1", "a length and a coding", upgrade(Content_Length="4",
                                                    Transfer_Encoding="chunked"), 400
    yield "4.2.1", "a folded header", upgrade(X_Folded="a\r\n b"), 400
    yield "4.2.1", "a zero byte in a header", upgrade(X_Zero="a\0b"), 400
    yield "4.2.1", "a space before the colon", upgrade(**{"X-Space ": "a"}), 400
    yield "4.2.1", "lines that end with LF", (
        upgrade().replace(b"\r\n", b"\n") + b"\r\n\r\n"), 400
    yield "4.1", "a frame before the handshake", frame(TEXT, b"x" * 60) + b"\r\n\r\n", 400
    yield "10.6", "TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400


def acceptances():
    """(section, what, bytes of a handshake that is odd and good)."""
    yield "4.2.1", "names and values in any case", (
        upgrade(Upgrade="WebSocket", Connection="UPGRADE").replace(b"Upgrade:", b"uPGRADE:"))
    yield "4.2.1", "Connection is a list", upgrade(Connection="keep-alive, Upgrade")
    yield "4.2.1", "Upgrade is a list", upgrade(Upgrade="h2c, websocket")
    yield "4.2.1", "an empty body", upgrade(Content_Length="0")
    yield "4.2.1", "a key with bits behind its 16 bytes", upgrade(
        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZR==")
    yield "1.9", "subprotocols are offered", upgrade(Sec_WebSocket_Protocol="chat, mqtt")
    yield "9.1", "extensions are offered", upgrade(
        Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits, x-unknown; a=1")
    yield "4.2.1", "unknown headers", upgrade(X_Anything="ünïcode", Cookie="a=b")


class Scene:
    """The broker, two daemons that are connected all along, and other clients in between."""

    def __init__(self, part, world):
        self.part, self.world = part, world
        self.port = world.broker.started["port"]
        self.descriptors = f"/proc/{world.broker.child.pid}/fd"
        self.before = len(os.listdir(self.descriptors))

    def served(self):
        """A good client: upgrade, an answer to its frame, an answer to its ping, a close."""
        with Raw(self.port).open() as good:
            good.send(frame(PING, b"there?") + frame(TEXT, NO_HELLO))
            pong, error = good.next_frame(), good.next_frame()
            good.send(close_frame(1000))
            code, _, _ = good.until_close()
        if code != 1000 or b"no_hello" not in error[1] or pong != (PONG, b"there?"):
            raise Failed(f"a good client saw {pong}, {error} and {code}")

    def frame_errors(self):
        with Raw(self.port) as raw:
            raw.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            text = raw.response()[2].decode()
        return int(re.search(r"^broker_frame_errors_total (\d+)", text, re.MULTILINE).group(1))

    def row(self, section, what, judge):
        def both():
            judge()
            self.served()
        self.part.attempt(f"RFC 6455 {section}: {what}", both)

    def closed_with(self, data, code, step, answered=None):
        with Raw(self.port).open() as raw:
            raw.send(data, step)
            seen, _, frames = raw.until_close()
        if seen != code:
            raise Failed(f"closed with {seen}, expected {code}; before it {frames}")
        if answered is not None and len(frames) != answered:
            raise Failed(f"{len(frames)} frames before the close: {frames}")

    def refused_with(self, data, status, step):
        with Raw(self.port) as raw:
            raw.send(data, step)
            seen, fields, _ = raw.response(has_body=not data.startswith(b"HEAD "))
        if seen != status:
            raise Failed(f"answered {seen}, expected {status}")
        if status == 426 and (fields.get("sec-websocket-version"),
                              fields.get("upgrade")) != ("13", "websocket"):
            raise Failed(f"426 does not say what is spoken (RFC 6455 §4.2.2): {fields}")

    def accepted(self, data, step):
        with Raw(self.port) as raw:
            raw.send(data + frame(TEXT, NO_HELLO), step)
            status, fields, _ = raw.response()
            if status != 101 or fields["sec-websocket-accept"] != accept_of(data):
                raise Failed(f"answered {status} {fields}")
            if {"sec-websocket-extensions", "sec-websocket-protocol"} & set(fields):
                raise Failed(f"agreed to what nobody speaks: {fields}")
            if b"no_hello" not in raw.next_frame()[1]:
                raise Failed("the frame behind the handshake was not answered")


def table(scene):
    for step in (None, 1):
        how = "" if step is None else ", byte by byte"
        for section, what, data, code in violations():
            if step is None or len(data) < 2000:
                scene.row(section, what + how, lambda: scene.closed_with(data, code, step))
        for section, what, data, code in closes():
            scene.row(section, what + how, lambda: scene.closed_with(data, code, step, 0))
        for section, what, data, status in refusals():
            if step is None or len(data) < 2000:
                scene.row(section, what + how, lambda: scene.refused_with(data, status, step))
        for section, what, data in acceptances():
            scene.row(section, what + how, lambda: scene.accepted(data, step))


def in_one_segment(scene):
    """Frames that arrive with the handshake are frames; what is wrong with them is said as ever."""
    def judge(data, code, frames):
        with Raw(scene.port) as raw:
            raw.send(upgrade() + data)
            if raw.response()[0] != 101:
                raise Failed("the handshake was refused")
            seen, _, before = raw.until_close()
        if (seen, len(before)) != (code, frames):
            raise Failed(f"closed with {seen} after {before}")
    for what, data, code, frames in (
            ("a close", close_frame(4001), 4001, 0),
            ("a violation", frame(TEXT, b"{}", mask=False), 1002, 0),
            ("100 pings", frame(PING, b"p") * 100 + close_frame(1000), 1000, 100)):
        scene.row("4.1", f"{what} in one segment with the handshake",
                  lambda: judge(data, code, frames))
    scene.row("4.1", "100 frames in one segment with the handshake",
              lambda: many_in_one_segment(scene))
    before = scene.frame_errors()
    scene.row("5.5.1", "100 frames and a close in one segment: all of them are read", lambda: (
        judge(frame(TEXT, NO_HELLO) * 100 + close_frame(1000), 1000, 0),
        wait_until(lambda: scene.frame_errors() == before + 100, "100 frames are counted")))
    scene.part.decide("frames in one segment with a close",
                      "their answers are not sent any more: the peer said that it is done")


def many_in_one_segment(scene):
    with Raw(scene.port) as raw:
        raw.send(upgrade() + frame(TEXT, NO_HELLO) * 100)
        raw.response()
        answers = [raw.next_frame() for _ in range(100)]
    if not all(first == TEXT and b"no_hello" in text for first, text in answers):
        raise Failed(f"answered {answers}")


def hang_ups(scene):
    """Ends of the stream where nothing should end: no answer is due, and nothing stays behind."""
    def judge(data, upgraded):
        with Raw(scene.port) as raw:
            if upgraded:
                raw.open()
            raw.send(data)
            raw.socket.shutdown(1)
            while raw.more():
                pass

    def reset(data):
        with Raw(scene.port).open() as raw:
            raw.send(data)
            raw.socket.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER 0: RST
    scene.row("7.1.1", "an end within the handshake", lambda: judge(upgrade()[:-2], False))
    for what, data in (("within a frame's head", b"\x81"), ("within a mask", b"\x81\x85\x01"),
                       ("within a payload", frame(TEXT, b"abc", declared=9)),
                       ("between fragments", frame(0x01, b"abc")), ("without a close", b"")):
        scene.row("7.1.1", f"an end {what}", lambda: judge(data, True))
        scene.row("7.1.7", f"a reset {what}", lambda: reset(data))


def deadlines(scene):
    """Waits that the broker ends: nobody holds a connection without a hello, or by staying mute."""
    def judge(before, answers):
        with Raw(scene.port).open() as raw:
            raw.socket.settimeout(DEADLINE_S)
            raw.send(before)
            first, payload = raw.next_frame()
            if first != CLOSE or payload[:2] != struct.pack(">H", 1008) or not payload[2:]:
                raise Failed(f"sent {first:#x} {payload!r}")
            raw.send(close_frame(1008) if answers else b"")
            raw.ends()
    scene.row("10.4", "half a message and no hello in time",
              lambda: judge(frame(0x01, NO_HELLO[:5]), True))
    if not scene.part.quick:
        scene.row("7.1.1", "our close is never answered", lambda: judge(b"", False))


def flood(scene):
    """More connections at once than anybody needs, all of them silent."""
    held = []
    try:
        for _ in range(500):
            raw = Raw(scene.port)
            held.append(raw)
            raw.send(upgrade()[:40])
        scene.row("10.4", "500 connections within their handshakes", lambda: None)
    finally:
        for raw in held:
            raw.socket.close()


def losses(*members):
    return [m.daemon.log_path.read_text(errors="replace").count('"event":"broker_lost"')
            for m in members]


def run(part):
    with World(part.build, durability="relaxed") as world:
        world.start_broker(limits=["hello_deadline_ms=2000"])
        alice, bob = world.mesh_of_two()
        scene, lost = Scene(part, world), losses(alice, bob)
        table(scene)
        in_one_segment(scene)
        hang_ups(scene)
        flood(scene)
        deadlines(scene)
        part.attempt("no descriptor is left behind", lambda: wait_until(
            lambda: len(os.listdir(scene.descriptors)) <= scene.before, "descriptors are closed"))
        part.equal("two daemons were connected all along", losses(alice, bob), lost)
        alice.send("bob", "still here")
        part.attempt("and mail flows", lambda: wait_until(
            lambda: any(i["body"] == "still here" for i in bob.inbox()), "the message arrives"))
        part.check("the broker runs on", world.broker.child.poll() is None)
