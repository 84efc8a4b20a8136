#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tests/gpu/first_minutes.sh [OPTIONS] [PLACE]: what to do with ten minutes on a card. It starts dekoder, runs the test programs of
# the backend, compute-sanitizer, a kill and a restart, 200 steps beside openmp, the benchmarks, and PyTorch on the same card.
# PLACE is a folder of jobs/bundle (default: the one this script lies in) or a build folder (default: build/cuda).
# All goes into one folder: logs, JSON, and summary.txt, the table, which grows step by step. A step that fails or takes too long
# is recorded and the next one starts; Ctrl-C ends all with the table so far. Needs bash, coreutils, sed, grep and awk; PyTorch's
# part a python3 that has torch. The card is the first of CUDA_VISIBLE_DEVICES, by nvidia-smi's numbers or UUIDs; of the variables
# of dekoder and Kokkos the steps see DEKODER_PLUGIN_PATH alone.
#   --backend cuda|openmp   what is looked at (default cuda); openmp is the rehearsal without a card
#   --minutes N             for all together (default 10); each step has a share of it as its limit
#   -o FOLDER               of the results, new or empty (default first-minutes-<host>-<time>)
#   --tests GLOB            names of test programs to run (default '*')
#   --models LIST           of input/, each NAME or NAME:BATCH (default 'talk-multihead char-10m gpt2-124m gpt2-124m:32')
#   --steps N               timed steps of each benchmark and of PyTorch (default 0: as many as fill ten seconds)
#   --curve N               steps beside openmp, 12 or more (default 200)
#   --python PYTHON         the one with torch (default python3)
#   --peak-fp32 X, --peak-tf32 X   TFLOP/s of the card, for the share of its peak (default: by its name); bf16 has twice TF32's
# Exit code: 0 all steps passed or were skipped for a reason that the table gives, 1 some did not, 2 command line, 3 the results
# cannot be written, 130, 143, 129 or 141 stopped by SIGINT, SIGTERM, SIGHUP or SIGPIPE.
case ${BASH:-} in *bash) ;; *) exec bash "$0" "$@" ;; esac # sh first_minutes.sh
set -uo pipefail
fail() { # fail EXIT_CODE MESSAGE
  printf 'first_minutes: %s\n' "$2" >&2
  exit "$1"
}

backend=cuda minutes=10 out='' tests='*' models='talk-multihead char-10m gpt2-124m gpt2-124m:32' steps=0 curve=200 python=python3
peak_fp32='' peak_tf32='' place=''
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h)
      sed -n '3,/^[^#]/s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    --backend | --minutes | -o | --tests | --models | --steps | --curve | --python | --peak-fp32 | --peak-tf32)
      [ $# -gt 1 ] || fail 2 "$1: expected a value"
      name=${1#--} name=${name/#-o/out}
      declare "${name/-/_}=$2"
      shift
      ;;
    -*) fail 2 "$1: no such option; see --help" ;;
    *)
      [ -z "$place" ] || fail 2 "$1: a second place; expected one folder"
      place=$1
      ;;
  esac
  shift
done
case $backend in cuda | openmp) ;; *) fail 2 "--backend $backend: expected cuda or openmp" ;; esac
whole() { # whole NAME LEAST: the option's value is a number, in base 10 whatever it begins with
  [[ ${!1} =~ ^[0-9]{1,6}$ ]] && [ "$((10#${!1}))" -ge "$2" ] || fail 2 "--$1 ${!1}: expected a whole number from $2 to 999999"
  declare -g "$1=$((10#${!1}))"
}
whole minutes 1
whole steps 0
whole curve 12 # the learning rate warms up for ten and needs two to decay
for number in "$peak_fp32" "$peak_tf32"; do
  [[ -z $number || $number =~ ^[0-9]+(\.[0-9]+)?$ && $number =~ [1-9] ]] || fail 2 "$number: expected TFLOP/s, e.g. --peak-fp32 66.9"
done
read -rd '' -a models <<< "$models"
for model in "${models[@]}"; do
  [[ $model =~ ^[A-Za-z0-9][A-Za-z0-9._-]*(:[1-9][0-9]{0,5})?$ ]] ||
    fail 2 "--models $model: expected the NAME of a file of input/ without .yaml, or NAME:BATCH"
done

# The environment of all steps. They run in a folder of their own, so that every path begins at the root.
for name in "${!DEKODER_@}" "${!KOKKOS_@}" CDPATH; do
  [ "$name" = DEKODER_PLUGIN_PATH ] || unset "$name"
