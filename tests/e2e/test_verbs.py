#!/usr/bin/env python3
"""test_verbs.py BUILD — every verb that works through daemon and broker, with real processes.

Topics, groups, state, memory, profile, status, members, invites by short link, renaming, leaving,
deleting; a daemon that a verb starts by itself; the broker's operator verbs.
"""

import http.server
import json
import os
import pathlib
import pty
import select
import socket
import socketserver
import subprocess
import sys
import threading

from harness import Failed, World, wait_until


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


def exit_of(member, *arguments):
    return member.run(*arguments, check=False).returncode


def three_members(world):
    world.start_broker()
    alice, bob, carol = (world.member(n) for n in ("alice", "bob", "carol"))
    alice.run("create", "crew", "--broker", world.url, "--display-name", "alice",
              "--admin-token-file", str(world.data / "admin-token"))
    bob.run("join", alice.json("share")["url"], "--name", "bob")
    short = alice.json("share")["short_url"]
    carol.run("join", short, "--name", "carol")
    expect(exit_of(carol, "join", short) == 5, "a used short link is not_found")
    for one in (alice, bob, carol):
        one.daemon.start()
    for one in (alice, bob, carol):
        one.wait_connected()
    return alice, bob, carol


def topics_carry_posts(alice, bob, carol):
    made = alice.json("topic", "create", "deploys", "--description", "what went out")
    expect(made["created"] is True, f"topic create: {made}")
    bob.run("topic", "join", "deploys")
    expect(exit_of(carol, "topic", "join", "nowhere") == 5, "joining an unknown topic")
    alice.run("topic", "post", "deploys", "version", "2", "is", "out")
    got = wait_until(lambda: next((m for m in bob.inbox() if m["body"] == "version 2 is out"), None),
                     "the post arrives")
    expect(got["topic"] == "deploys" and got["sender_name"] == "alice", f"the post: {got}")
    expect(not any(m["body"] == "version 2 is out" for m in carol.inbox()), "carol is not in it")
    history = bob.json("topic", "history", "deploys")["messages"]
    expect(len(history) == 1 and history[0]["senderName"] == "alice", f"history: {history}")
    members = {m["displayName"] for m in alice.json("topic", "members", "deploys")["members"]}
    expect(members == {"alice", "bob"}, f"members of the topic: {members}")
    bob.run("topic", "read", "deploys")
    bob.run("topic", "leave", "deploys")
    expect(alice.json("topic", "list")["topics"][0]["memberCount"] == 1, "bob has left")


def groups_and_broadcasts(alice, bob, carol):
    bob.run("group", "join", "@ops/eu", "--role", "lead")
    alice.run("send", "@ops", "to ops")
    wait_until(lambda: any(m["body"] == "to ops" for m in bob.inbox()), "the group has it")
    alice.run("send", "*", "to all")
    for one in (bob, carol):
        wait_until(lambda: any(m["body"] == "to all" for m in one.inbox()), "everybody has it")
    expect(not any(m["body"] == "to ops" for m in carol.inbox()), "carol is not in ops")
    bob.run("group", "leave", "ops/eu")


def state_and_memory(alice, bob):
    alice.run("state", "set", "build", '{"n": 1.50}')
    expect(bob.json("state", "get", "build")["value"] == {"n": 1.5}, "state get")
    alice.run("state", "set", "plain", "just text")
    expect(bob.run("state", "get", "plain").stdout.strip() == "just text", "a text is shown bare")
    keys = [e["key"] for e in bob.json("state", "list")["entries"]]
    expect(keys == ["build", "plain"], f"state list: {keys}")
    expect(exit_of(bob, "state", "get", "none") == 5, "state get of nothing")
    stored = alice.json("remember", "we", "deploy", "on", "fridays", "--tags", "ops,habit")
    found = bob.json("recall", "deploying", "friday")["matches"]
    expect([m["id"] for m in found] == [stored["id"]], f"recall: {found}")
    expect(stored["id"] in bob.run("recall", "deploying").stdout, "recall shows ids to forget by")
    done = bob.run("forget", stored["id"][:8], check=False)
    expect(done.returncode == 5 and "recall" in done.stderr, f"part of an id: {done}")
    expect(bob.json("recall", "deploying")["matches"], "what was not forgotten is still there")
    bob.run("forget", stored["id"])
    expect(exit_of(bob, "forget", stored["id"], "--json") == 5, "forgotten once")
    expect(alice.json("recall", "deploy")["matches"] == [], "forgotten")
    expect(alice.json("skill", "list")["skills"] == [], "no skills")


