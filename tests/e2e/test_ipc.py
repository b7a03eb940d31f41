#!/usr/bin/env python3
"""test_ipc.py BUILD — the local API of real daemons: TCP and its token, resuming streams, meshes
that come and go while the daemon runs, and who may not run beside whom.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading

from harness import Failed, UnixConnection, World, wait_until


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


def over_tcp(member, method, target, token=None, body=None, headers=None):
    """(status, text, headers) of one call over TCP."""
    host, port = member.daemon.started["tcp"].rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    fields = dict(headers or {})
    if token is not None:
        fields["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, target, body, fields)
        reply = connection.getresponse()
        return reply.status, reply.read().decode(), reply.headers
    finally:
        connection.close()


def token_of(member):
    return (member.home / ".claudemesh/daemon/local-token").read_text().strip()


def tcp_is_guarded_and_its_token_rotates(alice):
    path = alice.home / ".claudemesh/daemon/local-token"
    expect(stat.S_IMODE(path.stat().st_mode) == 0o600, "local-token is not private")
    old = token_of(alice)
    expect(over_tcp(alice, "GET", "/v1/version")[0] == 401, "TCP without a token")
    expect(over_tcp(alice, "GET", "/v1/health")[0] == 401, "health is public unasked")
    expect(over_tcp(alice, "GET", "/v1/version", "x" * 43)[0] == 401, "TCP with a wrong token")
    expect(over_tcp(alice, "GET", "/v1/version", old)[0] == 200, "TCP with the token")
    for headers, status in (({"Host": "evil.example"}, 403), ({"Origin": "http://localhost"}, 403),
                            ({"Host": "[::1]:47823"}, 200)):
        expect(over_tcp(alice, "GET", "/v1/version", old, headers=headers)[0] == status,
               f"{headers} is not {status}")
    preflight = over_tcp(alice, "OPTIONS", "/v1/send", None, None,
                         {"Origin": "http://a", "Access-Control-Request-Method": "POST"})
    expect(preflight[0] == 403 and "Access-Control-Allow-Origin" not in preflight[2],
           f"a preflight: {preflight[:2]}")
    expect(over_tcp(alice, "POST", "/v1/token/rotate", old)[0] == 403, "rotation over TCP")
    status, reply = alice.call("POST", "/v1/token/rotate")
    new = token_of(alice)
    expect(status == 200 and reply["old_valid_s"] == 60, f"rotation: {status} {reply}")
    expect(new != old and new not in json.dumps(reply), "the token did not change, or was printed")
    expect(stat.S_IMODE(path.stat().st_mode) == 0o600, "the new local-token is not private")
    for token in (old, new):
        expect(over_tcp(alice, "GET", "/v1/version", token)[0] == 200, "both are valid for a while")
    log = alice.daemon.log_path.read_text()
    expect(old not in log and new not in log, "a token is in the log")


def limits_answer_with_their_sentence(alice):
    connection = UnixConnection(alice.socket)
    connection.request("POST", "/v1/send", b" " * ((1 << 20) + 1))
    reply = connection.getresponse()
    body = json.loads(reply.read())
    expect(reply.status == 413 and body["limit_bytes"] == 1 << 20, f"413: {reply.status} {body}")
    connection.close()
    token = token_of(alice)
    host, port = alice.daemon.started["tcp"].rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    answers = {}
    for _ in range(5000):
        connection.request("POST", "/v1/heartbeat", "{}", {"Authorization": f"Bearer {token}"})
        reply = connection.getresponse()
        reply.read()
        answers[reply.status] = answers.get(reply.status, 0) + 1
        if reply.status == 429:
            expect(reply.headers["Retry-After"] == "1", "429 without Retry-After")
            break
    connection.close()
    expect(429 in answers and answers[200] >= 900, f"no limit was met: {answers}")


def curl_speaks_to_the_socket(alice):
    if shutil.which("curl") is None:
        print("  curl is not installed: not asked over it")
        return
    done = subprocess.run(["curl", "-sS", "--unix-socket", str(alice.socket),
                           "http://localhost/v1/compat"], capture_output=True, text=True,
                          timeout=30, check=True)
    compat = json.loads(done.stdout)
    expect("client_message_id_dedupe" in compat["required_broker_features"], f"compat: {compat}")


def metrics_are_clean(alice):
    text = alice.call("GET", "/v1/metrics")[1].decode()
    expect("cm_daemon_ipc_replies_total{endpoint=" in text, "no replies are counted")
    if shutil.which("promtool") is None:
        print("  promtool is not installed: 'promtool check metrics' was skipped")
        return
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                          capture_output=True, timeout=30, check=False)
    expect(done.returncode == 0 and not done.stderr.strip(), f"promtool: {done.stdout}{done.stderr}")


class Events:
    """One event stream, read by a thread: (id, kind, data) in order."""

    def __init__(self, member, last=None):
        self.connection = UnixConnection(member.socket, timeout=None)
        self.connection.request("GET", "/v1/events", None,
                                {} if last is None else {"Last-Event-ID": last})
        self.reply = self.connection.getresponse()
        self.events = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        event = {}
        try:
            for line in self.reply:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name in ("id", "event", "data"):
                    event[name] = value
                if not name and "data" in event:
                    self.events.append((event["id"], event["event"], json.loads(event["data"])))
                    event = {}
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            pass

    def messages(self):
        return [(i, data["body"]) for i, kind, data in list(self.events) if kind == "message"]

    def close(self):
        # A reader in another thread holds the socket: half of it is enough to end it.
        self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.connection.close()


def streams_resume_where_they_were(alice, bob):
    first = Events(bob)
    alice.send("bob", "one")
    wait_until(first.messages, "the first message is an event")
    last = first.messages()[0][0]
    first.close()
    for text in ("two", "three"):
        alice.send("bob", text)
    wait_until(lambda: len(bob.inbox()) == 3, "all are in the inbox")
    second = Events(bob, last)
    wait_until(lambda: [body for _, body in second.messages()] == ["two", "three"],
               "the stream resumed with what it missed")
    newest = second.messages()[-1][0]
    second.close()
    bob.daemon.stop()
    bob.daemon.start()
    bob.wait_connected()
    third = Events(bob, newest)
    wait_until(lambda: third.events, "the stream after a restart begins")
    expect(third.events[0][1] == "gap" and third.events[0][2]["reason"] == "restart",
           f"after a restart: {third.events[0]}")
    alice.send("bob", "four")
    wait_until(third.messages, "a message after the restart")
    expect(int(third.messages()[0][0]) > int(newest), "ids did not grow over the restart")
    third.close()


def slugs(member):
    return sorted(mesh["slug"] for mesh in member.call("GET", "/v1/health")[1]["meshes"])


def rewrite_config(member, change):
    path = member.home / ".claudemesh/config.json"
    text = change(path.read_text())
    temporary = path.with_name("config.json.new")
    temporary.write_text(text)
    temporary.chmod(0o600)
    temporary.rename(path)


def count_lines(member, event):
    return member.daemon.log_path.read_text(errors="replace").count(f'"event":"{event}"')


def meshes_come_and_go_while_it_runs(world, alice):
    # A mesh id that no broker knows: joining is picked up, connecting is refused.
    alice.json("create", "second", "--broker", world.url, "--display-name", "alice")
    wait_until(lambda: slugs(alice) == ["demo", "second"], "the joined mesh is served")
    wait_until(lambda: all(m["state"] == "open"
                           for m in alice.call("GET", "/v1/health")[1]["meshes"]),
               "both brokers are connected")
    before = (alice.home / ".claudemesh/config.json").read_text()
    refusals = count_lines(alice, "config_not_reloaded")
    rewrite_config(alice, lambda text: text[:-20])
    wait_until(lambda: count_lines(alice, "config_not_reloaded") > refusals,
               "a broken file is refused")
    expect(slugs(alice) == ["demo", "second"], "a broken file changed the meshes")
    status, reply = alice.call("POST", "/v1/reload")
    expect(status == 400 and "config.json" in reply["detail"], f"reload: {status} {reply}")

    def without_second(text):
        config = json.loads(before)
        config["meshes"] = [m for m in config["meshes"] if m["slug"] != "second"]
        return json.dumps(config)
    rewrite_config(alice, without_second)
    wait_until(lambda: slugs(alice) == ["demo"], "the mesh that was left is gone")
    rewrite_config(alice, lambda text: before)
    wait_until(lambda: slugs(alice) == ["demo", "second"], "it is joined again")
    reloads = count_lines(alice, "config_reloaded")
    alice.daemon.child.send_signal(signal.SIGHUP)
    wait_until(lambda: count_lines(alice, "config_reloaded") > reloads, "SIGHUP reads the file")
    status, reply = alice.call("POST", "/v1/reload")
    expect(status == 200 and reply["kept"] == 2, f"reload: {status} {reply}")
    # No mesh named and two joined: the one that knows the name is found.
    expect(alice.send("bob", "which mesh?")["mesh"] == "demo", "bob is known in one mesh only")
    expect(alice.call("POST", "/v1/send", {"to": "*", "message": "x"})[0] == 400,
           "everybody of which mesh?")


def get(member, target, headers=None):
    """(status, text, headers) of one call over the unix socket."""
    connection = UnixConnection(member.socket)
    try:
        connection.request("GET", target, headers=headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read().decode(), reply.headers
    finally:
        connection.close()


def pages_lead_to_every_row_once(alice):
    for number in range(5):
        alice.send("bob", f"page {number}")
    whole = [item["id"] for item in alice.call("GET", "/v1/outbox?limit=500")[1]["items"]]
    target, seen = "/v1/outbox?limit=2", []
    while target:
        status, text, headers = get(alice, target)
        expect(status == 200 and len(seen) <= len(whole), f"{target}: {status}")
        seen += [item["id"] for item in json.loads(text)["items"]]
        link = headers.get("Link")
        expect(link is None or (link.startswith("<") and link.endswith('>; rel="next"')), link)
        target = link and link[1:link.index(">")]
    expect(seen == whole and len(seen) >= 5, f"pages: {seen}, at once: {whole}")


def a_page_is_let_in_by_config_and_never_told_so(alice):
    page = {"Origin": "http://localhost:3000"}
    path = alice.home / ".claudemesh/config.toml"
    expect(get(alice, "/v1/version", page)[0] == 403, "a page is let in unasked")
    path.write_text('[ipc]\nallowed_origins = "http://localhost:3000"\n')
    status, reply = alice.call("POST", "/v1/reload")
    expect(status == 200 and reply["settings_need_restart"] == [], f"reload: {status} {reply}")
    status, _, headers = get(alice, "/v1/version", page)
    expect(status == 200 and "Access-Control-Allow-Origin" not in headers, f"{status} {headers}")
    expect(get(alice, "/v1/version", {"Origin": "http://localhost:3001"})[0] == 403, "another page")
    path.unlink()
    alice.call("POST", "/v1/reload")
    expect(get(alice, "/v1/version", page)[0] == 403, "it stays allowed")


def try_up(member, *arguments):
    return subprocess.run([str(member.world.binary), "daemon", "up", "--foreground", *arguments],
                          env=member.env, capture_output=True, text=True, timeout=30,
                          stdin=subprocess.DEVNULL, check=False)


def a_port_in_use_is_named(alice, bob):
    port = alice.daemon.started["tcp"].rsplit(":", 1)[1]
    bob.daemon.stop()
    done = try_up(bob, "--tcp-port", port)
    expect(done.returncode == 1 and port in done.stderr and "--no-tcp" in done.stderr,
           f"a port in use: {done.returncode} {done.stderr}")
    done = try_up(bob, "--tcp-port", "0", "--http-bind", "0.0.0.0")
    expect(done.returncode == 7 and "--http-external-auth" in done.stderr,
           f"an open address: {done.returncode} {done.stderr}")


def nobody_starts_beside_a_reference_daemon(bob):
    directory = bob.home / ".claudemesh/daemon"
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        (directory / "daemon.pid").write_text(str(sleeper.pid))
        done = try_up(bob)
        expect(done.returncode == 1 and str(sleeper.pid) in done.stderr and "kill" in done.stderr,
               f"beside a live pid: {done.returncode} {done.stderr}")
        # The same number in a file that we left behind ourselves: it was given to another process.
        (directory / "store/PID").write_text(str(sleeper.pid))
        bob.daemon.start()
        bob.wait_connected()
        expect((directory / "daemon.pid").read_text() == str(bob.daemon.child.pid), "the pid file")
        bob.daemon.kill()
        bob.daemon.start()
        bob.wait_connected()
        bob.daemon.stop()
        expect(not (directory / "daemon.pid").exists(), "the pid file outlived the daemon")
    finally:
        sleeper.kill()
        sleeper.wait()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "daemon.sock"))
    listener.listen()

    def answer():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.recv(4096)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            client.close()
    threading.Thread(target=answer, daemon=True).start()
    done = try_up(bob)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    expect(done.returncode == 1 and "daemon.sock" in done.stderr,
           f"beside a socket that answers: {done.returncode} {done.stderr}")
    os.unlink(directory / "daemon.sock")


def the_last_mesh_can_go_and_come(alice):
    before = (alice.home / ".claudemesh/config.json").read_text()
    rewrite_config(alice, lambda text: '{"version":1,"meshes":[]}')
    wait_until(lambda: slugs(alice) == [], "every mesh was left")
    rewrite_config(alice, lambda text: before)
    wait_until(lambda: slugs(alice) == ["demo", "second"], "and joined again")
    (alice.home / ".claudemesh/config.json").unlink()
    status, _ = alice.call("POST", "/v1/reload")
    expect(status == 404 and slugs(alice) == ["demo", "second"], "a file that is gone left meshes")
    rewrite = alice.home / ".claudemesh/config.json"
    rewrite.write_text(before)
    rewrite.chmod(0o600)


def main():
    with World(sys.argv[1]) as world:
        world.start_broker()
        alice, bob = world.member("alice"), world.member("bob")
        alice.daemon.arguments.extend(["--tcp-port", "0"])
        alice.json("create", "demo", "--broker", world.url, "--display-name", "alice")
        invite = alice.json("share")["url"]
        bob.json("join", invite, "--name", "bob")
        for member in (alice, bob):
            member.daemon.start()
        for member in (alice, bob):
            member.wait_connected()
        expect(bob.daemon.started["tcp"] == "", "TCP is open in a CI job")
        tcp_is_guarded_and_its_token_rotates(alice)
        limits_answer_with_their_sentence(alice)
        curl_speaks_to_the_socket(alice)
        metrics_are_clean(alice)
        streams_resume_where_they_were(alice, bob)
        pages_lead_to_every_row_once(alice)
        a_page_is_let_in_by_config_and_never_told_so(alice)
        meshes_come_and_go_while_it_runs(world, alice)
        the_last_mesh_can_go_and_come(alice)
        a_port_in_use_is_named(alice, bob)
        nobody_starts_beside_a_reference_daemon(bob)
    print("the local API does what it says")


if __name__ == "__main__":
    main()
