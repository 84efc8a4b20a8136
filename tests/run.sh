#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tests/run.sh [--nightly] [CTEST ARGUMENTS...]: makes what is missing, builds, runs the tests; e.g. `bash tests/run.sh -L unit`.
# --nightly: also those of label nightly, which take half an hour.
# Runs in the toolbox (jobs/toolbox), or with the machine's own packages where they suffice (jobs/setup/native.sh).
#   DEKODER_BUILD   build folder (default build/tests)
#   DEKODER_WERROR  ON: warnings are errors
#   DEKODER_KOKKOS_CUDA   prefix of a Kokkos with CUDA (jobs/setup/build_kokkos.sh makes one): the cuda plug-in is built, linked and
#                         looked at too, with nvcc's warnings as errors; needs the CUDA tool kit, but no GPU: the tests that run on one
#                         are built and skipped. The table of its kernels' registers, stack and shared memory is printed at the
#                         end, where there is cuobjdump
set -euo pipefail
unset CDPATH
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$checkout"
bash jobs/setup/native.sh || exec bash jobs/toolbox bash tests/run.sh "$@"

left_out=(-LE nightly)
if [ "${1:-}" = --nightly ]; then
  left_out=()
  shift
fi
build=${DEKODER_BUILD:-build/tests}
mkdir -p "$build"
fail() {
  printf 'tests: %s failed; the log is %s\n' "$1" "$build/$2" >&2
  grep -E 'error|Error|FAILED' "$build/$2" | head -n 30 >&2 || tail -n 30 "$build/$2" >&2
  exit 1
}
start=$SECONDS
options=(-DCMAKE_BUILD_TYPE=Release -DDEKODER_TESTS=ON)
if [ -n "${DEKODER_KOKKOS_CUDA:-}" ]; then
  options+=("-DDEKODER_BACKENDS=openmp;cuda" "-DDEKODER_KOKKOS_cuda=$DEKODER_KOKKOS_CUDA" "-DDEKODER_WERROR=${DEKODER_WERROR:-ON}")
else
  options+=("-DDEKODER_WERROR=${DEKODER_WERROR:-OFF}")
fi
cmake -S . -B "$build" -G Ninja "${options[@]}" \
  > "$build/configure.log" 2>&1 || fail "the configuration" configure.log
echo "tests: configured, building (log: $build/build.log)"
cmake --build "$build" --parallel "$(nproc)" > "$build/build.log" 2>&1 || fail "the build" build.log
echo "tests: built in $((SECONDS - start)) s"

# One test at a time: many of them use every core. Pinned threads of two programs would share one, and threads that
# spin until another one is done would keep it from its core where something else runs too.
export OMP_PROC_BIND=false OMP_WAIT_POLICY=passive
status=0
ctest --test-dir "$build" --output-on-failure --no-tests=error --timeout 900 "${left_out[@]}" "$@" | tee "$build/ctest.log" || status=$?
[ -z "${DEKODER_KOKKOS_CUDA:-}" ] || cat "$build/cuda_kernels.txt" 2> /dev/null || true
failed=$(sed -nE 's/^.* tests passed, ([0-9]+) tests failed out of ([0-9]+).*/\1/p' "$build/ctest.log")
total=$(sed -nE 's/^.* tests passed, ([0-9]+) tests failed out of ([0-9]+).*/\2/p' "$build/ctest.log")
echo "tests: $((SECONDS - start)) s in all"
skipped=$(grep -c '\*\*\*Skipped' "$build/ctest.log" || true)  # those that need a card, or Apptainer
echo "$((${total:-0} - ${failed:-0} - skipped)) passed, ${failed:-0} failed$([ "$skipped" -eq 0 ] || echo ", $skipped skipped")"
exit "$status"
