#!/bin/sh
# check_canary.sh — proves that the fuzzer finds and reports a crash: the canary must be found.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${CM_FUZZ_BUILD:-$(dirname "$here")/build/fuzz}
work=${CM_FUZZ_WORK:-$build}
rm -rf "$work/artifacts/canary" "$work/corpus/canary"
if "$here/run.sh" canary 60 >/dev/null 2>&1; then
  echo "canary: NOT found in 60 seconds: the fuzzer would miss real crashes, too" >&2
  exit 1
fi
if ! grep -q "^CANARY" "$work"/artifacts/canary/crash-* 2>/dev/null; then
  echo "canary: it did not build, or failed for another reason; try fuzz/run.sh canary 60" >&2
  exit 1
fi
echo "canary: found"
