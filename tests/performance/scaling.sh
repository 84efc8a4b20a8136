#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tests/performance/scaling.sh [DEKODER]: how training scales over ranks on this machine: each model on one rank with one thread, on
# more with one thread each and as many micro-batches each (weak scaling), and on one rank with more threads; all in turns, several
# times, medians. More ranks than cores are marked. Wants a quiet machine.
#   MODELS   of input/, NAME:MICRO_BATCH (default "talk-multihead:12 char-10m:16 gpt2-124m:1")
#   RANKS    (default "1 2 4"), TURNS (default 3), STEPS of each measurement (default 0: as many as fill ten seconds)
set -euo pipefail
unset CDPATH
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dekoder=${1:-$here/build/openmp/dekoder}
[ -x "$dekoder" ] || { printf 'scaling: %s: no such program; expected dekoder, e.g. of cmake --build --preset openmp\n' "$dekoder" >&2 && exit 2; }
models=${MODELS:-talk-multihead:12 char-10m:16 gpt2-124m:1} ranks=${RANKS:-1 2 4} turns=${TURNS:-3} steps=${STEPS:-0}
cores=$(lscpu -p=core,socket | grep -vc '^#')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_PROC_BIND=false OMPI_MCA_btl=${OMPI_MCA_btl:-self,sm}

measure() { # measure MODEL MICRO RANKS THREADS: a line of "MODEL RANKS THREADS tokens/s step waited bytes" into the table
  local settings=(--set "training.micro_batch=$2" --set "training.batch=$(($2 * $3))") start=()
  grep -q vocabulary: "$here/input/$1.yaml" || settings+=(--set model.vocabulary=96)
  [ "$3" -eq 1 ] || start=(mpirun --oversubscribe --bind-to none -n "$3")
  OMP_NUM_THREADS=$4 "${start[@]}" "$dekoder" bench "$here/input/$1.yaml" --backend openmp --json --steps "$steps" "${settings[@]}" \
    2> "$work/log" | tail -n 1 > "$work/bench.json" || { cat "$work/log" >&2 && exit 1; }
  value() { sed -nE "s/.*\"$1\":([0-9.e+-]+).*/\1/p" "$work/bench.json"; }
  echo "$1 $3 $4 $(value tokens_per_second) $(value step_seconds_median) $(value exposed_seconds) $(value bytes_per_step)" >> "$work/table"
}

for ((turn = 0; turn < turns; ++turn)); do
  for model in $models; do
    for count in $ranks; do
      measure "${model%:*}" "${model#*:}" "$count" 1
    done
    [ "$cores" -lt 2 ] || measure "${model%:*}" "${model#*:}" 1 2
  done
done

printf '%s\n%-16s %5s %7s %10s %10s %9s %14s\n' "$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1), $cores cores" \
  model ranks threads tokens/s efficiency waiting bytes/step
sort -k1,1 -k3,3n -k2,2n -s "$work/table" | awk -v cores="$cores" '
  function median(list, count,   i, j, t) {
    for (i = 2; i <= count; ++i) for (j = i; j > 1 && list[j - 1] > list[j]; --j) { t = list[j]; list[j] = list[j - 1]; list[j - 1] = t }
    return list[int((count + 1) / 2)]
  }
  function flush_row() {
    if (n == 0) return
    tokens = median(rate, n); share = median(waited, n)
    if (row_ranks == 1 && row_threads == 1) single[model] = tokens
    printf "%-16s %5d %7d %10.0f %9.1f%% %8.1f%% %14.0f%s\n", model, row_ranks, row_threads, tokens,
      100 * tokens / (single[model] * row_ranks * row_threads), 100 * share, bytes, (row_ranks * row_threads > cores ? "  more than the cores" : "")
    n = 0
  }
  { if ($1 != model || $2 != row_ranks || $3 != row_threads) { flush_row(); model = $1; row_ranks = $2; row_threads = $3 }
    rate[++n] = $4; waited[n] = $6 / $5; bytes = $7 }
  END { flush_row() }'
