#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# make_root.sh ROOT OWNER: makes the private Debian 13 root of jobs/toolbox, as root, with the machine's own apt: its
# mirror, proxy, certificates and keys; no other tool is needed. It grows under a temporary name and gets its own name
# when it is whole; a lock lets one maker work at a time, and what an interrupted one left behind is cleared away.
set -euo pipefail
unset CDPATH
# The work in a process group of its own: a signal ends all of it, whatever runs at that moment.
if [ "${3:-}" != grouped ]; then
  setsid bash "${BASH_SOURCE[0]}" "$@" grouped < /dev/null &
  group=$!
  for signal in HUP:129 INT:130 TERM:143; do
    # shellcheck disable=SC2064
    trap "kill -TERM -- -$group 2> /dev/null; wait $group || true; echo 'toolbox: interrupted; nothing is left behind' >&2; exit ${signal#*:}" ${signal%:*}
  done
  wait "$group"
  exit
fi
root=$1 owner=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${root%/*}
part=$root.part
native="or build with the machine's own packages: README.md, \"On a cluster\" (cmake --preset openmp)"
suite=trixie
needed_mib=4500

fail() {
  printf 'toolbox: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}
step() {
  local text=$1 start=$SECONDS
  shift
  "$@"
  printf '  %-58s %4d s\n' "$text" $((SECONDS - start)) >&2
}

for tool in apt-get dpkg-deb flock unshare tar; do
  command -v $tool > /dev/null || fail "needs $tool, which Debian and Ubuntu have; this machine has none" \
    "use the Apptainer definition jobs/setup/dekoder.def, $native"
done
[ "$(dpkg --print-architecture)" = amd64 ] || fail "is for x86-64 machines, this one is $(dpkg --print-architecture)" "$native"

if ! { mkdir -p "$cache" && chown "$owner" "$cache" && : >> "$cache/toolbox.lock"; } 2> /dev/null; then
  fail "cannot write $cache as root" "set XDG_CACHE_HOME to a folder on a local disk, with $needed_mib MiB free"
fi
exec 9>> "$cache/toolbox.lock"
if ! flock -n 9; then
  echo "toolbox: another run is making it; waiting for that one" >&2
  flock 9
fi
[ ! -e "$root/etc/dekoder-toolbox" ] || exit 0

# The lock is ours, so nobody works in the leftovers.
rm -rf --one-file-system -- "$cache"/toolbox-*.part "$cache"/toolbox-*.part.aside
free=$(df -Pm "$cache" | awk 'NR == 2 {print $4}')
[ "$free" -ge $needed_mib ] || fail "needs $needed_mib MiB under $cache, $free MiB are free" \
  "free some, or set XDG_CACHE_HOME to a folder on a larger local disk"

mkdir -p "$part"
log=$cache/toolbox.log
: > "$log"
echo "toolbox: making a private Debian 13 root in $root (once; log: $log)" >&2
trap 'code=$?; rm -rf --one-file-system -- "$part" "$part.aside"; exit $code' EXIT
trap 'exit 143' TERM

explain() { # explain WHAT: the last lines of the log, and what usually helps
  local hint=(
    "check the network and, behind a proxy, http_proxy/https_proxy or apt's Acquire::http::Proxy;"
    "DEKODER_DEBIAN_MIRROR names another Debian mirror, DEKODER_DEB_DIR a folder of Kokkos .deb files,"
    "$native")
  if grep -q "No space left" "$log" || [ "$(df -Pm "$cache" | awk 'NR == 2 {print $4}')" -lt 50 ]; then
    hint=("the disk of $cache is full: free some, or set XDG_CACHE_HOME to a folder on a larger local disk")
  fi
  { grep -E '^(E|W|Err)[: ]|rror' "$log" || tail -n 5 "$log"; } | tail -n 6 | sed 's/^/  | /' >&2
  fail "$1 failed (whole log: $log)" "${hint[@]}"
}

# fetch PACKAGE: its files below $aside, from the machine's own distribution, without installing anything.
aside=$part.aside
fetch() {
  rm -rf --one-file-system -- "$aside"
  mkdir -p "$aside"/{lists/partial,tree}
  local options=(-qq -o APT::Sandbox::User=root)
  (
    cd "$aside"
    apt-get "${options[@]}" download "$1" || {
      options+=(-o "Dir::State::Lists=$aside/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
      apt-get "${options[@]}" update && apt-get "${options[@]}" download "$1"
    }
    dpkg-deb -x "$1"_*.deb tree
  ) >> "$log" 2>&1
}

# Debian's archive: the machine's own mirror, or on another distribution the one its debootstrap package knows.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=${DEKODER_DEBIAN_MIRROR:-}
if [ -z "$mirror" ]; then
  mirror=$(apt-get indextargets --no-release-info --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages' 2> /dev/null |
    awk '$2 == "main" && $1 ~ /\/debian\/?$/ && $1 !~ /^(mirror|cdrom)/ {print $1; exit}')
fi
if [ -z "$mirror" ]; then
  fetch debootstrap || explain "downloading debootstrap, to learn a Debian mirror,"
  mirror=$(sed -nE 's#^DEF_MIRROR="(http[^"]*/debian/?)"$#\1#p' "$aside/tree/usr/sbin/debootstrap" | head -n 1)
