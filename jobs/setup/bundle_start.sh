#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bin/dekoder and bin/dekoder-test of a folder that jobs/bundle made. They start dekoder, or one of its test programs, with the
# folder's own loader and libraries, so that nothing has to be installed and the machine's libc does not matter:
#   bin/dekoder COMMAND ...                      as dekoder everywhere; the folder may be moved and may be read-only
#   bin/dekoder-test [PROGRAM [--gtest_...]]     runs a test program of tests/; without one, prints their names
# The machine gives the driver of its cards, libcuda.so.1, which fits its own kernel alone, and the libraries that the file
# lib/dekoder/from_machine names. They are looked for in the usual places, and their folders go behind the carried lib/ in the
# loader's list: what lib/ has, libc above all, comes from lib/, whatever else those folders hold.
# Without the cuda plug-in the shell's own words are all that this needs.
set -u
unset CDPATH
fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

called=$0
case $called in
  */*) ;;
  *) [ -e "./$called" ] && called=./$called || called=$(command -v -- "$called") ;; # sh dekoder ...
esac
self=$called
[ ! -h "$self" ] || self=$(readlink -f -- "$self")
folder=$(cd -P -- "${self%/*}/.." && pwd -P) || exit 2 # -P: bin/ itself may be a link
loader=$folder/lib/ld-linux-x86-64.so.2
case $folder in
  *[:\;]*) fail "$folder: the loader takes ':' and ';' for the end of a path; expected a folder without them; move or rename it" ;;
esac

# Whole: what is missing would be taken from the machine, silently, or end in words of the shell.
incomplete() { fail "$folder/$1: cannot be read; expected all that jobs/bundle packed; unpack or copy the folder again, where the disk has room"; }
[ -r "$folder/lib/dekoder/parts" ] || incomplete lib/dekoder/parts
while read -r part; do
  [ -r "$folder/$part" ] || incomplete "$part"
done < "$folder/lib/dekoder/parts"
[ -x "$loader" ] || fail "$loader: may not be executed; expected the permissions of the packed folder, on a file system that is not mounted noexec; unpack it elsewhere"

# What the program was built for. Without these instructions it would die of SIGILL.
read -r isa < "$folder/lib/dekoder/isa"
case $isa in
  x86-64-v*)
    case $("$loader" --help) in
      *"$isa (supported"*) ;;
      *) fail "this processor lacks instructions of $isa, for which this folder was built; expected one that has them; build with another -DDEKODER_ISA" ;;
    esac
    ;;
esac

# Each of these puts the folder that has library $wanted into $found, or fails. A file of this name that the loader cannot
# take, of 32 bits or cut short, is passed by.
# look_in FOLDER...: the first of the folders that has it.
look_in() {
  for found in "$@"; do
    [ ! -e "$found/$wanted" ] || ! loadable "$found/$wanted" || return 0
  done
  return 1
}
loadable() {
  { "$loader" --verify "$1"; } > /dev/null 2>&1
  case $? in 0 | 2) ;; *) return 1 ;; esac # 0: a program, 2: a library
}
# look_in_list LIST: the first folder of a list with colons, as LD_LIBRARY_PATH is.
look_in_list() {
  list=$1:
  while [ -n "$list" ]; do
    entry=${list%%:*}
    list=${list#*:}
    [ -z "$entry" ] || ! look_in "$entry" || return 0
  done
  return 1
}
# look_in_cache: where the machine's own loader would find it. ldconfig tells thousands of libraries, once, in lines
# "NAME (libc6,x86-64, ...) => FOLDER/NAME".
look_in_cache() {
  [ -n "${cache+told}" ] || cache=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2> /dev/null) || cache=''
  entry=$(
    set -f
    IFS='
'
    for line in $cache; do
      case $line in
        (*[[:space:]]"$wanted (libc6,x86-64"*"=> /"*)
          line=${line##*=> }
          printf '%s' "${line%/*}"
          break
          ;;
      esac
    done
  )
  [ -n "$entry" ] && look_in "$entry"
}
# look_in_packages FOLDER...: NVIDIA's packages of PyPI among Python's packages, as PyTorch brings them.
look_in_packages() {
  for site in "$@"; do
    look_in "$site"/nvidia/cublas/lib "$site"/nvidia/cu*/lib && return 0
  done
  return 1
}

