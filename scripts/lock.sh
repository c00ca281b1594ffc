#!/usr/bin/env bash
# Writes the lock files anew: the versions that scripts/train.sh and scripts/test.sh install, one file for each supported
# Python, for all hardware. Needs uv (pip install uv). Run the tests on each Python before committing what it wrote.
set -euo pipefail
cd "$(dirname "$0")/.."
for python in 3.11 3.12 3.13; do
  # The environments build without isolation, so the build's requirement is locked like the others.
  echo 'setuptools>=77' | uv pip compile pyproject.toml - --extra cpu --extra cuda12 --extra cuda13 --extra tpu --extra export \
    --extra test --upgrade --quiet --no-annotate --no-header --python-version "$python" \
    --python-platform x86_64-manylinux_2_31 --output-file "scripts/locks/python$python.txt"
  echo "wrote scripts/locks/python$python.txt"
done
