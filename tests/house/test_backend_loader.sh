#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The executable links neither Kokkos nor BLAS; a plug-in exports one symbol; the loader says what is wrong with a bad one.
set -u
unset CDPATH
source_dir=${DEKODER_SOURCE_DIR:-$(cd "$(dirname "$0")/../.." && pwd)}
binary_dir=${DEKODER_BINARY_DIR:-$source_dir/build/openmp}
dekoder=$binary_dir/dekoder
plugin=$binary_dir/libdekoder_openmp_float.so
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failures=0
fail() { echo "FAILED: $*" >&2; failures=$((failures + 1)); }

[ -x "$dekoder" ] && [ -f "$plugin" ] || { echo "no $dekoder or no $plugin: build first" >&2; exit 1; }

libraries=$(ldd "$dekoder") || fail "ldd $dekoder"
for unwanted in kokkos blas dnnl hdf5 gomp cuda; do
  found=$(grep -i "lib[a-z_-]*$unwanted" <<<"$libraries") && fail "the executable links $unwanted: $found"
done
ldd "$plugin" | grep -qi gomp || fail "the plug-in links no OpenMP, so this test looks at the wrong file"

symbols=$(nm -D --defined-only "$plugin" | awk '$2 == "T" && $3 ~ /dekoder/ {print $3}')
[ "$symbols" = dekoder_backend_entry ] || fail "the plug-in exports: $symbols; expected dekoder_backend_entry alone"

# Every plug-in that the build makes has a name that the loader looks for.
unopened=$(grep -oE 'libdekoder_[a-z]+_[a-z]+\.so' "$binary_dir/build.ninja" | grep -vE '_(openmp|cuda)_(float|bf16)\.so')
[ -z "$unopened" ] || fail "the launcher never opens: $unopened"

# A copy of the executable far from its plug-ins, so that only DEKODER_PLUGIN_PATH leads to one.
mkdir "$work/bin" "$work/plugins" && cp "$dekoder" "$work/bin/"
expect() {  # code, fragment of the message, environment...
  local code=$1 fragment=$2 output rc
  shift 2
  output=$(timeout 60 env "$@" "$work/bin/dekoder" describe "$source_dir/input/talk.yaml" --set model.vocabulary=65 \
           --backend openmp 2>&1)
  rc=$?
  if [ $rc -ne "$code" ] || ! grep -qF -- "$fragment" <<<"$output"; then
    fail "exit $rc and '$output'; expected exit $code and '$fragment'"
  fi
}
expect 2 "libdekoder_openmp_float.so is in none of $work/bin" DEKODER_PLUGIN_PATH=
expect 0 "attention" DEKODER_PLUGIN_PATH="$binary_dir"
expect 0 "attention" DEKODER_PLUGIN_PATH="$work/nowhere:$binary_dir"
mkdir -p "$work/lib/dekoder" && ln -s "$plugin" "$work/lib/dekoder/"
expect 0 "attention" DEKODER_PLUGIN_PATH=
rm -r "$work/lib"

# Folders that cannot be looked at are named with the reason, and the search goes on behind them.
ln -s loop "$work/loop"
long=$work/$(printf '%0300d' 0)
expect 2 "$work/loop (Too many levels of symbolic links)" DEKODER_PLUGIN_PATH="$work/loop"
expect 2 "(File name too long)" DEKODER_PLUGIN_PATH="$long"
expect 0 "attention" DEKODER_PLUGIN_PATH="$work/loop:$long:$binary_dir"
if [ "$(id -u)" = 0 ]; then
  mkdir -m 700 "$work/closed" && chmod 755 "$work"
  printf 'model: {vocabulary: 65}\n' > "$work/model.yaml" && chmod 644 "$work/model.yaml"
  as_nobody=$(cd / && DEKODER_PLUGIN_PATH=$work/closed setpriv --reuid 65534 --regid 65534 --clear-groups "$work/bin/dekoder" \
    describe "$work/model.yaml" --backend openmp 2>&1)
  [[ $? = 2 && $as_nobody == *"$work/closed (Permission denied)"* ]] || fail "a closed folder: $as_nobody"
fi

bad=$work/plugins/libdekoder_openmp_float.so
echo "not a library" >"$bad"
expect 2 "cannot be loaded" DEKODER_PLUGIN_PATH="$work/plugins"
for bytes in 1000 1000000; do
  head -c $bytes "$plugin" >"$bad"
  expect 2 "$bad: is truncated: $bytes bytes, expected $(stat -Lc %s "$plugin"), " DEKODER_PLUGIN_PATH="$work/plugins"
done
rm "$bad" && mkfifo "$bad"
expect 2 "$bad: is no file" DEKODER_PLUGIN_PATH="$work/plugins"
rm "$bad"
compiler=$(command -v cc || command -v gcc) || fail "no C compiler for the plug-ins of this test"
echo 'int other(void) { return 0; }' | $compiler -shared -fPIC -x c - -o "$bad" || fail "compile"
expect 2 "exports no dekoder_backend_entry" DEKODER_PLUGIN_PATH="$work/plugins"
$compiler -shared -fPIC -I "$source_dir/src" -x c - -o "$bad" <<'SOURCE' || fail "compile"
#include "backend/backend_abi.h"
static int run(const char* command_yaml, const struct dekoder_process* process) {
  (void)command_yaml, (void)process;
  return 0;
}
const struct dekoder_backend* dekoder_backend_entry(void) {
  static const struct dekoder_backend backend = {DEKODER_BACKEND_ABI + 1, run};
  return &backend;
}
SOURCE
expect 2 "is of plug-in version 4; expected 3" DEKODER_PLUGIN_PATH="$work/plugins"

[ "$failures" -eq 0 ] && echo "launcher and plug-ins meet at the border alone"
exit $((failures > 0))
