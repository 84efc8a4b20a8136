#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tests/gpu/first_minutes.sh [OPTIONS] [PLACE]: what to do with ten minutes on a card. It starts dekoder, runs the test programs of
# the backend, compute-sanitizer, a kill and a restart, 200 steps beside openmp, the benchmarks, and PyTorch on the same card.
# PLACE is a folder of jobs/bundle (default: the one this script lies in) or a build folder (default: build/cuda).
# All goes into one folder: logs, JSON, and summary.txt, the table that ends the run. A step that fails or takes too long is
# recorded and the next one starts. Needs bash, coreutils, sed, grep and awk; PyTorch's part a python3 that has torch.
#   --backend cuda|openmp   what is looked at (default cuda); openmp is the rehearsal without a card
#   --minutes N             for all together (default 10); each step has a share of it as its limit
#   -o FOLDER               of the results (default first-minutes-<host>-<time>)
#   --tests GLOB            names of test programs to run (default '*')
#   --models LIST           of input/, each NAME or NAME:BATCH (default 'talk-multihead char-10m gpt2-124m gpt2-124m:32')
#   --steps N               timed steps of each benchmark and of PyTorch (default 0: as many as fill ten seconds)
#   --curve N               steps beside openmp (default 200)
#   --python PYTHON         the one with torch (default python3)
#   --peak-fp32 X, --peak-tf32 X   TFLOP/s of the card, for the share of its peak (default: by its name)
# Exit code: 0 all steps passed or were skipped for a reason that the table gives, 1 some did not, 2 command line.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_root=$(cd "$here/../.." && pwd)
usage() {
  printf 'first_minutes: %s\n' "$1" >&2
  exit 2
}

backend=cuda minutes=10 out='' tests='*' models='talk-multihead char-10m gpt2-124m gpt2-124m:32' steps=0 curve=200 python=python3
peak_fp32='' peak_tf32='' place=''
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h)
      sed -n '3,19s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    --backend | --minutes | -o | --tests | --models | --steps | --curve | --python | --peak-fp32 | --peak-tf32)
      [ $# -gt 1 ] || usage "$1: expected a value"
      name=${1##*-}
      case $1 in
        -o) out=$2 ;;
        --peak-*) declare "peak_$name=$2" ;;
        *) declare "$name=$2" ;;
      esac
      shift
      ;;
    -*) usage "$1: no such option; see --help" ;;
    *)
      [ -z "$place" ] || usage "$1: a second place; expected one folder"
      place=$1
      ;;
  esac
  shift
done
case $backend in cuda | openmp) ;; *) usage "--backend $backend: expected cuda or openmp" ;; esac
for number in "$minutes" "$steps" "$curve"; do
  [[ $number =~ ^[0-9]{1,6}$ ]] || usage "$number: expected a whole number for --minutes, --steps, --curve"
done
[ "$minutes" -gt 0 ] && [ "$curve" -gt 0 ] || usage "--minutes and --curve: expected at least 1"
for number in $peak_fp32 $peak_tf32; do
  [[ $number =~ ^[0-9]+(\.[0-9]+)?$ ]] || usage "$number: expected TFLOP/s, e.g. --peak-fp32 66.9"
done
if [ -z "$place" ]; then
  place=$source_root/build/cuda
  [ ! -x "$source_root/bin/dekoder" ] || place=$source_root
fi
place=$(cd "$place" 2> /dev/null && pwd) || usage "$place: no such folder; expected one of jobs/bundle or a build folder"
dekoder=$place/dekoder bundle=
if [ -x "$place/bin/dekoder" ]; then
  dekoder=$place/bin/dekoder bundle=$place
fi
[ -x "$dekoder" ] || usage "$place: has neither bin/dekoder nor dekoder; expected a folder of jobs/bundle or a build folder"
out=${out:-first-minutes-$(uname -n)-$(date +%Y%m%d-%H%M%S)}
mkdir -p "$out"/work && out=$(cd "$out" && pwd) || usage "$out: cannot be made"
[ ! -e "$out/summary.txt" ] || usage "$out: has a summary.txt already; expected a new folder"
export backend out place dekoder bundle source_root here tests steps curve python
export OMP_PROC_BIND=${OMP_PROC_BIND:-false}
cd "$out/work" || exit 2

# ---------------------------------------------------------------- what the steps use

