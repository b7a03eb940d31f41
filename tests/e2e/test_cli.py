#!/usr/bin/env python3
"""test_cli.py BUILD — what a person and a script meet at the command line, with real processes.

Exit statuses, JSON on every verb, errors with remedies, singletons, private files, the IPC gates,
metrics, and the accept table over a real socket.
"""

import fcntl
import http.client
import json
import pathlib
import re
import signal
import stat
import subprocess
import sys

from harness import Failed, UnixConnection, World, wait_until


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


def expect_exit(member, status, *arguments):
    done = member.run(*arguments, check=False)
    expect(done.returncode == status,
           f"claudemesh {' '.join(arguments)} ended with {done.returncode}, not {status}: "
           f"{done.stdout}{done.stderr}")
    return done


def errors_name_what_to_do(world):
    nobody = world.member("nobody")
    usage = expect_exit(nobody, 3, "frobnicate")
    expect("is no verb" in usage.stderr and "help" in usage.stderr, "an unknown verb has no remedy")
    expect_exit(nobody, 3, "send")
    expect_exit(nobody, 3, "join", "not-an-invite!")
    group = expect_exit(nobody, 3, "daemon", "frobnicate")
    expect("daemon up" in group.stderr, "an unknown subverb does not say what there is")
    refused = expect_exit(nobody, 2, "daemon", "up", "--json")
    error = json.loads(refused.stdout)
    expect(error["ok"] is False and error["error"] == "no_mesh" and error["remedy"],
           f"daemon up without a mesh: {error}")
    # Without a mesh no daemon can be started for it; told not to, none is tried.
    expect_exit(nobody, 2, "send", "bob", "hello")
    expect_exit(nobody, 4, "send", "bob", "hello", "--strict")
    expect_exit(nobody, 4, "send", "bob", "hello", "--no-daemon")
    expect_exit(nobody, 1, "daemon", "status")
    expect(expect_exit(nobody, 0, "daemon", "down", "--json").stdout, "down without a daemon")
    version = nobody.json("version")
    expect(version["version"], "version --json has no version")
    for verb in nobody.json("help")["verbs"]:
        expect("Usage" in nobody.run(*verb["verb"].split(), "--help").stdout,
               f"{verb['verb']} --help shows no usage")


def what_is_missing_is_named(world):
    anna = world.member("anna")
    done = expect_exit(anna, 5, "daemon", "fsck")
    expect("there is no store in" in done.stderr, f"fsck: {done.stderr}")
    config = anna.home / ".claudemesh/config.json"
    anna.run("create", "newer", "--broker", world.url)
    sound = json.loads(config.read_text())
    for version in (9, "9", None, 1.5):
        newer = json.dumps({**sound, "version": version})
        config.write_text(newer)
        for words in (["list"], ["create", "more", "--broker", world.url], ["whoami"]):
            done = anna.run(*words, check=False)
            expect(done.returncode == 3 and "'version'" in done.stderr, f"{words}: {done}")
        expect(config.read_text() == newer, "it is left as it is")


