#!/usr/bin/env python3
"""test_json_shapes.py BUILD — every verb prints with --json what docs/CLI.md says, no more, no less.

The table is read from the document, so that it cannot go stale: a verb without a row, a row without
a verb, a member too much or too little, another form or exit status fail.
"""

import json
import pathlib
import re
import subprocess
import sys

import json_shapes
from harness import Failed, World, wait_until

DOC = pathlib.Path(__file__).resolve().parents[2] / "docs/CLI.md"
ROW = re.compile(r"^\| `([a-z -]+)` \| (pretty|line|text) \| ([0-9, ]+) \| (?:`(.+)`|—) \|$")
ERROR = json_shapes.parse("{ok: bool, error: text, detail: text, remedy: text}")
MORE_IN_ERRORS = {"via", "field", "code", "reason", "expected", "id", "isPrefix"}
# Without a skill in the mesh there is nothing to show; only its failure is.
ONLY_REFUSED = {"skill get"}
TEXTS = {"completions", "man", "daemon logs"}


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


def documented():
    rows = {}
    for line in DOC.read_text(encoding="utf-8").split("\n"):
        found = ROW.match(line)
        if found:
            shape = found.group(4).replace("\\|", "|") if found.group(4) else None
            exits = {int(code) for code in found.group(3).split(",")}
            rows[found.group(1)] = (found.group(2), exits, shape)
    return rows


class Checker:
    def __init__(self, rows):
        self.rows = rows
        self.seen = set()

    def verb_of(self, words):
        two = " ".join(words[:2])
        return two if two in self.rows else words[0]

    def check(self, words, code, text):
        verb = self.verb_of(words)
        form, exits, shape = self.rows[verb]
        shown = "claudemesh " + " ".join(words)
        expect(code in exits, f"{shown} ended with {code}; documented are {sorted(exits)}: {text}")
        try:
            value = json.loads(text)
        except ValueError:
            raise Failed(f"{shown} printed no JSON: {text!r}") from None
        refused = isinstance(value, dict) and value.get("ok") is False and "error" in value
        if refused:
            known = {k: v for k, v in value.items() if k not in MORE_IN_ERRORS}
            reason = json_shapes.misfit(known, ERROR)
            expect(code != 0, f"{shown} refused and ended with 0")
        else:
            reason = json_shapes.misfit(value, json_shapes.parse(shape))
            self.seen.add(verb)
        expect(reason is None, f"{shown}: {reason}\n{text}")
        one_line = text.count("\n") == 1
        indented = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        good = one_line if form == "line" else text == indented
        expect(good, f"{shown} is documented as {form}, and prints {text!r}")
        return value

    def run(self, member, *words, code=0):
        done = member.run(*words, "--json", check=False)
        value = self.check(words, done.returncode, done.stdout)
        expect(done.returncode == code, f"{words} ended with {done.returncode}: {done.stdout}")
        return value


def rows_and_verbs_agree(rows, alice):
    verbs = {row["verb"]: row for row in alice.json("help")["verbs"]}
    expect(set(verbs) == set(rows), f"verbs and rows differ in {set(verbs) ^ set(rows)}")
    for verb, (form, _, shape) in rows.items():
        expect(verbs[verb]["json"] == shape, f"{verb}: the shape of `help --json` is another:\n"
               f"{verbs[verb]['json']}\n{shape}")
        expect((form == "text") == (shape is None), f"{verb}: form and shape disagree")
    page = alice.run("man").stdout.replace("\\-", "-")
    for verb, (_, _, shape) in rows.items():
        expect(shape is None or shape in page, f"{verb}: its shape is not in the manual page")


def meshes(check, world, alice, bob, carol):
    check.run(alice, "create", "crew", "--broker", world.url, "--display-name", "alice")
    invite = check.run(alice, "share")
    expect(check.run(bob, "join", invite["url"], "--name", "bob")["already_joined"] is False, "new")
    check.run(bob, "join", invite["url"])
    carol.json("join", alice.json("share")["url"], "--name", "carol")
    check.run(bob, "join", "nonsense", code=3)
    check.run(bob, "list")
    check.run(bob, "info")  # starts his daemon
    check.run(bob, "rename", "crew", "NO", code=3)
    check.run(bob, "delete", "crew", code=7)
    expect(len(check.run(alice, "member", "list")["members"]) == 3, "three members")
    wait_until(lambda: [m["displayName"] for m in
                        check.run(alice, "member", "list", "--online")["members"]] == ["bob"],
               "bob alone is online")
    check.run(bob, "whoami")