# say TEXT: what the table says of this step; the last one counts, so that a step that is stopped shows how far it came.
say() { printf '%s\n' "$*" > "$note"; }
skip() {
  say "$*"
  exit 77
}
train() { # train RUN STEPS WORD...: talk-multihead on this text
  local run=$1 count=$2
  shift 2
  "$dekoder" train "$source_root/input/talk-multihead.yaml" --run "$run" --set data.tokens=tokens.h5 --set training.steps="$count" \
    --set training.warmup_steps=10 --set evaluation.every=0 --set attention.every=0 --set 'attention.texts=[]' --set attention.windows=0 "$@"
}
# The log of a run without what differs from start to start: rates, seconds, and the marks of restarts.
numbers() { grep '"loss":' "$1/metrics.jsonl" | sed 's/,"tokens_per_second".*//'; }
value() { sed -nE "s/.*\"$1\":\"?([^,\"}]+).*/\\1/p" "$2" | head -n 1; }
# The command of a program of the tests, in ${program[@]}; it becomes the program, so that whoever stops it stops that.
find_program() { # find_program FILE
  program=(env DEKODER_SOURCE_DIR="$source_root" "$1")
  [ -z "$bundle" ] || program=("$bundle/bin/dekoder-test" "${1##*/}")
}

# ---------------------------------------------------------------- the steps, in order

starts() {
  local card
  if command -v nvidia-smi > /dev/null; then
    card=$(nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm --format=csv,noheader | head -n 1)
    nvidia-smi -q
  fi
  echo "${card:-no nvidia-smi}" > "$out/card.txt"
  "$dekoder" --version && "$dekoder" describe "$source_root/input/gpt2-124m.yaml" --backend "$backend" || return 1
  cat "$source_root"/README.md "$source_root"/src/*/*.hpp "$source_root"/src/*/*.cpp > text.txt
  "$dekoder" prepare text.txt -o tokens.h5 --tokenizer char --backend "$backend" || return 1
  say "${card:-no nvidia-smi}; $("$dekoder" --version)"
}

programs() { # programs KIND: all test programs of the backend, one after the other
  local file name passed=0 failed=''
  for file in "$place/tests/$1"/*_test_*_"$backend"_{float,double}; do
    name=${file##*/}
    # shellcheck disable=SC2254
    case $name in $tests) ;; *) continue ;; esac
    [ -x "$file" ] || continue
    echo "== $name"
    find_program "$file"
    if timeout --foreground 300 "${program[@]}"; then
      passed=$((passed + 1))
    else
      failed+=" $name"
    fi
    say "$passed programs passed${failed:+; failed:$failed}"
  done
  [ -z "$failed" ] || return 1
  [ $passed -gt 0 ] || skip "this place has no such programs for $backend"
}

sanitizer() {
  local tool check reports=''
  for tool in "$(command -v compute-sanitizer)" "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer"; do
    [ ! -x "$tool" ] || break
  done
  [ "$backend" = cuda ] || skip "is for cuda"
  [ -x "$tool" ] || skip "no compute-sanitizer on the PATH or in CUDA_HOME/bin"
  for check in memcheck racecheck initcheck; do
    echo "== $check"
    "$tool" --tool $check --target-processes all --error-exitcode 9 "$dekoder" train "$source_root/input/char-10m.yaml" \
      --run "run-$check" --backend "$backend" --set data.tokens=tokens.h5 --set model.layers=1 --set model.heads=2 \
      --set model.channels=48 --set model.feed_forward=80 --set model.context=40 --set model.dropout=0.1 --set training.batch=3 \
      --set training.micro_batch=3 --set training.steps=2 --set training.warmup_steps=1 --set evaluation.tokens=512
    reports+=" $check $?"
    say "exit codes:$reports (9: it found something)"
  done
  [ "$reports" = " memcheck 0 racecheck 0 initcheck 0" ]
}

