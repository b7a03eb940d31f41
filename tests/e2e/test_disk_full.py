#!/usr/bin/env python3
"""test_disk_full.py BUILD — a receiver, a sender and a broker whose real disk is full for a while.

The stores stand on small file systems of their own (tmpfs in a mount namespace). On a full one nothing is acknowledged and nothing is lost; with room again all arrives once.
"""

import http.client
import os
import subprocess
import sys

from harness import Failed, World, wait_until

BODY = "x" * 30_000
KIB = 1024


def small_disk(store, kib):
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=0700", "tmpfs", str(store)],
                   check=True)
    return store


def resize(disk, kib):
    subprocess.run(["mount", "-o", f"remount,size={kib}k", str(disk)], check=True)


def accepted(member, to, name):
    """True if the send was accepted; the same id is used for every try."""
    try:
        status, reply = member.call("POST", "/v1/send", {"to": to, "message": name + BODY,
                                                         "client_message_id": name})
    except (OSError, http.client.HTTPException):
        return False
    if status not in (200, 202, 503, 507):
        raise Failed(f"a send on a full disk answered {status}: {reply}")
    return status in (200, 202)


def names(member):
    return [item["client_message_id"] for item in member.inbox()]


def send_until_it_notices(alice, prefix, count, full):
    """Sends that alice has room for; `full` is the process that has none."""
    sent = [f"{prefix}{number}" for number in range(count)]
    for name in sent:
        if not accepted(alice, "bob", name):
            raise Failed(f"alice has room, yet {name} was not accepted")
    wait_until(lambda: "commit_failed" in full.log_path.read_text(),
               "it is noticed that the disk is full")
    return sent


def the_receiver_is_full(alice, bob, disk):
    sent = send_until_it_notices(alice, "r", 60, bob.daemon)
    resize(disk, 16 * KIB)
    wait_until(lambda: set(sent) <= set(names(bob)), "all arrive once there is room", 120)
    if names(bob) != sent:
        raise Failed(f"lost, twice or out of order: {names(bob)}")
    print(f"a full receiver: {len(sent)} arrived once and in order when it had room")


def the_sender_is_full(alice, bob, disk):
    taken = [name for name in (f"s{number}" for number in range(200))
             if accepted(alice, "bob", name)]
    if len(taken) == 200:
        raise Failed("a full disk refused nothing")
    resize(disk, 64 * KIB)
    wait_until(lambda: accepted(alice, "bob", "s-last"), "a send is accepted again")
    wait_until(lambda: "s-last" in names(bob), "what was accepted arrives", 120)
    got = [name for name in names(bob) if name.startswith("s")]
    if got != taken + ["s-last"]:
        raise Failed(f"accepted {len(taken)}, arrived {len(got)}")
    print(f"a full sender: {len(taken)} accepted and arrived, {200 - len(taken)} refused")


def the_broker_is_full(world, alice, bob, disk):
    """Mail waits at the broker for somebody who is away, until the broker has no room for more."""
    bob.daemon.stop()
    room = os.statvfs(disk)
    used = (room.f_blocks - room.f_bfree) * room.f_frsize // KIB
    resize(disk, used + 256)
    sent = send_until_it_notices(alice, "b", 200, world.broker)
    resize(disk, 64 * KIB)
    bob.daemon.start()
    wait_until(lambda: set(sent) <= set(names(bob)), "all arrive once there is room", 120)
    got = [name for name in names(bob) if name.startswith("b")]
    if got != sent:
        raise Failed(f"lost, twice or out of order: {got}")
    print(f"a full broker: {len(sent)} arrived once and in order when it had room")


def main(build):
    with World(build) as world:
        disks = {"broker": small_disk(world.data, 64 * KIB)}
        world.start_broker()
        alice, bob = world.member("alice"), world.member("bob")
        for member, kib in ((alice, 8 * KIB), (bob, 1 * KIB)):
            disks[member.name] = small_disk(member.home / ".claudemesh/daemon", kib)
        try:
            alice.json("create", "demo", "--broker", world.url, "--display-name", "alice")
            bob.json("join", alice.json("share")["url"], "--name", "bob")
            for member in (alice, bob):
                member.daemon.start()
            for member in (alice, bob):
                member.wait_connected()
            the_receiver_is_full(alice, bob, disks["bob"])
            resize(disks["bob"], 64 * KIB)
            the_sender_is_full(alice, bob, disks["alice"])
            the_broker_is_full(world, alice, bob, disks["broker"])
            for member in (alice, bob):
                member.daemon.stop()
                member.run("daemon", "fsck")
        finally:
            world.kill_all()
            for disk in disks.values():
                subprocess.run(["umount", str(disk)], check=False)


if __name__ == "__main__":
    if "--inside" not in sys.argv:
        # A mount namespace of our own; a user namespace gives the right to mount to anybody.
        probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
        if probe.returncode != 0:
            print("skipped: this machine allows no user namespaces")
            sys.exit(77)
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv, "--inside"])
    try:
        main(sys.argv[1])
    except Failed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        sys.exit(1)
