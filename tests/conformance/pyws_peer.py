#!/usr/bin/python3
"""pyws_peer.py client|relay — Debian's python3-websockets in both roles.

client: the commands of ws_client_peer.mjs over standard input. relay URL: a server that passes
every message on to the broker at URL and back; it prints its port.
"""

import asyncio
import json
import ssl
import sys

import websockets

LARGEST = 32 << 20


class Client:
    def __init__(self):
        self.got, self.socket, self.tasks = {}, None, []

    async def open(self, url, ca=None):
        self.got = {"open": False, "messages": [], "pongs": [], "close": None, "error": None}
        options = {"ssl": ssl.create_default_context(cafile=ca)} if ca else {}
        try:  # offers permessage-deflate, as the library does
            self.socket = await websockets.connect(url, max_size=LARGEST, **options)
        except (OSError, websockets.WebSocketException) as error:
            self.got["error"] = str(error)
            return self.got
        self.got["open"] = True
        self.got["extensions"] = ",".join(e.name for e in self.socket.extensions)
        self.tasks.append(asyncio.create_task(self.read(self.socket, self.got)))
        return self.got

    async def read(self, socket, got):
        try:
            async for message in socket:
                got["messages"].append(message)
        except websockets.ConnectionClosed:
            pass
        got["close"] = {"code": socket.close_code, "reason": socket.close_reason or ""}

    async def can(self, what):
        return what in ("text", "binary", "fragments", "ping", "close")

    async def act(self, what, arguments):
        if what == "fragments":
            await self.socket.send(arguments[0])
        elif what == "ping":
            waiter = await self.socket.ping(arguments[0])
            waiter.add_done_callback(lambda _: self.got["pongs"].append(arguments[0]))
        elif what == "close":
            self.tasks.append(asyncio.create_task(self.socket.close(*arguments)))
        else:
            await self.socket.send(arguments[0].encode() if what == "binary" else arguments[0])

    async def pad(self, bytes, head, tail):  # noqa: A002, the commands' name
        await self.socket.send(head + " " * (bytes - len(head) - len(tail)) + tail)

    async def state(self):
        return self.got


async def client():
    peer = Client()
    reader = asyncio.StreamReader(limit=LARGEST)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        number, operation = command.pop("n"), command.pop("op")
        call = peer.state if operation == "got" else getattr(peer, operation)
        try:
            answer = {"result": await call(**command)}
        except Exception as error:  # the caller is told, whatever it was
            answer = {"error": repr(error)}
        print(json.dumps({"n": number, **answer}), flush=True)


async def relay(url):
    async def passing(source, target):
        try:
            async for message in source:
                await target.send(message)
        except websockets.ConnectionClosed:
            pass
        await target.close()

    async def serve(socket):
        async with websockets.connect(url, max_size=LARGEST, compression=None) as upstream:
            await asyncio.gather(passing(socket, upstream), passing(upstream, socket))

    async with websockets.serve(serve, "127.0.0.1", 0, max_size=LARGEST) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(client() if sys.argv[1] == "client" else relay(sys.argv[2]))
