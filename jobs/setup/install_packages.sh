#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs packages.txt into the Debian 13 system it runs in, as root: the toolbox, an Apptainer image or a container.
# Without PyPI (a machine that reaches Debian's mirror alone) the "pip:" packages stay out, with a line that says so.
# Kokkos comes from Debian unstable and the Kokkos Kernels headers from experimental, both pinned so that nothing else
# moves. DEKODER_DEB_DIR may name a folder with .deb files of these two; they are then used instead.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
deb_dir=${DEKODER_DEB_DIR:-}
apt=(apt-get -qq -o Dpkg::Use-Pty=0 -o Acquire::Retries=3)

step() { # step TEXT COMMAND...: one line with the seconds it took
  local text=$1 start=$SECONDS
  shift
  "$@" >> "${DEKODER_LOG:-/dev/null}"
  printf '  %-58s %4d s\n' "$text" $((SECONDS - start))
}

list() { sed -E 's/#.*//; s/[[:space:]]+$//; /^$/d' "$here/packages.txt"; }
mapfile -t plain < <(list | grep -vE '/|^headers:|^pip:')
mapfile -t unstable < <(list | sed -nE '/^headers:/!s#/sid$##p')
mapfile -t from_pypi < <(list | sed -n 's/^pip://p')
headers=$(list | sed -n 's/^headers://p')

add_suites() {
  local mirror signed_by
  mirror=$(apt-get indextargets --no-release-info --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | head -n 1)
  [ -n "$mirror" ] || { echo "E: apt names no Debian mirror (apt-get indextargets)" >&2; exit 1; }
  signed_by=$(ls /usr/share/keyrings/debian-archive-keyring.{pgp,gpg} 2> /dev/null | head -n 1)
  printf 'deb [signed-by=%s check-valid-until=no] %s %s main\n' "$signed_by" "$mirror" sid \
    "$signed_by" "$mirror" experimental > /etc/apt/sources.list.d/dekoder-kokkos.list
  printf 'Package: *\nPin: release n=%s\nPin-Priority: %d\n\n' sid 50 experimental 10 \
    > /etc/apt/preferences.d/dekoder-kokkos
}

deb_file() { # the newest .deb of package $1 in DEKODER_DEB_DIR, or nothing
  [ -z "$deb_dir" ] || ls "$deb_dir/$1"_*.deb 2>/dev/null | sort -V | tail -n 1
}

install_kokkos() {
  local files=() name
  for name in libkokkos-dev libkokkos5; do
    for file in "${deb_dir:-/nonexistent}/$name"*_*.deb; do
      [ -e "$file" ] && files+=("$file")
    done
  done
  if [ ${#files[@]} -gt 0 ]; then
    "${apt[@]}" install -y --no-install-recommends "${files[@]}"
  else
    "${apt[@]}" install -y --no-install-recommends -t sid "${unstable[@]}"
  fi
  # The CMake package of libkokkos-dev names two static libraries that the .deb leaves out because they are empty.
  local libraries
  libraries=$(dirname "$(dpkg -L libkokkos-dev | grep -m 1 -E '/libkokkoscore\.(so|a)$')")
  for name in algorithms simd; do
    [ -e "$libraries/libkokkos$name.a" ] || ar qc "$libraries/libkokkos$name.a"
  done
}

install_kokkos_kernels() {
  local scratch deb
  scratch=$(mktemp -d)
  deb=$(deb_file "${headers%%/*}")
  if [ -z "$deb" ]; then
    (cd "$scratch" && chmod 755 . && "${apt[@]}" download "$headers")
    deb=$(echo "$scratch"/*.deb)
  fi
  dpkg-deb -x "$deb" "$scratch/tree"
  bash "$here/kokkos_kernels_prefix.sh" "$scratch/tree/usr/include/trilinos" /usr/local
  rm -rf "$scratch"
}

install_from_pypi() {
  # The machine's bundle of certificates, where the toolbox has put it beside Debian's: a proxy may need it.
  local bundle=/etc/ssl/certs/dekoder-machine.crt
  [ ! -e "$bundle" ] ||
    export PIP_CERT=$bundle REQUESTS_CA_BUNDLE=$bundle CURL_CA_BUNDLE=$bundle SSL_CERT_FILE=$bundle
  python3 -m pip install --quiet --break-system-packages --root-user-action ignore --disable-pip-version-check \
    --no-cache-dir --no-input "${from_pypi[@]}" || without_pypi=1
}

add_suites
step "package lists" "${apt[@]}" update
step "${#plain[@]} packages and what they need" "${apt[@]}" install -y --no-install-recommends "${plain[@]}"
step "Kokkos" install_kokkos
step "Kokkos Kernels (headers)" install_kokkos_kernels
without_pypi=
step "${#from_pypi[@]} packages of PyPI" install_from_pypi
[ -z "$without_pypi" ] || printf '  %s\n' \
  "without ${from_pypi[*]}: pip failed, PyPI may be out of reach; dekoder-tensorboard alone needs them; later:" \
  "bash jobs/toolbox python3 -m pip install --break-system-packages ${from_pypi[*]}"
"${apt[@]}" clean
