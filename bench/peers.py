#!/usr/bin/env python3
"""peers.py BUILD [PART...] — our broker beside redis-server and mosquitto, in one run.

Parts: throughput, latency, idle, scale, storm; all of them by default. Every comparison is a ratio
within this run; the aims are those of the design ("first" column). Needs redis-server and mosquitto.
"""

import argparse
import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/e2e"))
from harness import World, wait_until  # noqa: E402

SECONDS = 5
RATE = 200
FREE = ["rate_per_minute=0", "member_connections_max=20000", "mesh_connections_max=20000",
        "queue_pair_rows_max=2000000", "queue_rows_max=2000000", "queue_bytes_max=4000000000",
        "queue_pair_bytes_max=4000000000", "queue_sender_bytes_max=4000000000"]


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def memory_kib(pid, key="RssAnon"):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise SystemExit(f"no {key} of {pid}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Neighbour:
    """redis-server or mosquitto with a directory and a port of its own."""

    def __init__(self, kind, fsync="always"):
        self.kind, self.fsync, self.port = kind, fsync, free_port()
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="cm-bench-"))

    def __enter__(self):
        if self.kind == "redis":
            command = ["redis-server", "--port", str(self.port), "--dir", str(self.root),
                       "--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", self.fsync,
                       "--save", "", "--maxclients", "20000"]
        else:
            config = self.root / "mosquitto.conf"
            config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
                              "max_inflight_messages 0\nmax_queued_messages 0\n"
                              f"persistence true\npersistence_location {self.root}/\n")
            command = ["mosquitto", "-c", str(config)]
        self.child = subprocess.Popen(command, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL, cwd=self.root)
        wait_until(self.listens, f"{self.kind} listens")
        return self

    def listens(self):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait()
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def pid(self):
        return self.child.pid

    def command(self, build, *options):
        return [f"{build}/bin/peer_load", "redis" if self.kind == "redis" else "mqtt",
                str(self.port), *options]


class Ours:
    def __init__(self, build, durability, limits=FREE):
        self.world, self.limits = World(build, durability), limits

    def __enter__(self):
        self.world.__enter__()
        self.broker = self.world.start_broker(limits=self.limits)
        return self

    def __exit__(self, *arguments):
        self.world.__exit__(*arguments)

    @property
    def pid(self):
        return self.broker.child.pid

    def command(self, build, *options):
        return [f"{build}/bin/broker_load", self.world.url, str(self.world.data / "admin-token"),
                *options]


def servers(build):
    return {"redis always": lambda: Neighbour("redis", "always"),
            "redis everysec": lambda: Neighbour("redis", "everysec"),
            "mosquitto": lambda: Neighbour("mosquitto"),
            "ours sync": lambda: Ours(build, "sync"),
            "ours relaxed": lambda: Ours(build, "relaxed")}


