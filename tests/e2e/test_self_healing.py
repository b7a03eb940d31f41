#!/usr/bin/env python3
"""test_self_healing.py BUILD — verbs that find no daemon, a busy one, or one that may not be started.

Nothing here is proved by time having passed: a verb that waits is seen waiting (its line on a
terminal), a daemon that is not started is seen not to be there when the verb has ended.
"""

import json
import os
import pathlib
import pty
import select
import signal
import subprocess
import sys
import threading
import time

from harness import Failed, World, wait_until


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


def serving(member):
    """The pid that the daemon wrote, if that process lives."""
    try:
        pid = int((member.home / ".claudemesh/daemon/daemon.pid").read_text())
        os.kill(pid, 0)
        return pid
    except (OSError, ValueError):
        return None


def daemons_of(world, member):
    """Every process of this world's program that is a daemon in the member's home."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            mine = os.readlink(entry / "exe") == str(world.binary)
            home = f"HOME={member.home}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mine and home and words[1:3] == [b"daemon", b"up"]:
            found.append(int(entry.name))
    return found


def state_of(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


class OnTerminal:
    """A verb with a terminal for its talk; until() reads that until a text is there."""

    def __init__(self, world, member, *words):
        self.ours, theirs = pty.openpty()
        self.child = subprocess.Popen([str(world.binary), *words],
                                      env={**member.env, "TERM": "xterm"},
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=theirs)
        os.close(theirs)
        self.seen = b""

    def until(self, text):
        while text not in self.seen:
            expect(select.select([self.ours], [], [], 30)[0], f"no '{text}', but {self.seen!r}")
            try:
                part = os.read(self.ours, 4096)
            except OSError:  # the other end is closed
                part = b""
            if not part:
                raise Failed(f"it ended with {self.child.wait(30)}, not '{text}': {self.seen!r}")
            self.seen += part

    def end(self):
        output = self.child.communicate(timeout=60)[0]
        os.close(self.ours)
        return self.child.returncode, output


def the_remedy_ends_the_suppression(world, carol, invite):
    """No mesh, so no daemon; the second verb is told of the first; joining mends it at once."""
    first = carol.run("peer", "list", check=False)
    expect(first.returncode == 2 and "no mesh is joined" in first.stderr, f"first: {first}")
    expect(first.stderr.count("no mesh is joined yet") == 1, f"said twice: {first.stderr}")
    marker = carol.home / ".claudemesh/daemon/.spawn-failure"
    expect(marker.exists(), "the failure is remembered")
    written = marker.stat().st_mtime_ns
    second = carol.run("peer", "list", check=False)
    expect(second.returncode == 4 and "spawn-suppressed" in second.stderr and
           "no mesh" in second.stderr, f"second: {second}")
    expect(marker.stat().st_mtime_ns == written, "nothing was tried again")
    checks = {c["check"]: c for c in carol.json_of_failure("doctor")["checks"]}
    expect("last start failed" in checks["daemon"]["detail"], f"doctor: {checks['daemon']}")
    # Half a minute later it is tried again.
    old = time.time_ns() - 31 * 10**9
    os.utime(marker, ns=(old, old))
    third = carol.run("peer", "list", check=False)
    expect(third.returncode == 2 and marker.stat().st_mtime_ns > old, f"third: {third}")
    carol.run("join", invite, "--name", "carol")
    done = carol.run("peer", "list")
    expect("was started" in done.stderr, f"after joining: {done.stderr}")
    expect(not marker.exists(), "what was mended is forgotten")


def a_setting_that_was_mended_counts(world, carol):
    carol.run("daemon", "down")
    settings = carol.home / ".claudemesh/config.toml"
    settings.write_text("[daemon]\ndurability = 7\n")
    expect(carol.run("inbox", check=False).returncode == 3, "a setting of a wrong type")
    expect(carol.run("inbox", check=False).returncode == 4, "suppressed")
    settings.write_text("")
    carol.run("inbox")
    settings.unlink()


def many_at_once_start_one(world, carol):
    carol.run("daemon", "down")
    expect(daemons_of(world, carol) == [], "no daemon runs")
    verbs = [subprocess.Popen([str(world.binary), "inbox", "--json"], env=carol.env,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
             for _ in range(8)]
    ended = [(v.communicate(timeout=120), v.returncode) for v in verbs]
    expect(all(code == 0 for _, code in ended), f"eight at once: {ended}")
    said = [text for (_, text), _ in ended if "was started" in text]
    expect(len(said) == 1, f"one of them says that it started it: {ended}")
    expect(daemons_of(world, carol) == [serving(carol)], "exactly one daemon runs")


def every_first_verb_is_answered(world, alice, carol):
    """The daemon that a verb starts has no link yet: the verb waits for it, and tells no lies."""
    alice.run("daemon", "up")
    alice.run("remember", "the door code is 7")
    alice.run("state", "set", "build", "green")
    alice.run("topic", "create", "general")
    wait_until(lambda: "alice" in carol.run("peer", "list", "--all").stdout, "carol sees alice")
    for words, text in ((["recall", "door"], "door code"), (["state", "list"], "build"),
                        (["topic", "list"], "general"), (["skill", "list"], None),
                        (["group", "join", "ops"], None), (["summary", "at work"], None),
                        (["topic", "members", "general"], None),
                        (["topic", "history", "general"], None),
                        (["peer", "list", "--all", "--json"], "alice"),
                        (["profile"], "carol"), (["peer", "verify", "alice"], None)):
        carol.run("daemon", "down")
        done = carol.run(*words)
        expect("was started" in done.stderr, f"{words} started a daemon: {done}")
        expect(text is None or text in done.stdout, f"{words} as the first verb: {done}")
    alice.run("daemon", "down")


def a_stopped_daemon_is_waited_for(world, carol):
    pid = serving(carol)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: state_of(pid) == "T", "the daemon is stopped")
        verb = OnTerminal(world, carol, "inbox", "--json")
        verb.until(b"waiting for the daemon")
        expect(verb.child.poll() is None and state_of(pid) == "T",
               f"it waits for the stopped one: {verb.child.poll()} {state_of(pid)} {verb.seen}")
    finally:
        os.kill(pid, signal.SIGCONT)
    code, output = verb.end()
    expect(code == 0 and output.startswith(b"["), f"answered in the end: {code} {verb.seen!r}")
    expect(daemons_of(world, carol) == [pid], "no other was started, and it was not killed")


def a_daemon_that_never_answers_is_not_killed(world, carol):
    pid = serving(carol)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: state_of(pid) == "T", "the daemon is stopped")
        done = carol.run("inbox", check=False)
        expect(done.returncode == 4 and "no answer came in time" in done.stderr, f"{done}")
        expect(state_of(pid) == "T" and daemons_of(world, carol) == [pid], "it is left alone")
    finally:
        os.kill(pid, signal.SIGCONT)
    carol.run("inbox")


def policies_start_nothing(world, carol):
    carol.run("daemon", "down")
    for words, text in ((["inbox", "--strict"], "--strict"), (["--no-daemon", "inbox"],
                                                             "--no-daemon")):
        done = carol.run(*words, check=False)
        expect(done.returncode == 4 and text in done.stderr, f"{words}: {done}")
    carol.env["CLAUDEMESH_STRICT_DAEMON"] = "1"
    expect(carol.run("inbox", check=False).returncode == 4, "strict by environment")
    del carol.env["CLAUDEMESH_STRICT_DAEMON"]
    carol.env["CLAUDEMESH_NO_DAEMON"] = "1"
    expect(carol.run("inbox", check=False).returncode == 4, "none by environment")
    del carol.env["CLAUDEMESH_NO_DAEMON"]
    expect(daemons_of(world, carol) == [], "nothing was started")
    for words in (["help", "send"], ["man"], ["completions", "bash"], ["completions", "fish"]):
        text = carol.run(*words).stdout.replace("\\-", "-")
        expect("strict" in text and "no-daemon" in text, f"{words} lack --strict, --no-daemon")


def a_service_is_waited_for(world, carol):
    """A unit of the user's service manager: that one starts daemons, verbs poll and say so."""
    unit = carol.home / ".config/systemd/user/claudemesh-daemon.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")
    done = carol.run("inbox", check=False)
    expect(done.returncode == 4 and "service-not-ready" in done.stderr and
           "systemctl --user start" in done.stderr, f"without its service: {done}")
    expect(daemons_of(world, carol) == [], "no verb started a daemon")
    verb = OnTerminal(world, carol, "inbox", "--json")
    verb.until(b"waiting for the service")
    expect(daemons_of(world, carol) == [], "the verb polls")
    carol.daemon.start()  # as the service manager would
    code, _ = verb.end()
    expect(code == 0, f"the verb went on when the service was there: {verb.seen!r}")
    carol.daemon.stop()
    unit.unlink()


