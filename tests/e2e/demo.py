#!/usr/bin/env python3
"""demo.py BUILD — the main job as a person sees it, on this machine, cleaning up behind itself.

Two members and a broker on loopback; encrypted messages each way; SIGKILL of the receiving daemon
and of the broker in the middle of a hundred sends; nothing lost, nothing twice, in order.
Exits non-zero with a sentence when any step fails.
"""

import statistics
import sys
import threading
import time

from harness import EventStream, Failed, World, wait_until


def step(text):
    print(f"\n— {text}", flush=True)


def show_inbox(member):
    print(f"  {member.name}'s inbox:")
    print(member.run("inbox", "--keep-unread", "--limit", "5", "-q").stdout.rstrip())


def bodies(member):
    return [item["body"] for item in member.inbox()]


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


def one_message_each_way(alice, bob):
    step("alice and bob send each other an end-to-end encrypted message")
    print(alice.run("send", "bob", "hello bob, only you can read this").stderr.rstrip())
    print(bob.run("send", "alice", "hello alice, I did").stderr.rstrip())
    wait_until(lambda: bodies(bob) and bodies(alice), "both messages arrive")
    show_inbox(alice)
    show_inbox(bob)


def kill_the_receiver(alice, bob):
    step("bob's daemon is killed with SIGKILL; alice sends again; it is started again")
    bob.daemon.kill()
    alice.run("send", "bob", "sent while you were dead")
    bob.daemon.start()
    wait_until(lambda: "sent while you were dead" in bodies(bob), "the message arrives")
    # Whatever would come twice comes with the next message at the latest.
    alice.run("send", "bob", "and one more")
    wait_until(lambda: "and one more" in bodies(bob), "the next message arrives")
    count = bodies(bob).count("sent while you were dead")
    expect(count == 1, f"the message arrived {count} times, not once")
    print("  it arrived exactly once")


def kill_the_broker(world, alice, bob):
    step("the broker is killed with SIGKILL in the middle of a hundred sends")
    sent = [f"message {number}" for number in range(100)]
    half = threading.Event()

    def send_all():
        for number, text in enumerate(sent):
            alice.send("bob", text)
            if number == 40:
                half.set()

    sender = threading.Thread(target=send_all)
    sender.start()
    half.wait(60)
    world.broker.kill()
    sender.join(60)
    expect(not sender.is_alive(), "a send hung while the broker was down")
    print("  100 accepted by alice's daemon; the broker is started again")
    world.broker.start()
    wait_until(lambda: sent[-1] in bodies(bob), "the last message arrives")
    got = [body for body in bodies(bob) if body.startswith("message ")]
    missing = set(sent) - set(got)
    expect(not missing, f"{len(missing)} of 100 messages were lost")
    expect(len(got) == len(sent), f"{len(got) - len(sent)} messages arrived twice")
    expect(got == sent, "the messages arrived out of order")
    print("  100 arrived: none lost, none twice, all in order")


def measure(world, alice, bob):
    step("time from send to inbox, and resident memory")
    events = EventStream(bob)
    alice.send("bob", "warm up")
    times = []
    for number in range(50):
        start = time.monotonic()
        reply = alice.send("bob", f"timed {number}")
        times.append((events.wait_for(reply["client_message_id"]) - start) * 1000)
    print(f"  send to inbox: median {statistics.median(times):.1f} ms, "
          f"worst of 50 {max(times):.1f} ms, each durable at three places on the way")
    for process in (world.broker, alice.daemon, bob.daemon):
        print(f"  {process.name:<14} {process.resident_kib() / 1024:6.1f} MiB resident")


def main(build):
    with World(build) as world:
        step("a broker on loopback with an embedded store")
        world.start_broker()
        print(f"  {world.url}, data in {world.data}")
        step("alice creates a mesh, bob joins it with an invite; both daemons start")
        alice, bob = world.mesh_of_two()
        print(alice.run("peer", "list", "--all", "-q").stdout.rstrip())
        one_message_each_way(alice, bob)
        kill_the_receiver(alice, bob)
        kill_the_broker(world, alice, bob)
        measure(world, alice, bob)
        step("done; everything is stopped and removed")
        for process in (alice.daemon, bob.daemon, world.broker):
            process.stop()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Failed as failure:
        print(f"\ndemo failed: {failure}", file=sys.stderr)
        sys.exit(1)