def load(build, server, *options):
    """The load's own figures, and the server's CPU seconds per 100,000 messages."""
    before = cpu_seconds(server.pid)
    done = subprocess.run(server.command(build, *options), capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    figures = json.loads(done.stdout.splitlines()[-1])
    spent = cpu_seconds(server.pid) - before
    figures["cpu_per_100k"] = spent * 1e5 / max(1, figures["delivered"])
    return figures


def ratio(label, value, aim, least=True):
    good = value >= aim if least else value <= aim
    print(f"  {label:<58} {value:6.2f} x   aim {'>=' if least else '<='} {aim} x   "
          f"{'reached' if good else 'NOT REACHED'}")


def throughput(build):
    print("\nthroughput, 512 B, 64 in flight: messages a second (CPU s per 100k)")
    found = {}
    for pairs in (1, 10, 50):
        for name, make in servers(build).items():
            with make() as server:
                found[name, pairs] = load(build, server, f"pairs={pairs}", f"seconds={SECONDS}")
    for name in servers(build):
        row = "  ".join(f"{found[name, p]['per_second']:9.0f} ({found[name, p]['cpu_per_100k']:.2f})"
                        for p in (1, 10, 50))
        print(f"  {name:<16} {row}    at 1 / 10 / 50 pairs")
    for pairs, aim in ((1, 1.0), (10, 1.0), (50, 1.3)):
        ratio(f"durable against redis fsync always, {pairs} pairs",
              found["ours sync", pairs]["per_second"] / found["redis always", pairs]["per_second"],
              aim)
    ratio("relaxed against redis everysec, 10 pairs",
          found["ours relaxed", 10]["per_second"] / found["redis everysec", 10]["per_second"], 1.2)
    for mine, theirs in (("ours sync", "redis always"), ("ours relaxed", "redis everysec")):
        ratio(f"CPU a message, {mine} against {theirs}, 10 pairs",
              found[mine, 10]["cpu_per_100k"] / found[theirs, 10]["cpu_per_100k"], 0.8, False)
    return {f"{name} {pairs}": value for (name, pairs), value in found.items()}


def latency(build):
    print(f"\nend to end at {RATE} messages a second, one in flight: p50 / p99 in us")
    found = {}
    for name, make in servers(build).items():
        with make() as server:
            found[name] = load(build, server, "pairs=1", f"rate={RATE}", f"seconds={SECONDS}")
        print(f"  {name:<16} {found[name]['p50_us']:7.0f} / {found[name]['p99_us']:.0f}")
    ratio("p50, ours sync against redis fsync always",
          found["ours sync"]["p50_us"] / found["redis always"]["p50_us"], 1.3, False)
    return found


def held(build, server, count, *options):
    child = subprocess.Popen(server.command(build, "pairs=0", f"idle={count}", *options),
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    line = child.stdout.readline()
    if not line:
        raise SystemExit("the load ended early")
    return child, json.loads(line)


def idle(build):
    print("\nbytes of server memory (anonymous) per idle authenticated connection")
    found = {}
    for name in ("redis everysec", "mosquitto", "ours relaxed"):
        for count in (1_000, 10_000):
            with servers(build)[name]() as server:
                before = memory_kib(server.pid)
                child, _ = held(build, server, count)
                found[name, count] = (memory_kib(server.pid) - before) * 1024 / count
                child.stdin.close()
                child.wait()
        print(f"  {name:<16} {found[name, 1_000]:8.0f} at 1,000   {found[name, 10_000]:8.0f} at "
              "10,000")
    value = found["ours relaxed", 10_000]
    print(f"  ours at 10,000: {value:.0f} bytes, aim <= 4096   "
          f"{'reached' if value <= 4096 else 'NOT REACHED'}")
    return {f"{name} {count}": value for (name, count), value in found.items()}


def scale(build):
    print("\ncost of a message (us of the broker's CPU; messages a second), 10 pairs, relaxed")
    found = {}
    for label, options in (("alone", []), ("beside 10,000 connections", ["idle=10000"]),
                           ("beside 1,000,000 queued rows", ["queued=1000000"]),
                           ("beside 1,000 meshes", ["meshes=1000"])):
        with Ours(build, "relaxed") as server:
            child = None
            beside = [o for o in options if o.startswith("idle=")]
            if beside:
                child, _ = held(build, server, int(beside[0].split("=")[1]))
            else:
                subprocess.run(server.command(build, "pairs=1", "seconds=0.1", *options),
                               capture_output=True, check=True)
            figures = load(build, server, "pairs=10", f"seconds={SECONDS}")
            if child:
                child.stdin.close()
                child.wait()
        found[label] = figures
        print(f"  {label:<30} {figures['cpu_per_100k'] * 10:6.1f} us   "
              f"{figures['per_second']:8.0f} msg/s")
    full = found["beside 1,000,000 queued rows"]["per_second"] / found["alone"]["per_second"]
    ratio("throughput with a million rows queued, against none", full, 0.5)
    return found


def storm(build):
    count = 10_000
    with Ours(build, "sync") as server:
        world = server.world
        child, _ = held(build, server, count, "storm=1")
        world.broker.kill()
        world.broker.start()
        child.stdin.write("go\n")
        child.stdin.flush()
        line = child.stdout.readline()
        if not line:
            raise SystemExit("the load ended early")
        back = json.loads(line)
        peak = memory_kib(world.broker.child.pid, "VmHWM")
        anonymous = memory_kib(world.broker.child.pid)
        child.stdin.close()
        child.wait()
    print(f"\nreconnect storm: {back['back']} clients back {back['seconds']:.2f} s after a kill -9, "
          f"peak {peak / 1024:.0f} MiB resident, {anonymous / 1024:.0f} MiB anonymous then")
    return {**back, "peak_kib": peak, "anonymous_kib": anonymous}


PARTS = {"throughput": throughput, "latency": latency, "idle": idle, "scale": scale,
         "storm": storm}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build")
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--json", help="write the raw figures here")
    chosen = parser.parse_args()
    for program in ("redis-server", "mosquitto"):
        if shutil.which(program) is None and not pathlib.Path("/usr/sbin", program).exists():
            raise SystemExit(f"{program} is not installed; 'make bench-peers' installs it")
    unknown = [name for name in chosen.parts if name not in PARTS]
    if unknown:
        raise SystemExit(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    found = {name: PARTS[name](chosen.build) for name in chosen.parts or PARTS}
    if chosen.json:
        pathlib.Path(chosen.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