done
from_root() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$PWD/$1" ;; esac }
for name in CUDA_HOME DEKODER_PLUGIN_PATH LD_LIBRARY_PATH NVHPC_ROOT PATH PYTHONPATH; do
  list=
  IFS=: read -ra folders <<< "${!name:-}"
  for folder in ${folders[@]+"${folders[@]}"}; do
    [ -z "$folder" ] || list+=:$(from_root "$folder")
  done
  [ -z "$list" ] || export "$name=${list#:}"
done
export LC_ALL=C CUDA_DEVICE_ORDER=PCI_BUS_ID OMP_PROC_BIND=${OMP_PROC_BIND:-false}
found=$(type -P -- "$python") && python=$(from_root "$found")

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
source_root=${here%/*/*}
if [ -z "$place" ]; then
  place=$source_root/build/cuda
  [ ! -x "$source_root/bin/dekoder" ] || place=$source_root
fi
[ -d "$place" ] || fail 2 "$place: no such folder; expected one of jobs/bundle or a build folder"
place=$(from_root "$place") dekoder=$place/dekoder bundle=
if [ -x "$place/bin/dekoder" ]; then
  dekoder=$place/bin/dekoder bundle=$place
fi
[ -x "$dekoder" ] || fail 2 "$place: has neither bin/dekoder nor dekoder; expected a folder of jobs/bundle or a build folder"

# The folder belongs to the one who makes work/ in it.
out=$(from_root "${out:-first-minutes-$(uname -n)-$(date +%Y%m%d-%H%M%S)}")
mkdir -p "$out" 2> /dev/null && [ -w "$out" ] || fail 3 "$out: cannot be made or written; expected the name of a new folder"
mkdir "$out/work" 2> /dev/null || fail 2 "$out: is in use, or cannot be written; expected a new or an empty folder"
[ "$(ls -A "$out")" = work ] || { rmdir "$out/work" && fail 2 "$out: is not empty; expected a new or an empty folder"; }
cd "$out/work" || exit 3

# ---------------------------------------------------------------- what the steps use

# say TEXT: what the table says of this step; the last one counts, so that a step that is stopped shows how far it came.
say() { printf '%s\n' "$*" > note; }
skip() {
  say "$*"
  echo skipped > result
  exit 0
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
  local card='no nvidia-smi' number=${CUDA_VISIBLE_DEVICES:-0}
  if [ "$backend" != cuda ]; then
    card='none, the rehearsal'
  elif command -v nvidia-smi > /dev/null; then
    card=$(nvidia-smi -i "${number%%,*}" --query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm --format=csv,noheader) ||
      card="nvidia-smi: $card"
    nvidia-smi -q -i "${number%%,*}"
  fi
  card=${card%%$'\n'*}
  echo "$card" > "$out/card.txt"
  "$dekoder" --version && "$dekoder" describe "$source_root/input/gpt2-124m.yaml" --backend "$backend" || return 1
  cat "$source_root"/README.md "$source_root"/src/*/*.hpp "$source_root"/src/*/*.cpp > text.txt
  "$dekoder" prepare text.txt -o tokens.h5 --tokenizer char --backend "$backend" || return 1
  say "$card; $("$dekoder" --version)"
}

programs() { # programs KIND: all test programs of the backend, one after the other
  local file name there=0 passed=0 failed=''
  for file in "$place/tests/$1"/*_test_*_"$backend"_{float,double,bf16}; do
    [ -x "$file" ] || continue
    there=$((there + 1)) name=${file##*/}
    # shellcheck disable=SC2254
    case $name in $tests) ;; *) continue ;; esac
    echo "== $name"
    find_program "$file"
    if timeout --foreground -s KILL 300 "${program[@]}"; then
      passed=$((passed + 1))
    else
      failed+=" $name"
    fi
    say "$passed programs passed${failed:+; failed:$failed}"
  done
  [ -z "$failed" ] || return 1
  [ $there -gt 0 ] || skip "this place has no such programs for $backend"
  [ $passed -gt 0 ] || skip "--tests $tests names none of this place's $there"
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

