#!/usr/bin/env python3
"""tidy.py — the rules of this tree that a compiler does not know.

Include arrows between folders, the form of file heads, banned calls, line length, leftovers, that
every error and metric is complete, and that docs/METRICS.md knows every metric. Prints each violation as path:line: sentence.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# What each folder may include of ours (design: "dependencies point one way").
ARROWS = {
    "core/base": {"core/base"},
    "core/crypto": {"core/base", "core/crypto"},
    "core/wire": {"core/base", "core/crypto", "core/wire"},
    "core/net": {"core/base", "core/net"},
    "store": {"core/base", "core/crypto", "core/wire", "store"},
    "core/daemon": {"core/base", "core/crypto", "core/wire", "store", "core/daemon"},
    "core/broker": {"core/base", "core/crypto", "core/wire", "store", "core/broker"},
    "plugins/host": {"core/base", "core/net", "plugins/host", "plugins/include"},
    "plugins/loopback": {"plugins/include"},
    "transports": {"core/base", "core/net", "transports", "plugins/include"},
    "cli": {"core", "store", "plugins/host", "cli"},
}
# Parts of core/base and core/net that a plugin may not see.
PLUGIN_FORBIDDEN = {"core/base/log.h", "core/base/metrics.h", "core/base/limits.h",
                    "core/net/loop.h", "core/net/server.h", "core/net/http_client.h",
                    "core/net/listener.h"}
# Outside libraries and the only folders that may use them.
LIBRARIES = {
    r"lmdb\.h": ("store",),
    r"event2/": ("core/net", "plugins/host"),
    r"wslay/": ("core/net", "plugins/host", "transports"),
    r"openssl/(ssl|bio|err|pem|x509)": ("core/net", "transports"),
    r"CLI/": ("cli",),
    r"toml\+\+/": ("cli",),
}
# Calls that no source makes, and those that only shells make.
BANNED = [r"\bstrcpy\(", r"\bstrcat\(", r"\bsprintf\(", r"\bgets\(", r"(?<![\w.>:])system\(",
          r"\brand\(", r"\bsrand\(", r"\bstrtok\(", r"\balloca\(", r"std::shared_ptr",
          r"\bdynamic_cast\b"]
BANNED_IN_CORES = [r"\btime\(", r"clock_gettime", r"std::chrono::\w+_clock", r"\bgetpid\(",
                   r"\bgetenv\(", r"\bopen\(2", r"::read\(", r"::write\(", r"std::random_device",
                   r"randombytes", r"#include <(unistd|fcntl|sys/\w+|netinet/\w+)\.h>"]
CORES = ("core/daemon", "core/broker")
LABELS = re.compile(r"^(//| \*) (Owns|Holds|Why|Limits|Source|Not|Source): ", re.M)
LINE_MAX = 100


def sources():
    """Every tracked or new C and C++ file, but not ignored ones."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout.split("\n")
    return sorted(p for p in listed if p.endswith((".h", ".cc", ".c")) and (ROOT / p).exists())


def folder_of(path):
    return max((f for f in ARROWS if path.startswith(f + "/")), key=len, default=None)


def check_head(path, text, report):
    name = path.rsplit("/", 1)[-1]
    first = text.split("\n", 1)[0]
    if not re.match(r"^(//|/\*) " + re.escape(name) + r" — \S", first):
        report(path, 1, f"the first line must be '// {name} — what lives here.'")
    if path.endswith(".h") and not path.startswith(("tests/", "fuzz/", "bench/")):
        labels = {m.group(2) for m in LABELS.finditer(text.split("#pragma once")[0])}
        if len(labels) < 2 and "Not" not in labels:
            report(path, 1, "a header's head says what it owns or holds and what may not be here")


