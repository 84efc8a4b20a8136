# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# stoppable.sh, for bash scripts to source: a signal ends them at once, what they started goes no further than they do, and
# then their own clean_up runs, which it also does at any other end.
#   stoppable COMMAND...   runs COMMAND, also a function of the script's, in a process group of its own; its exit code

stoppable_group=''
stoppable() {
  local code=0
  set -m
  "$@" &
  stoppable_group=$!
  set +m
  wait "$stoppable_group" || code=$?
  stoppable_group=''
  return "$code"
}

stoppable_end() {
  [ -z "$stoppable_group" ] || {
    for signal in TERM 0 0 0 0 0 0 0 0 0 KILL; do # a second, until the last of the group has ended
      kill -s "$signal" -- "-$stoppable_group" || break
      sleep 0.1
    done
  } 2> /dev/null
  clean_up
}
trap stoppable_end EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
