#!/usr/bin/env python3
"""test_tls.py BUILD — a broker behind TLS, with a CA made here: messages end to end over wss://,
refusals that say what to do, a renewed certificate, rotated logs.
"""

import http.client
import json
import os
import pathlib
import signal
import socket
import ssl
import stat
import subprocess
import sys

from harness import Failed, Process, World, wait_until


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


class Authority:
    """A CA and what it signs, made with the openssl tool."""

    def __init__(self, folder, name="Test CA"):
        self.folder = folder
        folder.mkdir(mode=0o700)
        self.file = folder / "ca.pem"
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                     "-nodes", "-keyout", folder / "ca.key", "-out", self.file, "-days", "2",
                     "-subj", f"/CN={name}")

    @staticmethod
    def openssl(*arguments):
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            raise Failed(f"openssl {arguments[0]}: {done.stderr}")

    def issue(self, name, names="IP:127.0.0.1,DNS:localhost"):
        """(certificate, key), the key 0600."""
        key, request = self.folder / f"{name}.key", self.folder / f"{name}.csr"
        certificate, extensions = self.folder / f"{name}.pem", self.folder / f"{name}.ext"
        self.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                     "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions.write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
        self.openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey",
                     self.folder / "ca.key", "-CAcreateserial", "-out", certificate, "-days", "1",
                     "-extfile", extensions)
        key.chmod(0o600)
        return certificate, key


class TlsWorld(World):
    def __init__(self, build):
        super().__init__(build)
        self.ca = Authority(self.root / "ca")
        self.stranger = Authority(self.root / "other-ca", "Another CA")
        self.certificate, self.key = self.root / "broker.pem", self.root / "broker.key"
        self.install(*self.ca.issue("first"))

    def install(self, certificate, key):
        """Puts a pair where the broker reads it."""
        self.certificate.write_bytes(certificate.read_bytes())
        self.key.write_bytes(key.read_bytes())
        self.key.chmod(0o600)

    def start(self, name="broker", listen="127.0.0.1:0", tls=True, extra=()):
        arguments = ["broker", "up", "--listen", listen, "--data", str(self.root / name), *extra]
        if tls:
            arguments += ["--tls-cert", str(self.certificate), "--tls-key", str(self.key)]
        process = Process(self, name, arguments, self.environment(self.root), "broker_started")
        arguments += ["--log-file", str(process.log_path)]
        return process.start()

    def start_broker(self, port=0):
        self.broker = self.start()
        return self.broker

    @property
    def url(self):
        return f"wss://127.0.0.1:{self.broker.started['port']}/ws"

    def member(self, name, ca=None):
        member = super().member(name)
        member.env["CLAUDEMESH_CA_FILE"] = str(ca or self.ca.file)
        return member

    def connect(self, **settings):
        """A TLS connection of Python's own, as another client would make it."""
        context = ssl.create_default_context(cafile=str(self.ca.file))
        for key, value in settings.items():
            setattr(context, key, value)
        raw = socket.create_connection(("127.0.0.1", self.broker.started["port"]), timeout=30)
        return context.wrap_socket(raw, server_hostname="127.0.0.1")


def get_health(connection):
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    return reply.status, json.loads(reply.read())


def log_line(process, event, offset=0):
    return wait_until(lambda: process.find_line(offset, event), f"{process.name} logs {event}")


def starts_are_refused_with_a_reason(world):
    def refused(status, word, *arguments):
        done = subprocess.run([str(world.binary), "broker", "up", "--listen", "127.0.0.1:0",
                               "--data", str(world.root / "never"), *map(str, arguments)],
                              env=world.environment(world.root), capture_output=True, text=True,
                              timeout=30, check=False)
        expect(done.returncode == status and word in done.stderr,
               f"{arguments} ended with {done.returncode}: {done.stderr}")

    refused(3, "both or neither", "--tls-cert", world.certificate)
    refused(3, "both or neither", "--tls-key", world.key)
    refused(10, "No such file", "--tls-cert", world.root / "none.pem", "--tls-key", world.key)
    other = world.ca.issue("mismatch")[1]
    refused(3, "is not that of the certificate", "--tls-cert", world.certificate, "--tls-key",
            other)
    world.key.chmod(0o644)
    refused(10, f"chmod 600 {world.key}", "--tls-cert", world.certificate, "--tls-key", world.key)
    world.key.chmod(0o600)
    refused(10, "log file", "--tls-cert", world.certificate, "--tls-key", world.key, "--log-file",
            world.root)