def check_includes(path, number, line, report):
    match = re.match(r'\s*#\s*include\s+["<]([^">]+)[">]', line)
    if not match:
        return
    target = match.group(1)
    for pattern, folders in LIBRARIES.items():
        if re.match(pattern, target) and not path.startswith(folders + ("tests/", "fuzz/", "bench/")):
            report(path, number, f"{target} belongs to {', '.join(folders)} alone")
    folder = folder_of(path)
    if folder is None or "/" not in target:
        return
    if not target.startswith(("core/", "store/", "cli/", "plugins/", "transports/", "tests/")):
        return
    allowed = ARROWS[folder]
    if not any(target.startswith(a + "/") for a in allowed):
        report(path, number, f"{folder} must not include {target}")
    if folder == "transports" and target in PLUGIN_FORBIDDEN:
        report(path, number, f"a transport must not see {target}")


FILE_NAME = re.compile(r"(?<![\w./<>*-])(?:docs/\w+\.md|\w[\w./-]*\.(?:cc|h|c|py|mjs))\b(?!\()")


def check_references(path, text, report):
    """A file that a comment names is there: in the comment's own folder or one above it."""
    here = pathlib.PurePosixPath(path).parent
    for number, line in enumerate(text.split("\n"), 1):
        comment = re.search(r"(?:^|\s)(?://|/?\*)\s(.*)", line)
        if not comment or "#include" in line:
            continue
        for name in FILE_NAME.findall(comment.group(1)):
            if not any((ROOT / folder / name).exists() for folder in (here, *here.parents)):
                report(path, number, f"names {name}, which is not there")


def check_pages(report):
    """So are the files that a page names between backticks, by the end of their path."""
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT,
                             capture_output=True, text=True, check=True).stdout.split("\n")
    tails = {"/" + path for path in tracked}
    for page in sorted(path for path in tracked if path.endswith(".md")):
        for number, line in enumerate((ROOT / page).read_text().split("\n"), 1):
            for name in re.findall(r"`([\w./-]+\.(?:cc|h|c|py|mjs|md))`", line):
                if not any(tail.endswith("/" + name) for tail in tails):
                    report(page, number, f"names {name}, which is not there")


def check_lines(path, text, report):
    bans = BANNED + (BANNED_IN_CORES if path.startswith(CORES) else [])
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > LINE_MAX:
            report(path, number, f"{len(line)} columns, at most {LINE_MAX}")
        if line.rstrip() != line:
            report(path, number, "white space at the end")
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            report(path, number, "leftovers belong into an issue")
        check_includes(path, number, line, report)
        code = re.sub(r'"(\\.|[^"\\])*"', '""', line.split("//")[0])
        for ban in bans:
            if re.search(ban, code):
                report(path, number, f"banned here: {ban}")


def rows_of(macro, text):
    """The argument lists of X(...) rows in a #define."""
    body = re.search(rf"#define {macro}\(X\)(.*?)\n\n", text, re.S).group(1).replace("\\\n", "\n")
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
    return re.findall(r"X\(((?:[^()\"]|\"(?:\\.|[^\"])*\")*)\)", body)


def check_tables(report):
    errors = (ROOT / "core/base/errors.h").read_text()
    wires = set()
    for row in rows_of("CM_ERRORS", errors):
        texts = re.findall(r'"((?:\\.|[^"])*)"', row)
        name = row.split(",")[0]
        if len(texts) < 3 or not texts[1] or not "".join(texts[2:]):
            report("core/base/errors.h", 1, f"{name} lacks a sentence or a remedy")
        if texts and texts[0] in wires:
            report("core/base/errors.h", 1, f"{name}: the wire code {texts[0]} is used twice")
        wires.update(texts[:1])
    metrics = (ROOT / "core/base/metrics.h").read_text()
    for row in rows_of("CM_METRICS", metrics):
        texts = re.findall(r'"((?:\\.|[^"])*)"', row)
        if len(texts) < 3 or not texts[-1]:
            report("core/base/metrics.h", 1, f"{row.split(',')[0]} lacks its help text")


