// reference_client.mjs — a daemon-like client that behaves as existing ones do, in JavaScript.
// Owns:   one membership, its member connection, one attested session connection, an outbox, an
//         inbox on disk.
// Holds:  frames have the reference's members in the reference's order; a client_ack leaves after
//         the row is on disk; an unacked send is sent again on every connection.
// Source: spec/wire.md §1 to §5, spec/observed.md. Shares no code with the product.
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import WebSocket from 'ws';
import * as mesh from './mesh_crypto.mjs';
import { serve, until } from './rpc.mjs';

const PERMANENT = /payload_too_large|forbidden|not_found|invalid|schema|auth|signature/i;
const BACKOFF_MS = [1000, 2000, 4000, 8000, 16000, 30000];

const home = process.argv[2];
let me = null; // {pubkey, secret, memberId, meshId, url}
let session = null; // {pubkey, secret, id, name, groups}
const outbox = new Map(); // id -> row
const inbox = new Map(); // dedupe key -> row
let duplicates = 0;
const links = {};
const inboxFile = fs.openSync(`${home}/inbox.jsonl`, 'a', 0o600);

async function join({ invite, name }) {
  const { token, payload } = mesh.readInvite(invite);
  me = { ...mesh.newPair(), meshId: payload.mesh_id, url: payload.broker_url };
  const base = payload.broker_url.replace(/^ws/, 'http').replace('/ws', '');
  const reply = await fetch(`${base}/join`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'user-agent': 'claudemesh-cli/1.0' },
    body: JSON.stringify({
      invite_token: token, invite_payload: payload, peer_pubkey: me.pubkey, display_name: name,
    }),
  });
  const body = await reply.json();
  me.memberId = body.memberId;
  return { status: reply.status, body, pubkey: me.pubkey, memberId: me.memberId,
    meshId: me.meshId };
}

function memberHello() {
  const hello = {
    type: 'hello', meshId: me.meshId, memberId: me.memberId, pubkey: me.pubkey,
    sessionId: `daemon-${process.pid}`, pid: process.pid, cwd: process.cwd(),
    hostname: os.hostname(), peerType: 'ai', channel: 'claudemesh-daemon', timestamp: Date.now(),
  };
  hello.signature = mesh.sign(mesh.helloText(hello), me.secret);
  return hello;
}

function sessionHello() {
  const attestation = {
    sessionPubkey: session.pubkey, parentMemberPubkey: me.pubkey,
    expiresAt: Date.now() + 12 * 3600 * 1000,
  };
  attestation.signature = mesh.sign(mesh.attestationText(attestation), me.secret);
  const hello = {
    type: 'session_hello', meshId: me.meshId, parentMemberId: me.memberId,
    parentMemberPubkey: me.pubkey, sessionPubkey: session.pubkey, parentAttestation: attestation,
    displayName: session.name, sessionId: session.id, pid: process.pid, cwd: process.cwd(),
    hostname: os.hostname(), peerType: 'ai', channel: 'claudemesh-session',
    ...(session.groups ? { groups: session.groups } : {}), timestamp: Date.now(),
  };
  hello.signature = mesh.sign(mesh.sessionHelloText(hello), session.secret);
  return hello;
}

class Link {
  constructor(kind) {
    Object.assign(this, { kind, frames: [], closes: [], attempt: 0, state: 'closed', pongs: 0 });
    this.stopped = false;
  }

  open() {
    this.state = 'connecting';
    const socket = new WebSocket(me.url); // offers permessage-deflate, as the library does
    this.socket = socket;
    socket.on('open', () => {
      this.extensions = socket.extensions;
      this.write(this.kind === 'member' ? memberHello() : sessionHello());
      this.deadline = setTimeout(() => socket.close(), 5000);
    });
    socket.on('message', (data, binary) => this.read(String(data), binary));
    socket.on('pong', () => { this.pongs += 1; });
    socket.on('error', () => {});
    socket.on('close', (code, reason) => this.closed(socket, code, String(reason)));
  }

  closed(socket, code, reason) {
    if (socket !== this.socket) return;
    clearTimeout(this.deadline);
    this.closes.push({ code, reason });
    this.state = 'closed';
    if (this.stopped) return;
    const wait = BACKOFF_MS[Math.min(this.attempt, BACKOFF_MS.length - 1)];
    this.attempt += 1;
    setTimeout(() => { if (!this.stopped) this.open(); }, wait);
  }

