#!/usr/bin/env bash
# Installs this package on a TPU machine and trains one run on its TPUs:
#
#     configs/jobs/tpu_vm.sh --flagfile=configs/imagenet/noisy_sgd.flags --data_dir=/mnt/imagenet \
#         --checkpoint_dir=gs://BUCKET/noisy_sgd --run_dir=runs/imagenet/noisy_sgd
#
# Needs Python 3.12 or 3.13 (PYTHON, default python3.12). On a slice of several hosts run it on every host; each host then
# trains a run of its own on its own chips, so give each its own --run_dir and --checkpoint_dir.
set -euo pipefail
cd "$(dirname "$0")/../.."

"${PYTHON:-python3.12}" -m venv .venv-tpu
.venv-tpu/bin/pip install -q -r configs/jobs/requirements-tpu.txt
.venv-tpu/bin/pip check

# Without these, libtpu on a host of a slice waits for all other hosts. Chips of a host: 4 of v4, v5p and large v5e slices.
if [ -n "${CHIPS_OF_HOST:-}" ]; then
    export TPU_PROCESS_BOUNDS=1,1,1 TPU_CHIPS_PER_PROCESS_BOUNDS="$CHIPS_OF_HOST" CLOUD_TPU_TASK_ID=0
fi
PYTHON=.venv-tpu/bin/python exec configs/jobs/start.sh "$@" --strategy=tpu --tpu=local --precision=bfloat16