bench() { # bench MODEL NAME WORD...: JSON into bench-NAME.json
  local batch=${1#*:} settings=() tokens
  [ "$batch" = "$1" ] || settings=(--set "training.batch=$batch" --set "training.micro_batch=$batch")
  grep -q vocabulary: "$source_root/input/${1%:*}.yaml" || settings+=(--set model.vocabulary=96)
  "$dekoder" bench "$source_root/input/${1%:*}.yaml" --backend "$backend" --json --steps "$steps" "${settings[@]}" "${@:3}" > bench.json ||
    return 1
  cat bench.json
  tokens=$(value tokens_per_second bench.json)
  [ -n "$tokens" ] || return 1
  say "${tokens%.*} tokens/s, $(value step_seconds_median bench.json) s per step"
  mv bench.json "$out/bench-$2.json"
}

torch() { # torch NAME: PyTorch on the shapes of bench-NAME.json
  local rates code device=cpu
  [ -f "$out/bench-$1.json" ] || skip "no benchmark of $1 to compare with"
  [ -x "$python" ] || skip "$python: no such program"
  "$python" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("torch"))' || skip "$python has no torch"
  [ "$backend" = openmp ] || device=cuda
  "$python" -B "$here/torch_peer.py" "$out/bench-$1.json" --device $device --steps "$steps" > "$out/torch-$1.jsonl"
  code=$?
  cat "$out/torch-$1.jsonl"
  rates=$(sed -nE 's/.*"variant": "([^"]+)".*"tokens_per_second": ([0-9]+).*/\1 \2/p' "$out/torch-$1.jsonl" | paste -sd, | sed 's/,/, /g')
  [ -z "$rates" ] || say "$rates tokens/s$([ $code -eq 0 ] || echo "; then $(ended $code)")"
  return $code
}

# ---------------------------------------------------------------- one after the other, each with its limit

groups='' stopped='' exit_code=0 passed=0 skipped=0 failures=0
end=$((SECONDS + 60 * minutes))
ended() { # ended EXIT_CODE, in words
  local signal
  signal=$([ "$1" -le 128 ] || kill -l "$1" 2> /dev/null)
  echo "exit code $1${signal:+ (SIG$signal)}"
}
kill_groups() {
  # shellcheck disable=SC2086
  kill -KILL -- $groups 2> /dev/null
  groups=
}
stop() { # stop EXIT_CODE REASON: the step that runs ends at once, and no other starts
  exit_code=$1 stopped=$2
  kill_groups
}
for name in HUP INT PIPE TERM; do
  # shellcheck disable=SC2064
  trap "stop $((128 + $(kill -l $name))) SIG$name" $name
done
# tell TEXT: on the screen and in the table. Where the disk has no room left, a step's log and note cannot be trusted either.
tell() {
  printf '%s\n' "$1" 2> /dev/null
  { printf %65536s '' > room && : > room && printf '%s\n' "$1" >> "$out/summary.txt"; } 2> /dev/null ||
    stop 3 "$out cannot be written; is the disk full?"
}
# A step is a process group of its own, and so is the clock that ends it: with the group goes whatever the step has started.
step() { # step NAME SHARE FUNCTION ARGUMENT...: SHARE percent of the time at most
  local name=$1 limit=$((minutes * 60 * $2 / 100)) left=$((end - SECONDS)) begin=$SECONDS job code result text
  shift 2
  [ -z "$stopped" ] || return 0
  : > note
  : > result
  [ "$limit" -le "$left" ] || limit=$left
  [ "$limit" -gt 0 ] || { limit=0 && say 'all time was used up before'; }
  set -m
  "$@" > "$out/$name.log" 2>&1 < /dev/null &
  job=$! groups=-$!
  { sleep "$limit" && echo 'NO TIME' > result && kill -KILL -- "$groups"; } > /dev/null 2>&1 < /dev/null &
  groups+=" -$!"
  disown # else the shell reports its end
  set +m
  [ -z "$stopped" ] || kill_groups
  wait "$job" 2> /dev/null
  code=$?
  kill_groups
  wait 2> /dev/null
  result=$(< result) text=$(< note)
  [ -z "$stopped" ] || result=STOPPED
  [ -n "$result" ] || { [ $code -eq 0 ] && result=passed || result=FAILED; }
  case $result in
    passed) passed=$((passed + 1)) ;;
    skipped) skipped=$((skipped + 1)) ;;
    *) failures=$((failures + 1)) ;;
  esac
  [ "$result" != 'NO TIME' ] || text="stopped after $limit s; $text"
  [ "$result" != FAILED ] || [ -n "$text" ] || text="$(ended $code): $(tail -n 1 "$out/$name.log")"
  tell "$(printf '%-24s %-8s %5d s  %s' "$name" "$result" $((SECONDS - begin)) "$text")"
}