def the_cli_verifies_the_broker(world):
    nobody = world.member("nobody", world.stranger.file)
    done = nobody.run("create", "demo", "--broker", world.url, check=False)
    expect(done.returncode == 4 and "unknown CA" in done.stderr and "--ca-file" in done.stderr,
           f"create with another CA: {done.returncode} {done.stderr}")
    del nobody.env["CLAUDEMESH_CA_FILE"]
    done = nobody.run("create", "demo", "--broker", world.url, check=False)
    expect(done.returncode == 4 and "unknown CA" in done.stderr, f"without a CA: {done.stderr}")
    done = nobody.run("create", "demo", "--broker", world.url, "--ca-file",
                      str(world.root / "none.pem"), check=False)
    expect(done.returncode == 10 and "none.pem" in done.stderr, f"no such CA: {done.stderr}")
    plain = world.url.replace("wss:", "ws:")
    done = nobody.run("create", "demo", "--broker", plain, check=False)
    expect(done.returncode != 0 and "speaks TLS" in done.stderr, f"plain to TLS: {done.stderr}")
    token = world.root / "some-token"
    token.write_text("x" * 43)
    done = nobody.run("create", "demo", "--broker", "ws://192.0.2.1:7900/ws", "--admin-token-file",
                      str(token), check=False)
    expect(done.returncode == 7 and "wss://" in done.stderr,
           f"the admin token without TLS: {done.returncode} {done.stderr}")


def messages_travel_over_wss(world):
    alice, bob = world.mesh_of_two()
    expect(alice.json("list")["meshes"][0]["broker_url"].startswith("wss://"), "alice's URL")
    large = "x" * 40_000
    alice.run("send", "bob", "hello over TLS")
    alice.run("send", "bob", large)
    wait_until(lambda: {i["body"] for i in bob.inbox()} == {"hello over TLS", large},
               "bob has both messages")
    bob.run("send", "alice", "and back")
    wait_until(lambda: [i["body"] for i in alice.inbox()] == ["and back"], "alice has the answer")
    return alice, bob


def a_daemon_that_trusts_another_ca_says_so(world, alice):
    invite = alice.json("share")["url"]
    carol = world.member("carol")
    carol.json("join", invite, "--name", "carol")
    carol.env["CLAUDEMESH_CA_FILE"] = str(world.stranger.file)
    carol.daemon.start()

    def last_error():
        health = carol.json("daemon", "status")["health"]
        return next((m["last_error"] for m in health["meshes"] if m.get("last_error")), None)

    sentence = wait_until(last_error, "daemon status shows the failure")
    expect("unknown CA" in sentence and "--ca-file" in sentence, f"last error: {sentence}")
    expect("unknown CA" in carol.run("daemon", "status").stdout, "status for people lacks it")
    expect("unknown CA" in log_line(carol.daemon, "transport")["text"], "the log lacks it")
    expect(not carol.connected(), "carol is connected to a broker that she does not trust")
    carol.daemon.stop()
    # The flag wins over the environment; detached, it reaches the daemon as well.
    log = world.root / "carol-daemon.jsonl"
    started = carol.json("daemon", "up", "--ca-file", str(world.ca.file), "--log-file", str(log))
    carol.wait_connected()
    expect(stat.S_IMODE(log.stat().st_mode) == 0o600, "the daemon's log is not private")
    log.rename(world.root / "carol-daemon.1")
    os.kill(started["pid"], signal.SIGHUP)
    wait_until(lambda: log.exists() and "log_reopened" in log.read_text(), "a new daemon log")
    carol.run("daemon", "down")
    expect("daemon_stopped" in log.read_text(), "the end is not in the new log")
    expect("daemon_stopped" not in (world.root / "carol-daemon.1").read_text(), "old log grew")


