#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# on_device.sh BUILD PROGRAM...: a test program of the cuda plug-in, where `BUILD/dekoder --backend cuda` finds a device. Where it
# says that there is none, exit code 77: skipped.
set -uo pipefail
unset CDPATH
source_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if ! said=$("$1/dekoder" describe "$source_folder/input/gpt2-124m.yaml" --backend cuda 2>&1); then
  printf '%s\n' "$said"
  [[ $said != *'reports no device here'* ]] || exit 77
  exit 1
fi
shift
exec "$@"
