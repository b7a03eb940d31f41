#!/usr/bin/env python3
"""all.py — fuzzes every target in turn, at nice 19, and prints one table: fuzz/all.py <seconds>

The canary comes first: a fuzzer that does not find it would not find a real crash either. Nothing
is written into the tree but the build folder; corpora go to a temporary folder, which is kept, and
named, only if something crashed. Exit status 1: a crash, or no canary.
"""
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROW = "{:<10} {:>8} {:>12} {:>9} {:>7} {:>7} {:>8}"
LINE = re.compile(r"(\S+) execs, (\S+) a second, (\d+) edges, (\d+) in the corpus, (\d+) crashes")


def targets():
    text = (HERE / "registry.h").read_text(encoding="utf-8")
    return re.findall(r"^  X\(([a-z_]+), [a-z_]+, \d+\)", text, re.MULTILINE)


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def build(names):
    folder = pathlib.Path(os.environ.get("CM_FUZZ_BUILD", HERE.parent / "build" / "fuzz"))
    if not (folder / "build.ninja").exists():
        subprocess.run(["make", "configure", "PRESET=fuzz"], cwd=HERE.parent,
                       stdout=subprocess.DEVNULL, check=True)
    goals = [f"fuzz_{name}" for name in [*names, "canary"]]
    subprocess.run(["cmake", "--build", folder, "--target", *goals],
                   stdout=subprocess.DEVNULL, check=True)


def run(name, seconds):
    """Fuzzes one target; its row of the table, and whether it ended well."""
    before = cpu_seconds()
    done = subprocess.run(["sh", HERE / "run.sh", name, seconds], stdout=subprocess.PIPE,
                          text=True, check=False)
    used = cpu_seconds() - before
    found = LINE.search(done.stdout)
    execs, rate, edges, corpus, crashes = found.groups() if found else ("?", "?", 0, 0, "?")
    print(ROW.format(name, f"{used:.0f}", execs, rate, edges, corpus, crashes), flush=True)
    return done.returncode == 0


def main():
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit("usage: fuzz/all.py <seconds for each target>")
    os.nice(19)
    names = targets()
    build(names)
    work = tempfile.mkdtemp(prefix="cm-fuzz-all-")
    os.environ["CM_FUZZ_WORK"] = work
    if subprocess.run(["sh", HERE / "check_canary.sh"], check=False).returncode != 0:
        sys.exit(1)
    print(ROW.format("target", "CPU s", "execs", "execs/s", "edges", "corpus", "crashes"))
    bad = [name for name in names if not run(name, sys.argv[1])]
    if bad:
        sys.exit(f"failed: {', '.join(bad)}; inputs and logs are in {work}")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
