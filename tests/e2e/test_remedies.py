#!/usr/bin/env python3
"""test_remedies.py BUILD — what a person gets wrong, what is said then, and that it helps.

URLs, ids, names, modes of files, flags in other places, half a verb: each with its exit status,
and no remedy names a verb or a flag that there is not.
"""

import http.client
import http.server
import json
import pathlib
import re
import stat
import subprocess
import sys
import threading
import unicodedata

from harness import Failed, World, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


def refused(member, status, text, *words):
    """The verb ends with this status, and what it says on stderr has the text."""
    done = member.run(*words, check=False)
    expect(done.returncode == status and text in done.stderr,
           f"claudemesh {' '.join(words)} ended with {done.returncode}, not with {status} and "
           f"'{text}': {done.stdout}{done.stderr}")
    return done


def meshes_of_broker(world):
    token = (world.data / "admin-token").read_text().strip()
    connection = http.client.HTTPConnection(f"127.0.0.1:{world.broker.started['port']}", timeout=10)
    connection.request("GET", "/cli/meshes", headers={"Authorization": f"Bearer {token}"})
    return {m["slug"] for m in json.loads(connection.getresponse().read())["meshes"]}


def urls_are_judged_before_anything_is_made(world, dora):
    base = f"127.0.0.1:{world.broker.started['port']}"
    for url in ("ftp://" + base, base, "ws://", f"ws://user@{base}/ws", f"unix:/tmp/{base}"):
        refused(dora, 3, "ws://HOST:PORT/ws", "create", "lost", "--broker", url)
    refused(dora, 3, "/ws as a rule", "create", "lost", "--broker", f"ws://{base}/wrong")
    expect("lost" not in meshes_of_broker(world), "no mesh was left behind")
    done = dora.run("create", "via-http", "--broker", f"http://{base}", "--display-name", "dora")
    expect(f"ws://{base}/ws" in done.stderr, f"what became of the URL is said: {done.stderr}")
    expect(dora.json("list")["meshes"][0]["broker_url"] == f"ws://{base}/ws", "as it is kept")
    dora.daemon.start()
    dora.wait_connected()


def what_stands_before_a_broker_answers_for_itself(world, dora):
    """A proxy whose broker is away, and a program that is none."""
    for status, ends, word in ((502, 4, "not reachable"), (503, 4, "not reachable"),
                               (504, 4, "not reachable"), (429, 1, "Retry-After"),
                               (500, 8, "an unexpected error")):
        class Page(http.server.BaseHTTPRequestHandler):
            def do_POST(self, status=status):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b"<html>no JSON</html>")

            def log_message(self, *_):
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Page) as proxy:
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            url = f"ws://127.0.0.1:{proxy.server_port}/ws"
            done = refused(dora, ends, word, "create", "lost", "--broker", url)
            expect(f"HTTP {status}" in done.stderr, f"the status is named: {done.stderr}")
            proxy.shutdown()


def a_wrong_path_is_named_later_too(world, dora):
    """Of a mesh whose URL was written by another program."""
    config = dora.home / ".claudemesh/config.json"
    sound = config.read_text()
    config.write_text(sound.replace("/ws\"", "/wrong\""))
    config.chmod(0o600)
    dora.run("daemon", "reload")
    def told():
        done = dora.run("daemon", "status")
        return "answered 404" in done.stdout and "as a rule it is /ws" in done.stderr
    wait_until(told, "daemon status names the 404 and its remedy")
    checks = {c["check"]: c for c in
              json.loads(dora.run("doctor", "--json", check=False).stdout)["checks"]}
    expect("/ws" in checks["link via-http"]["remedy"], f"doctor: {checks['link via-http']}")
    config.write_text(sound)
    dora.run("daemon", "reload")
    dora.wait_connected()