def check_protocol(page, report):
    """Every section that the code cites is there; every frame and route is in docs/PROTOCOL.md."""
    where = "docs/PROTOCOL.md"
    sections = set(re.findall(r"^#+ ([\d.]+?)\.? ", page, re.M))
    for path in sources():
        head = re.sub(r"\n//\s*", " ", (ROOT / path).read_text()[:2000])
        for cited in re.findall(r"PROTOCOL\.md ((?:§[\d.]*\d(?:, )?)+)", head):
            for number in set(re.findall(r"§([\d.]*\d)", cited)) - sections:
                report(path, 1, f"cites {where} §{number}, which is not there")
    frames = re.findall(r'\{"(\w+)", &Broker::', (ROOT / "core/broker/broker.cc").read_text())
    for frame in frames:
        if not re.search(rf"\b{frame}\b", page):
            report(where, 1, f"the frame {frame} is not documented")
    table = r'\{"[A-Z]+", "(/[^"]*)", '
    for path in ("core/broker/http/http.cc", "core/daemon/gates.cc"):
        for route in re.findall(table, (ROOT / path).read_text()):
            # A parameter may have a name of its own here.
            form = re.sub(r":\w+", r":\\w+", route) + (r":\w+" if route.endswith("/") else r"\b")
            if not re.search(form, page):
                report(where, 1, f"the route {route} is not documented")


def metrics_of_code():
    """{name: (section, type, {label: values})}; those that their owners write have no values."""
    found = {}
    for row in rows_of("CM_METRICS", (ROOT / "core/base/metrics.h").read_text()):
        role, kind = (word.strip() for word in row.split(",")[1:3])
        name, labels = re.findall(r'"((?:\\.|[^"])*)"', row)[:2]
        section = "Both roles" if role == "Both" else role
        entry = found.setdefault(name, (section, kind.lower(), {}))
        for label, value in re.findall(r'(\w+)=\\"(\w+)', labels):
            entry[2].setdefault(label, []).append(value)
    for path in sources():
        if not path.startswith(("core/daemon/", "core/broker/", "cli/", "plugins/host/")):
            continue
        text = (ROOT / path).read_text()
        for match in re.finditer(r'"# HELP (\w+) |\b(?:family|counter)\(\s*"(\w+)"', text):
            section = "Broker" if path.startswith("core/broker/") else "Daemon"
            found.setdefault(match.group(1) or match.group(2), (section, None, None))
    return found


def metrics_of_page(text):
    """{name: (section, type, labels, unit, meaning)} of the tables of docs/METRICS.md."""
    found, section = {}, None
    for line in text.split("\n"):
        if line.startswith("## "):
            section = line[3:]
        match = re.match(r"\| `(\w+)` \|(.*)\|$", line)
        if match:
            found[match.group(1)] = (section, *(c.strip() for c in match.group(2).split("|")))
    return found


def check_metrics(code, page, report):
    where = "docs/METRICS.md"
    for name in sorted(code.keys() ^ page.keys()):
        report(where, 1, f"{name} is " + ("not documented" if name in code else "in no code"))
    for name in sorted(code.keys() & page.keys()):
        section, kind, labels = code[name]
        if len(page[name]) != 5 or not all(page[name]):
            report(where, 1, f"{name}: expected type, labels, unit and meaning")
            continue
        if page[name][0] != section:
            report(where, 1, f"{name} belongs below '## {section}'")
        if kind is None:
            continue
        wanted = ", ".join(f"`{k}`: {' '.join(v)}" for k, v in labels.items()) or "–"
        if page[name][1:3] != (kind, wanted):
            report(where, 1, f"{name}: expected '{kind} | {wanted}'")


def main():
    problems = []

    def report(path, number, sentence):
        problems.append(f"{path}:{number}: {sentence}")

    for path in sources():
        text = (ROOT / path).read_text()
        check_head(path, text, report)
        check_lines(path, text, report)
        check_references(path, text, report)
    check_tables(report)
    check_pages(report)
    check_protocol((ROOT / "docs/PROTOCOL.md").read_text(), report)
    check_metrics(metrics_of_code(), metrics_of_page((ROOT / "docs/METRICS.md").read_text()), report)
    for problem in problems:
        print(problem)
    print(f"tidy: {len(problems)} violations in {len(sources())} files")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
