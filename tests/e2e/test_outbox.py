#!/usr/bin/env python3
"""test_outbox.py BUILD — an operator's outbox with the real command line: looked at, sent again,
dropped, pruned; disk pressure; a damaged store that refuses, is recovered, and starts.
"""

import pathlib
import sys

from harness import Failed, World, wait_until


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


def bodies(member):
    return [item["body"] for item in member.inbox()]


def sent_again(alice, bob, broker):
    """Two messages wait for a broker that is away; one goes as it is, one with another text."""
    broker.kill()
    wait_until(lambda: not alice.connected(), "alice sees that the broker is away")
    alice.json("send", "bob", "first words", "--id", "first")
    alice.json("send", "bob", "wrong words", "--id", "second")
    seen = alice.json("outbox", "inspect", "second")
    expect((seen["status"], seen["lane"]["position"]) == ("pending", 2), f"in its lane: {seen}")
    expect("number 2 of 2" in alice.run("outbox", "inspect", "second").stdout, "for a person")
    refused = alice.run("outbox", "drop", "first", check=False)
    expect(refused.returncode == 6 and "requeue" in refused.stderr, f"open: {refused.stderr}")
    patch = pathlib.Path(alice.home) / "patch.txt"
    patch.write_text("right words", encoding="utf-8")
    again = alice.json("outbox", "requeue", "second", "--new-client-id", "third",
                       "--patch-payload", str(patch))
    expect(again["patched"] and again["new_client_message_id"] == "third", f"requeued: {again}")
    said = alice.run("outbox", "requeue", "third", "--auto").stderr
    expect("third is aborted" in said, f"one sentence: {said}")
    chain = alice.json("outbox", "inspect", "third")["chain"]
    expect([link["status"] for link in chain] == ["aborted", "aborted", "pending"], f"{chain}")
    broker.start()
    wait_until(lambda: bodies(bob) == ["first words", "right words"],
               "the second attempt arrives once, and the first never")
    wait_until(lambda: not alice.json("outbox", "list", "--pending")["items"], "nothing waits")
    expect(len(alice.json("outbox", "list", "--aborted")["items"]) == 2, "two were aborted")


def dropped_and_pruned(alice):
    dropped = alice.json("outbox", "drop", "first")
    expect(dropped["dropped"] and dropped["status"] == "done", f"dropped: {dropped}")
    expect(alice.json("outbox", "inspect", "first")["tombstone"], "what is left is a tombstone")
    same = alice.json("send", "bob", "first words", "--id", "first")
    expect(same["duplicate"], f"its id names the same message: {same}")
    other = alice.run("send", "bob", "other words", "--id", "first", check=False)
    expect(other.returncode == 6, f"and no other: {other.stdout}{other.stderr}")
    counted = alice.json("outbox", "prune", "--dry-run")["shrunk"]
    expect(counted == 3, f"two aborted and one done: {counted}")
    expect(alice.json("outbox", "prune", "--older-than", "1h")["shrunk"] == 0, "all are young")
    expect("3 messages" in alice.run("outbox", "prune").stderr, "all that have ended")
    expect(not alice.json("outbox", "list")["items"], "the list is empty")
    expect(alice.run("outbox", "prune", "--older-than", "soon", check=False).returncode == 3, "age")


def negotiated(alice):
    status = alice.json("daemon", "status")["health"]
    features = status["meshes"][0]["features"]
    expect(features["client_message_id_dedupe"]["dedupe_retention_days"] == 365, f"{features}")
    expect(status["durability"] == "sync" and status["pressure"]["level"] == "normal", "health")
    text = alice.run("daemon", "status").stderr
    expect("dedupe_retention_days=365" in text and "durability sync" in text, f"shown: {text}")
    metrics = alice.call("GET", "/v1/metrics")[1].decode()
    expect("cm_store_durability_sync 1" in metrics, "the metric of the mode")


def overwrite(path, wanted, count):
    """Turns bytes of `wanted` in the file, wherever they stand; the number of places."""
    data = bytearray(path.read_bytes())
    places, at = 0, 0
    while places < count:
        at = data.find(wanted, at)
        if at < 0:
            break
        data[at] ^= 0x20
        at += 1
        places += 1
    path.write_bytes(data)
    return places


