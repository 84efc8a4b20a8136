#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# enter_root.sh ROOT USER_ID GROUP_ID CMD...: the half of jobs/toolbox that runs as root in a mount namespace of its own.
# It lays ROOT's system and the machine's folders into one tree and becomes CMD there: same process, working directory,
# terminal, environment. The mounts belong to the namespace and vanish with its last process.
#
#   the machine's, at their own paths   everything in /, with /var, /run, /dev, /proc and /sys
#   ROOT's own, read-only               /usr (/bin, /lib, ...), /etc, /var/lib/dpkg, /var/lib/apt, /var/cache
#
# So what CMD writes reaches the machine's file of that path or fails (EROFS), and never lands where nobody looks for it.
# DEKODER_TOOLBOX_CHANGE=1 (jobs/toolbox --change) is for apt-get and its like: ROOT's own is writable, has the whole of
# /var and an empty /run, so that no package's script touches the machine's.
set -euo pipefail
shopt -s dotglob
root=$1 user=$2 group=$3
shift 3
here=$PWD change=${DEKODER_TOOLBOX_CHANGE:-}

# The tree is a tmpfs on a folder that ROOT has and does not need. Unbindable: a folder of the machine that holds ROOT is
# laid into the tree without the tree itself.
tree=$root/mnt
mount -t tmpfs -o mode=755 tmpfs "$tree"
mount --make-unbindable "$tree"

lay() { # lay SOURCE PATH: SOURCE, a folder or a file, at PATH of the tree
  local target=$tree$2
  if [ -d "$1" ]; then
    mkdir -p "$target"
    mount --rbind "$1" "$target"
  else
    mkdir -p "${target%/*}"
    [ ! -L "$target" ] || rm -f "$target"
    [ -e "$target" ] || : > "$target"
    mount --bind "$1" "$target"
  fi
}

own=(/etc /usr) sealed=()
for name in etc usr; do
  lay "$root/$name" "/$name"
done
for link in "$root"/*; do # bin, lib and so on, into /usr
  [ ! -L "$link" ] || cp -a "$link" "$tree/"
done

for top in /*; do
  case $top in
    /bin | /etc | /lib | /lib32 | /lib64 | /libx32 | /sbin | /usr) continue ;;
    /run | /var) [ -z "$change" ] || continue ;;
  esac
  if [ -L "$top" ]; then
    cp -a "$top" "$tree/"
  elif [ -e "$top" ]; then
    lay "$top" "$top"
  fi
done
if [ -n "$change" ]; then
  lay "$root/var" /var
  own+=(/var)
  mkdir "$tree/run"
  mount -t tmpfs -o mode=755 tmpfs "$tree/run"
else
  # Over the machine's, by their paths without links. On a machine without dpkg or apt nothing is hidden.
  for path in /var/lib/dpkg /var/lib/apt /var/cache; do
    [ -d "$path" ] || continue
    lay "$root$path" "$(readlink -f "$path")"
    own+=("$(readlink -f "$path")")
  done
fi

# What the command needs of the machine below ROOT's own, a checkout in /usr/src say; not where ROOT has a folder too.
for folder in "${root%/*}" "$here" "$DEKODER_CHECKOUT" "${HOME:-/root}" "${TMPDIR:-/tmp}"; do
  folder=$(readlink -f "$folder" || true)
  [ -d "$folder" ] || continue
  for path in "${own[@]}"; do
    case $folder in
      "$path"/*) [ -n "$(ls -A "$tree$folder" 2> /dev/null)" ] || lay "$folder" "$folder" ;;
    esac
  done
done

for file in /etc/resolv.conf /etc/hosts /etc/hostname /etc/localtime; do
  [ ! -e "$file" ] || lay "$(readlink -f "$file")" "$file"
done
# The machine's certificates: the bundle itself, since its folder of links belongs to the root's own packages.
for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
  if [ -s "$file" ] && [ -e "$root/etc/ssl/certs/ca-certificates.crt" ]; then
    lay "$(readlink -f "$file")" /etc/ssl/certs/ca-certificates.crt
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
      if [ ! -x "$tree$cuda/bin/nvcc" ]; then
        lay "$cuda" "$cuda"
        sealed+=("$cuda")
      fi
      [ "$cuda" = /usr/local/cuda ] || ln -sfn "$cuda" "$root/usr/local/cuda" 2> /dev/null || true
      path=$path:$cuda/bin
      ;;
  esac
fi

# Nothing but the machine's can be written.
[ -n "$change" ] || sealed+=("${own[@]}")
for folder in "${sealed[@]}" ""; do
  mount -o remount,bind,ro "$tree$folder"
done

# Settings that describe the machine's own tool chain mean nothing, or harm, inside.
unset LD_LIBRARY_PATH LD_PRELOAD LIBRARY_PATH CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH PKG_CONFIG_PATH CMAKE_PREFIX_PATH \
  PYTHONPATH PYTHONHOME PERL5LIB CC CXX FC AR LD NM RANLIB OPENBLAS_CORETYPE BASH_ENV ENV CDPATH DEKODER_TOOLBOX_CHANGE
export PATH=$path DEKODER_TOOLBOX=$root CCACHE_DIR=${CCACHE_DIR:-${root%/*}/ccache}
# The root of the whole namespace, unlike chroot's: programs that make namespaces of their own, Apptainer's say, refuse a chroot.
cd "$tree"
pivot_root . .
umount -l .
if [ "$user" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
  exec env -C "$here" -- "$@"
fi
exec setpriv --reuid "$user" --regid "$group" --groups "$DEKODER_GROUPS" env -C "$here" -- "$@"
