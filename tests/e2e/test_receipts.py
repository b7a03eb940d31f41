#!/usr/bin/env python3
"""test_receipts.py BUILD — how far a message has come, as its sender sees it at each stage.

The recipient away, then there, then reading; a recipient that tells less; a broker that is away.
"""

import json
import sys
import threading

from harness import Failed, UnixConnection, World, wait_until


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


class Receipts:
    """The `receipt` events of one daemon's stream."""

    def __init__(self, member):
        self.connection = UnixConnection(member.socket, timeout=None)
        self.connection.request("GET", "/v1/events")
        self.reply = self.connection.getresponse()
        self.seen = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        kind = None
        try:
            for line in self.reply:
                text = line.decode().rstrip("\n")
                if text.startswith("event: "):
                    kind = text[7:]
                elif text.startswith("data: ") and kind == "receipt":
                    self.seen.append(json.loads(text[6:]))
        except (OSError, ValueError, AttributeError):
            pass  # the daemon was stopped

    def wait_for(self, message_id, state):
        return wait_until(lambda: next((r for r in self.seen if r["client_message_id"] == message_id
                                        and r["state"] == state), None),
                          f"a receipt '{state}' of {message_id}")


def status(member, message_id):
    return member.json("message", "status", message_id)


def chain(member, message_id):
    """Empty as long as no broker can be asked."""
    found = status(member, message_id)
    expect(len(found["recipients"]) <= 1, f"one recipient: {found}")
    return [link["state"] for row in found["recipients"] for link in row["chain"]]


def wait_chain(member, message_id, wanted):
    return wait_until(lambda: chain(member, message_id) == wanted, f"the chain is {wanted}")


def in_order(found):
    times = [link["at"] for link in found["recipients"][0]["chain"]]
    return None not in times and times == sorted(times)


def rows_of(member, message_id):
    found = member.json("message", "explain", message_id)
    return {(row["where"], row["table"]): row["says"] for row in found["rows"]}, found["next"]


def stages(alice, bob, key):
    receipts = Receipts(alice)
    bob.daemon.stop()
    sent = alice.send(key["bob"], "are you there?")["client_message_id"]
    wait_chain(alice, sent, ["accepted", "stored"])
    found = status(alice, sent)
    expect(found["delivered"] is False and found["deliveredAt"] is None, f"not delivered: {found}")
    expect("handed" not in alice.run("message", "status", sent).stdout, "handed is not said")
    rows, next_step = rows_of(alice, sent)
    expect(("daemon", "outbox") in rows and ("broker", "message") in rows
           and ("broker", "delivery") in rows and "pushes" in next_step,
           f"explain while bob is away: {rows} {next_step}")

    bob.daemon.start()
    event = receipts.wait_for(sent, "handed")
    expect(event["signature"] == "valid" and event["recipient"] == key["bob"], f"event: {event}")
    wait_chain(alice, sent, ["accepted", "stored", "claimed", "handed"])
    found = status(alice, sent)
    expect(found["recipients"][0]["signature"] == "valid" and found["delivered"] is True
           and in_order(found), f"handed: {found}")
    text = alice.run("message", "status", sent).stdout
    expect("handed (signed)" in text and "accepted" in text and "claimed" in text, text)
    rows, next_step = rows_of(alice, sent)
    expect("signature" in rows[("broker", "receipt")] and "every recipient has it" in next_step,
           f"explain when bob has it: {rows} {next_step}")
    expect("next: nothing" in alice.run("message", "explain", sent).stdout, "explain for people")
    row = bob.json("inbox", "--keep-unread")[0]
    expect(row["receipt"] == "seen" and "receipt_due" not in row, f"bob's row: {row}")
    by_broker_id = status(alice, found["outbox"]["broker_message_id"][:12])
    expect(by_broker_id["recipients"][0]["signature"] == "valid", f"by a prefix: {by_broker_id}")

    bob.run("inbox")
    receipts.wait_for(sent, "seen")
    wait_chain(alice, sent, ["accepted", "stored", "claimed", "handed", "seen"])
    expect(in_order(status(alice, sent)), "seen is the last one")
    expect("seen" in alice.run("message", "status", sent).stdout, "seen is shown")