restart() {
  local code file
  train straight 40 --backend "$backend" --set checkpoint.every=20 || return 1
  DEKODER_FAULT=checkpoint:after_rename train broken 40 --backend "$backend" --set checkpoint.every=20
  code=$?
  [ $code -eq 137 ] || { say "the run to be killed at step 20 ended with exit code $code" && return 1; }
  "$dekoder" status broken
  train broken 40 --backend "$backend" --set checkpoint.every=20 || return 1
  numbers straight > straight.txt
  numbers broken > broken.txt
  [ "$(wc -l < straight.txt)" -eq 40 ] || { say "the log has $(wc -l < straight.txt) steps, expected 40" && return 1; }
  [ "$(sha256sum < straight.txt)" = "$(sha256sum < broken.txt)" ] || { say "losses differ" && return 1; }
  file=$place/tests/support/checkpoint_digests
  [ -x "$file" ] || { say "40 losses and gradient norms equal; no checkpoint_digests here to compare the checkpoints" && return 0; }
  find_program "$file"
  for code in straight broken; do
    "${program[@]}" "$code/checkpoints/ckpt-00000040.h5" > "$code.digests" || return 1
  done
  [ "$(sha256sum < straight.digests)" = "$(sha256sum < broken.digests)" ] || { say "tensors of the checkpoints differ" && return 1; }
  say "killed at step 20 of 40: 40 losses and $(wc -l < straight.digests) tensors equal, bit for bit"
}

same_curve() {
  train curve "$curve" --backend "$backend" --set checkpoint.every=0 || return 1
  train curve-openmp "$curve" --backend openmp --set checkpoint.every=0 || return 1
  numbers curve > curve.txt
  numbers curve-openmp > curve-openmp.txt
  paste -d ' ' curve-openmp.txt curve.txt | sed -E 's/[^ ]*"loss":([^,]+)[^ ]*/\1/g' > "$out/losses.txt"
  # Sums of another order differ by roundings, which training then makes grow.
  awk -v steps="$curve" '{ d = ($1 - $2) / $1; if (d < 0) d = -d; if (NR <= 20 && d > early) early = d; if (!(d <= all)) all = d }
    END { printf "largest relative difference of %d losses %.1e, of the first 20 %.1e (allowed 3e-3, 1e-5)\n", NR, all, early
          exit !(NR == steps && all <= 3e-3 && early <= 1e-5) }' "$out/losses.txt" > curve-note.txt
  local code=$?
  say "$(cat curve-note.txt)"
  return $code
}

bench() { # bench MODEL NAME: JSON into bench-NAME.json
  local batch=${1#*:} settings=()
  [ "$batch" = "$1" ] || settings=(--set "training.batch=$batch" --set "training.micro_batch=$batch")
  grep -q vocabulary: "$source_root/input/${1%:*}.yaml" || settings+=(--set model.vocabulary=96)
  "$dekoder" bench "$source_root/input/${1%:*}.yaml" --backend "$backend" --json --steps "$steps" "${settings[@]}" > bench.json || return 1
  mv bench.json "$out/bench-$2.json"
  cat "$out/bench-$2.json"
  say "$(value tokens_per_second "$out/bench-$2.json" | cut -d. -f1) tokens/s, $(value step_seconds_median "$out/bench-$2.json") s per step"
}

torch() { # torch NAME: PyTorch on the shapes of bench-NAME.json
  [ -f "$out/bench-$1.json" ] || skip "no benchmark of $1 to compare with"
  "$python" -c 'import torch' 2> /dev/null || skip "$python has no torch"
  "$python" -B "$here/torch_peer.py" "$out/bench-$1.json" --device "$([ "$backend" = cuda ] && echo cuda || echo cpu)" --steps "$steps" \
    > "$out/torch-$1.jsonl"
  local code=$?
  cat "$out/torch-$1.jsonl"
  say "$(sed -nE 's/.*"variant": "([^"]+)".*"tokens_per_second": ([0-9]+).*/\1 \2/p' "$out/torch-$1.jsonl" | paste -sd, | sed 's/,/, /g') tokens/s"
  return $code
}

# ---------------------------------------------------------------- one after the other, each with its limit

end=$((SECONDS + 60 * minutes))
failures=0
step() { # step NAME SHARE FUNCTION ARGUMENT...: SHARE percent of the time at most
  local name=$1 limit=$((minutes * 60 * $2 / 100)) left=$((end - SECONDS)) code=124 result begin=$SECONDS
  shift 2
  [ "$limit" -le "$left" ] || limit=$left
  export note=$out/work/note
  : > "$note"
  if [ "$limit" -gt 0 ]; then
    timeout -k 5 "$limit" bash -uo pipefail -c '"$@"' - "$@" > "$out/$name.log" 2>&1 < /dev/null
    code=$?
  else
    say 'all time was used up before'
  fi
  case $code in
    0) result=passed ;;
    77) result=skipped ;;
    124 | 137) result='NO TIME' ;;
    *) result=FAILED ;;
  esac
  case $code in 0 | 77) ;; *) failures=$((failures + 1)) ;; esac
  [ $code -ne 124 ] || say "stopped after $limit s; $(cat "$note")"
  [ "$result" != FAILED ] || [ -s "$note" ] || say "exit code $code: $(tail -n 1 "$out/$name.log")"
  printf '%-24s %-8s %5d s  %s\n' "$name" "$result" $((SECONDS - begin)) "$(cat "$note")" | tee -a "$out/steps.txt"
}
export -f say skip train numbers value find_program starts programs sanitizer restart same_curve bench torch

