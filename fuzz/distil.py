#!/usr/bin/env python3
"""distil.py — seeds that add edges, from corpora: fuzz/distil.py <target> <corpus folder>...

Merges the corpora behind the seeds that fuzz/seeds/<target> has, and copies the inputs that add
most edges there as cov-<hash>: so many that it holds 60 files, none over 4,096 bytes. Earlier
cov- files are judged anew. Needs fuzz_<target> to be built (CM_FUZZ_BUILD names another folder).
"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
FILES_MOST = 60
ADDED_LEAST = 16  # however many there are by hand
BYTES_MOST = 4096


def new_edges(control):
    """The files of a merge's control file, each with the edges that none before it has."""
    lines = control.read_text(encoding="utf-8").split("\n")
    count = int(lines[0])
    names = lines[2:2 + count]
    found = {}
    for line in lines[2 + count:]:
        words = line.split()
        if words and words[0] == "COV":
            found[names[int(words[1])]] = len(words) - 2
    return found


def distil(target, corpora):
    build = pathlib.Path(os.environ.get("CM_FUZZ_BUILD", HERE.parent / "build" / "fuzz"))
    seeds = HERE / "seeds" / target
    with tempfile.TemporaryDirectory(prefix="cm-distil-") as folder:
        work = pathlib.Path(folder)
        named, others = work / "named", work / "others"
        named.mkdir()
        others.mkdir()
        for path in seeds.iterdir():
            shutil.copy(path, others if path.name.startswith("cov-") else named)
        for corpus in corpora:
            for path in pathlib.Path(corpus).iterdir():
                if path.is_file() and path.stat().st_size <= BYTES_MOST:
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()
                    shutil.copy(path, others / f"cov-{digest[:12]}")
        own = {path.name for path in named.iterdir()}
        subprocess.run([build / "bin" / f"fuzz_{target}", "-merge=1", "-timeout=60",
                        f"-merge_control_file={work / 'control'}", named, others],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        adds = sorted(((edges, name) for name, edges in new_edges(work / "control").items()
                       if edges > 0 and pathlib.Path(name).parent == others), reverse=True)
        chosen = adds[:max(ADDED_LEAST, FILES_MOST - len(own))]
        for path in seeds.glob("cov-*"):
            path.unlink()
        for _, name in chosen:
            shutil.copy(name, seeds / pathlib.Path(name).name)
        print(f"{target}: {len(own)} seeds, {len(chosen)} more add "
              f"{sum(edges for edges, _ in chosen)} of {sum(edges for edges, _ in adds)} edges")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: fuzz/distil.py <target> <corpus folder>...")
    distil(sys.argv[1], sys.argv[2:])
