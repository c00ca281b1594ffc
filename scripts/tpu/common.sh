# shellcheck shell=bash
# shellcheck disable=SC2034  # the scripts that source this read what it sets
# Sourced by the scripts beside it: their settings, dry runs, and how to reach the workers of a TPU.
#
# Why gcloud's queued resources and not SkyPilot: both end at the same Cloud TPU API, so that SkyPilot reaches no TPU
# that gcloud does not. gcloud is kept by those who run the TPUs and is what their documentation shows; a queued request
# waits until there is room; and six short commands need no further package, server or description language. What Google
# says of that API concerns both: it gets corrections only, and TPUs after v6e are reached by Compute Engine or GKE.

script="$(cd "$(dirname "$0")" && pwd)/$(basename "$0")"
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit # the project; all paths below start from it

# What each script says before it calls read_settings: the settings that it takes, and whether more may follow after --.
settings="" takes_more=""

say() {
  echo "$(basename "$0"): $*" >&2
}

fail() {
  say "$*"
  exit 2
}

declare -A about=(
  [NAME]="name of the TPU (default: wrn-jax)"
  [PROJECT]="Google Cloud project (default: gcloud's own setting)"
  [TYPE]="v4-N, v5litepod-N, v5p-N or v6e-N (default: v5litepod-8)"
  [ZONE]="zone (default: one that has the type, see below)"
  [RUNTIME]="software of the virtual machines (default: the one for the type, see below)"
  [SPOT]="1: cheaper, and may be taken back at any time; 0: on demand (default: 1)"
  [BUCKET]="Cloud Storage bucket that holds the results (default: none, the disk of the virtual machine)"
  [CONFIG]="configuration file (default: configs/session04.py)"
  [RUN]="name of the run, whose work directory is runs/NAME (default: that of the configuration file)"
  [WORKER]="number of the worker, or all (default: 0)"
)

usage() {
  local name
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$script"
  echo "Settings, as flags or as environment variables of the names in capitals:"
  for name in $settings; do
    printf '  --%-9s  %-8s  %s\n' "${name,,}" "$name" "${about[$name]}"
  done
  echo "  --dry-run             print the commands, quoted for a shell, and run none; needs no gcloud"
  echo "  --help                this text"
  echo
  echo "type       zone           runtime"
  for name in v4 v5litepod v5p v6e; do
    printf '%-9s  %-13s  %s\n' "$name" "$(zone_of "$name")" "$(runtime_of "$name")"
  done
}

# A zone where Google offers the type (https://docs.cloud.google.com/tpu/docs/regions-zones).
zone_of() {
  case "$1" in
    v4) echo us-central2-b ;;
    v5litepod | v5p) echo us-central1-a ;;
    v6e) echo us-central1-b ;;
  esac
}

# What Google names for JAX on the type (https://docs.cloud.google.com/tpu/docs/runtimes).
runtime_of() {
  case "$1" in
    v4) echo tpu-ubuntu2204-base ;;
    v5litepod) echo v2-alpha-tpuv5-lite ;;
    v5p) echo v2-alpha-tpuv5 ;;
    v6e) echo v2-alpha-tpuv6e ;;
  esac
}

# Takes the settings from the flags, else from the environment; what follows -- is left in `more`.
read_settings() {
  local flag name
  dry_run="" more=()
  while [ $# -gt 0 ]; do
    flag="${1%%=*}"
    name="${flag#--}"
    name="${name^^}"
    case "$1" in
      -h | --help)
        usage
        exit 0
        ;;
      --dry-run) dry_run=1 ;;
      --)
        [ -n "$takes_more" ] || fail "--: nothing can follow; --help shows all flags"
        shift
        more=("$@")
        break
        ;;
      *)
        [[ "$flag" == --[a-z]* && " $settings " == *" $name "* ]] || fail "$flag: no such flag; --help shows all"
        if [ "$flag" = "$1" ]; then
          [ $# -gt 1 ] || fail "$flag: needs a value"
          shift
        fi
        printf -v "$name" '%s' "${1#"$flag="}"
        ;;
    esac
    shift
  done
  fill_in
  check_settings
}

fill_in() {
  local family
  NAME="${NAME:-wrn-jax}" PROJECT="${PROJECT:-}" TYPE="${TYPE:-v5litepod-8}" SPOT="${SPOT:-1}" WORKER="${WORKER:-0}"
  family="${TYPE%-*}"
  ZONE="${ZONE:-$(zone_of "$family")}" RUNTIME="${RUNTIME:-$(runtime_of "$family")}"
  BUCKET="${BUCKET:-}"
  BUCKET="${BUCKET#gs://}" BUCKET="${BUCKET%/}"
  CONFIG="${CONFIG:-configs/session04.py}"
  RUN="${RUN:-$(basename "$CONFIG" .py)}"
}

# Several of these become part of a command for another machine's shell; what passes needs no quoting there.
check_settings() {
  check NAME '^[a-z]([-a-z0-9]{0,60}[a-z0-9])?$' "should be small letters, digits and dashes"
  check TYPE '^(v4|v5litepod|v5p|v6e)-[1-9][0-9]{0,4}$' "should be v4-N, v5litepod-N, v5p-N or v6e-N"
  check SPOT '^[01]$' "should be 0 or 1"
  check WORKER '^(all|[0-9]+)$' "should be a number or all"
  check BUCKET '^([a-z0-9][-_.a-z0-9]*)?$' "should be the name of a bucket, without a folder"
  check CONFIG '^[A-Za-z0-9][-_./A-Za-z0-9]*$' "should be a path within the project, of letters, digits and -_./"
  check RUN '^[A-Za-z0-9][-_.A-Za-z0-9]*$' "should be letters, digits and -_."
  [ -f "$CONFIG" ] || fail "CONFIG=$CONFIG: no such file in the project"
  place=(--zone="$ZONE")
  [ -z "$PROJECT" ] || place+=(--project="$PROJECT")
  [ -n "$dry_run" ] || command -v gcloud >/dev/null ||
    fail "gcloud is not installed (https://cloud.google.com/sdk/docs/install); --dry-run shows the commands without it"
}

check() {
  [[ "${!1}" =~ $2 ]] || fail "$1=${!1}: $3"
}

# v4 and v5p count cores, two on a chip, and have four chips on a host; v5e and v6e count chips, up to eight on a host.
# So each type up to 8 is one virtual machine.
has_several_hosts() {
  [ "${TYPE##*-}" -gt 8 ]
}

# Prints its arguments as a line that a shell reads back as the same.
quote() {
  local argument separator="" end="'"
  for argument in "$@"; do
    if [[ ! "$argument" =~ ^[-_./:=@%+,A-Za-z0-9]+$ ]]; then
      argument="$end${argument//$end/$end\\$end$end}$end"
    fi
    printf '%s%s' "$separator" "$argument"
    separator=" "
  done
  echo
}

# Runs a command, or prints it in a dry run.
run() {
  if [ -n "$dry_run" ]; then
    quote "$@"
  else
    "$@"
  fi
}

# Runs a command on a worker (a number, or all).
on_worker() {
  run gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker="$1" --command="$2"
}

# What a command on a worker begins with.
worker_environment() {
  cat <<'END'
set -eu
cd
export PATH="$HOME/.local/bin:$PATH" WRN_JAX_HARDWARE=tpu
END
}

# The Python that the environment is built with, the same for setting up and for training: one that uv brings, since the
# machine's own may be too old.
worker_python() {
  cat <<'END'
PYTHON="$(uv python find --managed-python 3.12)"
export PYTHON
cd wrn_jax
END
}