def seen_survives_a_lost_broker(world, alice, bob, key):
    sent = alice.send(key["bob"], "read me later")["client_message_id"]
    wait_until(lambda: any(i["client_message_id"] == sent for i in bob.inbox()), "it arrives")
    wait_chain(alice, sent, ["accepted", "stored", "claimed", "handed"])
    world.broker.kill()
    bob.run("inbox")
    bob.daemon.kill()
    bob.daemon.start()
    world.broker.start()
    wait_chain(alice, sent, ["accepted", "stored", "claimed", "handed", "seen"])


def a_level_is_what_is_told(alice, bob, key):
    settings = bob.home / ".claudemesh/config.toml"
    settings.write_text("[receipts]\nlevel = \"stored\"\n")
    bob.run("daemon", "reload")
    sent = alice.send(key["bob"], "between us")["client_message_id"]
    wait_until(lambda: any(i["client_message_id"] == sent for i in bob.inbox()), "it arrives")
    row = next(i for i in bob.inbox() if i["client_message_id"] == sent)
    expect(row["receipt"] == "stored", f"bob's row: {row}")
    settings.write_text("[receipts]\nlevel = \"handed\"\n")
    bob.run("daemon", "reload")
    after = alice.send(key["bob"], "and this?")["client_message_id"]
    wait_chain(alice, after, ["accepted", "stored", "claimed", "handed"])
    found = status(alice, sent)
    expect([link["state"] for link in found["recipients"][0]["chain"]] == ["accepted", "stored"]
           and found["delivered"] is False, f"nobody is told of the one before: {found}")


def who_is_hidden_tells_nothing(alice, bob, key):
    bob.run("visible", "no")
    sent = alice.send(key["bob"], "are you hiding?")["client_message_id"]
    wait_until(lambda: any(i["client_message_id"] == sent for i in bob.inbox()), "it arrives")
    found = status(alice, sent)
    expect([link["state"] for link in found["recipients"][0]["chain"]] == ["accepted", "stored"]
           and found["recipients"][0]["status"] == "disconnected", f"bob is hidden: {found}")
    bob.run("visible", "yes")
    after = alice.send(key["bob"], "there you are")["client_message_id"]
    wait_chain(alice, after, ["accepted", "stored", "claimed", "handed"])
    expect(chain(alice, sent) == ["accepted", "stored"], "when he was here is not told later")


def what_waits_here_is_shown_without_a_broker(world, alice, key):
    world.broker.kill()
    sent = alice.send(key["bob"], "nobody hears me")["client_message_id"]
    found = status(alice, sent)
    expect(found["recipients"] == [] and found["outbox"]["status"] in ("pending", "inflight")
           and found["delivered"] is False, f"only the outbox knows: {found}")
    rows, next_step = rows_of(alice, sent)
    expect(("daemon", "outbox") in rows and not any(w == "broker" for w, _ in rows)
           and next_step, f"explain without a broker: {rows} {next_step}")
    world.broker.start()
    wait_chain(alice, sent, ["accepted", "stored", "claimed", "handed"])


def main():
    with World(sys.argv[1], "relaxed") as world:
        world.start_broker()
        alice, bob = world.member("alice"), world.member("bob")
        bob.env["CLAUDEMESH_RECEIPT_LEVEL"] = "seen"
        alice.json("create", "demo", "--broker", world.url, "--display-name", "alice")
        bob.json("join", alice.json("share")["url"], "--name", "bob")
        for member in (alice, bob):
            member.daemon.start()
        for member in (alice, bob):
            member.wait_connected()
        key = {m["displayName"]: m["pubkey"] for m in alice.json("member", "list")["members"]}
        stages(alice, bob, key)
        seen_survives_a_lost_broker(world, alice, bob, key)
        bob.daemon.stop()
        del bob.env["CLAUDEMESH_RECEIPT_LEVEL"]
        bob.daemon.start()
        a_level_is_what_is_told(alice, bob, key)
        who_is_hidden_tells_nothing(alice, bob, key)
        what_waits_here_is_shown_without_a_broker(world, alice, key)
    print("receipts: ok")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"failed: {failure}")
