#!/usr/bin/env bash
# Asks Google Cloud for a TPU and waits until it is there, which takes from minutes to days. If this is interrupted, the
# request stays in the queue, and the same command waits on. The TPU costs money from then on, until
# scripts/tpu/delete.sh.
#
#   scripts/tpu/create.sh --type=v5litepod-8
#
set -euo pipefail
# shellcheck source=scripts/tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

state() {
  run gcloud compute tpus queued-resources describe "$NAME" "${place[@]}" --format='value(state.state)'
}

create() {
  local tier=()
  [ "$SPOT" = 0 ] || tier=(--spot)
  run gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" "${place[@]}" \
    --accelerator-type="$TYPE" --runtime-version="$RUNTIME" "${tier[@]}"
}

wait_until_active() {
  local now before=""
  while true; do
    # One failed question, by a network fault, does not end hours of waiting.
    now="$(state)" || now="not known"
    [ "$now" = "$before" ] || say "$NAME is $now"
    before="$now"
    case "$now" in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING)
        say "it will not become active; scripts/tpu/delete.sh, then ask again"
        exit 1
        ;;
    esac
    sleep 30
  done
}

settings="NAME PROJECT TYPE ZONE RUNTIME SPOT"
read_settings "$@"
if [ -n "$dry_run" ]; then
  create
  state
else
  state >/dev/null 2>&1 || create
  wait_until_active
fi
