#!/usr/bin/env python3
"""coverage.py BUILD — what unit tests, simulator, end-to-end tests and conformance reach.

BUILD is the preset `coverage`. Prints lines and branches of core/ and store/ by folder, the errors
of core/base/errors.h that nobody was ever told of, and writes the pages to BUILD/report. Processes
that are killed with SIGKILL do not count: what only they reach is not in the figures.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUITES = "unit|sim_seeds|sim_1000|e2e|conformance|fuzz_replay"
# Errors that only a fault of the machine makes; each with its test in another build.
BY_FAULT = {"ok", "internal"}


def run_suites(build, told):
    for counts in build.rglob("*.gcda"):
        counts.unlink()
    told.unlink(missing_ok=True)
    env = {**os.environ, "CM_ERRORS_TOLD": str(told), "GCOV_EXIT_AT_ERROR": "0"}
    done = subprocess.run(["ctest", "-R", SUITES, "--timeout", "1800"], cwd=build, env=env,
                          check=False)
    return done.returncode


def errors_of_the_table():
    text = (ROOT / "core/base/errors.h").read_text()
    return re.findall(r'^  X\(\w+, "([\w]+)"', text, re.MULTILINE)


def report_errors(told):
    reached = set(told.read_text().split()) if told.exists() else set()
    missing = [code for code in errors_of_the_table()
               if code not in reached and code not in BY_FAULT]
    print(f"errors: {len(reached)} of {len(errors_of_the_table())} told"
          + (f"; never: {', '.join(missing)}" if missing else ""))
    return missing


def report_lines(build):
    report = build / "report"
    report.mkdir(exist_ok=True)
    summary = report / "summary.json"
    subprocess.run(["gcovr", "--root", str(ROOT), "--object-directory", str(build),
                    "--filter", "core/", "--filter", "store/", "--exclude-throw-branches",
                    "--exclude-unreachable-branches", "--gcov-ignore-parse-errors",
                    "--json-summary", str(summary),
                    "--html-details", str(report / "index.html"), str(build)],
                   cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    folders = {}
    for entry in json.loads(summary.read_text())["files"]:
        parts = entry["filename"].split("/")
        folder = "/".join(parts[:2]) if parts[0] == "core" else parts[0]
        sums = folders.setdefault(folder, [0, 0, 0, 0])
        for at, key in enumerate(("line_covered", "line_total", "branch_covered",
                                  "branch_total")):
            sums[at] += entry[key]
    print(f"{'folder':<16}{'lines':>16}{'branches':>18}")
    for folder, (lines, all_lines, branches, all_branches) in sorted(folders.items()):
        print(f"{folder:<16}{lines:>7}/{all_lines:<6}{100 * lines / max(1, all_lines):3.0f} %"
              f"{branches:>8}/{all_branches:<6}{100 * branches / max(1, all_branches):3.0f} %")


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    told = build / "errors_told.txt"
    failed = run_suites(build, told)
    report_lines(build)
    missing = report_errors(told)
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
