"""raw_ws.py — WebSocket bytes by hand: frames with every field as asked, and a socket to send them.

Written from RFC 6455 alone; shares nothing with the product. Nothing here checks what it sends.
"""

import base64
import hashlib
import os
import socket
import struct

from suite import Failed

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
PATIENCE_S = 10.0
NO_HELLO = b'{"type":"list_peers","_reqId":"early"}'  # a good frame, answered with an error


def frame(first, payload=b"", mask=True, form=None, declared=None):
    """One frame. form: bytes of the extended length (0, 2, 8); declared: the length it claims."""
    size = len(payload) if declared is None else declared
    if form is None:
        form = 0 if size < 126 else 2 if size < 1 << 16 else 8
    seven = {0: size, 2: 126, 8: 127}[form]
    head = bytes([first, seven | (0x80 if mask else 0)])
    head += {0: b"", 2: struct.pack(">H", size & 0xFFFF), 8: struct.pack(">Q", size)}[form]
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(b ^ key[n % 4] for n, b in enumerate(payload))


def close_frame(code, reason=b""):
    return frame(CLOSE, struct.pack(">H", code) + reason)


def upgrade(drop=(), line="GET /ws HTTP/1.1", **fields):
    """An opening handshake. A field of None or in `drop` is left out; lists are sent in turn."""
    wanted = {"Host": "localhost", "Upgrade": "websocket", "Connection": "Upgrade",
              "Sec-WebSocket-Version": "13",
              "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode()}
    wanted.update({name.replace("_", "-"): value for name, value in fields.items()})
    text = line + "\r\n"
    for name, value in wanted.items():
        if value is None or name in drop:
            continue
        for one in value if isinstance(value, list) else [value]:
            text += f"{name}: {one}\r\n"
    return (text + "\r\n").encode("latin-1")


def accept_of(request):
    key = next(line for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: "))
    digest = hashlib.sha1(key[19:] + GUID.encode()).digest()  # noqa: S324, what the RFC says
    return base64.b64encode(digest).decode()


class Raw:
    """A socket on the broker; reads with a deadline, and says so when a peer hangs up."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pending = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data, step=None):
        """All at once, or `step` bytes in each segment. The broker may hang up at any byte."""
        try:
            for at in range(0, len(data), step or len(data) or 1):
                self.socket.sendall(data[at:at + (step or len(data))])
        except (BrokenPipeError, ConnectionResetError):
            pass

    def more(self):
        """False at the end of the stream."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        except TimeoutError:
            raise Failed(f"no answer in {PATIENCE_S:.0f} s; so far {self.pending[:80]!r}") from None
        self.pending += data
        return bool(data)

    def take(self, size):
        while len(self.pending) < size:
            if not self.more():
                raise Failed(f"the stream ended within {self.pending[:80]!r}")
        data, self.pending = self.pending[:size], self.pending[size:]
        return data

    def response(self, has_body=True):
        """(status, fields in lower case, body) of one HTTP response."""
        while b"\r\n\r\n" not in self.pending:
            if not self.more():
                raise Failed(f"the stream ended within {self.pending[:80]!r}")
        head = self.take(self.pending.index(b"\r\n\r\n") + 4).decode("latin-1").split("\r\n")
        fields = {}
        for line in head[1:-2]:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        status = int(head[0].split(" ")[1])
        has_body = has_body and status != 101
        body = self.take(int(fields.get("content-length", "0"))) if has_body else b""
        return status, fields, body

    def open(self):
        request = upgrade()
        self.send(request)
        status, fields, body = self.response()
        if status != 101 or fields.get("sec-websocket-accept") != accept_of(request):
            raise Failed(f"a good handshake was answered {status} {fields} {body!r}")
        return self

    def next_frame(self):
        """(first byte, payload); a server's frames are never masked."""
        first, second = self.take(2)
        if second & 0x80:
            raise Failed("the server masked a frame")
        size = second
        if size == 126:
            size, = struct.unpack(">H", self.take(2))
        elif size == 127:
            size, = struct.unpack(">Q", self.take(8))
        return first, self.take(size)

    def until_close(self):
        """(code or None for an empty one, reason, the frames before it); then the stream ends."""
        before = []
        while True:
            first, payload = self.next_frame()
            if first != CLOSE:
                before.append((first, payload))
                continue
            self.ends()
            code = struct.unpack(">H", payload[:2])[0] if payload else None
            return code, payload[2:].decode(), before

    def ends(self):
        while self.more():
            pass
        if self.pending:
            raise Failed(f"{self.pending[:40]!r} came behind the end")