def daemons(check, alice, bob):
    check.run(bob, "daemon", "down")
    check.run(bob, "status", code=1)
    check.run(bob, "daemon", "status", code=1)
    check.run(bob, "daemon", "version", code=4)
    check.run(bob, "daemon", "up")
    expect(check.run(bob, "daemon", "up")["already_running"], "it runs already")
    check.run(bob, "daemon", "restart")
    alice.daemon.start()
    for member in (alice, bob):
        member.wait_connected()
    check.run(bob, "daemon", "status")
    check.run(bob, "status")
    check.run(bob, "daemon", "version")
    check.run(bob, "daemon", "reload")
    check.run(bob, "daemon", "rotate-token")
    check.run(bob, "daemon", "limits")
    check.run(bob, "daemon", "fsck")
    check.run(bob, "daemon", "recover", code=1)
    check.run(bob, "daemon", "down")
    check.run(bob, "daemon", "recover", "--dry-run")
    check.run(bob, "daemon", "recover")
    check.run(bob, "daemon", "up")
    bob.wait_connected()
    check.run(bob, "daemon", "accept-host")


def messages(check, alice, bob):
    sent = check.run(alice, "send", "bob", "hello")
    expect(sent["recipientOnline"] is True, f"bob is online: {sent}")
    key = {m["displayName"]: m["pubkey"] for m in alice.json("member", "list")["members"]}
    away = check.run(alice, "send", key["carol"], "later")
    expect(away["recipientOnline"] is False, f"carol is away: {away}")
    expect(check.run(alice, "send", "*", "all")["recipientOnline"] is None, "a broadcast")
    expect(check.run(alice, "send", "bob", "hello", "--id", "twice")["duplicate"] is False, "once")
    wait_until(lambda: check.run(alice, "send", "bob", "hello", "--id", "twice")["duplicate"],
               "the second is known as done")
    check.run(alice, "send", "bob", "other", "--id", "twice", code=6)
    own = key["alice"]
    expect(check.run(alice, "send", own, "to me", code=3)["via"] == "daemon", "the refusal")
    expect(check.run(alice, "send", own, "to me", "--self", code=5)["error"] == "not_found", "none")
    check.run(alice, "send", "nobody", "hello", code=5)
    wait_until(lambda: len(bob.inbox()) >= 3, "bob has his mail")
    check.run(bob, "inbox")
    for status in ((), ("--status", "done"), ("--done",), ("--pending",), ("--failed",)):
        check.run(alice, "outbox", "list", *status)
    check.run(alice, "outbox", "list", "--done", "--failed", code=3)
    check.run(alice, "outbox", "inspect", "twice")
    check.run(alice, "outbox", "inspect", "none-of-these", code=5)
    check.run(alice, "outbox", "requeue", "twice", code=6)
    check.run(alice, "outbox", "requeue", "none-of-these", code=5)
    check.run(alice, "outbox", "requeue", "twice", "--auto", "--new-client-id", "x", code=3)
    check.run(alice, "outbox", "drop", "none-of-these", code=5)
    check.run(alice, "outbox", "prune", "--dry-run")
    check.run(alice, "outbox", "prune", "--older-than", "x", code=3)
    wait_until(lambda: check.run(alice, "message", "status", sent["messageId"])["delivered"],
               "the message is delivered")
    status = check.run(alice, "message", "status", sent["messageId"])
    expect(status["outbox"]["client_message_id"] == sent["messageId"], f"its outbox row: {status}")
    expect(check.run(bob, "message", "status", status["messageId"][:20])["delivered"], "a prefix")
    unknown = check.run(alice, "message", "status", "0123456789", code=5)
    expect((unknown["error"], unknown["id"], unknown["isPrefix"]) ==
           ("not_found", "0123456789", True), f"an unknown id: {unknown}")
    for bad, why in (("abc", "too_short"), ("x" * 200, "too_long"), ("ü" * 9, "bad_character")):
        refused = check.run(alice, "message", "status", bad, code=3)
        expect((refused["error"], refused["field"], refused["code"]) ==
               ("invalid_argument", "id", why), f"{bad}: {refused}")
    why = check.run(alice, "message", "explain", sent["messageId"])
    expect({row["where"] for row in why["rows"]} == {"daemon", "broker"}, f"both sides: {why}")
    check.run(alice, "message", "explain", "0123456789", code=5)
    check.run(alice, "message", "explain", "abc", code=3)
    expect(check.run(bob, "inbox", "flush", code=1)["error"] == "missing_filter", "no filter")
    expect(check.run(bob, "inbox", "delete", code=3)["error"] == "missing_id", "no id")
    check.run(bob, "inbox", "delete", "01ARZ3NDEKTSV4RRFFQ69G5FAV", code=5)
    first = bob.inbox()[0]["id"]
    expect(check.run(bob, "inbox", "delete", first) == {"ok": True, "id": first}, "deleted")
    check.run(bob, "inbox", "flush", "--all")


