# shellcheck shell=bash
# Sourced by train.sh and test.sh. Makes .venv in the project, with the versions that the tests ran with and the JAX of the
# hardware found, and puts it on the PATH. A second call finds it made and takes a fraction of a second.
#
# PYTHON=python3.12             the Python to build on (default: the first supported one found)
# WRN_JAX_HARDWARE=cpu|cuda12|cuda13|tpu  instead of looking for hardware

project="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 2
}

python_version() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

find_python() {
  local candidate version candidates=(python3 python3.12 python3.11 python3.13)
  if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    version="$(python_version "$candidate")" || continue
    if [ -f "$project/scripts/locks/python$version.txt" ]; then
      echo "$candidate"
      return
    fi
  done
  fail "no supported Python among: ${candidates[*]}; supported are" \
    "$(cd "$project/scripts/locks" && echo python*.txt | sed 's/\.txt//g'); name one by PYTHON=..."
}

find_hardware() {
  local driver
  if [ -n "${WRN_JAX_HARDWARE:-}" ]; then
    case "$WRN_JAX_HARDWARE" in
      cpu | cuda12 | cuda13 | tpu) echo "$WRN_JAX_HARDWARE" ;;
      *) fail "WRN_JAX_HARDWARE=$WRN_JAX_HARDWARE: should be cpu, cuda12, cuda13 or tpu" ;;
    esac
  elif [[ "$(nvidia-smi -L 2>/dev/null)" == GPU* ]]; then
    # JAX's build for CUDA 13 needs a driver from 580 on, that for CUDA 12 one from 525 on.
    driver="$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | sed -n '1s/\..*//p')"
    if [[ "$driver" =~ ^[0-9]{1,5}$ ]] && [ "$driver" -ge 580 ]; then echo cuda13; else echo cuda12; fi
  elif [ -e /dev/accel0 ] || [ -e /dev/vfio/0 ]; then
    echo tpu
  else
    echo cpu
  fi
}

install_locked() {
  local lock="$1"
  shift
  "$project/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$lock" "$@"
}

make_environment() {
  local python hardware version lock stamp
  python="$(find_python)" || exit 2
  hardware="$(find_hardware)" || exit 2
  version="$(python_version "$python")"
  lock="$project/scripts/locks/python$version.txt"
  # What the environment was made from; anything else makes it anew.
  stamp="$project $version $hardware $(cat "$lock" "$project/pyproject.toml" | cksum)"
  if [ "$(cat "$project/.venv/made-from" 2>/dev/null)" != "$stamp" ]; then
    echo "setting up .venv: Python $version, JAX for $hardware, versions of scripts/locks/python$version.txt (a minute or two) ..."
    "$python" -m venv --clear "$project/.venv" || fail "$python cannot make a virtual environment (on Debian: apt install python3-venv)"
    if ! install_locked "$lock" setuptools ||
      ! install_locked "$lock" --no-build-isolation --editable "${project}[${hardware},export,test]"; then
      fail "installing failed; pip says why above"
    fi
    echo "$stamp" >"$project/.venv/made-from"
  fi
  export PATH="$project/.venv/bin:$PATH"
}
