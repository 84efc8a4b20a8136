#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tests/run.sh [CTEST ARGUMENTS...]: makes what is missing, builds, runs the tests; e.g. `bash tests/run.sh -L unit`.
# Runs in the toolbox (jobs/toolbox), or with the machine's own packages where they suffice (jobs/setup/native.sh).
#   DEKODER_BUILD   build folder (default build/tests)
#   DEKODER_WERROR  ON: warnings are errors
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$checkout"
bash jobs/setup/native.sh || exec bash jobs/toolbox bash tests/run.sh "$@"

build=${DEKODER_BUILD:-build/tests}
mkdir -p "$build"
fail() {
  printf 'tests: %s failed; the log is %s\n' "$1" "$build/$2" >&2
  grep -E 'error|Error|FAILED' "$build/$2" | head -n 30 >&2 || tail -n 30 "$build/$2" >&2
  exit 1
}
start=$SECONDS
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DDEKODER_TESTS=ON "-DDEKODER_WERROR=${DEKODER_WERROR:-OFF}" \
  > "$build/configure.log" 2>&1 || fail "the configuration" configure.log
echo "tests: configured, building (log: $build/build.log)"
cmake --build "$build" --parallel "$(nproc)" > "$build/build.log" 2>&1 || fail "the build" build.log
echo "tests: built in $((SECONDS - start)) s"

# One test at a time: many of them use every core. Pinned threads of two programs would share one.
export OMP_PROC_BIND=false
status=0
ctest --test-dir "$build" --output-on-failure --no-tests=error --timeout 900 "$@" | tee "$build/ctest.log" || status=$?
failed=$(sed -nE 's/^.* tests passed, ([0-9]+) tests failed out of ([0-9]+).*/\1/p' "$build/ctest.log")
total=$(sed -nE 's/^.* tests passed, ([0-9]+) tests failed out of ([0-9]+).*/\2/p' "$build/ctest.log")
echo "tests: $((SECONDS - start)) s in all"
echo "$((${total:-0} - ${failed:-0})) passed, ${failed:-0} failed"
exit "$status"
