#!/usr/bin/env bash
# Trains. Without arguments: the quickstart, about two minutes on two CPU cores, no download.
# With arguments: python -m wrn_jax.train with these arguments, for example
#   scripts/train.sh --config configs/session04.py
# Makes the environment it needs first; see scripts/environment.sh.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
make_environment
if [ $# -eq 0 ]; then
  set -- --config "$project/configs/quickstart.py"
  echo "training configs/quickstart.py: session 04's recipe in miniature on an embedded data set"
fi
exec python -m wrn_jax.train "$@"
