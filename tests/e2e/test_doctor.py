#!/usr/bin/env python3
"""test_doctor.py BUILD — doctor: a sound installation, and one broken thing at a time."""

import json
import os
import sys

from harness import Failed, World


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


def doctor(member):
    done = member.run("doctor", "--json", check=False)
    reply = json.loads(done.stdout)
    expect(done.returncode == (0 if reply["failures"] == 0 else 1), f"exit {done.returncode}")
    expect(reply["ok"] == (reply["failures"] == 0), f"ok: {reply}")
    for status, key in (("failure", "failures"), ("warning", "warnings")):
        expect(reply[key] == sum(c["status"] == status for c in reply["checks"]), reply)
    for check in reply["checks"]:
        expect((check["remedy"] is None) == (check["status"] == "ok"),
               f"whatever is not well has a remedy: {check}")
    return reply


def bad(reply, status="failure"):
    return {c["check"]: c for c in reply["checks"] if c["status"] == status}


def only_failure(member, name, *words):
    """The one failure there is; its detail and remedy hold the words; a person is shown both."""
    found = bad(doctor(member))
    expect(list(found) == [name], f"failures {list(found)}, expected {name}: {found}")
    text = found[name]["detail"] + "\n" + found[name]["remedy"]
    expect(all(w in text for w in words), f"{name}: {text}")
    done = member.run("doctor", check=False)
    expect(done.returncode == 1 and found[name]["detail"] in done.stdout and
           found[name]["remedy"] in done.stdout, f"for a person: {done.stdout}")


def a_sound_installation(alice):
    reply = doctor(alice)
    expect(reply["ok"], f"failures: {bad(reply)}")
    # A copy for tests has no pages; everything else is well.
    expect(set(bad(reply, "warning")) <= {"pages", "memory"}, bad(reply, "warning"))
    names = {c["check"] for c in reply["checks"]}
    expect({"program", "plugin", "config folder", "config.json", "keys", "config.toml", "host",
            "daemon folder", "local token", "daemon", "link demo", "broker demo",
            "disk"} <= names, f"checks: {names}")
    config = json.loads((alice.home / ".claudemesh/config.json").read_text())
    text = alice.run("doctor").stdout + json.dumps(reply)
    expect(config["meshes"][0]["secretKey"] not in text, "a secret was shown")


def modes_that_are_too_open(alice):
    for name, path in (("config folder", ".claudemesh"), ("config.json", ".claudemesh/config.json"),
                       ("daemon folder", ".claudemesh/daemon"),
                       ("local token", ".claudemesh/daemon/local-token")):
        path = alice.home / path
        mode = path.stat().st_mode & 0o7777
        path.chmod(mode | 0o044)
        only_failure(alice, name, str(path), "chmod")
        path.chmod(mode)


def a_plugin_that_others_may_write(world, alice):
    plugin = world.plugins / "ws_broker.so"
    plugin.chmod(0o666)
    found = doctor(alice)
    expect(set(bad(found)) == {"plugin"} and "ws_broker.so" in json.dumps(found), bad(found))
    plugin.chmod(0o644)


def files_that_are_damaged(alice):
    toml = alice.home / ".claudemesh/config.toml"
    toml.write_text("[ipc]\ntcp_port = true\n")
    only_failure(alice, "config.toml", f"{toml}:2", "tcp_port", "whole number")
    toml.unlink()
    path = alice.home / ".claudemesh/config.json"
    good = path.read_text()
    config = json.loads(good)
    key = config["meshes"][0]["pubkey"]
    config["meshes"][0]["pubkey"] = key[:-2] + ("00" if key[-2:] != "00" else "01")
    path.write_text(json.dumps(config))
    only_failure(alice, "keys", "demo")
    path.write_text(good[:-20])
    only_failure(alice, "config.json", "backup")
    path.write_text(good)
    path.chmod(0o600)


def nothing_that_answers(world, alice):
    alice.daemon.stop()
    reply = doctor(alice)
    expect(reply["ok"] and "daemon up" in bad(reply, "warning")["daemon"]["remedy"], reply)
    world.broker.stop()
    only_failure(alice, "broker demo", world.url, "broker")
    nobody = world.member("nobody")
    reply = doctor(nobody)
    expect(reply["ok"] and "join" in bad(reply, "warning")["meshes"]["remedy"], reply)
    expect(not (nobody.home / ".claudemesh").exists(), "doctor made a folder")


def main(build):
    os.umask(0o022)
    try:
        with World(build) as world:
            world.start_broker()
            alice = world.member("alice")
            alice.json("create", "demo", "--broker", world.url)
            alice.daemon.start()
            alice.wait_connected()
            a_sound_installation(alice)
            modes_that_are_too_open(alice)
            a_plugin_that_others_may_write(world, alice)
            files_that_are_damaged(alice)
            nothing_that_answers(world, alice)
    except Failed as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    print("doctor: sound, open modes, damaged files, nothing that answers")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
