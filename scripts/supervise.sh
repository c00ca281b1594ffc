#!/usr/bin/env bash
# Trains until the run is done: runs scripts/train.sh with these arguments and --resume=auto, and again each time it was
# killed, crashed or was interrupted.
#
#   scripts/supervise.sh --config configs/session04.py --workdir runs/session04
#
# --workdir is needed: a restart finds there what to continue. The same command starts a run and continues it.
#
# It ends with the trainer's exit code when that is
#   0   done
#   2   a mistake that you can mend
#   3   loss or gradient norm no longer finite
# and after any other it waits 1 s, then 2 s, 4 s, ... up to 60 s, and restarts; an epoch or a checkpoint gained sets
# the wait back to 1 s. SIGTERM, SIGINT, SIGUSR1 and SIGUSR2 are passed to the trainer, SIGHUP as SIGTERM; when that has
# ended, so does the supervisor.
#
# In the environment:
#   MAX_RESTARTS=100    give up after so many restarts
#   MAX_FAILURES=5      give up after so many failures in a row without progress
#   FIRST_WAIT_MS=1000  milliseconds to wait before the first restart
#   TRAIN=COMMAND       run this program instead of scripts/train.sh
set -euo pipefail

say() {
  echo "supervise: $*" >&2 || true  # nobody may read it
}

fail() {
  say "$*"
  exit 2
}

# Prints the value of --workdir; the last one counts, as for the trainer.
find_workdir() {
  local argument found="" is_next=""
  for argument in "$@"; do
    if [ -n "$is_next" ]; then
      found="$argument"
      is_next=""
    else
      case "$argument" in
        --workdir) is_next=1 ;;
        --workdir=*) found="${argument#*=}" ;;
      esac
    fi
  done
  # As the trainer reads it.
  case "$found" in "~" | "~/"*) found="$HOME${found#\~}" ;; esac
  echo "$found"
}

# Prints a setting that should be a whole number.
number() {
  local value="${!1:-$2}"
  # Nine digits stay within the shell's arithmetic; a leading 0 would be octal there.
  [[ "$value" =~ ^(0|[1-9][0-9]{0,8})$ ]] || fail "$1=$value: should be a whole number, for example $2"
  echo "$value"
}

# Prints what counts as progress: the number of epochs on record, and the complete checkpoints. What a crash leaves half
# written has other names, and a record that only differs in its timings is no progress.
gained() {
  { wc -l <"$workdir/metrics.jsonl" || true; } 2>/dev/null
  { find "$workdir/checkpoints" -maxdepth 1 -name '[0-9]*' -not -name '*[!0-9]*' | sort || true; } 2>/dev/null
}

# Handles a signal to the supervisor.
pass_on() {
  stopping="$1"
  interrupted_wait=1
  if [ -n "$trainer" ]; then
    passed=1
    say "SIG$1: passed to the trainer; waiting for it to end"
    kill -s "$1" "$trainer" 2>/dev/null || true
  fi
  [ -z "$sleeper" ] || kill "$sleeper" 2>/dev/null || true
}

# Runs the trainer to its end and leaves its exit code in `code`.
run_trainer() {
  local status
  passed=""
  # Started under job control the trainer is a process group of its own: Ctrl-C on a terminal then reaches only the
  # supervisor. The trainer would else get it twice, and a second signal makes it exit at once, without saving. Not for
  # longer, or `wait` would take a trainer that is only stopped (SIGSTOP) for one that has ended.
  set -m
  "$train" "$@" --resume=auto </dev/null &
  trainer=$!
  set +m
  # A signal may have come before there was a trainer to pass it to.
  if [ -n "$stopping" ] && [ -z "$passed" ]; then
    pass_on "$stopping"
  fi
  code=127
  while true; do
    interrupted_wait=""
    status=0
    # The shell would say on stderr which child was killed; the supervisor says so itself.
    wait "$trainer" 2>/dev/null || status=$?
    # After a signal `wait` returns early. Asked again it has the trainer's code, or 127 if it gave that already.
    [ "$status" -eq 127 ] || code=$status
    [ -n "$interrupted_wait" ] || break
  done
  trainer=""
}

# Waits so many milliseconds, or until a signal comes.
pause() {
  local seconds
  # Without a subshell: a signal could end that in the middle of its writing, and it would tell of a broken pipe.
  printf -v seconds '%d.%03d' $(($1 / 1000)) $(($1 % 1000))
  sleep "$seconds" &
  sleeper=$!
  # A signal may have come before there was a sleeper to end.
  [ -z "$stopping" ] || kill "$sleeper" 2>/dev/null || true
  wait "$sleeper" 2>/dev/null || true
  # Again, since a signal ends `wait` early; else the shell would tell of the killed sleeper later.
  wait "$sleeper" 2>/dev/null || true
  sleeper=""
}

describe() {
  if [ "$1" -eq 75 ]; then
    echo "interrupted, all saved"
  elif [ "$1" -gt 128 ] && kill -l "$1" >/dev/null 2>&1; then
    echo "killed by SIG$(kill -l "$1")"
  else
    echo "crashed"
  fi
}

# Whether the trainer's exit code says that another start would be no use.
is_final() {
  case "$code" in
    0) say "done" ;;
    2) say "the trainer ended with exit code 2, a mistake to mend first; not restarting" ;;
    3) say "the trainer ended with exit code 3, the numbers diverged; not restarting" ;;
    *) return 1 ;;
  esac
}

# Counts a failure and waits; false if it was one too many. $1: what had been gained before this start.
may_restart() {
  local ended
  ended="the trainer ended with exit code $code ($(describe "$code"))"
  if [ "$(gained)" != "$1" ]; then
    failures=0
    wait_ms=$first_wait_ms
  else
    failures=$((failures + 1))
    if [ "$failures" -ge "$max_failures" ]; then
      say "$ended; giving up, failures in a row without progress: $failures"
      return 1
    fi
  fi
  if [ "$restarts" -ge "$max_restarts" ]; then
    say "$ended; giving up, restarts so far: $restarts"
    return 1
  fi
  restarts=$((restarts + 1))
  say "$ended; restart $restarts of at most $max_restarts in $wait_ms ms"
  pause "$wait_ms"
  wait_ms=$((wait_ms * 2 < 60000 ? wait_ms * 2 : 60000))
}

supervise() {
  local before
  while [ -z "$stopping" ]; do
    before="$(gained)"
    run_trainer "$@"
    if is_final; then
      return
    fi
    if [ -z "$stopping" ] && ! may_restart "$before"; then
      return
    fi
  done
  say "stopped by SIG$stopping, the trainer's exit code was $code; the same command continues the run"
}

case "${1:-}" in
  -h | --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac
train="${TRAIN:-$(dirname "${BASH_SOURCE[0]}")/train.sh}"
workdir="$(find_workdir "$@")"
[ -n "$workdir" ] || fail "--workdir DIR is missing; a restart finds there what to continue"
max_restarts="$(number MAX_RESTARTS 100)"
max_failures="$(number MAX_FAILURES 5)"
first_wait_ms="$(number FIRST_WAIT_MS 1000)"

restarts=0 failures=0 wait_ms=$first_wait_ms
code=0 trainer="" sleeper="" stopping="" passed="" interrupted_wait=""
# A reader of standard error that went away is no reason to end; the trainer ignores SIGPIPE as well.
trap '' PIPE
trap 'pass_on TERM' TERM HUP
for name in INT USR1 USR2; do
  # shellcheck disable=SC2064  # which signal it is, is known here
  trap "pass_on $name" "$name"
done
supervise "$@"
exit "$code"
