#!/bin/sh
# run.sh — fuzzes one target: fuzz/run.sh <target> <seconds>
# Builds the preset `fuzz` if needed. The scratch corpus and artifacts stay in build/fuzz/, or in the
# folder that CM_FUZZ_WORK names. CM_FUZZ_BUILD names another build folder that is configured
# already. With CM_FUZZ_PLAIN set, structure-aware mutators are not used.
set -eu
if [ $# -ne 2 ]; then
  echo "usage: fuzz/run.sh <target> <seconds>; targets:" \
    "$(sed -n 's/^  X(\([a-z_]*\),.*/\1/p' "$(dirname "$0")/registry.h" | tr '\n' ' ')canary" >&2
  exit 2
fi
target=$1
seconds=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
build=${CM_FUZZ_BUILD:-$root/build/fuzz}

if [ ! -f "$build/build.ninja" ]; then
  make -C "$root" configure PRESET=fuzz >/dev/null
fi
cmake --build "$build" --target "fuzz_$target" >/dev/null

longest=$(sed -n "s/^  X($target, [a-z_]*, \([0-9]*\)).*/\1/p" "$here/registry.h")
work=${CM_FUZZ_WORK:-$build}
corpus=$work/corpus/$target
artifacts=$work/artifacts/$target
log=$work/$target.log
mkdir -p "$corpus" "$artifacts"
set -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len="${longest:-64}" \
  -artifact_prefix="$artifacts/" -print_final_stats=1
# In a whole program nearly every input is of a rare feature: weighing them costs more than running.
case $target in
  broker | daemon | hello | server | sse) set -- "$@" -entropic=0 ;;
esac
if [ -f "$here/dict/$target.dict" ]; then set -- "$@" -dict="$here/dict/$target.dict"; fi
set -- "$@" "$corpus"
if [ -d "$here/seeds/$target" ]; then set -- "$@" "$here/seeds/$target"; fi

before=$(find "$artifacts" -type f | wc -l)
# Stores in memory: nobody waits for a disk that others keep busy.
if [ -d /dev/shm ]; then export TMPDIR=/dev/shm; fi
status=0
"$build/bin/fuzz_$target" "$@" >"$log" 2>&1 || status=$?
after=$(find "$artifacts" -type f | wc -l)
execs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
edges=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
kept=$(sed -n 's/.* corp: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
echo "$target: ${execs:-?} execs, ${rate:-?} a second, ${edges:-0} edges," \
  "${kept:-0} in the corpus, $((after - before)) crashes"
if [ "$status" -ne 0 ]; then
  echo "$target: exit $status; the end of $log:" >&2
  tail -n 40 "$log" >&2
fi
exit "$status"
