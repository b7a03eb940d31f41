// mesh_crypto.mjs — the protocol's cryptography for foreign peers, from the specification alone.
// Owns:   key pairs, canonical strings, crypto_box between ed25519 identities, fingerprints.
// Why:    shares no code with the product: tweetnacl does curve work, BigInt the birational map.
// Source: spec/crypto.md §1 to §5, §9.
import crypto from 'node:crypto';
import nacl from 'tweetnacl';

export const hex = (bytes) => Buffer.from(bytes).toString('hex');
export const unhex = (text) => new Uint8Array(Buffer.from(text, 'hex'));
export const b64 = (bytes) => Buffer.from(bytes).toString('base64');
export const unb64 = (text) => new Uint8Array(Buffer.from(text, 'base64'));
const utf8 = (text) => new Uint8Array(Buffer.from(text, 'utf8'));

export function newPair() {
  const pair = nacl.sign.keyPair();
  return { pubkey: hex(pair.publicKey), secret: hex(pair.secretKey) };
}

export const sign = (text, secret) => hex(nacl.sign.detached(utf8(text), unhex(secret)));
export function verify(text, signature, pubkey) {
  if (!/^[0-9a-f]{128}$/i.test(signature) || !/^[0-9a-f]{64}$/i.test(pubkey)) return false;
  return nacl.sign.detached.verify(utf8(text), unhex(signature), unhex(pubkey));
}

// u = (1 + y) / (1 - y) mod 2^255 - 19 (RFC 7748 §4.1).
const P = (1n << 255n) - 19n;
function power(base, exponent) {
  let result = 1n;
  for (let b = base % P, e = exponent; e > 0n; e >>= 1n, b = (b * b) % P) {
    if (e & 1n) result = (result * b) % P;
  }
  return result;
}
export function montgomeryPublic(edHex) {
  const bytes = Buffer.from(edHex, 'hex');
  bytes[31] &= 0x7f;
  const y = BigInt('0x' + Buffer.from(bytes).reverse().toString('hex'));
  const u = ((1n + y) * power((P + 1n - y) % P, P - 2n)) % P;
  return new Uint8Array(Buffer.from(u.toString(16).padStart(64, '0'), 'hex').reverse());
}
export function montgomerySecret(secretHex) {
  const hash = crypto.createHash('sha512').update(Buffer.from(secretHex.slice(0, 64), 'hex'));
  return new Uint8Array(hash.digest().subarray(0, 32)); // scalarmult clamps
}

export function sealText(text, recipientHex, secretHex) {
  const nonce = nacl.randomBytes(24);
  const box = nacl.box(utf8(text), nonce, montgomeryPublic(recipientHex),
    montgomerySecret(secretHex));
  return { nonce: b64(nonce), ciphertext: b64(box) };
}
export function openText(push, secretHex) {
  const nonce = unb64(push.nonce);
  if (nonce.length !== 24 || !/^[0-9a-f]{64}$/.test(push.senderPubkey)) return null;
  const text = nacl.box.open(unb64(push.ciphertext), nonce, montgomeryPublic(push.senderPubkey),
    montgomerySecret(secretHex));
  return text ? Buffer.from(text).toString('utf8') : null;
}
export const plainBody = (text) => ({
  nonce: b64(nacl.randomBytes(24)), ciphertext: b64(utf8(text)),
});

export function fingerprint({ kind, ref, priority, text }) {
  const parts = ['1', kind, ref, '', priority, ''];
  const hash = crypto.createHash('sha256');
  for (const part of parts) hash.update(part, 'utf8').update(Buffer.from([0]));
  return hash.update(crypto.createHash('sha256').update(text, 'utf8').digest()).digest('hex');
}

export const helloText = (h) => `${h.meshId}|${h.memberId}|${h.pubkey}|${h.timestamp}`;
export const attestationText = (a) =>
  `claudemesh-session-attest|${a.parentMemberPubkey}|${a.sessionPubkey}|${a.expiresAt}`;
export const sessionHelloText = (h) => 'claudemesh-session-hello|' +
  `${h.meshId}|${h.parentMemberPubkey}|${h.sessionPubkey}|${h.timestamp}`;
export const inviteText = (p) => [p.v, p.mesh_id, p.mesh_slug, p.broker_url, p.expires_at,
  p.mesh_root_key, p.role, p.owner_pubkey].join('|');

export function readInvite(link) {
  const token = link.replace(/^.*\/join\//, '');
  const payload = JSON.parse(Buffer.from(token, 'base64url').toString('utf8'));
  if (payload.v !== 1) throw new Error('the invite is not of version 1');
  if (payload.expires_at * 1000 < Date.now()) throw new Error('the invite has expired');
  if (!verify(inviteText(payload), payload.signature, payload.owner_pubkey)) {
    throw new Error("the invite's signature does not verify");
  }
  return { token, payload };
}
