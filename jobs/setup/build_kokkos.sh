#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# build_kokkos.sh SOURCE PREFIX [--cuda ARCH | --hip ARCH] [-DKokkos_...]: builds Kokkos from its source tree SOURCE with the
# options that dekoder needs and installs it in the new folder PREFIX, for sites without a module. With neither --cuda nor
# --hip it is for CPUs. ARCH is a name of Kokkos': HOPPER90, AMPERE80, ADA89, AMD_GFX90A ...; an unknown one lists all. Further
# -D options go to Kokkos' own configuration. It needs cmake, and for GPUs the CUDA tool kit (nvcc) or ROCm (hipcc).
#   CXX                          the host's compiler (default g++)
#   CUDA_HOME, ROCM_PATH         where the tool kits are, if nvcc and hipcc are not on the PATH
#   CMAKE_BUILD_PARALLEL_LEVEL   compilers at once (default: every core)
# The library is static and for any x86-64: dekoder's own flags (DEKODER_ISA) reach its headers, where the work is.
set -euo pipefail

usage="build_kokkos.sh SOURCE PREFIX [--cuda ARCH | --hip ARCH] [-DKokkos_...]"
refuse() { # exit code 2; each further line is a remedy
  printf 'build_kokkos: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 2
}

places=() device='' arch='' more=()
while [ $# -gt 0 ]; do
  case $1 in
    --cuda | --hip)
      [ -z "$device" ] || refuse "--$device and $1: one Kokkos has one kind of GPU" "build each into a PREFIX of its own"
      device=${1#--}
      [ -n "${2:-}" ] || refuse "$1 needs the name of an architecture" "for example --cuda HOPPER90 or --hip AMD_GFX90A"
      arch=$2
      shift
      ;;
    -DCMAKE_INSTALL_PREFIX*) refuse "$1: Kokkos goes to PREFIX; expected $usage" ;;
    -D?*) more+=("$1") ;;
    -h | --help)
      sed -n '3,11s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    -*) refuse "unknown option $1; expected $usage" ;;
    *) places+=("$1") ;;
  esac
  shift