  write(frame) { this.socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame)); }

  read(text, binary) {
    const frame = JSON.parse(text);
    this.frames.push(binary ? { ...frame, binary } : frame);
    if (frame.type === 'hello_ack') {
      clearTimeout(this.deadline);
      this.attempt = 0;
      this.state = 'open';
      this.socket.ping();
      for (const row of outbox.values()) {
        if (row.via === this.kind && row.state === 'pending') this.write(row.frame);
      }
    } else if (frame.type === 'ack' && outbox.has(frame.id)) {
      this.acked(outbox.get(frame.id), frame);
    } else if (frame.type === 'push') {
      this.pushed(frame);
    }
  }

  acked(row, ack) {
    row.acks.push(ack);
    row.messageId = ack.messageId;
    row.error = ack.error;
    if (!ack.error) row.state = 'done';
    else if (PERMANENT.test(ack.error)) row.state = 'dead';
    else setTimeout(() => { if (this.state === 'open') this.write(row.frame); }, 1000);
  }

  pushed(push) {
    if (push.subtype === 'system') return;
    const key = push.client_message_id ?? push.messageId;
    if (inbox.has(key)) {
      duplicates += 1;
    } else {
      let text = session ? mesh.openText(push, session.secret) : null;
      text ??= mesh.openText(push, me.secret);
      const sealed = text !== null;
      text ??= Buffer.from(push.ciphertext, 'base64').toString('utf8');
      const row = { key, text, sealed, via: this.kind, push };
      inbox.set(key, row);
      fs.writeSync(inboxFile, JSON.stringify(row) + '\n');
      fs.fdatasyncSync(inboxFile);
    }
    this.write({ type: 'client_ack', clientMessageId: key, brokerMessageId: push.messageId });
  }
}

function send({ target, text, id, via = 'member', priority = 'next', ref, wait = true }) {
  const direct = /^[0-9a-f]{64}$/.test(target);
  const secret = via === 'session' ? session.secret : me.secret;
  const body = direct ? mesh.sealText(text, target, secret) : mesh.plainBody(text);
  const kind = /^[@*]/.test(target) ? 'topic' : 'dm';
  const clientId = id ?? crypto.randomUUID();
  const frame = {
    type: 'send', id: clientId, client_message_id: clientId,
    request_fingerprint: mesh.fingerprint({
      kind, ref: ref ?? target.replace(/^@/, ''), priority, text,
    }),
    targetSpec: target, priority, ...body,
  };
  const row = { id: clientId, via, frame, state: 'pending', acks: [] };
  outbox.set(clientId, row);
  if (links[via]?.state === 'open') links[via].write(frame);
  return wait ? until(() => row.state !== 'pending' && brief(row), `ack of ${clientId}`)
    : { id: clientId };
}
const brief = ({ frame, ...row }) => row;

let serial = 0;
async function request({ via = 'member', frame, accept }) {
  const link = links[via];
  const requestId = `rq-${++serial}`;
  const from = link.frames.length;
  link.write({ ...frame, _reqId: requestId });
  return until(() => link.frames.slice(from).find((f) => accept.includes(f.type) &&
    f._reqId === requestId), `reply ${accept} to ${frame.type}`, 5000);
}

serve({
  join,
  adopt({ op, ...membership }) { me = membership; },
  // `alone`: the session's connection only; another process is the member's daemon.
  start({ withSession, name = 'session', groups, alone = false }) {
    if (withSession) session = { ...mesh.newPair(), id: crypto.randomUUID(), name, groups };
    if (!alone) { links.member = new Link('member'); links.member.open(); }
    if (session) { links.session = new Link('session'); links.session.open(); }
    return { session: session?.pubkey };
  },
  ready: () => until(() => Object.values(links).every((l) => l.state === 'open'), 'hello_ack'),
  status: () => Object.fromEntries(Object.entries(links).map(([kind, l]) => [kind, {
    state: l.state, closes: l.closes, extensions: l.extensions, pongs: l.pongs,
    helloAck: l.frames.filter((f) => f.type === 'hello_ack').at(-1),
  }])),
  send,
  resend: ({ id }) => {
    const row = outbox.get(id);
    const before = row.acks.length;
    links[row.via].write(row.frame);
    return until(() => row.acks.length > before && row.acks.at(-1), 'second ack');
  },
  outbox: () => [...outbox.values()].map(brief),
  inbox: () => [...inbox.values()],
  duplicates: () => duplicates,
  request,
  write({ via = 'member', frame, text, binary }) {
    links[via].socket.send(text ?? JSON.stringify(frame), { binary: Boolean(binary) });
  },
  mark: ({ via = 'member' }) => links[via].frames.length,
  frames: ({ via = 'member', from = 0 }) => links[via].frames.slice(from),
  // A second socket with the same session: the older one must be closed 1000.
  async takeOver() {
    const old = links.session;
    old.stopped = true;
    links.session = new Link('session');
    links.session.open();
    await until(() => old.closes.length > 0, 'the older session socket is closed');
    await until(() => links.session.state === 'open', 'the newer session socket is open');
    return old.closes.at(-1);
  },
  hello: ({ sessionId }) => {
    const hello = { ...memberHello(), sessionId };
    return JSON.stringify(hello); // sessionId is not signed
  },
  stop() { for (const l of Object.values(links)) { l.stopped = true; l.socket.close(1000); } },
});
