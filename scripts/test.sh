#!/usr/bin/env bash
# Runs the tests, or those that the arguments name (as for pytest). Makes the environment it needs first; see
# scripts/environment.sh.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
make_environment
cd "$project"
ruff check .
exec python -m pytest "$@"