def recovered(alice, bob, broker):
    """Bytes of a message that waits are turned on the disk, and bytes of one that has arrived."""
    broker.kill()
    wait_until(lambda: not alice.connected(), "the broker is away")
    alice.json("send", "bob", "text that is lost", "--id", "damaged-id")
    alice.json("send", "bob", "text that is kept", "--id", "sound-id")
    alice.daemon.stop()
    data = alice.home / ".claudemesh/daemon/store/data.mdb"
    key = alice.json("list")["meshes"][0]["id"].encode()
    # The row of the outbox has the id beside its mesh; the index has the id alone.
    expect(overwrite(data, b"damaged-id" + key, 99) > 0, "the row is in the file")
    start = alice.run("daemon", "up", check=False)
    expect(start.returncode == 10 and "daemon recover" in start.stderr, f"refuses: {start.stderr}")
    expect(alice.run("daemon", "fsck", check=False).returncode == 10, "fsck finds it")
    dry = alice.run("daemon", "recover", "--dry-run", check=False)
    expect(dry.returncode == 10 and "row does not match" in dry.stdout, f"dry: {dry.stdout}{dry.stderr}")
    done = alice.json("daemon", "recover")
    expect(done["lost_ids"] == ["damaged-id"], f"names what is lost: {done}")
    expect(pathlib.Path(done["dump"]).stat().st_mode & 0o777 == 0o600, "the dump is private")
    alice.run("daemon", "fsck")
    expect(alice.json("daemon", "recover")["problem_count"] == 0, "nothing is left to do")
    broker.start()
    alice.daemon.start()
    running = alice.run("daemon", "recover", check=False)
    expect(running.returncode == 1 and "stopped" in running.stderr, f"{running.stderr}")
    wait_until(lambda: "text that is kept" in bodies(bob), "what was sound arrives")
    taken = alice.call("POST", "/v1/send", {"to": "bob", "message": "text that is lost",
                                            "client_message_id": "damaged-id"})
    expect(taken[0] == 409 and taken[1]["reason"].startswith("corrupt: "), f"taken: {taken}")


def inbox_set_aside(bob):
    bob.daemon.stop()
    data = bob.home / ".claudemesh/daemon/store/data.mdb"
    expect(overwrite(data, b"right words", 99) > 0, "the text is in the file")
    bob.daemon.start()
    bob.wait_connected()
    left = bodies(bob)
    expect("right words" not in left and "first words" in left, f"one row is set aside: {left}")
    dumps = list((bob.home / ".claudemesh/daemon").glob("inbox-corrupt-*.dump"))
    expect(len(dumps) == 1 and b'"table":"inbox"' in dumps[0].read_bytes(), f"{dumps}")
    health = bob.call("GET", "/v1/health")[1]
    expect(any("set aside" in warning for warning in health["warnings"]), f"{health}")
    metrics = bob.call("GET", "/v1/metrics")[1].decode()
    expect("cm_daemon_inbox_set_aside_total 1" in metrics, "counted")
    bob.daemon.stop()
    bob.run("daemon", "fsck")


def unreadable(bob):
    data = bob.home / ".claudemesh/daemon/store/data.mdb"
    data.write_bytes(b"this is no store" * 1024)
    start = bob.run("daemon", "up", check=False)
    expect(start.returncode == 10 and "daemon recover" in start.stderr, f"refuses: {start.stderr}")
    dry = bob.run("daemon", "recover", "--dry-run", check=False)
    expect(dry.returncode == 10 and data.read_bytes().startswith(b"this is no"), "changes nothing")
    done = bob.run("daemon", "recover")
    expect("Lost with the old one" in done.stderr, f"says what is lost: {done.stderr}")
    kept = list(data.parent.glob("data.mdb.corrupt-*"))
    expect(len(kept) == 1 and kept[0].read_bytes().startswith(b"this is no"), "the old is kept")
    bob.run("daemon", "fsck")
    bob.daemon.start()
    bob.wait_connected()


