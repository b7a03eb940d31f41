"""harness.py — real processes on loopback: a broker, members with homes of their own, daemons.

Everything lives in one temporary directory and dies with the World. Waiting is for events (a log
line, an event of the stream, a condition of the API), each with a deadline.
"""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

DEADLINE_S = 60.0


class Failed(Exception):
    """A step did not do what it should; its text is the sentence that a person reads."""


def wait_until(condition, what, deadline_s=DEADLINE_S):
    """Polls a condition of another process; its truthy value is the answer."""
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {deadline_s:.0f} s")
        pause.wait(0.01)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the daemon's socket."""

    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.unix_path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_path)


class Process:
    """A long-running role with its log, started again as often as it is killed."""

    def __init__(self, world, name, arguments, env, started_event):
        self.world, self.name, self.arguments = world, name, arguments
        self.env, self.started_event = env, started_event
        self.log_path = world.root / f"{name}.log"
        self.child = None
        self.started = None
        self.offset = 0  # of the log, where the present child began

    def start(self):
        self.launch()
        return self.wait_started()

    def launch(self):
        with open(self.log_path, "ab") as log:
            self.offset = log.tell()
            self.child = subprocess.Popen([str(self.world.binary), *self.arguments], env=self.env,
                                          stdout=log, stderr=subprocess.STDOUT,
                                          stdin=subprocess.DEVNULL)

    def wait_started(self):
        self.started = wait_until(lambda: self.find_line(self.offset, self.started_event),
                                  f"{self.name} starts")
        return self

    def find_line(self, offset, event):
        with open(self.log_path, "rb") as log:
            log.seek(offset)
            for line in log.read().split(b"\n"):
                if line.startswith(b"{") and f'"event":"{event}"'.encode() in line:
                    try:
                        return json.loads(line)
                    except ValueError:
                        continue  # still being written
        if self.child.poll() is not None:
            raise Failed(f"{self.name} ended with {self.child.returncode}: {self.tail()}")
        return None

    def tail(self):
        return self.log_path.read_text(errors="replace")[-2000:]

    def kill(self):
        """SIGKILL: no handler runs, nothing is flushed."""
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def stop(self):
        if self.child is None or self.child.poll() is not None:
            return
        self.child.terminate()
        try:
            self.child.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"{self.name} did not stop on SIGTERM") from None

    def resident_kib(self):
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(next(l for l in status.splitlines() if l.startswith("VmRSS")).split()[1])


