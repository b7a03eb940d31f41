#!/usr/bin/python3
"""pynacl_peer.py — PyNaCl behind crypto_probe's line protocol (crypto_probe.cc)."""

import sys

from nacl.exceptions import BadSignatureError, CryptoError
from nacl.public import Box, PrivateKey, SealedBox
from nacl.signing import SigningKey, VerifyKey


def unhex(word):
    return b"" if word == "-" else bytes.fromhex(word)


def text(data):
    return data.hex() or "-"


def box(seed, peer):
    return Box(SigningKey(unhex(seed)).to_curve25519_private_key(),
               VerifyKey(unhex(peer)).to_curve25519_public_key())


def verify(key, message, signature):
    VerifyKey(unhex(key)).verify(unhex(message), unhex(signature))
    return "yes"


COMMANDS = {
    "public": lambda seed: text(bytes(SigningKey(unhex(seed)).verify_key)),
    "sign": lambda seed, message: text(SigningKey(unhex(seed)).sign(unhex(message)).signature),
    "verify": verify,
    "seal": lambda seed, peer, nonce, message:
        text(box(seed, peer).encrypt(unhex(message), unhex(nonce)).ciphertext),
    "open": lambda seed, peer, nonce, sealed:
        text(box(seed, peer).decrypt(unhex(sealed), unhex(nonce))),
    "box_public": lambda scalar: text(bytes(PrivateKey(unhex(scalar)).public_key)),
    "unseal": lambda scalar, sealed:
        text(SealedBox(PrivateKey(unhex(scalar))).decrypt(unhex(sealed))),
}

for line in sys.stdin:
    command, *words = line.split()
    try:
        print(COMMANDS[command](*words))
    except (BadSignatureError, CryptoError, ValueError, RuntimeError):
        print("no")
