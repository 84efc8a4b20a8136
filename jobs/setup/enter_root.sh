#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# enter_root.sh ROOT USER_ID GROUP_ID CMD...: the half of jobs/toolbox that runs as root in a mount namespace of its own.
# It lays the machine's folders into ROOT and becomes CMD there: same process, working directory, terminal, environment.
# The mounts belong to the namespace and vanish with its last process.
set -euo pipefail
root=$1 user=$2 group=$3
shift 3
here=$PWD

bind() { # bind SOURCE [ro]: SOURCE, a folder or a file, at its own path inside
  local source=$1 target=$root$1
  if [ -d "$source" ]; then
    mkdir -p "$target"
    mount --rbind "$source" "$target"
  else
    mkdir -p "${target%/*}"
    [ -e "$target" ] || { rm -f "$target"; : > "$target"; }
    mount --bind "$source" "$target"
  fi
  [ "${2:-}" != ro ] || mount -o remount,bind,ro "$target" 2> /dev/null || true
}

# A mount point of its own, as a command that makes mounts expects of its /.
mount --bind "$root" "$root"

# Every top-level folder that is not the system's own. The one that holds ROOT comes first: a folder laid into ROOT
# before it would be copied along.
bound=()
bind_top() {
  local top=$1
  if [ -L "$top" ]; then
    [ -e "$root$top" ] || ln -sfn "$(readlink "$top")" "$root$top"
  elif [ -d "$top" ]; then
    bind "$top"
    bound+=("$top/")
  fi
}
first=/$(cut -d/ -f2 <<< "$root")
for top in "$first" /*; do
  [ "${bound[0]:-}" != "$top/" ] || continue
  case $top in
    /bin | /boot | /dev | /etc | /lib | /lib32 | /lib64 | /libx32 | /lost+found | /proc | /run | /sbin | /sys | /usr | /var) ;;
    *) bind_top "$top" ;;
  esac
done
# A checkout or a home below one of the system's folders, /var/lib/... say.
for folder in "${root%/*}" "$here" "$DEKODER_CHECKOUT" "${HOME:-/root}" "${TMPDIR:-/tmp}"; do
  covered=
  for top in "${bound[@]}"; do
    case "$folder/" in "$top"*) covered=1 ;; esac
  done
  [ -n "$covered" ] || [ ! -d "$folder" ] || [ "$folder" = / ] || bind "$folder"
done
for folder in /proc /sys /dev; do bind "$folder"; done
mount -t tmpfs -o mode=755 tmpfs "$root/run"

for file in /etc/resolv.conf /etc/hosts /etc/hostname /etc/localtime; do
  if [ -e "$file" ]; then
    source=$(readlink -f "$file") target=$root$file
    [ ! -L "$target" ] || rm -f "$target"
    [ -e "$target" ] || : > "$target"
    mount --bind "$source" "$target"
  fi
done
# The machine's certificates: the bundle itself, since its folder of links belongs to the root's own packages.
for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
  if [ -s "$file" ] && [ -e "$root/etc/ssl/certs/ca-certificates.crt" ]; then
    mount --bind "$(readlink -f "$file")" "$root/etc/ssl/certs/ca-certificates.crt"
    break
  fi
done
# The user by name, so that git, ssh and Open MPI know who runs.
if [ "$user" != 0 ] && ! grep -q "^[^:]*:[^:]*:$user:" "$root/etc/passwd"; then
  { getent passwd "$user" || echo "user$user:x:$user:$group::${HOME:-/}:/bin/bash"; } >> "$root/etc/passwd"
  grep -q "^[^:]*:[^:]*:$group:" "$root/etc/group" || { getent group "$group" || echo "group$group:x:$group:"; } >> "$root/etc/group"
fi

path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$DEKODER_CHECKOUT/postprocess/bin
cuda=${CUDA_HOME:-${CUDA_PATH:-/usr/local/cuda}}
cuda=$(readlink -f "$cuda" || true)
if [ -n "$cuda" ] && [ -x "$cuda/bin/nvcc" ]; then
  case $cuda in
    /usr) ;;
    *)
      [ -x "$root$cuda/bin/nvcc" ] || bind "$cuda" ro
      ln -sfn "$cuda" "$root/usr/local/cuda" 2> /dev/null || true
      path=$path:$cuda/bin
      ;;
  esac
fi

# Settings that describe the machine's own tool chain mean nothing, or harm, inside.
unset LD_LIBRARY_PATH LD_PRELOAD LIBRARY_PATH CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH PKG_CONFIG_PATH CMAKE_PREFIX_PATH \
  PYTHONPATH PYTHONHOME PERL5LIB CC CXX FC AR LD NM RANLIB OPENBLAS_CORETYPE BASH_ENV ENV
export PATH=$path DEKODER_TOOLBOX=$root CCACHE_DIR=${CCACHE_DIR:-${root%/*}/ccache}
if [ "$user" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
  exec chroot "$root" env -C "$here" -- "$@"
fi
exec chroot "$root" setpriv --reuid "$user" --regid "$group" --groups "$DEKODER_GROUPS" env -C "$here" -- "$@"
