// reference_broker.mjs [STACK] — a broker that behaves as existing ones do, in JavaScript.
// Owns:   one mesh in memory, its members, presences and queue; faults on command.
// Holds:  no reply to unknown types or bad JSON, no dedupe, the ack before the push, direct pushes
//         without sender members, no permessage-deflate, the path exactly /ws.
// Source: spec/wire.md tag [R], spec/observed.md. Shares no code with the product.
import crypto from 'node:crypto';
import http from 'node:http';
import * as mesh from './mesh_crypto.mjs';
import { serve } from './rpc.mjs';
import { serveWebSockets } from './ws_servers.mjs';

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const newId = () => Array.from(crypto.randomBytes(32), (b) => ALPHABET[b % 62]).join('');
const owner = mesh.newPair();
const meshId = newId();
const tokens = new Set();
const members = new Map(); // pubkey -> {id, name, revoked}
const presences = new Set(); // {socket, member, key, ...}
const queue = []; // rows
const seen = { upgrades: [], joins: [], frames: [], closes: [], pongs: [] };
const faults = { errors: [], dropAfterInsert: 0, bare: false };
let port = 0;

function invite(name = 'elsewhere') {
  const payload = {
    v: 1, mesh_id: meshId, mesh_slug: name, broker_url: `ws://127.0.0.1:${port}/ws`,
    expires_at: Math.floor(Date.now() / 1000) + 3600,
    mesh_root_key: crypto.randomBytes(32).toString('base64url'), role: 'member',
    owner_pubkey: owner.pubkey,
  };
  payload.signature = mesh.sign(mesh.inviteText(payload), owner.secret);
  const token = Buffer.from(JSON.stringify(payload)).toString('base64url');
  tokens.add(token);
  return `ic://join/${token}`;
}

function join(body) {
  seen.joins.push(body);
  const p = body.invite_payload;
  if (!p || !/^[0-9a-f]{64}$/.test(body.peer_pubkey ?? '') || !body.display_name) {
    return [400, { ok: false, error: 'missing fields' }];
  }
  if (!mesh.verify(mesh.inviteText(p), p.signature, p.owner_pubkey)) {
    return [400, { ok: false, error: 'invite_bad_signature' }];
  }
  if (p.owner_pubkey !== owner.pubkey) return [400, { ok: false, error: 'invite_owner_mismatch' }];
  if (!tokens.has(body.invite_token)) return [400, { ok: false, error: 'invite_not_found' }];
  const known = members.get(body.peer_pubkey);
  if (known) return [200, { ok: true, memberId: known.id, alreadyMember: true }];
  const member = { id: newId(), name: body.display_name };
  members.set(body.peer_pubkey, member);
  return [200, { ok: true, memberId: member.id }];
}

const server = http.createServer((request, reply) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk)).on('end', () => {
    if (request.method !== 'POST' || request.url !== '/join') {
      reply.writeHead(404).end();
      return;
    }
    const [status, body] = join(JSON.parse(Buffer.concat(chunks).toString()));
    reply.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  });
});
serveWebSockets(process.argv[2] ?? 'ws', server, accept,
  ({ url, headers }) => seen.upgrades.push({ url, headers }));

// As there: nothing is written to a socket that is being closed.
const write = (presence, data, options) => {
  if (!presence.closing) presence.socket.send(data, options);
};
const put = (presence, frame) => write(presence, JSON.stringify(frame));
function close(presence, code, reason) {
  presence.closing = true;
  presence.socket.close(code, reason);
}
const routing = (presence) => presence.sessionKey ?? presence.memberKey;

function accept(socket) {
  const presence = { socket, ready: false };
  socket.on('message', (data) => {
    seen.frames.push(String(data));
    let frame = null;
    try { frame = JSON.parse(String(data)); } catch { return; } // dropped without a word
    try { handle(presence, frame); } catch { /* swallowed, as there */ }
  });
  socket.on('close', (code, reason) => {
    seen.closes.push({ code, reason: String(reason) });
    presences.delete(presence);
  });
  socket.on('pong', (data) => seen.pongs.push(String(data)));
  socket.on('error', () => {});
}

