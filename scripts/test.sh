#!/usr/bin/env bash
# Runs the tests, or those that the arguments name (as for pytest); with --quick as first argument those of one or two
# minutes. Makes the environment it needs first; see scripts/environment.sh. Reports are tested in Chromium or Chrome: where
# neither is found, root installs Debian's, and for others these tests are skipped.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"

find_browser() {
  local name
  for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && return
  done
  return 1
}

if ! find_browser && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing chromium, for the tests of reports in a browser ..."
  if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium; } >/dev/null; then
    echo "test.sh: chromium could not be installed; the tests in a browser will be skipped" >&2
  fi
fi
make_environment
cd "$project"
ruff check .
ruff format --check --quiet .
if [ "${1:-}" = --quick ]; then
  shift
  set -- -m "not slow" "$@"
fi
# Three workers on two cores, since some tests wait. Each takes whole files; tests/conftest.py brings those with slow tests
# to the front.
exec python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder "$@"
