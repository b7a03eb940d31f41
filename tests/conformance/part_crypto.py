"""part_crypto.py — tweetnacl, libsodium-wrappers and PyNaCl against our keys, boxes, signatures.

All speak crypto_probe's line protocol, so that each can take each other's place. Vectors: RFC 8032
and RFC 7748 from python3-cryptography-vectors, the protocol's own from vectors.json.
"""

import base64
import json
import pathlib
import random
import subprocess
import urllib.request

from suite import HERE, NODE_HOME, Failed, World

GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
FIELD = 2**255 - 19
# Encodings of the points of order 1, 2, 4 and 8, and those of them that are not canonical.
SMALL_ORDER = [
    "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "00" * 32, "00" * 31 + "80",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "01" + "00" * 30 + "80", "ec" + "ff" * 31, "ed" + "ff" * 30 + "7f", "ed" + "ff" * 31,
    "ee" + "ff" * 30 + "7f", "ee" + "ff" * 31]
OURS = "ours"
# Sections of vectors.json whose primitives the product does not have yet. A host's fingerprint is
# compared in tests/unit/host_identity_test.cc.
NOT_BUILT = {"topic_body_v2", "file_encryption", "audit_hash", "api_key", "backup_file",
             "broker_at_rest"}
OPENERS = ("libsodium-wrappers", "PyNaCl")  # of seal boxes: the product only makes them


class Implementations:
    def __init__(self, part):
        self.quick = part.quick
        self.commands = {
            OURS: [part.probe("crypto_probe")],
            "tweetnacl": ["node", str(NODE_HOME / "crypto_peer.mjs"), "tweetnacl"],
            "libsodium-wrappers": ["node", str(NODE_HOME / "crypto_peer.mjs"), "sodium"],
            "PyNaCl": ["/usr/bin/python3", str(HERE / "pynacl_peer.py")]}  # Debian's own Python

    def ask(self, name, lines):
        done = subprocess.run(self.commands[name], input="".join(f"{l}\n" for l in lines),
                              capture_output=True, text=True, timeout=300, check=False)
        answers = done.stdout.splitlines()
        if done.returncode != 0 or len(answers) != len(lines):
            raise Failed(f"{name} ended with {done.returncode} after {len(answers)} answers: "
                         f"{done.stderr[-1000:]}")
        return answers


def text(data):
    return data.hex() or "-"


def boxes_and_signatures(part, peers, dice, count):
    seeds = [text(dice.randbytes(32)) for _ in range(8)]
    keys = {}
    for name in peers.commands:
        keys[name] = peers.ask(name, [f"public {s}" for s in seeds])
        part.equal(f"public keys of {name}", keys[name], keys[OURS])
    public = dict(zip(seeds, keys[OURS]))
    cases = []
    for index in range(count):
        sender, receiver = dice.sample(seeds, 2)
        size = (0, 1, 15, 16, 17, 63, 64, 65, 255, 1000, 65_000)[index % 11]
        cases.append((sender, receiver, text(dice.randbytes(24)), text(dice.randbytes(size))))
    sealed = {}
    for name in peers.commands:
        sealed[name] = peers.ask(name, [f"seal {s} {public[r]} {n} {m}" for s, r, n, m in cases])
        part.equal(f"crypto_box of {name} and ours: the same bytes, {count} messages",
                   sealed[name] == sealed[OURS], True)
        opened = peers.ask(name, [f"open {r} {public[s]} {n} {c}" for (s, r, n, _), c
                                  in zip(cases, sealed[OURS])])
        part.check(f"{name} opens ours", opened == [m for *_, m in cases])
    for name in peers.commands:
        opened = peers.ask(OURS, [f"open {r} {public[s]} {n} {c}" for (s, r, n, _), c
                                  in zip(cases, sealed[name])])
        part.check(f"we open {name}'s", opened == [m for *_, m in cases])
        signed = peers.ask(name, [f"sign {s} {m}" for s, _, _, m in cases])
        part.check(f"{name} and we sign alike", signed == peers.ask(
            OURS, [f"sign {s} {m}" for s, _, _, m in cases]))
    spoilt = []
    for (s, r, n, _), c in zip(cases, sealed[OURS]):
        data = bytearray.fromhex(c)
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        spoilt.append(f"open {r} {public[s]} {n} {data.hex()}")
    spoilt += [f"open {seeds[0]} {public[seeds[1]]} {'00' * 24} {'00' * size}" for size in range(1, 16)]
    for name in peers.commands:
        part.equal(f"{name} opens nothing that was changed or cut", set(peers.ask(name, spoilt)),
                   {"no"})
    weak = [f"seal {seeds[0]} {point} {'00' * 24} 00" for point in SMALL_ORDER]
    part.equal("we encrypt to no key of small order", set(peers.ask(OURS, weak)), {"no"})
    part.equal("nor does libsodium", set(peers.ask("libsodium-wrappers", weak)), {"no"})