def a_daemon_that_dies_is_not_waited_for(world):
    """It holds its store, does not answer, and ends: the verb starts another."""
    heir = world.member("heir")
    heir.run("create", "heirloom", "--broker", world.url)
    store = heir.home / ".claudemesh/daemon/store"
    store.mkdir(parents=True, mode=0o700)
    store.parent.chmod(0o700)
    held = open(store / "LOCK", "wb")
    (store / "LOCK").chmod(0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    verb = subprocess.Popen([str(world.binary), "inbox"], env=heir.env, text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
    expect(not ended_within(verb, 1), "it waits for the one that lives")
    held.close()
    talk = verb.communicate(timeout=60)[1]
    expect(verb.returncode == 0 and "was started" in talk, f"then it starts one: {talk}")
    heir.run("daemon", "down")


def ended_within(child, seconds):
    try:
        child.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        return False


def listeners_off_loopback_need_a_word(world):
    nobody = world.members["nobody"]
    done = expect_exit(nobody, 7, "broker", "up", "--listen", "0.0.0.0:0", "--data",
                       str(world.root / "unsafe"))
    expect("--insecure-plaintext" in done.stderr, "the refusal does not name the flag")
    expect_exit(nobody, 3, "broker", "up", "--listen", "nonsense")


def stores_have_one_owner(world, alice):
    second = subprocess.run([str(world.binary), *world.broker.arguments], env=alice.env,
                            capture_output=True, text=True, timeout=30, check=False)
    expect(second.returncode == 1 and "in use" in second.stderr, f"second broker: {second}")
    again = subprocess.run([str(world.binary), "daemon", "up", "--foreground"], env=alice.env,
                           capture_output=True, text=True, timeout=30, check=False)
    expect(again.returncode == 1, f"second daemon: {again}")
    expect("already runs" in alice.run("daemon", "up").stderr, "daemon up beside a running one")


def files_are_private(world, alice):
    for path in [alice.home / ".claudemesh/config.json", alice.socket, world.data / "admin-token",
                 alice.home / ".claudemesh/daemon/store/data.mdb", world.data / "store/data.mdb"]:
        mode = stat.S_IMODE(path.stat().st_mode)
        expect(mode == 0o600, f"{path} has mode {mode:o}")
    for path in [alice.home / ".claudemesh", alice.home / ".claudemesh/daemon", world.data]:
        mode = stat.S_IMODE(path.stat().st_mode)
        expect(mode == 0o700, f"{path} has mode {mode:o}")
    secret = json.loads((alice.home / ".claudemesh/config.json").read_text())["meshes"][0][
        "secretKey"]
    token = (world.data / "admin-token").read_text().strip()
    for log in world.root.glob("*.log"):
        text = log.read_text()
        expect(secret not in text and token not in text, f"a secret stands in {log}")


def the_accept_table_holds(alice, bob):
    key = json.loads(bob.run("list", "--json").stdout)["meshes"][0]["pubkey"]
    request = {"to": key, "message": "once", "client_message_id": "table-1"}
    status, first = alice.call("POST", "/v1/send", request)
    expect(status == 202 and first["status"] == "queued", f"first send: {status} {first}")

    def done():
        status, reply = alice.call("POST", "/v1/send", request)
        return reply if status == 200 else None

    again = wait_until(done, "the same request is answered as done")
    expect(again["duplicate"] is True and again["broker_message_id"], f"duplicate: {again}")
    status, clash = alice.call("POST", "/v1/send", {**request, "message": "twice"})
    expect(status == 409 and clash["conflict"] == "outbox_done_fingerprint_mismatch" and
           len(clash["daemon_fingerprint_prefix"]) == 16, f"another request: {status} {clash}")
    status, both = alice.call("POST", "/v1/send", request, {"Idempotency-Key": "other"})
    expect(status == 400 and "Idempotency-Key" in both["detail"], f"two ids: {status} {both}")
    status, big = alice.call("POST", "/v1/send",
                             {"to": key, "message": "x" * 900_000, "client_message_id": "big"})
    expect(status == 413 and "1048576" in big["detail"], f"oversize: {status} {big}")
    status, small = alice.call("POST", "/v1/send",
                               {"to": key, "message": "x", "client_message_id": "big"})
    expect(status == 202, f"an oversize request consumed its id: {status} {small}")
    status, unknown = alice.call("POST", "/v1/send", {"to": "nobody", "message": "x"})
    expect(status == 404 and unknown["remedy"], f"unknown name: {status} {unknown}")
    status, prefix = alice.call("POST", "/v1/send", {"to": key[:20], "message": "by prefix"})
    expect(status == 202, f"key prefix: {status} {prefix}")
    expect_exit(alice, 5, "send", "nobody", "x")


def bad_requests_name_the_field(alice):
    for body, field in [({"message": "x"}, "to"), ({"to": "bob"}, "message"),
                        ({"to": "bob", "message": "x", "priority": "soon"}, "priority"),
                        ({"to": "bob", "message": "x", "meta": []}, "meta"),
                        ({"to": "bob\n", "message": "x", "mesh": 5}, "mesh"),
                        ({"to": "bob", "message": "x", "client_message_id": "a b"},
                         "client_message_id")]:
        status, reply = alice.call("POST", "/v1/send", body)
        expect(status == 400 and f"'{field}'" in reply["detail"], f"{body}: {status} {reply}")
    connection = UnixConnection(alice.socket)
    connection.request("POST", "/v1/send", "{not json")
    expect(connection.getresponse().status == 400, "broken JSON is not a 400")
    for target, headers, status in [("/v1/health?token=x", {}, 400),
                                    ("/v1/health", {"Host": "evil.example"}, 403),
                                    ("/v1/health", {"Origin": "http://localhost"}, 403),
                                    ("/v1/nothing", {}, 404),
                                    ("/v1/inbox?limit=x", {}, 400),
                                    ("/v1/outbox?status=odd", {}, 400)]:
        connection = UnixConnection(alice.socket)
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse().status
        expect(answer == status, f"{target} {headers}: {answer}, not {status}")


def json_is_on_every_list(alice, bob):
    bob.run("send", "alice", "for the list")
    wait_until(alice.inbox, "a message for the list")
    item = alice.json("inbox", "--keep-unread")[0]
    for key in ["id", "client_message_id", "sender_name", "sender_pubkey", "body", "received_at",
                "mesh", "recipient_pubkey"]:
        expect(item.get(key), f"inbox --json lacks {key}")
    expect(item["sender_name"] == "bob" and item["seen_at"] is None, f"inbox item {item}")
    alice.run("inbox")
    expect(alice.json("inbox")[0]["seen_at"], "inbox did not mark the message as seen")
    expect(alice.json("inbox", "--unread") == [], "a seen message is listed as unread")
    peers = alice.json("peer", "list", "--all")
    expect({p["displayName"] for p in peers} == {"alice", "bob"}, f"peers {peers}")
    expect(alice.json("outbox", "list")["items"], "outbox list --json is empty")
    transports = alice.json("transport", "list")["transports"]
    expect(any(t["kind"] == "ws-broker" and t["loaded"] for t in transports), f"{transports}")
    limits = alice.json("daemon", "limits")
    expect(limits["total_bytes"] > 0 and limits["limits"]["ipc_streams_max"] == 32, "limits")
    expect(re.search(r"ipc_streams_max +32\n", alice.run("daemon", "limits").stdout), "names")
    health = alice.json("daemon", "status")
    expect(health["running"] and health["health"]["brokers"] == {"demo": "open"}, f"{health}")


def broker_answers_http(world):
    host = f"127.0.0.1:{world.broker.started['port']}"

    def call(method, target, body=None, headers=None):
        connection = http.client.HTTPConnection(host, timeout=10)
        connection.request(method, target, body, headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()

    status, health = call("GET", "/health")
    expect(status == 200 and json.loads(health)["status"] == "ok", f"/health {health}")
    status, metrics = call("GET", "/metrics")
    expect(status == 200 and "# TYPE broker_messages_routed_total counter" in metrics, metrics)
    for target in ["/cli/mesh/create", "/cli/mesh/demo/invite"]:
        status, reply = call("POST", target, "{}")
        expect(status == 401 and json.loads(reply)["remedy"], f"{target}: {status} {reply}")
        status, reply = call("POST", target, "{}", {"Authorization": "Bearer wrong"})
        expect(status == 401, f"{target} with a wrong token: {status} {reply}")
    expect(call("POST", "/join", "{}")[0] == 400, "/join without fields")
    expect(call("GET", "/ws")[0] in (400, 426), "/ws without an upgrade")


def invites_admit_as_often_as_they_say(world, alice):
    invite = alice.json("share", "demo")["url"]
    carol, dave = world.member("carol"), world.member("dave")
    expect(carol.json("join", invite, "--name", "carol")["ok"], "carol joins")
    expect(carol.json("join", invite)["already_joined"], "joining again is idempotent")
    done = expect_exit(dave, 3, "join", invite)
    expect("already used" in done.stderr, f"a used invite: {done.stderr}")
    damaged = invite[:-4] + ("AAAA" if not invite.endswith("AAAA") else "BBBB")
    expect(dave.run("join", damaged, check=False).returncode != 0, "a damaged invite is accepted")


def an_ended_daemon_leaves_its_mail(alice, bob):
    bob.daemon.stop()
    alice.run("send", "bob", "for later")
    bob.run("daemon", "fsck")
    started = bob.json("daemon", "up")
    expect(started["ok"] and started["pid"] > 0, f"daemon up: {started}")
    wait_until(lambda: any(i["body"] == "for later" for i in bob.inbox()), "mail after a restart")
    expect(bob.json("daemon", "down")["stopped"], "daemon down")
    expect_exit(bob, 1, "daemon", "status")
    bob.daemon.start()


def invariants_are_checked_on_request(world, alice):
    for process in (world.broker, alice.daemon):
        offset = process.log_path.stat().st_size
        process.child.send_signal(signal.SIGUSR1)
        line = wait_until(lambda p=process, o=offset: p.find_line(o, "verify_all"),
                          "SIGUSR1 is answered in the log")
        expect(line["ok"], f"{process.name}: {line}")


def the_admin_token_stays_on_this_machine(world, alice):
    done = expect_exit(alice, 2, "create", "elsewhere", "--broker", "ws://192.0.2.1:7900/ws")
    expect("--admin-token-file" in done.stderr, f"the refusal names no flag: {done.stderr}")


def damaged_configuration_is_named(world):
    erin = world.member("erin")
    directory = erin.home / ".claudemesh"
    directory.mkdir(mode=0o700)
    config = directory / "config.json"
    for text, word in [("{", "JSON"), ('{"meshes":[{"meshId":5}]}', "meshId"), ("[]", "object")]:
        config.write_text(text)
        done = expect_exit(erin, 3, "list")
        expect(str(config) in done.stderr and word in done.stderr, f"{text}: {done.stderr}")


def main(build):
    with World(build) as world:
        errors_name_what_to_do(world)
        listeners_off_loopback_need_a_word(world)
        damaged_configuration_is_named(world)
        world.start_broker()
        what_is_missing_is_named(world)
        a_daemon_that_dies_is_not_waited_for(world)
        alice, bob = world.mesh_of_two()
        stores_have_one_owner(world, alice)
        the_accept_table_holds(alice, bob)
        bad_requests_name_the_field(alice)
        json_is_on_every_list(alice, bob)
        broker_answers_http(world)
        invites_admit_as_often_as_they_say(world, alice)
        an_ended_daemon_leaves_its_mail(alice, bob)
        invariants_are_checked_on_request(world, alice)
        the_admin_token_stays_on_this_machine(world, alice)
        files_are_private(world, alice)
        print("the command line does what it says")


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]))
    except Failed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        sys.exit(1)