def secrets_of_others_are_not_used(world, alice):
    home = alice.home / ".claudemesh"
    config, token = home / "config.json", world.data / "admin-token"

    def mode_of(path):
        return stat.S_IMODE(path.stat().st_mode)

    for path, private, verb in ((config, 0o600, ["list"]), (home, 0o700, ["list"]),
                                (token, 0o600, ["create", "other", "--broker", world.url])):
        for extra in (0o020, 0o002, 0o066):
            path.chmod(private | extra)
            done = refused(alice, 7, f"'chmod {private:o} {path}'", *verb)
            expect("can be written by others" in done.stderr, f"why: {done.stderr}")
            expect(mode_of(path) == private | extra, "what was written by others is left as it is")
        path.chmod(private)
    expect("other" not in meshes_of_broker(world), "nothing was done")
    for path, private in ((config, 0o600), (home, 0o700)):
        path.chmod(private | 0o044)
        done = alice.run("list")
        expect(f"warning: {path} could be read by others" in done.stderr, f"told: {done.stderr}")
        expect(mode_of(path) == private, "and closed")
        expect("warning" not in alice.run("list").stderr, "once")
    config.chmod(0o644)
    expect(alice.json("list")["meshes"], "the warning is not in the JSON")
    # The daemon keeps what it has, and logs why.
    offset = alice.daemon.log_path.stat().st_size
    config.chmod(0o622)
    refused(alice, 7, "chmod", "daemon", "reload")
    line = wait_until(lambda: alice.daemon.find_line(offset, "config_not_reloaded"), "it is logged")
    expect("written by others" in line["detail"], f"the log: {line}")
    config.chmod(0o600)
    alice.daemon.stop()
    local = home / "daemon/local-token"
    local.chmod(0o622)
    done = refused(alice, 7, f"'chmod 600 {local}'", "daemon", "up")
    local.chmod(0o640)
    offset = alice.daemon.log_path.stat().st_size
    alice.daemon.start()
    line = alice.daemon.find_line(offset, "file_made_private")
    expect(line and str(local) in line["detail"] and mode_of(local) == 0o600, f"logged: {line}")
    alice.wait_connected()


def a_broker_minds_its_files(world, alice):
    def broker(*words):
        return subprocess.run([str(world.binary), "broker", *words], env=alice.env, timeout=60,
                              capture_output=True, text=True, check=False)

    data = str(world.data)
    told = world.data / "broker.json"
    told.chmod(0o666)
    done = broker("rotate-admin-token", "--data", data)
    expect(done.returncode == 7 and f"chmod 600 {told}" in done.stderr, f"broker.json: {done}")
    told.chmod(0o600)
    typo = world.root / "brokr"
    done = broker("rotate-admin-token", "--data", str(typo))
    expect(done.returncode == 5 and not typo.exists() and "--data" in done.stderr, f"typo: {done}")
    for words in (["restore", "x"], ["compact"]):
        done = broker(*words, "--data", data)
        expect(done.returncode == 1 and "SIGTERM for a broker" in done.stderr, f"{words}: {done}")
    done = broker("up", "--data", data, "--listen", "127.0.0.1:0")
    expect(done.returncode == 1 and "SIGTERM for a broker" in done.stderr, f"second: {done}")
    port = world.broker.started["port"]
    done = broker("up", "--data", str(world.root / "third"), "--listen", f"127.0.0.1:{port}")
    expect(done.returncode == 1 and "another program listens" in done.stderr and
           "--listen" in done.stderr, f"port in use: {done}")
    done = broker("up", "--data", str(world.root / "third"), "--listen", "0.0.0.0:0")
    expect(done.returncode == 7 and "--tls-cert" in done.stderr and "admin" not in done.stderr,
           f"off loopback: {done}")


def what_is_not_there_is_looked_for_in_its_list(world, alice):
    for words, verb in ((["topic", "history", "nope"], "topic list"),
                        (["topic", "members", "nope"], "topic list"),
                        (["topic", "tail", "nope"], "topic list"),
                        (["send", "#nope", "x"], "topic list"),
                        (["send", "nobody", "x"], "peer list"),
                        (["peer", "verify", "nobody"], "peer list"),
                        (["state", "get", "nope"], "state list"),
                        (["skill", "get", "nope"], "skill list"),
                        (["forget", "abcdefgh"], "recall"),
                        (["message", "status", "abcdefghijkl"], "outbox list"),
                        (["inbox", "--from", "nobody"], "peer list"),
                        (["inbox", "--topic", "nope"], "topic list"),
                        (["inbox", "delete", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], "inbox --json")):
        refused(alice, 5, f"'claudemesh {verb}", *words)
    refused(alice, 5, "no state has the key nope", "state", "get", "nope")
    refused(alice, 5, "no message has the id nope", "inbox", "delete", "nope")
    for words in (["state", "get", ""], ["inbox", "--from", ""], ["inbox", "--topic", "#"],
                  ["leave", ""], ["info", ""], ["share", ""], ["recall", ""], ["forget", ""],
                  ["inbox", "--mesh", ""], ["inbox", "flush", "--mesh", "", "--all"]):
        refused(alice, 3, "expected", *words)
    expect(alice.json("list")["meshes"], "an unset variable leaves no mesh")
    alice.run("state", "set", "void", "")
    expect(alice.run("state", "get", "void").stdout == "\n", "an empty value is one")
    alice.run("summary", "")
    refused(alice, 7, "--confirm crew", "delete", "crew")
    connection = http.client.HTTPConnection(f"127.0.0.1:{world.broker.started['port']}", timeout=10)
    connection.request("GET", "/nothing")
    reply = json.loads(connection.getresponse().read())
    expect("path" in reply["remedy"] and "peer" not in reply["remedy"], f"a route: {reply}")