done
[ ${#places[@]} -eq 2 ] || refuse "got ${#places[@]} folders; expected two: $usage"
source=${places[0]} prefix=${places[1]}

list=$source/cmake/kokkos_arch.cmake
[ -f "$source/CMakeLists.txt" ] && [ -f "$list" ] ||
  refuse "$source holds no source tree of Kokkos (no cmake/kokkos_arch.cmake)" \
    "unpack a release of https://github.com/kokkos/kokkos, 4.6 or newer, and name its top folder"
[ ! -e "$prefix" ] || [ -d "$prefix" ] && [ -z "$(ls -A "$prefix" 2> /dev/null)" ] ||
  refuse "$prefix is there already; expected a new or empty folder" "remove it, or name another"
prefix=$(realpath -m "$prefix")
command -v cmake > /dev/null || refuse "needs cmake, which is not on the PATH" "module load cmake, or the site's name for it"

find_tool() { # find_tool NAME FOLDER...: its path, from the PATH or a folder
  local name=$1 folder
  type -P "$name" && return
  shift
  for folder in "$@"; do
    [ ! -x "$folder/$name" ] || { echo "$folder/$name"; return; }
  done
  return 1
}
known_archs() { # known_archs PATTERN: one a line
  grep -oE "$1" "$list" | sort -u
}
check_arch() { # check_arch PATTERN
  known_archs "$1" | grep -qx -- "$arch" ||
    refuse "--$device $arch: this Kokkos has no such architecture; expected one of $(known_archs "$1" | paste -sd ' ')"
}

options=(-DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_STANDARD=20 -DCMAKE_CXX_EXTENSIONS=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON
         -DBUILD_SHARED_LIBS=OFF -DKokkos_ENABLE_OPENMP=ON -DKokkos_ENABLE_SERIAL=OFF -DKokkos_ENABLE_TESTS=OFF
         -DKokkos_ENABLE_EXAMPLES=OFF -DKokkos_ENABLE_BENCHMARKS=OFF)
compiler=${CXX:-g++}
command -v "$compiler" > /dev/null || refuse "the compiler $compiler is not there" "name one that is: CXX=g++"
case $device in
  cuda)
    check_arch '\b(VOLTA|TURING|AMPERE|ADA|HOPPER|BLACKWELL)[0-9]+\b'
    nvcc=$(find_tool nvcc ${CUDA_HOME:+"$CUDA_HOME/bin"} /usr/local/cuda/bin) ||
      refuse "--cuda needs nvcc, which is neither on the PATH nor in CUDA_HOME" "module load cuda, or set CUDA_HOME"
    export PATH=${nvcc%/*}:$PATH NVCC_WRAPPER_DEFAULT_COMPILER=$compiler
    compiler=$prefix/bin/nvcc_wrapper
    # Kokkos' stream-ordered allocation is off: MPI libraries cannot register such memory.
    options+=(-DKokkos_ENABLE_CUDA=ON "-DKokkos_ARCH_$arch=ON" -DKokkos_ENABLE_CUDA_LAMBDA=ON
              -DKokkos_ENABLE_IMPL_CUDA_MALLOC_ASYNC=OFF)
    ;;
  hip)
    check_arch '\bAMD_GFX[0-9A-F]+(_APU)?\b'
    compiler=$(find_tool hipcc ${ROCM_PATH:+"$ROCM_PATH/bin"} /opt/rocm/bin) ||
      refuse "--hip needs hipcc, which is neither on the PATH nor in ROCM_PATH" "module load rocm, or set ROCM_PATH"
    options+=(-DKokkos_ENABLE_HIP=ON "-DKokkos_ARCH_$arch=ON")
    ;;
esac
build='' owned=''
clean_up() { # whatever is not finished goes, but for the log of a step that failed
  [ -z "$owned" ] || find "$prefix" -mindepth 1 -delete
  [ -z "$build" ] || rm -rf "$build"
}
. "$(dirname "${BASH_SOURCE[0]}")/stoppable.sh"
build=$(mktemp -d "${TMPDIR:-/tmp}/kokkos-build.XXXXXX" 2> /dev/null) ||
  refuse "the folder ${TMPDIR:-/tmp} for what is made on the way cannot be written" "set TMPDIR to one that can"
mkdir -p "$prefix" 2> /dev/null && [ -w "$prefix" ] || refuse "$prefix cannot be made or written" "name a folder that you may write"
# Made in one step: of two at once into one PREFIX, one has it.
mkdir "$prefix/bin" 2> /dev/null || refuse "$prefix is there already: another build_kokkos.sh goes on in it" "wait for it, or name another"
owned=1
# The wrapper of nvcc, with ARCH as its default: its own may be one that a newer tool kit no longer has.
lay_wrapper() {
  sed "s/^default_arch=.*/default_arch=sm_${arch##*[A-Z]}/" "$source/bin/nvcc_wrapper" > "$compiler"
  chmod +x "$compiler"
}
[ "$device" != cuda ] || lay_wrapper

start=$SECONDS
step() { # step WHAT COMMAND...: its output goes to the log, which stays if it fails
  local what=$1
  shift
  stoppable "$@" >> "$build/log" 2>&1 && return
  grep -E 'error|Error|FAILED' "$build/log" | head -n 20 >&2 || tail -n 20 "$build/log" >&2
  printf 'build_kokkos: %s failed; the log is %s\n' "$what" "$build/log" >&2
  rm -rf "$build/tree"
  build=''
  exit 1
}
command -v make > /dev/null || export CMAKE_GENERATOR=${CMAKE_GENERATOR:-Ninja}
export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
echo "build_kokkos: ${device:-cpu}${arch:+ $arch}, $(basename "$compiler"); the log is $build/log"
step "the configuration" cmake -S "$source" -B "$build/tree" "-DCMAKE_INSTALL_PREFIX=$prefix" \
  "-DCMAKE_CXX_COMPILER=$compiler" "${options[@]}" "${more[@]}"
# CMake lists what no line of Kokkos has read, one a line.
for option in ${more[@]+"${more[@]}"}; do
  name=${option#-D}
  name=${name%%[:=]*}
  ! sed '1,/Manually-specified variables were not used/d' "$build/log" | grep -x " *$name" > /dev/null ||
    refuse "$option: this Kokkos has no such option" "cmake -LH of its source tree lists all"
done
step "the build" cmake --build "$build/tree"
step "the installation" cmake --install "$build/tree"
[ "$device" != cuda ] || lay_wrapper
owned=''
echo "build_kokkos: installed in $prefix after $((SECONDS - start)) s"
case $device in
  '') echo "build_kokkos: dekoder takes it by -DDEKODER_KOKKOS_openmp=$prefix" ;;
  cuda) echo "build_kokkos: dekoder takes it by -DDEKODER_KOKKOS_cuda=$prefix" ;;
esac
