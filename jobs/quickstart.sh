#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# jobs/quickstart.sh [TEXT]: from a fresh machine to a trained decoder. Makes what is missing (the toolbox, the build, the
# corpus), trains input/quickstart.yaml for about five minutes and ends with loss, a sample, a report as one HTML page and the
# command that goes on.
# TEXT: any text file instead of Jane Austen. Run again, it resumes; a finished run is shown again.
# DEKODER_NATIVE=1 or 0: build with the machine's own packages, or in the toolbox; unset: the former where they suffice.
set -euo pipefail
unset CDPATH
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fail() {
  printf 'quickstart: %s\n' "$@" >&2
  exit 1
}

text=${1:-}
if [ -n "$text" ]; then
  [ -f "$text" ] && [ -r "$text" ] || fail "$text: not a readable file; expected a text file, e.g. bash jobs/quickstart.sh my.txt"
  text=$(realpath "$text")
fi
cd "$checkout"
bash jobs/setup/native.sh || exec bash jobs/toolbox bash jobs/quickstart.sh ${text:+"$text"}
enter=
[ -z "${DEKODER_TOOLBOX:-}" ] || enter="jobs/toolbox "

dekoder=build/openmp/dekoder
mkdir -p build/openmp data
echo "== build"
if ! { cmake --preset openmp -DDEKODER_TESTS=OFF && cmake --build --preset openmp; } > build/openmp/build.log 2>&1; then
  grep -E 'error|Error|Could not find' build/openmp/build.log | head -n 10 >&2 || tail -n 10 build/openmp/build.log >&2
  fail "the build failed (log: build/openmp/build.log)" \
    "remove build/openmp and try again; with DEKODER_NATIVE=1 check that all packages of the README's cluster section are there"
fi

if [ -z "$text" ]; then
  text=data/austen.txt
  tokens=data/austen-byte.h5 run=runs/quickstart
  echo "== text: six novels by Jane Austen ($text)"
  python3 jobs/setup/austen_corpus.py "$text"
else
  name=$(basename "$text" | tr -c 'A-Za-z0-9\n' '-')-$(sha256sum "$text" | cut -c1-8)
  tokens=data/$name.h5 run=runs/$name
  echo "== text: $text"
fi
"$dekoder" prepare "$text" -o "$tokens"

echo "== training (Ctrl-C saves; the same command goes on)"
code=0
"$dekoder" train input/quickstart.yaml --set "data.tokens=$tokens" --run "$run" || code=$?
again="bash jobs/quickstart.sh${1:+ $(printf %q "$1")}"
[ $code -ne 85 ] || echo "== saved; go on with: $again"
[ $code -eq 0 ] || exit $code

echo "== result"
"$dekoder" eval "$run"
echo "== sample"
"$dekoder" generate "$run" --prompt "$(printf '%s' "${DEKODER_PROMPT:-The }")" --tokens 400 --temperature 0.7
echo "== report"
if python3 -c 'import h5py, numpy, yaml' 2> /dev/null; then
  python3 postprocess/bin/dekoder-report "$run" -o "$run/report.html"
else
  echo "no report: Python's h5py, numpy and yaml (PyYAML) are missing here; install them, then: postprocess/bin/dekoder-report $run -o $run/report.html"
fi
# More steps go on from before the learning rate fell, as if they had been meant from the start.
read -r steps plateau < <(awk '$1 == "steps:" && $2 ~ /^[0-9]+$/ { steps = $2 } $1 == "decay_fraction:" { share = $2 }
  END { printf "%d %d\n", steps, steps - share * steps }' "$run/config.yaml")
longer=$run-longer from='' later=''
for file in "$run"/checkpoints/ckpt-*.h5; do
  step=${file##*/ckpt-}
  step=$((10#${step%.h5}))
  if [ "$step" -le "$plateau" ]; then from=$step; else later+=" $longer/checkpoints/${file##*/}"; fi
done
echo "== the run is in $checkout/$run"
[ -z "$from" ] || cat <<END
   more steps, going on from step $from, before the learning rate fell:
     cp -r $run $longer && rm$later
     $enter$dekoder train input/quickstart.yaml --set data.tokens=$tokens --run $longer --set training.steps=$((3 * steps))
END
cat <<END
   a text's attention: $enter$dekoder attention $run --text "It was a dark and stormy night"
   more text:    $enter$dekoder generate $run --prompt "She was"
END