fi
[ -n "$mirror" ] || fail "does not know a Debian mirror: this machine's apt names none" \
  "set DEKODER_DEBIAN_MIRROR to the address of one (what /etc/apt/sources.list of a Debian machine names)," "$native"
if [ ! -e "$keyring" ]; then
  fetch debian-archive-keyring || explain "downloading debian-archive-keyring, Debian's archive keys,"
  mkdir -p "$part/usr/share/keyrings"
  cp -L "$aside/tree$keyring" "$part$keyring" || explain "unpacking debian-archive-keyring"
  keyring=$part$keyring
fi
rm -rf --one-file-system -- "$aside"

# The machine's apt works on an empty system below $part: own lists, own state, own cache, no change outside.
apt_dir=$part/var/tmp/apt
mkdir -p "$apt_dir"/{lists/partial,cache/archives/partial,parts} "$part/var/lib/dpkg"
: > "$part/var/lib/dpkg/status"
printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" $suite > "$apt_dir/sources.list"
apt=(apt-get -qq
  -o Dir::Etc::sourcelist="$apt_dir/sources.list" -o Dir::Etc::sourceparts="$apt_dir/parts"
  -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts="$apt_dir/parts"
  -o Dir::State="$apt_dir" -o Dir::State::Lists="$apt_dir/lists" -o Dir::State::status="$part/var/lib/dpkg/status"
  -o Dir::Cache="$apt_dir/cache" -o APT::Sandbox::User=root -o APT::Architecture=amd64 -o APT::Architectures=amd64
  -o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o Acquire::Languages=none)

bootstrap() {
  # "-qq update" reports a network failure as a warning only.
  "${apt[@]}" -o APT::Update::Error-Mode=any update >> "$log" 2>&1 || explain "reading the package lists of $mirror"
  ls "$apt_dir"/lists/*Packages* > /dev/null 2>&1 || explain "reading the package lists of $mirror"
  "${apt[@]}" -y --no-install-recommends --download-only install '?essential' apt ca-certificates debian-archive-keyring \
    >> "$log" 2>&1 || explain "downloading the base system"
  local archives=$apt_dir/cache/archives deb first
  # Debian's merged /usr: base-files brings the links that the other packages need to be there.
  first=$(echo "$archives"/base-files_*.deb)
  for deb in "$first" "$archives"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -C "$part" -x --keep-directory-symlink >> "$log" 2>&1 || explain "unpacking ${deb##*/}"
  done
  mkdir -p "$part/usr/sbin" "$part/proc" "$part/sys" "$part/dev" "$part/run"
  printf '#!/bin/sh\nexit 101\n' > "$part/usr/sbin/policy-rc.d" # no package starts a daemon
  chmod 755 "$part/usr/sbin/policy-rc.d"
  mkdir -p "$part/etc/dpkg/dpkg.cfg.d"
  echo force-unsafe-io > "$part/etc/dpkg/dpkg.cfg.d/dekoder" # no fsync per file: an interrupted root is thrown away
  enter bash -c 'cd /var/tmp/apt/cache/archives &&
    dpkg --force-depends --install base-passwd_*.deb && dpkg --force-depends --install base-files_*.deb &&
    dpkg --force-depends --install *.deb && dpkg --configure --pending' >> "$log" 2>&1 || explain "configuring the base system"
}