tell "first minutes of $backend on $(uname -n), $(date -u +%Y-%m-%dT%H:%MZ)"
[ ! -f "$source_root/ORIGIN" ] || tell "$(head -n 2 "$source_root/ORIGIN")"
tell ''
step starts 10 starts
step tests-unit 25 programs unit
step tests-gradient 15 programs gradient
step tests-parity 10 programs parity
step compute-sanitizer 15 sanitizer
step restart 10 restart
step curve-as-openmp 10 same_curve
for model in "${models[@]}"; do
  DEKODER_TF32=0 step "bench-${model/:/-b}-fp32" 15 bench "$model" "${model/:/-b}-fp32"
  [ "$backend" = openmp ] || DEKODER_TF32=1 step "bench-${model/:/-b}-tf32" 15 bench "$model" "${model/:/-b}-tf32"
  step "bench-${model/:/-b}-bf16" 15 bench "$model" "${model/:/-b}-bf16" --set training.precision=bf16
done
for model in "${models[@]}"; do
  step "torch-${model/:/-b}" 20 torch "${model/:/-b}-fp32"
done

# ---------------------------------------------------------------- the rates

trap '' INT TERM HUP PIPE # what is left takes no time
# Peaks without sparsity, TFLOP/s, from NVIDIA's data sheets: CUDA cores in fp32, tensor cores in TF32; in bf16 they have twice that.
card=$(cat "$out/card.txt" 2> /dev/null)
case $card in
  *H100*PCIe*) peaks='51.2 378' ;;
  *H100*NVL* | *H200*NVL*) peaks='60 417' ;;
  *H100* | *H200*) peaks='66.9 494.7' ;;
  *A100*) peaks='19.5 156' ;;
  *) peaks='- -' ;;
esac
peak_fp32=${peak_fp32:-${peaks% *}} peak_tf32=${peak_tf32:-${peaks#* }}
rates() { # one line per benchmark: rates, share of the peak, PyTorch's best of the same precision
  local file name precision peak times theirs
  printf '%-26s %10s %10s %9s %9s %10s  %s\n' benchmark tokens/s GFLOP/s of-peak of-GEMM PyTorch ratio
  for file in "$out"/bench-*.json; do
    [ -f "$file" ] || continue
    name=${file##*/bench-} name=${name%.json}
    precision=${name##*-} peak=$peak_tf32 times=1
    case $precision in
      fp32) peak=$peak_fp32 ;;
      bf16) times=2 ;;
    esac
    theirs=$(sed -nE "s/.*\"variant\": \"[a-z]+-$precision\".*\"tokens_per_second\": ([0-9.]+).*/\\1/p" \
      "$out/torch-${name%-*}-fp32.jsonl" 2> /dev/null | sort -g | tail -n 1)
    awk -v name="$name" -v tokens="$(value tokens_per_second "$file")" -v flops="$(value flops_per_token "$file")" \
      -v gemm="$(value gemm_gflops "$file")" -v peak="$peak" -v times=$times -v theirs="${theirs:--}" 'BEGIN {
        rate = tokens * flops * 1e-9
        printf "%-26s %10.0f %10.0f %9s %8.1f%% %10s  %s\n", name, tokens, rate,
          peak == "-" ? "-" : sprintf("%.1f%%", rate / (times * peak) / 10), 100 * rate / gemm, theirs == "-" ? "-" : sprintf("%.0f", theirs),
          theirs == "-" ? "-" : sprintf("%.2f", tokens / theirs) }'
  done
}
tell "
$(rates)
card: $card; peaks: fp32 $peak_fp32, TF32 $peak_tf32 TFLOP/s, bf16 twice that; FLOPs by the causal count of dekoder bench; GEMM: 2048^3 in the same run
PyTorch: its best variant in the same precision, the whole batch at once; ratio: dekoder / PyTorch

$passed passed, $skipped skipped, $failures steps did not pass${stopped:+; stopped: $stopped}"
cd "$out" && rm -rf "$out/work"
echo "results: $out"
[ $exit_code -ne 3 ] || fail 3 "$stopped"
[ $failures -eq 0 ] && [ $passed -gt 0 ] || exit_code=${exit_code/#0/1}
exit "$exit_code"