def signature_cases(peers, dice, count):
    """(what, key, message, signature): whole, damaged and specially made ones."""
    cases = []
    for index in range(count):
        seed, message = dice.randbytes(32), dice.randbytes(dice.randrange(64))
        key = bytes.fromhex(peers.ask(OURS, [f"public {seed.hex()}"])[0]) if index < 8 else None
        if key is None:
            seed, key = dice.choice(cases)[4:6]
        cases.append(["whole", key, message, None, seed, key])
    signatures = peers.ask(OURS, [f"sign {c[4].hex()} {text(c[2])}" for c in cases])
    out = []
    for case, signature in zip(cases, signatures):
        _, key, message, *_ = case
        whole = bytes.fromhex(signature)
        out.append(("whole", key, message, whole))
        for what, data in (("a bit of R", 0), ("a bit of S", 32)):
            broken = bytearray(whole)
            broken[data + dice.randrange(32)] ^= 1 << dice.randrange(8)
            out.append((what, key, message, bytes(broken)))
        broken = bytearray(key)
        broken[dice.randrange(32)] ^= 1 << dice.randrange(8)
        out.append(("a bit of the key", bytes(broken), message, whole))
        out.append(("another message", key, message + b"x", whole))
        scalar = int.from_bytes(whole[32:], "little") + GROUP_ORDER
        while scalar < 2**256:  # S + L, S + 2L...: the same point, another text
            out.append(("S + kL", key, message, whole[:32] + scalar.to_bytes(32, "little")))
            scalar += GROUP_ORDER
    few = SMALL_ORDER[:2] if peers.quick else SMALL_ORDER  # tweetnacl takes 7 ms for each
    for point in SMALL_ORDER:
        for scalar in (0, 1, GROUP_ORDER):
            small = scalar.to_bytes(32, "little")
            for r in few:
                out.append(("key and R of small order", bytes.fromhex(point), b"m",
                            bytes.fromhex(r) + small))
        _, key, message, whole = out[0]
        out.append(("R of small order", key, message, bytes.fromhex(point) + whole[32:]))
    for y in range(FIELD, 2**255):  # the 19 encodings of y >= p, with both signs
        for sign in (0, 1 << 255):
            odd = (y | sign).to_bytes(32, "little")
            out.append(("a key that is not canonical", odd, b"m", bytes(64)))
            out.append(("R that is not canonical", out[0][1], out[0][2], odd + out[0][3][32:]))
    return out


def signature_verdicts(part, peers, dice, count):
    cases = signature_cases(peers, dice, count)
    lines = [f"{k.hex()} {text(m)} {s.hex()}" for _, k, m, s in cases]
    ours = peers.ask(OURS, [f"verify {l}" for l in lines])
    whole = [case[0] == "whole" for case in cases]
    part.equal(f"of {len(cases)} signatures we take the whole ones and no other",
               [a == "yes" for a in ours] == whole, True)
    part.equal("the library that we link says the same",
               peers.ask(OURS, [f"strict {l}" for l in lines]) == ours, True)
    for name in ("libsodium-wrappers", "PyNaCl"):
        part.equal(f"{name} says the same", peers.ask(name, [f"verify {l}" for l in lines]) == ours,
                   True)
    lenient = {case[0] for case, a, o in
               zip(cases, peers.ask("tweetnacl", [f"verify {l}" for l in lines]), ours) if a != o}
    part.check("tweetnacl differs on malleable and small-order signatures alone",
               lenient <= {"S + kL", "key and R of small order", "a key that is not canonical"},
               lenient)
    for what in sorted(lenient):
        part.decide(f"signatures: {what}", "tweetnacl takes some of them, libsodium and we none: "
                    "one message has one signature, and no key signs everything")


