#!/usr/bin/env bash
# Follows what a run says on a worker of the TPU; Ctrl-C ends this and not the run. Worker 0 tells the progress.
#
#   scripts/tpu/logs.sh
#
set -euo pipefail
# shellcheck source=scripts/tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

settings="NAME PROJECT TYPE ZONE CONFIG RUN WORKER"
read_settings "$@"
on_worker "$WORKER" "tail -n 100 -F wrn_jax/$RUN.log"
