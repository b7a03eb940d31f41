#!/usr/bin/env python3
"""run.py BUILD [--check] [--only NAME] [--seeds A-B] — breaks one rule at a time; a test must notice.

Copies the tree that git knows into BUILD/mutants/src, builds it once, sees its tests pass, then for
each row of rules.py replaces one piece of text, builds, and runs the unit tests and, if those are
content, the simulator. Prints which test killed the mutant. A survivor is a rule without a test.

--check only sees that each piece of text is there, once: what `make test` has time for.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import time

from rules import RULES

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD_S, UNIT_S, SIM_S = 1800, 300, 600
SKIPPED = 77


def check(root):
    """Every rule's text occurs exactly once, and its replacement is another text."""
    wrong = []
    for rule in RULES:
        text = (root / rule.file).read_text()
        if text.count(rule.old) != 1 or rule.old == rule.new:
            wrong.append(f"{rule.name}: {rule.file} has its text {text.count(rule.old)} times")
    if len({rule.name for rule in RULES}) != len(RULES):
        wrong.append("two rules have one name")
    return wrong


def copy_tree(to):
    """What git knows, and what is new and not ignored; times are kept, so that builds are short."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT,
                            capture_output=True, check=True).stdout.split(b"\0")
    known = {name.decode() for name in listed if name}
    for name in known:
        source, target = ROOT / name, to / name
        if not source.is_file():
            continue
        if target.exists() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    for target in list(to.rglob("*")):
        if target.is_file() and str(target.relative_to(to)) not in known:
            target.unlink()


class Bench:
    """The copy, its build, and the two programs that judge."""

    def __init__(self, build, seeds):
        self.src, self.build, self.seeds = build / "mutants/src", build / "mutants/build", seeds
        self.src.mkdir(parents=True, exist_ok=True)
        copy_tree(self.src)
        if not (self.build / "build.ninja").exists():
            subprocess.run(["cmake", "-S", self.src, "-B", self.build, "-G", "Ninja",
                            "-DCMAKE_BUILD_TYPE=RelWithDebInfo", "--log-level=WARNING"],
                           check=True)

    def compile(self):
        """None, or the first error: a mutant that does not build proves nothing."""
        done = subprocess.run(["cmake", "--build", self.build, "--target", "unit_tests", "sim"],
                              capture_output=True, text=True, timeout=BUILD_S)
        if done.returncode == 0:
            return None
        errors = [line for line in done.stdout.splitlines() if " error: " in line]
        return errors[0] if errors else done.stdout[-300:]

    def killer(self):
        """The test that fails, or None."""
        unit = self.run_program(["bin/unit_tests", "--gtest_fail_fast=1", "--gtest_brief=0"],
                                UNIT_S)
        if unit is not None:
            failed = re.findall(r"\[  FAILED  \] ([\w./]+)", unit)
            begun = re.findall(r"\[ RUN      \] ([\w./]+)", unit)
            return f"unit {(failed or begun or ['?'])[-1 if not failed else 0]}"
        sim = self.run_program(["bin/sim", "--seeds", self.seeds], SIM_S)
        if sim is None:
            return None
        seed = re.search(r"seed (\d+)", sim)
        return f"sim seed {seed.group(1) if seed else '?'}"

    def end_to_end(self, scripts):
        """The script that fails, or None; the whole program is built for it."""
        subprocess.run(["cmake", "--build", self.build], capture_output=True, check=True,
                       timeout=BUILD_S)
        for script in scripts:
            done = subprocess.run([sys.executable, self.src / "tests/e2e" / script, self.build],
                                  capture_output=True, text=True, timeout=SIM_S, check=False)
            if done.returncode not in (0, SKIPPED):
                return f"e2e {script}"
        return None

    def run_program(self, command, limit):
        """None when it ended well, else what it printed."""
        try:
            done = subprocess.run([self.build / command[0], *command[1:]], capture_output=True,
                                  text=True, errors="replace", timeout=limit)
        except subprocess.TimeoutExpired as late:
            return f"{late.stdout}: not within {limit} s"
        return None if done.returncode == 0 else done.stdout + done.stderr

    def with_rule(self, rule):
        path = self.src / rule.file
        original = path.read_text()
        try:
            path.write_text(original.replace(rule.old, rule.new))
            broken = self.compile()
            if broken:
                return "does not build: " + broken, False
            killer = self.killer()
            if killer is None and rule.also:
                killer = self.end_to_end(rule.also)
            return killer, True
        finally:
            path.write_text(original)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--seeds", default="1-200")
    options = parser.parse_args()
    wrong = check(ROOT)
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    if options.check:
        print(f"mutants: {len(RULES)} rules, each at its place")
        return 0
    bench = Bench(options.build.resolve(), options.seeds)
    broken = bench.compile()
    if broken or bench.killer():
        print(f"the tree itself fails: {broken or bench.killer()}", file=sys.stderr)
        return 1
    chosen = [rule for rule in RULES if not options.only or rule.name in options.only]
    killed = 0
    for rule in chosen:
        begin = time.monotonic()
        killer, is_built = bench.with_rule(rule)
        is_dead = is_built and killer is not None
        killed += is_dead
        verdict = killer if killer else "SURVIVED"
        print(f"{rule.name:<44} {verdict}  ({time.monotonic() - begin:.0f} s)", flush=True)
    print(f"mutants: {killed} of {len(chosen)} killed")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
