#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# native.sh: exit code 0 where the machine's own packages (modules, Spack, Debian) can build dekoder, so that no toolbox is
# needed. DEKODER_NATIVE=1 says yes and DEKODER_NATIVE=0 says no without looking; inside the toolbox it is yes.
unset CDPATH
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
[ -z "${DEKODER_TOOLBOX:-}" ] || exit 0
case ${DEKODER_NATIVE:-} in
  1) exit 0 ;;
  0) exit 1 ;;
esac
command -v cmake > /dev/null && command -v ninja > /dev/null || exit 1
trial=$(mktemp -d)
cmake -S "$checkout" -B "$trial" -G Ninja -DDEKODER_TESTS=OFF > /dev/null 2>&1
code=$?
rm -rf "$trial"
exit $code
