#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every input/*.yaml is read by the command, starts with a one-line comment, and is described as its name says. Sweeps are no
# configurations; postprocess/tests/test_sweep_definition.py reads them.
set -u
unset CDPATH
source_dir=${DEKODER_SOURCE_DIR:-$(cd "$(dirname "$0")/../.." && pwd)}
dekoder=${DEKODER_BINARY_DIR:-$source_dir/build/openmp}/dekoder
failures=0
fail() { echo "FAILED: $*" >&2; failures=$((failures + 1)); }

cd "$source_dir" || exit 1
[ -x "$dekoder" ] || { echo "no $dekoder: build first" >&2; exit 1; }
count=0
for input in input/*.yaml; do
  count=$((count + 1))
  case $(head -n 1 "$input") in
    '# '?*) ;;
    *) fail "$input does not start with a comment that says what it is for" ;;
  esac
  case $input in input/sweep-*) continue ;; esac
  if ! described=$("$dekoder" describe "$input" --backend openmp --set model.vocabulary=50257 2>&1); then
    fail "$input: $described"
  elif [ -z "$described" ]; then
    fail "$input: described as nothing"
  fi
done
[ "$count" -ge 6 ] || fail "only $count configurations in input/"
[ "$failures" -eq 0 ] && echo "$count configurations are read"
exit $((failures > 0))