def presence(alice, bob):
    bob.run("summary", "reading", "logs")
    bob.run("profile", "--title", "Keeper", "--capabilities", "cpp,sql")
    bob.run("status", "set", "dnd")

    def seen():
        peers = {p["displayName"]: p for p in alice.json("peer", "list", "--all")}
        return peers["bob"] if peers["bob"]["status"] == "dnd" else None

    peer = wait_until(seen, "alice sees that bob is dnd")
    expect(peer["summary"] == "reading logs" and peer["profile"]["title"] == "Keeper",
           f"what alice sees of bob: {peer}")
    sent = alice.json("send", "bob", "later", "--priority", "next")
    alice.run("send", "bob", "at once", "--priority", "now")
    wait_until(lambda: any(m["body"] == "at once" for m in bob.inbox()), "now comes through")
    expect(not any(m["body"] == "later" for m in bob.inbox()), "next waits while bob is dnd")
    status = alice.json("message", "status", sent["messageId"])
    expect(status["recipients"][0]["status"] == "held", f"held: {status}")
    bob.run("status", "set", "idle")
    wait_until(lambda: any(m["body"] == "later" for m in bob.inbox()), "idle lets it go")
    wait_until(lambda: alice.json("message", "status", sent["messageId"])["delivered"],
               "the status says delivered")
    bob.run("visible", "n")
    wait_until(lambda: "bob" not in {p["displayName"] for p in alice.json("peer", "list", "--all")},
               "hidden")
    bob.run("visible", "y")
    numbers = alice.json("peer", "verify")
    mine = {n["peer"]: n["safetyNumber"] for n in numbers}
    theirs = {n["peer"]: n["safetyNumber"] for n in bob.json("peer", "verify")}
    expect(mine["bob"] == theirs["alice"], "both sides read the same number")


def inboxes_are_kept(bob):
    before = len(bob.inbox())
    expect(before > 1, "bob has mail")
    expect(exit_of(bob, "inbox", "flush") == 1, "flush without a filter")
    bob.run("inbox", "delete", bob.inbox()[0]["id"])
    expect(len(bob.inbox()) == before - 1, "one is gone")
    expect(exit_of(bob, "inbox", "delete", "01ARZ3NDEKTSV4RRFFQ69G5FAV") == 5, "an unknown id")
    removed = bob.json("inbox", "flush", "--all")
    expect(removed == {"ok": True, "removed": before - 1}, f"flush: {removed}")


def lost_output_is_no_success(world, alice, bob):
    """A full device, a closed stream, a reader that has gone."""
    alice.run("send", "bob", "do not lose me")
    wait_until(lambda: any(m["body"] == "do not lose me" for m in bob.inbox()), "it arrives")

    def shell(member, text):
        return subprocess.run(["bash", "-c", f'cm="{world.binary}"; {text}'], env=member.env,
                              capture_output=True, text=True, timeout=60, check=False)

    for words in ("share -q", "peer list --all", "peer list --json", "state list --json", "version",
                  "help", "man", "completions bash", "inbox --json --unread", "inbox --unread",
                  "send bob x -q", "config --json", "topic tail deploys --json"):
        for to in (">/dev/full", ">&-"):
            done = shell(bob if words.startswith("inbox") else alice, f'"$cm" {words} {to}')
            expect(done.returncode == 10 and "standard output" in done.stderr,
                   f"{words} {to}: {done}")
    unread = bob.json("inbox", "--unread", "--keep-unread")
    expect(any(m["body"] == "do not lose me" for m in unread), f"what nobody saw: {unread}")
    expect(bob.json("inbox", "--unread") == unread, "shown, and then seen")
    expect(bob.json("inbox", "--unread") == [], "seen")
    for gone in ('"$cm" man | true; exit ${PIPESTATUS[0]}',
                 'trap "" PIPE; "$cm" man | true; exit ${PIPESTATUS[0]}'):
        done = shell(alice, gone)
        expect(done.returncode in (0, 141) and not done.stderr, f"a reader that left: {done}")


