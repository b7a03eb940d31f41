#!/usr/bin/env python3
"""test_config.py BUILD — config.toml, its verbs, reloading, and the machine a store belongs to."""

import json
import os
import pathlib
import re
import signal
import sys

from harness import Failed, World, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
CI_VARIABLES = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI", "JENKINS_URL",
                "KUBERNETES_SERVICE_HOST")


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


def expect_exit(member, status, *arguments):
    done = member.run(*arguments, check=False)
    expect(done.returncode == status,
           f"claudemesh {' '.join(arguments)} ended with {done.returncode}, not {status}: "
           f"{done.stdout}{done.stderr}")
    return done


def setting(member, name, *flags):
    rows = member.json("config", *flags)["settings"]
    return next(r for r in rows if r["name"] == name)


def count_lines(member, event):
    return member.daemon.log_path.read_text().count(f'"event":"{event}"')


def config_shows_where_each_value_comes_from(alice):
    path = alice.home / ".claudemesh/config.toml"
    expect(alice.run("config", "path").stdout.strip() == str(path), "config path")
    expect(alice.json("config", "path") == {"path": str(path), "exists": False}, "no file yet")
    expect_exit(alice, 0, "config", "check")
    row = setting(alice, "ipc.tcp")
    expect((row["value"], row["origin"]) == ("false", "place"), f"CI turns TCP off: {row}")
    row = setting(alice, "daemon.durability")
    expect((row["value"], row["origin"]) == ("sync", "default"), f"durability: {row}")
    path.write_text('[daemon]\ndurability = "relaxed"\n[limits]\nmeshes_max = 7\n')
    path.chmod(0o644)
    row = setting(alice, "daemon.durability")
    expect((row["value"], row["origin"], row["where"]) == ("relaxed", "file", f"{path}:2"), row)
    expect(setting(alice, "limits.meshes_max")["value"] == "7", "a limit of the file")
    alice.env["CLAUDEMESH_DURABILITY"] = "sync"
    expect(setting(alice, "daemon.durability")["where"] == "CLAUDEMESH_DURABILITY", "environment")
    row = setting(alice, "daemon.durability", "--durability", "relaxed")
    expect((row["value"], row["origin"]) == ("relaxed", "flag"), f"the flag: {row}")
    del alice.env["CLAUDEMESH_DURABILITY"]
    text = alice.run("config").stdout
    expect(f"{path}:2" in text and "container" in text, f"config for a person: {text}")
    return path


def a_bad_file_stops_the_start_and_says_where(alice, path):
    path.write_text("[ipc]\ntcp_port = \"eighty\"\n")
    for words in (("config",), ("config", "check"), ("daemon", "up"),
                  ("daemon", "up", "--foreground")):
        done = expect_exit(alice, 3, *words)
        expect(f"{path}:2" in done.stderr and "tcp_port" in done.stderr and
               "whole number" in done.stderr, f"{words}: {done.stderr}")
    error = json.loads(expect_exit(alice, 3, "config", "check", "--json").stdout)
    expect(error["ok"] is False and error["remedy"], f"--json: {error}")
    path.write_text('[daemon]\ndurability = "relaxed"\n')
    path.chmod(0o666)
    expect("chmod" in expect_exit(alice, 7, "daemon", "up").stderr, "a file that others may write")
    path.chmod(0o600)


def a_reload_applies_what_it_can_and_names_the_rest(alice, path):
    alice.daemon.start()
    expect(alice.call("GET", "/v1/health")[1]["durability"] == "relaxed", "the file is used")
    path.write_text('[daemon]\ndurability = "sync"\n[ipc]\npublic_health = true\n')
    status, reply = alice.call("POST", "/v1/reload")
    expect(status == 200 and reply["settings_need_restart"] == ["daemon.durability"],
           f"reload: {status} {reply}")
    done = alice.run("daemon", "reload")
    expect("daemon.durability" in done.stderr and "restart" in done.stderr, done.stderr)
    path.write_text("[ipc]\nnonsense = 1\n")
    done = expect_exit(alice, 3, "daemon", "reload")
    expect(f"{path}:2" in done.stderr and "nonsense" in done.stderr, done.stderr)
    refused = count_lines(alice, "config_not_reloaded")
    alice.daemon.child.send_signal(signal.SIGHUP)
    wait_until(lambda: count_lines(alice, "config_not_reloaded") > refused, "SIGHUP reads it too")
    expect(alice.call("GET", "/v1/health")[0] == 200, "a bad file stops no running daemon")
    path.write_text('[daemon]\ndurability = "relaxed"\n')
    status, reply = alice.call("POST", "/v1/reload")
    expect(reply["settings_need_restart"] == [], f"as it runs: {reply}")
    alice.daemon.stop()


def a_ci_job_keeps_no_identity(alice):
    expect(not fingerprint_path(alice).exists(), "a CI job wrote a fingerprint")
    expect(count_lines(alice, "host_identity_ephemeral") > 0, "the log does not say so")


def fingerprint_path(member):
    return member.home / ".claudemesh/daemon/host_fingerprint.json"