def foreign_clients_meet_a_sound_policy(world):
    with world.connect() as connection:
        expect(connection.version() == "TLSv1.3", f"version {connection.version()}")
        expect(get_health(connection)[0] == 200, "/health over TLS")
    with world.connect(maximum_version=ssl.TLSVersion.TLSv1_2) as connection:
        expect(connection.version() == "TLSv1.2", f"version {connection.version()}")
    # A client that would speak TLS 1.1 itself: it is the broker who refuses.
    old = subprocess.run(["openssl", "s_client", "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0",
                          "-connect", f"127.0.0.1:{world.broker.started['port']}"],
                         capture_output=True, text=True, timeout=30, check=False,
                         stdin=subprocess.DEVNULL)
    expect("alert protocol version" in old.stderr, f"TLS 1.1: {old.stderr}")
    plain = http.client.HTTPConnection("127.0.0.1", world.broker.started["port"], timeout=30)
    plain.request("GET", "/health")
    reply = plain.getresponse()
    expect(reply.status == 400 and b"wss://" in reply.read(), "plain HTTP on the TLS port")


def a_renewed_certificate_is_shown_to_new_connections(world, alice):
    old = world.connect()
    before = old.getpeercert()["serialNumber"]
    world.install(*world.ca.issue("second"))
    world.broker.child.send_signal(signal.SIGHUP)
    log_line(world.broker, "tls_reloaded")
    with world.connect() as fresh:
        renewed = fresh.getpeercert()["serialNumber"]
        expect(renewed != before, "the new certificate is not shown")
    expect(get_health(old)[0] == 200, "a connection of before the renewal ended")
    old.close()
    # A pair that does not fit changes nothing, and the log says so.
    world.certificate.write_bytes(world.ca.issue("third")[0].read_bytes())
    world.broker.child.send_signal(signal.SIGHUP)
    refused = log_line(world.broker, "tls_not_reloaded", 0)
    expect("is not that of the certificate" in refused["detail"], f"{refused}")
    with world.connect() as fresh:
        expect(fresh.getpeercert()["serialNumber"] == renewed, "a bad pair replaced a good one")
    alice.run("send", "bob", "after the renewal")
    expect(alice.connected(), "alice lost her connection")
    expect(not alice.daemon.find_line(0, "broker_lost"),
           "a daemon lost its connection when the certificate changed")


def a_log_that_was_renamed_is_opened_anew(world):
    path = world.broker.log_path
    expect(stat.S_IMODE(path.stat().st_mode) == 0o600, "the log is not private")
    rotated = path.with_suffix(".1")
    path.rename(rotated)
    world.broker.child.send_signal(signal.SIGHUP)
    wait_until(path.exists, "the log is made anew")
    log_line(world.broker, "log_reopened")
    size = rotated.stat().st_size
    world.broker.child.send_signal(signal.SIGUSR1)
    log_line(world.broker, "verify_all")
    expect(rotated.stat().st_size == size, "lines still go to the renamed file")
    expect(stat.S_IMODE(path.stat().st_mode) == 0o600, "the new log is not private")


def listeners_off_loopback_take_the_token_with_tls_alone(world):
    nobody = world.members["nobody"]
    nobody.env["CLAUDEMESH_CA_FILE"] = str(world.ca.file)
    world.install(*world.ca.issue("open"))
    for name, tls, extra, status in [("open-tls", True, [], 0),
                                     ("open-plain", False, ["--insecure-plaintext"], 2)]:
        broker = world.start(name, "0.0.0.0:0", tls, extra)
        try:
            expect(broker.started["url"].startswith("wss://" if tls else "ws://"), "public URL")
            url = f"{'wss' if tls else 'ws'}://127.0.0.1:{broker.started['port']}/ws"
            done = nobody.run("create", name, "--broker", url, "--admin-token-file",
                              str(world.root / name / "admin-token"), check=False)
            expect(done.returncode == status, f"{name}: {done.returncode} {done.stderr}")
        finally:
            broker.stop()


def main(build):
    with TlsWorld(build) as world:
        starts_are_refused_with_a_reason(world)
        world.start_broker()
        the_cli_verifies_the_broker(world)
        alice, _bob = messages_travel_over_wss(world)
        a_daemon_that_trusts_another_ca_says_so(world, alice)
        foreign_clients_meet_a_sound_policy(world)
        a_renewed_certificate_is_shown_to_new_connections(world, alice)
        a_log_that_was_renamed_is_opened_anew(world)
        listeners_off_loopback_take_the_token_with_tls_alone(world)
        print("TLS: messages, refusals, renewal and rotation do what they say")


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]))
    except Failed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        sys.exit(1)
