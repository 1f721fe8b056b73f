#!/usr/bin/env bash
# Asks Google Cloud for TPUs that may be preempted, and starts a run on them as soon as there are any:
#
#     ZONE=us-west4-a BUCKET=gs://BUCKET configs/jobs/queued_resource.sh NAME --flagfile=configs/imagenet/noisy_sgd.flags
#
# BUCKET must hold this repository as noisy_sgd.tar.gz (git archive -o noisy_sgd.tar.gz HEAD) and gets the checkpoints, in
# BUCKET/NAME, and the run directory when the run ends, in BUCKET/records/NAME. DISK is a disk with the prepared images,
# which the machine mounts read-only on /mnt/imagenet. After a preemption delete the queued resource and run the same
# command again: the run continues. Delete it too when the run has ended; until then its TPUs are paid for.
set -euo pipefail

name="${1:?usage: queued_resource.sh NAME FLAGS...}"
shift
script="$(mktemp)"
trap 'rm -f "$script"' EXIT
cat >"$script" <<SCRIPT
#!/usr/bin/env bash
set -eu
mkdir -p /mnt/imagenet /opt/noisy_sgd
mountpoint -q /mnt/imagenet || mount -o ro,noload /dev/disk/by-id/google-persistent-disk-1 /mnt/imagenet
gcloud storage cat "$BUCKET/noisy_sgd.tar.gz" | tar -xz -C /opt/noisy_sgd
cd /opt/noisy_sgd
export AFTER="gcloud storage rsync --recursive runs/$name $BUCKET/records/$name"
exec configs/jobs/tpu_vm.sh$(printf ' %q' "$@") --data_dir=/mnt/imagenet --checkpoint_dir="$BUCKET/$name" --run_dir=runs/$name
SCRIPT

${GCLOUD:-gcloud} compute tpus queued-resources create "$name" --node-id="$name" --zone="${ZONE:?}" \
    --accelerator-type="${ACCELERATOR:-v5litepod-8}" --runtime-version="${RUNTIME:-v2-alpha-tpuv5-lite}" --spot \
    ${DISK:+--data-disk=source="$DISK",mode=read-only} --metadata-from-file=startup-script="$script"