enter() { # a command in the growing root, without the machine's folders
  DEBIAN_FRONTEND=noninteractive unshare --mount --propagation private -- bash -c '
    root=$1; shift
    for folder in proc sys dev; do mount --rbind /$folder "$root/$folder"; done
    [ ! -e /etc/resolv.conf ] || { rm -f "$root/etc/resolv.conf"; cp -L /etc/resolv.conf "$root/etc/resolv.conf"; }
    if [ -s /etc/ssl/certs/ca-certificates.crt ] && [ -d "$root/etc/ssl/certs" ]; then
      cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/dekoder-machine.crt"
    fi
    unset TMPDIR LD_LIBRARY_PATH LD_PRELOAD BASH_ENV
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root
    exec chroot "$root" env -C / "$@"' enter "$part" "$@"
}

step "Debian 13 base system" bootstrap
rm -rf --one-file-system -- "$apt_dir"

# The machine's apt settings that concern the network.
printf 'deb [signed-by=%s] %s %s main\n' "${keyring#"$part"}" "$mirror" $suite > "$part/etc/apt/sources.list"
{
  apt-config dump | grep -E '^Acquire::(http|https|ftp|Retries|Check-Valid-Until|Check-Date|ForceIPv)' |
    grep -vE '::(Auto-?Detect|Proxy-Auto-Detect|User-Agent)|[^"]"";$' || true
  echo 'Acquire::Languages "none";'
  [ ! -e "$part/etc/ssl/certs/dekoder-machine.crt" ] || echo 'Acquire::https::CAInfo "/etc/ssl/certs/dekoder-machine.crt";'
} > "$part/etc/apt/apt.conf.d/90machine"

[ ! -e /etc/pip.conf ] || cp -L /etc/pip.conf "$part/etc/pip.conf" # the machine's package index, proxy, certificates

mkdir -p "$part/usr/local/share/dekoder-setup/debs"
cp "$here"/{packages.txt,install_packages.sh,kokkos_kernels_prefix.sh} "$part/usr/local/share/dekoder-setup/"
deb_dir=
if [ -n "${DEKODER_DEB_DIR:-}" ]; then
  ls "$DEKODER_DEB_DIR"/*.deb > /dev/null 2>&1 || fail "DEKODER_DEB_DIR=$DEKODER_DEB_DIR holds no .deb file"
  cp "$DEKODER_DEB_DIR"/*.deb "$part/usr/local/share/dekoder-setup/debs/"
  deb_dir=/usr/local/share/dekoder-setup/debs
fi
enter env DEKODER_DEB_DIR="$deb_dir" DEKODER_LOG=/var/log/dekoder-setup.log \
  bash /usr/local/share/dekoder-setup/install_packages.sh >&2 2>> "$log" || {
  cat "$part/var/log/dekoder-setup.log" >> "$log" 2> /dev/null || true
  explain "installing the packages"
}
rm -rf "$part/usr/local/share/dekoder-setup/debs"
rm -f "$part/usr/sbin/policy-rc.d"
printf '%s\n' "[ ! -f /etc/bash.bashrc ] || . /etc/bash.bashrc" "PS1='(dekoder toolbox) \\w\\\$ '" > "$part/etc/dekoder-bashrc"
date -u +%FT%TZ > "$part/etc/dekoder-toolbox"
mv -T "$part" "$root"
older=$(ls -d "$cache"/toolbox-*/ | grep -vc "^$root/$" || true)
[ "$older" = 0 ] || echo "toolbox: $older older one(s) stand beside it; jobs/toolbox --remove removes all of them" >&2
echo "toolbox: ready ($(du -sm --one-file-system "$root" | cut -f1) MB, $SECONDS s)" >&2
