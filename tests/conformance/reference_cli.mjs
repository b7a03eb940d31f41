// reference_cli.mjs — a command line that behaves as the reference's does on a daemon's IPC.
// Owns:   the calls, the probe, target resolution through the roster, the verbs' JSON and exit
//         codes, a reader of the event stream.
// Holds:  one request a connection over the unix socket, `accept` and `host` as the reference sends
//         them, 5 s for a call (2.5 s for the probe, 3 s for a send); unknown members are ignored.
// Source: spec/ipc.md §2 to §8, spec/cli.md §4, §8 to §12. Shares no code with the product.
import fs from 'node:fs';
import http from 'node:http';
import { serve } from './rpc.mjs';

const socketPath = process.argv[2];
const CALL_MS = 5000;
const PROBE_MS = 2500;
const SEND_MS = 3000;

function request({ method = 'GET', path, body, raw, headers = {}, ms = CALL_MS }) {
  const text = raw ?? (body === undefined ? undefined : JSON.stringify(body));
  return new Promise((resolve, reject) => {
    const call = http.request({
      socketPath, method, path, agent: false, timeout: ms,
      headers: {
        accept: 'application/json', host: 'localhost',
        ...(text === undefined ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
        ...headers,
      },
    }, (reply) => {
      const parts = [];
      reply.on('data', (part) => parts.push(part));
      reply.on('end', () => {
        const said = Buffer.concat(parts).toString('utf8');
        let parsed = null;
        try { parsed = JSON.parse(said); } catch { /* the caller sees null */ }
        resolve({ status: reply.statusCode, headers: reply.headers, body: parsed });
      });
    });
    call.on('timeout', () => call.destroy(new Error(`no answer within ${ms} ms`)));
    call.on('error', reject);
    call.end(text);
  });
}

const query = (path, values) => {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== '');
  return given.length === 0 ? path : `${path}?${new URLSearchParams(given)}`;
};

async function probe() {
  if (!fs.existsSync(socketPath)) return 'absent';
  try {
    return (await request({ path: '/v1/version', ms: PROBE_MS })).status === 200 ? 'up' : 'stale';
  } catch {
    return 'stale';
  }
}

// --- peers ---

async function roster(mesh) {
  const reply = await request({ path: query('/v1/peers', { mesh }) });
  if (reply.status !== 200) throw new Error(`peers: ${reply.status} ${reply.body?.error}`);
  return reply.body.peers;
}

async function peerList({ mesh, own, all = false }) {
  const rows = await roster(mesh);
  return rows.map((row) => ({
    ...row, isSelf: row.memberPubkey === own, peerRole: row.peerRole ?? 'session',
    role: row.profile?.role ?? null,
  })).filter((row) => all || row.peerRole !== 'control-plane');
}

// --- send ---

const isHex = (text, least, most) =>
  text.length >= least && text.length <= most && /^[0-9a-f]+$/i.test(text);

// Which key of which mesh: keys and their beginnings, else names; control-plane rows do not count.
async function resolveTarget(to, meshes) {
  const hits = [];
  for (const mesh of meshes) {
    for (const row of await roster(mesh)) {
      if (row.peerRole === 'control-plane') continue;
      const keys = [row.pubkey, row.memberPubkey].filter(Boolean);
      const match = isHex(to, 4, 64) ? keys.some((key) => key.startsWith(to.toLowerCase()))
        : row.displayName?.toLowerCase() === to.toLowerCase();
      if (match && !hits.some((hit) => hit.key === row.pubkey)) hits.push({ mesh, key: row.pubkey });
    }
  }
  return hits;
}