class Member:
    """One person's home: configuration, daemon, command line."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.home = world.root / name
        self.home.mkdir(mode=0o700)
        self.env = world.environment(self.home)
        self.daemon = Process(world, f"daemon-{name}", ["daemon", "up", "--foreground"], self.env,
                              "daemon_started")
        self.socket = self.home / ".claudemesh/daemon/daemon.sock"

    def run(self, *arguments, check=True):
        done = subprocess.run([str(self.world.binary), *arguments], env=self.env, timeout=60,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if check and done.returncode != 0:
            raise Failed(f"{self.name}: claudemesh {' '.join(arguments)} ended with "
                         f"{done.returncode}: {done.stdout}{done.stderr}")
        return done

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "--json").stdout)

    def call(self, method, target, body=None, headers=None):
        """(status, JSON) of one IPC call."""
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, target, None if body is None else json.dumps(body),
                               headers or {})
            reply = connection.getresponse()
            text = reply.read()
        finally:
            connection.close()
        return reply.status, json.loads(text) if text.startswith((b"{", b"[")) else text

    def send(self, to, message, **fields):
        status, reply = self.call("POST", "/v1/send", {"to": to, "message": message, **fields})
        if status not in (200, 202):
            raise Failed(f"{self.name}: send answered {status}: {reply}")
        return reply

    def inbox(self, limit=1000):
        """Oldest first; marks nothing."""
        status, reply = self.call("GET", f"/v1/inbox?limit={limit}&mark_seen=false")
        if status != 200:
            raise Failed(f"{self.name}: inbox answered {status}: {reply}")
        return list(reversed(reply["items"]))

    def connected(self):
        try:
            return self.call("GET", "/v1/health")[1]["connected"]
        except (OSError, http.client.HTTPException, KeyError, ValueError):
            return False

    def wait_connected(self):
        wait_until(self.connected, f"{self.name}'s daemon is connected")


class World:
    """A temporary directory with a broker and members; a context manager that cleans up."""

    def __init__(self, build, durability="sync"):
        build = pathlib.Path(build).resolve()
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="cm-"))
        # A private copy, as an installation would have it: plugins in writable places are refused.
        self.binary = self.root / "bin/claudemesh"
        self.plugins = self.root / "lib/claudemesh/transports"
        self.binary.parent.mkdir(mode=0o755)
        self.plugins.mkdir(parents=True, mode=0o755)
        shutil.copy(build / "bin/claudemesh", self.binary)
        for plugin in (build / "transports").glob("*.so"):
            shutil.copy(plugin, self.plugins)
            (self.plugins / plugin.name).chmod(0o644)
        self.data = self.root / "broker"
        self.durability = durability
        self.members = {}
        self.broker = None

    def environment(self, home):
        env = {k: v for k, v in os.environ.items() if not k.startswith("CLAUDEMESH_")}
        # A CI job as to TCP: daemons of one machine would meet on the port otherwise.
        env.update(CI="true", HOME=str(home), CLAUDEMESH_BROKER_DATA=str(self.data),
                   CLAUDEMESH_PLUGIN_DIR=str(self.plugins),
                   # The temporary directory is under a sticky /tmp, which plugins distrust.
                   CLAUDEMESH_PLUGIN_TRUST_STICKY="1")
        return env

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is not None and os.environ.get("CM_KEEP"):
            print(f"kept: {self.root}")
            self.kill_all()
            return
        self.kill_all()
        shutil.rmtree(self.root, ignore_errors=True)

    def kill_all(self):
        for process in [m.daemon for m in self.members.values()] + [self.broker]:
            if process and process.child and process.child.poll() is None:
                process.kill()
        for pid in self.strays():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def strays(self):
        """Daemons that verbs have started: programs of this world's own folder."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(
                        f"{self.root}/".encode()):
                    found.append(int(entry.name))
        return found

    def start_broker(self, port=0, limits=()):
        arguments = ["broker", "up", "--listen", f"127.0.0.1:{port}", "--data", str(self.data),
                     "--durability", self.durability]
        for limit in limits:
            arguments += ["--limit", limit]
        home = self.root / "broker-home"
        home.mkdir(exist_ok=True)
        self.broker = Process(self, "broker", arguments, self.environment(home),
                              "broker_started").start()
        # Restarts use the port that the first start was given.
        arguments[3] = f"127.0.0.1:{self.broker.started['port']}"
        return self.broker

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.broker.started['port']}/ws"

    def member(self, name):
        self.members[name] = Member(self, name)
        return self.members[name]

    def mesh_of_two(self):
        """alice, who created the mesh, and bob, who joined it; both daemons connected."""
        alice, bob = self.member("alice"), self.member("bob")
        alice.json("create", "demo", "--broker", self.url, "--display-name", "alice")
        invite = alice.json("share")["url"]
        bob.json("join", invite, "--name", "bob")
        for member in (alice, bob):
            member.daemon.start()
        for member in (alice, bob):
            member.wait_connected()
        return alice, bob


class EventStream:
    """GET /v1/events of one daemon, read by a thread; each event with its arrival time."""

    def __init__(self, member):
        self.connection = UnixConnection(member.socket, timeout=None)
        self.connection.request("GET", "/v1/events")
        self.reply = self.connection.getresponse()
        self.arrived = threading.Condition()
        self.messages = {}
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        kind = None
        try:
            for line in self.reply:
                text = line.decode().rstrip("\n")
                if text.startswith("event: "):
                    kind = text[7:]
                elif text.startswith("data: ") and kind == "message":
                    with self.arrived:
                        self.messages[json.loads(text[6:])["client_message_id"]] = \
                            time.monotonic()
                        self.arrived.notify_all()
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            pass  # the daemon was stopped

    def wait_for(self, message_id):
        with self.arrived:
            if not self.arrived.wait_for(lambda: message_id in self.messages, DEADLINE_S):
                raise Failed(f"message {message_id} did not arrive")
            return self.messages[message_id]
