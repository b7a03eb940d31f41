// crypto_peer.mjs tweetnacl|sodium — another implementation behind crypto_probe's line protocol.
// Owns:   public, sign, verify, seal, open; with sodium also box_public and unseal.
// Source: crypto_probe.cc for the commands.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import nacl from 'tweetnacl';
import { hex, montgomeryPublic, montgomerySecret, unhex } from './mesh_crypto.mjs';

// Its other build wants a global `crypto`, which Debian 12's Node has not.
const sodium = createRequire(import.meta.url)('libsodium-wrappers');
await sodium.ready;
const bytes = (word) => (word === '-' ? new Uint8Array() : unhex(word));
const text = (value) => (value ? hex(value) || '-' : 'no');
const attempt = (work) => { try { return work(); } catch { return null; } };

const tweetnacl = {
  pair: (seed) => nacl.sign.keyPair.fromSeed(bytes(seed)),
  public: (seed) => text(tweetnacl.pair(seed).publicKey),
  sign: (seed, message) => text(nacl.sign.detached(bytes(message),
    tweetnacl.pair(seed).secretKey)),
  verify: (key, message, signature) => (nacl.sign.detached.verify(bytes(message),
    bytes(signature), bytes(key)) ? 'yes' : 'no'),
  seal: (seed, peer, nonce, message) => text(nacl.box(bytes(message), bytes(nonce),
    montgomeryPublic(peer), montgomerySecret(seed))),
  open: (seed, peer, nonce, sealed) => text(nacl.box.open(bytes(sealed), bytes(nonce),
    montgomeryPublic(peer), montgomerySecret(seed))),
};

const curve = (seed) => sodium.crypto_sign_ed25519_sk_to_curve25519(
  sodium.crypto_sign_seed_keypair(bytes(seed)).privateKey);
const wrappers = {
  public: (seed) => text(sodium.crypto_sign_seed_keypair(bytes(seed)).publicKey),
  sign: (seed, message) => text(sodium.crypto_sign_detached(bytes(message),
    sodium.crypto_sign_seed_keypair(bytes(seed)).privateKey)),
  verify: (key, message, signature) => (sodium.crypto_sign_verify_detached(bytes(signature),
    bytes(message), bytes(key)) ? 'yes' : 'no'),
  seal: (seed, peer, nonce, message) => text(attempt(() => sodium.crypto_box_easy(bytes(message),
    bytes(nonce), sodium.crypto_sign_ed25519_pk_to_curve25519(bytes(peer)), curve(seed)))),
  open: (seed, peer, nonce, sealed) => text(attempt(() => sodium.crypto_box_open_easy(
    bytes(sealed), bytes(nonce), sodium.crypto_sign_ed25519_pk_to_curve25519(bytes(peer)),
    curve(seed)))),
  box_public: (scalar) => text(sodium.crypto_scalarmult_base(bytes(scalar))),
  unseal: (scalar, sealed) => text(attempt(() => sodium.crypto_box_seal_open(bytes(sealed),
    sodium.crypto_scalarmult_base(bytes(scalar)), bytes(scalar)))),
};

const peer = { tweetnacl, sodium: wrappers }[process.argv[2]];
const lines = fs.readFileSync(0, 'utf8').split('\n').filter((line) => line !== '');
process.stdout.write(lines.map((line) => {
  const [command, ...words] = line.split(' ');
  return peer[command](...words) + '\n';
}).join(''));