function refuse(presence, code) {
  put(presence, { type: 'error', code, message: `hello rejected: ${code}` });
  close(presence, 1008, code);
}

function hello(presence, h) {
  if (!Number.isFinite(h.timestamp) || Math.abs(Date.now() - h.timestamp) > 60000) {
    return refuse(presence, 'timestamp_skew');
  }
  if (!mesh.verify(mesh.helloText(h), h.signature, h.pubkey)) {
    return refuse(presence, 'bad_signature');
  }
  const member = members.get(h.pubkey);
  if (h.meshId !== meshId || !member) return refuse(presence, 'unauthorized');
  for (const old of presences) {
    if (old.sessionId === h.sessionId) close(old, 1000, 'session_replaced');
  }
  return attach(presence, h, member, h.pubkey, h.sessionPubkey, 'control-plane');
}

function sessionHello(presence, h) {
  const a = h.parentAttestation;
  if (a?.sessionPubkey !== h.sessionPubkey || a?.parentMemberPubkey !== h.parentMemberPubkey) {
    return refuse(presence, 'attestation_mismatch');
  }
  if (!(a.expiresAt > Date.now())) return refuse(presence, 'expired');
  if (a.expiresAt > Date.now() + 86400000) return refuse(presence, 'ttl_too_long');
  if (!mesh.verify(mesh.attestationText(a), a.signature, a.parentMemberPubkey) ||
      !mesh.verify(mesh.sessionHelloText(h), h.signature, h.sessionPubkey)) {
    return refuse(presence, 'bad_signature');
  }
  const member = members.get(h.parentMemberPubkey);
  if (h.meshId !== meshId || !member) return refuse(presence, 'unauthorized');
  return attach(presence, h, member, h.parentMemberPubkey, h.sessionPubkey, 'session');
}

function attach(presence, h, member, memberKey, sessionKey, role) {
  Object.assign(presence, {
    ready: true, id: newId(), member, memberKey, sessionKey, role, sessionId: h.sessionId,
    name: h.displayName ?? member.name, cwd: h.cwd, hostname: h.hostname, peerType: h.peerType,
    channel: h.channel, groups: h.groups ?? [], at: new Date().toISOString(),
  });
  presences.add(presence);
  drain(presence); // may precede hello_ack, as there
  put(presence, {
    type: 'hello_ack', presenceId: presence.id, memberDisplayName: presence.name,
    memberProfile: { roleTag: null, groups: presence.groups, messageMode: 'push' },
    ...(role === 'control-plane' ? { services: [] } : {}),
  });
  for (const other of presences) {
    if (other.member === member) continue;
    put(other, {
      type: 'push', subtype: 'system', event: 'peer_joined',
      eventData: { name: presence.name, pubkey: routing(presence), groups: presence.groups },
      messageId: crypto.randomUUID(), meshId, senderPubkey: 'system', priority: 'low', nonce: '',
      ciphertext: '', createdAt: new Date().toISOString(),
    });
  }
}

