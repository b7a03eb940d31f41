#!/usr/bin/env python3
"""nth_binary.py BUILD [--quick] [--kind NAME] — the Nth call fails in the real broker and daemon.

A shim (fail_shim.c, preloaded) makes one allocation, write, sync, open, mmap or accept of one
process fail. Meanwhile both members send. Good: the process goes on, or ends with a report or an
error. After its restart, without a failure, everything that was accepted has arrived exactly once,
in order, and fsck is content. A crash without a report, a hang, a lost message: failed.

N is 1, 2, 3, .. until a run in which nothing fails; allocations beyond 100 in growing steps.
--quick takes a few N of each.
"""

import collections
import http.client
import os
import pathlib
import signal
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))

from harness import Failed, World, wait_until  # noqa: E402
from test_kill9 import Sender, body_of, whole_inbox  # noqa: E402

KINDS = {"alloc": 1, "write-full": 2, "write-io": 3, "write-short": 4, "sync": 5, "open": 6,
         "mmap": 7, "accept": 8}
REPORTS = (-signal.SIGABRT,)   # a CHECK, or memory that is exhausted: both print why
SENDS = 2                      # of each side, while the failure may strike
DEADLINE_S = 90                # a daemon waits up to 30 s before it dials again


class Board:
    """The file by which the shim is armed and counts; as struct cm_fail_board."""

    def __init__(self, path):
        self.path = path

    def arm(self, kind, nth):
        self.path.write_bytes(struct.pack("<IIQQ", kind, 0, nth, 0))

    def read(self):
        """(whether it fired, calls counted)"""
        _, fired, _, count = struct.unpack("<IIQQ", self.path.read_bytes())
        return fired != 0, count


class Trials:
    def __init__(self, world, shim):
        self.world, self.shim = world, shim
        self.alice, self.bob = world.members["alice"], world.members["bob"]
        self.senders = [Sender(world.members, "alice", "bob", "next"),
                        Sender(world.members, "bob", "alice", "next")]
        self.board = Board(world.root / "fail-board")
        self.outcomes = collections.Counter()

    def start(self, process, kind, nth):
        self.board.arm(kind, nth)
        process.env.update(LD_PRELOAD=str(self.shim), CM_FAIL_BOARD=str(self.board.path))
        process.launch()

    def disarm(self, process):
        for name in ("LD_PRELOAD", "CM_FAIL_BOARD"):
            process.env.pop(name, None)

    def trial(self, process, kind, nth):
        """Whether the failure struck; raises Failed."""
        process.stop()
        before = process.log_path.stat().st_size
        self.start(process, KINDS[kind], nth)
        ended = None
        try:
            self.dial_anew(process)
            self.work(process)
        except Ended as end:
            ended = end.code
        fired, count = self.board.read()
        # With the counting over, a stop runs its own course.
        self.board.arm(0, 0)
        outcome = "went on"
        if ended is None:
            process.stop()
        else:
            outcome = self.judge_end(process, kind, ended, before, fired)
        self.disarm(process)
        process.start()
        self.dial_anew(process)
        self.expect_all()
        if fired:
            self.outcomes[outcome] += 1
        return fired, count

    def dial_anew(self, process):
        """Daemons that saw the broker go would wait before they dial again: they begin anew."""
        if process is not self.world.broker:
            return
        try:
            process.wait_started()
        except Failed:
            if process.child.poll() is None:
                raise
            raise Ended(process.child.returncode) from None
        for member in self.world.members.values():
            member.daemon.stop()
            member.daemon.launch()
        for member in self.world.members.values():
            member.daemon.wait_started()

    def work(self, process):
        for _ in range(SENDS):
            for sender in self.senders:
                self.send_while_running(process, sender)
        for sender in self.senders:
            wait_until(lambda s=sender: self.has_arrived(s, process),
                       f"what was accepted reaches {sender.to} while {process.name} goes on",
                       DEADLINE_S)

    def has_arrived(self, sender, process):
        if process.child.poll() is not None:
            raise Ended(process.child.returncode)
        try:
            rows = whole_inbox(self.world.members[sender.to])
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return False
        return len(rows) >= len(sender.accepted)

    def send_while_running(self, process, sender):
        """As Sender.send_one, but an end of the process under test ends it."""
        number = len(sender.accepted)
        message_id = f"{sender.sender.name}-{sender.priority}-{number}"
        fields = {"to": sender.to, "message": body_of(message_id), "priority": sender.priority,
                  "client_message_id": message_id}

        def attempt():
            if process.child.poll() is not None:
                raise Ended(process.child.returncode)
            try:
                status, _ = sender.sender.call("POST", "/v1/send", fields)
            except (OSError, http.client.HTTPException, ValueError):
                return False
            return status in (200, 202)  # 503 and 507: once more

        wait_until(attempt, f"{message_id} is accepted by {process.name}", DEADLINE_S)
        sender.accepted.append(message_id)

    def judge_end(self, process, kind, code, before, fired):
        text = process.log_path.read_bytes()[before:].decode(errors="replace")
        if not fired:
            raise Failed(f"{process.name} ended with {code} by itself: {text[-600:]}")
        if code in REPORTS and text.strip():
            return "ended with a report"
        if code == -signal.SIGSEGV and kind == "alloc" and "_started" not in text:
            return "ended while libraries set themselves up"  # OpenSSL 3 does not look
        if code > 0 and text.strip():
            return "ended with an error"
        raise Failed(f"{process.name} ended with {code}: {text[-600:]}")

    def expect_all(self):
        for sender in self.senders:
            sender.send_one(len(sender.accepted))  # also that which was cut off
        for sender in self.senders:
            member = self.world.members[sender.to]

            def arrived(member=member, sender=sender):
                try:
                    ids = [row["client_message_id"] for row in whole_inbox(member)]
                except (OSError, http.client.HTTPException, ValueError):
                    return None
                return ids if len(ids) >= len(sender.accepted) else None

            ids = wait_until(arrived, f"all reach {member.name}", DEADLINE_S)
            if ids != sender.accepted:
                raise Failed(f"{member.name} has {ids[-6:]}, accepted were {sender.accepted[-6:]}")