def another_machine_is_refused_until_it_is_accepted(alice, config):
    for name in CI_VARIABLES:
        alice.env.pop(name, None)
    alice.env["CLAUDEMESH_TCP"] = "0"
    path = fingerprint_path(alice)
    alice.daemon.start()
    alice.daemon.stop()
    stored = json.loads(path.read_text())
    expect(list(stored) == ["schema_version", "fingerprint", "host_id", "stable_mac",
                            "written_at"], f"members: {list(stored)}")
    expect(stored["schema_version"] == 2 and len(stored["fingerprint"]) == 64, stored)
    expect(path.stat().st_mode & 0o777 == 0o600, "the fingerprint is private")
    first = path.read_text()
    alice.daemon.start()
    alice.daemon.stop()
    expect(path.read_text() == first, "the same machine rewrites nothing")

    path.write_text(json.dumps({**stored, "fingerprint": "0" * 64, "host_id": "linux:0"}))
    other = path.read_text()
    for words in (("daemon", "up"), ("daemon", "up", "--foreground")):
        done = expect_exit(alice, 4, *words)
        expect("accept-host" in done.stderr, f"{words}: {done.stderr}")
    error = json.loads(expect_exit(alice, 4, "daemon", "up", "--json").stdout)
    expect(error["error"] == "host_fingerprint_mismatch", f"--json: {error}")
    expect(path.read_text() == other, "a refused start changes nothing")
    expect_exit(alice, 1, "daemon", "status")

    config.write_text('[clone]\npolicy = "warn"\n')
    alice.daemon.start()
    expect(count_lines(alice, "host_fingerprint_mismatch") == 1, "the policy warn warns")
    alice.daemon.stop()
    expect(path.read_text() == other, "a warning changes nothing")
    config.unlink()

    reply = alice.json("daemon", "accept-host")
    expect(reply["ok"] and json.loads(path.read_text())["fingerprint"]
           .startswith(reply["fingerprint_prefix"]), f"accept-host: {reply}")
    alice.daemon.start()
    alice.daemon.stop()
    path.write_text("{")
    alice.daemon.start()
    expect(count_lines(alice, "host_fingerprint_unavailable") == 1, "an unreadable file is named")
    alice.daemon.stop()


def origins_are_a_text_or_a_list(alice):
    config = alice.home / ".claudemesh/config.toml"
    for value in ('"http://a:1 https://b"', '["http://a:1", "https://b"]'):
        config.write_text(f"[ipc]\nallowed_origins = {value}\n")
        found = setting(alice, "ipc.allowed_origins")
        expect(found["value"] == "http://a:1 https://b", f"{value}: {found}")
    for value in ('["http://a:1 https://b"]', '[1]', '[""]', '[["http://a"]]', '["ftp://x"]'):
        config.write_text(f"[ipc]\nallowed_origins = {value}\n")
        expect_exit(alice, 3, "config", "check")
    config.unlink()


def settings_are_documented(alice):
    """Table, manual page, docs/SETTINGS.md and the code name the same variables."""
    man = alice.run("man").stdout.replace("\\-", "-")
    text = (ROOT / "docs/SETTINGS.md").read_text()
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*?) \| (.*?) \| (.*?) \| (yes|no) \|", text, re.M)
    names = [s["name"] for s in alice.json("config")["settings"] if "limits." not in s["name"]]
    expect([r[0] for r in rows] == names, f"docs/SETTINGS.md: {[r[0] for r in rows]}, not {names}")
    for name, variable, flag, default, reloads in rows:
        said = (f".B {name}\nVariable {variable}, flag {flag}, default {default}; a reload "
                f"{'applies it' if reloads == 'yes' else 'does not apply it'}.").replace("`", "")
        expect(said in man, f"docs/SETTINGS.md and 'claudemesh man' disagree on {name}: {said}")
    read = set()
    for source in [*ROOT.glob("*/**/*.cc"), *ROOT.glob("*/**/*.h")]:
        if source.relative_to(ROOT).parts[0] in ("cli", "core", "store", "plugins", "transports"):
            read |= set(re.findall(r'"(CLAUDEMESH_[A-Z_]+)"', source.read_text()))
    expect(len(read) > 15, f"only {read} found: the pattern is wrong")
    for name in read:
        expect(name in man and f"`{name}`" in text, f"{name} is read, and not documented")


def main(build):
    os.umask(0o022)
    try:
        with World(build) as world:
            world.start_broker()
            alice = world.member("alice")
            alice.json("create", "demo", "--broker", world.url)
            settings_are_documented(alice)
            origins_are_a_text_or_a_list(alice)
            path = config_shows_where_each_value_comes_from(alice)
            a_bad_file_stops_the_start_and_says_where(alice, path)
            a_reload_applies_what_it_can_and_names_the_rest(alice, path)
            a_ci_job_keeps_no_identity(alice)
            another_machine_is_refused_until_it_is_accepted(alice, path)
    except Failed as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    print("config: origins, bad files, reload, host fingerprint")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
