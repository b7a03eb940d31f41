#!/usr/bin/env python3
"""test_install.py BUILD — what `make install` puts into a tree, and that it works from there.

Modes, the manual page, completions, the program with its plugins, the pkg-config file, and a plugin
that is built against the installed header alone.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from harness import Failed

PLUGIN = r"""
#include <claudemesh/peer_transport.h>
static const cm_transport transport = {.struct_size = sizeof transport};
CM_TRANSPORT_EXPORT const cm_transport* cm_transport_entry(uint32_t host_abi) {
  return host_abi >> 16 == CM_ABI_MAJOR ? &transport : NULL;
}
"""
FILES = ("include/claudemesh/peer_transport.h", "share/man/man1/claudemesh.1",
         "share/bash-completion/completions/claudemesh", "share/zsh/vendor-completions/_claudemesh",
         "share/fish/vendor_completions.d/claudemesh.fish")


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


def run(*words, **options):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=120,
                          check=False, **options)
    expect(done.returncode == 0,
           f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def install(build, tree, prefix):
    # As the Makefile does it; CMake makes folders above its own with the umask.
    run("sh", "-c", f"umask 022 && cmake --install '{build}' --prefix '{prefix}'",
        env={**os.environ, "DESTDIR": str(tree)})
    return tree / prefix.lstrip("/")


def modes_are_those_of_a_system(root):
    for path in root.rglob("*"):
        expect(not path.is_symlink(), f"{path} is a link")
        wanted = 0o755 if path.is_dir() or path.parent == root / "bin" else 0o644
        mode = path.stat().st_mode & 0o7777
        expect(mode == wanted, f"{path}: mode {mode:o}, expected {wanted:o}")
    for name in FILES:
        expect((root / name).stat().st_size > 100, f"{name} is installed")
    plugins = {p.name for p in (root / "lib/claudemesh/transports").iterdir()}
    expect("ws_broker.so" in plugins, f"plugins: {plugins}")
    expect(not any(p.startswith(("bad_", "puppet")) for p in plugins), f"plugins: {plugins}")


def the_program_finds_its_plugins(root, home):
    env = {k: v for k, v in os.environ.items() if not k.startswith("CLAUDEMESH_")}
    env.update(HOME=str(home), CLAUDEMESH_PLUGIN_TRUST_STICKY="1")
    binary = root / "bin/claudemesh"
    reply = json.loads(run(binary, "transport", "list", "--json", env=env))
    rows = reply["transports"] if "transports" in reply else reply["plugins"]
    paths = [r["path"] for r in rows if r.get("loaded")]
    expect(any(p == str(root / "lib/claudemesh/transports/ws_broker.so") for p in paths),
           f"transport list of the installed program: {reply}")
    expect(json.loads(run(binary, "version", "--json", env=env))["version"], "version")


def documents_are_sound(root):
    page = root / "share/man/man1/claudemesh.1"
    if shutil.which("mandoc"):
        run("mandoc", "-T", "lint", "-W", "warning", page)
    run("bash", "-n", root / "share/bash-completion/completions/claudemesh")
    for shell, file in (("zsh", "zsh/vendor-completions/_claudemesh"),
                        ("fish", "fish/vendor_completions.d/claudemesh.fish")):
        if shutil.which(shell):
            run(shell, "-n", root / "share" / file)


def a_plugin_builds_against_the_header_alone(tree, root, prefix, work):
    found = list(root.glob("lib/**/pkgconfig/claudemesh-transport.pc"))
    expect(len(found) == 1, f"one .pc file: {found}")
    env = {**os.environ, "PKG_CONFIG_PATH": str(found[0].parent),
           "PKG_CONFIG_ALLOW_SYSTEM_CFLAGS": "1"}
    name = "claudemesh-transport"
    flags = run("pkg-config", "--cflags", name, env=env).split()
    expect(flags == [f"-I{prefix}/include"], f"--cflags: {flags}")
    env["PKG_CONFIG_SYSROOT_DIR"] = str(tree)
    flags = run("pkg-config", "--cflags", name, env=env).split()
    expect(flags == [f"-I{root}/include"], f"--cflags below DESTDIR: {flags}")
    folder = run("pkg-config", "--variable=transportdir", name, env=env).strip()
    expect(folder.endswith(f"{prefix}/lib/claudemesh/transports"), f"transportdir: {folder}")
    source = work / "plugin.c"
    source.write_text(PLUGIN)
    # No other include folder: if the header needed one of ours, this would fail.
    run("cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *flags, source, "-o",
        work / "plugin.so")
    run("c++", "-std=c++17", "-Wall", "-Werror", "-fsyntax-only", *flags, "-x", "c++",
        root / "include/claudemesh/peer_transport.h")


def main(build):
    build = pathlib.Path(build).resolve()
    work = pathlib.Path(tempfile.mkdtemp(prefix="cm-install-"))
    work.chmod(0o755)
    try:
        for prefix in ("/usr", "/opt/claudemesh"):
            tree = work / prefix.strip("/").replace("/", "-")
            root = install(build, tree, prefix)
            modes_are_those_of_a_system(root)
            a_plugin_builds_against_the_header_alone(tree, root, prefix, work)
        the_program_finds_its_plugins(root, work)
        documents_are_sound(root)
    except Failed as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("install: two prefixes, modes, pages, plugins, header")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