def names_are_known_or_refused(alice):
    done = alice.run("peer", "list", "--json=name,bogus", check=False)
    expect(done.returncode == 3 and "no row has 'bogus'; there are: name, pubkey"
           in json.loads(done.stdout)["detail"], f"an unknown name: {done.stdout}")
    alice.run("peer", "list", "--json=name,pubkey,isSelf,role,stats,mesh")
    refused(alice, 3, "expected", "profile", "--name", "")
    for groups in ("x,a:b:c", ":lead"):
        refused(alice, 3, "--groups: expected NAME or NAME:ROLE", "profile", "--groups", groups)
    done = alice.run("profile", "--groups", "ops:lead")
    expect("next connection" in done.stderr, f"when it counts: {done.stderr}")


def inboxes_are_filtered_by_names(alice, bob):
    alice.run("topic", "create", "quiet")
    alice.run("send", "bob", "from alice")
    wait_until(lambda: any(m["body"] == "from alice" for m in bob.inbox()), "it arrives")
    key = alice.json("list")["meshes"][0]["pubkey"]
    for who in ("alice", "ALICE", key, key.upper(), key[:16]):
        rows = bob.json("inbox", "--from", who, "--keep-unread")
        expect([m["body"] for m in rows] == ["from alice"], f"--from {who}: {rows}")
    expect(bob.json("inbox", "--from", "bob", "--keep-unread") == [], "nothing of one's own")
    expect(bob.json("inbox", "--topic", "#quiet", "--keep-unread") == [], "nothing was posted")
    expect(bob.json("inbox", "--unread")[0]["seen_at"] is None, "looking names up marks nothing")


def what_the_broker_can_read_is_said(alice):
    for target, word in (("*", "to all"), ("@all", "to all"), ("@ops", "groups"),
                         ("#quiet", "topics")):
        done = alice.run("send", target, "hello")
        expect("not end-to-end encrypted" in done.stderr and word in done.stderr,
               f"send {target}: {done.stderr}")
        for flag in ("--json", "--quiet"):
            done = alice.run("send", target, "hello", flag)
            expect("encrypted" not in done.stderr, f"{target} {flag}: {done.stderr}")
    expect("encrypted" not in alice.run("send", "bob", "hello").stderr, "to a peer it is")


def quiet_is_data_only(alice):
    for words in (["send", "bob", "x"], ["topic", "post", "quiet", "x"]):
        for place in ([*words, "-q"], ["-q", *words]):
            done = alice.run(*place)
            expect(re.fullmatch(r"\S{8,64}\n", done.stdout) and not done.stderr, f"{place}: {done}")
            status = alice.json("outbox", "list")["items"]
            expect(done.stdout.strip() in {i["client_message_id"] for i in status}, "the id")
    done = alice.run("doctor", "-q", check=False)
    expect("✔" not in done.stdout and not done.stderr, f"doctor -q: {done}")


def dates_and_invites(alice, bob):
    before = len(bob.inbox())
    expect(bob.json("inbox", "flush", "--before", "2020-01-01")["removed"] == 0, "a date")
    refused(bob, 3, "before", "inbox", "flush", "--before", "yesterday")
    expect(len(bob.inbox()) == before, "nothing was removed")
    refused(bob, 3, "paste the whole link", "join", "abcdefghij12")
    refused(bob, 3, "the whole link", "join", "not an invite at all, is it")


def columns(line):
    """Where the second column begins, as a terminal counts."""
    width = 0
    for index, c in enumerate(line):
        if index > 3 and line[index - 2:index] == "  " and c != " ":
            return width
        wide = unicodedata.east_asian_width(c) in "WF"
        width += 0 if unicodedata.combining(c) else 2 if wide else 1
    raise Failed(f"one column: {line!r}")


