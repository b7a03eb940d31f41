#!/usr/bin/env python3
"""coverage.py BUILD [--only SUITE] [--again] — what the tests reach: lines, branches, errors, cells.

BUILD is the preset `coverage`. Runs each suite, then prints lines and branches by folder, the files
with the most lines that nothing reached, the rows of core/base/errors.h that nobody was ever told
of, and the cells of docs/OUTBOX.md that nothing drove. Pages are in BUILD/report. --only runs one
suite, and judges what that one reached; --again judges the last run anew.

Lines are counted when a process ends: what only a process reached that was killed with SIGKILL, or
that ended in a CHECK, is not in them. Errors and cells are written down at once (core/base/reached.h)
and count in killed processes as well. Fails if a test failed, or an error or a cell is missing.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# name -> the tests of ctest that it is. The first three are what the delivery contract is proved by.
SUITES = {
    "unit": "^unit$",
    "simulator": "^(sim_seeds|sim_repeat)$",
    "conformance": "^conformance$",
    "end to end": "^e2e_",
    "faults": "^(crash_images|bit_rot|nth_failure|nth_binary)$",
    "fuzz seeds": "^fuzz_replay$",
}
# Beside what ctest replays. Unoptimised and counted, the simulator takes seven times as long, so
# that these are fewer than the 1,000 of `make test`.
SIM_SEEDS = "1-300"
# Rows of the table that nobody is told of by name, and why that is right.
UNTOLD = {
    "ok": "is no error",
    "undecryptable": "is answered by crypto::BoxCache within the daemon, which keeps such a message "
                     "as it came; crypto_box_test.cc asserts it",
}
FILES_SHOWN = 12


class Build:
    def __init__(self, directory):
        self.directory = directory
        self.notes = directory / "reached"
        self.report = directory / "report"

    def note(self, suite):
        return self.notes / suite.replace(" ", "_")

    def forget(self):
        for counts in self.directory.rglob("*.gcda"):
            counts.unlink()
        self.notes.mkdir(exist_ok=True)
        for note in self.notes.iterdir():
            note.unlink()

    def run(self, suite):
        """Whether each of its tests passed."""
        begin = time.monotonic()
        env = {**os.environ, "CM_REACHED": str(self.note(suite))}
        done = subprocess.run(["ctest", "-R", SUITES[suite], "--timeout", "3600",
                               "--output-on-failure", "--no-tests=error"], cwd=self.directory,
                              env=env, check=False, capture_output=True, text=True)
        failed = re.findall(r"^\s*\d+/\d+ Test +#\d+: (\S+) .*\*\*\*(.*?) +[\d.]+ sec", done.stdout,
                            re.MULTILINE)
        tests = re.search(r"tests passed, \d+ tests failed out of (\d+)", done.stdout)
        print(f"{suite}: {tests[1] if tests else 0} tests, {time.monotonic() - begin:.0f} s"
              + "".join(f"; {name}: {why}" for name, why in failed), flush=True)
        full = self.directory / "Testing/Temporary/LastTest.log"
        shutil.copy(full, self.note(suite).with_suffix(".log"))
        if done.returncode != 0:
            print(done.stdout[-6000:] + done.stderr[-2000:], flush=True)
        return done.returncode == 0

    def simulate(self):
        """Seeds of the simulator, into the notes of its suite."""
        begin = time.monotonic()
        env = {**os.environ, "CM_REACHED": str(self.note("simulator"))}
        done = subprocess.run([str(self.directory / "bin/sim"), "--seeds", SIM_SEEDS], env=env,
                              cwd=self.directory, check=False, capture_output=True, text=True)
        self.note("simulator").with_suffix(".log").write_text(done.stdout + done.stderr)
        print(f"simulator: seeds {SIM_SEEDS}, {time.monotonic() - begin:.0f} s", flush=True)
        if done.returncode != 0:
            print(done.stdout[-6000:] + done.stderr[-2000:], flush=True)
        return done.returncode == 0

    def reached(self, suite, kind):
        """The pairs of words that were noted after this kind."""
        note = self.note(suite)
        if not note.exists():
            return set()
        lines = (line.split() for line in note.read_text().splitlines())
        return {(words[1], words[2]) for words in lines if words[0] == kind}


def errors_of_the_table():
    text = (ROOT / "core/base/errors.h").read_text()
    return re.findall(r'^  X\(\w+, "(\w+)"', text, re.MULTILINE)


def cells_of_the_page():
    """(state, event) of each cell of docs/OUTBOX.md; then those that are not impossible."""
    rows = [[word.strip() for word in line.split("|")[1:-1]]
            for line in (ROOT / "docs/OUTBOX.md").read_text().splitlines() if line.startswith("|")]
    states, cells = rows[0][1:], {}
    for event, *texts in rows[2:]:
        cells.update({(state, event.strip("`")): text for state, text in zip(states, texts)})
    return set(cells), {cell for cell, text in cells.items() if not text.startswith("*impossible")}


def share(part, whole):
    return f"{part:>7}/{whole:<6}{100 * part / max(1, whole):5.1f} %"


def report_lines(build):
    build.report.mkdir(exist_ok=True)
    summary = build.report / "summary.json"
    # It names files that are gone since their build on stderr, which is shown when it fails.
    command = ["gcovr", "--root", str(ROOT), "--object-directory", str(build.directory),
               "--filter", "core/", "--filter", "store/", "--exclude-throw-branches",
               "--exclude-unreachable-branches", "-j", str(os.cpu_count()),
               "--json-summary", str(summary),
               "--html-details", str(build.report / "index.html"), str(build.directory)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stdout[-2000:] + done.stderr[-4000:])
    folders, files = {}, json.loads(summary.read_text())["files"]
    for entry in files:
        parts = entry["filename"].split("/")
        folder = "/".join(parts[:2]) if parts[0] == "core" else parts[0]
        for name in (folder, "all"):
            sums = folders.setdefault(name, [0, 0, 0, 0])
            for at, key in enumerate(("line_covered", "line_total", "branch_covered",
                                      "branch_total")):
                sums[at] += entry[key]
    print(f"\n{'folder':<16}{'lines':^22}{'branches':^22}")
    for folder, sums in sorted(folders.items(), key=lambda row: (row[0] == "all", row[0])):
        print(f"{folder:<16}{share(*sums[:2])}  {share(*sums[2:])}")
    files.sort(key=lambda entry: entry["line_covered"] - entry["line_total"])
    print("most lines never reached: " + ", ".join(
        f"{entry['filename']} {entry['line_total'] - entry['line_covered']}"
        for entry in files[:FILES_SHOWN]))


def report_errors(build):
    """The rows that are missing, or told although UNTOLD says otherwise."""
    table = errors_of_the_table()
    told = {suite: {code for code, _ in build.reached(suite, "error")} for suite in SUITES}
    everywhere = set().union(*told.values())
    print("errors told: " + ", ".join(f"{suite} {len(codes)}" for suite, codes in told.items())
          + f"; together {len(everywhere)} of {len(table)}")
    for code in table:
        if code in UNTOLD and code not in everywhere:
            print(f"  untold, rightly: {code} {UNTOLD[code]}")
    missing = [code for code in table if code not in everywhere and code not in UNTOLD]
    if missing:
        print(f"  never told: {', '.join(missing)}")
    wrong = [code for code in UNTOLD if code in everywhere]
    if wrong:
        print(f"  told, although UNTOLD of tests/coverage.py says otherwise: {', '.join(wrong)}")
    return missing + wrong


def report_cells(build):
    page, reachable = cells_of_the_page()
    driven = {suite: build.reached(suite, "outbox") & page for suite in SUITES}
    everywhere = set().union(*driven.values())
    print("cells of an outbox row: " + ", ".join(f"{suite} {len(cells & reachable)}"
                                                 for suite, cells in driven.items())
          + f"; together {len(everywhere & reachable)} of {len(reachable)} that can be "
          f"(of {len(page)})")
    missing = sorted(reachable - everywhere)
    if missing:
        print("  never driven: " + ", ".join(" x ".join(cell) for cell in missing))
    log = build.notes / "simulator.log"
    # The simulator counts its own cells: of rows, deliveries and links.
    for line in re.findall(r"^\s*(cells of .*)$", log.read_text() if log.exists() else "",
                           re.MULTILINE):
        print(f"  simulator, seeds {SIM_SEEDS}: {line}")
    return missing


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--only", choices=list(SUITES))
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    build = Build(options.build.resolve())
    begin, passed = time.monotonic(), True
    if not options.again:
        build.forget()
        for suite in [options.only] if options.only else SUITES:
            passed = build.run(suite) and passed
            if suite == "simulator":
                passed = build.simulate() and passed
    report_lines(build)
    missing = report_errors(build) + report_cells(build)
    print(f"{time.monotonic() - begin:.0f} s; pages: {build.report / 'index.html'}")
    return 0 if passed and not missing else 1


if __name__ == "__main__":
    sys.exit(main())