class Ended(Exception):
    """The process under test is gone."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


def plan(kind, count, quick):
    """Which N are tried, of `count` that there are."""
    if quick:
        return sorted({1 + index * count // 2 for index in range(2)} & set(range(1, count + 1)))
    numbers, step = [], 1
    number = 1
    while number <= count:
        numbers.append(number)
        if kind == "alloc" and number >= 100:
            step = max(1, number // 50)
        number += step
    return numbers


def fsck(world):
    world.broker.stop()
    for member in world.members.values():
        member.daemon.stop()
        member.run("daemon", "fsck")
    next(iter(world.members.values())).run("broker", "fsck")


def main(build, quick, only):
    build = pathlib.Path(build).resolve()
    failed = 0
    with World(build) as world:
        world.start_broker(limits=["rate_per_minute=0"])
        world.mesh_of_two()
        trials = Trials(world, build / "faults/fail_shim.so")
        for process in (world.broker, world.members["alice"].daemon):
            for kind in KINDS:
                if only not in (None, kind):
                    continue
                began = time.monotonic()
                trials.outcomes.clear()
                _, count = trials.trial(process, kind, 1 << 62)
                numbers, reached = plan(kind, count, quick), 0
                for nth in numbers:
                    try:
                        fired, _ = trials.trial(process, kind, nth)
                    except Failed as failure:
                        failed += 1
                        print(f"FAILED {process.name}, {kind}, N = {nth}: {failure}",
                              file=sys.stderr, flush=True)
                        trials.disarm(process)
                        process.stop()
                        process.start()
                        continue
                    if not fired:
                        break
                    reached = nth
                outcomes = ", ".join(f"{k} {v}" for k, v in sorted(trials.outcomes.items()))
                print(f"nth failure, {process.name}, {kind}: {sum(trials.outcomes.values())} trials "
                      f"to N = {reached} of {count}: {outcomes or 'no such call'}; "
                      f"{time.monotonic() - began:.1f} s", flush=True)
        fsck(world)
    print(f"{failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    words = sys.argv[1:]
    if not words:
        sys.exit(__doc__)
    chosen = words[words.index("--kind") + 1] if "--kind" in words else None
    try:
        sys.exit(main(words[0], "--quick" in words, chosen))
    except Failed as problem:
        sys.exit(f"failed: {problem}")
