#!/usr/bin/env python3
"""test_kill9.py BUILD [ROUNDS] — SIGKILL of broker and daemons at random instants, round by round.

Two lanes each way send without a pause between rounds. The parent remembers every id that was
accepted; at the end each is in exactly one inbox row of its recipient, with its body, in the order
of its lane, no outbox row is dead, and fsck finds nothing. A round kills one process, or all three
at once, or one that is still starting. ROUNDS=0 goes on until it is interrupted. Prints its seed;
SEED= draws the same plan again (the instants are the machine's).
"""

import collections
import http.client
import json
import os
import random
import re
import sys
import threading
import time

from harness import Failed, UnixConnection, World, wait_until

LANES = [("alice", "bob", "next"), ("alice", "bob", "low"), ("bob", "alice", "next"),
         ("bob", "alice", "now")]
SENDS_A_ROUND = 5     # of each lane
SETTLE_S = 180


class Sender(threading.Thread):
    """Sends its numbered messages in order, each until it is accepted, with one id for all tries."""

    def __init__(self, members, sender, to, priority):
        super().__init__(daemon=True)
        self.sender, self.to, self.priority = members[sender], to, priority
        self.allowance = threading.Semaphore(0)
        self.ended = False
        self.accepted = []      # ids, in order
        self.repeated = 0       # tries that were needed because a process died meanwhile
        self.failure = None

    def run(self):
        try:
            while True:
                self.allowance.acquire()
                if self.ended:
                    return
                self.send_one(len(self.accepted))
        except Failed as failure:
            self.failure = failure

    def end(self):
        self.ended = True
        self.allowance.release()
        self.join()
        if self.failure:
            raise self.failure

    def lane(self):
        return f"{self.sender.name}>{self.to} {self.priority}"

    def send_one(self, number):
        message_id = f"{self.sender.name}-{self.priority}-{number}"
        fields = {"to": self.to, "message": body_of(message_id), "priority": self.priority,
                  "client_message_id": message_id}

        def attempt():
            try:
                status, reply = self.sender.call("POST", "/v1/send", fields)
            except (OSError, http.client.HTTPException, ValueError):
                self.repeated += 1
                return False  # killed while it answered: the same id is safe to send again
            if status in (200, 202):
                return True
            if status == 503:
                return False  # not connected yet and the name is not known: try again
            raise Failed(f"send {message_id} answered {status}: {reply}")

        wait_until(attempt, f"{message_id} is accepted")
        self.accepted.append(message_id)


def body_of(message_id):
    """What the message of this id says; long ones now and then, which fill pages of their own."""
    number = int(message_id.rsplit("-", 1)[1])
    return f"{message_id} " + "x" * (6000 if number % 17 == 0 else number % 90)


class Kills:
    """One round after another, by a plan that is drawn from the seed."""

    def __init__(self, world, rng):
        self.world, self.rng = world, rng
        self.processes = [world.broker] + [m.daemon for m in world.members.values()]
        self.counts = collections.Counter()
        self.rounds = 0

    def round(self):
        rng = self.rng
        kind = rng.choices(["one", "all", "starting"], [70, 15, 15])[0]
        victims = list(self.processes) if kind == "all" else [rng.choice(self.processes)]
        rng.shuffle(victims)
        time.sleep(rng.uniform(0, 0.08))  # the instant of the kill, not a wait for anything
        for process in victims:
            process.kill()
            self.counts[process.name] += 1
        if kind == "starting":
            victims[0].launch()
            time.sleep(rng.uniform(0, 0.05))
            victims[0].kill()
            self.counts["while starting"] += 1
        for process in victims:
            process.launch()
        for process in victims:
            process.wait_started()
        self.rounds += 1


def whole_inbox(member):
    """Every row, oldest first; marks nothing."""
    target, rows = "/v1/inbox?limit=1000&mark_seen=false", []
    while target:
        connection = UnixConnection(member.socket)
        try:
            connection.request("GET", target)
            reply = connection.getresponse()
            page = json.loads(reply.read())["items"]
            rows += page
            link = re.match(r'<([^>]*)>; rel="next"', reply.getheader("Link") or "")
            target = link.group(1) if link and page else None
        finally:
            connection.close()
    return list(reversed(rows))


def check(senders, member):
    """The messages to one member: all, once, whole, in order."""
    lanes = [s for s in senders if s.to == member.name]
    expected = sum(len(s.accepted) for s in lanes)

    def arrived():
        rows = whole_inbox(member)
        return rows if len(rows) >= expected else time.sleep(0.3)

    try:
        rows = wait_until(arrived, "all arrive", SETTLE_S)
    except Failed:
        got = {row["client_message_id"] for row in whole_inbox(member)}
        lost = [i for s in lanes for i in s.accepted if i not in got]
        raise Failed(f"{member.name}: lost {len(lost)} of {expected}: {lost[:5]}") from None
    ids = [row["client_message_id"] for row in rows]
    if len(ids) != expected or len(set(ids)) != expected:
        twice = [i for i, n in collections.Counter(ids).items() if n > 1]
        raise Failed(f"{member.name} has {len(ids)} rows for {expected} messages; twice: {twice}")
    for row in rows:
        if row["body"] != body_of(row["client_message_id"]):
            raise Failed(f"{member.name}: {row['client_message_id']} has another body")
    for sender in lanes:
        if [i for i in ids if i in set(sender.accepted)] != sender.accepted:
            raise Failed(f"the lane {sender.lane()} is out of order")
    status, reply = member.call("GET", "/v1/outbox?status=dead")
    if status != 200 or reply["items"]:
        raise Failed(f"{member.name} has dead outbox rows: {reply}")


def fsck(world):
    world.broker.stop()
    for member in world.members.values():
        member.daemon.stop()
        member.run("daemon", "fsck")
    next(iter(world.members.values())).run("broker", "fsck")


def run(build, rounds, report=print):
    """Raises Failed; the figures otherwise."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    report(f"seed {seed}, {rounds or 'endless'} rounds")
    began = time.monotonic()
    with World(build) as world:
        world.start_broker(limits=["rate_per_minute=0"])
        world.mesh_of_two()
        kills = Kills(world, random.Random(seed))
        senders = [Sender(world.members, *lane) for lane in LANES]
        for sender in senders:
            sender.start()
        try:
            while rounds == 0 or kills.rounds < rounds:
                for sender in senders:
                    sender.allowance.release(SENDS_A_ROUND)
                kills.round()
                if kills.rounds % 100 == 0:
                    report(f"  {kills.rounds} rounds, {sum(len(s.accepted) for s in senders)} "
                           f"accepted, {time.monotonic() - began:.0f} s")
        except KeyboardInterrupt:
            report("interrupted: checking what was accepted so far")
        for sender in senders:
            sender.end()
        for member in world.members.values():
            check(senders, member)
        fsck(world)
    accepted = sum(len(s.accepted) for s in senders)
    killed = ", ".join(f"{name} {count}" for name, count in sorted(kills.counts.items()))
    return (f"{kills.rounds} rounds ({killed}), {accepted} accepted, "
            f"{sum(s.repeated for s in senders)} tries cut off by a kill, "
            f"{time.monotonic() - began:.0f} s: nothing lost, nothing twice, order kept")


if __name__ == "__main__":
    try:
        print(run(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 50,
                  lambda text: print(text, flush=True)))
    except Failed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        sys.exit(1)