def wide_characters_keep_columns(alice):
    for key in ("ascii", "日本語", "naïve", "cafe\u0301", "🚀 launch"):
        alice.run("state", "set", key, "value")
    lines = [l for l in alice.run("state", "list").stdout.split("\n") if "value" in l]
    at = {columns(l) for l in lines}
    expect(len(lines) == 5 and len(at) == 1, f"columns begin at {at}: {lines}")


def remedies_fit_the_verb(member):
    """With two meshes: each flag in what a verb says then is one that this verb takes."""
    table = {v["verb"]: v for v in member.json("help")["verbs"]}
    flags = {v: set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", member.run(*v.split(), "--help").stdout))
             for v in table}
    words = {"send": ["zz", "x"], "state get": ["k"], "state set": ["k", "v"], "remember": ["x"],
             "forget": ["abcdefgh"], "topic create": ["t"], "topic history": ["t"],
             "topic post": ["t", "x"], "skill get": ["s"], "peer verify": ["zz"],
             "topic join": ["t"], "topic leave": ["t"], "topic members": ["t"],
             "topic read": ["t"], "topic tail": ["t"], "group join": ["g"], "delete": [],
             "leave": [], "share": [], "info": [], "rename": ["new"], "member list": [],
             "profile": ["--name", "x"], "inbox": ["--from", "zz"], "broker restore": ["x"],
             "inbox delete": ["nope"], "message status": ["abcdefghijkl"], "recall": ["nope"]}
    wrong, named = [], 0
    for verb, more in words.items():
        done = member.run(*verb.split(), *more, check=False)
        named += done.returncode == 3 and "--mesh" in done.stderr
        # What stands in quotes is another verb's.
        text = re.sub(r"'claudemesh [^']*'", "", done.stderr)
        bad = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - flags[verb]
        if bad:
            wrong.append(f"{verb}: {sorted(bad)} in {done.stderr.strip()}")
    expect(named > 5, f"{named} verbs ask for the mesh: nothing was looked at")
    expect(not wrong, "remedies with flags that the verb does not take:\n" + "\n".join(wrong))
    refused(member, 5, "no joined mesh has zz", "send", "zz", "x")
    refused(member, 5, "topic list", "send", "#zz", "x")
    refused(member, 3, "--mesh", "send", "f" * 64, "x")
    for verb in ("info", "share"):
        member.run(verb, "--mesh", "left")
    refused(member, 7, "--confirm left", "delete", "--mesh", "left")
    member.run("rename", "--mesh", "left", "west")
    member.run("rename", "west", "left")
    refused(member, 3, "new slug", "rename", "left")
    refused(member, 3, "once", "rename", "left", "west", "--mesh", "left")


def candidates_are_listed(member, other):
    """The same names in two meshes."""
    for slug in ("left", "right"):
        other.run("join", member.json("share", slug)["url"], "--name", "bob")
        member.run("topic", "create", "plans", "--mesh", slug)
    other.daemon.start()
    other.wait_connected()
    wait_until(lambda: len([p for m in member.json("peer", "list", "--all") for p in m["peers"]
                            if p["displayName"] == "bob"]) == 2, "bob is seen twice")
    keys = {m["slug"]: m["pubkey"] for m in other.json("list")["meshes"]}
    done = refused(member, 6, "--mesh", "send", "bob", "x")
    for slug in ("left", "right"):
        expect(f"bob {keys[slug][:16]}… in {slug}" in done.stderr, f"candidates: {done.stderr}")
    error = json.loads(member.run("send", "bob", "x", "--json", check=False).stdout)
    expect({c["mesh"]: c["memberPubkey"] for c in error["candidates"]} == keys and
           error["via"] == "daemon", f"candidates: {error}")
    done = refused(member, 6, "plans in left; plans in right", "send", "#plans", "x")
    expect("peer" not in done.stderr, f"a topic is no peer: {done.stderr}")


