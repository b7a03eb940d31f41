#!/usr/bin/env python3
"""test_kill9.py BUILD [SENDS] — SIGKILL of every process at random instants during 1,000 sends.

Two lanes each way. The parent remembers every accepted send; at the end each is in exactly one
inbox row of its recipient, with its body, in the order of its lane. Prints its seed.
"""

import http.client
import os
import random
import sys
import threading

from harness import Failed, World, wait_until


class Sender(threading.Thread):
    """Sends its numbered messages in order, each until it is accepted, with one id for all tries."""

    def __init__(self, sender, to, priority, count, kills):
        super().__init__(daemon=True)
        self.sender, self.to, self.priority = sender, to, priority
        self.count, self.kills = count, kills
        self.accepted = []
        self.failure = None

    def run(self):
        try:
            for number in range(self.count):
                self.send_one(number)
                self.kills.after_send()
        except Failed as failure:
            self.failure = failure

    def send_one(self, number):
        body = f"{self.sender.name}>{self.to} {self.priority} {number}"
        fields = {"to": self.to, "message": body, "priority": self.priority,
                  "client_message_id": f"{self.sender.name}-{self.priority}-{number}"}

        def attempt():
            try:
                status, reply = self.sender.call("POST", "/v1/send", fields)
            except (OSError, http.client.HTTPException, ValueError):
                return False  # killed while it answered: the same id is safe to send again
            if status in (200, 202):
                return True
            if status == 503:
                return False  # not connected yet and the name is not known: try again
            raise Failed(f"send {body} answered {status}: {reply}")

        wait_until(attempt, f"{body} is accepted")
        self.accepted.append(body)


class Kills:
    """Kills a random process after a random number of sends, and starts it again at once."""

    def __init__(self, world, rng, rounds, sends):
        self.world = world
        self.at = sorted(rng.sample(range(1, sends), rounds))
        self.victims = [rng.choice(["broker", "alice", "bob"]) for _ in self.at]
        self.lock = threading.Lock()
        self.sent = 0
        self.done = 0

    def after_send(self):
        with self.lock:
            self.sent += 1
            if self.done < len(self.at) and self.sent >= self.at[self.done]:
                name = self.victims[self.done]
                process = (self.world.broker if name == "broker"
                           else self.world.members[name].daemon)
                process.kill()
                process.start()
                self.done += 1


def check(senders, members):
    for sender in senders:
        if sender.failure:
            raise sender.failure
    for member in members.values():
        expected = [b for s in senders if s.to == member.name for b in s.accepted]

        def arrived(member=member, expected=expected):
            got = [item["body"] for item in member.inbox()]
            return got if set(expected) <= set(got) else None

        got = wait_until(arrived, f"all {len(expected)} messages reach {member.name}", 120)
        if len(got) != len(expected):
            raise Failed(f"{member.name} has {len(got)} inbox rows for {len(expected)} messages")
        for sender in senders:
            if sender.to == member.name:
                lane = [b for b in got if b in set(sender.accepted)]
                if lane != sender.accepted:
                    raise Failed(f"a lane to {member.name} is out of order")


def fsck(world, members):
    world.broker.stop()
    for member in members.values():
        member.daemon.stop()
        member.run("daemon", "fsck")
    next(iter(members.values())).run("broker", "fsck")


def main(build, sends):
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"seed {seed}, {sends} sends", flush=True)
    rng = random.Random(seed)
    with World(build) as world:
        world.start_broker()
        alice, bob = world.mesh_of_two()
        kills = Kills(world, rng, max(10, sends // 10), sends)
        senders = [Sender(alice, "bob", "next", sends // 4, kills),
                   Sender(alice, "bob", "low", sends // 4, kills),
                   Sender(bob, "alice", "next", sends // 4, kills),
                   Sender(bob, "alice", "now", sends // 4, kills)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        check(senders, world.members)
        fsck(world, world.members)
        print(f"{sends} accepted, {kills.done} kills "
              f"({', '.join(f'{v} {kills.victims.count(v)}' for v in ('broker', 'alice', 'bob'))}): "
              "nothing lost, nothing twice, order kept")


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
    except Failed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        sys.exit(1)