async function send({ to, message, priority, mesh, meshes = [], id, key, meta, replyTo }) {
  const candidates = mesh ? [mesh] : meshes;
  let target = to;
  let chosen = mesh;
  if (!/^[@#*]/.test(to)) {
    const hits = await resolveTarget(to, candidates);
    if (hits.length === 0 && !isHex(to, 64, 64)) return { exit: 1, error: 'no such peer' };
    if (new Set(hits.map((hit) => hit.mesh)).size > 1) return { exit: 1, error: 'use --mesh' };
    if (hits.length > 1) return { exit: 1, error: 'ambiguous' };
    if (hits.length === 1) [chosen, target] = [hits[0].mesh, hits[0].key];
  }
  const body = { to: target, message };
  for (const [name, value] of Object.entries({
    priority, mesh: chosen, client_message_id: id, meta, reply_to_id: replyTo,
  })) {
    if (value !== undefined) body[name] = value;
  }
  const reply = await request({
    method: 'POST', path: '/v1/send', body, ms: SEND_MS,
    headers: key === undefined ? {} : { 'idempotency-key': key },
  });
  if (reply.status !== 200 && reply.status !== 202) {
    return { exit: 1, status: reply.status, posted: target, reply: reply.body,
      line: { ok: false, error: reply.body?.error, via: 'daemon' } };
  }
  return { exit: 0, status: reply.status, posted: target, reply: reply.body, line: {
    ok: true, messageId: reply.body.client_message_id, target: to, via: 'daemon',
    duplicate: reply.body.duplicate ?? false, status: reply.body.status ?? 'done',
  } };
}

// --- inbox ---

const DAEMON_ERROR = (reply) => ({ exit: 1, status: reply.status,
  line: { ok: false, error: reply.body?.error } });

async function inbox({ mesh, limit = 100, unread = false, seen = true }) {
  const reply = await request({ path: query('/v1/inbox', {
    mesh, limit, ...(unread ? { unread_only: 'true' } : {}), ...(seen ? {} : { mark_seen: 'false' }),
  }) });
  return reply.status === 200
    ? { exit: 0, items: reply.body.items, marked: reply.body.marked_seen } : DAEMON_ERROR(reply);
}

async function inboxFlush({ mesh, before, all = false }) {
  if (!mesh && !before && !all) return { exit: 1, line: { ok: false, error: 'missing_filter' } };
  // --all names no filter at all.
  const reply = await request({ method: 'DELETE', path: query('/v1/inbox', { mesh, before }) });
  return reply.status === 200
    ? { exit: 0, status: 200, line: { ok: true, removed: reply.body.removed } }
    : DAEMON_ERROR(reply);
}

async function inboxDelete({ id }) {
  if (!id) return { exit: 1, line: { ok: false, error: 'missing_id' } };
  const reply = await request({ method: 'DELETE', path: `/v1/inbox/${encodeURIComponent(id)}` });
  if (reply.status === 404) return { exit: 1, status: 404, line: { ok: false, error: 'not_found' } };
  return reply.status === 200
    ? { exit: 0, status: 200, line: { ok: true, id: reply.body.id } } : DAEMON_ERROR(reply);
}

// --- events ---

let stream = null;

function openEvents({ headers = {} }) {
  return new Promise((resolve, reject) => {
    const call = http.request({ socketPath, path: '/v1/events', agent: false,
      headers: { accept: 'text/event-stream', host: 'localhost', ...headers } }, (reply) => {
      stream = { call, first: null, events: [] };
      let rest = '';
      reply.setEncoding('utf8');
      reply.on('data', (part) => {
        rest += part;
        for (let end = rest.indexOf('\n\n'); end >= 0; end = rest.indexOf('\n\n')) {
          takeBlock(rest.slice(0, end));
          rest = rest.slice(end + 2);
        }
      });
      resolve({ status: reply.statusCode, headers: reply.headers });
    });
    call.on('error', reject);
    call.end();
  });
}

function takeBlock(block) {
  stream.first ??= block;
  const fields = {};
  for (const line of block.split('\n')) {
    const colon = line.indexOf(': ');
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  if (fields.event) {
    stream.events.push({ id: Number(fields.id), kind: fields.event, data: JSON.parse(fields.data) });
  }
}

serve({
  call: request, probe, peerList, send, inbox, inboxFlush, inboxDelete, openEvents,
  events: () => ({ first: stream.first, events: stream.events }),
  closeEvents: () => { stream.call.destroy(); },
});
