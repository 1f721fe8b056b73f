#!/usr/bin/env bash
# Installs this package on a machine with NVIDIA GPUs and trains one run on all of them:
#
#     configs/jobs/gpu_host.sh --flagfile=configs/imagenet/noisy_sgd.flags --data_dir=/mnt/imagenet
#
# Needs Python 3.11, 3.12 or 3.13 (PYTHON, default python3) and NVIDIA's driver; TensorFlow brings CUDA. For one run on
# several such machines set HOSTS and INDEX as in start.sh, and add --strategy=multi_worker.
set -euo pipefail
cd "$(dirname "$0")/../.."

"${PYTHON:-python3}" -m venv .venv-gpu
.venv-gpu/bin/pip install -q -r requirements.txt "tensorflow[and-cuda]==2.21.0"
.venv-gpu/bin/pip check

strategy=mirrored
[ -z "${HOSTS:-}" ] || strategy=multi_worker
PYTHON=.venv-gpu/bin/python exec configs/jobs/start.sh "$@" --strategy="$strategy"
