#!/usr/bin/env bash
# Deletes the TPU with its disks, and its place in the queue; gcloud asks first. A bucket stays. Results on the disk of
# worker 0 are lost: scripts/tpu/fetch.sh before.
#
#   scripts/tpu/delete.sh
#
set -euo pipefail
# shellcheck source=scripts/tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

settings="NAME PROJECT TYPE ZONE"
read_settings "$@"
# --force: the virtual machines too, not only the request for them.
run gcloud compute tpus queued-resources delete "$NAME" "${place[@]}" --force