def peers(check, world, alice, bob):
    check.run(bob, "group", "join", "@ops", "--role", "lead")
    everybody = check.run(alice, "peer", "list", "--all")
    expect({p["displayName"]: p["isSelf"] for p in everybody} == {"alice": True, "bob": False},
           f"peers: {everybody}")
    expect(check.run(alice, "peer", "list") == [], "daemons are no sessions")
    chosen = json.loads(alice.run("peer", "list", "--all", "--json=name,status,isSelf").stdout)
    expect(all(list(row) == ["displayName", "status", "isSelf"] for row in chosen), chosen)
    expect(alice.run("list", "--json=slug", check=False).returncode == 3, "no rows to choose from")
    check.run(alice, "peer", "verify")
    check.run(alice, "peer", "verify", "nobody", code=5)
    left = check.run(bob, "group", "leave", "ops")
    expect(left["group"] == "ops" and left["left"] is True, left)
    check.run(bob, "summary", "reading", "logs")
    check.run(bob, "visible", "y")
    check.run(bob, "visible", "maybe", code=3)
    check.run(bob, "status", "set", "working")
    check.run(bob, "profile")
    check.run(bob, "profile", "--title", "Keeper")
    changed = check.run(alice, "profile", "--name", "alicia", "--role-tag", "lead", "--groups",
                        "ops:lead,night", "--message-mode", "inbox", "--bio", "writes")
    expect(changed["changes"] == {"displayName": "alicia", "roleTag": "lead", "messageMode": "inbox",
                                  "groups": [{"name": "ops", "role": "lead"}, {"name": "night"}]},
           f"what was changed: {changed}")
    members = {m["displayName"]: m for m in alice.json("member", "list")["members"]}
    expect(members["alicia"]["roleTag"] == "lead", f"members: {members}")
    check.run(alice, "profile", "--member", members["bob"]["id"], "--role-tag", "guest")
    check.run(bob, "profile", "--member", members["alicia"]["id"], "--role-tag", "x", code=7)
    check.run(bob, "profile", "--member", members["alicia"]["id"], code=3)
    alice.json("create", "second", "--broker", world.url, "--display-name", "alice")
    wait_until(lambda: [row["mesh"] for row in check.run(alice, "peer", "list", "--all")
                        if row["peers"]] == ["crew", "second"], "peers of both meshes")
    alice.json("delete", "second", "--confirm", "second")


def topics(check, world, alice, bob):
    made = check.run(alice, "topic", "create", "plans")
    expect(made["created"] is True and made["name"] == "plans", f"created: {made}")
    expect(check.run(alice, "topic", "create", "plans")["id"] == made["id"], "created once")
    check.run(bob, "topic", "join", "plans")
    post = check.run(alice, "topic", "post", "plans", "look", "@bob", "and", "@bob,", "me@x.org")
    expect(post["mentions"] == ["bob"] and post["topicId"] == made["id"] and
           "historyId" not in post, f"the post: {post}")
    wait_until(lambda: alice.json("topic", "history", "plans")["messages"], "the post is there")
    first = check.run(bob, "topic", "history", "plans")["messages"][0]
    answer = check.run(bob, "topic", "post", "plans", "seen", "--reply-to", first["id"][:12])
    expect(answer["replyToId"] == first["id"], f"the answer: {answer}")
    check.run(bob, "topic", "post", "plans", "x", "--reply-to", "abc", code=3)
    check.run(bob, "topic", "post", "plans", "x", "--reply-to", "0000000", code=3)
    wait_until(lambda: any(m.get("replyToId") == first["id"] for m in
                           check.run(alice, "topic", "history", "plans")["messages"]),
               "the answer names the post")
    again = check.run(alice, "topic", "post", "plans", "y", "--id", "post-1")
    expect(again["duplicate"] is False, again)
    wait_until(lambda: "historyId" in check.run(alice, "topic", "post", "plans", "y", "--id",
                                                "post-1"), "a known post has its historyId")
    check.run(alice, "topic", "list")
    check.run(alice, "topic", "members", "plans")
    tail = subprocess.Popen([str(world.binary), "topic", "tail", "plans", "--limit", "1", "--json"],
                            env=bob.env, stdout=subprocess.PIPE, text=True)
    try:
        check.check(("topic", "tail", "plans"), 0, tail.stdout.readline())
    finally:
        tail.kill()
        tail.wait()
    check.run(bob, "topic", "read", "plans")
    check.run(bob, "topic", "leave", "plans")
    check.run(bob, "topic", "join", "nowhere", code=5)