def a_log_is_followed(world, carol):
    """What is in the log, what comes, and what comes after it was rotated."""
    carol.run("daemon", "up")
    log = carol.home / ".claudemesh/daemon/daemon.log"
    follow = subprocess.Popen([str(world.binary), "daemon", "logs", "-f", "-n", "1000"],
                              env=carol.env, stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(60, follow.kill)
    watchdog.start()
    try:
        def read_until(word):
            for line in follow.stdout:
                if word in line:
                    return line
            raise Failed(f"logs -f ended without {word}")

        read_until('"event":"daemon_started"')
        carol.run("daemon", "reload")
        read_until('"event":"config_reloaded"')
        os.rename(log, log.with_suffix(".1"))
        os.kill(serving(carol), signal.SIGHUP)
        read_until('"event":"log_reopened"')
        carol.run("daemon", "down")
        read_until('"event":"daemon_stopped"')
    finally:
        watchdog.cancel()
        follow.kill()
        follow.wait()
        follow.stdout.close()
    last = carol.run("daemon", "logs", "-n", "1").stdout
    expect(last.count("\n") == 1 and "daemon_stopped" in last, f"the last line: {last}")


def main(build):
    with World(build) as world:
        world.start_broker()
        alice, carol = world.member("alice"), world.member("carol")
        carol.json_of_failure = lambda *words: json.loads(
            carol.run(*words, "--json", check=False).stdout)
        alice.run("create", "crew", "--broker", world.url, "--display-name", "alice",
                  "--admin-token-file", str(world.data / "admin-token"))
        invite = alice.json("share")["url"]
        try:
            the_remedy_ends_the_suppression(world, carol, invite)
            a_setting_that_was_mended_counts(world, carol)
            many_at_once_start_one(world, carol)
            every_first_verb_is_answered(world, alice, carol)
            a_stopped_daemon_is_waited_for(world, carol)
            a_daemon_that_never_answers_is_not_killed(world, carol)
            policies_start_nothing(world, carol)
            a_service_is_waited_for(world, carol)
            a_log_is_followed(world, carol)
        finally:
            carol.run("daemon", "down", check=False)
            alice.run("daemon", "down", check=False)
    print("verbs find their daemon, or say why not")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "build/release")
    except Failed as failure:
        sys.exit(f"failed: {failure}")
