"""suite.py — what every part of the conformance suite shares: results, foreign processes.

EXPECTED_FAILURES is the one list of cases that our product fails today, each with its reason. A
listed case that passes is a failure, too: the list shrinks with the defects.
"""

import json
import os
import pathlib
import queue
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "e2e"))

from harness import DEADLINE_S, Failed, World, wait_until  # noqa: E402

# "part: case" -> why it fails today.
EXPECTED_FAILURES = {}

NODE_HOME = ROOT / "build" / "conformance"
__all__ = ["DEADLINE_S", "Failed", "HERE", "NODE_HOME", "Node", "Part", "Peer", "ROOT", "World",
           "node", "wait_until"]


class Part:
    """The cases of one part; check() records, finish() prints the one line."""

    def __init__(self, name, build, long_run=False):
        self.name, self.build, self.long_run = name, pathlib.Path(build).resolve(), long_run
        self.passed, self.failed, self.expected, self.decided = 0, [], [], []
        self.skipped = []

    def check(self, case, good, detail=""):
        """One case; answers whether it held."""
        title = f"{self.name}: {case}"
        reason = EXPECTED_FAILURES.get(title)
        if good and reason is None:
            self.passed += 1
        elif good:
            self.failed.append(title)
            print(f"  FAILED {title}: passes now, take it off EXPECTED_FAILURES", flush=True)
        elif reason is not None:
            self.expected.append(f"{title}: {reason}")
        else:
            self.failed.append(f"{title}: {detail}" if detail else title)
            print(f"  FAILED {self.failed[-1]}", flush=True)
        return bool(good)

    def equal(self, case, seen, wanted):
        return self.check(case, seen == wanted, f"saw {seen!r}, expected {wanted!r}")

    def attempt(self, case, work):
        """A case that holds unless it raises; its value, or None."""
        try:
            value = work()
        except (Failed, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            self.check(case, False, f"{type(error).__name__}: {error}")
            return None
        self.check(case, True)
        return value if value is not None else True

    def decide(self, case, reason):
        """A case whose verdict is ours and documented."""
        self.decided.append(f"{self.name}: {case}: {reason}")

    def skip(self, case, reason):
        self.skipped.append(f"{self.name}: {case}")
        print(f"  skipped {self.name}: {case}: {reason}")

    def finish(self):
        for line in self.expected:
            print(f"  expected failure {line}")
        cases = self.passed + len(self.failed) + len(self.expected) + len(self.decided)
        text = (f"{self.name}: {cases} cases, {self.passed} passed, "
                f"{len(self.decided)} decided exceptions")
        for count, word in ((len(self.expected), "expected to fail"),
                            (len(self.skipped), "skipped"), (len(self.failed), "FAILED")):
            text += f", {count} {word}" if count else ""
        print(text, flush=True)
        return not self.failed

    def probe(self, program):
        """The path of one of the suite's C++ programs."""
        return str(self.build / "bin" / program)


class Peer:
    """A foreign process that takes commands on its standard input (rpc.mjs)."""

    def __init__(self, name, command):
        self.script, self.serial, self.lines = name, 0, queue.Queue()
        self.errors = open(NODE_HOME / f"{name}.{os.getpid()}.log", "w+", encoding="utf-8")
        self.child = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=self.errors, text=True)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.child.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def call(self, op, **arguments):
        self.serial += 1
        self.child.stdin.write(json.dumps({"n": self.serial, "op": op, **arguments}) + "\n")
        self.child.stdin.flush()
        while True:
            try:
                line = self.lines.get(timeout=DEADLINE_S)
            except queue.Empty:
                raise Failed(f"{self.script}: no answer to {op}") from None
            if line is None:
                self.errors.seek(0)
                raise Failed(f"{self.script} ended: {self.errors.read()[-2000:]}")
            answer = json.loads(line)
            if answer["n"] != self.serial:
                continue  # of a call that was given up
            if "error" in answer:
                raise Failed(f"{self.script} {op}: {answer['error']}")
            return answer["result"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()
        self.errors.close()
        pathlib.Path(self.errors.name).unlink(missing_ok=True)


class Node(Peer):
    """A JavaScript peer."""

    def __init__(self, script, *arguments):
        super().__init__(script, ["node", NODE_HOME / script, *arguments])


def node(script, *arguments, timeout=600):
    """A script that prints one JSON object a line and ends; the objects."""
    done = subprocess.run(["node", str(NODE_HOME / script), *map(str, arguments)],
                          capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise Failed(f"{script} ended with {done.returncode}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]