def help_is_found(member):
    text = member.run("help", "send").stdout
    expect("--priority" in text and "--strict" in text and text == member.run(
        "send", "--help").stdout, f"help of a verb shows its flags: {text}")
    for words in (["help", "topic"], ["topic", "--help"], ["topic", "-h"]):
        text = member.run(*words).stdout
        expect("topic create" in text and "topic tail" in text and "inbox" not in text,
               f"{words}: {text}")
    done = refused(member, 3, "topic create", "topic")
    expect("Post to a topic" in done.stderr and not done.stdout, f"a bare group: {done}")
    for typed, meant in ((["sned", "bob", "x"], "send"), (["help", "sned"], "send"),
                         (["topic", "crate"], "topic create"), (["lst"], "list"),
                         (["daemon", "stauts"], "daemon status")):
        refused(member, 3, f"did you mean '{meant}'?", *typed)
    for typed in (["frobnicate"], ["help", "frobnicate"], ["--frob", "list"], [""]):
        done = refused(member, 3, "is no verb", *typed)
        expect("did you mean" not in done.stderr, f"a wild guess: {done.stderr}")
    refused(member, 3, "there are: ", "topic", "frobnicate")
    expect(json.loads(member.run("--json", "list").stdout)["meshes"] is not None, "--json first")
    expect(json.loads(member.run("--json", "frob", check=False).stdout)["error"] == "usage", "json")
    expect(member.run("--quiet", "--no-daemon", "version").stdout, "two of them")
    expect(member.run().stdout == member.run("help").stdout == member.run("--help").stdout, "help")


def every_named_verb_is_there(member):
    """In remedies, errors, the README, the documents and the manual page."""
    table = {v["verb"]: v for v in member.json("help")["verbs"]}
    common = {"--help", "--json", "--quiet", "--strict", "--no-daemon", "-q", "-h"}
    flags = {}
    for verb in table:
        flags[verb] = common | set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*",
                                              member.run(*verb.split(), "--help").stdout))
    texts = {str(p.relative_to(ROOT)): p.read_text() for pattern in
             ("README.md", "SECURITY.md", "CONTRIBUTING.md", "docs/*.md", "core/**/*.h",
              "core/**/*.cc", "cli/**/*.h", "cli/**/*.cc", "store/*.cc", "transports/**/*.cc",
              "plugins/**/*.cc") for p in ROOT.glob(pattern)}
    texts["man"] = member.run("man").stdout.replace("\\-", "-")
    wrong, seen = [], 0
    for name, text in texts.items():
        # Texts of C++ sources go on in the next line's quotes.
        text = re.sub(r'"\s*\n\s*"', "", text)
        for found in re.findall(r"['`]claudemesh ([a-z][^'`\"\n]*)['`]", text):
            words = found.split()
            verb = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in table), None)
            # A group is named by its first word: 'claudemesh daemon'.
            group = any(v.startswith(words[0] + " ") for v in table) and len(words) == 1
            bad = [w for w in words if w.startswith("-") and verb and
                   w.split("=")[0] not in flags[verb]]
            seen += 1
            if (verb is None and not group) or bad:
                wrong.append(f"{name}: claudemesh {found} {bad or ''}")
    expect(seen > 40, f"only {seen} found: the pattern is wrong")
    expect(not wrong, "there is no such verb or flag:\n" + "\n".join(wrong))


def main(build):
    with World(build) as world:
        nobody = world.member("nobody")
        help_is_found(nobody)
        every_named_verb_is_there(nobody)
        world.start_broker()
        dora = world.member("dora")
        urls_are_judged_before_anything_is_made(world, dora)
        what_stands_before_a_broker_answers_for_itself(world, dora)
        a_wrong_path_is_named_later_too(world, dora)
        alice, bob = world.member("alice"), world.member("bob")
        alice.run("create", "crew", "--broker", world.url, "--display-name", "alice")
        bob.run("join", alice.json("share")["url"], "--name", "bob")
        for member in (alice, bob):
            member.daemon.start()
        for member in (alice, bob):
            member.wait_connected()
        what_is_not_there_is_looked_for_in_its_list(world, alice)
        names_are_known_or_refused(alice)
        inboxes_are_filtered_by_names(alice, bob)
        what_the_broker_can_read_is_said(alice)
        quiet_is_data_only(alice)
        dates_and_invites(alice, bob)
        wide_characters_keep_columns(alice)
        erin = world.member("erin")
        for slug in ("left", "right"):
            erin.run("create", slug, "--broker", world.url, "--display-name", "erin")
        erin.daemon.start()
        erin.wait_connected()
        remedies_fit_the_verb(erin)
        candidates_are_listed(erin, world.member("finn"))
        secrets_of_others_are_not_used(world, alice)
        a_broker_minds_its_files(world, alice)
    print("what goes wrong is said, and what is said helps")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "build/release")
    except Failed as failure:
        sys.exit(f"failed: {failure}")