find_driver() {
  wanted=libcuda.so.1
  look_in_list "${LD_LIBRARY_PATH:-}" || look_in_cache ||
    look_in /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/lib/x86_64-linux-gnu/nvidia/current \
      /usr/local/nvidia/lib64 /.singularity.d/libs /run/opengl-driver/lib /usr/lib/wsl/lib
}

find_cuda_library() { # find_cuda_library NAME
  wanted=$1
  cuda=${CUDA_HOME:-${CUDA_PATH:-/usr/local/cuda}}
  # shellcheck disable=SC2046
  look_in_list "${LD_LIBRARY_PATH:-}" ||
    look_in "$cuda/lib64" "$cuda/lib" "${NVHPC_ROOT:-/opt/nvidia/hpc_sdk}/math_libs/lib64" /usr/local/cuda*/lib64 \
      /usr/local/cuda*/lib "${CONDA_PREFIX:-/opt/conda}/lib" ||
    look_in_cache ||
    look_in_packages "${VIRTUAL_ENV:-/opt/venv}"/lib/python3*/site-packages \
      "${CONDA_PREFIX:-/opt/conda}"/lib/python3*/site-packages /usr/local/lib/python3*/*-packages ||
    look_in_packages $(python3 -c 'import sys; print(*(f for f in sys.path if f and " " not in f))' 2> /dev/null)
}

libraries=$folder/lib
if [ -e "$folder/lib/dekoder/libdekoder_cuda_float.so" ] && find_driver; then
  libraries=$libraries:$found
  while read -r name; do
    if find_cuda_library "$name"; then
      libraries=$libraries:$found
    elif case " $*" in *openmp*) false ;; esac; then
      printf 'warning: %s\n' "this machine has a driver for GPUs, but no $name was found in LD_LIBRARY_PATH, CUDA_HOME, /usr/local/cuda*, NVHPC_ROOT or Python's packages; --backend cuda needs it: load the CUDA module, or pip install nvidia-cublas, or pack the folder with --with-cuda-libraries; --backend openmp runs without" >&2
    fi
  done < "$folder/lib/dekoder/from_machine"
fi

case ${called##*/} in
  dekoder-test)
    # A test that starts its own program again, to see it end, starts argv[0] with options alone.
    case ${1:-} in
      --help | -h)
        echo "bin/dekoder-test [PROGRAM [--gtest_...]]: runs a test program of this folder; without one, prints their names"
        exit 0
        ;;
      -*) set -- "${DEKODER_TEST_PROGRAM:-"$1"}" "$@" ;;
    esac
    test=${1:-} any=
    for program in "$folder"/tests/*/*_test_* "$folder"/tests/support/*; do
      [ -e "$program" ] || continue
      any=1
      [ -n "$test" ] || echo "${program##*/}"
      [ "$test" != "${program##*/}" ] || break
    done
    [ -n "$any" ] || fail "this folder was made of a build without tests; expected one configured with -DDEKODER_TESTS=ON"
    [ -n "$test" ] || exit 0
    [ "$test" = "${program##*/}" ] || fail "$test: no such test program; bin/dekoder-test without an argument prints their names"
    shift
    export DEKODER_SOURCE_DIR="$folder" DEKODER_TEST_PROGRAM="$test"
    set -- --argv0 "$folder/bin/dekoder-test" --library-path "$libraries" "$program" "$@"
    ;;
  *) set -- --argv0 "$folder/bin/dekoder" --library-path "$libraries" "$folder/lib/dekoder/dekoder" "$@" ;;
esac
exec "$loader" "$@"
