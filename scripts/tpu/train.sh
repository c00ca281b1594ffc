#!/usr/bin/env bash
# Starts a run on every worker of the TPU, or continues it, by scripts/supervise.sh. It goes on when the connection
# ends; scripts/tpu/logs.sh shows what it says. What follows -- goes to the trainer.
#
#   scripts/tpu/train.sh --type=v5litepod-8 --bucket=my-bucket
#   scripts/tpu/train.sh --type=v5litepod-8 --bucket=my-bucket --run=seed1 -- --config.seed=1
#
# Results go to runs/RUN in the project on the worker. Without --bucket that is the disk of the virtual machine, gone
# when the TPU is deleted or taken back. With --bucket the bucket is mounted at runs/ by Cloud Storage FUSE: what is
# saved outlives the TPU, and the same command on another TPU continues it.
#
# Types above 8 have several hosts, which need one work directory between them, and so a bucket, with a hierarchical
# namespace (scripts/tpu/setup.sh checks that). A Filestore share would do as well, but it is paid for by its size and
# has to be set up in the TPU's network.
#
set -euo pipefail
# shellcheck source=scripts/tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# All hosts should see at once what one of them wrote: so no cache of names and sizes, which FUSE would keep for ever on
# machines of this size. And what was closed or synced should be in the bucket: so no streaming, in which a sync does
# nothing.
mount_bucket() {
  cat <<END
mkdir -p runs
mountpoint -q runs || gcsfuse --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 \\
  --enable-streaming-writes=false $BUCKET runs
END
}

# Starts a command that outlives the connection. Supervisor and trainer hold the lock: two of each would spoil one
# another's run.
start() {
  cat <<END
if ! flock --nonblock run.lock true; then
  echo "\$(hostname): a run is going on already" >&2
  exit 1
fi
nohup setsid flock --nonblock run.lock \\
  $(quote "$@") >>$RUN.log 2>&1 </dev/null &
echo "\$(hostname): started; it writes to ~/wrn_jax/$RUN.log"
END
}

settings="NAME PROJECT TYPE ZONE BUCKET CONFIG RUN" takes_more=1
read_settings "$@"
supervised=(scripts/supervise.sh --config "$CONFIG" --workdir "runs/$RUN")
if has_several_hosts; then
  [ -n "$BUCKET" ] || fail "TYPE=$TYPE: has several hosts, which need a BUCKET between them; see --help"
  supervised+=(--distributed)
elif [ -z "$BUCKET" ]; then
  say "without a BUCKET the results are on the disk of the TPU's machine, and lost with it"
fi
on_worker all "$(
  worker_environment
  worker_python
  [ -z "$BUCKET" ] || mount_bucket
  start "${supervised[@]}" "${more[@]}"
)"
