#!/usr/bin/env bash
# Copies the results of a run to runs/RUN here, checkpoints included: from the bucket, which needs no TPU, else from the
# disk of worker 0.
#
#   scripts/tpu/fetch.sh --bucket=my-bucket
#
set -euo pipefail
# shellcheck source=scripts/tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

settings="NAME PROJECT TYPE ZONE BUCKET CONFIG RUN"
read_settings "$@"
if [ -n "$BUCKET" ]; then
  run mkdir -p "runs/$RUN"
  run gcloud storage rsync --recursive "gs://$BUCKET/$RUN" "runs/$RUN"
else
  run mkdir -p runs
  run gcloud compute tpus tpu-vm scp --recurse "$NAME:wrn_jax/runs/$RUN" runs/ "${place[@]}" --worker=0
fi
