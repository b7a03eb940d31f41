#!/usr/bin/env python3
"""run.py BUILD [--quick] [--long] [part...] — proof against others: foreign implementations.

Each part prints one line (cases, passed, decided exceptions); the exit status is 1 if any failed.
The packages of package-lock.json are installed once into build/conformance. --quick (what `make
test` runs) leaves out what needs minutes and ends with 77 when node or another tool is missing,
unless CM_NO_SKIP is set, as in CI.
"""

import fcntl
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import traceback

from suite import HERE, NODE_HOME, Failed, Part

TOOLS = ["node", "npm", "curl", "promtool", "libwebsockets-test-client"]
PARTS = ["clients", "cli", "brokers", "websocket", "json", "jcs", "crypto", "http", "hostile",
         "kill9"]


def install():
    """`npm ci` when the lock file changed, and the peers beside their packages."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise Failed(f"{', '.join(missing)} missing: run 'sh tests/deps.sh conf'")
    NODE_HOME.mkdir(parents=True, exist_ok=True)
    with open(NODE_HOME / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, wanted = NODE_HOME / ".installed", (HERE / "package-lock.json").read_bytes()
        if not stamp.exists() or stamp.read_bytes() != wanted:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, NODE_HOME)
            done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                                  cwd=NODE_HOME, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Failed(f"npm ci: {done.stderr[-1500:]}")
            stamp.write_bytes(wanted)
        for peer in HERE.glob("*.mjs"):
            shutil.copy(peer, NODE_HOME)


def main():
    flags = {a for a in sys.argv[1:] if a.startswith("--")}
    names = [a for a in sys.argv[1:] if not a.startswith("--")]
    if not names:
        sys.exit(__doc__)
    build = pathlib.Path(names.pop(0))
    unknown = set(names) - set(PARTS)
    if unknown:
        sys.exit(f"unknown parts: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    try:
        install()
    except (Failed, OSError) as error:
        print(f"conformance: {error}", file=sys.stderr)
        may_skip = "--quick" in flags and not os.environ.get("CM_NO_SKIP")
        sys.exit(77 if may_skip else 1)
    good = True
    for name in names or PARTS:
        part = Part(name, build, "--long" in flags)
        part.quick = "--quick" in flags
        try:
            importlib.import_module(f"part_{name}").run(part)
        except Exception:  # a part that breaks off has failed; the others still run
            part.check("runs to its end", False, traceback.format_exc())
        good = part.finish() and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
