#!/usr/bin/env bash
# Trains one run to its end, through preemptions: configs/jobs/start.sh --flagfile=configs/imagenet/noisy_sgd.flags ...
#
# The flags are those of noisy_sgd.experiments.train. Started again with the same flags, the run continues from its newest
# checkpoint. A run that failed (status 1: a lost worker, a full disk) is started again up to RETRIES times. Bad flags
# (status 2) end it at once. SIGTERM is handed on: the run saves a checkpoint and ends with status 75, and so does this.
#
# AFTER is a command for bash that is run when this ends in any of these ways, such as one that copies the run directory
# from a disk that will be lost.
#
# Several hosts: HOSTS=10.0.0.1:2222,10.0.0.2:2222 INDEX=0 makes this host the first of two workers of one run
# (--strategy=multi_worker), by the variable TF_CONFIG.
set -uo pipefail

python="${PYTHON:-python3}" retries="${RETRIES:-20}" pause="${PAUSE:-30}"
if [ -n "${HOSTS:-}" ]; then
    TF_CONFIG="{\"cluster\": {\"worker\": [\"${HOSTS//,/\", \"}\"]}, \"task\": {\"type\": \"worker\", \"index\": ${INDEX:?}}}"
    export TF_CONFIG
fi

trap '[ -z "${AFTER:-}" ] || bash -c "$AFTER"' EXIT
child="" stopped=""
stop() {
    stopped=1
    [ -z "$child" ] || kill -TERM "$child"
}
trap stop TERM INT

while true; do
    "$python" -m noisy_sgd.experiments.train "$@" &
    child=$!
    wait "$child"
    status=$?
    # A signal ends the first wait, and not the run.
    while kill -0 "$child" 2>/dev/null; do
        wait "$child"
        status=$?
    done
    case "$status" in 0 | 2) exit "$status" ;; esac
    [ -z "$stopped" ] || exit "$status"
    retries=$((retries - 1))
    if [ "$retries" -lt 0 ]; then
        echo "start.sh: the run failed too often (status $status); see what it said last." >&2
        exit "$status"
    fi
    echo "start.sh: the run ended with status $status; it starts again in $pause s." >&2
    sleep "$pause" &
    wait $!
    [ -z "$stopped" ] || exit "$status"
done
