// ws_client_peer.mjs STACK — a WebSocket client of others on command (rpc.mjs).
// Owns:   ws, websocket, faye-websocket and websocket-driver; open, text, fragments, binary, ping,
//         close, and what came back.
import fs from 'node:fs';
import net from 'node:net';
import { createRequire } from 'node:module';
import tls from 'node:tls';
import WebSocket from 'ws';
import { serve, until } from './rpc.mjs';

const require = createRequire(import.meta.url);
const LARGEST = 32 << 20;
const stack = process.argv[2];
let got = null; // {open, messages, pongs, close}
let act = null;

function start() { got = { open: false, messages: [], pongs: [], close: null, error: null }; }
const closed = (code, reason) => { got.close ??= { code, reason: String(reason ?? '') }; };

const stacks = {
  ws(url, ca) {
    const socket = new WebSocket(url, { ca, maxPayload: LARGEST });
    socket.on('open', () => { got.open = true; got.extensions = socket.extensions; });
    socket.on('message', (data) => got.messages.push(String(data)));
    socket.on('pong', (data) => got.pongs.push(String(data)));
    socket.on('error', (error) => { got.error = String(error); });
    socket.on('close', closed);
    return {
      text: (text) => socket.send(text),
      binary: (text) => socket.send(Buffer.from(text)),
      fragments: (parts) => parts.forEach((part, index) => socket.send(part,
        { fin: index === parts.length - 1, binary: false })),
      ping: (text) => socket.ping(text),
      close: (code, reason) => socket.close(code, reason),
    };
  },
  websocket(url, ca) {
    const client = new (require('websocket').client)({
      maxReceivedFrameSize: LARGEST, maxReceivedMessageSize: LARGEST, tlsOptions: { ca },
      fragmentOutgoingMessages: true, fragmentationThreshold: 64,
    });
    let connection = null;
    client.on('connectFailed', (error) => { got.error = String(error); });
    client.on('connect', (made) => {
      connection = made;
      got.open = true;
      made.on('message', (m) => got.messages.push(m.utf8Data ?? String(m.binaryData)));
      made.on('pong', (data) => got.pongs.push(String(data)));
      made.on('close', closed);
      made.on('error', () => {});
    });
    client.connect(url);
    return {
      text: (text) => connection.sendUTF(text),
      binary: (text) => connection.sendBytes(Buffer.from(text)),
      fragments: (parts) => connection.sendUTF(parts.join('')), // cut at the threshold
      ping: (text) => connection.ping(text),
      close: (code, reason) => connection.close(code, reason),
    };
  },
  'faye-websocket': (url, ca) => {
    const socket = new (require('faye-websocket').Client)(url, [], { maxLength: LARGEST,
      tls: { ca } });
    socket.on('open', () => { got.open = true; });
    socket.on('message', (event) => got.messages.push(String(event.data)));
    socket.on('error', (event) => { got.error = event.message; });
    socket.on('close', (event) => closed(event.code, event.reason));
    return {
      text: (text) => socket.send(text),
      binary: (text) => socket.send(Buffer.from(text)),
      ping: (text) => socket.ping(text, () => got.pongs.push(text)),
      close: (code, reason) => socket.close(code, reason),
    };
  },
  'websocket-driver': (url, ca) => {
    const { hostname, port, protocol } = new URL(url);
    const driver = require('websocket-driver').client(url, { maxLength: LARGEST });
    const begin = () => driver.start();
    const raw = protocol === 'wss:' ? tls.connect({ host: hostname, port, ca }, begin)
      : net.connect(port, hostname, begin);
    raw.on('error', (error) => { got.error = String(error); });
    raw.pipe(driver.io).pipe(raw);
    driver.on('open', () => { got.open = true; });
    driver.on('close', (event) => closed(event.code, event.reason));
    driver.messages.on('data', (data) => got.messages.push(String(data)));
    return {
      text: (text) => driver.text(text),
      binary: (text) => driver.binary(Buffer.from(text)),
      ping: (text) => driver.ping(text, () => got.pongs.push(text)),
      close: (code, reason) => driver.close(reason, code),
    };
  },
};

serve({
  open({ url, ca }) {
    start();
    act = stacks[stack](url, ca ? fs.readFileSync(ca) : undefined);
    return until(() => got.open || got.error, 'the handshake').then(() => got);
  },
  can: ({ what }) => typeof act[what] === 'function',
  act: ({ what, arguments: values }) => { act[what](...values); },
  pad: ({ bytes, head, tail }) => act.text(head + ' '.repeat(bytes - head.length - tail.length) +
    tail),
  got: () => got,
});
