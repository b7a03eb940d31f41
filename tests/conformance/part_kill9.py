"""part_kill9.py — rounds of SIGKILL against broker and daemons: 1,000, or 50 in the quick run.

The rounds and what is asked of them: tests/e2e/test_kill9.py.
"""

import test_kill9


def run(part):
    rounds = 50 if part.quick else 1000
    figures = part.attempt(f"{rounds} rounds of kill -9: nothing lost, nothing twice, in order",
                           lambda: test_kill9.run(part.build, rounds))
    if figures is not None:
        print(f"  kill9: {figures}", flush=True)