def emptied_and_torn(bob):
    """A data file that lost its beginning is no new one; one damaged page costs no more than it."""
    bob.daemon.stop()
    data = bob.home / ".claudemesh/daemon/store/data.mdb"
    whole = data.read_bytes()
    for kept in (0, 100, 4096):
        data.write_bytes(whole[:kept])
        start = bob.run("daemon", "up", check=False)
        expect(start.returncode == 10 and "daemon recover" in start.stderr,
               f"{kept} bytes: {start.stderr}")
        fsck = bob.run("daemon", "fsck", check=False)
        expect(fsck.returncode == 10 and "descriptor" not in fsck.stderr, f"fsck: {fsck.stderr}")
        expect(len(data.read_bytes()) == kept, "nothing was changed")
    data.unlink()
    start = bob.run("daemon", "up", check=False)
    expect(start.returncode == 10 and "gone" in start.stderr, f"no file: {start.stderr}")
    said = bob.run("daemon", "recover", "--dry-run", check=False)
    expect(said.returncode == 10 and "Lost with the old one" in said.stderr, f"{said.stderr}")
    torn = bytearray(whole)
    torn[40] ^= 1  # a size in the first meta page
    data.write_bytes(torn)
    expect(bob.run("daemon", "up", check=False).returncode == 10, "a torn page refuses")
    dry = bob.run("daemon", "recover", "--dry-run", check=False)
    expect(dry.returncode == 10 and data.read_bytes() == torn, f"dry: {dry.stderr}")
    done = bob.json("daemon", "recover")
    expect(done["problem_count"] == 1 and done["renamed"] is None and done["rows"] > 2, f"{done}")
    expect(pathlib.Path(done["dump"]).read_bytes() == torn, "the file is kept as it was found")
    bob.run("daemon", "fsck")
    bob.daemon.start()
    bob.wait_connected()


def refused_at_once(world, bob):
    """The only mesh of a daemon does not fit to its settings: it ends, and says so at once."""
    bob.daemon.stop()
    settings = bob.home / ".claudemesh/config.toml"
    before = settings.read_text() if settings.exists() else ""
    settings.write_text(before + "\n[outbox]\nmax_age_hours = 8000\n")
    settings.chmod(0o600)
    start = bob.run("daemon", "up", check=False)
    expect(start.returncode == 0, f"8000 h are less than a year: {start.stderr}")
    bob.run("daemon", "down")
    world.broker.stop()
    world.broker.arguments += ["--limit", "dedupe_retention_days=3"]
    world.broker.start()
    start = bob.run("daemon", "up", check=False)
    expect(start.returncode == 4 and "8000 h, at most 71: lower outbox.max_age_hours" in start.stderr,
           f"the reason: {start.returncode} {start.stderr}")
    sent = bob.run("send", "alice", "x", check=False)
    expect(sent.returncode == 4 and "at most 71" in sent.stderr, f"and the next verb: {sent.stderr}")
    settings.write_text(before)
    bob.run("daemon", "up")


def pressure(alice):
    alice.daemon.stop()
    alice.daemon.arguments += ["--limit", "outbox_rows_max=5"]
    alice.daemon.start()
    alice.wait_connected()
    alice.world.broker.kill()
    wait_until(lambda: not alice.connected(), "the broker is away")
    codes = [alice.call("POST", "/v1/send", {"to": "bob", "message": "x"})[0] for _ in range(7)]
    expect(codes == [202] * 5 + [507] * 2, f"full: {codes}")
    health = alice.json("daemon", "status")["health"]
    expect(not health["pressure"]["takes_sends"] and health["pressure"]["level"] == "degraded",
           f"shown: {health['pressure']}")
    expect("disk pressure degraded" in alice.run("daemon", "status").stderr, "for a person, too")
    refused = alice.run("send", "bob", "more", check=False)
    expect(refused.returncode == 10 and "outbox_rows_max" in refused.stderr, f"{refused.stderr}")
    alice.world.broker.start()
    wait_until(lambda: alice.json("daemon", "status")["health"]["pressure"]["level"] == "normal",
               "it heals by itself")
    alice.json("send", "bob", "room again")


def main(build):
    with World(build) as world:
        broker = world.start_broker()
        alice, bob = world.mesh_of_two()
        alice.json("send", "bob", "known", "--id", "known")
        wait_until(lambda: bodies(bob) == ["known"], "bob has the first")
        bob.run("inbox", "flush", "--all")
        negotiated(alice)
        alice.json("outbox", "drop", "known")
        sent_again(alice, bob, broker)
        dropped_and_pruned(alice)
        recovered(alice, bob, broker)
        inbox_set_aside(bob)
        unreadable(bob)
        emptied_and_torn(bob)
        pressure(alice)
        refused_at_once(world, bob)
        print("outbox: seen, sent again, dropped, pruned, recovered, refused and healed")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Failed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        sys.exit(1)