def rfc_vectors(part, peers):
    listed = subprocess.run(["dpkg", "-L", "python3-cryptography-vectors"], capture_output=True,
                            text=True, check=False).stdout.splitlines()
    path = next((p for p in listed if p.endswith("Ed25519/sign.input")), None)
    if path is None:
        part.check("python3-cryptography-vectors is installed", False, "sh tests/deps.sh conf")
        return
    rows = [line.split(":") for line in pathlib.Path(path).read_text().splitlines() if line]
    signed = peers.ask(OURS, [f"sign {r[0][:64]} {r[2] or '-'}" for r in rows])
    verified = peers.ask(OURS, [f"verify {r[1]} {r[2] or '-'} {r[3][:128]}" for r in rows])
    public = peers.ask(OURS, [f"public {r[0][:64]}" for r in rows])
    for number, (row, key, signature, verdict) in enumerate(zip(rows, public, signed, verified)):
        part.equal(f"RFC 8032 vector {number}", (key, signature, verdict),
                   (row[1], row[3][:128], "yes"))
    path = next(p for p in listed if p.endswith("X25519/rfc7748.txt"))
    fields = [line.split(" = ")[1] for line in pathlib.Path(path).read_text().splitlines()
              if line.startswith(("INPUT", "OUTPUT"))]
    for number in range(0, len(fields), 3):
        scalar, point, wanted = fields[number:number + 3]
        part.equal(f"RFC 7748 vector {number // 3}",
                   peers.ask(OURS, [f"montgomery {scalar} {point}"]), [wanted])


def sealed_root_key(part, peers, dice):
    """The one seal box of the product: a claim's root key, opened by others."""
    with World(part.build, durability="relaxed") as world:
        world.start_broker()
        alice = world.member("alice")
        alice.json("create", "demo", "--broker", world.url, "--display-name", "alice")
        base = world.url.replace("ws:", "http:").removesuffix("/ws")
        code = alice.json("share", "--uses", "3")["code"]

        def call(path, body=None):
            request = urllib.request.Request(
                base + path, None if body is None else json.dumps(body).encode(),
                {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as reply:
                return json.loads(reply.read())
        token = call(f"/api/public/invite-code/{code}")["token"]
        shown = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        keys = {}
        for name in OPENERS:
            scalar, seed = dice.randbytes(32).hex(), dice.randbytes(32).hex()
            point = bytes.fromhex(peers.ask(name, [f"box_public {scalar}"])[0])
            claim = call(f"/invites/{code}/claim", {
                "recipient_x25519_pubkey": base64.urlsafe_b64encode(point).decode().rstrip("="),
                "peer_pubkey": peers.ask(name, [f"public {seed}"])[0], "display_name": name})
            sealed = base64.urlsafe_b64decode(claim["sealed_root_key"] + "=").hex()
            keys[name] = peers.ask(name, [f"unseal {scalar} {sealed}"])[0]
            part.equal(f"{name} opens our seal box: 32 bytes", len(keys[name]), 64)
        part.equal("both hold the same root key", len(set(keys.values())), 1)
        part.check("the token, which may leak, does not carry it", keys["PyNaCl"] !=
                   base64.urlsafe_b64decode(shown["mesh_root_key"] + "=").hex())


def protocol_vectors(part, peers):
    """The wire's boxes and signatures of vectors.json, in each implementation."""
    vectors = json.loads((HERE / "vectors.json").read_text())
    by_name = {name: key for short, key in vectors["keys"].items() for name in (short, key["name"])}
    cases = []
    for row in vectors["crypto_box_direct"]:
        cases.append((f"crypto_box {row['from']} to {row['to']}",
                      f"open {by_name[row['to']]['seed_hex']} "
                      f"{by_name[row['from']]['public_key_hex']} {row['nonce_hex']} "
                      f"{row['ciphertext_hex']}", text(bytes.fromhex(row["plaintext_hex"]))))
    for kind in ("hello", "attestation_v1", "attestation_v2", "session_hello", "invite_v1",
                 "invite_v2"):
        for number, row in enumerate(vectors[kind]):
            signer = by_name[row.get("signer", row.get("parent"))]
            cases.append((f"{kind} {number}", f"verify {signer['public_key_hex']} "
                          f"{row['input_hex']} {row['signature_hex']}", "yes"))
    for name in peers.commands:
        for (case, _, wanted), answer in zip(cases, peers.ask(name, [c[1] for c in cases])):
            part.equal(f"{name}: vector {case}", answer, wanted)
    for row in vectors["invite_v2_sealed_root_key"]:
        for name in OPENERS:
            part.equal(f"{name}: vector of a sealed root key", peers.ask(
                name, [f"unseal {row['recipient_x25519_secret_hex']} {row['sealed_root_key_hex']}"]),
                [row["root_key_hex"]])
    for section in sorted(NOT_BUILT):
        part.skip(f"vectors of {section}", "the product has no such function yet")


def run(part):
    dice = random.Random(8032)
    peers = Implementations(part)
    count = 22 if part.quick else 110
    boxes_and_signatures(part, peers, dice, count)
    signature_verdicts(part, peers, dice, 3 if part.quick else 60)
    rfc_vectors(part, peers)
    protocol_vectors(part, peers)
    sealed_root_key(part, peers, dice)
