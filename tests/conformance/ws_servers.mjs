// ws_servers.mjs — four WebSocket servers of others behind one small interface.
// Owns:   serveWebSockets(stack, server, accept, refuse): ws, websocket, faye-websocket and
//         websocket-driver; sockets with send, ping, close, terminate and the events message,
//         pong, close.
// Holds:  the path is exactly /ws; permessage-deflate is never accepted. `websocket` sends in
//         fragments of 1,000 bytes.
import { EventEmitter } from 'node:events';
import { createRequire } from 'node:module';
import { WebSocketServer } from 'ws';

const require = createRequire(import.meta.url);
const LARGEST = 32 << 20;

class Wire extends EventEmitter {
  constructor(actions) { super(); Object.assign(this, actions); }
}

function overWs(server, accept) {
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });
  return (request, raw, head) => sockets.handleUpgrade(request, raw, head, accept);
}

function overWebsocket(server, accept) {
  const sockets = new (require('websocket').server)({
    httpServer: server, keepalive: false, maxReceivedFrameSize: LARGEST,
    maxReceivedMessageSize: LARGEST, fragmentOutgoingMessages: true, fragmentationThreshold: 1000,
  });
  sockets.on('request', (request) => {
    if (request.httpRequest.url !== '/ws') { request.socket.destroy(); return; }
    const connection = request.accept(null, request.origin);
    const wire = new Wire({
      send: (text, o) => (o?.binary ? connection.sendBytes(Buffer.from(text))
        : connection.sendUTF(text)),
      ping: (text = '') => connection.ping(text),
      close: (code, reason) => connection.close(code, reason),
      terminate: () => connection.socket.destroy(),
    });
    connection.on('message', (m) => wire.emit('message', m.utf8Data ?? String(m.binaryData)));
    connection.on('pong', (data) => wire.emit('pong', data));
    connection.on('close', (code, reason) => wire.emit('close', code, reason));
    connection.on('error', () => {});
    accept(wire);
  });
  return () => {};
}

function overFaye(server, accept) {
  const Socket = require('faye-websocket');
  return (request, raw, head) => {
    const socket = new Socket(request, raw, head, [], { maxLength: LARGEST });
    const wire = new Wire({
      send: (text, o) => socket.send(o?.binary ? Buffer.from(text) : text),
      ping: (text = '') => socket.ping(text, () => wire.emit('pong', text)),
      close: (code, reason) => socket.close(code, reason),
      terminate: () => raw.destroy(),
    });
    socket.on('message', (event) => wire.emit('message', event.data));
    socket.on('close', (event) => wire.emit('close', event.code, event.reason));
    accept(wire);
  };
}

function overDriver(server, accept) {
  const drivers = require('websocket-driver');
  return (request, raw, head) => {
    const driver = drivers.http(request, { maxLength: LARGEST });
    const wire = new Wire({
      send: (text, o) => (o?.binary ? driver.binary(Buffer.from(text)) : driver.text(text)),
      ping: (text = '') => driver.ping(text, () => wire.emit('pong', text)),
      close: (code, reason) => driver.close(reason, code),
      terminate: () => raw.destroy(),
    });
    driver.on('close', (event) => wire.emit('close', event.code, event.reason));
    driver.messages.on('data', (data) => wire.emit('message', data));
    raw.on('error', () => {}).on('close', () => driver.io.end());
    driver.io.write(head);
    raw.pipe(driver.io).pipe(raw);
    accept(wire);
    driver.start();
  };
}

const STACKS = { ws: overWs, websocket: overWebsocket, 'faye-websocket': overFaye,
  'websocket-driver': overDriver };

export function serveWebSockets(stack, server, accept, seen) {
  const upgrade = STACKS[stack](server, accept);
  server.on('upgrade', (request, raw, head) => {
    seen(request);
    if (request.url !== '/ws') { raw.destroy(); return; }
    upgrade(request, raw, head);
  });
}
