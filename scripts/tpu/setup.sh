#!/usr/bin/env bash
# Prepares every worker of the TPU: copies the last commit to ~/wrn_jax, makes the environment there, and downloads
# CIFAR-100, so that the start of a run waits for no download. Again after a new commit; what is there already is kept.
#
# With --bucket it also checks that the bucket can hold a run, and installs Cloud Storage FUSE, by which
# scripts/tpu/train.sh mounts it.
#
#   scripts/tpu/setup.sh --type=v5litepod-8 --bucket=my-bucket
#
set -euo pipefail
# shellcheck source=scripts/tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

archive=build/wrn_jax.tar.gz

# A checkpoint appears under its name when its folder is renamed. Without a hierarchical namespace that copies file
# after file, and a machine taken back in the middle leaves half a checkpoint that looks whole.
check_bucket() {
  local found
  found="$(run gcloud storage buckets describe "gs://$BUCKET" --raw --format='value(hierarchicalNamespace.enabled)')"
  if [ -n "$dry_run" ]; then
    echo "$found"
  elif [ "${found,,}" != true ]; then
    fail "gs://$BUCKET: has no hierarchical namespace; make one by: gcloud storage buckets create gs://NAME" \
      "--location=${ZONE%-*} --uniform-bucket-level-access --enable-hierarchical-namespace"
  fi
}

send_checkout() {
  [ -n "$dry_run" ] || git diff --quiet HEAD || say "sending the last commit; changes since stay here"
  run mkdir -p build
  run git archive --format=tar.gz --output="$archive" HEAD
  run gcloud compute tpus tpu-vm scp "$archive" "$NAME:" "${place[@]}" --worker=all
}

# Google's own steps (https://docs.cloud.google.com/storage/docs/cloud-storage-fuse/install). A new machine may still be
# updating itself and hold the lock of apt.
install_gcsfuse() {
  cat <<'END'
key=/usr/share/keyrings/cloud.google.asc
sudo curl -fsSL -o "$key" https://packages.cloud.google.com/apt/doc/apt-key.gpg
echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
  sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
sudo apt-get -qq -o DPkg::Lock::Timeout=600 update
sudo apt-get -qq -o DPkg::Lock::Timeout=600 install gcsfuse
END
}

unpack() {
  cat <<'END'
mkdir -p wrn_jax
tar -xzf wrn_jax.tar.gz -C wrn_jax
python3 -m pip install --quiet --user --upgrade uv
uv python install --quiet 3.12
END
}

make_environment() {
  cat <<'END'
scripts/train.sh --help >/dev/null
.venv/bin/python -m wrn_jax.prepare --name cifar100 --download
END
}

settings="NAME PROJECT TYPE ZONE BUCKET"
read_settings "$@"
[ -z "$BUCKET" ] || check_bucket
send_checkout
on_worker all "$(
  worker_environment
  [ -z "$BUCKET" ] || install_gcsfuse
  unpack
  worker_python
  make_environment
)"