def meshes_are_administered(world, alice, bob, carol):
    members = {m["displayName"]: m for m in bob.json("member", "list")["members"]}
    expect(set(members) == {"alice", "bob", "carol"} and members["alice"]["permission"] == "admin",
           f"members: {members}")
    expect(exit_of(bob, "rename", "crew", "band") == 7, "bob may not rename")
    alice.run("rename", "crew", "band")
    expect(alice.json("list")["meshes"][0]["slug"] == "band", "renamed here")
    wait_until(alice.connected, "the daemon goes on after the rename")
    expect(alice.json("info", "band")["peers"] >= 1, "info")
    expect(alice.json("whoami")["meshes"][0]["slug"] == "band", "whoami")
    expect("secret" not in alice.run("whoami", "--json").stdout.lower(), "whoami shows a secret")
    for words in (["leave", "crew"], ["leave", "--mesh", "crew", "--confirm", "band"]):
        done = carol.run(*words, check=False)
        expect(done.returncode == 7 and "--confirm crew" in done.stderr, f"leave asks: {done}")
    expect(exit_of(carol, "leave", "crew", "--json") == 7, "also for JSON")
    expect(carol.json("list")["meshes"][0]["slug"] == "crew", "her key is still there")
    ours, theirs = pty.openpty()
    child = subprocess.Popen([str(world.binary), "leave", "crew"], env=carol.env, stdin=theirs,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.write(ours, b"band\n")
    asked = child.communicate(timeout=60)[1]
    os.close(ours)
    os.close(theirs)
    expect(child.returncode == 3 and "type its slug" in asked, f"a terminal is asked: {asked}")
    expect(carol.json("list")["meshes"][0]["slug"] == "crew", "another word changes nothing")
    left = carol.run("leave", "--mesh", "crew", "--confirm", "crew")
    expect("still lists" in left.stderr and "admin" not in left.stderr, f"what is true: {left}")
    expect(carol.json("list")["meshes"] == [], "carol has left")
    wait_until(lambda: carol.call("GET", "/v1/health")[1]["meshes"] == [],
               "her daemon has noticed while running")
    expect(exit_of(alice, "delete", "band", "--json") == 7, "delete needs the slug again")
    alice.run("delete", "band", "--confirm", "band")
    expect(alice.json("list")["meshes"] == [], "deleted here")
    wait_until(lambda: not bob.connected(), "bob's daemon is turned away")


def brokers_are_operated(world, alice, bob):
    env, binary = alice.env, str(world.binary)

    def broker(*arguments):
        return subprocess.run([binary, "broker", *arguments, "--data", str(world.data)], env=env,
                              capture_output=True, text=True, timeout=60, check=False)

    up = broker("status", "--json")
    expect(json.loads(up.stdout)["ready"] is True, f"broker status: {up.stdout}{up.stderr}")
    backup = world.root / "backup.cmdb"
    done = broker("backup", str(backup), "--json")
    expect(json.loads(done.stdout)["rows"] > 0, f"hot backup: {done.stdout}{done.stderr}")
    expect(oct(backup.stat().st_mode & 0o777) == "0o600", "the backup is private")
    expect(broker("backup", str(backup)).returncode == 6, "no backup is overwritten")
    expect(broker("restore", str(backup)).returncode == 1, "restore needs a stopped broker")
    expect(broker("compact").returncode == 1, "compact needs a stopped broker")
    old = (world.data / "admin-token").read_text()
    done = broker("rotate-admin-token")
    expect(done.returncode == 0, f"rotate: {done.stderr}")
    expect((world.data / "admin-token").read_text() != old, "the token is new")
    stale = world.root / "stale-token"
    stale.write_text(old)
    stale.chmod(0o600)
    wait_until(lambda: exit_of(alice, "create", "x1", "--broker", world.url, "--admin-token-file",
                               str(stale)) == 2, "the old token is refused")
    world.broker.stop()
    expect(broker("status").returncode == 1, "no broker runs")
    expect(broker("compact").returncode == 0, "compact")
    (world.data / "store/data.mdb").write_bytes(b"damage" * 4096)
    expect(broker("fsck").returncode != 0, "fsck sees the damage")
    done = broker("restore", str(backup))
    expect(done.returncode == 0, f"restore: {done.stderr}")
    expect(broker("fsck").returncode == 0, "fsck after restore")
    world.broker.start()
    bob.wait_connected()


def a_verb_starts_its_daemon(world, bob):
    bob.daemon.stop()
    expect(exit_of(bob, "inbox", "--strict") == 4, "--strict starts nothing")
    done = bob.run("peer", "list", "--json")
    pid = int((bob.home / ".claudemesh/daemon/daemon.pid").read_text())
    try:
        expect("was started" in done.stderr, f"the verb says what it did: {done.stderr}")
        expect(bob.run("inbox").stderr.count("was started") == 0, "and only once")
        expect(int((bob.home / ".claudemesh/daemon/daemon.pid").read_text()) == pid,
               "and it is the same one")
        expect("daemon_started" in bob.run("daemon", "logs").stdout, "daemon logs")
        expect(bob.json("daemon", "restart")["ok"] is True, "one document of a restart")
        expect(bob.json("daemon", "version")["ipc_api"] == "v1", "daemon version")
    finally:
        bob.run("daemon", "down")


def a_topic_is_followed(world, alice, bob):
    """What was posted and what comes, once each and in order, though they overlap."""
    bob.run("topic", "join", "deploys")
    for number in range(3):
        alice.run("topic", "post", "deploys", f"before {number}")
    tail = subprocess.Popen([str(world.binary), "topic", "tail", "deploys", "--limit", "2", "--json"],
                            env=bob.env, stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(60, tail.kill)
    watchdog.start()
    try:
        lines = [json.loads(tail.stdout.readline()) for _ in range(2)]
        expect([l["message"] for l in lines] == ["before 1", "before 2"], f"history: {lines}")
        alice.run("topic", "post", "deploys", "live, with\na line feed")
        line = json.loads(tail.stdout.readline())
        expect(line["message"] == "live, with\na line feed", f"live: {line}")
        expect(line["senderName"] == "alice" and line["topic"] == "deploys", f"live: {line}")
    finally:
        watchdog.cancel()
        tail.kill()
        tail.wait()
        tail.stdout.close()
    bob.run("topic", "leave", "deploys")
    expect(exit_of(bob, "topic", "tail", "nowhere") == 5, "a topic that is not there")


def on_a_terminal(world, member, *words):
    """What a verb writes to a terminal."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen([str(world.binary), *words], env={**member.env, "TERM": "xterm"},
                             stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:
        pass  # the other end is closed
    os.close(ours)
    child.wait(60)
    return seen


def a_terminal_obeys_no_peer(world, alice, bob):
    """Escape sequences, C1 controls and what turns text around, wherever a peer can write."""
    evil = "a\x1b]0;owned\x07b\u009b31mc\u202ed"
    bob.call("POST", "/v1/state", {"key": "evil", "value": {"text": evil}})
    bob.run("send", "alice", evil)
    bob.run("remember", evil)
    wait_until(lambda: any(m["body"] == evil for m in alice.inbox()), "the message arrives")
    for words in (["state", "get", "evil"], ["state", "list"], ["inbox", "--keep-unread"],
                  ["recall", "a"], ["inbox", "--keep-unread", "--json"], ["state", "list", "--json"]):
        seen = on_a_terminal(world, alice, *words)
        for bad in (b"\x1b]", b"\x07", "\u009b".encode(), "\u202e".encode()):
            expect(bad not in seen, f"{words} let {bad!r} through: {seen!r}")
    piped = alice.run("state", "list", "--json").stdout
    expect(evil in [e["value"].get("text") for e in json.loads(piped)["entries"]
                    if isinstance(e["value"], dict)], "a pipe gets what was stored")


class Impostor(http.server.BaseHTTPRequestHandler):
    """A daemon that lives, and whose broker does not."""

    asked = []

    def do_POST(self):
        self.asked.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(503, b'{"error":"unavailable","detail":"the link broke","remedy":"wait"}')

    def do_GET(self):
        self.answer(200, b'{"daemon_version":"0","ipc_api":"v1"}')

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "local"

    def log_message(self, *_):
        pass


def a_request_that_was_answered_is_not_repeated(world):
    eve = world.member("eve")
    eve.socket.parent.mkdir(mode=0o700, parents=True)
    eve.socket.parent.parent.chmod(0o700)
    server = socketserver.UnixStreamServer(str(eve.socket), Impostor)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        done = eve.run("remember", "once", check=False)
        expect(done.returncode == 4, f"exit {done.returncode}: {done.stderr}")
        expect(Impostor.asked == ["/v1/memory"], f"asked: {Impostor.asked}")
    finally:
        server.shutdown()
        server.server_close()


def a_long_wait_is_shown_on_a_terminal_only(world):
    """A broker that takes the connection and never answers."""
    dan = world.member("dan")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/ws"
        words = [str(world.binary), "create", "mute", "--broker", url, "--display-name", "dan"]
        ours, theirs = pty.openpty()
        env = {**dan.env, "TERM": "xterm"}
        waiting = subprocess.Popen(words, env=env, stderr=theirs, stdout=subprocess.DEVNULL)
        os.close(theirs)
        seen = b""
        while b"waiting for the broker" not in seen:
            expect(select.select([ours], [], [], 30)[0], f"no progress in 30 s, but {seen!r}")
            seen += os.read(ours, 4096)
        waiting.kill()
        waiting.wait()
        os.close(ours)
        quiet = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        connection, _ = silent.accept()
        connection2, _ = silent.accept()
        connection.close()
        connection2.close()
        expect(b"waiting" not in quiet.communicate(timeout=60)[1], "progress in a pipe")


def texts_come_from_the_table(world, alice):
    for shell in ("bash", "zsh", "fish"):
        text = alice.run("completions", shell).stdout
        for verb in alice.json("help")["verbs"]:
            expect(verb["verb"].split()[-1] in text, f"{verb['verb']} is missing for {shell}")
    checked = subprocess.run(["bash", "-n"], input=alice.run("completions", "bash").stdout,
                             text=True, check=False)
    expect(checked.returncode == 0, "the completions are no bash")
    page = alice.run("man").stdout
    for section in (".SH NAME", ".SH VERBS", ".SH EXIT STATUS", ".SH FILES"):
        expect(section in page, f"the manual page has no {section}")


def main(build):
    with World(pathlib.Path(build)) as world:
        alice, bob, carol = three_members(world)
        topics_carry_posts(alice, bob, carol)
        groups_and_broadcasts(alice, bob, carol)
        state_and_memory(alice, bob)
        presence(alice, bob)
        inboxes_are_kept(bob)
        texts_come_from_the_table(world, alice)
        a_topic_is_followed(world, alice, bob)
        a_terminal_obeys_no_peer(world, alice, bob)
        a_request_that_was_answered_is_not_repeated(world)
        a_long_wait_is_shown_on_a_terminal_only(world)
        brokers_are_operated(world, alice, bob)
        a_verb_starts_its_daemon(world, bob)
        bob.daemon.start()
        lost_output_is_no_success(world, alice, bob)
        meshes_are_administered(world, alice, bob, carol)
    print("the verbs do what they say")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "build/release")
    except Failed as failure:
        sys.exit(f"failed: {failure}")