def shared(check, alice, bob):
    check.run(alice, "state", "set", "build", '{"n": 15}')
    check.run(bob, "state", "get", "build")
    check.run(bob, "state", "get", "none", code=5)
    check.run(bob, "state", "list")
    stored = check.run(alice, "remember", "we", "deploy", "--tags", "ops,habit")
    expect(stored["content"] == "we deploy" and stored["tags"] == ["ops", "habit"], stored)
    check.run(bob, "recall", "deploy")
    check.run(bob, "forget", stored["id"])
    check.run(bob, "skill", "list")
    check.run(bob, "skill", "get", "none", code=5)


def the_rest(check, alice):
    for words in (("config",), ("config", "path"), ("config", "check"), ("transport", "list"),
                  ("version",), ("help",)):
        check.run(alice, *words)
    done = alice.run("doctor", "--json", check=False)
    check.check(("doctor",), done.returncode, done.stdout)


def names_of_old(check, alice, bob):
    """The reference's other names."""
    for words in (("ls",), ("peers",), ("invite",)):
        expect(alice.run(*words, check=False).returncode == 0, f"{words} is a verb")
    expect(alice.run("msg-status", "0123456789", check=False).returncode == 5, "msg-status")
    expect(bob.run("inbox", "rm", "01ARZ3NDEKTSV4RRFFQ69G5FAV", check=False).returncode == 5, "rm")
    expect(bob.run("rm", "crew", "--json", check=False).returncode == 7, "rm")
    for words in (("new",), ("add",)):
        expect("claudemesh" in alice.run(*words, "--help").stdout, f"{words} is a verb")


def brokers(check, world, alice):
    check.run(alice, "broker", "status")
    check.run(alice, "broker", "rotate-admin-token")
    backup = str(world.root / "copy.cmdb")
    check.run(alice, "broker", "backup", backup)
    check.run(alice, "broker", "fsck")
    world.broker.stop()
    check.run(alice, "broker", "status", code=1)
    check.run(alice, "broker", "compact")
    check.run(alice, "broker", "restore", backup)


def a_broker_that_is_away_shows(check, world, alice):
    world.broker.kill()
    wait_until(lambda: not alice.connected(), "the daemon has noticed")
    check.run(alice, "status", code=1)
    check.run(alice, "send", "bob", "waits", "--id", "waits")
    check.run(alice, "outbox", "drop", "waits", code=6)
    check.run(alice, "outbox", "inspect", "waits")
    check.run(alice, "outbox", "requeue", "waits")
    check.run(alice, "outbox", "drop", "waits")
    check.run(alice, "daemon", "status")
    expect(check.run(alice, "info")["daemon"] is True, "the daemon still answers")
    world.broker.start()
    alice.wait_connected()


def endings(check, alice, bob, carol):
    check.run(alice, "rename", "crew", "band")
    check.run(carol, "leave", "crew", "--confirm", "crew")
    check.run(alice, "delete", "band", "--confirm", "band")
    check.run(bob, "daemon", "down")


def main(build):
    rows = documented()
    with World(pathlib.Path(build)) as world:
        world.start_broker()
        alice, bob, carol = (world.member(n) for n in ("alice", "bob", "carol"))
        check = Checker(rows)
        rows_and_verbs_agree(rows, alice)
        try:
            meshes(check, world, alice, bob, carol)
            daemons(check, alice, bob)
            messages(check, alice, bob)
            peers(check, world, alice, bob)
            topics(check, world, alice, bob)
            shared(check, alice, bob)
            the_rest(check, alice)
            names_of_old(check, alice, bob)
            a_broker_that_is_away_shows(check, world, alice)
            endings(check, alice, bob, carol)
            brokers(check, world, alice)
        finally:
            bob.run("daemon", "down", check=False)
        missing = set(rows) - check.seen - TEXTS - ONLY_REFUSED - {"broker up"}
        expect(not missing, f"no verb of these was run: {sorted(missing)}")
    print(f"{len(check.seen)} verbs print what docs/CLI.md says")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "build/release")
    except Failed as failure:
        sys.exit(f"failed: {failure}")
