#!/bin/sh
# deps.sh [dev|conf|bench|coverage] — installs the Debian packages that are missing: those of building and
# testing, with `dev` also those of fuzzing, formatting and linting, with `conf` the foreign
# implementations that `make conf` runs against, with `bench` the neighbours to measure, with
# `coverage` what counts lines. Says what and why before it asks for more rights; does nothing when
# all are there.
set -eu

packages="build-essential cmake ninja-build ccache pkg-config python3 git
libevent-dev libwslay-dev libssl-dev libsodium-dev liblmdb-dev rapidjson-dev libcli11-dev
libtomlplusplus-dev libhttp-parser-dev libsqlite3-dev libxxhash-dev libgtest-dev openssl"
if [ "${1:-}" = "dev" ]; then
  packages="$packages clang-14 clang-format-14 libclang-rt-14-dev shellcheck mandoc"
elif [ "${1:-}" = "conf" ]; then
  # Node of another source than Debian's is as good.
  command -v node >/dev/null 2>&1 || packages="$packages nodejs"
  command -v npm >/dev/null 2>&1 || packages="$packages npm"
  packages="$packages ca-certificates curl prometheus python3-websockets python3-nacl
python3-cryptography-vectors libwebsockets-test-server"
fi
if [ "${1:-}" = "bench" ]; then
  packages="$packages redis-server mosquitto"
elif [ "${1:-}" = "coverage" ]; then
  packages="$packages gcovr"
fi

missing=""
for package in $packages; do
  status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [ "$status" = "install ok installed" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "claudemesh is built and tested with these Debian packages, which are missing here:"
echo " $missing"
as_root=""
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null 2>&1; then
    echo "Install them as root:  apt-get install$missing" >&2
    exit 1
  fi
  echo "They are installed with apt-get through sudo, which may ask for your password."
  as_root="sudo"
fi
$as_root apt-get update -qq
# shellcheck disable=SC2086  # a list of names
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing
