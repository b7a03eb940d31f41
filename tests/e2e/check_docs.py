#!/usr/bin/env python3
"""check_docs.py BUILD — runs every command that the README shows, in order, in a private home.

The port 7900 becomes a free one. `make demo` and `make test` are what CI itself runs.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUN_BY_CI = {"make demo", "make test"}


def commands():
    """The lines of every sh block of the README."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    lines = [line for block in blocks for line in block.split("\n")]
    return [l for l in lines if l.strip() and l.split("#")[0].strip() not in RUN_BY_CI]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def script(lines, build):
    port = free_port()
    numbered = []
    for line in lines:
        line = line.replace("7900", port).replace("$PWD/build/release", str(build))
        shown = line.replace("'", "'\\''")
        numbered.append(f"echo '$ {shown}'\n{line}\n"
                        f"[ $? -eq 0 ] || {{ echo 'README: failed: {shown}'; exit 1; }}")
    # Job control gives `kill %1` its meaning; the trap leaves nothing behind.
    return "set -m\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n" + "\n".join(numbered) + "\n"


def stop_leftovers(home, env, build):
    for each in (home, home / "bob"):
        subprocess.run([str(build / "bin/claudemesh"), "daemon", "down", "-q"],
                       env={**env, "HOME": str(each)}, capture_output=True, timeout=30, check=False)


def main(build):
    build = pathlib.Path(build).resolve()
    home = pathlib.Path(tempfile.mkdtemp(prefix="cm-docs-"))
    env = {k: v for k, v in os.environ.items() if not k.startswith("CLAUDEMESH_")}
    # One data directory for the broker and for who asks it for its token, as on one machine.
    env.update(HOME=str(home), CLAUDEMESH_BROKER_DATA=str(home / "broker"),
               CLAUDEMESH_PLUGIN_TRUST_STICKY="1")
    try:
        done = subprocess.run(["bash", "-c", script(commands(), build)], env=env, cwd=home,
                              timeout=120, capture_output=True, text=True, check=False)
    finally:
        stop_leftovers(home, env, build)
        shutil.rmtree(home, ignore_errors=True)
    if done.returncode != 0 or "hello bob" not in done.stdout or "hello alice" not in done.stdout:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        print("check-docs: the README does not do what it says", file=sys.stderr)
        return 1
    print(f"check-docs: {len(commands())} commands of the README ran")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
