#!/usr/bin/env python3
"""run.py BUILD — the figures that the project reports, from whole processes on this machine.

Prints a table and, with --json, the raw numbers. Medians; every comparison is within one run.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/e2e"))
from harness import World, wait_until  # noqa: E402

SECONDS = 5
IDLE_SECONDS = 10


def process_figures(build, arguments, env, runs=50):
    done = subprocess.run([f"{build}/bin/whole_process", str(runs), *arguments], env=env,
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def memory(process):
    """Resident KiB: all of it, and what is not backed by the store's file."""
    lines = pathlib.Path(f"/proc/{process.child.pid}/status").read_text().splitlines()
    value = {l.split(":")[0]: int(l.split()[1]) for l in lines if l.startswith(("VmRSS", "RssAnon"))}
    return {"resident_kib": value["VmRSS"], "anonymous_kib": value["RssAnon"]}


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wake_ups(processes):
    """Of each idle process, in a second."""
    def switches(process):
        lines = pathlib.Path(f"/proc/{process.child.pid}/status").read_text().splitlines()
        return next(int(l.split()[1]) for l in lines if l.startswith("voluntary_ctxt_switches"))
    before = [switches(p) for p in processes]
    time.sleep(IDLE_SECONDS)
    return [(switches(p) - b) / IDLE_SECONDS for p, b in zip(processes, before)]


def counters(path):
    return struct.unpack("QQ", path.read_bytes()[:16])


def metric(text, name):
    return next(float(l.rsplit(" ", 1)[1]) for l in text.splitlines() if l.startswith(name + " "))


def broker_figures(build, durability, pairs):
    """Throughput with CPU, flushes and allocations a message, counted by a preloaded shim."""
    with World(build, durability) as world:
        count_file = world.root / "counts"
        shim = pathlib.Path(build).resolve() / "bin/count_shim.so"
        os.environ["LD_PRELOAD"], os.environ["CM_COUNT_FILE"] = str(shim), str(count_file)
        try:
            # A figure of the broker, not of the rate that a mesh allows its members.
            broker = world.start_broker(limits=["rate_per_minute=0"])
        finally:
            del os.environ["LD_PRELOAD"], os.environ["CM_COUNT_FILE"]
        before, cpu = counters(count_file), cpu_seconds(broker.child.pid)
        done = subprocess.run([f"{build}/bin/broker_load", world.url, str(world.data / "admin-token"),
                               f"pairs={pairs}", f"seconds={SECONDS}"], capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        after, cpu_after = counters(count_file), cpu_seconds(broker.child.pid)
        load = json.loads(done.stdout)
        messages = max(1, load["delivered"])
        return {"per_second": load["per_second"],
                "cpu_us": round((cpu_after - cpu) * 1e6 / messages, 2),
                "allocations": round((after[0] - before[0]) / messages, 3),
                # each commit: one fdatasync of the data and one O_DSYNC write of the meta page
                "flushes": round((after[1] - before[1]) * 2 / messages, 4),
                "loaded": memory(broker)}


def daemon_figures(build):
    with World(build) as world:
        broker = world.start_broker()
        alice, bob = world.mesh_of_two()
        wait_until(lambda: len(alice.call("GET", "/v1/peers")[1]["peers"]) == 2, "peers listed")
        binary = str(world.binary)
        figures = {
            "version": process_figures(build, [binary, "version"], alice.env),
            "send": process_figures(build, [binary, "send", "bob", "hello", "-q"],
                                    alice.env),
            "idle_daemon": memory(alice.daemon),
            "idle_broker": memory(broker),
        }
        # Nothing that is written for Node.js, as the reference is, costs less than an empty program.
        if node := shutil.which("node"):
            figures["empty_node"] = process_figures(build, [node, "-e", ""], alice.env, runs=20)
        for name, rate in zip(("idle_daemon", "idle_broker"), wake_ups([alice.daemon, broker])):
            figures[name]["wake_ups"] = rate
        key = json.loads(bob.run("list", "--json").stdout)["meshes"][0]["pubkey"]
        done = subprocess.run([f"{build}/bin/send_latency", str(alice.socket), key,
                               str(world.root / "sync-file"), "1000"], capture_output=True,
                              text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        figures["latency"] = json.loads(done.stdout)
        return figures


def main():
    options = argparse.ArgumentParser()
    options.add_argument("build")
    options.add_argument("--json", action="store_true")
    options.add_argument("--pairs", type=int, default=10)
    chosen = options.parse_args()
    build = str(pathlib.Path(chosen.build).resolve())
    figures = daemon_figures(build)
    for durability in ("sync", "relaxed"):
        figures[durability] = broker_figures(build, durability, chosen.pairs)
    if chosen.json:
        print(json.dumps(figures, indent=1))
        return
    print(f"machine: {os.cpu_count()} cores, {platform.release()}")
    for name in ("version", "send"):
        f = figures[name]
        print(f"claudemesh {name:<8} {f['wall_ms']:7.2f} ms whole process, {f['cpu_ms']:.2f} ms CPU, "
              f"{f['peak_kib'] / 1024:.1f} MiB peak")
    if bound := figures.get("empty_node"):
        send = figures["send"]
        print(f"empty node program  {bound['wall_ms']:7.2f} ms, {bound['peak_kib'] / 1024:.1f} MiB: "
              f"{bound['wall_ms'] / send['wall_ms']:.0f} x our send in time, "
              f"{bound['peak_kib'] / send['peak_kib']:.0f} x in memory")
    latency = figures["latency"]
    for name in ("send_us", "fdatasync_us"):
        print(f"{name:<19} {json.dumps(latency[name])}")
    for name in ("idle_daemon", "idle_broker"):
        f = figures[name]
        print(f"{name:<19} {f['resident_kib'] / 1024:.1f} MiB resident, "
              f"{f['anonymous_kib'] / 1024:.1f} MiB of it anonymous, "
              f"{f['wake_ups']:.1f} wake-ups a second")
    for durability in ("sync", "relaxed"):
        f = figures[durability]
        print(f"broker {durability:<8} {f['per_second']:9.0f} msg/s at {chosen.pairs} pairs, "
              f"{f['cpu_us']:.1f} us CPU, {f['flushes']:.4f} flushes, "
              f"{f['allocations']:.3f} heap allocations a message; "
              f"{f['loaded']['anonymous_kib'] / 1024:.0f} MiB anonymous after it")


if __name__ == "__main__":
    main()