function send(from, frame) {
  const id = frame.id ?? '';
  const no = (error) => put(from, { type: 'ack', id, messageId: '', queued: false, error });
  if (faults.errors.length > 0) return no(faults.errors.shift());
  const size = frame.ciphertext.length + frame.nonce.length + frame.targetSpec.length;
  if (size > 65536) return no(`payload too large: ${size} bytes > MAX_MESSAGE_BYTES=65536`);
  const direct = !/^[*@#]/.test(frame.targetSpec);
  const targets = [...presences].filter((p) => p !== from && (direct
    ? [p.memberKey, p.sessionKey].includes(frame.targetSpec)
    : p.member !== from.member && (frame.targetSpec === '*' ||
        p.groups.some((g) => '@' + g.name === frame.targetSpec))));
  if (direct && targets.length === 0) {
    return no('no connected peer for target (not online, or targetSpec is your own key without ' +
      'another session)');
  }
  const row = {
    messageId: newId(), senderPubkey: routing(from), senderMemberPubkey: from.memberKey,
    senderMemberId: from.member.id, senderName: from.name, frame, direct,
    createdAt: new Date().toISOString(), deliveredAt: null, pushes: 0, bare: faults.bare,
  };
  queue.push(row);
  if (faults.dropAfterInsert > 0) {
    faults.dropAfterInsert -= 1;
    from.socket.terminate();
  } else {
    put(from, { type: 'ack', id, messageId: row.messageId, queued: true });
  }
  for (const target of targets) push(target, row);
  return undefined;
}

function push(to, row) {
  const { frame } = row;
  row.pushes += 1;
  put(to, {
    type: 'push', messageId: row.messageId, meshId, senderPubkey: row.senderPubkey,
    ...(row.direct ? {} : { senderMemberPubkey: row.senderMemberPubkey,
      senderMemberId: row.senderMemberId, senderName: row.senderName }),
    priority: frame.priority, nonce: frame.nonce, ciphertext: frame.ciphertext,
    createdAt: row.createdAt,
    ...(row.direct && !row.bare ? { client_message_id: frame.client_message_id,
      request_fingerprint: frame.request_fingerprint } : {}),
  });
}

function drain(presence) {
  for (const row of queue) {
    const mine = [presence.memberKey, presence.sessionKey].includes(row.frame.targetSpec);
    if (mine && !row.deliveredAt) push(presence, row);
  }
}

function handle(presence, frame) {
  const reply = (body) => put(presence, { ...body,
    ...(frame._reqId === undefined ? {} : { _reqId: frame._reqId }) });
  if (frame.type === 'hello') return hello(presence, frame);
  if (frame.type === 'session_hello') return sessionHello(presence, frame);
  if (!presence.ready) {
    return put(presence, { type: 'error', code: 'no_hello', message: 'must send hello first' });
  }
  switch (frame.type) {
    case 'send': return send(presence, frame);
    case 'client_ack':
      for (const row of queue) {
        if (row.frame.client_message_id === frame.clientMessageId ||
            row.messageId === frame.brokerMessageId) row.deliveredAt ??= new Date().toISOString();
      }
      return undefined;
    case 'list_peers':
      return reply({ type: 'peers_list', peers: [...presences].map((p) => ({
        pubkey: routing(p), memberPubkey: p.memberKey, displayName: p.name, status: 'idle',
        summary: null, groups: p.groups, sessionId: p.sessionId, connectedAt: p.at, cwd: p.cwd,
        hostname: p.hostname, peerType: p.peerType, channel: p.channel, peerRole: p.role,
        visible: true })) });
    default: return undefined; // silently ignored
  }
}

serve({
  start: () => new Promise((resolve) => server.listen(0, '127.0.0.1', () => {
    port = server.address().port;
    resolve(port);
  })),
  invite: () => invite(),
  faults: (wanted) => Object.assign(faults, wanted),
  seen: () => seen,
  queue: () => queue,
  online: () => [...presences].map((p) => p.name),
  redeliver() { // as when leases of 30 s run out: acked or not does not matter to dedupe
    for (const row of queue) {
      for (const p of presences) if (p.memberKey === row.frame.targetSpec) push(p, row);
    }
  },
  inject({ text = '', binary = false, ping = false, pad = 0 }) {
    for (const p of presences) {
      if (ping) p.socket.ping(text); else write(p, text.padEnd(pad), { binary });
    }
  },
  cut({ code }) {
    for (const p of presences) if (code) close(p, code, 'cut'); else p.socket.terminate();
  },
});