step starts 10 starts
step tests-unit 25 programs unit
step tests-gradient 15 programs gradient
step tests-parity 10 programs parity
step compute-sanitizer 15 sanitizer
step restart 10 restart
step curve-as-openmp 10 same_curve
precisions=fp32
[ "$backend" != cuda ] || precisions='fp32 tf32'
for model in $models; do
  for precision in $precisions; do
    tf32=0
    [ "$precision" = fp32 ] || tf32=1
    DEKODER_TF32=$tf32 step "bench-${model/:/-b}-$precision" 15 bench "$model" "${model/:/-b}-$precision"
  done
done
for model in $models; do
  step "torch-${model/:/-b}" 20 torch "${model/:/-b}-fp32"
done

# ---------------------------------------------------------------- the table

# Peaks without sparsity, TFLOP/s, from NVIDIA's data sheets: CUDA cores in fp32, tensor cores in TF32.
case $(cat "$out/card.txt" 2> /dev/null) in
  *H100*PCIe*) peaks='51.2 378' ;;
  *H100*NVL* | *H200*NVL*) peaks='60 417' ;;
  *H100* | *H200*) peaks='66.9 494.7' ;;
  *A100*) peaks='19.5 156' ;;
  *) peaks='- -' ;;
esac
peak_fp32=${peak_fp32:-${peaks% *}} peak_tf32=${peak_tf32:-${peaks#* }}
rates() { # one line per benchmark: rates, share of the peak, PyTorch's best of the same precision
  local file name precision peak theirs
  printf '%-26s %10s %10s %9s %9s %10s  %s\n' benchmark tokens/s GFLOP/s of-peak of-GEMM PyTorch ratio
  for file in "$out"/bench-*.json; do
    [ -f "$file" ] || continue
    name=${file##*/bench-} name=${name%.json}
    precision=${name##*-} peak=$peak_fp32
    [ "$precision" = fp32 ] || peak=$peak_tf32
    theirs=$(sed -nE "s/.*\"variant\": \"[a-z]+-$precision\".*\"tokens_per_second\": ([0-9.]+).*/\\1/p" \
      "$out/torch-${name%-*}-fp32.jsonl" 2> /dev/null | sort -g | tail -n 1)
    awk -v name="$name" -v tokens="$(value tokens_per_second "$file")" -v flops="$(value flops_per_token "$file")" \
      -v gemm="$(value gemm_gflops "$file")" -v peak="$peak" -v theirs="${theirs:--}" 'BEGIN {
        rate = tokens * flops * 1e-9
        printf "%-26s %10.0f %10.0f %9s %8.1f%% %10s  %s\n", name, tokens, rate,
          peak == "-" ? "-" : sprintf("%.1f%%", rate / peak / 10), 100 * rate / gemm, theirs == "-" ? "-" : sprintf("%.0f", theirs),
          theirs == "-" ? "-" : sprintf("%.2f", tokens / theirs) }'
  done
}
{
  echo "first minutes of $backend on $(uname -n), $(date -u +%Y-%m-%dT%H:%MZ): $(cat "$out/card.txt" 2> /dev/null)"
  [ ! -f "$source_root/ORIGIN" ] || head -n 2 "$source_root/ORIGIN"
  echo
  cat "$out/steps.txt"
  echo
  rates
  echo "FLOPs by the causal count of dekoder bench; peaks: fp32 $peak_fp32, TF32 $peak_tf32 TFLOP/s; GEMM: 2048^3 in the same run"
  echo "PyTorch: its best variant in the same precision, the whole batch at once; ratio: dekoder / PyTorch"
  echo
  if [ $failures -eq 0 ]; then echo "all steps passed"; else echo "$failures steps did not pass"; fi
} > "$out/summary.txt"
echo
cat "$out/summary.txt"
rm -rf "$out/work"
echo "results: $out"
[ $failures -eq 0 ]
